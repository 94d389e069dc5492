//! IKEv2 messages as bytes and as values (RFC 7296 §3).
//!
//! **Promises.** Nothing here panics, whatever the bytes; work and memory are linear in the datagram's length; what is
//! emitted parses to the same value. **Never:** nothing here knows keys, state or policy.

mod body;
mod chain;
mod header;
pub mod payload;

pub use body::Body;
pub use chain::PayloadChain;
pub use header::{ExchangeType, HEADER_LEN, Header, IkeSpi, Spis};
