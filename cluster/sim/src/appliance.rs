//! One appliance, whole but for DPDK: control core, IKE, XCF and data cores, with the far ends of its cables.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use cluster::facility::start::Started;
use cluster::facility::wrap::{Sealer, WrapKey};
use cluster::facility::{senders::SenderPool, start::FreshStart};
use cluster::id::{Incarnation, MemberId};
use cluster::member::Member;
use cluster::message::{OLDEST_VERSION, VERSION};
use control::control_core::{ClusterParts, ControlCore, CoreHandle, LinkParts, Parts, ProbedService};
use control::stack::{
    Dvipa, HEARTBEAT_PORT, PortAddress, PortSettings, Stack, StackSettings, TrustedSettings, XCF_PORT,
};
use datapath::buffer::{PacketBuffer as _, PortQueue as _};
use datapath::burst::Burst;
use datapath::cluster::ClusterCapacity;
use datapath::core::{Capacity, Common, DataCore};
use datapath::counters::Balance;
use datapath::forwarding::{CorePort, PortFacts, PortRole};
use datapath::handover::mesh;
use datapath::mailbox::mailbox;
use datapath::memory::{Frame, Pool, Wire};
use datapath::policy::Policy;
use datapath::routes::{PortId, StaticRoute};
use ike::config::EndpointConfig;
use ipsec::engine::{self, EngineChoice};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::sad::SadSeed;
use ipsec::time::Instant;
use wire::flow::FlowSeed;
use xcf::{Mesh, MeshSettings, Moment, Name, Part, Timing, Versions};

use crate::dice::Dice;
use crate::pki;
use crate::place::{
    DVIPA, INSIDE, MTU, NETWORK, TRUSTED, TRUSTED_MTU, host_address, host_mac, inside_address, network_address,
    port_mac, trusted_address,
};
use crate::topology::{Topology, secrets, spd};

/// Whatever keeps an appliance from starting; no seed should.
pub type StartFault = Box<dyn std::error::Error + Send + Sync>;

/// Frames that a cable holds in each direction.
const CABLE_FRAMES: usize = 512;
/// Polls in one turn before the world goes on; what is still busy gets another turn.
const POLLS_PER_TURN: usize = 64;
/// Sender numbers beyond one for each core and one for IKE.
const SPARE_SENDERS: u32 = 2;

/// An appliance that runs.
pub struct Appliance {
    /// Which member it is.
    pub me: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its control core.
    pub control: ControlCore<Frame>,
    cores: Vec<DataCore<Wire>>,
    /// The far ends of its cables, by port and core.
    far: Vec<Vec<Wire>>,
    pool: Pool,
}

/// Sessions notice sooner that they are broken than they do in earnest: a simulation is short.
const TIMING: Timing = Timing {
    handshake: Duration::from_secs(1),
    keep_alive: Duration::from_millis(100),
    silence: Duration::from_millis(350),
    back_off_min: Duration::from_millis(20),
    back_off_max: Duration::from_millis(200),
};

/// What a start draws at its registration.
#[must_use]
pub fn senders_of(topology: &Topology) -> u32 {
    topology.cores as u32 + 1 + SPARE_SENDERS
}

impl Appliance {
    /// Starts a member that is registered.
    ///
    /// # Errors
    /// Whatever the parts refuse.
    pub fn start(
        now: Instant,
        topology: &Topology,
        me: MemberId,
        started: Started,
        dice: &mut Dice,
    ) -> Result<Appliance, StartFault> {
        let mut senders = SenderPool::new(started.senders, SPARE_SENDERS);
        let born_at = senders.birth();
        let stack = stack(now, topology, me, dice)?;
        let common = Common {
            routes: Arc::new(stack.routes().clone()),
            policy: Arc::new(Policy::new(
                [DVIPA.into(), network_address(me), inside_address(me), trusted_address(me)],
                spd(),
            )),
            seed: FlowSeed::new(dice.bytes()),
            sad_seed: SadSeed::new(dice.bytes()),
            capacity: Capacity { connections: 128, sas: 512, handover: 128 },
            timeouts: topology.timeouts,
        };
        let pool = Pool::new(4_096, 2_048);
        let mut far = vec![Vec::new(), Vec::new(), Vec::new()];
        let (mut cores, mut handles) = (Vec::new(), Vec::new());
        for handover in mesh(topology.cores, common.capacity.handover) {
            let ports = ports(me, &pool, &mut far);
            let (end, link) = mailbox();
            let ivs = IvGenerator::new(senders.take().ok_or("no sender number is left")?);
            let core = DataCore::new(common.clone(), ports, handover, end, ivs).joining(ClusterCapacity {
                entries_v4: 256,
                entries_v6: 0,
                affinities: 16,
                fragments: 16,
                packet_len: 2_048,
            });
            handles.push(CoreHandle::new(link, core.ledger(), core.poll_counters()));
            cores.push(core);
        }
        let mut ike = ike::Endpoint::new(
            EndpointConfig {
                sender_id: senders.take().ok_or("no sender number is left")?.id().get(),
                peer_base: started.incarnation.0 << 32,
                ..EndpointConfig::default()
            },
            dice.bytes(),
        );
        ike.serve(now, DVIPA.into(), false);
        ike.set_connections(vec![topology.server().check()?], secrets());
        let frames = pool.clone();
        let control = ControlCore::new(Parts {
            cluster: Some(cluster_parts(now, topology, me, started.incarnation, started.fresh, born_at, dice)?),
            stack,
            ike,
            cores: handles,
            senders,
            engine: engine::select(EngineChoice::Auto)?.engine,
            port_mtus: vec![MTU, MTU, TRUSTED_MTU],
            outbound_sequences: [(DVIPA.into(), topology.sequence.name().to_owned())].into(),
            frames: Box::new(move |bytes| frames.frame(bytes)),
        });
        Ok(Appliance { me, incarnation: started.incarnation, control, cores, far, pool })
    }

    /// Lets control core and data cores work until nothing is left to do, and says whether something is.
    pub fn turn(&mut self, now: Instant) -> bool {
        for _ in 0..POLLS_PER_TURN {
            let mut busy = self.control.poll(now);
            for core in &mut self.cores {
                busy |= core.poll(now);
            }
            if !busy {
                return false;
            }
        }
        true
    }

    /// Lays a frame into the queue of one core; `false` where the cable is full.
    pub fn inject(&mut self, port: PortId, core: usize, bytes: &[u8]) -> bool {
        let wires = &mut self.far[usize::from(port.0)];
        let core = core % wires.len();
        let Some(frame) = self.pool.frame(bytes) else { return false };
        let mut burst = Burst::from_iter([frame]);
        wires[core].transmit(&mut burst);
        burst.is_empty()
    }

    /// Every frame that it has sent by one port since the last time.
    pub fn collect(&mut self, port: PortId) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for wire in &mut self.far[usize::from(port.0)] {
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

    /// DESIGN §8 rule 4: 0 when every packet has ended once.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let ledgers: Vec<_> = self.control.cores().map(|core| Arc::clone(&core.ledger)).collect();
        Balance::of(ledgers.iter().map(AsRef::as_ref)).difference()
    }
}

fn ports(me: MemberId, pool: &Pool, far: &mut [Vec<Wire>]) -> Vec<CorePort<Wire>> {
    let roles =
        [(NETWORK, PortRole::Network, MTU), (INSIDE, PortRole::Inside, MTU), (TRUSTED, PortRole::Trusted, TRUSTED_MTU)];
    let port = |(id, role, mtu): (PortId, PortRole, u16)| {
        let (near, other) = Wire::pair(CABLE_FRAMES);
        far[usize::from(id.0)].push(other);
        let facts = PortFacts { id, role, mac: port_mac(me, id), mtu: mtu.into(), vlan: None };
        CorePort::new(facts, near.with_spare(pool.clone()))
    };
    roles.into_iter().map(port).collect()
}

fn stack(now: Instant, topology: &Topology, me: MemberId, dice: &mut Dice) -> Result<Stack, StartFault> {
    let port = |id, address, mtu, neighbours| PortSettings {
        id,
        mac: port_mac(me, id),
        addresses: PortAddress::new(address, 24).into_iter().collect(),
        mtu,
        vlan: None,
        neighbours,
    };
    let others: Vec<_> = topology.members().filter(|other| *other != me).collect();
    let members = others.iter().map(|&other| (trusted_address(other), port_mac(other, TRUSTED))).collect();
    let settings = StackSettings {
        ports: vec![
            port(NETWORK, network_address(me), MTU, vec![]),
            port(INSIDE, inside_address(me), MTU, vec![(host_address(me), host_mac(me))]),
            port(TRUSTED, trusted_address(me), TRUSTED_MTU, members),
        ],
        routes: vec![StaticRoute { to: "192.0.2.80/32".parse()?, via: Some(host_address(me)), port: None }],
        dvipas: vec![Dvipa { address: DVIPA.into(), port: NETWORK, owned: false }],
    };
    let mut stack = Stack::new(now, settings, dice.bytes())?;
    stack.open_trusted(TrustedSettings {
        port: TRUSTED,
        address: trusted_address(me),
        members: others.into_iter().map(trusted_address).collect(),
        xcf_port: XCF_PORT,
        heartbeat_port: HEARTBEAT_PORT,
    })?;
    Ok(stack)
}

fn cluster_parts(
    now: Instant,
    topology: &Topology,
    me: MemberId,
    incarnation: Incarnation,
    fresh: FreshStart,
    born_at: SenderNumber,
    dice: &mut Dice,
) -> Result<ClusterParts, StartFault> {
    let settings = topology.settings(me);
    let members = topology.members().map(pki::part_member).collect::<Result<_, _>>()?;
    let versions = Versions { min: OLDEST_VERSION, max: VERSION };
    let part = Part::new(pki::identity_of(me)?, Name::new(pki::CLUSTER)?, me, incarnation, versions, members)?;
    let others = topology.members().filter(|other| *other != me);
    let addresses = others.map(|other| (other, SocketAddr::new(trusted_address(other), XCF_PORT))).collect();
    let since_zero = now.saturating_since(Instant::ZERO).as_secs();
    let moment = Moment { at: now, unix_seconds: pki::UNIX_AT_ZERO + since_zero };
    let mesh = Mesh::new(moment, MeshSettings { part, addresses, timing: TIMING }, dice.bytes())?;
    let sealer = Sealer::new(&WrapKey::new(&[9; 32]), fresh)?;
    let member = Member::new(now, settings.clone(), incarnation, born_at, sealer, dice.bytes());
    let is_target = topology.targets.contains(&me);
    let probe = ProbedService { dvipa: DVIPA.into(), service: None, port: INSIDE, from: inside_address(me) };
    Ok(ClusterParts {
        name: pki::CLUSTER.into(),
        member,
        links: LinkParts { mesh, unix_seconds_at_zero: pki::UNIX_AT_ZERO },
        facility: "memory",
        settings,
        sharing: vec![topology.sharing()],
        probes: is_target.then_some(probe).into_iter().collect(),
    })
}
