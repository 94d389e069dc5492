//! What all cores know of one outbound SA, and the room that its packets need.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::numbers::{END_EXTENDED, END_SHORT};
use super::outer_len;
use crate::engine::{AeadKey, Engine, EngineKind};
use crate::esp::{self, BEFORE_PAYLOAD_LEN, ICV_LEN, TRAILER_LEN};
use crate::iv::SenderNumber;
use crate::lifetime::Lifesize;
use crate::sa::{BadSa, Direction, Frame, Mode, SaParameters};

/// Room that a packet needs before and after itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// Bytes in front.
    pub before: usize,
    /// Bytes behind: padding, trailer and ICV.
    pub after: usize,
}

/// What all cores know of one outbound SA. Nothing here changes but the claims on the lifesize, the grants, and the mark.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OutboundShared {
    /// What every packet asks for, in the cache line in which the key begins.
    pub(super) frame: Frame,
    pub(super) key: AeadKey,
    pub(super) lifesize: Lifesize,
    pub(super) born_at: SenderNumber,
    mark: AtomicU64,
    parameters: SaParameters,
}

impl OutboundShared {
    /// Makes an SA ready, with all of its lifesize and its numbers. `born_at` is where the cluster's sender counter stood
    /// when the SA was made.
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new(parameters: SaParameters, engine: Engine, born_at: SenderNumber) -> Result<Arc<Self>, BadSa> {
        let lifesize = Lifesize::new(&parameters.lifetime, 1);
        Self::with(parameters, engine, born_at, lifesize, u64::MAX)
    }

    /// Makes an SA ready that may carry nothing yet, see [`Lifesize::granted`], and with its [mark](Self::mark) at 0.
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new_granted(
        parameters: SaParameters,
        engine: Engine,
        born_at: SenderNumber,
        grant_chunk_bytes: u64,
    ) -> Result<Arc<Self>, BadSa> {
        Self::with(parameters, engine, born_at, Lifesize::granted(1, grant_chunk_bytes), 0)
    }

    fn with(
        parameters: SaParameters,
        engine: Engine,
        born_at: SenderNumber,
        lifesize: Lifesize,
        mark: u64,
    ) -> Result<Arc<Self>, BadSa> {
        parameters.validate(Direction::Outbound)?;
        Ok(Arc::new(Self {
            frame: Frame::of(&parameters),
            key: AeadKey::new(engine, &parameters.key)?,
            lifesize,
            born_at,
            mark: AtomicU64::new(mark),
            parameters,
        }))
    }

    /// Whoever numbers the SA here uses numbers below this one only. Numbers that are granted are not compared with it:
    /// they lie below the mark of whoever grants them.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }

    /// Raises the mark, once the new one stands where a crash cannot take it back; a lower one than it has changes
    /// nothing. The SA's home core sees it when its numbers come to an end.
    pub fn raise_mark(&self, mark: u64) {
        // Relaxed is enough: nothing but the figure itself is told.
        self.mark.fetch_max(mark, Ordering::Relaxed);
    }

    /// What was agreed on.
    #[must_use]
    #[inline]
    pub fn parameters(&self) -> &SaParameters {
        &self.parameters
    }

    /// How much of the lifesize is claimed.
    #[must_use]
    pub fn lifesize(&self) -> &Lifesize {
        &self.lifesize
    }

    /// Who encrypts.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        self.key.engine_kind()
    }

    /// The room around an inner packet: outer headers, ESP header and IV in front; padding, trailer and ICV behind.
    ///
    /// In transport mode the inner packet is the one whose payload is encrypted, its IP header included, and there are no
    /// other headers: the room in front is where that header will go.
    #[must_use]
    #[inline]
    pub fn overhead(&self, inner_len: usize) -> Overhead {
        let esp = esp_overhead(inner_len);
        Overhead { before: self.outer_len() + esp.before, after: esp.after }
    }

    /// Whether an inner packet of this length leaves as one outer packet over a link of this MTU.
    #[must_use]
    #[inline]
    pub fn fits(&self, inner_len: usize, mtu: usize) -> bool {
        let Overhead { before, after } = self.overhead(inner_len);
        before + inner_len + after <= mtu
    }

    /// The longest inner packet that [`fits`](Self::fits) a link of this MTU; 0 if none does.
    #[must_use]
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        let room = mtu.saturating_sub(self.outer_len() + BEFORE_PAYLOAD_LEN + ICV_LEN);
        (room & !3).saturating_sub(TRAILER_LEN)
    }

    /// Where the sequence numbers end for good.
    pub(super) fn end_of_numbers(&self) -> u64 {
        if self.frame.esn { END_EXTENDED } else { END_SHORT }
    }

    /// IP headers are multiples of four bytes long, so the padding of a payload is that of its packet.
    fn outer_len(&self) -> usize {
        match self.frame.mode {
            Mode::Tunnel => outer_len(self.parameters.remote, self.parameters.encapsulation),
            Mode::Transport => 0,
        }
    }
}

/// The room around a payload within the ESP packet alone.
#[must_use]
#[inline]
pub const fn esp_overhead(payload_len: usize) -> Overhead {
    Overhead { before: BEFORE_PAYLOAD_LEN, after: esp::pad_len(payload_len) + TRAILER_LEN + ICV_LEN }
}
