//! What a core tells of routed connections, in a ring of its own.

use crate::policy::Service;
use cluster::id::{ChildId, Incarnation, MemberId};
use cluster::member::EntryKey;

/// News of a routed connection, or of an SA that members share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// As a target: this connection has ended here, and is a tomb.
    Stopped(EntryKey),
    /// As a target: this connection is here, as the owner asked.
    Alive(EntryKey),
    /// As the owner: it is long since this entry was confirmed, or it is new.
    Unverified {
        /// Which.
        entry: EntryKey,
        /// Who has the connection.
        target: MemberId,
        /// Since which start.
        incarnation: Incarnation,
    },
    /// As a target: how many connections this core has of a service, since that has changed.
    Active {
        /// Of which service.
        service: Service,
        /// How many live ones.
        connections: u32,
    },
    /// A packet waits for a number of this SA.
    NumbersWanted {
        /// Which SA.
        child: ChildId,
        /// The number that the next packet would have.
        next: u64,
    },
    /// As the owner: a packet met a seal.
    SealMet(ChildId),
}

impl Report {
    /// Whether it is said again by itself when it is lost.
    pub const fn is_told_again(&self) -> bool {
        match self {
            Report::Stopped(_) => false,
            Report::Alive(_)
            | Report::Unverified { .. }
            | Report::Active { .. }
            | Report::NumbersWanted { .. }
            | Report::SealMet(_) => true,
        }
    }
}
