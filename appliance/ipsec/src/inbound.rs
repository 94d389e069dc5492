//! From ESP to the packet inside it: the steps of RFC 4303 §3.4 for one SA.
//!
//! **Purpose.** [`InboundShared`] is what all cores know of an SA; [`InboundSa`] is what one core has for itself: its
//! replay window, its share of the lifesize, its counters.
//!
//! **Promises.** [`InboundSa::open`] and its kin either return a verified packet, once, or refuse it with a reason,
//! counted. No refusal of a packet that was not verified moves the window, and no number at or below the floor is ever
//! accepted, whatever the window says. Nothing allocates.
//!
//! **What it never does.** It does not judge inner addresses by itself: ask [`InboundSa::admits`] before delivery.

mod counters;
mod floor;
mod progress;
mod shared;
mod vouched;

pub use counters::InboundCounters;
pub use progress::STEP_PACKETS as PROGRESS_STEP_PACKETS;
pub use shared::InboundShared;
pub use vouched::{Taken, Vouched};

use core::ops::Range;
use std::sync::Arc;

use wire::flow::Inner;

use crate::esp::{self, Authentic, Claim, Trailer};
use crate::lifetime::{LifesizeRefusal, LifesizeShare, Spent};
use crate::replay::{ReplayError, ReplayWindow};
use crate::sa::{Frame, Mode};

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
    /// Its sequence number lies at or below the SA's floor: another appliance may have accepted it.
    #[error("below the floor: another appliance may have accepted the sequence number")]
    BelowFloor,
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
    /// This appliance has used up what it was granted of the SA's lifesize; more may come.
    #[error("nothing is left of the lifesize that was granted")]
    Ungranted,
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

/// What came with a packet from the appliance that received it, which is a member and yet not the packet's sender. Each
/// figure can only make the receiver stricter or help it to guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Accept only numbers above this.
    pub floor: u64,
    /// The highest number of this SA that was authenticated there; 0 for unknown.
    pub top: u64,
}

impl Carried {
    /// Nothing came with the packet: it was received here.
    pub const NOTHING: Self = Self { floor: 0, top: 0 };
}

/// What can be worked out of a packet before the cipher runs. It proves nothing.
///
/// The cipher loads it as vectors, which stalls while the bytes are still on their way to the cache. So it should be made
/// well before it is used, which a burst does by itself if all of it is prepared first, and it should stay where it was
/// written: keep it in an array and pass references, since a move writes it anew.
#[derive(Debug)]
pub struct Prepared {
    claim: Claim,
    carried: Carried,
}

impl Opened {
    /// The packet's full sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.proof.sequence()
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

// The hot part, counters of accepted packets included, fits in two cache lines. The third holds counters of refusals.
const _: () = assert!(core::mem::offset_of!(InboundSa, counters) + 3 * size_of::<u64>() <= 2 * 64);
const _: () = assert!(size_of::<InboundSa>() == 3 * 64);

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

    /// Opens one ESP packet, SPI to ICV, in place: early replay and floor check, verification and decryption, trailer,
    /// floor, replay window, lifesize, in this order.
    ///
    /// # Errors
    /// [`InboundError`]. Unless it is `Dummy`, `HardLimit` or `Ungranted` the window has not moved. After
    /// `AuthenticationFailed` and whatever can follow it the bytes are worthless.
    #[inline]
    pub fn open(&mut self, packet: &mut [u8]) -> Result<Opened, InboundError> {
        self.open_carried(packet, Carried::NOTHING)
    }

    /// [`open`](Self::open) for a packet that another appliance received and passed on unchanged.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[inline]
    pub fn open_carried(&mut self, packet: &mut [u8], carried: Carried) -> Result<Opened, InboundError> {
        let prepared = self.prepare(packet, carried)?;
        self.open_prepared(packet, &prepared)
    }

    /// All of [`open`](Self::open) but the lifesize, which is for whoever delivers the packet. Its number is taken here.
    ///
    /// The bytes are decrypted in place like those of `open`: to pass a packet on unchanged, authenticate a copy.
    ///
    /// # Errors
    /// As [`open`](Self::open), but neither `HardLimit` nor `Ungranted`.
    #[inline]
    pub fn authenticate(&mut self, packet: &mut [u8]) -> Result<Opened, InboundError> {
        let prepared = self.prepare(packet, Carried::NOTHING)?;
        self.authenticate_prepared(packet, &prepared)
    }

    /// The first step of [`open_carried`](Self::open_carried) and [`authenticate`](Self::authenticate) alone: guesses the
    /// sequence number, refuses what is replayed or below the floor, and works out what the cipher will be asked. Nothing
    /// moves.
    ///
    /// In a burst, prepare every packet before the first is opened: that takes some 15 ns off each, see [`Prepared`].
    /// With extended sequence numbers the guess is the number nearest to the highest that is known: to this core, to the
    /// others, or to the appliance that passed the packet on. It moves nothing; the cipher decides.
    ///
    /// # Errors
    /// `Truncated`, `Replayed`, `TooOld`, `BelowFloor`; `AuthenticationFailed` for a packet with another SPI than the SA's.
    #[inline]
    pub fn prepare(&mut self, packet: &[u8], carried: Carried) -> Result<Prepared, InboundError> {
        // What the other cores see meanwhile must not change the guess of a packet that is under way.
        let carried = Carried { top: carried.top.max(self.shared.progress()), ..carried };
        self.claim(packet, carried)
            .map(|claim| Prepared { claim, carried })
            .inspect_err(|error| self.counters.count(*error))
    }

    /// All steps of [`open`](Self::open) after the first, for the packet that was prepared.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[inline]
    pub fn open_prepared(&mut self, packet: &mut [u8], prepared: &Prepared) -> Result<Opened, InboundError> {
        let opened = self.verify_prepared(packet, prepared).and_then(|mut opened| {
            opened.soft_reached = self.spend(opened.inner.len())?;
            Ok(opened)
        });
        match &opened {
            Ok(opened) => {
                self.counters.packets += 1;
                self.counters.bytes += opened.inner.len() as u64;
            }
            Err(error) => self.counters.count(*error),
        }
        opened
    }

    /// All steps of [`authenticate`](Self::authenticate) after the first, for the packet that was prepared.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    #[inline]
    pub fn authenticate_prepared(&mut self, packet: &mut [u8], prepared: &Prepared) -> Result<Opened, InboundError> {
        let opened = self.verify_prepared(packet, prepared);
        match &opened {
            Ok(_) => self.counters.authenticated += 1,
            Err(error) => self.counters.count(*error),
        }
        opened
    }

    /// Pays for an inner packet of so many bytes that another appliance has opened and this one delivers, and counts it.
    /// Says whether the soft limit was reached just now.
    ///
    /// # Errors
    /// `HardLimit` or `Ungranted`: it may not be delivered.
    #[inline]
    pub fn charge(&mut self, inner_len: usize) -> Result<bool, InboundError> {
        let charged = self.spend(inner_len);
        match charged {
            Ok(_) => {
                self.counters.packets += 1;
                self.counters.bytes += inner_len as u64;
            }
            Err(error) => self.counters.count(error),
        }
        charged
    }

    #[inline]
    fn claim(&self, packet: &[u8], carried: Carried) -> Result<Claim, InboundError> {
        let Frame { spi, esn, .. } = self.shared.frame;
        let sequence_low = esp::sequence_low(packet).ok_or(InboundError::Truncated)?;
        let sequence = self.window.candidate(sequence_low, carried.top);
        self.window.check(sequence)?;
        self.check_floor(sequence, carried)?;
        Claim::new(&self.shared.key, spi, esn, sequence, packet)
    }

    #[inline]
    fn check_floor(&self, sequence: u64, carried: Carried) -> Result<(), InboundError> {
        if sequence <= self.shared.floor().max(carried.floor) { Err(InboundError::BelowFloor) } else { Ok(()) }
    }

    #[inline]
    fn verify_prepared(&mut self, packet: &mut [u8], prepared: &Prepared) -> Result<Opened, InboundError> {
        let Prepared { claim, carried } = prepared;
        // Packets that were opened since may have moved the window, by so much even that the guess is another.
        if self.window.candidate(claim.sequence() as u32, carried.top) != claim.sequence() {
            let claim = self.claim(packet, *carried)?;
            return self.verify(packet, &claim, *carried);
        }
        self.window.check(claim.sequence())?;
        self.verify(packet, claim, *carried)
    }

    #[inline]
    fn verify(&mut self, packet: &mut [u8], claim: &Claim, carried: Carried) -> Result<Opened, InboundError> {
        let proof = esp::verify(&self.shared.key, claim, packet)?;
        let plain = esp::BEFORE_PAYLOAD_LEN..packet.len() - esp::ICV_LEN;
        let trailer = Trailer::parse(&packet[plain]).ok_or(InboundError::BadPadding)?;
        let payload = &packet[esp::BEFORE_PAYLOAD_LEN..][..trailer.payload_len];
        let inner_len = inner_len(self.shared.frame.mode, trailer.next_header, payload)?;
        // The floor may have risen since the packet was prepared.
        self.check_floor(proof.sequence(), carried)?;
        self.window.commit(&proof)?;
        if self.shared.frame.esn {
            self.shared.reached(&proof);
        }
        if trailer.next_header == esp::NEXT_HEADER_DUMMY {
            return Err(InboundError::Dummy);
        }
        Ok(Opened {
            inner: esp::BEFORE_PAYLOAD_LEN..esp::BEFORE_PAYLOAD_LEN + inner_len,
            next_header: trailer.next_header,
            proof,
            soft_reached: false,
        })
    }

    /// Whether the soft limit was reached just now.
    #[inline]
    fn spend(&mut self, inner_len: usize) -> Result<bool, InboundError> {
        let spent = self.share.spend(&self.shared.lifesize, inner_len as u64)?;
        Ok(spent == Spent::SoftReached)
    }

    /// The tunnel check: whether the SA may carry this inner packet (RFC 4301 §5.2 step 4). A no is counted.
    ///
    /// In transport mode the addresses are those of the outer header, which nobody has authenticated: a copy with another
    /// source would be of another connection, and so meet the window of another core. Only the peer's own address will do.
    #[must_use]
    #[inline]
    pub fn admits(&mut self, inner: &Inner) -> bool {
        let parameters = &self.shared.parameters;
        let is_from_peer = parameters.mode == Mode::Tunnel || inner.flow.src == parameters.remote;
        let admitted = is_from_peer && parameters.selectors.admits_inbound(&inner.flow, inner.fragment);
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
        self.shared.reset_progress();
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

impl From<LifesizeRefusal> for InboundError {
    fn from(refusal: LifesizeRefusal) -> Self {
        match refusal {
            LifesizeRefusal::HardLimit => Self::HardLimit,
            LifesizeRefusal::Ungranted => Self::Ungranted,
        }
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
