use super::*;
use crate::esp::NEXT_HEADER_DUMMY;
use crate::outbound::OutboundSa;
use crate::sa::Mode;
use crate::testing::packets::{Sample, samples, upper, v4, v6};
use crate::testing::{ends, ivs, ring, sealed};
use proptest::prelude::*;

/// An opened packet's outer header, as it came: length and protocol are those of ESP.
fn outer_header(ip: &Sample, esp_len: usize) -> Vec<u8> {
    let place = place(&ip.bytes).unwrap();
    assert_eq!((place.header_len, place.next_header), (ip.header_len, ip.next_header));
    let mut header = ip.bytes[..ip.header_len].to_vec();
    announce_esp(&mut header, place, esp_len).unwrap();
    header
}

#[test]
fn a_restored_header_is_the_one_that_was_sent_but_for_what_routers_changed() {
    let ip = v4(1, protocol::TCP, &upper(protocol::TCP, 60));
    let mut header = outer_header(&ip, 100);
    // On its way: a hop, and a congestion mark.
    let mut on_the_way = ipv4::Packet::new_unchecked(&mut header[..]);
    on_the_way.set_dscp_and_ecn(0x2e, 3);
    on_the_way.set_ttl(50);
    on_the_way.fill_checksum();
    restore(&mut header, protocol::TCP, 60).unwrap();
    let whole = [&header[..], &ip.bytes[24..]].concat();
    let restored = ipv4::Packet::new_checked(&whole[..]).unwrap();
    assert!(restored.verify_checksum());
    assert_eq!((restored.total_len(), restored.protocol()), (84, protocol::TCP));
    assert_eq!((restored.ttl(), restored.ecn(), restored.identification()), (50, 3, 0xbeef));
}

#[test]
fn headers_that_no_esp_came_behind_are_refused_and_unchanged() {
    let v4 = v4(0, protocol::ESP, &[]).bytes;
    let long = v6(&[(protocol::HOP_BY_HOP, 1), (protocol::ROUTING, 0)], protocol::ESP, &[]).bytes;
    let with = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let refused = [
        ("nothing", Vec::new(), 0),
        ("cut", v4[..19].to_vec(), 0),
        ("more than the header", [&v4[..], &[0; 8]].concat(), 0),
        ("less than its options", with(&v4, 0, 0x46), 0),
        ("version", with(&v4, 0, 0x55), 0),
        ("first fragment", with(&v4, 6, 0x20), 0),
        ("later fragment", with(&v4, 7, 9), 0),
        ("too long", v4.clone(), 65_516),
        ("far too long", v4.clone(), usize::MAX),
        ("cut IPv6", long[..39].to_vec(), 0),
        ("cut in an extension header", long[..60].to_vec(), 0),
        ("behind no extension header", with(&long, 6, protocol::TCP), 0),
        ("an extension header too many", with(&long, 40, protocol::ESP), 0),
        ("too long IPv6", long.clone(), 65_536 - 24),
    ];
    for (what, header, payload_len) in refused {
        let mut after = header.clone();
        assert!(restore(&mut after, protocol::TCP, payload_len).is_err(), "{what}");
        assert_eq!(after, header, "{what}");
    }
    assert_eq!(restore(&mut v4.clone(), protocol::TCP, 65_515), Ok(()));
    assert_eq!(restore(&mut long.clone(), protocol::TCP, 65_535 - 24), Ok(()));
}

#[test]
fn errors_say_what_was_found() {
    let fragment = place(&{
        let mut bytes = v4(0, protocol::UDP, &[0; 8]).bytes;
        bytes[6] = 0x20;
        bytes
    });
    assert_eq!(fragment, Err(NotTransportable::Fragment));
    let longer = [&v4(0, protocol::UDP, &[0; 8]).bytes[..], &[0; 3]].concat();
    let error = place(&longer).unwrap_err();
    assert_eq!(error.to_string(), "the IP header states 28 bytes, and 31 are there");
    assert_eq!(place(&[]), Err(NotTransportable::Header(wire::Error::Truncated)));
}

/// A packet on the wire, split where the outer headers end.
fn sent(sender: &mut OutboundSa, ip: &Sample) -> (Vec<u8>, Vec<u8>) {
    let esp = sealed(sender, &mut ivs(), &ip.bytes[ip.header_len..], ip.next_header);
    (outer_header(ip, esp.len()), esp)
}

#[test]
fn a_peek_shows_the_ports_of_a_segment_whose_addresses_are_in_the_clear() {
    let (mut sender, receiver) = ends(ring(), |sa| sa.mode = Mode::Transport);
    let ip = v4(10, protocol::TCP, &upper(protocol::TCP, 500));
    let (header, esp) = sent(&mut sender, &ip);
    let peeked = receiver.shared().peek(&esp).unwrap();
    assert!(ip.bytes[60..].starts_with(peeked.unauthenticated_head()), "the head begins at the transport header");
    assert_eq!(peeked.unauthenticated_next_header(), protocol::TCP);
    let seen = parse_peeked(&header, &peeked, esp.len()).unwrap();
    let whole = flow::parse_inner(&ip.bytes).unwrap();
    assert_eq!((seen.flow, seen.tcp_flags, seen.header_len), (whole.flow, whole.tcp_flags, 60));
}

#[test]
fn a_peek_behind_a_header_that_is_too_long_or_none_shows_nothing() {
    let (mut sender, receiver) = ends(ring(), |sa| sa.mode = Mode::Transport);
    let long = v6(&[(protocol::HOP_BY_HOP, 12)], protocol::TCP, &upper(protocol::TCP, 60));
    let (header, esp) = sent(&mut sender, &long);
    let peeked = receiver.shared().peek(&esp).unwrap();
    assert_eq!(parse_peeked(&header, &peeked, esp.len()), Err(wire::Error::Unsupported));
    assert_eq!(parse_peeked(&[], &peeked, esp.len()), Err(wire::Error::Truncated));
    assert_eq!(parse_peeked(&[0x45; 20], &peeked, usize::MAX), Err(wire::Error::Malformed));
    let dummy = sealed(&mut sender, &mut ivs(), &[0; 9], NEXT_HEADER_DUMMY);
    let peeked = receiver.shared().peek(&dummy).unwrap();
    assert_eq!(peeked.unauthenticated_next_header(), NEXT_HEADER_DUMMY);
}

proptest! {
    #[test]
    fn restoring_undoes_what_was_announced(ip in samples(), esp_len in 0_usize..60_000) {
        let mut header = outer_header(&ip, esp_len);
        restore(&mut header, ip.next_header, ip.bytes.len() - ip.header_len).unwrap();
        prop_assert_eq!(&header[..], &ip.bytes[..ip.header_len]);
    }

    #[test]
    fn a_peek_agrees_with_the_whole_packet(ip in samples()) {
        let (mut sender, receiver) = ends(ring(), |sa| sa.mode = Mode::Transport);
        let (header, esp) = sent(&mut sender, &ip);
        let peeked = receiver.shared().peek(&esp).unwrap();
        let seen = parse_peeked(&header, &peeked, esp.len());
        // Destination options inside may push the ports out of what a peek sees; nothing else may.
        let whole = flow::parse_inner(&ip.bytes).unwrap();
        match seen {
            Ok(seen) => prop_assert_eq!(seen.flow, whole.flow),
            Err(error) => {
                let is_out_of_sight = whole.header_len + 4 > ip.header_len + PEEK_LEN_MAX;
                prop_assert!(is_out_of_sight || ip.header_len > HEADER_LEN_MAX, "{}", error);
            }
        }
    }

    #[test]
    fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), next_header: u8, payload_len: usize) {
        for first in [0x45, 0x4a, 0x60] {
            let mut header = bytes.clone();
            if let Some(byte) = header.first_mut() {
                *byte = first;
            }
            let before = header.clone();
            if restore(&mut header, next_header, payload_len).is_err() {
                prop_assert_eq!(header, before);
            }
        }
    }
}
