//! What operators see of the cluster on this member.

use std::collections::HashMap;

use cluster::id::{ChildId, MemberId};
use cluster::member::{
    DvipaView, LifesizeView, MemberView, NumberSource, ServicePort, ShadowView, Standing, TargetView,
};
use ipsec::time::Instant;

use super::{ClusterCore, Sharing};
use crate::control_core::ControlCore;
use crate::control_core::registry::Registered;
use crate::report::{ClusterRow, DvipaRow, LifesizeRow, MemberRow, ShadowRow, Snapshot, TargetRow};
use crate::stack::Reach;

/// The name under which an appliance outside a cluster is its own target.
const SELF: &str = "self";

/// The most SAs of one DVIPA that are shown.
const SHOWN_MAX: usize = 100_000;

impl<B> ControlCore<B> {
    /// Fills in what only a member of a cluster has to show.
    pub(in crate::control_core) fn show_cluster(&self, now: Instant, snapshot: &mut Snapshot) {
        let Some(cluster) = &self.cluster else { return };
        snapshot.dvipas = cluster.sharing.iter().map(|sharing| cluster.dvipa_row(sharing)).collect();
        let owned = cluster.sharing.iter().map(|sharing| sharing.dvipa);
        snapshot.targets = cluster.sharing.iter().flat_map(|sharing| cluster.target_rows(sharing)).collect();
        let views = cluster.sharing.iter().flat_map(|sharing| cluster.member.shadows(sharing.dvipa, None, SHOWN_MAX));
        let views: HashMap<ChildId, ShadowView> = views.map(|view| (view.child, view)).collect();
        snapshot.shadows = self.registry.iter().filter_map(|sa| cluster.shadow_row(sa, &views)).collect();
        let lifesizes = owned.flat_map(|dvipa| cluster.member.lifesize(dvipa, None, SHOWN_MAX));
        snapshot.lifesizes = lifesizes.flat_map(|view| self.lifesize_rows(&view)).collect();
        snapshot.cluster = cluster.row(now, self.stack.reach());
    }

    fn lifesize_rows(&self, view: &LifesizeView) -> [LifesizeRow; 2] {
        let limits = self.registry.shared(view.child).and_then(|sa| sa.inbound.as_ref());
        let limits = limits.map(|half| half.shared.parameters().lifetime.bytes);
        [("in", view.inbound), ("out", view.outbound)].map(|(direction, ledger)| LifesizeRow {
            dvipa: view.child.dvipa,
            spi_in: view.child.spi.to_string(),
            direction: direction.to_owned(),
            used_bytes: ledger.used.bytes,
            granted_bytes: ledger.granted.bytes,
            charged_bytes: ledger.charged.bytes,
            soft_limit_bytes: limits.and_then(|limits| limits.soft),
            hard_limit_bytes: limits.and_then(|limits| limits.hard),
            overrun_bound_bytes: ledger.overrun_bound.bytes,
            report_permille: u32::from(view.percentage.hundredths()) / 10,
            reports: ledger.reports,
        })
    }

    /// What operators call this appliance.
    pub(in crate::control_core) fn own_name(&self) -> String {
        self.cluster.as_ref().map_or_else(|| SELF.to_owned(), |cluster| cluster.name_of(cluster.settings.me))
    }

    /// Whether this appliance is that member.
    pub(in crate::control_core) fn is_me(&self, member: MemberId) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.settings.me == member)
    }

    /// What operators call a member.
    pub(in crate::control_core) fn member_name(&self, member: MemberId) -> String {
        self.cluster.as_ref().map_or_else(|| format!("member {member}"), |cluster| cluster.name_of(member))
    }
}

impl ClusterCore {
    fn name_of(&self, member: MemberId) -> String {
        let known = self.settings.members.iter().find(|known| known.id == member);
        known.map_or_else(|| format!("member {member}"), |known| known.name.to_string())
    }

    fn view(&self, sharing: &Sharing) -> Option<DvipaView> {
        self.member.dvipas().into_iter().find(|view| view.address == sharing.dvipa)
    }

    fn dvipa_row(&self, sharing: &Sharing) -> DvipaRow {
        let view = self.view(sharing);
        let is_target = sharing.targets.iter().any(|(member, _)| *member == self.settings.me);
        let is_mine = view.as_ref().is_some_and(|view| view.is_mine);
        let role = match (is_mine, is_target) {
            (true, true) => "owner+target",
            (true, false) => "owner",
            (false, true) => "target",
            (false, false) => "none",
        };
        let owner = view.as_ref().and_then(|view| view.owner);
        DvipaRow {
            address: sharing.dvipa,
            owner: owner.map_or_else(String::new, |owner| self.name_of(owner)),
            epoch: view.as_ref().map_or(0, |view| view.epoch.0),
            role: role.to_owned(),
            processing: sharing.processing.name().to_owned(),
            outbound_sequence: sharing.outbound_sequence.name().to_owned(),
            distribution: sharing.method.to_string(),
            services: sharing.services.iter().map(word).collect(),
            sas: view.as_ref().map_or(0, |view| if view.is_mine { view.sas } else { view.shadows.0 }) as u64,
            lifesize_reports: view.as_ref().map_or(0, |view| view.lifesize_reports),
            refreshes: view.as_ref().map_or(0, |view| view.refreshes),
            settling: view.is_some_and(|view| !view.awaited.is_empty()),
        }
    }

    fn target_rows(&self, sharing: &Sharing) -> Vec<TargetRow> {
        let row = |view: TargetView| {
            let weight = sharing.targets.iter().find(|(member, _)| *member == view.member);
            TargetRow {
                dvipa: sharing.dvipa,
                name: self.name_of(view.member),
                state: state_of(&view).to_owned(),
                incarnation: view.incarnation.0,
                serial: view.serials.0.0,
                weight: weight.map_or(0, |(_, weight)| weight.get()),
                connections: view.active.iter().map(|port| u64::from(port.connections)).sum(),
                load: view.load_permille,
                services_ready: view.ready.iter().flatten().map(word).collect(),
                shadows_acknowledged: view.changes.2,
                shadows_told: view.changes.0,
            }
        };
        self.member.targets(sharing.dvipa).into_iter().map(row).collect()
    }

    /// `views` are those of the SAs that this member owns.
    fn shadow_row(&self, sa: &Registered, views: &HashMap<ChildId, ShadowView>) -> Option<ShadowRow> {
        let child = sa.child()?;
        let view = views.get(&child);
        let (inbound, outbound) = (&sa.inbound.as_ref()?.shared, &sa.outbound.as_ref()?.shared);
        let parameters = inbound.parameters();
        let is_mine = self.fabric.as_ref().and_then(|fabric| fabric.dvipa(child.dvipa)).map(|dvipa| dvipa.owner);
        let mark = outbound.mark();
        Some(ShadowRow {
            dvipa: child.dvipa,
            spi_in: child.spi.to_string(),
            spi_out: outbound.parameters().spi.to_string(),
            name: parameters.name.to_string(),
            peer: parameters.peer_name.to_string(),
            epoch: parameters.epoch,
            shadow: is_mine != Some(self.settings.me),
            processing: sa.processing().name().to_owned(),
            floor: inbound.floor(),
            sealed: inbound.is_sealed(),
            numbers: numbers_word(sa.numbers()).to_owned(),
            mark: (mark != u64::MAX).then_some(mark),
            fallback: view.and_then(|view| view.fallback).map_or_else(String::new, |why| why.name().to_owned()),
            held_by: view.iter().flat_map(|view| &view.held_by).map(|&member| self.name_of(member)).collect(),
            sender: view.and_then(|view| view.sender).map_or_else(String::new, |member| self.name_of(member)),
        })
    }

    fn row(&self, now: Instant, own_reach: Reach) -> ClusterRow {
        let reach = |view: &MemberView| {
            if view.is_me { Some(own_reach) } else { self.beats.of(view.id).map(|beat| beat.reach) }
        };
        let member = |view: MemberView| MemberRow {
            carrier: reach(&view).is_some_and(|reach| reach.has_carrier),
            next_hop: reach(&view).is_some_and(|reach| reach.next_hop_answers),
            name: view.name.to_string(),
            id: view.id.0,
            address: view.address,
            own: view.is_me,
            state: if view.is_me || view.session.is_some() { "up" } else { "down" }.to_owned(),
            incarnation: if view.is_me {
                self.member.incarnation().0
            } else {
                view.session.map_or(0, |(incarnation, _)| incarnation.0)
            },
            version: view.session.map_or(0, |(_, version)| version),
            heard_ms: self.beats.of(view.id).map(|beat| now.saturating_since(beat.at).as_millis() as u64),
            cores_move: view.is_me || self.beats.of(view.id).is_some_and(|beat| beat.cores_move),
        };
        let (down_since, _, revision) = self.member.facility();
        ClusterRow {
            name: self.name.to_string(),
            facility: self.facility.to_owned(),
            facility_up: down_since.is_none(),
            facility_revision: revision,
            members: self.member.members().into_iter().map(member).collect(),
        }
    }
}

fn word(service: &ServicePort) -> String {
    match service.protocol {
        6 => format!("tcp/{}", service.port),
        17 => format!("udp/{}", service.port),
        other => format!("{other}/{}", service.port),
    }
}

fn state_of(view: &TargetView) -> &'static str {
    match view.standing {
        Standing::Admitting => "joining",
        Standing::Present if view.is_draining => "draining",
        Standing::Present if view.is_eligible && view.ready.as_ref().is_some_and(|ready| !ready.is_empty()) => "ready",
        Standing::Present if view.changes.2 < view.changes.0 => "behind",
        Standing::Present => "not-ready",
        Standing::Losing | Standing::Lost => "lost",
        Standing::Leaving(_) => "draining",
        Standing::Left => "drained",
    }
}

fn numbers_word(source: Option<NumberSource>) -> &'static str {
    match source {
        None => "none",
        Some(NumberSource::Own { .. }) => "own",
        Some(NumberSource::Sequencer) => "sequencer",
        Some(NumberSource::ViaOwner) => "via-owner",
        Some(NumberSource::Leased) => "leased",
    }
}
