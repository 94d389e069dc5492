//! The metrics of an appliance as one of several. A lone appliance has none of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Families, add, set};
use crate::report::{ShadowRow, Snapshot};

impl Families {
    pub(super) fn cluster(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        if snapshot.cluster.name.is_empty() {
            return Ok(());
        }
        self.members(snapshot)?;
        self.dvipas(snapshot)?;
        self.targets(snapshot)?;
        self.shadows(snapshot)?;
        self.lifesizes(snapshot)
    }

    fn members(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let facility = self.gauge("phalanx_facility_up", "Whether the coupling facility answers: 1 or 0.", &[])?;
        set(&facility, &[], u64::from(snapshot.cluster.facility_up))?;
        let labels = ["member"];
        let up = self.gauge("phalanx_member_up", "Whether an XCF session with a member is up: 1 or 0.", &labels)?;
        let moves = self.gauge("phalanx_member_cores_move", "Whether a member's data cores poll: 1 or 0.", &labels)?;
        let reaches = self.gauge(
            "phalanx_member_reaches_network",
            "Whether a member's network ports have a link and a router that answers: 1 or 0.",
            &labels,
        )?;
        let incarnation = self.gauge("phalanx_member_incarnation", "The start of a member that is known.", &labels)?;
        for row in &snapshot.cluster.members {
            let values = [row.name.as_str()];
            set(&up, &values, u64::from(row.state == "up"))?;
            set(&moves, &values, u64::from(row.cores_move))?;
            set(&reaches, &values, u64::from(row.carrier && row.next_hop))?;
            set(&incarnation, &values, row.incarnation)?;
        }
        Ok(())
    }

    fn dvipas(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let labels = ["dvipa"];
        let owned = self.gauge("phalanx_dvipa_owned", "Whether this member owns the address: 1 or 0.", &labels)?;
        let epoch = self.gauge("phalanx_dvipa_epoch", "The epoch of the address that this member knows.", &labels)?;
        let settling =
            self.gauge("phalanx_dvipa_settling", "Whether its owner still waits for members: 1 or 0.", &labels)?;
        for row in &snapshot.dvipas {
            let address = row.address.to_string();
            let values = [address.as_str()];
            set(&owned, &values, u64::from(row.role.starts_with("owner")))?;
            set(&epoch, &values, row.epoch)?;
            set(&settling, &values, u64::from(row.settling))?;
        }
        Ok(())
    }

    fn targets(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let labels = ["dvipa", "target"];
        let state = self.gauge(
            "phalanx_target_state",
            "1 for the state that a target is in: joining, ready, behind, not-ready, draining, drained or lost.",
            &["dvipa", "target", "state"],
        )?;
        let connections =
            self.gauge("phalanx_target_connections", "Connections that a target has reported.", &labels)?;
        let load = self.gauge("phalanx_target_load_permille", "How busy a target's data cores are.", &labels)?;
        let behind = self.gauge(
            "phalanx_target_shadows_outstanding",
            "Changes of the shadow SAs that a target has not acknowledged.",
            &labels,
        )?;
        for row in &snapshot.targets {
            let dvipa = row.dvipa.to_string();
            let values = [dvipa.as_str(), &row.name];
            set(&state, &[&dvipa, &row.name, &row.state], 1)?;
            set(&connections, &values, row.connections)?;
            set(&load, &values, u64::from(row.load))?;
            set(&behind, &values, row.shadows_told.saturating_sub(row.shadows_acknowledged))?;
        }
        Ok(())
    }

    fn shadows(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let shadows = self.gauge(
            "phalanx_shadow_sas",
            "CHILD_SAs that this member holds for an address, by whether they are sealed.",
            &["dvipa", "sealed"],
        )?;
        let count = |of: &dyn Fn(&ShadowRow) -> (IpAddr, String)| {
            let mut counts: BTreeMap<(IpAddr, String), u64> = BTreeMap::new();
            snapshot.shadows.iter().for_each(|row| *counts.entry(of(row)).or_default() += 1);
            counts
        };
        for ((dvipa, sealed), sas) in count(&|row| (row.dvipa, if row.sealed { "yes" } else { "no" }.to_owned())) {
            set(&shadows, &[&dvipa.to_string(), &sealed], sas)?;
        }
        let numbers = self.gauge(
            "phalanx_sequence_sas",
            "CHILD_SAs of this member by where their outbound numbers come from: own, sequencer, via-owner, leased, none.",
            &["dvipa", "numbers"],
        )?;
        for ((dvipa, source), sas) in count(&|row| (row.dvipa, row.numbers.clone())) {
            set(&numbers, &[&dvipa.to_string(), &source], sas)?;
        }
        let fallbacks = self.gauge(
            "phalanx_sequence_fallback_sas",
            "CHILD_SAs whose peers' numbers are not given out as the policy wishes, by why. The owner knows.",
            &["dvipa", "why"],
        )?;
        for ((dvipa, why), sas) in count(&|row| (row.dvipa, row.fallback.clone())) {
            if !why.is_empty() {
                set(&fallbacks, &[&dvipa.to_string(), &why], sas)?;
            }
        }
        Ok(())
    }

    fn lifesizes(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let labels = ["dvipa", "direction"];
        let granted = self.gauge(
            "phalanx_lifesize_granted_bytes",
            "Inner bytes that members may carry beyond what they have reported.",
            &labels,
        )?;
        let charged = self.gauge(
            "phalanx_lifesize_charged_bytes",
            "Inner bytes charged for members that do not answer.",
            &labels,
        )?;
        let bound = self.gauge(
            "phalanx_lifesize_overrun_bound_bytes",
            "The most by which any one SA can overrun its hard limit, in inner bytes.",
            &labels,
        )?;
        let mut sums: BTreeMap<(IpAddr, &str), (u64, u64, u64)> = BTreeMap::new();
        for row in &snapshot.lifesizes {
            let (grants, charges, overrun) = sums.entry((row.dvipa, &row.direction)).or_default();
            *grants = grants.saturating_add(row.granted_bytes);
            *charges = charges.saturating_add(row.charged_bytes);
            *overrun = row.overrun_bound_bytes.max(*overrun);
        }
        for ((dvipa, direction), (of_grants, of_charges, overrun)) in sums {
            let dvipa = dvipa.to_string();
            set(&granted, &[&dvipa, direction], of_grants)?;
            set(&charged, &[&dvipa, direction], of_charges)?;
            set(&bound, &[&dvipa, direction], overrun)?;
        }
        let labels = ["dvipa"];
        let reports = self.counter(
            "phalanx_lifesize_reports_total",
            "Reports of what SAs have carried, made to this member as their owner.",
            &labels,
        )?;
        let refreshes = self.counter(
            "phalanx_lifesize_refreshes_total",
            "SAs that this member, as their owner, has refreshed for what they had carried.",
            &labels,
        )?;
        for row in &snapshot.dvipas {
            let dvipa = row.address.to_string();
            add(&reports, &[&dvipa], row.lifesize_reports)?;
            add(&refreshes, &[&dvipa], row.refreshes)?;
        }
        Ok(())
    }
}
