//! The authenticated IKE SAs of an endpoint: by our SPI, by deadline, by identity.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::sa::PeerId;
use ipsec::time::Instant;

use crate::config::Identity;
use crate::message::IkeSpi;
use crate::sa::{IkeSa, Lineage, Standing};

/// Every IKE SA is put back after it was taken out to be worked on, which is when its indices are brought up to date.
#[derive(Default)]
pub(crate) struct SaTable {
    by_spi: BTreeMap<IkeSpi, Slot>,
    by_deadline: BTreeSet<(Instant, IkeSpi)>,
    by_identity: BTreeMap<Identity, BTreeSet<IkeSpi>>,
}

struct Slot {
    sa: Box<IkeSa>,
    deadline: Option<Instant>,
}

impl SaTable {
    pub(crate) fn len(&self) -> usize {
        self.by_spi.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IkeSa> {
        self.by_spi.values().map(|slot| &*slot.sa)
    }

    pub(crate) fn spis(&self) -> Vec<IkeSpi> {
        self.by_spi.keys().copied().collect()
    }

    /// Our SPIs of the IKE SAs of this address of ours.
    pub(crate) fn at_address(&self, local: IpAddr) -> Vec<IkeSpi> {
        self.iter().filter(|sa| sa.path.local.ip() == local).map(IkeSa::local_spi).collect()
    }

    pub(crate) fn put(&mut self, sa: Box<IkeSa>) {
        let spi = sa.local_spi();
        let deadline = sa.next_timeout();
        if let Some(deadline) = deadline {
            self.by_deadline.insert((deadline, spi));
        }
        self.by_identity.entry(sa.lineage.remote_id.clone()).or_default().insert(spi);
        self.by_spi.insert(spi, Slot { sa, deadline });
    }

    pub(crate) fn take(&mut self, spi: IkeSpi) -> Option<Box<IkeSa>> {
        let Slot { sa, deadline } = self.by_spi.remove(&spi)?;
        if let Some(deadline) = deadline {
            self.by_deadline.remove(&(deadline, spi));
        }
        if let Some(of_identity) = self.by_identity.get_mut(&sa.lineage.remote_id) {
            of_identity.remove(&spi);
            if of_identity.is_empty() {
                self.by_identity.remove(&sa.lineage.remote_id);
            }
        }
        Some(sa)
    }

    /// Our SPIs of the IKE SAs between these two identities.
    pub(crate) fn between(&self, local: &Identity, remote: &Identity) -> Vec<IkeSpi> {
        let of_identity = self.by_identity.get(remote).into_iter().flatten();
        of_identity
            .filter(|spi| self.by_spi.get(spi).is_some_and(|slot| slot.sa.is_between(local, remote)))
            .copied()
            .collect()
    }

    /// Our SPIs of the IKE SAs between these two identities in one connection, by lineage: the oldest first, since
    /// peers are numbered as they come.
    pub(crate) fn lineages(&self, local: &Identity, remote: &Identity, connection: &str) -> Vec<Vec<IkeSpi>> {
        let mut lineages: BTreeMap<PeerId, Vec<IkeSpi>> = BTreeMap::new();
        for spi in self.between(local, remote) {
            let lineage = self.by_spi.get(&spi).map(|slot| &slot.sa.lineage);
            if let Some(lineage) = lineage.filter(|lineage| *lineage.connection.name == *connection) {
                lineages.entry(lineage.peer).or_default().push(spi);
            }
        }
        lineages.into_values().collect()
    }

    /// Our SPIs of the IKE SAs that this lineage has left behind, the oldest first.
    pub(crate) fn retired_of(&self, lineage: &Lineage) -> Vec<IkeSpi> {
        let of_identity = self.by_identity.get(&lineage.remote_id).into_iter().flatten();
        let sas = of_identity.filter_map(|spi| self.by_spi.get(spi).map(|slot| &slot.sa));
        let mut retired: Vec<_> = sas.filter(|sa| sa.lineage.peer == lineage.peer && sa.is_retired()).collect();
        retired.sort_by_key(|sa| (sa.expires_at(), sa.born));
        retired.into_iter().map(|sa| sa.local_spi()).collect()
    }

    /// Our SPI of the IKE SA that this lineage uses.
    pub(crate) fn current_of(&self, lineage: &Lineage) -> Option<IkeSpi> {
        let of_identity = self.by_identity.get(&lineage.remote_id)?;
        let is_current = |sa: &IkeSa| sa.lineage.peer == lineage.peer && sa.standing == Standing::Current;
        of_identity.iter().find(|spi| self.by_spi.get(spi).is_some_and(|slot| is_current(&slot.sa))).copied()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Those whose deadlines have come.
    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = &IkeSa> {
        let due = self.by_deadline.iter().take_while(move |(deadline, _)| *deadline <= now);
        due.filter_map(|(_, spi)| self.by_spi.get(spi).map(|slot| &*slot.sa))
    }

    /// One whose deadline has come.
    pub(crate) fn next_due(&self, now: Instant) -> Option<IkeSpi> {
        self.by_deadline.first().filter(|(deadline, _)| *deadline <= now).map(|(_, spi)| *spi)
    }
}
