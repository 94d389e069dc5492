//! What strangers send from outside: HOSTILE 30, 31, 37, 38, and frames that are not for us.

use datapath::drops::DropReason;
use datapath::mailbox::PuntReason;
use wire::esp::MAX_RESERVED_SPI;
use wire::tcp::Flags;
use wire::{ethernet, ipv4, natt, protocol, udp};

use ipsec::spd::Action;

use crate::support::client::{Client, SaSpec};
use crate::support::packets::{
    DVIPA, Flow, NETWORK_ADDRESS, OTHER_DVIPA, a_hop_later, changed, from_router, ip, ip_header, ip_in,
};
use crate::support::{Bench, NETWORK, Setup, rule};

/// Benches and clients over cores and encapsulations.
fn every_way(mut test: impl FnMut(Bench, Client)) {
    for cores in 1..=3 {
        for udp_port in [None, Some(4500)] {
            let mut bench = Bench::new(cores);
            let client = bench.connect(SaSpec { udp_port, ..SaSpec::default() });
            test(bench, client);
        }
    }
}

/// Nothing of what came before has left a trace, and the true packet passes.
fn assert_true_packet_passes(bench: &mut Bench, packet: &[u8], inner: &[u8]) {
    assert!(bench.take_delivered().is_empty() && bench.sent.is_empty());
    assert!(bench.connections().is_empty(), "no state from what was not authenticated");
    bench.client_sends(0, packet);
    bench.settle();
    let delivered = bench.take_delivered();
    assert_eq!(delivered.len(), 1, "{:?}", bench.drops());
    assert_eq!(ip_in(&delivered[0].bytes), a_hop_later(inner));
}

#[test]
fn hostile_30_reserved_unknown_and_foreign_spis_are_dropped() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).tcp(Flags::SYN, b"");
        let packet = client.seal(&inner);
        let esp = &packet[client.esp_start()..];
        let with_spi = |spi: u32| client.encapsulated(&[&spi.to_be_bytes(), &esp[4..]].concat());
        let cores = bench.cores();
        for spi in 0..=MAX_RESERVED_SPI {
            bench.client_sends(spi as usize % cores, &with_spi(spi));
        }
        bench.settle();
        // In UDP four zero bytes are no SPI but the mark of IKE.
        let zero_is_ike = u64::from(client.spec.udp_port.is_some());
        bench.assert_drops(&[(DropReason::SpiReserved, 256 - zero_is_ike)]);
        assert_eq!(bench.punted.len() as u64, zero_is_ike);

        for spi in [256, client.spec.spi_in - 1, client.spec.spi_in + 1, client.spec.spi_out, u32::MAX] {
            bench.client_sends(0, &with_spi(spi));
        }
        bench.client_sends(0, &changed(packet.clone(), |ip| ip.set_dst(OTHER_DVIPA)));
        bench.client_sends(0, &changed(packet.clone(), |ip| ip.set_dst(NETWORK_ADDRESS)));
        bench.settle();
        assert_eq!(bench.dropped(DropReason::SpiUnknown), 7);
        assert_true_packet_passes(&mut bench, &packet, &inner);
    });
}

#[test]
fn hostile_30_two_addresses_may_use_one_spi_and_do_not_mix() {
    let mut bench = Bench::new(2);
    let mut one = bench.connect(SaSpec::default());
    let local_ts = "203.0.113.81/32";
    let remote = [198, 51, 100, 8].into();
    let mut other = bench.connect(SaSpec { peer: 2, dvipa: OTHER_DVIPA, local_ts, remote, ..one.spec.clone() });
    let to_other = Flow { dst: OTHER_DVIPA, ..other.flow(5_000) };
    let (first, second) = (one.seal(&one.flow(5_000).udp(b"one")), other.seal(&to_other.udp(b"other")));
    bench.client_sends(0, &changed(first.clone(), |ip| ip.set_dst(OTHER_DVIPA)));
    bench.client_sends(0, &changed(second.clone(), |ip| ip.set_dst(DVIPA)));
    bench.settle();
    assert!(bench.take_delivered().is_empty());
    bench.client_sends(0, &first);
    bench.client_sends(0, &second);
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 2);
}

#[test]
fn hostile_31_a_frame_cut_at_any_byte_is_dropped() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).tcp(Flags::SYN, b"payload");
        let packet = client.seal(&inner);
        let frame = from_router(&packet);
        let cores = bench.cores();
        for len in 0..frame.len() {
            bench.network_frame(len % cores, &frame[..len]);
        }
        bench.settle();
        bench.assert_drops(&[(DropReason::OuterMalformed, frame.len() as u64)]);
        assert_true_packet_passes(&mut bench, &packet, &inner);
    });
}

#[test]
fn hostile_31_an_esp_packet_cut_at_any_byte_in_honest_outer_headers_is_dropped() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).tcp(Flags::SYN, b"payload");
        let packet = client.seal(&inner);
        let esp = &packet[client.esp_start()..];
        for len in 0..esp.len() {
            for core in 0..bench.cores() {
                bench.client_sends(core, &client.encapsulated(&esp[..len]));
            }
        }
        bench.settle();
        assert_eq!(bench.balance().dropped, (esp.len() * bench.cores()) as u64);
        let known = [
            DropReason::EspTruncated,
            DropReason::NatMalformed,
            DropReason::PeekUnparsable,
            DropReason::AuthenticationFailed,
        ];
        assert!(bench.drops().iter().all(|(reason, _)| known.contains(reason)), "{:?}", bench.drops());
        assert_true_packet_passes(&mut bench, &packet, &inner);
    });
}

/// Where a frame can be changed without anything noticing: nobody reads or protects these bytes.
fn is_unprotected(byte: usize, client: &Client) -> bool {
    let ether_source = 6..12;
    let udp_start = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
    let udp_source_port = udp_start..udp_start + 2;
    let udp_checksum = udp_start + 6..udp_start + 8;
    let in_udp = udp_source_port.contains(&byte) || udp_checksum.contains(&byte);
    ether_source.contains(&byte) || client.spec.udp_port.is_some() && in_udp
}

#[test]
fn hostile_31_a_frame_with_any_bit_flipped_is_dropped_and_moves_no_window() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).tcp(Flags::SYN, b"payload");
        let packet = client.seal(&inner);
        let frame = from_router(&packet);
        let mut flipped = 0;
        for byte in (0..frame.len()).filter(|&byte| !is_unprotected(byte, &client)) {
            for bit in 0..8 {
                let mut frame = frame.clone();
                frame[byte] ^= 1 << bit;
                bench.network_frame((byte + bit) % bench.cores(), &frame);
                bench.settle();
                assert!(bench.delivered.is_empty() && bench.punted.is_empty(), "byte {byte}, bit {bit}");
                flipped += 1;
            }
        }
        assert_eq!(bench.balance().dropped, flipped);
        assert_true_packet_passes(&mut bench, &packet, &inner);
    });
}

#[test]
fn what_nobody_protects_may_change_on_the_way() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).udp(b"payload");
        for byte in 0..from_router(&client.seal(&inner)).len() {
            if is_unprotected(byte, &client) {
                let mut frame = from_router(&client.seal(&inner));
                frame[byte] ^= 0x81;
                bench.network_frame(0, &frame);
                bench.settle();
                assert_eq!(bench.take_delivered().len(), 1, "byte {byte}: {:?}", bench.drops());
            }
        }
    });
}

#[test]
fn hostile_31_padding_that_rfc_4303_forbids_is_dropped_though_authentic() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).udp(b"twelve bytes");
        let honest = [&inner[..], &[1, 2, 2, 4]].concat();
        let lies: [&[u8]; 5] = [&[2, 1, 2, 4], &[1, 3, 2, 4], &[0, 0, 2, 4], &[1, 2, 250, 4], &[1, 2, 3, 4]];
        for (lie, number) in lies.iter().zip(1..) {
            bench.client_sends(0, &client.seal_exactly(number, &[&inner[..], lie].concat()));
        }
        bench.settle();
        bench.assert_drops(&[(DropReason::PaddingMalformed, 5)]);
        let packet = client.seal_exactly(1, &honest);
        assert_true_packet_passes(&mut bench, &packet, &inner);
    });
}

#[test]
fn hostile_31_a_next_header_that_no_tunnel_holds_is_dropped_though_authentic() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).udp(b"well-formed, but called something else");
        for next_header in (0..=255).filter(|header| ![4, 41, 59].contains(header)) {
            bench.client_sends(0, &client.seal_raw(&inner, next_header));
        }
        bench.settle();
        bench.assert_drops(&[(DropReason::NextHeaderNotServed, 253)]);
        assert!(bench.delivered.is_empty());
    });
}

#[test]
fn a_dummy_packet_is_thrown_away_without_suspicion() {
    every_way(|mut bench, mut client| {
        for core in 0..bench.cores() {
            for content in [&[0; 64][..], &[0x5a; 1_000], b"", &client.flow(5_000).tcp(Flags::SYN, b"")] {
                bench.client_sends(core, &client.seal_raw(content, protocol::NO_NEXT_HEADER));
            }
        }
        bench.settle();
        let dummies = 4 * bench.cores() as u64;
        bench.assert_drops(&[(DropReason::DummyPacket, dummies)]);
        assert!(bench.delivered.is_empty() && bench.connections().is_empty());
    });
}

#[test]
fn a_sequence_number_of_zero_is_refused_though_authentic() {
    every_way(|mut bench, mut client| {
        let inner = client.flow(5_000).udp(b"nothing has number 0");
        let plain = [&inner[..], &[1, 2, 2, 4]].concat();
        bench.client_sends(0, &client.seal_exactly(0, &plain));
        bench.settle();
        bench.assert_drops(&[(DropReason::ReplayTooOld, 1)]);
    });
}

/// A datagram from a client to UDP port 4500.
fn to_natt(payload: &[u8]) -> Vec<u8> {
    let flow = Flow { src: [198, 51, 100, 7].into(), src_port: 4500, dst: DVIPA, dst_port: natt::PORT };
    flow.udp(payload)
}

#[test]
fn hostile_37_ike_on_port_4500_is_for_control_keepalives_end_here() {
    let mut bench = Bench::new(2);
    let ike = to_natt(&[&natt::NON_ESP_MARKER[..], &[0x11; 28]].concat());
    let zero_spi = to_natt(&[0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9]);
    let marker_alone = to_natt(&natt::NON_ESP_MARKER);
    for packet in [&ike, &zero_spi, &marker_alone] {
        bench.client_sends(1, packet);
    }
    bench.client_sends(1, &to_natt(&natt::KEEPALIVE));
    bench.settle();
    let punted: Vec<&[u8]> = bench.punted.iter().map(|punted| &punted.bytes[..]).collect();
    assert_eq!(punted, [from_router(&ike), from_router(&zero_spi), from_router(&marker_alone)]);
    assert!(bench.punted.iter().all(|punted| (punted.port, punted.reason) == (NETWORK, PuntReason::ForUs)));
    bench.assert_drops(&[(DropReason::NatKeepalive, 1)]);
}

#[test]
fn hostile_37_a_datagram_that_is_nothing_is_dropped() {
    let mut bench = Bench::new(2);
    let nothing: [&[u8]; 8] =
        [b"", b"\xfe", b"\xff\xff", b"\0\0", b"\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xff\xff", b"1234567"];
    for payload in nothing {
        bench.client_sends(0, &to_natt(payload));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::NatMalformed, 8)]);
}

#[test]
fn hostile_37_a_lie_about_the_udp_length_never_delivers() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { udp_port: Some(4500), ..SaSpec::default() });
        let inner = client.flow(5_000).udp(b"payload");
        let packet = client.seal(&inner);
        let honest = (packet.len() - ipv4::HEADER_LEN) as u16;
        let with_len = |len: u16| {
            let mut packet = packet.clone();
            udp::Packet::new_unchecked(&mut packet[ipv4::HEADER_LEN..]).set_len(len);
            packet
        };
        for len in (0..honest).chain(honest + 1..honest + 20).chain([u16::MAX]) {
            bench.client_sends(usize::from(len) % cores, &with_len(len));
        }
        bench.settle();
        // Below 8 and beyond the packet the datagram is malformed; in between the ESP packet is cut short.
        assert_eq!(bench.dropped(DropReason::OuterMalformed), 8 + 19 + 1);
        assert_eq!(bench.balance().dropped, u64::from(honest) + 20);
        assert_true_packet_passes(&mut bench, &packet, &inner);
    }
}

#[test]
fn hostile_38_cleartext_to_a_protected_address_is_discarded_and_counted() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    bench.client_sends(0, &client.seal(&flow.tcp(Flags::SYN, b"")));
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);

    let header = |protocol| ip_header(client.inner, DVIPA, protocol);
    let clear = [
        flow.tcp(Flags::SYN, b""),
        flow.tcp(Flags::ACK, b"into the living connection"),
        flow.udp(b"clear"),
        Flow { dst_port: 9_999, ..flow }.udp(b"clear"),
        Flow { dst: OTHER_DVIPA, ..flow }.udp(b"clear"),
        ip(header(protocol::IPV4), &flow.tcp(Flags::SYN, b"IP in IP")),
        ip(header(protocol::GRE), &[0; 24]),
        ip(header(protocol::SCTP), &[0; 24]),
    ];
    for packet in &clear {
        bench.client_sends(0, packet);
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::CleartextToProtected, clear.len() as u64)]);
    assert!(bench.delivered.is_empty() && bench.punted.is_empty());
    assert_eq!(bench.connections().len(), 1);
}

#[test]
fn hostile_38_cleartext_to_others_passes_only_where_policy_says_bypass() {
    let mut setup = Setup::of(2);
    setup.policies = vec![
        rule("203.0.113.80/32[udp/53]", "198.51.100.0/24", Action::Bypass),
        rule("10.9.0.2/32", "0.0.0.0/0", Action::Discard),
    ];
    let mut bench = Bench::with(setup);
    let from = |src: [u8; 4], dst: [u8; 4], dst_port| {
        Flow { src: src.into(), src_port: 7, dst: dst.into(), dst_port }.udp(b"clear")
    };
    let bypassed = from([198, 51, 100, 1], [203, 0, 113, 80], 53);
    bench.client_sends(0, &bypassed);
    bench.client_sends(0, &from([198, 51, 101, 1], [203, 0, 113, 80], 53));
    bench.client_sends(0, &from([198, 51, 100, 1], [203, 0, 113, 80], 54));
    bench.client_sends(1, &from([198, 51, 100, 1], [10, 9, 0, 2], 53));
    bench.client_sends(1, &from([198, 51, 100, 1], [10, 9, 0, 3], 53));
    bench.settle();
    bench.assert_drops(&[(DropReason::CleartextToProtected, 3), (DropReason::AddressNotServed, 1)]);
    let delivered = bench.take_delivered();
    assert_eq!(delivered.len(), 1);
    assert_eq!(ip_in(&delivered[0].bytes), a_hop_later(&bypassed));
    assert!(bench.connections().is_empty(), "cleartext creates no connection");
}

#[test]
fn fragments_of_esp_are_dropped_and_those_of_udp_are_for_control() {
    for (udp_port, dropped, punted) in [(None, 2, 0), (Some(4500), 0, 2)] {
        let mut bench = Bench::new(2);
        let mut client = bench.connect(SaSpec { udp_port, ..SaSpec::default() });
        let packet = client.seal(&client.flow(5_000).udp(b"in pieces"));
        bench.client_sends(0, &changed(packet.clone(), |ip| ip.set_fragmentation(false, true, 0)));
        bench.client_sends(0, &changed(packet, |ip| ip.set_fragmentation(false, false, 1_480)));
        bench.settle();
        assert_eq!(bench.dropped(DropReason::OuterFragment), dropped);
        assert_eq!(bench.punted.len(), punted);
        assert!(bench.delivered.is_empty());
    }
}

#[test]
fn what_is_for_our_own_addresses_is_for_control_and_the_rest_is_not_ours() {
    let mut bench = Bench::new(2);
    let to = |dst: std::net::Ipv4Addr, dst_port| Flow { src: [198, 51, 100, 1].into(), src_port: 7, dst, dst_port };
    for packet in [to(DVIPA, 500).udp(b"ike"), to(NETWORK_ADDRESS, 0).echo_request(b"ping")] {
        bench.client_sends(0, &packet);
    }
    let mut frame = from_router(&to(DVIPA, 500).udp(b"ike"));
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    bench.network_frame(0, &frame);
    frame[..6].fill(0xff);
    bench.network_frame(0, &frame);
    bench.settle();
    assert_eq!(bench.punted.len(), 4, "IKE, ICMP, ARP to us, ARP to all");

    let good = from_router(&to(DVIPA, 500).udp(b"ike"));
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    for frame in [with(0, &[2, 0, 0, 0, 0, 9]), with(12, &[0x86, 0xdd]), with(12, &[0x88, 0xcc]), with(24, &[0, 0])] {
        bench.network_frame(0, &frame);
    }
    bench.settle();
    bench.assert_drops(&[
        (DropReason::NotForUs, 1),
        (DropReason::EthertypeNotServed, 2),
        (DropReason::OuterChecksum, 1),
    ]);
}

/// RFC 1122 §3.3.6: such a frame reaches every station of the link; were they all to forward it, it would come
/// out as many times as there are routers.
#[test]
fn an_ip_packet_in_a_broadcast_frame_goes_nowhere() {
    for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let mut setup = Setup::of(2);
        setup.policies = vec![rule("0.0.0.0/0", "0.0.0.0/0", Action::Bypass)];
        let mut bench = Bench::with(setup);
        let mut client = bench.connect(SaSpec::default());
        let flow = client.flow(5_000);
        for packet in [client.seal(&flow.udp(b"esp")), flow.udp(b"clear"), flow.echo_request(b"to all of you")] {
            let mut frame = from_router(&packet);
            frame[..6].copy_from_slice(&group);
            bench.network_frame(0, &frame);
        }
        bench.settle();
        bench.assert_drops(&[(DropReason::LinkBroadcast, 3)]);
    }
}
