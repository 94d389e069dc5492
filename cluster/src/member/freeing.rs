//! Freeing entries, the owner's side: floors first, then the entries go from all cores, then the target is told, with
//! the serial that frames carry from then on. And asking targets for entries that nobody has spoken of for long.

use core::time::Duration;

use ipsec::time::Instant;

use super::owner::{Awaited, Owner, Standing, Ticket};
use super::seam::{Action, EntryKey};
use super::shared::{Refused, Shared};
use crate::id::{Incarnation, MemberId, Serial};
use crate::message::{Body, ENTRIES_MAX, Top};

/// Most freeings of one target that the cores are still carrying out.
pub(super) const FREED_AHEAD_MAX: u64 = 32;
/// Most entries of one target that wait to be verified; more are told again later.
const UNVERIFIED_MAX: usize = 8 * ENTRIES_MAX;
/// How long entries wait for others to be verified with.
const VERIFY_WITHIN: Duration = Duration::from_millis(200);

impl Owner {
    /// A target has stopped entries.
    pub fn freed(
        &mut self,
        cx: &mut Shared,
        from: MemberId,
        batch: u64,
        entries: Vec<EntryKey>,
        tops: &[Top],
    ) -> Result<(), Refused> {
        let Some(target) = self.targets.get_mut(&from) else { return Err(Refused::NotTarget(from)) };
        match target.standing {
            Standing::Present | Standing::Leaving(_) | Standing::Left => {}
            // What is lost frees nothing; its SAs are sealed.
            Standing::Admitting | Standing::Losing | Standing::Lost => return Ok(()),
        }
        if batch <= target.freed_seen {
            // Said again: its acknowledgement was lost, or is under way.
            self.acknowledge_freed(cx, from);
            return Ok(());
        }
        if batch != target.freed_seen + 1 {
            // Those before came while its start was not recorded yet, and are said again, then this one too.
            return Ok(());
        }
        if batch > target.freed_done + FREED_AHEAD_MAX {
            return Err(Refused::TooMuch("freeings"));
        }
        target.freed_seen = batch;
        let incarnation = target.incarnation;
        for top in tops {
            self.raise_floor(cx, *top);
        }
        cx.actions.push(Action::Forget { entries, target: from });
        cx.actions.fabric_changed();
        let ticket = Ticket { target: from, incarnation, awaited: Awaited::Freeing(batch) };
        self.tickets.insert(cx.await_cores(None), ticket);
        Ok(())
    }

    pub fn raise_floor(&mut self, cx: &mut Shared, top: Top) {
        let child_id = self.child_id(top.spi);
        if let Some(child) = self.children.get_mut(&top.spi)
            && top.number > child.floor
        {
            child.floor = top.number;
            cx.actions.push(Action::RaiseFloor { child: child_id, floor: top.number });
        }
    }

    /// Every core has heard of what a ticket is about.
    pub fn heard(&mut self, cx: &mut Shared, ticket: u64) {
        let Some(Ticket { target: member, incarnation, awaited }) = self.tickets.remove(&ticket) else { return };
        let Some(target) = self.targets.get_mut(&member).filter(|target| target.incarnation == incarnation) else {
            return;
        };
        match awaited {
            Awaited::Freeing(batch) => self.forgotten(cx, member, batch),
            // What was counted before says nothing.
            Awaited::Draining => (target.is_drain_known, target.connections) = (target.is_draining, None),
            Awaited::Suspension => self.suspended(cx, member, incarnation),
        }
    }

    /// Every core has forgotten the entries of a freeing.
    fn forgotten(&mut self, cx: &mut Shared, member: MemberId, batch: u64) {
        let others = self.tickets.values().filter(|other| other.target == member).filter_map(Ticket::batch);
        let first = others.min();
        if first.is_some_and(|first| first < batch) {
            return;
        }
        if let Some(target) = self.targets.get_mut(&member) {
            let done = first.map_or(target.freed_seen, |first| first - 1);
            target.freed_done = target.freed_done.max(done);
        }
        self.acknowledge_freed(cx, member);
    }

    fn acknowledge_freed(&mut self, cx: &mut Shared, member: MemberId) {
        let Some(target) = self.targets.get(&member) else { return };
        let batch = target.freed_done;
        if batch > 0 {
            let body = Body::FreedAcknowledged { batch, serial: Serial(batch) };
            cx.say(member, self.fence.address, self.epoch(), body);
        }
    }

    /// It is long since a target has spoken of an entry.
    pub fn unverified(&mut self, now: Instant, entry: EntryKey, member: MemberId, incarnation: Incarnation) {
        let Some(target) = self.targets.get_mut(&member) else { return };
        let is_asked = target.incarnation == incarnation && target.standing == Standing::Present;
        if is_asked && target.unverified.len() < UNVERIFIED_MAX {
            target.unverified.push(entry);
            target.verify_at.get_or_insert(now + VERIFY_WITHIN);
        }
    }

    /// Asks targets whether they have what was not spoken of.
    pub fn verify(&mut self, cx: &mut Shared) {
        let (dvipa, epoch) = (self.fence.address, self.epoch());
        for (&member, target) in &mut self.targets {
            let is_due = target.verify_at.is_some_and(|at| at <= cx.now) || target.unverified.len() >= ENTRIES_MAX;
            if !is_due {
                continue;
            }
            target.verify_at = None;
            let incarnation = target.incarnation;
            let entries = core::mem::take(&mut target.unverified);
            for entries in entries.chunks(ENTRIES_MAX) {
                // Who cannot be reached is asked when its entries are told the next time.
                cx.say(member, dvipa, epoch, Body::Verify { incarnation, entries: entries.to_vec() });
            }
        }
    }
}
