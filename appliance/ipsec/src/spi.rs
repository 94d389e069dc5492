//! The number that names an SA to its receiver.

use core::fmt;
use core::num::NonZeroU32;

/// A security parameters index (RFC 4303 §2.1).
///
/// 0 is for local use and 1–255 are reserved by IANA, so neither can be one: an ESP packet that carries such a
/// number belongs to no SA, and an `Option<Spi>` costs no more than a `u32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(NonZeroU32);

impl Spi {
    /// The smallest number that may name an SA.
    pub const MIN: u32 = 256;

    /// The SPI of this number, unless the number is reserved (below [`Spi::MIN`]).
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(nonzero) if number >= Self::MIN => Some(Self(nonzero)),
            Some(_) | None => None,
        }
    }

    /// The number itself, in host order.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// From the four bytes of a packet.
    #[must_use]
    pub const fn from_be_bytes(bytes: [u8; 4]) -> Option<Self> {
        Self::new(u32::from_be_bytes(bytes))
    }

    /// As the four bytes of a packet.
    #[must_use]
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.get().to_be_bytes()
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.get())
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

const _: () = assert!(size_of::<Option<Spi>>() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_30_reserved_numbers_name_no_sa() {
        for number in 0..256 {
            assert_eq!(Spi::new(number), None);
            assert_eq!(Spi::from_be_bytes(number.to_be_bytes()), None);
        }
        for number in [256, 0x1234_5678, u32::MAX] {
            assert_eq!(Spi::new(number).map(Spi::get), Some(number));
        }
    }

    #[test]
    fn prints_like_every_other_ipsec_tool() {
        let spi = Spi::from_be_bytes([0, 0, 0x12, 0xab]).unwrap();
        assert_eq!(spi.to_string(), "0x000012ab");
        assert_eq!(format!("{spi:?}"), "Spi(0x000012ab)");
        assert_eq!(spi.to_be_bytes(), [0, 0, 0x12, 0xab]);
    }
}
