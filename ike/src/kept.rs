//! Final responses, kept for a while after the state that made them is gone.
//!
//! A response may get lost; its request then comes again, bit for bit (RFC 7296 §2.1). IKE_SA_INIT requests, failed
//! IKE_AUTH requests and the last request of a deleted IKE SA have no IKE SA (any more) that could remember.

use core::net::IpAddr;
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

/// A request and the address of ours that it was sent to.
type Key = (IpAddr, RequestDigest);

/// A bounded memory of requests and their responses, the oldest leaving first.
pub(crate) struct KeptResponses {
    responses: BTreeMap<Key, Wire>,
    order: VecDeque<(Instant, Key)>,
    most: usize,
    lifetime: Duration,
}

impl KeptResponses {
    pub(crate) fn new(most: usize, lifetime: Duration) -> KeptResponses {
        KeptResponses { responses: BTreeMap::new(), order: VecDeque::new(), most, lifetime }
    }

    pub(crate) fn keep(&mut self, now: Instant, local: IpAddr, request: RequestDigest, response: Wire) {
        if self.most == 0 || self.responses.insert((local, request), response).is_some() {
            return;
        }
        self.order.push_back((now + self.lifetime, (local, request)));
        while self.order.len() > self.most {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.responses.remove(&key);
        }
    }

    pub(crate) fn forget_expired(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets what was sent to this address of ours.
    pub(crate) fn forget_address(&mut self, local: IpAddr) {
        self.responses.retain(|(at, _), _| *at != local);
        self.order.retain(|(_, (at, _))| *at != local);
    }

    pub(crate) fn find(&self, local: IpAddr, request: &RequestDigest) -> Option<&Wire> {
        self.responses.get(&(local, *request))
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

    const HERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(203, 0, 113, 80));
    const THERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(203, 0, 113, 81));

    #[test]
    fn the_oldest_leaves_when_full_and_all_leave_in_time() {
        let mut kept = KeptResponses::new(2, Duration::from_secs(10));
        let digests: Vec<_> = (0..3_u8).map(|octet| digest_of(&[octet])).collect();
        for (second, digest) in digests.iter().enumerate() {
            kept.keep(Instant::from_secs(second as u64), HERE, *digest, vec![second as u8].into());
        }
        assert_eq!((kept.find(HERE, &digests[0]), kept.find(HERE, &digests[2])), (None, Some(&vec![2].into())));
        assert_eq!((kept.len(), kept.next_timeout()), (2, Some(Instant::from_secs(11))));
        kept.forget_expired(Instant::from_secs(11));
        assert_eq!((kept.len(), kept.find(HERE, &digests[1])), (1, None));
        kept.forget_expired(Instant::from_secs(12));
        assert_eq!((kept.len(), kept.next_timeout()), (0, None));
    }

    #[test]
    fn each_address_of_ours_remembers_and_forgets_by_itself() {
        let mut kept = KeptResponses::new(8, Duration::from_secs(10));
        let same = digest_of(b"the same request");
        kept.keep(Instant::from_secs(1), HERE, same, vec![1].into());
        kept.keep(Instant::from_secs(2), THERE, same, vec![2].into());
        assert_eq!((kept.find(HERE, &same), kept.find(THERE, &same)), (Some(&vec![1].into()), Some(&vec![2].into())));
        kept.forget_address(HERE);
        assert_eq!((kept.find(HERE, &same), kept.len(), kept.next_timeout()), (None, 1, Some(Instant::from_secs(12))));
    }
}
