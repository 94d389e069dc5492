//! Sender numbers for the data cores: drawn in advance from the coupling facility, given out as IVs.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use cluster::facility::senders::SenderPool;
use cluster::facility::{Reply, Request};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::time::Instant;
use tracing::warn;

/// A core gets new IVs at most so often: one that wants them for an SA which no new number helps must not use up the
/// numbers of all.
const RENEWAL_PERIOD: Duration = Duration::from_secs(1);

/// The pool, and the cores that wait for it.
#[derive(Debug)]
pub(super) struct Senders {
    pool: SenderPool,
    wanting: BTreeSet<usize>,
    renewed: BTreeMap<usize, Instant>,
    /// Told once for each time that the pool is empty.
    is_short: bool,
}

impl Senders {
    pub fn new(pool: SenderPool) -> Senders {
        Senders { pool, wanting: BTreeSet::new(), renewed: BTreeMap::new(), is_short: false }
    }

    /// Where the counter stands: an SA born now records it.
    pub fn birth(&self) -> SenderNumber {
        self.pool.birth()
    }

    /// A core's IVs have run out or have grown too old.
    pub fn want(&mut self, core: usize) {
        self.wanting.insert(core);
    }

    /// New IVs for a core that waits for them.
    pub fn renew(&mut self, now: Instant) -> Option<(usize, IvGenerator)> {
        let is_due = |core: &&usize| self.renewed.get(*core).is_none_or(|last| now >= *last + RENEWAL_PERIOD);
        let core = *self.wanting.iter().find(is_due)?;
        let Some(number) = self.pool.take() else {
            if !self.is_short {
                warn!(core, "no sender number is left, and the coupling facility gives none; the core cannot encrypt");
            }
            self.is_short = true;
            return None;
        };
        self.is_short = false;
        self.wanting.remove(&core);
        self.renewed.insert(core, now);
        Some((core, IvGenerator::new(number)))
    }

    pub fn poll_request(&mut self, now: Instant, id: u64) -> Option<Request> {
        self.pool.poll_request(now, id)
    }

    pub fn refused(&mut self, now: Instant) {
        self.pool.refused(now);
    }

    pub fn handle_reply(&mut self, now: Instant, reply: &Reply) -> bool {
        self.pool.handle_reply(now, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(9);

    #[test]
    fn a_core_that_waits_gets_ivs_once_and_not_again_at_once() {
        let mut senders = Senders::new(SenderPool::new(5..8, 0));
        senders.want(1);
        senders.want(1);
        let (core, ivs) = senders.renew(NOW).unwrap();
        assert_eq!((core, ivs.sender()), (1, SenderNumber(5)));
        assert!(senders.renew(NOW).is_none());
        senders.want(1);
        senders.want(0);
        assert_eq!(senders.renew(NOW).unwrap().0, 0);
        assert!(senders.renew(NOW).is_none());
        assert_eq!(senders.renew(NOW + RENEWAL_PERIOD).unwrap().1.sender(), SenderNumber(7));
    }

    #[test]
    fn a_core_waits_for_as_long_as_there_are_none() {
        let mut senders = Senders::new(SenderPool::new(5..5, 0));
        senders.want(0);
        assert!(senders.renew(NOW).is_none());
        assert!(senders.renew(NOW).is_none());
        senders.pool = SenderPool::new(9..10, 0);
        assert_eq!(senders.renew(NOW).unwrap().0, 0);
    }
}
