use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::vec::Vec;

const SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const SRC6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const DST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

fn datagram(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let repr = Repr { src_port, dst_port, payload_len: payload.len() };
    let mut bytes = [&[0xa5; HEADER_LEN][..], payload].concat();
    repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
    bytes
}

#[test]
fn lengths_that_lie_are_refused() {
    let with_len = |len: u8| {
        let mut bytes = datagram(1, 2, b"four");
        bytes[5] = len;
        Packet::new_checked(bytes).map(|packet| packet.payload().len())
    };
    assert_eq!(with_len(12), Ok(4));
    assert_eq!(with_len(9), Ok(1));
    assert_eq!(with_len(8), Ok(0));
    for len in 0..8 {
        assert_eq!(with_len(len), Err(Error::Malformed));
    }
    assert_eq!(with_len(13), Err(Error::Truncated));
}

#[test]
fn no_checksum_is_right_only_between_ipv4_addresses() {
    let bytes = datagram(4500, 4500, b"esp");
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!(packet.checksum(), 0);
    assert!(packet.verify_checksum(SRC, DST));
    assert!(!packet.verify_checksum(SRC6, DST6));
    assert!(!packet.verify_checksum(SRC, DST6));
}

#[test]
fn a_computed_zero_is_sent_as_ones() {
    // The payload complements the sum of all else, so the checksum comes out as zero.
    let mut bytes = datagram(1, 2, &[0, 0]);
    let mut packet = Packet::new_checked(&mut bytes[..]).unwrap();
    packet.fill_checksum(SRC, DST);
    let complement = packet.checksum();
    packet.payload_mut().copy_from_slice(&complement.to_be_bytes());
    packet.fill_checksum(SRC, DST);
    assert_eq!(packet.checksum(), 0xffff);
    assert!(packet.verify_checksum(SRC, DST));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(
        src_port: u16, dst_port: u16, payload in prop::collection::vec(any::<u8>(), 0..64), padding in 0..8_usize
    ) {
        let mut bytes = datagram(src_port, dst_port, &payload);
        for len in 0..bytes.len() {
            prop_assert_eq!(Packet::new_checked(&bytes[..len]), Err(Error::Truncated));
        }
        bytes.extend(std::vec![0xee; padding]);
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(Repr::parse(&packet), Ok(Repr { src_port, dst_port, payload_len: payload.len() }));
        prop_assert_eq!(packet.payload(), &payload[..]);
    }

    #[test]
    fn a_checksum_holds_until_any_bit_flips(
        payload in prop::collection::vec(any::<u8>(), 0..32), bit: prop::sample::Index, is_v6: bool
    ) {
        let (src, dst) = if is_v6 { (SRC6, DST6) } else { (SRC, DST) };
        let mut bytes = datagram(500, 4500, &payload);
        let len = bytes.len();
        let mut packet = Packet::new_checked(&mut bytes[..]).unwrap();
        packet.fill_checksum(src, dst);
        prop_assert!(packet.verify_checksum(src, dst));
        let bit = bit.index(len * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(packet) = Packet::new_checked(&bytes[..]) {
            // A checksum that flips to zero says that there is none.
            prop_assert!(packet.checksum() == 0 || !packet.verify_checksum(src, dst));
        }
    }

    #[test]
    fn a_checked_view_bears_every_accessor_whatever_setters_did(
        mut bytes in prop::collection::vec(any::<u8>(), 0..32), stated in 0..40_u16, len: u16
    ) {
        if bytes.len() >= HEADER_LEN {
            bytes[4..6].copy_from_slice(&stated.to_be_bytes());
        }
        let Ok(mut packet) = Packet::new_checked(&mut bytes[..]) else { return Ok(()) };
        prop_assert_eq!(HEADER_LEN + packet.payload().len(), packet.len());
        packet.set_len(len);
        packet.fill_checksum(SRC, DST);
        let _ = (packet.payload().len(), packet.payload_mut().len(), packet.verify_checksum(SRC6, DST6));
        prop_assert_eq!(Repr::parse(&packet).is_ok(), len >= 8);
    }
}
