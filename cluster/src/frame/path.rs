//! The headers around a frame: how they get in front of a payload, and off it again.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use ipsec::ecn::Ecn;
use wire::gre::{self, PROTOCOL_LOCAL_EXPERIMENTAL_1, UDP_PORT};
use wire::{Error, Fragment, Result, ipv4, ipv6, protocol, udp};

use super::{HEADER_LEN, Packet, Repr};
use crate::fabric::Encapsulation;

/// Source ports of GRE in UDP are ephemeral ones; the rest of them is the flow's hash (RFC 8086 §3.2.1).
const UDP_SRC_PORT_BASE: u16 = 0xc000;
const UDP_SRC_PORT_MASK: u16 = 0x3fff;

const GRE: gre::Repr = gre::Repr { protocol_type: PROTOCOL_LOCAL_EXPERIMENTAL_1 };

/// Enough for any trusted wire; frames are not routed.
const TTL_HOPS: u8 = 64;

/// How many bytes stand in front of a payload between members with addresses like this one: the outer headers and ours.
#[must_use]
pub const fn overhead(encapsulation: Encapsulation, members: IpAddr) -> usize {
    let ip = match members {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    let udp = match encapsulation {
        Encapsulation::Gre => 0,
        Encapsulation::GreInUdp => udp::HEADER_LEN,
    };
    ip + udp + gre::HEADER_LEN + HEADER_LEN
}

/// From one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// How frames travel.
    pub encapsulation: Encapsulation,
    /// Our address on the trusted port.
    pub src: IpAddr,
    /// The other member's, of the same family.
    pub dst: IpAddr,
}

impl Path {
    /// How many bytes [`Path::write`] puts in front of a payload.
    #[must_use]
    pub const fn overhead(&self) -> usize {
        overhead(self.encapsulation, self.dst)
    }

    /// Writes all headers into the first [`Path::overhead`] bytes of `packet`; behind them stands the payload, which is
    /// not touched. The outer header takes the class and the congestion mark of the packet that it carries.
    ///
    /// # Errors
    /// With nothing written: `Truncated` if `packet` has no room for the headers; `Malformed` if it is longer than IP can
    /// say, or if the two addresses are of different families.
    pub fn write(&self, repr: &Repr, packet: &mut [u8]) -> Result<()> {
        let overhead = self.overhead();
        let payload = packet.get(overhead..).ok_or(Error::Truncated)?;
        let class = if repr.kind.carries_packet() { traffic_class(payload) } else { 0 };
        if packet.len() > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.write_v4(src, dst, class, packet),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.write_v6(src, dst, class, repr.flow_hash, packet),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Err(Error::Malformed),
        }
        let gre = overhead - HEADER_LEN - gre::HEADER_LEN;
        GRE.emit(&mut gre::Packet::new_unchecked(&mut packet[gre..]));
        repr.emit(&mut Packet::new_unchecked(&mut packet[overhead - HEADER_LEN..overhead]));
        match self.encapsulation {
            Encapsulation::Gre => {}
            Encapsulation::GreInUdp => self.write_udp(repr.flow_hash, &mut packet[gre - udp::HEADER_LEN..]),
        }
        Ok(())
    }

    fn carried_protocol(&self) -> u8 {
        match self.encapsulation {
            Encapsulation::Gre => protocol::GRE,
            Encapsulation::GreInUdp => protocol::UDP,
        }
    }

    fn write_v4(&self, src: Ipv4Addr, dst: Ipv4Addr, class: u8, packet: &mut [u8]) {
        let repr = ipv4::Repr {
            src,
            dst,
            protocol: self.carried_protocol(),
            dscp: class >> 2,
            ecn: class & 3,
            // It is never fragmented, so its identification means nothing (RFC 6864 §4.1).
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: TTL_HOPS,
            payload_len: packet.len() - ipv4::HEADER_LEN,
        };
        repr.emit(&mut ipv4::Packet::new_unchecked(packet));
    }

    fn write_v6(&self, src: Ipv6Addr, dst: Ipv6Addr, class: u8, flow_hash: u32, packet: &mut [u8]) {
        let repr = ipv6::Repr {
            src,
            dst,
            next_header: self.carried_protocol(),
            dscp: class >> 2,
            ecn: class & 3,
            // What spreads plain GRE over a NIC's queues where there is no port to do it (RFC 6438).
            flow_label: flow_hash & 0xf_ffff,
            hop_limit: TTL_HOPS,
            payload_len: packet.len() - ipv6::HEADER_LEN,
        };
        repr.emit(&mut ipv6::Packet::new_unchecked(packet));
    }

    /// Last of all, since IPv6 wants a checksum over the payload (RFC 8086 §6.2); IPv4 goes without.
    fn write_udp(&self, flow_hash: u32, datagram: &mut [u8]) {
        let repr = udp::Repr {
            src_port: UDP_SRC_PORT_BASE | (flow_hash as u16 & UDP_SRC_PORT_MASK),
            dst_port: UDP_PORT,
            payload_len: datagram.len() - udp::HEADER_LEN,
        };
        let mut datagram = udp::Packet::new_unchecked(datagram);
        repr.emit(&mut datagram);
        if self.src.is_ipv6() {
            datagram.fill_checksum(self.src, self.dst);
        }
    }
}

/// Class and congestion mark of an IP packet, 0 for what is none.
fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, class, ..] if first >> 4 == 4 => *class,
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        _other => 0,
    }
}

/// A frame as it lies in a received IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The outer source address.
    pub src: IpAddr,
    /// The outer destination address.
    pub dst: IpAddr,
    /// The congestion mark that the trusted wire may have made.
    pub ecn: Ecn,
    /// Our header.
    pub repr: Repr,
    /// Where in the IP packet the payload lies. Padding of the link lies behind it.
    pub payload: Range<usize>,
}

/// Why there is no frame in an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFrame {
    /// It is neither GRE nor UDP to port 4754: somebody else's to judge.
    #[error("not a frame")]
    Another,
    /// It should be one and is not.
    #[error("a frame that is {0}")]
    Broken(#[from] Error),
}

/// Finds the frame in an IP packet from the trusted port; both ways of travelling are understood, whichever is
/// configured, so that a cluster can change from one to the other.
///
/// # Errors
/// [`NotAFrame`]. A checksum that is there is verified; over IPv6 it must be there.
pub fn find(packet: &[u8]) -> core::result::Result<Frame, NotAFrame> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => find_v4(packet),
        Some(6) => find_v6(packet),
        Some(_other) => Err(NotAFrame::Another),
        None => Err(NotAFrame::Broken(Error::Truncated)),
    }
}

fn find_v4(packet: &[u8]) -> core::result::Result<Frame, NotAFrame> {
    let ip = ipv4::Packet::new_checked(packet)?;
    let carried = Carried {
        src: IpAddr::V4(ip.src()),
        dst: IpAddr::V4(ip.dst()),
        ecn: Ecn::from_traffic_class(ip.ecn()),
        protocol: ip.protocol(),
        whole: ip.fragment() == Fragment::Whole,
    };
    if carried.may_be_frame() && !ip.verify_checksum() {
        return Err(NotAFrame::Broken(Error::Checksum));
    }
    carried.find(packet, ip.header_len()..ip.total_len())
}

fn find_v6(packet: &[u8]) -> core::result::Result<Frame, NotAFrame> {
    let ip = ipv6::Packet::new_checked(packet)?;
    let carried = Carried {
        src: IpAddr::V6(ip.src()),
        dst: IpAddr::V6(ip.dst()),
        ecn: Ecn::from_traffic_class(ip.ecn()),
        // Members write no extension headers, so what hides behind one is not theirs.
        protocol: ip.next_header(),
        whole: true,
    };
    carried.find(packet, ipv6::HEADER_LEN..ip.total_len())
}

/// What an IP header says of what it carries.
struct Carried {
    src: IpAddr,
    dst: IpAddr,
    ecn: Ecn,
    protocol: u8,
    whole: bool,
}

impl Carried {
    fn may_be_frame(&self) -> bool {
        matches!(self.protocol, protocol::GRE | protocol::UDP)
    }

    /// `at` is inside `packet`: a checked view has said so.
    fn find(self, packet: &[u8], at: Range<usize>) -> core::result::Result<Frame, NotAFrame> {
        if !self.may_be_frame() {
            return Err(NotAFrame::Another);
        }
        let gre = match self.protocol {
            protocol::UDP => self.inside_udp(packet, at)?,
            _gre => at,
        };
        // Frames are sent whole. A fragment of UDP that could be one has shown its port, or is left to others above.
        if !self.whole {
            return Err(NotAFrame::Broken(Error::Malformed));
        }
        let frame = gre::Packet::new_checked(packet.get(gre.clone()).unwrap_or_default()).map_err(Error::from)?;
        if frame.protocol_type() != GRE.protocol_type {
            return Err(NotAFrame::Broken(Error::Unsupported));
        }
        let repr = Repr::parse(&Packet::new_checked(frame.payload())?)?;
        let payload = gre.start + gre::HEADER_LEN + HEADER_LEN..gre.end;
        Ok(Frame { src: self.src, dst: self.dst, ecn: self.ecn, repr, payload })
    }

    /// Where the payload of a datagram to [`UDP_PORT`] lies.
    fn inside_udp(&self, packet: &[u8], at: Range<usize>) -> core::result::Result<Range<usize>, NotAFrame> {
        let bytes = packet.get(at.clone()).unwrap_or_default();
        match bytes.get(2..4) {
            Some(port) if port == UDP_PORT.to_be_bytes() => {}
            Some(_) | None => return Err(NotAFrame::Another),
        }
        if !self.whole {
            return Err(NotAFrame::Broken(Error::Malformed));
        }
        let datagram = udp::Packet::new_checked(bytes)?;
        if !datagram.verify_checksum(self.src, self.dst) {
            return Err(NotAFrame::Broken(Error::Checksum));
        }
        Ok(at.start + udp::HEADER_LEN..at.start + datagram.len())
    }
}
