//! `routes:` — where packets go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipsec::selector::AddressRange;

use super::error::{ConfigError, listed, quoted};
use super::place::Place;
use super::ports::{OwnAddresses, Port, Role, host_address, is_host_of, refuse_ipv6};
use super::raw::{self, Word};

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

pub(super) fn prefix(place: &Place<'_>, word: &Word) -> Result<AddressRange, ConfigError> {
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
pub(super) fn port_by_name(
    place: &Place<'_>,
    word: &Word,
    ports: &[Port],
    role: Option<Role>,
) -> Result<usize, ConfigError> {
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
