//! The laboratory: addresses, keys, SAs and packets, both as the appliance and as its clients see them.
//!
//! Everything follows from the case's numbers, so that two runs measure the same packets. The keys are no secrets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::Engine;
use ipsec::inbound::InboundShared;
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};
use wire::ethernet::{self, EtherType, MacAddress};
use wire::{ipv4, protocol, udp};

use crate::fault::Fault;

pub const NETWORK_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const INSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xaa]);
pub const WEB_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xbb]);

pub const DVIPA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The next hop towards clients, and the one towards the service.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

pub const CIPHER: Cipher = Cipher::AesGcm128;
/// Packets of one round, a multiple of the burst.
pub const ROUND_PACKETS: usize = 4_096;
/// Connections of one round. Each belongs to one SA.
pub const FLOWS: usize = 64;
/// More SAs would need more addresses than the laboratory has.
pub const SAS_MAX: usize = 4_096;
/// Time to live of every packet that comes in.
pub const TTL: u8 = 64;

const SERVICE_PORT: u16 = 443;

/// Where the clients' own sealing stands in the sender counter: before every rig's.
const CLIENT_SENDER: SenderNumber = SenderNumber(0);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Which way.
    pub direction: Direction,
    /// The inner IP packet.
    pub size_bytes: usize,
    /// SAs that the packets are spread over.
    pub sas: usize,
    /// The appliance's replay window.
    pub replay_window_packets: u32,
}

/// Whose view of an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Appliance,
    Client,
}

/// A packet of the capture.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Which SA it belongs to.
    pub sa: usize,
    /// The IP packet inside.
    pub inner: Vec<u8>,
    /// The frame that the appliance receives.
    pub frame: Vec<u8>,
}

impl Case {
    /// A round of packets, in the order in which they come.
    pub fn round(&self, engine: Engine) -> Result<Vec<Sample>, Fault> {
        let mut clients = Clients::new(self, engine)?;
        let sample = |number: usize| {
            let (flow, sa) = (number % self.flows(), number % self.flows() % self.sas);
            let inner = self.inner(flow, number);
            let frame = match self.direction {
                Direction::Inbound => ether(ROUTER_MAC, NETWORK_MAC, &clients.seal(sa, &inner)?),
                Direction::Outbound => ether(WEB_MAC, INSIDE_MAC, &inner),
            };
            Ok(Sample { sa, inner, frame })
        };
        (0..ROUND_PACKETS).map(sample).collect()
    }

    /// One packet of each flow from the client, so that the connections stand before the service answers.
    pub fn openers(&self, engine: Engine) -> Result<Vec<Vec<u8>>, Fault> {
        let inbound = Case { direction: Direction::Inbound, ..*self };
        let mut clients = Clients::new(&inbound, engine)?;
        let opener =
            |flow| Ok(ether(ROUTER_MAC, NETWORK_MAC, &clients.seal(flow % self.sas, &inbound.inner(flow, flow))?));
        (0..self.flows()).map(opener).collect()
    }

    /// Every SA has at least one flow.
    fn flows(&self) -> usize {
        FLOWS.max(self.sas)
    }

    /// The inner packet of this flow; `number` makes its payload its own.
    fn inner(&self, flow: usize, number: usize) -> Vec<u8> {
        let (client, client_port) = (inner_address(flow % self.sas), 20_000 + flow as u16);
        let ends = match self.direction {
            Direction::Inbound => [(client, client_port), (DVIPA, SERVICE_PORT)],
            Direction::Outbound => [(DVIPA, SERVICE_PORT), (client, client_port)],
        };
        let payload_len = self.size_bytes - ipv4::HEADER_LEN - udp::HEADER_LEN;
        let payload: Vec<u8> = (0..payload_len).map(|at| (number.wrapping_mul(31) + at * 7) as u8).collect();
        udp_packet(ends[0], ends[1], Traits::of(flow), &payload)
    }

    /// The appliance's half of an SA towards itself.
    pub fn appliance_inbound(&self, sa: usize, engine: Engine) -> Result<Arc<InboundShared>, Fault> {
        let parameters = self.parameters(sa, Direction::Inbound, Side::Appliance)?;
        InboundShared::new(parameters, engine, 1).map_err(Fault::setup)
    }

    /// The appliance's half of an SA towards a client.
    pub fn appliance_outbound(&self, sa: usize, engine: Engine) -> Result<Arc<OutboundShared>, Fault> {
        let parameters = self.parameters(sa, Direction::Outbound, Side::Appliance)?;
        OutboundShared::new(parameters, engine, CLIENT_SENDER).map_err(Fault::setup)
    }

    fn parameters(&self, sa: usize, direction: Direction, side: Side) -> Result<SaParameters, Fault> {
        let spi = match (side, direction) {
            (Side::Appliance, Direction::Inbound) | (Side::Client, Direction::Outbound) => spi_in(sa),
            (Side::Appliance, Direction::Outbound) | (Side::Client, Direction::Inbound) => spi_out(sa),
        };
        let (ours, theirs): (IpAddr, IpAddr) = match side {
            Side::Appliance => (DVIPA.into(), outer_address(sa).into()),
            Side::Client => (outer_address(sa).into(), DVIPA.into()),
        };
        let (service, client) = (host(DVIPA)?, host(inner_address(sa))?);
        let selectors = match side {
            Side::Appliance => Selectors { local: vec![service], remote: vec![client] },
            Side::Client => Selectors { local: vec![client], remote: vec![service] },
        };
        Ok(SaParameters {
            name: "lab".into(),
            peer: PeerId(sa as u64),
            peer_name: "client.example".into(),
            dvipa: ours,
            remote: theirs,
            spi: Spi::new(spi).ok_or_else(|| Fault::setup("a reserved SPI"))?,
            direction,
            mode: Mode::Tunnel,
            encapsulation: Encapsulation::None,
            cipher: CIPHER,
            key: SaKey::from_keymat(CIPHER, &keymat(spi)).map_err(Fault::setup)?,
            esn: false,
            replay_window_packets: self.replay_window_packets,
            selectors,
            lifetime: Lifetime::NONE,
            epoch: 1,
        })
    }
}

/// The clients' ends of the SAs that carry packets to the appliance: our own outbound code.
struct Clients {
    sas: Vec<OutboundSa>,
    ivs: IvGenerator,
}

impl Clients {
    fn new(case: &Case, engine: Engine) -> Result<Clients, Fault> {
        let end = |sa| {
            let parameters = case.parameters(sa, Direction::Outbound, Side::Client)?;
            let shared = OutboundShared::new(parameters, engine, CLIENT_SENDER).map_err(Fault::setup)?;
            Ok::<_, Fault>(OutboundSa::new(shared, 1, OuterPolicy::default()))
        };
        let sas = (0..case.sas).map(end).collect::<Result<_, _>>()?;
        Ok(Clients { sas, ivs: IvGenerator::new(CLIENT_SENDER) })
    }

    /// The outer packet around an inner one.
    fn seal(&mut self, sa: usize, inner: &[u8]) -> Result<Vec<u8>, Fault> {
        let sa = &mut self.sas[sa];
        let room = sa.shared().overhead(inner.len());
        let mut packet = vec![0; room.before];
        packet.extend_from_slice(inner);
        packet.resize(room.before + inner.len() + room.after, 0);
        let _sealed = sa.encapsulate(&mut self.ivs, &mut packet, inner.len()).map_err(Fault::setup)?;
        Ok(packet)
    }
}

/// The receiver's number of the SA towards the appliance.
pub fn spi_in(sa: usize) -> u32 {
    0x1000_0000 + sa as u32
}

/// The receiver's number of the SA towards the client.
pub fn spi_out(sa: usize) -> u32 {
    0x2000_0000 + sa as u32
}

/// A fixed key and salt for each SA and direction.
pub fn keymat(spi: u32) -> Vec<u8> {
    let byte = |at: usize| spi.to_be_bytes()[at % 4] ^ (at as u8).wrapping_mul(29).wrapping_add(0x5a);
    (0..CIPHER.keymat_len()).map(byte).collect()
}

/// A client's address on the open network: of the range that is reserved for benchmarks (RFC 2544).
pub fn outer_address(sa: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + sa as u32)
}

/// A client's address inside the tunnel.
fn inner_address(sa: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 7, 0, 1).to_bits() + sa as u32)
}

fn host(address: Ipv4Addr) -> Result<TrafficSelector, Fault> {
    format!("{address}/32").parse().map_err(Fault::setup)
}

/// What the outer header takes over from the inner one: each flow has its own, so that what is taken over is seen.
struct Traits {
    dscp: u8,
    ecn: u8,
    dont_fragment: bool,
}

impl Traits {
    fn of(flow: usize) -> Traits {
        Traits { dscp: [0, 46, 8][flow % 3], ecn: (flow % 4) as u8, dont_fragment: flow % 8 < 5 }
    }
}

fn udp_packet(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), traits: Traits, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Repr {
        src: from.0,
        dst: to.0,
        protocol: protocol::UDP,
        dscp: traits.dscp,
        ecn: traits.ecn,
        identification: 0,
        dont_fragment: traits.dont_fragment,
        more_fragments: false,
        fragment_offset: 0,
        ttl: TTL,
        payload_len: udp::HEADER_LEN + payload.len(),
    };
    let datagram = udp::Repr { src_port: from.1, dst_port: to.1, payload_len: payload.len() };
    let mut packet = vec![0; ipv4::HEADER_LEN + udp::HEADER_LEN];
    packet.extend_from_slice(payload);
    let (ip, rest) = packet.split_at_mut(ipv4::HEADER_LEN);
    header.emit(&mut ipv4::Packet::new_unchecked(ip));
    let mut view = udp::Packet::new_unchecked(rest);
    datagram.emit(&mut view);
    view.fill_checksum(from.0.into(), to.0.into());
    packet
}

/// An IPv4 packet in a frame.
pub fn ether(src: MacAddress, dst: MacAddress, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { dst, src, vlan: None, ether_type: EtherType::Ipv4 };
    let mut frame = vec![0; header.buffer_len()];
    header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(packet);
    frame
}
