//! UDP: bounds, re-emission, and checksums that are right once filled in.

#![no_main]

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::udp::{HEADER_LEN, Packet, Repr};

const ENDS: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::BROADCAST)),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
];

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::new_checked(data) else { return };
    assert_within(data, packet.payload());
    assert_eq!(HEADER_LEN + packet.payload().len(), packet.len());
    let repr = Repr::parse(&packet).expect("checked lengths do not contradict");
    let mut again = [0xa5; HEADER_LEN];
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    assert_eq!(again[..6], data[..6]);

    for (src, dst) in ENDS {
        let mut bytes = data.to_vec();
        let mut filled = Packet::new_checked(&mut bytes[..]).expect("it was checked before");
        filled.fill_checksum(src, dst);
        assert_ne!(filled.checksum(), 0);
        assert!(filled.verify_checksum(src, dst));
        // A carried checksum that verifies is the computed one: zero, its other form, says that there is none.
        if packet.checksum() != 0 && packet.verify_checksum(src, dst) {
            assert_eq!(packet.checksum(), filled.checksum());
        }
    }
});
