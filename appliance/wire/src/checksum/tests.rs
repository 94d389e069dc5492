use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// RFC 1071 §1 read aloud: 16-bit big-endian words, end-around carry after each addition.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

#[test]
fn the_example_of_rfc_1071_sums_to_ddf2() {
    assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
}

#[test]
fn the_example_of_rfc_1624_gives_zero_and_not_minus_zero() {
    // §4: HC = 0xdd2f, m = 0x5555, m' = 0x3285. RFC 1141's formula would give 0xffff.
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn empty_input_has_the_checksum_of_nothing() {
    assert_eq!(checksum(&[]), 0xffff);
}

#[test]
fn the_longest_run_of_ones_does_not_overflow() {
    let ones = std::vec![0xff; 65_535];
    assert_eq!(checksum(&ones), naive(&ones));
}

#[test]
fn a_carry_out_of_a_carry_is_not_lost() {
    // Words of 32 bits that sum to 0x1_ffff_ffff: folding that once carries again. Either byte order does it.
    for last in [[0, 0, 0, 1], [1, 0, 0, 0]] {
        let bytes = [[0xff; 4], [0xff; 4], last].concat();
        assert_eq!(checksum(&bytes), naive(&bytes));
    }
}

#[test]
fn a_jumbo_length_counts_with_both_its_words() {
    let (src, dst) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let sum = Sum::new().pseudo_header_v6(src, dst, 17, 0x0003_0005);
    assert_eq!(sum.checksum(), !(3 + 5 + 17));
}

proptest! {
    #[test]
    fn every_sum_agrees_with_the_naive_one(bytes in prop::collection::vec(any::<u8>(), 0..2048), skip in 0..8_usize) {
        // `skip` moves the start through all alignments.
        let part = &bytes[skip.min(bytes.len())..];
        prop_assert_eq!(checksum(part), naive(part));
    }

    #[test]
    fn parts_sum_to_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..512), cut in 0..256_usize) {
        let cut = (cut * 2).min(bytes.len() & !1);
        let parts = Sum::new().bytes(&bytes[cut..]).bytes(&bytes[..cut]);
        if bytes.len().is_multiple_of(2) || cut == 0 {
            prop_assert_eq!(parts.checksum(), naive(&bytes));
        }
    }

    #[test]
    fn pseudo_headers_are_summed_as_if_they_lay_before_the_packet(
        src: u32, dst: u32, src6: u128, dst6: u128, protocol: u8, body in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        let (src, dst) = (Ipv4Addr::from(src), Ipv4Addr::from(dst));
        let mut laid_out: Vec<u8> = [src.octets(), dst.octets()].concat();
        laid_out.extend([0, protocol]);
        laid_out.extend((body.len() as u16).to_be_bytes());
        laid_out.extend(&body);
        let sum = Sum::new().pseudo_header(src.into(), dst.into(), protocol, body.len()).bytes(&body);
        prop_assert_eq!(sum.checksum(), naive(&laid_out));

        let (src6, dst6) = (Ipv6Addr::from(src6), Ipv6Addr::from(dst6));
        let mut laid_out: Vec<u8> = [src6.octets(), dst6.octets()].concat();
        laid_out.extend((body.len() as u32).to_be_bytes());
        laid_out.extend([0, 0, 0, protocol]);
        laid_out.extend(&body);
        let sum = Sum::new().pseudo_header(src6.into(), dst6.into(), protocol, body.len()).bytes(&body);
        prop_assert_eq!(sum.checksum(), naive(&laid_out));
    }

    #[test]
    fn an_incremental_update_is_a_full_recomputation(
        mut bytes in prop::collection::vec(any::<u8>(), 8..128), at: prop::sample::Index, new: u16, new32: u32
    ) {
        // A header's sum is never of nothing but zero words (version, ports, type): RFC 1624's premise.
        bytes[0] |= 1;
        let before = checksum(&bytes);
        let at = at.index(bytes.len() - 7) + 2;
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let old32 = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);

        let mut short = bytes.clone();
        short[at..at + 2].copy_from_slice(&new.to_be_bytes());
        let incremental = if at.is_multiple_of(2) { update(before, old, new) } else { update_unaligned(before, old, new) };
        prop_assert_eq!(incremental, naive(&short));

        let even = at & !1;
        let old32 = if even == at { old32 } else {
            u32::from_be_bytes([bytes[even], bytes[even + 1], bytes[even + 2], bytes[even + 3]])
        };
        let mut long = bytes.clone();
        long[even..even + 4].copy_from_slice(&new32.to_be_bytes());
        prop_assert_eq!(update_u32(before, old32, new32), naive(&long));
    }
}
