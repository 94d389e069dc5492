//! IKE SAs between IKE_SA_INIT and IKE_AUTH, as responder: keys, but nobody's.
//!
//! A half-open IKE SA is a type of its own, which knows one thing to do: to be authenticated. No CREATE_CHILD_SA and no
//! INFORMATIONAL exchange can be put to it.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

use ipsec::time::Instant;

use crate::channel::Channel;
use crate::crypto::keys::{IkeKeys, Nonces};
use crate::message::{IkeSpi, Spis};
use crate::nat::Nat;
use crate::proposal::IkeSuite;

/// One half-open IKE SA.
pub(crate) struct HalfOpen {
    pub(crate) spis: Spis,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) channel: Channel,
    pub(crate) nonces: Nonces,
    /// The whole IKE_SA_INIT request: the initiator signs it.
    pub(crate) request: Vec<u8>,
    /// The whole IKE_SA_INIT response: we sign it.
    pub(crate) response: Vec<u8>,
    /// Our address.
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) nat: Nat,
    /// IKE_AUTH messages that failed their integrity check.
    pub(crate) failures: u8,
}

/// All half-open IKE SAs, by our SPI.
#[derive(Default)]
pub(crate) struct HalfOpenTable {
    by_spi: BTreeMap<IkeSpi, Entry>,
    by_age: BTreeSet<(Instant, IkeSpi)>,
    per_address: BTreeMap<IpAddr, BTreeSet<(Instant, IkeSpi)>>,
}

struct Entry {
    half_open: HalfOpen,
    expires_at: Instant,
}

impl HalfOpenTable {
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len()
    }

    /// How many come from this address.
    pub(crate) fn of_address(&self, address: IpAddr) -> usize {
        self.per_address.get(&address).map_or(0, BTreeSet::len)
    }

    /// Our SPIs of those at this address of ours.
    pub(crate) fn at_address(&self, local: IpAddr) -> Vec<IkeSpi> {
        let there = self.by_spi.iter().filter(|(_, entry)| entry.half_open.local == local);
        there.map(|(spi, _)| *spi).collect()
    }

    pub(crate) fn insert(&mut self, expires_at: Instant, half_open: HalfOpen) {
        let spi = half_open.spis.responder;
        self.by_age.insert((expires_at, spi));
        self.per_address.entry(half_open.remote.ip()).or_default().insert((expires_at, spi));
        self.by_spi.insert(spi, Entry { half_open, expires_at });
    }

    pub(crate) fn get_mut(&mut self, spi: IkeSpi) -> Option<&mut HalfOpen> {
        self.by_spi.get_mut(&spi).map(|entry| &mut entry.half_open)
    }

    pub(crate) fn remove(&mut self, spi: IkeSpi) -> Option<HalfOpen> {
        let Entry { half_open, expires_at } = self.by_spi.remove(&spi)?;
        self.by_age.remove(&(expires_at, spi));
        let address = half_open.remote.ip();
        if let Some(of_address) = self.per_address.get_mut(&address) {
            of_address.remove(&(expires_at, spi));
            if of_address.is_empty() {
                self.per_address.remove(&address);
            }
        }
        Some(half_open)
    }

    /// Makes room for one from `address` when the table is full: the oldest one of the address that has most goes,
    /// if that has more than `address` would then have. So nobody who can receive cookies keeps others out.
    pub(crate) fn evict_for(&mut self, address: IpAddr) -> Option<HalfOpen> {
        let most = self.per_address.values().max_by_key(|of_address| of_address.len())?;
        if most.len() <= self.of_address(address) {
            return None;
        }
        let &(_, oldest) = most.first()?;
        self.remove(oldest)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.by_age.first().map(|(expires_at, _)| *expires_at)
    }

    /// Takes out one whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<HalfOpen> {
        let &(expires_at, spi) = self.by_age.first()?;
        if expires_at > now { None } else { self.remove(spi) }
    }
}
