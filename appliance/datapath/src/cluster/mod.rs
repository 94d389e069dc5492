//! The packet path of an appliance that is part of a cluster (DESIGN §3 and §4).
//!
//! **Purpose.** A packet of a clustered DVIPA comes to its owner, who finds out whose connection it is and relays it to
//! the target that has it; the target does the IPsec work and delivers. [`distribute`] is the owner's way, [`trusted`] and
//! [`carried`] are the target's, [`relay`] is the step between them. An owner that is a target too goes the same way
//! without the wire.
//!
//! **Promises.** A peek steers a packet to the target of a connection that stands, and does nothing else: whatever makes
//! an entry, moves a window or resets a connection was authenticated in full. What comes in by the trusted port never
//! leaves by it, but for what a target asks its owner. Without a [`Fabric`] an appliance does what it does alone.
//!
//! **What it never does.** It decides neither who owns what, nor who is lost, nor when an entry may be forgotten.
//!
//! ## Fragments
//!
//! Later fragments show no ports, and yet must follow their connection, while every copy of a packet must meet the one
//! window that saw the original. So on every appliance the *fragment core*, which the addresses and the protocol alone name,
//! authenticates all fragments of a datagram, and remembers of first fragments which ports they showed. With that it
//! hands each fragment to the core of the connection, which routes or delivers it like any other packet. Errors of ICMP go
//! the same way: they follow the connection that they quote.

mod carried;
mod check;
mod choose;
mod commands;
mod deliver;
mod distribute;
mod fragments;
pub(crate) mod numbers;
mod plain;
mod relay;
pub mod reports;
mod reset;
mod tally;
mod trusted;

use crate::buffer::PortQueue;
use crate::core::DataCore;
use crate::drops::DropReason;
use cluster::dpt::{Chooser, Tables};
use cluster::fabric::{Fabric, FabricDvipa, FabricTarget};
use cluster::frame::Refused;
use cluster::id::Epoch;
use cluster::protection::Guard;
use cluster::vcrt::{Route, Swept, Vcrt, VerifyAfter};
use core::net::IpAddr;
use core::time::Duration;
use fragments::Fragments;
use ipsec::time::Instant;
use reports::Report;
use std::sync::Arc;
use tally::Tally;
use wire::Fragment;
use wire::flow::{FlowKey, FlowSeed, Inner};

/// How many routed connections are looked at in one poll, to ask their targets for them.
const SWEEP_PER_POLL: usize = 16;

/// How long the entry of a lost connection waits for a packet of it.
const LOST_ENTRY_KEPT: Duration = Duration::from_secs(300);

/// What one core of a member takes at its start.
#[derive(Debug, Clone, Copy)]
pub struct ClusterCapacity {
    /// IPv4 connections that this core can route, as the owner.
    pub entries_v4: usize,
    /// IPv6 connections that this core can route, as the owner.
    pub entries_v6: usize,
    /// Sources whose target this core remembers, as the owner.
    pub affinities: usize,
    /// Datagrams in fragments that this core can follow at once.
    pub fragments: usize,
    /// The longest packet that is authenticated and relayed unchanged, in bytes.
    pub packet_len: usize,
}

impl Default for ClusterCapacity {
    fn default() -> Self {
        ClusterCapacity { entries_v4: 65_536, entries_v6: 0, affinities: 4_096, fragments: 256, packet_len: 9_216 }
    }
}

/// One core's part in a cluster.
#[derive(Debug)]
pub(crate) struct Part {
    /// The cluster as the control core last said; nothing before the first time.
    pub fabric: Option<Arc<Fabric>>,
    /// What may be chosen for new connections.
    pub dpt: Option<Arc<Tables>>,
    /// What this core remembers while it chooses.
    pub chooser: Chooser,
    /// As the owner: which target has which connection.
    pub vcrt: Vcrt,
    /// Which ports the first fragments showed.
    pub fragments: Fragments,
    /// Where a copy of a packet is authenticated that goes on as it came.
    pub scratch: Box<[u8]>,
    /// As a target: how many connections each service has here.
    pub tally: Tally,
    /// What protects the frames between members, where that is asked for.
    pub guard: Guard,
    /// When the cluster was as `fabric` says. Entries that come of it are no older, though this core may have read the time
    /// before the control core did: an entry that came after a seal must never look older than that.
    pub fabric_at: Instant,
    /// The DVIPAs that this appliance owns, in which epoch, and since when this core knows.
    owned: Vec<(IpAddr, Epoch, Instant)>,
}

impl Part {
    /// That of core `core` among `cores`.
    pub fn new(capacity: ClusterCapacity, seed: FlowSeed, (core, cores): (usize, usize)) -> Part {
        let ClusterCapacity { entries_v4, entries_v6, affinities, fragments, packet_len } = capacity;
        Part {
            fabric: None,
            dpt: None,
            chooser: Chooser::new(affinities, seed),
            vcrt: Vcrt::new(entries_v4, entries_v6),
            fragments: Fragments::new(fragments),
            scratch: vec![0; packet_len].into_boxed_slice(),
            tally: Tally::new(),
            guard: Guard::new(core, cores),
            fabric_at: Instant::ZERO,
            owned: Vec::new(),
        }
    }

    /// Takes a new view of the cluster, made at `at`; the former one.
    fn follow(&mut self, fabric: Arc<Fabric>, at: Instant, now: Instant) -> Option<Arc<Fabric>> {
        let known = |owned: &[(IpAddr, Epoch, Instant)], dvipa: &FabricDvipa| {
            let same = owned.iter().find(|(address, epoch, _)| (*address, *epoch) == (dvipa.address, dvipa.epoch));
            same.map_or(now, |(_, _, since)| *since)
        };
        let owns = fabric.dvipas.iter().filter(|dvipa| fabric.owns(dvipa));
        let owned = owns.map(|dvipa| (dvipa.address, dvipa.epoch, known(&self.owned, dvipa))).collect();
        (self.owned, self.fabric_at) = (owned, self.fabric_at.max(at));
        self.fabric.replace(fabric)
    }

    /// Since when an address is owned without a break; entries that are older mean nothing.
    fn owned_since(&self, address: IpAddr) -> Instant {
        let owned = self.owned.iter().find(|(owned, _, _)| *owned == address);
        owned.map_or(Instant::from_nanos(u64::MAX), |(_, _, since)| *since)
    }
}

impl<Q: PortQueue> DataCore<Q> {
    /// The cluster, once this appliance is in one.
    #[inline]
    pub(crate) fn fabric(&self) -> Option<&Arc<Fabric>> {
        self.part.as_ref()?.fabric.as_ref()
    }

    /// The part that this appliance has in a DVIPA, if any.
    #[inline]
    pub(crate) fn clustered(&self, address: IpAddr) -> Option<(&Arc<Fabric>, &FabricDvipa)> {
        let fabric = self.fabric()?;
        Some((fabric, fabric.dvipa(address)?))
    }

    /// Tells of routed connections whose target should be asked for them.
    pub(crate) fn tend_entries(&mut self, now: Instant) {
        let Some(part) = &mut self.part else { return };
        if part.vcrt.is_empty() {
            return;
        }
        let Some(fabric) = &part.fabric else { return };
        let (seed, mailbox) = (&self.seed, &mut self.mailbox);
        part.vcrt.sweep(
            SWEEP_PER_POLL,
            now,
            VerifyAfter::default(),
            |key| key.flow.symmetric_hash(seed),
            |key, route| {
                if !holds(fabric, route) {
                    // It is lost. Whoever still speaks on it is answered for a while, and begins anew after that.
                    let is_over = now.saturating_since(route.created) > LOST_ENTRY_KEPT;
                    return if is_over { Swept::Forget } else { Swept::Keep };
                }
                let (target, incarnation) = (route.target, route.incarnation);
                // What finds no room is told when it is due again.
                mailbox.report(Report::Unverified { entry: *key, target, incarnation });
                Swept::Keep
            },
        );
    }
}

/// Whether the target of an entry may have its connection still.
fn holds(fabric: &Fabric, route: &Route) -> bool {
    let mut owned = fabric.dvipas.iter().filter(|dvipa| fabric.owns(dvipa));
    let is_it = |target: &FabricTarget| (target.member, target.incarnation) == (route.target, route.incarnation);
    owned.any(|dvipa| dvipa.targets.iter().any(is_it))
}

/// The flow that names the core on which a packet is authenticated: without its ports for a fragment, which may not show
/// them.
pub(crate) fn steering_flow(inner: &Inner) -> FlowKey {
    match inner.fragment {
        Fragment::Whole => inner.flow,
        Fragment::First | Fragment::Later => FlowKey { src_port: 0, dst_port: 0, ..inner.flow },
    }
}

/// What a frame is refused for, in the words of this appliance's drops.
pub(crate) const fn reason_of(refused: Refused) -> DropReason {
    match refused {
        Refused::NotAMember | Refused::NotForUs | Refused::FromOurselves => DropReason::TrustedStranger,
        Refused::UnknownDvipa => DropReason::FrameUnknownDvipa,
        Refused::StaleEpoch => DropReason::FrameStaleEpoch,
        Refused::FutureEpoch => DropReason::FrameFutureEpoch,
        Refused::NotFromOwner | Refused::NotATarget | Refused::NotTheOwner | Refused::NotFromTarget => {
            DropReason::FrameWrongRole
        }
        Refused::WrongIncarnation => DropReason::FrameOtherIncarnation,
        Refused::StaleSerial => DropReason::FrameStaleSerial,
        Refused::ForAMember => DropReason::FrameNested,
    }
}
