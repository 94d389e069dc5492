//! UDP port 4500: IKE, ESP and keepalives on one port (RFC 3948 §2).
//!
//! What a datagram carries shows in its first bytes. A single 0xff keeps a NAT mapping alive. Four zero bytes, which no
//! ESP packet begins with since SPI 0 is reserved, mark IKE. All else is ESP.

use crate::{Error, Result, esp};

/// What stands before an IKE message on port 4500 (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The payload of a NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];
/// The port that IKE and ESP share.
pub const PORT: u16 = 4500;

/// A view of the payload of a UDP datagram on port 4500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

/// What a datagram on port 4500 carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repr {
    /// A NAT keepalive: to be ignored silently.
    Keepalive,
    /// An IKE message, behind the non-ESP marker.
    Ike,
    /// An ESP packet, from its SPI on.
    Esp,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them; meant for [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a payload that is one of the three kinds.
    ///
    /// # Errors
    /// As [`classify`].
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        classify(buffer.as_ref())?;
        Ok(Self { buffer })
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// The IKE message without its marker, the ESP packet, or nothing for a keepalive.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        let skip = classify(bytes).map_or(bytes.len(), |repr| repr.buffer_len());
        &bytes[skip..]
    }
}

impl Repr {
    /// Says what a datagram carries.
    ///
    /// # Errors
    /// As [`classify`].
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        classify(packet.buffer.as_ref())
    }

    /// How many bytes stand before the message, and how many [`Repr::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        match self {
            Self::Keepalive => KEEPALIVE.len(),
            Self::Ike => NON_ESP_MARKER.len(),
            Self::Esp => 0,
        }
    }

    /// Writes what stands before the message. Panics if the view holds fewer than [`Repr::buffer_len`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        let bytes = packet.buffer.as_mut();
        match self {
            Self::Keepalive => bytes[..KEEPALIVE.len()].copy_from_slice(&KEEPALIVE),
            Self::Ike => bytes[..NON_ESP_MARKER.len()].copy_from_slice(&NON_ESP_MARKER),
            Self::Esp => {}
        }
    }
}

/// Says what the payload of a datagram on port 4500 carries, without looking further than its first 8 bytes.
///
/// An IKE message may still be empty or nonsense, and an SPI reserved (1 to 255): their owners judge that.
///
/// # Errors
/// `Truncated` if the payload is too short for any of the three.
#[inline]
pub fn classify(payload: &[u8]) -> Result<Repr> {
    if payload == KEEPALIVE {
        return Ok(Repr::Keepalive);
    }
    match payload.first_chunk::<4>() {
        None => Err(Error::Truncated),
        Some(&NON_ESP_MARKER) => Ok(Repr::Ike),
        Some(_spi) if payload.len() < esp::HEADER_LEN => Err(Error::Truncated),
        Some(_spi) => Ok(Repr::Esp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn hostile_37_a_keepalive_is_exactly_one_byte_of_ones() {
        assert_eq!(classify(&[0xff]), Ok(Repr::Keepalive));
        assert_eq!(classify(&[0xfe]), Err(Error::Truncated));
        assert_eq!(classify(&[0xff, 0xff]), Err(Error::Truncated));
        assert_eq!(classify(&[0xff; 8]), Ok(Repr::Esp));
    }

    #[test]
    fn hostile_37_four_zero_bytes_mark_ike_and_never_esp_with_a_zero_spi() {
        assert_eq!(classify(&[0, 0, 0, 0]), Ok(Repr::Ike));
        let esp_with_zero_spi = [0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9];
        let packet = Packet::new_checked(&esp_with_zero_spi[..]).unwrap();
        assert_eq!(Repr::parse(&packet), Ok(Repr::Ike));
        assert_eq!(packet.payload(), &esp_with_zero_spi[4..]);
    }

    #[test]
    fn hostile_37_a_payload_too_short_for_any_kind_is_truncated() {
        for len in [0, 2, 3] {
            assert_eq!(classify(&std::vec![0; len]), Err(Error::Truncated), "{len} bytes");
        }
        for len in 4..8 {
            assert_eq!(classify(&std::vec![1; len]), Err(Error::Truncated), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn what_is_emitted_before_a_message_is_recognised_again(
            spi in 1_u32.., message in prop::collection::vec(any::<u8>(), 4..64)
        ) {
            let esp: Vec<u8> = [&spi.to_be_bytes()[..], &message].concat();
            for (repr, message) in [(Repr::Keepalive, &[][..]), (Repr::Ike, &message), (Repr::Esp, &esp)] {
                let mut bytes = std::vec![0xa5; repr.buffer_len()];
                bytes.extend_from_slice(message);
                repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
                let packet = Packet::new_checked(&bytes[..]).unwrap();
                prop_assert_eq!(Repr::parse(&packet), Ok(repr));
                prop_assert_eq!(packet.payload(), message);
            }
        }

        #[test]
        fn any_bytes_are_one_kind_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            if let Ok(packet) = Packet::new_checked(&bytes[..]) {
                prop_assert!(bytes.ends_with(packet.payload()));
            }
        }
    }
}
