//! IPv4: the view stays within its stated length, what is read is written again, setters break no accessor.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;
use wire::ipv4::{HEADER_LEN, MAX_HEADER_LEN, Packet, Repr};

fuzz_target!(|data: &[u8]| {
    let Ok(prefix) = Packet::new_prefix(data) else {
        assert!(Packet::new_checked(data).is_err());
        return;
    };
    assert_within(data, prefix.payload());
    assert_within(data, prefix.options());
    assert!((HEADER_LEN..=MAX_HEADER_LEN).contains(&prefix.header_len()));
    let whole = Packet::new_checked(data);
    assert_eq!(whole.is_ok(), data.len() >= prefix.total_len());
    let Ok(packet) = whole else { return };
    assert_eq!(packet.header_len() + packet.payload().len(), packet.total_len());

    let repr = Repr::parse(&packet).expect("checked lengths do not contradict");
    assert_eq!(repr.payload_len, packet.payload().len());
    let mut again = [0xa5; HEADER_LEN];
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    let is_reserved_flag_set = data[6] & 0x80 != 0;
    if packet.options().is_empty() && !is_reserved_flag_set {
        // All but the checksum, of which two forms can be right.
        assert_eq!((&again[..10], &again[12..]), (&data[..10], &data[12..HEADER_LEN]));
    }
    let emitted = Packet::new_prefix(&again[..]).expect("an emitted header is one");
    assert!(emitted.verify_checksum());
    assert_eq!(Repr::parse(&emitted), Ok(repr));
    check_hop(data, packet.verify_checksum());
    check_setters(data);
});

/// A hop less must keep a right checksum right and a wrong one wrong.
fn check_hop(data: &[u8], is_valid: bool) {
    let mut bytes = data.to_vec();
    let mut packet = Packet::new_checked(&mut bytes[..]).expect("it was checked before");
    let ttl = packet.ttl();
    assert_eq!(packet.decrement_ttl(), ttl.saturating_sub(1));
    assert_eq!(packet.verify_checksum(), is_valid);
}

/// Header and total length become arbitrary; no accessor may mind.
fn check_setters(data: &[u8]) {
    let mut bytes = data.to_vec();
    let mut packet = Packet::new_checked(&mut bytes[..]).expect("it was checked before");
    packet.set_version_and_header_len(usize::from(data[0] ^ data[8]) % 64);
    packet.set_total_len(u16::from_be_bytes([data[10], data[11]]));
    packet.fill_checksum();
    let _ = (packet.check_options(), packet.fragment(), Repr::parse(&packet));
    assert!(packet.options().len() <= MAX_HEADER_LEN);
    assert!(packet.payload_mut().len() <= data.len());
}
