//! The clear part of ESP: what is read is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::esp::{HEADER_LEN, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::new_checked(data) else {
        assert!(data.len() < HEADER_LEN);
        return;
    };
    assert_within(data, packet.body());
    assert_eq!(HEADER_LEN + packet.body().len(), data.len());
    let repr = Repr::parse(&packet).expect("every header is legal");
    let mut again = data.to_vec();
    again[..HEADER_LEN].fill(0xa5);
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again, data);
});
