//! The IP stack of our own addresses: ARP, ICMP echo, IKE's UDP, neighbours and routes, for ports that no kernel sees; in
//! a cluster also the members' TCP and heartbeats on the trusted port, and probes of application hosts.
//!
//! Sans-IO: no socket, no thread, no clock. The control core hands in frames that data cores have punted, commands and
//! the time, and takes out what is due:
//!
//! 1. [`Stack::new`] announces our addresses and asks for the routers.
//! 2. [`Stack::handle_frame`], [`Stack::send_datagram`], [`Stack::resolve`] and the other commands, in any order.
//! 3. [`Stack::handle_timeout`] when [`Stack::poll_timeout`] has come.
//! 4. After any of these: [`Stack::poll_datagram`], [`Stack::poll_stream`], [`Stack::poll_heartbeat`],
//!    [`Stack::poll_probe`], [`Stack::poll_transmit`], [`Stack::poll_neighbour`] and [`Stack::poll_event`], each until it
//!    is empty. Taking from a stream may give rise to frames, so frames come after it.
//!
//! # Promises
//!
//! - The strong host model (RFC 1122 §3.3.4.2): an address of ours is served on its port only. A DVIPA is answered for
//!   only while it is owned, only on its network port, with the port's own link address; ARP that we ask with never
//!   carries a DVIPA as sender.
//! - A neighbour is known because we asked for it. Frames of strangers refresh what is wanted; they create nothing, and
//!   say nothing about a DVIPA on its own port.
//! - IKE is answered to the station that it came from, so an unresolved neighbour never silences it.
//! - TCP is spoken with members on the trusted port, and with whom we probe. Strangers' segments reach no socket.
//! - Every table and queue is bounded, and what finds no place is counted under a [`DropReason`]. Every frame received
//!   ends exactly once, see [`Counters`].
//!
//! # What it never does
//!
//! It forwards nothing, answers no closed port, and follows no redirect. smoltcp stands in for the parts it is good at;
//! `link.rs` says which, and why not for the others. IPv6 packets are served, but IPv6 neighbours are not asked for yet.

mod arp;
mod claims;
mod drops;
mod icmp;
mod limit;
mod link;
mod neighbour;
mod port;
mod probes;
mod queue;
mod reassembly;
mod receive;
mod return_path;
mod send;
mod streams;
#[cfg(test)]
mod tests;
mod trusted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use datapath::routes::{NextHop, PortId, RouteTable};
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
pub use wire::ethernet::MacAddress;

use claims::Claims;
pub use drops::{Counters, DROP_REASONS, Direction, DropReason};
pub use icmp::{PathMtu, too_big};
use limit::RateLimit;
use link::Link;
pub use neighbour::Resolution;
use neighbour::{Limits, NeighbourTable};
pub use port::{Dvipa, MTU_MIN, PortAddress, PortSettings, SettingsError, StackSettings};
use probes::Probes;
pub use probes::{ProbeError, ProbeId, ProbeOutcome};
pub use queue::IkeDatagram;
use queue::{DatagramQueue, TransmitQueue, WaitingPackets};
use reassembly::Reassembler;
use return_path::ReturnPaths;
pub use streams::STREAM_BUFFER_BYTES;
use trusted::Trusted;
pub use trusted::{HEARTBEAT_PORT, MEMBERS_MAX, TrustedError, TrustedSettings, XCF_PORT};

/// Neighbours that the table holds; routers of static routes come on top.
const NEIGHBOURS: Limits = Limits { entries: 4_096, unresolved: 512 };
/// Neighbour changes that may wait for the runtime before no new neighbour is taken up.
const CHANGES_MAX: usize = 2 * NEIGHBOURS.entries;
/// Events that may wait for the runtime.
const EVENTS_MAX: usize = 256;
/// Echo requests answered, and ICMP errors sent, per second and at once.
const ECHOES: (u32, u32) = (1_000, 200);
const ERRORS: (u32, u32) = (1_000, 100);

/// What data cores have to know about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourChange {
    /// The port that it is on.
    pub port: PortId,
    /// Its address.
    pub address: IpAddr,
    /// Its link address, or `None`: it does not answer, and what waits for it has to be given up.
    pub mac: Option<MacAddress>,
}

/// What operators and the cluster logic have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A stranger claims an address of ours. It is defended; if this goes on, two hosts have one address.
    AddressConflict {
        /// The port on which the claim was heard.
        port: PortId,
        /// The address.
        address: IpAddr,
        /// Who claims it.
        claimant: MacAddress,
        /// Claims since the last such event about this address.
        claims: u64,
    },
    /// A router of a static route has stopped answering.
    NextHopDown(NextHop),
    /// A router of a static route answers, for the first time or again.
    NextHopUp(NextHop, MacAddress),
    /// Somebody says that packets of ours are too big for their way. Unverified, see [`PathMtu`].
    PathMtu(PathMtu),
}

/// Whether the ports on which DVIPAs are served lead anywhere: what heartbeats tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Each of them has a link.
    pub has_carrier: bool,
    /// On each of them that leads to routers, one answers at least.
    pub next_hop_answers: bool,
}

struct Port {
    settings: PortSettings,
    link: Link,
    has_carrier: bool,
}

/// The stack. See the module's head for the order of calls.
pub struct Stack {
    ports: BTreeMap<PortId, Port>,
    routes: RouteTable,
    dvipas: BTreeMap<IpAddr, PortId>,
    claims: Claims,
    neighbours: NeighbourTable,
    next_hops_up: BTreeSet<NextHop>,
    return_paths: ReturnPaths,
    reassembler: Reassembler,
    transmit: TransmitQueue,
    waiting: WaitingPackets,
    datagrams: DatagramQueue,
    changes: BTreeMap<NextHop, Option<MacAddress>>,
    events: VecDeque<Event>,
    events_lost: u64,
    echoes: RateLimit,
    errors: RateLimit,
    identification: u16,
    trusted: Option<Trusted>,
    probes: Probes,
    counters: Counters,
}

impl Stack {
    /// A stack for these settings. It holds and announces the ports' addresses and the DVIPAs owned from the start, and
    /// asks for the routers of the static routes. `seed` must differ from start to start.
    ///
    /// # Errors
    /// The first fault found in the settings.
    pub fn new(now: Instant, settings: StackSettings, seed: [u8; 32]) -> Result<Self, SettingsError> {
        let routes = settings.routes()?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut claims = Claims::new();
        let own = settings.ports.iter().flat_map(|port| port.addresses.iter().map(|held| (held.address, port.id)));
        let owned = settings.dvipas.iter().filter(|dvipa| dvipa.owned).map(|dvipa| (dvipa.address, dvipa.port));
        for (address, port) in own.chain(owned) {
            claims.announce(now, address, port);
        }
        let fixed: Vec<_> = settings.ports.iter().flat_map(PortSettings::fixed_neighbours).collect();
        let ports = settings.ports.into_iter().map(|settings| {
            let link = Link::new(now, &settings, rng.next_u64());
            (settings.id, Port { settings, link, has_carrier: true })
        });
        let mut stack = Self {
            ports: ports.collect(),
            routes,
            dvipas: settings.dvipas.iter().map(|dvipa| (dvipa.address, dvipa.port)).collect(),
            claims,
            identification: rng.next_u32() as u16,
            neighbours: NeighbourTable::new(NEIGHBOURS, rng),
            next_hops_up: BTreeSet::new(),
            return_paths: ReturnPaths::default(),
            reassembler: Reassembler::default(),
            transmit: TransmitQueue::default(),
            waiting: WaitingPackets::default(),
            datagrams: DatagramQueue::default(),
            changes: BTreeMap::new(),
            events: VecDeque::new(),
            events_lost: 0,
            echoes: RateLimit::new(ECHOES.0, ECHOES.1),
            errors: RateLimit::new(ERRORS.0, ERRORS.1),
            trusted: None,
            probes: Probes::default(),
            counters: Counters::default(),
        };
        for (hop, mac) in fixed {
            stack.neighbours.fix(hop, mac);
        }
        for &hop in stack.routes.routers().iter().filter(|hop| hop.address.is_ipv4()) {
            stack.neighbours.keep(now, hop);
        }
        stack.settle(now);
        Ok(stack)
    }

    /// The routes, connected prefixes included.
    #[must_use]
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// Takes ownership of a DVIPA: answers for it from now on, and announces it; announces it anew if it is owned
    /// already. `false` if the settings did not name it.
    pub fn own_dvipa(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(&port) = self.dvipas.get(&address) else { return false };
        self.claims.announce(now, address, port);
        self.settle(now);
        true
    }

    /// Gives a DVIPA up: it is neither answered for nor spoken with from now on. Whether it was owned.
    pub fn disown_dvipa(&mut self, address: IpAddr) -> bool {
        self.dvipas.contains_key(&address) && self.claims.release(address)
    }

    /// A port's link has gone, or has come back: then all addresses of the port are announced again.
    pub fn link_changed(&mut self, now: Instant, port: PortId, is_up: bool) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.has_carrier = is_up;
        }
        if is_up {
            self.announce_port(now, port);
        }
    }

    /// Whether the ports of the DVIPAs lead anywhere.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let ports: BTreeSet<PortId> = self.dvipas.values().copied().collect();
        let answers = |port: &PortId| {
            let mut routers = self.routes.routers().iter().filter(|hop| hop.port == *port).peekable();
            routers.peek().is_none() || routers.any(|&hop| self.neighbours.lookup(hop).is_some())
        };
        Reach {
            has_carrier: ports.iter().all(|port| self.ports.get(port).is_some_and(|port| port.has_carrier)),
            next_hop_answers: ports.iter().all(answers),
        }
    }

    fn announce_port(&mut self, now: Instant, port: PortId) {
        let on_port: Vec<_> = self.claims.iter().filter(|&(_, at)| at == port).collect();
        for (address, port) in on_port {
            self.claims.announce(now, address, port);
        }
        self.settle(now);
    }

    /// The link address of a neighbour that a data core wants. In every case but `TableFull` and `Refused` the answer is
    /// (also) told by [`Stack::poll_neighbour`], now or when it is known, so a caller may ignore what this returns.
    pub fn resolve(&mut self, now: Instant, port: PortId, address: IpAddr) -> Resolution {
        let hop = NextHop { port, address };
        if !self.may_resolve(hop) {
            return Resolution::Refused;
        }
        if self.changes.len() >= CHANGES_MAX {
            return Resolution::TableFull;
        }
        let resolution = self.neighbours.resolve(now, hop);
        match resolution {
            Resolution::Known(mac) => {
                self.changes.insert(hop, Some(mac));
            }
            Resolution::Unreachable => {
                self.changes.insert(hop, None);
            }
            Resolution::Pending | Resolution::TableFull | Resolution::Refused => {}
        }
        self.settle(now);
        resolution
    }

    /// Whether `hop` is another host on that port's link, and not a DVIPA on the port that owners answer for it on:
    /// nobody's frames teach us where a DVIPA is.
    fn may_resolve(&self, hop: NextHop) -> bool {
        let Some(port) = self.ports.get(&hop.port) else { return false };
        let on_link = port.settings.is_on_link(hop.address)
            || self.routes.routers().contains(&hop)
            || self.routes.lookup(hop.address) == Some(hop);
        hop.address.is_ipv4()
            && on_link
            && port::is_host_address(hop.address)
            && !port.settings.is_broadcast(hop.address)
            && self.claims.port_of(hop.address) != Some(hop.port)
            && self.dvipas.get(&hop.address) != Some(&hop.port)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.neighbours.handle_timeout(now);
        self.reassembler.handle_timeout(now);
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        for port in ports {
            if let Some(port) = self.ports.get_mut(&port) {
                port.link.handle_timeout(now);
            }
            self.send_link_packets(now, port);
        }
        self.follow_streams(now);
        self.end_late_probes(now);
        self.settle(now);
    }

    /// When [`Stack::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_links = self.ports.values().filter_map(|port| port.link.poll_timeout());
        let of_tables = [
            self.neighbours.poll_timeout(),
            self.reassembler.poll_timeout(),
            self.claims.poll_timeout(),
            self.poll_stream_timeout(),
            self.probes.poll_timeout(),
        ];
        of_links.chain(of_tables.into_iter().flatten()).min()
    }

    /// The next frame to send, and the port to send it by.
    pub fn poll_transmit(&mut self) -> Option<(PortId, Vec<u8>)> {
        let frame = self.transmit.pop()?;
        self.counters.originated += 1;
        Some(frame)
    }

    /// The next IKE datagram received.
    pub fn poll_datagram(&mut self) -> Option<IkeDatagram> {
        self.datagrams.pop()
    }

    /// The next change that data cores have to know. Changes of one neighbour that nobody took out are told as one.
    pub fn poll_neighbour(&mut self) -> Option<NeighbourChange> {
        let (NextHop { port, address }, mac) = self.changes.pop_first()?;
        Some(NeighbourChange { port, address, mac })
    }

    /// The next thing that operators or the cluster logic have to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A frame that was handed out found no buffer, or no room on its way to its port.
    pub fn transmit_failed(&mut self) {
        self.counters.drop(DropReason::NoBuffer);
    }

    /// Where everything ended.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.held = self.reassembler.held_fragments();
        counters
    }

    /// Events that found no place because nobody took the earlier ones out.
    #[must_use]
    pub fn events_lost(&self) -> u64 {
        self.events_lost
    }

    /// How many neighbours the table holds.
    #[must_use]
    pub fn neighbours(&self) -> usize {
        self.neighbours.len()
    }

    fn raise(&mut self, event: Event) {
        // Anyone can forge a path MTU; such events leave half of the places to the others.
        let places = match event {
            Event::PathMtu(_) => EVENTS_MAX / 2,
            Event::AddressConflict { .. } | Event::NextHopDown(_) | Event::NextHopUp(..) => EVENTS_MAX,
        };
        if self.events.len() < places {
            self.events.push_back(event);
        } else {
            self.events_lost += 1;
        }
    }

    /// Turns what the tables have decided into frames, changes and events.
    fn settle(&mut self, now: Instant) {
        while let Some(outcome) = self.neighbours.poll_outcome() {
            self.changes.insert(outcome.hop, outcome.mac);
            self.release_waiting(outcome.hop, outcome.mac);
            let known = self.next_hops_up.contains(&outcome.hop);
            match outcome.mac {
                Some(mac) if outcome.kept => {
                    self.next_hops_up.insert(outcome.hop);
                    self.raise(Event::NextHopUp(outcome.hop, mac));
                }
                None if known => {
                    self.next_hops_up.remove(&outcome.hop);
                    self.raise(Event::NextHopDown(outcome.hop));
                }
                Some(_) | None => {}
            }
        }
        while let Some(question) = self.neighbours.poll_question() {
            self.ask(question);
        }
        while let Some((address, port)) = self.claims.poll_announcement(now) {
            self.send_announcement(address, port);
        }
        let lost = self.reassembler.take_lost();
        self.counters.drop_many(DropReason::FragmentTimedOut, lost.timed_out);
        self.counters.drop_many(DropReason::FragmentDisplaced, lost.displaced);
        self.counters.drop_many(DropReason::FragmentMalformed, lost.malformed);
    }
}
