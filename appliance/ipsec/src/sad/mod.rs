//! The security association database: from (DVIPA, SPI) to one core's instance of an SA.
//!
//! **Purpose.** A lookup for each inbound packet, at any number of SAs, in two cache misses that do not wait for each
//! other's neighbours: [`Sad::lookup_burst`] goes through a burst in passes.
//!
//! **Promises.** Capacity is fixed at the start; nothing is moved or resized afterwards, so no insert stalls the core.
//! A full database refuses the newcomer and harms nobody else. Removal leaves no tombstone behind.
//!
//! **What it never does.** It trusts no packet to choose its bucket: the hash is keyed with a secret of this start.
//!
//! Buckets are one cache line: ten 16-bit tags, ten 32-bit places in a slab of entries, and a count of the entries that
//! wanted to be here or passed by but found it full. A lookup goes on to the next bucket only while that count is not
//! zero, and a removal counts down along the same way, so the table never degrades.

mod hash;

pub use hash::SadSeed;

use core::fmt;
use core::net::IpAddr;

use crate::Spi;

const SLOTS: usize = 10;

/// Buckets are at most this full on average, in percent: rarely does one overflow.
const LOAD_PERCENT: usize = 70;

/// No database can be larger: places are 32-bit numbers, and the last is taken.
pub const CAPACITY_MAX: usize = u32::MAX as usize - 1;

/// A place in the slab that stands for none.
const NOWHERE: u32 = u32::MAX;

/// Where an entry lies, as long as it is not removed. What [`Sad::lookup_burst`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u32);

/// A database of fixed capacity.
pub struct Sad<T> {
    buckets: Box<[Bucket]>,
    slab: Box<[Slot<T>]>,
    /// The first free slot, or [`NOWHERE`].
    free: u32,
    len: usize,
    seed: SadSeed,
}

/// One cache line. An empty slot has tag 0, which no entry has.
#[derive(Clone)]
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

enum Slot<T> {
    /// With the next free slot.
    Free(u32),
    Taken(Entry<T>),
}

struct Entry<T> {
    dvipa: IpAddr,
    spi: Spi,
    value: T,
}

/// Why an SA is not taken in. The SA comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum InsertError<T> {
    /// As many SAs as it can hold are in it.
    Full(T),
    /// An SA with this address and SPI is in it.
    Occupied(T),
}

impl<T> fmt::Display for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the SAD is full",
            Self::Occupied(_) => "the SAD has an SA of this address and SPI",
        })
    }
}

impl<T: fmt::Debug> core::error::Error for InsertError<T> {}

/// The home bucket and the tag of a key.
#[derive(Clone, Copy)]
struct Hashed {
    bucket: usize,
    tag: u16,
}

impl<T> Sad<T> {
    /// An empty database for `capacity` SAs (at most [`CAPACITY_MAX`]). All memory is taken here. The seed comes from a
    /// random source, fresh at each start.
    #[must_use]
    pub fn new(capacity: usize, seed: SadSeed) -> Self {
        let capacity = capacity.min(CAPACITY_MAX);
        let buckets = (capacity * 100).div_ceil(SLOTS * LOAD_PERCENT).next_power_of_two();
        let next_free = |at: usize| if at + 1 < capacity { at as u32 + 1 } else { NOWHERE };
        Self {
            buckets: vec![Bucket::EMPTY; buckets].into_boxed_slice(),
            slab: (0..capacity).map(|at| Slot::Free(next_free(at))).collect(),
            free: if capacity == 0 { NOWHERE } else { 0 },
            len: 0,
            seed,
        }
    }

    /// How many SAs are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many SAs it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slab.len()
    }

    /// Takes an SA in.
    ///
    /// # Errors
    /// [`InsertError`], with nothing changed.
    pub fn insert(&mut self, dvipa: IpAddr, spi: Spi, value: T) -> Result<Place, InsertError<T>> {
        if self.find(dvipa, spi).is_some() {
            return Err(InsertError::Occupied(value));
        }
        let place = self.free;
        let Some(Slot::Free(next)) = self.slab.get(place as usize) else {
            return Err(InsertError::Full(value));
        };
        self.free = *next;
        self.slab[place as usize] = Slot::Taken(Entry { dvipa, spi, value });
        self.len += 1;

        let hashed = self.hashed(dvipa, spi);
        let mut at = hashed.bucket;
        // There is a free slot somewhere, since the slab had room and is smaller than all buckets together.
        let slot = loop {
            match self.buckets[at].tags.iter().position(|tag| *tag == 0) {
                Some(slot) => break slot,
                None => self.buckets[at].passed_by += 1,
            }
            at = self.next_bucket(at);
        };
        self.buckets[at].tags[slot] = hashed.tag;
        self.buckets[at].places[slot] = place;
        Ok(Place(place))
    }

    /// Takes an SA out.
    pub fn remove(&mut self, dvipa: IpAddr, spi: Spi) -> Option<T> {
        let hashed = self.hashed(dvipa, spi);
        let (found_at, slot) = self.locate(hashed, dvipa, spi)?;
        let mut at = hashed.bucket;
        while at != found_at {
            self.buckets[at].passed_by -= 1;
            at = self.next_bucket(at);
        }
        let place = self.buckets[at].places[slot];
        self.buckets[at].tags[slot] = 0;
        self.buckets[at].places[slot] = NOWHERE;
        self.len -= 1;
        match core::mem::replace(&mut self.slab[place as usize], Slot::Free(self.free)) {
            Slot::Taken(entry) => {
                self.free = place;
                Some(entry.value)
            }
            Slot::Free(_) => None,
        }
    }

    /// The SA of this address and SPI.
    #[must_use]
    #[inline]
    pub fn get(&self, dvipa: IpAddr, spi: Spi) -> Option<&T> {
        self.at(self.find(dvipa, spi)?)
    }

    /// The SA of this address and SPI, to work with.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, dvipa: IpAddr, spi: Spi) -> Option<&mut T> {
        let place = self.find(dvipa, spi)?;
        self.at_mut(place)
    }

    /// Where the SA of this address and SPI lies.
    #[must_use]
    #[inline]
    pub fn find(&self, dvipa: IpAddr, spi: Spi) -> Option<Place> {
        let (at, slot) = self.locate(self.hashed(dvipa, spi), dvipa, spi)?;
        Some(Place(self.buckets[at].places[slot]))
    }

    /// The SA at a place that was found since the last removal.
    #[must_use]
    #[inline]
    pub fn at(&self, place: Place) -> Option<&T> {
        match self.slab.get(place.0 as usize) {
            Some(Slot::Taken(entry)) => Some(&entry.value),
            Some(Slot::Free(_)) | None => None,
        }
    }

    /// The SA at a place that was found since the last removal, to work with.
    #[must_use]
    #[inline]
    pub fn at_mut(&mut self, place: Place) -> Option<&mut T> {
        match self.slab.get_mut(place.0 as usize) {
            Some(Slot::Taken(entry)) => Some(&mut entry.value),
            Some(Slot::Free(_)) | None => None,
        }
    }

    /// Looks a burst up: `found[i]` becomes the place of `keys[i]`. Surplus keys or places are left alone.
    ///
    /// The passes go through the burst side by side (bucket, then entry), so that the misses of one packet overlap
    /// with those of the others instead of adding up.
    #[inline]
    pub fn lookup_burst<const N: usize>(&self, keys: &[(IpAddr, Spi)], found: &mut [Option<Place>; N]) {
        let count = keys.len().min(N);
        let keys = &keys[..count];
        let mut hashed = [Hashed { bucket: 0, tag: 0 }; N];
        for (hashed, (dvipa, spi)) in hashed.iter_mut().zip(keys) {
            *hashed = self.hashed(*dvipa, *spi);
        }
        for (found, hashed) in found.iter_mut().zip(&hashed[..count]) {
            *found = self.first_candidate(*hashed);
        }
        for ((found, hashed), (dvipa, spi)) in found.iter_mut().zip(&hashed).zip(keys) {
            let certain = found.is_some_and(|place| self.is_at(place, *dvipa, *spi));
            if !certain {
                // A stranger with the same tag, an entry that lies further on, or nothing at all.
                let located = self.locate(*hashed, *dvipa, *spi);
                *found = located.map(|(at, slot)| Place(self.buckets[at].places[slot]));
            }
        }
    }

    /// Every SA with its address and SPI.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Spi, &T)> {
        self.slab.iter().filter_map(|slot| match slot {
            Slot::Taken(entry) => Some((entry.dvipa, entry.spi, &entry.value)),
            Slot::Free(_) => None,
        })
    }

    /// Every SA with its address and SPI, to work with.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (IpAddr, Spi, &mut T)> {
        self.slab.iter_mut().filter_map(|slot| match slot {
            Slot::Taken(entry) => Some((entry.dvipa, entry.spi, &mut entry.value)),
            Slot::Free(_) => None,
        })
    }

    #[inline]
    fn hashed(&self, dvipa: IpAddr, spi: Spi) -> Hashed {
        let hash = self.seed.hash(dvipa, spi);
        // Tag and bucket come from different bits; a tag is never 0.
        Hashed { bucket: hash as usize & (self.buckets.len() - 1), tag: (hash >> 48) as u16 | 1 }
    }

    #[inline]
    fn next_bucket(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    /// The first entry in the home bucket with the right tag: most often the right one.
    #[inline]
    fn first_candidate(&self, hashed: Hashed) -> Option<Place> {
        let bucket = &self.buckets[hashed.bucket];
        let slot = bucket.matching(hashed.tag).trailing_zeros() as usize;
        bucket.places.get(slot).copied().map(Place)
    }

    #[inline]
    fn is_at(&self, place: Place, dvipa: IpAddr, spi: Spi) -> bool {
        match self.slab.get(place.0 as usize) {
            Some(Slot::Taken(entry)) => entry.spi == spi && entry.dvipa == dvipa,
            Some(Slot::Free(_)) | None => false,
        }
    }

    /// Bucket and slot of an entry.
    #[inline]
    fn locate(&self, hashed: Hashed, dvipa: IpAddr, spi: Spi) -> Option<(usize, usize)> {
        let mut at = hashed.bucket;
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut matching = bucket.matching(hashed.tag);
            while matching != 0 {
                let slot = matching.trailing_zeros() as usize;
                if self.is_at(Place(bucket.places[slot]), dvipa, spi) {
                    return Some((at, slot));
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
}

impl<T> fmt::Debug for Sad<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sad({} of {})", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests;
