//! The destination port tables, made of what targets report and of what the operator wishes.

use core::num::NonZeroU16;
use std::sync::Arc;

use cluster::dpt::{DvipaTable, PortTable, PortTarget, Tables};
use cluster::member::{ServicePort, TargetView};
use datapath::buffer::PacketBuffer;
use datapath::mailbox::Command;
use tracing::warn;

use super::{ClusterCore, Sharing};
use crate::control_core::ControlCore;

impl<B: PacketBuffer> ControlCore<B> {
    /// Who may be chosen, and by what, has changed: every core gets new tables.
    pub(super) fn give_tables(&mut self, cluster: &mut ClusterCore) {
        let table = |sharing: &Sharing| {
            let targets = cluster.member.targets(sharing.dvipa);
            let ports: Vec<Option<ServicePort>> = match sharing.services.as_slice() {
                [] => vec![None],
                services => services.iter().copied().map(Some).collect(),
            };
            let ports = ports.into_iter().map(|port| port_table(sharing, port, &targets)).collect();
            DvipaTable { address: sharing.dvipa, ports }
        };
        let dvipas = cluster.sharing.iter().map(table).collect();
        match Tables::new(cluster.settings.me, dvipas, cluster.tables.as_deref()) {
            Ok(tables) => {
                let tables = Arc::new(tables);
                cluster.tables = Some(Arc::clone(&tables));
                self.cores.tell_all(|| Command::Dpt(Arc::clone(&tables)));
            }
            // The configuration's own checks are narrower.
            Err(why) => warn!(%why, "no new port tables; new connections go by the old ones"),
        }
    }
}

fn port_table(sharing: &Sharing, port: Option<ServicePort>, targets: &[TargetView]) -> PortTable {
    let target = |&(member, weight): &(_, NonZeroU16)| {
        let view = targets.iter().find(|view| view.member == member);
        let answers = |view: &&TargetView| {
            let ready = view.ready.as_deref().unwrap_or_default();
            port.is_none_or(|port| ready.contains(&port))
        };
        PortTarget {
            member,
            is_ready: view.is_some_and(|view| view.is_eligible && answers(&view)),
            weight,
            active: view.map_or(0, |view| active(port, view)),
            load: view.map_or(0, |view| view.load_permille),
            report: view.map_or(0, |view| view.reports),
        }
    };
    let targets = sharing.targets.iter().map(target).collect();
    let mut table = PortTable::new(port, sharing.method, targets);
    (table.affinity, table.is_local_first) = (sharing.affinity, sharing.is_local_first);
    table
}

/// How many connections a target has of a port, or of all.
fn active(port: Option<ServicePort>, target: &TargetView) -> u32 {
    let of_port = target.active.iter().filter(|active| port.is_none_or(|port| active.service == port));
    of_port.fold(0, |sum, active| sum.saturating_add(active.connections))
}
