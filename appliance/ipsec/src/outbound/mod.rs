//! From an inner packet to ESP on the wire: the steps of RFC 4303 §3.3 for one SA.
//!
//! **Purpose.** [`OutboundShared`] is what every core may know of an SA; [`OutboundSa`] is its sequence numbers, which
//! exist once: on the SA's home core.
//!
//! **Promises.** No two packets of an SA carry one sequence number; the counter never wraps, and passes no mark that control
//! has set. No packet is encrypted by a sender whose IVs could meet another's. Nothing allocates.
//!
//! **What it never does.** It fragments nothing: ask [`OutboundShared::fits`] first.

mod numbers;
mod outer;
mod shared;
mod transport;

pub use numbers::GrantRefused;
pub use outer::{DontFragment, Dscp, InnerTraits, OuterHeader, OuterLength, OuterPolicy, outer_len};
pub use shared::{OutboundShared, Overhead, esp_overhead};

use core::net::SocketAddr;
use std::sync::Arc;

use numbers::{Number, Run, Supply};

use crate::engine::CipherInput;
use crate::esp::{self, BEFORE_PAYLOAD_LEN, HEADER_LEN, ICV_LEN, TRAILER_LEN};
use crate::iv::IvGenerator;
use crate::lifetime::{LifesizeRefusal, LifesizeShare, Spent};
use crate::sa::{BadSa, Frame, Mode};

/// How many granted ranges of numbers an SA holds, the one in use included.
pub const GRANTS_MAX: usize = 4;

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
    /// An operation of the other mode, or a packet that the SA's mode cannot carry: no IP packet, in transport mode a
    /// fragment too, and nothing at all behind a NAT.
    #[error("the packet does not fit the SA's mode")]
    WrongMode,
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
    /// What stands before ESP: outer headers, or in transport mode the packet's own.
    esp_at: usize,
    /// What outer headers will need, if they are still to be written.
    outer: Option<InnerTraits>,
    soft_reached: bool,
    is_finished: bool,
}

/// What a packet has that no other will have.
struct Taken {
    sequence: u64,
    iv: [u8; esp::IV_LEN],
    soft_reached: bool,
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

/// The one holder of an outbound SA's sequence numbers. It can be moved to another core, never copied.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OutboundSa {
    run: Run,
    share: LifesizeShare,
    shared: Arc<OutboundShared>,
    counters: OutboundCounters,
    outer: OuterHeader,
    supply: Supply,
}

// Numbers, share and counters in the first cache line, the outer header in the second. The third is for the moment when a
// run of numbers is used up.
const _: () = assert!(core::mem::offset_of!(OutboundSa, outer) == 64);
const _: () = assert!(core::mem::offset_of!(OutboundSa, supply) == 2 * 64);
const _: () = assert!(size_of::<OutboundSa>() == 3 * 64);

impl OutboundSa {
    /// The home of an SA's numbers, starting with `first_sequence` (at least 1). Whoever calls this twice for one SA
    /// must see to it that the second starts above every number of the first.
    #[must_use]
    pub fn new(shared: Arc<OutboundShared>, first_sequence: u64, policy: OuterPolicy) -> Self {
        Self::with(shared, Run::starting_with(first_sequence), Supply::own(), policy)
    }

    /// A sender of an SA that is numbered elsewhere: it has no number until one is [granted](Self::grant).
    #[must_use]
    pub fn granted(shared: Arc<OutboundShared>, policy: OuterPolicy) -> Self {
        let run = Run::starting_with(1);
        let supply = Supply::granted(&run);
        Self::with(shared, run, supply, policy)
    }

    fn with(shared: Arc<OutboundShared>, run: Run, supply: Supply, policy: OuterPolicy) -> Self {
        let outer = OuterHeader::new(shared.parameters(), policy);
        let (share, counters) = (LifesizeShare::new(), OutboundCounters::default());
        Self { run, share, shared, counters, outer, supply }
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

    /// The number that the next packet will carry. If it has to wait for a grant, the lowest that it could.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.supply.next(&self.run)
    }

    /// How many packets can be numbered before a mark is raised or a grant comes.
    #[must_use]
    pub fn numbers_left(&self) -> u64 {
        self.supply.left(&self.run, self.shared.mark(), self.shared.end_of_numbers())
    }

    /// Whether the SA is numbered here, below its mark, rather than by grants.
    #[must_use]
    pub fn is_numbered_here(&self) -> bool {
        self.supply.is_own()
    }

    /// Numbers the SA here from now on, beginning with `from`, or with the lowest number above all that were used or
    /// granted here if that is higher. What was granted and not used is lost.
    ///
    /// Whoever calls this must see to it that no other sender of the SA ever uses a number from `from` on.
    pub fn start_at(&mut self, from: u64) {
        self.supply.start_at(&mut self.run, from);
    }

    /// Waits for [grants](Self::grant) from now on. Numbers that are left below the mark are not used any more.
    pub fn wait_for_grants(&mut self) {
        self.supply.wait_for_grants(&mut self.run);
    }

    /// Takes `count` numbers from `first` on, to be used after those that were granted before.
    ///
    /// # Errors
    /// [`GrantRefused`]; nothing of the grant is used then. A grant that begins below an earlier one's end is refused,
    /// so a message that comes twice does no harm.
    pub fn grant(&mut self, first: u64, count: u64) -> Result<(), GrantRefused> {
        let end = self.shared.end_of_numbers();
        self.supply.grant(&mut self.run, first, count, end)
    }

    /// Gives up what was granted and not used, because it came too long ago: others are further on by now.
    pub fn abandon_grants(&mut self) {
        self.supply.abandon_grants(&mut self.run);
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
            let esp_at = self.outer.len();
            let esp = packet.get_mut(esp_at..).ok_or(OutboundError::WrongRoom)?;
            Ok(Prepared { esp_at, outer: Some(inner), ..self.prepare_esp(ivs, esp, inner_len, next_header)? })
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
        let after = payload_len.checked_add(BEFORE_PAYLOAD_LEN).and_then(|end| packet.len().checked_sub(end));
        if after.ok_or(OutboundError::WrongRoom)? != esp_overhead(payload_len).after {
            return Err(OutboundError::WrongRoom);
        }
        let taken = self.take(ivs, payload_len)?;
        Ok(self.write_esp(packet, payload_len, next_header, taken))
    }

    /// Everything that can be refused. From here on the number is used, whatever happens.
    #[inline]
    fn take(&mut self, ivs: &mut IvGenerator, payload_len: usize) -> Result<Taken, OutboundError> {
        if !ivs.sender().may_use_key_born_at(self.shared.born_at) {
            return Err(OutboundError::SenderTooFar);
        }
        let Number { sequence, is_soft } = self.next_number()?;
        let iv = ivs.next_iv().map_err(|_| OutboundError::IvExhausted)?.spend();
        let spent = self.share.spend(&self.shared.lifesize, payload_len as u64)?;
        self.run.take(sequence);
        if is_soft {
            self.supply.said_soft();
        }
        Ok(Taken { sequence, iv, soft_reached: is_soft || spent == Spent::SoftReached })
    }

    /// Writes what is not encrypted, and the trailer, around the payload. There must be room for exactly that.
    #[inline]
    fn write_esp(&self, packet: &mut [u8], payload_len: usize, next_header: u8, taken: Taken) -> Prepared {
        let Frame { spi, esn, .. } = self.shared.frame;
        let Taken { sequence, iv, soft_reached } = taken;
        write_trailer(&mut packet[BEFORE_PAYLOAD_LEN + payload_len..], next_header);
        packet[..4].copy_from_slice(&spi.to_be_bytes());
        packet[4..HEADER_LEN].copy_from_slice(&(sequence as u32).to_be_bytes());
        packet[HEADER_LEN..BEFORE_PAYLOAD_LEN].copy_from_slice(&iv);
        let input = self.shared.key.input(iv, spi, sequence, esn);
        Prepared { input, sequence, payload_len, esp_at: 0, outer: None, soft_reached, is_finished: false }
    }

    #[inline]
    fn finish_steps(&mut self, packet: &mut [u8], prepared: &mut Prepared) -> Result<Sealed, OutboundError> {
        let Overhead { before, after } = esp_overhead(prepared.payload_len);
        if packet.len() != prepared.esp_at + before + prepared.payload_len + after || prepared.is_finished {
            return Err(OutboundError::WrongRoom);
        }
        prepared.is_finished = true;
        let sealed = &mut packet[prepared.esp_at + BEFORE_PAYLOAD_LEN..];
        self.shared.key.seal(&prepared.input, sealed).map_err(|_| OutboundError::TooLong)?;
        if let Some(inner) = prepared.outer {
            // The low bits of the number serve as identification: of one SA, as far apart as they can be.
            self.outer.write(packet, inner, prepared.sequence as u16).map_err(|_| OutboundError::TooLong)?;
        }
        Ok(Sealed { sequence: prepared.sequence, soft_reached: prepared.soft_reached })
    }

    /// The next number, if there is one.
    #[inline]
    fn next_number(&mut self) -> Result<Number, OutboundError> {
        match self.run.peek() {
            Some(sequence) => Ok(Number { sequence, is_soft: false }),
            None => self.supply.refill(&mut self.run, self.shared.mark(), self.shared.end_of_numbers()),
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
