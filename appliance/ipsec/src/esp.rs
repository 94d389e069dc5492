//! ESP as bytes (RFC 4303 §2, with the AES-GCM layout of RFC 4106 §3), and the proof that a packet was verified.
//!
//! ```text
//! | SPI 4 | sequence 4 | IV 8 | ciphertext: payload, padding, pad length 1, next header 1 | ICV 16 |
//! ```

use crate::Spi;
use crate::engine::{AeadKey, CipherInput};
use crate::inbound::InboundError;

/// SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// The explicit IV.
pub const IV_LEN: usize = 8;
/// Pad length and next header.
pub const TRAILER_LEN: usize = 2;
/// The integrity check value.
pub const ICV_LEN: usize = 16;
/// What stands before the payload.
pub const BEFORE_PAYLOAD_LEN: usize = HEADER_LEN + IV_LEN;
/// The shortest ESP packet: an empty payload without padding.
pub const PACKET_LEN_MIN: usize = BEFORE_PAYLOAD_LEN + TRAILER_LEN + ICV_LEN;

/// Next header of an IPv4 packet in tunnel mode.
pub const NEXT_HEADER_IPV4: u8 = 4;
/// Next header of an IPv6 packet in tunnel mode.
pub const NEXT_HEADER_IPV6: u8 = 41;
/// Next header of a dummy packet, which is accepted and thrown away (RFC 4303 §2.6).
pub const NEXT_HEADER_DUMMY: u8 = 59;

/// Proof that a packet's integrity was verified under its SA's key, with this sequence number.
///
/// Only successful verification makes one; it cannot be copied. Whatever a packet may change (a replay window, a
/// connection's entry, a peer's address) asks for it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a verified packet whose number is not committed can be replayed"]
pub struct Authentic {
    sequence: u64,
}

impl Authentic {
    /// The packet's full sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A proof without a packet, to test what asks for one.
    #[cfg(test)]
    pub(crate) fn assume(sequence: u64) -> Self {
        Self { sequence }
    }
}

/// A packet's number as the receiver believes it to be, and what the cipher will be asked to confirm it.
#[derive(Debug)]
pub(crate) struct Claim {
    sequence: u64,
    input: CipherInput,
}

impl Claim {
    /// What a packet claims. Only its header and IV are looked at.
    ///
    /// # Errors
    /// `Truncated`; `AuthenticationFailed` if it carries another SPI than the SA's and so came to the wrong SA.
    #[inline]
    pub fn new(key: &AeadKey, spi: Spi, esn: bool, sequence: u64, packet: &[u8]) -> Result<Self, InboundError> {
        if packet.len() < PACKET_LEN_MIN {
            return Err(InboundError::Truncated);
        }
        if packet[..4] != spi.to_be_bytes() {
            return Err(InboundError::AuthenticationFailed);
        }
        let mut iv = [0; IV_LEN];
        iv.copy_from_slice(&packet[HEADER_LEN..BEFORE_PAYLOAD_LEN]);
        Ok(Self { sequence, input: key.input(iv, spi, sequence, esn) })
    }

    /// The number that is claimed. Nobody has verified it.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Verifies and decrypts one whole packet in place.
///
/// # Errors
/// `Truncated`, or `AuthenticationFailed`: then the bytes after the IV are worthless.
#[inline]
pub(crate) fn verify(key: &AeadKey, claim: &Claim, packet: &mut [u8]) -> Result<Authentic, InboundError> {
    let sealed = packet.get_mut(BEFORE_PAYLOAD_LEN..).ok_or(InboundError::Truncated)?;
    key.open(&claim.input, sealed).map_err(|_| InboundError::AuthenticationFailed)?;
    Ok(Authentic { sequence: claim.sequence })
}

/// The low 32 bits of the sequence number, as the packet carries them.
#[inline]
pub(crate) fn sequence_low(packet: &[u8]) -> Option<u32> {
    packet.get(4..8)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// What the decrypted trailer says: where the payload ends and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Bytes of payload.
    pub payload_len: usize,
    /// The protocol of the payload.
    pub next_header: u8,
}

impl Trailer {
    /// Reads the end of what was decrypted (payload, padding, pad length, next header; without the ICV).
    ///
    /// The padding must be 1, 2, 3… (RFC 4303 §2.4): it is authenticated, so anything else is a broken peer.
    #[inline]
    pub fn parse(plain: &[u8]) -> Option<Self> {
        let (rest, &[pad_len, next_header]) = plain.split_last_chunk::<TRAILER_LEN>()?;
        let payload_len = rest.len().checked_sub(usize::from(pad_len))?;
        let as_required = rest[payload_len..].iter().zip(1_u8..=u8::MAX).all(|(found, wanted)| *found == wanted);
        as_required.then_some(Self { payload_len, next_header })
    }
}

/// Padding that aligns a payload and its trailer to four bytes.
#[must_use]
pub const fn pad_len(payload_len: usize) -> usize {
    (payload_len + TRAILER_LEN).next_multiple_of(4) - payload_len - TRAILER_LEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_aligns_to_four_bytes() {
        for payload_len in 0..100 {
            assert!(pad_len(payload_len) < 4);
            assert_eq!((payload_len + pad_len(payload_len) + TRAILER_LEN) % 4, 0);
        }
    }

    #[test]
    fn trailers_are_read_from_the_end() {
        assert_eq!(Trailer::parse(&[9, 9, 1, 2, 2, 4]), Some(Trailer { payload_len: 2, next_header: 4 }));
        assert_eq!(Trailer::parse(&[0, 59]), Some(Trailer { payload_len: 0, next_header: 59 }));
        let mut longest: Vec<u8> = (1..=255).collect();
        longest.extend([255, 41]);
        assert_eq!(Trailer::parse(&longest), Some(Trailer { payload_len: 0, next_header: 41 }));
    }

    #[test]
    fn hostile_31_padding_beyond_the_payload_or_of_other_bytes_is_refused() {
        for plain in [&[][..], &[4], &[1, 4], &[9, 1, 3, 3, 4], &[1, 2, 4, 3, 4], &[0, 1, 4]] {
            assert_eq!(Trailer::parse(plain), None, "{plain:?}");
        }
    }
}
