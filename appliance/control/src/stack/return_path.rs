//! The stations that IKE datagrams came from, so that answers find back while no neighbour is resolved.
//!
//! What is remembered here steers nothing but our own IKE datagrams to that same remote address; the data path never
//! sees it. Bounded; the least recently heard is forgotten first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::time::Instant;

use super::MacAddress;
use datapath::routes::PortId;

/// Remote addresses remembered.
pub const REMOTES_MAX: usize = 4_096;

/// A way to a remote address: a port, and the station on it to hand packets to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnPath {
    /// The port that the last datagram came in by.
    pub port: PortId,
    /// The station that sent it on that link.
    pub mac: MacAddress,
    /// When it came.
    heard: Instant,
}

/// Ways back, by remote address.
#[derive(Debug, Default)]
pub struct ReturnPaths {
    paths: BTreeMap<IpAddr, ReturnPath>,
    by_age: BTreeSet<(Instant, IpAddr)>,
}

impl ReturnPaths {
    /// Remembers where a datagram of `remote` came from.
    pub fn remember(&mut self, now: Instant, remote: IpAddr, port: PortId, mac: MacAddress) {
        if let Some(old) = self.paths.insert(remote, ReturnPath { port, mac, heard: now }) {
            self.by_age.remove(&(old.heard, remote));
        }
        self.by_age.insert((now, remote));
        if self.paths.len() > REMOTES_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.paths.remove(&oldest);
        }
    }

    /// The way that the last datagram of `remote` came.
    pub fn get(&self, remote: IpAddr) -> Option<ReturnPath> {
        self.paths.get(&remote).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_least_recently_heard_is_forgotten_first() {
        let mut paths = ReturnPaths::default();
        let remote = |i: u32| IpAddr::from(Ipv4Addr::from_bits(i));
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        for i in 0..100_000 {
            paths.remember(Instant::from_millis(i), remote(i as u32), PortId(0), mac);
            paths.remember(Instant::from_millis(i), remote(u32::MAX), PortId(1), mac);
        }
        assert_eq!((paths.paths.len(), paths.by_age.len()), (REMOTES_MAX, REMOTES_MAX));
        assert!(paths.get(remote(0)).is_none());
        assert_eq!(paths.get(remote(u32::MAX)).map(|path| path.port), Some(PortId(1)));
    }
}
