//! Rings between the data cores: one for each ordered pair, one producer, one consumer, no lock.
//!
//! The receiving core finds out whose packet it is and hands it over; it never waits. A full ring is a counted drop, so
//! two cores that hand to each other cannot stop each other.

use crate::burst::Burst;
use rtrb::chunks::ChunkError;
use rtrb::{Consumer, Producer, RingBuffer};

/// One core's ends of the mesh.
#[derive(Debug)]
pub struct Handover<T> {
    own: usize,
    to: Vec<Option<Producer<T>>>,
    from: Vec<Consumer<T>>,
    /// Which ring to empty first: it moves on with each visit, so that no sender starves another.
    first: usize,
}

/// The rings that join `cores` cores, `depth` packets deep each; element `n` belongs to core `n`.
pub fn mesh<T>(cores: usize, depth: usize) -> Vec<Handover<T>> {
    let mut ends: Vec<Handover<T>> = (0..cores)
        .map(|own| Handover { own, to: (0..cores).map(|_| None).collect(), from: Vec::new(), first: 0 })
        .collect();
    for sender in 0..cores {
        for receiver in (0..cores).filter(|&receiver| receiver != sender) {
            let (producer, consumer) = RingBuffer::new(depth);
            ends[sender].to[receiver] = Some(producer);
            ends[receiver].from.push(consumer);
        }
    }
    ends
}

impl<T> Handover<T> {
    /// This core's number.
    pub fn own(&self) -> usize {
        self.own
    }

    /// How many cores the mesh joins.
    pub fn cores(&self) -> usize {
        self.to.len()
    }

    /// Gives `burst` to `core`. What found no room stays in the burst, in order.
    pub fn give(&mut self, core: usize, burst: &mut Burst<T>) {
        let Some(Some(ring)) = self.to.get_mut(core) else { return };
        let count = burst.len().min(ring.slots());
        if let Ok(chunk) = ring.write_chunk_uninit(count) {
            chunk.fill_from_iter(burst.drain(..count));
        }
    }

    /// Takes what other cores have given, up to a burst.
    pub fn take(&mut self, burst: &mut Burst<T>) {
        let rings = self.from.len();
        for offset in 0..rings {
            let ring = &mut self.from[(self.first + offset) % rings];
            let count = ring.slots().min(burst.remaining_capacity());
            match ring.read_chunk(count) {
                Ok(chunk) => burst.extend(chunk),
                // `slots` never promises more than there is.
                Err(ChunkError::TooFewSlots(_)) => {}
            }
        }
        self.first = if rings == 0 { 0 } else { (self.first + 1) % rings };
    }

    /// Packets that wait for this core now.
    pub fn waiting(&self) -> usize {
        self.from.iter().map(Consumer::slots).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_reaches_every_other_and_order_is_kept() {
        let mut ends = mesh::<(usize, u32)>(3, 64);
        for (sender, end) in ends.iter_mut().enumerate() {
            for receiver in (0..3).filter(|&r| r != sender) {
                let mut burst: Burst<_> = (0..4).map(|n| (sender, n)).collect();
                end.give(receiver, &mut burst);
                assert!(burst.is_empty());
            }
        }
        for (own, end) in ends.iter_mut().enumerate() {
            assert_eq!(end.waiting(), 8);
            let mut burst = Burst::new();
            end.take(&mut burst);
            for sender in (0..3).filter(|&s| s != own) {
                let from: Vec<u32> = burst.iter().filter(|(s, _)| *s == sender).map(|&(_, n)| n).collect();
                assert_eq!(from, [0, 1, 2, 3]);
            }
        }
    }

    #[test]
    fn a_full_ring_leaves_the_rest_with_the_giver() {
        let mut ends = mesh::<u32>(2, 2);
        let mut burst: Burst<u32> = (0..5).collect();
        ends[0].give(1, &mut burst);
        assert_eq!(burst.as_slice(), [2, 3, 4]);
    }

    #[test]
    fn a_busy_sender_starves_nobody() {
        let mut ends = mesh::<usize>(3, 64);
        let mut seen = [0; 3];
        for _ in 0..20 {
            for sender in [0, 1] {
                let mut burst: Burst<usize> = std::iter::repeat_n(sender, 32).collect();
                ends[sender].give(2, &mut burst);
            }
            let mut burst = Burst::new();
            ends[2].take(&mut burst);
            burst.iter().for_each(|&sender| seen[sender] += 1);
        }
        assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
    }
}
