//! The control core: the one place where IP stack, IKE and the data cores meet.
//!
//! Sans-IO like its parts: the owner calls [`ControlCore::poll`] with the time and sleeps until something may have
//! changed. Frames come and go through the data cores' mailboxes.
//!
//! **Promises.**
//! - An SA stands on every data core before the IKE message that lets the peer use it leaves, unless a core has not
//!   taken a command for 200 ms; then the log says so.
//! - A command that finds a mailbox full is kept and sent later, in order.
//! - What a data core gives back is freed here, not on the packet path.
//!
//! **What it never does.** It touches no packet of a connection and decides nothing for a single packet.

mod cluster;
mod cores;
mod drops;
mod listing;
mod negotiated;
mod peers;
mod policy;
mod registry;
mod senders;
mod snapshot;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ::cluster::facility::senders::SenderPool;
use ::cluster::member::Told;
use datapath::buffer::PacketBuffer;
use datapath::mailbox::{Command, Event, PuntReason, Retired, SaName};
use datapath::routes::{NextHop, PortId};
use ike::Endpoint;
use ipsec::engine::Engine;
use ipsec::sa::SaParameters;
use ipsec::time::Instant;
use tracing::{debug, info, warn};
use wire::flow::FlowKey;

use crate::report::WhereRow;
use crate::stack::Stack;

use cluster::ClusterCore;
pub use cluster::{ClusterParts, LinkParts, ProbedService, Sharing};
pub use cores::CoreHandle;
use cores::Cores;
use drops::DropWatch;
pub use listing::Listing;
use listing::Search;
pub use policy::policy;
pub use registry::{Half, Registered};
use registry::{Registry, Sending};
use senders::Senders;
pub use snapshot::Surroundings;

/// Requests of the control core itself to the facility: far from those of the member, which counts from 0.
const OWN_REQUESTS: u64 = 1 << 63;

/// Punted frames and events looked at from one core in one poll, so that no core starves the others or IKE's timers.
const PER_CORE_AND_POLL: usize = 256;

/// How long IKE messages wait for data cores to take up an SA. A core that is slower has stopped.
const INSTALL_PATIENCE: Duration = Duration::from_millis(200);

/// How long an SA that was replaced, or that the peer has let go of, is still listened on. Its last packets may stand in
/// a queue while the message that ends it overtakes them; its replay window stays with it.
const LINGER: Duration = Duration::from_secs(1);

/// Makes a frame of the packet path from bytes; `None` while the mempool is empty.
pub type FrameSource<B> = Box<dyn FnMut(&[u8]) -> Option<B> + Send>;

/// Everything that the control core is made of.
pub struct Parts<B> {
    /// The IP stack of our own addresses.
    pub stack: Stack,
    /// IKE.
    pub ike: Endpoint,
    /// The data cores.
    pub cores: Vec<CoreHandle<B>>,
    /// The sender numbers that were drawn for this start, but for those that the cores and IKE hold.
    pub senders: SenderPool,
    /// The AEAD engine that passed its self-test.
    pub engine: Engine,
    /// MTU of each port, by number.
    pub port_mtus: Vec<u16>,
    /// How each DVIPA's outbound numbers are given out, as its configuration says it.
    pub outbound_sequences: BTreeMap<IpAddr, String>,
    /// Where frames come from.
    pub frames: FrameSource<B>,
    /// What makes the appliance one of several.
    pub cluster: Option<ClusterParts>,
}

/// The control core.
pub struct ControlCore<B> {
    stack: Stack,
    ike: Endpoint,
    cores: Cores<B>,
    registry: Registry,
    senders: Senders,
    /// What the next request to the coupling facility is called.
    next_request: u64,
    frames: FrameSource<B>,
    listing: Option<Listing>,
    search: Option<Search>,
    cluster: Option<ClusterCore>,
    /// IKE messages that promise an SA wait until every core has executed the commands up to here, or until the instant.
    barrier: Option<Instant>,
    held: VecDeque<ike::Datagram>,
    drop_watch: DropWatch,
    outbound_sequences: BTreeMap<IpAddr, String>,
    busy_polls: u64,
    idle_polls: u64,
}

impl<B: PacketBuffer> ControlCore<B> {
    /// Joins the parts. Nothing is installed yet.
    pub fn new(parts: Parts<B>) -> Self {
        let registry = Registry::new(parts.engine, parts.cores.len(), parts.port_mtus);
        ControlCore {
            stack: parts.stack,
            ike: parts.ike,
            cores: Cores::new(parts.cores),
            registry,
            senders: Senders::new(parts.senders),
            next_request: OWN_REQUESTS,
            frames: parts.frames,
            listing: None,
            search: None,
            cluster: parts.cluster.map(ClusterCore::new),
            barrier: None,
            held: VecDeque::new(),
            drop_watch: DropWatch::default(),
            outbound_sequences: parts.outbound_sequences,
            busy_polls: 0,
            idle_polls: 0,
        }
    }

    /// One turn: takes in what the data cores say, lets IP stack and IKE work, hands out what came of it. Returns
    /// whether there was anything to do.
    pub fn poll(&mut self, now: Instant) -> bool {
        let mut busy = self.hear_cores(now);
        busy |= self.hear_reports(now);
        busy |= self.run_timers(now);
        busy |= self.pass_datagrams_to_ike(now);
        busy |= self.follow_ike(now);
        busy |= self.run_cluster(now);
        self.follow_neighbours();
        self.renew_ivs(now);
        self.cores.flush();
        self.send_ike(now);
        busy |= self.send_frames();
        self.watch_drops(now);
        *if busy { &mut self.busy_polls } else { &mut self.idle_polls } += 1;
        busy
    }

    /// When [`ControlCore::poll`] has something to do even if no data core says anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let cluster = self.cluster.as_ref().map(ClusterCore::poll_timeout);
        let timeouts =
            [self.stack.poll_timeout(), self.ike.poll_timeout(), self.registry.poll_timeout(), self.barrier, cluster];
        timeouts.into_iter().flatten().min()
    }

    /// What is next to be asked of the coupling facility. Whoever carries it there brings the reply to
    /// [`ControlCore::handle_facility_reply`], or says [`ControlCore::facility_refused`].
    pub fn poll_facility_request(&mut self, now: Instant) -> Option<::cluster::facility::Request> {
        let request = self.senders.poll_request(now, self.next_request);
        self.next_request += u64::from(request.is_some());
        request.or_else(|| self.cluster.as_mut()?.member.poll_request())
    }

    /// A reply of the coupling facility.
    pub fn handle_facility_reply(&mut self, now: Instant, reply: ::cluster::facility::Reply) {
        if self.senders.handle_reply(now, &reply) {
            return;
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.member.handle_facility(now, reply);
        } else {
            debug!(id = reply.id, "nobody waits for this reply of the coupling facility");
        }
    }

    /// The last request could not even be asked.
    pub fn facility_refused(&mut self, now: Instant) {
        self.senders.refused(now);
    }

    /// Installs a lab SA that no IKE stands behind.
    pub fn install_static(&mut self, inbound: Option<SaParameters>, outbound: Option<SaParameters>) {
        let born_at = self.senders.birth();
        let plan = self.registry.admit(inbound, outbound, born_at, self.stack.routes());
        match plan {
            Ok(id) => {
                self.registry.install_inbound(id, false, &mut self.cores);
                self.registry.install_outbound(id, Sending::First, &mut self.cores);
            }
            Err(why) => warn!(%why, "static SA refused"),
        }
    }

    /// Deletes all SAs at their peers; [`ControlCore::is_idle`] says when that is done, or has taken too long.
    pub fn initiate_shutdown(&mut self, now: Instant) {
        self.ike.initiate_shutdown(now);
    }

    /// A port's link has gone, or has come back: then whoever is behind it learns anew where our addresses are.
    pub fn link_changed(&mut self, now: Instant, port: PortId, is_up: bool) {
        self.stack.link_changed(now, port, is_up);
    }

    /// Whether IKE has nothing left to say.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ike.is_idle()
    }

    /// The IP stack, to read.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// IKE, to read.
    #[must_use]
    pub fn ike(&self) -> &Endpoint {
        &self.ike
    }

    /// Every SA that is installed.
    pub fn sas(&self) -> impl Iterator<Item = &Registered> {
        self.registry.iter()
    }

    /// The data cores' ledgers and counters, in order.
    pub fn cores(&self) -> impl Iterator<Item = &CoreHandle<B>> {
        self.cores.iter()
    }

    /// Begins to list all connections; [`ControlCore::take_listing`] has them when every core has answered.
    pub fn start_listing(&mut self) {
        if self.listing.is_none() {
            self.listing = Some(Listing::start(&mut self.cores));
        }
    }

    /// Begins to look for the connection of a flow; [`ControlCore::take_found`] has it a moment later.
    pub fn start_search(&mut self, now: Instant, flow: FlowKey) {
        self.search = Some(Search::start(now, flow, &mut self.cores));
    }

    /// Where the connection is that was looked for, once.
    pub fn take_found(&mut self, now: Instant) -> Option<Vec<WhereRow>> {
        let search = self.search.take_if(|search| search.is_complete(now))?;
        Some(self.where_rows(now, &search))
    }

    /// The complete list, once.
    pub fn take_listing(&mut self) -> Option<Listing> {
        self.listing.take_if(|listing| listing.is_complete())
    }

    /// Forgets replay windows, for benchmarks with static SAs.
    pub fn reset_windows(&mut self) {
        self.cores.tell_all(|| Command::ResetWindows);
    }

    fn hear_cores(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for core in 0..self.cores.len() {
            for _ in 0..PER_CORE_AND_POLL {
                let Some(event) = self.cores.next_event(core) else { break };
                busy = true;
                self.handle_event(now, core, event);
            }
            for _ in 0..PER_CORE_AND_POLL {
                let Some(punted) = self.cores.next_punted(core) else { break };
                busy = true;
                match punted.reason {
                    PuntReason::ForUs => self.stack.handle_frame(now, punted.port, punted.frame.bytes()),
                    PuntReason::TooBig { mtu } => self.stack.send_too_big(now, punted.frame.bytes(), mtu),
                }
            }
        }
        busy
    }

    fn handle_event(&mut self, now: Instant, core: usize, event: Event) {
        match event {
            Event::FirstPacket { sa } => {
                if let Some(id) = self.registry.find(sa) {
                    self.registry.prefer(id, &mut self.cores);
                }
                self.tell_first_packet(now, sa);
            }
            Event::SoftLimit { sa } => {
                if let Some(inbound) = self.registry.inbound_spi_of(sa) {
                    info!(dvipa = %sa.dvipa, spi = %sa.spi, direction = %sa.direction, "soft limit reached, rekeying");
                    if let Err(error) = self.ike.rekey_child(now, inbound) {
                        debug!(%error, "nothing to rekey");
                    }
                }
            }
            Event::HardLimit { sa } => {
                if let Some(inbound) = self.registry.inbound_spi_of(sa) {
                    warn!(dvipa = %sa.dvipa, spi = %sa.spi, direction = %sa.direction, "hard limit reached, SA ends");
                    if let Err(error) = self.ike.child_expired(now, inbound) {
                        debug!(%error, "no IKE stands behind it");
                    }
                }
            }
            Event::PeerMoved { sa, remote, sequence } if self.cluster.is_some() => {
                if let Some(child) = self.registry.child_of(sa) {
                    self.tell_member(now, Told::PeerSeen { child, remote, sequence });
                }
            }
            Event::PeerMoved { sa, remote, sequence } => self.peer_moved(now, sa, remote, sequence),
            Event::NeighbourWanted(hop) => {
                let resolution = self.stack.resolve(now, hop.port, hop.address);
                debug!(address = %hop.address, ?resolution, "a packet wants a neighbour");
            }
            Event::IvsWanted => self.senders.want(core),
            Event::Connections { page, next } => {
                if let Some(listing) = &mut self.listing {
                    listing.add(core, page, next, &mut self.cores);
                }
            }
            Event::Retired(Retired::Inbound(entry)) => {
                let is_refused = self.registry.retired_inbound(&entry);
                self.end_if_refused(now, core, is_refused, entry.name());
            }
            Event::Retired(Retired::Outbound(entry)) => {
                let is_refused = self.registry.retired_outbound(&entry);
                self.end_if_refused(now, core, is_refused, entry.name());
            }
            Event::Entries { page, next } => {
                if let Some(listing) = &mut self.listing {
                    listing.add_entries(core, page, next, &mut self.cores);
                }
            }
            Event::Found { flow, connection, entries } => {
                if let Some(search) = &mut self.search {
                    search.add(flow, connection, entries);
                }
            }
            Event::Retired(
                Retired::Routes(_)
                | Retired::Policy(_)
                | Retired::Ivs(_)
                | Retired::Fabric(_)
                | Retired::Dpt(_)
                | Retired::FrameKeys(_)
                | Retired::Keys(_),
            ) => {}
        }
    }

    /// An SA that one core cannot hold would lose every packet of the connections which that core owns: it ends.
    fn end_if_refused(&mut self, now: Instant, core: usize, is_refused: bool, sa: SaName) {
        let Some(inbound) = self.registry.inbound_spi_of(sa).filter(|_| is_refused) else { return };
        warn!(core, dvipa = %sa.dvipa, spi = %sa.spi, "the core has no room for this SA, deleting it");
        if let Err(error) = self.ike.delete_child(now, inbound) {
            debug!(%error, "no IKE stands behind it");
        }
    }

    /// New sender numbers for the cores whose IVs have run out or have grown too old.
    fn renew_ivs(&mut self, now: Instant) {
        while let Some((core, ivs)) = self.senders.renew(now) {
            self.cores.tell(core, Command::Ivs(Box::new(ivs)));
        }
    }

    fn run_timers(&mut self, now: Instant) -> bool {
        let is_due = |timeout: Option<Instant>| timeout.is_some_and(|at| at <= now);
        let (stack, ike) = (is_due(self.stack.poll_timeout()), is_due(self.ike.poll_timeout()));
        if stack {
            self.stack.handle_timeout(now);
        }
        if ike {
            self.tell_who_lives(now);
            self.ike.handle_timeout(now);
        }
        self.registry.end_lingering(now, &mut self.cores);
        stack || ike
    }

    fn follow_neighbours(&mut self) {
        while let Some(change) = self.stack.poll_neighbour() {
            let hop = NextHop { port: change.port, address: change.address };
            self.cores.tell_all(|| Command::Neighbour { hop, mac: change.mac });
        }
        while let Some(event) = self.stack.poll_event() {
            match event {
                crate::stack::Event::AddressConflict { address, claimant, claims, .. } => {
                    warn!(%address, %claimant, claims, "a stranger claims an address of ours; two hosts may have it");
                }
                crate::stack::Event::NextHopDown(hop) => warn!(next_hop = %hop.address, "next hop does not answer"),
                crate::stack::Event::NextHopUp(hop, mac) => info!(next_hop = %hop.address, %mac, "next hop answers"),
                crate::stack::Event::PathMtu(path) => debug!(?path, "somebody reports a smaller path MTU"),
            }
        }
    }

    fn send_frames(&mut self) -> bool {
        let mut busy = false;
        while let Some((port, bytes)) = self.stack.poll_transmit() {
            busy = true;
            let sent = (self.frames)(&bytes).is_some_and(|frame| self.cores.originate(port, frame));
            if !sent {
                self.stack.transmit_failed();
            }
        }
        busy
    }
}
