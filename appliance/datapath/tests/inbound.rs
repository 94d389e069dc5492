//! From the network to the application hosts.

use std::net::Ipv4Addr;

use datapath::drops::DropReason;
use datapath::mailbox::Event;
use ipsec::cipher::Cipher;
use wire::tcp::Flags;
use wire::{ethernet, ipv4, protocol};

use crate::support::Bench;
use crate::support::client::SaSpec;
use crate::support::packets::{
    DVIPA, INSIDE_MAC, WEB_MAC, a_hop_later, changed, from_router, ip, ip_header, ip_in, ip_with_options, tcp_of,
};

/// Every way a client may come: cores, encapsulation, cipher, extended sequence numbers.
fn every_way(mut test: impl FnMut(Bench, SaSpec)) {
    for cores in 1..=3 {
        for udp_port in [None, Some(4500), Some(31_337)] {
            for (cipher, esn) in [(Cipher::AesGcm128, false), (Cipher::AesGcm256, true)] {
                test(Bench::new(cores), SaSpec { udp_port, cipher, esn, ..SaSpec::default() });
            }
        }
    }
}

#[test]
fn a_tunnelled_packet_is_delivered_as_a_router_would() {
    every_way(|mut bench, spec| {
        let mut client = bench.connect(spec);
        for (core, port) in (0..bench.cores()).cycle().zip(5_000..5_020) {
            let inner = client.flow(port).tcp(Flags::SYN, b"");
            bench.client_sends(core, &client.seal(&inner));
            bench.settle();
            let delivered = bench.take_delivered();
            assert_eq!(delivered.len(), 1);
            let frame = ethernet::Packet::new_checked(&delivered[0].bytes[..]).unwrap();
            assert_eq!((frame.src(), frame.dst(), frame.vlan()), (INSIDE_MAC, WEB_MAC, None));
            assert_eq!(ip_in(&delivered[0].bytes), a_hop_later(&inner));
            assert_eq!(frame.payload().len(), inner.len(), "nothing of the outer packet is left");
        }
        bench.assert_drops(&[]);
        assert_eq!(bench.balance().delivered, 20);
    });
}

/// RFC 7296 §2.23: a peer may change between the two forms, and must be understood in both.
#[test]
fn esp_is_taken_in_udp_or_bare_whatever_was_agreed() {
    for udp_port in [None, Some(4500)] {
        let mut bench = Bench::new(2);
        let mut client = bench.connect(SaSpec { udp_port, ..SaSpec::default() });
        let packet = client.seal(&client.flow(5_000).udp(b"either way"));
        let esp = packet[client.esp_start()..].to_vec();
        client.spec.udp_port = if udp_port.is_some() { None } else { Some(4500) };
        bench.client_sends(0, &client.encapsulated(&esp));
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 1);
    }
}

#[test]
fn the_owning_core_delivers_wherever_the_packet_arrived() {
    for cores in 2..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let mut owners = vec![0; cores];
        for (arrival, port) in (0..cores).cycle().zip(5_000..5_060) {
            let flow = client.flow(port);
            let owner = bench.owner(&flow.key(protocol::UDP));
            bench.client_sends(arrival, &client.seal(&flow.udp(b"whose am I?")));
            bench.settle();
            assert_eq!(bench.take_delivered()[0].core, owner, "arrived on core {arrival}");
            owners[owner] += 1;
        }
        assert!(owners.iter().all(|&count| count > 0), "one SA uses every core: {owners:?}");
    }
}

#[test]
fn whole_bursts_keep_their_order_within_a_connection() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let ports = 5_000..5_008_u16;
        for number in 0..40_u8 {
            for port in ports.clone() {
                bench.client_sends(0, &client.seal(&client.flow(port).udp(&[number])));
            }
        }
        bench.settle();
        let delivered = bench.take_delivered();
        assert_eq!(delivered.len(), 320);
        for port in ports {
            let of_port = delivered.iter().map(|sent| ip_in(&sent.bytes)).filter(|ip| ip[20..22] == port.to_be_bytes());
            let numbers: Vec<u8> = of_port.map(|ip| ip[28]).collect();
            assert_eq!(numbers, (0..40).collect::<Vec<u8>>());
        }
    }
}

#[test]
fn padding_of_the_link_and_of_the_tunnel_is_left_out() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let inner = client.flow(5_000).udp(b"x");
        let mut frame = from_router(&client.seal(&inner));
        frame.extend_from_slice(&[0xee; 46]);
        bench.network_frame(0, &frame);
        bench.client_sends(0, &client.seal_padded(&inner, 700));
        bench.settle();
        for sent in bench.take_delivered() {
            assert_eq!(sent.bytes[ethernet::HEADER_LEN..], a_hop_later(&inner));
        }
        assert_eq!(bench.balance().delivered, 2);
        let bytes: u64 = client.totals_in.iter().map(|totals| totals.bytes.get()).sum();
        assert_eq!(bytes, 2 * inner.len() as u64, "lifesize counts inner IP packets, not their padding");
    }
}

#[test]
fn every_kind_of_inner_ipv4_packet_is_delivered() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let flow = client.flow(5_000);
        let header = ip_header(client.inner, DVIPA, protocol::UDP);
        let timestamp_option = [68, 8, 5, 0, 0, 0, 0, 0];
        let fragment = |more, offset| ipv4::Repr { more_fragments: more, fragment_offset: offset, ..header };
        let packets = [
            flow.tcp(Flags::SYN, b""),
            flow.udp(b""),
            flow.echo_request(b"ping"),
            ip(ip_header(client.inner, DVIPA, 47), b"whatever GRE holds"),
            ip(ip_header(client.inner, DVIPA, 255), b""),
            ip_with_options(header, &timestamp_option, &flow.udp_datagram(b"with options")),
            ip_with_options(header, &[1; 40], &flow.udp_datagram(b"with the longest header")),
            ip(fragment(true, 0), &flow.udp_datagram(&[7; 64])),
            ip(fragment(true, 72), &[8; 64]),
            ip(fragment(false, 136), &[9; 3]),
            flow.udp(&[0x55; 1_372]),
        ];
        for (at, inner) in packets.iter().enumerate() {
            bench.client_sends(at % cores, &client.seal(inner));
            bench.settle();
            let delivered = bench.take_delivered();
            assert_eq!(delivered.len(), 1, "packet {at}: {:?}", bench.drops());
            assert_eq!(ip_in(&delivered[0].bytes), a_hop_later(inner), "packet {at}");
        }
    }
}

#[test]
fn a_packet_whose_hops_are_used_up_goes_no_further() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    for ttl in [0, 1, 2] {
        let inner = changed(client.flow(5_000).udp(b"hop"), |ip| ip.set_ttl(ttl));
        bench.client_sends(0, &client.seal(&inner));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::TtlExceeded, 2)]);
    assert_eq!(ipv4::Packet::new_checked(ip_in(&bench.take_delivered()[0].bytes)).unwrap().ttl(), 1);
}

/// RFC 6040 §4.2: a mark on the outer header reaches the inner one, or the packet is dropped if it cannot carry it.
#[test]
fn congestion_on_the_way_is_told_to_the_inner_packet() {
    const CONGESTED: u8 = 3;
    for udp_port in [None, Some(4500)] {
        let mut bench = Bench::new(2);
        let mut client = bench.connect(SaSpec { udp_port, ..SaSpec::default() });
        for (inner_ecn, outer_ecn, after) in
            [(2, CONGESTED, Some(3)), (1, 0, Some(1)), (2, 1, Some(1)), (0, CONGESTED, None)]
        {
            let inner = changed(client.flow(5_000).udp(b"mark"), |ip| ip.set_dscp_and_ecn(10, inner_ecn));
            let outer = changed(client.seal(&inner), |ip| ip.set_dscp_and_ecn(46, outer_ecn));
            bench.client_sends(1, &outer);
            bench.settle();
            let marks: Vec<(u8, u8)> = bench
                .take_delivered()
                .iter()
                .map(|sent| {
                    let ip = ipv4::Packet::new_checked(ip_in(&sent.bytes)).unwrap();
                    (ip.dscp(), ip.ecn())
                })
                .collect();
            assert_eq!(marks, after.map(|ecn| (10, ecn)).into_iter().collect::<Vec<_>>(), "{inner_ecn} in {outer_ecn}");
        }
        bench.assert_drops(&[(DropReason::Congested, 1)]);
    }
}

#[test]
fn a_syn_announces_no_larger_segments_than_the_way_back_carries() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { inner_mtu: 1400, ..SaSpec::default() });
    let flow = client.flow(5_000);
    for (flags, mss, after) in [
        (Flags::SYN, Some(1460), Some(1360)),
        (Flags::SYN, Some(1200), Some(1200)),
        (Flags::SYN, None, None),
        (Flags::ACK, Some(1460), Some(1460)),
    ] {
        bench.client_sends(0, &client.seal(&flow.tcp_with_mss(flags, mss, b"")));
        bench.settle();
        let delivered = bench.take_delivered();
        assert_eq!(tcp_of(ip_in(&delivered[0].bytes)).mss(), after, "{flags:?} {mss:?}");
    }
    let options = [1; 8];
    let header = ip_header(client.inner, DVIPA, protocol::TCP);
    let inner = ip_with_options(header, &options, &flow.tcp_segment(Flags::SYN, Some(1460), b""));
    bench.client_sends(0, &client.seal(&inner));
    bench.settle();
    assert_eq!(tcp_of(ip_in(&bench.take_delivered()[0].bytes)).mss(), Some(1352), "IP options take room too");
}

#[test]
fn totals_over_all_cores_are_what_was_delivered() {
    let mut bench = Bench::new(3);
    let mut client = bench.connect(SaSpec::default());
    let mut bytes = 0;
    for (core, port) in (0..3).cycle().zip(5_000..5_100) {
        let inner = client.flow(port).udp(&vec![7; usize::from(port - 5_000)]);
        bytes += inner.len() as u64;
        bench.client_sends(core, &client.seal(&inner));
    }
    bench.settle();
    let sum = |of: fn(&datapath::sas::SaTotals) -> u64| client.totals_in.iter().map(|totals| of(totals)).sum::<u64>();
    assert_eq!((sum(|totals| totals.packets.get()), sum(|totals| totals.bytes.get())), (100, bytes));
    assert_eq!(bench.balance().delivered, 100);
}

#[test]
fn the_first_authentic_packet_is_told_where_asked_for_and_a_forged_one_is_not() {
    let mut bench = Bench::new(2);
    let mut asked = bench.connect(SaSpec { tell_first_packet: true, ..SaSpec::default() });
    let remote = Ipv4Addr::new(198, 51, 100, 8);
    let mut silent =
        bench.connect(SaSpec { peer: 2, spi_in: 0xc000_0002, spi_out: 0xd000_0002, remote, ..SaSpec::default() });
    let mut forged = asked.seal(&asked.flow(5_000).udp(b"forged"));
    *forged.last_mut().unwrap() ^= 1;
    bench.client_sends(0, &forged);
    bench.client_sends(0, &silent.seal(&silent.flow(5_000).udp(b"silent")));
    bench.settle();
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    for _ in 0..3 {
        bench.client_sends(0, &asked.seal(&asked.flow(5_000).udp(b"first")));
    }
    bench.settle();
    let told: Vec<u32> = bench
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::FirstPacket { sa } => Some(sa.spi.get()),
            _other => None,
        })
        .collect();
    assert_eq!(told, [asked.spec.spi_in]);
}
