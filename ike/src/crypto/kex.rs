//! Key exchange methods (RFC 7296 §3.3.2, transform type 4).
//!
//! The two sides have different functions, since a key encapsulation (ML-KEM) has no symmetric agreement: the
//! initiator offers and later finishes, the responder answers at once.

use core::fmt;

use rand_core::CryptoRng;
use x25519_dalek::{EphemeralSecret, PublicKey};
use zeroize::Zeroizing;

use super::Secret;
use crate::error::Malformed;

/// A key exchange method.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kex {
    /// Curve25519 (RFC 8031), group 31.
    X25519,
}

/// The initiator's half of a key exchange that has been offered. Used once, then gone.
pub(crate) enum OfferedKex {
    X25519(EphemeralSecret),
}

const X25519_LEN: usize = 32;

impl Kex {
    /// Every one we have.
    pub const ALL: [Kex; 1] = [Kex::X25519];

    /// Its transform ID, the "group".
    #[must_use]
    pub const fn group(self) -> u16 {
        match self {
            Kex::X25519 => 31,
        }
    }

    /// The method of this group.
    #[must_use]
    pub fn from_group(group: u16) -> Option<Kex> {
        Kex::ALL.into_iter().find(|kex| kex.group() == group)
    }

    /// The name that strongSwan users write in a proposal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kex::X25519 => "x25519",
        }
    }

    /// Makes an offer: our half, and the octets for the KE payload.
    pub(crate) fn offer(self, rng: &mut impl CryptoRng) -> (OfferedKex, Vec<u8>) {
        match self {
            Kex::X25519 => {
                let secret = EphemeralSecret::random_from_rng(rng);
                let public = PublicKey::from(&secret).to_bytes().to_vec();
                (OfferedKex::X25519(secret), public)
            }
        }
    }

    /// Answers an offer: the octets for our KE payload, and the shared secret.
    ///
    /// # Errors
    /// [`Malformed::KeyExchange`] if the offer has the wrong length or would make the secret known to everyone.
    pub(crate) fn answer(self, offer: &[u8], rng: &mut impl CryptoRng) -> Result<(Vec<u8>, Secret), Malformed> {
        let (ours, public) = self.offer(rng);
        Ok((public, ours.finish(offer)?))
    }
}

impl OfferedKex {
    /// The method that was offered.
    pub(crate) fn method(&self) -> Kex {
        match self {
            OfferedKex::X25519(_) => Kex::X25519,
        }
    }

    /// Takes the peer's answer and gives the shared secret.
    ///
    /// # Errors
    /// [`Malformed::KeyExchange`], as for [`Kex::answer`].
    pub(crate) fn finish(self, answer: &[u8]) -> Result<Secret, Malformed> {
        let group = self.method().group();
        match self {
            OfferedKex::X25519(secret) => {
                let Ok(theirs) = <[u8; X25519_LEN]>::try_from(answer) else {
                    return Err(Malformed::KeyExchange { group, fault: "expected 32 octets" });
                };
                let shared = secret.diffie_hellman(&PublicKey::from(theirs));
                if !shared.was_contributory() {
                    return Err(Malformed::KeyExchange { group, fault: "the shared secret is all zero" });
                }
                Ok(Zeroizing::new(shared.as_bytes().to_vec()))
            }
        }
    }
}

impl fmt::Display for Kex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{SeedableRng, TryCryptoRng, TryRng};

    /// Gives out given octets, to hold the exchange against published secrets.
    struct Given(Vec<u8>);

    impl TryRng for Given {
        type Error = core::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("secrets are filled as octets")
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("secrets are filled as octets")
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            out.copy_from_slice(&self.0);
            Ok(())
        }
    }

    impl TryCryptoRng for Given {}

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 7748 §6.1.
    #[test]
    fn x25519_gives_the_published_values() {
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let (alice, offer) = Kex::X25519.offer(&mut Given(alice));
        assert_eq!(offer, hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let (answer, shared) = Kex::X25519.answer(&offer, &mut Given(bob)).unwrap();
        assert_eq!(answer, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(*shared, hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
        assert_eq!(alice.finish(&answer).unwrap(), shared);
    }

    #[test]
    fn both_sides_agree() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (ours, offer) = Kex::X25519.offer(&mut rng);
        let (answer, theirs) = Kex::X25519.answer(&offer, &mut rng).unwrap();
        assert_eq!(ours.finish(&answer).unwrap(), theirs);
    }

    #[test]
    fn hostile_12_wrong_lengths_and_points_of_small_order_are_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for length in [0, 1, 31, 33, 64] {
            assert!(Kex::X25519.answer(&vec![9; length], &mut rng).is_err(), "{length} octets");
        }
        let p_minus_1 = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
        let p = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
        let p_plus_1 = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
        let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        let other_8 = "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157";
        for point in [p_minus_1, p, p_plus_1, order_8, other_8] {
            assert!(Kex::X25519.answer(&hex(point), &mut rng).is_err(), "{point}");
        }
        let mut one = [0; 32];
        assert!(Kex::X25519.answer(&one, &mut rng).is_err());
        one[0] = 1;
        assert!(Kex::X25519.answer(&one, &mut rng).is_err());
    }
}
