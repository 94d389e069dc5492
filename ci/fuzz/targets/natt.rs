//! Port 4500: each payload is of exactly one kind, and its message is framed the same way again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::natt::{Packet, Repr, classify};

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::new_checked(data) else {
        assert!(data.len() < 8 && data != [0xff]);
        return;
    };
    let repr = Repr::parse(&packet).expect("it was checked before");
    assert_eq!(classify(data), Ok(repr));
    assert_within(data, packet.payload());
    match repr {
        Repr::Keepalive => assert_eq!(data, [0xff]),
        Repr::Ike => assert_eq!((&data[..4], &data[4..]), (&[0; 4][..], packet.payload())),
        Repr::Esp => {
            assert_eq!(packet.payload(), data);
            let esp = wire::esp::Packet::new_checked(data).expect("ESP has its header");
            assert_ne!(esp.spi(), 0);
        }
    }
    let mut again = vec![0xa5; repr.buffer_len()];
    again.extend_from_slice(packet.payload());
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again, data);
});
