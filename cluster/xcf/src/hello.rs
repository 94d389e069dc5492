//! The first message on each side of a session: who speaks, in which start, and which versions it knows.
//!
//! Network order: magic 8 bytes · lowest version u16 · highest version u16 · member u16 · incarnation u64 · length of the
//! cluster's name u8 · the name. What follows is of later versions and is passed over, so that this message never has to
//! change.

use core::fmt;

use cluster::id::{Incarnation, MemberId};

use crate::name::Name;

const MAGIC: [u8; 8] = *b"PHLX-XCF";
const FIXED_BYTES: usize = 8 + 2 + 2 + 2 + 8 + 1;
/// A peer's first message is at most so long.
pub(crate) const HELLO_BYTES_MAX: usize = 1_024;

/// Versions of the messages that a member knows, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl Versions {
    /// The highest that both know.
    #[must_use]
    pub fn common(self, other: Versions) -> Option<u16> {
        let (low, high) = (self.min.max(other.min), self.max.min(other.max));
        (low <= high).then_some(high)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Why a first message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirstMessageError {
    /// It is not the message that members begin with.
    #[error("it does not begin as a member's does")]
    Unknown,
    /// It is too short, or contradicts itself.
    #[error("it is malformed ({found_bytes} bytes)")]
    Malformed {
        /// Its length.
        found_bytes: usize,
    },
    /// It speaks of another cluster.
    #[error("it is of cluster {found:?}, this one is {expected:?}")]
    Cluster {
        /// The cluster that it names.
        found: Name,
        /// Ours.
        expected: Name,
    },
    /// The number and the certificate name different members.
    #[error("member {name:?} says that its number is {found}; here it is {expected}; the configurations differ")]
    Member {
        /// Whose certificate it is.
        name: Name,
        /// The number in the message.
        found: MemberId,
        /// The number in the configuration.
        expected: MemberId,
    },
    /// No version is known to both.
    #[error("it knows versions {theirs}, this member {ours}; upgrade the older one step by step")]
    Versions {
        /// What the peer knows.
        theirs: Versions,
        /// What we know.
        ours: Versions,
    },
}

/// The first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub versions: Versions,
    pub member: MemberId,
    pub incarnation: Incarnation,
    pub cluster: Name,
}

impl Hello {
    pub fn to_bytes(&self) -> Vec<u8> {
        let name = self.cluster.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + name.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.versions.min.to_be_bytes());
        bytes.extend_from_slice(&self.versions.max.to_be_bytes());
        bytes.extend_from_slice(&self.member.0.to_be_bytes());
        bytes.extend_from_slice(&self.incarnation.0.to_be_bytes());
        // A name is at most 63 bytes long.
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Hello, FirstMessageError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FirstMessageError::Unknown);
        }
        Hello::read(&bytes[MAGIC.len()..]).ok_or(FirstMessageError::Malformed { found_bytes: bytes.len() })
    }

    fn read(bytes: &[u8]) -> Option<Hello> {
        let (min, bytes) = bytes.split_first_chunk()?;
        let (max, bytes) = bytes.split_first_chunk()?;
        let (member, bytes) = bytes.split_first_chunk()?;
        let (incarnation, bytes) = bytes.split_first_chunk()?;
        let (&length, bytes) = bytes.split_first()?;
        let name = core::str::from_utf8(bytes.get(..usize::from(length))?).ok()?;
        let versions = Versions { min: u16::from_be_bytes(*min), max: u16::from_be_bytes(*max) };
        (versions.min <= versions.max).then_some(())?;
        Some(Hello {
            versions,
            member: MemberId(u16::from_be_bytes(*member)),
            incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
            cluster: Name::new(name).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            versions: Versions { min: 1, max: 3 },
            member: MemberId(2),
            incarnation: Incarnation(7),
            cluster: Name::new("east").unwrap(),
        }
    }

    #[test]
    fn a_first_message_reads_as_it_was_written_and_what_follows_is_passed_over() {
        let mut bytes = hello().to_bytes();
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello()));
        bytes.extend_from_slice(b"of a later version");
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello()));
    }

    #[test]
    fn a_first_message_cut_short_anywhere_is_refused() {
        let bytes = hello().to_bytes();
        for length in 0..bytes.len() {
            assert!(Hello::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn versions_turned_round_are_malformed() {
        let mut bytes = hello().to_bytes();
        bytes[9] = 9;
        assert!(matches!(Hello::from_bytes(&bytes), Err(FirstMessageError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn the_version_is_the_highest_that_both_know(a in 0_u16..8, b in 0_u16..8, c in 0_u16..8, d in 0_u16..8) {
            let (ours, theirs) = (Versions { min: a.min(b), max: a.max(b) }, Versions { min: c.min(d), max: c.max(d) });
            let knows = |who: Versions, version: u16| who.min <= version && version <= who.max;
            let oracle = (0..8).rev().find(|&version| knows(ours, version) && knows(theirs, version));
            prop_assert_eq!(ours.common(theirs), oracle);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = Hello::from_bytes(&[&MAGIC[..], &bytes].concat());
        }
    }
}
