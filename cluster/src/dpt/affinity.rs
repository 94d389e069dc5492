//! Which target a source had last: a memory of fixed size that forgets the oldest first.

use core::time::Duration;

use ipsec::time::Instant;

use crate::id::MemberId;

/// Places that one source may lie in.
const WAYS: usize = 4;

/// A source at a port is known by 64 bits of a keyed hash. Two that share one share a target too, which is no harm: it is
/// still asked whether it is ready.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    source: u64,
    target: MemberId,
    until: Instant,
}

/// The memory of one core.
#[derive(Debug)]
pub(super) struct Affinity {
    sets: Box<[[Option<Remembered>; WAYS]]>,
}

impl Affinity {
    /// A memory for so many sources, rounded up; none if 0.
    pub fn new(capacity: usize) -> Affinity {
        let sets = if capacity == 0 { 0 } else { capacity.div_ceil(WAYS).next_power_of_two() };
        Affinity { sets: vec![[None; WAYS]; sets].into_boxed_slice() }
    }

    /// The target of this source, if it is remembered still.
    pub fn target_of(&self, now: Instant, source: u64) -> Option<MemberId> {
        let set = self.sets.get(self.home(source))?;
        set.iter().flatten().find(|known| known.source == source && known.until > now).map(|known| known.target)
    }

    /// Remembers the target of this source for so long; whoever would be forgotten first makes room.
    pub fn remember(&mut self, now: Instant, source: u64, target: MemberId, timeout: Duration) {
        let home = self.home(source);
        let Some(set) = self.sets.get_mut(home) else { return };
        let worth = |place: &Option<Remembered>| match place {
            Some(known) if known.source == source => None,
            Some(known) => Some(known.until),
            None => Some(Instant::ZERO),
        };
        // A place of its own is worth the least, so that no source ever has two.
        if let Some(place) = set.iter_mut().min_by_key(|place| worth(place)) {
            *place = Some(Remembered { source, target, until: now + timeout });
        }
    }

    fn home(&self, source: u64) -> usize {
        source as usize & self.sets.len().saturating_sub(1)
    }
}
