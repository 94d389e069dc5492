//! What the fuzz targets share.
//!
//! A target promises more than "no panic": it states what must hold of whatever was accepted (bounds, re-emission,
//! agreement with an oracle) and asserts it. A broken promise ends the process, and libFuzzer keeps the input.

#![forbid(unsafe_code)]

pub mod ike_peer;

/// Asserts that `part` is a piece of `whole`: in memory, not merely equal to one.
pub fn assert_within(whole: &[u8], part: &[u8]) {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    assert!(whole.start <= part.start && part.end <= whole.end, "{part:?} reaches out of {whole:?}");
}

/// Splits `N` bytes of choices off the front of an input; `None` ends the run of an input that is too short.
pub fn split<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk::<N>().map(|(choices, rest)| (*choices, rest))
}
