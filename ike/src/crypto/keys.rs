//! Key material of IKE SAs and CHILD_SAs (RFC 7296 §2.14, §2.17, §2.18; layout for AES-GCM: RFC 5282 §7.1, RFC 4106 §8.1).

use ipsec::cipher::Cipher;
use ipsec::key::{KeymatLength, SaKey};

use super::Secret;
use super::prf::Prf;
use crate::message::Spis;
use crate::proposal::IkeSuite;

/// The nonces of the exchange that made an SA, named after the sides of *that* exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Nonces {
    pub(crate) initiator: Vec<u8>,
    pub(crate) responder: Vec<u8>,
}

impl Nonces {
    /// The lower of the two, octet by octet: what decides a collision (RFC 7296 §2.8.1).
    pub(crate) fn lowest(&self) -> &[u8] {
        self.initiator.as_slice().min(self.responder.as_slice())
    }
}

/// SKEYSEED of a first IKE SA.
pub(crate) fn skeyseed(prf: Prf, nonces: &Nonces, shared: &Secret) -> Secret {
    let mut key = nonces.initiator.clone();
    key.extend_from_slice(&nonces.responder);
    prf.compute(&key, &[shared])
}

/// SKEYSEED of an IKE SA that replaces another: with the PRF and SK_d of the old one.
pub(crate) fn skeyseed_of_rekey(old_prf: Prf, old_d: &Secret, shared: &Secret, nonces: &Nonces) -> Secret {
    old_prf.compute(old_d, &[shared, &nonces.initiator, &nonces.responder])
}

/// The seven secrets of an IKE SA, of which SK_ai and SK_ar are empty for authenticated ciphers.
pub(crate) struct IkeKeys {
    pub(crate) d: Secret,
    pub(crate) ei: Secret,
    pub(crate) er: Secret,
    pub(crate) pi: Secret,
    pub(crate) pr: Secret,
}

impl IkeKeys {
    pub(crate) fn derive(suite: IkeSuite, skeyseed: &Secret, nonces: &Nonces, spis: Spis) -> IkeKeys {
        let prf_len = suite.prf.output_len();
        let cipher_len = suite.cipher.keymat_len();
        let seed = [
            nonces.initiator.as_slice(),
            nonces.responder.as_slice(),
            &spis.initiator.to_bytes(),
            &spis.responder.to_bytes(),
        ];
        let all = suite.prf.expand(skeyseed, &seed, 3 * prf_len + 2 * cipher_len);
        let mut rest = all.as_slice();
        let mut take = |length: usize| {
            let (this, after) = rest.split_at(length);
            rest = after;
            Secret::new(this.to_vec())
        };
        IkeKeys { d: take(prf_len), ei: take(cipher_len), er: take(cipher_len), pi: take(prf_len), pr: take(prf_len) }
    }
}

/// The keys of a CHILD_SA, named after the sides of the exchange that made it.
pub(crate) struct ChildKeys {
    pub(crate) from_initiator: SaKey,
    pub(crate) from_responder: SaKey,
}

impl ChildKeys {
    /// KEYMAT, with the secret of a key exchange of its own if there was one.
    ///
    /// # Errors
    /// Never in practice: the lengths asked for are those that the cipher names.
    pub(crate) fn derive(
        prf: Prf,
        d: &Secret,
        shared: Option<&Secret>,
        nonces: &Nonces,
        cipher: Cipher,
    ) -> Result<ChildKeys, KeymatLength> {
        let shared = shared.map_or(&[][..], |secret| secret);
        let length = cipher.keymat_len();
        let keymat = prf.expand(d, &[shared, &nonces.initiator, &nonces.responder], 2 * length);
        Ok(ChildKeys {
            from_initiator: SaKey::from_keymat(cipher, &keymat[..length])?,
            from_responder: SaKey::from_keymat(cipher, &keymat[length..])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kex::Kex;
    use crate::message::IkeSpi;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(hex(text))
    }

    fn nonces() -> Nonces {
        Nonces { initiator: hex("3f302be1abcb28e1"), responder: hex("8c332ee006064c9b") }
    }

    /// The SHA-256 sample of NIST's validation suite for the IKEv2 key derivation function (SP 800-135).
    #[test]
    fn key_derivation_gives_the_published_values() {
        let shared = secret("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29");
        let seed = skeyseed(Prf::HmacSha256, &nonces(), &shared);
        assert_eq!(*seed, hex("5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe"));

        let spi = |text| IkeSpi::from_bytes(hex(text).try_into().unwrap());
        let spis = Spis { initiator: spi("40dac39e1e1a8640"), responder: spi("8619a1cf9a6e4c07") };
        let suite = IkeSuite { cipher: Cipher::AesGcm128, prf: Prf::HmacSha256, kex: Kex::X25519 };
        let keys = IkeKeys::derive(suite, &seed, &nonces(), spis);
        let all = hex(concat!(
            "0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca531",
            "188d16041b3bb936d2dbb3b4993a6e768a809160de45d0283f273a6cdf6854379e31be72b",
            "8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1c19bdcd4db14b29d98db1a74a",
            "d405c588662c14a04d0d36aa4ab55e90f8986d12d4aad"
        ));
        assert_eq!(*keys.d, all[..32]);
        assert_eq!((&keys.ei[..], &keys.er[..]), (&all[32..52], &all[52..72]));
        // The sample has 132 octets, our layout for AES-128-GCM 136: the last four are not published.
        assert_eq!((&keys.pi[..], &keys.pr[..28]), (&all[72..104], &all[104..]));

        let new = secret("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c");
        let seed = skeyseed_of_rekey(Prf::HmacSha256, &keys.d, &new, &nonces());
        assert_eq!(*seed, hex("2d63f6debc92048b4fef3889c4c99ca67d6496e0fac14a2bca9a2d6566ff2398"));
    }

    #[test]
    fn child_keys_follow_in_the_order_initiator_then_responder() {
        let d = secret("0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ec");
        for shared in [None, Some(secret("aabb"))] {
            let mut seed = shared.as_ref().map_or(Vec::new(), |secret| secret.to_vec());
            seed.extend(hex("3f302be1abcb28e18c332ee006064c9b"));
            let all = Prf::HmacSha256.expand(&d, &[&seed], 72);
            let keys = ChildKeys::derive(Prf::HmacSha256, &d, shared.as_ref(), &nonces(), Cipher::AesGcm256).unwrap();
            assert!(keys.from_initiator == SaKey::from_keymat(Cipher::AesGcm256, &all[..36]).unwrap());
            assert!(keys.from_responder == SaKey::from_keymat(Cipher::AesGcm256, &all[36..]).unwrap());
        }
    }

    #[test]
    fn the_lowest_nonce_is_found_octet_by_octet() {
        let nonces = |initiator: &[u8], responder: &[u8]| Nonces {
            initiator: initiator.to_vec(),
            responder: responder.to_vec(),
        };
        assert_eq!(nonces(&[2, 0], &[1, 255]).lowest(), [1, 255]);
        assert_eq!(nonces(&[1, 2], &[1, 2, 0]).lowest(), [1, 2]);
    }
}
