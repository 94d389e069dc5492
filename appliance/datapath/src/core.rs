//! One data core: its queues, its tables, and the loop that moves packets through them.

use crate::buffer::PortQueue;
use crate::burst::{BURST, Burst, Drops};
use crate::cluster::numbers::SharedNumbers;
use crate::cluster::reports::Report;
use crate::cluster::{ClusterCapacity, Part};
use crate::connections::{Connections, Timeouts};
use crate::counters::{Counter, Ledger};
use crate::drops::DropReason;
use crate::forwarding::{self, CorePort, Forwarding, PortRole};
use crate::handover::Handover;
use crate::mailbox::{Event, Mailbox, PuntReason, Punted, punted_reserve};
use crate::outer::Urgency;
use crate::packet::Handed;
use crate::policy::Policy;
use crate::routes::{NextHop, PortId, RouteTable};
use crate::sas::{CoreSas, OutboundSas};
use arrayvec::ArrayVec;
use core::net::IpAddr;
use core::time::Duration;
use ipsec::iv::IvGenerator;
use ipsec::sad::{Sad, SadSeed};
use ipsec::time::Instant;
use std::sync::Arc;
use wire::flow::{FlowKey, FlowSeed};

/// How many connections are looked at for their age in one poll.
const SWEEP_PER_POLL: usize = 16;

/// How often a core asks for the same neighbour at most.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How many neighbours a core asks for within [`ASK_AGAIN`] at most: whoever sends to many addresses that do not exist
/// must not fill the ring by which limits and answers are told.
const ASKED: usize = 16;

/// Frames of the control core sent in one poll at most: it may make them faster than a port takes them.
const ORIGINATED_PER_POLL: usize = 2 * BURST;

/// Sizes of one core's tables. All memory is taken at the start.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Connections that one core can own.
    pub connections: usize,
    /// Inbound SAs.
    pub sas: usize,
    /// Packets that wait in one hand-over ring.
    pub handover: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity { connections: 65_536, sas: 4_096, handover: 1_024 }
    }
}

/// How a core spends its polls.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PollCounters {
    /// Polls that found something to do.
    pub busy: Counter,
    /// Polls that found nothing.
    pub idle: Counter,
    /// Connections in the table now.
    pub connections: Counter,
}

/// What all cores of an appliance share from the start.
#[derive(Debug, Clone)]
pub struct Common {
    /// Routes at the start.
    pub routes: Arc<RouteTable>,
    /// Policy at the start.
    pub policy: Arc<Policy>,
    /// The secret that spreads connections over cores and buckets.
    pub seed: FlowSeed,
    /// The secret that spreads SAs over buckets.
    pub sad_seed: SadSeed,
    /// Table sizes.
    pub capacity: Capacity,
    /// Ages of connections.
    pub timeouts: Timeouts,
}

/// One data core. Its owner calls [`DataCore::poll`] again and again.
#[derive(Debug)]
pub struct DataCore<Q: PortQueue> {
    pub(crate) ports: Vec<CorePort<Q>>,
    pub(crate) handover: Handover<Handed<Q::Buffer>>,
    /// What waits to be given to each other core at the end of a stage.
    pub(crate) outgoing: Vec<Burst<Handed<Q::Buffer>>>,
    pub(crate) mailbox: Mailbox<Q::Buffer>,
    pub(crate) sas: CoreSas,
    pub(crate) connections: Connections,
    pub(crate) forwarding: Forwarding,
    pub(crate) policy: Arc<Policy>,
    /// This core's part in a cluster, if the appliance is in one.
    pub(crate) part: Option<Box<Part>>,
    /// The outbound SAs whose numbers are shared with other members.
    pub(crate) numbers: SharedNumbers<Q::Buffer>,
    pub(crate) seed: FlowSeed,
    pub(crate) ivs: Box<IvGenerator>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) polls: Arc<PollCounters>,
    pub(crate) drops: Drops,
    asked: ArrayVec<(NextHop, Instant), ASKED>,
    pub(crate) ivs_wanted: bool,
}

impl<Q: PortQueue> DataCore<Q> {
    /// A core that owns these queues, one pair on each port in the order of their numbers.
    pub fn new(
        common: Common,
        ports: Vec<CorePort<Q>>,
        handover: Handover<Handed<Q::Buffer>>,
        mailbox: Mailbox<Q::Buffer>,
        ivs: IvGenerator,
    ) -> Self {
        DataCore {
            ports,
            outgoing: (0..handover.cores()).map(|_| Burst::new()).collect(),
            handover,
            mailbox,
            sas: CoreSas { inbound: Sad::new(common.capacity.sas, common.sad_seed), outbound: OutboundSas::default() },
            connections: Connections::new(common.capacity.connections, common.timeouts),
            forwarding: Forwarding::new(common.routes),
            policy: common.policy,
            part: None,
            numbers: SharedNumbers::default(),
            seed: common.seed,
            ivs: Box::new(ivs),
            ledger: Arc::default(),
            polls: Arc::default(),
            drops: Drops::default(),
            asked: ArrayVec::new(),
            ivs_wanted: false,
        }
    }

    /// The same core, ready to be part of a cluster: all memory that this takes is taken here. It is in the cluster from the
    /// first [`Command::Fabric`](crate::mailbox::Command::Fabric) on.
    #[must_use]
    pub fn joining(mut self, capacity: ClusterCapacity) -> Self {
        self.part = Some(Box::new(Part::new(capacity, self.seed, (self.handover.own(), self.handover.cores()))));
        self
    }

    /// This core's ledger, for whoever reports.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// This core's poll counters, for whoever reports.
    pub fn poll_counters(&self) -> Arc<PollCounters> {
        Arc::clone(&self.polls)
    }

    /// One turn: takes what is there, moves each packet to its end, a hand-over or a transmit queue, and returns
    /// whether there was anything. Never waits.
    pub fn poll(&mut self, now: Instant) -> bool {
        let mut busy = self.obey(now);
        busy |= self.take_handed_over(now);
        for port in 0..self.ports.len() {
            busy |= match self.ports[port].facts.role {
                PortRole::Network => self.take_network(port, now),
                PortRole::Inside => self.take_inside(port, now),
                PortRole::Trusted => self.take_trusted(port, now),
            };
        }
        busy |= self.send_originated();
        self.age_connections(now);
        self.tend_entries(now);
        self.tend_numbers(now);
        self.finish(busy);
        busy
    }

    /// Takes what other cores have handed over: each kind goes on where the giver left off.
    fn take_handed_over(&mut self, now: Instant) -> bool {
        let mut handed = Burst::new();
        self.handover.take(&mut handed);
        let busy = !handed.is_empty();
        self.ledger.taken_over.add(handed.len() as u64);
        let (mut esp, mut plain, mut seal) = (Burst::new(), Burst::new(), Burst::new());
        let mut frames = Burst::new();
        for packet in handed {
            match packet {
                Handed::Esp(packet) => esp.push(packet),
                Handed::Frame { frame, sender, start } => frames.extend(self.take_handed_frame(frame, sender, start)),
                Handed::Protected { frame, sender, start } => self.open_protected(frame, sender, start, &mut frames),
                Handed::Checked(packet) => self.route_checked(packet, now),
                Handed::Inner(packet) => self.deliver_handed_over(packet, now),
                Handed::Plain(packet) => plain.push(packet),
                Handed::Seal(packet) => seal.push(packet),
            }
        }
        self.hand_over();
        let esp = self.route_handed_over(esp, now);
        self.open(esp, now);
        self.take_frames(frames, now);
        self.protect(plain, now);
        self.seal(seal, now);
        busy
    }

    /// Gives to the other cores what this stage has found to be theirs. A full ring is a counted drop, never a wait.
    pub(crate) fn hand_over(&mut self) {
        for core in 0..self.outgoing.len() {
            let burst = &mut self.outgoing[core];
            if burst.is_empty() {
                continue;
            }
            let waiting = burst.len();
            self.handover.give(core, burst);
            self.ledger.handed_over.add((waiting - burst.len()) as u64);
            self.drops.end_all(burst, DropReason::HandoverFull);
        }
    }

    /// The core that owns a connection: a fixed function of its hash for as long as the process lives.
    pub(crate) fn owner_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.handover.cores() as u128) >> 64) as usize
    }

    /// Hands a frame to the control core, as long as that leaves room for what is more urgent.
    pub(crate) fn punt(&mut self, port: PortId, reason: PuntReason, urgency: Urgency, frame: Q::Buffer) {
        if self.mailbox.punted.slots() <= punted_reserve(urgency) {
            return self.drops.end(frame, DropReason::PuntFull);
        }
        match self.mailbox.punted.push(Punted { port, reason, frame }) {
            Ok(()) => self.ledger.punted.add(1),
            Err(rtrb::PushError::Full(punted)) => self.drops.end(punted.frame, DropReason::PuntFull),
        }
    }

    /// Sends an IP packet towards `destination`, or drops it for the reason that stops it.
    pub(crate) fn send_towards(&mut self, destination: IpAddr, packet: Q::Buffer, now: Instant) {
        self.send_by(destination, packet, now, forwarding::send);
    }

    /// The same for a packet that this core made.
    pub(crate) fn send_made_towards(&mut self, destination: IpAddr, packet: Q::Buffer, now: Instant) {
        self.send_by(destination, packet, now, forwarding::send_made);
    }

    fn send_by(&mut self, destination: IpAddr, packet: Q::Buffer, now: Instant, send: forwarding::Send<Q>) {
        match self.forwarding.way(destination) {
            Ok((port, mac)) => match self.ports.get_mut(usize::from(port.0)) {
                // Only frames go to members.
                Some(port) if port.facts.role != PortRole::Trusted => {
                    send(port, packet, mac, &self.ledger, &mut self.drops);
                }
                // Or a table of routes that names a port which this core does not have.
                Some(_) | None => self.drops.end(packet, DropReason::NoRoute),
            },
            Err((reason, wanted)) => {
                self.drops.end(packet, reason);
                if let Some(hop) = wanted {
                    self.ask_for(hop, now);
                }
            }
        }
    }

    pub(crate) fn ask_for(&mut self, hop: NextHop, now: Instant) {
        self.asked.retain(|(_, at)| now.saturating_since(*at) < ASK_AGAIN);
        if self.asked.is_full() || self.asked.iter().any(|(asked, _)| *asked == hop) {
            return;
        }
        if self.mailbox.events.push(Event::NeighbourWanted(hop)).is_ok() {
            self.asked.push((hop, now));
        }
    }

    /// Sends what the control core has made; whether there was anything.
    fn send_originated(&mut self) -> bool {
        for done in 0..ORIGINATED_PER_POLL {
            let Ok(originated) = self.mailbox.originated.pop() else { return done > 0 };
            match self.ports.get_mut(usize::from(originated.port.0)) {
                Some(port) => port.push_originated(originated.frame, &self.ledger),
                None => self.ledger.originated_lost.add(1),
            }
        }
        true
    }

    fn age_connections(&mut self, now: Instant) {
        let (seed, outbound, mailbox) = (&self.seed, &self.sas.outbound, &mut self.mailbox);
        let is_gone = |peer| !outbound.knows(peer);
        let tell = |key| mailbox.report(Report::Stopped(key));
        let hash = |flow: &FlowKey| flow.symmetric_hash(seed);
        let Some(part) = &mut self.part else {
            self.connections.sweep(now, SWEEP_PER_POLL, hash, is_gone, tell, |_| ());
            return;
        };
        let tally = &mut part.tally;
        if self.connections.sweep(now, SWEEP_PER_POLL, hash, is_gone, tell, |flow| tally.count(flow)) {
            tally.finish_round(|service, connections| mailbox.report(Report::Active { service, connections }));
        }
    }

    /// Empties the backlogs and publishes what was counted.
    fn finish(&mut self, busy: bool) {
        for port in &mut self.ports {
            port.flush(&self.ledger, &mut self.drops);
        }
        self.ledger.add_drops(&mut self.drops);
        self.ledger.waiting.set(self.numbers.waiting() as u64);
        self.polls.connections.set(self.connections.len() as u64);
        if busy {
            self.polls.busy.add(1);
        } else {
            self.polls.idle.add(1);
        }
    }
}
