//! What a mesh tells.

use core::net::{IpAddr, SocketAddr};

use cluster::id::{Incarnation, MemberId};

use crate::close::CloseReason;
use crate::message::Message;
use crate::session::SendError;
use crate::stream::StreamEnd;

/// What has come of it all, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum MeshEvent {
    /// A member's session is up. Nothing of an earlier session follows.
    Up {
        /// Which member.
        member: MemberId,
        /// In which start.
        incarnation: Incarnation,
        /// The version to speak with it.
        version: u16,
    },
    /// A member has sent a message.
    Message {
        /// Which member.
        member: MemberId,
        /// The message.
        bytes: Message,
    },
    /// A member's session is over; what was not delivered on it is lost.
    Down {
        /// Which member.
        member: MemberId,
        /// Why.
        why: DownReason,
    },
    /// An attempt has come to nothing, or was refused. For the log, which should be limited in rate.
    Failed {
        /// The other end.
        remote: SocketAddr,
        /// The member that was dialled, if it was us who dialled.
        member: Option<MemberId>,
        /// Why.
        why: DownReason,
    },
}

/// Why a session is over, or did not come up.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DownReason {
    /// Its session says so.
    #[error(transparent)]
    Session(CloseReason),
    /// Its stream says so.
    #[error(transparent)]
    Stream(StreamEnd),
    /// It was not established in time.
    #[error("the session was not established in time")]
    HandshakeTimedOut,
    /// Nothing has come for too long.
    #[error("the member has been silent for too long")]
    Silent,
    /// A newer session of the same member has come.
    #[error("a newer session of this member has taken its place")]
    Replaced,
    /// An older start of a member whose newer one is known.
    #[error(
        "member {member} speaks in incarnation {found}, but incarnation {known} is known; stop the older of its two processes"
    )]
    OlderIncarnation {
        /// Which member.
        member: MemberId,
        /// Which start speaks.
        found: Incarnation,
        /// Which one is known.
        known: Incarnation,
    },
    /// A member at an address that is not its own.
    #[error("member {member} speaks from {from}, which is not its trusted address; compare the configurations")]
    WrongAddress {
        /// Which member.
        member: MemberId,
        /// From where it spoke.
        from: IpAddr,
    },
    /// A member that dials though it should be dialled.
    #[error("member {0} has dialled, though the lower number dials; compare the member numbers of both configurations")]
    WrongDialler(MemberId),
    /// Somebody at an address that is no member's.
    #[error("{0} is no member's trusted address")]
    Stranger(IpAddr),
    /// Too many streams wait to prove whose they are.
    #[error("too many connections wait to prove whose they are")]
    Crowded,
}

impl DownReason {
    /// Whether the peer may read a goodbye.
    pub(super) fn is_orderly(&self) -> bool {
        match self {
            DownReason::Session(CloseReason::TooSlow { .. } | CloseReason::NotTaken { .. })
            | DownReason::Stream(_)
            | DownReason::Silent
            | DownReason::HandshakeTimedOut
            | DownReason::Replaced
            | DownReason::Stranger(_)
            | DownReason::Crowded => false,
            DownReason::Session(_)
            | DownReason::OlderIncarnation { .. }
            | DownReason::WrongAddress { .. }
            | DownReason::WrongDialler(_) => true,
        }
    }

    /// Whether [`Refusals`] has a field of its own for it.
    pub(super) fn is_counted_elsewhere(&self) -> bool {
        matches!(
            self,
            DownReason::OlderIncarnation { .. } | DownReason::WrongAddress { .. } | DownReason::WrongDialler(_)
        )
    }
}

/// What was refused, by reason; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Streams from addresses that are no member's.
    pub strangers: u64,
    /// Streams for which there were too many that had not proven whose they are.
    pub crowded: u64,
    /// Streams on which no session came up, whoever began them.
    pub handshakes: u64,
    /// Sessions of older starts, from wrong addresses, or dialled the wrong way.
    pub superseded: u64,
    /// Heartbeats that did not count.
    pub heartbeats: u64,
    /// Failures that were not told because nobody took the earlier ones out.
    pub untold: u64,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeshSendError {
    /// There is no session.
    #[error("the session with member {0} is not up")]
    NotUp(MemberId),
    /// The session refuses it.
    #[error("to member {member}: {why}")]
    Session {
        /// Which member.
        member: MemberId,
        /// Why.
        why: SendError,
    },
}
