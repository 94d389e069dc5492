//! HOSTILE 25 with several equal CHILD_SAs: which of them is meant is told by its SPI and by nothing else.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod explore;
mod pair;

use core::time::Duration;

use explore::Command::{AddSibling, DeleteAll, DeleteChild, RekeyChild, RekeyIke};
use explore::{Command, Story, explore, sample};
use ipsec::Spi;
use pair::Side::{Client, Server};
use pair::{Installed, Pair};

/// A story that begins with a child and so many siblings.
fn story(seed: u8, siblings: usize, commands: &[Command], losses: usize) -> Story<'_> {
    Story { seed, siblings, commands, losses }
}

/// Of every child of the beginning just one descendant lives, by what each side was told at its installation.
fn each_line_lives_on(at: &Installed, beginning: &[Spi]) {
    let ended = |spi: &Spi| at.downs.iter().any(|(down, _)| down == spi);
    let alive = at.ups.iter().filter(|spi| !ended(spi)).count();
    assert_eq!(alive, beginning.len());
    assert_eq!(alive, at.children.len());
}

fn all_survive(pair: &mut Pair, count: usize) {
    pair.assert_children(count);
    for at in [&pair.at_client, &pair.at_server] {
        each_line_lives_on(at, &at.ups[..count]);
        assert!(at.ike_down.is_empty() && at.rekey_failed.is_empty(), "{:?}", at.rekey_failed);
    }
    assert_eq!((pair.client.occupancy().ike_sas, pair.server.occupancy().ike_sas), (1, 1));
    // What was a sibling at the server has a sibling for its successor, whoever made that.
    let first = pair.at_server.ups[0];
    let siblings = pair.at_server.children.values().filter(|up| up.sibling_of == Some(first)).count();
    assert_eq!(siblings, count - 1);
    // And each can be replaced once more, by either side.
    let left: Vec<Spi> = pair.at_server.children.keys().copied().collect();
    for (number, spi) in left.into_iter().enumerate() {
        let side = [Client, Server][number % 2];
        let (named, now) = (if side == Server { spi } else { pair::other_spi(&spi, pair, Server) }, pair.now);
        pair.endpoint(side).rekey_child(now, named).unwrap();
        pair.run(Duration::from_secs(1));
        assert!(!pair.at_server.children.contains_key(&spi));
        pair.assert_children(count);
    }
    pair.assert_no_leak();
}

fn collisions(pair: &Pair) -> u64 {
    pair.client.counters().collisions + pair.server.counters().collisions
}

#[test]
fn hostile_25_two_equal_children_rekeyed_at_once_by_one_side_each_are_no_collision() {
    let commands = [RekeyChild(Client, 0), RekeyChild(Server, 1)];
    for losses in 0..2 {
        let ways = explore(&story(0, 1, &commands, losses), |pair| {
            assert_eq!(collisions(pair), 0);
            all_survive(pair, 2);
        });
        assert!(ways > 10, "{ways}");
    }
}

#[test]
fn hostile_25_two_equal_children_rekeyed_at_once_by_both_sides_are_settled_one_by_one() {
    let commands = [RekeyChild(Client, 0), RekeyChild(Server, 0), RekeyChild(Client, 1)];
    for seed in 0..2 {
        explore(&story(seed, 1, &commands, 0), |pair| all_survive(pair, 2));
    }
    let commands = [RekeyChild(Client, 0), RekeyChild(Server, 0), RekeyChild(Client, 1), RekeyChild(Server, 1)];
    for losses in 0..3 {
        sample(&story(2, 1, &commands, losses), 500, |pair| all_survive(pair, 2));
    }
}

#[test]
fn hostile_25_crosswise_rekeying_of_equal_children_meets_every_kind_of_order() {
    let both = |which| [RekeyChild(Client, which), RekeyChild(Server, which)];
    let commands = [both(0), both(1), both(2)].concat();
    let with_ike = [&commands[..], &[RekeyIke(Client), RekeyIke(Server)]].concat();
    for losses in 0..2 {
        sample(&story(3, 2, &commands, losses), 300, |pair| all_survive(pair, 3));
        sample(&story(4, 2, &with_ike, losses), 300, |pair| all_survive(pair, 3));
    }
}

/// Each wish of the server for a sibling was answered once, and no peer has been too strict: how many there are.
fn answered(pair: &Pair) -> usize {
    let at = &pair.at_server;
    let made = pair.server.counters().siblings_up as usize;
    assert_eq!(made + at.siblings_refused.len(), pair.wishes, "{:?}", at.siblings_refused);
    assert!(at.siblings_refused.iter().all(|(_, for_good, _)| !for_good), "{:?}", at.siblings_refused);
    made
}

#[test]
fn hostile_25_a_sibling_is_asked_for_while_the_peer_replaces_the_child_or_the_ike_sa() {
    for other in [RekeyChild(Client, 0), RekeyChild(Server, 0), RekeyIke(Client), RekeyIke(Server)] {
        explore(&story(5, 0, &[AddSibling(Server, 0), other], 1), |pair| {
            let made = answered(pair);
            assert!(made == pair.wishes || other == RekeyIke(Client), "{other:?}");
            pair.assert_children(1 + made);
            assert!(pair.at_server.ike_down.is_empty() && pair.at_client.ike_down.is_empty());
        });
    }
}

#[test]
fn hostile_25_a_sibling_is_asked_for_while_either_side_deletes_the_child() {
    for other in [DeleteChild(Client, 0), DeleteChild(Server, 0)] {
        explore(&story(6, 0, &[AddSibling(Server, 0), other], 1), |pair| {
            let made = answered(pair);
            pair.assert_children(made);
            assert!(pair.at_server.ike_down.is_empty() && pair.at_client.ike_down.is_empty());
        });
    }
}

#[test]
fn hostile_25_a_sibling_is_asked_for_while_the_peer_or_we_end_everything() {
    for side in [Client, Server] {
        explore(&story(7, 0, &[AddSibling(Server, 0), DeleteAll(side)], 1), |pair| {
            pair.assert_children(0);
            assert!(pair.endpoint(side).is_idle());
            answered(pair);
        });
    }
}

#[test]
fn hostile_25_both_sides_ask_for_a_sibling_of_the_same_child() {
    explore(&story(8, 0, &[AddSibling(Server, 0), AddSibling(Client, 0)], 1), |pair| {
        pair.assert_children(3);
        assert_eq!((answered(pair), pair.wishes, pair.client.counters().siblings_up), (1, 1, 1));
    });
}

#[test]
fn hostile_25_siblings_come_go_and_change_in_any_order() {
    let commands = [
        AddSibling(Server, 0),
        AddSibling(Client, 1),
        RekeyChild(Server, 1),
        RekeyChild(Client, 2),
        DeleteChild(Client, 1),
        RekeyIke(Client),
        RekeyIke(Server),
    ];
    for losses in 0..3 {
        sample(&story(9, 2, &commands, losses), 500, |pair| {
            let count = pair.at_server.children.len();
            pair.assert_children(count);
            assert!((2..=5).contains(&count), "{count}");
            answered(pair);
            assert!(pair.at_server.ike_down.is_empty() && pair.at_client.ike_down.is_empty());
        });
    }
}
