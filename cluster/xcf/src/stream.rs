//! What a mesh and the streams below it tell each other. Whoever owns the streams (the IP stack, a simulator) passes
//! these through, in order.

use core::fmt;
use core::net::SocketAddr;

/// A stream's number. Each side draws from its own, so that no two are ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// One that the mesh asked for.
    Dialled(u64),
    /// One that a peer asked for; numbered by whoever accepts it.
    Accepted(u64),
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamId::Dialled(number) => write!(f, "dialled {number}"),
            StreamId::Accepted(number) => write!(f, "accepted {number}"),
        }
    }
}

/// What becomes of a stream. [`StreamEvent::Closed`] is the last of each that the mesh did not close itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A peer has asked for a stream, and has it.
    Accepted {
        /// Its number, new.
        stream: StreamId,
        /// Who asked.
        from: SocketAddr,
        /// How many bytes may be written now.
        room_bytes: usize,
    },
    /// A stream that was asked for is there.
    Connected {
        /// Its number.
        stream: StreamId,
        /// How many bytes may be written now.
        room_bytes: usize,
    },
    /// Bytes have come.
    Readable {
        /// By which stream.
        stream: StreamId,
        /// These.
        bytes: Vec<u8>,
    },
    /// There is room for more.
    Writable {
        /// On which stream.
        stream: StreamId,
        /// How many bytes more, beyond what was granted before.
        room_bytes: usize,
    },
    /// The stream has ended, or could not be had.
    Closed {
        /// Which.
        stream: StreamId,
        /// Why.
        why: StreamEnd,
    },
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamEnd {
    /// The peer ended it in order.
    #[error("the peer ended the connection")]
    Finished,
    /// The peer broke it, or does not listen.
    #[error("the peer reset or refused the connection")]
    Reset,
    /// The peer does not answer.
    #[error("the peer does not answer")]
    TimedOut,
    /// There was no room for it here.
    #[error("no free socket on this appliance")]
    NoSocket,
}

/// What the mesh wants of its streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamAction {
    /// Ask a peer for a stream.
    Connect {
        /// Its number, new.
        stream: StreamId,
        /// Whom.
        address: SocketAddr,
    },
    /// Write; never more than there is room for.
    Write {
        /// On which stream.
        stream: StreamId,
        /// These.
        bytes: Vec<u8>,
    },
    /// End it in order, after what was written has gone. The mesh has forgotten it.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// Break it at once. The mesh has forgotten it.
    Abort {
        /// Which.
        stream: StreamId,
    },
}
