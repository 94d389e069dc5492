//! What the appliance tells of itself, and to which part of which DVIPA it goes.

use core::net::IpAddr;

use super::Member;
use super::dvipa::Dvipa;
use super::seam::{EntryKey, SaUse, ServicePort, Told};
use super::shared::Shared;
use crate::id::{ChildId, Incarnation, MemberId};
use crate::lifesize::Amount;
use crate::message::{Body, SERVICES_MAX, Wanted};

/// Most wishes that wait for an owner.
const WISHES_MAX: usize = 256;

impl Member {
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::ChildUp(sa) => {
                let child = sa.id();
                match self.dvipas.get_mut(&child.dvipa) {
                    Some(Dvipa { own: Some(own), settings, .. }) => own.child_up(&mut self.cx, settings, sa),
                    Some(_) | None => self.cx.refuse(child, "this member does not own its address"),
                }
            }
            Told::ChildDown { child, lingers, why } => {
                self.with_owner(child.dvipa, |own, cx| own.child_down(cx, child.spi, lingers, why));
            }
            Told::PeerMoved { peer, dvipa, remote, children } => {
                self.with_owner(dvipa, |own, cx| own.peer_moved(cx, peer, remote, &children));
            }
            Told::SiblingRefused { child, for_good } => {
                self.with_owner(child.dvipa, |own, cx| own.sibling_refused(cx, child.spi, for_good));
            }
            Told::Installed(child) => self.installed(child, true),
            Told::InstallFailed(child) => self.installed(child, false),
            Told::Heard { ticket } => {
                for dvipa in self.dvipas.values_mut() {
                    dvipa.heard(&mut self.cx, ticket);
                }
            }
            Told::Unverified { entry, target, incarnation } => self.unverified(entry, target, incarnation),
            Told::Stopped(entries) => self.stopped(entries),
            // What lives needs nothing.
            Told::Alive(_) => {}
            Told::FirstPacket(child) => self.tell_owner(child, Body::FirstPacket(child.spi)),
            Told::SealMet(child) => self.with_owner(child.dvipa, |own, _| own.seal_met(child.spi)),
            Told::NumbersWanted { child, next } => {
                self.tell_owner(child, Body::NumbersWanted(vec![Wanted { spi: child.spi, next }]));
            }
            Told::PeerSeen { child, remote, sequence } => {
                self.tell_owner(child, Body::PeerSeen { spi: child.spi, remote, sequence });
            }
            Told::Services { dvipa, ready } => self.services(dvipa, ready),
            Told::Active { dvipa, mut ports } => {
                ports.truncate(SERVICES_MAX);
                if let Some(dvipa) = self.dvipas.get_mut(&dvipa) {
                    dvipa.active = ports;
                    dvipa.is_report_due = true;
                }
            }
            Told::Load(permille) => {
                self.cx.load_permille = permille.min(1_000);
                self.cx.are_tables_stale |= self.dvipas.values().any(|dvipa| dvipa.own.is_some());
            }
            Told::Connections { dvipa, target, count } => {
                self.with_owner(dvipa, |own, cx| own.count_connections(cx, target, count));
            }
            Told::Drain { target, on } => self.wish(target, on),
            Told::Withdrawn { child, inbound, outbound } => {
                if let Some(dvipa) = self.dvipas.get_mut(&child.dvipa) {
                    dvipa.cache.withdrawn(child.spi, Amount::of(inbound), Amount::of(outbound));
                    dvipa.report_use(&mut self.cx);
                }
            }
            Told::Use(list) => self.used(&list),
        }
    }

    fn services(&mut self, dvipa: IpAddr, mut ready: Vec<ServicePort>) {
        ready.sort_unstable();
        ready.dedup();
        ready.truncate(SERVICES_MAX);
        if let Some(dvipa) = self.dvipas.get_mut(&dvipa)
            && dvipa.ready.as_ref() != Some(&ready)
        {
            dvipa.ready = Some(ready);
            dvipa.is_report_due = true;
        }
    }

    fn with_owner(&mut self, dvipa: IpAddr, act: impl FnOnce(&mut super::owner::Owner, &mut Shared)) {
        if let Some(own) = self.dvipas.get_mut(&dvipa).and_then(|dvipa| dvipa.own.as_mut()) {
            act(own, &mut self.cx);
        }
    }

    /// Says something of an SA to its owner, who may be this member.
    fn tell_owner(&mut self, child: ChildId, body: Body) {
        if let Some(dvipa) = self.dvipas.get(&child.dvipa)
            && let Some(owner) = dvipa.owner.filter(|_| dvipa.is_acknowledged)
        {
            self.cx.say(owner, child.dvipa, dvipa.epoch, body);
        }
    }

    fn installed(&mut self, child: ChildId, has_room: bool) {
        let Some(dvipa) = self.dvipas.get_mut(&child.dvipa) else { return };
        if let Some(own) = &mut dvipa.own {
            own.installed(&mut self.cx, child.spi, has_room);
        }
        dvipa.cache.installed(child.spi, has_room);
    }

    fn unverified(&mut self, entry: EntryKey, target: MemberId, incarnation: Incarnation) {
        let now = self.cx.now;
        if let Some(own) = self.dvipa_of(&entry).and_then(|dvipa| dvipa.own.as_mut()) {
            own.unverified(now, entry, target, incarnation);
        }
    }

    fn stopped(&mut self, entries: Vec<EntryKey>) {
        let mut nobodys = Vec::new();
        for entry in entries {
            let me = self.cx.me();
            match self.dvipas.values_mut().find(|dvipa| dvipa.is_target(me) && dvipa.may_have(&entry)) {
                Some(dvipa) => dvipa.stopped.stop(entry),
                None => nobodys.push(entry),
            }
        }
        // No SA of theirs is here, so no frame reaches them.
        if !nobodys.is_empty() {
            self.cx.actions.push(super::Action::Bury(nobodys));
        }
    }

    fn wish(&mut self, target: MemberId, on: bool) {
        for dvipa in self.dvipas.values_mut().filter(|dvipa| dvipa.is_target(target)) {
            dvipa.wishes.retain(|(other, _)| *other != target);
            if dvipa.wishes.len() < WISHES_MAX {
                dvipa.wishes.push((target, on));
            }
        }
    }

    fn used(&mut self, list: &[SaUse]) {
        for usage in list {
            if let Some(dvipa) = self.dvipas.get_mut(&usage.child.dvipa) {
                dvipa.cache.used(self.cx.now, usage);
            }
        }
        for dvipa in self.dvipas.values_mut() {
            dvipa.stopped.tops_known(self.cx.now, &dvipa.cache);
            dvipa.report_use(&mut self.cx);
        }
    }

    fn dvipa_of(&mut self, entry: &EntryKey) -> Option<&mut Dvipa> {
        self.dvipas.values_mut().find(|dvipa| dvipa.may_have(entry))
    }
}

impl Dvipa {
    /// Whether an entry belongs to this address: by its peer, who has SAs of one address only, else by where it goes.
    fn may_have(&self, entry: &EntryKey) -> bool {
        self.cache.knows_peer(entry.peer) || self.address() == entry.flow.dst
    }

    /// Every core has heard what was told before this ticket.
    fn heard(&mut self, cx: &mut Shared, ticket: u64) {
        if self.epoch_ticket == Some(ticket) {
            self.epoch_heard(cx);
        }
        if let Some(own) = &mut self.own {
            own.heard(cx, ticket);
        }
    }

    /// A session has ended: what was under way in it is said again in the next.
    pub fn link_down(&mut self, cx: &mut Shared, member: MemberId) {
        if self.owner == Some(member) {
            self.is_acknowledged = false;
        }
        if let Some(own) = &mut self.own {
            own.link_down(cx, member);
        }
    }

    /// A session is up: an owner says so in it.
    pub fn link_up(&mut self, cx: &mut Shared, member: MemberId, incarnation: Incarnation) {
        let has_part = self.members().contains(&member);
        if let Some(own) = &mut self.own
            && has_part
        {
            own.started_as(cx, member, incarnation);
            cx.say(member, self.settings.address, self.epoch, Body::Claimed);
        }
    }
}
