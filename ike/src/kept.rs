//! Final responses, kept for a while after the state that made them is gone.
//!
//! A response may get lost; its request then comes again, bit for bit (RFC 7296 §2.1). IKE_SA_INIT requests, failed
//! IKE_AUTH requests and the last request of a deleted IKE SA have no IKE SA (any more) that could remember.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ipsec::time::Instant;
use ring::digest;

use crate::channel::Wire;

/// SHA-256 of a whole request.
pub(crate) type RequestDigest = [u8; 32];

pub(crate) fn digest_of(request: &[u8]) -> RequestDigest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, request).as_ref());
    out
}

/// A bounded memory of requests and their responses, the oldest leaving first.
pub(crate) struct KeptResponses {
    responses: BTreeMap<RequestDigest, Wire>,
    order: VecDeque<(Instant, RequestDigest)>,
    most: usize,
    lifetime: Duration,
}

impl KeptResponses {
    pub(crate) fn new(most: usize, lifetime: Duration) -> KeptResponses {
        KeptResponses { responses: BTreeMap::new(), order: VecDeque::new(), most, lifetime }
    }

    pub(crate) fn keep(&mut self, now: Instant, request: RequestDigest, response: Wire) {
        if self.most == 0 || self.responses.insert(request, response).is_some() {
            return;
        }
        self.order.push_back((now + self.lifetime, request));
        while self.order.len() > self.most {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, request)) = self.order.pop_front() {
            self.responses.remove(&request);
        }
    }

    pub(crate) fn forget_expired(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    pub(crate) fn find(&self, request: &RequestDigest) -> Option<&Wire> {
        self.responses.get(request)
    }

    pub(crate) fn len(&self) -> usize {
        self.responses.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_when_full_and_all_leave_in_time() {
        let mut kept = KeptResponses::new(2, Duration::from_secs(10));
        let digests: Vec<_> = (0..3_u8).map(|octet| digest_of(&[octet])).collect();
        for (second, digest) in digests.iter().enumerate() {
            kept.keep(Instant::from_secs(second as u64), *digest, vec![second as u8].into());
        }
        assert_eq!((kept.find(&digests[0]), kept.find(&digests[2])), (None, Some(&vec![2].into())));
        assert_eq!((kept.len(), kept.next_timeout()), (2, Some(Instant::from_secs(11))));
        kept.forget_expired(Instant::from_secs(11));
        assert_eq!((kept.len(), kept.find(&digests[1])), (1, None));
        kept.forget_expired(Instant::from_secs(12));
        assert_eq!((kept.len(), kept.next_timeout()), (0, None));
    }
}
