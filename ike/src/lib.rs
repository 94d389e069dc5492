//! IKEv2 (RFC 7296), sans-IO: responder and rekeying initiator.
#![forbid(unsafe_code)]

pub mod error;
pub mod message;
