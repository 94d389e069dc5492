//! Whole frames from strangers into the IP stack of our own addresses.
//!
//! The input is a script: raw frames, ARP, IPv4 and IPv6 packets whose outer layers are put right so that mutations
//! reach what is inside, datagrams to send, ownership that comes and goes, time. Whatever the stack then sends must be a
//! sound frame in its own name, and after every step each frame received must have ended exactly once.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use control::stack::{Dvipa, MacAddress, PortAddress, PortSettings, Stack, StackSettings};
use datapath::routes::{PortId, StaticRoute};
use ipsec::time::Instant;
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;
use wire::ethernet::{EtherType, VlanTag};
use wire::{arp, ethernet, icmp, ipv4, ipv6, protocol, udp};

const STEPS_MAX: usize = 24;
const STATION: MacAddress = MacAddress([2, 0, 0, 0, 0, 66]);
const MACS: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 0, 10]), MacAddress([2, 0, 0, 0, 1, 10])];
const VLANS: [Option<u16>; 2] = [None, Some(10)];
const MTUS: [u16; 2] = [1_500, 576];
const DVIPA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Ours, our routers', our neighbours' and nobody's.
const ADDRESSES: [Ipv4Addr; 8] = [
    Ipv4Addr::new(192, 0, 2, 10),
    Ipv4Addr::new(10, 9, 0, 1),
    DVIPA,
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 66),
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::UNSPECIFIED,
];
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const THEIR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66);

fuzz_target!(|data: &[u8]| {
    let mut script = data;
    let mut run = Run::new();
    for _ in 0..STEPS_MAX {
        let Some(([kind, a, b, len], rest)) = split::<4>(script) else { break };
        let (content, rest) = rest.split_at(usize::from(len).min(rest.len()));
        script = rest;
        run.step(kind, a, b, content);
        run.drain();
        assert_eq!(run.stack.counters().difference(), 0, "{:?}", run.stack.counters());
    }
});

struct Run {
    stack: Stack,
    now: Instant,
    is_owned: bool,
}

impl Run {
    fn new() -> Self {
        let port = |id: usize, addresses: &[(IpAddr, u8)]| PortSettings {
            id: PortId(id as u16),
            mac: MACS[id],
            addresses: addresses
                .iter()
                .map(|(address, length)| PortAddress::new(*address, *length).expect("it is short enough"))
                .collect(),
            mtu: MTUS[id],
            vlan: VLANS[id],
            neighbours: Vec::new(),
        };
        let settings = StackSettings {
            ports: vec![
                port(0, &[(ADDRESSES[0].into(), 24), (OWN_V6.into(), 64)]),
                port(1, &[(ADDRESSES[1].into(), 24)]),
            ],
            routes: vec![StaticRoute {
                to: "0.0.0.0/0".parse().expect("a prefix"),
                via: Some(ADDRESSES[3].into()),
                port: None,
            }],
            dvipas: vec![Dvipa { address: DVIPA.into(), port: PortId(0), owned: true }],
        };
        let now = Instant::from_secs(1_000);
        let mut run = Self { stack: Stack::new(now, settings, [7; 32]).expect("sound settings"), now, is_owned: true };
        run.drain();
        run
    }

    fn step(&mut self, kind: u8, a: u8, b: u8, content: &[u8]) {
        let port = usize::from(a & 1);
        match kind % 8 {
            0 => self.stack.handle_frame(self.now, PortId(u16::from(a % 3)), content),
            1 => self.arp(port, b, content),
            2 | 3 => self.ipv4(port, a, b, content),
            4 => self.ipv6(a, b, content),
            5 => self.send(a, b, content),
            6 => self.command(a, b),
            _ => self.pass(a, b),
        }
    }

    fn frame(&mut self, port: usize, dst: MacAddress, ether_type: EtherType, payload: &[u8]) {
        let header = ethernet::Repr { dst, src: STATION, vlan: VLANS[port].map(VlanTag::new), ether_type };
        let mut frame = vec![0; header.buffer_len()];
        header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
        frame.extend_from_slice(payload);
        self.stack.handle_frame(self.now, PortId(port as u16), &frame);
    }

    /// An ARP packet whose addresses are worth claiming, its content laid over it.
    fn arp(&mut self, port: usize, b: u8, content: &[u8]) {
        let repr = arp::Repr {
            operation: if b & 1 == 0 { arp::Operation::Request } else { arp::Operation::Reply },
            sender_mac: STATION,
            sender_ip: ADDRESSES[usize::from(b >> 1 & 7)],
            target_mac: MACS[port],
            target_ip: ADDRESSES[usize::from(b >> 4 & 7)],
        };
        let mut packet = [0; arp::PACKET_LEN];
        repr.emit(&mut arp::Packet::new_unchecked(&mut packet[..]));
        let laid_over = content.len().min(packet.len());
        packet[..laid_over].copy_from_slice(&content[..laid_over]);
        let dst = if b & 0x80 == 0 { MACS[port] } else { MacAddress::BROADCAST };
        self.frame(port, dst, EtherType::Arp, &packet);
    }

    /// An IPv4 packet: the content's first bytes are protocol, fragmentation and what to put right; then the payload.
    fn ipv4(&mut self, port: usize, a: u8, b: u8, content: &[u8]) {
        let Some(([protocol, high, low, repairs], payload)) = split::<4>(content) else { return };
        let field = u16::from_be_bytes([high, low]);
        let (src, dst) = (ADDRESSES[usize::from(b & 7)], ADDRESSES[usize::from(b >> 3 & 7)]);
        let mut payload = payload.to_vec();
        repair(&mut payload, protocol, repairs, src.into(), dst.into());
        let header = ipv4::Repr {
            src,
            dst,
            protocol,
            dscp: 0,
            ecn: 0,
            identification: u16::from(a >> 1),
            dont_fragment: field & 0x4000 != 0,
            more_fragments: field & 0x2000 != 0,
            fragment_offset: field << 3,
            ttl: 64,
            payload_len: payload.len(),
        };
        let mut packet = vec![0; ipv4::HEADER_LEN];
        header.emit(&mut ipv4::Packet::new_unchecked(&mut packet[..]));
        packet.append(&mut payload);
        self.frame(port, MACS[port], EtherType::Ipv4, &packet);
    }

    fn ipv6(&mut self, a: u8, b: u8, content: &[u8]) {
        let mut payload = content.to_vec();
        repair(&mut payload, a, b, THEIR_V6.into(), OWN_V6.into());
        let header = ipv6::Repr {
            src: THEIR_V6,
            dst: OWN_V6,
            next_header: a,
            dscp: 0,
            ecn: 0,
            flow_label: 0,
            hop_limit: 255,
            payload_len: payload.len(),
        };
        let mut packet = vec![0; ipv6::HEADER_LEN];
        header.emit(&mut ipv6::Packet::new_unchecked(&mut packet[..]));
        packet.append(&mut payload);
        self.frame(0, MACS[0], EtherType::Ipv6, &packet);
    }

    /// An IKE message of ours, up to what needs a hundred fragments.
    fn send(&mut self, a: u8, b: u8, content: &[u8]) {
        let local = SocketAddr::from((ADDRESSES[usize::from(a & 7)], if a & 8 == 0 { 500 } else { 4500 }));
        let remote = SocketAddr::from((ADDRESSES[usize::from(b & 7)], 500));
        let payload = content.repeat(1 + usize::from(b >> 3));
        self.stack.send_datagram(self.now, local, remote, &payload);
    }

    fn command(&mut self, a: u8, b: u8) {
        match a % 4 {
            0 => self.is_owned = self.stack.own_dvipa(self.now, DVIPA.into()),
            1 => {
                self.stack.disown_dvipa(DVIPA.into());
                self.is_owned = false;
            }
            2 => self.stack.link_changed(self.now, PortId(u16::from(b % 3)), b < 128),
            _ => {
                let _ =
                    self.stack.resolve(self.now, PortId(u16::from(b & 1)), ADDRESSES[usize::from(b >> 1 & 7)].into());
            }
        }
    }

    /// From a millisecond to some minutes, in the steps that the stack asks for.
    fn pass(&mut self, a: u8, b: u8) {
        let end = self.now + Duration::from_millis(u64::from(a) << (b % 12));
        for _ in 0..64 {
            let Some(next) = self.stack.poll_timeout().filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
            let next = self.stack.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "what is due was not done");
        }
        self.now = end;
        self.stack.handle_timeout(self.now);
    }

    /// Packets that wait for a neighbour may leave after their DVIPA was given up, so that one counts here always; ARP
    /// is judged more strictly.
    fn is_ours(&self, address: IpAddr) -> bool {
        address == ADDRESSES[0] || address == ADDRESSES[1] || address == OWN_V6 || address == DVIPA
    }

    fn drain(&mut self) {
        while let Some((port, frame)) = self.stack.poll_transmit() {
            self.check_frame(usize::from(port.0), &frame);
        }
        while let Some(datagram) = self.stack.poll_datagram() {
            assert!(matches!(datagram.local.port(), 500 | 4500));
            assert!(!self.is_ours(datagram.remote.ip()), "from ourselves");
        }
        while self.stack.poll_neighbour().is_some() {}
        while self.stack.poll_event().is_some() {}
    }

    /// What is sent is sound and in our own name.
    fn check_frame(&self, port: usize, frame: &[u8]) {
        let view = ethernet::Packet::new_checked(frame).expect("a whole header");
        let header = ethernet::Repr::parse(&view).expect("one tag at most");
        assert_eq!((header.src, header.vlan), (MACS[port], VLANS[port].map(VlanTag::new)));
        match header.ether_type {
            EtherType::Arp => self.check_arp(port, header.dst, view.payload()),
            EtherType::Ipv4 => {
                let packet = ipv4::Packet::new_checked(view.payload()).expect("a whole packet");
                assert!(packet.verify_checksum() && packet.total_len() <= usize::from(MTUS[port]));
                assert!(self.is_ours(packet.src().into()), "{} is not ours", packet.src());
            }
            EtherType::Ipv6 => {
                let packet = ipv6::Packet::new_checked(view.payload()).expect("a whole packet");
                assert!(packet.total_len() <= usize::from(MTUS[port]) && self.is_ours(packet.src().into()));
            }
            EtherType::Other(other) => panic!("sent EtherType {other:#x}"),
        }
    }

    fn check_arp(&self, port: usize, dst: MacAddress, payload: &[u8]) {
        let packet = arp::Packet::new_checked(payload).expect("a whole ARP packet");
        let repr = arp::Repr::parse(&packet).expect("a request or a reply");
        assert_eq!(repr.sender_mac, MACS[port]);
        assert!(dst.is_broadcast() || dst.is_unicast());
        if repr.sender_ip == DVIPA {
            // Announced or answered for by its owner on its port; never the sender of a question (DESIGN §2).
            assert!(self.is_owned && port == 0);
            assert!(repr.operation == arp::Operation::Reply || repr.target_ip == DVIPA);
        } else {
            assert!(repr.sender_ip == ADDRESSES[port] || repr.sender_ip.is_unspecified());
        }
    }
}

/// Lengths and checksums that most mutations break, as far as the input wants them right.
fn repair(payload: &mut [u8], protocol: u8, repairs: u8, src: IpAddr, dst: IpAddr) {
    match protocol {
        protocol::UDP if payload.len() >= udp::HEADER_LEN => {
            let len = payload.len() as u16;
            let mut packet = udp::Packet::new_unchecked(payload);
            if repairs & 2 != 0 {
                packet.set_dst_port(if repairs & 4 == 0 { 500 } else { 4500 });
            }
            if repairs & 1 != 0 {
                packet.set_len(len);
                packet.fill_checksum(src, dst);
            }
        }
        protocol::ICMP if repairs & 1 != 0 && payload.len() >= icmp::HEADER_LEN => {
            icmp::Packet::new_unchecked(payload).fill_checksum_v4();
        }
        protocol::ICMPV6 if repairs & 1 != 0 && payload.len() >= icmp::HEADER_LEN => {
            if let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) {
                icmp::Packet::new_unchecked(payload).fill_checksum_v6(src, dst);
            }
        }
        _ => {}
    }
}
