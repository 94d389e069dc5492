//! What the owner of a DVIPA keeps in one epoch: its SAs, and how far each target is.

use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::log::Log;
use super::numbers::Numbers;
use super::seam::{ActivePort, DvipaSettings, EntryKey, ServicePort};
use crate::facility::claim::Fence;
use crate::facility::record::Birth;
use crate::id::{ChildId, Epoch, Incarnation, MemberId, Serial};
use crate::lifesize::{Amount, OwnerLedger, Percentage};
use crate::message::{SecretBytes, ShadowImage, Used};
use crate::shadow::{ShadowSa, Use};

/// Most changes that are remembered for targets that lag.
const DELTAS_MAX: usize = 4_096;

/// An owner's part in a DVIPA, for one epoch.
pub(super) struct Owner {
    pub fence: Fence,
    /// How many SAs were born.
    pub order: u64,
    pub children: BTreeMap<Spi, Child>,
    /// The SAs in the order of their births: those that targets may know.
    pub by_order: BTreeMap<u64, Spi>,
    /// Those that stand on all cores of this member.
    pub installed: BTreeSet<Spi>,
    /// Those whose records are being made.
    pub recording: BTreeSet<Spi>,
    /// Those whose peers must not use them yet.
    pub unreleased: BTreeSet<Spi>,
    /// Those whose records are to be deleted.
    pub dead: Vec<Spi>,
    pub log: Log,
    /// The last change that announced an SA which a peer may use by now: who is behind that gets no new connections.
    pub released_to: u64,
    pub targets: BTreeMap<MemberId, Target>,
    /// The starts whose acknowledgement is awaited, and until when.
    pub awaited: BTreeSet<(MemberId, Incarnation)>,
    pub settled_by: Instant,
    /// Who has acknowledged the epoch.
    pub acknowledged: BTreeSet<MemberId>,
    /// Every SA born before is sealed, as far as the facility is known to say so.
    pub sealed_before: Birth,
    /// When the next sealed SA may be rekeyed.
    pub next_rekey_at: Instant,
    /// What the cores have not all heard yet.
    pub tickets: BTreeMap<u64, Ticket>,
    /// Lost starts that SAs still remember.
    pub lost: Vec<Lost>,
    /// Starts that did not answer the claim in time: they may come back as others only.
    pub given_up: BTreeSet<(MemberId, Incarnation)>,
    /// SAs whose ledgers may have something to tell.
    pub uneven: BTreeSet<Spi>,
    /// Whether some have become so since that was looked at.
    pub is_uneven_new: bool,
    /// How many SAs each peer has, and what was learned of its refreshes.
    pub peers: BTreeMap<PeerId, (u32, Percentage)>,
    pub numbers: Numbers,
    /// Reports of what SAs have carried, and SAs that were refreshed for it.
    pub lifesize_reports: u64,
    pub refreshes: u64,
}

/// An SA of the owner.
pub(super) struct Child {
    /// The how manieth it is.
    pub order: u64,
    pub peer: PeerId,
    pub phase: Phase,
    /// The SA encoded, for targets.
    pub image: SecretBytes,
    pub is_preferred: bool,
    pub remote: Option<core::net::SocketAddr>,
    pub floor: u64,
    pub is_sealed: bool,
    /// A packet met the seal: its peer waits.
    pub is_seal_met: bool,
    pub is_rekey_asked: bool,
    /// Until when its peer is known to have lived.
    pub heard_at: Option<Instant>,
    pub esn: bool,
    pub replaces: Option<Spi>,
    pub sibling_of: Option<Spi>,
    /// How IKE said that its outbound half may be used at first.
    pub usage: Use,
    pub percentage: Percentage,
    /// What each member may carry of it, inbound and outbound.
    pub ledgers: [OwnerLedger; 2],
}

/// How far an SA's birth is.
pub(super) enum Phase {
    /// Its record is being made, until then at most.
    Recording { sa: Box<ShadowSa>, until: Instant },
    /// The cores and the targets are being told of it, by this change; targets are waited for until then.
    Spreading { number: u64, until: Instant },
    /// Its peer may use it.
    Released { number: u64 },
}

/// A target, as the owner knows it.
pub(super) struct Target {
    pub incarnation: Incarnation,
    pub standing: Standing,
    /// Whether it serves the address. The owner keeps shadows by the same code though it may be no target.
    pub serves: bool,
    /// A newer start that waits until the loss of this one is recorded, and where it says that it stands.
    pub successor: Option<(Incarnation, u64)>,
    /// Whether it has acknowledged the epoch in the session that is up.
    pub is_synchronous: bool,
    /// The last change that was sent, and that it acknowledged.
    pub sent: u64,
    pub acknowledged: u64,
    pub lacking: u32,
    /// The snapshot that is being sent: of which change, and after which birth it goes on.
    pub snapshot: Option<Sending>,
    /// The ports that it serves; unknown before its first report.
    pub ready: Option<Vec<ServicePort>>,
    /// How many connections of each port it has reported, and how many reports there were.
    pub active: Vec<ActivePort>,
    pub reports: u64,
    pub is_draining: bool,
    /// Whether every core knows that it drains.
    pub is_drain_known: bool,
    /// How many entries our cores hold for it, counted while it drains.
    pub connections: Option<u64>,
    /// The last freeing that came, which is its serial, and the last that was carried out.
    pub freed_seen: u64,
    pub freed_done: u64,
    /// Entries that are to be verified, and by when it is asked.
    pub unverified: Vec<EntryKey>,
    pub verify_at: Option<Instant>,
    /// What SAs have carried there.
    pub used: BTreeMap<Spi, Used>,
    /// Peers of whose numbers it is to be told.
    pub unsaid: BTreeSet<PeerId>,
}

/// A snapshot that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub number: u64,
    pub after_order: u64,
}

/// What a target is to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its start is being recorded; it gets nothing before.
    Admitting,
    /// It holds connections.
    Present,
    /// Its loss is being recorded; it gets no frames, and its connections go to nobody else before.
    Losing,
    /// This start of it is lost for good.
    Lost,
    /// It has no connections any more, and how far it had come is being recorded: so many parts are missing.
    Leaving(u16),
    /// It may go, or come back, without a seal.
    Left,
}

/// What goes on when every core has heard of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub target: MemberId,
    pub incarnation: Incarnation,
    pub awaited: Awaited,
}

/// What every core is to have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Forgotten the entries of this freeing, and its frames carry the new serial.
    Freeing(u64),
    /// No new connections go to the target.
    Draining,
    /// No frames go to the target.
    Suspension,
}

impl Ticket {
    /// Which freeing it is about.
    pub fn batch(&self) -> Option<u64> {
        match self.awaited {
            Awaited::Freeing(batch) => Some(batch),
            Awaited::Draining | Awaited::Suspension => None,
        }
    }
}

/// A start that was lost while SAs born before this were there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub member: MemberId,
    pub incarnation: Incarnation,
    pub before_order: u64,
}

impl Owner {
    pub fn new(
        fence: Fence,
        settings: &DvipaSettings,
        awaited: BTreeSet<(MemberId, Incarnation)>,
        now: Instant,
        settled_by: Instant,
    ) -> Owner {
        Owner {
            fence,
            order: 0,
            children: BTreeMap::new(),
            by_order: BTreeMap::new(),
            installed: BTreeSet::new(),
            recording: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            dead: Vec::new(),
            log: Log::new(DELTAS_MAX),
            released_to: 0,
            targets: BTreeMap::new(),
            awaited,
            settled_by,
            acknowledged: BTreeSet::new(),
            sealed_before: Birth::default(),
            next_rekey_at: now,
            tickets: BTreeMap::new(),
            lost: Vec::new(),
            given_up: BTreeSet::new(),
            uneven: BTreeSet::new(),
            is_uneven_new: false,
            peers: BTreeMap::new(),
            numbers: Numbers::new(settings, fence.record.owner),
            lifesize_reports: 0,
            refreshes: 0,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.fence.record.epoch
    }

    pub fn child_id(&self, spi: Spi) -> ChildId {
        ChildId { dvipa: self.fence.address, spi }
    }

    pub fn is_settling(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Whether a target may be given connections, as far as its shadows go.
    pub fn is_level(&self, target: &Target) -> bool {
        target.is_synchronous
            && target.snapshot.is_none()
            && target.lacking == 0
            && target.acknowledged >= self.released_to
    }

    /// Whether a target gets new connections.
    pub fn is_eligible(&self, target: &Target) -> bool {
        target.standing == Standing::Present
            && target.serves
            && !target.is_draining
            && target.ready.is_some()
            && self.is_level(target)
    }
}

impl Child {
    /// As it is told to nobody in particular, without grants.
    pub fn image(&self) -> ShadowImage {
        ShadowImage {
            birth: self.order,
            sa: self.image.clone(),
            is_preferred: self.is_preferred,
            remote: self.remote,
            percentage: self.percentage,
            ceilings: [Amount::ZERO; 2],
        }
    }

    /// What a start of a member may carry of each half. It is being told that now.
    pub fn tell_ceilings(&mut self, now: Instant, member: MemberId, incarnation: Incarnation) -> [Amount; 2] {
        self.ledgers.each_mut().map(|ledger| ledger.tell_ceiling(now, member, incarnation).unwrap_or(Amount::ZERO))
    }

    /// Whether cores and targets have been told of it.
    pub fn is_born(&self) -> bool {
        match self.phase {
            Phase::Recording { .. } => false,
            Phase::Spreading { .. } | Phase::Released { .. } => true,
        }
    }
}

impl Target {
    pub fn new(incarnation: Incarnation, position: u64, serves: bool) -> Target {
        Target {
            incarnation,
            standing: if serves { Standing::Admitting } else { Standing::Present },
            serves,
            successor: None,
            is_synchronous: true,
            sent: position,
            acknowledged: position,
            lacking: 0,
            snapshot: None,
            ready: None,
            is_draining: false,
            is_drain_known: false,
            active: Vec::new(),
            reports: 0,
            connections: None,
            freed_seen: 0,
            freed_done: 0,
            unverified: Vec::new(),
            verify_at: None,
            used: BTreeMap::new(),
            unsaid: BTreeSet::new(),
        }
    }

    /// The serial that frames to it carry: one more with each freeing.
    pub fn serial(&self) -> Serial {
        Serial(self.freed_seen)
    }

    /// Whether SAs may be used there, now or soon.
    pub fn may_use(&self) -> bool {
        match self.standing {
            Standing::Admitting | Standing::Present | Standing::Leaving(_) | Standing::Left => true,
            Standing::Losing | Standing::Lost => false,
        }
    }

    /// Whether it is told of SAs.
    pub fn is_told(&self) -> bool {
        match self.standing {
            Standing::Present | Standing::Leaving(_) | Standing::Left => self.is_synchronous,
            Standing::Admitting | Standing::Losing | Standing::Lost => false,
        }
    }
}
