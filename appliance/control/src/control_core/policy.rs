//! From the validated configuration to the policy that every data core obeys.

use core::net::IpAddr;

use datapath::forwarding::PortRole;
use datapath::policy::{Policy, Service};
use ike::config::Connection;
use ipsec::sa::SaParameters;
use ipsec::selector::{SelectorTemplate, Selectors, TrafficSelector};
use ipsec::spd::{self, Action, Spd};

use crate::config::{Config, Dvipa, Role, StaticSa};

/// What the configuration says about addresses and protection.
#[must_use]
pub fn policy(config: &Config) -> Policy {
    Policy::new(own_addresses(config), Spd::new(policies(&config.connections, &config.static_sas)))
        .with_services(config.dvipas.iter().flat_map(services))
        .with_filters(config.filters.iter().cloned())
}

/// A DVIPA's `services:` as the destination port table of the data path.
fn services(dvipa: &Dvipa) -> impl Iterator<Item = Service> {
    let address = dvipa.address;
    dvipa.services.iter().map(move |listed| Service { address, protocol: listed.protocol.number(), port: listed.port })
}

/// The data path's word for a port's role.
impl From<Role> for PortRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Network => Self::Network,
            Role::Inside => Self::Inside,
            Role::Trusted => Self::Trusted,
        }
    }
}

fn own_addresses(config: &Config) -> Vec<IpAddr> {
    let of_ports = config.ports.iter().flat_map(|port| port.addresses.iter().map(|own| own.address));
    of_ports.chain(config.dvipas.iter().map(|dvipa| dvipa.address)).collect()
}

/// What the children of connections and the lab's SAs speak for is to be protected; nothing else is allowed at all.
fn policies(connections: &[Connection], static_sas: &[StaticSa]) -> Vec<spd::Policy> {
    let of_children = connections.iter().flat_map(|connection| {
        connection.children.iter().map(|child| spd::Policy {
            selectors: Selectors {
                local: child.local_ts.iter().flat_map(|ts| resolve_local(ts, &connection.local_addrs)).collect(),
                remote: child.remote_ts.iter().flat_map(resolve_remote).collect(),
            },
            action: Action::Protect { child: child.name.clone() },
        })
    });
    let protects = |sa: &SaParameters| spd::Policy {
        selectors: sa.selectors.clone(),
        action: Action::Protect { child: sa.name.clone() },
    };
    let of_static = static_sas.iter().flat_map(|sa| sa.inbound.iter().chain(&sa.outbound)).map(protects);
    of_children.chain(of_static).collect()
}

/// `dynamic` on our side is each of our own addresses.
fn resolve_local(template: &SelectorTemplate, own: &[IpAddr]) -> Vec<TrafficSelector> {
    match template {
        SelectorTemplate::Fixed(selector) => vec![*selector],
        SelectorTemplate::Dynamic { .. } => own.iter().map(|&address| template.resolve(address)).collect(),
    }
}

/// `dynamic` on the peer's side is whoever comes.
fn resolve_remote(template: &SelectorTemplate) -> Vec<TrafficSelector> {
    match *template {
        SelectorTemplate::Fixed(selector) => vec![selector],
        SelectorTemplate::Dynamic { protocol, ports } => [TrafficSelector::any_v4(), TrafficSelector::any_v6()]
            .map(|any| TrafficSelector { protocol, ports, ..any })
            .to_vec(),
    }
}
