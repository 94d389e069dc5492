//! A bound on how often something is done in answer to what strangers send.

use core::time::Duration;

use ipsec::time::Instant;

/// At most `burst` at once and one per `interval` in the long run.
#[derive(Debug, Clone)]
pub struct RateLimit {
    interval: Duration,
    ahead_max: Duration,
    /// When everything admitted so far would have been admitted at the long-run rate.
    paid_until: Instant,
}

impl RateLimit {
    /// Admits `per_second` in the long run, and `burst` at once. Both count at least as one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, ahead_max: interval * (burst.max(1) - 1), paid_until: Instant::ZERO }
    }

    /// Whether one more may be done now. It then counts as done.
    pub fn admit(&mut self, now: Instant) -> bool {
        let paid_until = self.paid_until.max(now);
        if paid_until.saturating_since(now) > self.ahead_max {
            return false;
        }
        self.paid_until = paid_until + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_a_burst_and_then_the_rate() {
        let mut limit = RateLimit::new(10, 3);
        let start = Instant::from_secs(5);
        assert_eq!((0..10).filter(|_| limit.admit(start)).count(), 3);
        let admitted = (1..=1_000).filter(|&ms| limit.admit(start + Duration::from_millis(ms))).count();
        assert_eq!(admitted, 10);
        let later = start + Duration::from_secs(60);
        assert_eq!((0..10).filter(|_| limit.admit(later)).count(), 3, "quiet does not save up more than a burst");
    }
}
