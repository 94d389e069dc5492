use super::*;
use crate::inbound::{Carried, InboundError, InboundSa, InboundShared};
use crate::sa::Direction;
use crate::testing::{engines, ipv4_packet, parameters, ring, sealed_raw};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

const SUBSPACE: u64 = 1 << 32;
const HALF: u64 = 1 << 31;

fn shared(esn: bool, window_packets: u32) -> Arc<InboundShared> {
    let mut parameters = parameters(Direction::Inbound);
    (parameters.esn, parameters.replay_window_packets) = (esn, window_packets);
    InboundShared::new(parameters, ring(), 2).unwrap()
}

fn packet(shared: &InboundShared, sequence: u64) -> Vec<u8> {
    sealed_raw(shared, sequence, [9; 8], &[&ipv4_packet(60)[..], &[1, 2, 2, 4]].concat())
}

fn carried(core: &mut InboundSa, sequence: u64, floor: u64, top: u64) -> Result<u64, InboundError> {
    let mut packet = packet(&core.shared().clone(), sequence);
    core.open_carried(&mut packet, Carried { floor, top }).map(|opened| opened.sequence())
}

fn open(core: &mut InboundSa, sequence: u64) -> Result<u64, InboundError> {
    carried(core, sequence, 0, 0)
}

#[test]
fn hostile_32_a_number_at_or_below_the_floor_is_refused_though_the_window_would_take_it() {
    for (esn, window_packets) in [(false, 64), (true, 64), (false, 0), (true, 0)] {
        let shared = shared(esn, window_packets);
        let mut core = InboundSa::new(shared.clone());
        assert_eq!((open(&mut core, 10), shared.floor()), (Ok(10), 0));
        shared.raise_floor(40);
        let window = format!("{:?}", core.window());
        for sequence in [1, 9, 11, 39, 40] {
            assert_eq!(open(&mut core, sequence), Err(InboundError::BelowFloor), "{sequence}");
        }
        assert_eq!(format!("{:?}", core.window()), window, "the window has moved");
        assert_eq!((open(&mut core, 41), core.counters().replay_drops), (Ok(41), 5));
    }
}

#[test]
fn what_the_window_knows_is_refused_for_that() {
    let shared = shared(false, 64);
    let mut core = InboundSa::new(shared.clone());
    for sequence in [1, 100, 120] {
        let _ = open(&mut core, sequence).unwrap();
    }
    shared.raise_floor(110);
    let refused = [0, 1, 100, 105, 120].map(|sequence| open(&mut core, sequence).unwrap_err());
    use InboundError::{BelowFloor, Replayed, TooOld};
    assert_eq!(refused, [TooOld, TooOld, Replayed, BelowFloor, Replayed]);
}

#[test]
fn hostile_32_a_carried_floor_is_obeyed_for_its_packet_alone_and_a_lower_one_lifts_nothing() {
    let shared = shared(false, 64);
    let mut core = InboundSa::new(shared.clone());
    assert_eq!(carried(&mut core, 20, 20, 0), Err(InboundError::BelowFloor));
    assert_eq!((carried(&mut core, 21, 20, 0), shared.floor()), (Ok(21), 0));
    assert_eq!(open(&mut core, 20), Ok(20), "the floor of another packet");
    shared.raise_floor(30);
    assert_eq!(carried(&mut core, 30, 5, 0), Err(InboundError::BelowFloor));
    assert_eq!(carried(&mut core, 31, 5, 0), Ok(31));
}

#[test]
fn hostile_32_a_floor_that_rises_under_a_prepared_packet_refuses_it() {
    for engine in engines() {
        let shared = InboundShared::new(parameters(Direction::Inbound), engine, 1).unwrap();
        let mut core = InboundSa::new(shared.clone());
        let mut packets = [1, 2, 3].map(|sequence| packet(&shared, sequence));
        let prepared = [0, 1, 2].map(|at| core.prepare(&packets[at], Carried::NOTHING).unwrap());
        shared.raise_floor(2);
        let window = format!("{:?}", core.window());
        let opened = core.open_prepared(&mut packets[0], &prepared[0]).map(|opened| opened.sequence());
        assert_eq!(opened, Err(InboundError::BelowFloor));
        let opened = core.authenticate_prepared(&mut packets[1], &prepared[1]).map(|opened| opened.sequence());
        assert_eq!(opened, Err(InboundError::BelowFloor));
        assert_eq!(format!("{:?}", core.window()), window);
        assert_eq!(core.open_prepared(&mut packets[2], &prepared[2]).map(|opened| opened.sequence()), Ok(3));
    }
}

#[test]
fn a_floor_only_rises() {
    let shared = shared(true, 64);
    for (raised, expected) in [(5, 5), (3, 5), (0, 5), (SUBSPACE, SUBSPACE), (5, SUBSPACE), (u64::MAX, u64::MAX)] {
        shared.raise_floor(raised);
        assert_eq!(shared.floor(), expected);
    }
    let mut core = InboundSa::new(shared);
    assert_eq!(open(&mut core, 7), Err(InboundError::BelowFloor), "nothing lies above the highest floor");
}

#[test]
fn floors_raised_by_many_threads_end_at_the_highest_and_bind_every_core() {
    let shared = shared(false, 1_024);
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let shared = &shared;
            scope.spawn(move || (0..2_000).rev().for_each(|at| shared.raise_floor(at * 4 + thread)));
        }
        let mut core = InboundSa::new(shared.clone());
        for sequence in 1..3_000 {
            let floor = shared.floor();
            let opened = open(&mut core, sequence);
            assert!(opened.is_err() || sequence > floor, "{sequence} was accepted with the floor at {floor}");
        }
    });
    assert_eq!(shared.floor(), 7_999);
    let mut cores = [InboundSa::new(shared.clone()), InboundSa::new(shared)];
    for core in &mut cores {
        assert_eq!((open(core, 7_999), open(core, 8_000)), (Err(InboundError::BelowFloor), Ok(8_000)));
    }
}

#[test]
fn hostile_33_a_carried_top_wakes_a_sleeper_and_moves_no_window() {
    let shared = shared(true, 64);
    let mut sleeper = InboundSa::new(shared.clone());
    assert_eq!(open(&mut sleeper, 5), Ok(5));
    let far = 3 * SUBSPACE + 1_000;
    assert_eq!(open(&mut sleeper, far), Err(InboundError::AuthenticationFailed), "nobody told it");
    assert_eq!(carried(&mut sleeper, far, 0, far - HALF - 1), Err(InboundError::AuthenticationFailed));
    let forged = &mut packet(&shared, far);
    *forged.last_mut().unwrap() ^= 1;
    assert!(sleeper.open_carried(forged, Carried { floor: 0, top: far - 1 }).is_err());
    assert_eq!((sleeper.window().top(), shared.progress()), (5, 0), "a hint moves nothing");
    assert_eq!(carried(&mut sleeper, far, far - 1, far - 1), Ok(far));
    assert_eq!(carried(&mut sleeper, far, far - 1, far), Err(InboundError::Replayed));
}

#[test]
fn hostile_33_a_carried_top_below_what_is_known_here_is_not_believed() {
    let shared = shared(true, 64);
    let mut core = InboundSa::new(shared);
    let base = 2 * SUBSPACE;
    assert_eq!(carried(&mut core, base, 0, base), Ok(base));
    assert_eq!(carried(&mut core, base + 1, 0, 7), Ok(base + 1));
}

#[test]
fn hostile_33_a_floor_tells_where_to_look_for_the_next_number() {
    let shared = shared(true, 64);
    let mut core = InboundSa::new(shared.clone());
    assert_eq!(open(&mut core, 5), Ok(5));
    // Another appliance has taken the SA this far, which the floor alone tells.
    let floor = 2 * SUBSPACE + 77;
    shared.raise_floor(floor);
    assert_eq!(open(&mut core, floor), Err(InboundError::BelowFloor));
    assert_eq!(open(&mut core, floor + 1), Ok(floor + 1));
    // Without extended numbers there is nothing to guess.
    let plain = self::shared(false, 64);
    plain.raise_floor(1_000);
    assert_eq!((plain.floor(), plain.progress()), (1_000, 0));
}

#[test]
fn authenticating_takes_the_number_and_leaves_the_lifesize() {
    for engine in engines() {
        let shared = InboundShared::new_granted(parameters(Direction::Inbound), engine, 1, 1_000).unwrap();
        let mut core = InboundSa::new(shared.clone());
        let mut copy = packet(&shared, 1);
        let opened = core.authenticate(&mut copy).unwrap();
        assert_eq!(copy[opened.inner.clone()], ipv4_packet(60));
        assert_eq!((opened.sequence(), opened.next_header, opened.soft_reached), (1, 4, false));
        assert_eq!(shared.lifesize().claimed(), (0, 0));
        assert_eq!(core.authenticate(&mut packet(&shared, 1)).unwrap_err(), InboundError::Replayed);
        assert_eq!(open(&mut core, 1), Err(InboundError::Replayed));
        shared.raise_floor(3);
        assert_eq!(core.authenticate(&mut packet(&shared, 3)).unwrap_err(), InboundError::BelowFloor);
        let mut forged = packet(&shared, 4);
        forged[20] ^= 1;
        assert_eq!(core.authenticate(&mut forged).unwrap_err(), InboundError::AuthenticationFailed);
        let mut dummy = sealed_raw(&shared, 4, [9; 8], &[0, 59]);
        assert_eq!(core.authenticate(&mut dummy).unwrap_err(), InboundError::Dummy);
        let counters = core.counters();
        assert_eq!((counters.authenticated, counters.packets, counters.bytes), (1, 1, 0), "the dummy is a packet");
    }
}

#[test]
fn what_is_not_granted_is_refused_and_its_number_is_taken() {
    let shared = InboundShared::new_granted(parameters(Direction::Inbound), ring(), 1, 1_000).unwrap();
    let mut core = InboundSa::new(shared.clone());
    assert_eq!(open(&mut core, 1), Err(InboundError::Ungranted));
    shared.lifesize().raise(120, 10);
    assert_eq!(open(&mut core, 1), Err(InboundError::Replayed));
    let opened = [2, 3, 4].map(|sequence| open(&mut core, sequence));
    assert_eq!(opened, [Ok(2), Ok(3), Err(InboundError::Ungranted)]);
    let counters = core.counters();
    assert_eq!((counters.packets, counters.bytes, counters.lifesize_drops), (2, 120, 2));
}

#[test]
fn a_packet_opened_elsewhere_is_paid_for_and_counted_here() {
    let shared = InboundShared::new_granted(parameters(Direction::Inbound), ring(), 1, 1_000).unwrap();
    let mut core = InboundSa::new(shared.clone());
    shared.lifesize().raise(100, 10);
    assert_eq!([60, 41, 40].map(|len| core.charge(len)), [Ok(false), Err(InboundError::Ungranted), Ok(false)]);
    let counters = core.counters();
    assert_eq!((counters.packets, counters.bytes, counters.lifesize_drops), (2, 100, 1));
}

#[test]
fn an_sa_is_sealed_once_and_for_good() {
    let shared = shared(false, 64);
    assert_eq!((shared.is_sealed(), shared.sealed_at()), (false, None));
    assert!(shared.seal(Instant::from_secs(7)));
    for later in [Instant::from_secs(9), Instant::from_secs(7), Instant::ZERO] {
        assert!(!shared.seal(later));
    }
    assert_eq!((shared.is_sealed(), shared.sealed_at()), (true, Some(Instant::from_secs(7))));
    for now in [Instant::ZERO, Instant::MAX] {
        let seal = Seal::default();
        assert!(seal.set(now) && !seal.set(Instant::ZERO), "every time is a time");
        assert!(seal.at().is_some());
    }
}

/// Of all numbers with these low bits the one nearest to `near`; of two the later.
fn nearest(near: u64, low: u32) -> u64 {
    let numbers = (0..256_u64).map(|high| high << 32 | u64::from(low));
    numbers.min_by_key(|number| (number.abs_diff(near), core::cmp::Reverse(*number))).unwrap()
}

/// A receiver as the design describes it, with sets and without a cipher.
#[derive(Default)]
struct Oracle {
    esn: bool,
    floor: u64,
    hint: u64,
    accepted: BTreeSet<u64>,
}

impl Oracle {
    fn accepts(&mut self, sequence: u64, carried: Carried) -> bool {
        let top = self.accepted.last().copied().unwrap_or(0);
        let near = top.max(self.hint).max(carried.top);
        let candidate = if self.esn { nearest(near, sequence as u32) } else { sequence };
        let is_new = sequence + 64 > top && !self.accepted.contains(&sequence);
        let accepts = candidate == sequence && is_new && sequence > self.floor.max(carried.floor);
        if accepts {
            self.accepted.insert(sequence);
            // Progress is told in steps.
            let is_told = sequence.saturating_sub(self.hint) >= crate::inbound::PROGRESS_STEP_PACKETS;
            self.hint = if self.esn && is_told { sequence } else { self.hint };
        }
        accepts
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Floors and tops of any height come with packets of any number, in any order; floors rise in between.
    #[test]
    fn a_receiver_with_floors_agrees_with_sets(
        esn: bool,
        events in prop::collection::vec((0_u8..8, 0_u64..200, 0_u64..200, 0_u64..200, 0_u64..4), 1..60),
    ) {
        let shared = shared(esn, 64);
        let mut core = InboundSa::new(shared.clone());
        let mut oracle = Oracle { esn, ..Oracle::default() };
        let mut highest = 0;
        for (kind, number, floor, top, far) in events {
            let far = if esn { far * (HALF - 50) } else { 0 };
            let at = |number: u64| (highest + number).saturating_sub(100);
            let (sequence, floor, top) = (at(number) + far, at(floor), at(top) + far / 2);
            if kind == 0 {
                shared.raise_floor(floor);
                oracle.floor = oracle.floor.max(floor);
                oracle.hint = if esn { oracle.hint.max(floor) } else { 0 };
                continue;
            }
            let carried = if kind < 5 { Carried { floor, top } } else { Carried::NOTHING };
            let mut packet = packet(&shared, sequence);
            let opened = match kind {
                5 => core.authenticate(&mut packet),
                _opens => core.open_carried(&mut packet, carried),
            };
            let accepts = sequence > 0 && oracle.accepts(sequence, carried);
            prop_assert_eq!(opened.is_ok(), accepts, "{} {:?}: {:?}", sequence, carried, opened);
            highest = if accepts { highest.max(sequence) } else { highest };
        }
    }
}
