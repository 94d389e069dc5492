//! How a data core obeys: each command of the control core, executed between two bursts.

use crate::buffer::PortQueue;
use crate::core::DataCore;
use crate::mailbox::{Command, Event, Retired};
use crate::sas::InboundEntry;
use core::net::{IpAddr, SocketAddr};
use ipsec::Spi;
use ipsec::sad::InsertError;
use ipsec::time::Instant;

/// Commands executed in one poll at most: a burst of changes must not stall the packets.
const COMMANDS_PER_POLL: usize = 64;

impl<Q: PortQueue> DataCore<Q> {
    /// Executes what waits in the mailbox; whether there was anything.
    pub(crate) fn obey(&mut self, now: Instant) -> bool {
        for done in 0..COMMANDS_PER_POLL {
            let Some(command) = self.mailbox.next_command() else { return done > 0 };
            if let Some(answer) = self.execute(command, now) {
                // `next_command` made sure of the room.
                let _ = self.mailbox.events.push(answer);
            }
            self.mailbox.applied_one();
        }
        true
    }

    fn execute(&mut self, command: Command, now: Instant) -> Option<Event> {
        match command {
            Command::InstallInbound(entry) => self.install_inbound(entry),
            Command::RemoveInbound { dvipa, spi } => self.remove_inbound(dvipa, spi),
            // No core of this number could ever seal for it.
            Command::InstallOutbound(entry) | Command::InstallReserve(entry) if entry.home >= self.handover.cores() => {
                Some(retired(Retired::Outbound(entry)))
            }
            Command::InstallOutbound(entry) => {
                self.sas.outbound.insert(entry);
                None
            }
            Command::InstallReserve(entry) => {
                self.sas.outbound.insert_reserve(entry);
                None
            }
            Command::PreferOutbound { peer, spi } => {
                self.sas.outbound.prefer(peer, spi);
                None
            }
            Command::RemoveOutbound { peer, spi } => {
                self.forget_numbers((peer, spi));
                self.sas.outbound.remove(peer, spi).map(|entry| retired(Retired::Outbound(entry)))
            }
            Command::MovePeer { peer, remote } => {
                self.sas.outbound.move_peer(peer, remote);
                None
            }
            Command::MoveInbound { dvipa, spi, remote } => self.move_inbound(dvipa, spi, remote),
            Command::Routes(routes) => Some(retired(Retired::Routes(self.forwarding.replace_routes(routes)))),
            Command::Policy(policy) => {
                let former = std::mem::replace(&mut self.policy, policy);
                Some(retired(Retired::Policy(former)))
            }
            Command::Neighbour { hop, mac } => {
                self.forwarding.set_neighbour(hop, mac);
                None
            }
            Command::Ivs(ivs) => {
                self.ivs_wanted = false;
                Some(retired(Retired::Ivs(std::mem::replace(&mut self.ivs, ivs))))
            }
            Command::ListConnections { cursor, mut page } => {
                let next = self.connections.list(cursor, &mut page);
                Some(Event::Connections { page, next })
            }
            Command::Fabric { fabric, at } => self.take_fabric(fabric, at, now),
            Command::FrameKeys { keys, engine } => {
                let part = self.part.as_mut()?;
                part.guard.learn(now, *keys, engine).map(|expired| retired(Retired::FrameKeys(expired)))
            }
            Command::Dpt(tables) => self.take_dpt(tables),
            Command::ForgetEntries { entries, target } => Some(self.forget_entries(entries, target)),
            Command::Verify(keys) => Some(self.verify(keys, now)),
            Command::Bury(keys) => Some(self.bury(keys)),
            Command::FindConnection { flow } => self.find_connection(flow),
            Command::ListEntries { cursor, page } => Some(self.list_entries(cursor, page)),
            Command::SetNumbers { peer, spi, child, source, window_packets } => {
                self.set_numbers((peer, spi), child, source, window_packets, now);
                None
            }
            Command::GrantNumbers { peer, spi, first, count } => {
                self.grant_numbers((peer, spi), first, count, now);
                None
            }
            Command::ResetWindows => self.reset_windows(),
        }
    }

    fn install_inbound(&mut self, entry: Box<InboundEntry>) -> Option<Event> {
        let (dvipa, spi) = (entry.sa.shared().parameters().dvipa, entry.sa.shared().parameters().spi);
        match self.sas.inbound.insert(dvipa, spi, entry) {
            Ok(_) => None,
            Err(InsertError::Full(entry) | InsertError::Occupied(entry)) => Some(retired(Retired::Inbound(entry))),
        }
    }

    fn move_inbound(&mut self, dvipa: IpAddr, spi: Spi, remote: SocketAddr) -> Option<Event> {
        let entry = self.sas.inbound.get_mut(dvipa, spi);
        entry.and_then(|entry| entry.mapping.as_mut()).into_iter().for_each(|mapping| mapping.set(remote));
        None
    }

    fn reset_windows(&mut self) -> Option<Event> {
        self.sas.inbound.iter_mut().for_each(|(_, _, entry)| entry.sa.reset_window());
        None
    }

    fn remove_inbound(&mut self, dvipa: IpAddr, spi: Spi) -> Option<Event> {
        self.sas.inbound.remove(dvipa, spi).map(|entry| retired(Retired::Inbound(entry)))
    }
}

fn retired(what: Retired) -> Event {
    Event::Retired(what)
}
