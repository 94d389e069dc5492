//! What operators see of a member, on any of them.

use core::net::IpAddr;

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::Member;
use super::cache::Cache;
use super::dvipa::Dvipa;
use super::owner::{Child, Owner, Phase, Standing, Target};
use super::seam::{ActivePort, ServicePort};
use crate::id::{ChildId, Epoch, Incarnation, MemberId, Serial};
use crate::lifesize::{LedgerView, Percentage};
use crate::sequence::siblings::Fallback;

/// A member of the cluster, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Which.
    pub id: MemberId,
    /// Its name.
    pub name: std::sync::Arc<str>,
    /// Its address on the trusted port.
    pub address: IpAddr,
    /// Whether it is this one.
    pub is_me: bool,
    /// Its start and the version of XCF, while there is a session.
    pub session: Option<(Incarnation, u16)>,
    /// When it was last heard.
    pub heard_at: Option<Instant>,
    /// How busy its data cores are, 0 to 1000.
    pub load_permille: u16,
    /// Its messages that were refused.
    pub refused: u64,
}

/// A DVIPA, as this member knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DvipaView {
    /// The address.
    pub address: IpAddr,
    /// The epoch; 0 before the first.
    pub epoch: Epoch,
    /// Who owns it.
    pub owner: Option<MemberId>,
    /// Whether that is this member.
    pub is_mine: bool,
    /// As the owner: starts that have not acknowledged the epoch, on whose account misses are dropped.
    pub awaited: Vec<(MemberId, Incarnation)>,
    /// As the owner: SAs, and how many of them are sealed.
    pub sas: usize,
    /// As the owner: SAs that are sealed.
    pub sealed: usize,
    /// As the owner: reports of what SAs have carried, and SAs that were refreshed for it, in this epoch.
    pub lifesize_reports: u64,
    /// See `lifesize_reports`.
    pub refreshes: u64,
    /// Shadows that are held here, and how many lack room.
    pub shadows: (usize, u32),
    /// Up to where the owner's changes have come.
    pub position: u64,
    /// As a target: entries that have stopped and are not forgotten by the owner yet.
    pub tombs: usize,
    /// As a target: frames of older serials are refused.
    pub oldest_serial: Serial,
    /// Whether nothing is sent because the owner is silent.
    pub is_muted: bool,
    /// Messages that were refused since their epoch is not the one that is known.
    pub stale_messages: u64,
}

/// A target, as the owner knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// Which member.
    pub member: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What it is to the owner.
    pub standing: Standing,
    /// Whether it gets new connections.
    pub is_eligible: bool,
    /// Whether it drains.
    pub is_draining: bool,
    /// The ports whose hosts answer there; `None` before its first report.
    pub ready: Option<Vec<ServicePort>>,
    /// How busy its data cores are, 0 to 1000.
    pub load_permille: u16,
    /// Its connections of each port, by its last report.
    pub active: Vec<ActivePort>,
    /// How many times it has reported.
    pub reports: u64,
    /// The owner's last change of SAs, the last that it was sent, and the last that it has everywhere.
    pub changes: (u64, u64, u64),
    /// SAs that found no room there.
    pub lacking: u32,
    /// The serial that frames to it carry, and the last that it was told.
    pub serials: (Serial, Serial),
}

/// An SA at its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowView {
    /// Which.
    pub child: ChildId,
    /// Whose.
    pub peer: PeerId,
    /// The how manieth of its epoch.
    pub birth: u64,
    /// Whether its peer may use it.
    pub is_released: bool,
    /// Nothing at or below this number is taken.
    pub floor: u64,
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// The first outbound number that may not be used.
    pub mark: Option<u64>,
    /// The SA whose sibling it is.
    pub sibling_of: Option<Spi>,
    /// Who numbers it alone; otherwise its numbers are given out by the owner.
    pub sender: Option<MemberId>,
    /// Why members share SAs of this peer though they should not have to.
    pub fallback: Option<Fallback>,
    /// The targets that have it on all their cores.
    pub held_by: Vec<MemberId>,
}

/// What the members have carried of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifesizeView {
    /// Which SA.
    pub child: ChildId,
    /// How much may go unreported.
    pub percentage: Percentage,
    /// From the peer.
    pub inbound: LedgerView,
    /// To the peer.
    pub outbound: LedgerView,
}

impl Member {
    /// Every member, by number.
    #[must_use]
    pub fn members(&self) -> Vec<MemberView> {
        let view = |settings: &super::MemberSettings| {
            let link = self.cx.links.get(&settings.id);
            let is_me = settings.id == self.cx.me();
            MemberView {
                id: settings.id,
                name: std::sync::Arc::clone(&settings.name),
                address: settings.address,
                is_me,
                session: link.and_then(|link| link.session).map(|session| (session.incarnation, session.version)),
                heard_at: link.and_then(|link| link.heard_at),
                load_permille: if is_me { self.cx.load_permille } else { link.map_or(0, |link| link.load_permille) },
                refused: link.map_or(0, |link| link.refused),
            }
        };
        self.cx.settings.members.iter().map(view).collect()
    }

    /// Which member this is.
    #[must_use]
    pub fn me(&self) -> MemberId {
        self.cx.me()
    }

    /// The start under which this member serves.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.cx.incarnation
    }

    /// The start of this appliance: what its sessions with other members are between. It never changes.
    #[must_use]
    pub fn start(&self) -> Incarnation {
        self.cx.start
    }

    /// Since when the coupling facility has not answered, if it does not; transactions that wait; its revision.
    #[must_use]
    pub fn facility(&self) -> (Option<Instant>, usize, u64) {
        (self.cx.jobs.unavailable_since, self.cx.jobs.len(), self.cx.jobs.revision)
    }

    /// Every DVIPA that this member may own or serve.
    #[must_use]
    pub fn dvipas(&self) -> Vec<DvipaView> {
        self.dvipas.values().map(Dvipa::view).collect()
    }

    /// The targets of a DVIPA that this member owns; what `dpt::Tables` are made of.
    #[must_use]
    pub fn targets(&self, dvipa: IpAddr) -> Vec<TargetView> {
        let Some(own) = self.owner_of(dvipa) else { return Vec::new() };
        let served = own.targets.iter().filter(|(_, target)| target.serves);
        served.map(|(&member, target)| self.target(own, member, target)).collect()
    }

    fn target(&self, own: &Owner, member: MemberId, target: &Target) -> TargetView {
        let load = self.cx.links.get(&member).map_or(self.cx.load_permille, |link| link.load_permille);
        TargetView {
            member,
            incarnation: target.incarnation,
            standing: target.standing,
            is_eligible: own.is_eligible(target),
            is_draining: target.is_draining,
            ready: target.ready.clone(),
            load_permille: load,
            active: target.active.clone(),
            reports: target.reports,
            changes: (own.log.last(), target.sent, target.acknowledged),
            lacking: target.lacking,
            serials: (target.serial(), Serial(target.freed_done)),
        }
    }

    /// Up to `count` SAs of a DVIPA that this member owns, those with SPIs above `after` first.
    #[must_use]
    pub fn shadows(&self, dvipa: IpAddr, after: Option<Spi>, count: usize) -> Vec<ShadowView> {
        let Some(own) = self.owner_of(dvipa) else { return Vec::new() };
        children(own, after).take(count).map(|(spi, child)| shadow(own, self.cx.now, spi, child)).collect()
    }

    /// The SPIs of a DVIPA that are held here, and the highest number that was accepted here on each.
    pub fn held(&self, dvipa: IpAddr) -> impl Iterator<Item = (Spi, u64)> + '_ {
        let cache = self.dvipas.get(&dvipa).map(|dvipa| &dvipa.cache);
        cache.into_iter().flat_map(Cache::iter).map(|(spi, held)| (spi, held.top))
    }

    /// What members have carried of up to `count` SAs of a DVIPA that this member owns.
    #[must_use]
    pub fn lifesize(&self, dvipa: IpAddr, after: Option<Spi>, count: usize) -> Vec<LifesizeView> {
        let Some(own) = self.owner_of(dvipa) else { return Vec::new() };
        let view = |(spi, child): (Spi, &Child)| {
            let [inbound, outbound] = &child.ledgers;
            let (inbound, outbound) = (inbound.view(), outbound.view());
            LifesizeView { child: own.child_id(spi), percentage: child.percentage, inbound, outbound }
        };
        children(own, after).take(count).map(view).collect()
    }

    /// When an authentic packet of an SA last came, at any member: its peer lives.
    #[must_use]
    pub fn heard_at(&self, child: ChildId) -> Option<Instant> {
        self.owner_of(child.dvipa)?.children.get(&child.spi)?.heard_at
    }

    fn owner_of(&self, dvipa: IpAddr) -> Option<&Owner> {
        self.dvipas.get(&dvipa)?.own.as_ref()
    }
}

impl Dvipa {
    fn view(&self) -> DvipaView {
        let own = self.own.as_ref();
        DvipaView {
            address: self.address(),
            epoch: self.epoch,
            owner: self.owner,
            is_mine: own.is_some(),
            awaited: own.map(|own| own.awaited.iter().copied().collect()).unwrap_or_default(),
            sas: own.map_or(0, |own| own.children.len()),
            sealed: own.map_or(0, |own| own.children.values().filter(|child| child.is_sealed).count()),
            lifesize_reports: own.map_or(0, |own| own.lifesize_reports),
            refreshes: own.map_or(0, |own| own.refreshes),
            shadows: (self.cache.len(), self.cache.lacking()),
            position: self.cache.position(),
            tombs: self.stopped.len(),
            oldest_serial: self.stopped.oldest_serial,
            is_muted: self.is_muted,
            stale_messages: self.stale,
        }
    }
}

fn children(own: &Owner, after: Option<Spi>) -> impl Iterator<Item = (Spi, &Child)> {
    let from = after.map_or(core::ops::Bound::Unbounded, core::ops::Bound::Excluded);
    own.children.range((from, core::ops::Bound::Unbounded)).map(|(&spi, child)| (spi, child))
}

fn shadow(own: &Owner, now: Instant, spi: Spi, child: &Child) -> ShadowView {
    let senders = own.numbers.peers.get(&child.peer);
    let number = match child.phase {
        Phase::Recording { .. } => None,
        Phase::Spreading { number, .. } | Phase::Released { number } => Some(number),
    };
    let has_it = |target: &Target| target.serves && number.is_some_and(|number| target.acknowledged >= number);
    let held_by = own.targets.iter().filter(|(_, target)| has_it(target)).map(|(&member, _)| member).collect();
    ShadowView {
        child: own.child_id(spi),
        peer: child.peer,
        birth: child.order,
        is_released: matches!(child.phase, Phase::Released { .. }),
        floor: child.floor,
        is_sealed: child.is_sealed,
        mark: own.numbers.marks.below(own.child_id(spi)),
        sibling_of: child.sibling_of,
        sender: senders.and_then(|senders| senders.sender(own.child_id(spi))),
        fallback: senders.and_then(|senders| senders.fallback(now)),
        held_by,
    }
}
