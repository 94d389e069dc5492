//! ARP: what is read is written again, byte for byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::arp::{PACKET_LEN, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::new_checked(data) else { return };
    let Ok(repr) = Repr::parse(&packet) else {
        assert!(packet.operation().is_none());
        return;
    };
    let mut again = [0xa5; PACKET_LEN];
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again, data[..PACKET_LEN]);
});
