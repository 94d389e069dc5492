use super::*;
use proptest::prelude::*;
use std::thread;

fn lifetime(soft: Option<u64>, hard: Option<u64>) -> Lifetime {
    Lifetime { bytes: Limits { soft, hard }, ..Lifetime::NONE }
}

#[test]
fn without_limits_nothing_is_refused_or_counted() {
    let lifesize = Lifesize::new(&Lifetime::NONE, 4);
    let mut share = LifesizeShare::new();
    for _ in 0..10 {
        assert_eq!(share.spend(&lifesize, u64::from(u32::MAX)), Ok(Spent::Within));
    }
    share.give_back(&lifesize);
    assert_eq!(lifesize.claimed(), (0, 0));
}

#[test]
fn the_hard_limit_is_reached_to_the_byte_and_not_passed() {
    let lifesize = Lifesize::new(&lifetime(None, Some(1_000)), 1);
    let mut share = LifesizeShare::new();
    for _ in 0..10 {
        assert_eq!(share.spend(&lifesize, 100), Ok(Spent::Within));
    }
    assert_eq!(share.spend(&lifesize, 1), Err(LifesizeRefusal::HardLimit));
    assert_eq!(lifesize.claimed().0, 1_000);
}

#[test]
fn packets_are_limited_like_bytes() {
    let limits = Limits { soft: Some(3), hard: Some(5) };
    let lifesize = Lifesize::new(&Lifetime { packets: limits, ..Lifetime::NONE }, 1);
    let mut share = LifesizeShare::new();
    let said: Vec<_> = (0..7).map(|_| share.spend(&lifesize, 9)).collect();
    let (within, hard) = (Ok(Spent::Within), Err(LifesizeRefusal::HardLimit));
    assert_eq!(said, [within, within, Ok(Spent::SoftReached), within, within, hard, hard]);
}

#[test]
fn a_refusal_spends_nothing_so_a_smaller_packet_still_fits() {
    let lifesize = Lifesize::new(&lifetime(None, Some(100)), 1);
    let mut share = LifesizeShare::new();
    assert_eq!(share.spend(&lifesize, 60), Ok(Spent::Within));
    assert_eq!(share.spend(&lifesize, 41), Err(LifesizeRefusal::HardLimit));
    assert_eq!(share.spend(&lifesize, 40), Ok(Spent::Within));
    assert_eq!(share.spend(&lifesize, 1), Err(LifesizeRefusal::HardLimit));
}

#[test]
fn an_idle_core_gives_its_share_back() {
    let lifesize = Lifesize::new(&lifetime(None, Some(12_800)), 2);
    assert_eq!(lifesize.chunk().0, 100);
    let (mut idle, mut busy) = (LifesizeShare::new(), LifesizeShare::new());
    assert_eq!(idle.spend(&lifesize, 1), Ok(Spent::Within));
    assert_eq!(busy.spend(&lifesize, 12_700), Ok(Spent::Within));
    assert_eq!(busy.spend(&lifesize, 99), Err(LifesizeRefusal::HardLimit));
    idle.give_back(&lifesize);
    assert_eq!(busy.spend(&lifesize, 99), Ok(Spent::Within));
    assert_eq!(idle.spend(&lifesize, 1), Err(LifesizeRefusal::HardLimit));
    assert_eq!(lifesize.claimed().0, 12_800);
}

#[test]
fn cores_race_to_the_hard_limit_and_one_of_them_says_soft() {
    const CORES: u16 = 4;
    let hard = 40_000_000_u64;
    let lifesize = Lifesize::new(&lifetime(Some(30_000_000), Some(hard)), CORES);
    let run = |core: u64| {
        let mut share = LifesizeShare::new();
        let (mut spent, mut said) = (0_u64, 0);
        for at in 0_u64.. {
            let bytes = 64 + (at * 37 + core * 11) % 1_400;
            match share.spend(&lifesize, bytes) {
                Ok(Spent::Within) => spent += bytes,
                Ok(Spent::SoftReached) => (spent, said) = (spent + bytes, said + 1),
                Err(LifesizeRefusal::HardLimit) => break,
                Err(LifesizeRefusal::Ungranted) => panic!("nobody grants this one"),
            }
            if at % 1_000 == core {
                share.give_back(&lifesize);
            }
        }
        (spent, said)
    };
    let totals: Vec<(u64, u32)> = thread::scope(|scope| {
        let cores: Vec<_> = (0..u64::from(CORES)).map(|core| scope.spawn(move || run(core))).collect();
        cores.into_iter().map(|core| core.join().unwrap()).collect()
    });
    let spent: u64 = totals.iter().map(|total| total.0).sum();
    let stranded = u64::from(CORES) * lifesize.chunk().0.max(1_464);
    assert!(spent <= hard && spent > hard - stranded, "{spent}");
    assert_eq!(totals.iter().map(|total| total.1).sum::<u32>(), 1);
}

proptest! {
    #[test]
    fn chunks_fit_between_soft_and_hard(soft in 0_u64..1 << 40, room in 1_u64..1 << 40, cores in 1_u16..256) {
        let lifesize = Lifesize::new(&lifetime(Some(soft), Some(soft + room)), cores);
        let chunk = lifesize.chunk().0;
        prop_assert!(chunk == 1 || chunk * u64::from(cores) <= room);
        prop_assert!(chunk == 1 || chunk * u64::from(cores) * 64 <= soft + room);
    }

    /// Any interleaving of cores that spend and give back, against one plain sum.
    #[test]
    fn never_more_than_hard_and_soft_said_once(
        soft in 0_u64..20_000, room in 0_u64..5_000, cores in 1_u16..5,
        steps in prop::collection::vec((0_usize..4, 0_u64..1_500, prop::bool::weighted(0.1)), 1..200),
    ) {
        let hard = soft + room;
        let lifesize = Lifesize::new(&lifetime(Some(soft), Some(hard)), cores);
        let mut shares: Vec<_> = (0..cores).map(|_| LifesizeShare::new()).collect();
        let (mut total, mut said, mut refused_while_idle) = (0, 0, false);
        for (core, bytes, gives_back) in steps {
            let core = core % shares.len();
            match shares[core].spend(&lifesize, bytes) {
                Ok(spent) => {
                    total += bytes;
                    said += u32::from(spent == Spent::SoftReached);
                }
                Err(_) => {
                    shares.iter_mut().for_each(|share| share.give_back(&lifesize));
                    refused_while_idle |= total + bytes <= hard && shares[core].spend(&lifesize, bytes).map(|_| total += bytes).is_err();
                }
            }
            if gives_back {
                shares[core].give_back(&lifesize);
            }
            prop_assert!(total <= hard);
            prop_assert!(said <= 1);
            prop_assert!(said == 1 || total < soft.max(1) || lifesize.soft_said.load(Ordering::Relaxed));
        }
        prop_assert!(!refused_while_idle, "what was given back could not be used");
        shares.iter_mut().for_each(|share| share.give_back(&lifesize));
        prop_assert_eq!(lifesize.claimed().0, total);
    }
}

const UNGRANTED: Result<Spent, LifesizeRefusal> = Err(LifesizeRefusal::Ungranted);

#[test]
fn a_granted_lifesize_begins_empty_and_ends_where_the_grants_end() {
    let lifesize = Lifesize::granted(1, 1_000);
    let mut share = LifesizeShare::new();
    assert_eq!((lifesize.ceiling(), lifesize.is_granted()), ((0, 0), true));
    assert_eq!(share.spend(&lifesize, 0), UNGRANTED, "not even an empty packet");
    lifesize.raise(250, 3);
    let said: Vec<_> = (0..4).map(|_| share.spend(&lifesize, 100)).collect();
    assert_eq!(said, [Ok(Spent::Within), Ok(Spent::Within), UNGRANTED, UNGRANTED]);
    assert_eq!(share.spend(&lifesize, 50), Ok(Spent::Within), "a smaller packet still fits");
    lifesize.raise(1_000, 3);
    assert_eq!(share.spend(&lifesize, 1), UNGRANTED, "packets are granted like bytes");
    lifesize.raise(1_000, 4);
    assert_eq!(share.spend(&lifesize, 750), Ok(Spent::Within), "bytes that wait for a packet are not lost");
    assert_eq!((share.spend(&lifesize, 0), lifesize.claimed()), (UNGRANTED, (1_000, 4)));
}

#[test]
fn grants_that_are_repeated_or_overtaken_take_nothing_back() {
    let lifesize = Lifesize::granted(2, 64);
    for (bytes, packets) in [(500, 5), (500, 5), (400, 9), (0, 0)] {
        lifesize.raise(bytes, packets);
    }
    assert_eq!(lifesize.ceiling(), (500, 9));
    let limited = Lifesize::new(&lifetime(Some(50), Some(100)), 1);
    limited.raise(1_000, 1_000);
    assert_eq!((limited.ceiling(), limited.is_granted()), ((100, u64::MAX), false), "a hard limit is no grant");
}

#[test]
fn a_granted_lifesize_never_says_soft_however_far_it_comes() {
    let lifesize = Lifesize::granted(1, u64::MAX);
    lifesize.raise(u64::MAX, u64::MAX);
    let mut share = LifesizeShare::new();
    for bytes in [u64::MAX - 1, 1] {
        assert_eq!(share.spend(&lifesize, bytes), Ok(Spent::Within));
    }
    assert_eq!(share.spend(&lifesize, 1), UNGRANTED);
}

#[test]
fn no_core_claims_a_whole_grant_that_others_need_too() {
    let lifesize = Lifesize::granted(4, 1 << 20);
    lifesize.raise(4_000, u64::MAX);
    let mut shares = [const { LifesizeShare::new() }; 4];
    for share in &mut shares {
        assert_eq!(share.spend(&lifesize, 10), Ok(Spent::Within));
    }
    assert_eq!(lifesize.claimed().0, 1_000 + 750 + 562 + 422);
}

#[test]
fn only_what_no_core_has_claimed_is_withdrawn_and_nobody_has_it_then() {
    let lifesize = Lifesize::granted(2, 400);
    lifesize.raise(1_000, 10);
    let mut share = LifesizeShare::new();
    assert_eq!(share.spend(&lifesize, 100), Ok(Spent::Within));
    assert_eq!(lifesize.claimed(), (400, 1), "a chunk, of which 300 are not spent yet");
    assert_eq!(lifesize.withdraw(500, 0), (500, 0));
    assert_eq!(lifesize.withdraw(500, 100), (100, 9), "no more than there is");
    assert_eq!(lifesize.withdraw(1, 1), (0, 0));
    assert_eq!((lifesize.ceiling(), lifesize.claimed()), ((1_000, 10), (1_000, 10)));
    assert_eq!(share.spend(&lifesize, 300), UNGRANTED, "its packet is gone");
    lifesize.raise(1_000, 11);
    assert_eq!(share.spend(&lifesize, 300), Ok(Spent::Within), "what it had claimed is its own");
    assert_eq!(share.spend(&lifesize, 1), UNGRANTED);
    let limited = Lifesize::new(&lifetime(Some(50), Some(100)), 1);
    assert_eq!((limited.withdraw(10, 10), limited.claimed()), ((0, 0), (0, 0)));
}

/// Cores that spend at once while their grants grow, and something is withdrawn: what they have spent so far and what
/// was withdrawn never exceed together what was granted so far.
fn race(cores: u16, chunk_bytes: u64, grants: &[(u64, u64)]) -> (u64, u64) {
    let lifesize = Lifesize::granted(cores, chunk_bytes);
    let (spent_bytes, spent_packets) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let run = |core: u64| {
        let mut share = LifesizeShare::new();
        for at in core.. {
            let bytes = (at * 37 + core * 11) % 1_400;
            match share.spend(&lifesize, bytes) {
                Ok(spent) => {
                    assert_eq!(spent, Spent::Within);
                    let bytes = spent_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    let packets = spent_packets.fetch_add(1, Ordering::SeqCst) + 1;
                    let ceiling = lifesize.ceiling();
                    assert!(bytes <= ceiling.0 && packets <= ceiling.1, "{bytes}, {packets}: {ceiling:?}");
                }
                Err(LifesizeRefusal::Ungranted) if is_over.load(Ordering::SeqCst) => break,
                Err(LifesizeRefusal::Ungranted) => thread::yield_now(),
                Err(LifesizeRefusal::HardLimit) => panic!("a granted lifesize has no hard limit"),
            }
            if at % 7 == 0 {
                share.give_back(&lifesize);
            }
        }
        share.give_back(&lifesize);
    };
    let mut withdrawn = (0, 0);
    thread::scope(|scope| {
        (0..u64::from(cores)).for_each(|core| drop(scope.spawn(move || run(core))));
        for (bytes, packets) in grants {
            lifesize.raise(*bytes, *packets);
            thread::yield_now();
            let (bytes, packets) = lifesize.withdraw(bytes / 8, packets / 8);
            withdrawn = (withdrawn.0 + bytes, withdrawn.1 + packets);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let used = (spent_bytes.into_inner() + withdrawn.0, spent_packets.into_inner() + withdrawn.1);
    assert_eq!(lifesize.claimed(), used, "what was neither spent nor withdrawn was given back");
    used
}

#[test]
fn cores_that_race_use_a_grant_up_but_for_what_others_hold() {
    let (bytes, packets) = race(4, 9_000, &[(3_000_000, u64::MAX)]);
    assert!(bytes > 3_000_000 - 4 * (9_000 + 1_400) && packets > 1_000, "{bytes}");
    let packets = race(3, 9_000, &[(u64::MAX, 5_000)]).1;
    assert!(packets > 5_000 - 3 * (9_000 / 256), "{packets}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cores_never_spend_more_than_what_was_granted_by_then(
        cores in 1_u16..5, chunk_bytes in 0_u64..20_000, grants in prop::collection::vec((0_u64..200_000, 0_u64..400), 0..30),
    ) {
        // Some grow, some are old ones that come late.
        let (bytes, packets) = race(cores, chunk_bytes, &grants);
        let most = (grants.iter().map(|grant| grant.0).max(), grants.iter().map(|grant| grant.1).max());
        prop_assert!(bytes <= most.0.unwrap_or(0) && packets <= most.1.unwrap_or(0));
    }

    /// Any interleaving of cores that spend and give back while grants come, against plain sums.
    #[test]
    fn granted_cores_agree_with_plain_sums(
        cores in 1_usize..5, chunk_bytes in 0_u64..3_000,
        steps in prop::collection::vec((0_usize..4, 0_u64..1_500, 0_u8..10), 1..200),
    ) {
        let lifesize = Lifesize::granted(cores as u16, chunk_bytes);
        let mut shares: Vec<_> = (0..cores).map(|_| LifesizeShare::new()).collect();
        let (mut spent, mut granted) = ((0, 0), (0, 0));
        for (core, bytes, kind) in steps {
            let core = core % cores;
            match kind {
                0 => {
                    granted = (granted.0 + bytes, granted.1 + 2);
                    lifesize.raise(granted.0, granted.1);
                }
                1 => shares[core].give_back(&lifesize),
                _spends => match shares[core].spend(&lifesize, bytes) {
                    Ok(_) => spent = (spent.0 + bytes, spent.1 + 1),
                    Err(_) => {
                        shares.iter_mut().for_each(|share| share.give_back(&lifesize));
                        let fits = spent.0 + bytes <= granted.0 && spent.1 < granted.1;
                        prop_assert_eq!(shares[core].spend(&lifesize, bytes).is_ok(), fits);
                        spent = if fits { (spent.0 + bytes, spent.1 + 1) } else { spent };
                    }
                },
            }
            prop_assert!(spent.0 <= granted.0 && spent.1 <= granted.1);
            prop_assert_eq!(lifesize.ceiling(), granted);
        }
        shares.iter_mut().for_each(|share| share.give_back(&lifesize));
        prop_assert_eq!(lifesize.claimed(), spent);
    }
}
