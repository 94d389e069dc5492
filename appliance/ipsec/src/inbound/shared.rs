//! What all cores know of one inbound SA.

use std::sync::Arc;

use super::InboundError;
use super::floor::{Floor, Seal};
use super::progress::Progress;
use crate::engine::{AeadKey, Engine, EngineKind, PeekBlocks, PeekKey, Peeked};
use crate::esp::Authentic;
use crate::lifetime::Lifesize;
use crate::sa::{BadSa, Direction, Frame, SaParameters};
use crate::time::Instant;

/// What all cores know of one inbound SA. Nothing here changes but the claims on the lifesize, the progress, and what the
/// cluster says of it: floor, seal, grants.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct InboundShared {
    /// What every packet asks for, in the cache line in which the key begins.
    pub(super) frame: Frame,
    /// How far the SA has come, for the cores that have had none of its packets for long.
    progress: Progress,
    floor: Floor,
    seal: Seal,
    pub(super) key: AeadKey,
    peek_key: PeekKey,
    pub(super) lifesize: Lifesize,
    pub(super) parameters: SaParameters,
}

impl InboundShared {
    /// Makes an SA ready for at most so many cores, with all of its lifesize.
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new(parameters: SaParameters, engine: Engine, cores: u16) -> Result<Arc<Self>, BadSa> {
        let lifesize = Lifesize::new(&parameters.lifetime, cores);
        Self::with_lifesize(parameters, engine, lifesize)
    }

    /// Makes an SA ready for at most so many cores, that may carry nothing yet: see [`Lifesize::granted`].
    ///
    /// # Errors
    /// [`BadSa`] if the parameters contradict themselves.
    pub fn new_granted(
        parameters: SaParameters,
        engine: Engine,
        cores: u16,
        grant_chunk_bytes: u64,
    ) -> Result<Arc<Self>, BadSa> {
        Self::with_lifesize(parameters, engine, Lifesize::granted(cores, grant_chunk_bytes))
    }

    fn with_lifesize(parameters: SaParameters, engine: Engine, lifesize: Lifesize) -> Result<Arc<Self>, BadSa> {
        parameters.validate(Direction::Inbound)?;
        Ok(Arc::new(Self {
            frame: Frame::of(&parameters),
            progress: Progress::default(),
            floor: Floor::default(),
            seal: Seal::default(),
            key: AeadKey::new(engine, &parameters.key)?,
            peek_key: PeekKey::new(&parameters.key).ok_or(BadSa::Key)?,
            lifesize,
            parameters,
        }))
    }

    /// What was agreed on.
    #[must_use]
    #[inline]
    pub fn parameters(&self) -> &SaParameters {
        &self.parameters
    }

    /// Up to about which number packets were authenticated on any core, or on any appliance as far as the floor tells:
    /// less than [`PROGRESS_STEP_PACKETS`](super::PROGRESS_STEP_PACKETS) below the highest. Kept for extended sequence
    /// numbers only.
    #[must_use]
    #[inline]
    pub fn progress(&self) -> u64 {
        self.progress.get()
    }

    #[inline]
    pub(super) fn reached(&self, packet: &Authentic) {
        self.progress.reached(packet);
    }

    pub(super) fn reset_progress(&self) {
        self.progress.reset();
    }

    /// No core accepts a packet with this number or a lower one, whatever its window says. 0 outside clusters.
    #[must_use]
    #[inline]
    pub fn floor(&self) -> u64 {
        self.floor.get()
    }

    /// Raises the floor, for all cores at once; a lower one than it has changes nothing. A packet that a core is opening
    /// at this moment may still be accepted, none that it begins to open after it has learnt of anything that came later.
    ///
    /// A floor is a number that somebody authenticated, so with extended sequence numbers it is progress too: a core that
    /// has had no packet for long would else look for the next one below the floor.
    pub fn raise_floor(&self, floor: u64) {
        if self.frame.esn {
            self.progress.raise(floor);
        }
        self.floor.raise(floor);
    }

    /// Whether the SA was sealed: it delivers on entries that were there before its seal and creates none. What that
    /// means for a packet is for the packet's owner to judge; here it is only remembered.
    #[must_use]
    #[inline]
    pub fn is_sealed(&self) -> bool {
        self.seal.at().is_some()
    }

    /// Seals the SA, once and for good: of several seals the first counts. Says whether this was it.
    pub fn seal(&self, now: Instant) -> bool {
        #[cfg(phalanx_plant)]
        if crate::plant::breaks(crate::plant::Rule::Seal) {
            return false;
        }
        self.seal.set(now)
    }

    /// When it was sealed first.
    #[must_use]
    #[inline]
    pub fn sealed_at(&self) -> Option<Instant> {
        self.seal.at()
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
