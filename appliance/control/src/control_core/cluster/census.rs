//! How many connections a target is routed: counted over all cores while it drains, since it may go only when it has none
//! left.

use core::time::Duration;
use std::collections::BTreeMap;

use cluster::id::MemberId;
use cluster::member::{TargetView, Told};
use datapath::buffer::PacketBuffer;
use ipsec::time::Instant;

use super::ClusterCore;
use crate::control_core::{ControlCore, Listing};

/// How often they are counted.
const INTERVAL: Duration = Duration::from_secs(1);

/// The count that is under way, and when the next is due.
#[derive(Debug, Default)]
pub(super) struct Census {
    due: Instant,
    is_under_way: bool,
    /// Whether something that it must not be older than happened since it began.
    is_outdated: bool,
}

impl Census {
    /// What is counted from now on is told; what is being counted is not.
    pub(super) fn outdate(&mut self) {
        self.is_outdated = self.is_under_way;
    }
}

impl<B: PacketBuffer> ControlCore<B> {
    /// Counts, if it is time and anybody needs to know.
    pub(super) fn take_census(&mut self, now: Instant, cluster: &mut ClusterCore) {
        if cluster.census.is_under_way {
            // An operator's question may have taken the list; then the next one is waited for.
            cluster.census.is_under_way = self.listing.is_some();
            if let Some(listing) = self.take_listing() {
                cluster.census.is_under_way = false;
                if core::mem::take(&mut cluster.census.is_outdated) {
                    cluster.census.due = now;
                } else {
                    tell_counts(now, cluster, &listing);
                }
            }
        } else if now >= cluster.census.due && self.listing.is_none() && is_needed(cluster) {
            cluster.census = Census { due: now + INTERVAL, is_under_way: true, is_outdated: false };
            self.start_listing();
        }
    }
}

fn is_needed(cluster: &ClusterCore) -> bool {
    cluster.sharing.iter().any(|sharing| {
        let drains = |target: &TargetView| target.is_draining;
        cluster.member.targets(sharing.dvipa).iter().any(drains)
    })
}

fn tell_counts(now: Instant, cluster: &mut ClusterCore, listing: &Listing) {
    for at in 0..cluster.sharing.len() {
        let dvipa = cluster.sharing[at].dvipa;
        let targets = cluster.member.targets(dvipa);
        let mut counts: BTreeMap<MemberId, u64> = targets.iter().map(|target| (target.member, 0)).collect();
        // What goes to hosts behind an address counts for each: a target must not leave while it has any.
        let is_others = |dst| cluster.sharing.iter().any(|other| other.dvipa == dst && other.dvipa != dvipa);
        for (_, (_, route)) in listing.entries().iter().filter(|(_, (key, _))| !is_others(key.flow.dst)) {
            counts.entry(route.target).and_modify(|count| *count += 1);
        }
        for (target, count) in counts {
            cluster.member.handle_told(now, Told::Connections { dvipa, target, count });
        }
    }
}
