//! TCP: options, re-emission, and a clamp that touches nothing but sizes and checksum.

#![no_main]

use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::{assert_within, split};
use wire::checksum::checksum;
use wire::tcp::{Flags, HEADER_LEN, MAX_HEADER_LEN, Packet, Repr, TcpOption, clamp_mss};

fuzz_target!(|data: &[u8]| {
    let Some((max_mss, segment)) = split::<2>(data) else { return };
    check_clamp(segment, u16::from_be_bytes(max_mss));
    let Ok(packet) = Packet::new_checked(segment) else { return };
    assert_within(segment, packet.payload());
    assert!((HEADER_LEN..=MAX_HEADER_LEN).contains(&packet.header_len()));
    assert_eq!(packet.header_len() + packet.payload().len(), segment.len());
    assert!(packet.options().count() <= MAX_HEADER_LEN - HEADER_LEN);

    let Ok(repr) = Repr::parse(&packet) else {
        assert!(packet.options().any(|option| option.is_err()));
        return;
    };
    assert_eq!(repr.mss, packet.mss());
    let mut again = vec![0xa5; repr.buffer_len()];
    repr.emit(&mut Packet::new_unchecked(&mut again[..]));
    let emitted = Packet::new_checked(&again[..]).expect("an emitted header is one");
    assert_eq!(Repr::parse(&emitted), Ok(repr));
});

fn check_clamp(segment: &[u8], max_mss: u16) {
    let mut clamped = segment.to_vec();
    let result = clamp_mss(&mut clamped, max_mss);
    let Ok(before) = Packet::new_checked(segment) else {
        assert!(result.is_err());
        assert_eq!(clamped, segment);
        return;
    };
    let after = Packet::new_checked(&clamped[..]).expect("a clamp moves no length");
    assert_eq!(clamped[..16], segment[..16]);
    assert_eq!(after.payload(), before.payload());
    // The checksum moved against the options, so the sum over all is what it was, in either form of zero.
    let (sum_before, sum_after) = (checksum(segment), checksum(&clamped));
    assert!(sum_before == sum_after || sum_before == !sum_after && matches!(sum_before, 0 | 0xffff));
    if !before.flags().contains(Flags::SYN) {
        assert_eq!((result, &clamped[..]), (Ok(false), segment));
        return;
    }
    if let Ok(is_changed) = result {
        assert_eq!(is_changed, clamped != segment);
        for option in after.options() {
            if let Ok(TcpOption::MaxSegmentSize(mss)) = option {
                assert!(mss <= max_mss);
            }
        }
    }
}
