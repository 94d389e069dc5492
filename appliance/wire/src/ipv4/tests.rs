use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// A published example with its checksum worked out: Wikipedia, "Internet checksum".
const HEADER: [u8; HEADER_LEN] =
    [0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 192, 168, 0, 1, 192, 168, 0, 199];

fn any_repr() -> impl Strategy<Value = Repr> {
    let addresses = (any::<u32>(), any::<u32>());
    let small = (any::<u8>(), 0..64_u8, 0..4_u8, any::<u8>());
    let fragmentation = (any::<u16>(), any::<bool>(), any::<bool>(), 0..8192_u16);
    (addresses, small, fragmentation, 0..600_usize).prop_map(
        |(
            (src, dst),
            (protocol, dscp, ecn, ttl),
            (identification, dont_fragment, more_fragments, words),
            payload_len,
        )| {
            Repr {
                src: Ipv4Addr::from_bits(src),
                dst: Ipv4Addr::from_bits(dst),
                protocol,
                dscp,
                ecn,
                identification,
                dont_fragment,
                more_fragments,
                fragment_offset: words * 8,
                ttl,
                payload_len,
            }
        },
    )
}

/// Bytes that begin as IPv4 does, with the lengths small enough to be met.
fn almost_a_packet() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..90), 4..16_u8, 0..100_u8).prop_map(|(mut bytes, words, total_len)| {
        if bytes.len() >= 4 {
            bytes[0] = 0x40 | words;
            bytes[2..4].copy_from_slice(&[0, total_len]);
        }
        bytes
    })
}

#[test]
fn a_published_header_reads_field_by_field() {
    let packet = Packet::new_prefix(&HEADER[..]).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!((packet.header_len(), packet.total_len(), packet.identification()), (20, 115, 0));
    assert!(packet.dont_fragment() && !packet.more_fragments());
    assert_eq!((packet.fragment(), packet.ttl(), packet.protocol()), (Fragment::Whole, 64, 17));
    assert_eq!((packet.src(), packet.dst()), (Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(192, 168, 0, 199)));
    assert_eq!(Packet::new_checked(&HEADER[..]), Err(Error::Truncated));
}

#[test]
fn a_header_with_any_bit_flipped_fails_its_checksum() {
    for bit in 8..HEADER.len() * 8 {
        let mut bytes = HEADER;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let packet = Packet::new_unchecked(bytes);
        assert!(!packet.verify_checksum(), "bit {bit}");
    }
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = [0; 115];
        bytes[..20].copy_from_slice(&HEADER);
        bytes[at] = value;
        bytes
    };
    assert!(Packet::new_checked(with(0, 0x45)).is_ok());
    assert_eq!(Packet::new_checked(with(0, 0x44)), Err(Error::Malformed));
    assert_eq!(Packet::new_checked(with(0, 0x65)), Err(Error::Version));
    assert_eq!(Packet::new_checked(with(3, 19)), Err(Error::Malformed));
    assert_eq!(Packet::new_checked(with(3, 20)).map(|packet| packet.payload().len()), Ok(0));
    assert_eq!(Packet::new_checked(with(3, 116)), Err(Error::Truncated));
    assert_eq!(Packet::new_checked(&[0x46; 22][..]), Err(Error::Truncated));
}

#[test]
fn a_dead_packet_stays_dead() {
    let mut bytes = HEADER;
    let mut packet = Packet::new_prefix(&mut bytes[..]).unwrap();
    packet.set_ttl(1);
    packet.fill_checksum();
    assert_eq!(packet.decrement_ttl(), 0);
    assert!(packet.verify_checksum());
    assert_eq!(packet.decrement_ttl(), 0);
    assert!(packet.verify_checksum());
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(repr in any_repr()) {
        let mut bytes = std::vec![0xa5; repr.buffer_len() + repr.payload_len];
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        prop_assert_eq!(Repr::parse(&packet), Ok(repr));
        prop_assert!(packet.verify_checksum());
        prop_assert_eq!(packet.payload().len(), repr.payload_len);
        prop_assert_eq!(packet.options(), &[] as &[u8]);
        for len in 0..bytes.len() {
            prop_assert_eq!(Packet::new_checked(&bytes[..len]), Err(Error::Truncated));
        }
    }

    #[test]
    fn a_hop_less_keeps_the_checksum_right(repr in any_repr()) {
        let mut bytes = [0; HEADER_LEN];
        let mut packet = Packet::new_unchecked(&mut bytes[..]);
        repr.emit(&mut packet);
        prop_assert_eq!(packet.decrement_ttl(), repr.ttl.saturating_sub(1));
        prop_assert!(packet.verify_checksum());
        let incremental = packet.checksum();
        packet.fill_checksum();
        prop_assert_eq!(packet.checksum(), incremental);
    }

    #[test]
    fn options_and_payload_of_any_packet_lie_within_its_stated_length(bytes in almost_a_packet()) {
        let Ok(packet) = Packet::new_checked(&bytes[..]) else { return Ok(()) };
        prop_assert_eq!(HEADER_LEN + packet.options().len(), packet.header_len());
        prop_assert_eq!(packet.header_len() + packet.payload().len(), packet.total_len());
        prop_assert!(packet.total_len() <= bytes.len());
        prop_assert_eq!(packet.payload(), &bytes[packet.header_len()..packet.total_len()]);
        let _ = packet.check_options();
        let repr = Repr::parse(&packet).unwrap();
        prop_assert_eq!(repr.payload_len, packet.payload().len());
    }

    #[test]
    fn a_checked_view_bears_every_accessor_whatever_setters_did(
        mut bytes in almost_a_packet(), header_len in 0..80_usize, total_len: u16, offset: u16
    ) {
        let Ok(mut packet) = Packet::new_checked(&mut bytes[..]) else { return Ok(()) };
        packet.set_version_and_header_len(header_len);
        packet.set_total_len(total_len);
        packet.set_fragmentation(true, true, offset);
        prop_assert_eq!(packet.fragment_offset(), offset & 0xfff8);
        packet.decrement_ttl();
        packet.fill_checksum();
        let _ = (packet.verify_checksum(), packet.options().len(), packet.payload().len(), packet.check_options());
        let _ = (packet.payload_mut().len(), packet.fragment(), Repr::parse(&packet));
    }
}
