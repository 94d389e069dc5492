//! What a member hears from its own appliance, and what it tells it to do.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::PeerId;
use wire::flow::FlowKey;

use crate::fabric::{Encapsulation, Fabric, Processing, Protection};
use crate::id::{ChildId, Epoch, Incarnation, MemberId};
use crate::shadow::ShadowSa;

/// A connection as members name it: whose it is, and from where to where, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct EntryKey {
    /// Whose.
    #[serde(with = "crate::message::peer_as_wire")]
    pub peer: PeerId,
    /// From the client to the service.
    #[serde(with = "crate::message::flow_as_wire")]
    pub flow: FlowKey,
}

/// A port that a DVIPA offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ServicePort {
    /// 6 or 17.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// How many connections a target has of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ActivePort {
    /// Which.
    pub service: ServicePort,
    /// Live ones, over all its cores.
    pub connections: u32,
}

/// How several senders share the numbers of outbound SAs, as the operator wants it (DESIGN §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequencePolicy {
    /// An SA of its own for each sender where the peer agrees, else the sequencer.
    #[default]
    Auto,
    /// The owner gives numbers out, a burst at a time.
    Sequencer,
    /// The owner encrypts for everyone.
    ViaDistributor,
    /// Blocks of numbers, for peers with large windows.
    LeasedBlocks,
}

impl SequencePolicy {
    /// The configuration's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SequencePolicy::Auto => "auto",
            SequencePolicy::Sequencer => "sequencer",
            SequencePolicy::ViaDistributor => "via-distributor",
            SequencePolicy::LeasedBlocks => "leased-blocks",
        }
    }
}

/// What a member is told once, at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which member this is.
    pub me: MemberId,
    /// Every member's name and trusted address, by number.
    pub members: Vec<MemberSettings>,
    /// How frames travel on the trusted port.
    pub encapsulation: Encapsulation,
    /// What protects them.
    pub protection: Protection,
    /// Every DVIPA that this member may own or serve.
    pub dvipas: Vec<DvipaSettings>,
    /// How long an SA waits for targets to acknowledge its shadow before the peer may use it.
    pub shadow_patience: Duration,
    /// How long a member may be silent before it is believed lost.
    pub silence: Duration,
    /// How long an owner may be silent before its targets stop sending on its SAs. Longer than a takeover takes.
    pub owner_silence: Duration,
}

/// A member as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSettings {
    /// Its number.
    pub id: MemberId,
    /// Its name, also that of its certificate.
    pub name: Arc<str>,
    /// Its address on the trusted port.
    pub address: IpAddr,
}

/// A DVIPA as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct DvipaSettings {
    /// The address.
    pub address: IpAddr,
    /// Who may own it, by rank; the first claims it.
    pub owners: Vec<MemberId>,
    /// Who serves it.
    pub targets: Vec<MemberId>,
    /// Where its IPsec work is done.
    pub processing: Processing,
    /// How its outbound numbers are shared.
    pub outbound_sequence: SequencePolicy,
    /// The client's replay window that `sequencer` counts with, in packets.
    pub peer_window_packets: u32,
    /// Most siblings for one peer.
    pub siblings_max: u8,
    /// The ports that it offers; empty means every port.
    pub services: Vec<ServicePort>,
}

/// Where an outbound SA's numbers come from on this appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NumberSource {
    /// This appliance numbers the SA, beginning at `from` if it did not before, below the mark that it is told.
    Own {
        /// The first number.
        from: u64,
    },
    /// The owner gives numbers out by frames on the trusted port.
    Sequencer,
    /// The owner encrypts: packets go to it plain.
    ViaOwner,
    /// The owner leases blocks by XCF message, told by [`Action::Lease`].
    Leased,
}

/// What the appliance does for its member, in the order that they are told.
#[derive(Debug)]
pub enum Action {
    /// Give this to every data core. Later actions may rest on it.
    Fabric(Arc<Fabric>),
    /// Register a shadow SA and install it on every core, inbound and outbound.
    Install(Box<ShadowSa>),
    /// Send on this SA before all others of its peer.
    Prefer(ChildId),
    /// Send nothing on this SA from now on, until [`Action::Numbers`] says how: another member does, or nobody.
    Quiet(ChildId),
    /// Take an SA from all cores, after a moment if its last packets may be under way.
    Remove {
        /// Which.
        child: ChildId,
        /// Whether its last packets may be under way.
        lingers: bool,
        /// For the log.
        why: &'static str,
    },
    /// Its peer is elsewhere now.
    MovePeer {
        /// Whose address.
        peer: PeerId,
        /// Our address.
        dvipa: IpAddr,
        /// Where to.
        remote: SocketAddr,
        /// Its SAs.
        children: Vec<Spi>,
    },
    /// As the owner: nothing at or below this number of this SA is taken any more, and frames say so.
    RaiseFloor {
        /// Which SA.
        child: ChildId,
        /// The new floor.
        floor: u64,
    },
    /// As the owner: the SA delivers only on entries that are there now, and creates none.
    Seal(ChildId),
    /// Answer with [`Told::Heard`] once every core has executed all that was told before this.
    Await {
        /// Comes back in the answer.
        ticket: u64,
        /// What every SA of this address has carried by then is told first, by [`Told::Use`].
        tops_of: Option<IpAddr>,
    },
    /// As the owner: forget these entries, which that target had.
    Forget {
        /// Which entries.
        entries: Vec<EntryKey>,
        /// Who had them.
        target: MemberId,
    },
    /// As a target: say which of these there are, and stop those that are not there, so that a frame under way creates
    /// none. Answered by [`Told::Alive`] and [`Told::Stopped`].
    Verify(Vec<EntryKey>),
    /// As a target: the owner has forgotten these; their tombs may go.
    Bury(Vec<EntryKey>),
    /// Raise what the halves of an SA may carry here, in all: inner bytes and packets, absolute.
    Ceiling {
        /// Which SA.
        child: ChildId,
        /// Inner bytes and packets inbound.
        inbound: (u64, u64),
        /// Inner bytes and packets outbound.
        outbound: (u64, u64),
    },
    /// Take up to so much out of what the halves of an SA may carry here, as far as no core has claimed it. Answer with
    /// [`Told::Withdrawn`].
    Withdraw {
        /// Which SA.
        child: ChildId,
        /// Inner bytes and packets inbound.
        inbound: (u64, u64),
        /// Inner bytes and packets outbound.
        outbound: (u64, u64),
    },
    /// Where the numbers of an SA's outbound half come from on this appliance, from now on.
    Numbers {
        /// Which SA.
        child: ChildId,
        /// Where from.
        source: NumberSource,
    },
    /// Numbers below this may be used, by whoever numbers the SA here; it only grows.
    Mark {
        /// Which SA.
        child: ChildId,
        /// The first number that may not be used.
        below: u64,
    },
    /// A block of numbers, for a source that is [`NumberSource::Leased`].
    Lease {
        /// Which SA.
        child: ChildId,
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// As the owner: IKE replaces this CHILD_SA.
    Rekey(ChildId),
    /// As the owner: IKE deletes this CHILD_SA, on both sides.
    Delete(ChildId),
    /// As the owner: IKE asks the peer for a sibling of this CHILD_SA. Answered by [`Told::SiblingRefused`] or an SA that
    /// names it.
    AskSibling(ChildId),
    /// As the owner: what IKE says of this SA may leave, since it stands wherever it must.
    Release(ChildId),
    /// As the owner: this SA may not be used, its record could not be made; IKE deletes it.
    Refuse(ChildId),
    /// This appliance owns the address now: answer for it, announce it, serve its IKE in this epoch.
    Own {
        /// Which address.
        dvipa: IpAddr,
        /// Since which epoch.
        epoch: Epoch,
    },
    /// It does not own it any more.
    Disown {
        /// Which address.
        dvipa: IpAddr,
    },
    /// As the owner: a peer behind a NAT is elsewhere, says an authentic packet that some member saw; IKE decides.
    PeerSeen {
        /// By which SA.
        child: ChildId,
        /// Where it came from.
        remote: SocketAddr,
        /// The packet's number.
        sequence: u64,
    },
    /// Send nothing on the SAs of a DVIPA, since its owner is silent for longer than a takeover takes, or do so again.
    Mute {
        /// Which address.
        dvipa: IpAddr,
        /// Whether nothing is sent.
        is_mute: bool,
    },
    /// End the session with a member; it is brought level in the next one.
    Disconnect {
        /// With whom.
        member: MemberId,
        /// For the log.
        why: &'static str,
    },
    /// As the owner: what targets are chosen by has changed ([`super::Member::targets`]): their ports, their load, their
    /// connections, or who may be chosen. Told at most once between two polls that give nothing.
    TargetsChanged,
}

/// What the appliance tells its member.
#[derive(Debug)]
pub enum Told {
    /// IKE has a new CHILD_SA. Nothing that it says of it leaves before [`Action::Release`].
    ChildUp(Box<ShadowSa>),
    /// A CHILD_SA is gone for IKE.
    ChildDown {
        /// Which.
        child: ChildId,
        /// Whether its last packets may be under way.
        lingers: bool,
        /// For the log.
        why: &'static str,
    },
    /// IKE follows a peer to another address.
    PeerMoved {
        /// Who moved.
        peer: PeerId,
        /// Our address.
        dvipa: IpAddr,
        /// Where to.
        remote: SocketAddr,
        /// Its SAs.
        children: Vec<Spi>,
    },
    /// The peer refused a sibling, for good if so said.
    SiblingRefused {
        /// Of which SA.
        child: ChildId,
        /// Never ask this IKE SA again.
        for_good: bool,
    },
    /// Every core has executed [`Action::Install`] for this SA.
    Installed(ChildId),
    /// A core had no room for this SA.
    InstallFailed(ChildId),
    /// Every core has executed all that was told before [`Action::Await`].
    Heard {
        /// The ticket of it.
        ticket: u64,
    },
    /// As the owner: it is long since the target has confirmed this entry (or it is new); said once a while.
    Unverified {
        /// Which.
        entry: EntryKey,
        /// Who has it.
        target: MemberId,
        /// Since which start.
        incarnation: Incarnation,
    },
    /// As a target: these are tombs now; said once for each tomb, again only if its first telling was lost. What their
    /// SAs have accepted is in the next [`Told::Use`], which follows even if no SA has carried anything.
    Stopped(Vec<EntryKey>),
    /// As a target: these are there.
    Alive(Vec<EntryKey>),
    /// An SA has carried its first authentic packet here.
    FirstPacket(ChildId),
    /// As the owner: a packet met a seal, or asked for an entry that a seal forbids.
    SealMet(ChildId),
    /// A packet waits for a number, or was dropped for want of one: this appliance has traffic for the peer on this SA.
    NumbersWanted {
        /// Which SA.
        child: ChildId,
        /// The number that the next packet would have: all that were given here below it are used, or never will be.
        next: u64,
    },
    /// As a target: a peer behind a NAT is elsewhere, says its newest authentic packet.
    PeerSeen {
        /// By which SA.
        child: ChildId,
        /// Where it came from.
        remote: SocketAddr,
        /// The packet's number.
        sequence: u64,
    },
    /// What the services' hosts answer, by the probes of this appliance.
    Services {
        /// Of which address.
        dvipa: IpAddr,
        /// The ports that are ready here.
        ready: Vec<ServicePort>,
    },
    /// As a target: how many connections its cores have of each port; ports without one are absent.
    Active {
        /// Of which address.
        dvipa: IpAddr,
        /// Each port once.
        ports: Vec<ActivePort>,
    },
    /// How busy this appliance's data cores are, 0 to 1000.
    Load(u16),
    /// As the owner: how many entries all its cores hold of a target that drains. Counted after everything told before
    /// this.
    Connections {
        /// Of which address.
        dvipa: IpAddr,
        /// Who has them.
        target: MemberId,
        /// How many.
        count: u64,
    },
    /// The operator wants a target drained, or no more.
    Drain {
        /// Which target.
        target: MemberId,
        /// Whether it drains.
        on: bool,
    },
    /// So much was taken out for good, and is carried by no core any more.
    Withdrawn {
        /// Of which SA.
        child: ChildId,
        /// Inner bytes and packets inbound.
        inbound: (u64, u64),
        /// Inner bytes and packets outbound.
        outbound: (u64, u64),
    },
    /// What the SAs have carried here so far; told many times a second, changed SAs only.
    Use(Vec<SaUse>),
}

/// What one SA has carried on this appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaUse {
    /// Which SA.
    pub child: ChildId,
    /// Inner bytes and packets delivered.
    pub inbound: (u64, u64),
    /// Inner bytes and packets sent.
    pub outbound: (u64, u64),
    /// The highest number accepted on any core.
    pub top: u64,
    /// The next outbound number, if it is numbered here.
    pub next_outbound: u64,
    /// How long ago its last authentic packet came.
    pub heard_ago: Option<Duration>,
}
