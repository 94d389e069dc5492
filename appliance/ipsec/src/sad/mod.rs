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
//! A [`BucketIndex`] leads to places in a slab of entries.

mod hash;

pub use hash::SadSeed;

use core::fmt;
use core::net::IpAddr;

use crate::Spi;
use crate::bucket_index::{BucketIndex, NOWHERE};

pub use crate::bucket_index::CAPACITY_MAX;

/// Where an entry lies, as long as it is not removed. What [`Sad::lookup_burst`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u32);

/// A database of fixed capacity.
pub struct Sad<T> {
    index: BucketIndex,
    slab: Box<[Slot<T>]>,
    /// The first free slot, or [`NOWHERE`].
    free: u32,
    len: usize,
    seed: SadSeed,
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

impl<T> Sad<T> {
    /// An empty database for `capacity` SAs (at most [`CAPACITY_MAX`]). All memory is taken here. The seed comes from a
    /// random source, fresh at each start.
    #[must_use]
    pub fn new(capacity: usize, seed: SadSeed) -> Self {
        let capacity = capacity.min(CAPACITY_MAX);
        let next_free = |at: usize| if at + 1 < capacity { at as u32 + 1 } else { NOWHERE };
        Self {
            index: BucketIndex::new(capacity),
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
        let hash = self.seed.hash(dvipa, spi);
        if self.find_hashed(hash, dvipa, spi).is_some() {
            return Err(InsertError::Occupied(value));
        }
        let place = self.free;
        let Some(Slot::Free(next)) = self.slab.get(place as usize) else {
            return Err(InsertError::Full(value));
        };
        let next = *next;
        if self.index.insert(hash, place).is_err() {
            return Err(InsertError::Full(value));
        }
        self.free = next;
        self.slab[place as usize] = Slot::Taken(Entry { dvipa, spi, value });
        self.len += 1;
        Ok(Place(place))
    }

    /// Takes an SA out.
    pub fn remove(&mut self, dvipa: IpAddr, spi: Spi) -> Option<T> {
        let hash = self.seed.hash(dvipa, spi);
        let Place(place) = self.find_hashed(hash, dvipa, spi)?;
        self.index.remove(hash, place);
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
        self.find_hashed(self.seed.hash(dvipa, spi), dvipa, spi)
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
        let mut hashes = [0; N];
        for (hash, (dvipa, spi)) in hashes.iter_mut().zip(keys) {
            *hash = self.seed.hash(*dvipa, *spi);
        }
        for (found, hash) in found.iter_mut().zip(&hashes[..count]) {
            *found = self.index.first(*hash).map(Place);
        }
        for ((found, hash), (dvipa, spi)) in found.iter_mut().zip(&hashes).zip(keys) {
            let certain = found.is_some_and(|place| self.is_at(place, *dvipa, *spi));
            if !certain {
                // A stranger with the same tag, an entry that lies further on, or nothing at all.
                *found = self.find_hashed(*hash, *dvipa, *spi);
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
    fn find_hashed(&self, hash: u64, dvipa: IpAddr, spi: Spi) -> Option<Place> {
        self.index.find(hash, |place| self.is_at(Place(place), dvipa, spi)).map(Place)
    }

    #[inline]
    fn is_at(&self, place: Place, dvipa: IpAddr, spi: Spi) -> bool {
        match self.slab.get(place.0 as usize) {
            Some(Slot::Taken(entry)) => entry.spi == spi && entry.dvipa == dvipa,
            Some(Slot::Free(_)) | None => false,
        }
    }
}

impl<T> fmt::Debug for Sad<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sad({} of {})", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests;
