//! The heartbeats of a mesh: sealed for every member that has ever proven itself, opened from the same.

use core::net::IpAddr;

use cluster::id::{Incarnation, MemberId};

use super::Mesh;
use crate::heartbeat::{self, Heartbeat, HeartbeatError, Key};
use crate::session::Session;

/// One session's key, and how far its numbers have come.
pub(super) struct BeatKey {
    key: Key,
    incarnation: Incarnation,
    sent: u64,
    highest: u64,
}

impl BeatKey {
    pub fn of(session: &Session, incarnation: Incarnation) -> Option<BeatKey> {
        Some(BeatKey { key: Key::of(session)?, incarnation, sent: 0, highest: 0 })
    }
}

impl Mesh {
    /// A heartbeat of this member for every other that has a key for it, with that member's address. `polls` are the
    /// poll counters of the data cores.
    pub fn seal_heartbeats(
        &mut self,
        polls: &[u64],
        has_carrier: bool,
        next_hop_answers: bool,
    ) -> Vec<(IpAddr, Vec<u8>)> {
        let (member, incarnation) = (self.part.me().id, self.part.incarnation);
        let seal = |link: &mut super::Link| {
            let newest = link.keys.front_mut()?;
            newest.sent += 1;
            let (number, polls) = (newest.sent, polls.to_vec());
            let beat = Heartbeat { member, incarnation, number, polls, has_carrier, next_hop_answers };
            Some((link.address.ip(), heartbeat::seal(&newest.key, &beat)))
        };
        self.links.values_mut().filter_map(seal).collect()
    }

    /// The heartbeat in a datagram from this address, if it counts: authentic, new, and of the start that the member's
    /// session is of.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn open_heartbeat(&mut self, from: IpAddr, datagram: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        let opened = self.try_open(from, datagram);
        self.refusals.heartbeats += u64::from(opened.is_err());
        opened
    }

    fn try_open(&mut self, from: IpAddr, datagram: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        let member = self.member_at(from).ok_or(HeartbeatError::Address)?;
        let malformed = HeartbeatError::Malformed { found_bytes: datagram.len() };
        let claimed = heartbeat::claimed_member(datagram).ok_or(malformed)?;
        // A heartbeat of ours that comes back to us is not theirs, though the key is the same.
        if claimed != member {
            return Err(HeartbeatError::Address);
        }
        let link = self.links.get_mut(&member).filter(|link| !link.keys.is_empty());
        let link = link.ok_or(HeartbeatError::NoKey(member))?;
        let mut opened = Err(HeartbeatError::Forged);
        for key in &mut link.keys {
            opened = heartbeat::open(&key.key, datagram).and_then(|beat| key.admit(member, beat));
            if opened != Err(HeartbeatError::Forged) {
                break;
            }
        }
        opened
    }
}

impl BeatKey {
    fn admit(&mut self, member: MemberId, beat: Heartbeat) -> Result<Heartbeat, HeartbeatError> {
        if beat.member != member || beat.incarnation != self.incarnation {
            let (found_member, found_incarnation) = (beat.member, beat.incarnation);
            return Err(HeartbeatError::WrongMember { found_member, found_incarnation });
        }
        if beat.number <= self.highest {
            return Err(HeartbeatError::Replayed { found: beat.number, highest: self.highest });
        }
        self.highest = beat.number;
        Ok(beat)
    }
}
