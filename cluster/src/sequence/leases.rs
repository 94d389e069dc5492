//! Blocks of numbers for each sender, for peers that are known to have large windows.
//!
//! A sender that has a block sends on it without asking anyone; its packets lie as far from another's as their blocks do,
//! so a client's window must span several blocks. The client's window says how large they are: all that may be in use
//! at once lie within half of it, a quarter of that each. Blocks never overlap, lie below the durable mark, and are never
//! given twice: what a sender does not use soon is lost, for the client may be further on by then.

use ipsec::time::Instant;

use core::time::Duration;

use super::budget;
use crate::id::{Incarnation, MemberId};

/// A sender uses a block for so long after it came.
pub const USE_WITHIN: Duration = Duration::from_millis(25);
/// The owner counts it as used up or lost so long after it was given: longer than it is used, by what it takes to arrive.
const ABANDON_AFTER: Duration = Duration::from_millis(50);

/// Consecutive numbers for one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first number.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// The blocks of one SA.
#[derive(Debug)]
pub struct Leases {
    block_packets: u64,
    /// Blocks that may be in use at once lie within so many numbers.
    span_packets: u64,
    next: u64,
    /// One for each member.
    holders: Vec<Holder>,
}

/// The last block of a member.
#[derive(Clone, Copy, Debug)]
struct Holder {
    member: MemberId,
    incarnation: Incarnation,
    block: Block,
    given_at: Instant,
}

impl Leases {
    /// For a client with a window of so many packets, beginning at a number that nobody can have used.
    #[must_use]
    pub fn new(window_packets: u32, first: u64) -> Self {
        let span_packets = budget(window_packets);
        Self { block_packets: (span_packets / 4).max(1), span_packets, next: first.max(1), holders: Vec::new() }
    }

    /// A block for a member that wants numbers, and whose next would be `next_number`. `None` if it may still be using
    /// its last one, or has not got it yet; if another member may be using one that lies too far behind; or if no whole
    /// block lies below the mark, which must be raised then. In each case the member asks again.
    #[must_use]
    pub fn lease(
        &mut self,
        now: Instant,
        member: MemberId,
        incarnation: Incarnation,
        next_number: u64,
        mark: u64,
    ) -> Option<Block> {
        let mine = self.holders.iter().position(|holder| holder.member == member);
        if let Some(holder) = mine.and_then(|index| self.holders.get(index)) {
            let is_begun = next_number < holder.block.first + holder.block.count;
            let is_same = incarnation == holder.incarnation;
            if incarnation < holder.incarnation || (is_same && is_begun && holder.may_be_used(now)) {
                return None;
            }
        }
        let others = self.holders.iter().filter(|holder| holder.member != member && holder.may_be_used(now));
        let oldest = others.map(|holder| holder.block.first).min().unwrap_or(self.next);
        let end = mark.min(oldest.saturating_add(self.span_packets));
        let past_end = self.next.checked_add(self.block_packets).filter(|&past_end| past_end <= end)?;
        let block = Block { first: self.next, count: self.block_packets };
        self.next = past_end;
        let holder = Holder { member, incarnation, block, given_at: now };
        match mine.and_then(|index| self.holders.get_mut(index)) {
            Some(mine) => *mine = holder,
            None => self.holders.push(holder),
        }
        Some(block)
    }

    /// A member is gone. Its block is lost.
    pub fn forget(&mut self, member: MemberId) {
        self.holders.retain(|holder| holder.member != member);
    }

    /// The first number that is in no block.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }
}

impl Holder {
    fn may_be_used(&self, now: Instant) -> bool {
        now < self.given_at + ABANDON_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const ONE: Incarnation = Incarnation(1);
    const MARK: u64 = 1 << 20;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn wanting_twice_before_a_block_is_used_up_gives_one_block() {
        let mut leases = Leases::new(8_000, 1);
        let block = leases.lease(at(0), A, ONE, 0, MARK).unwrap();
        assert_eq!(block, Block { first: 1, count: 1_000 });
        assert_eq!(leases.lease(at(1), A, ONE, 0, MARK), None);
        assert_eq!(leases.lease(at(1), A, ONE, 1_000, MARK), None, "one is left");
        assert_eq!(leases.lease(at(1), A, ONE, 1_001, MARK).unwrap().first, 1_001);
        assert_eq!(leases.lease(at(2), A, Incarnation(2), 0, MARK).unwrap().first, 2_001);
        assert_eq!(leases.lease(at(99), A, ONE, 0, MARK), None, "that start of it is over");
    }

    #[test]
    fn a_block_that_never_arrived_is_lost_and_another_is_given() {
        let mut leases = Leases::new(80, 1);
        assert!(leases.lease(at(0), A, ONE, 0, MARK).is_some());
        assert_eq!(leases.lease(at(49), A, ONE, 0, MARK), None);
        assert_eq!(leases.lease(at(50), A, ONE, 0, MARK).unwrap().first, 11);
    }

    #[test]
    fn nobody_runs_away_from_a_block_that_another_may_still_use() {
        let mut leases = Leases::new(80, 1);
        assert_eq!(leases.lease(at(0), A, ONE, 0, MARK).unwrap().first, 1);
        for first in [11, 21, 31] {
            assert_eq!(leases.lease(at(1), B, ONE, first, MARK).unwrap().first, first, "up to 40, half of the window");
        }
        assert_eq!(leases.lease(at(49), B, ONE, 41, MARK), None);
        assert_eq!(leases.lease(at(50), B, ONE, 41, MARK).unwrap().first, 41, "A does not use its own any more");
    }

    #[test]
    fn only_whole_blocks_below_the_mark_are_given() {
        let mut leases = Leases::new(80, 1);
        assert_eq!(leases.lease(at(0), A, ONE, 0, 10), None);
        assert!(leases.lease(at(0), A, ONE, 0, 11).is_some());
    }

    proptest! {
        /// Members that come, go and come again, and owners that begin at the mark: no number twice.
        #[test]
        fn blocks_never_overlap(
            steps in prop::collection::vec((0_u16..4, 1_u64..4, any::<bool>(), 0_u8..20), 1..200),
            window_packets in 0_u32..400,
        ) {
            let (mut leases, mut mark) = (Leases::new(window_packets, 1), 200);
            let mut given = BTreeSet::new();
            for (index, (member, incarnation, is_used, fault)) in steps.into_iter().enumerate() {
                match fault {
                    0 => leases.forget(MemberId(member)),
                    1 => { leases = Leases::new(window_packets, mark); mark += 200; }
                    2 => mark += 200,
                    _ => {
                        let next = if is_used { u64::MAX } else { 0 };
                        let now = at(10 * index as u64);
                        let block = leases.lease(now, MemberId(member), Incarnation(incarnation), next, mark);
                        for number in block.map_or(0..0, |block| block.first..block.first + block.count) {
                            prop_assert!(number < mark && given.insert(number), "{}", number);
                        }
                    }
                }
            }
        }
    }
}
