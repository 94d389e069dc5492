//! How far one SA has come on all cores together, told rarely.
//!
//! A core's window knows only the connections of that core. With extended sequence numbers a packet carries the low 32
//! bits alone, and the receiver takes the 64-bit number nearest to where it believes the SA to be (RFC 4303 App. A2.2).
//! A core that has slept for 2^31 numbers believes wrongly. What the others have authenticated tells it where to look;
//! the integrity check, which covers the high bits, still decides, and no window moves.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::esp::Authentic;

/// How far an SA comes before it is told again: rarely enough that the cache line, which every packet reads, hardly ever
/// changes, and a small part of the 2^31 by which a guess may be off.
pub const STEP_PACKETS: u64 = 1 << 20;

/// The number that was told last. It only grows.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// A packet was authenticated and its number taken.
    #[inline]
    pub fn reached(&self, packet: &Authentic) {
        let sequence = packet.sequence();
        if sequence.saturating_sub(self.get()) >= STEP_PACKETS {
            // Another core may have told of a higher one meanwhile.
            self.0.fetch_max(sequence, Relaxed);
        }
    }

    /// Somebody else has come as far as this.
    pub fn raise(&self, sequence: u64) {
        self.0.fetch_max(sequence, Relaxed);
    }

    /// For measurements with lab SAs, with the windows.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests;
