//! What the control core and a data core say to each other.
//!
//! Each data core has one [`Mailbox`]; the control core holds the other end, a [`CoreLink`]. Everything travels in
//! bounded rings and by ownership. A data core changes its tables only by executing a [`Command`], so the packet path
//! holds no lock; what it replaces travels back as [`Event::Retired`], so that it is freed elsewhere.

use crate::cluster::reports::Report;
use crate::connections::Connection;
use crate::forwarding::Mac;
use crate::outer::Urgency;
use crate::policy::Policy;
use crate::routes::{NextHop, PortId, RouteTable};
use crate::sas::{InboundEntry, OutboundEntry};
use cluster::dpt::Tables;
use cluster::fabric::Fabric;
use cluster::id::MemberId;
use cluster::member::{EntryKey, NumberSource};
use cluster::protection::{Expired, SessionKeys};
use cluster::vcrt::Route;
use core::net::{IpAddr, SocketAddr};
use ipsec::Spi;
use ipsec::engine::Engine;
use ipsec::iv::IvGenerator;
use ipsec::sa::{Direction, PeerId, SaParameters};
use ipsec::time::Instant;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::flow::FlowKey;

/// Commands that can wait for a core. The control core holds back what finds no room.
const COMMANDS: usize = 1024;
/// Events that can wait for the control core: every command may answer with one, the core itself adds few.
const EVENTS: usize = 2 * COMMANDS;
/// Places that no news of moved peers may take: a NAT that restarts moves all its peers at once, and they tell again.
pub(crate) const EVENTS_RESERVE: usize = EVENTS / 2;
/// Reports that can wait for the control core.
const REPORTS: usize = 4096;
/// Places that only reports may take without which a connection would stand still.
const REPORTS_RESERVE: usize = REPORTS / 2;
/// Frames that can wait for the control core. Bounded small: what floods it is worth least.
const PUNTED: usize = 512;

/// Places that a frame must leave free for more urgent ones, so that no flood of pings cuts us off from neighbours and
/// new peers, and no flood of newcomers from those that we serve.
pub(crate) const fn punted_reserve(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Courtesy => PUNTED / 2,
        Urgency::Vital => PUNTED / 4,
        Urgency::Established => 0,
    }
}

/// Frames of the control core that can wait for their port.
const ORIGINATED: usize = 512;

/// A change to a data core's tables, or a question.
#[derive(Debug)]
pub enum Command {
    /// Add this core's instance of an inbound SA.
    InstallInbound(Box<InboundEntry>),
    /// Forget an inbound SA.
    RemoveInbound {
        /// The address it belongs to.
        dvipa: IpAddr,
        /// Our SPI.
        spi: Spi,
    },
    /// Add an outbound SA: the newest of its peer is used first.
    InstallOutbound(Box<OutboundEntry>),
    /// Add an outbound SA that is used only for what no other SA of its peer admits.
    InstallReserve(Box<OutboundEntry>),
    /// Use an outbound SA before all others of its peer.
    PreferOutbound {
        /// Whose SA.
        peer: PeerId,
        /// The peer's SPI.
        spi: Spi,
    },
    /// Forget an outbound SA.
    RemoveOutbound {
        /// Whose SA.
        peer: PeerId,
        /// The peer's SPI.
        spi: Spi,
    },
    /// A peer's address has changed: send to the new one.
    MovePeer {
        /// Whose address.
        peer: PeerId,
        /// The new one, with the UDP port where ESP travels in UDP.
        remote: SocketAddr,
    },
    /// The NAT in front of a peer has moved it: what comes by this inbound SA comes from there now.
    MoveInbound {
        /// The address it belongs to.
        dvipa: IpAddr,
        /// Our SPI.
        spi: Spi,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// Use these routes from now on.
    Routes(Arc<RouteTable>),
    /// Use this policy from now on.
    Policy(Arc<Policy>),
    /// A neighbour's link address has become known, or unknown.
    Neighbour {
        /// Which neighbour.
        hop: NextHop,
        /// Its link address.
        mac: Option<Mac>,
    },
    /// Draw IVs from here from now on.
    Ivs(Box<IvGenerator>),
    /// Fill the page with connections from a cursor on, up to its capacity.
    ListConnections {
        /// Where to begin; zero for the first page.
        cursor: usize,
        /// An empty page whose capacity says how many are wanted.
        page: Vec<Connection>,
    },
    /// Route by this view of the cluster from now on. Ignored by a core that was not made to join one.
    Fabric {
        /// The view.
        fabric: Arc<Fabric>,
        /// When it was made: no seal that it rests on was set later.
        at: Instant,
    },
    /// Protect frames to and from a member with these keys from now on.
    FrameKeys {
        /// Of a new session with it.
        keys: Box<SessionKeys>,
        /// What encrypts.
        engine: Engine,
    },
    /// Choose targets for new connections from these tables from now on.
    Dpt(Arc<Tables>),
    /// As the owner: forget that this target has these connections.
    ForgetEntries {
        /// Which.
        entries: Vec<EntryKey>,
        /// Who had them. What went to another member since stays.
        target: MemberId,
    },
    /// As a target: say which of these connections are here, and stop those that are not. Each core speaks for its own.
    Verify(Vec<EntryKey>),
    /// As a target: the owner has forgotten these; their tombs may go.
    Bury(Vec<EntryKey>),
    /// Say whether the connection on this flow is here, and, as the owner, where the connections on it are routed to.
    FindConnection {
        /// From the client to the service.
        flow: FlowKey,
    },
    /// As the owner: fill the page with routed connections from a cursor on, up to its capacity.
    ListEntries {
        /// Where to begin; zero for the first page.
        cursor: usize,
        /// An empty page whose capacity says how many are wanted.
        page: Vec<(EntryKey, Route)>,
    },
    /// Take the numbers of an outbound SA from there from now on.
    SetNumbers {
        /// Whose SA.
        peer: PeerId,
        /// The peer's SPI.
        spi: Spi,
        /// The SPI of the inbound half, by which members name it.
        child: Spi,
        /// Where from.
        source: NumberSource,
        /// The client's replay window that the sequencer counts with, in packets.
        window_packets: u32,
    },
    /// Use these numbers of an outbound SA, too.
    GrantNumbers {
        /// Whose SA.
        peer: PeerId,
        /// The peer's SPI.
        spi: Spi,
        /// The first number.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Forget every packet number seen, on SAs without IKE. For benchmarks that send one capture again and again.
    ResetWindows,
}

/// What a data core tells the control core.
#[derive(Debug)]
pub enum Event {
    /// An inbound SA has carried its first authentic packet: the peer uses it. Said only for SAs that ask for it.
    FirstPacket {
        /// Which SA.
        sa: SaName,
    },
    /// An SA has reached its soft limit: refresh it. Said once, by whichever core reached it.
    SoftLimit {
        /// Which SA.
        sa: SaName,
    },
    /// An SA has reached a hard limit and refuses packets. Said once by each core that refuses.
    HardLimit {
        /// Which SA.
        sa: SaName,
    },
    /// The newest packet of an inbound SA is authentic and came in UDP from elsewhere than the peer is: its NAT has
    /// moved it. Said again, at a limited rate, until [`Command::MoveInbound`] says that it is followed.
    PeerMoved {
        /// Which SA.
        sa: SaName,
        /// Where it came from.
        remote: SocketAddr,
        /// The packet's number: what another core tells with a lower one is older.
        sequence: u64,
    },
    /// A packet waits for this neighbour's link address; it was dropped.
    NeighbourWanted(NextHop),
    /// This core's IVs have run out or have grown too old for an SA.
    IvsWanted,
    /// The answer to [`Command::ListConnections`].
    Connections {
        /// The connections, at most the page's capacity.
        page: Vec<Connection>,
        /// Where to go on, however many connections there are on this page, or `None` at the end.
        next: Option<usize>,
    },
    /// The answer to [`Command::FindConnection`] of the core that owns the flow; the others answer with nothing.
    Found {
        /// What was asked for.
        flow: FlowKey,
        /// The connection that ends here.
        connection: Option<Connection>,
        /// What is routed: one for each peer that has a connection on the flow.
        entries: Vec<(EntryKey, Route)>,
    },
    /// The answer to [`Command::ListEntries`].
    Entries {
        /// The routed connections, at most the page's capacity.
        page: Vec<(EntryKey, Route)>,
        /// Where to go on, or `None` at the end.
        next: Option<usize>,
    },
    /// Replaced or refused; to be freed away from the packet path.
    Retired(Retired),
}

/// How an SA is named between cores. The peer belongs to the name: of outbound SAs the SPI is the peer's choice, and
/// two peers may choose the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaName {
    /// Whose SA.
    pub peer: PeerId,
    /// Our address.
    pub dvipa: IpAddr,
    /// Which way.
    pub direction: Direction,
    /// The receiver's number.
    pub spi: Spi,
}

impl SaName {
    /// The name of the SA with these parameters.
    pub fn of(parameters: &SaParameters) -> SaName {
        SaName { peer: parameters.peer, dvipa: parameters.dvipa, direction: parameters.direction, spi: parameters.spi }
    }
}

/// What a data core no longer needs.
#[derive(Debug)]
pub enum Retired {
    /// An inbound SA that was removed, or found no room or its SPI taken.
    Inbound(Box<InboundEntry>),
    /// An outbound SA that was removed, or whose home is no core.
    Outbound(Box<OutboundEntry>),
    /// Former routes.
    Routes(Arc<RouteTable>),
    /// Former policy.
    Policy(Arc<Policy>),
    /// A former source of IVs.
    Ivs(Box<IvGenerator>),
    /// A former view of the cluster, or one that the core has no use for.
    Fabric(Arc<Fabric>),
    /// The keys of a session that is over.
    FrameKeys(Expired),
    /// Former tables of targets, or some that the core has no use for.
    Dpt(Arc<Tables>),
    /// What a command named.
    Keys(Vec<EntryKey>),
}

/// A frame for the control core.
#[derive(Debug)]
pub struct Punted<B> {
    /// The port it came in by.
    pub port: PortId,
    /// Why control shall look at it.
    pub reason: PuntReason,
    /// The whole frame; for [`PuntReason::TooBig`] the IP packet alone.
    pub frame: B,
}

/// Why a frame goes to the control core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PuntReason {
    /// For one of our own addresses: ARP, ICMP, IKE, …
    ForUs,
    /// An inner packet that does not fit its way once encrypted; its sender is to be told this MTU.
    TooBig {
        /// The longest inner packet that fits.
        mtu: u16,
    },
}

/// A frame that the control core made.
#[derive(Debug)]
pub struct Originated<B> {
    /// The port to send it on.
    pub port: PortId,
    /// The finished frame.
    pub frame: B,
}

/// A data core's end.
#[derive(Debug)]
pub struct Mailbox<B> {
    /// Commands to execute.
    pub commands: Consumer<Command>,
    /// Frames to send.
    pub originated: Consumer<Originated<B>>,
    /// Events to tell.
    pub events: Producer<Event>,
    /// Frames to hand up.
    pub punted: Producer<Punted<B>>,
    /// News of routed connections.
    pub reports: Producer<Report>,
    applied: Arc<AtomicU64>,
}

/// The control core's end.
#[derive(Debug)]
pub struct CoreLink<B> {
    commands: Producer<Command>,
    originated: Producer<Originated<B>>,
    /// What the core tells.
    pub events: Consumer<Event>,
    /// What the core hands up.
    pub punted: Consumer<Punted<B>>,
    /// What the core tells of routed connections.
    pub reports: Consumer<Report>,
    sent: u64,
    applied: Arc<AtomicU64>,
}

/// Both ends of a new mailbox.
pub fn mailbox<B>() -> (Mailbox<B>, CoreLink<B>) {
    let (commands_in, commands) = RingBuffer::new(COMMANDS);
    let (originated_in, originated) = RingBuffer::new(ORIGINATED);
    let (events, events_out) = RingBuffer::new(EVENTS);
    let (punted, punted_out) = RingBuffer::new(PUNTED);
    let (reports, reports_out) = RingBuffer::new(REPORTS);
    let applied = Arc::new(AtomicU64::new(0));
    let core = Mailbox { commands, originated, events, punted, reports, applied: Arc::clone(&applied) };
    let link = CoreLink {
        commands: commands_in,
        originated: originated_in,
        events: events_out,
        punted: punted_out,
        reports: reports_out,
        sent: 0,
        applied,
    };
    (core, link)
}

impl<B> Mailbox<B> {
    /// The next command, as long as the events have room for its answer.
    pub fn next_command(&mut self) -> Option<Command> {
        if self.events.slots() < 2 {
            return None;
        }
        self.commands.pop().ok()
    }

    /// Tells what will be told again if it finds the ring half full.
    pub fn tell_if_roomy(&mut self, event: Event) {
        if self.events.slots() > EVENTS_RESERVE {
            // There is room: nobody else fills the ring.
            let _ = self.events.push(event);
        }
    }

    /// Tells of a routed connection; whether there was room. What is told again by itself leaves half the ring to the rest.
    pub fn report(&mut self, report: Report) -> bool {
        let reserve = if report.is_told_again() { REPORTS_RESERVE } else { 0 };
        self.reports.slots() > reserve && self.reports.push(report).is_ok()
    }

    /// Says that one more command has been executed.
    pub fn applied_one(&self) {
        self.applied.store(self.applied.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

impl<B> CoreLink<B> {
    /// Sends a command.
    ///
    /// # Errors
    /// Gives the command back when the mailbox is full: the core is behind or has stopped.
    pub fn send(&mut self, command: Command) -> Result<(), Command> {
        self.commands.push(command).map_err(|rtrb::PushError::Full(command)| command)?;
        self.sent += 1;
        Ok(())
    }

    /// Gives a frame to be sent.
    ///
    /// # Errors
    /// Gives the frame back when the ring is full.
    pub fn originate(&mut self, port: PortId, frame: B) -> Result<(), B> {
        let pushed = self.originated.push(Originated { port, frame });
        pushed.map_err(|rtrb::PushError::Full(originated)| originated.frame)
    }

    /// The number of the last command sent: once [`CoreLink::has_applied`] this, all up to it are in force.
    pub fn last_sent(&self) -> u64 {
        self.sent
    }

    /// Whether the core has executed every command up to this number.
    pub fn has_applied(&self, number: u64) -> bool {
        self.applied.load(Ordering::Acquire) >= number
    }
}
