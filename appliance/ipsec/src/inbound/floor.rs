//! What the cluster says of an inbound SA and every core must obey at once: its floor and its seal.
//!
//! Both change by one atomic write from the control core, without a command to the data cores. Both go one way only, so
//! messages that are repeated or overtake each other do no harm.
//!
//! A core that learns of something else which was done after such a write (a command that it pops from its ring) sees the
//! write: writes release, reads acquire.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::time::Instant;

/// Numbers up to this one are refused.
#[derive(Debug, Default)]
pub(super) struct Floor(AtomicU64);

impl Floor {
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub fn raise(&self, floor: u64) {
        self.0.fetch_max(floor, Ordering::Release);
    }
}

/// When an SA was sealed.
#[derive(Debug)]
pub(super) struct Seal(AtomicU64);

/// The end of time stands for never.
const NEVER: u64 = Instant::MAX.as_nanos();

impl Default for Seal {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl Seal {
    #[inline]
    pub fn at(&self) -> Option<Instant> {
        match self.0.load(Ordering::Acquire) {
            NEVER => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }

    /// Whether it was the first.
    pub fn set(&self, now: Instant) -> bool {
        // A seal at the end of time is one all the same.
        let nanos = now.as_nanos().min(NEVER - 1);
        self.0.compare_exchange(NEVER, nanos, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests;
