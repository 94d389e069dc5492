//! UDP (RFC 768).

use core::net::IpAddr;

use crate::bytes::{clamped, clamped_mut, put_u16, u16_at};
use crate::checksum::Sum;
use crate::{Error, Result, protocol};

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// A view of a UDP datagram. Bytes beyond its length field are not part of it.
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

    /// Wraps a whole datagram.
    ///
    /// # Errors
    /// `Truncated` if fewer bytes are there than header or length field say; `Malformed` if the length is below 8 (the
    /// zero of a jumbogram included).
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        let available = packet.buffer.as_ref().len();
        if available < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if packet.len() < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if available < packet.len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 2)
    }

    /// Length of header and payload in bytes, as stated.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a datagram is never empty: its header counts")]
    pub fn len(&self) -> usize {
        usize::from(u16_at(self.buffer.as_ref(), 4))
    }

    /// Checksum, as carried; 0 means none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 6)
    }

    /// Whether the checksum matches. None at all is right between IPv4 addresses only (RFC 8200 §8.1).
    #[inline]
    pub fn verify_checksum(&self, src: IpAddr, dst: IpAddr) -> bool {
        if self.checksum() == 0 {
            return src.is_ipv4() && dst.is_ipv4();
        }
        self.sum(src, dst).is_valid()
    }

    /// The payload, up to the length field.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clamped(self.buffer.as_ref(), HEADER_LEN, self.len())
    }

    #[inline]
    fn sum(&self, src: IpAddr, dst: IpAddr) -> Sum {
        let datagram = clamped(self.buffer.as_ref(), 0, self.len());
        Sum::new().pseudo_header(src, dst, protocol::UDP, self.len()).bytes(datagram)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port. The checksum is left to the caller.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        put_u16(self.buffer.as_mut(), 0, port);
    }

    /// Sets the destination port. The checksum is left to the caller.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        put_u16(self.buffer.as_mut(), 2, port);
    }

    /// Sets the length of header and payload in bytes. The checksum is left to the caller.
    #[inline]
    pub fn set_len(&mut self, len: u16) {
        put_u16(self.buffer.as_mut(), 4, len);
    }

    /// Sets the checksum; 0 means none, as ESP in UDP over IPv4 has it (RFC 3948 §2.1).
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put_u16(self.buffer.as_mut(), 6, checksum);
    }

    /// Computes and sets the checksum over header and payload.
    #[inline]
    pub fn fill_checksum(&mut self, src: IpAddr, dst: IpAddr) {
        self.set_checksum(0);
        // RFC 768: a computed zero is sent as all ones, since zero means that there is none.
        let checksum = match self.sum(src, dst).checksum() {
            0 => 0xffff,
            checksum => checksum,
        };
        self.set_checksum(checksum);
    }

    /// The payload, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        clamped_mut(self.buffer.as_mut(), HEADER_LEN, len)
    }
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of the payload in bytes, at most 65,527.
    pub payload_len: usize,
}

impl Repr {
    /// Reads a header. The checksum is not looked at (see [`Packet::verify_checksum`]).
    ///
    /// # Errors
    /// `Malformed` if a setter made the length smaller than the header.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            payload_len: packet.len().checked_sub(HEADER_LEN).ok_or(Error::Malformed)?,
        })
    }

    /// How many bytes [`Repr::emit`] writes: the header.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header, without a checksum: once the payload stands, [`Packet::fill_checksum`] adds it. Panics if the
    /// view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_len(u16::try_from(HEADER_LEN + self.payload_len).unwrap_or(u16::MAX));
        packet.set_checksum(0);
    }
}

#[cfg(test)]
mod tests;
