//! Asking every data core for its connections, a page at a time, so that no core stops for long.

use datapath::connections::Connection;
use datapath::mailbox::Command;

use super::cores::Cores;

/// Connections that a core copies between two bursts at most.
const PAGE: usize = 256;

/// A list of connections in the making.
#[derive(Debug)]
pub struct Listing {
    connections: Vec<(usize, Connection)>,
    cores_left: usize,
}

impl Listing {
    pub(super) fn start<B>(cores: &mut Cores<B>) -> Listing {
        cores.tell_all(|| Command::ListConnections { cursor: 0, page: Vec::with_capacity(PAGE) });
        Listing { connections: Vec::new(), cores_left: cores.len() }
    }

    pub(super) fn add<B>(&mut self, core: usize, mut page: Vec<Connection>, next: Option<usize>, cores: &mut Cores<B>) {
        self.connections.extend(page.drain(..).map(|connection| (core, connection)));
        match next {
            Some(cursor) => cores.tell(core, Command::ListConnections { cursor, page }),
            None => self.cores_left = self.cores_left.saturating_sub(1),
        }
    }

    /// Whether every core has said all.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.cores_left == 0
    }

    /// The connections with the number of the core that owns each.
    #[must_use]
    pub fn connections(&self) -> &[(usize, Connection)] {
        &self.connections
    }
}
