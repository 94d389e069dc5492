//! The connections that one core owns: 5-tuple → peer, state and age.
//!
//! Fixed capacity, no allocation after the start. An entry is created only with an [`Authentic`] in hand, so that what
//! a stranger forges leaves no trace.
//!
//! A 5-tuple belongs to one peer at a time, the first that spoke on it: application hosts cannot tell two peers with the
//! same inner address apart, so a second one would read what the first was told.
//!
//! In a cluster the owner of the address keeps routing a connection here until it has been told that it ended, so what
//! ends leaves a tomb ([`tombs`]).

pub mod tombs;

use crate::packet::Proof;
use crate::sas::Identity;
use cluster::member::EntryKey;
use core::time::Duration;
use ipsec::bucket_index::BucketIndex;
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use wire::flow::FlowKey;
use wire::tcp::Flags;

/// Where a connection stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Only the client has spoken.
    New,
    /// Both sides have spoken.
    Established,
    /// One side has said FIN.
    Closing,
    /// Both have said FIN, or one RST.
    Closed,
    /// A tomb: it carries nothing any more, and is here so that what is under way does not revive it.
    Ended {
        /// Whether the control core knows.
        told: bool,
    },
}

impl State {
    /// The word that `phalanx show connections` uses.
    pub const fn name(self) -> &'static str {
        match self {
            State::New => "new",
            State::Established => "established",
            State::Closing => "closing",
            State::Closed => "closed",
            State::Ended { .. } => "ended",
        }
    }
}

/// How long an entry outlives its last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection that only the client has spoken on.
    pub new: Duration,
    /// An established TCP connection. RFC 5382 asks for at least two hours and four minutes.
    pub established_tcp: Duration,
    /// An established conversation of any other protocol. RFC 4787 asks for at least two minutes.
    pub established_other: Duration,
    /// A TCP connection after its first FIN. RFC 5382 asks for at least four minutes.
    pub closing: Duration,
    /// A TCP connection after RST or both FINs: long enough for a late segment.
    pub closed: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            new: Duration::from_secs(30),
            established_tcp: Duration::from_secs(7_440),
            established_other: Duration::from_secs(120),
            closing: Duration::from_secs(240),
            closed: Duration::from_secs(10),
        }
    }
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The peer whose SA the client's packets come under.
    pub peer: PeerId,
    /// The identity that this peer has shown; `None` while it can be sent nothing.
    pub identity: Option<Identity>,
    /// From the client to the service.
    pub flow: FlowKey,
    /// The last packet, in either direction.
    pub seen: Instant,
    /// Where it stands.
    pub state: State,
    /// Whether the owner of its address routes it here, and is to be told when it ends.
    pub is_routed: bool,
    said_fin: SaidFin,
}

/// Which sides have said FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct SaidFin {
    client: bool,
    service: bool,
}

const TCP: u8 = 6;

/// Slots that one call of [`Connections::list`] looks at: a large empty table must not stall its core.
pub const LISTED_AT_ONCE: usize = 4_096;

/// How far an entry may lie from its home in the index: no lookup takes longer, whatever connections clients open.
const REACH_BUCKETS: usize = 8;

const _: () = assert!(size_of::<Option<Connection>>() <= 64);

/// Why a client's packet belongs to no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It would be a new one, and every entry is in use.
    TableFull,
    /// The connection is another peer's.
    OthersFlow,
    /// It has ended here, and the owner of its address does not know yet.
    Ended,
}

/// A client's packet, as far as its connection is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Spoken<'a> {
    /// Whose SA it came by.
    pub peer: PeerId,
    /// From the client to the service.
    pub flow: &'a FlowKey,
    /// The symmetric hash of the flow.
    pub hash: u64,
    /// Its TCP flags.
    pub tcp: Option<Flags>,
    /// Whether the owner of the address routed it here.
    pub is_routed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Service,
}

/// The table of one core.
#[derive(Debug)]
pub struct Connections {
    entries: Box<[Option<Connection>]>,
    free: Vec<u32>,
    index: BucketIndex,
    hand: usize,
    /// How many of the entries are tombs.
    tombs: usize,
    timeouts: Timeouts,
}

impl Connections {
    /// An empty table for `capacity` connections.
    pub fn new(capacity: usize, timeouts: Timeouts) -> Connections {
        Connections {
            entries: vec![None; capacity].into_boxed_slice(),
            free: (0..capacity as u32).rev().collect(),
            index: BucketIndex::with_reach(capacity, REACH_BUCKETS),
            hand: 0,
            tombs: 0,
            timeouts,
        }
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A packet that was proven to be its peer's: finds its connection or creates it. A connection passes over to another
    /// peer only where it has ended, or both have shown the same `identity`.
    ///
    /// # Errors
    /// [`Refusal`]; what stands is unharmed.
    pub fn client_spoke(
        &mut self,
        now: Instant,
        spoken: Spoken<'_>,
        identity: impl Fn() -> Option<Identity>,
        _proof: &Proof,
    ) -> Result<State, Refusal> {
        let slot = match self.find(spoken.hash, spoken.flow) {
            Some(slot) if self.is_of(slot, spoken.peer) => slot,
            Some(slot) => self.pass_over(now, slot, &spoken, identity())?,
            None if self.is_ended(&spoken) => return Err(Refusal::Ended),
            None => self.create(spoken.hash, Connection::new(now, &spoken, identity()))?,
        };
        let entry = self.entries[slot as usize].as_mut().ok_or(Refusal::TableFull)?;
        entry.is_routed |= spoken.is_routed;
        entry.advance(now, Side::Client, spoken.tcp);
        Ok(entry.state)
    }

    /// Another peer speaks on a connection: it is now its own, if it may be.
    #[cold]
    fn pass_over(
        &mut self,
        now: Instant,
        slot: u32,
        spoken: &Spoken<'_>,
        identity: Option<Identity>,
    ) -> Result<u32, Refusal> {
        if self.is_ended(spoken) {
            return Err(Refusal::Ended);
        }
        let entry = self.entries[slot as usize].as_mut().ok_or(Refusal::TableFull)?;
        if entry.state != State::Closed && (identity.is_none() || identity != entry.identity) {
            return Err(Refusal::OthersFlow);
        }
        let successor = Connection::new(now, spoken, identity);
        if !entry.is_routed {
            *entry = successor;
            return Ok(slot);
        }
        // The former peer's is still routed here: it stays as a tomb, beside its successor.
        let created = self.create(spoken.hash, successor)?;
        self.entomb(now, slot);
        Ok(created)
    }

    /// The connection that a packet from the inside on `flow` (service to client), whose symmetric hash is `hash`,
    /// answers.
    pub fn answered(&mut self, hash: u64, flow: &FlowKey) -> Option<&mut Connection> {
        let slot = self.find(hash, &flow.reversed())?;
        self.entries[slot as usize].as_mut()
    }

    /// The live connection on a flow from a client to a service, for an operator.
    pub fn at(&self, hash: u64, flow: &FlowKey) -> Option<Connection> {
        let slot = self.find(hash, flow)?;
        self.entries[slot as usize]
    }

    /// The live connection on a flow; there is one at most.
    fn find(&self, hash: u64, flow: &FlowKey) -> Option<u32> {
        self.index.find(hash, |slot| {
            let entry = self.entries[slot as usize].as_ref();
            entry.is_some_and(|entry| entry.flow == *flow && !entry.is_tomb())
        })
    }

    fn is_of(&self, slot: u32, peer: PeerId) -> bool {
        self.entries[slot as usize].as_ref().is_some_and(|entry| entry.peer == peer)
    }

    /// Looks at the next `budget` entries and forgets those that have outlived their time; where `is_gone` says that their
    /// peer has no SA left, soon. What the owner of its address routes here becomes a tomb instead, and is told with
    /// `tell`, which says whether it found room; what did not is told when its turn comes again. `hash` is the one that
    /// filed them; `see` is shown the flow of what is routed here and lives. Says whether the table's end was reached.
    pub fn sweep(
        &mut self,
        now: Instant,
        budget: usize,
        hash: impl Fn(&FlowKey) -> u64,
        is_gone: impl Fn(PeerId) -> bool,
        mut tell: impl FnMut(EntryKey) -> bool,
        mut see: impl FnMut(&FlowKey),
    ) -> bool {
        for _ in 0..budget.min(self.entries.len()) {
            let slot = self.hand;
            self.hand = (slot + 1) % self.entries.len();
            self.look_at(now, slot as u32, &hash, &is_gone, &mut tell);
            if let Some(entry) = self.entries[slot].as_ref().filter(|entry| entry.is_routed && !entry.is_tomb()) {
                see(&entry.flow);
            }
            if self.hand == 0 {
                return true;
            }
        }
        false
    }

    fn look_at(
        &mut self,
        now: Instant,
        slot: u32,
        hash: impl Fn(&FlowKey) -> u64,
        is_gone: impl Fn(PeerId) -> bool,
        tell: &mut impl FnMut(EntryKey) -> bool,
    ) {
        let Some(entry) = &self.entries[slot as usize] else { return };
        let quiet = now.saturating_since(entry.seen);
        let is_over = match entry.state {
            State::Ended { told: false } => false,
            State::Ended { told: true } => quiet > tombs::OUTLIVES_PEER && is_gone(entry.peer),
            State::New | State::Established | State::Closing | State::Closed => {
                quiet > self.patience(entry) || quiet > self.timeouts.closing && is_gone(entry.peer)
            }
        };
        if is_over && entry.is_routed && !entry.is_tomb() {
            self.entomb(now, slot);
        } else if is_over {
            self.remove(hash(&entry.flow), slot);
        }
        self.tell_of(now, slot, tell);
    }

    /// Appends connections from slot `cursor` on to `page` until it is at its capacity or [`LISTED_AT_ONCE`] slots have
    /// been looked at; the cursor to go on from, or `None` at the end. Never allocates.
    pub fn list(&self, cursor: usize, page: &mut Vec<Connection>) -> Option<usize> {
        let end = cursor.saturating_add(LISTED_AT_ONCE).min(self.entries.len());
        for slot in cursor..end {
            let Some(entry) = self.entries[slot] else { continue };
            if page.len() == page.capacity() {
                return Some(slot);
            }
            page.push(entry);
        }
        (end < self.entries.len()).then_some(end)
    }

    fn create(&mut self, hash: u64, entry: Connection) -> Result<u32, Refusal> {
        let slot = *self.free.last().ok_or(Refusal::TableFull)?;
        self.index.insert(hash, slot).map_err(|_| Refusal::TableFull)?;
        self.free.pop();
        self.entries[slot as usize] = Some(entry);
        Ok(slot)
    }

    fn remove(&mut self, hash: u64, slot: u32) {
        let Some(removed) = self.entries[slot as usize].take() else { return };
        self.index.remove(hash, slot);
        self.free.push(slot);
        self.tombs -= usize::from(removed.is_tomb());
    }

    fn patience(&self, entry: &Connection) -> Duration {
        match entry.state {
            State::New => self.timeouts.new,
            State::Established if entry.flow.protocol == TCP => self.timeouts.established_tcp,
            State::Established => self.timeouts.established_other,
            State::Closing => self.timeouts.closing,
            State::Closed => self.timeouts.closed,
            State::Ended { .. } => Duration::MAX,
        }
    }
}

impl Connection {
    fn new(now: Instant, spoken: &Spoken<'_>, identity: Option<Identity>) -> Connection {
        let Spoken { peer, flow, is_routed, .. } = *spoken;
        let said_fin = SaidFin::default();
        Connection { peer, identity, flow: *flow, seen: now, state: State::New, is_routed, said_fin }
    }

    fn is_tomb(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Its application host said something that goes on to the client. What cannot go on must not be told of here: it
    /// would keep a connection alive that nobody hears.
    pub fn service_spoke(&mut self, now: Instant, tcp: Option<Flags>) {
        self.advance(now, Side::Service, tcp);
    }

    fn advance(&mut self, now: Instant, side: Side, tcp: Option<Flags>) {
        self.seen = self.seen.max(now);
        if let (State::New, Side::Service) = (self.state, side) {
            self.state = State::Established;
        }
        let Some(flags) = tcp else { return };
        let is_ending = matches!(self.state, State::Closing | State::Closed);
        if is_ending && flags.opens_connection() && matches!(side, Side::Client) {
            // The client uses its port again before the old entry has gone.
            (self.state, self.said_fin) = (State::New, SaidFin::default());
        } else if flags.contains(Flags::RST) {
            self.state = State::Closed;
        } else if flags.contains(Flags::FIN) && self.state != State::Closed {
            match side {
                Side::Client => self.said_fin.client = true,
                Side::Service => self.said_fin.service = true,
            }
            let both = self.said_fin.client && self.said_fin.service;
            self.state = if both { State::Closed } else { State::Closing };
        }
    }
}

#[cfg(test)]
mod tests;
