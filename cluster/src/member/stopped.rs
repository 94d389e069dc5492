//! Freeing entries, the target's side: what has stopped is a tomb until the owner has forgotten it.

use core::time::Duration;
use std::collections::VecDeque;

use hashbrown::HashSet;
use ipsec::time::Instant;

use super::cache::Cache;
use super::freeing::FREED_AHEAD_MAX;
use super::seam::{Action, EntryKey};
use super::shared::Shared;
use crate::id::Serial;
use crate::message::{Body, ENTRIES_MAX, LIST_MAX, Top};

/// How long a freeing waits for frames that are under way.
pub(super) const GRACE: Duration = Duration::from_millis(100);
/// A freeing that is not acknowledged is said again after this.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Most freeings that wait for their acknowledgement. What stops beyond stays a tomb, and is found when the owner
/// verifies it.
const BATCHES_MAX: usize = 1_024;
/// Most entries that wait for the next news of what SAs have carried.
const STOPPED_MAX: usize = BATCHES_MAX * ENTRIES_MAX;

/// What has stopped, of one DVIPA in one epoch.
#[derive(Default)]
pub(super) struct Stopped {
    /// Tombs whose SAs' tops are not known yet.
    fresh: Vec<EntryKey>,
    batches: VecDeque<Batch>,
    /// The number of the last batch that was made.
    last: u64,
    /// The last that was said in this session, and when.
    said: u64,
    said_at: Instant,
    /// Everything in `fresh` and `batches`: a tomb is freed once.
    known: HashSet<EntryKey>,
    /// Frames of older serials are refused.
    pub oldest_serial: Serial,
}

struct Batch {
    number: u64,
    due: Instant,
    entries: Vec<EntryKey>,
    tops: Vec<Top>,
}

impl Stopped {
    /// How many tombs the owner has not forgotten yet.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// An entry is a tomb now.
    pub fn stop(&mut self, entry: EntryKey) {
        if self.known.len() < STOPPED_MAX && self.known.insert(entry) {
            self.fresh.push(entry);
        }
    }

    /// What the SAs have carried is known as of now, which is after everything that has stopped did.
    pub fn tops_known(&mut self, now: Instant, cache: &Cache) {
        let mut entries: VecDeque<_> = core::mem::take(&mut self.fresh).into();
        while !entries.is_empty() && self.batches.len() < BATCHES_MAX {
            let (mut these, mut tops, mut peers) = (Vec::new(), Vec::new(), HashSet::new());
            while let Some(&entry) = entries.front().filter(|_| these.len() < ENTRIES_MAX) {
                if !peers.contains(&entry.peer) {
                    // Counted before they are taken: all SAs of a peer go into one batch.
                    if tops.len() + cache.tops_of(entry.peer).count() > LIST_MAX && !these.is_empty() {
                        break;
                    }
                    tops.extend(cache.tops_of(entry.peer).take(LIST_MAX));
                    peers.insert(entry.peer);
                }
                these.push(entry);
                entries.pop_front();
            }
            self.last += 1;
            self.batches.push_back(Batch { number: self.last, due: now + GRACE, entries: these, tops });
        }
        // No room: they are told again when the owner asks for them.
        for entry in entries {
            self.known.remove(&entry);
        }
    }

    /// Says everything that is not acknowledged again, in a new session.
    pub fn say_again(&mut self) {
        self.said = 0;
    }

    /// The next message that is due.
    pub fn next(&mut self, now: Instant) -> Option<Body> {
        let first = self.batches.front()?.number;
        if self.said >= first && now >= self.said_at + SAY_AGAIN_AFTER {
            self.said = 0;
        }
        let next = first.max(self.said + 1);
        if next >= first + FREED_AHEAD_MAX {
            return None;
        }
        let batch = self.batches.get((next - first) as usize).filter(|batch| batch.due <= now)?;
        (self.said, self.said_at) = (next, now);
        Some(Body::Freed { batch: next, entries: batch.entries.clone(), tops: batch.tops.clone() })
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let first = self.batches.front()?.number;
        let next = first.max(self.said + 1);
        let due = self.batches.get((next - first) as usize).map(|batch| batch.due);
        let due = due.filter(|_| next < first + FREED_AHEAD_MAX);
        let again = (self.said >= first).then(|| self.said_at + SAY_AGAIN_AFTER);
        due.into_iter().chain(again).min()
    }

    /// The owner has forgotten everything up to this batch: frames that were sent before are refused from now on, and
    /// then the tombs may go.
    pub fn acknowledged(&mut self, cx: &mut Shared, batch: u64, serial: Serial) {
        let mut buried = Vec::new();
        while self.batches.front().is_some_and(|first| first.number <= batch) {
            let Some(freed) = self.batches.pop_front() else { break };
            for entry in &freed.entries {
                self.known.remove(entry);
            }
            buried.extend(freed.entries);
        }
        if serial > self.oldest_serial {
            self.oldest_serial = serial;
            cx.actions.fabric_changed();
        }
        if !buried.is_empty() {
            cx.actions.push_after_fabric(Action::Bury(buried));
        }
    }

    /// Whoever owned the entries is not any more, nor are the SAs that could reach them: the tombs may go.
    pub fn clear(&mut self, cx: &mut Shared) {
        let mut all = core::mem::take(&mut self.fresh);
        all.extend(self.batches.drain(..).flat_map(|batch| batch.entries));
        if !all.is_empty() {
            cx.actions.push_after_fabric(Action::Bury(all));
        }
        *self = Stopped::default();
    }
}
