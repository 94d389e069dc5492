//! Which peers' selectors overlap (RFC 4301 §4.4.1): two peers may carry the same addresses, but never unnoticed.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::selector::{Selectors, TrafficSelector};

/// The selectors of every CHILD_SA, found by the peers' addresses.
///
/// Most clients carry one address each, and those are found in logarithmic time; ranges are compared one by one.
#[derive(Default)]
pub(crate) struct OverlapIndex {
    entries: BTreeMap<Spi, Entry>,
    singles: BTreeMap<IpAddr, BTreeSet<Spi>>,
    ranges: BTreeSet<Spi>,
}

struct Entry {
    peer: PeerId,
    selectors: Selectors,
}

fn any_common(ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> bool {
    ours.iter().any(|one| theirs.iter().any(|other| one.intersect(other).is_some()))
}

/// The only address of the peer's side, if it is one.
fn single(selectors: &Selectors) -> Option<IpAddr> {
    match selectors.remote.as_slice() {
        [only] => only.addresses.as_single(),
        _ => None,
    }
}

impl OverlapIndex {
    pub(crate) fn insert(&mut self, inbound: Spi, peer: PeerId, selectors: Selectors) {
        match single(&selectors) {
            Some(address) => self.singles.entry(address).or_default().insert(inbound),
            None => self.ranges.insert(inbound),
        };
        self.entries.insert(inbound, Entry { peer, selectors });
    }

    pub(crate) fn remove(&mut self, inbound: Spi) {
        let Some(entry) = self.entries.remove(&inbound) else { return };
        let Some(address) = single(&entry.selectors) else {
            self.ranges.remove(&inbound);
            return;
        };
        if let Some(of_address) = self.singles.get_mut(&address) {
            of_address.remove(&inbound);
            if of_address.is_empty() {
                self.singles.remove(&address);
            }
        }
    }

    /// Another peer with a packet in common.
    pub(crate) fn find(&self, peer: PeerId, selectors: &Selectors) -> Option<PeerId> {
        let overlaps = |spi: &Spi| {
            let entry = self.entries.get(spi).filter(|entry| entry.peer != peer)?;
            let common = any_common(&entry.selectors.remote, &selectors.remote)
                && any_common(&entry.selectors.local, &selectors.local);
            common.then_some(entry.peer)
        };
        let mut in_ranges = self.ranges.iter();
        let mut in_singles = selectors
            .remote
            .iter()
            .flat_map(|one| self.singles.range(one.addresses.start()..=one.addresses.end()).flat_map(|(_, spis)| spis));
        in_singles.find_map(overlaps).or_else(|| in_ranges.find_map(overlaps))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selectors(local: &str, remote: &str) -> Selectors {
        Selectors { local: vec![local.parse().unwrap()], remote: vec![remote.parse().unwrap()] }
    }

    fn spi(number: u32) -> Spi {
        Spi::new(256 + number).unwrap()
    }

    #[test]
    fn only_other_peers_with_packets_in_common_are_found() {
        let mut index = OverlapIndex::default();
        index.insert(spi(1), PeerId(1), selectors("203.0.113.80[tcp/80]", "10.0.0.1"));
        index.insert(spi(2), PeerId(2), selectors("203.0.113.80", "10.1.0.0/16"));
        let find = |peer, local, remote| index.find(PeerId(peer), &selectors(local, remote)).map(|peer| peer.0);
        assert_eq!(find(3, "203.0.113.80", "10.0.0.1"), Some(1));
        assert_eq!(find(1, "203.0.113.80", "10.0.0.1"), None);
        assert_eq!(find(3, "203.0.113.80[tcp/22]", "10.0.0.1"), None);
        assert_eq!(find(3, "203.0.113.80", "10.0.0.0/24"), Some(1));
        assert_eq!(find(3, "203.0.113.80", "10.1.2.3"), Some(2));
        assert_eq!(find(3, "203.0.113.80", "10.2.0.0/16"), None);
        assert_eq!(find(3, "203.0.113.80", "2001:db8::1"), None);
        index.remove(spi(1));
        index.remove(spi(2));
        assert_eq!((index.len(), index.singles.len(), index.ranges.len()), (0, 0, 0));
    }

    proptest! {
        /// Against comparing with all of them.
        #[test]
        fn finds_just_when_a_linear_scan_does(
            entries in prop::collection::vec((1_u64..4, 0_u8..8, 0_u8..3), 0..8),
            (peer, start, more) in (1_u64..4, 0_u8..8, 0_u8..3),
        ) {
            let range = |start: u8, more: u8| format!("10.0.0.{start}-10.0.0.{}", start + more);
            let mut index = OverlapIndex::default();
            for (number, (peer, start, more)) in entries.iter().enumerate() {
                index.insert(spi(number as u32), PeerId(*peer), selectors("0.0.0.0/0", &range(*start, *more)));
            }
            let found = index.find(PeerId(peer), &selectors("0.0.0.0/0", &range(start, more)));
            let scan = entries.iter().any(|(other, s, m)| *other != peer && *s <= start + more && start <= s + m);
            prop_assert_eq!(found.is_some(), scan);
        }
    }
}
