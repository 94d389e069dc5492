//! Asking every data core for its connections, a page at a time, so that no core stops for long; and for one connection.

use core::time::Duration;

use cluster::member::EntryKey;
use cluster::vcrt::Route;
use datapath::connections::Connection;
use datapath::mailbox::Command;
use ipsec::time::Instant;
use wire::flow::FlowKey;

use super::cores::Cores;

/// Connections that a core copies between two bursts at most.
const PAGE: usize = 256;

/// How long a search waits for a core: one that sleeps needs a millisecond, a dead one never answers.
const SEARCH_PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is routed, and where to.
pub(super) type Entry = (EntryKey, Route);

/// A list of connections in the making.
#[derive(Debug)]
pub struct Listing {
    connections: Vec<(usize, Connection)>,
    entries: Vec<(usize, Entry)>,
    answers_left: usize,
}

impl Listing {
    /// Begins to list the connections that end here, and those that are routed from here.
    pub(super) fn start<B>(cores: &mut Cores<B>) -> Listing {
        cores.tell_all(|| Command::ListConnections { cursor: 0, page: Vec::with_capacity(PAGE) });
        cores.tell_all(|| Command::ListEntries { cursor: 0, page: Vec::with_capacity(PAGE) });
        Listing { connections: Vec::new(), entries: Vec::new(), answers_left: 2 * cores.len() }
    }

    pub(super) fn add<B>(&mut self, core: usize, mut page: Vec<Connection>, next: Option<usize>, cores: &mut Cores<B>) {
        self.connections.extend(page.drain(..).map(|connection| (core, connection)));
        match next {
            Some(cursor) => cores.tell(core, Command::ListConnections { cursor, page }),
            None => self.answers_left = self.answers_left.saturating_sub(1),
        }
    }

    pub(super) fn add_entries<B>(
        &mut self,
        core: usize,
        mut page: Vec<Entry>,
        next: Option<usize>,
        cores: &mut Cores<B>,
    ) {
        self.entries.extend(page.drain(..).map(|entry| (core, entry)));
        match next {
            Some(cursor) => cores.tell(core, Command::ListEntries { cursor, page }),
            None => self.answers_left = self.answers_left.saturating_sub(1),
        }
    }

    /// Whether every core has said all.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.answers_left == 0
    }

    /// The connections that end here, with the number of the core that owns each.
    #[must_use]
    pub fn connections(&self) -> &[(usize, Connection)] {
        &self.connections
    }

    /// The connections that this appliance routes as their owner, with the number of the core that does.
    #[must_use]
    pub fn entries(&self) -> &[(usize, (EntryKey, Route))] {
        &self.entries
    }
}

/// The search for one connection.
#[derive(Debug)]
pub(super) struct Search {
    flow: FlowKey,
    until: Instant,
    is_answered: bool,
    pub(super) connection: Option<Connection>,
    pub(super) entries: Vec<Entry>,
}

impl Search {
    pub(super) fn start<B>(now: Instant, flow: FlowKey, cores: &mut Cores<B>) -> Search {
        cores.tell_all(|| Command::FindConnection { flow });
        Search { flow, until: now + SEARCH_PATIENCE, is_answered: false, connection: None, entries: Vec::new() }
    }

    pub(super) fn add(&mut self, flow: FlowKey, connection: Option<Connection>, entries: Vec<Entry>) {
        if flow == self.flow {
            (self.connection, self.entries) = (connection, entries);
            self.is_answered = true;
        }
    }

    /// Whether the core that owns the flow has answered, or should have.
    pub(super) fn is_complete(&self, now: Instant) -> bool {
        self.is_answered || now >= self.until
    }
}
