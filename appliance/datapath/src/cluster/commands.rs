//! How a data core obeys the commands of a cluster.

use super::reports::Report;
use crate::buffer::PortQueue;
use crate::connections::tombs::Verified;
use crate::core::DataCore;
use crate::mailbox::{Event, Retired};
use cluster::dpt::Tables;
use cluster::fabric::Fabric;
use cluster::id::MemberId;
use cluster::member::EntryKey;
use cluster::vcrt::Route;
use ipsec::time::Instant;
use std::sync::Arc;
use wire::flow::FlowKey;

impl<Q: PortQueue> DataCore<Q> {
    /// Takes a new view of the cluster, made at `at`. What comes back is to be freed elsewhere.
    pub(crate) fn take_fabric(&mut self, fabric: Arc<Fabric>, at: Instant, now: Instant) -> Option<Event> {
        let Some(part) = &mut self.part else { return Some(Event::Retired(Retired::Fabric(fabric))) };
        part.follow(fabric, at, now).map(|former| Event::Retired(Retired::Fabric(former)))
    }

    /// Takes new tables of targets.
    pub(crate) fn take_dpt(&mut self, tables: Arc<Tables>) -> Option<Event> {
        let Some(part) = &mut self.part else { return Some(Event::Retired(Retired::Dpt(tables))) };
        part.dpt.replace(tables).map(|former| Event::Retired(Retired::Dpt(former)))
    }

    /// As the owner: `target` has freed these.
    pub(crate) fn forget_entries(&mut self, entries: Vec<EntryKey>, target: MemberId) -> Event {
        if let Some(part) = &mut self.part {
            for key in &entries {
                let _ = part.vcrt.forget_of(key.flow.symmetric_hash(&self.seed), key, target);
            }
        }
        Event::Retired(Retired::Keys(entries))
    }

    /// As a target: the owner asks for these. What is lost of the answers is asked for again.
    pub(crate) fn verify(&mut self, keys: Vec<EntryKey>, now: Instant) -> Event {
        for key in &keys {
            let hash = key.flow.symmetric_hash(&self.seed);
            if self.owner_of(hash) != self.handover.own() {
                continue;
            }
            match self.connections.verify(now, hash, key) {
                Verified::Alive => {
                    self.mailbox.report(Report::Alive(*key));
                }
                Verified::Stopped if self.mailbox.report(Report::Stopped(*key)) => {
                    self.connections.was_told(now, hash, key);
                }
                // Told by the next sweep, or asked for again.
                Verified::Stopped | Verified::NoRoom => {}
            }
        }
        Event::Retired(Retired::Keys(keys))
    }

    /// As a target: the owner has forgotten these.
    pub(crate) fn bury(&mut self, keys: Vec<EntryKey>) -> Event {
        for key in &keys {
            self.connections.bury(key.flow.symmetric_hash(&self.seed), key);
        }
        Event::Retired(Retired::Keys(keys))
    }

    /// Where the connections on a flow are, if this is the core to ask. For an operator: this allocates.
    pub(crate) fn find_connection(&self, flow: FlowKey) -> Option<Event> {
        let hash = flow.symmetric_hash(&self.seed);
        if self.owner_of(hash) != self.handover.own() {
            return None;
        }
        let mut entries = Vec::new();
        if let Some(part) = &self.part {
            // No peer has this number; if one had, it alone would be missing.
            let nobody = EntryKey { peer: ipsec::sa::PeerId(u64::MAX), flow };
            part.vcrt.others_of(hash, &nobody, |key, route| entries.push((*key, *route)));
        }
        Some(Event::Found { flow, connection: self.connections.at(hash, &flow), entries })
    }

    /// As the owner: a page of the routed connections.
    pub(crate) fn list_entries(&self, cursor: usize, mut page: Vec<(EntryKey, Route)>) -> Event {
        let next = self.part.as_ref().and_then(|part| part.vcrt.list(cursor, &mut page));
        Event::Entries { page, next }
    }
}
