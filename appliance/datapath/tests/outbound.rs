//! From the application hosts to the clients.

use datapath::drops::DropReason;
use datapath::mailbox::{Command, Event, PuntReason, Retired};
use datapath::routes::NextHop;
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::sa::PeerId;
use ipsec::spd::Action;
use wire::ethernet::MacAddress;
use wire::tcp::Flags;
use wire::{ethernet, ipv4};

use crate::support::client::{Answer, Client, SaSpec};
use crate::support::packets::{
    DVIPA, Flow, INSIDE_MAC, NETWORK_MAC, ROUTER_MAC, WEB_MAC, a_hop_later, changed, ether, ip_in, tcp_of,
};
use crate::support::{Bench, INSIDE, NETWORK, Setup, rule};

/// Lets the client open a conversation, so that answers have a connection to go by.
fn open(bench: &mut Bench, client: &mut Client, flow: Flow) {
    bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);
}

/// What the client makes of all that has been sent since the last look, in the order of its wire.
fn answers(bench: &mut Bench, client: &mut Client) -> Vec<Answer> {
    bench.take_sent().iter().map(|sent| client.open(&sent.bytes).unwrap()).collect()
}

#[test]
fn an_answer_is_sealed_and_opens_at_the_client() {
    for cores in 1..=3 {
        for (udp_port, esn) in [(None, false), (Some(4500), true), (Some(31_337), false)] {
            for home in 0..cores {
                let mut bench = Bench::new(cores);
                let mut client = bench.connect(SaSpec { udp_port, esn, home, ..SaSpec::default() });
                let flow = client.flow(5_000);
                open(&mut bench, &mut client, flow);
                for arrival in 0..cores {
                    let answer = changed(flow.answer().udp(b"good day"), |ip| ip.set_dscp_and_ecn(46, 2));
                    bench.web_sends(arrival, &answer);
                    bench.settle();
                    let sent = bench.take_sent();
                    assert_eq!(sent.len(), 1);
                    let frame = ethernet::Packet::new_checked(&sent[0].bytes[..]).unwrap();
                    assert_eq!((frame.src(), frame.dst()), (NETWORK_MAC, ROUTER_MAC));
                    let outer = ipv4::Packet::new_checked(ip_in(&sent[0].bytes)).unwrap();
                    assert_eq!((outer.src(), outer.ttl(), outer.dscp(), outer.ecn()), (DVIPA, 64, 46, 2));
                    assert!(outer.dont_fragment(), "the inner bit is copied");
                    assert_eq!(client.open(&sent[0].bytes).unwrap().inner, a_hop_later(&answer));
                    assert_eq!(sent[0].core, home, "the home core sends");
                }
                assert_eq!(client.totals_out.packets.get(), cores as u64);
                assert_eq!(client.totals_out.top.get(), cores as u64 + 1, "marks follow the next number");
                assert_eq!(bench.balance().forwarded, cores as u64);
            }
        }
    }
}

#[test]
fn numbers_grow_by_one_from_one_home_core_whichever_cores_the_answers_reach() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { home: cores - 1, ..SaSpec::default() });
        let flows: Vec<Flow> = (5_000..5_040).map(|port| client.flow(port)).collect();
        for flow in &flows {
            open(&mut bench, &mut client, *flow);
        }
        for round in 0..20_u8 {
            for (at, flow) in flows.iter().enumerate() {
                bench.web_sends((at + usize::from(round)) % cores, &flow.answer().udp(&[round]));
            }
            // Never the same order, and rarely at rest.
            (0..cores).for_each(|core| _ = bench.poll((core + usize::from(round)) % cores));
        }
        bench.settle();
        let sent = bench.take_sent();
        assert!(sent.iter().all(|sent| sent.core == cores - 1));
        let numbers: Vec<u64> = sent.iter().map(|sent| client.open(&sent.bytes).unwrap().sequence).collect();
        assert_eq!(numbers, (1..=800).collect::<Vec<u64>>());
        bench.assert_drops(&[]);
    }
}

#[test]
fn no_two_packets_of_any_cores_carry_the_same_iv_under_one_key() {
    let mut bench = Bench::new(3);
    let mut clients: Vec<Client> = (0..3_u8)
        .map(|home| {
            let spec = SaSpec { home: home.into(), ..SaSpec::default() };
            bench.connect(SaSpec {
                peer: u64::from(home),
                spi_in: spec.spi_in + u32::from(home),
                spi_out: spec.spi_out + u32::from(home),
                remote: [198, 51, 100, home].into(),
                ..spec
            })
        })
        .collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.inner = [10, 7, 0, at as u8].into();
        let flow = client.flow(5_000);
        open(&mut bench, client, flow);
        for core in [0, 1, 2, 0, 1, 2] {
            bench.web_sends(core, &flow.answer().udp(b"iv"));
        }
    }
    bench.settle();
    let mut seen = std::collections::BTreeSet::new();
    for sent in bench.take_sent() {
        let esp = &ip_in(&sent.bytes)[ipv4::HEADER_LEN..];
        assert_eq!(esp[8..10], (sent.core as u16).to_be_bytes(), "the sender id of the core");
        assert!(seen.insert((esp[..4].to_vec(), esp[8..16].to_vec())), "an IV came twice");
    }
    assert_eq!(seen.len(), 18);
}

#[test]
fn a_packet_without_a_connection_goes_by_policy_to_whose_selectors_admit_it() {
    let mut bench = Bench::new(2);
    let mut wide = bench.connect(SaSpec { remote_ts: "10.7.0.0/16", ..SaSpec::default() });
    let mut host = bench.connect(SaSpec {
        peer: 2,
        spi_in: 0xc000_0002,
        spi_out: 0xd000_0002,
        remote: [198, 51, 100, 8].into(),
        remote_ts: "10.8.0.1/32",
        ..SaSpec::default()
    });
    let from_web = |dst: [u8; 4]| Flow { src: DVIPA, src_port: 80, dst: dst.into(), dst_port: 9 };
    bench.web_sends(0, &from_web([10, 7, 3, 4]).udp(b"wide"));
    bench.web_sends(0, &from_web([10, 8, 0, 1]).udp(b"host"));
    bench.web_sends(1, &from_web([10, 8, 0, 2]).udp(b"nobody"));
    bench.settle();
    let sent = bench.take_sent();
    assert_eq!(sent.len(), 2);
    for sent in sent {
        let outer = ipv4::Packet::new_checked(ip_in(&sent.bytes)).unwrap().dst();
        let client = if outer == wide.spec.remote { &mut wide } else { &mut host };
        let _ = client.open(&sent.bytes).unwrap();
    }
    assert_eq!((wide.totals_out.packets.get(), host.totals_out.packets.get()), (1, 1));
    bench.assert_drops(&[(DropReason::NoOutboundSa, 1)]);
    assert!(bench.connections().is_empty(), "only clients create connections");
}

#[test]
fn policy_decides_what_no_connection_speaks_for() {
    let mut setup = Setup::of(2);
    setup.policies = vec![
        rule("203.0.113.80/32[udp/53]", "0.0.0.0/0", Action::Bypass),
        rule("203.0.113.80/32[udp/54]", "0.0.0.0/0", Action::Discard),
    ];
    let mut bench = Bench::with(setup);
    let flow = |port| Flow { src: DVIPA, src_port: port, dst: [192, 0, 2, 99].into(), dst_port: 4_000 };
    let (bypassed, discarded, unnamed) = (flow(53).udp(b"clear"), flow(54).udp(b"secret"), flow(55).udp(b"secret"));
    bench.command_all(|| Command::Neighbour {
        hop: NextHop { port: NETWORK, address: [192, 0, 2, 99].into() },
        mac: Some(ROUTER_MAC),
    });
    for packet in [&bypassed, &discarded, &unnamed] {
        bench.web_sends(0, packet);
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::PolicyDiscard, 2)]);
    let sent = bench.take_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes, ether(NETWORK_MAC, ROUTER_MAC, None, &a_hop_later(&bypassed)));
    assert_eq!(bench.balance().forwarded, 1);
}

#[test]
fn what_does_not_fit_once_sealed_goes_to_control_with_the_mtu_that_would() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { inner_mtu: 1_000, ..SaSpec::default() });
        let flow = client.flow(5_000);
        open(&mut bench, &mut client, flow);
        let fits = flow.answer().udp(&[1; 1_000 - 28]);
        let too_big = flow.answer().udp(&[1; 1_001 - 28]);
        bench.web_sends(0, &fits);
        bench.web_sends(0, &too_big);
        bench.settle();
        assert_eq!(answers(&mut bench, &mut client).len(), 1);
        assert_eq!(bench.punted.len(), 1);
        let punted = &bench.punted[0];
        assert_eq!((punted.port, punted.reason), (INSIDE, PuntReason::TooBig { mtu: 1_000 }));
        assert_eq!(punted.bytes, too_big, "the packet as its sender made it, for the ICMP error to quote");
    }
}

#[test]
fn the_last_hop_is_not_spent_inside_the_tunnel() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    open(&mut bench, &mut client, flow);
    for ttl in [0, 1, 2] {
        bench.web_sends(0, &changed(flow.answer().udp(b"hop"), |ip| ip.set_ttl(ttl)));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::TtlExceeded, 2)]);
    let answers = answers(&mut bench, &mut client);
    assert_eq!(answers.len(), 1);
    assert_eq!((answers[0].inner[8], answers[0].sequence), (1, 1), "a refused packet takes no number");
}

#[test]
fn a_syn_ack_announces_no_larger_segments_than_the_tunnel_carries() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { inner_mtu: 1_300, ..SaSpec::default() });
    let flow = client.flow(5_000);
    bench.client_sends(0, &client.seal(&flow.tcp(Flags::SYN, b"")));
    bench.settle();
    for (mss, after) in [(1_460, 1_260), (900, 900)] {
        bench.web_sends(1, &flow.answer().tcp_with_mss(Flags::SYN | Flags::ACK, Some(mss), b""));
        bench.settle();
        assert_eq!(tcp_of(&answers(&mut bench, &mut client)[0].inner).mss(), Some(after));
    }
}

#[test]
fn answers_follow_a_peer_that_has_moved() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { udp_port: Some(4500), ..SaSpec::default() });
    let flow = client.flow(5_000);
    open(&mut bench, &mut client, flow);
    // Onto the link itself, so that the next hop is another one too.
    let mac = MacAddress([2, 0, 0, 0, 0, 0xcc]);
    client.spec.remote = [192, 0, 2, 50].into();
    client.spec.udp_port = Some(1_024);
    bench.meet(NextHop { port: NETWORK, address: client.spec.remote.into() }, Some(mac));
    let remote = (client.spec.remote, 1_024).into();
    bench.command_all(|| Command::MovePeer { peer: PeerId(1), remote });
    bench.web_sends(0, &flow.answer().udp(b"found you"));
    bench.web_sends(1, &flow.answer().udp(b"found you"));
    bench.settle();
    assert!(bench.sent.iter().all(|sent| sent.bytes[..6] == mac.octets()));
    assert_eq!(answers(&mut bench, &mut client).len(), 2);
}

#[test]
fn without_ivs_nothing_is_sent_and_new_ones_are_asked_for_once() {
    let mut bench = Bench::new(1);
    // Born 2^15 draws after the core's sender number: the core may not use this key.
    let mut client = bench.connect(SaSpec { born_at: 1 << 15, ..SaSpec::default() });
    let flow = client.flow(5_000);
    open(&mut bench, &mut client, flow);
    for _ in 0..3 {
        bench.web_sends(0, &flow.answer().udp(b"iv?"));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::IvExhausted, 3)]);
    assert!(matches!(bench.events[..], [(0, Event::IvsWanted)]), "{:?}", bench.events);

    bench.command(0, Command::Ivs(Box::new(IvGenerator::new(SenderNumber(1 << 15)))));
    bench.web_sends(0, &flow.answer().udp(b"iv!"));
    bench.settle();
    let answers = answers(&mut bench, &mut client);
    assert_eq!((answers.len(), answers[0].sequence), (1, 1));
    assert!(bench.retired.iter().any(|(_, what)| matches!(what, Retired::Ivs(ivs) if ivs.sender() == SenderNumber(0))));

    // Others that do not fit either are asked for again.
    bench.command(0, Command::Ivs(Box::new(IvGenerator::new(SenderNumber(1 << 20)))));
    bench.web_sends(0, &flow.answer().udp(b"iv?"));
    bench.settle();
    assert!(matches!(bench.events[..], [(0, Event::IvsWanted), (0, Event::IvsWanted)]), "{:?}", bench.events);
}

#[test]
fn what_an_application_host_says_to_us_is_for_control() {
    let mut bench = Bench::new(2);
    let to_us = Flow { src: [10, 9, 0, 2].into(), src_port: 1, dst: [10, 9, 0, 1].into(), dst_port: 500 };
    for packet in [to_us.udp(b"ike?"), to_us.echo_request(b"ping"), to_us.tcp(Flags::SYN, b"")] {
        bench.web_sends(1, &packet);
    }
    let mut arp = ether(WEB_MAC, INSIDE_MAC, None, &[0; 28]);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    bench.inject(0, INSIDE, &arp);
    bench.settle();
    assert_eq!(bench.punted.len(), 4);
    assert!(bench.punted.iter().all(|punted| punted.port == INSIDE && punted.reason == PuntReason::ForUs));
    assert_eq!(bench.punted[0].bytes, arp, "the whole frame");
}

#[test]
fn a_malformed_packet_from_inside_is_dropped() {
    let mut bench = Bench::new(2);
    let flow = Flow { src: DVIPA, src_port: 80, dst: [10, 7, 0, 9].into(), dst_port: 5 };
    let whole = flow.tcp(Flags::ACK, b"payload");
    for len in 0..whole.len() {
        let mut short = whole[..len].to_vec();
        bench.web_sends(0, &short);
        if len >= ipv4::HEADER_LEN {
            // A length that is honest about the stump: what is missing is TCP's.
            short = changed(short, |ip| ip.set_total_len(len as u16));
            bench.web_sends(1, &short);
        }
        bench.settle();
    }
    assert_eq!(bench.balance().forwarded, 0);
    assert_eq!(bench.dropped(DropReason::InnerMalformed), 20, "stumps of the TCP header");
    assert_eq!(bench.balance().dropped, bench.balance().received);
}
