//! IKEv2 (RFC 7296), sans-IO: responder and rekeying initiator.
#![forbid(unsafe_code)]

mod channel;
pub mod config;
mod crypto;
pub mod error;
pub mod message;
pub mod proposal;

pub use channel::Role;
