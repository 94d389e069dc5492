//! Outbound sequence numbers: many senders, one client (DESIGN §5).
//!
//! **Purpose.** A client drops what arrives further out of order than its replay window, and two appliances that number
//! one SA independently would overrun any window, or repeat a number. So who numbers an SA, and from where, is decided
//! here: [`siblings`] says who numbers which SA of a peer; [`dispenser`] gives the numbers of a shared SA out a burst at a
//! time, and [`requester`] is the other end of it; [`leases`] gives blocks; [`marks`] are what of all this is durable.
//!
//! **Promises.** No number of an SA is ever given to two senders, or twice to one: not across lost, repeated or
//! reordered frames, nor restarts, nor changes of the owner, as long as each owner begins at or above the durable mark
//! of the one before. Nothing here is ever numbered at or above the mark. Everything is bounded.
//!
//! **What it never does.** It touches no packet, and waits for nobody: a number that was not used in time is lost, and
//! numbers are plentiful.

pub mod dispenser;
pub mod leases;
pub mod marks;
mod payload;
pub mod requester;
pub mod siblings;

pub use payload::{BadPayload, GRANT_LEN, Grant, REQUEST_LEN, Request};

use core::time::Duration;

/// How long requests, grants and numbers live. The same on all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A request is repeated no sooner than this …
    pub repeat_min: Duration,
    /// … and no later; in between, after four measured round trips.
    pub repeat_max: Duration,
    /// A sender throws away numbers that come later than this after it first sent the request for them.
    pub use_within: Duration,
    /// The owner counts numbers as lost this long after it granted them. Longer than `use_within`: a request is sent
    /// before it is granted, so a sender has thrown numbers away before the owner counts them as lost.
    pub abandon_after: Duration,
    /// A sender that wants nothing more confirms what it used after this long, in the hope of a request to do it with.
    pub confirm_after: Duration,
}

impl Default for Times {
    /// Wide enough for data cores that sleep when idle; on dedicated cores only losses ever wait for these.
    fn default() -> Self {
        Self {
            repeat_min: Duration::from_micros(500),
            repeat_max: Duration::from_millis(5),
            use_within: Duration::from_millis(25),
            abandon_after: Duration::from_millis(40),
            confirm_after: Duration::from_millis(1),
        }
    }
}

/// A smoothed round trip (RFC 6298 §2's estimator, without the variance).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip(Option<Duration>);

impl RoundTrip {
    fn measured(&mut self, sample: Duration) {
        self.0 = Some(self.0.map_or(sample, |smooth| (smooth * 7 + sample) / 8));
    }
}

/// How many numbers of a client's window may be in flight at once: half of it, so that what was confirmed but is still
/// on its way to the client has the other half. At least 1.
#[must_use]
pub const fn budget(window_packets: u32) -> u64 {
    if window_packets < 2 { 1 } else { window_packets as u64 / 2 }
}

/// How many packets a second all senders of one SA together can send by the sequencer: half the client's window in each
/// round trip. [`u64::MAX`] if the round trip takes no time.
#[must_use]
pub fn ceiling_packets_per_second(window_packets: u32, round_trip: Duration) -> u64 {
    let per_second = u128::from(budget(window_packets)) * 1_000_000_000;
    per_second.checked_div(round_trip.as_nanos()).map_or(u64::MAX, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}
