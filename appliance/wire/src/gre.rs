//! GRE (RFC 2784, RFC 2890): the base header of four bytes, and nothing but that.
//!
//! Checksum, key, sequence number and routing would each lengthen the header. What has one of them is refused, each with
//! its own error, rather than read past: this is the header between hosts that have agreed on the short one.

use crate::Result;
use crate::bytes::{put_u16, u16_at};

/// Length of the base header.
pub const HEADER_LEN: usize = 4;
/// The protocol type for local experiments (IEEE 802, Local Experimental Ethertype 1).
pub const PROTOCOL_LOCAL_EXPERIMENTAL_1: u16 = 0x88b5;
/// The destination port of GRE in UDP (RFC 8086 §3.1).
pub const UDP_PORT: u16 = 4754;

const FLAG_CHECKSUM: u16 = 0x8000;
const FLAG_ROUTING: u16 = 0x4000;
const FLAG_KEY: u16 = 0x2000;
const FLAG_SEQUENCE: u16 = 0x1000;
/// The rest of bits 1 to 5, for which a receiver without RFC 1701 discards the packet (RFC 2784 §2.3).
const FLAGS_RESERVED: u16 = 0x0c00;
const MASK_VERSION: u16 = 0x0007;

/// Why bytes are not a GRE packet with the base header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The bytes end before the header does.
    Truncated,
    /// The version is not 0 (1 is PPTP's).
    Version,
    /// A checksum follows.
    Checksum,
    /// Routing information follows (RFC 1701).
    Routing,
    /// A key follows (RFC 2890).
    Key,
    /// A sequence number follows (RFC 2890).
    Sequence,
    /// A flag is set that must not be.
    Reserved,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the GRE header is truncated",
            Self::Version => "the GRE version is not 0",
            Self::Checksum => "the GRE header has a checksum; only the base header is spoken",
            Self::Routing => "the GRE header has routing information; only the base header is spoken",
            Self::Key => "the GRE header has a key; only the base header is spoken",
            Self::Sequence => "the GRE header has a sequence number; only the base header is spoken",
            Self::Reserved => "the GRE header has a reserved flag set",
        })
    }
}

impl core::error::Error for Error {}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Truncated => Self::Truncated,
            Error::Version => Self::Version,
            Error::Checksum | Error::Routing | Error::Key | Error::Sequence => Self::Unsupported,
            Error::Reserved => Self::Malformed,
        }
    }
}

/// A view of a GRE packet.
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

    /// Wraps a packet with the base header alone. Bits 6 to 12 are ignored, as RFC 2784 §2.3 asks of a receiver.
    ///
    /// # Errors
    /// [`Error`], which says what else there is. The version is judged first: it says what the flags mean.
    #[inline]
    pub fn new_checked(buffer: T) -> core::result::Result<Self, Error> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        match u16_at(buffer.as_ref(), 0) {
            word if word & MASK_VERSION != 0 => Err(Error::Version),
            word if word & FLAG_CHECKSUM != 0 => Err(Error::Checksum),
            word if word & FLAG_ROUTING != 0 => Err(Error::Routing),
            word if word & FLAG_KEY != 0 => Err(Error::Key),
            word if word & FLAG_SEQUENCE != 0 => Err(Error::Sequence),
            word if word & FLAGS_RESERVED != 0 => Err(Error::Reserved),
            _base_header_alone => Ok(Self { buffer }),
        }
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// What the payload is: an Ethertype.
    #[inline]
    pub fn protocol_type(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 2)
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Clears all flags and the version.
    #[inline]
    pub fn clear_flags_and_version(&mut self) {
        put_u16(self.buffer.as_mut(), 0, 0);
    }

    /// Sets what the payload is.
    #[inline]
    pub fn set_protocol_type(&mut self, protocol_type: u16) {
        put_u16(self.buffer.as_mut(), 2, protocol_type);
    }

    /// What follows the header, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

/// A GRE base header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// What the payload is: an Ethertype.
    pub protocol_type: u16,
}

impl Repr {
    /// Reads a base header.
    ///
    /// # Errors
    /// None today: every checked view has one.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self { protocol_type: packet.protocol_type() })
    }

    /// How many bytes [`Repr::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header. Panics if the view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.clear_flags_and_version();
        packet.set_protocol_type(self.protocol_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn hostile_39_a_header_cut_at_any_byte_is_truncated() {
        for len in 0..HEADER_LEN {
            assert_eq!(Packet::new_checked(&[0; HEADER_LEN][..len]), Err(Error::Truncated), "{len} bytes");
        }
        let bytes = [0, 0, 0x88, 0xb5];
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((packet.protocol_type(), packet.payload()), (PROTOCOL_LOCAL_EXPERIMENTAL_1, &[][..]));
    }

    #[test]
    fn hostile_39_whatever_lengthens_the_header_is_refused_by_name() {
        let cases = [
            (0x8000, Error::Checksum),
            (0x4000, Error::Routing),
            (0x2000, Error::Key),
            (0x1000, Error::Sequence),
            (0x0800, Error::Reserved),
            (0x0400, Error::Reserved),
            (0x0001, Error::Version),
            (0x0007, Error::Version),
            (0xb001, Error::Version),
            (0xb000, Error::Checksum),
            (0x3000, Error::Key),
        ];
        for (word, expected) in cases {
            let bytes = [&u16::to_be_bytes(word)[..], &[8, 0], &[0; 16]].concat();
            assert_eq!(Packet::new_checked(&bytes[..]), Err(expected), "{word:#06x}");
        }
    }

    #[test]
    fn bits_that_a_receiver_must_ignore_are_ignored() {
        for bit in 3..10 {
            let bytes = [&u16::to_be_bytes(1 << bit)[..], &[8, 0, 1, 2]].concat();
            assert_eq!(Packet::new_checked(&bytes[..]).unwrap().payload(), [1, 2], "{bit}");
        }
    }

    #[test]
    fn each_error_has_words_of_its_own_and_a_plainer_kin() {
        let all = [
            Error::Truncated,
            Error::Version,
            Error::Checksum,
            Error::Routing,
            Error::Key,
            Error::Sequence,
            Error::Reserved,
        ];
        let words: BTreeSet<_> = all.iter().map(Error::to_string).collect();
        assert_eq!(words.len(), all.len());
        let kin: Vec<crate::Error> = all.into_iter().map(Into::into).collect();
        use crate::Error::{Malformed, Truncated, Unsupported, Version};
        assert_eq!(kin, [Truncated, Version, Unsupported, Unsupported, Unsupported, Unsupported, Malformed]);
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed_back(protocol_type: u16, body in prop::collection::vec(any::<u8>(), 0..32)) {
            let repr = Repr { protocol_type };
            let mut bytes = [&[0xa5; HEADER_LEN][..], &body].concat();
            repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
            let mut packet = Packet::new_checked(&mut bytes[..]).unwrap();
            prop_assert_eq!(Repr::parse(&packet), Ok(repr));
            prop_assert_eq!(packet.payload(), &body[..]);
            prop_assert_eq!(packet.payload_mut(), &body[..]);
        }

        #[test]
        fn any_bytes_are_a_base_header_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let is_base = bytes.len() >= HEADER_LEN && bytes[0] & 0xfc == 0 && bytes[1] & 7 == 0;
            prop_assert_eq!(Packet::new_checked(&bytes[..]).is_ok(), is_base);
        }
    }
}
