//! Peers whose NAT moves them: what a data core tells of it, and what it does not believe (HOSTILE 27).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use datapath::mailbox::{Command, Event};
use wire::{ipv4, protocol};

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{Flow, changed, ip, ip_header};

const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const AWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// How soon a core tells again.
const SOON: Duration = Duration::from_millis(100);

fn natted() -> SaSpec {
    SaSpec { udp_port: Some(4500), remote: HOME, window_packets: 64, ..SaSpec::default() }
}

/// The same ESP packet through another mapping of the NAT.
fn from(packet: &[u8], address: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut moved = changed(packet.to_vec(), |ip| ip.set_src(address));
    moved[ipv4::HEADER_LEN..ipv4::HEADER_LEN + 2].copy_from_slice(&port.to_be_bytes());
    moved
}

/// Who was told to be elsewhere since the last look, and by which number.
fn told(bench: &mut Bench) -> Vec<(SocketAddr, u64)> {
    let told = bench.events.drain(..).filter_map(|(_, event)| match event {
        Event::PeerMoved { remote, sequence, .. } => Some((remote, sequence)),
        _ => None,
    });
    told.collect()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    (address, port).into()
}

fn sends(bench: &mut Bench, core: usize, packet: &[u8]) {
    bench.client_sends(core, packet);
    bench.settle();
}

/// A flow of the client that this core owns.
fn flow_of(bench: &Bench, client: &Client, core: usize) -> Flow {
    let mut flows = (5_000..6_000).map(|port| client.flow(port));
    flows.find(|flow| bench.owner(&flow.key(protocol::UDP)) == core).unwrap()
}

#[test]
fn the_newest_packet_from_another_address_or_port_tells_that_the_peer_has_moved() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(natted());
        let flow = client.flow(5_000);
        sends(&mut bench, 0, &client.seal(&flow.udp(b"one")));
        assert_eq!(told(&mut bench), []);
        for (sequence, address, port) in [(2, HOME, 1_024), (3, AWAY, 4_500)] {
            bench.advance(SOON);
            let packet = client.seal(&flow.udp(b"moved"));
            sends(&mut bench, cores - 1, &from(&packet, address, port));
            assert_eq!(told(&mut bench), [(at(address, port), sequence)]);
        }
        assert_eq!(bench.take_delivered().len(), 3, "the packets themselves are delivered wherever they come from");
    }
}

#[test]
fn a_move_is_told_at_a_limited_rate_until_it_is_followed() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(natted());
    let flow = client.flow(5_000);
    for _ in 0..100 {
        bench.advance(Duration::from_millis(10));
        sends(&mut bench, 0, &from(&client.seal(&flow.udp(b"away")), AWAY, 1_024));
    }
    assert_eq!(told(&mut bench).len(), 10);
    let (dvipa, spi) = (client.spec.dvipa.into(), client.inbound.parameters().spi);
    bench.command_all(|| Command::MoveInbound { dvipa, spi, remote: at(AWAY, 1_024) });
    bench.advance(SOON);
    sends(&mut bench, 0, &from(&client.seal(&flow.udp(b"followed")), AWAY, 1_024));
    assert_eq!(told(&mut bench), []);
    sends(&mut bench, 0, &client.seal(&flow.udp(b"home again")));
    assert_eq!(told(&mut bench), [(at(HOME, 4_500), 102)]);
}

#[test]
fn hostile_27_what_is_forged_or_replayed_from_elsewhere_moves_nobody() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(natted());
        let flow = client.flow(5_000);
        let seen = client.seal(&flow.udp(b"seen"));
        sends(&mut bench, 0, &seen);
        let mut forged = client.seal(&flow.udp(b"forged"));
        *forged.last_mut().unwrap() ^= 1;
        // Verified, but what it holds takes no number, so that anybody could send it again.
        let broken = client.seal_exactly(40, &[&flow.udp(b"padding")[..], &[9, 9, 2, 4]].concat());
        for core in 0..cores {
            for packet in [&seen, &forged, &broken] {
                sends(&mut bench, core, &from(packet, AWAY, 1_024));
            }
        }
        assert_eq!(told(&mut bench), []);
    }
}

#[test]
fn hostile_27_a_packet_that_was_held_back_moves_nobody_whichever_core_it_comes_to() {
    for cores in 1..=3 {
        for (held_on, seen_on) in (0..cores).flat_map(|one| (0..cores).map(move |other| (one, other))) {
            let mut bench = Bench::new(cores);
            let mut client = bench.connect(natted());
            let (held, seen) = (flow_of(&bench, &client, held_on), flow_of(&bench, &client, seen_on));
            let old = client.seal(&held.udp(b"held back"));
            sends(&mut bench, 0, &client.seal(&seen.udp(b"newest")));
            sends(&mut bench, 0, &from(&old, AWAY, 1_024));
            assert_eq!(bench.take_delivered().len(), 2, "it is no replay");
            assert_eq!(told(&mut bench), [], "but it is not the newest");
            sends(&mut bench, 0, &from(&client.seal(&held.udp(b"newest now")), AWAY, 1_024));
            assert_eq!(told(&mut bench), [(at(AWAY, 1_024), 3)]);
        }
    }
}

#[test]
fn hostile_27_without_a_nat_nobody_moves() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { udp_port: None, ..natted() });
    let packet = client.seal(&client.flow(5_000).udp(b"native"));
    let esp = &packet[ipv4::HEADER_LEN..];
    sends(&mut bench, 0, &ip(ip_header(AWAY, client.spec.dvipa, protocol::ESP), esp));
    assert_eq!((bench.take_delivered().len(), told(&mut bench)), (1, vec![]));

    let mut client = bench.connect(natted().rekeyed());
    let packet = client.seal(&client.flow(5_000).udp(b"without its UDP header"));
    let esp = &packet[client.esp_start()..];
    sends(&mut bench, 0, &ip(ip_header(AWAY, client.spec.dvipa, protocol::ESP), esp));
    assert_eq!((bench.take_delivered().len(), told(&mut bench)), (1, vec![]), "there is no port to move to");
}

#[test]
fn hostile_41_news_of_moves_leave_half_of_the_ring_to_what_is_vital() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(natted());
    let flow = client.flow(5_000);
    bench.draining = false;
    for _ in 0..3_000 {
        bench.advance(SOON);
        bench.client_sends(0, &from(&client.seal(&flow.udp(b"away")), AWAY, 1_024));
        bench.poll(0);
    }
    bench.draining = true;
    bench.drain(0);
    assert_eq!(told(&mut bench).len(), 1_024);
}
