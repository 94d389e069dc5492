//! One data core between a capture and a port that swallows everything.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use datapath::buffer::PortQueue;
use datapath::burst::{BURST, Burst};
use datapath::connections::Timeouts;
use datapath::core::{Capacity, Common, DataCore};
use datapath::counters::{Balance, Ledger};
use datapath::drops::DropReason;
use datapath::forwarding::{CorePort, PortFacts, PortRole};
use datapath::handover::mesh;
use datapath::mailbox::{Command, CoreLink, mailbox};
use datapath::policy::Policy;
use datapath::routes::{NextHop, PortId, Prefix, RouteTable, StaticRoute};
use datapath::sas::{InboundEntry, Notes, OutboundEntry, SaTotals};
use dpdk::{Device, Eal, Mempool, PortConfig};
use ipsec::engine::Engine;
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::outbound::{OutboundSa, OuterPolicy};
use ipsec::sa::Direction;
use ipsec::sad::SadSeed;
use ipsec::selector::Selectors;
use ipsec::spd::{self, Action, Spd};
use phalanx::clock::Clock;
use phalanx::frame::{Frame, QueuePair};
use wire::ethernet::MacAddress;
use wire::flow::FlowSeed;

use crate::fault::Fault;
use crate::lab::{
    Case, DVIPA, INSIDE_MAC, NETWORK_MAC, ROUND_PACKETS, ROUTER, ROUTER_MAC, SAS_MAX, WEB, WEB_MAC, outer_address,
};
use crate::queue::{BenchQueue, Taps, Valve};

const NETWORK: PortId = PortId(0);
const INSIDE: PortId = PortId(1);
/// The appliance's standard.
const MTU_BYTES: usize = 1_500;
/// Polls after which a core that still has not obeyed never will.
const POLLS_MAX: u32 = 1_000;
/// Polls between two looks at the clock of a window.
const POLLS_PER_TURN: u32 = 64;

const _: () = assert!(ROUND_PACKETS.is_multiple_of(BURST), "a burst would cross the end of a round");

/// Every rig in this process has a sender number of its own, as every core of every start has in an appliance.
static LAST_SENDER: AtomicU64 = AtomicU64::new(0);

/// What a rig needs of DPDK.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// Proof that DPDK runs.
    pub eal: Eal,
    /// Packet memory for all rigs.
    pub memory: Mempool,
    /// Time.
    pub clock: Clock,
}

/// Two opened ports: the capture and the end of the world.
pub struct Lines {
    source: QueuePair,
    sink: QueuePair,
    // Behind the queues: a port closes when its last handle goes.
    _ports: [dpdk::Port; 2],
}

impl Lines {
    /// Opens a net_pcap that repeats the capture for ever, and a net_null that only swallows.
    pub fn open(ground: Ground, capture: &Path) -> Result<Lines, Fault> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let source = format!("net_pcap{number},rx_pcap={},infinite_rx=1", capture.display());
        let (source_port, source) = open_queue(ground, &source)?;
        let (sink_port, sink) = open_queue(ground, &format!("net_null{number},no-rx=1"))?;
        Ok(Lines { source, sink, _ports: [source_port, sink_port] })
    }

    /// Moves one burst from the capture to its end, untouched.
    pub fn pass(&mut self) -> u64 {
        let mut burst = Burst::<Frame>::new();
        self.source.receive(&mut burst);
        let received = burst.len();
        self.sink.transmit(&mut burst);
        (received - burst.len()) as u64
    }
}

fn open_queue(ground: Ground, device: &str) -> Result<(dpdk::Port, QueuePair), Fault> {
    let settings = PortConfig { rss: false, ..PortConfig::default() };
    let (port, rx, tx) = Device::open(ground.eal, device)?.start(&settings, &[ground.memory])?;
    let tx = tx.into_iter().next().ok_or_else(|| Fault::setup(format!("{device} has no transmit queue")))?;
    Ok((port, QueuePair::new(rx.into_iter().next(), tx)))
}

/// A data core at work on one case. Its owner is its control core.
pub struct Rig {
    core: DataCore<BenchQueue>,
    link: CoreLink<Frame>,
    ledger: Arc<Ledger>,
    taps: Arc<Taps>,
    copies: mpsc::Receiver<Vec<u8>>,
    clock: Clock,
    /// Packets received when the present round began.
    round_begin: u64,
    _ports: [dpdk::Port; 2],
}

impl Rig {
    /// A core with the case's SAs, its neighbours known and its connections standing, the capture waiting.
    pub fn build(ground: Ground, case: &Case, engine: Engine, lines: Lines) -> Result<Rig, Fault> {
        let (taps, (copies_in, copies)) = (Taps::new(), mpsc::channel());
        let Lines { source, sink, _ports } = lines;
        let (network, inside) = match case.direction {
            Direction::Inbound => (source, sink),
            Direction::Outbound => (sink, source),
        };
        let openers = match case.direction {
            Direction::Inbound => Vec::new(),
            Direction::Outbound => case.openers(engine)?,
        };
        let openers: Option<_> = openers.iter().map(|bytes| ground.memory.copy_of(bytes).map(Frame)).collect();
        let queue = |pair, openers| BenchQueue { pair, openers, taps: Arc::clone(&taps), copies: copies_in.clone() };
        let ports = vec![
            CorePort::new(
                facts(NETWORK, PortRole::Network, NETWORK_MAC),
                queue(network, openers.ok_or_else(|| Fault::setup("too little packet memory"))?),
            ),
            CorePort::new(facts(INSIDE, PortRole::Inside, INSIDE_MAC), queue(inside, Default::default())),
        ];
        let sender = SenderNumber(LAST_SENDER.fetch_add(1, Ordering::Relaxed) + 1);
        let handover = mesh(1, BURST).pop().ok_or_else(|| Fault::setup("a mesh of one core has one end"))?;
        let (mail, link) = mailbox();
        let core = DataCore::new(common()?, ports, handover, mail, IvGenerator::new(sender));
        let ledger = core.ledger();
        let mut rig = Rig { core, link, ledger, taps, copies, clock: ground.clock, round_begin: 0, _ports };
        rig.install(case, engine)?;
        rig.open_connections(case)?;
        Ok(rig)
    }

    fn install(&mut self, case: &Case, engine: Engine) -> Result<(), Fault> {
        for (port, address, mac) in [(NETWORK, ROUTER, ROUTER_MAC), (INSIDE, WEB, WEB_MAC)] {
            self.tell(Command::Neighbour { hop: NextHop { port, address: address.into() }, mac: Some(mac) })?;
        }
        for sa in 0..case.sas {
            let outbound = case.appliance_outbound(sa, engine)?;
            let inner_mtu = outbound.inner_mtu(MTU_BYTES) as u16;
            let inbound = case.appliance_inbound(sa, engine)?;
            let inbound = InboundEntry::new(inbound, inner_mtu, Notes::default(), SaTotals::of_cores(1), 0);
            self.tell(Command::InstallInbound(Box::new(inbound)))?;
            self.tell(Command::InstallOutbound(Box::new(OutboundEntry {
                remote: outer_address(sa).into(),
                inner_mtu,
                home: 0,
                sealing: Some(OutboundSa::new(Arc::clone(&outbound), 1, OuterPolicy::default())),
                notes: Notes::default(),
                totals: Arc::default(),
                shared: outbound,
            })))?;
        }
        Ok(())
    }

    /// Sends a command and waits until it is obeyed; what comes back is dropped here.
    fn tell(&mut self, command: Command) -> Result<(), Fault> {
        self.link.send(command).map_err(|_| Fault::setup("the mailbox is full"))?;
        for _ in 0..POLLS_MAX {
            self.poll();
            if self.link.has_applied(self.link.last_sent()) {
                return Ok(());
            }
        }
        Err(Fault::setup("the core does not obey"))
    }

    /// Lets every client speak once, so that the service's packets find their connections; then opens the capture.
    fn open_connections(&mut self, case: &Case) -> Result<(), Fault> {
        self.taps.turn(Valve::Openers);
        for _ in 0..POLLS_MAX {
            if !self.poll() {
                break;
            }
        }
        let balance = self.balance();
        if balance.received != balance.delivered || self.drops() != 0 {
            return Err(Fault::setup(format!("the connections do not stand: {}", self.reasons())));
        }
        if case.direction == Direction::Inbound && balance.received != 0 {
            return Err(Fault::setup("packets came before the capture was opened"));
        }
        self.round_begin = balance.received;
        self.tell(Command::ResetWindows)?;
        self.taps.turn(Valve::Device);
        Ok(())
    }

    /// One round of the capture, and a copy of every frame that the core sent for it.
    pub fn recorded_round(&mut self) -> Result<Vec<Vec<u8>>, Fault> {
        self.taps.record(true);
        let round = self.round_begin;
        while self.round_begin == round {
            self.turn_once()?;
        }
        self.taps.record(false);
        Ok(self.copies.try_iter().collect())
    }

    /// A few polls; how many packets came to their end.
    pub fn turn(&mut self) -> Result<u64, Fault> {
        let before = self.sent();
        for _ in 0..POLLS_PER_TURN {
            self.turn_once()?;
        }
        Ok(self.sent() - before)
    }

    /// One poll, and at the end of a round, when the same numbers come again, windows that have seen nothing.
    #[inline]
    fn turn_once(&mut self) -> Result<(), Fault> {
        self.poll();
        let in_round = self.ledger.received.get() - self.round_begin;
        if in_round < ROUND_PACKETS as u64 {
            return Ok(());
        }
        if in_round > ROUND_PACKETS as u64 {
            return Err(Fault::setup("a burst crossed the end of a round"));
        }
        self.round_begin += in_round;
        self.link.send(Command::ResetWindows).map_err(|_| Fault::setup("the mailbox is full"))?;
        while self.link.events.pop().is_ok() {}
        Ok(())
    }

    #[inline]
    fn poll(&mut self) -> bool {
        self.core.poll(self.clock.now())
    }

    fn sent(&self) -> u64 {
        self.ledger.delivered.get() + self.ledger.forwarded.get()
    }

    fn balance(&self) -> Balance {
        Balance::of([&*self.ledger])
    }

    /// Everything that was received and neither delivered nor forwarded, punted packets included.
    pub fn drops(&self) -> u64 {
        let balance = self.balance();
        balance.received - balance.delivered - balance.forwarded
    }

    /// What the drops were for.
    pub fn reasons(&self) -> String {
        let counted = DropReason::ALL.iter().map(|&reason| (reason, self.ledger.dropped(reason)));
        let mut words: Vec<String> =
            counted.filter(|&(_, packets)| packets > 0).map(|(reason, n)| format!("{reason:?} {n}")).collect();
        words.push(format!("punted {}", self.ledger.punted.get()));
        words.join(", ")
    }
}

fn facts(id: PortId, role: PortRole, mac: MacAddress) -> PortFacts {
    PortFacts { id, role, mac, mtu: MTU_BYTES, vlan: None }
}

/// Routes, policy and table sizes: of an ordinary appliance.
fn common() -> Result<Common, Fault> {
    let prefix = |text: &str| text.parse::<Prefix>().map_err(Fault::setup);
    let connected = [(prefix("192.0.2.0/24")?, NETWORK), (prefix("10.9.0.0/24")?, INSIDE)];
    let routes = [
        StaticRoute { to: prefix("0.0.0.0/0")?, via: Some(ROUTER.into()), port: None },
        StaticRoute { to: Prefix::host(DVIPA.into()), via: Some(WEB.into()), port: None },
    ];
    let selector = |text: &str| text.parse().map_err(Fault::setup);
    let selectors = Selectors { local: vec![selector("203.0.113.80/32")?], remote: vec![selector("0.0.0.0/0")?] };
    let protect = spd::Policy { selectors, action: Action::Protect { child: "lab".into() } };
    let capacity = Capacity { sas: SAS_MAX, ..Capacity::default() };
    Ok(Common {
        routes: Arc::new(RouteTable::new(&connected, &routes).map_err(Fault::setup)?),
        policy: Arc::new(Policy::new([DVIPA.into()], Spd::new(vec![protect]))),
        seed: FlowSeed::new([0x5a; 16]),
        sad_seed: SadSeed::new([0xa5; 32]),
        capacity,
        timeouts: Timeouts::default(),
    })
}
