//! GRE: the base header alone is accepted, nothing that would lengthen it, and it is written the same way again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::gre::{HEADER_LEN, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    // Version, and every flag of RFC 2784, RFC 2890 and RFC 1701 that means something.
    let is_base = data.len() >= HEADER_LEN && data[0] & 0xfc == 0 && data[1] & 0x07 == 0;
    let Ok(packet) = Packet::new_checked(data) else {
        assert!(!is_base);
        return;
    };
    assert!(is_base);
    assert_within(data, packet.payload());
    assert_eq!(packet.payload(), &data[HEADER_LEN..]);
    let Ok(repr) = Repr::parse(&packet) else { panic!("a checked header is read") };
    let mut again = vec![0xa5; HEADER_LEN];
    again.extend_from_slice(packet.payload());
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    // Bits 6 to 12 mean nothing, and are sent as zero.
    assert_eq!((&again[..2], &again[2..]), (&[0, 0][..], &data[2..]));
});
