//! Signs of life beside a session, in datagrams: they say that a member's data cores move and its network port works.
//!
//! A heartbeat counts only if it comes from a member that has proven itself: it is authenticated under a key that both
//! ends have exported from their session's TLS, with HMAC-SHA256 (RFC 2104). The key lasts until the next session's, so
//! a broken TCP connection alone makes nobody look dead. A number counts once.
//!
//! Network order: magic 4 bytes · version u8 · flags u8 (1 network carrier, 2 next hop answers) · member u16 ·
//! incarnation u64 · number u64 · count of cores u8 · a counter u64 of each · 32 bytes of HMAC over all before.

use core::fmt;

use cluster::id::{Incarnation, MemberId};
use ring::hmac;
use zeroize::Zeroizing;

use crate::session::Session;

/// Data cores that one heartbeat can speak of.
pub const CORES_MAX: usize = 64;
/// The longest heartbeat, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = FIXED_BYTES + CORES_MAX * 8 + TAG_BYTES;

const MAGIC: [u8; 4] = *b"PHHB";
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 8 + 1;
const TAG_BYTES: usize = 32;
const CARRIER: u8 = 1;
const NEXT_HOP: u8 = 2;
const LABEL: &[u8] = b"EXPORTER-phalanx-heartbeat";

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub member: MemberId,
    /// In which start.
    pub incarnation: Incarnation,
    /// Grows with each heartbeat under one key, from 1.
    pub number: u64,
    /// How often each data core has polled; one that stands still works no more. At most [`CORES_MAX`].
    pub polls: Vec<u64>,
    /// Whether the network port has carrier.
    pub has_carrier: bool,
    /// Whether the network port's next hop answers.
    pub next_hop_answers: bool,
}

/// Why a datagram is no heartbeat that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// It is none, or one of a version that we do not know.
    #[error("{found_bytes} bytes are no heartbeat of version {VERSION}")]
    Malformed {
        /// Its length.
        found_bytes: usize,
    },
    /// It speaks for another member than the one whose session's key it should have, or for another start of it.
    #[error("it speaks for member {found_member} in incarnation {found_incarnation}")]
    WrongMember {
        /// For whom it speaks.
        found_member: MemberId,
        /// In which start.
        found_incarnation: Incarnation,
    },
    /// No session with its sender has ever been established.
    #[error("no session with member {0} has been established, so nothing proves it")]
    NoKey(MemberId),
    /// It comes from an address that is no member's, or not its member's.
    #[error("it does not come from a member's trusted address")]
    Address,
    /// Its HMAC is wrong.
    #[error("its authentication is wrong, or of a session that is gone")]
    Forged,
    /// Its number, or a higher one, has come before.
    #[error("number {found} has come before, the highest is {highest}")]
    Replayed {
        /// Its number.
        found: u64,
        /// The highest so far.
        highest: u64,
    },
}

/// The key of one session's heartbeats, in both directions.
pub struct Key(hmac::Key);

impl Key {
    /// The key of this session, once it is established.
    #[must_use]
    pub fn of(session: &Session) -> Option<Key> {
        let mut bytes = Zeroizing::new([0; 32]);
        session.export(LABEL, &mut *bytes).then(|| Key(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("heartbeat::Key")
    }
}

/// A heartbeat as a datagram. Counters beyond [`CORES_MAX`] are left out.
#[must_use]
pub fn seal(key: &Key, heartbeat: &Heartbeat) -> Vec<u8> {
    let polls = &heartbeat.polls[..heartbeat.polls.len().min(CORES_MAX)];
    let mut datagram = Vec::with_capacity(FIXED_BYTES + polls.len() * 8 + TAG_BYTES);
    datagram.extend_from_slice(&MAGIC);
    datagram.push(VERSION);
    datagram.push((u8::from(heartbeat.has_carrier) * CARRIER) | (u8::from(heartbeat.next_hop_answers) * NEXT_HOP));
    datagram.extend_from_slice(&heartbeat.member.0.to_be_bytes());
    datagram.extend_from_slice(&heartbeat.incarnation.0.to_be_bytes());
    datagram.extend_from_slice(&heartbeat.number.to_be_bytes());
    datagram.push(polls.len() as u8);
    polls.iter().for_each(|polls| datagram.extend_from_slice(&polls.to_be_bytes()));
    let tag = hmac::sign(&key.0, &datagram);
    datagram.extend_from_slice(tag.as_ref());
    datagram
}

/// The heartbeat in a datagram, if it was sealed under this key. Whether its number is new is the caller's to judge.
///
/// # Errors
/// [`HeartbeatError::Malformed`] and [`HeartbeatError::Forged`].
pub fn open(key: &Key, datagram: &[u8]) -> Result<Heartbeat, HeartbeatError> {
    let malformed = HeartbeatError::Malformed { found_bytes: datagram.len() };
    let Some((content, tag)) = datagram.split_last_chunk::<TAG_BYTES>() else { return Err(malformed) };
    let Some(heartbeat) = read(content) else { return Err(malformed) };
    hmac::verify(&key.0, content, tag).map_err(|_| HeartbeatError::Forged)?;
    Ok(heartbeat)
}

/// The member that a datagram claims to be of, so that a key can be found.
pub(crate) fn claimed_member(datagram: &[u8]) -> Option<MemberId> {
    let (content, _tag) = datagram.split_last_chunk::<TAG_BYTES>()?;
    read(content).map(|heartbeat| heartbeat.member)
}

fn read(content: &[u8]) -> Option<Heartbeat> {
    let bytes = content.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION])?;
    let (&flags, bytes) = bytes.split_first()?;
    let (member, bytes) = bytes.split_first_chunk()?;
    let (incarnation, bytes) = bytes.split_first_chunk()?;
    let (number, bytes) = bytes.split_first_chunk()?;
    let (&count, bytes) = bytes.split_first()?;
    let (polls, rest) = bytes.as_chunks::<8>();
    let is_sound = polls.len() == usize::from(count) && polls.len() <= CORES_MAX && rest.is_empty();
    is_sound.then(|| Heartbeat {
        member: MemberId(u16::from_be_bytes(*member)),
        incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        number: u64::from_be_bytes(*number),
        polls: polls.iter().map(|polls| u64::from_be_bytes(*polls)).collect(),
        has_carrier: flags & CARRIER != 0,
        next_hop_answers: flags & NEXT_HOP != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(octet: u8) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, &[octet; 32]))
    }

    fn heartbeat(cores: usize) -> Heartbeat {
        Heartbeat {
            member: MemberId(3),
            incarnation: Incarnation(9),
            number: 77,
            polls: (0..cores as u64).map(|core| core * 1_000_003).collect(),
            has_carrier: true,
            next_hop_answers: false,
        }
    }

    #[test]
    fn a_heartbeat_opens_as_it_was_sealed() {
        for cores in [0, 1, 2, CORES_MAX] {
            let datagram = seal(&key(1), &heartbeat(cores));
            assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
            assert_eq!(open(&key(1), &datagram), Ok(heartbeat(cores)));
            assert_eq!(claimed_member(&datagram), Some(MemberId(3)));
        }
        assert_eq!(open(&key(1), &seal(&key(1), &heartbeat(CORES_MAX + 5))), Ok(heartbeat(CORES_MAX)));
    }

    #[test]
    fn a_heartbeat_changed_at_any_bit_or_cut_anywhere_or_under_another_key_is_refused() {
        let datagram = seal(&key(1), &heartbeat(2));
        assert_eq!(open(&key(2), &datagram), Err(HeartbeatError::Forged));
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(1), &changed).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(open(&key(1), &datagram[..length]).is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _opened = open(&key(1), &[&MAGIC[..], &[VERSION], &bytes].concat());
        }
    }
}
