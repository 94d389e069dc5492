//! Peeking is not believing: HOSTILE 34, and a peek against the whole truth.

use std::net::IpAddr;
use std::time::Duration;

use datapath::drops::DropReason;
use ipsec::cipher::Cipher;
use ipsec::esp::BEFORE_PAYLOAD_LEN;
use proptest::prelude::*;
use wire::flow::{self, FlowSeed};
use wire::tcp::Flags;
use wire::{ipv6, protocol};

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, ip_header, ip_with_options};

/// A packet of no use to its forger, turned into one that decrypts to `wanted`: counter mode lets whoever knows the
/// plaintext change it bit by bit. Only the ICV tells.
fn forged(client: &mut Client, wanted: &[u8]) -> Vec<u8> {
    let known = vec![0x45; wanted.len()];
    let mut packet = client.seal_raw(&known, protocol::IPV4);
    let start = client.esp_start() + BEFORE_PAYLOAD_LEN;
    for ((byte, known), wanted) in packet[start..].iter_mut().zip(&known).zip(wanted) {
        *byte ^= known ^ wanted;
    }
    packet
}

fn bench_with_connection(cores: usize, flow_port: u16) -> (Bench, Client, Flow) {
    let mut bench = Bench::new(cores);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(flow_port);
    bench.client_sends(0, &client.seal(&flow.tcp(Flags::SYN, b"")));
    bench.settle();
    bench.web_sends(0, &flow.answer().tcp(Flags::SYN | Flags::ACK, b""));
    bench.settle();
    bench.delivered.clear();
    bench.sent.clear();
    (bench, client, flow)
}

#[test]
fn the_forgery_would_deceive_whoever_believes_a_peek() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let wanted = client.flow(5_000).tcp(Flags::SYN, b"");
    let packet = forged(&mut client, &wanted);
    let peeked = client.inbound.peek(&packet[client.esp_start()..]).unwrap();
    assert!(peeked.unauthenticated_head().starts_with(&wanted));
    assert_eq!(peeked.unauthenticated_next_header(), protocol::IPV4);
}

#[test]
fn hostile_34_a_forged_packet_of_an_existing_connection_dies_at_its_owner_and_leaves_no_mark() {
    for cores in 1..=3 {
        for port in 5_000..5_006 {
            let (mut bench, mut client, flow) = bench_with_connection(cores, port);
            let owner = bench.owner(&flow.key(protocol::TCP));
            let before = bench.connections();
            bench.advance(Duration::from_secs(60));
            let mut count = 0;
            for flags in [Flags::ACK, Flags::FIN, Flags::RST, Flags::SYN, Flags::FIN | Flags::ACK] {
                let packet = forged(&mut client, &flow.tcp(flags, b"bad"));
                for arrival in 0..cores {
                    bench.client_sends(arrival, &packet);
                    count += 1;
                }
            }
            bench.settle();
            assert_eq!(bench.ledger(owner).dropped(DropReason::AuthenticationFailed), count, "at the owner");
            bench.assert_drops(&[(DropReason::AuthenticationFailed, count)]);
            assert!(bench.take_delivered().is_empty());
            assert_eq!(bench.connections(), before, "unharmed, and not refreshed");

            bench.client_sends(0, &client.seal(&flow.tcp(Flags::ACK, b"good")));
            bench.settle();
            assert_eq!(bench.take_delivered().len(), 1);
            bench.web_sends(0, &flow.answer().tcp(Flags::ACK, b"good"));
            bench.settle();
            assert_eq!(bench.take_sent().len(), 1);
        }
    }
}

#[test]
fn hostile_34_a_forged_packet_does_not_keep_a_connection_alive() {
    let (mut bench, mut client, flow) = bench_with_connection(2, 5_000);
    for _ in 0..4 {
        bench.advance(Duration::from_secs(2_000));
        bench.client_sends(0, &forged(&mut client, &flow.tcp(Flags::ACK, b"keep it")));
        for _ in 0..200 {
            (0..2).for_each(|core| _ = bench.poll(core));
        }
    }
    assert!(bench.connections().is_empty(), "8,000 s without a true packet are more than 7,440");
}

#[test]
fn hostile_34_a_forged_syn_creates_no_connection() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        for port in 0..300 {
            let syn = client.flow(port).tcp(Flags::SYN, b"");
            let packet = forged(&mut client, &syn);
            bench.client_sends(usize::from(port) % cores, &packet);
        }
        bench.settle();
        bench.assert_drops(&[(DropReason::AuthenticationFailed, 300)]);
        assert!(bench.connections().is_empty() && bench.delivered.is_empty());
        if cores > 1 {
            let handed: u64 = (0..cores).map(|core| bench.ledger(core).handed_over.get()).sum();
            assert!(handed > 50, "they were steered by what they seem to be");
        }
    }
}

#[test]
fn hostile_34_what_peeks_as_no_ip_packet_ends_where_it_arrived() {
    let mut bench = Bench::new(3);
    let mut client = bench.connect(SaSpec::default());
    let bogus: [&[u8]; 4] = [&[0; 64], &[0xff; 64], &[0x4f; 64], &[0x45, 0, 0, 1]];
    for (arrival, wanted) in bogus.iter().enumerate() {
        bench.client_sends(arrival % 3, &forged(&mut client, wanted));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::PeekUnparsable, 4)]);
}

/// The last byte that is peeked says dummy, the rest whatever it likes.
#[test]
fn hostile_34_a_forged_dummy_is_no_dummy() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let mut packet = client.seal(&client.flow(5_000).tcp(Flags::SYN, b""));
    let next_header = packet.len() - 17;
    packet[next_header] ^= protocol::IPV4 ^ protocol::NO_NEXT_HEADER;
    bench.client_sends(0, &packet);
    bench.settle();
    bench.assert_drops(&[(DropReason::AuthenticationFailed, 1)]);
}

/// Any inner packet that a client can send, of either family.
fn inner_packets() -> impl Strategy<Value = Vec<u8>> {
    let protocols = prop::sample::select(vec![protocol::TCP, protocol::UDP, protocol::ICMP, protocol::SCTP, 47, 253]);
    let parts = (any::<bool>(), protocols, any::<[u8; 4]>(), any::<u16>(), any::<u16>(), 0_usize..11);
    (parts, prop::collection::vec(any::<u8>(), 0..120), 0_u16..4).prop_map(
        |((is_v6, protocol, host, src_port, dst_port, option_words), payload, fragment)| {
            let flow = Flow { src: host.into(), src_port, dst: DVIPA, dst_port };
            let upper = match protocol {
                protocol::TCP => flow.tcp_segment(Flags::from_bits(payload.len() as u8), Some(1_460), &payload),
                protocol::UDP => flow.udp_datagram(&payload),
                _other => [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &[0; 16], &payload].concat(),
            };
            if is_v6 {
                return ipv6_packet(host, protocol, &upper);
            }
            let mut header = ip_header(flow.src, DVIPA, protocol);
            // Mostly whole, sometimes a first or a later fragment.
            (header.more_fragments, header.fragment_offset) = (fragment == 1, u16::from(fragment == 2) * 64);
            ip_with_options(header, &vec![1; option_words * 4], &upper)
        },
    )
}

fn ipv6_packet(host: [u8; 4], next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet.extend_from_slice(payload);
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    (packet[6], packet[7]) = (next_header, 64);
    packet[8..12].copy_from_slice(&host);
    packet[24..28].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    assert_eq!(packet.len(), ipv6::HEADER_LEN + payload.len());
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The oracle of the peek: opening the packet in full.
    #[test]
    fn a_peek_names_the_same_connection_as_the_opened_packet(
        inner in inner_packets(), tfc in 0_usize..40, is_256: bool, seed: [u8; 16],
    ) {
        let cipher = if is_256 { Cipher::AesGcm256 } else { Cipher::AesGcm128 };
        let spec = SaSpec { cipher, ..SaSpec::default() };
        let mut client = Client::new(spec.clone(), spec.appliance_inbound(1), 1);
        let mut opener = ipsec::inbound::InboundSa::new(client.inbound.clone());
        let packet = client.seal_padded(&inner, tfc);
        let esp = packet[client.esp_start()..].to_vec();

        let peeked = client.inbound.peek(&esp).unwrap();
        let seen = flow::parse_prefix(peeked.unauthenticated_head());
        let mut opened = esp;
        let range = opener.open(&mut opened).unwrap();
        prop_assert_eq!(peeked.unauthenticated_next_header(), range.next_header);
        let whole = flow::parse_inner(&opened[range.inner.clone()]);
        prop_assert_eq!(seen.map(|inner| inner.flow), whole.map(|inner| inner.flow));
        if let (Ok(seen), Ok(whole)) = (seen, whole) {
            let seed = FlowSeed::new(seed);
            prop_assert_eq!(seen.flow.symmetric_hash(&seed), whole.flow.symmetric_hash(&seed));
            prop_assert_eq!(seen.flow.symmetric_hash(&seed), whole.flow.reversed().symmetric_hash(&seed));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same through the cores: whoever delivers is the owner of the flow, wherever the packet arrived.
    #[test]
    fn the_core_that_delivers_is_the_owner_of_what_was_delivered(
        packets in prop::collection::vec((inner_packets(), 0_usize..3), 1..20), cores in 1_usize..4,
    ) {
        let mut bench = Bench::new(cores);
        let spec = SaSpec { remote_ts: "0.0.0.0/0", ..SaSpec::default() };
        let mut client = bench.connect(spec);
        for (inner, arrival) in &packets {
            bench.client_sends(arrival % cores, &client.seal(inner));
            bench.settle();
            for sent in bench.take_delivered() {
                let inner = flow::parse_inner(&sent.bytes[14..]).unwrap();
                prop_assert_eq!(sent.core, bench.owner(&inner.flow));
                prop_assert_eq!(inner.flow.dst, IpAddr::from(DVIPA));
                let of_flow = bench.connections().iter().filter(|(_, c)| c.flow == inner.flow).map(|(core, _)| *core).collect::<Vec<_>>();
                prop_assert_eq!(of_flow, [sent.core]);
            }
        }
    }
}
