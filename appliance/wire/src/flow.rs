//! Which connection a packet belongs to.
//!
//! [`parse_inner`] reads one inner IP packet, as it comes out of ESP or off the inside port. [`parse_prefix`] reads the
//! same from its first bytes only, for a peek or for what an ICMP error quotes. [`FlowKey::symmetric_hash`] gives both
//! directions of a connection the same number, so that one core, and one target, owns both.
//!
//! Neither parser checks a checksum: what ESP authenticated needs none, and what only steers must not cost one.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::u16_at;
use crate::siphash::siphash;
use crate::{Error, Result, ipv4, ipv6, protocol, tcp};

pub use crate::Fragment;
pub use crate::tcp::Flags as TcpFlags;

/// The 5-tuple of a connection. Ports are 0 where the protocol has none, and in later fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Protocol of the upper layer; see [`crate::protocol`].
    pub protocol: u8,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// The secret that keys [`FlowKey::symmetric_hash`]: fresh from a random source at each start of the process, so that
/// nobody outside can aim flows at one core or one bucket. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowSeed([u64; 2]);

impl FlowSeed {
    /// Takes 16 random bytes.
    #[inline]
    #[must_use]
    pub const fn new(random: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(random);
        Self([bits as u64, (bits >> 64) as u64])
    }
}

impl fmt::Debug for FlowSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowSeed(..)")
    }
}

impl FlowKey {
    /// The key of the packets that answer: source and destination change places.
    #[inline]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, protocol: self.protocol, src_port: self.dst_port, dst_port: self.src_port }
    }

    /// A keyed hash that is the same for a flow and its reverse: SipHash-1-3 over the lower end, the higher end, the
    /// ports in the same order, and the protocol.
    #[inline]
    #[must_use]
    pub fn symmetric_hash(&self, seed: &FlowSeed) -> u64 {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.hash_v4(src, dst, seed),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.hash_v6(src, dst, seed),
            // No packet has ends of two families, but the type can say it, and the hash must stay symmetric.
            (IpAddr::V4(src), IpAddr::V6(dst)) => self.hash_v6(src.to_ipv6_mapped(), dst, seed),
            (IpAddr::V6(src), IpAddr::V4(dst)) => self.hash_v6(src, dst.to_ipv6_mapped(), seed),
        }
    }

    /// 13 bytes: two addresses in the first word; ports, protocol and the length in the last.
    #[inline]
    fn hash_v4(&self, src: Ipv4Addr, dst: Ipv4Addr, seed: &FlowSeed) -> u64 {
        let src = u64::from(src.to_bits()) << 16 | u64::from(self.src_port);
        let dst = u64::from(dst.to_bits()) << 16 | u64::from(self.dst_port);
        let (low, high) = if src <= dst { (src, dst) } else { (dst, src) };
        let addresses = (low >> 16) << 32 | high >> 16;
        siphash::<1, 3>(seed.0, &[addresses], self.last_word(low as u16, high as u16, 13))
    }

    /// 37 bytes: two addresses in four words; ports, protocol and the length in the last.
    #[inline]
    fn hash_v6(&self, src: Ipv6Addr, dst: Ipv6Addr, seed: &FlowSeed) -> u64 {
        let src = (src.to_bits(), self.src_port);
        let dst = (dst.to_bits(), self.dst_port);
        let (low, high) = if src <= dst { (src, dst) } else { (dst, src) };
        let words = [(low.0 >> 64) as u64, low.0 as u64, (high.0 >> 64) as u64, high.0 as u64];
        siphash::<1, 3>(seed.0, &words, self.last_word(low.1, high.1, 37))
    }

    #[inline]
    fn last_word(&self, low_port: u16, high_port: u16, len: u64) -> u64 {
        len << 56 | u64::from(self.protocol) << 32 | u64::from(low_port) << 16 | u64::from(high_port)
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct End(IpAddr, u16);
        impl fmt::Display for End {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match (self.0, self.1) {
                    (address, 0) => write!(f, "{address}"),
                    (IpAddr::V4(address), port) => write!(f, "{address}:{port}"),
                    (IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
                }
            }
        }
        let (src, dst) = (End(self.src, self.src_port), End(self.dst, self.dst_port));
        match self.protocol {
            protocol::TCP => write!(f, "tcp {src} -> {dst}"),
            protocol::UDP => write!(f, "udp {src} -> {dst}"),
            protocol::ICMP => write!(f, "icmp {src} -> {dst}"),
            protocol::ICMPV6 => write!(f, "ipv6-icmp {src} -> {dst}"),
            other => write!(f, "protocol {other} {src} -> {dst}"),
        }
    }
}

/// What the headers of one inner IP packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// The connection.
    pub flow: FlowKey,
    /// Length of the packet in bytes, as its IP header states. What follows in the bytes that were parsed is padding
    /// (Ethernet's, or traffic flow confidentiality of RFC 4303 §2.7) and must not be delivered.
    pub total_len: usize,
    /// Where the upper layer begins, in bytes: the IP header with its options or extension headers.
    pub header_len: usize,
    /// Which part of a packet this is.
    pub fragment: Fragment,
    /// The TCP flags, if this is TCP, not a later fragment, and the bytes reach so far.
    pub tcp_flags: Option<TcpFlags>,
}

/// How much of the packet the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Prefix,
}

/// Reads one IPv4 or IPv6 packet that lies in `bytes` as a whole, possibly with padding behind it.
///
/// # Errors
/// `Version` if the version is neither 4 nor 6; `Truncated` if the bytes end before the length that the IP header
/// states; `Malformed` if headers contradict each other or the packet ends within its upper-layer header, as tiny
/// fragments do (RFC 1858); `SourceRouted`.
#[inline]
pub fn parse_inner(bytes: &[u8]) -> Result<Inner> {
    parse(bytes, Extent::Whole)
}

/// Reads the beginning of an IPv4 or IPv6 packet: as [`parse_inner`], but the packet may go on beyond `bytes`.
///
/// All headers up to the ports must be there; TCP flags are reported if they are. What ICMP errors quote is enough.
///
/// # Errors
/// As [`parse_inner`], with `Truncated` if the bytes end before the ports.
#[inline]
pub fn parse_prefix(bytes: &[u8]) -> Result<Inner> {
    parse(bytes, Extent::Prefix)
}

#[inline]
fn parse(bytes: &[u8], extent: Extent) -> Result<Inner> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_v4(bytes, extent),
        Some(6) => parse_v6(bytes, extent),
        Some(_other) => Err(Error::Version),
        None => Err(Error::Truncated),
    }
}

#[inline]
fn parse_v4(bytes: &[u8], extent: Extent) -> Result<Inner> {
    let packet = match extent {
        Extent::Whole => ipv4::Packet::new_checked(bytes)?,
        Extent::Prefix => ipv4::Packet::new_prefix(bytes)?,
    };
    let upper = Upper {
        protocol: packet.protocol(),
        offset: packet.header_len(),
        total_len: packet.total_len(),
        fragment: packet.fragment(),
        fragment_offset: packet.fragment_offset(),
    };
    if upper.offset > ipv4::HEADER_LEN {
        packet.check_options()?;
    }
    // A reassembled packet cannot be longer than its length field can say.
    if usize::from(upper.fragment_offset) + upper.total_len > usize::from(u16::MAX) {
        return Err(Error::Malformed);
    }
    let seen = upper.read(bytes, extent)?;
    Ok(upper.inner(IpAddr::V4(packet.src()), IpAddr::V4(packet.dst()), seen))
}

#[inline]
fn parse_v6(bytes: &[u8], extent: Extent) -> Result<Inner> {
    let packet = match extent {
        Extent::Whole => ipv6::Packet::new_checked(bytes)?,
        Extent::Prefix => ipv6::Packet::new_prefix(bytes)?,
    };
    let ipv6::UpperLayer { protocol, offset, fragment, fragment_offset } = packet.upper_layer()?;
    let upper = Upper { protocol, offset, total_len: packet.total_len(), fragment, fragment_offset };
    let seen = upper.read(bytes, extent)?;
    Ok(upper.inner(IpAddr::V6(packet.src()), IpAddr::V6(packet.dst()), seen))
}

/// The upper layer, found but not yet read. Plain numbers only: the addresses, wide and unaligned, go straight from the
/// packet into the result.
struct Upper {
    protocol: u8,
    offset: usize,
    total_len: usize,
    fragment: Fragment,
    fragment_offset: u16,
}

/// What the upper-layer header says.
#[derive(Default)]
struct Seen {
    src_port: u16,
    dst_port: u16,
    tcp_flags: Option<TcpFlags>,
}

impl Upper {
    #[inline]
    fn read(&self, bytes: &[u8], extent: Extent) -> Result<Seen> {
        match self.fragment {
            // RFC 1858 §3.2.1, RFC 3128: a fragment that begins within the TCP header exists only to rewrite flags
            // that a filter has already let through.
            Fragment::Later
                if self.protocol == protocol::TCP && usize::from(self.fragment_offset) < tcp::HEADER_LEN =>
            {
                Err(Error::Malformed)
            }
            Fragment::Later => Ok(Seen::default()),
            Fragment::Whole | Fragment::First if !protocol::has_ports(self.protocol) => Ok(Seen::default()),
            Fragment::Whole | Fragment::First => self.read_ports(bytes, extent),
        }
    }

    #[inline]
    fn read_ports(&self, bytes: &[u8], extent: Extent) -> Result<Seen> {
        // What the packet itself says must have room for the header, however few of its bytes are here.
        if self.total_len < self.offset + protocol::min_header_len(self.protocol) {
            return Err(Error::Malformed);
        }
        let upper = bytes.get(self.offset..).unwrap_or_default();
        if upper.len() < 4 {
            return Err(Error::Truncated);
        }
        let seen = Seen { src_port: u16_at(upper, 0), dst_port: u16_at(upper, 2), tcp_flags: None };
        if self.protocol != protocol::TCP {
            return Ok(seen);
        }
        let Some(&[offset, flags]) = upper.get(12..14).and_then(|pair| pair.first_chunk::<2>()) else {
            return if extent == Extent::Prefix { Ok(seen) } else { Err(Error::Truncated) };
        };
        let tcp_header_len = usize::from(offset >> 4) * 4;
        let fits = self.fragment == Fragment::First || self.total_len >= self.offset + tcp_header_len;
        if tcp_header_len < tcp::HEADER_LEN || !fits {
            return Err(Error::Malformed);
        }
        Ok(Seen { tcp_flags: Some(TcpFlags::from_bits(flags)), ..seen })
    }

    #[inline]
    fn inner(&self, src: IpAddr, dst: IpAddr, seen: Seen) -> Inner {
        let Seen { src_port, dst_port, tcp_flags } = seen;
        Inner {
            flow: FlowKey { src, dst, protocol: self.protocol, src_port, dst_port },
            total_len: self.total_len,
            header_len: self.offset,
            fragment: self.fragment,
            tcp_flags,
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
