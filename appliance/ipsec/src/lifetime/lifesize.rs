//! The lifesize of one SA, shared by all cores that use it, with no atomic operation per packet.
//!
//! **Purpose.** The hard limit is exact over any number of cores, and yet a core counts for itself: it claims a chunk
//! of the limit, spends it packet by packet from plain memory, and claims the next when that is used up.
//!
//! **Promises.**
//! - All claims together never exceed the hard limit, so neither does what is spent. A claim that cannot be filled in
//!   full is refused and changes nothing.
//! - The soft limit is said once in the life of an SA, by the claim that reaches it: at most `cores × chunk` early,
//!   since what is claimed may not be spent yet, and never late.
//! - A *granted* lifesize begins with nothing; whoever grants raises its ceiling, to an absolute figure that only grows.
//!   Up to there the first promise holds for it too, at every moment. Beyond, packets are refused as ungranted: the SA
//!   itself may well have room, so that is no hard limit, and its soft limit is for the granter to say.
//! - `cores × chunk ≤ hard − soft`, so what other cores hold unspent when one is refused is less than the room in which
//!   the SA should have been replaced; and `chunk ≤ hard ⁄ (64 × cores)`, so the soft limit is at most 1⁄64 early. A
//!   chunk is never less than what the packet at hand needs.
//!
//! - What is [withdrawn](Lifesize::withdraw) from a granted lifesize was claimed by nobody, and never will be.
//!
//! **What it never does.** It takes nothing from another core's share; an idle core gives its own back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Lifetime, Limits};

/// Of a granted lifesize, the packets of a chunk are as many as its bytes make at this length: short packets claim packets
/// a few times for each claim of bytes, long ones hardly ever.
const GRANTED_PACKET_BYTES: u64 = 256;

/// How many chunks a limit is cut into, at least, for each core.
const CHUNKS_PER_CORE_MIN: u64 = 64;

/// What one SA may carry, and how much of it was claimed.
#[derive(Debug)]
pub struct Lifesize {
    bytes: Pool,
    packets: Pool,
    soft_said: AtomicBool,
    is_granted: bool,
}

/// What one core holds of an SA's lifesize. Spend it only with the [`Lifesize`] that it was claimed from.
#[derive(Debug, Default)]
pub struct LifesizeShare {
    bytes: u64,
    packets: u64,
}

/// A packet may not be paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifesizeRefusal {
    /// The SA may carry no more.
    #[error("the SA has reached its hard limit")]
    HardLimit,
    /// Nothing is left of what was granted; more may come.
    #[error("nothing is left of the lifesize that was granted")]
    Ungranted,
}

/// A packet was paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Nothing to do.
    Within,
    /// The soft limit was reached: replace the SA. Said once.
    SoftReached,
}

/// A limit, and how much of it was claimed. Alone in its cache line: cores meet here.
#[derive(Debug)]
#[repr(align(64))]
struct Pool {
    claimed: AtomicU64,
    /// The hard limit, or how far grants reach by now. It never goes down.
    ceiling: AtomicU64,
    soft: u64,
    chunk: u64,
    /// No claim takes more than its need and this part of what is left, so that a small grant is not all one core's.
    claimants: u64,
    /// Without any limit there is nothing to count.
    is_counted: bool,
}

/// Nothing is left below the ceiling for this claim.
struct Dry;

impl Lifesize {
    /// The lifesize of an SA that at most so many cores use.
    #[must_use]
    pub fn new(lifetime: &Lifetime, cores: u16) -> Self {
        Self {
            bytes: Pool::new(lifetime.bytes, cores),
            packets: Pool::new(lifetime.packets, cores),
            soft_said: AtomicBool::new(false),
            is_granted: false,
        }
    }

    /// A lifesize that at most so many cores use and that begins empty: [`raise`](Self::raise) fills it. A core claims
    /// `grant_chunk_bytes` at once, and in proportion packets; less where less is granted.
    #[must_use]
    pub fn granted(cores: u16, grant_chunk_bytes: u64) -> Self {
        let cores = u64::from(cores.max(1));
        Self {
            bytes: Pool::granted(cores, grant_chunk_bytes),
            packets: Pool::granted(cores, grant_chunk_bytes / GRANTED_PACKET_BYTES),
            soft_said: AtomicBool::new(false),
            is_granted: true,
        }
    }

    /// Lets a granted lifesize carry so many inner bytes and packets in all, what it has carried included. A figure
    /// that is not above the one before changes nothing, so grants may be repeated and overtake each other. The limits
    /// of a lifesize that is not granted stand as they are.
    pub fn raise(&self, bytes: u64, packets: u64) {
        #[cfg(phalanx_plant)]
        let (bytes, packets) = match crate::plant::breaks(crate::plant::Rule::Grant) {
            true => (bytes.saturating_mul(1_000), packets.saturating_mul(1_000)),
            false => (bytes, packets),
        };
        if self.is_granted {
            // Relaxed is enough: nothing but the figure itself is told.
            self.bytes.ceiling.fetch_max(bytes, Ordering::Relaxed);
            self.packets.ceiling.fetch_max(packets, Ordering::Relaxed);
        }
    }

    /// Takes up to so many inner bytes and packets out of a granted lifesize for good: as much as no core has claimed, and
    /// no core will. Whoever granted that may grant it elsewhere. Returns what was taken; the ceiling stays, what was
    /// taken counts as claimed. Nothing of a lifesize that is not granted.
    #[must_use]
    pub fn withdraw(&self, bytes: u64, packets: u64) -> (u64, u64) {
        if !self.is_granted {
            return (0, 0);
        }
        (self.bytes.withdraw(bytes), self.packets.withdraw(packets))
    }

    /// How many inner bytes and packets it may carry in all by now: its hard limits, or what was granted.
    #[must_use]
    pub fn ceiling(&self) -> (u64, u64) {
        (self.bytes.ceiling.load(Ordering::Relaxed), self.packets.ceiling.load(Ordering::Relaxed))
    }

    /// Whether somebody else grants it.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.is_granted
    }

    /// How much was claimed: inner bytes and packets, spent, held by a core, or withdrawn. Zero where there is no limit.
    #[must_use]
    pub fn claimed(&self) -> (u64, u64) {
        (self.bytes.claimed.load(Ordering::Relaxed), self.packets.claimed.load(Ordering::Relaxed))
    }

    /// How many inner bytes and packets a core claims at once.
    #[must_use]
    pub fn chunk(&self) -> (u64, u64) {
        (self.bytes.chunk, self.packets.chunk)
    }
}

impl LifesizeShare {
    /// Holds nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: 0, packets: 0 }
    }

    /// Pays for one packet of so many inner bytes, claiming more from `lifesize` when needed.
    ///
    /// # Errors
    /// [`LifesizeRefusal`] if the SA may not carry this packet (yet, if it is granted). Nothing is spent then.
    #[inline]
    pub fn spend(&mut self, lifesize: &Lifesize, bytes: u64) -> Result<Spent, LifesizeRefusal> {
        let mut spent = Spent::Within;
        if self.bytes < bytes || self.packets == 0 {
            spent = self.claim(lifesize, bytes)?;
        }
        self.bytes -= bytes;
        self.packets -= 1;
        Ok(spent)
    }

    /// Gives back what was claimed and not spent, so that other cores can use it.
    pub fn give_back(&mut self, lifesize: &Lifesize) {
        lifesize.bytes.give_back(core::mem::take(&mut self.bytes));
        lifesize.packets.give_back(core::mem::take(&mut self.packets));
    }

    #[cold]
    fn claim(&mut self, lifesize: &Lifesize, bytes: u64) -> Result<Spent, LifesizeRefusal> {
        let refused = |_: Dry| match lifesize.is_granted {
            true => LifesizeRefusal::Ungranted,
            false => LifesizeRefusal::HardLimit,
        };
        let more_bytes = lifesize.bytes.claim(bytes.saturating_sub(self.bytes)).map_err(refused)?;
        self.bytes = self.bytes.saturating_add(more_bytes);
        let more_packets = lifesize.packets.claim(1_u64.saturating_sub(self.packets)).map_err(refused)?;
        self.packets = self.packets.saturating_add(more_packets);

        let soft_reached = lifesize.bytes.is_soft_reached() || lifesize.packets.is_soft_reached();
        let is_news = soft_reached && !lifesize.soft_said.swap(true, Ordering::Relaxed);
        Ok(if is_news { Spent::SoftReached } else { Spent::Within })
    }
}

impl Pool {
    fn new(limits: Limits, cores: u16) -> Self {
        let cores = u64::from(cores.max(1));
        let whole = limits.hard.or(limits.soft).unwrap_or(u64::MAX);
        let room = match (limits.soft, limits.hard) {
            (Some(soft), Some(hard)) => hard.saturating_sub(soft),
            (None, _) | (_, None) => whole,
        };
        Self {
            claimed: AtomicU64::new(0),
            ceiling: AtomicU64::new(limits.hard.unwrap_or(u64::MAX)),
            soft: limits.soft.unwrap_or(u64::MAX),
            chunk: (room / cores).min(whole / cores / CHUNKS_PER_CORE_MIN).max(1),
            claimants: 1,
            is_counted: limits != Limits::NONE,
        }
    }

    /// A pool without anything in it.
    fn granted(claimants: u64, chunk: u64) -> Self {
        Self {
            claimed: AtomicU64::new(0),
            ceiling: AtomicU64::new(0),
            soft: u64::MAX,
            chunk: chunk.max(1),
            claimants,
            is_counted: true,
        }
    }

    fn is_soft_reached(&self) -> bool {
        self.soft != u64::MAX && self.claimed.load(Ordering::Relaxed) >= self.soft
    }

    /// Claims what is needed, and up to a chunk if there is so much. Needing nothing claims nothing.
    fn claim(&self, need: u64) -> Result<u64, Dry> {
        if need == 0 {
            return Ok(0);
        }
        if !self.is_counted {
            return Ok(u64::MAX);
        }
        self.take(|room| (need <= room).then(|| need.max(self.chunk.min(room / self.claimants)))).ok_or(Dry)
    }

    /// Claims for nobody what nobody has claimed, up to so much.
    fn withdraw(&self, most: u64) -> u64 {
        self.take(|room| Some(room.min(most)).filter(|&part| part > 0)).unwrap_or(0)
    }

    /// Claims what `part` makes of the room that is left; nothing if it makes nothing of it.
    fn take(&self, part: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut claimed = self.claimed.load(Ordering::Relaxed);
        loop {
            // What is claimed lies below some ceiling that was; an older one than the newest only makes room seem less.
            let room = self.ceiling.load(Ordering::Relaxed).saturating_sub(claimed);
            let claim = part(room)?;
            // Relaxed is enough: the counter alone carries the promise, and it changes only by whole exchanges.
            match self.claimed.compare_exchange_weak(claimed, claimed + claim, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(claim),
                Err(now) => claimed = now,
            }
        }
    }

    fn give_back(&self, unspent: u64) {
        if self.is_counted {
            self.claimed.fetch_sub(unspent, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
