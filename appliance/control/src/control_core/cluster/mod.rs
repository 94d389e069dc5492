//! The appliance as one of several: carries out what its [`Member`] decides, and tells it what happens here.
//!
//! ```text
//! data cores ─ events, reports, counters ─┐                    ┌─ fabric, SAs, floors, ceilings ─► data cores
//! IKE ─ SAs that come and go ─────────────┼─► Told   Action ───┼─ rekey, delete, siblings ──────► IKE
//! probes, load, operators ────────────────┘    │        ▲      └─ own, disown ──────────────────► IP stack
//!                                              ▼        │
//!                            XCF (mesh, stack) ◄► Member ◄► coupling facility
//! ```
//!
//! **Promises.** What a member is told of the data cores is true of all of them: an SA is said to stand, and an entry to
//! be forgotten, when every core has executed the command.
//!
//! **What it never does.** It decides nothing: who owns, who serves, what is granted is [`cluster`]'s.

mod actions;
mod active;
mod beats;
mod births;
mod census;
mod links;
mod prober;
mod reports;
mod tables;
mod usage;
mod views;
mod waits;

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::dpt::{Method, Tables};
use cluster::fabric::{Fabric, Processing};
use cluster::id::{ChildId, MemberId};
use cluster::member::{Member, SequencePolicy, ServicePort, Settings, Told};
use datapath::buffer::PacketBuffer;
use datapath::mailbox::Command;
use ipsec::time::Instant;

use super::ControlCore;
use active::Active;
use beats::Beats;
use census::Census;
pub use links::{Exchange, LinkParts};
pub use prober::ProbedService;
use prober::Prober;
use usage::Usage;
use waits::{Then, Waits};

/// What makes a control core one of several.
pub struct ClusterParts {
    /// The cluster's name.
    pub name: Arc<str>,
    /// This appliance's part.
    pub member: Member,
    /// XCF.
    pub links: LinkParts,
    /// What the coupling facility is: `etcd` or `embedded`.
    pub facility: &'static str,
    /// What the member was told at its start.
    pub settings: Settings,
    /// How the connections of each DVIPA are shared out.
    pub sharing: Vec<Sharing>,
    /// What is probed, to know which services are ready here.
    pub probes: Vec<ProbedService>,
}

/// How a DVIPA's connections are shared out, as the operator wishes.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Of which address.
    pub dvipa: IpAddr,
    /// The ports that it offers; empty means every port.
    pub services: Vec<ServicePort>,
    /// Where its IPsec work is done.
    pub processing: Processing,
    /// How its outbound numbers are shared.
    pub outbound_sequence: SequencePolicy,
    /// By which rule.
    pub method: Method,
    /// How long a source keeps its target.
    pub affinity: Option<Duration>,
    /// The owner itself before all others.
    pub is_local_first: bool,
    /// Its targets and their weights, in configured order.
    pub targets: Vec<(MemberId, NonZeroU16)>,
}

/// The cluster's half of a control core.
pub(super) struct ClusterCore {
    name: Arc<str>,
    pub(super) member: Member,
    exchange: Exchange,
    facility: &'static str,
    prober: Prober,
    usage: Usage,
    waits: Waits,
    beats: Beats,
    census: Census,
    active: Active,
    /// CHILD_SAs of which IKE may not speak yet.
    unreleased: BTreeSet<ChildId>,
    fabric: Option<Arc<Fabric>>,
    settings: Settings,
    sharing: Vec<Sharing>,
    tables: Option<Arc<Tables>>,
}

impl ClusterCore {
    pub(super) fn new(parts: ClusterParts) -> ClusterCore {
        ClusterCore {
            name: parts.name,
            member: parts.member,
            exchange: Exchange::new(parts.links, &parts.settings),
            facility: parts.facility,
            prober: Prober::new(parts.probes),
            usage: Usage::default(),
            waits: Waits::default(),
            beats: Beats::default(),
            census: Census::default(),
            active: Active::default(),
            unreleased: BTreeSet::new(),
            fabric: None,
            settings: parts.settings,
            sharing: parts.sharing,
            tables: None,
        }
    }

    /// Whether IKE must not speak of this CHILD_SA yet.
    pub(super) fn holds_back(&self, child: ChildId) -> bool {
        self.unreleased.contains(&child)
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let timeouts = [self.exchange.poll_timeout(), self.prober.poll_timeout(), self.usage.due()];
        timeouts.into_iter().flatten().fold(self.member.poll_timeout().min(self.beats.due()), Instant::min)
    }
}

impl<B: PacketBuffer> ControlCore<B> {
    /// One turn of the cluster's half; whether there was anything to do.
    pub(super) fn run_cluster(&mut self, now: Instant) -> bool {
        let Some(mut cluster) = self.cluster.take() else { return false };
        let mut busy = cluster.exchange.run(now, &mut cluster.member, &mut self.stack);
        // Before the cores hear of anything that the member makes of the session.
        while let Some(keys) = cluster.exchange.poll_frame_keys() {
            let engine = self.registry.engine();
            self.cores.tell_all(|| Command::FrameKeys { keys: Box::new(keys.for_another_core()), engine });
        }
        self.beat(now, &mut cluster);
        self.take_census(now, &mut cluster);
        self.tell_active(now, &mut cluster);
        busy |= cluster.prober.run(now, &mut cluster.member, &mut self.stack);
        busy |= self.tell_use(now, &mut cluster);
        while let Some(then) = cluster.waits.next(&self.cores) {
            busy = true;
            self.tell_done(now, then, &mut cluster);
        }
        if cluster.member.poll_timeout() <= now {
            busy = true;
            cluster.member.handle_timeout(now);
        }
        while let Some(action) = cluster.member.poll_action() {
            busy = true;
            self.act(now, action, &mut cluster);
        }
        while let Some(notice) = cluster.member.poll_notice() {
            tracing::info!("{notice}");
        }
        cluster.waits.bind(&self.cores);
        cluster.exchange.send(now, &mut cluster.member, &mut self.stack);
        self.cluster = Some(cluster);
        busy
    }

    /// Every core has done what was waited for.
    fn tell_done(&mut self, now: Instant, then: Then, cluster: &mut ClusterCore) {
        match then {
            Then::Installed(child) => cluster.member.handle_told(now, Told::Installed(child)),
            Then::Heard { ticket, tops_of } => {
                if let Some(dvipa) = tops_of {
                    let uses = self.uses_where(now, |sa| sa.child().is_some_and(|child| child.dvipa == dvipa));
                    cluster.member.handle_told(now, Told::Use(uses));
                }
                cluster.census.outdate();
                cluster.member.handle_told(now, Told::Heard { ticket });
            }
        }
    }

    /// Tells the member, if this appliance is one of several.
    pub(super) fn tell_member(&mut self, now: Instant, told: Told) {
        if let Some(cluster) = &mut self.cluster {
            cluster.member.handle_told(now, told);
        }
    }

    /// This appliance's part in the cluster, to read; `None` if it is on its own.
    #[must_use]
    pub fn member(&self) -> Option<&Member> {
        self.cluster.as_ref().map(|cluster| &cluster.member)
    }

    /// Drains a target, or gives it connections again.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn drain(&mut self, now: Instant, target: &str, on: bool) -> Result<(), String> {
        let Some(cluster) = &mut self.cluster else {
            return Err(
                "this appliance is on its own: its configuration names no cluster, so there is no target to drain"
                    .into(),
            );
        };
        let members = &cluster.settings.members;
        let Some(found) = members.iter().find(|member| *member.name == *target) else {
            let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
            return Err(format!("found target {target:?}; members are {}", names.join(", ")));
        };
        let target = found.id;
        cluster.member.handle_told(now, Told::Drain { target, on });
        Ok(())
    }
}
