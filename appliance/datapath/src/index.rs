//! A hash index of fixed capacity: from a 64-bit hash to slots of a slab that its owner keeps.
//!
//! Each bucket fills one cache line: ten 16-bit tags, ten slot numbers, and how many entries overflowed to the buckets
//! behind it. A lookup touches one line, and the next only while something overflowed. Nothing ever grows or moves: an
//! insert costs the same at the first entry and at the last.

const WAYS: usize = 10;
/// How far an entry may stand from its home bucket.
const REACH: usize = 8;
const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Bucket {
    slots: [u32; WAYS],
    tags: [u16; WAYS],
    /// Entries whose home this is and that stand further on.
    overflowed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// The index is full where the entry would have to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Hash → slot numbers. The owner compares keys; the index only narrows down.
#[derive(Debug)]
pub struct HashIndex {
    buckets: Box<[Bucket]>,
    mask: usize,
}

impl HashIndex {
    /// An index for `capacity` entries, about two thirds full when all are there.
    pub fn new(capacity: usize) -> HashIndex {
        let count = (capacity.max(1) * 3 / 2).div_ceil(WAYS).next_power_of_two();
        let empty = Bucket { slots: [EMPTY; WAYS], tags: [0; WAYS], overflowed: 0 };
        HashIndex { buckets: vec![empty; count].into_boxed_slice(), mask: count - 1 }
    }

    /// The first slot filed under `hash` for which `is_it` says so.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let (home, tag) = self.place(hash);
        for step in 0..REACH {
            let bucket = &self.buckets[(home + step) & self.mask];
            for way in 0..WAYS {
                if bucket.tags[way] == tag && bucket.slots[way] != EMPTY && is_it(bucket.slots[way]) {
                    return Some(bucket.slots[way]);
                }
            }
            if step == 0 && bucket.overflowed == 0 {
                return None;
            }
        }
        None
    }

    /// Files `slot` under `hash`. The caller has made sure that it is not there yet.
    ///
    /// # Errors
    /// [`Full`] when every bucket within reach is full; nothing has changed then.
    pub fn insert(&mut self, hash: u64, slot: u32) -> Result<(), Full> {
        let (home, tag) = self.place(hash);
        for step in 0..REACH {
            let bucket = &mut self.buckets[(home + step) & self.mask];
            if let Some(way) = bucket.slots.iter().position(|&s| s == EMPTY) {
                bucket.slots[way] = slot;
                bucket.tags[way] = tag;
                if step > 0 {
                    self.buckets[home].overflowed += 1;
                }
                return Ok(());
            }
        }
        Err(Full)
    }

    /// Takes `slot` out from under `hash`; `false` when it was not there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let (home, _) = self.place(hash);
        for step in 0..REACH {
            let bucket = &mut self.buckets[(home + step) & self.mask];
            if let Some(way) = bucket.slots.iter().position(|&s| s == slot) {
                bucket.slots[way] = EMPTY;
                if step > 0 {
                    self.buckets[home].overflowed -= 1;
                }
                return true;
            }
        }
        false
    }

    /// Home bucket from the low bits, tag from the high ones.
    fn place(&self, hash: u64) -> (usize, u16) {
        (hash as usize & self.mask, (hash >> 48) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few distinct hashes, so that tags collide and buckets overflow.
        #[test]
        fn it_agrees_with_a_map(
            capacity in 0_usize..100, operations in prop::collection::vec((any::<bool>(), 0u32..200), 1..400),
        ) {
            let mut index = HashIndex::new(capacity);
            let mut map = BTreeMap::new();
            let hash = |slot: u32| u64::from(slot % 7) << 48 | u64::from(slot % 3);
            for (insert, slot) in operations {
                if insert && !map.contains_key(&slot) {
                    if index.insert(hash(slot), slot).is_ok() {
                        map.insert(slot, ());
                    } else {
                        prop_assert!(map.len() >= WAYS, "full too early");
                    }
                } else if !insert {
                    prop_assert_eq!(index.remove(hash(slot), slot), map.remove(&slot).is_some());
                }
                for probe in 0..200 {
                    let found = index.find(hash(probe), |s| s == probe).is_some();
                    prop_assert_eq!(found, map.contains_key(&probe));
                }
            }
            // What has overflowed is counted back to nothing.
            map.keys().for_each(|&slot| assert!(index.remove(hash(slot), slot)));
            prop_assert!(index.buckets.iter().all(|b| b.overflowed == 0 && b.slots == [EMPTY; WAYS]));
        }
    }

    #[test]
    fn slots_under_one_hash_fill_what_is_within_reach_and_no_more() {
        let mut index = HashIndex::new(1_000);
        let filed = (0..1_000).take_while(|&slot| index.insert(7, slot).is_ok()).count();
        assert_eq!(filed, REACH * WAYS);
        assert_eq!(index.insert(8 + REACH as u64, 1_000), Ok(()), "others are unharmed");
        assert_eq!(index.find(7, |slot| slot == 79), Some(79));
        assert_eq!(index.find(7, |slot| slot == 80), None);
    }

    #[test]
    fn it_holds_its_capacity_under_spread_hashes() {
        let mut index = HashIndex::new(100_000);
        for slot in 0..100_000u32 {
            let hash = u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(index.insert(hash ^ (hash >> 29), slot), Ok(()));
        }
    }
}
