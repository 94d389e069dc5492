//! Stateless cookies (RFC 7296 §2.6): whoever returns one can receive at the address that it sends from.
//!
//! Nothing is kept for a cookie that was sent: it is recomputed from the request that returns it.

use core::net::IpAddr;
use core::time::Duration;

use ipsec::time::Instant;
use rand_core::CryptoRng;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::message::IkeSpi;

const COOKIE_LEN: usize = 17;

/// The secret behind the cookies, changed in time; the one before still counts.
pub(crate) struct CookieJar {
    generation: u8,
    current: hmac::Key,
    previous: Option<hmac::Key>,
    changes_at: Instant,
    lifetime: Duration,
}

/// What a cookie is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) nonce: &'a [u8],
    pub(crate) address: IpAddr,
    pub(crate) spi: IkeSpi,
}

fn fresh(rng: &mut impl CryptoRng) -> hmac::Key {
    let mut secret = zeroize::Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *secret);
    hmac::Key::new(hmac::HMAC_SHA256, &*secret)
}

fn bake(generation: u8, key: &hmac::Key, claim: Claim<'_>) -> [u8; COOKIE_LEN] {
    let mut context = hmac::Context::with_key(key);
    context.update(&claim.spi.to_bytes());
    match claim.address {
        IpAddr::V4(address) => context.update(&address.octets()),
        IpAddr::V6(address) => context.update(&address.octets()),
    }
    // Last, because it alone has no fixed length for a family of addresses; families differ in length by 12, which
    // is why the family is told too.
    context.update(&[u8::from(claim.address.is_ipv6())]);
    context.update(claim.nonce);
    let mut cookie = [generation; COOKIE_LEN];
    cookie[1..].copy_from_slice(&context.sign().as_ref()[..COOKIE_LEN - 1]);
    cookie
}

impl CookieJar {
    pub(crate) fn new(lifetime: Duration, rng: &mut impl CryptoRng) -> CookieJar {
        CookieJar { generation: 0, current: fresh(rng), previous: None, changes_at: Instant::ZERO + lifetime, lifetime }
    }

    /// Changes the secret when its time has come.
    pub(crate) fn age(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        if now < self.changes_at {
            return;
        }
        // Asleep for two lifetimes and more: the current secret is too old even as the previous one.
        let still_good = now < self.changes_at + self.lifetime;
        let old = core::mem::replace(&mut self.current, fresh(rng));
        self.previous = still_good.then_some(old);
        self.generation = self.generation.wrapping_add(1);
        self.changes_at = now + self.lifetime;
    }

    /// The cookie to ask for.
    pub(crate) fn cookie(&self, claim: Claim<'_>) -> [u8; COOKIE_LEN] {
        bake(self.generation, &self.current, claim)
    }

    /// Whether this cookie was made here, lately, for just this claim.
    pub(crate) fn accepts(&self, cookie: &[u8], claim: Claim<'_>) -> bool {
        let Some(&generation) = cookie.first() else { return false };
        let key = if generation == self.generation {
            Some(&self.current)
        } else if generation == self.generation.wrapping_sub(1) {
            self.previous.as_ref()
        } else {
            None
        };
        key.is_some_and(|key| bake(generation, key, claim).ct_eq(cookie).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    const LIFETIME: Duration = Duration::from_secs(30);

    fn jar() -> (CookieJar, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        (CookieJar::new(LIFETIME, &mut rng), rng)
    }

    fn claim<'a>(nonce: &'a [u8], address: &str, spi: u64) -> Claim<'a> {
        Claim { nonce, address: address.parse().unwrap(), spi: IkeSpi::new(spi) }
    }

    #[test]
    fn hostile_14_a_cookie_counts_for_its_own_nonce_address_and_spi_only() {
        let (jar, _) = jar();
        let mine = claim(&[7; 32], "192.0.2.1", 5);
        let cookie = jar.cookie(mine);
        assert!(jar.accepts(&cookie, mine));
        for other in [
            claim(&[8; 32], "192.0.2.1", 5),
            claim(&[7; 31], "192.0.2.1", 5),
            claim(&[7; 32], "192.0.2.2", 5),
            claim(&[7; 32], "::ffff:192.0.2.1", 5),
            claim(&[7; 32], "192.0.2.1", 6),
        ] {
            assert!(!jar.accepts(&cookie, other));
        }
        for bit in 0..cookie.len() * 8 {
            let mut forged = cookie;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!jar.accepts(&forged, mine));
        }
        assert!(!jar.accepts(&[], mine) && !jar.accepts(&cookie[..16], mine));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret_and_no_more() {
        let (mut jar, mut rng) = jar();
        let mine = claim(&[7; 32], "192.0.2.1", 5);
        let cookie = jar.cookie(mine);
        jar.age(Instant::from_secs(29), &mut rng);
        assert_eq!(jar.cookie(mine), cookie);
        jar.age(Instant::from_secs(30), &mut rng);
        assert_ne!(jar.cookie(mine), cookie);
        assert!(jar.accepts(&cookie, mine));
        jar.age(Instant::from_secs(60), &mut rng);
        assert!(!jar.accepts(&cookie, mine));
    }

    #[test]
    fn a_secret_that_slept_too_long_does_not_count_as_the_previous_one() {
        let (mut jar, mut rng) = jar();
        let mine = claim(&[7; 32], "192.0.2.1", 5);
        let cookie = jar.cookie(mine);
        jar.age(Instant::from_secs(60), &mut rng);
        assert!(!jar.accepts(&cookie, mine));
    }
}
