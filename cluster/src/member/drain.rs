//! Draining a target: it gets no new connections; when it has none left, how far it had come is recorded, and it may go
//! without a seal.

use super::jobs::Job;
use super::notice::Notice;
use super::owner::{Awaited, Owner, Standing, Ticket};
use super::shared::Shared;
use crate::facility::claim::Fence;
use crate::facility::members::{AdmitTarget, RecordDrained};
use crate::facility::record::DrainedTop;
use crate::id::{Incarnation, MemberId};

impl Owner {
    /// The operator wants a target drained, or no more.
    pub fn drain(&mut self, cx: &mut Shared, member: MemberId, on: bool) {
        let Some(target) = self.targets.get_mut(&member) else { return };
        if core::mem::replace(&mut target.is_draining, on) == on {
            return;
        }
        (target.is_drain_known, target.connections) = (false, None);
        let incarnation = target.incarnation;
        cx.actions.fabric_changed();
        if on {
            // Only what the cores count when all of them know can say that there is nothing left.
            let ticket = Ticket { target: member, incarnation, awaited: Awaited::Draining };
            self.tickets.insert(cx.await_cores(None), ticket);
        }
        cx.tables_changed();
        cx.notice(Notice::Drains { dvipa: self.fence.address, epoch: self.fence.record.epoch, target: member, on });
        // One that is leaving comes back when it has left: the records of both must not overtake each other.
        if !on && target.standing == Standing::Left {
            self.readmit(cx, member);
        }
    }

    fn readmit(&mut self, cx: &mut Shared, member: MemberId) {
        if let Some(target) = self.targets.get_mut(&member) {
            target.standing = Standing::Admitting;
            target.unsaid.extend(self.numbers.peers.keys());
            let admit = AdmitTarget { fence: self.fence, member, incarnation: target.incarnation };
            cx.jobs.push(Job::Admit(admit));
            self.sender_comes_or_goes(cx, member, true);
        }
    }

    /// How many entries our cores hold for a target.
    pub fn count_connections(&mut self, cx: &mut Shared, member: MemberId, count: u64) {
        cx.tables_changed();
        if let Some(target) = self.targets.get_mut(&member) {
            target.connections = Some(count);
        }
    }

    /// Lets drained targets go that have no connections left.
    pub fn let_go(&mut self, cx: &mut Shared) {
        let is_free = |member: &MemberId| !self.tickets.values().any(|ticket| ticket.target == *member);
        let done: Vec<_> = self
            .targets
            .iter()
            .filter(|(member, target)| {
                target.is_draining
                    && target.standing == Standing::Present
                    && target.is_drain_known
                    && target.connections == Some(0)
                    && target.unverified.is_empty()
                    && is_free(member)
            })
            .map(|(&member, target)| (member, target.incarnation))
            .collect();
        for (member, incarnation) in done {
            let tops = self.tops_of_target(member);
            let parts = RecordDrained::parts(self.fence, member, incarnation, &tops);
            if let Some(target) = self.targets.get_mut(&member) {
                target.standing = Standing::Leaving(parts.len() as u16);
            }
            for part in parts {
                cx.jobs.push(Job::Drained(self.fence, member, incarnation, part));
            }
        }
    }

    /// What it accepted belonged to entries, and those were freed with the tops of all their peers' SAs: the floors cover
    /// it. What it reported is recorded beside them.
    fn tops_of_target(&self, member: MemberId) -> Vec<DrainedTop> {
        let Some(target) = self.targets.get(&member) else { return Vec::new() };
        let top = |spi| target.used.get(spi).map_or(0, |used| used.top);
        self.children.iter().map(|(spi, child)| DrainedTop { spi: *spi, top: top(spi), floor: child.floor }).collect()
    }

    /// A part of what it leaves behind is recorded.
    pub fn drained(&mut self, cx: &mut Shared, fence: &Fence, member: MemberId, incarnation: Incarnation) {
        let Some(target) = self.targets.get_mut(&member).filter(|target| target.incarnation == incarnation) else {
            return;
        };
        let Standing::Leaving(missing) = target.standing else { return };
        if missing > 1 {
            target.standing = Standing::Leaving(missing - 1);
            return;
        }
        target.standing = Standing::Left;
        let is_draining = target.is_draining;
        self.sender_comes_or_goes(cx, member, false);
        cx.actions.fabric_changed();
        cx.notice(Notice::Left { dvipa: fence.address, epoch: fence.record.epoch, target: member, incarnation });
        if !is_draining {
            self.readmit(cx, member);
        }
    }
}
