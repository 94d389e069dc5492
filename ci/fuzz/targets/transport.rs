//! Transport mode: any bytes as an outer header, any length and protocol behind it. What is restored says what it was
//! told, with a checksum that is as right as it was; what is refused is unchanged.

#![no_main]

use ipsec::transport::restore;
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;

fuzz_target!(|data: &[u8]| {
    let Some(([next_header, high, low, fit], header)) = split::<4>(data) else { return };
    let payload_len = usize::from(high) << 8 | usize::from(low);
    let mut header = header.to_vec();
    if fit & 1 != 0 {
        make_right(&mut header);
    }
    let before = header.clone();
    if restore(&mut header, next_header, payload_len).is_err() {
        assert_eq!(header, before, "refused, and yet changed");
        return;
    }
    match header[0] >> 4 {
        4 => {
            assert_eq!(header.len(), usize::from(header[0] & 15) * 4);
            assert_eq!(usize::from(header[2]) << 8 | usize::from(header[3]), header.len() + payload_len);
            assert_eq!(header[9], next_header);
            assert_eq!(sum(&header) == 0xffff, sum(&before) == 0xffff, "the checksum is as right as it was");
            let untouched = |at: &usize| ![2, 3, 9, 10, 11].contains(at);
            assert!((0..header.len()).filter(untouched).all(|at| header[at] == before[at]));
        }
        6 => {
            assert_eq!(40 + (usize::from(header[4]) << 8 | usize::from(header[5])), header.len() + payload_len);
            let changed: Vec<_> = (6..header.len()).filter(|&at| header[at] != before[at]).collect();
            assert!(changed.len() <= 1, "one next header at most, besides the length");
        }
        other => panic!("version {other} is none"),
    }
});

/// Makes an IPv4 header of the first bytes that could stand before ESP.
fn make_right(header: &mut Vec<u8>) {
    if header.len() < 20 {
        return;
    }
    let words = (5 + header[0] % 3) as usize;
    header.truncate(words * 4);
    let words = header.len() / 4;
    header.truncate(words * 4);
    (header[0], header[6], header[7], header[9]) = (0x40 | words as u8, 0x40, 0, 50);
    (header[10], header[11]) = (0, 0);
    let checksum = !sum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The ones' complement sum of 16-bit words, anew.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
