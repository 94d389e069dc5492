//! The cryptography of IKEv2: what RFC 7296 §2.13 to §2.18 does with the primitives of `ring` and `x25519-dalek`.
//!
//! **Promises.** Keys live in memory that is wiped when dropped, and nothing here prints them. **Never:** no randomness
//! is drawn here except from the generator passed in.

pub(crate) mod aead;
pub(crate) mod kex;
pub(crate) mod keys;
pub(crate) mod prf;

use zeroize::Zeroizing;

/// Secret octets, wiped when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;
