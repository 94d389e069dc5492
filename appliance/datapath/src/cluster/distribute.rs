//! The owner's way: whose connection is this packet, and which target has it?
//!
//! ```text
//! outer parse → SA → peek → core of the flow ─┬─ plain, and its entry stands ──────────────────────────► pass on
//!                                             └─ all else: authenticate a copy → tunnel check → service
//!                                                 → core of the connection → entry, or a new target ──► pass on
//! pass on:  relay unchanged to another member, or open and deliver here
//! ```
//!
//! Where the distributor processes, there is no peek to go by: each packet is authenticated, and goes on as plain IP.

use super::check::{Body, Checked};
use super::steering_flow;
use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::Burst;
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{find, peek_inner, unknown};
use crate::outer::EspPlace;
use crate::packet::{CheckedPacket, EspPacket, Handed, SeenPacket, Upper};
use cluster::fabric::{FabricDvipa, FabricTarget, Processing};
use cluster::id::ChildId;
use cluster::member::EntryKey;
use ipsec::Spi;
use ipsec::time::Instant;
use wire::flow::{self, Inner};
use wire::tcp::Flags;
use wire::{Fragment, protocol};

use super::reports::Report;

/// How things stand with the entry of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its target has it.
    Stands(FabricTarget),
    /// Its target is lost, and its connection with it.
    Lost,
    /// There is none.
    Missing,
}

impl<Q: PortQueue> DataCore<Q> {
    /// Takes a burst on its way, if this appliance is in a cluster; otherwise it remains, and is for an appliance alone.
    /// Of an address whose owner is not known nothing is taken, though an SA of a former epoch may linger: nobody's window
    /// would count.
    pub(crate) fn take_routed(
        &mut self,
        esp: Burst<EspPacket<Q::Buffer>>,
        now: Instant,
    ) -> Burst<EspPacket<Q::Buffer>> {
        if self.fabric().is_none() {
            return esp;
        }
        let mut own = Burst::new();
        for packet in esp {
            match self.clustered(packet.place.dvipa).map(|(fabric, dvipa)| fabric.owns(dvipa)) {
                None | Some(false) => self.drops.end(packet, DropReason::NotOwner),
                Some(true) => match peek_inner(&self.sas, packet.frame.bytes(), &packet.place) {
                    Ok(seen) => self.steer_seen(SeenPacket { packet, seen }, &mut own),
                    Err(reason) => self.drops.end(packet, reason),
                },
            }
        }
        self.hand_over();
        self.distribute(own, now);
        Burst::new()
    }

    /// Keeps what this core authenticates, and hands the rest to those that do. Any core may find out that a dummy is one.
    fn steer_seen(&mut self, packet: SeenPacket<Q::Buffer>, own: &mut Burst<SeenPacket<Q::Buffer>>) {
        let hash = packet.seen.map(|inner| steering_flow(&inner).symmetric_hash(&self.seed));
        match hash.map_or(self.handover.own(), |hash| self.owner_of(hash)) {
            core if core == self.handover.own() => own.push(packet),
            core => self.outgoing[core].push(Handed::Esp(packet.packet)),
        }
    }

    /// The same for a burst that other cores have handed over: routes it, or leaves it to be opened. Peeking once more costs less than to carry along what was seen.
    pub(crate) fn route_handed_over(
        &mut self,
        esp: Burst<EspPacket<Q::Buffer>>,
        now: Instant,
    ) -> Burst<EspPacket<Q::Buffer>> {
        if self.fabric().is_none() {
            return esp;
        }
        let mut own = Burst::new();
        for packet in esp {
            if self.clustered(packet.place.dvipa).is_none() {
                self.drops.end(packet, DropReason::NotOwner);
                continue;
            }
            match peek_inner(&self.sas, packet.frame.bytes(), &packet.place) {
                Ok(seen) => own.push(SeenPacket { packet, seen }),
                Err(reason) => self.drops.end(packet, reason),
            }
        }
        self.distribute(own, now);
        Burst::new()
    }

    /// Sees a burst that this core authenticates to its targets.
    pub(crate) fn distribute(&mut self, burst: Burst<SeenPacket<Q::Buffer>>, now: Instant) {
        if burst.is_empty() {
            return;
        }
        for SeenPacket { packet, seen } in burst {
            let Some(sa) = find(&self.sas, &packet.place) else {
                let reason = unknown(packet.place.spi);
                self.drops.end(packet, reason);
                continue;
            };
            let (processing, peer) = (sa.processing, sa.sa.shared().parameters().peer);
            let hit = match seen.filter(|inner| processing == Processing::Target && is_plain(inner)) {
                Some(inner) => {
                    let key = EntryKey { peer, flow: inner.flow };
                    let hash = key.flow.symmetric_hash(&self.seed);
                    self.standing(&packet.place, hash, &key).map(|standing| (standing, hash))
                }
                None => Ok((Standing::Missing, 0)),
            };
            match hit {
                Ok((Standing::Stands(target), hash)) => self.pass_on_unseen(packet, target, hash, now),
                Ok((Standing::Lost | Standing::Missing, _)) => self.check_and_route(packet, processing, now),
                Err(reason) => self.drops.end(packet, reason),
            }
        }
        self.hand_over();
    }

    /// Passes on what was not authenticated, to the target of a connection that stands.
    fn pass_on_unseen(&mut self, packet: EspPacket<Q::Buffer>, target: FabricTarget, hash: u64, now: Instant) {
        if self.is_me(&target) {
            self.open_routed(packet, None, now);
        } else {
            self.relay_esp(packet, &target, hash, now);
        }
    }

    /// The full check, and the way to the core of the connection.
    fn check_and_route(&mut self, packet: EspPacket<Q::Buffer>, processing: Processing, now: Instant) {
        let checked = match self.check(packet, processing, now) {
            Ok(checked) => checked,
            Err((packet, reason)) => return self.drops.end(packet, reason),
        };
        match self.owner_of(checked.hash) {
            core if core == self.handover.own() => self.route(checked, now),
            core => self.outgoing[core].push(Handed::Checked(checked.leaving())),
        }
    }

    /// Routes what another core has authenticated. What a peek shows is true then.
    pub(crate) fn route_checked(&mut self, packet: CheckedPacket<Q::Buffer>, now: Instant) {
        let CheckedPacket { frame, place, is_opened, upper, proof } = packet;
        let Some(sa) = find(&self.sas, &place) else { return self.drops.end(frame, DropReason::SpiUnknown) };
        let peer = sa.sa.shared().parameters().peer;
        let (inner, body) = match is_opened {
            true => (flow::parse_inner(frame.bytes()).ok(), Body::Opened),
            false => (peek_inner(&self.sas, frame.bytes(), &place).ok().flatten(), Body::Sealed),
        };
        let Some(inner) = inner else { return self.drops.end(frame, DropReason::InnerMalformed) };
        let flow = upper.between(&inner.flow);
        let hash = flow.symmetric_hash(&self.seed);
        self.route(Checked { frame, place, body, inner, flow, hash, peer, proof }, now);
    }

    /// Finds or makes the entry of an authenticated packet's connection, and passes the packet on to its target.
    fn route(&mut self, checked: Checked<Q::Buffer>, now: Instant) {
        let key = EntryKey { peer: checked.peer, flow: checked.flow };
        let target = match self.standing(&checked.place, checked.hash, &key) {
            Ok(Standing::Stands(target)) => Ok(target),
            Ok(Standing::Missing) => self.choose_new(&checked, &key, now),
            Ok(Standing::Lost) if ends_with_its_target(&checked.inner) => return self.end_lost(checked, &key, now),
            Ok(Standing::Lost) => self.choose_instead(&checked, &key, now),
            Err(reason) => Err(reason),
        };
        match target {
            Ok(target) if self.is_me(&target) => self.deliver_checked(checked, now),
            Ok(target) => self.relay_checked(checked, &target, now),
            Err(reason) => self.drops.end(checked, reason),
        }
    }

    /// How things stand with a connection's entry, for a packet of this SA; an error where nothing may come of it now.
    ///
    /// A sealed SA serves only what was routed before its first seal and whose target lives, and resets what is lost.
    pub(super) fn standing(&mut self, place: &EspPlace, hash: u64, key: &EntryKey) -> Result<Standing, DropReason> {
        let (Some(part), Some(sa)) = (&self.part, find(&self.sas, place)) else { return Err(DropReason::NotOwner) };
        let owned = self.clustered(place.dvipa).filter(|(fabric, dvipa)| fabric.owns(dvipa));
        let (_, dvipa) = owned.ok_or(DropReason::NotOwner)?;
        // What an earlier epoch of ours left says nothing: others have owned the address since.
        let route = part.vcrt.find(hash, key).filter(|route| route.created >= part.owned_since(dvipa.address));
        let standing = match route {
            None => Standing::Missing,
            Some(route) => {
                let of_route =
                    |target: &&FabricTarget| (target.member, target.incarnation) == (route.target, route.incarnation);
                match dvipa.targets.iter().find(of_route) {
                    Some(target) if target.is_member => Standing::Stands(*target),
                    Some(_) => return Err(DropReason::TargetSilent),
                    None => Standing::Lost,
                }
            }
        };
        let sealed_at = sa.sa.shared().sealed_at();
        let outlived = |sealed_at| route.is_some_and(|route| route.created < sealed_at);
        let is_refused = sealed_at.is_some_and(|at| standing != Standing::Lost && !outlived(at));
        if is_refused {
            self.seal_met(place);
            return Err(DropReason::SaSealed);
        }
        // Hits too: until every member has said how far it had come, a floor may be missing that a number would have to
        // be above.
        if dvipa.is_settling {
            return Err(DropReason::Settling);
        }
        Ok(standing)
    }

    /// Says that a packet met a seal, so that the SA is replaced soon.
    pub(super) fn seal_met(&mut self, place: &EspPlace) {
        if let Some(spi) = Spi::new(place.spi) {
            self.mailbox.report(Report::SealMet(ChildId { dvipa: place.dvipa, spi }));
        }
    }

    pub(super) fn is_me(&self, target: &FabricTarget) -> bool {
        self.fabric().is_some_and(|fabric| fabric.me == target.member)
    }
}

/// Whether a hit may go on unchecked: nothing can come of such a packet but what its target makes of it.
fn is_plain(inner: &Inner) -> bool {
    let is_tcp_data = inner.tcp_flags.is_some_and(|flags| !flags.contains(Flags::SYN));
    let is_udp = inner.flow.protocol == protocol::UDP;
    inner.fragment == Fragment::Whole && (is_tcp_data || is_udp)
}

/// Whether a packet cannot go on where its connection is lost, since no other target knows of that. What would begin a new
/// connection begins one.
fn ends_with_its_target(inner: &Inner) -> bool {
    inner.tcp_flags.is_some_and(|flags| !flags.opens_connection())
}

/// A target of a DVIPA that may be given connections.
pub(super) fn eligible(dvipa: &FabricDvipa, member: cluster::id::MemberId) -> Option<&FabricTarget> {
    dvipa.targets.iter().find(|target| target.member == member && target.is_member && target.is_eligible)
}

impl<B> Checked<B> {
    /// The same, on its way to another core, which does not have this one's copy.
    fn leaving(self) -> CheckedPacket<B> {
        let Checked { frame, place, body, flow, proof, .. } = self;
        CheckedPacket { frame, place, is_opened: body == Body::Opened, upper: Upper::of(&flow), proof }
    }
}
