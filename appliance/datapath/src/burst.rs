//! A burst: up to [`BURST`] packets that travel together.
//!
//! A burst is a value of fixed capacity; no stage allocates. A stage narrows a burst: what it refuses leaves the burst,
//! is freed and is counted under its [`DropReason`] in one motion.

use crate::drops::{DROP_REASONS, DropReason};
use arrayvec::ArrayVec;

/// Packets in one burst, as in DPDK's examples: long enough to pay for the calls, short enough for the first-level cache.
pub const BURST: usize = 32;

/// Up to [`BURST`] owned packets.
pub type Burst<T> = ArrayVec<T, BURST>;

/// Drops counted while a burst is worked on, added to the core's ledger when it is done.
#[derive(Debug, Clone)]
pub struct Drops {
    counts: [u64; DROP_REASONS],
}

impl Default for Drops {
    fn default() -> Self {
        Drops { counts: [0; DROP_REASONS] }
    }
}

impl Drops {
    /// Ends one packet here: frees it and counts why.
    pub fn end<T>(&mut self, packet: T, reason: DropReason) {
        drop(packet);
        self.counts[reason as usize] += 1;
    }

    /// Counts a packet that ends here, and whose memory serves for another.
    pub fn note(&mut self, reason: DropReason) {
        self.counts[reason as usize] += 1;
    }

    /// Ends every packet that is left in `burst`.
    pub fn end_all<T>(&mut self, burst: &mut Burst<T>, reason: DropReason) {
        self.counts[reason as usize] += burst.len() as u64;
        burst.clear();
    }

    /// The count of one reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.counts[reason as usize]))
    }
}

/// Runs `stage` over every packet in order: `Ok` goes on into the returned burst, `Err` ends there, counted.
pub fn narrow<T, U>(
    burst: &mut Burst<T>,
    drops: &mut Drops,
    mut stage: impl FnMut(T) -> Result<U, (T, DropReason)>,
) -> Burst<U> {
    let mut passed = Burst::new();
    for packet in burst.drain(..) {
        match stage(packet) {
            // Never over capacity: both bursts hold BURST packets.
            Ok(packet) => passed.push(packet),
            Err((packet, reason)) => drops.end(packet, reason),
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stage_refuses_is_counted_and_gone() {
        let mut drops = Drops::default();
        let mut burst: Burst<u32> = (0..10).collect();
        let even = narrow(&mut burst, &mut drops, |n| if n % 2 == 0 { Ok(n) } else { Err((n, DropReason::NoRoute)) });
        assert_eq!(even.as_slice(), [0, 2, 4, 6, 8]);
        assert!(burst.is_empty());
        assert_eq!(drops.get(DropReason::NoRoute), 5);
    }
}
