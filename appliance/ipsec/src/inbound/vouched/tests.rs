use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::inbound::InboundShared;
use crate::sa::Direction;
use crate::testing::{ipv4_packet, parameters, ring, sealed_raw};

fn shared(esn: bool, window_packets: u32) -> Arc<InboundShared> {
    let mut parameters = parameters(Direction::Inbound);
    (parameters.esn, parameters.replay_window_packets) = (esn, window_packets);
    InboundShared::new(parameters, ring(), 2).unwrap()
}

fn take(core: &mut InboundSa, sequence: u64, floor: u64) -> Result<u64, InboundError> {
    core.take(Vouched::new(sequence, floor)).map(|taken| taken.sequence())
}

fn open(core: &mut InboundSa, sequence: u64) -> Result<u64, InboundError> {
    let plain = [&ipv4_packet(60)[..], &[1, 2, 2, 4]].concat();
    let mut packet = sealed_raw(&core.shared().clone(), sequence, [9; 8], &plain);
    core.open(&mut packet).map(|opened| opened.sequence())
}

#[test]
fn hostile_32_a_vouched_number_is_taken_once_on_its_core() {
    let shared = shared(true, 64);
    let mut core = InboundSa::new(Arc::clone(&shared));
    assert_eq!(take(&mut core, 100, 0), Ok(100));
    assert_eq!(take(&mut core, 100, 0), Err(InboundError::Replayed));
    assert_eq!(take(&mut core, 99, 0), Ok(99));
    assert_eq!(take(&mut core, 36, 0), Err(InboundError::TooOld));
    assert_eq!(take(&mut core, 0, 0), Err(InboundError::BelowFloor), "no packet may carry it");
    assert_eq!((core.window().top(), core.counters().replay_drops), (100, 3));
    assert_eq!(core.counters().packets, 0, "whoever delivers counts");
}

#[test]
fn hostile_32_what_was_opened_cannot_come_again_plain_nor_the_other_way_round() {
    let mut core = InboundSa::new(shared(false, 64));
    assert_eq!(open(&mut core, 5), Ok(5));
    assert_eq!(take(&mut core, 5, 0), Err(InboundError::Replayed));
    assert_eq!(take(&mut core, 6, 0), Ok(6));
    assert_eq!(open(&mut core, 6), Err(InboundError::Replayed));
}

#[test]
fn hostile_32_a_vouched_number_obeys_the_floor_that_came_with_it_and_the_one_that_is_known() {
    let shared = shared(true, 64);
    let mut core = InboundSa::new(Arc::clone(&shared));
    assert_eq!(take(&mut core, 10, 10), Err(InboundError::BelowFloor));
    assert_eq!(core.window().top(), 0, "the window has not moved");
    assert_eq!(take(&mut core, 10, 9), Ok(10));
    shared.raise_floor(20);
    assert_eq!(take(&mut core, 20, 0), Err(InboundError::BelowFloor));
    assert_eq!(take(&mut core, 21, 0), Ok(21));
}

#[test]
fn without_a_window_only_floors_refuse() {
    let mut core = InboundSa::new(shared(false, 0));
    assert_eq!([take(&mut core, 7, 0), take(&mut core, 7, 0)], [Ok(7), Ok(7)]);
    assert_eq!(take(&mut core, 7, 7), Err(InboundError::BelowFloor));
}

proptest! {
    /// Against a set: a number is taken if it is above both floors, not too far below the top, and was not taken before.
    #[test]
    fn a_window_of_vouched_numbers_agrees_with_a_set(
        start in prop::sample::select(vec![1_u64, (1 << 32) - 100, 1 << 40]),
        steps in prop::collection::vec((0_u64..300, 0_u64..300, 0_u64..200), 1..200),
    ) {
        let shared = shared(true, 128);
        let mut core = InboundSa::new(Arc::clone(&shared));
        let (mut taken, mut top, mut known) = (BTreeSet::new(), 0_u64, 0_u64);
        for (number, floor, raise) in steps {
            let (number, floor) = (start + number, start + floor - 100_u64.min(start));
            if raise > 195 {
                known = known.max(start + raise - 190);
                shared.raise_floor(known);
            }
            let is_free = number > floor.max(known) && number + 128 > top && !taken.contains(&number);
            prop_assert_eq!(take(&mut core, number, floor).is_ok(), is_free, "{} above {}", number, floor);
            if is_free {
                taken.insert(number);
                top = top.max(number);
            }
        }
    }
}
