//! `routes:` and `dvipas:` — where packets go, and which addresses are virtual.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipsec::selector::AddressRange;

use super::error::{ConfigError, listed, quoted};
use super::place::Place;
use super::ports::{OwnAddresses, Port, Role, host_address, is_host_of, refuse_ipv6};
use super::raw::{self, List, Word};
use super::word::{choice, choice_with_unserved, number};

/// More services than this no DVIPA lists.
pub const SERVICES_MAX: usize = 256;

const NEEDS_CLUSTER: &str = "it needs a cluster, and clusters are not built yet";

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// To whom: always a prefix.
    pub to: AddressRange,
    /// The next hop, a neighbour on the port's link.
    pub via: IpAddr,
    /// Which of [`Config::ports`](super::Config::ports).
    pub port: usize,
}

/// Where the IPsec work of a DVIPA is done (DESIGN: two ways to process).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Processing {
    /// At the target: the distributor only peeks.
    #[default]
    Target,
    /// At the distributor, which forwards plain packets.
    Distributor,
}

impl fmt::Display for Processing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Target => "target",
            Self::Distributor => "distributor",
        })
    }
}

/// How several senders share the sequence numbers of outbound SAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundSequence {
    /// An SA of its own for each sender where the peer agrees, else [`OutboundSequence::Sequencer`].
    #[default]
    Auto,
    /// The distributor gives numbers out, a burst at a time.
    Sequencer,
    /// The distributor encrypts for everyone.
    ViaDistributor,
    /// Blocks of numbers, for peers with large windows.
    LeasedBlocks,
}

impl fmt::Display for OutboundSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Sequencer => "sequencer",
            Self::ViaDistributor => "via-distributor",
            Self::LeasedBlocks => "leased-blocks",
        })
    }
}

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl ServiceProtocol {
    /// Its number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A port that a DVIPA serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Its protocol.
    pub protocol: ServiceProtocol,
    /// Its port.
    pub port: u16,
}

/// A virtual address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dvipa {
    /// The address.
    pub address: IpAddr,
    /// Which of [`Config::ports`](super::Config::ports) answers for it; its role is network.
    pub port: usize,
    /// Where its IPsec work is done.
    pub processing: Processing,
    /// How its outbound SAs are numbered.
    pub outbound_sequence: OutboundSequence,
    /// What it serves: clients reach nothing else of it, whatever their SAs' selectors admit. Empty means every port.
    pub services: Vec<Service>,
}

/// Validates `routes:`.
pub(super) fn validate_routes(
    top: &Place<'_>,
    list: Option<Vec<raw::Route>>,
    ports: &[Port],
    own: &OwnAddresses,
) -> Result<Vec<Route>, ConfigError> {
    let here = top.key("routes");
    let mut lines = BTreeMap::new();
    let mut routes = Vec::new();
    for (place, raw) in here.items(list.unwrap_or_default()) {
        let to = prefix(&place.key("to"), &raw.to)?;
        refuse_ipv6(&place.key("to"), &raw.to, to.is_ipv4())?;
        let via_place = place.key("via");
        let via = host_address(&via_place, &raw.via)?;
        if via.is_ipv4() != to.is_ipv4() {
            return Err(via_place.invalid(&raw.via, format!("a next hop of the same family as {to}")));
        }
        if own.hold(via) {
            return Err(via_place.invalid(&raw.via, "a neighbour's address, not one of our own"));
        }
        let port = match &raw.port {
            Some(word) => Some(port_by_name(&place.key("port"), word, ports, None)?),
            None => None,
        };
        let port = port_of_next_hop(&via_place, &raw.via, via, port, ports)?;
        if let Some(line) = lines.insert(to.to_string(), raw.to.referenced.line()) {
            return Err(place.key("to").duplicate(&raw.to, line, "each prefix once"));
        }
        routes.push(Route { to, via, port });
    }
    Ok(routes)
}

fn port_of_next_hop(
    place: &Place<'_>,
    word: &Word,
    via: IpAddr,
    named: Option<usize>,
    ports: &[Port],
) -> Result<usize, ConfigError> {
    let reachable = |(index, port): &(usize, &Port)| {
        named.is_none_or(|named| named == *index)
            && port.addresses.iter().any(|own| own.network().contains(via) && is_host_of(via, &own.network()))
    };
    if let Some((index, _)) = ports.iter().enumerate().find(reachable) {
        return Ok(index);
    }
    let links = ports.iter().enumerate().filter(|(index, _)| named.is_none_or(|named| named == *index));
    let links: Vec<String> = links.flat_map(|(_, port)| &port.addresses).map(|own| own.network().to_string()).collect();
    let allowed = match links.len() {
        0 => "a host on the link of a port, but no port here has an address".to_owned(),
        _ => format!("a host on a port's link: {}", links.join(", ")),
    };
    Err(place.dangling(word, allowed, "correct the next hop, or give the port an address on its link"))
}

/// Validates `dvipas:`.
pub(super) fn validate_dvipas(
    top: &Place<'_>,
    list: Option<Vec<raw::Dvipa>>,
    ports: &[Port],
    own: &mut OwnAddresses,
) -> Result<Vec<Dvipa>, ConfigError> {
    let here = top.key("dvipas");
    let mut dvipas: Vec<Dvipa> = Vec::new();
    for (place, raw) in here.items(list.unwrap_or_default()) {
        let port = port_by_name(&place.key("port"), &raw.port, ports, Some(Role::Network))?;
        let at = place.key("address");
        let address = host_address(&at, &raw.address)?;
        own.claim(&at, &raw.address, address)?;
        own.refuse_on_other_link(&at, &raw.address, &AddressRange::single(address), port)?;
        let on_link = |link: &AddressRange| link.contains(address) && !is_host_of(address, link);
        if ports[port].addresses.iter().any(|own| on_link(&own.network())) {
            return Err(at.invalid(&raw.address, "the address of a host, not that of the network or of all hosts"));
        }
        dvipas.push(Dvipa {
            address,
            port,
            processing: match &raw.processing {
                None => Processing::default(),
                Some(word) => choice_with_unserved(
                    &place.key("processing"),
                    word,
                    &[("target", Processing::Target)],
                    &["distributor"],
                    NEEDS_CLUSTER,
                )?,
            },
            outbound_sequence: match &raw.outbound_sequence {
                None => OutboundSequence::default(),
                Some(word) => choice_with_unserved(
                    &place.key("outbound_sequence"),
                    word,
                    &[("auto", OutboundSequence::Auto)],
                    &["sequencer", "via-distributor", "leased-blocks"],
                    NEEDS_CLUSTER,
                )?,
            },
            services: validate_services(&place.key("services"), raw.services)?,
        });
    }
    Ok(dvipas)
}

fn validate_services(here: &Place<'_>, list: Option<List<raw::Service>>) -> Result<Vec<Service>, ConfigError> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let mut lines = BTreeMap::new();
    let mut services = Vec::new();
    for (place, raw) in here.some_items(list, SERVICES_MAX)? {
        let protocols = [("tcp", ServiceProtocol::Tcp), ("udp", ServiceProtocol::Udp)];
        let protocol = choice(&place.key("protocol"), &raw.protocol, &protocols)?;
        let service = Service { protocol, port: number(&place.key("port"), &raw.port, 1..=u16::MAX)? };
        if let Some(line) = lines.insert(service, raw.port.referenced.line()) {
            return Err(place.key("port").duplicate(&raw.port, line, "each service once"));
        }
        services.push(service);
    }
    Ok(services)
}

fn prefix(place: &Place<'_>, word: &Word) -> Result<AddressRange, ConfigError> {
    let range: Option<AddressRange> = word.value.parse().ok();
    range.filter(|range| range.as_prefix().is_some()).ok_or_else(|| {
        let mut allowed = "a prefix without host bits, such as 10.0.0.0/8 or 0.0.0.0/0".to_owned();
        if let Err(error) = word.value.parse::<AddressRange>() {
            allowed = format!("{allowed} ({error})");
        }
        place.invalid(word, allowed)
    })
}

/// The port of that name, and of that role if one is asked for.
fn port_by_name(place: &Place<'_>, word: &Word, ports: &[Port], role: Option<Role>) -> Result<usize, ConfigError> {
    let fits = |port: &Port| role.is_none_or(|role| port.role == role);
    let allowed = || match listed(ports.iter().filter(|port| fits(port)).map(|port| &*port.name)) {
        names if names.is_empty() => "the name of a port, but no port fits".to_owned(),
        names => names,
    };
    match ports.iter().position(|port| *port.name == *word.value) {
        Some(index) if fits(&ports[index]) => Ok(index),
        Some(index) => {
            let found = format!("{}, whose role is {}", quoted(&word.value), ports[index].role);
            let remedy = "a DVIPA is answered for on a network port";
            Err(ConfigError::Dangling(place.fault(word.referenced, found, allowed(), remedy)))
        }
        None => Err(place.dangling(word, allowed(), "name one of `ports:`")),
    }
}
