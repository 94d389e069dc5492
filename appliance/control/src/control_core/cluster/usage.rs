//! What SAs have carried here, told to the member as it changes.

use core::time::Duration;
use std::collections::HashMap;

use cluster::id::ChildId;
use cluster::member::{SaUse, Told};
use datapath::buffer::PacketBuffer;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::ClusterCore;
use crate::control_core::ControlCore;
use crate::control_core::registry::Registered;

/// How often the counters are looked at: grants are asked for at half use, so this bounds how fast an SA can be.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often the member is told how busy the data cores are.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// What the member has been told.
#[derive(Debug, Default)]
pub(super) struct Usage {
    due: Option<Instant>,
    told: HashMap<ChildId, SaUse>,
    load_due: Instant,
    polls: (u64, u64),
}

impl Usage {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// An SA is gone.
    pub(super) fn forget(&mut self, child: ChildId) {
        self.told.remove(&child);
    }

    /// What is new of an SA; its age alone is no news.
    fn news(&mut self, now: SaUse) -> Option<SaUse> {
        let known = self.told.insert(now.child, now);
        let differs = known.is_none_or(|known| SaUse { heard_ago: known.heard_ago, ..now } != known);
        differs.then_some(now)
    }
}

impl<B: PacketBuffer> ControlCore<B> {
    /// Tells what SAs have carried and how busy the cores are, if it is time.
    pub(super) fn tell_use(&mut self, now: Instant, cluster: &mut ClusterCore) -> bool {
        let usage = &mut cluster.usage;
        if usage.due.is_some_and(|due| now < due) {
            return false;
        }
        usage.due = Some(now + INTERVAL);
        let uses: Vec<SaUse> =
            self.registry.iter().filter_map(|sa| use_of(sa, now)).filter_map(|sa| usage.news(sa)).collect();
        if now >= usage.load_due {
            usage.load_due = now + LOAD_INTERVAL;
            let polls = self.cores.iter().map(|core| (core.polls.busy.get(), core.polls.idle.get()));
            let (busy, idle) = polls.fold((0, 0), |sum, polls| (sum.0 + polls.0, sum.1 + polls.1));
            let (more_busy, more_idle) = (busy - usage.polls.0, idle - usage.polls.1);
            usage.polls = (busy, idle);
            let load = more_busy * 1_000 / (more_busy + more_idle).max(1);
            cluster.member.handle_told(now, Told::Load(load as u16));
        }
        if uses.is_empty() {
            return false;
        }
        cluster.member.handle_told(now, Told::Use(uses));
        true
    }

    /// What every SA of these peers has carried, changed or not: what was stopped is to be told with its tops.
    pub(super) fn uses_of(&self, now: Instant, peers: &[PeerId]) -> Vec<SaUse> {
        self.uses_where(now, |sa| sa.peer().is_some_and(|peer| peers.contains(&peer)))
    }

    /// What such SAs have carried, changed or not.
    pub(super) fn uses_where(&self, now: Instant, is_meant: impl Fn(&Registered) -> bool) -> Vec<SaUse> {
        self.registry.iter().filter(|sa| is_meant(sa)).filter_map(|sa| use_of(sa, now)).collect()
    }
}

fn use_of(sa: &Registered, now: Instant) -> Option<SaUse> {
    let inbound = sa.inbound.as_ref()?;
    let heard = inbound.totals.iter().map(|totals| totals.heard.get()).max().unwrap_or(0);
    let outbound = sa.outbound.as_ref();
    Some(SaUse {
        child: sa.child()?,
        inbound: (inbound.bytes(), inbound.packets()),
        outbound: outbound.map_or((0, 0), |half| (half.bytes(), half.packets())),
        top: inbound.totals.iter().map(|totals| totals.top.get()).max().unwrap_or(0),
        next_outbound: outbound.map_or(0, |half| half.totals.iter().map(|totals| totals.top.get()).max().unwrap_or(0)),
        heard_ago: (heard > 0).then(|| now.saturating_since(Instant::from_nanos(heard))),
    })
}
