//! AES-GCM for IKE messages (RFC 5282): nonce = salt (4) ‖ IV (8), ICV of 16 octets.

use ipsec::cipher::Cipher;
use ring::aead;

use super::Secret;

pub(crate) const IV_LEN: usize = 8;
pub(crate) const ICV_LEN: usize = 16;

const COUNTER_BITS: u32 = 48;

/// One direction's cipher key and salt.
///
/// The expanded key is made for each message and not kept: `ring` does not wipe it.
pub(crate) struct AeadKey {
    cipher: Cipher,
    keymat: Secret,
}

/// No IV is left, or a length that the cipher does not take. Neither occurs in an IKE SA of any sane age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no IV is left under this key")]
pub(crate) struct Exhausted;

/// The message was not sealed under this key, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl AeadKey {
    pub(crate) fn new(cipher: Cipher, keymat: Secret) -> AeadKey {
        AeadKey { cipher, keymat }
    }

    fn expanded(&self) -> Option<aead::LessSafeKey> {
        let algorithm = match self.cipher {
            Cipher::AesGcm128 => &aead::AES_128_GCM,
            Cipher::AesGcm256 => &aead::AES_256_GCM,
        };
        let key = self.keymat.get(..self.cipher.key_len())?;
        aead::UnboundKey::new(algorithm, key).ok().map(aead::LessSafeKey::new)
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Option<aead::Nonce> {
        let salt = self.keymat.get(self.cipher.key_len()..)?;
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[..4].copy_from_slice(salt.first_chunk::<4>()?);
        nonce[4..].copy_from_slice(&iv);
        Some(aead::Nonce::assume_unique_for_key(nonce))
    }

    fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], plain: &mut Vec<u8>) -> Result<(), Exhausted> {
        let (key, nonce) = self.expanded().zip(self.nonce(iv)).ok_or(Exhausted)?;
        key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), plain).map_err(|_| Exhausted)
    }

    /// Opens `IV ‖ ciphertext ‖ ICV` and gives the plaintext.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let (iv, ciphertext) = sealed.split_first_chunk::<IV_LEN>().ok_or(NotAuthentic)?;
        let (key, nonce) = self.expanded().zip(self.nonce(*iv)).ok_or(NotAuthentic)?;
        let mut buffer = ciphertext.to_vec();
        let plain_len = key.open_in_place(nonce, aead::Aad::from(aad), &mut buffer).map_err(|_| NotAuthentic)?.len();
        buffer.truncate(plain_len);
        Ok(buffer)
    }
}

/// The sending direction: a key, and IVs of which none comes twice.
///
/// IVs are `sender id (16) ‖ own counter (48)` (RFC 6054), so that whoever continues this SA elsewhere under another
/// sender id cannot repeat one.
pub(crate) struct Sealer {
    key: AeadKey,
    sender_id: u16,
    counter: u64,
}

impl Sealer {
    pub(crate) fn new(key: AeadKey, sender_id: u16) -> Sealer {
        Sealer { key, sender_id, counter: 0 }
    }

    /// Seals `plain` and gives `IV ‖ ciphertext ‖ ICV`.
    pub(crate) fn seal(&mut self, aad: &[u8], mut plain: Vec<u8>) -> Result<Vec<u8>, Exhausted> {
        if self.counter >> COUNTER_BITS != 0 {
            return Err(Exhausted);
        }
        let iv = (u64::from(self.sender_id) << COUNTER_BITS | self.counter).to_be_bytes();
        self.counter += 1;
        self.key.seal(iv, aad, &mut plain)?;
        let mut sealed = Vec::with_capacity(IV_LEN + plain.len());
        sealed.extend_from_slice(&iv);
        sealed.append(&mut plain);
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cipher: Cipher) -> AeadKey {
        AeadKey::new(cipher, Secret::new((0..cipher.keymat_len() as u8).collect()))
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        for cipher in Cipher::ALL {
            let mut sealer = Sealer::new(key(cipher), 7);
            let sealed = sealer.seal(b"head", b"content".to_vec()).unwrap();
            assert_eq!(sealed.len(), IV_LEN + 7 + ICV_LEN);
            assert_eq!(key(cipher).open(b"head", &sealed).unwrap(), b"content");
            assert_eq!(key(cipher).open(b"Head", &sealed), Err(NotAuthentic));
            for bit in 0..sealed.len() * 8 {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(key(cipher).open(b"head", &forged), Err(NotAuthentic));
            }
            for cut in 0..sealed.len() {
                assert_eq!(key(cipher).open(b"head", &sealed[..cut]), Err(NotAuthentic));
            }
        }
    }

    #[test]
    fn ivs_start_with_the_sender_id_and_never_repeat() {
        let mut sealer = Sealer::new(key(Cipher::AesGcm128), 0xabcd);
        let ivs: Vec<_> = (0..3).map(|_| sealer.seal(b"", Vec::new()).unwrap()[..8].to_vec()).collect();
        assert_eq!(ivs[0], [0xab, 0xcd, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ivs[2], [0xab, 0xcd, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn the_counter_ends_before_it_would_touch_the_sender_id() {
        let mut sealer = Sealer::new(key(Cipher::AesGcm128), 1);
        sealer.counter = (1 << COUNTER_BITS) - 1;
        assert!(sealer.seal(b"", Vec::new()).is_ok());
        assert_eq!(sealer.seal(b"", Vec::new()), Err(Exhausted));
    }
}
