//! The options of a TCP header.

use super::Repr;
use crate::bytes::{put_u16, put_u32, u16_at, u32_at};
use crate::{Error, Result};

pub(super) const KIND_END: u8 = 0;
pub(super) const KIND_NOP: u8 = 1;
pub(super) const KIND_MSS: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_TIMESTAMPS: u8 = 8;

/// Largest shift that a window scale may ask for; what is above counts as this (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption {
    /// Maximum segment size in bytes.
    MaxSegmentSize(u16),
    /// Window scale, at most 14.
    WindowScale(u8),
    /// Selective acknowledgement permitted.
    SackPermitted,
    /// Timestamps.
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// What the sender last saw of the receiver's clock.
        echo: u32,
    },
    /// Any other kind.
    Other {
        /// Its kind.
        kind: u8,
    },
}

/// The options of one header, in order. Padding is passed over. After an error the walk is at its end.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    bytes: &'a [u8],
}

impl<'a> Options<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<TcpOption>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [KIND_NOP, rest @ ..] = self.bytes {
            self.bytes = rest;
        }
        if matches!(self.bytes, [] | [KIND_END, ..]) {
            return None;
        }
        let option = split_first(self.bytes);
        self.bytes = option.as_ref().map_or(&[], |(_, rest)| rest);
        Some(option.and_then(|(option, _)| parse(option)))
    }
}

/// Splits off the first option, which must be one with a length byte.
fn split_first(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let len = bytes.get(1).map_or(0, |len| usize::from(*len));
    if len < 2 {
        return Err(Error::Malformed);
    }
    bytes.split_at_checked(len).ok_or(Error::Malformed)
}

/// Reads one option of at least two bytes. A known kind of another length than its own is malformed.
fn parse(option: &[u8]) -> Result<TcpOption> {
    match (option[0], option.len()) {
        (KIND_MSS, 4) => Ok(TcpOption::MaxSegmentSize(u16_at(option, 2))),
        (KIND_WINDOW_SCALE, 3) => Ok(TcpOption::WindowScale(option[2].min(MAX_WINDOW_SCALE))),
        (KIND_SACK_PERMITTED, 2) => Ok(TcpOption::SackPermitted),
        (KIND_TIMESTAMPS, 10) => Ok(TcpOption::Timestamps { value: u32_at(option, 2), echo: u32_at(option, 6) }),
        (KIND_MSS | KIND_WINDOW_SCALE | KIND_SACK_PERMITTED | KIND_TIMESTAMPS, _wrong_length) => Err(Error::Malformed),
        (kind, _length) => Ok(TcpOption::Other { kind }),
    }
}

/// Writes the options of `repr`, which fill `out` to its last word, and pads the rest with end markers.
pub(super) fn emit(repr: &Repr, out: &mut [u8]) {
    out.fill(KIND_END);
    let mut at = 0;
    if let Some(mss) = repr.mss {
        out[at..at + 2].copy_from_slice(&[KIND_MSS, 4]);
        put_u16(out, at + 2, mss);
        at += 4;
    }
    if let Some(shift) = repr.window_scale {
        out[at..at + 3].copy_from_slice(&[KIND_WINDOW_SCALE, 3, shift.min(MAX_WINDOW_SCALE)]);
        at += 3;
    }
    if repr.sack_permitted {
        out[at..at + 2].copy_from_slice(&[KIND_SACK_PERMITTED, 2]);
        at += 2;
    }
    if let Some((value, echo)) = repr.timestamps {
        out[at..at + 2].copy_from_slice(&[KIND_TIMESTAMPS, 10]);
        put_u32(out, at + 2, value);
        put_u32(out, at + 6, echo);
    }
}
