//! Blocks of numbers for each sender, for peers that are known to have large windows or none.
//!
//! A sender that has a block sends on it without asking anyone; its packets lie as far from another's as their blocks do,
//! so a client's window must span several blocks. Blocks never overlap, lie below the durable mark, and are never given
//! twice: what a sender does not use is lost.

use ipsec::time::Instant;

use core::time::Duration;

use crate::id::{Incarnation, MemberId};

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
    next: u64,
    /// Members by number: the last block, and when it was given.
    holders: Vec<(MemberId, Incarnation, Block, Instant)>,
}

/// A member that wants another block so soon has not got the last one yet.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

impl Leases {
    /// Blocks of so many packets, beginning at a number that nobody can have used.
    #[must_use]
    pub fn new(block_packets: u64, first: u64) -> Self {
        Self { block_packets: block_packets.max(1), next: first.max(1), holders: Vec::new() }
    }

    /// A block for a member that wants numbers and has said that its next would be `next_number` (0 if it does not
    /// know). `None` if it has a block whose use it has not begun, or if no whole block lies below the mark: then the
    /// mark must be raised, and the member asks again.
    #[must_use]
    pub fn lease(
        &mut self,
        now: Instant,
        member: MemberId,
        incarnation: Incarnation,
        next_number: u64,
        mark: u64,
    ) -> Option<Block> {
        let known = self.holders.iter().position(|holder| holder.0 == member);
        if let Some(&(_, known, last, at)) = known.map(|index| &self.holders[index]) {
            let is_unused = known == incarnation && next_number < last.first;
            if incarnation < known || (is_unused && now < at + AGAIN_AFTER) {
                return None;
            }
        }
        let past_end = self.next.checked_add(self.block_packets).filter(|&past_end| past_end <= mark)?;
        let block = Block { first: self.next, count: self.block_packets };
        self.next = past_end;
        match known {
            Some(index) => self.holders[index] = (member, incarnation, block, now),
            None => self.holders.push((member, incarnation, block, now)),
        }
        Some(block)
    }

    /// A member is gone. Its block is lost.
    pub fn forget(&mut self, member: MemberId) {
        self.holders.retain(|holder| holder.0 != member);
    }

    /// The first number that is in no block.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: MemberId = MemberId(1);
    const ONE: Incarnation = Incarnation(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn wanting_twice_before_a_block_came_gives_one_block() {
        let mut leases = Leases::new(1_000, 1);
        let block = leases.lease(at(0), A, ONE, 0, 1 << 20).unwrap();
        assert_eq!(block, Block { first: 1, count: 1_000 });
        assert_eq!(leases.lease(at(1), A, ONE, 0, 1 << 20), None);
        let begun = leases.lease(at(2), A, ONE, 600, 1 << 20).unwrap();
        assert_eq!(begun.first, 1_001);
        assert_eq!(leases.lease(at(3), A, Incarnation(2), 0, 1 << 20).unwrap().first, 2_001);
        assert_eq!(leases.lease(at(99), A, ONE, 0, 1 << 20), None, "that start of it is over");
    }

    #[test]
    fn a_block_that_never_arrived_is_lost_and_another_is_given() {
        let mut leases = Leases::new(10, 1);
        assert!(leases.lease(at(0), A, ONE, 0, 100).is_some());
        assert_eq!(leases.lease(at(50), A, ONE, 0, 100).unwrap().first, 11);
    }

    #[test]
    fn only_whole_blocks_below_the_mark_are_given() {
        let mut leases = Leases::new(10, 1);
        assert_eq!(leases.lease(at(0), A, ONE, 0, 10), None);
        assert!(leases.lease(at(0), A, ONE, 0, 11).is_some());
    }

    proptest! {
        /// Members that come, go and come again, and owners that begin at the mark: no number twice.
        #[test]
        fn blocks_never_overlap(
            steps in prop::collection::vec((0_u16..4, 1_u64..4, any::<bool>(), 0_u8..20), 1..200),
            block_packets in 1_u64..50,
        ) {
            let (mut leases, mut mark) = (Leases::new(block_packets, 1), 200);
            let mut given = BTreeSet::new();
            for (index, (member, incarnation, begun, fault)) in steps.into_iter().enumerate() {
                match fault {
                    0 => leases.forget(MemberId(member)),
                    1 => { leases = Leases::new(block_packets, mark); mark += 200; }
                    2 => mark += 200,
                    _ => {
                        let next = if begun { u64::MAX } else { 0 };
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
