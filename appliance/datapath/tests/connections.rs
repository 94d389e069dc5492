//! The connections that the cores own: who creates them, how they end, what happens when there is no room.

use std::time::Duration;

use datapath::connections::{Connection, State};
use datapath::core::Capacity;
use datapath::drops::DropReason;
use ipsec::sa::PeerId;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::packets::Flow;
use crate::support::{Bench, Setup};

/// Says something from the client's side.
fn client_says(bench: &mut Bench, client: &mut Client, packet: &[u8]) {
    bench.client_sends(0, &client.seal(packet));
    bench.settle();
}

fn web_says(bench: &mut Bench, packet: &[u8]) {
    bench.web_sends(0, packet);
    bench.settle();
}

/// Lets time pass, with polls enough for every entry to be looked at.
fn pass(bench: &mut Bench, span: Duration) {
    bench.advance(span);
    for _ in 0..200 {
        (0..bench.cores()).for_each(|core| _ = bench.poll(core));
    }
}

fn only(bench: &mut Bench) -> Connection {
    let connections = bench.connections();
    assert_eq!(connections.len(), 1);
    connections[0].1
}

#[test]
fn a_connection_is_noted_by_its_owner_with_peer_and_flow() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { peer: 42, ..SaSpec::default() });
        for port in 5_000..5_030 {
            let flow = client.flow(port);
            client_says(&mut bench, &mut client, &flow.tcp(Flags::SYN, b""));
            client_says(&mut bench, &mut client, &flow.tcp(Flags::ACK, b"again"));
        }
        let mut connections = bench.connections();
        connections.sort_by_key(|(_, connection)| connection.flow);
        assert_eq!(connections.len(), 30);
        for ((core, connection), port) in connections.iter().zip(5_000..) {
            let key = client.flow(port).key(protocol::TCP);
            assert_eq!((connection.peer, connection.flow, connection.state), (PeerId(42), key, State::New));
            assert_eq!(*core, bench.owner(&key));
        }
        let counted: u64 = (0..cores).map(|core| bench.polls(core).connections.get()).sum();
        assert_eq!(counted, 30);
    }
}

#[test]
fn a_full_table_refuses_newcomers_alone_and_recovers_with_time() {
    let capacity = Capacity { connections: 8, ..Setup::of(1).capacity };
    let mut bench = Bench::with(Setup { capacity, ..Setup::of(1) });
    let mut client = bench.connect(SaSpec::default());
    for port in 0..8 {
        let flow = client.flow(port);
        client_says(&mut bench, &mut client, &flow.udp(b"in time"));
        web_says(&mut bench, &flow.answer().udp(b"welcome"));
    }
    bench.take_delivered();
    bench.take_sent();
    for port in 8..18 {
        let late = client.flow(port).udp(b"too late");
        client_says(&mut bench, &mut client, &late);
    }
    bench.assert_drops(&[(DropReason::ConnectionTableFull, 10)]);
    assert!(bench.take_delivered().is_empty());

    pass(&mut bench, Duration::from_secs(100));
    for port in 0..8 {
        let flow = client.flow(port);
        client_says(&mut bench, &mut client, &flow.udp(b"still here"));
        web_says(&mut bench, &flow.answer().udp(b"so you are"));
    }
    assert_eq!((bench.take_delivered().len(), bench.take_sent().len()), (8, 8), "established ones are unharmed");

    pass(&mut bench, Duration::from_secs(121));
    assert!(bench.connections().is_empty());
    for port in 8..16 {
        let flow = client.flow(port);
        client_says(&mut bench, &mut client, &flow.udp(b"at last"));
    }
    assert_eq!(bench.take_delivered().len(), 8);
    bench.assert_drops(&[(DropReason::ConnectionTableFull, 10)]);
}

/// One step of a conversation: who speaks, with which flags, and the state afterwards.
type Step = (Side, Flags, State);

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Web,
}

fn play(steps: &[Step]) -> (Bench, Client) {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    for (at, &(side, flags, expected)) in steps.iter().enumerate() {
        match side {
            Side::Client => client_says(&mut bench, &mut client, &flow.tcp(flags, b"")),
            Side::Web => web_says(&mut bench, &flow.answer().tcp(flags, b"")),
        }
        assert_eq!(only(&mut bench).state, expected, "after step {at}, {side:?} {flags:?}");
    }
    (bench, client)
}

const SYN_ACK: Flags = Flags::from_bits(0x12);
const FIN_ACK: Flags = Flags::from_bits(0x11);

const HANDSHAKE: [Step; 3] = [
    (Side::Client, Flags::SYN, State::New),
    (Side::Web, SYN_ACK, State::Established),
    (Side::Client, Flags::ACK, State::Established),
];

const CLOSE: [Step; 4] = [
    (Side::Client, FIN_ACK, State::Closing),
    (Side::Web, Flags::ACK, State::Closing),
    (Side::Web, FIN_ACK, State::Closed),
    (Side::Client, Flags::ACK, State::Closed),
];

#[test]
fn a_tcp_connection_lives_from_syn_to_the_second_fin() {
    play(&[&HANDSHAKE[..], &CLOSE].concat());
    let one_side = (Side::Web, FIN_ACK, State::Closing);
    play(&[&HANDSHAKE[..], &[one_side, one_side, (Side::Client, FIN_ACK, State::Closed)]].concat());
}

#[test]
fn a_reset_of_either_side_closes_and_what_follows_does_not_revive() {
    for side in [Side::Client, Side::Web] {
        let after = [
            (side, Flags::RST, State::Closed),
            (Side::Client, Flags::ACK, State::Closed),
            (Side::Client, FIN_ACK, State::Closed),
            (Side::Web, FIN_ACK, State::Closed),
            (Side::Web, SYN_ACK, State::Closed),
        ];
        play(&[&HANDSHAKE[..], &after].concat());
    }
    play(&[(Side::Client, Flags::RST, State::Closed)]);
}

#[test]
fn a_client_that_uses_its_port_again_starts_anew() {
    play(&[&HANDSHAKE[..], &CLOSE, &HANDSHAKE, &CLOSE].concat());
    // The service never said FIN: the client gave up waiting and comes again.
    let half_closed = [(Side::Client, FIN_ACK, State::Closing)];
    let (mut bench, _client) = play(&[&HANDSHAKE[..], &half_closed, &HANDSHAKE].concat());
    pass(&mut bench, Duration::from_secs(7_000));
    assert_eq!(only(&mut bench).state, State::Established, "it has the patience of an established one");
    play(&[&HANDSHAKE[..], &half_closed, &HANDSHAKE, &CLOSE].concat());
}

#[test]
fn a_syn_that_is_repeated_changes_nothing() {
    play(&[&HANDSHAKE[..], &[(Side::Client, Flags::SYN, State::Established)]].concat());
}

#[test]
fn each_state_has_its_own_patience() {
    let closing = [&HANDSHAKE[..], &CLOSE[..1]].concat();
    let closed = [&HANDSHAKE[..], &CLOSE].concat();
    for (steps, seconds) in [(&HANDSHAKE[..1], 30), (&HANDSHAKE[..], 7_440), (&closing, 240), (&closed, 10)] {
        let (mut bench, _client) = play(steps);
        pass(&mut bench, Duration::from_secs(seconds));
        assert_eq!(bench.connections().len(), 1, "{seconds} s are not more than {seconds} s");
        pass(&mut bench, Duration::from_millis(1));
        assert!(bench.connections().is_empty(), "after {seconds} s");
    }
}

#[test]
fn answers_keep_a_connection_alive_and_establish_it() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    client_says(&mut bench, &mut client, &flow.udp(b"hello"));
    for _ in 0..10 {
        pass(&mut bench, Duration::from_secs(29));
        web_says(&mut bench, &flow.answer().udp(b"still sending"));
        assert_eq!(only(&mut bench).state, State::Established);
    }
}

#[test]
fn an_answer_to_another_address_or_port_belongs_to_no_connection() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    client_says(&mut bench, &mut client, &flow.udp(b"hello"));
    let strangers = [
        Flow { src_port: 81, ..flow.answer() },
        Flow { dst_port: 5_001, ..flow.answer() },
        Flow { src: [203, 0, 113, 81].into(), ..flow.answer() },
    ];
    for stranger in strangers {
        web_says(&mut bench, &stranger.udp(b"?"));
    }
    web_says(&mut bench, &flow.answer().tcp(Flags::ACK, b"another protocol"));
    assert_eq!(only(&mut bench).state, State::New);
}

#[test]
fn a_listing_is_complete_however_small_its_pages() {
    let mut bench = Bench::new(3);
    let mut client = bench.connect(SaSpec::default());
    for port in 0..100 {
        bench.client_sends(0, &client.seal(&client.flow(port).udp(b"list me")));
    }
    bench.settle();
    let mut ports: Vec<u16> = bench.connections().iter().map(|(_, connection)| connection.flow.src_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (0..100).collect::<Vec<u16>>());
}
