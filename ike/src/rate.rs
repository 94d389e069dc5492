//! Token buckets: how often strangers can make us do something.

use core::net::IpAddr;
use core::time::Duration;

use ipsec::time::Instant;
use rand_core::CryptoRng;
use ring::hmac;

/// Gives out so many tokens per second, at most one second's worth at once.
#[derive(Clone, Debug)]
pub(crate) struct TokenBucket {
    per_second: u32,
    tokens: u32,
    filled_at: Instant,
}

impl TokenBucket {
    pub(crate) fn new(per_second: u32) -> TokenBucket {
        TokenBucket { per_second, tokens: per_second, filled_at: Instant::ZERO }
    }

    fn refill(&mut self, now: Instant) {
        let Some(each) = Duration::from_secs(1).checked_div(self.per_second) else { return };
        let gained = now.saturating_since(self.filled_at).as_nanos() / each.as_nanos().max(1);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            let full = gained >= self.per_second - self.tokens.min(self.per_second);
            self.filled_at = if full { now } else { self.filled_at + each * gained };
            self.tokens = self.tokens.saturating_add(gained).min(self.per_second);
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// A limit for all addresses together, and a tighter one for each, so that one cannot use up what is for all.
///
/// Addresses share a fixed number of buckets by a keyed hash: memory does not grow with their number.
pub(crate) struct FairLimit {
    all: TokenBucket,
    each: Box<[TokenBucket]>,
    key: hmac::Key,
}

const BUCKETS: usize = 1024;

impl FairLimit {
    pub(crate) fn new(per_second: u32, rng: &mut impl CryptoRng) -> FairLimit {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        let each = TokenBucket::new(per_second.div_ceil(8));
        FairLimit {
            all: TokenBucket::new(per_second),
            each: vec![each; BUCKETS].into_boxed_slice(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        }
    }

    fn bucket(&self, address: IpAddr) -> usize {
        let tag = match address {
            IpAddr::V4(address) => hmac::sign(&self.key, &address.octets()),
            // Whoever has one IPv6 address has at least its /64.
            IpAddr::V6(address) => hmac::sign(&self.key, &address.octets()[..8]),
        };
        let tag = tag.as_ref();
        usize::from(u16::from_be_bytes([tag[0], tag[1]])) % BUCKETS
    }

    pub(crate) fn take(&mut self, now: Instant, address: IpAddr) -> bool {
        let bucket = self.bucket(address);
        self.each[bucket].take(now) && self.all.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = TokenBucket::new(10);
        let taken = |bucket: &mut TokenBucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, Instant::from_secs(5)), 10);
        assert_eq!(taken(&mut bucket, Instant::from_millis(5_099)), 0);
        assert_eq!(taken(&mut bucket, Instant::from_millis(5_100)), 1);
        assert_eq!(taken(&mut bucket, Instant::from_millis(5_450)), 3);
        assert_eq!(taken(&mut bucket, Instant::from_millis(5_500)), 1);
        assert_eq!(taken(&mut bucket, Instant::from_secs(1_000)), 10);
        assert!(!TokenBucket::new(0).take(Instant::from_secs(1)));
    }

    #[test]
    fn one_address_cannot_use_up_what_is_for_all() {
        let mut limit = FairLimit::new(80, &mut ChaCha20Rng::seed_from_u64(1));
        let now = Instant::from_secs(1);
        let from = |last: u8| IpAddr::from([192, 0, 2, last]);
        assert_eq!((0..1_000).filter(|_| limit.take(now, from(1))).count(), 10);
        assert!(limit.take(now, from(2)));
        let rest = (0..=255).flat_map(|last| [last; 100]).filter(|&last| limit.take(now, from(last))).count();
        assert_eq!(rest, 80 - 11);
    }
}
