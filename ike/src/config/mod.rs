//! What the operator allows: connections, their children, identities, secrets, limits.
//!
//! Raw settings become a [`Connection`] by being checked and consumed; from then on they cannot change, so nothing
//! further in doubts them. Reading files is for others.

mod connection;
mod identity;
mod limits;
mod secrets;

pub use connection::{ChildSettings, ConfigError, Connection, ConnectionSettings, Overlap};
pub use identity::{Identity, IdentityPattern, IdentityTextError};
pub use limits::{Limits, Retransmission, Timing};
pub use secrets::{EmptyPsk, Psk, Secrets};

/// Everything an endpoint is told at its start.
#[derive(Clone, Debug, Default)]
pub struct EndpointConfig {
    /// Bounds on memory and work.
    pub limits: Limits,
    /// How long things take.
    pub timing: Timing,
    /// Starts every IV of IKE messages; must differ from that of every other endpoint, and every earlier run, that
    /// uses the same keys (RFC 6054).
    pub sender_id: u16,
    /// Stands in every SA that is born here.
    pub epoch: u64,
}
