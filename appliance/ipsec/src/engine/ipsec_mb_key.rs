//! AES-GCM by Intel's ipsec-mb, called directly for each packet: its job and burst interfaces are slower than that.

use ipsec_mb::{Key, Library};

use super::{EngineKind, KeyRefused, NONCE_LEN, NotAuthentic};
use crate::cipher::Cipher;
use crate::esp::ICV_LEN;

/// A key that the library has expanded; wiped when dropped.
pub(super) struct IpsecMbKey(Key);

/// Whether the library works on this machine at all.
pub(super) fn probe() -> Result<(), String> {
    Library::get().map(|_| ()).map_err(|error| error.to_string())
}

impl IpsecMbKey {
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, KeyRefused> {
        let refused = KeyRefused(EngineKind::IpsecMb);
        if key.len() != cipher.key_len() {
            return Err(refused);
        }
        let library = Library::get().map_err(|_| refused)?;
        Key::new(library, key).map(Self).map_err(|_| refused)
    }

    #[inline]
    pub fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8]) -> Result<(), NotAuthentic> {
        let (ciphertext, icv) = sealed.split_last_chunk_mut::<ICV_LEN>().ok_or(NotAuthentic)?;
        self.0.open_in_place(nonce, aad, ciphertext, icv).map_err(|_| NotAuthentic)
    }

    #[inline]
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plain: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        self.0.seal_in_place(nonce, aad, plain, icv);
    }
}
