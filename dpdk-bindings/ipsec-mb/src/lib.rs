//! A safe layer over Intel's multi-buffer crypto library: AES-128-GCM and AES-256-GCM, one packet a call.
//!
//! The library's job and burst interfaces are slower for packets than its direct call, so only that is bound.
//!
//! # Promises
//!
//! - [`open_in_place`](Key::open_in_place) compares tags in constant time, and zeroes what it decrypted when they
//!   differ: unauthenticated plaintext is never readable, not even by mistake.
//! - Key material is zeroed when a [`Key`] is dropped, and never printed.
//! - A call allocates nothing, and keys are shared between threads without a lock.
//!
//! # Never here
//!
//! Nonces: whoever calls [`seal_in_place`](Key::seal_in_place) twice with one key and nonce has broken GCM.

#![deny(clippy::undocumented_unsafe_blocks)]
#![deny(unsafe_op_in_unsafe_fn)]

mod key;
mod library;
mod sys;

pub use key::{AuthenticationFailed, Key, MAX_DATA_BYTES, NONCE_BYTES, TAG_BYTES, UnknownKeyLength};
pub use library::{Error, Library};
