//! `dvipas:` — the virtual addresses, who owns and who serves each, and how its connections are shared out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cluster::dpt::Method;
use cluster::fabric::Processing;
use cluster::id::MemberId;
use cluster::member::SequencePolicy;
use ipsec::selector::AddressRange;

use super::error::{ConfigError, listed};
use super::membership::{Cluster, MEMBERS_MAX, members_of};
use super::place::Place;
use super::ports::{OwnAddresses, Port, Role, host_address, is_host_of};
use super::raw::{self, List, Word};
use super::routes::port_by_name;
use super::word::{choice, choice_with_unserved, duration, number, truth};

/// More services than this no DVIPA lists.
pub const SERVICES_MAX: usize = 256;

const NEEDS_CLUSTER: &str = "it needs several appliances: add `cluster:`";
const WEIGHT_MAX: u16 = 1_000;
/// The narrowest replay window that clients are known to have: strongSwan's with the kernel's ESP.
const PEER_WINDOW_PACKETS: u32 = 32;
const SIBLINGS_MAX: u8 = 8;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Dvipa {
    /// The address.
    pub address: IpAddr,
    /// Which of [`Config::ports`](super::Config::ports) it is reached by: the owner answers for it there, every target
    /// sends there.
    pub port: usize,
    /// Where its IPsec work is done.
    pub processing: Processing,
    /// How its outbound SAs are numbered.
    pub outbound_sequence: SequencePolicy,
    /// What it serves: clients reach nothing else of it, whatever their SAs' selectors admit. Empty means every port.
    pub services: Vec<Service>,
    /// Who may own it, by rank. Empty without a cluster.
    pub owners: Vec<MemberId>,
    /// Who serves it. Empty without a cluster.
    pub targets: Vec<DvipaTarget>,
    /// How new connections are shared out among them.
    pub distribution: Distribution,
    /// The narrowest replay window of its clients, in packets: how far the sequencer lets senders get apart.
    pub peer_window_packets: u32,
    /// Siblings that one peer is asked for at most.
    pub siblings_max: u8,
}

/// A member that serves a DVIPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DvipaTarget {
    /// Which.
    pub member: MemberId,
    /// Its share, compared with the others'.
    pub weight: u16,
}

/// How a DVIPA's new connections are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// By which rule.
    pub method: Method,
    /// How long a client's next connection goes where its last one went.
    pub affinity: Option<Duration>,
    /// The owner itself, if it is a ready target, before all others.
    pub local_first: bool,
}

/// Validates `dvipas:`.
pub(super) fn validate(
    top: &Place<'_>,
    list: Option<Vec<raw::Dvipa>>,
    ports: &[Port],
    cluster: Option<&Cluster>,
    own: &mut OwnAddresses,
) -> Result<Vec<Dvipa>, ConfigError> {
    let here = top.key("dvipas");
    let mut dvipas: Vec<Dvipa> = Vec::new();
    for (place, mut raw) in here.items(list.unwrap_or_default()) {
        let port = port_by_name(&place.key("port"), &raw.port, ports, Some(Role::Network))?;
        let at = place.key("address");
        let address = host_address(&at, &raw.address)?;
        own.claim(&at, &raw.address, address)?;
        own.refuse_on_other_link(&at, &raw.address, &AddressRange::single(address), port)?;
        let on_link = |link: &AddressRange| link.contains(address) && !is_host_of(address, link);
        if ports[port].addresses.iter().any(|own| on_link(&own.network())) {
            return Err(at.invalid(&raw.address, "the address of a host, not that of the network or of all hosts"));
        }
        let services = validate_services(&place.key("services"), raw.services.take())?;
        let (processing, outbound_sequence) = (processing(&place, &raw, cluster)?, sequence(&place, &raw, cluster)?);
        let members = validate_shares(&place, raw, cluster)?;
        dvipas.push(Dvipa { address, port, processing, outbound_sequence, services, ..members });
    }
    Ok(dvipas)
}

/// A word of a table, all but the first of which need a cluster.
fn word_of_cluster<T: Copy + Default>(
    place: &Place<'_>,
    word: Option<&Word>,
    table: &[(&str, T)],
    cluster: Option<&Cluster>,
) -> Result<T, ConfigError> {
    match (word, cluster) {
        (None, _) => Ok(T::default()),
        (Some(word), Some(_)) => choice(place, word, table),
        (Some(word), None) => {
            let (alone, others) = table.split_at(1);
            let others: Vec<&str> = others.iter().map(|(name, _)| *name).collect();
            choice_with_unserved(place, word, alone, &others, NEEDS_CLUSTER)
        }
    }
}

fn processing(place: &Place<'_>, raw: &raw::Dvipa, cluster: Option<&Cluster>) -> Result<Processing, ConfigError> {
    let table = [("target", Processing::Target), ("distributor", Processing::Distributor)];
    word_of_cluster(&place.key("processing"), raw.processing.as_ref(), &table, cluster)
}

fn sequence(place: &Place<'_>, raw: &raw::Dvipa, cluster: Option<&Cluster>) -> Result<SequencePolicy, ConfigError> {
    let table = [
        ("auto", SequencePolicy::Auto),
        ("sequencer", SequencePolicy::Sequencer),
        ("via-distributor", SequencePolicy::ViaDistributor),
        ("leased-blocks", SequencePolicy::LeasedBlocks),
    ];
    word_of_cluster(&place.key("outbound_sequence"), raw.outbound_sequence.as_ref(), &table, cluster)
}

/// What says who owns and serves a DVIPA, in a [`Dvipa`] whose other fields are yet to be filled in.
fn validate_shares(place: &Place<'_>, raw: raw::Dvipa, cluster: Option<&Cluster>) -> Result<Dvipa, ConfigError> {
    let mut shares = Dvipa {
        address: IpAddr::from([0; 4]),
        port: 0,
        processing: Processing::default(),
        outbound_sequence: SequencePolicy::default(),
        services: Vec::new(),
        owners: Vec::new(),
        targets: Vec::new(),
        distribution: Distribution::default(),
        peer_window_packets: PEER_WINDOW_PACKETS,
        siblings_max: SIBLINGS_MAX,
    };
    let raw::Dvipa { address, owners, targets, distribution, affinity, local_first, switch_back, .. } = raw;
    let Some(cluster) = cluster else {
        let lists = [("owners", owners.is_some()), ("targets", targets.is_some())];
        let words = [&distribution, &affinity, &local_first, &switch_back, &raw.peer_window, &raw.max_siblings];
        if let Some((key, _)) = lists.iter().find(|(_, stands)| *stands) {
            return Err(place.key(key).unserved(&address, "nothing", NEEDS_CLUSTER));
        }
        return match words.into_iter().flatten().next() {
            Some(word) => Err(place.unserved(word, "nothing", NEEDS_CLUSTER)),
            None => Ok(shares),
        };
    };
    let Some(owners) = owners else {
        return Err(place.missing(&address, "owners", "the members that may own it, by rank"));
    };
    shares.owners = members_of(&place.key("owners"), owners, cluster)?;
    let Some(targets) = targets else {
        return Err(place.missing(&address, "targets", "the members that serve it"));
    };
    shares.targets = validate_targets(&place.key("targets"), targets, cluster)?;
    shares.distribution = validate_distribution(place, distribution, affinity, local_first, switch_back)?;
    if let Some(word) = &raw.peer_window {
        shares.peer_window_packets = number(&place.key("peer_window"), word, 4..=65_536)?;
    }
    if let Some(word) = &raw.max_siblings {
        shares.siblings_max = number(&place.key("max_siblings"), word, 1..=64)?;
    }
    Ok(shares)
}

fn validate_targets(
    here: &Place<'_>,
    list: List<raw::Target>,
    cluster: &Cluster,
) -> Result<Vec<DvipaTarget>, ConfigError> {
    let mut targets: Vec<DvipaTarget> = Vec::new();
    for (place, raw) in here.some_items(list, MEMBERS_MAX)? {
        let at = place.key("member");
        let member = cluster.member(&at, &raw.member)?;
        if targets.iter().any(|target| target.member == member) {
            return Err(at.conflict(&raw.member, "which stands there already", "each member once"));
        }
        let weight = match &raw.weight {
            None => 1,
            Some(word) => number(&place.key("weight"), word, 1..=WEIGHT_MAX)?,
        };
        targets.push(DvipaTarget { member, weight });
    }
    Ok(targets)
}

fn validate_distribution(
    place: &Place<'_>,
    method: Option<Word>,
    affinity: Option<Word>,
    local_first: Option<Word>,
    switch_back: Option<Word>,
) -> Result<Distribution, ConfigError> {
    let mut distribution = Distribution::default();
    if let Some(word) = method {
        let at = place.key("distribution");
        let allowed = || listed(Method::words());
        distribution.method = word.value.parse().map_err(|_| at.invalid(&word, allowed()))?;
    }
    if let Some(word) = affinity {
        let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
        distribution.affinity = Some(duration(&place.key("affinity"), &word, range)?);
    }
    if let Some(word) = local_first {
        distribution.local_first = truth(&place.key("local_first"), &word)?;
    }
    if let Some(word) = switch_back {
        let at = place.key("switch_back");
        let Method::HotStandby { switches_back } = &mut distribution.method else {
            return Err(at.conflict(&word, "without a standby", "beside `distribution: hot-standby`"));
        };
        *switches_back = truth(&at, &word)?;
    }
    Ok(distribution)
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
