//! IPv6 (RFC 8200): the fixed header, and the walk over extension headers to the upper layer.

use core::net::Ipv6Addr;

use crate::bytes::{array_at, clamped, clamped_mut, put, put_u16, put_u32, u16_at, u32_at};
use crate::{Error, Fragment, Result, protocol};

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// How many extension headers the walk follows before it gives up. RFC 8504 §5.3 lets a host set such a limit; real
/// packets carry one or two.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const FRAGMENT_HEADER_LEN: usize = 8;
const ROUTING_TYPE_SOURCE_ROUTE: u8 = 0;

/// A view of an IPv6 packet. Bytes beyond its payload length are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

/// Where the extension headers of a packet end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer {
    /// The first header that is no extension header, or that this crate does not follow (AH, ESP, No Next Header).
    pub protocol: u8,
    /// Where it begins, in bytes from the start of the IPv6 header.
    pub offset: usize,
    /// Which part of a packet this is. In a [`Fragment::Later`] the bytes at `offset` are not the start of anything, and
    /// `protocol` is what follows the fragment header in the first fragment.
    pub fragment: Fragment,
    /// The fragment offset in bytes; 0 without a fragment header.
    pub fragment_offset: u16,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`HEADER_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a whole packet. A jumbogram (RFC 2675) appears as a packet with no payload.
    ///
    /// # Errors
    /// `Truncated` if fewer bytes are there than header and payload length say; `Version`.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self::new_prefix(buffer)?;
        if packet.buffer.as_ref().len() < packet.total_len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Wraps the beginning of a packet: the fixed header must be complete, the rest may be cut short, as in an ICMP
    /// error or a peek.
    ///
    /// # Errors
    /// `Truncated`, `Version`.
    #[inline]
    pub fn new_prefix(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        if packet.buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if packet.version() != 6 {
            return Err(Error::Version);
        }
        Ok(packet)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Version: 6 in a checked view.
    #[inline]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[0] >> 4
    }

    /// Differentiated services code point, 6 bits (RFC 2474).
    #[inline]
    pub fn dscp(&self) -> u8 {
        (u16_at(self.buffer.as_ref(), 0) >> 6) as u8 & 0x3f
    }

    /// Explicit congestion notification, 2 bits (RFC 3168).
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.buffer.as_ref()[1] >> 4 & 0x03
    }

    /// Flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 0) & 0x000f_ffff
    }

    /// Length of what follows the fixed header in bytes, extension headers included, as stated.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(u16_at(self.buffer.as_ref(), 4))
    }

    /// Length of header and payload in bytes, as stated.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.payload_len()
    }

    /// What follows the fixed header; see [`crate::protocol`].
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.buffer.as_ref()[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.buffer.as_ref()[7]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from(array_at::<16>(self.buffer.as_ref(), 8))
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from(array_at::<16>(self.buffer.as_ref(), 24))
    }

    /// What follows the fixed header, up to the payload length (or to the end of the bytes, in a prefix).
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clamped(self.buffer.as_ref(), HEADER_LEN, self.total_len())
    }

    /// Walks the extension headers to the upper layer.
    ///
    /// # Errors
    /// `Truncated` if a header runs past the bytes of a prefix; `Malformed` if one runs past the payload length, if
    /// hop-by-hop options are not first, if there are two fragment headers or more than [`MAX_EXTENSION_HEADERS`]
    /// headers, or if the fragment would end beyond 65,535 bytes; `SourceRouted` for a type 0 routing header with
    /// segments left.
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer> {
        let direct = UpperLayer {
            protocol: self.next_header(),
            offset: HEADER_LEN,
            fragment: Fragment::Whole,
            fragment_offset: 0,
        };
        if !is_extension_header(direct.protocol) {
            return Ok(direct);
        }
        match walk(self.payload(), direct) {
            // Running off a prefix says nothing about the packet; running off the packet does.
            Err(Error::Truncated) if self.buffer.as_ref().len() >= self.total_len() => Err(Error::Malformed),
            Err(error) => Err(error),
            Ok(upper) => self.check_fragment(upper),
        }
    }

    /// Refuses a fragment that would end beyond the largest packet (RFC 8200 §4.5): reassembly takes out the fragment
    /// header and adds the offset to the payload length.
    fn check_fragment(&self, upper: UpperLayer) -> Result<UpperLayer> {
        let end = usize::from(upper.fragment_offset) + self.payload_len().saturating_sub(FRAGMENT_HEADER_LEN);
        if end > usize::from(u16::MAX) {
            return Err(Error::Malformed);
        }
        Ok(upper)
    }
}

/// Whether the walk follows this header. AH is none of them: what it protects is not for us to read.
#[inline]
const fn is_extension_header(next_header: u8) -> bool {
    matches!(next_header, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION_OPTIONS)
}

/// Walks on from `upper`, the beginning of `payload`. `Truncated` if a header runs past `payload`.
fn walk(payload: &[u8], mut upper: UpperLayer) -> Result<UpperLayer> {
    let mut has_fragment_header = false;
    for count in 0..MAX_EXTENSION_HEADERS {
        let rest = &payload[upper.offset - HEADER_LEN..];
        let header_len = match upper.protocol {
            // RFC 8200 §4.1: hop-by-hop options only directly after the fixed header.
            protocol::HOP_BY_HOP if count > 0 => return Err(Error::Malformed),
            protocol::ROUTING => routing_len(rest)?,
            protocol::FRAGMENT if has_fragment_header => return Err(Error::Malformed),
            protocol::FRAGMENT => {
                has_fragment_header = true;
                let field = u16_at(rest.get(..FRAGMENT_HEADER_LEN).ok_or(Error::Truncated)?, 2);
                upper.fragment_offset = field & 0xfff8;
                upper.fragment = match (upper.fragment_offset, field & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    (1.., _) => Fragment::Later,
                };
                FRAGMENT_HEADER_LEN
            }
            _options => options_len(rest)?,
        };
        upper.protocol = rest[0];
        upper.offset += header_len;
        if upper.fragment == Fragment::Later || !is_extension_header(upper.protocol) {
            return Ok(upper);
        }
    }
    Err(Error::Malformed)
}

/// The length of a header of the common form: next header, length in units of 8 bytes beyond the first 8.
fn options_len(rest: &[u8]) -> Result<usize> {
    let len = 8 + 8 * usize::from(*rest.get(1).ok_or(Error::Truncated)?);
    if rest.len() < len {
        return Err(Error::Truncated);
    }
    Ok(len)
}

fn routing_len(rest: &[u8]) -> Result<usize> {
    let len = options_len(rest)?;
    let (routing_type, segments_left) = (rest[2], rest[3]);
    if routing_type == ROUTING_TYPE_SOURCE_ROUTE && segments_left > 0 {
        return Err(Error::SourceRouted);
    }
    Ok(len)
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets version, DSCP, ECN and flow label, which share the first word.
    #[inline]
    pub fn set_version_class_and_label(&mut self, dscp: u8, ecn: u8, flow_label: u32) {
        let class = u32::from(dscp & 0x3f) << 2 | u32::from(ecn & 0x03);
        put_u32(self.buffer.as_mut(), 0, 6 << 28 | class << 20 | flow_label & 0x000f_ffff);
    }

    /// Sets the payload length in bytes.
    #[inline]
    pub fn set_payload_len(&mut self, payload_len: u16) {
        put_u16(self.buffer.as_mut(), 4, payload_len);
    }

    /// Sets what follows the fixed header.
    #[inline]
    pub fn set_next_header(&mut self, next_header: u8) {
        self.buffer.as_mut()[6] = next_header;
    }

    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.buffer.as_mut()[7] = hop_limit;
    }

    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, src: Ipv6Addr) {
        put(self.buffer.as_mut(), 8, &src.octets());
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, dst: Ipv6Addr) {
        put(self.buffer.as_mut(), 24, &dst.octets());
    }

    /// What follows the fixed header, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let total_len = self.total_len();
        clamped_mut(self.buffer.as_mut(), HEADER_LEN, total_len)
    }
}

/// An IPv6 fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What follows the fixed header.
    pub next_header: u8,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
    /// Explicit congestion notification, 2 bits.
    pub ecn: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Length of what follows in bytes, at most 65,535.
    pub payload_len: usize,
}

impl Repr {
    /// Reads a fixed header.
    ///
    /// # Errors
    /// None today: every checked view has a legal fixed header.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self {
            src: packet.src(),
            dst: packet.dst(),
            next_header: packet.next_header(),
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            flow_label: packet.flow_label(),
            hop_limit: packet.hop_limit(),
            payload_len: packet.payload_len(),
        })
    }

    /// How many bytes [`Repr::emit`] writes: the fixed header.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the fixed header. Panics if the view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_version_class_and_label(self.dscp, self.ecn, self.flow_label);
        packet.set_payload_len(u16::try_from(self.payload_len).unwrap_or(u16::MAX));
        packet.set_next_header(self.next_header);
        packet.set_hop_limit(self.hop_limit);
        packet.set_src(self.src);
        packet.set_dst(self.dst);
    }
}

#[cfg(test)]
mod tests;
