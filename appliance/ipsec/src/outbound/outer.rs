//! The headers before ESP: IP, and UDP where a NAT stands between.
//!
//! What is the same for every packet of an SA is prepared once, its checksum included.

use core::net::{IpAddr, SocketAddr};

use wire::checksum::Sum;
use wire::protocol;

use crate::sa::{Encapsulation, SaParameters};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const OUTER_LEN_MAX: usize = IPV6_LEN + UDP_LEN;

/// What the outer header's don't-fragment bit is to be (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DontFragment {
    /// The inner packet's; set for inner IPv6, which no router may fragment.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Never set.
    Clear,
}

/// What the outer header's differentiated services are to be (RFC 4301 §5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// The inner packet's, so that the network treats it alike.
    #[default]
    Copy,
    /// This one, so that the network learns nothing. The low six bits count.
    Fixed(u8),
}

/// How outer headers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterPolicy {
    /// The don't-fragment bit of outer IPv4.
    pub dont_fragment: DontFragment,
    /// Differentiated services. Congestion marks are always copied (RFC 6040 §4.1, normal mode).
    pub dscp: Dscp,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
}

impl Default for OuterPolicy {
    /// Copy both, and live for 64 hops.
    fn default() -> Self {
        Self { dont_fragment: DontFragment::Copy, dscp: Dscp::Copy, hop_limit: 64 }
    }
}

/// What an outer header takes over from the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerTraits {
    /// IPv4 type of service or IPv6 traffic class.
    pub traffic_class: u8,
    /// Nobody may fragment the packet.
    pub dont_fragment: bool,
}

impl InnerTraits {
    /// Reads them off an IPv4 or IPv6 packet; whatever else it is has none.
    #[must_use]
    #[inline]
    pub fn of(packet: &[u8]) -> Self {
        match packet {
            [first, second, _, _, _, _, flags, ..] if first >> 4 == 4 => {
                Self { traffic_class: *second, dont_fragment: flags & 0x40 != 0 }
            }
            [first, second, ..] if first >> 4 == 6 => {
                Self { traffic_class: first << 4 | second >> 4, dont_fragment: true }
            }
            _neither => Self { traffic_class: 0, dont_fragment: false },
        }
    }
}

/// The outer headers of one SA, ready but for what differs from packet to packet.
#[derive(Clone, Debug)]
pub struct OuterHeader {
    template: [u8; OUTER_LEN_MAX],
    /// The sum over the template's IPv4 header, in which everything that differs is zero.
    constant_sum: Sum,
    len: u8,
    is_ipv4: bool,
    is_udp: bool,
    policy: OuterPolicy,
}

/// A packet of this length cannot be described by its outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} bytes make no packet with these outer headers")]
pub struct OuterLength {
    /// Bytes, outer headers included.
    pub found: usize,
}

/// Bytes of the outer headers between these addresses.
#[must_use]
#[inline]
pub const fn outer_len(remote: IpAddr, encapsulation: Encapsulation) -> usize {
    let ip_len = if remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    match encapsulation {
        Encapsulation::None => ip_len,
        Encapsulation::Udp { .. } => ip_len + UDP_LEN,
    }
}

impl OuterHeader {
    /// The headers of an SA towards its peer.
    #[must_use]
    pub fn new(parameters: &SaParameters, policy: OuterPolicy) -> Self {
        let ports = match parameters.encapsulation {
            Encapsulation::None => None,
            Encapsulation::Udp { local_port, remote_port } => Some((local_port, remote_port)),
        };
        Self::between(parameters.dvipa, parameters.remote, ports, policy)
    }

    fn between(local: IpAddr, remote: IpAddr, ports: Option<(u16, u16)>, policy: OuterPolicy) -> Self {
        let mut template = [0; OUTER_LEN_MAX];
        let next = if ports.is_some() { protocol::UDP } else { protocol::ESP };
        let (is_ipv4, ip_len) = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                (template[0], template[8], template[9]) = (0x45, policy.hop_limit, next);
                template[12..16].copy_from_slice(&local.octets());
                template[16..20].copy_from_slice(&remote.octets());
                (true, IPV4_LEN)
            }
            // Validated SAs have addresses of one family; a mixed pair would be mapped.
            (local, remote) => {
                (template[0], template[6], template[7]) = (0x60, next, policy.hop_limit);
                template[8..24].copy_from_slice(&as_v6(local));
                template[24..40].copy_from_slice(&as_v6(remote));
                (false, IPV6_LEN)
            }
        };
        let mut len = ip_len;
        if let Some((local_port, remote_port)) = ports {
            template[len..len + 2].copy_from_slice(&local_port.to_be_bytes());
            template[len + 2..len + 4].copy_from_slice(&remote_port.to_be_bytes());
            len += UDP_LEN;
        }
        let constant_sum = Sum::new().bytes(&template[..IPV4_LEN]);
        Self { template, constant_sum, len: len as u8, is_ipv4, is_udp: ports.is_some(), policy }
    }

    /// The same headers towards another address of the peer, of the same family: a NAT has moved it.
    #[must_use]
    pub fn moved_to(&self, remote: SocketAddr) -> Option<Self> {
        if remote.is_ipv4() != self.is_ipv4 {
            return None;
        }
        let ip_len = if self.is_ipv4 { IPV4_LEN } else { IPV6_LEN };
        let local_port = u16::from_be_bytes([self.template[ip_len], self.template[ip_len + 1]]);
        let ports = self.is_udp.then_some((local_port, remote.port()));
        Some(Self::between(self.local(), remote.ip(), ports, self.policy))
    }

    /// Bytes of all headers before ESP.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether a NAT stands between.
    #[must_use]
    #[inline]
    pub fn is_udp(&self) -> bool {
        self.is_udp
    }

    /// Never: there is always an IP header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the headers in front of a finished ESP packet. `packet` is room for the headers, then ESP.
    ///
    /// `identification` matters only where outer IPv4 may be fragmented. UDP over IPv4 has no checksum (RFC 3948 §2.1),
    /// UDP over IPv6 has one (RFC 8200 §8.1).
    ///
    /// # Errors
    /// [`OuterLength`] if the packet is shorter than the headers or longer than IP can say.
    #[inline]
    pub fn write(&self, packet: &mut [u8], inner: InnerTraits, identification: u16) -> Result<(), OuterLength> {
        let found = packet.len();
        if found < self.len() {
            return Err(OuterLength { found });
        }
        packet[..self.len()].copy_from_slice(&self.template[..self.len()]);
        let traffic_class = match self.policy.dscp {
            Dscp::Copy => inner.traffic_class,
            Dscp::Fixed(dscp) => dscp << 2 | inner.traffic_class & 3,
        };
        if self.is_ipv4 {
            let dont_fragment = match self.policy.dont_fragment {
                DontFragment::Copy => inner.dont_fragment,
                DontFragment::Set => true,
                DontFragment::Clear => false,
            };
            self.write_v4(packet, traffic_class, dont_fragment, identification)
        } else {
            self.write_v6(packet, traffic_class)
        }
    }

    #[inline]
    fn write_v4(&self, packet: &mut [u8], class: u8, dont_fragment: bool, id: u16) -> Result<(), OuterLength> {
        let found = packet.len();
        let total_len = u16::try_from(found).map_err(|_| OuterLength { found })?;
        let flags = u16::from(dont_fragment) << 14;
        let sum = self.constant_sum.word(u16::from(class)).word(total_len).word(id).word(flags);
        packet[1] = class;
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
        if self.is_udp {
            let udp_len = total_len - IPV4_LEN as u16;
            packet[IPV4_LEN + 4..IPV4_LEN + 6].copy_from_slice(&udp_len.to_be_bytes());
        }
        Ok(())
    }

    fn write_v6(&self, packet: &mut [u8], class: u8) -> Result<(), OuterLength> {
        let found = packet.len();
        let payload_len = u16::try_from(found - IPV6_LEN).map_err(|_| OuterLength { found })?;
        packet[0] |= class >> 4;
        packet[1] = class << 4;
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        if self.is_udp {
            let (ip, udp) = packet.split_at_mut(IPV6_LEN);
            udp[4..6].copy_from_slice(&payload_len.to_be_bytes());
            // Next header and length as a pseudo-header has them, then its addresses.
            let sum = Sum::new().word(u16::from(protocol::UDP)).word(payload_len).bytes(&ip[8..]).bytes(udp);
            let checksum = match sum.checksum() {
                0 => u16::MAX,
                other => other,
            };
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(())
    }

    fn local(&self) -> IpAddr {
        let bytes = |at: usize, len: usize| self.template[at..at + len].iter();
        if self.is_ipv4 {
            let mut octets = [0; 4];
            octets.iter_mut().zip(bytes(12, 4)).for_each(|(to, from)| *to = *from);
            octets.into()
        } else {
            let mut octets = [0; 16];
            octets.iter_mut().zip(bytes(8, 16)).for_each(|(to, from)| *to = *from);
            octets.into()
        }
    }
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
