use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

impl BucketIndex {
    fn passed_by(&self) -> u32 {
        self.buckets.iter().map(|bucket| bucket.passed_by).sum()
    }

    fn is_as_new(&self) -> bool {
        self.passed_by() == 0 && self.buckets.iter().all(|bucket| bucket.tags == [0; SLOTS])
    }
}

fn has(index: &BucketIndex, hash: u64, place: u32) -> bool {
    index.find(hash, |found| found == place).is_some()
}

#[test]
fn it_holds_its_capacity_even_if_all_have_one_home() {
    for capacity in [0, 1, 9, 10, 11, 64, 700] {
        let mut index = BucketIndex::new(capacity);
        for place in 0..capacity as u32 {
            assert_eq!(index.insert(7, place), Ok(()), "{place} of {capacity}");
        }
        assert!((0..capacity as u32).all(|place| has(&index, 7, place)));
        assert!((0..capacity as u32).all(|place| index.remove(7, place)));
        assert!(index.is_as_new());
    }
}

#[test]
fn hostile_41_what_falls_together_beyond_the_reach_is_refused_and_harms_nobody_else() {
    let mut index = BucketIndex::with_reach(1_000, 8);
    let filed = (0..1_000).take_while(|&place| index.insert(7, place).is_ok()).count();
    assert_eq!(filed, 8 * SLOTS);
    let passed_by = index.passed_by();
    assert_eq!(index.insert(7, 80), Err(Full));
    assert_eq!(index.passed_by(), passed_by, "a refusal changes nothing");
    assert_eq!(index.insert(7 + 8, 1_000), Ok(()), "others are unharmed");
    assert!(has(&index, 7, 79) && !has(&index, 7, 80));
}

#[test]
fn each_entry_is_counted_where_it_passed_by_and_late_ones_are_found_when_early_ones_go() {
    let mut index = BucketIndex::new(64);
    assert_eq!(index.buckets.len(), 16);
    (0..64).for_each(|place| index.insert(0, place).unwrap());
    assert_eq!(index.passed_by(), 54 + 44 + 34 + 24 + 14 + 4);
    for place in 0..64 {
        assert!(index.remove(0, place) && !has(&index, 0, place));
        assert!((place + 1..64).all(|later| has(&index, 0, later)));
        assert!(!index.remove(0, place), "once");
    }
    assert!(index.is_as_new());
}

#[test]
fn the_first_of_a_home_bucket_is_found_by_its_tag_alone() {
    let mut index = BucketIndex::new(100);
    let (one, other) = (3 << 48, 5 << 48);
    index.insert(one, 1).unwrap();
    index.insert(other, 2).unwrap();
    index.insert(other, 3).unwrap();
    assert_eq!((index.first(one), index.first(other), index.first(9 << 48)), (Some(1), Some(2), None));
    assert_eq!(index.find(other, |place| place == 3), Some(3));
}

#[test]
fn it_holds_its_capacity_under_spread_hashes_within_a_short_reach() {
    let mut index = BucketIndex::with_reach(100_000, 8);
    for place in 0..100_000_u32 {
        let hash = u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert_eq!(index.insert(hash ^ (hash >> 29), place), Ok(()));
    }
}

proptest! {
    /// Few distinct hashes, so that tags collide and buckets overflow, round the end of the table as well.
    #[test]
    fn it_agrees_with_a_set(
        capacity in 0_usize..100, reach in 1_usize..12,
        operations in prop::collection::vec((any::<bool>(), 0_u32..200), 1..400),
    ) {
        let mut index = BucketIndex::with_reach(capacity, reach);
        let mut set = BTreeSet::new();
        let hash = |place: u32| u64::from(place % 7) << 48 | (u64::MAX - u64::from(place % 3)) >> 16;
        for (insert, place) in operations {
            if insert && !set.contains(&place) {
                match index.insert(hash(place), place) {
                    Ok(()) => _ = set.insert(place),
                    Err(Full) => prop_assert!(set.len() >= SLOTS * reach.min(index.buckets.len()), "full too early"),
                }
            } else if !insert {
                prop_assert_eq!(index.remove(hash(place), place), set.remove(&place));
            }
            for probe in 0..200 {
                prop_assert_eq!(has(&index, hash(probe), probe), set.contains(&probe));
                let first = index.first(hash(probe));
                prop_assert!(first.is_none_or(|first| set.contains(&first)));
            }
        }
        set.iter().for_each(|&place| assert!(index.remove(hash(place), place)));
        prop_assert!(index.is_as_new(), "what has overflowed is counted back to nothing");
    }
}
