//! What the data cores tell of routed connections and shared SAs.

use cluster::member::{EntryKey, Told};
use datapath::buffer::PacketBuffer;
use datapath::cluster::reports::Report;
use datapath::mailbox::SaName;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use crate::control_core::ControlCore;

/// Reports taken from one core in one poll.
const PER_CORE_AND_POLL: usize = 256;

impl<B: PacketBuffer> ControlCore<B> {
    /// Takes in what the cores report; whether there was anything.
    pub(in crate::control_core) fn hear_reports(&mut self, now: Instant) -> bool {
        let (mut stopped, mut alive, mut busy) = (Vec::new(), Vec::new(), false);
        for core in 0..self.cores.len() {
            for _ in 0..PER_CORE_AND_POLL {
                let Some(report) = self.cores.next_report(core) else { break };
                busy = true;
                match report {
                    Report::Stopped(entry) => stopped.push(entry),
                    Report::Alive(entry) => alive.push(entry),
                    Report::Unverified { entry, target, incarnation } => {
                        self.tell_member(now, Told::Unverified { entry, target, incarnation });
                    }
                    Report::Active { service, connections } => {
                        if let Some(cluster) = &mut self.cluster {
                            cluster.active.count(core, service, connections);
                        }
                    }
                    Report::NumbersWanted { child, next } => {
                        self.tell_member(now, Told::NumbersWanted { child, next });
                    }
                    Report::SealMet(child) => self.tell_member(now, Told::SealMet(child)),
                }
            }
        }
        if !alive.is_empty() {
            self.tell_member(now, Told::Alive(alive));
        }
        if !stopped.is_empty() {
            self.tell_stopped(now, stopped);
        }
        busy
    }

    /// The counters are read after the tombs were made: what their SAs have accepted by now is at least what they had then.
    fn tell_stopped(&mut self, now: Instant, stopped: Vec<EntryKey>) {
        tracing::debug!(%now, me = self.cluster.as_ref().map(|cluster| cluster.settings.me.0), ?stopped, "connections have ended");
        let mut peers: Vec<PeerId> = stopped.iter().map(|entry| entry.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        let uses = self.uses_of(now, &peers);
        self.tell_member(now, Told::Stopped(stopped));
        self.tell_member(now, Told::Use(uses));
    }

    /// An SA of the cluster has carried its first packet here.
    pub(in crate::control_core) fn tell_first_packet(&mut self, now: Instant, sa: SaName) {
        if let Some(child) = self.registry.child_of(sa) {
            self.tell_member(now, Told::FirstPacket(child));
        }
    }
}
