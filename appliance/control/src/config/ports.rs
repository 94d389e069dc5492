//! `ports:` — the DPDK devices, what stands behind each, and the addresses we hold there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipsec::selector::AddressRange;

use super::cores::Cores;
use super::error::ConfigError;
use super::place::Place;
use super::raw::{self, List, Word};
use super::word::{choice, name, number, token};

/// More ports than this no appliance has.
pub const PORTS_MAX: usize = 16;
/// More addresses than this no port has.
pub const PORT_ADDRESSES_MAX: usize = 32;

const DEVICE_LEN_MAX: usize = 1024;
const ADDRESS_WITH_PREFIX: &str = "an address of ours with its prefix length, such as 192.0.2.10/24";
const HOST_ADDRESS: &str = "a unicast address of a single host, such as 192.0.2.10";

/// What stands behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The untrusted network, towards clients.
    Network,
    /// The application hosts.
    Inside,
    /// The other appliances of the cluster, and nothing else.
    Trusted,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Network => "network",
            Self::Inside => "inside",
            Self::Trusted => "trusted",
        })
    }
}

/// An address of ours on a port, and how much of it all neighbours on the link share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortAddress {
    /// The address itself.
    pub address: IpAddr,
    /// Leading bits that are the link's prefix.
    pub prefix_bits: u8,
}

impl PortAddress {
    /// All addresses of the link.
    #[must_use]
    pub fn network(&self) -> AddressRange {
        let whole = AddressRange::from_prefix(self.address, self.prefix_bits);
        whole.unwrap_or_else(|| AddressRange::single(self.address))
    }
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// A neighbour that is known without asking: for links on which nobody answers ARP, such as a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address, on the link of one of the port's own.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// One DPDK device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Our name for it.
    pub name: Arc<str>,
    /// What stands behind it.
    pub role: Role,
    /// What DPDK calls it: a PCI address, or a virtual device with its arguments.
    pub device: String,
    /// Our addresses there.
    pub addresses: Vec<PortAddress>,
    /// The largest IP packet that the link carries.
    pub mtu_bytes: u16,
    /// The VLAN (802.1Q) that all its frames belong to, if they are tagged.
    pub vlan: Option<u16>,
    /// Receive queues, and as many transmit queues at least.
    pub queues: u16,
    /// Neighbours that are known without asking.
    pub neighbours: Vec<Neighbour>,
}

impl Port {
    /// Whether a host is reached on this port's link, without a router between.
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.network().contains(address))
    }
}

/// Every address that is ours, with the line that says so.
#[derive(Default)]
pub(super) struct OwnAddresses {
    lines: BTreeMap<IpAddr, u64>,
    links: Vec<Link>,
}

struct Link {
    port: usize,
    range: AddressRange,
    text: String,
    line: u64,
}

impl OwnAddresses {
    /// Takes an address that nobody else may have.
    pub(super) fn claim(&mut self, place: &Place<'_>, word: &Word, address: IpAddr) -> Result<(), ConfigError> {
        match self.lines.insert(address, word.referenced.line()) {
            None => Ok(()),
            Some(line) => {
                let other = format!("and line {line} holds {address} already");
                Err(place.conflict(word, &other, "each address once, over all ports and dvipas"))
            }
        }
    }

    /// Whether an address is ours.
    pub(super) fn hold(&self, address: IpAddr) -> bool {
        self.lines.contains_key(&address)
    }

    /// Refuses an address on the link of another port than `port`.
    pub(super) fn refuse_on_other_link(
        &self,
        place: &Place<'_>,
        word: &Word,
        range: &AddressRange,
        port: usize,
    ) -> Result<(), ConfigError> {
        let overlapping = |link: &&Link| link.port != port && link.range.intersect(range).is_some();
        match self.links.iter().find(overlapping) {
            None => Ok(()),
            Some(link) => {
                let other = format!("which overlaps {} of another port, in line {}", link.text, link.line);
                Err(place.conflict(word, &other, "links that do not overlap between ports"))
            }
        }
    }
}

/// Validates `ports:`.
pub(super) fn validate(
    top: &Place<'_>,
    list: List<raw::Port>,
    cores: &Cores,
    own: &mut OwnAddresses,
) -> Result<Vec<Port>, ConfigError> {
    let here = top.key("ports");
    let mut names = BTreeMap::new();
    let mut devices = BTreeMap::new();
    let mut ports = Vec::new();
    for (place, raw) in here.some_items(list, PORTS_MAX)? {
        let (name_word, device_word) = (raw.name.clone(), raw.device.clone());
        if let Some(line) = names.insert(name_word.value.clone(), name_word.referenced.line()) {
            return Err(place.key("name").duplicate(&name_word, line, "each name once"));
        }
        let port = validate_port(&place, raw, ports.len(), cores, own)?;
        let device = port.device.split(',').next().unwrap_or_default().to_owned();
        if let Some(line) = devices.insert(device, device_word.referenced.line()) {
            return Err(place.key("device").duplicate(&device_word, line, "each device for one port"));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn validate_port(
    place: &Place<'_>,
    raw: raw::Port,
    index: usize,
    cores: &Cores,
    own: &mut OwnAddresses,
) -> Result<Port, ConfigError> {
    let roles = [("network", Role::Network), ("inside", Role::Inside), ("trusted", Role::Trusted)];
    let role = choice(&place.key("role"), &raw.role, &roles)?;
    let addresses = validate_addresses(&place.key("addresses"), raw.addresses, index, own)?;
    let ipv6 = addresses.iter().any(|own| own.address.is_ipv6());
    let queues_max = u16::try_from(cores.data.len()).unwrap_or(u16::MAX);
    let mut port = Port {
        name: name(&place.key("name"), &raw.name)?,
        role,
        device: token(&place.key("device"), &raw.device, DEVICE_LEN_MAX, "a DPDK device")?.to_owned(),
        addresses,
        mtu_bytes: match raw.mtu {
            None => 1500,
            Some(word) => number(&place.key("mtu"), &word, if ipv6 { 1280 } else { 576 }..=9216)?,
        },
        vlan: raw.vlan.map(|word| number(&place.key("vlan"), &word, 1..=4094)).transpose()?,
        queues: match raw.queues {
            None => queues_max,
            Some(word) => number(&place.key("queues"), &word, 1..=queues_max)?,
        },
        neighbours: Vec::new(),
    };
    port.neighbours = validate_neighbours(&place.key("neighbours"), raw.neighbours, &port)?;
    Ok(port)
}

fn validate_addresses(
    here: &Place<'_>,
    list: Option<Vec<Word>>,
    port: usize,
    own: &mut OwnAddresses,
) -> Result<Vec<PortAddress>, ConfigError> {
    let mut addresses = Vec::new();
    for (place, word) in here.items(list.unwrap_or_default()) {
        if addresses.len() == PORT_ADDRESSES_MAX {
            return Err(place.invalid(&word, format!("at most {PORT_ADDRESSES_MAX} addresses for a port")));
        }
        let own_address = parse_with_prefix(&word.value).ok_or_else(|| place.invalid(&word, ADDRESS_WITH_PREFIX))?;
        refuse_ipv6(&place, &word, own_address.address.is_ipv4())?;
        let range = own_address.network();
        if !is_host_of(own_address.address, &range) {
            return Err(
                place.invalid(&word, "the address of a host, not that of the network, of all hosts or of a group")
            );
        }
        own.claim(&place, &word, own_address.address)?;
        // Each link has its own link-local addresses, so these may look alike.
        if !is_link_local(own_address.address) {
            own.refuse_on_other_link(&place, &word, &range, port)?;
            let (text, line) = (own_address.to_string(), word.referenced.line());
            own.links.push(Link { port, range, text, line });
        }
        addresses.push(own_address);
    }
    Ok(addresses)
}

fn validate_neighbours(
    here: &Place<'_>,
    list: Option<Vec<raw::Neighbour>>,
    port: &Port,
) -> Result<Vec<Neighbour>, ConfigError> {
    let mut lines = BTreeMap::new();
    let mut neighbours = Vec::new();
    for (place, raw) in here.items(list.unwrap_or_default()) {
        let at = place.key("address");
        let address = host_address(&at, &raw.address)?;
        if !port.is_on_link(address) || port.addresses.iter().any(|own| own.address == address) {
            let remedy = "give the port an address with a prefix that holds the neighbour";
            return Err(at.dangling(&raw.address, "an address of another host on this port's link", remedy));
        }
        if let Some(line) = lines.insert(address, raw.address.referenced.line()) {
            return Err(at.duplicate(&raw.address, line, "each neighbour once"));
        }
        let mac = parse_mac(&raw.mac.value).ok_or_else(|| {
            place.key("mac").invalid(&raw.mac, "the Ethernet address of a single host, such as 02:00:5e:10:00:01")
        })?;
        neighbours.push(Neighbour { address, mac });
    }
    Ok(neighbours)
}

/// The address of a single host.
pub(super) fn host_address(place: &Place<'_>, word: &Word) -> Result<IpAddr, ConfigError> {
    match word.value.parse() {
        Ok(address) if is_unicast(address) => refuse_ipv6(place, word, address.is_ipv4()).map(|()| address),
        Ok(_) | Err(_) => Err(place.invalid(word, HOST_ADDRESS)),
    }
}

/// Refuses what would be accepted and carry nothing: types and tables know both families, the data path one so far.
pub(super) fn refuse_ipv6(place: &Place<'_>, word: &Word, is_ipv4: bool) -> Result<(), ConfigError> {
    if is_ipv4 { Ok(()) } else { Err(place.unserved(word, "IPv4", "IPv6 traffic is not carried yet")) }
}

/// Whether a packet can come from this address on a wire.
fn is_unicast(address: IpAddr) -> bool {
    let broadcast = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    !(broadcast || address.is_multicast() || address.is_unspecified() || address.is_loopback())
}

/// Whether an address is one host's on a link: in IPv4, neither all zeros nor all ones after the prefix.
pub(super) fn is_host_of(address: IpAddr, link: &AddressRange) -> bool {
    let ends_are_hosts = match (address, link.as_prefix()) {
        (IpAddr::V4(_), Some((_, prefix_bits))) => prefix_bits >= 31,
        (IpAddr::V4(_), None) | (IpAddr::V6(_), _) => true,
    };
    is_unicast(address) && (ends_are_hosts || (address != link.start() && address != link.end()))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn parse_with_prefix(text: &str) -> Option<PortAddress> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let decimal = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let prefix_bits = bits.parse().ok().filter(|bits| decimal && (1..=bits_max).contains(bits))?;
    Some(PortAddress { address, prefix_bits })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut groups = text.split(':');
    for byte in &mut mac {
        let group = groups.next().filter(|group| group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(group, 16).ok()?;
    }
    let single_host = mac[0] & 1 == 0 && mac != [0; 6];
    (groups.next().is_none() && single_host).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_carry_their_prefix() {
        let own = parse_with_prefix("192.0.2.10/24").unwrap();
        assert_eq!(own.network().to_string(), "192.0.2.0/24");
        assert_eq!(parse_with_prefix("2001:db8::1/64").unwrap().prefix_bits, 64);
        for text in ["192.0.2.10", "192.0.2.10/", "192.0.2.10/33", "192.0.2.10/0", "192.0.2.10/+8", "x/24"] {
            assert_eq!(parse_with_prefix(text), None, "{text}");
        }
    }

    #[test]
    fn only_hosts_have_addresses() {
        let link = |text: &str| parse_with_prefix(text).map(|own| is_host_of(own.address, &own.network()));
        for text in ["192.0.2.1/24", "192.0.2.0/31", "192.0.2.255/32", "2001:db8::/64", "fe80::1/64"] {
            assert_eq!(link(text), Some(true), "{text}");
        }
        for text in
            ["192.0.2.0/24", "192.0.2.255/24", "224.0.0.1/24", "127.0.0.1/8", "0.0.0.1/8", "ff02::1/64", "::/64"]
        {
            assert_eq!(link(text), Some(false), "{text}");
        }
    }

    #[test]
    fn mac_addresses_name_single_hosts() {
        assert_eq!(parse_mac("02:00:5e:10:00:FF"), Some([2, 0, 0x5e, 0x10, 0, 0xff]));
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "02-00-5e-10-00-01",
            "+2:00:5e:10:00:01",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
