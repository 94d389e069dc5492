//! Stacks joined by an in-memory segment, under simulated time.

mod hostile;
mod icmp;
mod ike;
mod neighbours;
mod probes;
mod streams;

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipsec::time::Instant;
use wire::ethernet::{self, EtherType};
use wire::{arp, icmp as wire_icmp, ipv4, protocol, udp};

use super::*;
use datapath::routes::{Prefix, StaticRoute};

const NOW: Instant = Instant::from_secs(1_000);
const PORT: PortId = PortId(0);
/// The appliance under test, its router, and a stranger on the same link.
const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 10]);
const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const STRANGER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 66]);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
const DVIPA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn port(id: u16, mac: MacAddress, address: Ipv4Addr) -> PortSettings {
    let addresses = vec![PortAddress::new(address.into(), 24).unwrap()];
    PortSettings { id: PortId(id), mac, addresses, mtu: 1_500, vlan: None, neighbours: vec![] }
}

/// An appliance with a network port, an inside port, a router and one DVIPA that it owns.
fn settings() -> StackSettings {
    let inside = port(1, MacAddress([2, 0, 0, 0, 1, 10]), Ipv4Addr::new(10, 9, 0, 1));
    StackSettings {
        ports: vec![port(0, OWN_MAC, OWN), inside],
        routes: vec![StaticRoute { to: "0.0.0.0/0".parse().unwrap(), via: Some(ROUTER.into()), port: None }],
        dvipas: vec![Dvipa { address: DVIPA.into(), port: PORT, owned: true }],
    }
}

fn appliance() -> Stack {
    Stack::new(NOW, settings(), [7; 32]).unwrap()
}

/// A plain host on the same link, played by a second stack.
fn host(mac: MacAddress, address: Ipv4Addr) -> Stack {
    let settings = StackSettings { ports: vec![port(0, mac, address)], ..StackSettings::default() };
    Stack::new(NOW, settings, mac.0.repeat(6)[..32].try_into().unwrap()).unwrap()
}

fn drain(stack: &mut Stack) -> Vec<(PortId, Vec<u8>)> {
    core::iter::from_fn(|| stack.poll_transmit()).collect()
}

fn events(stack: &mut Stack) -> Vec<Event> {
    core::iter::from_fn(|| stack.poll_event()).collect()
}

type Loss = Box<dyn FnMut(&[u8]) -> bool>;

/// One shared link: what a stack sends by its port 0 reaches every other.
struct Segment {
    now: Instant,
    stacks: Vec<Stack>,
    /// Whether the link loses this frame.
    loses: Loss,
    carried: Vec<Vec<u8>>,
    /// Makes frames overtake each other.
    reorders: Option<ChaCha20Rng>,
}

impl Segment {
    fn new(stacks: Vec<Stack>) -> Self {
        Self { now: NOW, stacks, loses: Box::new(|_| false), carried: Vec::new(), reorders: None }
    }

    /// Carries frames until nobody has any left.
    fn carry(&mut self) {
        loop {
            let mut frames = Vec::new();
            for (from, stack) in self.stacks.iter_mut().enumerate() {
                frames
                    .extend(drain(stack).into_iter().filter(|(port, _)| *port == PORT).map(|(_, frame)| (from, frame)));
            }
            if frames.is_empty() {
                break;
            }
            if let Some(rng) = &mut self.reorders {
                for at in 1..frames.len() {
                    if rng.next_u32().is_multiple_of(4) {
                        frames.swap(at - 1, at);
                    }
                }
            }
            for (from, frame) in frames {
                if (self.loses)(&frame) {
                    continue;
                }
                for (to, stack) in self.stacks.iter_mut().enumerate() {
                    if to != from {
                        stack.handle_frame(self.now, PORT, &frame);
                    }
                }
                self.carried.push(frame);
            }
        }
        assert!(self.stacks.iter().all(|stack| stack.counters().difference() == 0), "a frame has ended nowhere");
    }

    /// Lets time pass, from one timeout to the next.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.carry();
        while let Some(next) = self.stacks.iter().filter_map(Stack::poll_timeout).min().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            for stack in &mut self.stacks {
                stack.handle_timeout(self.now);
            }
            self.carry();
        }
        self.now = end;
    }
}

fn frame(dst: MacAddress, src: MacAddress, ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { dst, src, vlan: None, ether_type };
    let mut frame = vec![0; header.buffer_len()];
    header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(payload);
    frame
}

fn arp_frame(dst: MacAddress, message: arp::Repr) -> Vec<u8> {
    let mut packet = [0; arp::PACKET_LEN];
    message.emit(&mut arp::Packet::new_unchecked(&mut packet[..]));
    frame(dst, message.sender_mac, EtherType::Arp, &packet)
}

fn arp_request(sender_mac: MacAddress, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let operation = arp::Operation::Request;
    let message = arp::Repr { operation, sender_mac, sender_ip, target_mac: MacAddress::ZERO, target_ip };
    arp_frame(MacAddress::BROADCAST, message)
}

fn arp_reply(sender_mac: MacAddress, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let operation = arp::Operation::Reply;
    arp_frame(OWN_MAC, arp::Repr { operation, sender_mac, sender_ip, target_mac: OWN_MAC, target_ip })
}

/// The ARP message in a frame, if it is one.
fn arp_of(frame: &[u8]) -> Option<arp::Repr> {
    let view = ethernet::Packet::new_checked(frame).unwrap();
    let is_arp = view.ether_type() == EtherType::Arp;
    is_arp.then(|| arp::Repr::parse(&arp::Packet::new_checked(view.payload()).unwrap()).unwrap())
}

fn ipv4_packet(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Repr {
        src,
        dst,
        protocol,
        dscp: 0,
        ecn: 0,
        identification: 1,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        payload_len: payload.len(),
    };
    let mut packet = vec![0; header.buffer_len()];
    header.emit(&mut ipv4::Packet::new_unchecked(&mut packet[..]));
    packet.extend_from_slice(payload);
    packet
}

fn udp_packet(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; udp::HEADER_LEN + payload.len()];
    datagram[udp::HEADER_LEN..].copy_from_slice(payload);
    let mut view = udp::Packet::new_unchecked(&mut datagram[..]);
    view.set_src_port(src.1);
    view.set_dst_port(dst.1);
    view.set_len((udp::HEADER_LEN + payload.len()) as u16);
    view.fill_checksum(src.0.into(), dst.0.into());
    ipv4_packet(src.0, dst.0, protocol::UDP, &datagram)
}

fn icmp_packet(src: Ipv4Addr, dst: Ipv4Addr, message: &wire_icmp::Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut wire_icmp::Packet::new_unchecked(&mut bytes[..]));
    ipv4_packet(src, dst, protocol::ICMP, &bytes)
}

/// A packet as the router hands it to the appliance.
fn from_router(packet: &[u8]) -> Vec<u8> {
    frame(OWN_MAC, ROUTER_MAC, EtherType::Ipv4, packet)
}

fn socket(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// Makes the router known to an appliance.
fn introduce_router(stack: &mut Stack, now: Instant) {
    stack.handle_frame(now, PORT, &arp_reply(ROUTER_MAC, ROUTER, OWN));
    drain(stack);
}
