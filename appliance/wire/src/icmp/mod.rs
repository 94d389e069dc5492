//! ICMP for IPv4 (RFC 792, RFC 1191) and for IPv6 (RFC 4443): echoes and errors.
//!
//! Both have one layout, so both have one view, [`Packet`]. Their types and codes differ, so each has its own
//! representation: [`v4::Repr`] and [`v6::Repr`]. Neighbour discovery is left to the IP stack.
//!
//! An error quotes the packet that caused it, usually cut short: [`crate::flow::parse_prefix`] reads it.

use core::net::Ipv6Addr;

use crate::bytes::{put_u16, put_u32, u16_at, u32_at};
use crate::checksum::Sum;
use crate::{Error, Result, protocol};

pub mod v4;
pub mod v6;

pub use v4::Repr;

/// Length of the header: type, code, checksum, and the word whose meaning depends on the type.
pub const HEADER_LEN: usize = 8;

/// A view of an ICMP message of either version, to the end of the bytes.
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

    /// Wraps a message whose header is complete.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        Ok(Self { buffer })
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Message type.
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.buffer.as_ref()[0]
    }

    /// Message code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.buffer.as_ref()[1]
    }

    /// Checksum, as carried.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 2)
    }

    /// The word whose meaning depends on the type: identifier and sequence number, MTU, pointer.
    #[inline]
    pub fn word(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 4)
    }

    /// What follows the header: echo data, or the quoted packet of an error.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum of an ICMP message for IPv4 matches.
    #[inline]
    pub fn verify_checksum_v4(&self) -> bool {
        Sum::new().bytes(self.buffer.as_ref()).is_valid()
    }

    /// Whether the checksum of an ICMPv6 message between these addresses matches.
    #[inline]
    pub fn verify_checksum_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        self.sum_v6(src, dst).is_valid()
    }

    #[inline]
    fn sum_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Sum {
        let message = self.buffer.as_ref();
        Sum::new().pseudo_header_v6(src, dst, protocol::ICMPV6, message.len()).bytes(message)
    }

    #[inline]
    fn echo(&self) -> (u16, u16) {
        let bytes = self.buffer.as_ref();
        (u16_at(bytes, 4), u16_at(bytes, 6))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets type and code. The checksum is left to the caller.
    #[inline]
    pub fn set_type_and_code(&mut self, message_type: u8, code: u8) {
        let bytes = self.buffer.as_mut();
        bytes[0] = message_type;
        bytes[1] = code;
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put_u16(self.buffer.as_mut(), 2, checksum);
    }

    /// Sets the word whose meaning depends on the type. The checksum is left to the caller.
    #[inline]
    pub fn set_word(&mut self, word: u32) {
        put_u32(self.buffer.as_mut(), 4, word);
    }

    /// What follows the header, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }

    /// Computes and sets the checksum of an ICMP message for IPv4.
    #[inline]
    pub fn fill_checksum_v4(&mut self) {
        self.set_checksum(0);
        let checksum = Sum::new().bytes(self.buffer.as_ref()).checksum();
        self.set_checksum(checksum);
    }

    /// Computes and sets the checksum of an ICMPv6 message between these addresses.
    #[inline]
    pub fn fill_checksum_v6(&mut self, src: Ipv6Addr, dst: Ipv6Addr) {
        self.set_checksum(0);
        let checksum = self.sum_v6(src, dst).checksum();
        self.set_checksum(checksum);
    }

    /// Writes everything but the checksum. The buffer must be exactly as long as the message.
    #[inline]
    fn write(&mut self, message_type: u8, code: u8, word: u32, payload: &[u8]) {
        self.set_type_and_code(message_type, code);
        self.set_word(word);
        self.payload_mut().copy_from_slice(payload);
    }
}

/// Identifier and sequence number as the one word that they share.
#[inline]
const fn echo_word(identifier: u16, sequence: u16) -> u32 {
    (identifier as u32) << 16 | sequence as u32
}

#[cfg(test)]
mod tests;
