//! ICMP errors about packet sizes: building those that we owe, and reading those that reach us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{Fragment, flow, icmp, ipv4, ipv6, protocol};

use super::port::is_host_address;

/// Longest ICMP error for IPv4, its own headers included (RFC 1812 §4.3.2.3).
const ERROR_MAX_V4: usize = 576;
/// Longest ICMP error for IPv6 (RFC 4443 §2.4).
const ERROR_MAX_V6: usize = 1_280;
/// Time to live of what we send.
const TTL: u8 = 64;

/// A router on the way says that packets between two addresses are too big. It can be forged by anyone: whoever
/// believes it has to find the quoted packet's connection or SA first, and to keep to floors (576, 1280).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// Who says so.
    pub reporter: IpAddr,
    /// Source of the packet that was too big: an address of ours.
    pub local: IpAddr,
    /// Its destination.
    pub remote: IpAddr,
    /// What it carried.
    pub protocol: u8,
    /// The first 8 bytes behind its IP header: ESP's SPI and sequence number, or UDP's ports.
    pub leading: [u8; 8],
    /// Largest packet that the router can forward, in bytes; 0 from one that does not tell (RFC 1191 §5).
    pub mtu_bytes: u32,
}

/// Builds the ICMP error that tells the sender of `offending` to send packets of at most `mtu_bytes`: "fragmentation
/// needed" for IPv4 (RFC 792, RFC 1191), "packet too big" for IPv6 (RFC 4443 §3.2). `source` speaks, and must be of the
/// same family. The result is a whole IP packet.
///
/// `None` where no error may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4): about another error, a fragment that is not the
/// first, a packet from or to a group, an IPv4 packet that may be fragmented, or something that is no IP packet.
#[must_use]
pub fn too_big(source: IpAddr, offending: &[u8], mtu_bytes: u16) -> Option<Vec<u8>> {
    match source {
        IpAddr::V4(source) => fragmentation_needed(source, offending, mtu_bytes),
        IpAddr::V6(source) => packet_too_big(source, offending, mtu_bytes),
    }
}

fn fragmentation_needed(source: Ipv4Addr, offending: &[u8], mtu_bytes: u16) -> Option<Vec<u8>> {
    let packet = ipv4::Packet::new_prefix(offending).ok()?;
    let is_error = packet.protocol() == protocol::ICMP
        && !matches!(
            packet.payload().first(),
            Some(&(icmp::v4::TYPE_ECHO_REPLY | icmp::v4::TYPE_ECHO_REQUEST | 13 | 14))
        );
    let hosts = is_host_address(packet.src().into()) && is_host_address(packet.dst().into());
    if is_error || !hosts || !packet.dont_fragment() || packet.fragment() == Fragment::Later {
        return None;
    }
    let reason = icmp::v4::Unreachable::FragmentationNeeded { next_hop_mtu_bytes: mtu_bytes };
    let quoted = quote(offending, packet.total_len(), ERROR_MAX_V4 - ipv4::HEADER_LEN - icmp::HEADER_LEN);
    let message = icmp::v4::Repr::DestinationUnreachable { reason, quoted };
    let header = ipv4::Repr {
        src: source,
        dst: packet.src(),
        protocol: protocol::ICMP,
        // Internetwork control (RFC 1812 §4.3.2.5).
        dscp: 48,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: TTL,
        payload_len: message.buffer_len(),
    };
    let mut bytes = vec![0; ipv4::HEADER_LEN + message.buffer_len()];
    header.emit(&mut ipv4::Packet::new_unchecked(&mut bytes[..]));
    message.emit(&mut icmp::Packet::new_unchecked(&mut bytes[ipv4::HEADER_LEN..]));
    Some(bytes)
}

fn packet_too_big(source: Ipv6Addr, offending: &[u8], mtu_bytes: u16) -> Option<Vec<u8>> {
    let packet = ipv6::Packet::new_prefix(offending).ok()?;
    let upper = packet.upper_layer().ok()?;
    let is_error = upper.protocol == protocol::ICMPV6 && offending.get(upper.offset).is_none_or(|&kind| kind < 128);
    let hosts = is_host_address(packet.src().into()) && is_host_address(packet.dst().into());
    if is_error || !hosts || upper.fragment == Fragment::Later {
        return None;
    }
    let quoted = quote(offending, packet.total_len(), ERROR_MAX_V6 - ipv6::HEADER_LEN - icmp::HEADER_LEN);
    let message = icmp::v6::Repr::PacketTooBig { next_hop_mtu_bytes: mtu_bytes.into(), quoted };
    let header = ipv6::Repr {
        src: source,
        dst: packet.src(),
        next_header: protocol::ICMPV6,
        dscp: 48,
        ecn: 0,
        flow_label: 0,
        hop_limit: TTL,
        payload_len: message.buffer_len(),
    };
    let mut bytes = vec![0; ipv6::HEADER_LEN + message.buffer_len()];
    header.emit(&mut ipv6::Packet::new_unchecked(&mut bytes[..]));
    let body = &mut bytes[ipv6::HEADER_LEN..];
    message.emit(source, packet.src(), &mut icmp::Packet::new_unchecked(body));
    Some(bytes)
}

/// The beginning of a packet, without what stands behind its own end.
fn quote(offending: &[u8], total_len: usize, max: usize) -> &[u8] {
    &offending[..offending.len().min(total_len).min(max)]
}

/// Reads a "fragmentation needed" or "packet too big" out of an ICMP message whose checksum is right.
pub fn read_path_mtu(reporter: IpAddr, message: &[u8]) -> Option<PathMtu> {
    let packet = icmp::Packet::new_checked(message).ok()?;
    let (mtu_bytes, quoted) = match reporter {
        IpAddr::V4(_) => match icmp::v4::Repr::parse(&packet).ok()? {
            icmp::v4::Repr::DestinationUnreachable {
                reason: icmp::v4::Unreachable::FragmentationNeeded { next_hop_mtu_bytes },
                quoted,
            } => (next_hop_mtu_bytes.into(), quoted),
            icmp::v4::Repr::DestinationUnreachable { .. }
            | icmp::v4::Repr::TimeExceeded { .. }
            | icmp::v4::Repr::EchoRequest { .. }
            | icmp::v4::Repr::EchoReply { .. } => return None,
        },
        IpAddr::V6(_) => match icmp::v6::Repr::parse(&packet).ok()? {
            icmp::v6::Repr::PacketTooBig { next_hop_mtu_bytes, quoted } => (next_hop_mtu_bytes, quoted),
            icmp::v6::Repr::DestinationUnreachable { .. }
            | icmp::v6::Repr::TimeExceeded { .. }
            | icmp::v6::Repr::ParameterProblem { .. }
            | icmp::v6::Repr::EchoRequest { .. }
            | icmp::v6::Repr::EchoReply { .. } => return None,
        },
    };
    let inner = flow::parse_prefix(quoted).ok()?;
    let leading = quoted.get(inner.header_len..)?.first_chunk()?;
    Some(PathMtu {
        reporter,
        local: inner.flow.src,
        remote: inner.flow.dst,
        protocol: inner.flow.protocol,
        leading: *leading,
        mtu_bytes,
    })
}
