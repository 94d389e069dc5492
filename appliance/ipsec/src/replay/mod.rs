//! The replay window (RFC 4303 §3.4.3) with extended sequence numbers (Appendix A).
//!
//! **Purpose.** No authenticated packet is accepted twice. One core owns one window; the packets of one connection come
//! to one core, so each core's window is exact for what that core accepts.
//!
//! **Promises.**
//! - Only [`ReplayWindow::commit`] marks a number or moves the top, and it asks for an [`Authentic`], which only
//!   successful verification makes, or for the word of an appliance that has verified ([`Vouched`]). Looking ([`ReplayWindow::candidate`], [`ReplayWindow::check`]) may say no early;
//!   it never says yes for good.
//! - One packet costs the same whatever came before, but for a jump forward, which clears at most the whole bitmap
//!   (16 KiB for the widest window).
//!
//! **What it never does.** It guesses nothing from packets that were not verified, and it never moves back.
//!
//! The bitmap is a ring of 64-bit words, a power of two of them and always one more than the window needs (the layout
//! of RFC 6479): moving forward clears whole words ahead of the top and shifts nothing.

use crate::esp::Authentic;
use crate::inbound::Vouched;

/// Widths that a window can have, in packets. A configured width is rounded up to the next multiple of 64.
pub const WINDOW_PACKETS_MIN: u32 = 64;
/// The widest window.
pub const WINDOW_PACKETS_MAX: u32 = 65_536;

const WORD_BITS: u64 = 64;

/// How far apart two numbers with the same low 32 bits are.
const SUBSPACE: u64 = 1 << 32;
const HALF_SUBSPACE: u64 = SUBSPACE / 2;

/// The window of one core for one inbound SA.
#[derive(Debug)]
pub struct ReplayWindow {
    /// The highest number accepted; 0 before the first.
    top: u64,
    /// One bit for each number; empty if the check is off.
    words: Box<[u64]>,
    window_packets: u32,
    esn: bool,
}

/// Why a number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was accepted before.
    #[error("sequence number was accepted before")]
    Duplicate,
    /// It lies before the window, or is 0, which no packet may carry.
    #[error("sequence number lies before the replay window")]
    TooOld,
}

/// No window can be this wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replay window of {found} packets is too wide; allowed are 0 (off) and up to {WINDOW_PACKETS_MAX}")]
pub struct WindowTooWide {
    /// What was asked for, in packets.
    pub found: u32,
}

impl ReplayWindow {
    /// A window that has seen nothing. Widths are rounded up to whole words, so 1 becomes 64; 0 turns the check off.
    ///
    /// # Errors
    /// [`WindowTooWide`] beyond [`WINDOW_PACKETS_MAX`].
    pub fn new(window_packets: u32, esn: bool) -> Result<Self, WindowTooWide> {
        if window_packets > WINDOW_PACKETS_MAX {
            return Err(WindowTooWide { found: window_packets });
        }
        Ok(Self::of_validated(window_packets, esn))
    }

    /// As [`ReplayWindow::new`], for a width that was checked before.
    pub(crate) fn of_validated(window_packets: u32, esn: bool) -> Self {
        let window_packets = window_packets.min(WINDOW_PACKETS_MAX).next_multiple_of(WINDOW_PACKETS_MIN);
        let words = match window_packets / WINDOW_PACKETS_MIN {
            0 => 0,
            full => (full as usize + 1).next_power_of_two(),
        };
        Self { top: 0, words: vec![0; words].into_boxed_slice(), window_packets, esn }
    }

    /// The width that is kept, in packets; 0 if the check is off.
    #[must_use]
    pub fn window_packets(&self) -> u32 {
        self.window_packets
    }

    /// The highest number accepted; 0 before the first.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// The number that a packet with these low 32 bits most likely has.
    ///
    /// With ESN that is the number nearest to the top, or to `top_hint` if that is higher (numbers authenticated
    /// elsewhere; pass 0 for none). Of two equally near ones it is the later. It is a guess that verification confirms
    /// or refutes, since the high bits are authenticated though not sent; it moves nothing.
    #[must_use]
    #[inline]
    pub fn candidate(&self, sequence_low: u32, top_hint: u64) -> u64 {
        if self.esn { nearest(self.top.max(top_hint), sequence_low) } else { u64::from(sequence_low) }
    }

    /// Whether this number might still be accepted: a cheap look before the expensive verification.
    ///
    /// # Errors
    /// [`ReplayError`] if it certainly will not be.
    #[inline]
    pub fn check(&self, sequence: u64) -> Result<(), ReplayError> {
        if sequence == 0 {
            return Err(ReplayError::TooOld);
        }
        if sequence > self.top || self.words.is_empty() {
            return Ok(());
        }
        if self.top - sequence >= u64::from(self.window_packets) {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = self.place(sequence);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(ReplayError::Duplicate) }
    }

    /// Marks the number of a verified packet, and moves the top if it is higher.
    ///
    /// # Errors
    /// [`ReplayError`], with nothing changed, if it was accepted before or lies before the window.
    #[inline]
    pub fn commit(&mut self, packet: &Authentic) -> Result<(), ReplayError> {
        self.mark(packet.sequence())
    }

    /// The same for a packet that another appliance has verified.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    #[inline]
    pub(crate) fn commit_vouched(&mut self, packet: &Vouched) -> Result<(), ReplayError> {
        self.mark(packet.sequence())
    }

    #[inline]
    fn mark(&mut self, sequence: u64) -> Result<(), ReplayError> {
        self.check(sequence)?;
        self.clear_up_to(sequence);
        self.top = self.top.max(sequence);
        if !self.words.is_empty() {
            let (word, bit) = self.place(sequence);
            self.words[word] |= bit;
        }
        Ok(())
    }

    /// Forgets everything, **so that every packet ever accepted is accepted again**.
    ///
    /// For measurements that send one capture round after round through a lab SA. Nothing else may call it.
    pub fn reset(&mut self) {
        self.top = 0;
        self.words.fill(0);
    }

    /// Clears the words that the top enters on its way to `sequence`; none if that lies behind. More than all of them
    /// need not be cleared.
    #[inline]
    fn clear_up_to(&mut self, sequence: u64) {
        let entered = (sequence / WORD_BITS).saturating_sub(self.top / WORD_BITS);
        for ahead in 1..=entered.min(self.words.len() as u64) {
            let (word, _) = self.place(self.top + ahead * WORD_BITS);
            self.words[word] = 0;
        }
    }

    /// The word and the bit that stand for a number. There must be words.
    #[inline]
    fn place(&self, sequence: u64) -> (usize, u64) {
        let mask = self.words.len() - 1;
        ((sequence / WORD_BITS) as usize & mask, 1 << (sequence % WORD_BITS))
    }
}

/// The 64-bit number nearest to `top` whose low 32 bits are `low`; the later one if two are equally near.
#[inline]
fn nearest(top: u64, low: u32) -> u64 {
    let ahead = u64::from(low.wrapping_sub(top as u32));
    if ahead <= HALF_SUBSPACE
        && let Some(later) = top.checked_add(ahead)
    {
        return later;
    }
    match top.checked_sub(SUBSPACE - ahead) {
        Some(earlier) => earlier,
        // Below the first 2^32 numbers there are none, so what lies far ahead is the nearest there is.
        None => top + ahead,
    }
}

#[cfg(test)]
mod tests;
