//! ESP around the frames between members, where the trusted wire is not to be trusted (`cluster.trusted.protect: esp`).
//!
//! **Purpose.** A [`Guard`] is one data core's part in it: it seals frames for other members and opens theirs. What it needs
//! for a pair of members, a [`SessionKeys`], both make by themselves from their XCF session (RFC 8446 §7.5): nothing about
//! keys is ever said on a wire.
//!
//! ```text
//!  IP | ESP: SPI, number, IV | encrypted: GRE, our header, payload, trailer | ICV          (transport mode, AES-256-GCM)
//!
//!  SPI   1 | session (15 bits) | 00 | sender's core (6) | generation (4) | lane (4)
//! ```
//!
//! Each core of a sender has 16 *lanes* to each member, and each lane has keys, numbers and a replay window of its own. A
//! frame goes by the lane that its flow's hash names. At the receiver one core alone works on a lane, so that the window is
//! exact, and the SPIs differ, so that a network card can spread them over its queues.
//!
//! **Promises.** No key is used for two lanes, directions, sessions or generations; IVs are the core's own and never come
//! again. A lane is replaced by its next generation after 2^31 frames: both ends derive it, and the receiver follows with
//! the first authentic frame of it, never by a forged one. A session's lanes are never begun anew, so no frame is opened
//! twice. Keys are wiped when dropped and never printed. What a stranger sends costs a derivation of keys at most, and no
//! memory.
//!
//! **What it never does.** It does not say whether a frame may do anything: that is [`crate::frame::accept`]'s to judge.

mod keys;
mod lane;
#[cfg(test)]
mod tests;

use core::time::Duration;

use ipsec::engine::Engine;
use ipsec::inbound::{InboundError, Opened};
use ipsec::iv::IvGenerator;
use ipsec::outbound::{OutboundError, Overhead, esp_overhead};
use ipsec::time::Instant;

use crate::id::MemberId;
pub use keys::{End, LABEL, SECRET_LEN, SessionKeys};
use lane::Session;

/// What protection adds to a frame, at most: ESP header, IV, padding, trailer, ICV.
pub const OVERHEAD_BYTES_MAX: usize = 8 + 8 + 3 + 2 + 16;

/// Lanes from one core to one member.
const LANES: u8 = 16;
/// Data cores of a member, the same as what the configuration allows.
const CORES: usize = 64;
/// Numbers of one lane before its next generation begins.
const REKEY_AT: u64 = 1 << 31;
/// How long the keys of an older session are sent with while the other member learns those of the new one.
const SETTLING: Duration = Duration::from_millis(100);

/// Why a frame cannot be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// There has been no session with the member yet.
    #[error("no session with the member has given keys yet")]
    NoKeys,
    /// ESP refuses it.
    #[error(transparent)]
    Esp(#[from] OutboundError),
}

/// Why a protected frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// Its SPI belongs to no session with its sender, or to another core.
    #[error("no session with the sender has such keys")]
    NoKeys,
    /// ESP refuses it.
    #[error(transparent)]
    Esp(#[from] InboundError),
}

/// The fields of an SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// Which session: its highest bit is set.
    session: u16,
    /// The sender's core.
    core: u8,
    /// The low bits of the lane's generation.
    generation: u8,
    lane: u8,
}

impl Name {
    fn to_u32(self) -> u32 {
        let Name { session, core, generation, lane } = self;
        u32::from(session) << 16 | u32::from(core) << 8 | u32::from(generation & 0xf) << 4 | u32::from(lane)
    }

    fn from_u32(spi: u32) -> Option<Name> {
        let [high, low, core, rest] = spi.to_be_bytes();
        let name = Name { session: u16::from_be_bytes([high, low]), core, generation: rest >> 4, lane: rest & 0xf };
        (name.session & keys::SESSION_BIT != 0 && usize::from(core) < CORES).then_some(name)
    }

    /// Which of so many cores works on the lane.
    fn receiver(self, cores: usize) -> usize {
        (usize::from(self.lane) + usize::from(self.core)) % cores.max(1)
    }
}

/// Which of this appliance's `cores` opens the frames of this SPI; `None` where it is no SPI of a lane.
#[must_use]
pub fn core_of(spi: u32, cores: usize) -> Option<usize> {
    Some(Name::from_u32(spi)?.receiver(cores))
}

/// The room that a frame of `frame_len` bytes needs, its outer IP header included.
#[must_use]
pub const fn overhead(frame_len: usize) -> Overhead {
    // An IP header is a multiple of four bytes long, so the padding is that of the payload alone.
    esp_overhead(frame_len)
}

/// What one core has with one member.
#[derive(Debug)]
struct Pair {
    member: MemberId,
    current: Box<Session>,
    /// What was current before: frames of it may be under way.
    former: Option<Box<Session>>,
    /// From when on the current session's keys are sent with.
    settled_at: Instant,
}

/// One core's part. See the module's head.
#[derive(Debug)]
pub struct Guard {
    core: u8,
    cores: usize,
    rekey_at: u64,
    pairs: Vec<Pair>,
}

/// The keys of a session that is over, to be freed away from the packet path.
#[derive(Debug)]
pub struct Expired(#[expect(dead_code, reason = "it is only dropped")] Box<Session>);

impl Guard {
    /// That of core `core` among `cores`.
    #[must_use]
    pub fn new(core: usize, cores: usize) -> Guard {
        // More cores than the configuration allows would have no lanes: theirs would be those of others.
        Guard { core: core.min(CORES - 1) as u8, cores, rekey_at: REKEY_AT, pairs: Vec::new() }
    }

    /// Takes the keys of a new session; what is forgotten for them. A session that is known is not begun anew.
    pub fn learn(&mut self, now: Instant, keys: SessionKeys, engine: Engine) -> Option<Expired> {
        let member = keys.theirs.member;
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.member == member) else {
            let current = Box::new(Session::new(keys, engine));
            self.pairs.push(Pair { member, current, former: None, settled_at: now });
            return None;
        };
        let is_known = pair.current.is_of(&keys) || pair.former.as_ref().is_some_and(|former| former.is_of(&keys));
        if is_known {
            return None;
        }
        // Whoever has started anew knows nothing of the former session.
        let is_same_start = pair.current.theirs() == keys.theirs;
        pair.settled_at = if is_same_start { now + SETTLING } else { now };
        let session = Box::new(Session::new(keys, engine));
        pair.former.replace(std::mem::replace(&mut pair.current, session)).map(Expired)
    }

    /// Protects a frame for a member. `packet` is the room that [`overhead`] asks for, with the frame of `frame_len` bytes,
    /// its outer IP header first, in its place; on success it is what goes to the wire.
    ///
    /// # Errors
    /// [`NotSealed`]; nothing may be sent then.
    pub fn seal(
        &mut self,
        now: Instant,
        to: MemberId,
        flow_hash: u32,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        frame_len: usize,
    ) -> Result<(), NotSealed> {
        let pair = self.pairs.iter_mut().find(|pair| pair.member == to).ok_or(NotSealed::NoKeys)?;
        let session = match &mut pair.former {
            Some(former) if now < pair.settled_at => former,
            Some(_) | None => &mut pair.current,
        };
        let lane = (flow_hash % u32::from(LANES)) as u8;
        session.seal((self.core, lane), self.rekey_at, ivs, packet, frame_len)
    }

    /// Opens the ESP packet of a frame from a member, in place.
    ///
    /// # Errors
    /// [`NotOpened`]; the bytes are worthless then.
    pub fn open(&mut self, from: MemberId, esp: &mut [u8]) -> Result<Opened, NotOpened> {
        let spi = esp.first_chunk().copied().map(u32::from_be_bytes).ok_or(InboundError::Truncated)?;
        let name = Name::from_u32(spi).ok_or(NotOpened::NoKeys)?;
        if name.receiver(self.cores) != usize::from(self.core) {
            return Err(NotOpened::NoKeys);
        }
        let pair = self.pairs.iter_mut().find(|pair| pair.member == from).ok_or(NotOpened::NoKeys)?;
        let sessions = [Some(&mut pair.current), pair.former.as_mut()];
        let session = sessions.into_iter().flatten().find(|session| session.number() == name.session);
        session.ok_or(NotOpened::NoKeys)?.open(name, esp)
    }
}
