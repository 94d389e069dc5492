//! From an inner packet to ESP on the wire: the steps of RFC 4303 §3.3 for one SA.
//!
//! **Purpose.** [`OutboundShared`] is what every core may know of an SA; [`OutboundSa`] is its sequence numbers, which
//! exist once: on the SA's home core.
//!
//! **Promises.** No two packets of an SA carry one sequence number; the counter never wraps. No packet is encrypted by
//! a sender whose IVs could meet another's. Nothing allocates.
//!
//! **What it never does.** It fragments nothing: ask [`OutboundShared::fits`] first.

mod outer;

pub use outer::{DontFragment, Dscp, InnerTraits, OuterHeader, OuterLength, OuterPolicy, outer_len};

use core::net::SocketAddr;
use std::sync::Arc;

use crate::engine::{AeadKey, CipherInput, Engine, EngineKind};
use crate::esp::{self, BEFORE_PAYLOAD_LEN, HEADER_LEN, ICV_LEN, TRAILER_LEN};
use crate::iv::{IvGenerator, SenderNumber};
use crate::lifetime::{Lifesize, LifesizeRefusal, LifesizeShare, Spent};
use crate::sa::{BadSa, Direction, Frame, Mode, SaParameters};

/// Without ESN, replace the SA once half of its 2^32 numbers are used.
const SOFT_SEQUENCE: u64 = 1 << 31;
/// The last number without ESN. The next would be 0 on the wire.
const LAST_SEQUENCE: u64 = (1 << 32) - 1;

/// Why an outbound packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OutboundError {
    /// The SA may carry no more bytes or packets.
    #[error("the SA has reached its hard limit")]
    HardLimit,
    /// This appliance has used up what it was granted of the SA's lifesize; more may come.
    #[error("nothing is left of the lifesize that was granted")]
    Ungranted,
    /// The SA's numbers have reached the mark below which they may be used; it may be raised.
    #[error("the sequence numbers have reached their mark")]
    MarkReached,
    /// The SA's numbers are granted, and none is left; more may come.
    #[error("no sequence number is granted")]
    NoNumber,
    /// The SA has used all its sequence numbers.
    #[error("the SA has used all its sequence numbers")]
    SequenceExhausted,
    /// The sender has used all its IVs: draw a new sender number.
    #[error("the sender has used all its IVs")]
    IvExhausted,
    /// Too many senders were drawn since (or before) the SA's birth: draw a new number, or rekey.
    #[error("the sender is too many draws away from the SA's birth")]
    SenderTooFar,
    /// The buffer does not have the room that [`OutboundShared::overhead`] asks for, or is not the one that was prepared.
    #[error("the buffer does not have the room that ESP needs")]
    WrongRoom,
    /// Longer than an IP packet can be.
    #[error("the packet is longer than IP can say")]
    TooLong,
    /// A tunnel-mode operation on a transport-mode SA, or no IP packet in a tunnel.
    #[error("the packet does not fit the SA's mode")]
    WrongMode,
}

/// Room that a packet needs before and after itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// Bytes in front.
    pub before: usize,
    /// Bytes behind: padding, trailer and ICV.
    pub after: usize,
}

/// A packet was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Sealed {
    /// Its full sequence number.
    pub sequence: u64,
    /// The SA's soft limit of bytes, packets or sequence numbers was reached just now: replace it.
    pub soft_reached: bool,
}

/// A packet that has everything but its encryption.
///
/// The cipher loads what is in here as vectors, which stalls while the bytes are still on their way to the cache: some 15 ns a
/// packet. A burst that is prepared as a whole before it is finished as a whole does not pay that. Keep these in an array
/// and pass references, since a move writes them anew. One that is never finished leaves a gap in the numbers, no more.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    input: CipherInput,
    sequence: u64,
    payload_len: usize,
    /// What outer headers will need, if there are to be any.
    outer: Option<InnerTraits>,
    soft_reached: bool,
    is_finished: bool,
}

/// What the home core counted of one outbound SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundCounters {
    /// Packets encrypted.
    pub packets: u64,
    /// Bytes of inner packets encrypted (of payloads in transport mode).
    pub bytes: u64,
    /// Packets refused for any reason.
    pub refused: u64,
}

/// What all cores know of one outbound SA. Nothing here changes but the claims on the lifesize.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OutboundShared {
    /// What every packet asks for, in the cache line in which the key begins.
    frame: Frame,
    key: AeadKey,
    lifesize: Lifesize,
    born_at: SenderNumber,
    parameters: SaParameters,
}

impl OutboundShared {
    /// Makes an SA ready. `born_at` is where the cluster's sender counter stood when the SA was made.
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new(parameters: SaParameters, engine: Engine, born_at: SenderNumber) -> Result<Arc<Self>, BadSa> {
        parameters.validate(Direction::Outbound)?;
        Ok(Arc::new(Self {
            frame: Frame::of(&parameters),
            key: AeadKey::new(engine, &parameters.key)?,
            lifesize: Lifesize::new(&parameters.lifetime, 1),
            born_at,
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

    /// Who encrypts.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        self.key.engine_kind()
    }

    /// The room around an inner packet: outer headers, ESP header and IV in front; padding, trailer and ICV behind.
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

    fn outer_len(&self) -> usize {
        outer_len(self.parameters.remote, self.parameters.encapsulation)
    }
}

/// The room around a payload within the ESP packet alone.
#[must_use]
#[inline]
pub const fn esp_overhead(payload_len: usize) -> Overhead {
    Overhead { before: BEFORE_PAYLOAD_LEN, after: esp::pad_len(payload_len) + TRAILER_LEN + ICV_LEN }
}

/// The one holder of an outbound SA's sequence numbers. It can be moved to another core, never copied.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OutboundSa {
    /// The number of the next packet.
    next_sequence: u64,
    share: LifesizeShare,
    shared: Arc<OutboundShared>,
    counters: OutboundCounters,
    sequence_soft_said: bool,
    outer: OuterHeader,
}

// Numbers, share and counters in the first cache line, the outer header in the second.
const _: () = assert!(core::mem::offset_of!(OutboundSa, outer) == 64);
const _: () = assert!(size_of::<OutboundSa>() == 2 * 64);

impl OutboundSa {
    /// The home of an SA's numbers, starting with `first_sequence` (at least 1). Whoever calls this twice for one SA
    /// must see to it that the second starts above every number of the first.
    #[must_use]
    pub fn new(shared: Arc<OutboundShared>, first_sequence: u64, policy: OuterPolicy) -> Self {
        let outer = OuterHeader::new(shared.parameters(), policy);
        Self {
            next_sequence: first_sequence.max(1),
            share: LifesizeShare::new(),
            shared,
            counters: OutboundCounters::default(),
            sequence_soft_said: false,
            outer,
        }
    }

    /// What all cores know of the SA.
    #[must_use]
    #[inline]
    pub fn shared(&self) -> &Arc<OutboundShared> {
        &self.shared
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &OutboundCounters {
        &self.counters
    }

    /// The number that the next packet will carry.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Sends to another address of the peer from now on.
    ///
    /// # Errors
    /// [`BadSa::Addresses`] if it is of another family.
    pub fn move_remote(&mut self, remote: SocketAddr) -> Result<(), BadSa> {
        self.outer = self.outer.moved_to(remote).ok_or(BadSa::Addresses)?;
        Ok(())
    }

    /// Encrypts an inner IP packet in tunnel mode and writes all outer headers.
    ///
    /// `packet` is the room that [`OutboundShared::overhead`] asks for, with the inner packet of `inner_len` bytes in
    /// its place; on success it is what goes to the wire.
    ///
    /// # Errors
    /// [`OutboundError`]. Nothing may be sent then; what is not the inner packet may be overwritten.
    #[inline]
    pub fn encapsulate(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        inner_len: usize,
    ) -> Result<Sealed, OutboundError> {
        let mut prepared = self.prepare_encapsulation(ivs, packet, inner_len)?;
        self.finish(packet, &mut prepared)
    }

    /// Encrypts one payload into an ESP packet without outer headers.
    ///
    /// `packet` is the room that [`esp_overhead`] asks for, with the payload of `payload_len` bytes in its place.
    ///
    /// # Errors
    /// [`OutboundError`]. Nothing may be sent then; what is not the payload may be overwritten.
    #[inline]
    pub fn seal(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        payload_len: usize,
        next_header: u8,
    ) -> Result<Sealed, OutboundError> {
        let mut prepared = self.prepare(ivs, packet, payload_len, next_header)?;
        self.finish(packet, &mut prepared)
    }

    /// [`encapsulate`](Self::encapsulate) up to the cipher: the packet has its number, its IV and its place in the
    /// lifesize. In a burst, prepare every packet before the first is finished, see [`Prepared`].
    ///
    /// # Errors
    /// As [`encapsulate`](Self::encapsulate).
    #[inline]
    pub fn prepare_encapsulation(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        inner_len: usize,
    ) -> Result<Prepared, OutboundError> {
        let prepared = self.inner_of(packet).and_then(|(inner, next_header)| {
            let esp = packet.get_mut(self.outer.len()..).ok_or(OutboundError::WrongRoom)?;
            Ok(Prepared { outer: Some(inner), ..self.prepare_esp(ivs, esp, inner_len, next_header)? })
        });
        self.counters.refused += u64::from(prepared.is_err());
        prepared
    }

    /// [`seal`](Self::seal) up to the cipher: the packet has its number, its IV and its place in the lifesize. In a
    /// burst, prepare every packet before the first is finished, see [`Prepared`].
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    #[inline]
    pub fn prepare(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        payload_len: usize,
        next_header: u8,
    ) -> Result<Prepared, OutboundError> {
        let prepared = self.prepare_esp(ivs, packet, payload_len, next_header);
        self.counters.refused += u64::from(prepared.is_err());
        prepared
    }

    /// Encrypts what was prepared, in the same buffer, once.
    ///
    /// # Errors
    /// `WrongRoom` if the buffer is not as long as the one that was prepared, or the packet was finished before: two
    /// packets with one IV would give the key away.
    #[inline]
    pub fn finish(&mut self, packet: &mut [u8], prepared: &mut Prepared) -> Result<Sealed, OutboundError> {
        let finished = self.finish_steps(packet, prepared);
        match finished {
            Ok(_) => {
                self.counters.packets += 1;
                self.counters.bytes += prepared.payload_len as u64;
            }
            Err(_) => self.counters.refused += 1,
        }
        finished
    }

    /// Gives the unspent share of the lifesize back.
    pub fn give_back_share(&mut self) {
        self.share.give_back(&self.shared.lifesize);
    }

    /// What the outer header takes over from the inner packet, and what ESP calls it.
    #[inline]
    fn inner_of(&self, packet: &[u8]) -> Result<(InnerTraits, u8), OutboundError> {
        if packet.len() > usize::from(u16::MAX) {
            return Err(OutboundError::TooLong);
        }
        let inner = packet.get(self.outer.len() + BEFORE_PAYLOAD_LEN..).ok_or(OutboundError::WrongRoom)?;
        let next_header = match (self.shared.frame.mode, inner.first().map(|byte| byte >> 4)) {
            (Mode::Tunnel, Some(4)) => esp::NEXT_HEADER_IPV4,
            (Mode::Tunnel, Some(6)) => esp::NEXT_HEADER_IPV6,
            (Mode::Tunnel | Mode::Transport, _) => return Err(OutboundError::WrongMode),
        };
        Ok((InnerTraits::of(inner), next_header))
    }

    #[inline]
    fn prepare_esp(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        payload_len: usize,
        next_header: u8,
    ) -> Result<Prepared, OutboundError> {
        let Frame { spi, esn, .. } = self.shared.frame;
        let after = payload_len.checked_add(BEFORE_PAYLOAD_LEN).and_then(|end| packet.get_mut(end..));
        let after = after.ok_or(OutboundError::WrongRoom)?;
        if after.len() != esp_overhead(payload_len).after {
            return Err(OutboundError::WrongRoom);
        }
        if !ivs.sender().may_use_key_born_at(self.shared.born_at) {
            return Err(OutboundError::SenderTooFar);
        }
        let sequence = self.peek_sequence(esn)?;
        let iv = ivs.next_iv().map_err(|_| OutboundError::IvExhausted)?.spend();
        let spent = self.share.spend(&self.shared.lifesize, payload_len as u64)?;
        // From here on the number is used, whatever happens.
        self.next_sequence = sequence.wrapping_add(1);

        write_trailer(after, next_header);
        packet[..4].copy_from_slice(&spi.to_be_bytes());
        packet[4..HEADER_LEN].copy_from_slice(&(sequence as u32).to_be_bytes());
        packet[HEADER_LEN..BEFORE_PAYLOAD_LEN].copy_from_slice(&iv);
        let soft_sequence = !esn && sequence >= SOFT_SEQUENCE && !self.sequence_soft_said;
        self.sequence_soft_said |= soft_sequence;
        Ok(Prepared {
            input: self.shared.key.input(iv, spi, sequence, esn),
            sequence,
            payload_len,
            outer: None,
            soft_reached: soft_sequence || spent == Spent::SoftReached,
            is_finished: false,
        })
    }

    #[inline]
    fn finish_steps(&mut self, packet: &mut [u8], prepared: &mut Prepared) -> Result<Sealed, OutboundError> {
        let outer_len = if prepared.outer.is_some() { self.outer.len() } else { 0 };
        let Overhead { before, after } = esp_overhead(prepared.payload_len);
        if packet.len() != outer_len + before + prepared.payload_len + after || prepared.is_finished {
            return Err(OutboundError::WrongRoom);
        }
        prepared.is_finished = true;
        let sealed = &mut packet[outer_len + BEFORE_PAYLOAD_LEN..];
        self.shared.key.seal(&prepared.input, sealed).map_err(|_| OutboundError::TooLong)?;
        if let Some(inner) = prepared.outer {
            // The low bits of the number serve as identification: of one SA, as far apart as they can be.
            self.outer.write(packet, inner, prepared.sequence as u16).map_err(|_| OutboundError::TooLong)?;
        }
        Ok(Sealed { sequence: prepared.sequence, soft_reached: prepared.soft_reached })
    }

    /// The next number, if there is one. After 2^64 the counter stands at 0, which is none.
    #[inline]
    fn peek_sequence(&self, esn: bool) -> Result<u64, OutboundError> {
        let last = if esn { u64::MAX } else { LAST_SEQUENCE };
        match self.next_sequence {
            0 => Err(OutboundError::SequenceExhausted),
            next if next > last => Err(OutboundError::SequenceExhausted),
            next => Ok(next),
        }
    }
}

impl Drop for OutboundSa {
    fn drop(&mut self) {
        self.give_back_share();
    }
}

impl From<LifesizeRefusal> for OutboundError {
    fn from(refusal: LifesizeRefusal) -> Self {
        match refusal {
            LifesizeRefusal::HardLimit => Self::HardLimit,
            LifesizeRefusal::Ungranted => Self::Ungranted,
        }
    }
}

/// Padding 1, 2, 3… (RFC 4303 §2.4), its length, and the next header, in front of the room for the ICV.
#[inline]
fn write_trailer(after: &mut [u8], next_header: u8) {
    let pad_len = after.len() - TRAILER_LEN - ICV_LEN;
    after[..pad_len].iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
    after[pad_len] = pad_len as u8;
    after[pad_len + 1] = next_header;
}

#[cfg(test)]
mod tests;
