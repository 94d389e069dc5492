//! Traffic by child instead of by SA: rekeying makes new SAs for ever, and metrics must not follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rows::SaRow;

/// More children than this are summed up under the name `other`.
pub const CHILDREN_MAX: usize = 1_000;

/// Whose traffic is summed up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildKey {
    /// Our IPsec address.
    pub dvipa: Option<IpAddr>,
    /// The child's name in the configuration.
    pub name: String,
    /// `in` or `out`.
    pub direction: String,
}

/// Traffic of all SAs of one child and direction that ever lived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildTotals {
    /// SAs that live now.
    pub sas: u64,
    /// Packets delivered or sent.
    pub packets: u64,
    /// Inner bytes delivered or sent.
    pub bytes: u64,
    /// Packets refused as replayed or older than the window.
    pub replay_drops: u64,
}

/// Sums up SAs that live and SAs that have ended. Numbers only grow, as counters must.
#[derive(Clone, Debug, Default)]
pub struct SaLedger {
    ended: BTreeMap<ChildKey, ChildTotals>,
    living: BTreeMap<u64, SaRow>,
}

impl SaLedger {
    /// Takes note of all SAs that live now. What was there before and is not now has ended, with the numbers that it
    /// had when it was last seen: tell [`SaLedger::ended`] the last ones to lose nothing.
    pub fn observe(&mut self, living: &[SaRow]) {
        let now: BTreeSet<u64> = living.iter().map(|sa| sa.id).collect();
        let gone: Vec<u64> = self.living.keys().copied().filter(|id| !now.contains(id)).collect();
        for id in gone {
            self.end(id);
        }
        for sa in living {
            self.living.insert(sa.id, sa.clone());
        }
    }

    /// Takes note of an SA's last numbers. It must not be observed again afterwards.
    pub fn ended(&mut self, sa: SaRow) {
        let id = sa.id;
        self.living.insert(id, sa);
        self.end(id);
    }

    fn end(&mut self, id: u64) {
        if let Some(sa) = self.living.remove(&id) {
            add(&mut self.ended, &sa, 0);
        }
    }

    /// The sums.
    #[must_use]
    pub fn totals(&self) -> Vec<(ChildKey, ChildTotals)> {
        let mut totals = self.ended.clone();
        for sa in self.living.values() {
            add(&mut totals, sa, 1);
        }
        totals.into_iter().collect()
    }
}

fn add(totals: &mut BTreeMap<ChildKey, ChildTotals>, sa: &SaRow, living: u64) {
    let mut key = ChildKey { dvipa: Some(sa.dvipa), name: sa.name.clone(), direction: sa.direction.clone() };
    if !totals.contains_key(&key) && totals.len() >= CHILDREN_MAX {
        key = ChildKey { dvipa: None, name: "other".into(), direction: key.direction };
    }
    let total = totals.entry(key).or_default();
    total.sas += living;
    total.packets = total.packets.saturating_add(sa.packets);
    total.bytes = total.bytes.saturating_add(sa.bytes);
    total.replay_drops = total.replay_drops.saturating_add(sa.replay_drops);
}

#[cfg(test)]
mod tests {
    use super::super::protocol::tests::sa;
    use super::*;

    fn sum(ledger: &SaLedger, name: &str) -> ChildTotals {
        let of = |(key, totals): (ChildKey, ChildTotals)| (key.name == name).then_some(totals);
        ledger.totals().into_iter().find_map(of).unwrap()
    }

    #[test]
    fn totals_never_shrink_when_an_sa_ends() {
        let mut ledger = SaLedger::default();
        ledger.observe(&[SaRow { id: 1, packets: 10, bytes: 1_000, ..sa() }]);
        // Rekeyed: the second takes over, the first is there for a moment.
        ledger.observe(&[
            SaRow { id: 1, packets: 12, bytes: 1_200, ..sa() },
            SaRow { id: 2, packets: 1, bytes: 9, ..sa() },
        ]);
        assert_eq!(sum(&ledger, "web"), ChildTotals { sas: 2, packets: 13, bytes: 1_209, replay_drops: 0 });
        ledger.ended(SaRow { id: 1, packets: 15, bytes: 1_500, replay_drops: 2, ..sa() });
        ledger.observe(&[SaRow { id: 2, packets: 3, bytes: 30, ..sa() }]);
        assert_eq!(sum(&ledger, "web"), ChildTotals { sas: 1, packets: 18, bytes: 1_530, replay_drops: 2 });
        ledger.observe(&[]);
        assert_eq!(sum(&ledger, "web"), ChildTotals { sas: 0, packets: 18, bytes: 1_530, replay_drops: 2 });
    }

    #[test]
    fn a_million_rekeys_leave_one_sum() {
        let mut ledger = SaLedger::default();
        for id in 0..10_000 {
            ledger.observe(&[SaRow { id, packets: 1, bytes: 1, ..sa() }]);
        }
        assert_eq!(ledger.totals().len(), 1);
        assert_eq!(sum(&ledger, "web").packets, 10_000);
        assert_eq!(ledger.living.len(), 1);
    }

    #[test]
    fn the_number_of_sums_is_bounded() {
        let mut ledger = SaLedger::default();
        let living: Vec<SaRow> =
            (0..5_000).map(|id| SaRow { id, name: format!("child-{id:05}"), packets: 1, ..sa() }).collect();
        ledger.observe(&living);
        assert_eq!(ledger.totals().len(), CHILDREN_MAX + 1);
        assert_eq!(sum(&ledger, "other").packets, 4_000);
        ledger.observe(&[]);
        assert_eq!(ledger.totals().len(), CHILDREN_MAX + 1);
        assert_eq!(ledger.totals().iter().map(|(_, total)| total.packets).sum::<u64>(), 5_000);
    }
}
