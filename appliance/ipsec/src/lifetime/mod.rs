//! How long an SA may live: in bytes, in packets, in time.
//!
//! Past a *soft* limit the SA should be replaced; at a *hard* limit it ends (RFC 4301 §4.4.2.1). Bytes are those of the
//! inner IP packet in tunnel mode, of the transport payload in transport mode.

mod lifesize;

pub use lifesize::{Lifesize, LifesizeRefusal, LifesizeShare, Spent};

use core::time::Duration;

/// A soft and a hard limit of something that is counted. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Replace the SA from here on.
    pub soft: Option<u64>,
    /// Carry nothing beyond this.
    pub hard: Option<u64>,
}

/// A soft and a hard age. `None` is no limit. Whoever holds the clock watches them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// Replace the SA at this age.
    pub soft: Option<Duration>,
    /// End the SA at this age.
    pub hard: Option<Duration>,
}

/// All limits of one SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Inner bytes.
    pub bytes: Limits,
    /// Packets.
    pub packets: Limits,
    /// Age.
    pub time: TimeLimits,
}

impl Limits {
    /// No limit at all.
    pub const NONE: Self = Self { soft: None, hard: None };

    /// Whether the soft limit comes before the hard one, so that there is room to replace the SA in between.
    #[must_use]
    pub fn leaves_room(&self) -> bool {
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) => soft < hard,
            (None, _) | (_, None) => true,
        }
    }
}

impl TimeLimits {
    /// No limit at all.
    pub const NONE: Self = Self { soft: None, hard: None };

    /// Whether the soft limit comes before the hard one, so that there is room to replace the SA in between.
    #[must_use]
    pub fn leaves_room(&self) -> bool {
        match (self.soft, self.hard) {
            (Some(soft), Some(hard)) => soft < hard,
            (None, _) | (_, None) => true,
        }
    }
}

impl Lifetime {
    /// No limit at all.
    pub const NONE: Self = Self { bytes: Limits::NONE, packets: Limits::NONE, time: TimeLimits::NONE };

    /// Whether every soft limit comes before its hard one.
    #[must_use]
    pub fn leaves_room(&self) -> bool {
        self.bytes.leaves_room() && self.packets.leaves_room() && self.time.leaves_room()
    }
}
