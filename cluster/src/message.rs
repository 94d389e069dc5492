//! XCF messages: what members say to each other over the trusted port, and how it stands in bytes.
//!
//! **Purpose.** One closed set of messages, encoded with postcard. A session carries them whole, in order and encrypted
//! until it breaks; what a message does is [`crate::member`]'s business.
//!
//! **Promises.** Decoding never panics, allocates in proportion to the bytes at most, and gives out only messages whose
//! lists lie within their bounds. A kind that is newer than the version the session has agreed on is neither sent nor
//! taken. The bytes of a message that may hold keys are wiped when dropped.
//!
//! **What it never does.** It judges no epoch and no sender.

mod as_wire;
mod kinds;
#[cfg(test)]
mod tests;

use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use as_wire::{flow as flow_as_wire, peer as peer_as_wire};
pub use kinds::{
    Body, Delta, Departed, Granted, Marked, Moved, NumbersFrom, SecretBytes, ShadowImage, ShortReason, Top, Used,
    Wanted,
};

use crate::id::Epoch;

/// The version that this program speaks.
pub const VERSION: u16 = 1;
/// The oldest version that it still speaks.
pub const OLDEST_VERSION: u16 = 1;

/// The longest message, in bytes. A session may frame longer ones; none of ours is.
pub const MESSAGE_BYTES_MAX: usize = 1 << 18;
/// Most entries of one list: deltas, tops, uses, grants.
pub const LIST_MAX: usize = 1_024;
/// Most connections in one message.
pub const ENTRIES_MAX: usize = 256;
/// Most services of one target.
pub const SERVICES_MAX: usize = 1_024;
/// The longest encoded SA, in bytes.
pub const SHADOW_BYTES_MAX: usize = 64 * 1024;

/// What one member says to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The sender lives, and how busy its data cores are, 0 to 1000.
    Pulse {
        /// 0 to 1000.
        load_permille: u16,
    },
    /// About one DVIPA, in one epoch of it.
    Dvipa {
        /// Which.
        dvipa: IpAddr,
        /// In which epoch the sender believes it is.
        epoch: Epoch,
        /// What.
        body: Body,
    },
}

/// Why bytes are no message that may be taken. The session that carried them is to be closed: both sides were to agree on
/// what they speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Longer than any message.
    #[error("{found} bytes, a message has at most {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// How many bytes came.
        found: usize,
    },
    /// No message of any kind that this program knows: a broken member, or a kind from a newer version.
    #[error("no message that version {VERSION} knows; do all members run versions that may work together?")]
    Malformed,
    /// Bytes follow a complete message.
    #[error("{found} bytes follow the message")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// A kind from a newer version than the session has agreed on.
    #[error("a message of version {since}, the session has agreed on {agreed}")]
    Newer {
        /// Since when there is such a message.
        since: u16,
        /// What the two agreed on.
        agreed: u16,
    },
    /// A list is longer than it may be.
    #[error("a list of {found} entries, at most {max} are allowed")]
    ListTooLong {
        /// How long it is.
        found: usize,
        /// How long it may be.
        max: usize,
    },
}

impl Message {
    /// The version of XCF since which there are messages of this kind.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Message::Pulse { .. } => 1,
            Message::Dvipa { body, .. } => body.since(),
        }
    }

    /// The message in bytes, for a session that agreed on `agreed`.
    ///
    /// # Errors
    /// [`BadMessage`] for a message that the other side would refuse.
    pub fn encode(&self, agreed: u16) -> Result<Zeroizing<Vec<u8>>, BadMessage> {
        self.check(agreed)?;
        // Measured first, so that no buffer that holds keys is ever moved and left behind.
        let bytes = postcard::experimental::serialized_size(self).map_err(|_| BadMessage::Malformed)?;
        if bytes > MESSAGE_BYTES_MAX {
            return Err(BadMessage::TooLong { found: bytes });
        }
        let mut out = Zeroizing::new(vec![0; bytes]);
        let written = postcard::to_slice(self, &mut out).map_err(|_| BadMessage::Malformed)?.len();
        out.truncate(written);
        Ok(out)
    }

    /// Reads a message that came over a session that agreed on `agreed`.
    ///
    /// # Errors
    /// [`BadMessage`]; the session is to be closed.
    pub fn decode(bytes: &[u8], agreed: u16) -> Result<Message, BadMessage> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(BadMessage::TooLong { found: bytes.len() });
        }
        let (message, rest) = postcard::take_from_bytes::<Message>(bytes).map_err(|_| BadMessage::Malformed)?;
        if !rest.is_empty() {
            return Err(BadMessage::Trailing { found: rest.len() });
        }
        message.check(agreed)?;
        Ok(message)
    }

    fn check(&self, agreed: u16) -> Result<(), BadMessage> {
        if self.since() > agreed {
            return Err(BadMessage::Newer { since: self.since(), agreed });
        }
        match self {
            Message::Pulse { .. } => Ok(()),
            Message::Dvipa { body, .. } => body.check_lists(),
        }
    }
}
