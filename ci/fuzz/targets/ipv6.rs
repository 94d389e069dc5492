//! IPv6: the walk over extension headers stays inside the packet, what is read is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::ipv6::{HEADER_LEN, Packet, Repr};
use wire::{Error, Fragment};

fuzz_target!(|data: &[u8]| {
    let Ok(prefix) = Packet::new_prefix(data) else {
        assert!(Packet::new_checked(data).is_err());
        return;
    };
    assert_within(data, prefix.payload());
    check_walk(data, &prefix);
    let repr = Repr::parse(&prefix).expect("a fixed header is always legal");
    let mut again = [0xa5; HEADER_LEN];
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again, data[..HEADER_LEN]);
    let whole = Packet::new_checked(data);
    assert_eq!(whole.is_ok(), data.len() >= prefix.total_len());
    if let Ok(packet) = whole {
        assert_eq!(HEADER_LEN + packet.payload().len(), packet.total_len());
        assert_ne!(packet.upper_layer(), Err(Error::Truncated));
    }
    let mut bytes = data.to_vec();
    let mut lying = Packet::new_prefix(&mut bytes[..]).expect("it was checked before");
    lying.set_payload_len(u16::from_be_bytes([data[8], data[9]]));
    let _ = (lying.upper_layer(), lying.payload_mut().len());
});

fn check_walk(data: &[u8], packet: &Packet<&[u8]>) {
    let Ok(upper) = packet.upper_layer() else { return };
    assert!(upper.offset >= HEADER_LEN && upper.offset <= data.len().min(packet.total_len()));
    assert_eq!(upper.offset % 8, 0);
    assert_eq!(upper.fragment_offset % 8, 0);
    assert_eq!(upper.fragment == Fragment::Later, upper.fragment_offset > 0);
    if upper.offset == HEADER_LEN {
        assert_eq!((upper.protocol, upper.fragment), (packet.next_header(), Fragment::Whole));
    }
    // Whatever lies behind the upper layer's start says nothing about where it starts.
    let shortest = Packet::new_prefix(&data[..upper.offset]).expect("the fixed header is still there");
    assert_eq!(shortest.upper_layer(), Ok(upper));
}
