//! Frames and packets, built header by header.

use std::net::{IpAddr, Ipv4Addr};

use wire::ethernet::{self, EtherType, MacAddress, VlanTag};
use wire::flow::FlowKey;
use wire::tcp::{self, Flags};
use wire::{icmp, ipv4, protocol, udp};

pub const NETWORK_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub const INSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
pub const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xaa]);
pub const WEB_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xbb]);

/// The address that clients connect to.
pub const DVIPA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Another address that the appliance answers for.
pub const OTHER_DVIPA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 81);
/// The appliance's own address on the network port.
pub const NETWORK_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The appliance's own address on the inside port.
pub const INSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The next hop towards clients.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The host behind the inside port that holds the DVIPA.
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// The ends of a conversation, as one of its packets names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub src: Ipv4Addr,
    pub src_port: u16,
    pub dst: Ipv4Addr,
    pub dst_port: u16,
}

impl Flow {
    /// From a client's inner address to the web service.
    pub fn to_web(src: Ipv4Addr, src_port: u16) -> Flow {
        Flow { src, src_port, dst: DVIPA, dst_port: 80 }
    }

    /// The other way round.
    pub fn answer(self) -> Flow {
        Flow { src: self.dst, src_port: self.dst_port, dst: self.src, dst_port: self.src_port }
    }

    pub fn key(self, protocol: u8) -> FlowKey {
        let Flow { src, src_port, dst, dst_port } = self;
        FlowKey { src: src.into(), dst: dst.into(), protocol, src_port, dst_port }
    }

    pub fn tcp(self, flags: Flags, payload: &[u8]) -> Vec<u8> {
        self.tcp_with_mss(flags, None, payload)
    }

    pub fn tcp_with_mss(self, flags: Flags, mss: Option<u16>, payload: &[u8]) -> Vec<u8> {
        ip(ip_header(self.src, self.dst, protocol::TCP), &self.tcp_segment(flags, mss, payload))
    }

    pub fn tcp_segment(self, flags: Flags, mss: Option<u16>, payload: &[u8]) -> Vec<u8> {
        let header = tcp::Repr {
            src_port: self.src_port,
            dst_port: self.dst_port,
            sequence: 0x1000,
            acknowledgement: 0x2000,
            flags,
            window: 0xffff,
            urgent: 0,
            mss,
            window_scale: mss.map(|_| 7),
            sack_permitted: mss.is_some(),
            timestamps: None,
        };
        let mut segment = vec![0; header.buffer_len()];
        segment.extend_from_slice(payload);
        let mut view = tcp::Packet::new_unchecked(&mut segment[..]);
        header.emit(&mut view);
        view.fill_checksum(self.src.into(), self.dst.into());
        segment
    }

    pub fn udp(self, payload: &[u8]) -> Vec<u8> {
        ip(ip_header(self.src, self.dst, protocol::UDP), &self.udp_datagram(payload))
    }

    pub fn udp_datagram(self, payload: &[u8]) -> Vec<u8> {
        let Flow { src_port, dst_port, .. } = self;
        let header = udp::Repr { src_port, dst_port, payload_len: payload.len() };
        let mut datagram = vec![0; header.buffer_len()];
        datagram.extend_from_slice(payload);
        let mut view = udp::Packet::new_unchecked(&mut datagram[..]);
        header.emit(&mut view);
        view.fill_checksum(self.src.into(), self.dst.into());
        datagram
    }

    pub fn echo_request(self, payload: &[u8]) -> Vec<u8> {
        let header = icmp::v4::Repr::EchoRequest { identifier: 7, sequence: 1, data: payload };
        let mut message = vec![0; header.buffer_len()];
        header.emit(&mut icmp::Packet::new_unchecked(&mut message[..]));
        ip(ip_header(self.src, self.dst, protocol::ICMP), &message)
    }
}

/// A plain IPv4 header, to be changed and given to [`ip`].
pub fn ip_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> ipv4::Repr {
    ipv4::Repr {
        src,
        dst,
        protocol,
        dscp: 0,
        ecn: 0,
        identification: 0x4711,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        payload_len: 0,
    }
}

/// An IPv4 packet around `payload`.
pub fn ip(header: ipv4::Repr, payload: &[u8]) -> Vec<u8> {
    ip_with_options(header, &[], payload)
}

/// An IPv4 packet with options (whole words) around `payload`.
pub fn ip_with_options(mut header: ipv4::Repr, options: &[u8], payload: &[u8]) -> Vec<u8> {
    header.payload_len = options.len() + payload.len();
    let mut packet = vec![0; header.buffer_len()];
    packet.extend_from_slice(options);
    packet.extend_from_slice(payload);
    let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
    header.emit(&mut view);
    view.set_version_and_header_len(ipv4::HEADER_LEN + options.len());
    view.fill_checksum();
    packet
}

/// The packet with its IPv4 header changed, its checksum right again.
pub fn changed(mut packet: Vec<u8>, change: impl FnOnce(&mut ipv4::Packet<&mut [u8]>)) -> Vec<u8> {
    let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
    change(&mut view);
    view.fill_checksum();
    packet
}

/// What a router makes of a packet: one hop less to live.
pub fn a_hop_later(packet: &[u8]) -> Vec<u8> {
    changed(packet.to_vec(), |ip| ip.set_ttl(ip.ttl() - 1))
}

/// An IPv4 packet in a frame.
pub fn ether(src: MacAddress, dst: MacAddress, vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { dst, src, vlan: vlan.map(VlanTag::new), ether_type: EtherType::Ipv4 };
    let mut frame = vec![0; header.buffer_len()];
    header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
    frame.extend_from_slice(packet);
    frame
}

/// An IPv4 packet as the next hop towards clients puts it on the network link.
pub fn from_router(packet: &[u8]) -> Vec<u8> {
    ether(ROUTER_MAC, NETWORK_MAC, None, packet)
}

/// The IP packet in a frame, without padding.
pub fn ip_in(frame: &[u8]) -> &[u8] {
    let header_len = ethernet::Packet::new_checked(frame).unwrap().header_len();
    let ip = ipv4::Packet::new_checked(&frame[header_len..]).unwrap();
    assert!(ip.verify_checksum(), "a frame left with a wrong IPv4 checksum");
    &frame[header_len..][..ip.total_len()]
}

/// The TCP segment of an IPv4 packet.
pub fn tcp_of(packet: &[u8]) -> tcp::Packet<&[u8]> {
    let ip = ipv4::Packet::new_checked(packet).unwrap();
    let (src, dst): (IpAddr, IpAddr) = (ip.src().into(), ip.dst().into());
    let segment = tcp::Packet::new_checked(&packet[ip.header_len()..ip.total_len()]).unwrap();
    assert!(segment.verify_checksum(src, dst), "a segment left with a wrong TCP checksum");
    segment
}
