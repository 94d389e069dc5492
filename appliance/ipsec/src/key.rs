//! Keys of an SA: wiped when dropped, compared in constant time, never printed.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cipher::Cipher;

/// The key and salt of one direction of an SA.
///
/// There is no `Clone`: keys are moved to where they are used, and the raw bytes leave this crate only by
/// [`SaKey::expose_keymat`]. They lie on the heap, so that a move leaves no copy behind.
pub struct SaKey {
    cipher: Cipher,
    /// Exactly as many bytes as the cipher takes: the key, then the salt.
    keymat: Zeroizing<Box<[u8]>>,
}

/// Keying material of the wrong length for its cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cipher} takes {} bytes of keying material, {found} were given", cipher.keymat_len())]
pub struct KeymatLength {
    /// The cipher that the key was meant for.
    pub cipher: Cipher,
    /// How many bytes were given.
    pub found: usize,
}

impl SaKey {
    /// Takes keying material as IKE derives it: the key, then the 4-byte salt (RFC 4106 §8.1).
    ///
    /// # Errors
    /// [`KeymatLength`] unless there are exactly [`Cipher::keymat_len`] bytes.
    pub fn from_keymat(cipher: Cipher, keymat: &[u8]) -> Result<Self, KeymatLength> {
        if keymat.len() != cipher.keymat_len() {
            return Err(KeymatLength { cipher, found: keymat.len() });
        }
        Ok(Self { cipher, keymat: Zeroizing::new(keymat.into()) })
    }

    /// The cipher that this key is for.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The keying material as it was given, for whoever hands the SA to another appliance and wipes what it copies.
    #[must_use]
    pub fn expose_keymat(&self) -> &[u8] {
        &self.keymat
    }

    /// The cipher key without the salt.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        &self.keymat[..self.cipher.key_len()]
    }

    /// The salt that starts every nonce.
    pub(crate) fn salt(&self) -> [u8; 4] {
        let mut salt = [0; 4];
        salt.copy_from_slice(&self.keymat[self.cipher.key_len()..]);
        salt
    }
}

impl PartialEq for SaKey {
    /// In constant time for keys of one cipher.
    fn eq(&self, other: &Self) -> bool {
        self.cipher == other.cipher && bool::from(self.keymat.ct_eq(&other.keymat))
    }
}

impl Eq for SaKey {}

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_exactly_the_bytes_its_cipher_needs() {
        for cipher in Cipher::ALL {
            for found in 0..64 {
                let taken = SaKey::from_keymat(cipher, &vec![7; found]);
                assert_eq!(taken.is_ok(), found == cipher.keymat_len(), "{cipher} {found}");
            }
        }
    }

    #[test]
    fn the_salt_comes_after_the_key() {
        let keymat: Vec<u8> = (0..20).collect();
        let key = SaKey::from_keymat(Cipher::AesGcm128, &keymat).unwrap();
        assert_eq!(key.key_bytes(), &keymat[..16]);
        assert_eq!(key.salt(), [16, 17, 18, 19]);
    }

    #[test]
    fn keys_differ_by_any_bit_and_are_never_printed() {
        let keymat = [0x5a; 20];
        let key = SaKey::from_keymat(Cipher::AesGcm128, &keymat).unwrap();
        assert_eq!(key, SaKey::from_keymat(Cipher::AesGcm128, &keymat).unwrap());
        for at in 0..20 {
            let mut other = keymat;
            other[at] ^= 0x80;
            assert_ne!(key, SaKey::from_keymat(Cipher::AesGcm128, &other).unwrap());
        }
        assert_eq!(format!("{key:?}"), "SaKey(..)");
    }
}
