//! Time: what is due, and when the next thing will be.

use ipsec::time::Instant;

use super::Endpoint;
use crate::event::DownReason;

impl Endpoint {
    /// When [`handle_timeout`](Self::handle_timeout) must be called next, if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let kept = self.cx.kept.next_timeout();
        let initiating = self.initiating_deadlines.first().map(|(deadline, _)| *deadline);
        let tables = [self.half_open.next_timeout(), self.established.next_timeout(), initiating, kept];
        tables.into_iter().flatten().chain(self.shutdown_ends_at).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.cx.now = now;
        self.cx.kept.forget_expired(now);
        while let Some(expired) = self.half_open.pop_expired(now) {
            self.cx.spis.free_ike(expired.spis.responder);
            self.cx.counters.half_open_expired += 1;
        }
        while let Some(&(_, spi)) = self.initiating_deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let Some(initiating) = self.take_initiating(spi) else { break };
            let progress = initiating.handle_timeout(&mut self.cx);
            self.put_back_initiating(progress);
        }
        while let Some(spi) = self.established.next_due(now) {
            self.with_sa(spi, |sa, cx| sa.handle_timeout(cx));
        }
        if self.shutdown_ends_at.is_some_and(|end| end <= now) {
            self.shutdown_ends_at = Some(Instant::MAX);
            for spi in self.established.spis() {
                self.with_sa(spi, |sa, _| sa.finish(DownReason::Shutdown));
            }
        }
    }
}
