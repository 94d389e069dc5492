//! What the stack is told at its start: ports, routes, DVIPAs; and what makes it refuse them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::MacAddress;
use crate::config::{self, Config};
use datapath::routes::{NextHop, PortId, Prefix, RouteError, RouteTable, StaticRoute};

/// Smallest MTU of a port: every IPv4 host has to accept that much (RFC 791 §3.1).
pub const MTU_MIN: u16 = 576;

/// One of our addresses on a port, with the length of the prefix that its link has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAddress {
    /// The address itself.
    pub address: IpAddr,
    /// The addresses that are on the link.
    pub prefix: Prefix,
}

impl PortAddress {
    /// `address/length`; `None` if the length exceeds the address.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        Some(Self { address, prefix: Prefix::new(address, length)? })
    }
}

/// A port as the stack sees it.
#[derive(Debug, Clone)]
pub struct PortSettings {
    /// Its number.
    pub id: PortId,
    /// Its link address, which is also the sender of all ARP for the DVIPAs on it.
    pub mac: MacAddress,
    /// Our addresses on it.
    pub addresses: Vec<PortAddress>,
    /// Largest IP packet that its link carries, in bytes.
    pub mtu: u16,
    /// The 802.1Q VLAN that its frames are tagged with, if any.
    pub vlan: Option<u16>,
    /// Neighbours that are known without asking, for links on which nobody answers.
    pub neighbours: Vec<(IpAddr, MacAddress)>,
}

/// A DVIPA that this appliance may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dvipa {
    /// The address.
    pub address: IpAddr,
    /// The network port that answers for it.
    pub port: PortId,
    /// Whether this appliance owns it from the start.
    pub owned: bool,
}

/// Everything that the stack is told at its start.
#[derive(Debug, Clone, Default)]
pub struct StackSettings {
    /// All ports that punted frames may come from.
    pub ports: Vec<PortSettings>,
    /// Static routes; connected prefixes need none.
    pub routes: Vec<StaticRoute>,
    /// The DVIPAs of the cluster.
    pub dvipas: Vec<Dvipa>,
}

/// Why the stack refuses its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Two ports have one number.
    #[error("{0} is stated twice")]
    DuplicatePort(PortId),
    /// A port's link address is a group or zero.
    #[error("{0} has link address {1}, which is no station's")]
    LinkAddress(PortId, MacAddress),
    /// A port's MTU is below [`MTU_MIN`].
    #[error("{0} has an MTU of {1} bytes, allowed are {MTU_MIN} to 65535")]
    Mtu(PortId, u16),
    /// A VLAN identifier outside 1 to 4094.
    #[error("{0} has VLAN {1}, allowed are 1 to 4094")]
    Vlan(PortId, u16),
    /// An address that no host may have.
    #[error("{0} is no unicast address")]
    NotUnicast(IpAddr),
    /// One address is stated twice, on ports or as DVIPA.
    #[error("address {0} is stated twice")]
    DuplicateAddress(IpAddr),
    /// A DVIPA on a port that is not there.
    #[error("DVIPA {0} names {1}, which is not there")]
    UnknownPort(IpAddr, PortId),
    /// A route out of a port that is not there.
    #[error("route to {0} names {1}, which is not there")]
    RoutePort(Prefix, PortId),
    /// A route by a next hop that is an address of ours, or a DVIPA: neither is ever asked for.
    #[error("route to {0} has next hop {1}, which is an address of ours or a DVIPA")]
    RouteViaOwn(Prefix, IpAddr),
    /// Routes that contradict each other or lead nowhere.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl StackSettings {
    /// What a configuration says. Outside a cluster an appliance owns every DVIPA from the start. `macs` are the
    /// ports' link addresses in the configuration's order; a port's number is its place in it.
    #[must_use]
    pub fn from_config(config: &Config, macs: &[MacAddress]) -> Self {
        let id = |index: usize| PortId(index as u16);
        let address = |held: &config::PortAddress| PortAddress::new(held.address, held.prefix_bits);
        let ports = config.ports.iter().zip(macs).enumerate().map(|(index, (port, &mac))| PortSettings {
            id: id(index),
            mac,
            addresses: port.addresses.iter().filter_map(address).collect(),
            mtu: port.mtu_bytes,
            vlan: port.vlan,
            neighbours: port.neighbours.iter().map(|known| (known.address, MacAddress(known.mac))).collect(),
        });
        let routes = config.routes.iter().filter_map(|route| {
            let (network, length) = route.to.as_prefix()?;
            Some(StaticRoute { to: Prefix::new(network, length)?, via: Some(route.via), port: Some(id(route.port)) })
        });
        let owned = config.cluster.is_none();
        let dvipas = config.dvipas.iter().map(|dvipa| Dvipa { address: dvipa.address, port: id(dvipa.port), owned });
        Self { ports: ports.collect(), routes: routes.collect(), dvipas: dvipas.collect() }
    }

    /// Checks everything and builds the route table.
    ///
    /// # Errors
    /// The first fault found; see [`SettingsError`].
    pub fn routes(&self) -> Result<RouteTable, SettingsError> {
        let mut ports = BTreeMap::new();
        let mut addresses = BTreeSet::new();
        let mut hold = |address: IpAddr| match (is_host_address(address), addresses.insert(address)) {
            (false, _) => Err(SettingsError::NotUnicast(address)),
            (true, false) => Err(SettingsError::DuplicateAddress(address)),
            (true, true) => Ok(()),
        };
        for port in &self.ports {
            port.check()?;
            if ports.insert(port.id, port).is_some() {
                return Err(SettingsError::DuplicatePort(port.id));
            }
            port.addresses.iter().try_for_each(|held| hold(held.address))?;
        }
        for dvipa in &self.dvipas {
            hold(dvipa.address)?;
            if !ports.contains_key(&dvipa.port) {
                return Err(SettingsError::UnknownPort(dvipa.address, dvipa.port));
            }
        }
        let absent = |route: &&StaticRoute| route.port.is_some_and(|port| !ports.contains_key(&port));
        if let Some(StaticRoute { to, port: Some(port), .. }) = self.routes.iter().find(absent) {
            return Err(SettingsError::RoutePort(*to, *port));
        }
        let own =
            self.routes.iter().find_map(|route| Some((route.to, route.via.filter(|via| addresses.contains(via))?)));
        if let Some((to, via)) = own {
            return Err(SettingsError::RouteViaOwn(to, via));
        }
        Ok(RouteTable::new(&self.connected(), &self.routes)?)
    }

    fn connected(&self) -> Vec<(Prefix, PortId)> {
        let mut connected: Vec<_> =
            self.ports.iter().flat_map(|port| port.addresses.iter().map(|held| (held.prefix, port.id))).collect();
        // Two addresses of one port may share a prefix; two ports may not, and the table says so.
        connected.sort_unstable();
        connected.dedup();
        connected
    }
}

impl PortSettings {
    fn check(&self) -> Result<(), SettingsError> {
        if !self.mac.is_unicast() {
            return Err(SettingsError::LinkAddress(self.id, self.mac));
        }
        if self.mtu < MTU_MIN {
            return Err(SettingsError::Mtu(self.id, self.mtu));
        }
        match self.vlan {
            None | Some(1..=4_094) => Ok(()),
            Some(vlan) => Err(SettingsError::Vlan(self.id, vlan)),
        }
    }

    pub(super) fn fixed_neighbours(&self) -> impl Iterator<Item = (NextHop, MacAddress)> + '_ {
        self.neighbours.iter().map(|&(address, mac)| (NextHop { port: self.id, address }, mac))
    }

    /// Whether `address` is on this port's link.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.prefix.contains(address))
    }

    /// Our own address on this port to speak to `target` with: one of its prefix if there is one. Never a DVIPA.
    pub(super) fn address_towards(&self, target: IpAddr) -> Option<IpAddr> {
        let same_family = || self.addresses.iter().filter(|held| held.address.is_ipv4() == target.is_ipv4());
        let on_link = same_family().find(|held| held.prefix.contains(target));
        on_link.or_else(|| same_family().next()).map(|held| held.address)
    }

    /// Whether a packet from or to `address` speaks to many hosts on this link at once.
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.prefix.is_broadcast(address))
    }
}

/// Whether `address` can be that of one host on a network: no group, no broadcast, no loopback, not unspecified.
pub(super) fn is_host_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_multicast() || address.is_broadcast() || address.is_loopback() || address.octets()[0] == 0)
                && address.octets()[0] < 240
        }
        IpAddr::V6(address) => !(address.is_multicast() || address.is_loopback() || address.is_unspecified()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> StackSettings {
        let port = |id: u16, address: [u8; 4]| PortSettings {
            id: PortId(id),
            mac: MacAddress([2, 0, 0, 0, 0, id as u8]),
            addresses: vec![PortAddress::new(address.into(), 24).unwrap()],
            mtu: 1_500,
            vlan: None,
            neighbours: vec![],
        };
        StackSettings {
            ports: vec![port(0, [192, 0, 2, 10]), port(1, [10, 9, 0, 1])],
            routes: vec![],
            dvipas: vec![Dvipa { address: [203, 0, 113, 80].into(), port: PortId(0), owned: true }],
        }
    }

    fn refused(spoil: impl FnOnce(&mut StackSettings)) -> SettingsError {
        let mut settings = settings();
        spoil(&mut settings);
        settings.routes().unwrap_err()
    }

    #[test]
    fn sound_settings_are_accepted_and_faults_named() {
        assert!(settings().routes().is_ok());
        assert_eq!(refused(|s| s.ports[1].id = PortId(0)), SettingsError::DuplicatePort(PortId(0)));
        assert_eq!(
            refused(|s| s.ports[1].mac = MacAddress::BROADCAST),
            SettingsError::LinkAddress(PortId(1), MacAddress::BROADCAST)
        );
        assert_eq!(refused(|s| s.ports[0].mtu = 575), SettingsError::Mtu(PortId(0), 575));
        assert_eq!(refused(|s| s.ports[0].vlan = Some(4_095)), SettingsError::Vlan(PortId(0), 4_095));
        let own = IpAddr::from([192, 0, 2, 10]);
        assert_eq!(refused(|s| s.dvipas[0].address = own), SettingsError::DuplicateAddress(own));
        let group = IpAddr::from([224, 0, 0, 1]);
        assert_eq!(refused(|s| s.dvipas[0].address = group), SettingsError::NotUnicast(group));
        assert!(matches!(refused(|s| s.dvipas[0].port = PortId(7)), SettingsError::UnknownPort(_, PortId(7))));
        let to: Prefix = "10.0.0.0/8".parse().unwrap();
        assert_eq!(
            refused(|s| s.routes = vec![StaticRoute { to, via: None, port: Some(PortId(7)) }]),
            SettingsError::RoutePort(to, PortId(7))
        );
        let via = IpAddr::from([203, 0, 113, 80]);
        assert_eq!(
            refused(|s| s.routes = vec![StaticRoute { to, via: Some(via), port: None }]),
            SettingsError::RouteViaOwn(to, via)
        );
        assert!(matches!(
            refused(|s| s.ports[1].addresses[0] = PortAddress::new([192, 0, 2, 11].into(), 24).unwrap()),
            SettingsError::Route(RouteError::Duplicate(_))
        ));
    }
}
