//! A target's side of one half of one SA: what it says to the owner, and when.

use core::time::Duration;

use ipsec::lifetime::Limits;
use ipsec::time::Instant;

use super::{Amount, PACKET_BYTES_MAX, Percentage, Report, whole};

/// When a member speaks though nothing forces it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberTimes {
    /// What has changed is reported at least so often.
    pub report_every: Duration,
    /// A wish that brought nothing is repeated after this long.
    pub ask_again_after: Duration,
    /// A half that carried nothing for so long gives most of its grant back.
    pub idle_after: Duration,
}

impl Default for MemberTimes {
    fn default() -> Self {
        Self {
            report_every: Duration::from_secs(10),
            ask_again_after: Duration::from_millis(200),
            idle_after: Duration::from_secs(10),
        }
    }
}

/// What one member knows of its part in one half of one SA.
#[derive(Debug)]
pub struct MemberLedger {
    bytes: Limits,
    packets: Limits,
    times: MemberTimes,
    used: Amount,
    returned: Amount,
    ceiling: Amount,
    /// What was left when the ceiling came.
    headroom: Amount,
    /// The last report.
    said: Report,
    said_at: Instant,
    used_at: Instant,
    /// Part of the last grant was asked back.
    is_trimmed: bool,
    /// A ceiling is to be acknowledged, or the last report may be lost.
    must_speak: bool,
}

impl MemberLedger {
    /// For an SA that was just installed, with the first share that came with it.
    #[must_use]
    pub fn new(now: Instant, bytes: Limits, packets: Limits, ceiling: Amount, times: MemberTimes) -> Self {
        Self {
            bytes,
            packets,
            times,
            used: Amount::ZERO,
            returned: Amount::ZERO,
            ceiling,
            headroom: ceiling,
            said: Report::default(),
            said_at: now,
            used_at: now,
            is_trimmed: false,
            must_speak: true,
        }
    }

    /// What this appliance has carried so far, by its data cores' counters.
    pub fn observe(&mut self, now: Instant, used: Amount) {
        let used = used.max(self.used);
        if used != self.used {
            self.used = used;
            self.used_at = now;
        }
    }

    /// The owner tells a ceiling. Returns the one to give the data cores, if it is higher than theirs.
    #[must_use]
    pub fn handle_ceiling(&mut self, ceiling: Amount) -> Option<Amount> {
        self.must_speak = true;
        let ceiling = ceiling.max(self.ceiling);
        if ceiling == self.ceiling {
            return None;
        }
        self.ceiling = ceiling;
        self.headroom = self.left();
        self.is_trimmed = false;
        Some(ceiling)
    }

    /// What to say to the owner now, if anything: the first that is carried, when what it does not know yet is
    /// `percentage` of the SA's lifesize, when half of the last grant is used, when a ceiling is to be acknowledged, and
    /// else rarely.
    #[must_use]
    pub fn poll_report(&mut self, now: Instant, percentage: Percentage) -> Option<Report> {
        let wants = self.wants();
        let since = now.saturating_since(self.said_at);
        let news = self.used.less(self.said.used);
        let is_due = self.must_speak
            || (self.said.used == Amount::ZERO && news != Amount::ZERO)
            || percentage.is_reached(whole(self.bytes), news.bytes)
            || percentage.is_reached(whole(self.packets), news.packets)
            || (wants && (!self.said.wants || since >= self.times.ask_again_after))
            || (self.report() != self.said && since >= self.times.report_every)
            || self.returned != self.said.returned;
        is_due.then(|| self.say(now))
    }

    /// The connection to the owner broke, or it is another one: what was said may be lost, and is said again.
    pub fn say_again(&mut self) {
        self.must_speak = true;
    }

    /// What the owner is to know, without a reason: for a new owner that asks.
    #[must_use]
    pub fn report(&self) -> Report {
        Report { used: self.used, returned: self.returned, ceiling: self.ceiling, wants: self.wants() }
    }

    /// When [`poll_report`](Self::poll_report) or [`poll_return`](Self::poll_return) has something though nothing more
    /// is carried.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let after = if self.wants() { self.times.ask_again_after } else { self.times.report_every };
        let speaks = self.report() != self.said || self.said.wants;
        let returns = !self.is_trimmed && self.spare() != Amount::ZERO;
        let speaks_at = speaks.then(|| self.said_at + after);
        speaks_at.into_iter().chain(returns.then(|| self.used_at + self.times.idle_after)).min()
    }

    /// How much of the pool this member can do without: it has long been idle. The caller takes up to so much out of the
    /// pool for good, and tells [`returned`](Self::returned) what it could take. A quarter of the last grant stays, and
    /// room for a packet. Asked once for each grant.
    #[must_use]
    pub fn poll_return(&mut self, now: Instant) -> Option<Amount> {
        if self.is_trimmed || now.saturating_since(self.used_at) < self.times.idle_after {
            return None;
        }
        self.is_trimmed = true;
        Some(self.spare()).filter(|spare| *spare != Amount::ZERO)
    }

    /// What is left beyond what an idle half keeps.
    fn spare(&self) -> Amount {
        let keep = Amount { bytes: self.headroom.bytes / 4, packets: self.headroom.packets / 4 }
            .max(Amount { bytes: PACKET_BYTES_MAX, packets: 1 });
        let limited = |limits: Limits, amount| if limits == Limits::NONE { 0 } else { amount };
        let spare = self.left().less(keep);
        Amount { bytes: limited(self.bytes, spare.bytes), packets: limited(self.packets, spare.packets) }
    }

    /// So much was taken out of the pool, and will never be used here.
    pub fn returned(&mut self, amount: Amount) {
        if amount != Amount::ZERO {
            self.returned = self.returned.plus(amount.min(self.left()));
            self.headroom = self.left();
        }
    }

    /// What may still be carried.
    #[must_use]
    pub fn left(&self) -> Amount {
        self.ceiling.less(self.used).less(self.returned)
    }

    /// The ceiling that the owner told.
    #[must_use]
    pub fn ceiling(&self) -> Amount {
        self.ceiling
    }

    /// Half of what was there when the last ceiling came, or was left after a return, is used; or the longest packet does
    /// not fit any more, however small the last grant was.
    fn wants(&self) -> bool {
        let left = self.left();
        let is_low = |limits: Limits, left: u64, headroom: u64, least: u64| {
            limits != Limits::NONE && (left <= headroom / 2 || left < least)
        };
        is_low(self.bytes, left.bytes, self.headroom.bytes, PACKET_BYTES_MAX)
            || is_low(self.packets, left.packets, self.headroom.packets, 1)
    }

    fn say(&mut self, now: Instant) -> Report {
        self.must_speak = false;
        self.said = self.report();
        self.said_at = now;
        self.said
    }
}

/// Whether the owner of a DVIPA is there: an appliance that has not heard it for longer than a takeover takes stops
/// sending on its SAs, whose unused grants someone may have counted by then.
#[derive(Clone, Copy, Debug)]
pub struct OwnerWatch {
    heard_at: Instant,
    patience: Duration,
}

impl OwnerWatch {
    /// The owner was heard just now. `patience` is longer than a takeover.
    #[must_use]
    pub const fn new(now: Instant, patience: Duration) -> Self {
        Self { heard_at: now, patience }
    }

    /// Something of the owner's came, of the epoch that is known.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard_at = self.heard_at.max(now);
    }

    /// Whether nothing may be sent on the DVIPA's SAs.
    #[must_use]
    pub fn is_suspended(&self, now: Instant) -> bool {
        now >= self.suspends_at()
    }

    /// When that begins if the owner stays silent.
    #[must_use]
    pub fn suspends_at(&self) -> Instant {
        self.heard_at + self.patience
    }
}
