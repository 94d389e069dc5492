//! Our own clock reading: nanoseconds since a start that only the caller knows.
//!
//! Pure code never reads a clock; it is told the time. One reading per poll loop serves everything in that loop.

use core::fmt;
use core::ops::{Add, AddAssign};
use core::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point in time: nanoseconds since an arbitrary start, which lasts 584 years.
///
/// Readings of different starts must not be mixed; nothing can check that. Spans are [`Duration`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start itself.
    pub const ZERO: Self = Self(0);
    /// The end of time: later than anything that will be read from a clock.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant this many nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant this many milliseconds after the start; [`Instant::MAX`] if that is past the end of time.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The instant this many seconds after the start; [`Instant::MAX`] if that is past the end of time.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This much later, or `None` past the end of time.
    #[must_use]
    pub const fn checked_add(self, span: Duration) -> Option<Self> {
        match self.0.checked_add(saturating_nanos(span)) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// This much earlier, or `None` before the start.
    #[must_use]
    pub const fn checked_sub(self, span: Duration) -> Option<Self> {
        match self.0.checked_sub(saturating_nanos(span)) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// This much later, at most [`Instant::MAX`]. A deadline that cannot be reached is no error.
    #[must_use]
    pub const fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(span)))
    }

    /// The span since `earlier`, or `None` if `earlier` is in fact later.
    #[must_use]
    pub const fn checked_since(self, earlier: Self) -> Option<Duration> {
        match self.0.checked_sub(earlier.0) {
            Some(nanos) => Some(Duration::from_nanos(nanos)),
            None => None,
        }
    }

    /// The span since `earlier`, zero if `earlier` is in fact later (readings from two cores may cross).
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A `Duration` can hold more nanoseconds than a `u64`; such a span is longer than all of time.
const fn saturating_nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(NANOS_PER_SECOND).saturating_add(span.subsec_nanos() as u64)
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates, see [`Instant::saturating_add`].
    fn add(self, span: Duration) -> Self {
        self.saturating_add(span)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = self.saturating_add(span);
    }
}

impl fmt::Display for Instant {
    /// Seconds and nanoseconds since the start: `12.000000345s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_and_earlier_agree() {
        let start = Instant::from_secs(5);
        let span = Duration::from_millis(1_500);
        let end = start.checked_add(span).unwrap();
        assert_eq!(end, Instant::from_millis(6_500));
        assert_eq!(end.checked_since(start), Some(span));
        assert_eq!(start.checked_since(end), None);
        assert_eq!(start.saturating_since(end), Duration::ZERO);
        assert_eq!(end.checked_sub(span), Some(start));
        assert_eq!(Instant::ZERO.checked_sub(Duration::from_nanos(1)), None);
        assert_eq!(start + span, end);
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late.checked_add(Duration::from_nanos(1)), Some(Instant::MAX));
        assert_eq!(late.checked_add(Duration::from_nanos(2)), None);
        assert_eq!(late.checked_add(Duration::MAX), None);
        assert_eq!(late + Duration::MAX, Instant::MAX);
        assert_eq!(Instant::from_secs(u64::MAX), Instant::MAX);
    }

    #[test]
    fn prints_seconds_with_all_nanoseconds() {
        assert_eq!(Instant::from_nanos(12_000_000_345).to_string(), "12.000000345s");
    }
}
