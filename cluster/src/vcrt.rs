//! The VIPA connection routing table of one core of a distributor: (peer, 5-tuple) → the target that has the connection.
//!
//! **Purpose.** Packet by packet: which target? The peer belongs to the key, since clients behind different NATs share
//! inner addresses; it is compared and not hashed, so that one lookup finds every peer that is on a 5-tuple
//! ([`Vcrt::others_of`]): application hosts could not tell two of them apart.
//!
//! **Promises.** Fixed capacity: all memory is taken by [`Vcrt::new`], nothing ever grows, moves or is rehashed, so the
//! ten-millionth entry costs what the first did. An entry is made, or given to another target, only with an
//! [`Authentic`] in hand. An entry takes 48 bytes for IPv4 and 72 for IPv6; the index adds 9 to 19, by how its size
//! rounds: 61 and 85 bytes in all at ten million connections.
//!
//! **What it never does.** It does not judge: whether an entry's target lives, and whether a seal forbids it, is asked
//! elsewhere. It ends no entry by age: only the target that has a connection knows that it is over (DESIGN §4). It does
//! not hash: the caller's hash must be the same for all peers on a 5-tuple, and keyed with a secret.

mod half;

use core::net::IpAddr;
use core::time::Duration;

use ipsec::esp::Authentic;
use ipsec::time::Instant;

use crate::id::{Incarnation, MemberId};
use crate::member::EntryKey;
use half::{FlowV4, FlowV6, Half};

/// Slots that one call of [`Vcrt::list`] looks at: a large empty table must not stall its core.
pub const LISTED_AT_ONCE: usize = 4_096;

/// Where a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The target that has it.
    pub target: MemberId,
    /// The start of the target that has it; if the target has started again since, the connection is lost.
    pub incarnation: Incarnation,
    /// When it was made, or given to this target: it is older than a seal, or not.
    pub created: Instant,
    /// When the target was last asked for it; as `created` if never.
    pub verified: Instant,
}

/// How long an entry goes without its target being asked whether it has the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyAfter {
    /// For the first time: the packet that made the entry may have been lost on the trusted wire.
    pub creation: Duration,
    /// And then again: a report of its end may have been lost with the member that sent it.
    pub verification: Duration,
}

impl Default for VerifyAfter {
    fn default() -> Self {
        VerifyAfter { creation: Duration::from_secs(2), verification: Duration::from_secs(60) }
    }
}

/// What becomes of an entry that [`Vcrt::sweep`] showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// It stays, and is shown again when it is due again.
    Keep,
    /// It goes: allowed only where its target is lost for good.
    Forget,
}

/// Why there is no new entry. What stands is unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCreated {
    /// Every entry of its family is in use.
    #[error("every entry is in use")]
    Full,
    /// Too many entries fall together in the index, as 80 peers on one 5-tuple do.
    #[error("too many entries fall together")]
    Crowded,
    /// There is one for this connection.
    #[error("the connection has an entry")]
    Exists,
    /// Source and destination are of different families.
    #[error("an address of each family")]
    MixedFamilies,
}

/// The table of one core.
#[derive(Debug)]
pub struct Vcrt {
    v4: Half<FlowV4>,
    v6: Half<FlowV6>,
    /// The next slot to sweep, over both halves.
    hand: usize,
}

/// Runs the same on the half that a flow belongs to; `$otherwise` where it belongs to none.
macro_rules! in_half {
    ($half:ident, $flow:ident = ($table:expr, $key:expr) => $work:expr, else $otherwise:expr) => {
        match ($key.flow.src, $key.flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let ($half, $flow) = ($table.v4, FlowV4::new(src, dst, &$key.flow));
                $work
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ($half, $flow) = ($table.v6, FlowV6::new(src, dst, &$key.flow));
                $work
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => $otherwise,
        }
    };
}

/// The two halves, borrowed alike.
struct Halves<A, B> {
    v4: A,
    v6: B,
}

impl Vcrt {
    /// An empty table for so many connections of each family.
    #[must_use]
    pub fn new(capacity_v4: usize, capacity_v6: usize) -> Vcrt {
        Vcrt { v4: Half::new(capacity_v4), v6: Half::new(capacity_v6), hand: 0 }
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections of IPv4, and of IPv6, it can hold.
    #[must_use]
    pub fn capacity(&self) -> (usize, usize) {
        (self.v4.capacity(), self.v6.capacity())
    }

    /// Where a connection goes. `hash` is its flow's symmetric hash, here and below.
    #[must_use]
    #[inline]
    pub fn find(&self, hash: u64, key: &EntryKey) -> Option<Route> {
        in_half!(half, flow = (self.halves(), key) => half.route(half.find(hash, key.peer, &flow)?), else None)
    }

    /// Looks a burst up: `found[i]` becomes the answer to `asked[i]`. Surplus questions or places are left alone.
    ///
    /// The passes go through the burst side by side (bucket, then entry), so that the misses of one packet overlap with
    /// those of the others instead of adding up.
    pub fn find_burst<const N: usize>(&self, asked: &[(u64, EntryKey)], found: &mut [Option<Route>; N]) {
        let mut guesses = [None; N];
        for (guess, (hash, key)) in guesses.iter_mut().zip(asked) {
            *guess = if key.flow.src.is_ipv4() { self.v4.guess(*hash) } else { self.v6.guess(*hash) };
        }
        for ((found, guess), (hash, key)) in found.iter_mut().zip(guesses).zip(asked) {
            *found = in_half!(half, flow = (self.halves(), key) => {
                half.find_guessed(guess, *hash, key.peer, &flow).and_then(|slot| half.route(slot))
            }, else None);
        }
    }

    /// Tells `each` of all entries of other peers with the same 5-tuple. At most 80: no more fall together.
    pub fn others_of(&self, hash: u64, key: &EntryKey, mut each: impl FnMut(&EntryKey, &Route)) {
        in_half!(half, flow = (self.halves(), key) => half.others_of(hash, key.peer, &flow, |peer, route| {
            each(&EntryKey { peer, flow: key.flow }, route);
        }), else ())
    }

    /// Makes an entry for a connection that has none, for a target of the caller's choice.
    ///
    /// # Errors
    /// [`NotCreated`].
    pub fn create(
        &mut self,
        now: Instant,
        hash: u64,
        key: &EntryKey,
        target: (MemberId, Incarnation),
        _proof: &Authentic,
    ) -> Result<(), NotCreated> {
        let route = Route { target: target.0, incarnation: target.1, created: now, verified: now };
        in_half!(half, flow = (self.halves_mut(), key) => half.create(hash, key.peer, flow, route),
            else Err(NotCreated::MixedFamilies))
    }

    /// Gives the entry of a lost target to another one. It counts as made now: a seal does not spare it. The route that
    /// it had; `None` if there was no entry, and there is none now.
    pub fn replace_target(
        &mut self,
        now: Instant,
        hash: u64,
        key: &EntryKey,
        target: (MemberId, Incarnation),
        _proof: &Authentic,
    ) -> Option<Route> {
        let route = Route { target: target.0, incarnation: target.1, created: now, verified: now };
        in_half!(half, flow = (self.halves_mut(), key) => half.replace(hash, key.peer, &flow, route), else None)
    }

    /// Forgets a connection; what was known of it.
    pub fn forget(&mut self, hash: u64, key: &EntryKey) -> Option<Route> {
        in_half!(half, flow = (self.halves_mut(), key) => {
            let slot = half.find(hash, key.peer, &flow)?;
            half.remove(hash, slot)
        }, else None)
    }

    /// Forgets a connection if `target` has it: what a target says of connections that went to another one since, means
    /// nothing.
    pub fn forget_of(&mut self, hash: u64, key: &EntryKey, target: MemberId) -> Option<Route> {
        self.find(hash, key).filter(|route| route.target == target)?;
        self.forget(hash, key)
    }

    /// Looks at the next `budget` slots, tells `each` of the entries whose target should be asked again whether it has
    /// them, and notes that it was. `hash` is the one that filed them.
    pub fn sweep(
        &mut self,
        budget: usize,
        now: Instant,
        after: VerifyAfter,
        hash: impl Fn(&EntryKey) -> u64,
        mut each: impl FnMut(&EntryKey, &Route) -> Swept,
    ) {
        let slots = self.slots();
        for _ in 0..budget.min(slots) {
            let at = self.hand;
            self.hand = (at + 1) % slots;
            let Some((key, route)) = self.entry(at) else { continue };
            let is_new = route.verified == route.created;
            let patience = if is_new { after.creation } else { after.verification };
            if now.saturating_since(route.verified) < patience {
                continue;
            }
            match each(&key, &route) {
                Swept::Keep => self.verified(at, now),
                Swept::Forget => {
                    let _ = self.forget(hash(&key), &key);
                }
            }
        }
    }

    /// Appends entries from slot `cursor` on to `page` until it is at its capacity or [`LISTED_AT_ONCE`] slots have been
    /// looked at; the cursor to go on from, or `None` at the end. Never allocates.
    pub fn list(&self, cursor: usize, page: &mut Vec<(EntryKey, Route)>) -> Option<usize> {
        let end = cursor.saturating_add(LISTED_AT_ONCE).min(self.slots());
        for at in cursor..end {
            let Some(entry) = self.entry(at) else { continue };
            if page.len() == page.capacity() {
                return Some(at);
            }
            page.push(entry);
        }
        (end < self.slots()).then_some(end)
    }

    /// Slots of both halves, IPv4 first.
    fn slots(&self) -> usize {
        self.v4.capacity() + self.v6.capacity()
    }

    fn entry(&self, at: usize) -> Option<(EntryKey, Route)> {
        match at.checked_sub(self.v4.capacity()) {
            None => self.v4.entry(at),
            Some(at) => self.v6.entry(at),
        }
    }

    fn verified(&mut self, at: usize, now: Instant) {
        match at.checked_sub(self.v4.capacity()) {
            None => self.v4.verified(at, now),
            Some(at) => self.v6.verified(at, now),
        }
    }

    #[inline]
    fn halves(&self) -> Halves<&Half<FlowV4>, &Half<FlowV6>> {
        Halves { v4: &self.v4, v6: &self.v6 }
    }

    #[inline]
    fn halves_mut(&mut self) -> Halves<&mut Half<FlowV4>, &mut Half<FlowV6>> {
        Halves { v4: &mut self.v4, v6: &mut self.v6 }
    }
}

#[cfg(test)]
mod tests;
