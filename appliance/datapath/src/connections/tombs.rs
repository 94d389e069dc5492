//! What is left of a connection that ended while the owner of its address still routes it here.
//!
//! A tomb refuses the client's packets and the service's answers, and the control core is told of it. It goes when the
//! owner has forgotten the connection ([`Connections::bury`]): only then can no packet under way revive it. It takes the
//! place of an entry, and does not age; but where its peer has no SA left nothing can come any more.

use super::{Connection, Connections, SaidFin, Spoken, State};
use cluster::member::EntryKey;
use core::time::Duration;
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use wire::flow::FlowKey;

/// How long a tomb that was told outlives the last SA of its peer.
pub const OUTLIVES_PEER: Duration = Duration::from_secs(600);

/// What there is of a connection that the owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// It is there.
    Alive,
    /// It is a tomb, perhaps since now.
    Stopped,
    /// It is not there, and there was no room for its tomb. To be asked again.
    NoRoom,
}

impl Connections {
    /// How many of the entries are tombs.
    pub fn tombs(&self) -> usize {
        self.tombs
    }

    /// Whether a packet from the inside on `flow` (service to client) answers nothing but what has ended.
    pub fn answers_a_tomb(&self, hash: u64, flow: &FlowKey) -> bool {
        let is_it = |entry: &Connection, flow: &FlowKey| entry.is_tomb() && entry.flow == *flow;
        self.tombs > 0 && self.find_entry(hash, |entry| is_it(entry, &flow.reversed())).is_some()
    }

    /// Whether this connection stands here, and in what state. `hash` is the symmetric one of its flow. What does not stand
    /// becomes a tomb, so that what is under way to it does not create it.
    pub fn verify(&mut self, now: Instant, hash: u64, key: &EntryKey) -> Verified {
        match self.find_key(hash, key.peer, &key.flow) {
            Some(slot) if self.entries[slot as usize].as_ref().is_some_and(Connection::is_tomb) => Verified::Stopped,
            Some(_) => Verified::Alive,
            None => {
                let spoken = Spoken { peer: key.peer, flow: &key.flow, hash, tcp: None, is_routed: true };
                match self.create(hash, Connection::new(now, &spoken, None)) {
                    Ok(slot) => {
                        self.entomb(now, slot);
                        Verified::Stopped
                    }
                    Err(_) => Verified::NoRoom,
                }
            }
        }
    }

    /// The control core was told of this tomb just now.
    pub fn was_told(&mut self, now: Instant, hash: u64, key: &EntryKey) {
        if let Some(slot) = self.find_key(hash, key.peer, &key.flow) {
            self.tell_of(now, slot, &mut |_| true);
        }
    }

    /// The owner has forgotten this connection: its tomb goes. A live one stays.
    pub fn bury(&mut self, hash: u64, key: &EntryKey) {
        let is_it = |entry: &Connection| entry.is_tomb() && entry.peer == key.peer && entry.flow == key.flow;
        if let Some(slot) = self.find_entry(hash, is_it) {
            self.remove(hash, slot);
        }
    }

    /// Whether a client's packet comes for what has ended.
    pub(super) fn is_ended(&self, spoken: &Spoken<'_>) -> bool {
        #[cfg(phalanx_plant)]
        if ipsec::plant::breaks(ipsec::plant::Rule::Tomb) {
            return false;
        }
        let is_it = |entry: &Connection| entry.is_tomb() && entry.peer == spoken.peer && entry.flow == *spoken.flow;
        self.tombs > 0 && self.find_entry(spoken.hash, is_it).is_some()
    }

    /// Makes a live connection a tomb.
    pub(super) fn entomb(&mut self, now: Instant, slot: u32) {
        let Some(entry) = self.entries[slot as usize].as_mut().filter(|entry| !entry.is_tomb()) else { return };
        (entry.state, entry.said_fin, entry.seen) = (State::Ended { told: false }, SaidFin::default(), now);
        self.tombs += 1;
    }

    /// Tells of a tomb that was not told.
    pub(super) fn tell_of(&mut self, now: Instant, slot: u32, tell: &mut impl FnMut(EntryKey) -> bool) {
        let Some(entry) = &mut self.entries[slot as usize] else { return };
        if entry.state == (State::Ended { told: false }) && tell(EntryKey { peer: entry.peer, flow: entry.flow }) {
            (entry.state, entry.seen) = (State::Ended { told: true }, now);
        }
    }

    fn find_key(&self, hash: u64, peer: PeerId, flow: &FlowKey) -> Option<u32> {
        self.find_entry(hash, |entry| entry.peer == peer && entry.flow == *flow)
    }

    fn find_entry(&self, hash: u64, is_it: impl Fn(&Connection) -> bool) -> Option<u32> {
        self.index.find(hash, |slot| self.entries[slot as usize].as_ref().is_some_and(&is_it))
    }
}
