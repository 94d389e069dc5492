//! Ethernet frames: what is read is written again, byte for byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::ethernet::{Packet, Repr, VlanTag};

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = Packet::new_checked(data) else {
        assert!(data.len() < 18);
        return;
    };
    assert_within(data, frame.payload());
    assert_eq!(frame.header_len() + frame.payload().len(), data.len());
    let Ok(repr) = Repr::parse(&frame) else { return };
    assert_eq!(repr.buffer_len(), frame.header_len());
    let mut again = data.to_vec();
    again[..repr.buffer_len()].fill(0xa5);
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again, data);

    // Tagging a frame or taking its tag off touches nothing else.
    let other = Repr { vlan: if repr.vlan.is_none() { Some(VlanTag::new(10)) } else { None }, ..repr };
    let mut moved = vec![0; other.buffer_len()];
    moved.extend_from_slice(frame.payload());
    other.emit(&mut Packet::new_unchecked(&mut moved[..]));
    let moved = Packet::new_checked(&moved[..]).expect("its header is complete");
    assert_eq!(moved.payload(), frame.payload());
    assert_eq!(Repr::parse(&moved), Ok(other));
});
