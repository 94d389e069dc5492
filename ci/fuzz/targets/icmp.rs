//! ICMP for both versions: what is read is written again; what an error quotes is parsed without harm.

#![no_main]

use core::net::Ipv6Addr;

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::flow::parse_prefix;
use wire::icmp::{Packet, v4, v6};

const SRC: Ipv6Addr = Ipv6Addr::LOCALHOST;
const DST: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::new_checked(data) else {
        assert!(data.len() < 8);
        return;
    };
    assert_within(data, packet.payload());
    let _ = parse_prefix(packet.payload());
    if let Ok(repr) = v4::Repr::parse(&packet) {
        let mut again = vec![0xa5; repr.buffer_len()];
        repr.emit(&mut Packet::new_unchecked(&mut again[..]));
        let emitted = Packet::new_checked(&again[..]).expect("an emitted message is one");
        assert!(emitted.verify_checksum_v4());
        assert_eq!(v4::Repr::parse(&emitted), Ok(repr));
        assert_eq!((again.len(), &again[8..]), (data.len(), &data[8..]));
        if packet.word() == emitted.word() && packet.verify_checksum_v4() {
            // Ones' complement has two forms of zero, and both verify.
            let is_zero = |checksum| matches!(checksum, 0 | 0xffff);
            assert!(again == data || is_zero(packet.checksum()) && is_zero(emitted.checksum()));
        }
    }
    if let Ok(repr) = v6::Repr::parse(&packet) {
        let mut again = vec![0xa5; repr.buffer_len()];
        repr.emit(SRC, DST, &mut Packet::new_unchecked(&mut again[..]));
        let emitted = Packet::new_checked(&again[..]).expect("an emitted message is one");
        assert!(emitted.verify_checksum_v6(SRC, DST));
        assert_eq!(v6::Repr::parse(&emitted), Ok(repr));
        assert_eq!((again.len(), &again[8..]), (data.len(), &data[8..]));
    }
});
