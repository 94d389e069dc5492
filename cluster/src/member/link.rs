//! What is known of the way to each other member.

use core::time::Duration;

use ipsec::time::Instant;

use crate::id::Incarnation;

/// What a session's maker says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Messages can be exchanged; those of the session before are gone.
    Up {
        /// The start of the other side.
        incarnation: Incarnation,
        /// The version of XCF that the two agreed on.
        version: u16,
    },
    /// They cannot, for now.
    Down,
}

/// The way to one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// The session, while there is one.
    pub session: Option<Session>,
    /// When it was last heard, in any session; `None` if it never was.
    pub heard_at: Option<Instant>,
    /// How busy it says its data cores are.
    pub load_permille: u16,
    /// Messages refused, of all kinds.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub incarnation: Incarnation,
    pub version: u16,
}

impl Link {
    pub fn is_up(&self) -> bool {
        self.session.is_some()
    }

    /// Whether it has been silent for longer than this; one that never spoke has.
    pub fn is_silent(&self, now: Instant, silence: Duration) -> bool {
        self.heard_at.is_none_or(|heard| now.saturating_since(heard) > silence)
    }
}
