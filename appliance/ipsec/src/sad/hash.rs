//! The keyed hash of the SAD.

use core::fmt;
use core::net::IpAddr;

use crate::Spi;

/// The secret that keys the hash. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SadSeed([u64; 4]);

impl SadSeed {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(random.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// Two multiplications of 64 by 64 bits, both folded, each with its own secret words.
    ///
    /// What is *in* the table was chosen by us (SPIs are our own random numbers, addresses our own), so a stranger who
    /// sends packets can look up what he likes but can fill no bucket; that is why this need not be SipHash.
    #[inline]
    pub fn hash(&self, dvipa: IpAddr, spi: Spi) -> u64 {
        let [k0, k1, k2, k3] = self.0;
        let (high, low) = match dvipa {
            IpAddr::V4(address) => (0, u64::from(address.to_bits())),
            IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
        };
        let mixed = folded(low ^ k0, high ^ k1);
        folded(mixed ^ u64::from(spi.get()) ^ k2, k3 | 1)
    }
}

/// The two halves of a product, joined: every bit of the input reaches every bit of the middle, which lands in both.
#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl fmt::Debug for SadSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SadSeed(..)")
    }
}
