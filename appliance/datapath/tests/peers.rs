//! Peers that claim the same inner addresses: what is one's never goes to another.

use std::time::Duration;

use datapath::connections::State;
use datapath::drops::DropReason;
use ipsec::sa::PeerId;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, ip, ip_header};

const SYN_ACK: Flags = Flags::from_bits(0x12);
const SHARED: &str = "10.7.0.0/16";

/// Two peers of different identities whose selectors admit the same inner addresses, or are the same host.
fn two_peers(cores: usize, remote_ts: &'static str) -> (Bench, Client, Client) {
    let mut bench = Bench::new(cores);
    let first = bench.connect(SaSpec { remote_ts, ..SaSpec::default() });
    let second = bench.connect(second(remote_ts));
    (bench, first, second)
}

fn second(remote_ts: &'static str) -> SaSpec {
    SaSpec {
        peer: 2,
        identity: "second@example",
        spi_in: 0xc000_0002,
        spi_out: 0xd000_0002,
        remote: [198, 51, 100, 8].into(),
        remote_ts,
        ..SaSpec::default()
    }
}

fn says(bench: &mut Bench, client: &mut Client, packet: &[u8]) -> usize {
    bench.client_sends(0, &client.seal(packet));
    bench.settle();
    bench.take_delivered().len()
}

/// Whether an answer came, and the client can read it.
fn is_answered(bench: &mut Bench, client: &mut Client, packet: &[u8]) -> bool {
    bench.advance(Duration::from_millis(1));
    bench.web_sends(0, packet);
    bench.settle();
    bench.take_sent().iter().any(|sent| client.try_open(&sent.bytes).is_some_and(|opened| opened.is_ok()))
}

#[test]
fn a_connection_is_its_peers_and_no_other_peers() {
    for cores in 1..=3 {
        let (mut bench, mut first, mut second) = two_peers(cores, SHARED);
        let flow = first.flow(5_000);
        assert_eq!(says(&mut bench, &mut first, &flow.tcp(Flags::SYN, b"")), 1);
        // Even before the service has answered, and whatever the other one says.
        for flags in [Flags::SYN, Flags::ACK, Flags::FIN, Flags::RST] {
            assert_eq!(says(&mut bench, &mut second, &flow.tcp(flags, b"")), 0);
            assert!(is_answered(&mut bench, &mut first, &flow.answer().tcp(SYN_ACK, b"")));
        }
        bench.assert_drops(&[(DropReason::OthersFlow, 4)]);
        let [(_, connection)] = bench.connections()[..] else { panic!("one connection") };
        assert_eq!((connection.peer, connection.state), (PeerId(1), State::Established));
        // Other ports of the shared address are free.
        let other = Flow { src_port: 5_001, ..flow };
        assert_eq!(says(&mut bench, &mut second, &other.tcp(Flags::SYN, b"")), 1);
        assert!(is_answered(&mut bench, &mut second, &other.answer().tcp(SYN_ACK, b"")));
    }
}

#[test]
fn an_ended_connections_ports_are_free_for_another_peer() {
    let (mut bench, mut first, mut second) = two_peers(2, SHARED);
    let flow = first.flow(5_000);
    says(&mut bench, &mut first, &flow.tcp(Flags::SYN, b""));
    says(&mut bench, &mut first, &flow.tcp(Flags::RST, b""));
    assert_eq!(says(&mut bench, &mut second, &flow.tcp(Flags::SYN, b"")), 1);
    assert!(is_answered(&mut bench, &mut second, &flow.answer().tcp(SYN_ACK, b"")));
}

#[test]
fn an_identity_that_comes_anew_goes_on_with_its_connections() {
    let mut bench = Bench::new(2);
    let mut old = bench.connect(SaSpec::default());
    let flow = old.flow(5_000);
    says(&mut bench, &mut old, &flow.tcp(Flags::SYN, b""));
    let mut new = bench.connect(SaSpec { identity: SaSpec::default().identity, ..second("0.0.0.0/0") });
    assert_eq!(says(&mut bench, &mut new, &flow.tcp(Flags::ACK, b"under the new SA")), 1);
    assert!(is_answered(&mut bench, &mut new, &flow.answer().tcp(Flags::ACK, b"")));
}

#[test]
fn what_no_connection_speaks_for_goes_to_no_peer_when_several_claim_it() {
    for remote_ts in ["10.7.0.9/32", SHARED] {
        let (mut bench, mut first, _second) = two_peers(2, remote_ts);
        let flow = Flow { src: [10, 7, 0, 9].into(), ..first.flow(5_000) };
        says(&mut bench, &mut first, &flow.udp(b"question"));
        // A fragment without ports, and a segment of nothing that is known.
        let datagram = flow.answer().udp_datagram(&[0x53; 2_000]);
        let header = wire::ipv4::Repr { dont_fragment: false, ..ip_header(DVIPA, flow.src, protocol::UDP) };
        let later = wire::ipv4::Repr { fragment_offset: 1_200, ..header };
        bench.web_sends(0, &ip(later, &datagram[1_200..]));
        bench.web_sends(0, &Flow { src_port: 5_001, ..flow }.answer().tcp(Flags::ACK, b"late"));
        bench.settle();
        assert!(bench.take_sent().is_empty());
        bench.assert_drops(&[(DropReason::PeerAmbiguous, 2)]);
    }
}

/// A service that goes on pushing to a client that has gone keeps nothing alive. Its words reach that client when it has
/// come anew, and nobody else who claims its address.
#[test]
fn the_connection_of_a_peer_that_has_gone_stands_in_nobodys_way_for_long() {
    for is_same in [true, false] {
        let mut bench = Bench::new(2);
        let mut old = bench.connect(SaSpec::default());
        let flow = old.flow(5_000);
        says(&mut bench, &mut old, &flow.tcp(Flags::SYN, b""));
        assert!(is_answered(&mut bench, &mut old, &flow.answer().tcp(SYN_ACK, b"")));
        bench.remove_inbound(&old);
        bench.remove_outbound(&old);
        let push = flow.answer().tcp(Flags::ACK, b"push");
        assert!(!is_answered(&mut bench, &mut old, &push));
        bench.assert_drops(&[(DropReason::NoOutboundSa, 1)]);
        let identity = if is_same { SaSpec::default().identity } else { "second@example" };
        let mut new = bench.connect(SaSpec { identity, ..second("0.0.0.0/0") });
        assert_eq!(is_answered(&mut bench, &mut new, &push), is_same);
        assert_eq!(says(&mut bench, &mut new, &flow.tcp(Flags::RST, b"")), usize::from(is_same));
        if is_same {
            continue;
        }
        for _ in 0..5 {
            bench.advance(Duration::from_secs(60));
            is_answered(&mut bench, &mut new, &push);
            (0..400).for_each(|core| _ = bench.poll(core % 2));
        }
        assert!(bench.connections().is_empty(), "nobody heard what was said on it");
        assert_eq!(says(&mut bench, &mut new, &flow.tcp(Flags::SYN, b"")), 1);
    }
}
