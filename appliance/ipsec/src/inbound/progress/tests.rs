use super::*;
use crate::inbound::{InboundError, InboundSa, InboundShared};
use crate::sa::Direction;
use crate::testing::{ipv4_packet, parameters, ring, sealed_raw};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const HALF: u64 = 1 << 31;
const WINDOW_PACKETS: u64 = 64;

fn shared() -> Arc<InboundShared> {
    let mut parameters = parameters(Direction::Inbound);
    parameters.esn = true;
    InboundShared::new(parameters, ring(), 2).unwrap()
}

fn packet(shared: &InboundShared, sequence: u64) -> Vec<u8> {
    sealed_raw(shared, sequence, [9; 8], &[&ipv4_packet(60)[..], &[1, 2, 2, 4]].concat())
}

fn open(core: &mut InboundSa, sequence: u64) -> Result<u64, InboundError> {
    let mut packet = packet(&core.shared().clone(), sequence);
    core.open(&mut packet).map(|opened| opened.sequence())
}

#[test]
fn hostile_33_a_core_that_slept_for_more_than_two_to_the_31_numbers_goes_on_where_the_others_are() {
    let shared = shared();
    let (mut awake, mut sleeper) = (InboundSa::new(shared.clone()), InboundSa::new(shared.clone()));
    assert_eq!(open(&mut sleeper, 5), Ok(5));
    let mut sequence = 5;
    for _ in 0..9 {
        sequence += HALF - 1;
        assert_eq!(open(&mut awake, sequence), Ok(sequence));
    }
    assert_eq!(sleeper.window().top(), 5, "what others see moves no window");
    assert_eq!(open(&mut sleeper, sequence + 1), Ok(sequence + 1));
    assert_eq!(open(&mut sleeper, sequence + 1), Err(InboundError::Replayed));
    // Without the others it could not have known.
    let mut alone = InboundSa::new(self::shared());
    assert_eq!(open(&mut alone, sequence + 1), Err(InboundError::AuthenticationFailed));
}

#[test]
fn hostile_33_only_authentic_packets_make_progress() {
    let shared = shared();
    let mut core = InboundSa::new(shared.clone());
    let genuine = packet(&shared, 1 << 30);
    for number in [1_u32 << 21, 1 << 30, u32::MAX >> 1] {
        let mut forged = genuine.clone();
        forged[4..8].copy_from_slice(&number.to_be_bytes());
        *forged.last_mut().unwrap() ^= 1;
        assert!(core.open(&mut forged).is_err());
    }
    // Authentic, but without a number of its own: whoever has seen it could send it again.
    let mut malformed = sealed_raw(&shared, 1 << 29, [9; 8], &[1, 2, 9, 4]);
    assert_eq!(core.open(&mut malformed).unwrap_err(), InboundError::BadPadding);
    assert_eq!(shared.progress(), 0);
    let _ = core.open(&mut genuine.clone()).unwrap();
    assert_eq!(shared.progress(), 1 << 30);
    assert!(core.open(&mut genuine.clone()).is_err());
    core.reset_window();
    assert_eq!(shared.progress(), 0);
}

#[test]
fn progress_is_told_a_step_at_a_time_and_never_goes_back() {
    let shared = shared();
    let mut cores = [InboundSa::new(shared.clone()), InboundSa::new(shared.clone())];
    let told = [(STEP_PACKETS - 1, 0), (STEP_PACKETS, STEP_PACKETS), (2 * STEP_PACKETS - 1, STEP_PACKETS)];
    for (sequence, progress) in told {
        let _ = open(&mut cores[0], sequence).unwrap();
        assert_eq!(shared.progress(), progress);
    }
    let _ = open(&mut cores[0], 1 << 30).unwrap();
    let _ = open(&mut cores[1], 5 * STEP_PACKETS).unwrap();
    assert_eq!(shared.progress(), 1 << 30);
}

#[test]
fn without_extended_numbers_no_progress_is_kept() {
    let shared = InboundShared::new(parameters(Direction::Inbound), ring(), 1).unwrap();
    let mut core = InboundSa::new(shared.clone());
    let _ = core.open(&mut packet(&shared, 1 << 30)).unwrap();
    assert_eq!(shared.progress(), 0);
}

/// Cores as the RFCs describe them, with sets for windows and a search for a guess.
#[derive(Default)]
struct Oracle {
    progress: u64,
    accepted: [BTreeSet<u64>; 2],
}

impl Oracle {
    fn accepts(&mut self, core: usize, sequence: u64) -> bool {
        let accepted = &self.accepted[core];
        let top = accepted.last().copied().unwrap_or(0);
        let is_new = sequence > 0 && sequence + WINDOW_PACKETS > top && !accepted.contains(&sequence);
        if !is_new || nearest(top.max(self.progress), sequence as u32) != sequence {
            return false;
        }
        self.accepted[core].insert(sequence);
        if sequence >= self.progress + STEP_PACKETS {
            self.progress = sequence;
        }
        true
    }
}

/// Of all numbers with these low bits the one nearest to `near`; of two the later.
fn nearest(near: u64, low: u32) -> u64 {
    let numbers = (0..16_u64).map(|high| high << 32 | u64::from(low));
    numbers.min_by_key(|number| (number.abs_diff(near), core::cmp::Reverse(*number))).unwrap()
}

fn steps() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1_u64..100, 2 => STEP_PACKETS - 2..STEP_PACKETS + 2, 2 => HALF / 2..HALF, 1 => HALF - 2..HALF + 2]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The numbers grow by any steps up to the edge of what can be guessed. One core sleeps most of the time; now and then
    /// something comes late, twice, or far too late.
    #[test]
    fn two_cores_of_which_one_sleeps_agree_with_the_oracle(
        arrivals in prop::collection::vec((steps(), prop::bool::weighted(0.15), 0_u64..80), 1..40),
    ) {
        let shared = shared();
        let mut cores = [InboundSa::new(shared.clone()), InboundSa::new(shared.clone())];
        let mut oracle = Oracle::default();
        let mut sequence = 0_u64;
        for (step, wakes_sleeper, back) in arrivals {
            sequence += step;
            for number in [sequence, sequence.saturating_sub(back), sequence.saturating_sub(HALF)] {
                let core = usize::from(wakes_sleeper);
                let opened = open(&mut cores[core], number);
                prop_assert_eq!(opened.is_ok(), oracle.accepts(core, number), "{} on core {}: {:?}", number, core, opened);
                prop_assert!(opened.is_err() || opened == Ok(number));
            }
            prop_assert_eq!(shared.progress(), oracle.progress);
        }
    }

    /// As long as the SA never jumps too far, no core ever loses a new packet, however long it has slept.
    #[test]
    fn a_sleeper_loses_nothing(
        arrivals in prop::collection::vec((1..HALF - STEP_PACKETS, prop::bool::weighted(0.15)), 1..40),
    ) {
        let shared = shared();
        let mut cores = [InboundSa::new(shared.clone()), InboundSa::new(shared)];
        let mut sequence = 0_u64;
        for (step, wakes_sleeper) in arrivals {
            sequence += step;
            prop_assert_eq!(open(&mut cores[usize::from(wakes_sleeper)], sequence), Ok(sequence));
        }
    }
}
