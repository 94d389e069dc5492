//! A hash index of fixed capacity: from a 64-bit hash to places in a slab that its owner keeps.
//!
//! **Purpose.** The lookup for each packet, for whatever is looked up: SAs ([`crate::sad`]), connections. The owner keeps
//! the entries and compares the keys; the index narrows down to hardly ever more than one.
//!
//! **Promises.** A lookup touches one cache line, and the next only while something overflowed from the one before.
//! Nothing ever grows or moves, so an insert costs the same at the first entry and at the last. Removal leaves no tombstone
//! behind: the table never degrades.
//!
//! **What it never does.** It does not hash. The hash must be keyed with a secret wherever strangers choose keys, and
//! good in its low bits (the bucket) and its high ones (the tag).
//!
//! A bucket is one cache line: ten 16-bit tags, ten 32-bit places, and a count of the entries that passed by because it
//! was full. A lookup goes on only while that count is not zero, and a removal counts down along the same way.
//!
//! In a burst, ask [`BucketIndex::first`] for every hash before the entries are touched, and [`BucketIndex::find`] only
//! where that was wrong: then the cache misses of the packets overlap instead of adding up.

const SLOTS: usize = 10;

/// Buckets are at most this full on average, in percent: rarely does one overflow.
const LOAD_PERCENT: usize = 70;

/// A place that stands for none.
pub const NOWHERE: u32 = u32::MAX;

/// No index can be larger: places are 32-bit numbers, and the last is taken.
pub const CAPACITY_MAX: usize = NOWHERE as usize - 1;

/// One cache line. An empty slot has tag 0, which no entry has.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    places: [u32; SLOTS],
    /// Entries that lie in a later bucket because this one was full.
    passed_by: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Self = Self { tags: [0; SLOTS], places: [NOWHERE; SLOTS], passed_by: 0 };

    /// One bit for each slot with this tag. All slots are compared, without a branch: where a loop would leave early
    /// nobody can predict.
    #[inline]
    fn matching(&self, tag: u16) -> u32 {
        self.tags.iter().zip(0..).fold(0, |mask, (found, slot)| mask | u32::from(*found == tag) << slot)
    }
}

/// The index is full where the entry would have to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The index.
#[derive(Debug)]
pub struct BucketIndex {
    buckets: Box<[Bucket]>,
    /// Buckets that an entry may lie in, counted from its home.
    reach: usize,
}

/// The home bucket and the tag of a hash.
#[derive(Clone, Copy)]
struct Hashed {
    bucket: usize,
    tag: u16,
}

impl BucketIndex {
    /// An index for `capacity` entries (at most [`CAPACITY_MAX`]), which never refuses one before it is full. All memory is
    /// taken here.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self::with_reach(capacity, usize::MAX)
    }

    /// The same, in which no entry lies further than `reach` buckets from its home: what falls together more than that is
    /// refused, and no lookup takes longer than that.
    #[must_use]
    pub fn with_reach(capacity: usize, reach: usize) -> Self {
        let capacity = capacity.min(CAPACITY_MAX);
        let buckets = (capacity * 100).div_ceil(SLOTS * LOAD_PERCENT).next_power_of_two();
        Self { buckets: vec![Bucket::EMPTY; buckets].into_boxed_slice(), reach: reach.min(buckets) }
    }

    /// The first place filed in the home bucket under a hash like this one: most often the right one, if there is any.
    #[must_use]
    #[inline]
    pub fn first(&self, hash: u64) -> Option<u32> {
        let Hashed { bucket, tag } = self.hashed(hash);
        let bucket = &self.buckets[bucket];
        bucket.places.get(bucket.matching(tag).trailing_zeros() as usize).copied()
    }

    /// The first place filed under `hash` for which `is_it` says so.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let Hashed { bucket: mut at, tag } = self.hashed(hash);
        for _ in 0..self.reach {
            let bucket = &self.buckets[at];
            let mut matching = bucket.matching(tag);
            while matching != 0 {
                let place = bucket.places[matching.trailing_zeros() as usize];
                if is_it(place) {
                    return Some(place);
                }
                matching &= matching - 1;
            }
            if bucket.passed_by == 0 {
                return None;
            }
            at = self.next_bucket(at);
        }
        None
    }

    /// Files `place` under `hash`. The caller has made sure that it is not there yet.
    ///
    /// # Errors
    /// [`Full`], with nothing changed, when every bucket within reach is full.
    pub fn insert(&mut self, hash: u64, place: u32) -> Result<(), Full> {
        let Hashed { bucket: home, tag } = self.hashed(hash);
        let (at, slot) = self.walk(home, |bucket| bucket.tags.iter().position(|tag| *tag == 0)).ok_or(Full)?;
        self.pass_by(home, at, |passed_by| *passed_by += 1);
        self.buckets[at].tags[slot] = tag;
        self.buckets[at].places[slot] = place;
        Ok(())
    }

    /// Takes `place` out from under `hash`; `false` if it was not there.
    pub fn remove(&mut self, hash: u64, place: u32) -> bool {
        let Hashed { bucket: home, .. } = self.hashed(hash);
        let found = self.walk(home, |bucket| {
            let mut slots = bucket.tags.iter().zip(&bucket.places);
            slots.position(|(tag, found)| *tag != 0 && *found == place)
        });
        let Some((at, slot)) = found else { return false };
        self.pass_by(home, at, |passed_by| *passed_by -= 1);
        self.buckets[at].tags[slot] = 0;
        self.buckets[at].places[slot] = NOWHERE;
        true
    }

    /// The first bucket from `home` on in which `wanted` finds a slot, and that slot.
    fn walk(&self, home: usize, wanted: impl Fn(&Bucket) -> Option<usize>) -> Option<(usize, usize)> {
        let mut at = home;
        for _ in 0..self.reach {
            if let Some(slot) = wanted(&self.buckets[at]) {
                return Some((at, slot));
            }
            at = self.next_bucket(at);
        }
        None
    }

    /// Counts an entry that lies in bucket `at` where it has passed by on its way from `home`.
    fn pass_by(&mut self, home: usize, at: usize, count: impl Fn(&mut u32)) {
        let mut passed = home;
        while passed != at {
            count(&mut self.buckets[passed].passed_by);
            passed = self.next_bucket(passed);
        }
    }

    #[inline]
    fn hashed(&self, hash: u64) -> Hashed {
        // Tag and bucket come from different bits; a tag is never 0.
        Hashed { bucket: hash as usize & (self.buckets.len() - 1), tag: (hash >> 48) as u16 | 1 }
    }

    #[inline]
    fn next_bucket(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests;
