//! Sender numbers, drawn in advance: what makes an IV unlike every other under one key (RFC 6054).
//!
//! **Promises.** No number is given out twice, by anybody: a draw raises the durable counter before its numbers are
//! used, and one that nothing is known of loses its numbers. [`SenderPool::birth`] is the newest counter that was seen,
//! so that the senders of this and every other appliance lie near it; a number that has grown old in the pool is not
//! given out, since new SAs would refuse it.

use core::ops::Range;
use core::time::Duration;
use std::collections::VecDeque;

use ipsec::iv::{SENDER_DISTANCE_MAX, SenderNumber};
use ipsec::time::Instant;

use super::record::{decode_number, encode_number};
use super::{Change, Compare, Outcome, Read, Reply, Request, name};

/// How long to wait after a draw of which nothing is known, or that found the counter where it cannot be.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A number is old when the counter has come this far since: half of what SAs allow.
const OLD_DRAWS: u64 = SENDER_DISTANCE_MAX / 2;

/// The numbers that were drawn and not used yet, and how new ones are drawn.
#[derive(Debug)]
pub struct SenderPool {
    drawn: VecDeque<Range<u64>>,
    counter: u64,
    keep: u32,
    asked: Option<Asked>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    id: u64,
    from: u64,
    count: u32,
}

impl SenderPool {
    /// Begins with the numbers of a [`super::start::Started`]; draws new ones when fewer than `keep` are left.
    #[must_use]
    pub fn new(drawn: Range<u64>, keep: u32) -> SenderPool {
        let counter = drawn.end;
        SenderPool { drawn: VecDeque::from([drawn]), counter, keep, asked: None, retry_at: None }
    }

    /// A number that nobody else will ever hold. `None` while the CF does not answer and all are used.
    pub fn take(&mut self) -> Option<SenderNumber> {
        while let Some(range) = self.drawn.front_mut() {
            range.start = range.start.max(self.counter.saturating_sub(OLD_DRAWS));
            match range.next() {
                Some(number) => return Some(SenderNumber(number)),
                None => _ = self.drawn.pop_front(),
            }
        }
        None
    }

    /// How many numbers are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        let oldest = self.counter.saturating_sub(OLD_DRAWS);
        self.drawn.iter().map(|range| range.end.saturating_sub(range.start.max(oldest))).sum()
    }

    /// Where the cluster's counter stands, as far as is known: an SA born now records it.
    #[must_use]
    pub fn birth(&self) -> SenderNumber {
        SenderNumber(self.counter)
    }

    /// The counter was seen here, in a reply to somebody else's question.
    pub fn note(&mut self, counter: SenderNumber) {
        self.counter = self.counter.max(counter.0);
    }

    /// The draw that is due, if one is. `id` comes back in its reply.
    pub fn poll_request(&mut self, now: Instant, id: u64) -> Option<Request> {
        let wanted = u64::from(self.keep).saturating_sub(self.left());
        if wanted == 0 || self.asked.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        let raised = self.counter.checked_add(count.into())?;
        self.asked = Some(Asked { id, from: self.counter, count });
        self.retry_at = None;
        let key = name::SENDERS.to_owned();
        Some(Request {
            id,
            compare: vec![Compare::Equals(key.clone(), encode_number(self.counter))],
            change: vec![Change::Put(key.clone(), encode_number(raised))],
            read: vec![Read::Record(key)],
        })
    }

    /// When [`SenderPool::poll_request`] may have something to ask that it had not before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The draw could not even be submitted: it is asked for again later.
    pub fn refused(&mut self, now: Instant) {
        self.asked = None;
        self.retry_at = Some(now + RETRY_AFTER);
    }

    /// Takes a reply in. Returns whether it was to one of ours.
    pub fn handle_reply(&mut self, now: Instant, reply: &Reply) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.id == reply.id) else { return false };
        match &reply.outcome {
            Ok(outcome) if outcome.is_committed => {
                let end = asked.from + u64::from(asked.count);
                self.counter = self.counter.max(end);
                self.drawn.push_back(asked.from..end);
            }
            Ok(outcome) => self.missed(now, outcome),
            Err(_) => self.retry_at = Some(now + RETRY_AFTER),
        }
        true
    }

    /// The counter was elsewhere. Only upwards is it believed: one that went back is the watch's business.
    fn missed(&mut self, now: Instant, outcome: &Outcome) {
        let found = outcome.record(name::SENDERS).and_then(|bytes| decode_number(name::SENDERS, bytes).ok());
        match found {
            Some(found) if found > self.counter => self.counter = found,
            Some(_) | None => self.retry_at = Some(now + RETRY_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::Unavailable;
    use crate::facility::memory::Store;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Instant = Instant::from_secs(5);

    fn store(senders: u64) -> Store {
        let mut store = Store::default();
        let change = vec![Change::Put(name::SENDERS.into(), encode_number(senders))];
        store.execute(&Request { id: 0, compare: vec![], change, read: vec![] }).unwrap();
        store
    }

    fn draw(pool: &mut SenderPool, store: &mut Store, now: Instant) -> bool {
        let Some(request) = pool.poll_request(now, 9) else { return false };
        let outcome = Ok(store.execute(&request).unwrap());
        pool.handle_reply(now, &Reply { id: 9, outcome })
    }

    #[test]
    fn numbers_are_drawn_before_they_are_needed() {
        let mut store = store(10);
        let mut pool = SenderPool::new(8..10, 4);
        assert!(draw(&mut pool, &mut store, NOW));
        assert_eq!((pool.left(), pool.birth()), (4, SenderNumber(12)));
        let taken: Vec<u64> = std::iter::from_fn(|| pool.take()).map(|number| number.0).collect();
        assert_eq!(taken, [8, 9, 10, 11]);
        assert!(draw(&mut pool, &mut store, NOW));
        assert_eq!(pool.take(), Some(SenderNumber(12)));
    }

    #[test]
    fn a_draw_of_which_nothing_is_known_loses_its_numbers() {
        let mut store = store(10);
        let mut pool = SenderPool::new(10..10, 2);
        let request = pool.poll_request(NOW, 7).unwrap();
        store.execute(&request).unwrap();
        let silence = Err(Unavailable { why: "no answer".into() });
        assert!(!pool.handle_reply(NOW, &Reply { id: 8, outcome: silence.clone() }));
        assert!(pool.handle_reply(NOW, &Reply { id: 7, outcome: silence }));
        assert_eq!((pool.take(), pool.poll_request(NOW, 9)), (None, None));
        let later = pool.poll_timeout().unwrap();
        assert!(draw(&mut pool, &mut store, later));
        assert_eq!(pool.take(), None);
        assert!(draw(&mut pool, &mut store, later));
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(SenderNumber(12)), Some(SenderNumber(13)), None));
        // The first draw comes in at last: it takes nothing back.
        assert!(!store.execute(&request).unwrap().is_committed);
    }

    #[test]
    fn a_number_that_has_grown_old_is_not_given_out() {
        let mut pool = SenderPool::new(100..102, 1);
        pool.note(SenderNumber(100 + OLD_DRAWS + 1));
        assert_eq!((pool.left(), pool.take()), (1, Some(SenderNumber(101))));
        let birth = pool.birth();
        assert!(SenderNumber(101).may_use_key_born_at(birth));
        pool.note(SenderNumber(birth.0 - 50));
        assert_eq!(pool.birth(), birth);
    }

    #[test]
    fn a_counter_that_went_back_gives_no_numbers() {
        let mut store = store(5);
        let mut pool = SenderPool::new(10..10, 2);
        assert!(draw(&mut pool, &mut store, NOW));
        assert_eq!((pool.take(), pool.birth()), (None, SenderNumber(10)));
        assert!(pool.poll_request(NOW, 1).is_none());
        assert!(pool.poll_timeout().is_some());
    }

    proptest! {
        /// Several appliances, requests that are lost before or after they are carried out, or arrive much later.
        #[test]
        fn no_number_is_ever_given_out_twice(steps in prop::collection::vec((0..3_usize, 0..5_u8), 1..200)) {
            let mut store = store(0);
            let mut pools: Vec<_> = (0..3).map(|_| SenderPool::new(0..0, 3)).collect();
            let mut late: Vec<Request> = Vec::new();
            let mut seen = BTreeSet::new();
            let mut now = NOW;
            for (at, what) in steps {
                now += RETRY_AFTER;
                let Some(request) = pools[at].poll_request(now, 1) else {
                    if let Some(number) = pools[at].take() {
                        prop_assert!(seen.insert(number.0), "{number:?} twice");
                    }
                    continue;
                };
                let silence = Err(Unavailable { why: String::new() });
                let outcome = match what {
                    0 => silence,
                    1 => { store.execute(&request).unwrap(); silence }
                    2 => { late.push(request); silence }
                    _ => Ok(store.execute(&request).unwrap()),
                };
                if what == 3 && !late.is_empty() {
                    store.execute(&late.remove(0)).unwrap();
                }
                pools[at].handle_reply(now, &Reply { id: 1, outcome });
            }
        }
    }
}
