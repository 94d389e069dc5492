//! What an authenticated peer sends that its SA is not for, or that is no packet at all: HOSTILE 35.

use std::net::Ipv4Addr;

use datapath::drops::DropReason;
use wire::tcp::Flags;
use wire::{ipv4, protocol};

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{
    DVIPA, Flow, NETWORK_ADDRESS, OTHER_DVIPA, WEB, a_hop_later, changed, ip, ip_header, ip_in, ip_with_options,
};

/// Benches over cores with a client whose SA is for TCP port 80 of the DVIPA and one inner address.
fn narrow(mut test: impl FnMut(Bench, Client)) {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let spec = SaSpec { local_ts: "203.0.113.80/32[tcp/80]", remote_ts: "10.7.0.9/32", ..SaSpec::default() };
        let client = bench.connect(spec);
        test(bench, client);
    }
}

/// Sends each packet to each core and expects nothing but these drops.
fn assert_refused(bench: &mut Bench, client: &mut Client, packets: &[Vec<u8>], reason: DropReason) {
    let before = bench.dropped(reason);
    for packet in packets {
        for core in 0..bench.cores() {
            bench.client_sends(core, &client.seal(packet));
            bench.settle();
            assert!(bench.delivered.is_empty() && bench.sent.is_empty() && bench.punted.is_empty());
        }
    }
    let expected = (packets.len() * bench.cores()) as u64;
    assert_eq!(bench.dropped(reason) - before, expected, "{:?}", bench.drops());
    assert!(bench.connections().is_empty(), "what the tunnel check refuses creates no connection");
}

#[test]
fn hostile_35_inner_packets_outside_the_selectors_are_refused() {
    narrow(|mut bench, mut client| {
        let good = client.flow(5_000);
        let tcp = |flow: Flow| flow.tcp(Flags::SYN, b"");
        let others = [
            tcp(Flow { src: [10, 7, 0, 10].into(), ..good }),
            tcp(Flow { src: client.spec.remote, ..good }),
            tcp(Flow { src: Ipv4Addr::UNSPECIFIED, ..good }),
            tcp(Flow { src: Ipv4Addr::BROADCAST, ..good }),
            tcp(Flow { src: DVIPA, ..good }),
            tcp(Flow { dst: OTHER_DVIPA, ..good }),
            tcp(Flow { dst: WEB, ..good }),
            tcp(Flow { dst: NETWORK_ADDRESS, ..good }),
            tcp(Flow { dst_port: 81, ..good }),
            tcp(good.answer()),
            good.udp(b"the right port of another protocol"),
            good.echo_request(b"no port at all"),
            ip(ip_header(good.src, good.dst, protocol::GRE), &[0; 24]),
            ip(ip_header(good.src, good.dst, protocol::IPV4), &tcp(good)),
        ];
        assert_refused(&mut bench, &mut client, &others, DropReason::TunnelCheck);
        bench.client_sends(0, &client.seal(&tcp(good)));
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 1);
    });
}

#[test]
fn hostile_35_an_ipv6_packet_in_an_ipv4_sa_is_refused() {
    narrow(|mut bench, mut client| {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        packet[4..8].copy_from_slice(&[0, 20, protocol::TCP, 64]);
        packet[8..24].copy_from_slice(&client.inner.to_ipv6_mapped().octets());
        packet[24..40].copy_from_slice(&DVIPA.to_ipv6_mapped().octets());
        packet[40..44].copy_from_slice(&[0x13, 0x88, 0, 80]);
        packet[52] = 0x50;
        assert_refused(&mut bench, &mut client, &[packet], DropReason::TunnelCheck);
    });
}

#[test]
fn hostile_35_fragments_pass_only_where_no_port_is_asked_for() {
    let fragments = |client: &Client| {
        let header = ip_header(client.inner, DVIPA, protocol::TCP);
        let segment = client.flow(5_000).tcp_segment(Flags::ACK, None, &[7; 100]);
        let piece = |more_fragments, fragment_offset, bytes: &[u8]| {
            ip(ipv4::Repr { more_fragments, fragment_offset, ..header }, bytes)
        };
        [piece(true, 0, &segment[..64]), piece(false, 64, &segment[64..])]
    };
    narrow(|mut bench, mut client| {
        let [first, later] = fragments(&client);
        assert_refused(&mut bench, &mut client, &[later], DropReason::TunnelCheck);
        bench.client_sends(0, &client.seal(&first));
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 1, "the first one shows its ports");
    });
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        for packet in fragments(&client) {
            bench.client_sends(0, &client.seal(&packet));
            bench.settle();
            assert_eq!(ip_in(&bench.take_delivered()[0].bytes), a_hop_later(&packet));
        }
    }
}

/// RFC 1858 and RFC 3128: fragments that hide or rewrite a TCP header behind a filter.
#[test]
fn hostile_35_tiny_and_overlapping_fragments_are_refused() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let header = ip_header(client.inner, DVIPA, protocol::TCP);
        let piece = |more_fragments, fragment_offset, len| {
            ip(ipv4::Repr { more_fragments, fragment_offset, ..header }, &vec![0x50; len])
        };
        let tiny = [piece(true, 0, 8), piece(true, 0, 16), piece(false, 8, 40), piece(true, 16, 8)];
        let ping_of_death = piece(false, 65_528, 100);
        for packet in tiny.into_iter().chain([ping_of_death]) {
            bench.client_sends(0, &client.seal(&packet));
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty() && bench.connections().is_empty());
        assert_eq!(bench.balance().dropped, 5);
    }
}

#[test]
fn hostile_35_inner_options_are_passed_on_but_source_routes_are_not() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let header = ip_header(client.inner, DVIPA, protocol::UDP);
        let datagram = client.flow(5_000).udp_datagram(b"options");
        let with = |options: &[u8]| ip_with_options(header, options, &datagram);
        let router_alert = with(&[148, 4, 0, 0]);
        bench.client_sends(0, &client.seal(&router_alert));
        bench.settle();
        assert_eq!(ip_in(&bench.take_delivered()[0].bytes), a_hop_later(&router_alert));
        let refused = [
            with(&[131, 7, 4, 10, 9, 0, 3, 0]),
            with(&[137, 7, 4, 10, 9, 0, 3, 0]),
            with(&[1, 1, 1, 131]),
            with(&[7, 0, 0, 0]),
            with(&[7, 1, 0, 0]),
            with(&[7, 39, 0, 0]),
        ];
        for packet in &refused {
            bench.client_sends(0, &client.seal(packet));
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty());
        assert_eq!(bench.balance().dropped, refused.len() as u64);
        let malformed = bench.dropped(DropReason::InnerMalformed) + bench.dropped(DropReason::PeekUnparsable);
        assert_eq!(malformed, refused.len() as u64);
    }
}

#[test]
fn hostile_35_a_lie_about_an_inner_length_never_misroutes() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let honest = client.flow(5_000).udp(&[0x45; 40]);
        let with_len = |len: u16| changed(honest.clone(), |ip| ip.set_total_len(len));
        // Longer than the payload, shorter than any header: refused.
        for len in [0, 1, 19, honest.len() as u16 + 1, 1_500, u16::MAX] {
            bench.client_sends(0, &client.seal(&with_len(len)));
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty());
        assert_eq!(bench.balance().dropped, 6);
        assert!(bench.connections().is_empty());
        // Cut within the UDP header: refused. Shorter than the payload: the rest is padding and is not delivered.
        for len in 20..honest.len() as u16 {
            let lie = with_len(len);
            bench.client_sends(usize::from(len) % cores, &client.seal(&lie));
            bench.settle();
            let delivered = bench.take_delivered();
            assert_eq!(delivered.len(), usize::from(len >= 28), "{len}");
            for sent in delivered {
                assert_eq!(sent.bytes[14..], a_hop_later(&lie)[..usize::from(len)]);
            }
        }
        // A header length that runs into the payload or past the packet.
        for words in 0..16_u8 {
            let mut lie = honest.clone();
            lie[0] = 0x40 | words;
            bench.client_sends(0, &client.seal(&lie));
        }
        bench.settle();
        let flows: Vec<_> = bench.connections().iter().map(|(_, connection)| connection.flow.dst).collect();
        assert!(flows.iter().all(|dst| *dst == std::net::IpAddr::from(DVIPA)));
    }
}

#[test]
fn hostile_35_garbage_under_a_true_key_is_dropped() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let mut count = 0;
        for len in 0..80 {
            for fill in [0, 0x45, 0x4f, 0x60, 0xff] {
                for next_header in [protocol::IPV4, protocol::IPV6] {
                    bench.client_sends(len % cores, &client.seal_raw(&vec![fill; len], next_header));
                    count += 1;
                }
            }
        }
        bench.settle();
        assert!(bench.delivered.is_empty());
        assert_eq!(bench.balance().dropped, count);
    }
}

#[test]
fn hostile_35_one_peer_cannot_speak_for_another() {
    let mut bench = Bench::new(2);
    let victim = bench.connect(SaSpec { remote_ts: "10.7.0.9/32", ..SaSpec::default() });
    let mut attacker = bench.connect(SaSpec {
        peer: 2,
        spi_in: 0xc000_0002,
        spi_out: 0xd000_0002,
        remote: [198, 51, 100, 8].into(),
        remote_ts: "10.7.0.66/32",
        ..SaSpec::default()
    });
    for flags in [Flags::SYN, Flags::RST, Flags::ACK] {
        bench.client_sends(0, &attacker.seal(&victim.flow(5_000).tcp(flags, b"I am the other")));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::TunnelCheck, 3)]);
    assert!(bench.connections().is_empty());
}
