//! ESP (RFC 4303 §2): the part of the header that is never encrypted.
//!
//! What follows it (IV, payload, trailer, ICV) has lengths that only the SA knows, so it is one opaque body here.

use crate::bytes::{put_u32, u32_at};
use crate::{Error, Result};

/// Length of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Largest SPI that is reserved (RFC 4303 §2.1): no SA on the wire has one of 0 to 255.
pub const MAX_RESERVED_SPI: u32 = 255;

/// A view of an ESP packet, from SPI to ICV.
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

    /// Wraps bytes that hold at least SPI and sequence number. A reserved SPI is not refused here: no SA has it.
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

    /// Security parameters index.
    #[inline]
    pub fn spi(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 0)
    }

    /// Sequence number: with ESN, the low 32 bits of it.
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 4)
    }

    /// All that follows: IV, ciphertext and ICV.
    #[inline]
    pub fn body(&self) -> &[u8] {
        &self.buffer.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the security parameters index.
    #[inline]
    pub fn set_spi(&mut self, spi: u32) {
        put_u32(self.buffer.as_mut(), 0, spi);
    }

    /// Sets the sequence number.
    #[inline]
    pub fn set_sequence(&mut self, sequence: u32) {
        put_u32(self.buffer.as_mut(), 4, sequence);
    }

    /// All that follows, mutable.
    #[inline]
    pub fn body_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

/// The clear part of an ESP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number, low 32 bits.
    pub sequence: u32,
}

impl Repr {
    /// Reads the clear part.
    ///
    /// # Errors
    /// None today: every checked view has one.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self { spi: packet.spi(), sequence: packet.sequence() })
    }

    /// How many bytes [`Repr::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the clear part. Panics if the view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_spi(self.spi);
        packet.set_sequence(self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_31_a_header_cut_at_any_byte_is_truncated() {
        for len in 0..HEADER_LEN {
            assert_eq!(Packet::new_checked(&[0xff; HEADER_LEN][..len]), Err(Error::Truncated), "{len} bytes");
        }
        let bytes = [0, 0, 1, 0, 0, 0, 0, 7];
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((packet.spi(), packet.sequence(), packet.body()), (256, 7, &[][..]));
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed_back(spi: u32, sequence: u32, body in prop::collection::vec(any::<u8>(), 0..32)) {
            let repr = Repr { spi, sequence };
            let mut bytes = [&[0xa5; HEADER_LEN][..], &body].concat();
            repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
            let mut packet = Packet::new_checked(&mut bytes[..]).unwrap();
            prop_assert_eq!(Repr::parse(&packet), Ok(repr));
            prop_assert_eq!(packet.body(), &body[..]);
            prop_assert_eq!(packet.body_mut(), &body[..]);
        }
    }
}
