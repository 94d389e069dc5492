//! IPsec as RFC 4301 and RFC 4303 describe it: security associations, the databases that hold them, ESP itself.
//!
//! **Purpose.** Everything about ESP that is not a socket, a thread or a network card: the types that IKE negotiates
//! and the data path obeys, and the work on one packet.
//!
//! **Promises.**
//! - Nothing here panics on bytes from a network, whatever they are, and nothing allocates per packet.
//! - A replay window moves only for a packet whose integrity was verified: the compiler checks it
//!   ([`esp::Authentic`] is the only key to [`replay::ReplayWindow::commit`]), here or, where another appliance vouches for
//!   it, there ([`inbound::Vouched`]).
//! - Limits are exact: no SA carries more than its hard lifesize, over any number of cores.
//! - Keys are wiped when dropped and never printed.
//!
//! **What it never does.** It reads no clock, draws no randomness, opens no socket, holds no lock: time, seeds and
//! buffers are arguments. It knows nothing of DPDK, IKE or clusters.
#![forbid(unsafe_code)]

pub mod bucket_index;
pub mod cipher;
pub mod ecn;
pub mod engine;
pub mod esp;
pub mod inbound;
pub mod iv;
pub mod key;
pub mod lifetime;
pub mod outbound;
#[cfg(phalanx_plant)]
pub mod plant;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod selector;
pub mod spd;
mod spi;
pub mod time;
pub mod transport;

#[cfg(test)]
mod testing;

pub use spi::Spi;
