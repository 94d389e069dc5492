//! One DVIPA at one member: who owns it, the owner's part if it is this member, and what it keeps as a target.

use core::net::IpAddr;
use std::collections::BTreeSet;

use ipsec::time::Instant;

use super::cache::{At, Cache};
use super::notice::Notice;
use super::owner::Owner;
use super::seam::{Action, ActivePort, DvipaSettings, ServicePort};
use super::shared::{Refused, Shared};
use super::stopped::Stopped;
use crate::fabric::FabricDvipa;
use crate::facility::claim::Held;
use crate::id::{Epoch, Incarnation, MemberId, Serial};
use crate::message::{Body, LIST_MAX, Top};

/// A DVIPA.
pub(super) struct Dvipa {
    pub settings: DvipaSettings,
    /// The epoch that is known; 0 before the first.
    pub epoch: Epoch,
    /// Who owns it in that epoch.
    pub owner: Option<MemberId>,
    /// The owner's part, if that is this member.
    pub own: Option<Owner>,
    /// The shadows here. The owner keeps them by the same code as all others.
    pub cache: Cache,
    pub stopped: Stopped,
    /// The ports whose hosts answer here, as far as is known.
    pub ready: Option<Vec<ServicePort>>,
    /// How many connections there are here of each port.
    pub active: Vec<ActivePort>,
    /// Whether the owner knows these, and the claim was acknowledged in this session.
    pub is_acknowledged: bool,
    /// The ticket of an epoch that not every core here has heard of yet: nothing is acknowledged before.
    pub epoch_ticket: Option<u64>,
    pub is_report_due: bool,
    /// What operators want of targets, until the owner could be told.
    pub wishes: Vec<(MemberId, bool)>,
    /// Whether nothing is sent on its SAs, because the owner is silent.
    pub is_muted: bool,
    /// What a claim found in the facility, until the epoch begins.
    pub found: Option<Box<Held>>,
    /// When a claim is begun again that could not go on.
    pub ask_again_at: Option<Instant>,
    /// Messages of other epochs than the one that is known.
    pub stale: u64,
}

impl Dvipa {
    pub fn new(settings: DvipaSettings) -> Dvipa {
        Dvipa {
            settings,
            epoch: Epoch::default(),
            owner: None,
            own: None,
            cache: Cache::default(),
            stopped: Stopped::default(),
            ready: None,
            active: Vec::new(),
            is_acknowledged: false,
            epoch_ticket: None,
            is_report_due: false,
            wishes: Vec::new(),
            is_muted: false,
            found: None,
            ask_again_at: None,
            stale: 0,
        }
    }

    pub fn address(&self) -> IpAddr {
        self.settings.address
    }

    pub fn is_target(&self, member: MemberId) -> bool {
        self.settings.targets.contains(&member)
    }

    /// Everyone who has a part in it.
    pub fn members(&self) -> BTreeSet<MemberId> {
        self.settings.owners.iter().chain(&self.settings.targets).copied().collect()
    }

    /// Something was said of it.
    pub fn handle(&mut self, cx: &mut Shared, from: MemberId, epoch: Epoch, body: Body) -> Result<(), Refused> {
        if let Body::Claimed = body {
            return self.claimed(cx, from, epoch);
        }
        if epoch != self.epoch {
            self.stale += 1;
            let (found, known) = (epoch, self.epoch);
            return Err(if found < known {
                Refused::StaleEpoch { found, known }
            } else {
                Refused::FutureEpoch { found, known }
            });
        }
        match body {
            Body::Claimed => Ok(()),
            Body::Expelled { .. }
            | Body::Deltas { .. }
            | Body::SnapshotBegin { .. }
            | Body::SnapshotSas(_)
            | Body::SnapshotEnd { .. }
            | Body::FreedAcknowledged { .. }
            | Body::Verify { .. }
            | Body::Grants(_)
            | Body::Numbers(_)
            | Body::Marks(_)
            | Body::Prefer(_)
            | Body::Quiet(_)
            | Body::Lease { .. } => {
                if self.owner != Some(from) {
                    return Err(Refused::NotOwner(from));
                }
                self.hear_owner(cx, body)
            }
            Body::ClaimAcknowledged { .. }
            | Body::Held(_)
            | Body::ShadowsAcknowledged { .. }
            | Body::Report { .. }
            | Body::FirstPacket(_)
            | Body::PeerSeen { .. }
            | Body::Freed { .. }
            | Body::DrainWanted { .. }
            | Body::Use(_)
            | Body::NumbersWanted(_) => self.hear_member(cx, from, body),
        }
    }

    fn hear_owner(&mut self, cx: &mut Shared, body: Body) -> Result<(), Refused> {
        if cx.is_expelled {
            // What is void takes nothing more; it comes again when this member has come back as another start.
            return Ok(());
        }
        let none = BTreeSet::new();
        let installed = self.own.as_ref().map_or(&none, |own| &own.installed);
        let at = At { dvipa: self.settings.address, is_owner: self.own.is_some(), installed };
        match body {
            Body::Deltas { first, deltas } => self.cache.take_deltas(cx, &at, first, deltas)?,
            Body::SnapshotBegin { number } => self.cache.begin_snapshot(number),
            Body::SnapshotSas(sas) => self.cache.take_snapshot(cx, &at, &sas)?,
            Body::SnapshotEnd { number } => self.cache.end_snapshot(cx, &at, number)?,
            Body::Grants(grants) => grants.iter().for_each(|granted| self.cache.granted(cx, &at, granted)),
            Body::FreedAcknowledged { batch, serial } => self.stopped.acknowledged(cx, batch, serial),
            Body::Verify { incarnation, entries } => {
                if incarnation == cx.incarnation {
                    cx.actions.push(Action::Verify(entries));
                }
            }
            Body::Expelled { incarnation } => self.expelled(cx, incarnation),
            Body::Numbers(list) => self.cache.numbers(cx, &at, &list),
            Body::Marks(list) => self.cache.marks(cx, &at, &list),
            Body::Prefer(spis) => self.cache.prefer(cx, &at, &spis),
            Body::Quiet(spis) => self.cache.quiet(cx, &at, &spis),
            Body::Lease { spi, first, count } => self.cache.lease(cx, &at, spi, first, count),
            Body::Claimed
            | Body::ClaimAcknowledged { .. }
            | Body::Held(_)
            | Body::ShadowsAcknowledged { .. }
            | Body::Report { .. }
            | Body::FirstPacket(_)
            | Body::PeerSeen { .. }
            | Body::Freed { .. }
            | Body::DrainWanted { .. }
            | Body::Use(_)
            | Body::NumbersWanted(_) => {}
        }
        Ok(())
    }

    fn hear_member(&mut self, cx: &mut Shared, from: MemberId, body: Body) -> Result<(), Refused> {
        let is_target = self.settings.targets.contains(&from);
        let Some(own) = &mut self.own else { return Err(Refused::NotOwner(cx.me())) };
        match body {
            Body::ClaimAcknowledged { incarnation, position } => {
                own.acknowledged(cx, from, is_target, incarnation, position)?;
            }
            Body::DrainWanted { target, on } => own.drain(cx, target, on),
            Body::Held(tops) => own.held(cx, &tops),
            Body::ShadowsAcknowledged { number, lacking } => own.shadows_acknowledged(cx, from, number, lacking),
            Body::Use(list) => own.used(cx, from, &list),
            Body::NumbersWanted(spis) => own.numbers_wanted(cx, from, &spis),
            Body::FirstPacket(spi) => own.first_packet(cx, spi),
            Body::PeerSeen { spi, remote, sequence } => {
                if own.children.contains_key(&spi) {
                    cx.actions.push(Action::PeerSeen { child: own.child_id(spi), remote, sequence });
                }
            }
            Body::Report { .. } | Body::Freed { .. } if !is_target => return Err(Refused::NotTarget(from)),
            Body::Report { ready, active } => own.reported(cx, from, ready, active),
            Body::Freed { batch, entries, tops } => own.freed(cx, from, batch, entries, &tops)?,
            Body::Claimed
            | Body::Expelled { .. }
            | Body::Deltas { .. }
            | Body::SnapshotBegin { .. }
            | Body::SnapshotSas(_)
            | Body::SnapshotEnd { .. }
            | Body::FreedAcknowledged { .. }
            | Body::Verify { .. }
            | Body::Grants(_)
            | Body::Numbers(_)
            | Body::Marks(_)
            | Body::Prefer(_)
            | Body::Quiet(_)
            | Body::Lease { .. } => {}
        }
        Ok(())
    }

    /// A member says that it owns the address.
    fn claimed(&mut self, cx: &mut Shared, from: MemberId, epoch: Epoch) -> Result<(), Refused> {
        if !self.settings.owners.contains(&from) {
            return Err(Refused::MayNotOwn(from));
        }
        let known = self.epoch;
        if epoch < known || (epoch == known && self.owner != Some(from)) {
            self.stale += 1;
            return Err(Refused::StaleEpoch { found: epoch, known });
        }
        if epoch > known {
            self.disown(cx, "another member has claimed the address");
            self.begin_epoch(cx, from, epoch);
            cx.notice(Notice::Follows { dvipa: self.settings.address, epoch, owner: from });
        }
        self.acknowledge(cx);
        Ok(())
    }

    /// A new owner, a new epoch: no frame of the one before is taken any more. When every core knows that, the rest follows.
    pub fn begin_epoch(&mut self, cx: &mut Shared, owner: MemberId, epoch: Epoch) {
        (self.owner, self.epoch) = (Some(owner), epoch);
        self.is_acknowledged = false;
        self.stopped.oldest_serial = Serial(0);
        cx.actions.fabric_changed();
        self.epoch_ticket = Some(cx.await_cores(Some(self.settings.address)));
    }

    /// No core takes frames of the epoch before, and what the SAs have carried is known as of now: that is final. Their
    /// owner is told, all of them are void, and only then the claim is acknowledged.
    pub fn epoch_heard(&mut self, cx: &mut Shared) {
        self.epoch_ticket = None;
        if let Some(owner) = self.owner {
            self.say_held(cx, owner, self.epoch);
        }
        self.cache.clear(cx, self.settings.address, "its epoch has passed");
        self.stopped.clear(cx);
        cx.actions.fabric_changed();
        self.acknowledge(cx);
    }

    /// How far it had come, before that is void: a new owner that takes SAs over needs to know.
    fn say_held(&mut self, cx: &mut Shared, owner: MemberId, epoch: Epoch) {
        let tops: Vec<_> = self
            .cache
            .iter()
            .filter(|(_, held)| held.top > 0)
            .map(|(spi, held)| Top { spi, number: held.top })
            .collect();
        for some in tops.chunks(LIST_MAX) {
            cx.say(owner, self.settings.address, epoch, Body::Held(some.to_vec()));
        }
    }

    /// Tells the owner where this member stands, in a session that is new to both.
    pub fn acknowledge(&mut self, cx: &mut Shared) {
        let is_ready = !cx.is_expelled && self.epoch_ticket.is_none();
        let Some(owner) = self.owner.filter(|&owner| is_ready && cx.reaches(owner)) else { return };
        let (incarnation, position) = (cx.incarnation, self.cache.position());
        cx.say(owner, self.settings.address, self.epoch, Body::ClaimAcknowledged { incarnation, position });
        self.is_acknowledged = true;
        self.is_report_due = true;
        self.cache.say_again();
        self.stopped.say_again();
    }

    /// The owner has given this start of this member up.
    fn expelled(&mut self, cx: &mut Shared, incarnation: Incarnation) {
        if incarnation == cx.incarnation {
            let (dvipa, epoch) = (self.settings.address, self.epoch);
            cx.notice(Notice::Expelled { dvipa, epoch, incarnation });
            cx.is_expelled = true;
        }
    }

    /// Comes back empty. An owner keeps its SAs; its own part as a target is as lost as any other's.
    pub fn empty(&mut self, cx: &mut Shared) {
        if self.own.is_some() {
            self.cache.forget();
        } else {
            self.cache.clear(cx, self.settings.address, "the owner gave this member up");
        }
        self.stopped.clear(cx);
        self.is_acknowledged = false;
    }

    /// This member owns the address no more.
    pub fn disown(&mut self, cx: &mut Shared, why: &str) {
        let Some(own) = self.own.take() else { return };
        let dvipa = self.settings.address;
        cx.jobs.forget(&own.fence);
        for (&spi, child) in &own.children {
            if child.is_born() && self.cache.get(spi).is_none() {
                let child = own.child_id(spi);
                cx.actions.push(Action::Remove { child, lingers: false, why: "its owner owns the address no more" });
            } else if !child.is_born() {
                cx.actions.push(Action::Refuse(own.child_id(spi)));
            }
        }
        self.cache.clear(cx, dvipa, "its owner owns the address no more");
        self.stopped.clear(cx);
        (self.owner, self.epoch_ticket) = (None, None);
        cx.actions.push(Action::Disown { dvipa });
        cx.actions.fabric_changed();
        cx.notice(Notice::Disowned { dvipa, epoch: own.epoch(), why: why.to_owned() });
    }

    /// As the packet path sees it.
    pub fn fabric(&self) -> Option<FabricDvipa> {
        let owner = self.owner?;
        Some(FabricDvipa {
            address: self.settings.address,
            owner,
            epoch: self.epoch,
            processing: self.settings.processing,
            oldest_serial: self.stopped.oldest_serial.max(Serial(0)),
            targets: self.own.as_ref().map(Owner::fabric_targets).unwrap_or_default(),
            // An owner that was a target has SAs of the epoch before until all its cores have heard that they are void.
            is_settling: self.own.as_ref().is_some_and(|own| self.epoch_ticket.is_some() || own.is_settling()),
        })
    }
}
