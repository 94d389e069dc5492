//! The owner's side of one half of one SA: what everyone may carry, and what everyone has.

use core::time::Duration;

use ipsec::lifetime::Limits;
use ipsec::time::Instant;

use super::{Amount, GrantLimits, PACKET_BYTES_MAX, Percentage, Refresh, Report, whole};
use crate::id::{Incarnation, MemberId};

/// What the owner grants of one half of one SA, and to whom.
#[derive(Debug)]
pub struct OwnerLedger {
    bytes: Limits,
    packets: Limits,
    grant_max: Amount,
    members_max: u16,
    /// A member that carries the SA has no more than this left unreported.
    unreported: Amount,
    repeat_after: Duration,
    members: Vec<Account>,
    /// What members carried that hold no grants any more.
    closed_used: Amount,
    /// What they held unused when they were charged.
    charged: Amount,
    /// Members that the owner before had granted to, and that said nothing when this one began.
    silent: u32,
    /// A request could not be filled.
    is_short: bool,
    /// Someone may have had to drop a packet, with nothing left to grant.
    was_exhausted: bool,
    soft_told: bool,
    /// A member has reported more than it was granted.
    was_passed: bool,
    reports: u64,
}

/// What one start of one member may carry and has carried.
#[derive(Clone, Copy, Debug)]
struct Account {
    member: MemberId,
    incarnation: Incarnation,
    used: Amount,
    returned: Amount,
    ceiling: Amount,
    acknowledged: Amount,
    sent_at: Option<Instant>,
}

/// A ceiling to tell a member. Absolute: it may come twice, late or out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingGrant {
    /// Whom.
    pub member: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What it may carry of this half in all, what it has returned included.
    pub ceiling: Amount,
}

/// Why the ledger does not take what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRefused {
    /// This start of the member holds no grants: it never joined, it was charged, or it has left.
    #[error("member {member} in incarnation {incarnation} holds no grants; it must join as a new incarnation")]
    NotAMember {
        /// Who.
        member: MemberId,
        /// Which start.
        incarnation: Incarnation,
    },
    /// A later start of the member is known.
    #[error("member {member} is known in incarnation {known}, {found} is over")]
    Over {
        /// Who.
        member: MemberId,
        /// Which start said it.
        found: Incarnation,
        /// Which one is known.
        known: Incarnation,
    },
    /// So many members hold grants as the limits allow.
    #[error("{members_max} members hold grants, as many as the limits were cut for")]
    Full {
        /// How many can.
        members_max: u16,
    },
}

/// What operators see of a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerView {
    /// Reported as carried, over all members that ever were.
    pub used: Amount,
    /// Granted to living members and not reported as carried.
    pub granted: Amount,
    /// Counted as carried though nobody reported it.
    pub charged: Amount,
    /// By how much the hard limit may be passed.
    pub overrun_bound: Amount,
    /// How many members hold grants.
    pub members: usize,
    /// Whether the soft limit was reached.
    pub is_soft_reached: bool,
    /// Whether a request could not be filled.
    pub is_short: bool,
    /// Whether a member has reported more than it was granted: a defect of that member.
    pub was_passed: bool,
    /// Reports that told of more than the one before.
    pub reports: u64,
}

impl OwnerLedger {
    /// At an SA's birth, of which members leave so much unreported. A ceiling that is not acknowledged is told again
    /// after `repeat_after`.
    #[must_use]
    pub fn new(limits: &GrantLimits, percentage: Percentage, repeat_after: Duration) -> Self {
        let unreported = |limits| percentage.of(whole(limits));
        Self {
            bytes: limits.bytes,
            packets: limits.packets,
            grant_max: limits.grant_max,
            members_max: limits.members_max,
            unreported: Amount { bytes: unreported(limits.bytes), packets: unreported(limits.packets) },
            repeat_after,
            members: Vec::new(),
            closed_used: Amount::ZERO,
            charged: Amount::ZERO,
            silent: 0,
            is_short: false,
            was_exhausted: false,
            soft_told: false,
            was_passed: false,
            reports: 0,
        }
    }

    /// Reserves a member's first share, which [`ceiling`](Self::ceiling) then tells. If an earlier start of it holds
    /// grants, that is charged. Joining twice changes nothing.
    ///
    /// # Errors
    /// [`LedgerRefused`].
    pub fn join(&mut self, member: MemberId, incarnation: Incarnation) -> Result<(), LedgerRefused> {
        self.enter(member, incarnation, Report::default())
    }

    /// As a new owner: a member that answers says what it has carried and up to where the owner before let it.
    ///
    /// # Errors
    /// [`LedgerRefused`].
    pub fn adopt(&mut self, member: MemberId, incarnation: Incarnation, report: Report) -> Result<(), LedgerRefused> {
        self.enter(member, incarnation, report)
    }

    /// As a new owner: a member says nothing, and was last known to have used so much. It is charged what it can have
    /// been granted since.
    pub fn adopt_silent(&mut self, last_used: Amount) {
        self.silent += 1;
        self.closed_used = self.closed_used.plus(last_used);
        self.charged = self.charged.plus(self.limited(self.grant_max));
    }

    /// Takes a member's totals. What it is granted for it comes by [`poll_grant`](Self::poll_grant).
    ///
    /// # Errors
    /// [`LedgerRefused`]: a start that was charged cannot be heard again.
    pub fn handle_report(
        &mut self,
        member: MemberId,
        incarnation: Incarnation,
        report: Report,
    ) -> Result<(), LedgerRefused> {
        let index = self.place(member, incarnation)?;
        let account = &mut self.members[index];
        self.reports += u64::from(!account.used.covers(report.used));
        account.used = account.used.max(report.used);
        if !account.ceiling.covers(account.used) {
            self.was_passed = true;
            account.ceiling = account.ceiling.max(account.used);
        }
        account.returned = account.returned.max(report.returned).min(account.ceiling.less(account.used));
        account.acknowledged = account.acknowledged.max(report.ceiling.min(account.ceiling));
        if report.wants {
            self.fill(index);
            let left = self.members[index].left();
            self.was_exhausted |= self.is_short && (left.bytes < PACKET_BYTES_MAX || left.packets == 0);
        }
        Ok(())
    }

    /// A member has asked for more. The same as a report that says so.
    ///
    /// # Errors
    /// As [`handle_report`](Self::handle_report).
    pub fn handle_want(
        &mut self,
        member: MemberId,
        incarnation: Incarnation,
        report: Report,
    ) -> Result<(), LedgerRefused> {
        self.handle_report(member, incarnation, Report { wants: true, ..report })
    }

    /// A member is dead, or silent for too long: whatever it may have carried counts as carried, at most `grant_max`
    /// beyond what it has reported. It comes back only as a new incarnation.
    pub fn charge(&mut self, member: MemberId, incarnation: Incarnation) {
        let Ok(index) = self.place(member, incarnation) else { return };
        let account = self.members.swap_remove(index);
        self.closed_used = self.closed_used.plus(account.used);
        self.charged = self.charged.plus(self.limited(account.left()));
    }

    /// A member that uses the SA no more, and says so itself: its totals are final, the rest of its grant is free.
    ///
    /// # Errors
    /// As [`handle_report`](Self::handle_report).
    pub fn leave(&mut self, member: MemberId, incarnation: Incarnation, report: Report) -> Result<(), LedgerRefused> {
        let index = self.place(member, incarnation)?;
        let account = self.members.swap_remove(index);
        self.closed_used = self.closed_used.plus(account.used.max(report.used));
        Ok(())
    }

    /// The next ceiling to tell: new ones at once, unacknowledged ones again after a while.
    #[must_use]
    pub fn poll_grant(&mut self, now: Instant) -> Option<CeilingGrant> {
        let repeat_after = self.repeat_after;
        let account = self.members.iter_mut().find(|account| {
            !account.acknowledged.covers(account.ceiling) && account.sent_at.is_none_or(|at| now >= at + repeat_after)
        })?;
        account.sent_at = Some(now);
        Some(CeilingGrant { member: account.member, incarnation: account.incarnation, ceiling: account.ceiling })
    }

    /// When [`poll_grant`](Self::poll_grant) has something though no report comes.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let unheard = self.members.iter().filter(|account| !account.acknowledged.covers(account.ceiling));
        unheard.map(|account| account.sent_at.map_or(Instant::ZERO, |at| at + self.repeat_after)).min()
    }

    /// What a member may carry in all.
    #[must_use]
    pub fn ceiling(&self, member: MemberId, incarnation: Incarnation) -> Option<Amount> {
        self.place(member, incarnation).ok().map(|index| self.members[index].ceiling)
    }

    /// The same, for the shadow SA that the member is told now: [`poll_grant`](Self::poll_grant) says it again only if
    /// it is not acknowledged for a while.
    #[must_use]
    pub fn tell_ceiling(&mut self, now: Instant, member: MemberId, incarnation: Incarnation) -> Option<Amount> {
        let index = self.place(member, incarnation).ok()?;
        let account = &mut self.members[index];
        account.sent_at = Some(now);
        Some(account.ceiling)
    }

    /// Whether what was used, may be used and not yet reported, and was charged, has reached the soft limit, or a request
    /// could not be filled, so that IKE must replace the SA. `true` once.
    #[must_use]
    pub fn take_soft_reached(&mut self) -> bool {
        let is_news = self.is_soft_reached() && !self.soft_told;
        self.soft_told |= is_news;
        is_news
    }

    /// As [`take_soft_reached`](Self::take_soft_reached), each time.
    #[must_use]
    pub fn is_soft_reached(&self) -> bool {
        let expected = self.expected();
        let reached = |limits: Limits, expected| limits.soft.is_some_and(|soft| expected >= soft);
        self.is_short || reached(self.bytes, expected.bytes) || reached(self.packets, expected.packets)
    }

    /// What the end of this SA says of its last refresh. Ask when its successor is in use, or it is gone.
    #[must_use]
    pub fn refresh(&self) -> Refresh {
        match (self.was_exhausted, self.soft_told) {
            (true, _) => Refresh::Late,
            (false, true) => Refresh::InTime,
            (false, false) => Refresh::NotByLifesize,
        }
    }

    /// What members have reported as carried, those that are gone included.
    #[must_use]
    pub fn used(&self) -> Amount {
        self.members.iter().fold(self.closed_used, |sum, account| sum.plus(account.used))
    }

    /// By how much the hard limit may be passed. Zero, unless members were silent when this owner began: each may have
    /// used what the owner before granted it meanwhile, `grant_max` for each grant that the new one had not heard of
    /// when it counted on one. Such SAs are sealed and replaced at once (DESIGN §4), so it stays at one.
    #[must_use]
    pub fn overrun_bound(&self) -> Amount {
        let grant_max = self.limited(self.grant_max);
        let silent = u64::from(self.silent);
        Amount { bytes: grant_max.bytes.saturating_mul(silent), packets: grant_max.packets.saturating_mul(silent) }
    }

    /// For operators.
    #[must_use]
    pub fn view(&self) -> LedgerView {
        LedgerView {
            used: self.used(),
            granted: self.members.iter().fold(Amount::ZERO, |sum, account| sum.plus(self.limited(account.left()))),
            charged: self.charged,
            overrun_bound: self.overrun_bound(),
            members: self.members.len(),
            is_soft_reached: self.is_soft_reached(),
            is_short: self.is_short,
            was_passed: self.was_passed,
            reports: self.reports,
        }
    }

    fn enter(&mut self, member: MemberId, incarnation: Incarnation, report: Report) -> Result<(), LedgerRefused> {
        if let Some(known) = self.members.iter().find(|account| account.member == member).map(|known| known.incarnation)
        {
            match known.cmp(&incarnation) {
                core::cmp::Ordering::Equal => return Ok(()),
                core::cmp::Ordering::Greater => return Err(LedgerRefused::Over { member, found: incarnation, known }),
                core::cmp::Ordering::Less => self.charge(member, known),
            }
        }
        if self.members.len() >= usize::from(self.members_max) {
            return Err(LedgerRefused::Full { members_max: self.members_max });
        }
        let Report { used, returned, ceiling, wants: _ } = report;
        let ceiling = ceiling.max(used);
        let returned = returned.min(ceiling.less(used));
        let account = Account { member, incarnation, used, returned, ceiling, acknowledged: ceiling, sent_at: None };
        self.members.push(account);
        self.fill(self.members.len() - 1);
        Ok(())
    }

    fn place(&self, member: MemberId, incarnation: Incarnation) -> Result<usize, LedgerRefused> {
        let found =
            self.members.iter().position(|account| account.member == member && account.incarnation == incarnation);
        found.ok_or(LedgerRefused::NotAMember { member, incarnation })
    }

    /// Raises a ceiling to `grant_max` beyond what was used, as far as the hard limit lets it.
    fn fill(&mut self, index: usize) {
        let account = self.members[index];
        let need = account.used.plus(account.returned).plus(self.grant_max).less(account.ceiling);
        let room = self.room();
        let ceiling = account.ceiling.plus(need.min(room));
        self.is_short |= !room.covers(need);
        if ceiling != account.ceiling {
            self.members[index].ceiling = ceiling;
            self.members[index].sent_at = None;
        }
    }

    /// What is left to grant.
    fn room(&self) -> Amount {
        let committed = self.committed();
        let room = |limits: Limits, committed: u64| limits.hard.map_or(u64::MAX, |hard| hard.saturating_sub(committed));
        Amount { bytes: room(self.bytes, committed.bytes), packets: room(self.packets, committed.packets) }
    }

    /// What may be used by now at most, if members speak when they should: all report their first packet at once.
    ///
    /// Not all that is granted: were that counted, an SA whose hard limit is twice its soft one would be replaced when
    /// a quarter of the soft limit is used.
    fn expected(&self) -> Amount {
        let closed = self.closed_used.plus(self.charged);
        let by_now = |account: &Account| match account.used {
            Amount::ZERO => Amount::ZERO,
            used => used.plus(account.left().min(self.unreported)),
        };
        self.members.iter().fold(closed, |sum, account| sum.plus(by_now(account)))
    }

    /// All that was used, may be used, or counts as used.
    fn committed(&self) -> Amount {
        let closed = self.closed_used.plus(self.charged);
        self.members.iter().fold(closed, |sum, account| sum.plus(account.used).plus(account.left()))
    }

    /// Zero for what has no limit, where grants mean nothing.
    fn limited(&self, amount: Amount) -> Amount {
        let limited = |limits: Limits, amount| if limits == Limits::NONE { 0 } else { amount };
        Amount { bytes: limited(self.bytes, amount.bytes), packets: limited(self.packets, amount.packets) }
    }
}

impl Account {
    /// What may still be carried.
    fn left(&self) -> Amount {
        self.ceiling.less(self.used).less(self.returned)
    }
}
