//! Pseudorandom functions and prf+ (RFC 7296 §2.13).

use core::fmt;

use ring::hmac;
use zeroize::Zeroizing;

use super::Secret;

/// A pseudorandom function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Prf {
    /// HMAC with SHA2-256 (RFC 4868).
    HmacSha256,
}

impl Prf {
    /// Every one we have.
    pub const ALL: [Prf; 1] = [Prf::HmacSha256];

    /// Its transform ID.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Prf::HmacSha256 => 5,
        }
    }

    /// The name that strongSwan users write in a proposal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Prf::HmacSha256 => "prfsha256",
        }
    }

    /// Octets of its output, which is also the preferred length of its keys.
    #[must_use]
    pub(crate) const fn output_len(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
        }
    }

    const fn algorithm(self) -> hmac::Algorithm {
        match self {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
        }
    }

    /// prf(key, parts one after the other).
    pub(crate) fn compute(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.algorithm(), key));
        for part in parts {
            context.update(part);
        }
        Zeroizing::new(context.sign().as_ref().to_vec())
    }

    /// The first `length` octets of prf+(key, seed). The counter octet allows 255 blocks; every caller needs far less.
    pub(crate) fn expand(self, key: &[u8], seed: &[&[u8]], length: usize) -> Secret {
        let key = hmac::Key::new(self.algorithm(), key);
        // Reserved at once, so that growing leaves no copy behind.
        let mut output = Zeroizing::new(Vec::with_capacity(length + self.output_len()));
        let mut previous_at = 0;
        for counter in 1..=u8::MAX {
            let mut context = hmac::Context::with_key(&key);
            context.update(&output[previous_at..]);
            for part in seed {
                context.update(part);
            }
            context.update(&[counter]);
            previous_at = output.len();
            output.extend_from_slice(context.sign().as_ref());
            if output.len() >= length {
                break;
            }
        }
        output.truncate(length);
        output
    }
}

impl fmt::Display for Prf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 4231 §4.2 to §4.4, which RFC 4868 §2.7.2.1 repeats for PRF-HMAC-SHA-256.
    #[test]
    fn hmac_sha256_gives_the_published_values() {
        let prf = Prf::HmacSha256;
        let wanted = hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        assert_eq!(*prf.compute(&[0x0b; 20], &[b"Hi There"]), wanted);
        assert_eq!(*prf.compute(&[0x0b; 20], &[b"Hi ", b"There"]), wanted);
        let wanted = hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(*prf.compute(b"Jefe", &[b"what do ya want ", b"for nothing?"]), wanted);
    }

    #[test]
    fn prf_plus_chains_its_blocks_as_rfc_7296_says() {
        let prf = Prf::HmacSha256;
        let t1 = prf.compute(b"key", &[b"seed", &[1]]);
        let t2 = prf.compute(b"key", &[&t1, b"seed", &[2]]);
        let t3 = prf.compute(b"key", &[&t2, b"seed", &[3]]);
        let all: Vec<u8> = [t1, t2, t3].iter().flat_map(|block| block.to_vec()).collect();
        for length in [0, 1, 31, 32, 33, 64, 65, 96] {
            assert_eq!(*prf.expand(b"key", &[b"se", b"ed"], length), all[..length]);
        }
    }

    #[test]
    fn prf_plus_ends_where_its_counter_does() {
        assert_eq!(Prf::HmacSha256.expand(b"key", &[b"seed"], 255 * 32).len(), 255 * 32);
    }
}
