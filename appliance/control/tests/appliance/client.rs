//! The client: an IP stack, an IKE initiator, and the SAs that it has agreed on.

use core::net::Ipv4Addr;

use control::stack::{PortAddress, Stack, StackSettings};
use datapath::forwarding::PortRole;
use ike::config::{ChildSettings, ConnectionSettings, EndpointConfig, IdentityPattern, Overlap};
use ike::event::{ChildUp, SendFrom};
use ike::{Datagram, Endpoint, Event};
use ipsec::Spi;
use ipsec::engine::{self, EngineChoice};
use ipsec::inbound::{InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, Overhead};
use ipsec::sa::Mode;
use wire::ethernet::{self, EtherType};
use wire::{ipv4, natt, protocol, tcp, udp};

use super::nat::{self, Nat};
use super::world::{CLIENT, CLIENT_MAC, DVIPA, HOST_MAC, INSIDE_MAC, NETWORK_MAC, World, ip, port, secrets, socket};

/// One CHILD_SA, seen from the client.
struct Child {
    inbound: InboundSa,
    outbound: OutboundSa,
    spi: Spi,
    /// RFC 7296 §2.8: whoever answered a rekeying sends on the new SA once the peer has used it, or deleted the old.
    may_send: bool,
    replaces: Option<Spi>,
}

pub struct Client {
    stack: Stack,
    pub ike: Endpoint,
    children: Vec<Child>,
    ivs: IvGenerator,
    /// What stands in front of it.
    pub nat: Option<Nat>,
    /// Inner packets that came out of ESP.
    pub received: Vec<Vec<u8>>,
    pub downs: usize,
}

pub fn child_settings(lifetime: Lifetime) -> ChildSettings {
    ChildSettings {
        name: "web".into(),
        local_ts: vec!["192.0.2.80/32".parse().unwrap()],
        remote_ts: vec!["dynamic".parse().unwrap()],
        proposals: vec!["aes128gcm16".parse().unwrap()],
        mode: Mode::Tunnel,
        lifetime,
        replay_window_packets: 128,
        overlap: Overlap::Report,
    }
}

pub fn server_settings(lifetime: Lifetime) -> ConnectionSettings {
    ConnectionSettings {
        name: "office".into(),
        local_addrs: vec![ip(DVIPA)],
        remote_addrs: Vec::new(),
        local_id: Some("gw.example".parse().unwrap()),
        remote_id: IdentityPattern::Any,
        proposals: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
        rekey_time: None,
        over_time: None,
        ike_sas_per_identity: None,
        dpd_delay: None,
        children: vec![child_settings(lifetime)],
    }
}

impl Client {
    pub fn new(world: &World) -> Client {
        Client::offering(world, "aes128gcm16", Mode::Tunnel)
    }

    /// A client that offers this for its CHILD_SA.
    pub fn offering(world: &World, proposal: &str, mode: Mode) -> Client {
        let mut link = port(0, CLIENT_MAC, CLIENT);
        link.addresses.extend(nat::OUTSIDE.map(|outside| PortAddress::new(ip(outside), 24).unwrap()));
        let settings = StackSettings { ports: vec![link], ..StackSettings::default() };
        let mut ike = Endpoint::new(EndpointConfig::default(), [9; 32]);
        let child = ChildSettings {
            local_ts: vec!["dynamic".parse().unwrap()],
            remote_ts: vec!["192.0.2.80/32".parse().unwrap()],
            proposals: vec![proposal.parse().unwrap()],
            mode,
            ..child_settings(Lifetime::NONE)
        };
        let connection = ConnectionSettings {
            name: "home".into(),
            local_addrs: vec![ip(CLIENT)],
            local_id: Some("client.example".parse().unwrap()),
            remote_id: "gw.example".parse().unwrap(),
            children: vec![child],
            ..server_settings(Lifetime::NONE)
        };
        ike.set_connections(vec![connection.check().unwrap()], secrets());
        Client {
            stack: Stack::new(world.now, settings, [8; 32]).unwrap(),
            ike,
            children: Vec::new(),
            ivs: IvGenerator::new(SenderNumber(7)),
            nat: None,
            received: Vec::new(),
            downs: 0,
        }
    }

    pub fn connect(&mut self, world: &World) {
        self.ike.initiate(world.now, "home", "web", socket(CLIENT, 500), socket(DVIPA, 500)).unwrap();
    }

    pub fn is_up(&self) -> bool {
        !self.children.is_empty()
    }

    /// The mode of each of its SAs.
    pub fn modes(&self) -> Vec<Mode> {
        self.children.iter().map(|child| child.inbound.shared().parameters().mode).collect()
    }

    /// How many SAs it holds.
    pub fn sas(&self) -> usize {
        self.children.len()
    }

    /// Takes in what the appliance sent, and sends what is due, to the queue of core 0.
    pub fn step(&mut self, world: &mut World) {
        for frame in world.collect(PortRole::Network) {
            let Some(frame) = self.nat.map_or(Some(frame.clone()), |nat| nat.back(&frame)) else { continue };
            if !self.take_esp(&frame) {
                self.stack.handle_frame(world.now, datapath::routes::PortId(0), &frame);
            }
        }
        self.stack.handle_timeout(world.now);
        self.ike.handle_timeout(world.now);
        while let Some(datagram) = self.stack.poll_datagram() {
            let (local, remote) = (datagram.local, datagram.remote);
            self.ike.handle_datagram(world.now, &Datagram::new(local, remote, datagram.payload));
        }
        while let Some(event) = self.ike.poll_event() {
            self.follow(event);
        }
        while let Some(datagram) = self.ike.poll_transmit() {
            self.stack.send_datagram(world.now, datagram.local, datagram.remote, &datagram.payload);
        }
        while let Some((_, frame)) = self.stack.poll_transmit() {
            world.inject(PortRole::Network, 0, &self.through_nat(frame));
        }
    }

    fn through_nat(&self, frame: Vec<u8>) -> Vec<u8> {
        self.nat.map_or(frame.clone(), |nat| nat.out(&frame))
    }

    fn follow(&mut self, event: Event) {
        match event {
            Event::ChildUp(up) => self.install(*up),
            Event::ChildDown { inbound, .. } => {
                self.children.retain(|child| child.spi != inbound);
                let successors = self.children.iter_mut().filter(|child| child.replaces == Some(inbound));
                successors.for_each(|child| child.may_send = true);
                self.downs += 1;
            }
            Event::Refused { why, .. } | Event::InitiationFailed { why, .. } | Event::RekeyFailed { why, .. } => {
                panic!("{why}")
            }
            Event::IkeUp(_)
            | Event::IkeRekeyed { .. }
            | Event::IkeDown { .. }
            | Event::SiblingRefused { .. }
            | Event::AddressMoved { .. } => {}
        }
    }

    fn install(&mut self, up: ChildUp) {
        let engine = engine::select(EngineChoice::Auto).unwrap().engine;
        let spi = up.children.inbound.spi;
        let inbound = InboundSa::new(InboundShared::new(up.children.inbound, engine, 1).unwrap());
        let outbound = OutboundShared::new(up.children.outbound, engine, SenderNumber(7)).unwrap();
        let outbound = OutboundSa::new(outbound, 1, OuterPolicy::default());
        let may_send = up.send == SendFrom::Now;
        self.children.push(Child { inbound, outbound, spi, may_send, replaces: up.replaces });
    }

    /// An ESP frame of an SA of ours; anything else is not taken.
    fn take_esp(&mut self, frame: &[u8]) -> bool {
        let Ok(ethernet) = ethernet::Packet::new_checked(frame) else { return false };
        if ethernet.ether_type() != EtherType::Ipv4 {
            return false;
        }
        let outer = ipv4::Packet::new_checked(ethernet.payload()).unwrap();
        let mut header = ethernet.payload()[..outer.header_len()].to_vec();
        let mut esp = match outer.protocol() {
            protocol::ESP => outer.payload().to_vec(),
            protocol::UDP => {
                let udp = udp::Packet::new_checked(outer.payload()).unwrap();
                if udp.dst_port() != natt::PORT || natt::classify(udp.payload()) != Ok(natt::Repr::Esp) {
                    return false;
                }
                udp.payload().to_vec()
            }
            _other => return false,
        };
        assert_eq!(ethernet.dst(), CLIENT_MAC);
        let spi = Spi::from_be_bytes(esp[..4].try_into().unwrap());
        let child = self.children.iter_mut().find(|child| Some(child.spi) == spi).expect("ESP under an unknown SPI");
        let opened = child.inbound.open(&mut esp).expect("the appliance's ESP opens");
        child.may_send = true;
        let inner = &esp[opened.inner.clone()];
        self.received.push(match child.inbound.shared().parameters().mode {
            Mode::Tunnel => inner.to_vec(),
            Mode::Transport => {
                ipsec::transport::restore(&mut header, opened.next_header, inner.len()).unwrap();
                [&header, inner].concat()
            }
        });
        true
    }

    /// Sends an inner packet on the newest SA that may be used, to the queue of `core`. Returns the frame.
    pub fn send(&mut self, world: &mut World, core: usize, inner: &[u8]) -> Vec<u8> {
        let frame = self.seal(inner);
        world.inject(PortRole::Network, core, &frame);
        frame
    }

    /// The frame that would carry an inner packet on the newest SA that may be used.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let at = self.children.iter().rposition(|child| child.may_send).expect("a CHILD_SA is up");
        self.seal_on(at, inner)
    }

    /// The frame that would carry an inner packet on the SA that came in this place.
    pub fn seal_on(&mut self, at: usize, inner: &[u8]) -> Vec<u8> {
        let child = &mut self.children[at];
        let Overhead { before, after } = child.outbound.shared().overhead(inner.len());
        let mut packet = vec![0; before + inner.len() + after];
        packet[before..before + inner.len()].copy_from_slice(inner);
        let sealed = match child.outbound.shared().parameters().mode {
            Mode::Tunnel => child.outbound.encapsulate(&mut self.ivs, &mut packet, inner.len()),
            Mode::Transport => child.outbound.encapsulate_transport(&mut self.ivs, &mut packet, inner.len()),
        };
        let _ = sealed.unwrap();
        self.through_nat(framed(CLIENT_MAC, NETWORK_MAC, &packet))
    }
}

/// An Ethernet frame around an IP packet.
pub fn framed(from: control::stack::MacAddress, to: control::stack::MacAddress, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { dst: to, src: from, vlan: None, ether_type: EtherType::Ipv4 };
    let mut frame = vec![0; header.buffer_len() + packet.len()];
    header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
    frame[header.buffer_len()..].copy_from_slice(packet);
    frame
}

/// The application host's frame around its answer.
pub fn from_host(packet: &[u8]) -> Vec<u8> {
    framed(HOST_MAC, INSIDE_MAC, packet)
}

/// A TCP segment from the client to the service, or back.
pub fn segment(to_service: bool, client_port: u16, flags: tcp::Flags, payload_len: usize) -> Vec<u8> {
    let (client, service): (Ipv4Addr, Ipv4Addr) = (CLIENT.parse().unwrap(), DVIPA.parse().unwrap());
    let (src, dst) = if to_service { (client, service) } else { (service, client) };
    let mut packet = vec![0xa5; 40 + payload_len];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol::TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet[2..4].copy_from_slice(&(40 + payload_len as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&src.octets());
    packet[16..20].copy_from_slice(&dst.octets());
    ipv4::Packet::new_unchecked(&mut packet[..]).fill_checksum();
    let (from, to) = if to_service { (client_port, 80) } else { (80, client_port) };
    packet[20..40].fill(0);
    packet[20..22].copy_from_slice(&from.to_be_bytes());
    packet[22..24].copy_from_slice(&to.to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, flags.bits()]);
    packet
}
