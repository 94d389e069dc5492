//! Lowering the maximum segment size of a handshake that passes by.

use super::options::{KIND_END, KIND_MSS, KIND_NOP};
use super::{Flags, HEADER_LEN, Packet};
use crate::bytes::{put_u16, u16_at};
use crate::{Error, Result, checksum};

/// Lowers every maximum segment size option above `max_mss_bytes` in a SYN or SYN-ACK, so that full segments still fit
/// the path once ESP has added its own bytes. Returns whether something changed; the checksum follows incrementally
/// (RFC 1624), so that a wrong one stays wrong.
///
/// A segment without SYN, or without the option, is left as it is: a missing option means 536 or 1,220 bytes, which
/// always fit.
///
/// # Errors
/// As [`Packet::new_checked`]; `Malformed` if an option's length is wrong. Options before that one are clamped already:
/// receivers that tolerate the rest would honour them.
pub fn clamp_mss(segment: &mut [u8], max_mss_bytes: u16) -> Result<bool> {
    let packet = Packet::new_checked(&mut *segment)?;
    if !packet.flags().contains(Flags::SYN) {
        return Ok(false);
    }
    let header_len = packet.header_len();
    let mut is_changed = false;
    let mut at = HEADER_LEN;
    while at < header_len {
        let kind = segment[at];
        if kind == KIND_END {
            break;
        }
        if kind == KIND_NOP {
            at += 1;
            continue;
        }
        let len = segment[..header_len].get(at + 1).map_or(0, |len| usize::from(*len));
        let is_wrong = len < 2 || at + len > header_len || kind == KIND_MSS && len != 4;
        if is_wrong {
            return Err(Error::Malformed);
        }
        if kind == KIND_MSS {
            is_changed |= lower(segment, at + 2, max_mss_bytes);
        }
        at += len;
    }
    Ok(is_changed)
}

/// Lowers the value at `at` to `max` and keeps the checksum in step.
fn lower(segment: &mut [u8], at: usize, max: u16) -> bool {
    let old = u16_at(segment, at);
    if old <= max {
        return false;
    }
    put_u16(segment, at, max);
    let mut packet = Packet::new_unchecked(segment);
    let update = if at.is_multiple_of(2) { checksum::update } else { checksum::update_unaligned };
    let checksum = update(packet.checksum(), old, max);
    packet.set_checksum(checksum);
    true
}
