//! HOSTILE 25: both sides rekey and delete at once, in every order of commands, arrivals and losses.
//!
//! Each test runs the same small story again and again from the start, and each time takes another way at one of the
//! forks: which command is given next, which datagram arrives next, which one is lost. When nothing is left to choose,
//! time passes, lost messages are sent again, and both sides must have come to the same peace.
#![allow(clippy::unwrap_used, clippy::panic)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::EndpointConfig;
use ipsec::Spi;
use pair::{Pair, Side, client_settings, server_settings};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    RekeyChild(Side),
    RekeyIke(Side),
    DeleteChild(Side),
    DeleteAll(Side),
}

/// One fork of the way.
#[derive(Clone, Copy, Debug)]
enum Move {
    Give(usize),
    Deliver(usize),
    Lose(usize),
}

/// The forks of one run: at each, how many ways there are and which one is taken.
#[derive(Default)]
struct Plan {
    forks: Vec<(usize, usize)>,
    /// Takes any way at a new fork instead of the first.
    dice: Option<ChaCha20Rng>,
}

impl Plan {
    fn choose(&mut self, at: usize, ways: usize) -> usize {
        if at == self.forks.len() {
            let taken = self.dice.as_mut().map_or(0, |dice| dice.next_u32() as usize % ways);
            self.forks.push((ways, taken));
        }
        assert_eq!(self.forks[at].0, ways, "the same start must lead to the same forks");
        self.forks[at].1
    }

    /// The next way, the last fork first; false if all have been taken.
    fn next(&mut self) -> bool {
        while let Some((ways, taken)) = self.forks.pop() {
            if taken + 1 < ways {
                self.forks.push((ways, taken + 1));
                return true;
            }
        }
        false
    }
}

struct Story<'a> {
    seed: u8,
    commands: &'a [Command],
    losses: usize,
}

fn give(pair: &mut Pair, command: Command, children: (Spi, Spi)) {
    let now = pair.now;
    let spi = |side| if side == Side::Client { children.0 } else { children.1 };
    // By the time the command is given its child may be gone, which is an answer like any other.
    let _ = match command {
        Command::RekeyChild(side) => pair.endpoint(side).rekey_child(now, spi(side)),
        Command::RekeyIke(side) => pair.endpoint(side).rekey_ike(now, spi(side)),
        Command::DeleteChild(side) => pair.endpoint(side).delete_child(now, spi(side)),
        Command::DeleteAll(side) => {
            pair.endpoint(side).initiate_shutdown(now);
            Ok(())
        }
    };
    pair.drain();
}

fn run(story: &Story<'_>, plan: &mut Plan) -> Pair {
    let config = EndpointConfig::default();
    let mut pair = Pair::with(story.seed, config, client_settings(), server_settings());
    pair.connect();
    let client = pair.only_child(Side::Client);
    let children = (client, pair::other_spi(&client, &pair, Side::Client));
    let mut commands: Vec<Command> = story.commands.to_vec();
    let mut losses = story.losses;
    let mut at = 0;
    loop {
        let flying = pair.flying.len();
        let mut moves: Vec<Move> = (0..commands.len()).map(Move::Give).collect();
        moves.extend((0..flying).map(Move::Deliver));
        if losses > 0 {
            moves.extend((0..flying).map(Move::Lose));
        }
        if moves.is_empty() {
            return pair;
        }
        let taken = if moves.len() == 1 { 0 } else { plan.choose(at, moves.len()) };
        at += usize::from(moves.len() > 1);
        let nth = |pair: &mut Pair, nth: usize| {
            let key = *pair.flying.keys().nth(nth).unwrap();
            pair.flying.remove(&key).unwrap()
        };
        match moves[taken] {
            Move::Give(command) => give(&mut pair, commands.remove(command), children),
            Move::Deliver(which) => {
                let (to, datagram) = nth(&mut pair, which);
                pair.deliver(to, &datagram);
            }
            Move::Lose(which) => {
                nth(&mut pair, which);
                losses -= 1;
            }
        }
    }
}

/// Runs the story in all ways and lets `check` look at each end.
fn explore(story: &Story<'_>, check: impl Fn(&mut Pair)) -> usize {
    let mut plan = Plan::default();
    let mut ways = 0;
    loop {
        let mut pair = run(story, &mut plan);
        pair.run(Duration::from_secs(200));
        pair.assert_no_leak();
        check(&mut pair);
        ways += 1;
        assert!(ways < 200_000, "too many ways");
        if !plan.next() {
            return ways;
        }
    }
}

/// Runs the story in so many ways, taken by chance: for stories with too many to try them all.
fn sample(story: &Story<'_>, ways: u64, check: impl Fn(&mut Pair)) {
    for way in 0..ways {
        let mut plan = Plan { forks: Vec::new(), dice: Some(ChaCha20Rng::seed_from_u64(way)) };
        let mut pair = run(story, &mut plan);
        pair.run(Duration::from_secs(200));
        pair.assert_no_leak();
        check(&mut pair);
    }
}

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
    Story { seed, commands, losses }
}

use Command::{DeleteAll, DeleteChild, RekeyChild, RekeyIke};
use Side::{Client, Server};

#[test]
fn hostile_25_both_rekey_the_child() {
    let mut settled = 0;
    for seed in 0..3 {
        let ways = explore(&story(seed, &[RekeyChild(Client), RekeyChild(Server)], 0), one_survives);
        assert!(ways > 10, "{ways}");
        settled += ways;
    }
    assert!(settled > 30);
}

#[test]
fn hostile_25_both_rekey_the_child_and_a_datagram_is_lost() {
    explore(&story(3, &[RekeyChild(Client), RekeyChild(Server)], 1), one_survives);
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
        explore(&story(5, &[RekeyChild(child), RekeyIke(ike)], 1), one_survives);
    }
}

#[test]
fn hostile_25_one_rekeys_the_child_and_the_other_deletes_it() {
    for (rekeys, deletes) in [(Client, Server), (Server, Client), (Client, Client)] {
        explore(&story(6, &[RekeyChild(rekeys), DeleteChild(deletes)], 1), |pair| {
            let count = pair.at_client.children.len();
            assert!(count <= 1, "{count} children");
            pair.assert_children(count);
        });
    }
}

#[test]
fn hostile_25_both_delete_the_child() {
    explore(&story(7, &[DeleteChild(Client), DeleteChild(Server)], 1), none_survives);
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
    let commands = [RekeyChild(Client), RekeyIke(Client), RekeyIke(Server), RekeyChild(Server)];
    for losses in 0..3 {
        sample(&story(10, &commands, losses), 700, one_survives);
    }
}

#[test]
fn hostile_25_a_peer_that_uses_its_new_ike_sa_has_decided_for_it() {
    let commands = [RekeyIke(Client), RekeyIke(Server), DeleteChild(Server)];
    for losses in 0..3 {
        sample(&story(11, &commands, losses), 700, none_survives);
    }
}
