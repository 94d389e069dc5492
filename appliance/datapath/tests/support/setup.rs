//! What a bench is made of: sizes, routes, policy, and the SAs as its cores take them.

use std::net::IpAddr;
use std::sync::Arc;

use cluster::id::MemberId;
use datapath::cluster::ClusterCapacity;
use datapath::connections::Timeouts;
use datapath::core::Capacity;
use datapath::forwarding::{Mac, PortFacts, PortRole};
use datapath::policy::{Filter, Service};
use datapath::routes::{PortId, RouteTable, StaticRoute};
use datapath::sas::{InboundEntry, Notes, OutboundEntry};
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy};
use ipsec::selector::Selectors;
use ipsec::spd::{self, Action};

use super::client::Client;
use super::packets::{ROUTER, WEB};
use super::{INSIDE, NETWORK, TRUSTED};

/// How a bench is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub cores: usize,
    pub vlan: Option<u16>,
    pub network_mtu: usize,
    pub inside_mtu: usize,
    /// Frames that fit on each link in each direction.
    pub link_frames: usize,
    pub pool_frames: usize,
    pub frame_len: usize,
    pub capacity: Capacity,
    pub timeouts: Timeouts,
    pub policies: Vec<spd::Policy>,
    pub services: Vec<Service>,
    pub filters: Vec<Filter>,
    /// Whether the next hops are known from the start.
    pub neighbours: bool,
    /// Which member of a cluster this is, if it is in one.
    pub member: Option<MemberId>,
    pub trusted_mtu: usize,
    pub cluster: ClusterCapacity,
}

impl Setup {
    pub fn of(cores: usize) -> Setup {
        Setup {
            cores,
            vlan: None,
            network_mtu: 1500,
            inside_mtu: 1500,
            link_frames: 4_096,
            pool_frames: 8_192,
            frame_len: 2_048,
            capacity: Capacity { connections: 1_024, sas: 64, handover: 256 },
            timeouts: Timeouts::default(),
            policies: vec![protect("203.0.113.80/32", "0.0.0.0/0")],
            services: Vec::new(),
            filters: Vec::new(),
            neighbours: true,
            member: None,
            trusted_mtu: 1_700,
            cluster: ClusterCapacity {
                entries_v4: 1_024,
                entries_v6: 0,
                affinities: 16,
                fragments: 64,
                packet_len: 2_048,
            },
        }
    }
}

/// A rule of the SPD.
pub fn rule(local: &str, remote: &str, action: Action) -> spd::Policy {
    let ts = |text: &str| vec![text.parse().unwrap()];
    spd::Policy { selectors: Selectors { local: ts(local), remote: ts(remote) }, action }
}

/// The rule that protects what the tests' SAs carry.
pub fn protect(local: &str, remote: &str) -> spd::Policy {
    rule(local, remote, Action::Protect { child: "web".into() })
}

pub(super) fn facts(id: PortId, role: PortRole, mac: Mac, mtu: usize, vlan: Option<u16>) -> PortFacts {
    PortFacts { id, role, mac, mtu, vlan }
}

/// The routes of the bench, with or without the one towards clients.
pub fn routes(default: bool) -> RouteTable {
    let port = |to: &str, port| (to.parse().unwrap(), port);
    let connected = [port("192.0.2.0/24", NETWORK), port("10.9.0.0/24", INSIDE), port("10.255.0.0/24", TRUSTED)];
    let via = |to: &str, via: IpAddr| StaticRoute { to: to.parse().unwrap(), via: Some(via), port: None };
    let mut routes = vec![via("203.0.113.80/32", WEB.into()), via("203.0.113.81/32", WEB.into())];
    if default {
        routes.push(via("0.0.0.0/0", ROUTER.into()));
    }
    RouteTable::new(&connected, &routes).unwrap()
}

pub fn inbound_entry(client: &Client, core: usize) -> Box<InboundEntry> {
    let notes = Notes::new(client.spec.tell_first_packet);
    let totals = Arc::clone(&client.totals_in);
    Box::new(InboundEntry::new(Arc::clone(&client.inbound), client.spec.inner_mtu, notes, totals, core))
}

pub fn outbound_entry(client: &Client, shared: &Arc<OutboundShared>, core: usize) -> Box<OutboundEntry> {
    let numbers = || OutboundSa::new(Arc::clone(shared), 1, OuterPolicy::default());
    Box::new(OutboundEntry {
        shared: Arc::clone(shared),
        remote: client.spec.remote.into(),
        inner_mtu: client.spec.inner_mtu,
        home: client.spec.home,
        sealing: (core == client.spec.home).then(numbers),
        notes: Notes::default(),
        totals: Arc::clone(&client.totals_out),
    })
}
