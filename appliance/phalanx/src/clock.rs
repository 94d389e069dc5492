//! The processor's time stamp counter as our clock: one read costs less than a system call by far.

use ipsec::time::Instant;

const NANOS_PER_SECOND: u128 = 1_000_000_000;
const SHIFT: u32 = 32;

/// A clock that starts at zero. Copies show the same time on every core (invariant time stamp counters do).
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: u64,
    /// Nanoseconds for each tick, as a fixed-point number with 32 bits behind the point.
    nanos_per_tick: u64,
}

impl Clock {
    /// Starts a clock now.
    pub fn start(eal: dpdk::Eal) -> Clock {
        let ticks_per_second = u128::from(eal.tsc_hz().max(1));
        Clock { start: dpdk::tsc(), nanos_per_tick: ((NANOS_PER_SECOND << SHIFT) / ticks_per_second) as u64 }
    }

    /// The time since the start.
    #[inline]
    pub fn now(&self) -> Instant {
        // A core whose counter lags a few ticks must not see the end of time.
        let ticks = dpdk::tsc().saturating_sub(self.start);
        Instant::from_nanos(((u128::from(ticks) * u128::from(self.nanos_per_tick)) >> SHIFT) as u64)
    }
}
