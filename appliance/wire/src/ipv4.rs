//! IPv4 (RFC 791).

use core::net::Ipv4Addr;

use crate::bytes::{array_at, clamped, clamped_mut, put, put_u16, u16_at};
use crate::{Error, Fragment, Result, checksum};

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header.
pub const MAX_HEADER_LEN: usize = 60;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

const FLAG_DONT_FRAGMENT: u16 = 0x4000;
const FLAG_MORE_FRAGMENTS: u16 = 0x2000;
const MASK_OFFSET: u16 = 0x1fff;

/// A view of an IPv4 packet. Bytes beyond its total length (Ethernet padding) are not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`HEADER_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a whole packet.
    ///
    /// # Errors
    /// `Truncated` if fewer bytes are there than header or total length say; `Version`; `Malformed` if the header
    /// length is below 20 or exceeds the total length.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self::new_prefix(buffer)?;
        if packet.buffer.as_ref().len() < packet.total_len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Wraps the beginning of a packet: the header must be complete, the payload may be cut short, as in an ICMP error
    /// or a peek.
    ///
    /// # Errors
    /// As [`Packet::new_checked`], but the total length may exceed the bytes.
    #[inline]
    pub fn new_prefix(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        let bytes = packet.buffer.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if packet.version() != 4 {
            return Err(Error::Version);
        }
        let header_len = packet.header_len();
        if header_len < HEADER_LEN || packet.total_len() < header_len {
            return Err(Error::Malformed);
        }
        if bytes.len() < header_len {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Version: 4 in a checked view.
    #[inline]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[0] >> 4
    }

    /// Header length in bytes, options included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[0] & 0x0f) * 4
    }

    /// Differentiated services code point, 6 bits (RFC 2474).
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.buffer.as_ref()[1] >> 2
    }

    /// Explicit congestion notification, 2 bits (RFC 3168).
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.buffer.as_ref()[1] & 0x03
    }

    /// Length of header and payload in bytes, as stated.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(u16_at(self.buffer.as_ref(), 2))
    }

    /// Identification: joins the fragments of one packet.
    #[inline]
    pub fn identification(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 4)
    }

    /// Don't Fragment.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.buffer.as_ref(), 6) & FLAG_DONT_FRAGMENT != 0
    }

    /// More Fragments.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        u16_at(self.buffer.as_ref(), 6) & FLAG_MORE_FRAGMENTS != 0
    }

    /// Fragment offset in bytes: a multiple of 8, at most 65,528.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        (u16_at(self.buffer.as_ref(), 6) & MASK_OFFSET) << 3
    }

    /// Which part of a packet this is.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        match (self.fragment_offset(), self.more_fragments()) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            (1.., _) => Fragment::Later,
        }
    }

    /// Time to live in hops.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.buffer.as_ref()[8]
    }

    /// Protocol of the payload; see [`crate::protocol`].
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.buffer.as_ref()[9]
    }

    /// Header checksum, as carried.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 10)
    }

    /// Whether the header checksum matches.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        let bytes = self.buffer.as_ref();
        checksum::checksum(clamped(bytes, 0, self.header_len())) == 0
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.buffer.as_ref(), 12))
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.buffer.as_ref(), 16))
    }

    /// The options, padding included; empty in most packets.
    #[inline]
    pub fn options(&self) -> &[u8] {
        clamped(self.buffer.as_ref(), HEADER_LEN, self.header_len())
    }

    /// Walks the options and refuses a packet that dictates its route.
    ///
    /// # Errors
    /// `SourceRouted` for a loose or strict source route; `Malformed` for an option whose length is below 2 or runs
    /// past the header.
    pub fn check_options(&self) -> Result<()> {
        let mut options = self.options();
        while let Some((&kind, rest)) = options.split_first() {
            options = match kind {
                OPTION_END => return Ok(()),
                OPTION_NOP => rest,
                OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE => return Err(Error::SourceRouted),
                2..=130 | 132..=136 | 138..=255 => {
                    let len = rest.first().map_or(0, |len| usize::from(*len));
                    if len < 2 {
                        return Err(Error::Malformed);
                    }
                    options.get(len..).ok_or(Error::Malformed)?
                }
            };
        }
        Ok(())
    }

    /// The payload, up to the total length (or to the end of the bytes, in a prefix).
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clamped(self.buffer.as_ref(), self.header_len(), self.total_len())
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets version and header length, the latter in bytes: a multiple of 4 from 20 to 60.
    #[inline]
    pub fn set_version_and_header_len(&mut self, header_len: usize) {
        self.buffer.as_mut()[0] = 0x40 | (header_len / 4) as u8 & 0x0f;
    }

    /// Sets DSCP and ECN. The checksum is left to the caller.
    #[inline]
    pub fn set_dscp_and_ecn(&mut self, dscp: u8, ecn: u8) {
        self.buffer.as_mut()[1] = dscp << 2 | ecn & 0x03;
    }

    /// Sets the total length in bytes. The checksum is left to the caller.
    #[inline]
    pub fn set_total_len(&mut self, total_len: u16) {
        put_u16(self.buffer.as_mut(), 2, total_len);
    }

    /// Sets the identification. The checksum is left to the caller.
    #[inline]
    pub fn set_identification(&mut self, identification: u16) {
        put_u16(self.buffer.as_mut(), 4, identification);
    }

    /// Sets flags and offset, the latter in bytes and rounded down to a multiple of 8. The checksum is left to the caller.
    #[inline]
    pub fn set_fragmentation(&mut self, dont_fragment: bool, more_fragments: bool, fragment_offset: u16) {
        let dont_fragment = if dont_fragment { FLAG_DONT_FRAGMENT } else { 0 };
        let more_fragments = if more_fragments { FLAG_MORE_FRAGMENTS } else { 0 };
        put_u16(self.buffer.as_mut(), 6, dont_fragment | more_fragments | fragment_offset >> 3);
    }

    /// Sets the time to live. The checksum is left to the caller.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.buffer.as_mut()[8] = ttl;
    }

    /// Takes one hop from the time to live and keeps the checksum right (RFC 1624). Returns what is left; at 0 the
    /// packet must not be forwarded. A TTL that is 0 already stays.
    #[inline]
    pub fn decrement_ttl(&mut self) -> u8 {
        let old = u16_at(self.buffer.as_ref(), 8);
        let ttl = self.ttl().saturating_sub(1);
        let new = u16::from(ttl) << 8 | old & 0x00ff;
        let checksum = checksum::update(self.checksum(), old, new);
        self.set_ttl(ttl);
        self.set_checksum(checksum);
        ttl
    }

    /// Sets the protocol. The checksum is left to the caller.
    #[inline]
    pub fn set_protocol(&mut self, protocol: u8) {
        self.buffer.as_mut()[9] = protocol;
    }

    /// Sets the header checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put_u16(self.buffer.as_mut(), 10, checksum);
    }

    /// Computes and sets the header checksum.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::checksum(clamped(self.buffer.as_ref(), 0, self.header_len()));
        self.set_checksum(checksum);
    }

    /// Sets the source address. The checksum is left to the caller.
    #[inline]
    pub fn set_src(&mut self, src: Ipv4Addr) {
        put(self.buffer.as_mut(), 12, &src.octets());
    }

    /// Sets the destination address. The checksum is left to the caller.
    #[inline]
    pub fn set_dst(&mut self, dst: Ipv4Addr) {
        put(self.buffer.as_mut(), 16, &dst.octets());
    }

    /// The payload, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (header_len, total_len) = (self.header_len(), self.total_len());
        clamped_mut(self.buffer.as_mut(), header_len, total_len)
    }
}

/// An IPv4 header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
    /// Explicit congestion notification, 2 bits.
    pub ecn: u8,
    /// Identification.
    pub identification: u16,
    /// Don't Fragment.
    pub dont_fragment: bool,
    /// More Fragments.
    pub more_fragments: bool,
    /// Fragment offset in bytes, a multiple of 8.
    pub fragment_offset: u16,
    /// Time to live in hops.
    pub ttl: u8,
    /// Length of the payload in bytes, at most 65,515.
    pub payload_len: usize,
}

impl Repr {
    /// Reads a header; options are left out, and the checksum is not looked at (see [`Packet::verify_checksum`]).
    ///
    /// # Errors
    /// `Malformed` if the view's setters made header and total length contradict each other.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        let payload_len = packet.total_len().checked_sub(packet.header_len()).ok_or(Error::Malformed)?;
        Ok(Self {
            src: packet.src(),
            dst: packet.dst(),
            protocol: packet.protocol(),
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            identification: packet.identification(),
            dont_fragment: packet.dont_fragment(),
            more_fragments: packet.more_fragments(),
            fragment_offset: packet.fragment_offset(),
            ttl: packet.ttl(),
            payload_len,
        })
    }

    /// How many bytes [`Repr::emit`] writes: the header.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header, checksum included. Panics if the view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_version_and_header_len(HEADER_LEN);
        packet.set_dscp_and_ecn(self.dscp, self.ecn);
        packet.set_total_len(u16::try_from(HEADER_LEN + self.payload_len).unwrap_or(u16::MAX));
        packet.set_identification(self.identification);
        packet.set_fragmentation(self.dont_fragment, self.more_fragments, self.fragment_offset);
        packet.set_ttl(self.ttl);
        packet.set_protocol(self.protocol);
        packet.set_src(self.src);
        packet.set_dst(self.dst);
        packet.fill_checksum();
    }
}

#[cfg(test)]
mod tests;
