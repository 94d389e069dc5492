//! From ESP to the packet inside it: the steps of RFC 4303 §3.4 for one SA.
//!
//! **Purpose.** [`InboundShared`] is what all cores know of an SA and nobody changes; [`InboundSa`] is what one core
//! has for itself: its replay window, its share of the lifesize, its counters.
//!
//! **Promises.** [`InboundSa::open`] either returns a verified packet, once, or refuses it with a reason, counted. No
//! refusal moves the window. Nothing allocates.
//!
//! **What it never does.** It does not judge inner addresses by itself: ask [`InboundSa::admits`] before delivery.

use core::ops::Range;
use std::sync::Arc;

use wire::flow::Inner;

use crate::Spi;
use crate::engine::{AeadKey, Engine, EngineKind, PeekKey, Peeked};
use crate::esp::{self, Authentic, Trailer};
use crate::lifetime::{HardLimit, Lifesize, LifesizeShare, Spent};
use crate::replay::{ReplayError, ReplayWindow};
use crate::sa::{BadSa, Direction, Mode, SaParameters};

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

impl Opened {
    /// The packet's full sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.proof.sequence()
    }
}

/// What one core counted of one SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundCounters {
    /// Packets accepted, dummies included.
    pub packets: u64,
    /// Bytes of the inner packets accepted (of the payload in transport mode).
    pub bytes: u64,
    /// Refused: truncated.
    pub truncated: u64,
    /// Refused: replayed or before the window.
    pub replay_drops: u64,
    /// Refused: not verified.
    pub authentication_failures: u64,
    /// Refused: verified, but padding, next header or inner packet are malformed.
    pub malformed: u64,
    /// Accepted and thrown away: dummies.
    pub dummies: u64,
    /// Refused: verified, but outside the SA's traffic selectors.
    pub selector_drops: u64,
    /// Refused: the hard limit was reached.
    pub lifesize_drops: u64,
}

/// The parameters that shape a packet.
#[derive(Clone, Copy, Debug)]
struct Frame {
    spi: Spi,
    esn: bool,
    mode: Mode,
}

/// What all cores know of one inbound SA. Nothing here changes but the claims on the lifesize.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct InboundShared {
    /// What every packet asks for, in the cache line in which the key begins.
    frame: Frame,
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
        let SaParameters { spi, esn, mode, .. } = parameters;
        Ok(Arc::new(Self {
            frame: Frame { spi, esn, mode },
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

    /// Opens one ESP packet, SPI to ICV, in place. See [`InboundSa::open_hinted`].
    ///
    /// # Errors
    /// [`InboundError`].
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, InboundError> {
        self.open_hinted(packet, 0)
    }

    /// Opens one ESP packet, SPI to ICV, in place: early replay check, verification and decryption, trailer, replay
    /// window, lifesize, in this order. `top_hint` is the highest number of this SA that was authenticated anywhere (0
    /// for unknown); it helps to guess the high bits of an extended sequence number and moves nothing.
    ///
    /// # Errors
    /// [`InboundError`]. Unless it is `Dummy` or `HardLimit` the window has not moved. After `AuthenticationFailed` and
    /// whatever can follow it the bytes are worthless.
    #[inline]
    pub fn open_hinted(&mut self, packet: &mut [u8], top_hint: u64) -> Result<Opened, InboundError> {
        let opened = self.open_steps(packet, top_hint);
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
    fn open_steps(&mut self, packet: &mut [u8], top_hint: u64) -> Result<Opened, InboundError> {
        let Frame { spi, esn, mode } = self.shared.frame;
        let sequence_low = esp::sequence_low(packet).ok_or(InboundError::Truncated)?;
        let sequence = self.window.candidate(sequence_low, top_hint);
        self.window.check(sequence)?;
        let proof = esp::verify(&self.shared.key, spi, esn, sequence, packet)?;
        let plain = esp::BEFORE_PAYLOAD_LEN..packet.len() - esp::ICV_LEN;
        let trailer = Trailer::parse(&packet[plain]).ok_or(InboundError::BadPadding)?;
        let payload = &packet[esp::BEFORE_PAYLOAD_LEN..][..trailer.payload_len];
        let inner_len = inner_len(mode, trailer.next_header, payload)?;
        self.window.commit(&proof)?;
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
    }
}

impl Drop for InboundSa {
    fn drop(&mut self) {
        self.give_back_share();
    }
}

impl InboundCounters {
    /// Adds what another core counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            packets,
            bytes,
            truncated,
            replay_drops,
            authentication_failures,
            malformed,
            dummies,
            selector_drops,
            lifesize_drops,
        } = other;
        self.packets += packets;
        self.bytes += bytes;
        self.truncated += truncated;
        self.replay_drops += replay_drops;
        self.authentication_failures += authentication_failures;
        self.malformed += malformed;
        self.dummies += dummies;
        self.selector_drops += selector_drops;
        self.lifesize_drops += lifesize_drops;
    }

    #[cold]
    fn count(&mut self, error: InboundError) {
        match error {
            InboundError::Truncated => self.truncated += 1,
            InboundError::Replayed | InboundError::TooOld => self.replay_drops += 1,
            InboundError::AuthenticationFailed => self.authentication_failures += 1,
            InboundError::BadPadding | InboundError::UnknownNextHeader | InboundError::MalformedInner => {
                self.malformed += 1;
            }
            InboundError::Dummy => {
                self.packets += 1;
                self.dummies += 1;
            }
            InboundError::HardLimit => self.lifesize_drops += 1,
        }
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
