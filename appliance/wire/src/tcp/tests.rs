use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

const SRC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const DST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

fn any_repr() -> impl Strategy<Value = Repr> {
    let numbers = (any::<u32>(), any::<u32>());
    let shorts = (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>());
    let options = (
        prop::option::of(any::<u16>()),
        prop::option::of(0..15_u8),
        any::<bool>(),
        prop::option::of((any::<u32>(), any::<u32>())),
    );
    (numbers, shorts, any::<u8>(), options).prop_map(
        |((sequence, acknowledgement), (src_port, dst_port, window, urgent), flags, options)| Repr {
            src_port,
            dst_port,
            sequence,
            acknowledgement,
            flags: Flags::from_bits(flags),
            window,
            urgent,
            mss: options.0,
            window_scale: options.1,
            sack_permitted: options.2,
            timestamps: options.3,
        },
    )
}

/// A segment with these flags, these options (padded here) and two bytes of data, its checksum right.
fn segment(flags: Flags, options: &[u8]) -> Vec<u8> {
    let header_len = HEADER_LEN + options.len().next_multiple_of(4);
    let mut bytes = std::vec![0; header_len];
    bytes[HEADER_LEN..HEADER_LEN + options.len()].copy_from_slice(options);
    bytes.extend_from_slice(&[0xab, 0xcd]);
    let mut packet = Packet::new_unchecked(&mut bytes[..]);
    packet.set_src_port(1234);
    packet.set_dst_port(80);
    packet.set_header_len(header_len);
    packet.set_flags(flags);
    packet.fill_checksum(SRC, DST);
    bytes
}

fn all_mss(bytes: &[u8]) -> Vec<u16> {
    let packet = Packet::new_checked(bytes).unwrap();
    let mss = |option| if let Ok(TcpOption::MaxSegmentSize(mss)) = option { Some(mss) } else { None };
    packet.options().filter_map(mss).collect()
}

#[test]
fn a_handwritten_syn_reads_field_by_field() {
    // From 192.0.2.1 to 192.0.2.2, summed by another program.
    let bytes = [
        0xcb, 0x20, 0x01, 0xbb, 0x0a, 0x1b, 0x2c, 0x3d, 0x00, 0x00, 0x00, 0x00, 0xa0, 0xc2, 0xfa, 0xf0, 0x80, 0xb1,
        0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x03, 0x03, 0x07,
    ];
    let packet = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!((packet.src_port(), packet.dst_port()), (52000, 443));
    assert_eq!((packet.sequence(), packet.acknowledgement()), (0x0a1b_2c3d, 0));
    assert_eq!(packet.flags(), Flags::SYN | Flags::ECE | Flags::CWR);
    assert_eq!((packet.header_len(), packet.window(), packet.urgent()), (40, 64240, 0));
    assert_eq!((packet.mss(), packet.payload()), (Some(1460), &[][..]));
    let options: Vec<_> = packet.options().map(Result::unwrap).collect();
    let timestamps = TcpOption::Timestamps { value: 0x1122_3344, echo: 0 };
    let scale = TcpOption::WindowScale(7);
    assert_eq!(options, [TcpOption::MaxSegmentSize(1460), TcpOption::SackPermitted, timestamps, scale]);
    assert!(packet.verify_checksum(SRC, DST));
}

#[test]
fn a_data_offset_that_lies_is_refused() {
    let with_offset = |words: u8| {
        let mut bytes = segment(Flags::ACK, &[]);
        bytes[12] = words << 4;
        Packet::new_checked(bytes).map(|packet| packet.payload().len())
    };
    assert_eq!(with_offset(5), Ok(2));
    assert_eq!(with_offset(4), Err(Error::Malformed));
    assert_eq!(with_offset(6), Err(Error::Truncated));
}

#[test]
fn flags_say_what_they_are() {
    assert!(Flags::SYN.opens_connection());
    assert!((Flags::SYN | Flags::ECE | Flags::CWR | Flags::PSH).opens_connection());
    for other in [Flags::ACK, Flags::RST, Flags::FIN] {
        assert!(!(Flags::SYN | other).opens_connection(), "syn with {other}");
        assert!(!other.opens_connection());
    }
    assert!((Flags::FIN | Flags::ACK).intersects(Flags::FIN | Flags::RST));
    assert!(!(Flags::FIN | Flags::ACK).contains(Flags::FIN | Flags::RST));
    assert_eq!((Flags::SYN | Flags::ACK).to_string(), "syn,ack");
    assert_eq!(Flags::NONE.to_string(), "none");
}

#[test]
fn options_end_at_their_end_marker_or_at_the_first_malformed_one() {
    let walk =
        |options: &[u8]| -> Vec<_> { Packet::new_checked(segment(Flags::SYN, options)).unwrap().options().collect() };
    assert_eq!(walk(&[1, 1, 4, 2, 0, 2, 4, 5]), [Ok(TcpOption::SackPermitted)]);
    assert_eq!(walk(&[30, 3, 9, 3, 3, 200]), [Ok(TcpOption::Other { kind: 30 }), Ok(TcpOption::WindowScale(14))]);
    assert_eq!(walk(&[2, 3, 9, 1]), [Err(Error::Malformed)]);
    assert_eq!(walk(&[9, 1, 4, 2]), [Err(Error::Malformed)]);
    assert_eq!(walk(&[9, 0, 4, 2]), [Err(Error::Malformed)]);
    assert_eq!(walk(&[9, 5, 4, 2]), [Err(Error::Malformed)]);
    assert_eq!(walk(&[1, 1, 1, 9]), [Err(Error::Malformed)]);
}

#[test]
fn a_syn_is_clamped_wherever_its_option_stands() {
    let cases: [&[u8]; 4] =
        [&[2, 4, 5, 180], &[1, 2, 4, 5, 180], &[4, 2, 3, 3, 7, 2, 4, 5, 180], &[2, 4, 5, 180, 1, 2, 4, 9, 9]];
    for options in cases {
        for flags in [Flags::SYN, Flags::SYN | Flags::ACK] {
            let mut bytes = segment(flags, options);
            assert_eq!(clamp_mss(&mut bytes, 1360), Ok(true), "{options:?}");
            assert!(all_mss(&bytes).iter().all(|mss| *mss == 1360));
            assert!(Packet::new_checked(&bytes[..]).unwrap().verify_checksum(SRC, DST), "{options:?}");
            let clamped = bytes.clone();
            assert_eq!(clamp_mss(&mut bytes, 1360), Ok(false));
            assert_eq!(bytes, clamped);
        }
    }
}

#[test]
fn what_needs_no_clamping_is_left_alone() {
    for (flags, options) in [
        (Flags::SYN, &[2, 4, 2, 24][..]),
        (Flags::SYN, &[]),
        (Flags::SYN, &[0, 2, 4, 5]),
        (Flags::ACK, &[2, 4, 5, 180]),
    ] {
        let before = segment(flags, options);
        let mut bytes = before.clone();
        assert_eq!(clamp_mss(&mut bytes, 1360), Ok(false));
        assert_eq!(bytes, before);
    }
    for malformed in [&[2, 3, 5, 180][..], &[2, 4, 5, 180, 2, 9, 0, 0], &[1, 1, 1, 2], &[8, 0, 0, 0]] {
        assert_eq!(clamp_mss(&mut segment(Flags::SYN, malformed), 1360), Err(Error::Malformed));
    }
    assert_eq!(clamp_mss(&mut [0; 19], 1360), Err(Error::Truncated));
}

#[test]
fn a_wrong_checksum_stays_wrong_through_clamping() {
    let mut bytes = segment(Flags::SYN, &[2, 4, 5, 180]);
    bytes[17] ^= 1;
    assert_eq!(clamp_mss(&mut bytes, 1360), Ok(true));
    assert!(!Packet::new_checked(&bytes[..]).unwrap().verify_checksum(SRC, DST));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(repr in any_repr(), payload in prop::collection::vec(any::<u8>(), 0..32)) {
        let mut bytes = std::vec![0xa5; repr.buffer_len()];
        bytes.extend_from_slice(&payload);
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(Repr::parse(&packet), Ok(repr));
        prop_assert_eq!(packet.mss(), repr.mss);
        prop_assert_eq!(packet.payload(), &payload[..]);
        for len in 0..repr.buffer_len() {
            prop_assert_eq!(Packet::new_checked(&bytes[..len]), Err(Error::Truncated));
        }
    }

    #[test]
    fn a_checksum_holds_until_any_bit_flips(
        repr in any_repr(), payload in prop::collection::vec(any::<u8>(), 0..32), bit: prop::sample::Index
    ) {
        let mut bytes = std::vec![0; repr.buffer_len()];
        bytes.extend_from_slice(&payload);
        let mut packet = Packet::new_unchecked(&mut bytes[..]);
        repr.emit(&mut packet);
        packet.fill_checksum(SRC, DST);
        prop_assert!(packet.verify_checksum(SRC, DST));
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Packet::new_unchecked(&bytes[..]).verify_checksum(SRC, DST));
    }

    #[test]
    fn clamping_any_bytes_changes_only_sizes_and_keeps_the_sum(
        mut bytes in prop::collection::vec(any::<u8>(), 0..64), words in 5..16_u8, is_option_likely: bool, max: u16
    ) {
        if bytes.len() >= HEADER_LEN {
            bytes[12] = words << 4;
            bytes[13] |= Flags::SYN.bits();
            if is_option_likely && bytes.len() >= 26 {
                bytes[20..24].copy_from_slice(&[1, 2, 4, 0xff]);
            }
        }
        let before = bytes.clone();
        let result = clamp_mss(&mut bytes, max);
        let verifies = |bytes: &[u8]| crate::checksum::checksum(bytes);
        if result == Ok(false) {
            prop_assert_eq!(&bytes, &before);
        }
        if result.is_ok() {
            prop_assert!(all_mss(&bytes).iter().all(|mss| *mss <= max));
            prop_assert_eq!(all_mss(&bytes).len(), all_mss(&before).len());
        }
        if bytes.len() >= HEADER_LEN {
            prop_assert_eq!(&bytes[..16], &before[..16]);
            // The checksum field moved against the options: the sum over all is what it was. Both forms of zero are one.
            let (before, after) = (verifies(&before), verifies(&bytes));
            prop_assert!(before == after || before == !after && (before == 0 || after == 0));
        }
    }

    #[test]
    fn a_checked_view_bears_every_accessor_whatever_setters_did(
        mut bytes in prop::collection::vec(any::<u8>(), 0..64), header_len in 0..80_usize
    ) {
        if bytes.len() >= HEADER_LEN {
            bytes[12] |= 0x50;
        }
        let Ok(mut packet) = Packet::new_checked(&mut bytes[..]) else { return Ok(()) };
        prop_assert_eq!(packet.header_len() + packet.payload().len(), packet.buffer.len());
        packet.set_header_len(header_len);
        packet.fill_checksum(SRC, IpAddr::V6(Ipv6Addr::LOCALHOST));
        let _ = (packet.options().count(), packet.mss(), packet.payload().len(), packet.payload_mut().len());
        let _ = (packet.verify_checksum(SRC, DST), Repr::parse(&packet));
    }
}
