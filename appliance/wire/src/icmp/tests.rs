use super::*;
use crate::flow;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use std::vec::Vec;

const SRC: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const DST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The 16 reasons, by their codes, with an MTU where one belongs.
fn unreachable(code: u8, mtu: u16) -> v4::Unreachable {
    let mut bytes = [v4::TYPE_DESTINATION_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    bytes[6..].copy_from_slice(&mtu.to_be_bytes());
    match v4::Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()) {
        Ok(v4::Repr::DestinationUnreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn emit_v4(repr: &v4::Repr<'_>) -> Vec<u8> {
    let mut bytes = std::vec![0xa5; repr.buffer_len()];
    repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
    bytes
}

fn emit_v6(repr: &v6::Repr<'_>) -> Vec<u8> {
    let mut bytes = std::vec![0xa5; repr.buffer_len()];
    repr.emit(SRC, DST, &mut Packet::new_unchecked(&mut bytes[..]));
    bytes
}

#[test]
fn a_handwritten_echo_request_reads_field_by_field() {
    // 0x0800 + 0x57a9 + 0x5ff2 + 0xabcd + 0x0001 = 0x16b69, folded 0x6b6a, complement 0x9495.
    let bytes = [8, 0, 0x94, 0x95, 0x57, 0xa9, 0x5f, 0xf2, 0xab, 0xcd, 0x00, 0x01];
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert!(packet.verify_checksum_v4());
    let expected = v4::Repr::EchoRequest { identifier: 0x57a9, sequence: 0x5ff2, data: &[0xab, 0xcd, 0, 1] };
    assert_eq!(v4::Repr::parse(&packet), Ok(expected));
}

#[test]
fn fragmentation_needed_tells_the_mtu_and_quotes_the_connection() {
    let quoted = [0x45, 0, 5, 220, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0xd2, 0, 80, 0, 0, 0, 0];
    let reason = v4::Unreachable::FragmentationNeeded { next_hop_mtu_bytes: 1400 };
    let bytes = emit_v4(&v4::Repr::DestinationUnreachable { reason, quoted: &quoted });
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!((packet.message_type(), packet.code(), packet.word()), (3, 4, 1400));
    let Ok(v4::Repr::DestinationUnreachable { reason: read, quoted }) = v4::Repr::parse(&packet) else { panic!() };
    assert_eq!(read, reason);
    let flow = flow::parse_prefix(quoted).unwrap().flow;
    assert_eq!((flow.src, flow.dst_port), (Ipv4Addr::new(10, 0, 0, 1).into(), 80));
}

#[test]
fn types_and_codes_that_are_not_represented_are_unsupported() {
    let parse_v4 =
        |kind, code| v4::Repr::parse(&Packet::new_checked(&[kind, code, 0, 0, 0, 0, 0, 0][..]).unwrap()).err();
    assert_eq!(parse_v4(3, 16), Some(Error::Unsupported));
    assert_eq!(parse_v4(11, 2), Some(Error::Unsupported));
    assert_eq!(parse_v4(8, 1), Some(Error::Unsupported));
    assert_eq!(parse_v4(5, 0), Some(Error::Unsupported));
    for kind in [0, 5, 127, 130, 133, 134, 135, 136, 137, 255] {
        let bytes = [kind, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(v6::Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()), Err(Error::Unsupported));
    }
}

#[test]
fn a_header_cut_at_any_byte_is_truncated() {
    for len in 0..HEADER_LEN {
        assert_eq!(Packet::new_checked(&[8; HEADER_LEN][..len]), Err(Error::Truncated));
    }
}

proptest! {
    #[test]
    fn what_is_emitted_for_ipv4_is_parsed_back(
        identifier: u16, sequence: u16, code in 0..16_u8, mtu: u16, data in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let data = &data[..];
        let reprs = [
            v4::Repr::EchoRequest { identifier, sequence, data },
            v4::Repr::EchoReply { identifier, sequence, data },
            v4::Repr::DestinationUnreachable { reason: unreachable(code, mtu), quoted: data },
            v4::Repr::TimeExceeded { reason: v4::TimeExceeded::InTransit, quoted: data },
            v4::Repr::TimeExceeded { reason: v4::TimeExceeded::Reassembly, quoted: data },
        ];
        for repr in reprs {
            let bytes = emit_v4(&repr);
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert!(packet.verify_checksum_v4());
            prop_assert_eq!(v4::Repr::parse(&packet), Ok(repr));
        }
        prop_assert_eq!(unreachable(code, mtu).code(), code);
    }

    #[test]
    fn what_is_emitted_for_ipv6_is_parsed_back(
        identifier: u16, sequence: u16, code: u8, word: u32, data in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let data = &data[..];
        let reprs = [
            v6::Repr::EchoRequest { identifier, sequence, data },
            v6::Repr::EchoReply { identifier, sequence, data },
            v6::Repr::DestinationUnreachable { code, quoted: data },
            v6::Repr::PacketTooBig { next_hop_mtu_bytes: word, quoted: data },
            v6::Repr::TimeExceeded { code, quoted: data },
            v6::Repr::ParameterProblem { code, pointer: word, quoted: data },
        ];
        for repr in reprs {
            let mut bytes = emit_v6(&repr);
            let packet = Packet::new_checked(&bytes[..]).unwrap();
            prop_assert!(packet.verify_checksum_v6(SRC, DST));
            // The addresses belong to the sum: a message for another destination is none of ours.
            prop_assert!(!packet.verify_checksum_v6(SRC, Ipv6Addr::LOCALHOST));
            prop_assert_eq!(v6::Repr::parse(&packet), Ok(repr));
            bytes[0] ^= 1;
            prop_assert!(!Packet::new_checked(&bytes[..]).unwrap().verify_checksum_v6(SRC, DST));
        }
    }

    #[test]
    fn a_checked_view_of_any_bytes_bears_every_accessor(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let len = bytes.len();
        let Ok(mut packet) = Packet::new_checked(&mut bytes[..]) else { return Ok(()) };
        packet.set_type_and_code(packet.message_type() % 12, packet.code() % 17);
        packet.fill_checksum_v4();
        prop_assert!(packet.verify_checksum_v4());
        packet.fill_checksum_v6(SRC, DST);
        prop_assert!(packet.verify_checksum_v6(SRC, DST));
        prop_assert_eq!(packet.payload_mut().len(), len - HEADER_LEN);
        let packet = Packet::new_checked(packet.into_inner() as &[u8]).unwrap();
        if let Ok(repr) = v4::Repr::parse(&packet) {
            prop_assert_eq!(repr.buffer_len(), len);
        }
        if let Ok(repr) = v6::Repr::parse(&packet) {
            prop_assert_eq!(repr.buffer_len(), len);
        }
    }
}
