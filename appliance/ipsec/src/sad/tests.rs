use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn seed() -> SadSeed {
    SadSeed::new(core::array::from_fn(|at| (at * 37 + 5) as u8))
}

fn spi(number: u32) -> Spi {
    Spi::new(256 + number).unwrap()
}

fn v4(number: u8) -> IpAddr {
    [203, 0, 113, number].into()
}

fn v6(number: u8) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)].into()
}

#[test]
fn hostile_30_only_the_exact_address_and_spi_find_an_sa() {
    let mut sad = Sad::new(16, seed());
    assert!(sad.is_empty());
    sad.insert(v4(80), spi(7), "web").unwrap();
    assert_eq!(sad.get(v4(80), spi(7)), Some(&"web"));
    for (dvipa, number) in
        [(v4(81), spi(7)), (v4(80), spi(8)), (v6(80), spi(7)), ("::ffff:203.0.113.80".parse().unwrap(), spi(7))]
    {
        assert_eq!(sad.get(dvipa, number), None, "{dvipa} {number}");
        assert_eq!(sad.remove(dvipa, number), None);
    }
    assert_eq!(sad.len(), 1);
}

#[test]
fn hostile_41_a_full_database_refuses_the_newcomer_and_keeps_the_rest() {
    for capacity in [0, 1, 2, 10, 100, 1_000] {
        let mut sad = Sad::new(capacity, seed());
        for number in 0..capacity as u32 {
            sad.insert(v4(1), spi(number), number).unwrap();
        }
        assert_eq!(sad.insert(v4(1), spi(5_000), 9), Err(InsertError::Full(9)));
        assert_eq!((sad.len(), sad.capacity()), (capacity, capacity));
        for number in 0..capacity as u32 {
            assert_eq!(sad.get(v4(1), spi(number)), Some(&number));
        }
        if capacity > 0 {
            assert_eq!(sad.remove(v4(1), spi(0)), Some(0));
            assert!(sad.insert(v4(1), spi(5_000), 9).is_ok());
        }
    }
}

#[test]
fn an_sa_is_not_replaced_unnoticed() {
    let mut sad = Sad::new(4, seed());
    sad.insert(v4(1), spi(1), "old").unwrap();
    assert_eq!(sad.insert(v4(1), spi(1), "new"), Err(InsertError::Occupied("new")));
    assert_eq!(sad.get(v4(1), spi(1)), Some(&"old"));
    assert_eq!(InsertError::Full(()).to_string(), "the SAD is full");
    assert_eq!(InsertError::Occupied(()).to_string(), "the SAD has an SA of this address and SPI");
}

#[test]
fn values_change_in_place_and_are_listed() {
    let mut sad = Sad::new(8, seed());
    for number in 0..5 {
        sad.insert(v4(1), spi(number), number).unwrap();
    }
    *sad.get_mut(v4(1), spi(3)).unwrap() = 30;
    assert_eq!(sad.get_mut(v4(2), spi(3)), None);
    sad.iter_mut().for_each(|(_, _, value)| *value += 1);
    let mut listed: Vec<_> = sad.iter().map(|(dvipa, number, value)| (dvipa, number, *value)).collect();
    listed.sort_unstable();
    assert_eq!(listed, [1, 2, 3, 31, 5].iter().zip(0..).map(|(value, n)| (v4(1), spi(n), *value)).collect::<Vec<_>>());
    assert_eq!(format!("{sad:?}"), "Sad(5 of 8)");
    assert_eq!(format!("{:?}", seed()), "SadSeed(..)");
}

#[test]
fn a_place_holds_until_its_sa_is_removed() {
    let mut sad = Sad::new(8, seed());
    let place = sad.insert(v4(1), spi(1), "a").unwrap();
    assert_eq!(sad.find(v4(1), spi(1)), Some(place));
    assert_eq!(sad.at(place), Some(&"a"));
    assert_eq!(sad.at_mut(place), Some(&mut "a"));
    sad.remove(v4(1), spi(1));
    assert_eq!(sad.at(place), None);
    assert_eq!(sad.at_mut(place), None);
}

#[test]
fn a_burst_finds_what_single_lookups_find_even_when_crowded() {
    let mut sad = Sad::new(64, seed());
    // All belong into one of sixteen buckets, so that they overflow.
    let numbers = (0..).map(spi).filter(|number| seed().hash(v4(1), *number) & 15 == 0);
    let keys: Vec<Spi> = numbers.take(40).collect();
    for (at, key) in keys.iter().enumerate().filter(|(at, _)| at % 3 != 0) {
        sad.insert(v4(1), *key, at as u32).unwrap();
    }
    let burst: Vec<_> = keys.iter().map(|key| (v4(1), *key)).collect();
    let mut found = [Some(Place(77)); 32];
    sad.lookup_burst(&burst, &mut found);
    for (at, (found, (dvipa, number))) in found.iter().zip(&burst).enumerate() {
        assert_eq!(*found, sad.find(*dvipa, *number));
        assert_eq!(found.and_then(|place| sad.at(place)).copied(), (at % 3 != 0).then_some(at as u32));
    }
    let mut rest = [Some(Place(77)); 4];
    sad.lookup_burst(&burst[..2], &mut rest);
    assert_eq!(rest[2..], [Some(Place(77)); 2], "places beyond the keys are left alone");
}

#[test]
fn different_seeds_spread_differently_and_each_spreads_well() {
    let hashes = |seed: SadSeed| (0..10_000).map(move |n| seed.hash(v4((n % 7) as u8), spi(n)));
    for number in 1..20_u8 {
        let other =
            core::array::from_fn(|at| (SadSeed::new([number; 32]).hash(v6(number), spi(at as u32)) >> 20) as u8);
        let same = hashes(seed()).zip(hashes(SadSeed::new(other))).filter(|(a, b)| a & 0xff == b & 0xff).count();
        assert!(same < 100, "{same} of 10,000 in the same of 256 buckets");
        let mut buckets = [0_u32; 256];
        hashes(SadSeed::new(other)).for_each(|hash| buckets[hash as usize & 0xff] += 1);
        let fullest = buckets.iter().max().unwrap();
        assert!(*fullest < 90, "39 on average, {fullest} in the fullest");
        let mut tags = [0_u32; 256];
        hashes(SadSeed::new(other)).for_each(|hash| tags[(hash >> 56) as usize] += 1);
        assert!(*tags.iter().max().unwrap() < 90);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u8, u32),
    Remove(u8, u32),
    Look(u8, u32),
    Burst(Vec<(u8, u32)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = (0_u8..4, 0_u32..40);
    let step = prop_oneof![
        4 => key.clone().prop_map(|(a, b)| Step::Insert(a, b)),
        2 => key.clone().prop_map(|(a, b)| Step::Remove(a, b)),
        2 => key.clone().prop_map(|(a, b)| Step::Look(a, b)),
        1 => prop::collection::vec(key, 0..40).prop_map(Step::Burst),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn the_sad_agrees_with_a_map(steps in steps(), capacity in 0_usize..100, seed: [u8; 32]) {
        let address = |n: u8| if n < 2 { v4(n) } else { v6(n) };
        let mut sad = Sad::new(capacity, SadSeed::new(seed));
        let mut map = BTreeMap::new();
        for (value, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(a, b) => {
                    let key = (address(a), spi(b));
                    let expected = if map.contains_key(&key) {
                        Err(InsertError::Occupied(value))
                    } else if map.len() == capacity {
                        Err(InsertError::Full(value))
                    } else {
                        map.insert(key, value);
                        Ok(())
                    };
                    prop_assert_eq!(sad.insert(key.0, key.1, value).map(|_| ()), expected);
                }
                Step::Remove(a, b) => prop_assert_eq!(sad.remove(address(a), spi(b)), map.remove(&(address(a), spi(b)))),
                Step::Look(a, b) => prop_assert_eq!(sad.get(address(a), spi(b)), map.get(&(address(a), spi(b)))),
                Step::Burst(keys) => {
                    let keys: Vec<_> = keys.into_iter().map(|(a, b)| (address(a), spi(b))).collect();
                    let mut found = [None; 32];
                    sad.lookup_burst(&keys, &mut found);
                    for (found, key) in found.iter().zip(&keys) {
                        prop_assert_eq!(found.and_then(|place| sad.at(place)), map.get(key));
                    }
                }
            }
            prop_assert_eq!(sad.len(), map.len());
        }
        let mut listed: Vec<_> = sad.iter().map(|(dvipa, number, value)| ((dvipa, number), *value)).collect();
        listed.sort_unstable();
        prop_assert_eq!(listed, map.into_iter().collect::<Vec<_>>());
    }
}
