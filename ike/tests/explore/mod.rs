//! The same small story in every order of commands, arrivals and losses.
//!
//! It is run again and again from the start, and each time takes another way at one of the forks: which command is given
//! next, which datagram arrives next, which one is lost. When nothing is left to choose, time passes, lost messages are
//! sent again, and both sides must have come to the same peace.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part; a failed expectation is the point

use core::time::Duration;

use ike::config::EndpointConfig;
use ipsec::Spi;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::pair::{Pair, Side, client_settings, other_spi, server_settings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The number is that of a child of the beginning, counted from zero.
    RekeyChild(Side, usize),
    RekeyIke(Side),
    DeleteChild(Side, usize),
    DeleteAll(Side),
    AddSibling(Side, usize),
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

/// What is told again and again: which commands are given while so many datagrams at most get lost.
pub struct Story<'a> {
    pub seed: u8,
    /// Siblings that the first child has from the beginning.
    pub siblings: usize,
    pub commands: &'a [Command],
    pub losses: usize,
}

fn give(pair: &mut Pair, command: Command, children: &[(Spi, Spi)]) {
    let now = pair.now;
    let spi = |side, which: usize| if side == Side::Client { children[which].0 } else { children[which].1 };
    // By the time the command is given its child may be gone, which is an answer like any other.
    let given = match command {
        Command::RekeyChild(side, which) => pair.endpoint(side).rekey_child(now, spi(side, which)),
        Command::RekeyIke(side) => pair.endpoint(side).rekey_ike(now, spi(side, 0)),
        Command::DeleteChild(side, which) => pair.endpoint(side).delete_child(now, spi(side, which)),
        Command::AddSibling(side, which) => pair.endpoint(side).add_sibling(now, spi(side, which)),
        Command::DeleteAll(side) => {
            pair.endpoint(side).initiate_shutdown(now);
            Ok(())
        }
    };
    pair.wishes += usize::from(matches!(command, Command::AddSibling(Side::Server, _)) && given.is_ok());
    pair.drain();
}

fn run(story: &Story<'_>, plan: &mut Plan) -> Pair {
    let config = EndpointConfig::default();
    let mut pair = Pair::with(story.seed, config, client_settings(), server_settings());
    pair.connect();
    let first = pair.only_child(Side::Server);
    for _ in 0..story.siblings {
        let now = pair.now;
        pair.server.add_sibling(now, first).unwrap();
        pair.wishes += 1;
        pair.run(Duration::from_secs(1));
    }
    let named = |spi: &Spi| (other_spi(spi, &pair, Side::Server), *spi);
    let children: Vec<(Spi, Spi)> = pair.at_server.ups.iter().map(named).collect();
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
            Move::Give(command) => give(&mut pair, commands.remove(command), &children),
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
pub fn explore(story: &Story<'_>, check: impl Fn(&mut Pair)) -> usize {
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
pub fn sample(story: &Story<'_>, ways: u64, check: impl Fn(&mut Pair)) {
    for way in 0..ways {
        let mut plan = Plan { forks: Vec::new(), dice: Some(ChaCha20Rng::seed_from_u64(way)) };
        let mut pair = run(story, &mut plan);
        pair.run(Duration::from_secs(200));
        pair.assert_no_leak();
        check(&mut pair);
    }
}
