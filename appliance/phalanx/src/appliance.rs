//! One appliance, from its configuration to its end: devices, data cores, control core, and back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::facility::senders::SenderPool;
use cluster::facility::watch::RolledBack;
use control::config::{self, Config};
use control::control_core::{self, ControlCore, CoreHandle, Parts, Surroundings};
use control::report::PortRow;
use control::stack::{SettingsError, Stack, StackSettings, TrustedError};
use datapath::cluster::ClusterCapacity;
use datapath::connections::Timeouts;
use datapath::core::{Capacity, Common, DataCore};
use datapath::forwarding::{CorePort, PortFacts};
use datapath::handover::mesh;
use datapath::idle::IdlePolicy;
use datapath::mailbox::mailbox;
use datapath::routes::PortId;
use dpdk::{Eal, EalArguments};
use facility::Facility;
use ike::config::EndpointConfig;
use ipsec::engine::{self, EngineChoice, Selection};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::sad::SadSeed;
use ipsec::time::Instant;
use tracing::{info, warn};
use wire::ethernet::MacAddress;
use wire::flow::FlowSeed;

use crate::asks::Asks;
use crate::clock::Clock;
use crate::clustering::{self, ClusterError, Joined};
use crate::device::{self, DeviceError, OpenPort, PacketMemory};
use crate::facility::FacilityError;
use crate::frame::{Frame, QueuePair};
use crate::launch::{self, RunningCore};

/// How long packets that are under way get to leave, once IKE has said its goodbyes.
const DRAIN: Duration = Duration::from_millis(100);
/// How often the ports are looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Sender numbers kept in store, so that a core whose IVs run out need not wait for the coupling facility.
const SPARE_SENDERS: u32 = 4;
/// How long the control core sleeps when nothing is to be done.
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// Why the appliance does not run.
#[derive(Debug, thiserror::Error)]
pub enum ApplianceError {
    /// DPDK's environment, or a data core, did not start.
    #[error("{0}")]
    Dpdk(#[from] dpdk::Error),
    /// A port did not open.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// The coupling facility, and with it the counter behind IVs.
    #[error("{0}")]
    Facility(#[from] FacilityError),
    /// Fewer sender numbers were drawn than the cores need.
    #[error("the coupling facility gave too few sender numbers")]
    Senders,
    /// It cannot be a member of its cluster.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// The trusted port cannot be served.
    #[error("{0}")]
    Trusted(#[from] TrustedError),
    /// The IP stack refuses the addresses.
    #[error("{0}")]
    Stack(#[from] SettingsError),
    /// No AEAD engine computes correctly.
    #[error("{0}; nothing can be encrypted on this machine")]
    Engine(#[from] engine::Unusable),
    /// Fewer lcores than data cores.
    #[error("DPDK gave {found} lcores for {expected} data cores; name other cores in `cores: data:`")]
    Lcores {
        /// What DPDK gave.
        found: usize,
        /// What was asked for.
        expected: usize,
    },
    /// The system has no randomness.
    #[error("the system's random source failed; nothing can be keyed without it")]
    Randomness,
}

/// A running appliance.
pub struct Appliance {
    /// The control core. Whoever owns the appliance polls it.
    pub control: ControlCore<Frame>,
    ports: Vec<(config::Port, dpdk::Port)>,
    memory: PacketMemory,
    placement: config::Cores,
    clock: Clock,
    facility: Facility,
    /// What each port was like when it was last looked at, and when that is done again.
    seen: Vec<SeenPort>,
    look_due: Instant,
    cores: Vec<RunningCore>,
    stop: Arc<AtomicBool>,
}

impl Appliance {
    /// Opens devices, starts data cores, and installs what the configuration holds. `state` is the directory of what
    /// must survive a restart.
    ///
    /// # Errors
    /// [`ApplianceError`]; nothing runs then.
    pub fn start(config: Config, state: &Path) -> Result<Appliance, ApplianceError> {
        let cores = config.cores.data.len();
        let engine = select_engine()?;
        let eal = Eal::start(&eal_arguments(&config))?;
        pin_control(config.cores.control);
        let (facility, started) = crate::facility::open(&config, state, senders_of(cores))?;
        let mut senders = SenderPool::new(started.senders, SPARE_SENDERS);
        let joined = match &config.cluster {
            Some(cluster) => Some(clustering::join(cluster, started.incarnation, started.fresh, senders.birth())?),
            None => None,
        };
        let clock = Clock::start(eal);
        let capacity = Capacity { connections: config.cores.connections, ..Capacity::default() };
        let memory = PacketMemory::take(eal, &config, capacity.handover)?;
        let open = |port| device::open_port(eal, port, cores, memory.received);
        let ports: Vec<OpenPort> = config.ports.iter().map(open).collect::<Result<_, _>>()?;
        let macs: Vec<MacAddress> = ports.iter().map(|port| MacAddress(port.mac)).collect();
        let mut stack = Stack::new(clock.now(), StackSettings::from_config(&config, &macs), random()?)?;
        if let Some(trusted) = config.cluster.as_ref().and_then(clustering::trusted) {
            stack.open_trusted(trusted)?;
        }
        let common = Common {
            routes: Arc::new(stack.routes().clone()),
            policy: Arc::new(control_core::policy(&config)),
            seed: FlowSeed::new(random()?),
            sad_seed: SadSeed::new(random()?),
            capacity,
            timeouts: Timeouts::default(),
        };
        let (open_ports, queues) = split(&config, ports);
        let cluster_capacity = config.cluster.is_some().then(|| cluster_capacity(&config));
        let (data_cores, handles) = data_cores(&common, queues, cluster_capacity, &mut senders)?;
        let stop = Arc::new(AtomicBool::new(false));
        let idle = idle_policy(config.cores.idle);
        let running = launch_all(eal, data_cores, idle, clock, &stop)?;
        let outbound_sequences = outbound_sequences(&config);
        let mut ike = ike::Endpoint::new(ike_config(&mut senders, joined.as_ref())?, random()?);
        let mut cluster = None;
        if let (Some(joined), Some(settings)) = (joined, &config.cluster) {
            // Whose the addresses are is about to be seen.
            config.dvipas.iter().for_each(|dvipa| ike.serve(clock.now(), dvipa.address, false));
            cluster = Some(joined.parts(&config, settings, clock.now(), [random()?, random()?])?);
        }
        ike.set_connections(config.connections, config.secrets);
        let mut control = ControlCore::new(Parts {
            stack,
            ike,
            cores: handles,
            senders,
            cluster,
            engine,
            outbound_sequences,
            port_mtus: config.ports.iter().map(|port| port.mtu_bytes).collect(),
            frames: Box::new(move |bytes| memory.originated.copy_of(bytes).map(Frame)),
        });
        config.static_sas.into_iter().for_each(|sa| control.install_static(sa.inbound, sa.outbound));
        info!(%engine, cores, dpdk = eal.version(), "running");
        let ports: Vec<_> = config.ports.into_iter().zip(open_ports).collect();
        let seen = ports.iter().map(|(_, port)| SeenPort::now(port)).collect();
        let look_due = clock.now();
        Ok(Appliance {
            control,
            ports,
            memory,
            placement: config.cores,
            clock,
            facility,
            seen,
            look_due,
            cores: running,
            stop,
        })
    }

    /// Answers what operators have asked.
    pub fn answer(&mut self, asks: &mut Asks) {
        let Appliance { control, ports, memory, placement, clock, .. } = self;
        asks.answer(control, clock.now(), || Surroundings {
            ports: ports.iter().map(|(config, port)| port_row(config, port, memory)).collect(),
            data_cpus: placement.data.clone(),
            control_cpu: placement.control,
        });
    }

    /// One turn of the control core, and a nap if there was nothing to do.
    pub fn turn(&mut self) {
        let now = self.clock.now();
        if now >= self.look_due {
            self.look_due = now + LOOK_PERIOD;
            self.look_at_ports(now);
        }
        self.serve_facility(now);
        if !self.control.poll(now) {
            let until_due = self.control.poll_timeout().map_or(LONGEST_NAP, |due| due.saturating_since(now));
            std::thread::sleep(until_due.min(LONGEST_NAP));
        }
    }

    /// Carries questions to the coupling facility, and answers back.
    fn serve_facility(&mut self, now: Instant) {
        while let Some(reply) = self.facility.poll() {
            self.control.handle_facility_reply(now, reply);
        }
        while let Some(RolledBack { generation, remembered_revision, found_revision, by_us }) =
            self.facility.poll_notice()
        {
            warn!(
                generation,
                remembered_revision,
                found_revision,
                by_us,
                "the coupling facility went back in time: it was restored from a backup, or wiped. The records of all \
                 SAs are void, owners claim their addresses anew, clients connect again"
            );
        }
        while let Some(request) = self.control.poll_facility_request(now) {
            if let Err(error) = self.facility.submit(request) {
                warn!(%error, "the coupling facility was not asked");
                self.control.facility_refused(now);
                break;
            }
        }
    }

    fn look_at_ports(&mut self, now: Instant) {
        for (number, ((config, port), seen)) in self.ports.iter().zip(&mut self.seen).enumerate() {
            let before = std::mem::replace(seen, SeenPort::now(port));
            match (before.is_up, seen.is_up) {
                (true, false) => warn!(port = %config.name, "link down"),
                (false, true) => info!(port = %config.name, "link up"),
                (true, true) | (false, false) => {}
            }
            if before.is_up != seen.is_up {
                self.control.link_changed(now, PortId(number as u16), seen.is_up);
            }
            let polls = seen.starved_polls - before.starved_polls;
            seen.is_starving = polls > 0;
            match (before.is_starving, seen.is_starving) {
                (false, true) => warn!(
                    port = %config.name, polls, in_use = self.memory.received.in_use_packets(),
                    buffers = self.memory.received.size_packets(), "no free packet buffer, reception waits for one"
                ),
                (true, false) => info!(port = %config.name, "packet buffers are free again"),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// Deletes the SAs at the peers, lets packets under way leave, stops every core.
    pub fn shut_down(mut self) {
        self.control.initiate_shutdown(self.clock.now());
        while !self.control.is_idle() {
            self.turn();
        }
        let drained = self.clock.now() + DRAIN;
        while self.clock.now() < drained {
            self.turn();
        }
        self.stop.store(true, Ordering::Relaxed);
        self.cores.into_iter().for_each(RunningCore::join);
        info!("stopped");
    }
}

/// What a port is like, as far as its changes are logged.
#[derive(Debug, Clone, Copy)]
struct SeenPort {
    is_up: bool,
    /// [`dpdk::Port::starved_polls`] so far, and whether there were new ones when it was last looked at.
    starved_polls: u64,
    is_starving: bool,
}

impl SeenPort {
    fn now(port: &dpdk::Port) -> SeenPort {
        SeenPort { is_up: is_up(port), starved_polls: port.starved_polls(), is_starving: false }
    }
}

fn outbound_sequences(config: &Config) -> BTreeMap<IpAddr, String> {
    config.dvipas.iter().map(|dvipa| (dvipa.address, dvipa.outbound_sequence.name().to_owned())).collect()
}

fn is_up(port: &dpdk::Port) -> bool {
    port.link().is_ok_and(|link| link.up)
}

/// A port as operators see it. A device that does not answer shows zeros and a link that is down.
fn port_row(config: &config::Port, port: &dpdk::Port, memory: &PacketMemory) -> PortRow {
    let stats = port.stats().unwrap_or_default();
    PortRow {
        name: config.name.to_string(),
        role: config.role.to_string(),
        device: config.device.clone(),
        link: if is_up(port) { "up" } else { "down" }.to_owned(),
        mac: MacAddress(port.mac().unwrap_or_default()).to_string(),
        numa: port.info().numa_node,
        mtu: config.mtu_bytes,
        rx_packets: stats.rx_packets,
        tx_packets: stats.tx_packets,
        rx_missed: stats.rx_missed,
        // Some drivers count it themselves, some do not.
        rx_no_mbuf: stats.rx_no_mbuf.max(port.starved_polls()),
        mempool_in_use: memory.in_use_packets().into(),
    }
}

/// DPDK's arguments: the operator's own, and the cores.
fn eal_arguments(config: &Config) -> EalArguments {
    let data = config.cores.data.iter().zip(1..).map(|(cpu, lcore)| format!(",{lcore}@{cpu}"));
    let lcores: String = std::iter::once(format!("0@{}", config.cores.control)).chain(data).collect();
    let base = EalArguments::new("phalanx").lcores(&lcores).main_lcore(0);
    config.eal.args.iter().fold(base, |arguments, argument| arguments.raw(argument.clone()))
}

/// Keeps this thread, and those that it starts, off the data cores' processors.
fn pin_control(cpu: u16) {
    let mut only = rustix::thread::CpuSet::new();
    only.set(usize::from(cpu));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &only) {
        warn!(cpu, %error, "the control core runs wherever there is room");
    }
}

fn idle_policy(idle: config::Idle) -> IdlePolicy {
    match idle {
        config::Idle::Adaptive => IdlePolicy::Adaptive,
        config::Idle::Spin => IdlePolicy::Spin,
    }
}

/// Every port's facts, and each core's queues of it in turn.
type PortQueues = Vec<(PortFacts, Vec<QueuePair>)>;

fn split(config: &Config, ports: Vec<OpenPort>) -> (Vec<dpdk::Port>, PortQueues) {
    let with_facts = config.ports.iter().zip(ports).zip(0..).map(|((port, open), number)| {
        let facts = PortFacts {
            id: PortId(number),
            role: port.role.into(),
            mac: MacAddress(open.mac),
            mtu: port.mtu_bytes.into(),
            vlan: port.vlan,
        };
        (open.port, (facts, open.queues))
    });
    with_facts.unzip()
}

/// How many sender numbers a start takes at once: one for each data core, one for IKE, and some for later.
fn senders_of(cores: usize) -> u32 {
    u32::try_from(cores).unwrap_or(u32::MAX).saturating_add(1 + SPARE_SENDERS)
}

/// The engine that computes ESP; says so where it is not the fastest.
fn select_engine() -> Result<engine::Engine, ApplianceError> {
    let Selection { engine, fell_back } = engine::select(EngineChoice::Auto)?;
    if let Some(reason) = fell_back {
        warn!(%reason, using = %engine, "the preferred AEAD engine cannot be used");
    }
    Ok(engine)
}

/// IKE has a sender number of its own, and names peers as no other member does.
fn ike_config(senders: &mut SenderPool, joined: Option<&Joined>) -> Result<EndpointConfig, ApplianceError> {
    let default = EndpointConfig::default();
    let peer_base = joined.map_or(default.peer_base, Joined::peer_base);
    Ok(EndpointConfig { sender_id: draw(senders)?.id().get(), peer_base, ..default })
}

fn draw(senders: &mut SenderPool) -> Result<SenderNumber, ApplianceError> {
    senders.take().ok_or(ApplianceError::Senders)
}

type BuiltCores = (Vec<DataCore<QueuePair>>, Vec<CoreHandle<Frame>>);

/// Gives each core its queues of every port, its rings, its mailbox and its IVs.
fn data_cores(
    common: &Common,
    ports: PortQueues,
    cluster: Option<ClusterCapacity>,
    senders: &mut SenderPool,
) -> Result<BuiltCores, ApplianceError> {
    let cores = ports.first().map_or(0, |(_, queues)| queues.len());
    let mut ports: Vec<_> = ports.into_iter().map(|(facts, queues)| (facts, queues.into_iter())).collect();
    let (mut built, mut handles) = (Vec::new(), Vec::new());
    for handover in mesh(cores, common.capacity.handover) {
        let own = ports.iter_mut().filter_map(|(facts, queues)| Some(CorePort::new(*facts, queues.next()?)));
        let (core_end, link) = mailbox();
        let ivs = IvGenerator::new(draw(senders)?);
        let mut core = DataCore::new(common.clone(), own.collect(), handover, core_end, ivs);
        if let Some(capacity) = cluster {
            core = core.joining(capacity);
        }
        handles.push(CoreHandle::new(link, core.ledger(), core.poll_counters()));
        built.push(core);
    }
    Ok((built, handles))
}

/// An owner's core routes as many connections as a target's core can have.
fn cluster_capacity(config: &Config) -> ClusterCapacity {
    ClusterCapacity { entries_v4: config.cores.connections, ..ClusterCapacity::default() }
}

fn launch_all(
    eal: Eal,
    cores: Vec<DataCore<QueuePair>>,
    idle: IdlePolicy,
    clock: Clock,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<RunningCore>, ApplianceError> {
    let lcores = eal.take_lcores();
    if lcores.len() < cores.len() {
        return Err(ApplianceError::Lcores { found: lcores.len(), expected: cores.len() });
    }
    let numbered = lcores.into_iter().zip(cores).enumerate();
    let launch = |(number, (lcore, core))| launch::launch(lcore, number, core, idle, clock, Arc::clone(stop));
    Ok(numbered.map(launch).collect::<Result<_, _>>()?)
}

fn random<const N: usize>() -> Result<[u8; N], ApplianceError> {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| ApplianceError::Randomness)?;
    Ok(bytes)
}
