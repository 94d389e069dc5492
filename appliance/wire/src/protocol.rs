//! IP protocol numbers, which are IPv6 Next Header values too (IANA "Assigned Internet Protocol Numbers").

/// IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// IPv4 in IP: what ESP's Next Header says of an inner IPv4 packet.
pub const IPV4: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP.
pub const DCCP: u8 = 33;
/// IPv6 in IP: what ESP's Next Header says of an inner IPv6 packet.
pub const IPV6: u8 = 41;
/// IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// GRE.
pub const GRE: u8 = 47;
/// ESP.
pub const ESP: u8 = 50;
/// AH.
pub const AH: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows; in ESP, a dummy packet (RFC 4303 §2.6).
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6 destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Whether a protocol's header begins with a source and a destination port of 16 bits each.
#[inline]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

/// How many bytes of upper-layer header a first fragment or whole packet must hold at least, for the protocols whose
/// ports this crate reads; 0 for all others.
#[inline]
#[must_use]
pub const fn min_header_len(protocol: u8) -> usize {
    match protocol {
        TCP => 20,
        UDP | UDP_LITE => 8,
        DCCP | SCTP => 12,
        _ => 0,
    }
}
