use super::tombs::{OUTLIVES_PEER, Verified};
use super::*;
use crate::testing::proof;
use core::net::IpAddr;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn flow(port: u16, protocol: u8) -> FlowKey {
    let (src, dst): (IpAddr, IpAddr) = ([10, 7, 0, 9].into(), [203, 0, 113, 80].into());
    FlowKey { src, dst, protocol, src_port: port, dst_port: 80 }
}

/// So poor that most entries share a bucket, and many a tag.
fn poor_hash(flow: &FlowKey) -> u64 {
    let port = u64::from(flow.src_port.max(flow.dst_port));
    ((port % 2) << 48) | (port % 3)
}

/// Peers 0 and 1 are the same identity twice; 3 can be sent nothing.
fn identity(peer: PeerId) -> Option<Identity> {
    (peer.0 != 3).then(|| Identity::new(1 + peer.0 / 2))
}

/// A peer that has no SA left.
const GONE: PeerId = PeerId(2);

/// A connection as a plain reading of [`State`]'s words has it.
#[derive(Debug, Clone, Copy)]
struct Known {
    peer: PeerId,
    seen: Instant,
    answered: bool,
    fins: (bool, bool),
    reset: bool,
}

impl Known {
    fn fresh(now: Instant, peer: PeerId) -> Known {
        Known { peer, seen: now, answered: false, fins: (false, false), reset: false }
    }

    fn state(self) -> State {
        match (self.answered, self.fins, self.reset) {
            (_, _, true) | (_, (true, true), _) => State::Closed,
            (_, (false, false), _) if self.answered => State::Established,
            (_, (false, false), _) => State::New,
            (_, (true, false) | (false, true), _) => State::Closing,
        }
    }

    fn hears(&mut self, now: Instant, by_client: bool, tcp: Option<Flags>) {
        self.seen = now;
        let flags = tcp.unwrap_or(Flags::NONE);
        let ended = matches!(self.state(), State::Closing | State::Closed);
        if ended && by_client && flags.opens_connection() {
            *self = Known::fresh(now, self.peer);
            return;
        }
        self.answered |= !by_client;
        self.reset |= flags.contains(Flags::RST);
        if flags.contains(Flags::FIN) {
            self.fins.0 |= by_client;
            self.fins.1 |= !by_client;
        }
    }

    fn patience(self, protocol: u8) -> Duration {
        let seconds = match (self.state(), protocol) {
            (State::New, _) => 30,
            (State::Established, 6) => 7_440,
            (State::Established, _) => 120,
            (State::Closing, _) => 240,
            (State::Closed, _) => 10,
            (State::Ended { .. }, _) => unreachable!("nothing is routed here"),
        };
        Duration::from_secs(seconds)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Client { peer: u64, port: u16, tcp: Option<u8> },
    Service { port: u16, tcp: Option<u8> },
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Mostly the flags that matter, SYN, FIN, RST and ACK, alone and together.
    let tcp = prop::option::of(prop::sample::select(vec![0x02_u8, 0x10, 0x12, 0x01, 0x11, 0x04, 0x14, 0x06, 0x03]));
    prop::collection::vec(
        prop_oneof![
            4 => (0_u64..4, 0_u16..9, tcp.clone()).prop_map(|(peer, port, tcp)| Step::Client { peer, port, tcp }),
            2 => (0_u16..9, tcp).prop_map(|(port, tcp)| Step::Service { port, tcp }),
            1 => (0_u64..300).prop_map(|seconds| Step::Wait { seconds }),
        ],
        1..150,
    )
}

/// What a client says, without a cluster.
fn spoken(peer: PeerId, flow: &FlowKey, tcp: Option<Flags>) -> Spoken<'_> {
    Spoken { peer, flow, hash: poor_hash(flow), tcp, is_routed: false }
}

fn protocol(tcp: Option<u8>) -> u8 {
    if tcp.is_some() { TCP } else { 17 }
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_map(capacity in 0_usize..60, steps in steps()) {
        let proof = proof();
        let mut table = Connections::new(capacity, Timeouts::default());
        let mut model: BTreeMap<FlowKey, Known> = BTreeMap::new();
        let mut now = Instant::from_secs(1);
        for step in steps {
            now = now.saturating_add(Duration::from_nanos(1));
            match step {
                Step::Client { peer, port, tcp } => {
                    let (peer, flow, tcp) = (PeerId(peer), flow(port, protocol(tcp)), tcp.map(Flags::from_bits));
                    let found = table.client_spoke(now, spoken(peer, &flow, tcp), || identity(peer), &proof);
                    let held = model.get(&flow).copied();
                    let is_one = |held: Known| identity(peer).is_some() && identity(peer) == identity(held.peer);
                    let is_others =
                        held.is_some_and(|held| held.peer != peer && held.state() != State::Closed && !is_one(held));
                    if held.is_none() && model.len() == capacity {
                        prop_assert_eq!(found, Err(Refusal::TableFull));
                    } else if is_others {
                        prop_assert_eq!(found, Err(Refusal::OthersFlow));
                    } else {
                        let mut known = held.filter(|held| held.peer == peer).unwrap_or(Known::fresh(now, peer));
                        known.hears(now, true, tcp);
                        model.insert(flow, known);
                        prop_assert_eq!(found, Ok(known.state()));
                    }
                }
                Step::Service { port, tcp } => {
                    let answer = flow(port, protocol(tcp)).reversed();
                    let tcp = tcp.map(Flags::from_bits);
                    let answered = table.answered(poor_hash(&answer), &answer);
                    let known = model.get_mut(&answer.reversed());
                    prop_assert_eq!(answered.as_ref().map(|found| found.peer), known.as_ref().map(|known| known.peer));
                    if let (Some(connection), Some(known)) = (answered, known) {
                        connection.service_spoke(now, tcp);
                        known.hears(now, false, tcp);
                    }
                }
                Step::Wait { seconds } => {
                    now = now.saturating_add(Duration::from_secs(seconds));
                    table.sweep(now, capacity, poor_hash, |peer| peer == GONE, |_| unreachable!("nothing is routed here"), |_| unreachable!("nothing is routed here"));
                    model.retain(|flow, known| {
                        let soon = if known.peer == GONE { Duration::from_secs(240) } else { Duration::MAX };
                        now.saturating_since(known.seen) <= known.patience(flow.protocol).min(soon)
                    });
                }
            }
            let mut page = Vec::with_capacity(capacity);
            prop_assert_eq!(table.list(0, &mut page), None);
            let listed: BTreeMap<_, _> = page.iter().map(|entry| (entry.flow, (entry.peer, entry.state))).collect();
            let known: BTreeMap<_, _> = model.iter().map(|(flow, known)| (*flow, (known.peer, known.state()))).collect();
            prop_assert_eq!(listed, known);
            prop_assert_eq!(table.len(), model.len());
        }
    }
}

#[test]
fn a_sweep_looks_at_no_more_entries_than_it_may() {
    let proof = proof();
    let mut table = Connections::new(100, Timeouts::default());
    for port in 0..40 {
        let flow = flow(port, 17);
        let spoken = Spoken { hash: u64::from(port), ..spoken(PeerId(1), &flow, None) };
        table.client_spoke(Instant::ZERO, spoken, || None, &proof).unwrap();
    }
    let later = Instant::from_secs(1_000);
    for swept in 1..=4 {
        table.sweep(later, 10, |flow| u64::from(flow.src_port), |_| false, |_| false, |_| ());
        assert_eq!(table.len(), 40 - swept * 10);
    }
}

/// Nobody can aim flows at one bucket who does not know the seed; who could would hurt that bucket alone.
#[test]
fn more_flows_of_one_hash_than_fit_its_place_are_refused_and_others_are_not() {
    let proof = proof();
    let mut table = Connections::new(1_000, Timeouts::default());
    let mut spoke = |hash, port| {
        let flow = flow(port, 17);
        let spoken = Spoken { hash, ..spoken(PeerId(1), &flow, None) };
        table.client_spoke(Instant::ZERO, spoken, || None, &proof).is_ok()
    };
    assert_eq!((0..1_000).take_while(|&port| spoke(0, port)).count(), 80);
    assert!(spoke(77, 2_000));
    assert_eq!(table.len(), 81);
}

/// A table with room for a few connections, and one that the owner of its address routes here.
fn with_routed(peer: PeerId, flow: &FlowKey) -> Connections {
    let mut table = Connections::new(4, Timeouts::default());
    let spoken = Spoken { is_routed: true, ..spoken(peer, flow, None) };
    table.client_spoke(Instant::ZERO, spoken, || identity(peer), &proof()).unwrap();
    table
}

/// Looks at every entry; what was told, and whether there was room to tell it.
fn swept(table: &mut Connections, now: Instant, has_room: bool, gone: bool) -> Vec<EntryKey> {
    let mut told = Vec::new();
    let tell = |key| {
        told.push(key);
        has_room
    };
    table.sweep(now, 4, poor_hash, |_| gone, tell, |_| ());
    told
}

#[test]
fn what_the_owner_routes_here_leaves_a_tomb_that_is_told_once_there_is_room() {
    let (flow, peer) = (flow(5_000, 17), PeerId(0));
    let key = EntryKey { peer, flow };
    let mut table = with_routed(peer, &flow);
    assert!(swept(&mut table, Instant::from_secs(30), true, false).is_empty());
    assert_eq!(swept(&mut table, Instant::from_secs(31), false, false), [key]);
    assert_eq!(swept(&mut table, Instant::from_secs(32), true, false), [key], "again, for want of room");
    assert!(swept(&mut table, Instant::from_secs(100_000), true, false).is_empty(), "once");
    assert_eq!((table.len(), table.tombs()), (1, 1), "it does not age");

    let said = table.client_spoke(Instant::from_secs(40), spoken(peer, &flow, None), || identity(peer), &proof());
    assert_eq!(said, Err(Refusal::Ended));
    let answer = flow.reversed();
    assert!(table.answered(poor_hash(&answer), &answer).is_none());
    assert!(table.answers_a_tomb(poor_hash(&answer), &answer));

    table.bury(poor_hash(&flow), &key);
    assert_eq!((table.len(), table.tombs()), (0, 0));
    let again = Spoken { is_routed: true, ..spoken(peer, &flow, None) };
    assert_eq!(table.client_spoke(Instant::from_secs(41), again, || identity(peer), &proof()), Ok(State::New));
    table.bury(poor_hash(&flow), &key);
    assert_eq!(table.len(), 1, "the living are not buried");
}

#[test]
fn a_tomb_goes_by_itself_only_when_it_was_told_and_its_peer_is_long_gone() {
    let (flow, peer) = (flow(5_000, 17), PeerId(0));
    let mut table = with_routed(peer, &flow);
    assert_eq!(swept(&mut table, Instant::from_secs(300), true, true).len(), 1);
    let over = Instant::from_secs(300) + OUTLIVES_PEER;
    swept(&mut table, over, true, true);
    assert_eq!(table.tombs(), 1);
    swept(&mut table, over + Duration::from_secs(1), true, false);
    assert_eq!(table.tombs(), 1, "the peer is there");
    swept(&mut table, over + Duration::from_secs(1), true, true);
    assert!(table.is_empty());
}

#[test]
fn another_peer_on_the_same_flow_leaves_the_former_ones_tomb_beside_it() {
    let flow = flow(5_000, 17);
    let (former, same_identity) = (PeerId(0), PeerId(1));
    let mut table = with_routed(former, &flow);
    let says = |table: &mut Connections, peer| {
        let spoken = Spoken { is_routed: true, ..spoken(peer, &flow, None) };
        table.client_spoke(Instant::from_secs(1), spoken, || identity(peer), &proof())
    };
    assert_eq!(says(&mut table, same_identity), Ok(State::New));
    assert_eq!((table.len(), table.tombs()), (2, 1));
    assert_eq!(says(&mut table, former), Err(Refusal::Ended));
    assert_eq!(says(&mut table, same_identity), Ok(State::New));
    let answer = flow.reversed();
    assert_eq!(table.answered(poor_hash(&answer), &answer).map(|found| found.peer), Some(same_identity));
    assert_eq!(swept(&mut table, Instant::from_secs(2), true, false), [EntryKey { peer: former, flow }]);
}

#[test]
fn what_the_owner_asks_for_in_vain_becomes_a_tomb_if_there_is_room() {
    let (known, peer) = (flow(5_000, 17), PeerId(0));
    let mut table = with_routed(peer, &known);
    let verify = |table: &mut Connections, peer, flow| {
        table.verify(Instant::from_secs(1), poor_hash(&flow), &EntryKey { peer, flow })
    };
    assert_eq!(verify(&mut table, peer, known), Verified::Alive);
    assert_eq!(verify(&mut table, PeerId(3), known), Verified::Stopped, "another peer's is not it");
    assert_eq!(verify(&mut table, PeerId(3), known), Verified::Stopped);
    assert_eq!(verify(&mut table, peer, known), Verified::Alive);
    for port in 0..2 {
        assert_eq!(verify(&mut table, peer, flow(port, 17)), Verified::Stopped);
    }
    assert_eq!(verify(&mut table, peer, flow(9, 17)), Verified::NoRoom);
    assert_eq!((table.len(), table.tombs()), (4, 3));
    let spoken = Spoken { is_routed: true, ..spoken(peer, &known, None) };
    assert_eq!(table.client_spoke(Instant::from_secs(2), spoken, || None, &proof()), Ok(State::New));
}
