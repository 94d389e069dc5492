//! A whole data path on a bench: cores joined by their mesh, ports of ordinary memory, a control core that is the test,
//! and clients with real SAs.
//!
//! After **every** poll of any core the bench balances the books over all cores, and accounts for every frame that is
//! out of the pool. A test that loses, doubles or leaks a packet fails there, whatever else it looks at.

pub mod client;
pub mod cluster;
pub mod packets;
mod setup;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use datapath::buffer::{PacketBuffer, PortQueue};
use datapath::burst::Burst;
use datapath::cluster::reports::Report;
use datapath::connections::Connection;
use datapath::core::{Common, DataCore, PollCounters};
use datapath::counters::{Balance, Ledger};
use datapath::drops::DropReason;
use datapath::forwarding::{CorePort, Mac, PortRole};
use datapath::handover::mesh;
use datapath::mailbox::{Command, CoreLink, Event, PuntReason, Retired, mailbox};
use datapath::memory::{Frame, Pool, Wire};
use datapath::policy::Policy;
use datapath::routes::{NextHop, PortId};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::sa::PeerId;
use ipsec::sad::SadSeed;
use ipsec::spd::Spd;
use ipsec::time::Instant;
use wire::flow::{FlowKey, FlowSeed};

use client::{Client, SaSpec};
use packets::{
    DVIPA, INSIDE_ADDRESS, INSIDE_MAC, NETWORK_ADDRESS, NETWORK_MAC, OTHER_DVIPA, ROUTER, ROUTER_MAC, WEB, WEB_MAC,
    ether,
};
use setup::facts;

pub use setup::{Setup, inbound_entry, outbound_entry, protect, routes, rule};

pub const NETWORK: PortId = PortId(0);
pub const INSIDE: PortId = PortId(1);
pub const TRUSTED: PortId = PortId(2);

/// Polls after which a data path that is still not quiet never will be.
const ROUNDS_MAX: usize = 1_000;

const SEED: FlowSeed = FlowSeed::new([0x5a; 16]);

/// A frame that left by a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The core that sent it.
    pub core: usize,
    pub bytes: Vec<u8>,
}

/// A frame that was handed to the control core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punted {
    pub port: PortId,
    pub reason: PuntReason,
    pub bytes: Vec<u8>,
}

/// The far end of one core's queues on one port.
#[derive(Debug)]
struct Link {
    far: Wire,
    /// What left by it and was looked at, in order.
    sent: VecDeque<Vec<u8>>,
}

/// One data core with everything that is plugged into it.
#[derive(Debug)]
struct Rig {
    core: DataCore<Wire>,
    control: CoreLink<Frame>,
    network: Link,
    inside: Link,
    /// Only members of a cluster have one.
    trusted: Option<Link>,
    ledger: Arc<Ledger>,
    polls: Arc<PollCounters>,
}

/// What the bench itself counts, to account for every frame.
#[derive(Debug, Default)]
struct Outside {
    injected: u64,
    collected: u64,
    punted: u64,
    given_to_send: u64,
}

#[derive(Debug)]
pub struct Bench {
    rigs: Vec<Rig>,
    outside: Outside,
    pub pool: Pool,
    pub now: Instant,
    pub vlan: Option<u16>,
    /// Whether frames are taken off the links, the punt rings and the event rings after each poll.
    pub draining: bool,
    /// What the control core was told, without what came back to be freed.
    pub events: Vec<(usize, Event)>,
    /// What came back to be freed.
    pub retired: Vec<(usize, Retired)>,
    pub punted: Vec<Punted>,
    pub delivered: Vec<Sent>,
    pub sent: Vec<Sent>,
    /// What has left by the trusted port.
    pub relayed: Vec<Sent>,
    /// What the control core was told of routed connections.
    pub reports: Vec<Report>,
}

/// The policy of an appliance that is set up so.
pub fn policy_of(setup: &Setup) -> Policy {
    let mut ours: Vec<IpAddr> = [DVIPA, OTHER_DVIPA, NETWORK_ADDRESS, INSIDE_ADDRESS].map(Into::into).to_vec();
    ours.extend(setup.member.map(cluster::trusted_address));
    Policy::new(ours, Spd::new(setup.policies.clone()))
        .with_services(setup.services.clone())
        .with_filters(setup.filters.clone())
}

impl Bench {
    /// The usual bench with so many cores.
    pub fn new(cores: usize) -> Bench {
        Bench::with(Setup::of(cores))
    }

    pub fn with(setup: Setup) -> Bench {
        let common = Common {
            routes: Arc::new(routes(true)),
            policy: Arc::new(policy_of(&setup)),
            seed: SEED,
            sad_seed: SadSeed::new([0xa5; 32]),
            capacity: setup.capacity,
            timeouts: setup.timeouts,
        };
        let pool = Pool::new(setup.pool_frames, setup.frame_len);
        let rigs = mesh(setup.cores, setup.capacity.handover).into_iter().enumerate().map(|(number, handover)| {
            let (mailbox, control) = mailbox();
            let (network, network_far) = Wire::pair(setup.link_frames);
            let (inside, inside_far) = Wire::pair(setup.link_frames);
            let mut ports = vec![
                CorePort::new(facts(NETWORK, PortRole::Network, NETWORK_MAC, setup.network_mtu, setup.vlan), network),
                CorePort::new(facts(INSIDE, PortRole::Inside, INSIDE_MAC, setup.inside_mtu, None), inside),
            ];
            let trusted = setup.member.map(|member| {
                let (trusted, far) = Wire::pair(setup.link_frames);
                let facts = facts(TRUSTED, PortRole::Trusted, cluster::trusted_mac(member), setup.trusted_mtu, None);
                ports.push(CorePort::new(facts, trusted.with_spare(pool.clone())));
                far
            });
            let sender = number as u64 + 16 * setup.member.map_or(0, |member| u64::from(member.0));
            let ivs = IvGenerator::new(SenderNumber(sender));
            let core = DataCore::new(common.clone(), ports, handover, mailbox, ivs);
            let core = if setup.member.is_some() { core.joining(setup.cluster) } else { core };
            let (ledger, polls) = (core.ledger(), core.poll_counters());
            let link = |far| Link { far, sent: VecDeque::new() };
            Rig {
                core,
                control,
                network: link(network_far),
                inside: link(inside_far),
                trusted: trusted.map(link),
                ledger,
                polls,
            }
        });
        let mut bench = Bench {
            rigs: rigs.collect(),
            outside: Outside::default(),
            pool: pool.clone(),
            now: Instant::from_secs(1_000),
            vlan: setup.vlan,
            draining: true,
            events: Vec::new(),
            retired: Vec::new(),
            punted: Vec::new(),
            delivered: Vec::new(),
            sent: Vec::new(),
            relayed: Vec::new(),
            reports: Vec::new(),
        };
        if setup.neighbours {
            bench.meet(NextHop { port: NETWORK, address: ROUTER.into() }, Some(ROUTER_MAC));
            bench.meet(NextHop { port: INSIDE, address: WEB.into() }, Some(WEB_MAC));
            bench.settle();
        }
        bench
    }

    pub fn cores(&self) -> usize {
        self.rigs.len()
    }

    // What the control core does.

    pub fn command(&mut self, core: usize, command: Command) {
        self.rigs[core].control.send(command).unwrap();
    }

    pub fn command_all(&mut self, mut command: impl FnMut() -> Command) {
        (0..self.cores()).for_each(|core| self.command(core, command()));
    }

    /// Tells every core a neighbour's link address.
    pub fn meet(&mut self, hop: NextHop, mac: Option<Mac>) {
        self.command_all(|| Command::Neighbour { hop, mac });
    }

    /// Whether a core has executed all that it was told.
    pub fn has_obeyed(&self, core: usize) -> bool {
        let control = &self.rigs[core].control;
        control.has_applied(control.last_sent())
    }

    /// Whether a core's mailbox has no room for another command.
    pub fn refuses_commands(&mut self, core: usize) -> bool {
        self.rigs[core].control.send(Command::ResetWindows).is_err()
    }

    /// Lets a core answer commands until its ring of events has but one place left, and stops draining.
    pub fn fill_events(&mut self, core: usize) {
        self.draining = false;
        for _ in 0..64 {
            while self.rigs[core].control.send(Command::Routes(Arc::new(routes(true)))).is_ok() {}
            self.poll(core);
        }
        assert!(!self.has_obeyed(core), "commands wait for room for their answers");
    }

    /// Gives a core a frame of the control core's own to send.
    pub fn originate(&mut self, core: usize, port: PortId, bytes: &[u8]) {
        let frame = self.pool.frame(bytes).unwrap();
        self.outside.given_to_send += 1;
        self.rigs[core].control.originate(port, frame).unwrap();
    }

    /// Installs both halves of an SA on all cores; the other end is the client.
    pub fn connect(&mut self, spec: SaSpec) -> Client {
        let client = self.accept(spec);
        self.install_outbound(&client);
        self.settle();
        client
    }

    /// Installs the inbound half alone.
    pub fn accept(&mut self, spec: SaSpec) -> Client {
        let cores = self.cores();
        let client = Client::new(spec.clone(), spec.appliance_inbound(cores), cores);
        for core in 0..cores {
            self.command(core, Command::InstallInbound(inbound_entry(&client, core)));
        }
        self.settle();
        client
    }

    /// Lets the appliance send to the client.
    pub fn install_outbound(&mut self, client: &Client) {
        let shared = client.spec.appliance_outbound();
        for core in 0..self.cores() {
            self.command(core, Command::InstallOutbound(outbound_entry(client, &shared, core)));
        }
    }

    pub fn install_reserve(&mut self, client: &Client) {
        let shared = client.spec.appliance_outbound();
        for core in 0..self.cores() {
            self.command(core, Command::InstallReserve(outbound_entry(client, &shared, core)));
        }
    }

    pub fn remove_inbound(&mut self, client: &Client) {
        let (dvipa, spi) = (client.spec.dvipa.into(), client.inbound.parameters().spi);
        self.command_all(|| Command::RemoveInbound { dvipa, spi });
        self.settle();
    }

    pub fn remove_outbound(&mut self, client: &Client) {
        let (peer, spi) = (PeerId(client.spec.peer), client.spec.spi_out);
        self.command_all(|| Command::RemoveOutbound { peer, spi: ipsec::Spi::new(spi).unwrap() });
        self.settle();
    }

    /// Asks every core for its connections.
    pub fn connections(&mut self) -> Vec<(usize, Connection)> {
        let mut found = Vec::new();
        for core in 0..self.cores() {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                self.command(core, Command::ListConnections { cursor: from, page: Vec::with_capacity(7) });
                self.poll(core);
                let at = self.events.iter().position(|(_, event)| matches!(event, Event::Connections { .. })).unwrap();
                let (_, Event::Connections { page, next }) = self.events.remove(at) else { unreachable!() };
                found.extend(page.into_iter().map(|connection| (core, connection)));
                cursor = next;
            }
        }
        found
    }

    // What the links bring.

    /// Puts a frame on a core's queue of the network port.
    pub fn network_frame(&mut self, core: usize, frame: &[u8]) {
        self.inject(core, NETWORK, frame);
    }

    /// Puts a client's IP packet on a core's queue of the network port.
    pub fn client_sends(&mut self, core: usize, packet: &[u8]) {
        let frame = ether(ROUTER_MAC, NETWORK_MAC, self.vlan, packet);
        self.inject(core, NETWORK, &frame);
    }

    /// Puts an application host's IP packet on a core's queue of the inside port.
    pub fn web_sends(&mut self, core: usize, packet: &[u8]) {
        self.inject(core, INSIDE, &ether(WEB_MAC, INSIDE_MAC, None, packet));
    }

    /// Puts a frame on a core's queue of a port.
    pub fn inject(&mut self, core: usize, port: PortId, bytes: &[u8]) {
        let frame = self.pool.frame(bytes).expect("the pool has a frame");
        let rig = &mut self.rigs[core];
        let link = match port {
            NETWORK => &mut rig.network,
            INSIDE => &mut rig.inside,
            _trusted => rig.trusted.as_mut().expect("only members have a trusted port"),
        };
        let mut burst = Burst::from_iter([frame]);
        link.far.transmit(&mut burst);
        assert!(burst.is_empty(), "the link is full");
        self.outside.injected += 1;
    }

    // Time.

    pub fn advance(&mut self, span: Duration) {
        self.now = self.now.saturating_add(span);
    }

    /// One turn of one core's loop; the books are balanced afterwards.
    pub fn poll(&mut self, core: usize) -> bool {
        let busy = self.rigs[core].core.poll(self.now);
        self.check_books();
        if self.draining {
            self.drain(core);
            self.check_books();
        }
        busy
    }

    /// One turn of one core's loop, and how often it allocated meanwhile.
    pub fn poll_and_count_allocations(&mut self, core: usize) -> u64 {
        let rig = &mut self.rigs[core];
        let allocations = allocation_counter::measure(|| _ = rig.core.poll(self.now)).count_total;
        self.check_books();
        self.drain(core);
        allocations
    }

    /// Polls all cores in turn until none has anything to do and nothing is held.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let busy = (0..self.cores()).fold(false, |busy, core| self.poll(core) | busy);
            if !busy && self.balance().held == 0 {
                if self.draining {
                    assert_eq!(self.pool.in_use(), 0, "frames are left although nothing moves any more");
                }
                return;
            }
        }
        panic!("the cores do not come to rest: {:?}", self.balance());
    }

    /// Takes everything off a core's links and rings.
    pub fn drain(&mut self, core: usize) {
        let rig = &mut self.rigs[core];
        for (link, into) in [(&mut rig.network, &mut self.sent), (&mut rig.inside, &mut self.delivered)] {
            link.collect(&mut self.outside);
            into.extend(link.sent.drain(..).map(|bytes| Sent { core, bytes }));
        }
        if let Some(link) = &mut rig.trusted {
            link.collect(&mut self.outside);
            self.relayed.extend(link.sent.drain(..).map(|bytes| Sent { core, bytes }));
        }
        self.reports.extend(core::iter::from_fn(|| rig.control.reports.pop().ok()));
        while let Ok(punted) = rig.control.punted.pop() {
            self.outside.punted += 1;
            let bytes = punted.frame.bytes().to_vec();
            self.punted.push(Punted { port: punted.port, reason: punted.reason, bytes });
        }
        while let Ok(event) = rig.control.events.pop() {
            match event {
                Event::Retired(what) => self.retired.push((core, what)),
                other => self.events.push((core, other)),
            }
        }
    }

    // What is to be seen.

    pub fn balance(&self) -> Balance {
        Balance::of(self.rigs.iter().map(|rig| &*rig.ledger))
    }

    pub fn ledger(&self, core: usize) -> &Ledger {
        &self.rigs[core].ledger
    }

    pub fn polls(&self, core: usize) -> &PollCounters {
        &self.rigs[core].polls
    }

    /// Packets dropped for a reason, over all cores.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.rigs.iter().map(|rig| rig.ledger.dropped(reason)).sum()
    }

    /// Every reason that has counted anything, over all cores.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let counted = DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason)));
        counted.filter(|&(_, packets)| packets > 0).collect()
    }

    /// Asserts that these are all drops there were.
    #[track_caller]
    pub fn assert_drops(&self, expected: &[(DropReason, u64)]) {
        let mut expected = expected.to_vec();
        expected.sort_by_key(|&(reason, _)| reason as u8);
        assert_eq!(self.drops(), expected);
    }

    /// What has been delivered to application hosts since the last look.
    pub fn take_delivered(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.delivered)
    }

    /// What has left by the network port since the last look.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// The core that owns a connection, and both directions of it.
    pub fn owner(&self, flow: &FlowKey) -> usize {
        ((u128::from(flow.symmetric_hash(&SEED)) * self.cores() as u128) >> 64) as usize
    }

    /// `received − every end − held` is zero, and every frame that is out of the pool is known to be somewhere.
    #[track_caller]
    fn check_books(&self) {
        let balance = self.balance();
        assert_eq!(balance.difference(), 0, "the books do not balance: {balance:?}");
        let lost: u64 = self.rigs.iter().map(|rig| rig.ledger.originated_lost.get()).sum();
        let Outside { injected, collected, punted, given_to_send } = self.outside;
        let arriving = injected - balance.received;
        let to_control = balance.punted - punted;
        let on_links = balance.delivered + balance.forwarded + balance.relayed + balance.originated - collected;
        let made: u64 = self.rigs.iter().map(|rig| rig.ledger.made_sent.get()).sum();
        let to_send = given_to_send + made - balance.originated - lost;
        let known = arriving + balance.held + to_control + on_links + to_send;
        assert_eq!(self.pool.in_use() as u64, known, "frames are out of the pool that nobody has: {balance:?}");
    }
}

impl Link {
    fn collect(&mut self, outside: &mut Outside) {
        loop {
            let mut burst: Burst<Frame> = ArrayVec::new();
            self.far.receive(&mut burst);
            if burst.is_empty() {
                return;
            }
            outside.collected += burst.len() as u64;
            self.sent.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        }
    }
}
