//! Frames and links in ordinary memory, for tests and the simulator: the second implementation of [`crate::buffer`].
//!
//! A [`Pool`] hands out a fixed number of frames and knows how many are out, so that a leak shows. A [`Wire`] joins two
//! queue ends as a cable joins two ports.

use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::Burst;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Room before a fresh frame, as DPDK leaves it.
pub const HEADROOM: usize = 128;

/// A bounded source of frames.
#[derive(Debug, Clone)]
pub struct Pool {
    capacity: usize,
    frame_len: usize,
    in_use: Arc<AtomicUsize>,
}

impl Pool {
    /// A pool of `capacity` frames of up to `frame_len` bytes each, headroom not counted.
    pub fn new(capacity: usize, frame_len: usize) -> Pool {
        Pool { capacity, frame_len, in_use: Arc::default() }
    }

    /// A frame that holds `bytes`; `None` when the pool is empty or the bytes are too long.
    pub fn frame(&self, bytes: &[u8]) -> Option<Frame> {
        if bytes.len() > self.frame_len {
            return None;
        }
        let taken =
            self.in_use.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < self.capacity).then_some(n + 1));
        taken.ok()?;
        let mut memory = vec![0; HEADROOM + self.frame_len].into_boxed_slice();
        memory[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        Some(Frame { memory, start: HEADROOM, end: HEADROOM + bytes.len(), in_use: Arc::clone(&self.in_use) })
    }

    /// How many frames are out.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Acquire)
    }
}

/// One frame of a [`Pool`].
#[derive(Debug)]
pub struct Frame {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    in_use: Arc<AtomicUsize>,
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}

impl PacketBuffer for Frame {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    fn prepend(&mut self, count: usize) -> bool {
        let fits = count <= self.start;
        if fits {
            self.start -= count;
        }
        fits
    }

    fn append(&mut self, count: usize) -> bool {
        let fits = count <= self.memory.len() - self.end;
        if fits {
            self.end += count;
        }
        fits
    }

    fn trim_front(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}

type Lane = Arc<Mutex<VecDeque<Frame>>>;

/// One end of a cable between two ports, `depth` frames deep in each direction.
#[derive(Debug)]
pub struct Wire {
    incoming: Lane,
    outgoing: Lane,
    depth: usize,
    /// Where a core takes memory from for what it makes by itself.
    spare: Option<Pool>,
}

impl Wire {
    /// The same end, with memory for what a core makes by itself.
    #[must_use]
    pub fn with_spare(self, pool: Pool) -> Wire {
        Wire { spare: Some(pool), ..self }
    }

    /// Both ends of a new cable.
    pub fn pair(depth: usize) -> (Wire, Wire) {
        // At its full size from the start: what is measured on it shall not see it grow.
        let lane = || Lane::new(Mutex::new(VecDeque::with_capacity(depth)));
        let (there, back) = (lane(), lane());
        let end = |incoming: &Lane, outgoing: &Lane| Wire {
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            depth,
            spare: None,
        };
        (end(&there, &back), end(&back, &there))
    }
}

fn locked(lane: &Lane) -> std::sync::MutexGuard<'_, VecDeque<Frame>> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortQueue for Wire {
    type Buffer = Frame;

    fn receive(&mut self, burst: &mut Burst<Frame>) {
        let mut lane = locked(&self.incoming);
        let count = lane.len().min(burst.remaining_capacity());
        burst.extend(lane.drain(..count));
    }

    fn spare(&mut self, len: usize) -> Option<Frame> {
        let mut frame = self.spare.as_ref()?.frame(&[])?;
        frame.append(len).then_some(frame)
    }

    fn transmit(&mut self, burst: &mut Burst<Frame>) {
        let mut lane = locked(&self.outgoing);
        let count = burst.len().min(self.depth.saturating_sub(lane.len()));
        lane.extend(burst.drain(..count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_gives_nothing_until_a_frame_comes_back() {
        let pool = Pool::new(1, 64);
        let frame = pool.frame(b"one").unwrap();
        assert!(pool.frame(b"two").is_none());
        drop(frame);
        assert_eq!(pool.in_use(), 0);
        assert!(pool.frame(b"two").is_some());
    }

    #[test]
    fn a_full_cable_leaves_the_rest_with_the_sender_in_order() {
        let pool = Pool::new(8, 64);
        let (mut left, mut right) = Wire::pair(2);
        let mut burst: Burst<Frame> = (0..4u8).map(|n| pool.frame(&[n]).unwrap()).collect();
        left.transmit(&mut burst);
        assert_eq!(burst.iter().map(|f| f.bytes()[0]).collect::<Vec<_>>(), [2, 3]);
        let mut arrived = Burst::new();
        right.receive(&mut arrived);
        assert_eq!(arrived.iter().map(|f| f.bytes()[0]).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn growing_and_trimming_keep_the_bytes() {
        let pool = Pool::new(1, 16);
        let mut frame = pool.frame(b"abc").unwrap();
        assert!(frame.prepend(2) && frame.append(1));
        assert!(!frame.append(14) && !frame.prepend(HEADROOM));
        assert_eq!(&frame.bytes()[2..5], b"abc");
        frame.trim_front(2);
        frame.truncate(3);
        assert_eq!(frame.bytes(), b"abc");
    }
}
