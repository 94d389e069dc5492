//! Views and representation; the walk over extension headers is held against an oracle in `flow::tests`.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn any_repr() -> impl Strategy<Value = Repr> {
    let class = (0..64_u8, 0..4_u8, 0..0x10_0000_u32);
    (any::<u128>(), any::<u128>(), any::<u8>(), class, any::<u8>(), 0..600_usize).prop_map(
        |(src, dst, next_header, (dscp, ecn, flow_label), hop_limit, payload_len)| Repr {
            src: Ipv6Addr::from_bits(src),
            dst: Ipv6Addr::from_bits(dst),
            next_header,
            dscp,
            ecn,
            flow_label,
            hop_limit,
            payload_len,
        },
    )
}

fn almost_a_packet() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..120), 0..100_u8).prop_map(|(mut bytes, payload_len)| {
        if bytes.len() >= 6 {
            bytes[0] = 0x60 | bytes[0] & 0x0f;
            bytes[4..6].copy_from_slice(&[0, payload_len]);
        }
        bytes
    })
}

/// A packet of these bytes behind a fixed header that says `next_header`.
fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Repr {
        src: Ipv6Addr::LOCALHOST,
        dst: Ipv6Addr::LOCALHOST,
        next_header,
        dscp: 0,
        ecn: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_len: payload.len(),
    };
    let mut bytes = [&[0; HEADER_LEN][..], payload].concat();
    repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
    bytes
}

#[test]
fn the_first_word_holds_version_class_and_label() {
    let mut bytes = packet(protocol::UDP, &[]);
    bytes[..4].copy_from_slice(&[0x6b, 0x9a, 0xbc, 0xde]);
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!((packet.version(), packet.dscp(), packet.ecn(), packet.flow_label()), (6, 0x2e, 1, 0xabcde));
}

#[test]
fn a_wrong_version_is_refused() {
    let mut bytes = packet(protocol::UDP, &[]);
    bytes[0] = 0x45;
    assert_eq!(Packet::new_checked(&bytes[..]), Err(Error::Version));
}

#[test]
fn without_extension_headers_the_upper_layer_follows_at_once() {
    for next_header in [protocol::TCP, protocol::AH, protocol::ESP, protocol::NO_NEXT_HEADER, 135, 139, 140, 253] {
        let bytes = packet(next_header, &[]);
        let upper = Packet::new_checked(&bytes[..]).unwrap().upper_layer().unwrap();
        assert_eq!((upper.protocol, upper.offset, upper.fragment), (next_header, 40, Fragment::Whole));
    }
}

#[test]
fn an_atomic_fragment_is_whole() {
    let bytes = packet(protocol::FRAGMENT, &[protocol::UDP, 0, 0, 0, 0, 0, 0, 7]);
    let upper = Packet::new_checked(&bytes[..]).unwrap().upper_layer().unwrap();
    assert_eq!((upper.protocol, upper.offset, upper.fragment), (protocol::UDP, 48, Fragment::Whole));
}

#[test]
fn a_header_that_runs_off_the_packet_is_malformed_and_off_a_prefix_truncated() {
    let bytes = packet(protocol::DESTINATION_OPTIONS, &[protocol::UDP, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Packet::new_checked(&bytes[..]).unwrap().upper_layer(), Err(Error::Malformed));
    let whole = packet(protocol::DESTINATION_OPTIONS, &[protocol::UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let prefix = Packet::new_prefix(&whole[..48]).unwrap();
    assert_eq!(prefix.upper_layer(), Err(Error::Truncated));
    assert_eq!(Packet::new_checked(&whole[..]).unwrap().upper_layer().map(|upper| upper.offset), Ok(56));
}

#[test]
fn a_jumbogram_is_a_packet_without_payload() {
    let mut bytes = packet(protocol::HOP_BY_HOP, &[protocol::UDP, 0, 0xc2, 4, 0, 1, 0, 0]);
    bytes[4..6].copy_from_slice(&[0, 0]);
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!(packet.payload(), &[] as &[u8]);
    assert_eq!(packet.upper_layer(), Err(Error::Malformed));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(repr in any_repr()) {
        let mut bytes = std::vec![0xa5; repr.buffer_len() + repr.payload_len];
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(Repr::parse(&packet), Ok(repr));
        prop_assert_eq!(packet.payload().len(), repr.payload_len);
        for len in 0..bytes.len() {
            prop_assert_eq!(Packet::new_checked(&bytes[..len]), Err(Error::Truncated));
        }
    }

    #[test]
    fn the_fixed_header_of_any_packet_is_emitted_again(bytes in almost_a_packet()) {
        let Ok(packet) = Packet::new_checked(&bytes[..]) else { return Ok(()) };
        prop_assert_eq!(HEADER_LEN + packet.payload().len(), packet.total_len());
        let mut again = bytes.clone();
        Repr::parse(&packet).unwrap().emit(&mut Packet::new_unchecked(&mut again[..]));
        prop_assert_eq!(&again, &bytes);
    }

    #[test]
    fn a_checked_view_bears_every_accessor_whatever_setters_did(
        mut bytes in almost_a_packet(), payload_len: u16, next_header: u8
    ) {
        let Ok(mut packet) = Packet::new_checked(&mut bytes[..]) else { return Ok(()) };
        packet.set_payload_len(payload_len);
        packet.set_next_header(next_header);
        let _ = (packet.payload().len(), packet.payload_mut().len(), packet.upper_layer(), Repr::parse(&packet));
    }
}
