//! XCF: the messages between the members of a cluster, each pair of them joined by one TLS 1.3 connection.
//!
//! **Purpose.** [`Session`] is one such connection over bytes: TLS, the first message, the framing. [`Mesh`] is all
//! sessions of one member: who dials whom, when to try again, which of two sessions counts. [`heartbeat`] tells of life
//! beside them, in datagrams. [`pki`] makes the certificates by which members know each other.
//!
//! **Promises.**
//! - A session comes up only with a member of this cluster: its certificate chains to the cluster's own authority, is
//!   valid now, and names exactly this member of exactly this cluster. Both sides prove themselves.
//! - Nothing that comes from a network makes it panic, loop or grow without bound: not from a stranger, and not from a
//!   member. A message is at most [`MESSAGE_BYTES_MAX`] long, and every queue has an end.
//! - An older start of a member never takes the place of a newer one.
//! - Given the same certificates, what is sent has the same length in every run: TLS 1.3 with X25519 and Ed25519 only, no
//!   tickets, no compression. The bytes differ, since TLS draws its own randomness.
//! - Messages and keys are wiped where this crate holds them, and never printed.
//!
//! **What it never does.** It opens no socket, reads no clock, starts no thread, reads no file; it does not look into
//! messages, and does not repeat what was lost with a session: whoever sends knows by [`MeshEvent::Down`].

#![forbid(unsafe_code)]

mod certificate;
mod close;
mod framing;
pub mod heartbeat;
mod hello;
mod identity;
mod mesh;

mod message;
mod name;
mod part;
pub mod pki;
mod session;
mod stream;
#[cfg(test)]
mod testing;
mod tls;

use ipsec::time::Instant;

pub use certificate::{Certificate, CertificateError, MemberNameError};
pub use close::{CloseReason, PeerError};
pub use framing::MESSAGE_BYTES_MAX;
pub use hello::{FirstMessageError, Versions};
pub use identity::{Identity, IdentityError, PemFile};
pub use mesh::{DownReason, MemberStatus, Mesh, MeshEvent, MeshSendError, MeshSettings, Refusals, Timing};
pub use message::Message;
pub use name::{Name, NameError};
pub use part::{Part, PartError, PartMember};
pub use session::{QUEUE_BYTES_MAX, SendError, Session, SessionEvent};
pub use stream::{StreamAction, StreamEnd, StreamEvent, StreamId};

/// One moment by two clocks: the one that timers run by, and the one that certificates are valid by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// For timers.
    pub at: Instant,
    /// For certificates: seconds since 1970, UTC.
    pub unix_seconds: u64,
}
