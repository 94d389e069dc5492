//! The connections that one core owns: 5-tuple → peer, state and age.
//!
//! Fixed capacity, no allocation after the start. An entry is created only with an [`Authentic`] in hand, so that what
//! a stranger forges leaves no trace.
//!
//! A 5-tuple belongs to one peer at a time, the first that spoke on it: application hosts cannot tell two peers with the
//! same inner address apart, so a second one would read what the first was told.

use crate::sas::Identity;
use core::time::Duration;
use ipsec::bucket_index::BucketIndex;
use ipsec::esp::Authentic;
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
}

impl State {
    /// The word that `phalanx show connections` uses.
    pub const fn name(self) -> &'static str {
        match self {
            State::New => "new",
            State::Established => "established",
            State::Closing => "closing",
            State::Closed => "closed",
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

    /// An authenticated packet of `peer` on `flow`, whose symmetric hash is `hash`: finds its connection or creates it.
    /// A connection passes over to another peer only where it has ended, or both have shown the same `identity`.
    ///
    /// # Errors
    /// [`Refusal`]; what stands is unharmed.
    #[expect(clippy::too_many_arguments, reason = "a packet's facts; a struct for one call would only rename them")]
    pub fn client_spoke(
        &mut self,
        now: Instant,
        hash: u64,
        peer: PeerId,
        identity: impl Fn() -> Option<Identity>,
        flow: &FlowKey,
        tcp: Option<Flags>,
        _proof: &Authentic,
    ) -> Result<State, Refusal> {
        let slot = match self.find(hash, flow) {
            Some(slot) => slot,
            None => self.create(hash, Connection::new(now, peer, identity(), *flow))?,
        };
        let entry = self.entries[slot as usize].as_mut().ok_or(Refusal::TableFull)?;
        if entry.peer != peer {
            let identity = identity();
            if entry.state != State::Closed && (identity.is_none() || identity != entry.identity) {
                return Err(Refusal::OthersFlow);
            }
            *entry = Connection::new(now, peer, identity, *flow);
        }
        entry.advance(now, Side::Client, tcp);
        Ok(entry.state)
    }

    /// The connection that a packet from the inside on `flow` (service to client), whose symmetric hash is `hash`,
    /// answers.
    pub fn answered(&mut self, hash: u64, flow: &FlowKey) -> Option<&mut Connection> {
        let slot = self.find(hash, &flow.reversed())?;
        self.entries[slot as usize].as_mut()
    }

    fn find(&self, hash: u64, flow: &FlowKey) -> Option<u32> {
        self.index.find(hash, |slot| self.entries[slot as usize].as_ref().is_some_and(|entry| entry.flow == *flow))
    }

    /// Looks at the next `budget` entries and forgets those that have outlived their time; where `is_gone` says that their
    /// peer has no SA left, soon. `hash` is the one that filed them.
    pub fn sweep(
        &mut self,
        now: Instant,
        budget: usize,
        hash: impl Fn(&FlowKey) -> u64,
        is_gone: impl Fn(PeerId) -> bool,
    ) {
        for _ in 0..budget.min(self.entries.len()) {
            let slot = self.hand;
            self.hand = (slot + 1) % self.entries.len();
            let Some(entry) = &self.entries[slot] else { continue };
            let quiet = now.saturating_since(entry.seen);
            let is_over = quiet > self.patience(entry) || quiet > self.timeouts.closing && is_gone(entry.peer);
            if is_over {
                self.index.remove(hash(&entry.flow), slot as u32);
                self.entries[slot] = None;
                self.free.push(slot as u32);
            }
        }
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

    fn patience(&self, entry: &Connection) -> Duration {
        match entry.state {
            State::New => self.timeouts.new,
            State::Established if entry.flow.protocol == TCP => self.timeouts.established_tcp,
            State::Established => self.timeouts.established_other,
            State::Closing => self.timeouts.closing,
            State::Closed => self.timeouts.closed,
        }
    }
}

impl Connection {
    fn new(now: Instant, peer: PeerId, identity: Option<Identity>, flow: FlowKey) -> Connection {
        Connection { peer, identity, flow, seen: now, state: State::New, said_fin: SaidFin::default() }
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
