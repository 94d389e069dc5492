use super::*;
use proptest::prelude::*;

const REQUEST: [u8; PACKET_LEN] =
    [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 203, 0, 113, 80];

fn any_repr() -> impl Strategy<Value = Repr> {
    let operation = prop_oneof![Just(Operation::Request), Just(Operation::Reply)];
    (operation, any::<[u8; 6]>(), any::<u32>(), any::<[u8; 6]>(), any::<u32>()).prop_map(
        |(operation, sender_mac, sender_ip, target_mac, target_ip)| Repr {
            operation,
            sender_mac: MacAddress(sender_mac),
            sender_ip: Ipv4Addr::from_bits(sender_ip),
            target_mac: MacAddress(target_mac),
            target_ip: Ipv4Addr::from_bits(target_ip),
        },
    )
}

#[test]
fn a_request_says_who_asks_for_whom() {
    let packet = Packet::new_checked(&REQUEST[..]).unwrap();
    let repr = Repr::parse(&packet).unwrap();
    assert_eq!(repr.operation, Operation::Request);
    assert_eq!(repr.sender_mac, MacAddress([2, 0, 0, 0, 0, 1]));
    assert_eq!(repr.sender_ip, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(repr.target_mac, MacAddress::ZERO);
    assert_eq!(repr.target_ip, Ipv4Addr::new(203, 0, 113, 80));
}

#[test]
fn other_layers_operations_and_lengths_are_refused() {
    let with = |at: usize, value: u8| {
        let mut bytes = REQUEST;
        bytes[at] = value;
        bytes
    };
    assert_eq!(Packet::new_checked(with(1, 6)), Err(Error::Unsupported));
    assert_eq!(Packet::new_checked(with(2, 0x86)), Err(Error::Unsupported));
    assert_eq!(Packet::new_checked(with(4, 8)), Err(Error::Malformed));
    assert_eq!(Packet::new_checked(with(5, 16)), Err(Error::Malformed));
    for operation in [0, 3, 255] {
        let packet = Packet::new_checked(with(7, operation)).unwrap();
        assert_eq!(Repr::parse(&packet), Err(Error::Unsupported));
    }
}

#[test]
fn a_packet_cut_at_any_byte_is_truncated_and_padding_is_ignored() {
    for len in 0..PACKET_LEN {
        assert_eq!(Packet::new_checked(&REQUEST[..len]), Err(Error::Truncated));
    }
    let padded = [&REQUEST[..], &[0; 18]].concat();
    let parse = |bytes| Repr::parse(&Packet::new_checked(bytes).unwrap());
    assert_eq!(parse(&padded[..]), parse(&REQUEST[..]));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(repr in any_repr()) {
        let mut bytes = std::vec![0xa5; repr.buffer_len()];
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        prop_assert_eq!(Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()), Ok(repr));
    }

    #[test]
    fn any_bytes_that_parse_are_emitted_again(mut bytes: [u8; PACKET_LEN], is_likely: bool) {
        if is_likely {
            bytes[..7].copy_from_slice(&REQUEST[..7]);
            bytes[7] %= 4;
        }
        let Ok(packet) = Packet::new_checked(&bytes[..]) else { return Ok(()) };
        let Ok(repr) = Repr::parse(&packet) else { return Ok(()) };
        let mut again = [0; PACKET_LEN];
        repr.emit(&mut Packet::new_unchecked(&mut again[..]));
        prop_assert_eq!(again, bytes);
    }
}
