//! Senders that die, owners that follow each other, and a facility whose answers are lost or late: no number twice.

use super::tests::child;
use super::*;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

struct World {
    random: ChaCha8Rng,
    now: Instant,
    marks: Marks,
    /// What the facility holds of the one SA.
    record: u64,
    settings: MarkSettings,
    esn: bool,
    /// Transactions under way, also of owners that are owners no more.
    asked: Vec<(u32, Raise)>,
    owner: u32,
    /// Each sender's next number and the mark that it was told. All go on, also those that were replaced.
    senders: Vec<(u64, u64)>,
    used_max: u64,
    used: std::collections::BTreeSet<u64>,
}

impl World {
    fn chance(&mut self, percent: u64) -> bool {
        self.random.next_u64() % 100 < percent
    }

    fn give(&mut self) {
        if let Some(from) = self.marks.give(child(1)) {
            assert!(!self.esn || self.senders.is_empty() || from < self.used_max + (1 << 31));
            self.senders.push((from, self.marks.below(child(1)).unwrap()));
        }
    }

    /// The facility refuses the transactions of a stale epoch, and those that expect another record.
    fn settle(&mut self, owner: u32, raise: &Raise) {
        let raised = raise.marks[0];
        let is_done = owner == self.owner && raised.from == self.record;
        if is_done {
            assert!(raised.below >= self.record, "the mark went back");
            self.record = raised.below;
        }
        if owner == self.owner && self.chance(70) {
            let told = if is_done {
                self.marks.handle_raised(raise.ticket)
            } else {
                self.marks.handle_found(raise.ticket, &[(child(1), self.record)])
            };
            told.into_iter().for_each(|(_, below)| self.senders.last_mut().unwrap().1 = below);
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.next_u64() % 200);
        match self.random.next_u64() % 100 {
            0..60 => {
                let index = (self.random.next_u64() % self.senders.len() as u64) as usize;
                let burst = self.random.next_u64() % 40;
                let (next, mark) = self.senders[index];
                let end = (next + burst).min(mark).max(next);
                for number in next..end {
                    assert!(number < self.record, "used what is not durable");
                    assert!(self.used.insert(number), "{number} was used twice");
                }
                self.used_max = self.used_max.max(end.saturating_sub(1));
                self.senders[index].0 = end;
                if index + 1 == self.senders.len() && end > next {
                    self.marks.observe(self.now, child(1), end);
                }
            }
            60..90 => {
                if let Some(raise) = self.marks.poll_raise(self.now) {
                    self.asked.push((self.owner, raise));
                }
                if !self.asked.is_empty() && self.chance(70) {
                    let index = (self.random.next_u64() % self.asked.len() as u64) as usize;
                    let (owner, raise) = self.asked.swap_remove(index);
                    self.settle(owner, &raise);
                }
            }
            90..95 => self.give(),
            _ => {
                self.owner += 1;
                self.marks = Marks::new(self.settings);
                self.marks.restore(self.now, child(1), self.esn, self.record, self.record);
                self.give();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_number_twice_over_any_senders_and_owners(seed: u64, esn: bool, reserve_min in 5_u64..200) {
        let settings = MarkSettings { reserve_min, reserve_max: 1_000, ..MarkSettings::default() };
        let mut marks = Marks::new(settings);
        let below = marks.at_birth(1);
        marks.born(Instant::ZERO, child(1), esn, 1, below);
        let mut world = World {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: Instant::ZERO,
            marks,
            record: below,
            settings,
            esn,
            asked: Vec::new(),
            owner: 1,
            senders: Vec::new(),
            used_max: 0,
            used: std::collections::BTreeSet::new(),
        };
        world.give();
        for _ in 0..3_000 {
            world.step();
        }
        prop_assert!(world.used.len() > 50, "hardly anything was sent: {}", world.used.len());
    }
}
