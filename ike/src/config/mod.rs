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
    /// Stands in every SA that is born at an address of which [`set_epoch`](crate::Endpoint::set_epoch) has said nothing.
    pub epoch: u64,
    /// Peers are numbered upwards from here; the first gets the next number. Where several endpoints share one space of
    /// numbers, such as the starts of the members of a cluster, each has its own base, far enough from the next one's:
    /// peers are numbered as they come and no number comes again. Let it leave the highest 2^32 numbers alone: SAs
    /// without IKE take theirs from there.
    pub peer_base: u64,
    /// As initiator: say of the CHILD_SA of IKE_AUTH that others with equal selectors are welcome beside it (RFC 9611).
    pub per_resource: bool,
}
