//! A whole appliance in memory: control core, IKE and data cores as in the binary, joined by cables to one client, who
//! speaks real IKE and real ESP, and to one application host.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use cluster::facility::Reply;
use cluster::facility::memory::Store;
use cluster::facility::senders::SenderPool;
use cluster::facility::start::{Progress, Start, Started};
use control::control_core::{ControlCore, CoreHandle, Parts, Surroundings};
use control::report::Snapshot;
use control::stack::{Dvipa, PortAddress, PortSettings, Stack, StackSettings};
use datapath::buffer::{PacketBuffer, PortQueue};
use datapath::burst::Burst;
use datapath::connections::Timeouts;
use datapath::core::{Capacity, Common, DataCore};
use datapath::forwarding::{CorePort, PortFacts, PortRole};
use datapath::handover::mesh;
use datapath::mailbox::mailbox;
use datapath::memory::{Frame, Pool, Wire};
use datapath::policy::Policy;
use datapath::routes::{PortId, StaticRoute};
use ike::config::{ConnectionSettings, EndpointConfig, Psk, Secrets};
use ipsec::engine::{self, EngineChoice};
use ipsec::iv::IvGenerator;
use ipsec::sad::SadSeed;
use ipsec::selector::{Selectors, TrafficSelector};
use ipsec::spd::{self, Action, Spd};
use ipsec::time::Instant;
use wire::ethernet::MacAddress;
use wire::flow::FlowSeed;

pub const DVIPA: &str = "192.0.2.80";
pub const CLIENT: &str = "192.0.2.20";
pub const NETWORK_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 10]);
pub const INSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 10]);
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 20]);
pub const HOST_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 80]);
const CORES: usize = 2;
const MTU: u16 = 1500;
const STEP: Duration = Duration::from_millis(1);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn port(id: u16, mac: MacAddress, address: &str) -> PortSettings {
    let addresses = vec![PortAddress::new(ip(address), 24).unwrap()];
    PortSettings { id: PortId(id), mac, addresses, mtu: MTU, vlan: None, neighbours: vec![] }
}

/// The appliance, and the far ends of its cables: one for each core on each port.
pub struct World {
    pub now: Instant,
    pub control: ControlCore<Frame>,
    cores: Vec<DataCore<Wire>>,
    pub network: Vec<Wire>,
    pub inside: Vec<Wire>,
    pub pool: Pool,
    pub facility: Store,
}

/// A coupling facility of the appliance's own, and this start's registration in it.
fn register(senders: u32) -> (Store, Started) {
    let mut facility = Store::default();
    let mut start = Start::new(cluster::id::MemberId(0), [6; 16], senders);
    loop {
        let outcome = facility.execute(&start.request(0)).unwrap();
        match start.take(&outcome).unwrap() {
            Progress::Again(again) => start = again,
            Progress::Done(started) => return (facility, started),
        }
    }
}

fn stack(now: Instant) -> Stack {
    let mut inside = port(1, INSIDE_MAC, "10.9.0.1");
    inside.neighbours = vec![(ip("10.9.0.80"), HOST_MAC)];
    let settings = StackSettings {
        ports: vec![port(0, NETWORK_MAC, "192.0.2.10"), inside],
        routes: vec![StaticRoute { to: "192.0.2.80/32".parse().unwrap(), via: Some(ip("10.9.0.80")), port: None }],
        dvipas: vec![Dvipa { address: ip(DVIPA), port: PortId(0), owned: true }],
    };
    Stack::new(now, settings, [1; 32]).unwrap()
}

fn policy() -> Policy {
    let ours = [DVIPA, "192.0.2.10", "10.9.0.1"].map(ip);
    let local = "192.0.2.80/32".parse::<ipsec::selector::SelectorTemplate>().unwrap().resolve(ip(DVIPA));
    let selectors = Selectors { local: vec![local], remote: vec![TrafficSelector::any_v4()] };
    Policy::new(ours, Spd::new(vec![spd::Policy { selectors, action: Action::Protect { child: "web".into() } }]))
}

pub fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add(Vec::new(), Psk::new(b"a secret of the tests".to_vec()).unwrap());
    secrets
}

impl World {
    /// An appliance with two data cores whose one connection is `settings`.
    pub fn new(settings: ConnectionSettings) -> World {
        let now = Instant::from_secs(10);
        let (facility, started) = register(CORES as u32 + 2);
        let mut senders = SenderPool::new(started.senders, 2);
        let stack = stack(now);
        let common = Common {
            routes: Arc::new(stack.routes().clone()),
            policy: Arc::new(policy()),
            seed: FlowSeed::new([3; 16]),
            sad_seed: SadSeed::new([4; 32]),
            capacity: Capacity { connections: 256, sas: 64, handover: 64 },
            timeouts: Timeouts::default(),
        };
        let (mut network, mut inside, mut cores, mut handles) = (vec![], vec![], vec![], vec![]);
        for handover in mesh(CORES, common.capacity.handover) {
            let facts = |id, role, mac| PortFacts { id: PortId(id), role, mac, mtu: MTU.into(), vlan: None };
            let ((near_network, far_network), (near_inside, far_inside)) = (Wire::pair(256), Wire::pair(256));
            let ports = vec![
                CorePort::new(facts(0, PortRole::Network, NETWORK_MAC), near_network),
                CorePort::new(facts(1, PortRole::Inside, INSIDE_MAC), near_inside),
            ];
            let (end, link) = mailbox();
            let ivs = IvGenerator::new(senders.take().unwrap());
            let core = DataCore::new(common.clone(), ports, handover, end, ivs);
            handles.push(CoreHandle::new(link, core.ledger(), core.poll_counters()));
            cores.push(core);
            network.push(far_network);
            inside.push(far_inside);
        }
        let mut ike = ike::Endpoint::new(EndpointConfig::default(), [5; 32]);
        ike.set_connections(vec![settings.check().unwrap()], secrets());
        let pool = Pool::new(2048, 2048);
        let frames = pool.clone();
        let control = ControlCore::new(Parts {
            cluster: None,
            stack,
            ike,
            cores: handles,
            senders,
            engine: engine::select(EngineChoice::Auto).unwrap().engine,
            port_mtus: vec![MTU, MTU],
            outbound_sequences: [(ip(DVIPA), "auto".to_owned())].into(),
            frames: Box::new(move |bytes| frames.frame(bytes)),
        });
        World { now, control, cores, network, inside, pool, facility }
    }

    /// One millisecond of the appliance's life; afterwards its books must balance.
    pub fn step(&mut self) {
        self.now += STEP;
        self.control.poll(self.now);
        while let Some(request) = self.control.poll_facility_request(self.now) {
            let outcome = Ok(self.facility.execute(&request).unwrap());
            self.control.handle_facility_reply(self.now, Reply { id: request.id, outcome });
        }
        for core in &mut self.cores {
            core.poll(self.now);
        }
        assert_eq!(self.snapshot().balance.difference, 0, "a packet ended nowhere, or twice");
    }

    /// Time in which the control core does not get to work.
    pub fn step_cores(&mut self) {
        self.now += STEP;
        self.cores.iter_mut().for_each(|core| _ = core.poll(self.now));
    }

    pub fn snapshot(&mut self) -> Snapshot {
        self.control.snapshot(self.now, Surroundings::default(), None)
    }

    /// Lays a frame into the queue of one core.
    pub fn inject(&mut self, side: PortRole, core: usize, bytes: &[u8]) {
        let frame = self.pool.frame(bytes).expect("the pool is large enough");
        let wire = match side {
            PortRole::Network => &mut self.network[core],
            PortRole::Inside | PortRole::Trusted => &mut self.inside[core],
        };
        wire.transmit(&mut Burst::from_iter([frame]));
    }

    /// Every frame that the appliance has sent on one side.
    pub fn collect(&mut self, side: PortRole) -> Vec<Vec<u8>> {
        let wires = match side {
            PortRole::Network => &mut self.network,
            PortRole::Inside | PortRole::Trusted => &mut self.inside,
        };
        let mut frames = Vec::new();
        for wire in wires {
            loop {
                let mut burst = Burst::new();
                wire.receive(&mut burst);
                if burst.is_empty() {
                    break;
                }
                frames.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
            }
        }
        frames
    }
}

pub fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}
