//! Expanded keys, and what is done with them.

use crate::library::{Crypt, Functions, Library};
use crate::sys;
use core::fmt;
use core::mem::{self, MaybeUninit};
use core::slice;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;

/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// The most that one call may encrypt (NIST SP 800-38D §5.2.1.1): 64 GiB less two blocks.
pub const MAX_DATA_BYTES: u64 = (1 << 36) - 32;

/// The tag does not belong to this key, nonce, associated data and ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not authentic")]
pub struct AuthenticationFailed;

/// AES-GCM keys have 16 or 32 bytes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of {0} bytes; AES-GCM keys have 16 or 32 here")]
pub struct UnknownKeyLength(pub usize);

/// Round keys and hash keys, where the library's aligned loads want them.
#[repr(C, align(64))]
struct Expanded(sys::gcm_key_data);

impl Drop for Expanded {
    fn drop(&mut self) {
        // SAFETY: plain bytes without padding that matters; all-zero bytes are valid for it.
        let bytes =
            unsafe { slice::from_raw_parts_mut((&raw mut self.0).cast::<u8>(), mem::size_of::<sys::gcm_key_data>()) };
        bytes.zeroize();
    }
}

/// An expanded AES-GCM key. Reading it needs no lock, so all threads may share it.
pub struct Key {
    expanded: Box<Expanded>,
    seal: Crypt,
    open: Crypt,
}

impl Key {
    /// Expands a key of 16 or 32 bytes.
    pub fn new(library: &Library, key: &[u8]) -> Result<Key, UnknownKeyLength> {
        match key.len() {
            16 => Ok(Key::expand(&library.aes128, key)),
            32 => Ok(Key::expand(&library.aes256, key)),
            other => Err(UnknownKeyLength(other)),
        }
    }

    /// The caller matches the key's length to the functions.
    fn expand(functions: &Functions, key: &[u8]) -> Key {
        // SAFETY: all-zero bytes are a valid value of this plain struct.
        let mut expanded = Box::new(Expanded(unsafe { mem::zeroed() }));
        // SAFETY: `key` is as long as these functions want it, and `expanded` has the size and alignment of the
        // library's own type.
        unsafe { (functions.expand)(key.as_ptr().cast(), &raw mut expanded.0) };
        Key { expanded, seal: functions.seal, open: functions.open }
    }

    /// Encrypts `data` where it stands, and writes the tag over it and `aad`.
    ///
    /// # Panics
    ///
    /// If `data` has more than [`MAX_DATA_BYTES`] bytes, which no packet has.
    #[inline]
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], data: &mut [u8], tag: &mut [u8; TAG_BYTES]) {
        self.crypt(self.seal, nonce, aad, data, tag);
    }

    /// Decrypts `data` where it stands, if `tag` says that it and `aad` are authentic. If not, `data` is zeroed: what
    /// a forger's bytes decrypt to shall not be found by anyone, and nobody needs the ciphertext again.
    ///
    /// # Panics
    ///
    /// If `data` has more than [`MAX_DATA_BYTES`] bytes, which no packet has.
    #[inline]
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AuthenticationFailed> {
        let mut expected = [0; TAG_BYTES];
        self.crypt(self.open, nonce, aad, data, &mut expected);
        // As one number: byte by byte costs as much as a block of AES.
        if bool::from(u128::from_ne_bytes(expected).ct_eq(&u128::from_ne_bytes(*tag))) {
            return Ok(());
        }
        data.fill(0);
        Err(AuthenticationFailed)
    }

    #[inline]
    fn crypt(&self, function: Crypt, nonce: &[u8; NONCE_BYTES], aad: &[u8], data: &mut [u8], tag: &mut [u8; 16]) {
        // The library would leave an overlong buffer as it is, that is in the clear.
        assert!(data.len() as u64 <= MAX_DATA_BYTES, "more data than AES-GCM can protect");
        let mut context = MaybeUninit::<sys::gcm_context_data>::uninit();
        let bytes = data.as_mut_ptr();
        // SAFETY: the key is expanded for this very function; the context is scratch space that the function writes
        // before it reads; nonce and tag have the lengths that it wants, `aad` and `data` those that it is told; source
        // and destination may be the same.
        unsafe {
            function(
                &raw const self.expanded.0,
                context.as_mut_ptr(),
                bytes,
                bytes,
                data.len() as u64,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                tag.as_mut_ptr(),
                TAG_BYTES as u64,
            );
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared_between_threads<T: Send + Sync>() {}

    #[test]
    fn keys_are_shared_between_threads_and_printed_never() {
        shared_between_threads::<Key>();
        let key = Key::new(Library::get().unwrap(), &[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(..)");
    }

    #[test]
    fn a_dropped_key_leaves_zeros_behind() {
        let key = Key::new(Library::get().unwrap(), &[7; 16]).unwrap();
        let mut expanded = mem::ManuallyDrop::new(key.expanded);
        let bytes = (&raw const expanded.0).cast::<u8>();
        let size = mem::size_of::<sys::gcm_key_data>();
        // SAFETY: the struct lives, dropped in place or not, until its memory is given back below.
        let read = || unsafe { slice::from_raw_parts(bytes, size) }.iter().filter(|&&byte| byte != 0).count();
        assert!(read() > 200, "the key was expanded");
        // SAFETY: dropped in place once; the box itself only gives back memory.
        unsafe { core::ptr::drop_in_place(&raw mut **expanded) };
        assert_eq!(read(), 0);
        // SAFETY: the memory was the box's; `Expanded` is all zeros, which dropping again leaves so.
        drop(unsafe { Box::from_raw(&raw mut **expanded) });
    }

    #[test]
    fn only_two_key_lengths_exist() {
        let library = Library::get().unwrap();
        for len in (0..=64).filter(|len| ![16, 32].contains(len)) {
            assert_eq!(Key::new(library, &vec![0; len]).unwrap_err(), UnknownKeyLength(len));
        }
    }
}
