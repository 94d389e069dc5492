//! The owner's side of shadow SAs: from IKE's news of an SA, over its record, to every core and every target, until its
//! peer may use it; and bringing targets level.

use core::net::SocketAddr;
use core::time::Duration;

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::cache::SHADOWS_MAX;
use super::jobs::{JOBS_MAX, Job};
use super::lifesizes::ledgers;
use super::owner::{Child, Owner, Phase, Sending, Standing};
use super::seam::{Action, DvipaSettings};
use super::shared::Shared;
use crate::facility::births::{CreateSa, Created, DeleteSas};
use crate::id::MemberId;
use crate::message::{Body, Delta, Departed, Moved, SecretBytes, ShadowImage, ShortReason};
use crate::shadow::{ShadowSa, Use};
use crate::shadow_codec::encode_shadow;

/// How long IKE's message waits for the record of a new SA at most: longer than clients repeat theirs (strongSwan does so
/// for 165 s). Nobody waits for the SA any more when it is given up, and the one that it was to replace has gone on.
pub(super) const RECORD_PATIENCE: Duration = Duration::from_secs(180);
/// Most changes, or SAs of a snapshot, in one message.
const BATCH_MAX: usize = 64;
/// A message takes no more SAs when it holds this many bytes.
const BATCH_BYTES: usize = 48 * 1024;
/// Most messages that wait in one session before a target that lags is sent more.
pub(super) const AHEAD_MAX: usize = 32;

impl Owner {
    /// IKE has a new SA.
    pub fn child_up(&mut self, cx: &mut Shared, settings: &DvipaSettings, mut sa: Box<ShadowSa>) {
        let child = sa.id();
        let is_ours = sa.child.inbound.epoch == self.epoch().0 && !self.children.contains_key(&child.spi);
        let has_room = self.children.len() < SHADOWS_MAX && cx.jobs.len() < JOBS_MAX;
        // Any number that the counter has passed would do: senders near it share no id, whichever it is.
        sa.born_at = sa.born_at.max(cx.senders);
        let order = self.order + 1;
        let percentage = self.percentage_of(sa.child.inbound.peer);
        let Ok((ledgers, grant_bytes_max)) = ledgers(&sa, settings, percentage) else {
            cx.refuse(child, "its soft and hard limits are too near to each other for so many targets");
            return;
        };
        sa.grant_bytes_max = grant_bytes_max;
        let usage = sa.usage;
        if sa.sibling_of.is_some() {
            // Only who is told so sends on it.
            sa.usage = Use::ReceiveOnly;
        }
        let made = encode_shadow(&sa).ok().zip(cx.sealer.seal(&sa, order).ok());
        let Some((image, record)) = made.filter(|_| is_ours && has_room) else {
            cx.refuse(child, "it is of another epoch, too large, or one too many");
            return;
        };
        self.order = order;
        let mark = self.numbers.marks.at_birth(1);
        cx.jobs.push(Job::Birth(Box::new(CreateSa { fence: self.fence, spi: child.spi, record, mark })));
        let peer = sa.child.inbound.peer;
        let born = Child {
            order,
            peer,
            esn: sa.child.outbound.esn,
            replaces: sa.replaces,
            sibling_of: sa.sibling_of,
            usage,
            percentage: self.meet_peer(peer),
            ledgers,
            is_preferred: sa.usage == Use::First,
            phase: Phase::Recording { sa, until: cx.now + RECORD_PATIENCE },
            image: SecretBytes::new(image),
            remote: None,
            floor: 0,
            is_sealed: false,
            is_seal_met: false,
            is_rekey_asked: false,
            heard_at: None,
        };
        self.children.insert(child.spi, born);
        self.recording.insert(child.spi);
        self.share_out(child.spi);
    }

    /// The record of an SA stands, or cannot.
    pub fn recorded(&mut self, cx: &mut Shared, create: &CreateSa, created: Created) {
        let spi = create.spi;
        let number = self.log.last() + 1;
        let until = cx.now + cx.settings.shadow_patience;
        let is_awaited = self.children.get(&spi).is_some_and(|child| child.order == create.record.header.birth.order);
        match (created, self.children.get_mut(&spi).filter(|_| is_awaited)) {
            (Created::Made(senders), Some(child)) => {
                cx.senders = cx.senders.max(senders);
                let phase = core::mem::replace(&mut child.phase, Phase::Spreading { number, until });
                let Phase::Recording { sa, .. } = phase else {
                    child.phase = phase;
                    return;
                };
                let (image, order) = (child.image(), child.order);
                let is_sealed = child.is_sealed;
                cx.actions.push(Action::Install(sa));
                if is_sealed {
                    cx.actions.push(Action::Seal(self.child_id(spi)));
                }
                self.recording.remove(&spi);
                self.by_order.insert(order, spi);
                self.unreleased.insert(spi);
                self.log.push(Delta::Born(image));
                self.begin_numbers(cx, spi, create.mark);
            }
            (Created::Taken, Some(_)) => self.refuse(cx, spi, "another SA has its record"),
            // It went while its record was made.
            (Created::Made(_), None) => self.dead.push(spi),
            (Created::Taken, None) => {}
        }
    }

    /// Every core of this member has an SA, or one has no room.
    pub fn installed(&mut self, cx: &mut Shared, spi: Spi, has_room: bool) {
        if !self.children.contains_key(&spi) {
            return;
        }
        if has_room {
            self.installed.insert(spi);
        } else {
            self.refuse(cx, spi, "a core of the owner has no room for it");
        }
    }

    /// Gives an SA up that its peer could not use yet; IKE deletes it.
    fn refuse(&mut self, cx: &mut Shared, spi: Spi, why: &'static str) {
        cx.refuse(self.child_id(spi), why);
        self.take_away(cx, spi, Departed { spi, lingers: false, why: ShortReason::Refused }, why);
    }

    /// IKE has no such SA any more.
    pub fn child_down(&mut self, cx: &mut Shared, spi: Spi, lingers: bool, why: &'static str) {
        self.take_away(cx, spi, Departed { spi, lingers, why: ShortReason::Deleted }, why);
    }

    fn take_away(&mut self, cx: &mut Shared, spi: Spi, departed: Departed, why: &'static str) {
        let Some(gone) = self.children.remove(&spi) else { return };
        self.by_order.remove(&gone.order);
        self.recording.remove(&spi);
        self.installed.remove(&spi);
        self.unreleased.remove(&spi);
        self.learn_refresh(&gone);
        self.end_numbers(cx, gone.peer, spi);
        if gone.is_born() {
            cx.actions.push(Action::Remove { child: self.child_id(spi), lingers: departed.lingers, why });
            self.log.push(Delta::Gone(departed));
        }
        // A birth that is still under way finds the record absent, and is deleted when it is known.
        self.dead.push(spi);
        for target in self.targets.values_mut() {
            target.used.remove(&spi);
        }
    }

    /// IKE follows a peer.
    pub fn peer_moved(&mut self, cx: &mut Shared, peer: PeerId, remote: SocketAddr, spis: &[Spi]) {
        let mut children = Vec::new();
        for &spi in spis {
            if let Some(child) = self.children.get_mut(&spi) {
                child.remote = Some(remote);
                children.push(spi);
            }
        }
        if children.is_empty() {
            return;
        }
        for spis in children.chunks(crate::message::LIST_MAX) {
            self.log.push(Delta::Moved(Moved { peer, remote, spis: spis.to_vec() }));
        }
        cx.actions.push(Action::MovePeer { peer, dvipa: self.fence.address, remote, children });
    }

    /// An SA has carried its first authentic packet somewhere: its peer can receive on it.
    pub fn first_packet(&mut self, cx: &mut Shared, spi: Spi) {
        if let Some(child) = self.children.get_mut(&spi) {
            child.is_preferred |= child.sibling_of.is_none();
            let peer = child.peer;
            self.proven(cx, peer, spi);
        }
    }

    /// A target says up to where it has all changes.
    pub fn shadows_acknowledged(&mut self, cx: &mut Shared, from: MemberId, number: u64, lacking: u32) {
        let last = self.log.last();
        let Some(target) = self.targets.get_mut(&from) else { return };
        if number > last {
            cx.disconnect(from, "it acknowledges changes that were never made");
            return;
        }
        target.acknowledged = target.acknowledged.max(number);
        target.lacking = lacking;
        cx.actions.fabric_changed();
    }

    /// Lets peers use the SAs that stand wherever they must, or whose time is over.
    pub fn release(&mut self, cx: &mut Shared) {
        let mut released = Vec::new();
        for &spi in &self.unreleased {
            let Some(Child { phase: Phase::Spreading { number, until }, .. }) = self.children.get(&spi) else {
                continue;
            };
            let is_missing = self.targets.values().any(|target| {
                target.acknowledged < *number && target.standing == Standing::Present && self.is_level(target)
            });
            if self.installed.contains(&spi) && (!is_missing || *until <= cx.now) {
                released.push((spi, *number));
            }
        }
        for (spi, number) in released {
            self.unreleased.remove(&spi);
            self.released_to = self.released_to.max(number);
            if let Some(child) = self.children.get_mut(&spi) {
                child.phase = Phase::Released { number };
            }
            // The fabric leaves those out that have not acknowledged it, and is told first.
            cx.actions.fabric_changed();
            cx.actions.push_after_fabric(Action::Release(self.child_id(spi)));
        }
    }

    /// Gives up SAs whose records cannot be made in time, and deletes the records of those that are gone.
    pub fn tend_records(&mut self, cx: &mut Shared) {
        let is_late = |spi: &&Spi| {
            self.children
                .get(spi)
                .is_some_and(|child| matches!(child.phase, Phase::Recording { until, .. } if until <= cx.now))
        };
        let overdue: Vec<_> = self.recording.iter().filter(is_late).copied().collect();
        for spi in overdue {
            self.refuse(cx, spi, "the coupling facility does not answer");
        }
        let dead = core::mem::take(&mut self.dead);
        for delete in DeleteSas::batches(self.fence, &dead) {
            cx.jobs.push(Job::Deaths(self.fence, delete));
        }
    }

    /// Sends a target what it lacks, as far as its session takes it.
    pub fn bring_level(&mut self, cx: &mut Shared, member: MemberId) {
        let (dvipa, epoch, me) = (self.fence.address, self.epoch(), cx.me());
        while member == me || cx.outbox.waiting(member) < AHEAD_MAX {
            if !cx.reaches(member) {
                return;
            }
            let Some(target) = self.targets.get(&member).filter(|target| target.is_told()) else { return };
            let body = match target.snapshot {
                Some(sending) => self.part_of_snapshot(cx.now, member, sending),
                None if target.sent == self.log.last() => return,
                // Who has nothing is told what there is, not what there was.
                None if target.sent > 0 && self.log.reaches_back_to(target.sent) => self.next_deltas(cx.now, member),
                None => self.begin_snapshot(member),
            };
            let Some(body) = body else { return };
            cx.say(member, dvipa, epoch, body);
        }
    }

    fn next_deltas(&mut self, now: Instant, member: MemberId) -> Option<Body> {
        let target = self.targets.get_mut(&member)?;
        let mut bytes = 0;
        let fits = |delta: &&Delta| {
            let is_room = bytes < BATCH_BYTES;
            bytes += match delta {
                Delta::Born(image) => image.sa.expose().len() + 64,
                Delta::Moved(moved) => moved.spis.len() * 5 + 64,
                Delta::Gone(_) => 64,
            };
            is_room
        };
        let mut deltas: Vec<_> = self.log.after(target.sent).take(BATCH_MAX).take_while(fits).cloned().collect();
        let (first, incarnation) = (target.sent + 1, target.incarnation);
        target.sent += deltas.len() as u64;
        for delta in &mut deltas {
            if let Delta::Born(image) = delta
                && let Some(child) = self.by_order.get(&image.birth).and_then(|spi| self.children.get_mut(spi))
            {
                image.ceilings = child.tell_ceilings(now, member, incarnation);
            }
        }
        Some(Body::Deltas { first, deltas })
    }

    fn begin_snapshot(&mut self, member: MemberId) -> Option<Body> {
        let number = self.log.last();
        let target = self.targets.get_mut(&member)?;
        target.snapshot = Some(Sending { number, after_order: 0 });
        Some(Body::SnapshotBegin { number })
    }

    /// Goes on with a snapshot. SAs that are born or gone meanwhile are in the changes that follow it.
    fn part_of_snapshot(&mut self, now: Instant, member: MemberId, mut sending: Sending) -> Option<Body> {
        let incarnation = self.targets.get(&member)?.incarnation;
        let mut sas = Vec::new();
        let mut bytes = 0;
        for (&order, spi) in self.by_order.range(sending.after_order + 1..) {
            if sas.len() == BATCH_MAX || bytes >= BATCH_BYTES {
                break;
            }
            let Some(child) = self.children.get_mut(spi) else { continue };
            bytes += child.image.expose().len();
            let ceilings = child.tell_ceilings(now, member, incarnation);
            sas.push(ShadowImage { ceilings, ..child.image() });
            sending.after_order = order;
        }
        let target = self.targets.get_mut(&member)?;
        if sas.is_empty() {
            (target.snapshot, target.sent) = (None, sending.number);
            return Some(Body::SnapshotEnd { number: sending.number });
        }
        target.snapshot = Some(sending);
        Some(Body::SnapshotSas(sas))
    }
}

impl Owner {
    /// When an SA is released though not everyone has it, or given up though nothing is known of its record.
    pub fn next_release(&self) -> Option<Instant> {
        let until = |child: &Child| match child.phase {
            Phase::Recording { until, .. } => Some(until),
            Phase::Spreading { until, .. } => self.installed_at(child.order).then_some(until),
            Phase::Released { .. } => None,
        };
        let unborn = self.recording.iter().chain(&self.unreleased);
        unborn.filter_map(|spi| self.children.get(spi)).filter_map(until).min()
    }

    fn installed_at(&self, order: u64) -> bool {
        self.by_order.get(&order).is_some_and(|spi| self.installed.contains(spi))
    }
}
