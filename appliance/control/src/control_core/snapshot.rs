//! What operators see, taken from the control core and the data cores' counters.

use datapath::counters::Balance;
use ipsec::sa::{PeerId, SaParameters};
use ipsec::time::Instant;
use wire::flow::FlowKey;

use super::listing::{Entry, Search};
use super::registry::{Half, Registered};
use super::{ControlCore, Listing};
use crate::report::{BalanceRow, ConnectionRow, CoreRow, PortRow, SaRow, SaTraffic, Snapshot, WhereRow};

/// The state of a connection that another member terminates: only that one knows more.
const ROUTED: &str = "routed";

/// What the control core cannot know by itself.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The ports, as their devices see them.
    pub ports: Vec<PortRow>,
    /// The processors' numbers for the data cores, in order.
    pub data_cpus: Vec<u16>,
    /// The processor's number for the control core.
    pub control_cpu: u16,
}

impl<B> ControlCore<B> {
    /// The appliance's state now. `listing` holds the connections, if they were asked for.
    pub fn snapshot(&mut self, now: Instant, surroundings: Surroundings, listing: Option<Listing>) -> Snapshot {
        let sas: Vec<SaRow> = self.registry.iter().flat_map(|sa| self.rows_of(sa)).collect();
        self.registry.totals.observe(&sas);
        let mut snapshot = Snapshot {
            uptime: now.saturating_since(Instant::ZERO),
            drops: self.drop_rows(),
            balance: self.balance_row(),
            connections: listing.map(|listing| self.connection_rows(&listing)).unwrap_or_default(),
            cores: self.core_rows(&surroundings),
            ports: surroundings.ports,
            children: self.registry.totals.totals(),
            ike_events: self.ike_events(),
            ike_sas: self.ike_sas(),
            sas,
            ..Snapshot::default()
        };
        self.show_cluster(now, &mut snapshot);
        snapshot
    }

    fn rows_of(&self, sa: &Registered) -> Vec<SaRow> {
        sa.rows(|dvipa| self.outbound_sequences.get(&dvipa).map_or("auto", |word| word.as_str()))
    }

    fn balance_row(&self) -> BalanceRow {
        let balance = Balance::of(self.cores.ledgers());
        let Balance { received, delivered, forwarded, punted, merged, dropped, originated, held, relayed, making } =
            balance;
        let difference = balance.difference();
        BalanceRow {
            received,
            delivered,
            forwarded,
            punted,
            merged,
            dropped,
            originated,
            held,
            relayed,
            making,
            difference,
        }
    }

    /// What ends here, and what is routed to others.
    fn connection_rows(&self, listing: &Listing) -> Vec<ConnectionRow> {
        let peers = self.registry.peers();
        let row = |core: usize, peer: PeerId, flow: &FlowKey, state: &str, target: String| {
            let known = peers.get(&peer);
            ConnectionRow {
                peer: known.map_or_else(|| peer.to_string(), |(name, _)| name.to_string()),
                // A peer that has gone has taken its SAs along.
                dvipa: known.map_or(flow.dst, |(_, dvipa)| *dvipa),
                src: ConnectionRow::endpoint(flow.src, flow.src_port, flow.protocol),
                dst: ConnectionRow::endpoint(flow.dst, flow.dst_port, flow.protocol),
                protocol: ConnectionRow::protocol_name(flow.protocol),
                state: state.to_owned(),
                target,
                core: core as u16,
            }
        };
        let own = self.own_name();
        let ends_here = listing.connections().iter().map(|(core, connection)| {
            row(*core, connection.peer, &connection.flow, connection.state.name(), own.clone())
        });
        let is_elsewhere = |(_, (_, route)): &&(usize, Entry)| !self.is_me(route.target);
        let routed = listing
            .entries()
            .iter()
            .filter(is_elsewhere)
            .map(|(core, (key, route))| row(*core, key.peer, &key.flow, ROUTED, self.member_name(route.target)));
        ends_here.chain(routed).collect()
    }

    /// Where the connections that were looked for are.
    pub(super) fn where_rows(&self, now: Instant, search: &Search) -> Vec<WhereRow> {
        let peers = self.registry.peers();
        let row = |peer: PeerId, flow: &FlowKey, target: String, known_by: &str, why: &str| WhereRow {
            peer: peers.get(&peer).map_or_else(|| peer.to_string(), |(name, _)| name.to_string()),
            src: ConnectionRow::endpoint(flow.src, flow.src_port, flow.protocol),
            dst: ConnectionRow::endpoint(flow.dst, flow.dst_port, flow.protocol),
            protocol: ConnectionRow::protocol_name(flow.protocol),
            target,
            known_by: known_by.to_owned(),
            why: why.to_owned(),
            age_ms: None,
            quiet_ms: None,
        };
        let millis_since = |at| Some(now.saturating_since(at).as_millis() as u64);
        let ends_here = search.connection.iter().map(|found| {
            let why = if found.is_routed {
                "the owner of its address routes it here"
            } else {
                "its packets come straight to this appliance"
            };
            let row = row(found.peer, &found.flow, self.own_name(), "connection", why);
            WhereRow { quiet_ms: millis_since(found.seen), ..row }
        });
        let routed = search.entries.iter().map(|(key, route)| {
            let why = "its first authenticated packet was given there, and its entry still stands";
            let row = row(key.peer, &key.flow, self.member_name(route.target), "entry", why);
            WhereRow { age_ms: millis_since(route.created), ..row }
        });
        ends_here.chain(routed).collect()
    }

    fn core_rows(&self, surroundings: &Surroundings) -> Vec<CoreRow> {
        let data = self.cores.iter().zip(0..).map(|(core, number)| CoreRow {
            core: number,
            cpu: surroundings.data_cpus.get(usize::from(number)).copied().unwrap_or_default(),
            role: "data".to_owned(),
            thread: format!("data-{number}"),
            busy_polls: core.polls.busy.get(),
            idle_polls: core.polls.idle.get(),
            handed_over: core.ledger.handed_over.get(),
            connections: core.polls.connections.get(),
        });
        let control = CoreRow {
            core: self.cores.len() as u16,
            cpu: surroundings.control_cpu,
            role: "control".to_owned(),
            thread: "control".to_owned(),
            busy_polls: self.busy_polls,
            idle_polls: self.idle_polls,
            handed_over: 0,
            connections: 0,
        };
        data.chain([control]).collect()
    }

    fn ike_events(&self) -> Vec<(&'static str, u64)> {
        let counters = self.ike.counters();
        vec![
            ("datagrams_received", counters.datagrams_received),
            ("datagrams_sent", counters.datagrams_sent),
            ("requests_repeated", counters.requests_repeated),
            ("requests_resent", counters.requests_resent),
            ("cookies_sent", counters.cookies_sent),
            ("cookies_accepted", counters.cookies_accepted),
            ("key_exchanges", counters.key_exchanges),
            ("half_open_begun", counters.half_open_begun),
            ("half_open_expired", counters.half_open_expired),
            ("refused", counters.refused),
            ("authentication_failed", counters.authentication_failed),
            ("ike_up", counters.ike_up),
            ("ike_rekeyed", counters.ike_rekeyed),
            ("ike_down", counters.ike_down),
            ("child_up", counters.child_up),
            ("child_down", counters.child_down),
            ("collisions", counters.collisions),
            ("peers_dead", counters.peers_dead),
        ]
    }

    fn ike_sas(&self) -> Vec<(&'static str, u64)> {
        let occupancy = self.ike.occupancy();
        vec![
            ("established", occupancy.ike_sas as u64),
            ("half_open", occupancy.half_open as u64),
            ("initiating", occupancy.initiating as u64),
        ]
    }
}

impl Registered {
    /// A row for each direction.
    pub(super) fn rows<'a>(&self, outbound_sequence: impl Fn(core::net::IpAddr) -> &'a str) -> Vec<SaRow> {
        let row = |id: u64, sa: &SaParameters, engine: String, traffic: SaTraffic| {
            SaRow::of(id, sa, &engine, outbound_sequence(sa.dvipa), traffic)
        };
        let inbound = self.inbound.as_ref().map(|half| {
            let shared = &half.shared;
            row(2 * self.id, shared.parameters(), shared.engine_kind().to_string(), half.traffic())
        });
        let outbound = self.outbound.as_ref().map(|half| {
            let shared = &half.shared;
            row(2 * self.id + 1, shared.parameters(), shared.engine_kind().to_string(), half.traffic())
        });
        inbound.into_iter().chain(outbound).collect()
    }
}

impl<S> Half<S> {
    fn traffic(&self) -> SaTraffic {
        SaTraffic { packets: self.packets(), bytes: self.bytes(), replay_drops: self.replay_drops() }
    }
}
