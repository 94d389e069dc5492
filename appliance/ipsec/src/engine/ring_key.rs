//! AES-GCM by `ring`.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{EngineKind, KeyRefused, NONCE_LEN, NotAuthentic, SealFailed};
use crate::cipher::Cipher;
use crate::esp::ICV_LEN;

/// A key that `ring` has expanded. "Less safe" means that nonces come from outside; ours come from
/// [`crate::iv::IvGenerator`], which never repeats one.
///
/// `ring` does not wipe expanded keys; they live exactly as long as their SA.
pub(super) struct RingKey(LessSafeKey);

impl RingKey {
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, KeyRefused> {
        let algorithm = match cipher {
            Cipher::AesGcm128 => &AES_128_GCM,
            Cipher::AesGcm256 => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyRefused(EngineKind::Ring))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    #[inline]
    pub fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8]) -> Result<(), NotAuthentic> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place(nonce, Aad::from(aad), sealed).map(|_| ()).map_err(|_| NotAuthentic)
    }

    #[inline]
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plain: &mut [u8],
        icv: &mut [u8; ICV_LEN],
    ) -> Result<(), SealFailed> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), plain).map_err(|_| SealFailed)?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }
}
