//! The parser against the oracle, on packets built to be almost right.

use super::oracle::{self, Reading};
use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

mod hash;

/// The fast reading in the words of the slow one.
fn reading(inner: &Inner) -> Reading {
    Reading {
        src: inner.flow.src,
        dst: inner.flow.dst,
        protocol: inner.flow.protocol,
        src_port: inner.flow.src_port,
        dst_port: inner.flow.dst_port,
        total_len: inner.total_len,
        header_len: inner.header_len,
        fragment: match inner.fragment {
            Fragment::Whole => "whole",
            Fragment::First => "first",
            Fragment::Later => "later",
        },
        tcp_flags: inner.tcp_flags.map(TcpFlags::bits),
    }
}

fn assert_agrees(bytes: &[u8]) {
    let fast = (parse_inner(bytes), parse_prefix(bytes));
    assert_eq!(fast.0.as_ref().ok().map(reading), oracle::read(bytes, false), "{:?} of {bytes:02x?}", fast.0);
    assert_eq!(fast.1.as_ref().ok().map(reading), oracle::read(bytes, true), "{:?} of {bytes:02x?}", fast.1);
}

/// An IPv4 packet with these options (padded here) and this upper layer.
pub(super) fn v4(options: &[u8], protocol: u8, flags_and_offset: u16, upper: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len().next_multiple_of(4);
    let mut bytes = std::vec![0; header_len];
    bytes[0] = 0x40 | (header_len / 4) as u8;
    bytes[2..4].copy_from_slice(&((header_len + upper.len()) as u16).to_be_bytes());
    bytes[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[20..20 + options.len()].copy_from_slice(options);
    bytes.extend_from_slice(upper);
    bytes
}

/// An IPv6 packet with these extension headers, each (its number, its bytes from the second on), and this upper layer.
pub(super) fn v6(extensions: &[(u8, Vec<u8>)], protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 40];
    bytes[0] = 0x60;
    bytes[7] = 64;
    bytes[8..24].copy_from_slice(&Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    bytes[24..40].copy_from_slice(&Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    let numbers: Vec<u8> = extensions.iter().map(|(number, _)| *number).chain([protocol]).collect();
    bytes[6] = numbers[0];
    for ((_, rest), next) in extensions.iter().zip(&numbers[1..]) {
        bytes.push(*next);
        bytes.extend_from_slice(rest);
    }
    bytes.extend_from_slice(upper);
    let payload_len = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
    bytes
}

/// A TCP header from port 1234 to port 80 with this offset and these flags.
fn tcp_header(header_len: usize, flags: u8) -> Vec<u8> {
    let mut bytes = std::vec![0; header_len];
    bytes[..4].copy_from_slice(&[0x04, 0xd2, 0, 80]);
    bytes[12] = ((header_len / 4) as u8) << 4;
    bytes[13] = flags;
    bytes
}

/// The rest of a fragment header: reserved byte, offset and flag, identification.
fn fragment_header(offset: u16, more: bool) -> Vec<u8> {
    let field = offset & 0xfff8 | u16::from(more);
    [&[0][..], &field.to_be_bytes(), &[0, 0, 0, 7]].concat()
}

/// The rest of a header of options, of `units` times 8 bytes.
fn options_header(units: u8) -> Vec<u8> {
    let mut rest = std::vec![0; usize::from(units) * 8 - 1];
    rest[0] = units - 1;
    rest
}

fn routing_header(routing_type: u8, segments_left: u8) -> Vec<u8> {
    std::vec![0, routing_type, segments_left, 0, 0, 0, 0]
}

#[test]
fn a_plain_tcp_packet_shows_its_connection_and_flags() {
    let inner = parse_inner(&v4(&[], protocol::TCP, 0x4000, &tcp_header(20, 0x12))).unwrap();
    assert_eq!(inner.flow.to_string(), "tcp 10.0.0.1:1234 -> 10.0.0.2:80");
    assert_eq!((inner.total_len, inner.header_len, inner.fragment), (40, 20, Fragment::Whole));
    assert_eq!(inner.tcp_flags, Some(TcpFlags::SYN | TcpFlags::ACK));

    let inner = parse_inner(&v6(&[], protocol::TCP, &tcp_header(24, 0x02))).unwrap();
    assert_eq!(inner.flow.to_string(), "tcp [2001:db8::1]:1234 -> [2001:db8::2]:80");
    assert_eq!((inner.total_len, inner.header_len, inner.fragment), (64, 40, Fragment::Whole));
    assert_eq!(inner.tcp_flags, Some(TcpFlags::SYN));
}

#[test]
fn protocols_without_ports_have_none() {
    for protocol in [protocol::ICMP, protocol::AH, protocol::ESP, protocol::GRE, 0, 255] {
        let flow = parse_inner(&v4(&[], protocol, 0, &[0xff; 20])).unwrap().flow;
        assert_eq!((flow.protocol, flow.src_port, flow.dst_port), (protocol, 0, 0));
    }
}

#[test]
fn hostile_35_options_move_the_upper_layer_and_a_source_route_is_refused() {
    let udp = [0, 53, 0, 54, 0, 8, 0, 0];
    let router_alert = [148, 4, 0, 0];
    let inner = parse_inner(&v4(&router_alert, protocol::UDP, 0, &udp)).unwrap();
    assert_eq!((inner.header_len, inner.flow.src_port, inner.flow.dst_port), (24, 53, 54));
    for kind in [131, 137] {
        let behind_padding = [1, kind, 7, 4, 10, 9, 9, 9];
        assert_eq!(parse_inner(&v4(&behind_padding, protocol::UDP, 0, &udp)), Err(Error::SourceRouted));
        let behind_the_end = [0, kind, 7, 4, 10, 9, 9, 9];
        assert!(parse_inner(&v4(&behind_the_end, protocol::UDP, 0, &udp)).is_ok());
    }
    for malformed in [[148, 0, 0, 0], [148, 1, 0, 0], [148, 5, 0, 0], [1, 1, 1, 148]] {
        assert_eq!(parse_inner(&v4(&malformed, protocol::UDP, 0, &udp)), Err(Error::Malformed), "{malformed:?}");
    }
}

#[test]
fn hostile_35_extension_headers_are_walked_to_the_ports_and_not_into_ah() {
    let chain = [
        (protocol::HOP_BY_HOP, options_header(1)),
        (protocol::DESTINATION_OPTIONS, options_header(3)),
        (protocol::ROUTING, routing_header(2, 1)),
        (protocol::FRAGMENT, fragment_header(0, false)),
        (protocol::DESTINATION_OPTIONS, options_header(1)),
    ];
    let inner = parse_inner(&v6(&chain, protocol::TCP, &tcp_header(20, 0x02))).unwrap();
    assert_eq!((inner.header_len, inner.flow.dst_port, inner.fragment), (40 + 7 * 8, 80, Fragment::Whole));

    let flow = parse_inner(&v6(&chain, protocol::AH, &[protocol::TCP, 4, 0, 0, 0, 0, 0, 0])).unwrap().flow;
    assert_eq!((flow.protocol, flow.src_port, flow.dst_port), (protocol::AH, 0, 0));
}

#[test]
fn hostile_35_a_walk_over_extension_headers_is_bounded_and_ordered() {
    let udp = [0, 53, 0, 54, 0, 8, 0, 0];
    let chain = |len| std::vec![(protocol::DESTINATION_OPTIONS, options_header(1)); len];
    assert!(parse_inner(&v6(&chain(8), protocol::UDP, &udp)).is_ok());
    assert_eq!(parse_inner(&v6(&chain(9), protocol::UDP, &udp)), Err(Error::Malformed));

    let late_hop_by_hop =
        [(protocol::DESTINATION_OPTIONS, options_header(1)), (protocol::HOP_BY_HOP, options_header(1))];
    assert_eq!(parse_inner(&v6(&late_hop_by_hop, protocol::UDP, &udp)), Err(Error::Malformed));
    let two_fragment_headers =
        [(protocol::FRAGMENT, fragment_header(0, false)), (protocol::FRAGMENT, fragment_header(0, false))];
    assert_eq!(parse_inner(&v6(&two_fragment_headers, protocol::UDP, &udp)), Err(Error::Malformed));
    let source_route = |left| [(protocol::ROUTING, routing_header(0, left))];
    assert_eq!(parse_inner(&v6(&source_route(1), protocol::UDP, &udp)), Err(Error::SourceRouted));
    assert!(parse_inner(&v6(&source_route(0), protocol::UDP, &udp)).is_ok());
}

#[test]
fn hostile_35_fragments_show_ports_only_in_the_first() {
    let first = parse_inner(&v4(&[], protocol::UDP, 0x2000, &[0, 53, 0, 54, 5, 220, 0, 0])).unwrap();
    assert_eq!((first.fragment, first.flow.src_port, first.flow.dst_port), (Fragment::First, 53, 54));
    let later = parse_inner(&v4(&[], protocol::UDP, 0x2003, &[0, 53, 0, 54, 5, 220, 0, 0])).unwrap();
    assert_eq!((later.fragment, later.flow.src_port, later.flow.dst_port), (Fragment::Later, 0, 0));
    let last = parse_inner(&v4(&[], protocol::TCP, 0x0003, &tcp_header(20, 0x02))).unwrap();
    assert_eq!((last.fragment, last.flow.src_port, last.tcp_flags), (Fragment::Later, 0, None));

    let part = |offset, more| [(protocol::FRAGMENT, fragment_header(offset, more))];
    let first = parse_inner(&v6(&part(0, true), protocol::TCP, &tcp_header(20, 0x02))).unwrap();
    assert_eq!((first.fragment, first.flow.src_port), (Fragment::First, 1234));
    let later = parse_inner(&v6(&part(1232, false), protocol::TCP, &tcp_header(20, 0x02))).unwrap();
    assert_eq!((later.fragment, later.flow.src_port, later.header_len), (Fragment::Later, 0, 48));
}

#[test]
fn hostile_36_tiny_and_overlong_fragments_are_refused() {
    let tiny_first = v4(&[], protocol::TCP, 0x2000, &tcp_header(20, 0x02)[..16]);
    assert_eq!(parse_inner(&tiny_first[..]), Err(Error::Malformed));
    for offset_words in [1, 2] {
        let over_the_flags = v4(&[], protocol::TCP, offset_words, &[0; 8]);
        assert_eq!(parse_inner(&over_the_flags), Err(Error::Malformed));
        let part = [(protocol::FRAGMENT, fragment_header(offset_words * 8, false))];
        assert_eq!(parse_inner(&v6(&part, protocol::TCP, &[0; 8])), Err(Error::Malformed));
    }
    // 65,528 + 20 + 8 bytes is more than any length field can say; IPv6 counts without the fixed header.
    assert_eq!(parse_inner(&v4(&[], protocol::UDP, 0x1fff, &[0; 8])), Err(Error::Malformed));
    let part = [(protocol::FRAGMENT, fragment_header(65_528, false))];
    assert_eq!(parse_inner(&v6(&part, protocol::UDP, &[0; 8])), Err(Error::Malformed));
    assert!(parse_inner(&v6(&part, protocol::UDP, &[0; 7])).is_ok());
}

#[test]
fn hostile_35_a_length_that_lies_is_refused_and_padding_is_not_counted() {
    let udp = [0, 53, 0, 54, 0, 8, 0, 0];
    for packet in [v4(&[], protocol::UDP, 0, &udp), v6(&[], protocol::UDP, &udp)] {
        let padded = [&packet[..], &[0xff; 9]].concat();
        assert_eq!(parse_inner(&padded), parse_inner(&packet));
        assert_eq!(parse_inner(&padded).unwrap().total_len, packet.len());
        assert_eq!(parse_inner(&packet[..packet.len() - 1]), Err(Error::Truncated));
    }
    let mut short = v4(&[], protocol::UDP, 0, &udp);
    short[3] = 19;
    assert_eq!(parse_inner(&short), Err(Error::Malformed));
    short[3] = 27;
    assert_eq!(parse_inner(&short), Err(Error::Malformed));
    assert_eq!(parse_prefix(&short), Err(Error::Malformed));
    let mut short = v6(&[(protocol::HOP_BY_HOP, options_header(2))], protocol::UDP, &udp);
    short[5] = 15;
    assert_eq!(parse_inner(&short), Err(Error::Malformed));
    assert_eq!(parse_prefix(&short), Err(Error::Malformed));
}

#[test]
fn neither_version_4_nor_6_is_no_packet() {
    assert_eq!(parse_inner(&[]), Err(Error::Truncated));
    for version in (0..16).filter(|version| *version != 4 && *version != 6) {
        assert_eq!(parse_inner(&[version << 4; 64]), Err(Error::Version));
    }
}

#[test]
fn a_tcp_header_longer_than_its_segment_is_malformed_unless_it_may_go_on_in_a_fragment() {
    let mut header = tcp_header(20, 0x10);
    header[12] = 6 << 4;
    assert_eq!(parse_inner(&v4(&[], protocol::TCP, 0, &header)), Err(Error::Malformed));
    assert!(parse_inner(&v4(&[], protocol::TCP, 0x2000, &header)).is_ok());
    header[12] = 4 << 4;
    assert_eq!(parse_inner(&v4(&[], protocol::TCP, 0, &header)), Err(Error::Malformed));
}

#[test]
fn what_an_icmp_error_quotes_is_enough_to_find_the_connection() {
    let whole = v4(&[], protocol::TCP, 0x4000, &tcp_header(32, 0x18));
    let quoted = parse_prefix(&whole[..28]).unwrap();
    let inner = parse_inner(&whole).unwrap();
    assert_eq!(quoted, Inner { tcp_flags: None, ..inner });
    assert_eq!(parse_inner(&whole[..28]), Err(Error::Truncated));
}

/// Protocols worth meeting, and any other.
fn any_protocol() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => prop::sample::select(std::vec![6_u8, 17, 1, 58, 132, 33, 136, 50, 51, 59]),
        2 => prop::sample::select(std::vec![0_u8, 43, 44, 60]),
        1 => any::<u8>(),
    ]
}

fn any_upper() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (5..16_usize, any::<u8>()).prop_map(|(words, flags)| tcp_header(words * 4, flags)),
        prop::collection::vec(any::<u8>(), 0..48),
    ]
}

fn any_options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        3 => Just(std::vec![1_u8]),
        1 => Just(std::vec![0_u8]),
        4 => (2..9_u8, any::<u8>()).prop_map(|(len, kind)| {
            let mut option = std::vec![7; usize::from(len)];
            option[0] = kind;
            option[1] = len;
            option
        }),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(option, 0..4).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes
    })
}

fn any_extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    prop_oneof![
        (1..4_u8).prop_map(|units| (protocol::DESTINATION_OPTIONS, options_header(units))),
        (1..3_u8).prop_map(|units| (protocol::HOP_BY_HOP, options_header(units))),
        (0..3_u8, 0..2_u8).prop_map(|(kind, left)| (protocol::ROUTING, routing_header(kind, left))),
        (prop::sample::select(std::vec![0_u16, 0, 8, 16, 24, 1232, 65_528]), any::<bool>())
            .prop_map(|(offset, more)| (protocol::FRAGMENT, fragment_header(offset, more))),
    ]
}

/// Packets of either version that are right, or nearly.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let offset = prop::sample::select(std::vec![0_u16, 0, 0, 0x4000, 0x2000, 0x2001, 0x0002, 0x0003, 0x1fff]);
    prop_oneof![
        (any_options(), any_protocol(), offset, any_upper())
            .prop_map(|(options, protocol, offset, upper)| { v4(&options, protocol, offset, &upper) }),
        (prop::collection::vec(any_extension(), 0..10), any_protocol(), any_upper())
            .prop_map(|(extensions, protocol, upper)| v6(&extensions, protocol, &upper)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn built_packets_read_as_the_oracle_reads_them(packet in any_packet(), padding in 0..8_usize) {
        assert_agrees(&packet);
        assert_agrees(&[&packet[..], &std::vec![0xee; padding]].concat());
    }

    #[test]
    fn built_packets_with_a_byte_changed_read_as_the_oracle_reads_them(
        mut packet in any_packet(), at: prop::sample::Index, value: u8
    ) {
        let at = at.index(packet.len());
        packet[at] = value;
        assert_agrees(&packet);
    }

    #[test]
    fn any_bytes_read_as_the_oracle_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..96), version: bool) {
        let mut bytes = bytes;
        assert_agrees(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = if version { 0x45 } else { 0x60 };
        }
        assert_agrees(&bytes);
    }

    #[test]
    fn hostile_31_a_packet_cut_at_any_byte_is_truncated_and_its_prefix_never_says_otherwise(packet in any_packet()) {
        let Ok(whole) = parse_inner(&packet) else { return Ok(()) };
        let without_flags = Inner { tcp_flags: None, ..whole };
        for len in 0..packet.len() {
            prop_assert_eq!(parse_inner(&packet[..len]), Err(Error::Truncated));
            match parse_prefix(&packet[..len]) {
                Ok(seen) => prop_assert!(seen == whole || seen == without_flags),
                Err(error) => prop_assert_eq!(error, Error::Truncated),
            }
        }
        prop_assert_eq!(parse_prefix(&packet), Ok(whole));
    }
}
