use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec::Vec;

fn any_mac() -> impl Strategy<Value = MacAddress> {
    any::<[u8; 6]>().prop_map(MacAddress)
}

fn any_repr() -> impl Strategy<Value = Repr> {
    let vlan =
        prop::option::of((0..4096_u16, 0..8_u8, any::<bool>()).prop_map(|(id, priority, drop_eligible)| VlanTag {
            id,
            priority,
            drop_eligible,
        }));
    let ether_type = any::<u16>().prop_filter("a tag is no EtherType", |value| *value != ETHER_TYPE_VLAN);
    (any_mac(), any_mac(), vlan, ether_type).prop_map(|(dst, src, vlan, ether_type)| Repr {
        dst,
        src,
        vlan,
        ether_type: ether_type.into(),
    })
}

#[test]
fn a_tagged_frame_shows_its_tag_and_what_it_carries() {
    let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x81, 0x00, 0xb0, 0x0a, 0x08, 0x06, 0xaa];
    let frame = Packet::new_checked(&bytes[..]).unwrap();
    assert!(frame.dst().is_broadcast() && frame.src().is_unicast());
    assert_eq!(frame.vlan(), Some(VlanTag { id: 10, priority: 5, drop_eligible: true }));
    assert_eq!((frame.ether_type(), frame.header_len(), frame.payload()), (EtherType::Arp, 18, &[0xaa][..]));
}

#[test]
fn a_second_tag_is_not_followed() {
    let mut bytes = [0; 22];
    bytes[12..14].copy_from_slice(&[0x81, 0x00]);
    bytes[16..18].copy_from_slice(&[0x81, 0x00]);
    let frame = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!(Repr::parse(&frame), Err(Error::Unsupported));
    bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
    let frame = Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!((frame.vlan(), frame.ether_type()), (None, EtherType::Other(0x88a8)));
}

#[test]
fn addresses_say_what_they_are() {
    let multicast = MacAddress([0x01, 0x00, 0x5e, 0, 0, 1]);
    assert!(multicast.is_multicast() && !multicast.is_broadcast() && !multicast.is_unicast());
    assert!(MacAddress::BROADCAST.is_multicast());
    assert!(!MacAddress::ZERO.is_unicast() && !MacAddress::ZERO.is_multicast());
    assert_eq!(MacAddress([2, 0, 0xab, 0, 0, 0x1f]).to_string(), "02:00:ab:00:00:1f");
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(repr in any_repr(), payload in prop::collection::vec(any::<u8>(), 0..32)) {
        let mut bytes = std::vec![0xa5; repr.buffer_len()];
        bytes.extend_from_slice(&payload);
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        let mut frame = Packet::new_checked(&mut bytes[..]).unwrap();
        prop_assert_eq!(Repr::parse(&frame), Ok(repr));
        prop_assert_eq!(frame.header_len(), repr.buffer_len());
        prop_assert_eq!(frame.payload(), &payload[..]);
        prop_assert_eq!(frame.payload_mut(), &payload[..]);
    }

    #[test]
    fn a_header_cut_at_any_byte_is_truncated(repr in any_repr()) {
        let mut bytes = std::vec![0; repr.buffer_len()];
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        for len in 0..bytes.len() {
            prop_assert_eq!(Packet::new_checked(&bytes[..len]), Err(Error::Truncated));
        }
    }

    #[test]
    fn a_checked_view_of_any_bytes_bears_every_accessor(
        mut bytes in prop::collection::vec(any::<u8>(), 0..24), is_tagged: bool
    ) {
        if is_tagged && bytes.len() >= 14 {
            bytes[12..14].copy_from_slice(&[0x81, 0x00]);
        }
        let Ok(frame) = Packet::new_checked(&bytes[..]) else { return Ok(()) };
        prop_assert_eq!(frame.header_len() + frame.payload().len(), bytes.len());
        if let Ok(repr) = Repr::parse(&frame) {
            let mut again: Vec<u8> = bytes.clone();
            repr.emit(&mut Packet::new_unchecked(&mut again[..]));
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn a_view_too_short_for_the_tag_that_was_written_into_it_does_not_panic() {
    let mut bytes = [0; HEADER_LEN];
    let mut frame = Packet::new_checked(&mut bytes[..]).unwrap();
    frame.set_dst(MacAddress::BROADCAST);
    frame.buffer[12..].copy_from_slice(&[0x81, 0x00]);
    assert_eq!((frame.vlan(), frame.payload().len(), frame.payload_mut().len()), (None, 0, 0));
    assert_eq!(frame.ether_type(), EtherType::Other(ETHER_TYPE_VLAN));
    assert_eq!(Repr::parse(&frame), Err(Error::Truncated));
}
