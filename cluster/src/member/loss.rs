//! Losing a target: its frames stop on every core, its loss is recorded, every SA born before is sealed for good and rekeyed, and only
//! then are its connections given up. Whether it is really lost does not matter: it may come back only empty.

use core::time::Duration;

use super::jobs::Job;
use super::notice::Notice;
use super::owner::{Awaited, Lost, Owner, Standing, Ticket};
use super::seam::Action;
use super::shared::Shared;
use crate::facility::births::{SealBefore, Sealed};
use crate::facility::members::RecordLoss;
use crate::facility::record::Birth;
use crate::id::{Incarnation, MemberId};

/// Sealed SAs are rekeyed one after the other, this far apart: five a second.
const REKEY_EVERY: Duration = Duration::from_millis(200);

impl Owner {
    /// Gives a target up. Frames to it stop; nothing else happens before every core has heard that, and it is recorded.
    pub fn lose(&mut self, cx: &mut Shared, member: MemberId, why: &'static str) {
        let Some(target) = self.targets.get_mut(&member) else { return };
        match target.standing {
            Standing::Losing | Standing::Lost | Standing::Left => return,
            Standing::Admitting | Standing::Present | Standing::Leaving(_) => {}
        }
        target.standing = Standing::Losing;
        target.unverified.clear();
        target.verify_at = None;
        let incarnation = target.incarnation;
        cx.actions.fabric_changed();
        cx.tables_changed();
        cx.notice(Notice::Losing { dvipa: self.fence.address, epoch: self.epoch(), target: member, incarnation, why });
        self.charge_ledgers(member, incarnation);
        self.sender_comes_or_goes(cx, member, false);
        let ticket = Ticket { target: member, incarnation, awaited: Awaited::Suspension };
        self.tickets.insert(cx.await_cores(None), ticket);
    }

    /// No core sends to a target any more. So what was born by now is all that it can have had packets of, however late:
    /// SAs that are born from now on need no seal.
    pub fn suspended(&mut self, cx: &mut Shared, member: MemberId, incarnation: Incarnation) {
        if self.targets.get(&member).is_some_and(|target| target.standing == Standing::Losing) {
            let before = Birth { epoch: self.epoch(), order: self.order + 1 };
            self.record_loss(cx, member, incarnation, before);
        }
    }

    fn record_loss(&mut self, cx: &mut Shared, member: MemberId, incarnation: Incarnation, before: Birth) {
        let seal = SealBefore { fence: self.fence, seen: self.sealed_before, before };
        cx.jobs.push(Job::Loss(RecordLoss { member, incarnation, seal }));
    }

    /// The loss is recorded, or the record stood elsewhere.
    pub fn loss_recorded(&mut self, cx: &mut Shared, loss: &RecordLoss, sealed: Sealed) {
        let RecordLoss { member, incarnation, seal } = *loss;
        if let Sealed::Elsewhere(seen) = sealed {
            self.sealed_before = seen;
            self.record_loss(cx, member, incarnation, seal.before);
            return;
        }
        self.sealed_before = self.sealed_before.max(seal.seen).max(seal.before);
        self.seal_born_before(cx, seal.before);
        self.lost.push(Lost { member, incarnation, before_order: seal.before.order });
        cx.notice(Notice::Lost { dvipa: self.fence.address, epoch: self.epoch(), target: member, incarnation });
        cx.actions.fabric_changed();
        let Some(target) = self.targets.get_mut(&member).filter(|target| target.incarnation == incarnation) else {
            return;
        };
        target.standing = Standing::Lost;
        self.tickets.retain(|_, ticket| (ticket.target, ticket.incarnation) != (member, incarnation));
        let serves = target.serves;
        match target.successor.take() {
            Some((successor, position)) => self.admit(cx, member, serves, successor, position),
            // Should it hear this, it need not wait for its next session to come back as another.
            None => cx.say(member, self.fence.address, self.epoch(), crate::message::Body::Expelled { incarnation }),
        }
    }

    fn seal_born_before(&mut self, cx: &mut Shared, before: Birth) {
        if before.epoch < self.epoch() {
            return;
        }
        let dvipa = self.fence.address;
        let mut sealed = 0;
        for (&spi, child) in &mut self.children {
            if child.order < before.order && !core::mem::replace(&mut child.is_sealed, true) {
                sealed += 1;
                if child.is_born() {
                    cx.actions.push(Action::Seal(crate::id::ChildId { dvipa, spi }));
                }
            }
        }
        if sealed > 0 {
            cx.notice(Notice::Sealed { dvipa, epoch: self.epoch(), sas: sealed });
        }
    }

    /// A packet needs what a seal forbids: its SA is rekeyed first.
    pub fn seal_met(&mut self, spi: ipsec::Spi) {
        if let Some(child) = self.children.get_mut(&spi) {
            child.is_seal_met = true;
        }
    }

    /// Has sealed SAs replaced, a few a second, those first whose peers wait.
    pub fn rekey_sealed(&mut self, cx: &mut Shared) {
        if cx.now < self.next_rekey_at {
            return;
        }
        let due = self.children.iter().filter(|(spi, child)| {
            child.is_sealed && child.is_born() && !child.is_rekey_asked && !self.unreleased.contains(spi)
        });
        let first = due.min_by_key(|(_, child)| (!child.is_seal_met, child.order));
        let Some(spi) = first.map(|(&spi, _)| spi) else { return };
        if let Some(child) = self.children.get_mut(&spi) {
            child.is_rekey_asked = true;
        }
        self.next_rekey_at = cx.now + REKEY_EVERY;
        cx.actions.push(Action::Rekey(self.child_id(spi)));
    }

    /// Gives up targets that were silent for too long, and starts that do not answer a claim.
    pub fn find_losses(&mut self, cx: &mut Shared) {
        let silence = cx.settings.silence;
        let is_silent = |member: MemberId| {
            member != cx.me() && cx.links.get(&member).is_none_or(|link| link.is_silent(cx.now, silence))
        };
        let silent: Vec<_> = self.targets.keys().copied().filter(|&member| is_silent(member)).collect();
        for member in silent {
            self.lose(cx, member, "it is silent");
        }
    }

    /// Gives up starts that did not answer the claim in time.
    pub fn end_settling(&mut self, cx: &mut Shared) {
        if self.is_settling() && self.settled_by <= cx.now {
            // Those SAs only that were there before the claim.
            let before = Birth { epoch: self.epoch(), order: 0 };
            for (member, incarnation) in core::mem::take(&mut self.awaited) {
                self.given_up.insert((member, incarnation));
                self.record_loss(cx, member, incarnation, before);
            }
            cx.actions.fabric_changed();
        }
    }

    /// Forgets lost starts that no SA remembers any more.
    pub fn forget_lost(&mut self, cx: &mut Shared) {
        if self.lost.is_empty() {
            return;
        }
        let oldest = self.children.values().map(|child| child.order).min().unwrap_or(u64::MAX);
        let targets = &self.targets;
        let is_gone = |lost: &Lost| {
            let is_there = targets.get(&lost.member).is_some_and(|target| target.incarnation == lost.incarnation);
            lost.before_order <= oldest && !is_there
        };
        for lost in self.lost.extract_if(.., |lost| is_gone(lost)) {
            cx.jobs.push(Job::ForgetStart(self.fence, lost.member, lost.incarnation));
        }
    }
}
