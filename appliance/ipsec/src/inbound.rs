//! From ESP to the packet inside it: the steps of RFC 4303 §3.4 for one SA.
//!
//! **Purpose.** [`InboundShared`] is what all cores know of an SA and nobody changes; [`InboundSa`] is what one core
//! has for itself: its replay window, its share of the lifesize, its counters.
//!
//! **Promises.** [`InboundSa::open`] either returns a verified packet, once, or refuses it with a reason, counted. No
//! refusal moves the window. Nothing allocates.
//!
//! **What it never does.** It does not judge inner addresses by itself: ask [`InboundSa::admits`] before delivery.

mod counters;
mod progress;

pub use counters::InboundCounters;
use progress::Progress;
pub use progress::STEP_PACKETS as PROGRESS_STEP_PACKETS;

use core::ops::Range;
use std::sync::Arc;

use wire::flow::Inner;

use crate::engine::{AeadKey, Engine, EngineKind, PeekBlocks, PeekKey, Peeked};
use crate::esp::{self, Authentic, Claim, Trailer};
use crate::lifetime::{HardLimit, Lifesize, LifesizeShare, Spent};
use crate::replay::{ReplayError, ReplayWindow};
use crate::sa::{BadSa, Direction, Frame, Mode, SaParameters};

/// Why an inbound packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InboundError {
    /// Too short to be ESP.
    #[error("ESP packet is truncated")]
    Truncated,
    /// Its sequence number was accepted before.
    #[error("replayed: the sequence number was accepted before")]
    Replayed,
    /// Its sequence number lies before the replay window, or is 0.
    #[error("too old: the sequence number lies before the replay window")]
    TooOld,
    /// The integrity check failed: forged, damaged, or sent under another key.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// Verified, but the padding is not 1, 2, 3… or longer than the packet.
    #[error("padding is malformed")]
    BadPadding,
    /// Verified, but what it holds is nothing that this SA's mode can hold.
    #[error("next header is unknown in this mode")]
    UnknownNextHeader,
    /// Verified, but the inner IP header is cut short or states a length beyond the packet.
    #[error("inner packet is malformed")]
    MalformedInner,
    /// Verified and accepted, but empty on purpose (RFC 4303 §2.6). Nothing is wrong.
    #[error("dummy packet")]
    Dummy,
    /// The SA may carry no more.
    #[error("the SA has reached its hard limit")]
    HardLimit,
}

/// A verified packet whose sequence number is now taken.
#[derive(Debug)]
#[must_use]
pub struct Opened {
    /// Where the inner packet lies within the bytes that were opened (in transport mode, the payload). Traffic flow
    /// confidentiality padding behind it is already left out.
    pub inner: Range<usize>,
    /// What it is.
    pub next_header: u8,
    /// The proof, for whatever else may change only by a verified packet.
    pub proof: Authentic,
    /// The SA's soft limit was reached just now: replace it. Said once for all cores.
    pub soft_reached: bool,
}

/// What can be worked out of a packet before the cipher runs. It proves nothing.
///
/// The cipher loads it as vectors, which stalls while the bytes are still on their way to the cache. So it should be made
/// well before it is used, which a burst does by itself if all of it is prepared first, and it should stay where it was
/// written: keep it in an array and pass references, since a move writes it anew.
#[derive(Debug)]
pub struct Prepared {
    claim: Claim,
    top_hint: u64,
}

impl Opened {
    /// The packet's full sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.proof.sequence()
    }
}

/// What all cores know of one inbound SA. Nothing here changes but the claims on the lifesize and the progress.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct InboundShared {
    /// What every packet asks for, in the cache line in which the key begins.
    frame: Frame,
    /// How far the SA has come, for the cores that have had none of its packets for long.
    progress: Progress,
    key: AeadKey,
    peek_key: PeekKey,
    lifesize: Lifesize,
    parameters: SaParameters,
}

impl InboundShared {
    /// Makes an SA ready for at most so many cores.
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new(parameters: SaParameters, engine: Engine, cores: u16) -> Result<Arc<Self>, BadSa> {
        parameters.validate(Direction::Inbound)?;
        Ok(Arc::new(Self {
            frame: Frame::of(&parameters),
            progress: Progress::default(),
            key: AeadKey::new(engine, &parameters.key)?,
            peek_key: PeekKey::new(&parameters.key).ok_or(BadSa::Key)?,
            lifesize: Lifesize::new(&parameters.lifetime, cores),
            parameters,
        }))
    }

    /// What was agreed on.
    #[must_use]
    #[inline]
    pub fn parameters(&self) -> &SaParameters {
        &self.parameters
    }

    /// Up to about which number packets were authenticated on any core: less than [`PROGRESS_STEP_PACKETS`] below the
    /// highest. Kept for extended sequence numbers only.
    #[must_use]
    #[inline]
    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    /// How much of the lifesize is claimed.
    #[must_use]
    pub fn lifesize(&self) -> &Lifesize {
        &self.lifesize
    }

    /// Who decrypts.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        self.key.engine_kind()
    }

    /// Decrypts the beginning and the Next Header of a packet without verifying anything. Nothing moves, and the packet
    /// stays as it is.
    ///
    /// # Errors
    /// [`InboundError::Truncated`].
    #[inline]
    pub fn peek(&self, packet: &[u8]) -> Result<Peeked, InboundError> {
        self.peek_key.peek(packet).ok_or(InboundError::Truncated)
    }

    /// Peeks into a burst: `seen[i]` becomes what [`peek`](Self::peek) sees of `packets[i]`, `None` if that is truncated.
    /// Surplus packets or places are left alone. In two passes, which saves about a quarter of each packet's time.
    #[inline]
    pub fn peek_burst<const N: usize>(packets: &[(&Self, &[u8])], seen: &mut [Option<Peeked>; N]) {
        let mut blocks: [Option<PeekBlocks>; N] = [const { None }; N];
        for (blocks, (sa, packet)) in blocks.iter_mut().zip(packets) {
            *blocks = sa.peek_key.counters(packet);
        }
        for ((seen, blocks), (sa, packet)) in seen.iter_mut().zip(&mut blocks).zip(packets) {
            *seen = blocks.as_mut().map(|blocks| sa.peek_key.decrypt(packet, blocks));
        }
    }
}

/// What one core has of one inbound SA. A packet touches the first two cache lines and the shared key.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct InboundSa {
    window: ReplayWindow,
    share: LifesizeShare,
    shared: Arc<InboundShared>,
    counters: InboundCounters,
}

// The hot part, counters of accepted packets included, fits in two cache lines.
const _: () = assert!(core::mem::offset_of!(InboundSa, counters) + 2 * size_of::<u64>() <= 2 * 64);
const _: () = assert!(size_of::<InboundSa>() == 2 * 64);

impl InboundSa {
    /// One core's instance, with a window that has seen nothing.
    ///
    /// Two instances of one SA accept the same number once each. That is sound only because the packets of one
    /// connection always come to one core, and a copy of a packet is of the same connection.
    #[must_use]
    pub fn new(shared: Arc<InboundShared>) -> Self {
        let parameters = shared.parameters();
        let window = ReplayWindow::of_validated(parameters.replay_window_packets, parameters.esn);
        Self { window, share: LifesizeShare::new(), shared, counters: InboundCounters::default() }
    }

    /// What all cores know of the SA.
    #[must_use]
    #[inline]
    pub fn shared(&self) -> &Arc<InboundShared> {
        &self.shared
    }

    /// What this core counted.
    #[must_use]
    pub fn counters(&self) -> &InboundCounters {
        &self.counters
    }

    /// This core's replay window.
    #[must_use]
    pub fn window(&self) -> &ReplayWindow {
        &self.window
    }

    /// Opens one ESP packet, SPI to ICV, in place: early replay check, verification and decryption, trailer, replay
    /// window, lifesize, in this order.
    ///
    /// # Errors
    /// [`InboundError`]. Unless it is `Dummy` or `HardLimit` the window has not moved. After `AuthenticationFailed` and
    /// whatever can follow it the bytes are worthless.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, InboundError> {
        let prepared = self.prepare(packet, 0)?;
        self.open_prepared(packet, &prepared)
    }

    /// The first step of [`open`](Self::open) alone: guesses the sequence number, refuses what is replayed, and works out
    /// what the cipher will be asked. Nothing moves.
    ///
    /// In a burst, prepare every packet before the first is opened: that takes some 15 ns off each, see [`Prepared`].
    /// `top_hint` is the highest number of this SA that was authenticated on another host (0 for unknown); like what the
    /// cores of this one have seen it helps to guess the high bits of an extended sequence number, and nothing else.
    ///
    /// # Errors
    /// `Truncated`, `Replayed`, `TooOld`; `AuthenticationFailed` for a packet with another SPI than the SA's.
    #[inline]
    pub fn prepare(&mut self, packet: &[u8], top_hint: u64) -> Result<Prepared, InboundError> {
        // What the other cores see meanwhile must not change the guess of a packet that is under way.
        let top_hint = top_hint.max(self.shared.progress());
        self.claim(packet, top_hint)
            .map(|claim| Prepared { claim, top_hint })
            .inspect_err(|error| self.counters.count(*error))
    }

    /// All steps of [`open`](Self::open) after the first, for the packet that was prepared.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[inline]
    pub fn open_prepared(&mut self, packet: &mut [u8], prepared: &Prepared) -> Result<Opened, InboundError> {
        let opened = self.open_claimed(packet, prepared);
        match &opened {
            Ok(opened) => {
                self.counters.packets += 1;
                self.counters.bytes += opened.inner.len() as u64;
            }
            Err(error) => self.counters.count(*error),
        }
        opened
    }

    #[inline]
    fn claim(&self, packet: &[u8], top_hint: u64) -> Result<Claim, InboundError> {
        let Frame { spi, esn, .. } = self.shared.frame;
        let sequence_low = esp::sequence_low(packet).ok_or(InboundError::Truncated)?;
        let sequence = self.window.candidate(sequence_low, top_hint);
        self.window.check(sequence)?;
        Claim::new(&self.shared.key, spi, esn, sequence, packet)
    }

    #[inline]
    fn open_claimed(&mut self, packet: &mut [u8], prepared: &Prepared) -> Result<Opened, InboundError> {
        let Prepared { claim, top_hint } = prepared;
        // Packets that were opened since may have moved the window, by so much even that the guess is another.
        if self.window.candidate(claim.sequence() as u32, *top_hint) != claim.sequence() {
            let claim = self.claim(packet, *top_hint)?;
            return self.open_verified(packet, &claim);
        }
        self.window.check(claim.sequence())?;
        self.open_verified(packet, claim)
    }

    #[inline]
    fn open_verified(&mut self, packet: &mut [u8], claim: &Claim) -> Result<Opened, InboundError> {
        let proof = esp::verify(&self.shared.key, claim, packet)?;
        let plain = esp::BEFORE_PAYLOAD_LEN..packet.len() - esp::ICV_LEN;
        let trailer = Trailer::parse(&packet[plain]).ok_or(InboundError::BadPadding)?;
        let payload = &packet[esp::BEFORE_PAYLOAD_LEN..][..trailer.payload_len];
        let inner_len = inner_len(self.shared.frame.mode, trailer.next_header, payload)?;
        self.window.commit(&proof)?;
        if self.shared.frame.esn {
            self.shared.progress.reached(&proof);
        }
        if trailer.next_header == esp::NEXT_HEADER_DUMMY {
            return Err(InboundError::Dummy);
        }
        let spent = self.share.spend(&self.shared.lifesize, inner_len as u64)?;
        Ok(Opened {
            inner: esp::BEFORE_PAYLOAD_LEN..esp::BEFORE_PAYLOAD_LEN + inner_len,
            next_header: trailer.next_header,
            proof,
            soft_reached: spent == Spent::SoftReached,
        })
    }

    /// The tunnel check: whether the SA may carry this inner packet (RFC 4301 §5.2 step 4). A no is counted.
    #[must_use]
    #[inline]
    pub fn admits(&mut self, inner: &Inner) -> bool {
        let admitted = self.shared.parameters.selectors.admits_inbound(&inner.flow, inner.fragment);
        self.counters.selector_drops += u64::from(!admitted);
        admitted
    }

    /// Gives the unspent share of the lifesize back, when this core has had no packet of the SA for a while.
    pub fn give_back_share(&mut self) {
        self.share.give_back(&self.shared.lifesize);
    }

    /// Forgets every sequence number, **so that every packet ever accepted is accepted again**. For measurements with
    /// lab SAs, see [`ReplayWindow::reset`].
    pub fn reset_window(&mut self) {
        self.window.reset();
        self.shared.progress.reset();
    }
}

impl Drop for InboundSa {
    fn drop(&mut self) {
        self.give_back_share();
    }
}

impl From<ReplayError> for InboundError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Duplicate => Self::Replayed,
            ReplayError::TooOld => Self::TooOld,
        }
    }
}

impl From<HardLimit> for InboundError {
    fn from(_: HardLimit) -> Self {
        Self::HardLimit
    }
}

/// How much of the payload is the packet; the rest is traffic flow confidentiality padding (RFC 4303 §2.7).
#[inline]
fn inner_len(mode: Mode, next_header: u8, payload: &[u8]) -> Result<usize, InboundError> {
    if next_header == esp::NEXT_HEADER_DUMMY {
        return Ok(0);
    }
    match mode {
        Mode::Transport => Ok(payload.len()),
        Mode::Tunnel => {
            let stated = match next_header {
                esp::NEXT_HEADER_IPV4 => stated_len_v4(payload),
                esp::NEXT_HEADER_IPV6 => stated_len_v6(payload),
                _other => return Err(InboundError::UnknownNextHeader),
            };
            stated.filter(|stated| *stated <= payload.len()).ok_or(InboundError::MalformedInner)
        }
    }
}

#[inline]
fn stated_len_v4(payload: &[u8]) -> Option<usize> {
    let header: &[u8; 20] = payload.first_chunk()?;
    let stated = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] >> 4 == 4 && stated >= header.len()).then_some(stated)
}

#[inline]
fn stated_len_v6(payload: &[u8]) -> Option<usize> {
    let header: &[u8; 40] = payload.first_chunk()?;
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6).then_some(header.len() + stated)
}

#[cfg(test)]
mod tests;
