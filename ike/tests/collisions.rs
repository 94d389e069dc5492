//! HOSTILE 25: both sides rekey and delete at once, in every order of commands, arrivals and losses.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation is the point

mod explore;
mod pair;

use core::time::Duration;

use explore::{Command, Story, explore, sample};
use pair::{Pair, Side};

fn one_survives(pair: &mut Pair) {
    pair.assert_children(1);
    assert_eq!((pair.client.occupancy().ike_sas, pair.server.occupancy().ike_sas), (1, 1), "IKE SAs");
    assert!(pair.at_client.ike_down.is_empty() && pair.at_server.ike_down.is_empty());
    // And what survived can be used: it is rekeyed once more, by both, one after the other.
    for side in [Side::Client, Side::Server] {
        let (spi, now) = (pair.only_child(side), pair.now);
        pair.endpoint(side).rekey_child(now, spi).unwrap();
        pair.run(Duration::from_secs(1));
        pair.assert_children(1);
        assert_ne!(pair.only_child(side), spi);
    }
    pair.assert_no_leak();
}

fn none_survives(pair: &mut Pair) {
    pair.assert_children(0);
}

fn story(seed: u8, commands: &[Command], losses: usize) -> Story<'_> {
    Story { seed, siblings: 0, commands, losses }
}

use Command::{DeleteAll, DeleteChild, RekeyChild, RekeyIke};
use Side::{Client, Server};

#[test]
fn hostile_25_both_rekey_the_child() {
    let mut settled = 0;
    for seed in 0..3 {
        let ways = explore(&story(seed, &[RekeyChild(Client, 0), RekeyChild(Server, 0)], 0), one_survives);
        assert!(ways > 10, "{ways}");
        settled += ways;
    }
    assert!(settled > 30);
}

#[test]
fn hostile_25_both_rekey_the_child_and_a_datagram_is_lost() {
    explore(&story(3, &[RekeyChild(Client, 0), RekeyChild(Server, 0)], 1), one_survives);
}

#[test]
fn hostile_25_both_rekey_the_ike_sa() {
    for seed in 0..3 {
        explore(&story(seed, &[RekeyIke(Client), RekeyIke(Server)], 0), one_survives);
    }
}

#[test]
fn hostile_25_both_rekey_the_ike_sa_and_a_datagram_is_lost() {
    for seed in 3..5 {
        explore(&story(seed, &[RekeyIke(Client), RekeyIke(Server)], 1), one_survives);
    }
}

#[test]
fn hostile_25_one_rekeys_the_child_and_the_other_the_ike_sa() {
    for (child, ike) in [(Client, Server), (Server, Client), (Client, Client)] {
        explore(&story(5, &[RekeyChild(child, 0), RekeyIke(ike)], 1), one_survives);
    }
}

#[test]
fn hostile_25_one_rekeys_the_child_and_the_other_deletes_it() {
    for (rekeys, deletes) in [(Client, Server), (Server, Client), (Client, Client)] {
        explore(&story(6, &[RekeyChild(rekeys, 0), DeleteChild(deletes, 0)], 1), |pair| {
            let count = pair.at_client.children.len();
            assert!(count <= 1, "{count} children");
            pair.assert_children(count);
        });
    }
}

#[test]
fn hostile_25_both_delete_the_child() {
    explore(&story(7, &[DeleteChild(Client, 0), DeleteChild(Server, 0)], 1), none_survives);
}

#[test]
fn hostile_25_both_delete_everything() {
    explore(&story(8, &[DeleteAll(Client), DeleteAll(Server)], 1), |pair| {
        none_survives(pair);
        assert!(pair.client.is_idle() && pair.server.is_idle());
    });
}

#[test]
fn hostile_25_one_rekeys_the_ike_sa_and_the_other_deletes_everything() {
    for (rekeys, deletes) in [(Client, Server), (Server, Client)] {
        explore(&story(9, &[RekeyIke(rekeys), DeleteAll(deletes)], 1), |pair| {
            assert!(pair.endpoint(deletes).is_idle());
        });
    }
}

#[test]
fn hostile_25_everyone_rekeys_everything() {
    let commands = [RekeyChild(Client, 0), RekeyIke(Client), RekeyIke(Server), RekeyChild(Server, 0)];
    for losses in 0..3 {
        sample(&story(10, &commands, losses), 700, one_survives);
    }
}

#[test]
fn hostile_25_a_peer_that_uses_its_new_ike_sa_has_decided_for_it() {
    let commands = [RekeyIke(Client), RekeyIke(Server), DeleteChild(Server, 0)];
    for losses in 0..3 {
        sample(&story(11, &commands, losses), 700, none_survives);
    }
}
