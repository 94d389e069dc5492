//! Which port and which next hop lead to an address: longest prefix match over connected prefixes and static routes.
//!
//! Self-contained: nothing but the standard library, so that the data path can use the very same table. Built once from
//! the configuration and then only read; a look-up takes one binary search per prefix length in use and never allocates.
//! It never follows a route to a route: a next hop has to lie in a connected prefix, or the table is refused.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port of this appliance, numbered as the configuration lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// A network prefix; its host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of this length that holds `address`; `None` if the length exceeds the address.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let network = match address {
            IpAddr::V4(address) => {
                let host_bits = 32_u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let host_bits = 128_u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Some(Self { network, length })
    }

    /// The prefix that holds this one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { network: address, length }
    }

    /// The lowest address of the prefix.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many leading bits are fixed.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` lies in the prefix; an address of the other family never does.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4() && Self::new(address, self.length) == Some(*self)
    }

    /// Whether `address` is the prefix's IPv4 broadcast address. Prefixes of 31 and 32 bits have none (RFC 3021).
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) if self.length < 31 => {
                address.to_bits() == network.to_bits() | (u32::MAX >> self.length)
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

/// Text that is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a prefix like 192.0.2.0/24 or 2001:db8::/32")]
pub struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `address/length`; host bits are cleared.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError)?;
        let address = address.parse().map_err(|_| PrefixError)?;
        let length = length.parse().map_err(|_| PrefixError)?;
        Self::new(address, length).ok_or(PrefixError)
    }
}

/// A static route as the configuration states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticRoute {
    /// Destinations that take this route.
    pub to: Prefix,
    /// The router to hand them to; without one the destinations are on the link of `port`.
    pub via: Option<IpAddr>,
    /// The port; without one it is the port whose connected prefix holds `via`.
    pub port: Option<PortId>,
}

/// Where a packet goes next: out of `port`, to the link address of `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The port to leave by.
    pub port: PortId,
    /// The station on that port's link: a router, or the destination itself.
    pub address: IpAddr,
}

/// Why a set of routes is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two routes for one prefix: which of them counts would be an accident.
    #[error("{0} is routed twice")]
    Duplicate(Prefix),
    /// A static route with neither `via` nor `port` leads nowhere.
    #[error("route to {0} names neither a next hop nor a port")]
    NoNextHop(Prefix),
    /// The router and the destinations are of different families.
    #[error("route to {to}: next hop {via} is of the other address family")]
    Family {
        /// Destinations of the route.
        to: Prefix,
        /// The router named for them.
        via: IpAddr,
    },
    /// The router is on no connected prefix, or on none of the named port.
    #[error("route to {to}: next hop {via} lies in no connected prefix")]
    NotConnected {
        /// Destinations of the route.
        to: Prefix,
        /// The router named for them.
        via: IpAddr,
    },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    network: u128,
    port: PortId,
    via: Option<IpAddr>,
}

/// All routes of one prefix length, sorted by network.
#[derive(Debug, Clone)]
struct Level {
    length: u8,
    mask: u128,
    entries: Vec<Entry>,
}

/// Routes of one address family, longest prefixes first.
#[derive(Debug, Clone, Default)]
struct Family {
    levels: Vec<Level>,
}

impl Family {
    fn insert(&mut self, length: u8, entry: Entry) -> bool {
        let at = match self.levels.binary_search_by(|level| length.cmp(&level.length)) {
            Ok(at) => at,
            Err(at) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                self.levels.insert(at, Level { length, mask, entries: Vec::new() });
                at
            }
        };
        let entries = &mut self.levels[at].entries;
        match entries.binary_search_by_key(&entry.network, |held| held.network) {
            Ok(_) => false,
            Err(at) => {
                entries.insert(at, entry);
                true
            }
        }
    }

    fn lookup(&self, address: u128) -> Option<&Entry> {
        self.levels.iter().find_map(|level| {
            let at = level.entries.binary_search_by_key(&(address & level.mask), |entry| entry.network).ok()?;
            level.entries.get(at)
        })
    }
}

/// The routes of this appliance, for both address families.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    ipv4: Family,
    ipv6: Family,
    routers: Vec<NextHop>,
}

impl RouteTable {
    /// Builds the table from the ports' connected prefixes and the static routes.
    ///
    /// # Errors
    /// See [`RouteError`]; the first fault found is reported and no table is built.
    pub fn new(connected: &[(Prefix, PortId)], routes: &[StaticRoute]) -> Result<Self, RouteError> {
        let mut table = Self::default();
        for &(prefix, port) in connected {
            table.insert(prefix, port, None)?;
        }
        for route in routes {
            let port = match (route.via, route.port) {
                (None, Some(port)) => port,
                (None, None) => return Err(RouteError::NoNextHop(route.to)),
                (Some(via), port) => Self::port_of_router(connected, route.to, via, port)?,
            };
            table.insert(route.to, port, route.via)?;
            if let Some(address) = route.via {
                table.routers.push(NextHop { port, address });
            }
        }
        table.routers.sort_unstable();
        table.routers.dedup();
        Ok(table)
    }

    fn port_of_router(
        connected: &[(Prefix, PortId)],
        to: Prefix,
        via: IpAddr,
        port: Option<PortId>,
    ) -> Result<PortId, RouteError> {
        if to.network().is_ipv4() != via.is_ipv4() {
            return Err(RouteError::Family { to, via });
        }
        connected
            .iter()
            .filter(|(prefix, at)| prefix.contains(via) && port.is_none_or(|port| port == *at))
            .max_by_key(|(prefix, _)| prefix.length())
            .map(|&(_, port)| port)
            .ok_or(RouteError::NotConnected { to, via })
    }

    fn insert(&mut self, to: Prefix, port: PortId, via: Option<IpAddr>) -> Result<(), RouteError> {
        let network = left_aligned(to.network());
        let family = if to.network().is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 };
        match family.insert(to.length(), Entry { network, port, via }) {
            true => Ok(()),
            false => Err(RouteError::Duplicate(to)),
        }
    }

    /// The next hop towards `destination`, by the longest prefix that holds it.
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> Option<NextHop> {
        let family = if destination.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let entry = family.lookup(left_aligned(destination))?;
        Some(NextHop { port: entry.port, address: entry.via.unwrap_or(destination) })
    }

    /// Every router that a static route names, each once: the neighbours to resolve before traffic comes.
    #[must_use]
    pub fn routers(&self) -> &[NextHop] {
        &self.routers
    }
}

/// The address's bits at the high end of 128, so that prefix lengths count from the same side in both families.
fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn route(to: &str, via: Option<&str>, port: Option<u16>) -> StaticRoute {
        StaticRoute { to: prefix(to), via: via.map(address), port: port.map(PortId) }
    }

    const CONNECTED: [(&str, u16); 3] = [("192.0.2.0/24", 0), ("10.9.0.0/24", 1), ("2001:db8:1::/64", 0)];

    fn connected() -> Vec<(Prefix, PortId)> {
        CONNECTED.iter().map(|&(text, port)| (prefix(text), PortId(port))).collect()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = [
            route("0.0.0.0/0", Some("192.0.2.1"), None),
            route("203.0.113.80/32", Some("10.9.0.2"), None),
            route("203.0.113.0/24", Some("192.0.2.7"), Some(0)),
            route("::/0", Some("2001:db8:1::1"), None),
        ];
        let table = RouteTable::new(&connected(), &routes).unwrap();
        let next = |to: &str| table.lookup(address(to)).map(|hop| (hop.port.0, hop.address.to_string()));
        assert_eq!(next("8.8.8.8"), Some((0, "192.0.2.1".into())));
        assert_eq!(next("203.0.113.80"), Some((1, "10.9.0.2".into())));
        assert_eq!(next("203.0.113.81"), Some((0, "192.0.2.7".into())));
        assert_eq!(next("10.9.0.77"), Some((1, "10.9.0.77".into())));
        assert_eq!(next("2001:db8:1::5"), Some((0, "2001:db8:1::5".into())));
        assert_eq!(next("2001:db8:2::5"), Some((0, "2001:db8:1::1".into())));
        assert_eq!(table.routers().len(), 4);
    }

    #[test]
    fn routes_that_lead_nowhere_are_refused() {
        let refused = |route| RouteTable::new(&connected(), &[route]).unwrap_err();
        assert_eq!(refused(route("10.0.0.0/8", None, None)), RouteError::NoNextHop(prefix("10.0.0.0/8")));
        assert!(matches!(refused(route("10.0.0.0/8", Some("172.16.0.1"), None)), RouteError::NotConnected { .. }));
        assert!(matches!(refused(route("10.0.0.0/8", Some("192.0.2.1"), Some(1))), RouteError::NotConnected { .. }));
        assert!(matches!(refused(route("10.0.0.0/8", Some("2001:db8:1::1"), None)), RouteError::Family { .. }));
        assert_eq!(refused(route("10.9.0.0/24", None, Some(0))), RouteError::Duplicate(prefix("10.9.0.0/24")));
    }

    #[test]
    fn prefixes_are_read_and_printed_and_know_their_broadcast() {
        assert_eq!(prefix("192.0.2.77/24").to_string(), "192.0.2.0/24");
        assert_eq!(prefix("0.0.0.0/0").length(), 0);
        for text in ["192.0.2.0", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/-1", "x/8", "1.2.3.4/"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError), "{text}");
        }
        assert!(prefix("192.0.2.0/24").is_broadcast(address("192.0.2.255")));
        assert!(!prefix("192.0.2.0/24").is_broadcast(address("192.0.2.254")));
        assert!(!prefix("192.0.2.254/31").is_broadcast(address("192.0.2.255")));
        assert!(prefix("0.0.0.0/0").is_broadcast(address("255.255.255.255")));
        assert!(!prefix("::/0").is_broadcast(address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
        assert!(!prefix("0.0.0.0/0").contains(address("::1")));
    }

    /// What the table has to say, by looking at every route.
    fn oracle(routes: &[(Prefix, PortId)], destination: IpAddr) -> Option<PortId> {
        let holding = routes.iter().filter(|(prefix, _)| prefix.contains(destination));
        holding.max_by_key(|(prefix, _)| prefix.length()).map(|&(_, port)| port)
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan_of_all_routes(
            raw in proptest::collection::btree_map((any::<bool>(), 0_u32..64, 0_u8..=8), 0_u16..8, 0..40),
            probes in proptest::collection::vec((any::<bool>(), 0_u32..256), 40),
        ) {
            // Few leading bits vary, so that prefixes nest and probes hit.
            let spread = |ipv4: bool, bits: u32| -> IpAddr {
                if ipv4 { Ipv4Addr::from_bits(bits << 24).into() } else { Ipv6Addr::from_bits(u128::from(bits) << 120).into() }
            };
            let mut routes: Vec<(Prefix, PortId)> = raw
                .iter()
                .filter_map(|(&(ipv4, bits, length), &port)| Some((Prefix::new(spread(ipv4, bits << 2), length)?, PortId(port))))
                .collect();
            routes.sort_unstable();
            routes.dedup_by_key(|(prefix, _)| *prefix);
            let table = RouteTable::new(&routes, &[]).unwrap();
            for (ipv4, bits) in probes {
                let destination = spread(ipv4, bits);
                prop_assert_eq!(table.lookup(destination).map(|hop| hop.port), oracle(&routes, destination));
            }
        }
    }
}
