//! The appliance's own queue pair, with a valve before it and a tap behind it.
//!
//! What is compared and what is timed run through the very same types: the tap is a flag, read once for each burst.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;

use datapath::buffer::{PacketBuffer, PortQueue};
use datapath::burst::Burst;
use phalanx::frame::{Frame, QueuePair};

/// What a port gives to its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Valve {
    /// Nothing.
    Shut,
    /// The frames that were laid before it.
    Openers,
    /// What the device receives.
    Device,
}

/// The rig's hand on a queue that a core owns.
#[derive(Debug)]
pub struct Taps {
    valve: AtomicU8,
    recording: AtomicBool,
}

impl Taps {
    /// Everything shut.
    pub fn new() -> Arc<Taps> {
        Arc::new(Taps { valve: AtomicU8::new(Valve::Shut as u8), recording: AtomicBool::new(false) })
    }

    /// Lets other frames come.
    pub fn turn(&self, valve: Valve) {
        self.valve.store(valve as u8, Ordering::Relaxed);
    }

    /// Copies what is sent, or sends it to the device.
    pub fn record(&self, whether: bool) {
        self.recording.store(whether, Ordering::Relaxed);
    }

    fn is_at(&self, valve: Valve) -> bool {
        self.valve.load(Ordering::Relaxed) == valve as u8
    }
}

/// A queue pair of the appliance under the rig's control.
#[derive(Debug)]
pub struct BenchQueue {
    /// The device.
    pub pair: QueuePair,
    /// Frames to receive first.
    pub openers: VecDeque<Frame>,
    /// The rig's hand.
    pub taps: Arc<Taps>,
    /// Where copies of what is sent go while recording.
    pub copies: mpsc::Sender<Vec<u8>>,
}

impl PortQueue for BenchQueue {
    type Buffer = Frame;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<Frame>) {
        if self.taps.is_at(Valve::Device) {
            self.pair.receive(burst);
        } else if self.taps.is_at(Valve::Openers) {
            let count = self.openers.len().min(burst.remaining_capacity());
            burst.extend(self.openers.drain(..count));
        }
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Burst<Frame>) {
        if !self.taps.recording.load(Ordering::Relaxed) {
            return self.pair.transmit(burst);
        }
        for frame in burst.drain(..) {
            // Nobody listens any more: then nobody misses it.
            let _ = self.copies.send(frame.bytes().to_vec());
        }
    }
}
