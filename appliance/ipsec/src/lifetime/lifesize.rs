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
//! - `cores × chunk ≤ hard − soft`, so what other cores hold unspent when one is refused is less than the room in which
//!   the SA should have been replaced; and `chunk ≤ hard ⁄ (64 × cores)`, so the soft limit is at most 1⁄64 early. A
//!   chunk is never less than what the packet at hand needs.
//!
//! **What it never does.** It takes nothing from another core's share; an idle core gives its own back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Lifetime, Limits};

/// How many chunks a limit is cut into, at least, for each core.
const CHUNKS_PER_CORE_MIN: u64 = 64;

/// What one SA may carry, and how much of it was claimed.
#[derive(Debug)]
pub struct Lifesize {
    bytes: Pool,
    packets: Pool,
    soft_said: AtomicBool,
}

/// What one core holds of an SA's lifesize. Spend it only with the [`Lifesize`] that it was claimed from.
#[derive(Debug, Default)]
pub struct LifesizeShare {
    bytes: u64,
    packets: u64,
}

/// The SA has reached its hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SA has reached its hard limit")]
pub struct HardLimit;

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
    soft: u64,
    hard: u64,
    chunk: u64,
}

impl Lifesize {
    /// The lifesize of an SA that at most so many cores use.
    #[must_use]
    pub fn new(lifetime: &Lifetime, cores: u16) -> Self {
        Self {
            bytes: Pool::new(lifetime.bytes, cores),
            packets: Pool::new(lifetime.packets, cores),
            soft_said: AtomicBool::new(false),
        }
    }

    /// How much was claimed: inner bytes and packets, spent or held by a core. Zero where there is no limit.
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
    /// [`HardLimit`] if the SA may not carry this packet any more. Nothing is spent then.
    #[inline]
    pub fn spend(&mut self, lifesize: &Lifesize, bytes: u64) -> Result<Spent, HardLimit> {
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
    fn claim(&mut self, lifesize: &Lifesize, bytes: u64) -> Result<Spent, HardLimit> {
        let more_bytes = lifesize.bytes.claim(bytes.saturating_sub(self.bytes))?;
        self.bytes = self.bytes.saturating_add(more_bytes);
        let more_packets = lifesize.packets.claim(1_u64.saturating_sub(self.packets))?;
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
        let chunk = (room / cores).min(whole / cores / CHUNKS_PER_CORE_MIN).max(1);
        Self {
            claimed: AtomicU64::new(0),
            soft: limits.soft.unwrap_or(u64::MAX),
            hard: limits.hard.unwrap_or(u64::MAX),
            chunk,
        }
    }

    fn is_unlimited(&self) -> bool {
        self.soft == u64::MAX && self.hard == u64::MAX
    }

    fn is_soft_reached(&self) -> bool {
        self.claimed.load(Ordering::Relaxed) >= self.soft
    }

    /// Claims what is needed, and up to a chunk if there is so much. Needing nothing claims nothing.
    fn claim(&self, need: u64) -> Result<u64, HardLimit> {
        if need == 0 {
            return Ok(0);
        }
        if self.is_unlimited() {
            return Ok(u64::MAX);
        }
        let mut claimed = self.claimed.load(Ordering::Relaxed);
        loop {
            let room = self.hard - claimed;
            if need > room {
                return Err(HardLimit);
            }
            let grant = need.max(self.chunk).min(room);
            // Relaxed is enough: the counter alone carries the promise, and it changes only by whole exchanges.
            match self.claimed.compare_exchange_weak(claimed, claimed + grant, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(grant),
                Err(now) => claimed = now,
            }
        }
    }

    fn give_back(&self, unspent: u64) {
        if !self.is_unlimited() {
            self.claimed.fetch_sub(unspent, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn lifetime(soft: Option<u64>, hard: Option<u64>) -> Lifetime {
        Lifetime { bytes: Limits { soft, hard }, ..Lifetime::NONE }
    }

    #[test]
    fn without_limits_nothing_is_refused_or_counted() {
        let lifesize = Lifesize::new(&Lifetime::NONE, 4);
        let mut share = LifesizeShare::new();
        for _ in 0..10 {
            assert_eq!(share.spend(&lifesize, u64::from(u32::MAX)), Ok(Spent::Within));
        }
        share.give_back(&lifesize);
        assert_eq!(lifesize.claimed(), (0, 0));
    }

    #[test]
    fn the_hard_limit_is_reached_to_the_byte_and_not_passed() {
        let lifesize = Lifesize::new(&lifetime(None, Some(1_000)), 1);
        let mut share = LifesizeShare::new();
        for _ in 0..10 {
            assert_eq!(share.spend(&lifesize, 100), Ok(Spent::Within));
        }
        assert_eq!(share.spend(&lifesize, 1), Err(HardLimit));
        assert_eq!(lifesize.claimed().0, 1_000);
    }

    #[test]
    fn packets_are_limited_like_bytes() {
        let limits = Limits { soft: Some(3), hard: Some(5) };
        let lifesize = Lifesize::new(&Lifetime { packets: limits, ..Lifetime::NONE }, 1);
        let mut share = LifesizeShare::new();
        let said: Vec<_> = (0..7).map(|_| share.spend(&lifesize, 9)).collect();
        let (within, hard) = (Ok(Spent::Within), Err(HardLimit));
        assert_eq!(said, [within, within, Ok(Spent::SoftReached), within, within, hard, hard]);
    }

    #[test]
    fn a_refusal_spends_nothing_so_a_smaller_packet_still_fits() {
        let lifesize = Lifesize::new(&lifetime(None, Some(100)), 1);
        let mut share = LifesizeShare::new();
        assert_eq!(share.spend(&lifesize, 60), Ok(Spent::Within));
        assert_eq!(share.spend(&lifesize, 41), Err(HardLimit));
        assert_eq!(share.spend(&lifesize, 40), Ok(Spent::Within));
        assert_eq!(share.spend(&lifesize, 1), Err(HardLimit));
    }

    #[test]
    fn an_idle_core_gives_its_share_back() {
        let lifesize = Lifesize::new(&lifetime(None, Some(12_800)), 2);
        assert_eq!(lifesize.chunk().0, 100);
        let (mut idle, mut busy) = (LifesizeShare::new(), LifesizeShare::new());
        assert_eq!(idle.spend(&lifesize, 1), Ok(Spent::Within));
        assert_eq!(busy.spend(&lifesize, 12_700), Ok(Spent::Within));
        assert_eq!(busy.spend(&lifesize, 99), Err(HardLimit));
        idle.give_back(&lifesize);
        assert_eq!(busy.spend(&lifesize, 99), Ok(Spent::Within));
        assert_eq!(idle.spend(&lifesize, 1), Err(HardLimit));
        assert_eq!(lifesize.claimed().0, 12_800);
    }

    #[test]
    fn cores_race_to_the_hard_limit_and_one_of_them_says_soft() {
        const CORES: u16 = 4;
        let hard = 40_000_000_u64;
        let lifesize = Lifesize::new(&lifetime(Some(30_000_000), Some(hard)), CORES);
        let run = |core: u64| {
            let mut share = LifesizeShare::new();
            let (mut spent, mut said) = (0_u64, 0);
            for at in 0_u64.. {
                let bytes = 64 + (at * 37 + core * 11) % 1_400;
                match share.spend(&lifesize, bytes) {
                    Ok(Spent::Within) => spent += bytes,
                    Ok(Spent::SoftReached) => (spent, said) = (spent + bytes, said + 1),
                    Err(HardLimit) => break,
                }
                if at % 1_000 == core {
                    share.give_back(&lifesize);
                }
            }
            (spent, said)
        };
        let totals: Vec<(u64, u32)> = thread::scope(|scope| {
            let cores: Vec<_> = (0..u64::from(CORES)).map(|core| scope.spawn(move || run(core))).collect();
            cores.into_iter().map(|core| core.join().unwrap()).collect()
        });
        let spent: u64 = totals.iter().map(|total| total.0).sum();
        let stranded = u64::from(CORES) * lifesize.chunk().0.max(1_464);
        assert!(spent <= hard && spent > hard - stranded, "{spent}");
        assert_eq!(totals.iter().map(|total| total.1).sum::<u32>(), 1);
    }

    proptest! {
        #[test]
        fn chunks_fit_between_soft_and_hard(soft in 0_u64..1 << 40, room in 1_u64..1 << 40, cores in 1_u16..256) {
            let lifesize = Lifesize::new(&lifetime(Some(soft), Some(soft + room)), cores);
            let chunk = lifesize.chunk().0;
            prop_assert!(chunk == 1 || chunk * u64::from(cores) <= room);
            prop_assert!(chunk == 1 || chunk * u64::from(cores) * 64 <= soft + room);
        }

        /// Any interleaving of cores that spend and give back, against one plain sum.
        #[test]
        fn never_more_than_hard_and_soft_said_once(
            soft in 0_u64..20_000, room in 0_u64..5_000, cores in 1_u16..5,
            steps in prop::collection::vec((0_usize..4, 0_u64..1_500, prop::bool::weighted(0.1)), 1..200),
        ) {
            let hard = soft + room;
            let lifesize = Lifesize::new(&lifetime(Some(soft), Some(hard)), cores);
            let mut shares: Vec<_> = (0..cores).map(|_| LifesizeShare::new()).collect();
            let (mut total, mut said, mut refused_while_idle) = (0, 0, false);
            for (core, bytes, gives_back) in steps {
                let core = core % shares.len();
                match shares[core].spend(&lifesize, bytes) {
                    Ok(spent) => {
                        total += bytes;
                        said += u32::from(spent == Spent::SoftReached);
                    }
                    Err(HardLimit) => {
                        shares.iter_mut().for_each(|share| share.give_back(&lifesize));
                        refused_while_idle |= total + bytes <= hard && shares[core].spend(&lifesize, bytes).map(|_| total += bytes).is_err();
                    }
                }
                if gives_back {
                    shares[core].give_back(&lifesize);
                }
                prop_assert!(total <= hard);
                prop_assert!(said <= 1);
                prop_assert!(said == 1 || total < soft.max(1) || lifesize.soft_said.load(Ordering::Relaxed));
            }
            prop_assert!(!refused_while_idle, "what was given back could not be used");
            shares.iter_mut().for_each(|share| share.give_back(&lifesize));
            prop_assert_eq!(lifesize.claimed().0, total);
        }
    }
}
