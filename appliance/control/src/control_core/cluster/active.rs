//! How many connections each service has here, as the data cores tell it, for the owners of the addresses.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::member::{ActivePort, ServicePort, Told};
use datapath::buffer::PacketBuffer;
use datapath::policy::Service;
use ipsec::time::Instant;

use super::ClusterCore;
use crate::control_core::ControlCore;

/// News is gathered for so long.
const INTERVAL: Duration = Duration::from_millis(250);

/// The counts of every core. Each tells of so many services at most that this is bounded.
#[derive(Debug, Default)]
pub(super) struct Active {
    counts: BTreeMap<(IpAddr, ServicePort), BTreeMap<usize, u32>>,
    due: Instant,
    has_changed: bool,
}

impl Active {
    /// A core has counted anew.
    pub(super) fn count(&mut self, core: usize, service: Service, connections: u32) {
        let port = ServicePort { protocol: service.protocol, port: service.port };
        let by_core = self.counts.entry((service.address, port)).or_default();
        match connections {
            0 => by_core.remove(&core),
            _ => by_core.insert(core, connections),
        };
        self.has_changed = true;
    }

    /// The ports of an address that have connections.
    fn ports_of(&self, dvipa: IpAddr) -> Vec<ActivePort> {
        let of_dvipa = self.counts.iter().filter(|((address, _), _)| *address == dvipa);
        let port = |((_, service), by_core): (&(IpAddr, ServicePort), &BTreeMap<usize, u32>)| ActivePort {
            service: *service,
            connections: by_core.values().fold(0, |sum, count| sum.saturating_add(*count)),
        };
        of_dvipa.map(port).collect()
    }
}

impl<B: PacketBuffer> ControlCore<B> {
    /// Tells what has changed, if it is time.
    pub(super) fn tell_active(&mut self, now: Instant, cluster: &mut ClusterCore) {
        if !cluster.active.has_changed || now < cluster.active.due {
            return;
        }
        cluster.active.counts.retain(|_, by_core| !by_core.is_empty());
        (cluster.active.has_changed, cluster.active.due) = (false, now + INTERVAL);
        for sharing in &cluster.sharing {
            let ports = cluster.active.ports_of(sharing.dvipa);
            cluster.member.handle_told(now, Told::Active { dvipa: sharing.dvipa, ports });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_add_up_and_what_is_over_is_not_told() {
        let dvipa = IpAddr::from([203, 0, 113, 80]);
        let service = |port| Service { address: dvipa, protocol: 6, port };
        let mut active = Active::default();
        active.count(0, service(80), 3);
        active.count(1, service(80), 4);
        active.count(1, service(443), 1);
        active.count(1, service(80), 2);
        let told = |active: &Active| -> Vec<(u16, u32)> {
            active.ports_of(dvipa).iter().map(|port| (port.service.port, port.connections)).collect()
        };
        assert_eq!(told(&active), [(80, 5), (443, 1)]);
        active.count(1, service(443), 0);
        active.counts.retain(|_, by_core| !by_core.is_empty());
        assert_eq!(told(&active), [(80, 5)]);
        assert_eq!(active.ports_of([203, 0, 113, 81].into()), []);
    }
}
