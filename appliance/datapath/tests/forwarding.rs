//! Towards the next hop: routes, neighbours, MTUs, VLANs, and which boundary a packet may cross.

use std::sync::Arc;
use std::time::Duration;

use datapath::drops::DropReason;
use datapath::mailbox::{Command, Event};
use datapath::routes::{NextHop, PortId, RouteTable};
use ipsec::spd::Action;
use wire::ethernet;
use wire::tcp::Flags;

use crate::support::client::SaSpec;
use crate::support::packets::{
    DVIPA, Flow, INSIDE_MAC, NETWORK_MAC, ROUTER, ROUTER_MAC, WEB, WEB_MAC, a_hop_later, ether, from_router, ip_in,
};
use crate::support::{Bench, INSIDE, NETWORK, Setup, protect, routes, rule};

fn hop_to_web() -> NextHop {
    NextHop { port: INSIDE, address: WEB.into() }
}

fn wanted(bench: &Bench) -> Vec<NextHop> {
    let hop = |event: &Event| match event {
        Event::NeighbourWanted(hop) => Some(*hop),
        _other => None,
    };
    bench.events.iter().filter_map(|(_, event)| hop(event)).collect()
}

#[test]
fn without_a_route_a_packet_is_dropped_and_nobody_is_asked() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
    bench.settle();
    bench.web_sends(0, &flow.answer().udp(b"answer"));
    bench.settle();
    assert_eq!(bench.take_sent().len(), 1);
    bench.command_all(|| Command::Routes(Arc::new(routes(false))));
    bench.web_sends(0, &flow.answer().udp(b"answer"));
    bench.settle();
    bench.assert_drops(&[(DropReason::NoRoute, 1)]);
    assert!(wanted(&bench).is_empty());

    bench.command_all(|| Command::Routes(Arc::new(routes(true))));
    bench.web_sends(0, &flow.answer().udp(b"answer"));
    bench.settle();
    assert_eq!(bench.take_sent().len(), 1);
}

#[test]
fn a_route_to_a_port_that_this_core_does_not_have_is_no_route() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let hop = NextHop { port: PortId(7), address: DVIPA.into() };
    let elsewhere = RouteTable::new(&[("203.0.113.0/24".parse().unwrap(), hop.port)], &[]).unwrap();
    bench.command(0, Command::Routes(Arc::new(elsewhere)));
    bench.meet(hop, Some(WEB_MAC));
    bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"hello")));
    bench.settle();
    bench.assert_drops(&[(DropReason::NoRoute, 1)]);
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_found() {
    let mut bench = Bench::with(Setup { neighbours: false, ..Setup::of(1) });
    let mut client = bench.connect(SaSpec::default());
    let inner = client.flow(5_000).udp(b"hello");
    bench.client_sends(0, &client.seal(&inner));
    bench.settle();
    bench.assert_drops(&[(DropReason::NeighbourUnresolved, 1)]);
    assert_eq!(wanted(&bench), [hop_to_web()]);

    bench.meet(hop_to_web(), Some(WEB_MAC));
    bench.client_sends(0, &client.seal(&inner));
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);

    bench.meet(hop_to_web(), None);
    bench.client_sends(0, &client.seal(&inner));
    bench.settle();
    assert_eq!(bench.dropped(DropReason::NeighbourUnresolved), 2, "what is forgotten is not sent to");
}

#[test]
fn a_neighbour_that_moves_is_followed_at_once() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    for mac in [WEB_MAC, ROUTER_MAC, WEB_MAC] {
        bench.meet(hop_to_web(), Some(mac));
        bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"where are you?")));
        bench.settle();
        assert_eq!(ethernet::Packet::new_checked(&bench.take_delivered()[0].bytes[..]).unwrap().dst(), mac);
    }
}

#[test]
fn one_neighbour_is_asked_for_at_most_once_in_a_tenth_of_a_second() {
    let mut bench = Bench::with(Setup { neighbours: false, ..Setup::of(1) });
    let mut client = bench.connect(SaSpec::default());
    for millisecond in 0..1_000 {
        bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"anybody?")));
        bench.settle();
        bench.advance(Duration::from_millis(1));
        assert_eq!(wanted(&bench).len(), millisecond / 100 + 1, "after {millisecond} ms");
    }
}

/// A client that scans the hosts behind the appliance must not fill the ring by which limits and refusals are told.
#[test]
fn many_unknown_neighbours_are_asked_for_at_a_bounded_rate() {
    let mut bench = Bench::with(Setup { pool_frames: 20_000, ..Setup::of(1) });
    let spec = SaSpec { local_ts: "10.9.0.0/24", ..SaSpec::default() };
    let mut client = bench.connect(spec);
    for round in 0..10 {
        for host in 3..=254 {
            let flow = Flow { dst: [10, 9, 0, host].into(), ..client.flow(5_000) };
            bench.client_sends(0, &client.seal(&flow.udp(b"anybody?")));
            bench.poll(0);
        }
        bench.settle();
        assert!(wanted(&bench).len() <= 40 * (round + 1), "{} asked in {round} rounds", wanted(&bench).len());
        bench.advance(Duration::from_millis(100));
    }
    assert!(wanted(&bench).len() >= 100, "different ones are asked for all the same");
    assert_eq!(bench.dropped(DropReason::NeighbourUnresolved), 2_520);
}

#[test]
fn two_unknown_neighbours_in_turn_are_each_asked_for_once() {
    let mut bench = Bench::with(Setup { neighbours: false, ..Setup::of(1) });
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    for _ in 0..50 {
        bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
        bench.web_sends(0, &flow.answer().udp(b"hello yourself"));
        bench.settle();
    }
    let mut asked = wanted(&bench);
    asked.sort_unstable();
    assert_eq!(asked, [NextHop { port: NETWORK, address: ROUTER.into() }, hop_to_web()]);
}

#[test]
fn a_packet_longer_than_its_port_sends_is_dropped_as_too_big() {
    let mut setup = Setup { inside_mtu: 1_000, network_mtu: 900, ..Setup::of(2) };
    setup.policies = vec![rule("203.0.113.80/32[udp/53]", "0.0.0.0/0", Action::Bypass)];
    let mut bench = Bench::with(setup);
    let mut client = bench.connect(SaSpec::default());
    for len in [972, 973] {
        bench.client_sends(0, &client.seal(&client.flow(5_000).udp(&vec![7; len])));
    }
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);
    bench.assert_drops(&[(DropReason::TooBig, 1)]);

    let dns = Flow { src: DVIPA, src_port: 53, dst: [198, 51, 100, 9].into(), dst_port: 7 };
    for len in [872, 873] {
        bench.web_sends(0, &dns.udp(&vec![7; len]));
    }
    bench.settle();
    assert_eq!(bench.take_sent().len(), 1);
    bench.assert_drops(&[(DropReason::TooBig, 2)]);
}

#[test]
fn a_port_in_a_vlan_takes_and_sends_only_frames_with_its_tag() {
    let mut bench = Bench::with(Setup { vlan: Some(10), ..Setup::of(2) });
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    let inner = flow.tcp(Flags::SYN, b"");
    let sealed = client.seal(&inner);
    for other in [None, Some(0), Some(11), Some(4_095)] {
        bench.network_frame(0, &ether(ROUTER_MAC, NETWORK_MAC, other, &sealed));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::NotForUs, 4)]);

    bench.network_frame(0, &ether(ROUTER_MAC, NETWORK_MAC, Some(10), &sealed));
    bench.settle();
    assert_eq!(bench.take_delivered()[0].bytes, ether(INSIDE_MAC, WEB_MAC, None, &a_hop_later(&inner)));

    bench.web_sends(1, &flow.answer().tcp(Flags::SYN | Flags::ACK, b""));
    bench.settle();
    let sent = bench.take_sent();
    let frame = ethernet::Packet::new_checked(&sent[0].bytes[..]).unwrap();
    assert_eq!((frame.src(), frame.dst()), (NETWORK_MAC, ROUTER_MAC));
    assert_eq!(frame.vlan().map(|tag| tag.id), Some(10));
    let _ = client.open(&sent[0].bytes).unwrap();
}

#[test]
fn a_priority_tag_is_no_vlan_and_a_second_tag_is_nothing_we_serve() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let sealed = client.seal(&client.flow(5_000).udp(b"urgent"));
    let mut double = ether(ROUTER_MAC, NETWORK_MAC, Some(0), &ether(ROUTER_MAC, NETWORK_MAC, Some(0), &sealed)[12..]);
    double[16..18].copy_from_slice(&[0x81, 0]);
    bench.network_frame(0, &double);
    bench.network_frame(0, &ether(ROUTER_MAC, NETWORK_MAC, Some(10), &sealed));
    bench.network_frame(0, &ether(ROUTER_MAC, NETWORK_MAC, Some(0), &sealed));
    bench.settle();
    bench.assert_drops(&[(DropReason::NotForUs, 1), (DropReason::EthertypeNotServed, 1)]);
    assert_eq!(bench.take_delivered().len(), 1);
}

/// What came out of a tunnel is protected traffic; it crosses the boundary outwards only as the SPD says
/// (RFC 4301 §5.2 step 4, then §5.1).
#[test]
fn a_decrypted_packet_does_not_leave_in_the_clear_unless_policy_says_bypass() {
    for cores in 1..=2 {
        let mut setup = Setup::of(cores);
        setup.policies =
            vec![rule("0.0.0.0/0", "198.51.100.53/32[udp/53]", Action::Bypass), protect("0.0.0.0/0", "10.7.0.0/16")];
        let mut bench = Bench::with(setup);
        let spec = SaSpec { local_ts: "0.0.0.0/0", ..SaSpec::default() };
        let mut client = bench.connect(spec);
        let to =
            |dst: [u8; 4], dst_port| Flow { dst: dst.into(), dst_port, ..Flow::to_web([10, 7, 0, 9].into(), 5_000) };
        let secrets = [to([10, 7, 0, 10], 80), to([198, 51, 100, 7], 80), to([8, 8, 8, 8], 53)];
        for secret in secrets {
            bench.client_sends(0, &client.seal(&secret.udp(b"secret")));
        }
        bench.settle();
        assert!(bench.take_sent().is_empty(), "plaintext of a tunnel on the untrusted link");
        bench.assert_drops(&[(DropReason::PolicyDiscard, 3)]);

        let dns = to([198, 51, 100, 53], 53).udp(b"public");
        bench.client_sends(0, &client.seal(&dns));
        bench.settle();
        let sent = bench.take_sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(ip_in(&sent[0].bytes), a_hop_later(&dns));
        assert_eq!(bench.balance().forwarded, 1);
    }
}

#[test]
fn a_frame_that_was_never_addressed_to_us_is_not_forwarded() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let mut frame = from_router(&client.seal(&client.flow(5_000).udp(b"flooded by a switch")));
    frame[5] ^= 0x40;
    bench.network_frame(0, &frame);
    let answer = client.flow(5_000).answer().udp(b"flooded by a switch");
    bench.inject(0, INSIDE, &ether(WEB_MAC, ROUTER_MAC, None, &answer));
    bench.settle();
    bench.assert_drops(&[(DropReason::NotForUs, 2)]);
}
