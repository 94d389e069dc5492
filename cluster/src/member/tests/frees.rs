//! Freeing and verifying entries, and draining targets.

use core::time::Duration;

use super::world::*;
use crate::id::Serial;
use crate::member::{Standing, Told};
use crate::message::{Body, Message, Top, VERSION};

const SECOND: Duration = Duration::from_secs(1);

/// One SA, on which both targets have carried something.
fn carried(seed: u64) -> (World, crate::id::ChildId) {
    let mut world = World::running(seed);
    let id = world.birth(7);
    world.run_for(SECOND / 10);
    world.uses(ONE, id, 100, 40);
    world.uses(TWO, id, 100, 900);
    (world, id)
}

#[test]
fn floors_rise_then_entries_go_then_the_tombs() {
    let (mut world, id) = carried(1);
    let gone = [entry(7, 1), entry(7, 2)];
    world.tell(ONE, Told::Stopped(gone.to_vec()));
    world.run_for(SECOND / 2);
    assert!(world.appliance(OWNER).forgotten.is_empty(), "how far their SAs have come is not known yet");
    // The top as of the stop, which is higher than what was known before.
    world.uses(ONE, id, 100, 55);
    world.run_for(SECOND * 99 / 1_000);
    assert!(world.appliance(OWNER).forgotten.is_empty(), "frames that are under way have their time");
    world.run_for(SECOND / 5);
    let owner = world.appliance(OWNER);
    assert_eq!(owner.floors.get(&id), Some(&55));
    assert_eq!(owner.forgotten, gone);
    let first = |name: &str| owner.trail.iter().rposition(|it| *it == name).unwrap();
    assert!(first("floor") < first("forget") && first("forget") < first("fabric"), "{:?}", owner.trail);
    assert_eq!(world.fabric_target(ONE).unwrap().serial, Serial(1));
    assert_eq!(world.fabric_target(TWO).unwrap().serial, Serial(0));
    let target = world.appliance(ONE);
    assert_eq!(target.buried, gone);
    assert_eq!(target.fabric.as_ref().unwrap().dvipa(dvipa()).unwrap().oldest_serial, Serial(1));
    let last = |name: &str| target.trail.iter().rposition(|it| *it == name).unwrap();
    assert!(last("fabric") < last("bury"), "older serials are refused before the tombs go");
}

#[test]
fn a_freeing_counts_once_however_often_it_comes() {
    let (mut world, id) = carried(2);
    let freed = |batch, number| {
        let tops = vec![Top { spi: id.spi, number }];
        let body = Body::Freed { batch, entries: vec![entry(7, batch as u16)], tops };
        Message::Dvipa { dvipa: dvipa(), epoch: crate::id::Epoch(1), body }.encode(VERSION).unwrap().to_vec()
    };
    for bytes in [freed(1, 50), freed(1, 50), freed(2, 60), freed(1, 70)] {
        world.say(ONE, OWNER, bytes);
    }
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).forgotten.len(), 2);
    assert_eq!(world.appliance(OWNER).floors.get(&id), Some(&60), "a repetition raises nothing");
    assert_eq!(world.fabric_target(ONE).unwrap().serial, Serial(2));
    world.say(ONE, OWNER, freed(9, 80));
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).forgotten.len(), 2, "a gap is no freeing");
    assert_eq!(world.appliance(OWNER).floors.get(&id), Some(&60));
    world.say(ONE, OWNER, freed(3, 70));
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).floors.get(&id), Some(&70));
}

#[test]
fn freeings_survive_breaks() {
    let (mut world, id) = carried(3);
    world.tell(ONE, Told::Stopped((0..600).map(|port| entry(7, port)).collect()));
    world.uses(ONE, id, 100, 55);
    world.run_for(Duration::from_millis(104));
    world.unlink(OWNER, ONE);
    world.run_for(SECOND / 2);
    world.link(OWNER, ONE);
    world.run_for(SECOND);
    assert_eq!(world.appliance(OWNER).forgotten.len(), 600, "each once");
    assert_eq!(world.appliance(ONE).buried.len(), 600);
    assert_eq!(world.fabric_target(ONE).unwrap().serial, Serial(3));
    assert_eq!(world.member(ONE).dvipas()[0].tombs, 0);
}

#[test]
fn a_tomb_is_freed_once_though_it_is_told_twice() {
    let (mut world, id) = carried(4);
    world.tell(ONE, Told::Stopped(vec![entry(7, 1)]));
    world.tell(ONE, Told::Stopped(vec![entry(7, 1)]));
    world.uses(ONE, id, 100, 55);
    world.tell(ONE, Told::Stopped(vec![entry(7, 1)]));
    world.uses(ONE, id, 100, 56);
    world.run_for(SECOND);
    assert_eq!(world.appliance(OWNER).forgotten, [entry(7, 1)]);
}

#[test]
fn what_nobody_spoke_of_is_verified_by_its_target_alone() {
    let (mut world, id) = carried(5);
    let incarnation = world.fabric_target(ONE).unwrap().incarnation;
    for port in 0..3 {
        world.tell(OWNER, Told::Unverified { entry: entry(7, port), target: ONE, incarnation });
    }
    let other = crate::id::Incarnation(incarnation.0 - 1);
    world.tell(OWNER, Told::Unverified { entry: entry(7, 9), target: ONE, incarnation: other });
    world.run_for(SECOND / 2);
    assert_eq!(world.appliance(ONE).verified, [entry(7, 0), entry(7, 1), entry(7, 2)]);
    assert!(world.appliance(TWO).verified.is_empty());
    world.tell(ONE, Told::Alive(vec![entry(7, 0), entry(7, 2)]));
    world.tell(ONE, Told::Stopped(vec![entry(7, 1)]));
    world.uses(ONE, id, 100, 41);
    world.run_for(SECOND / 2);
    assert_eq!(world.appliance(OWNER).forgotten, [entry(7, 1)]);
}

#[test]
fn a_drained_target_leaves_without_a_seal_and_comes_back() {
    let (mut world, id) = carried(6);
    // On any member.
    world.tell(TWO, Told::Drain { target: ONE, on: true });
    let count = |count| Told::Connections { dvipa: dvipa(), target: ONE, count };
    world.run_for(SECOND / 10);
    assert!(!world.is_eligible(ONE) && world.fabric_target(ONE).unwrap().is_member);
    world.tell(OWNER, count(3));
    world.run_for(SECOND);
    assert_eq!(world.member(OWNER).targets(dvipa())[0].standing, Standing::Present);
    world.tell(ONE, Told::Stopped(vec![entry(7, 1)]));
    world.uses(ONE, id, 100, 500);
    world.run_for(SECOND);
    world.tell(OWNER, count(0));
    world.run_for(SECOND / 10);
    assert_eq!(world.member(OWNER).targets(dvipa())[0].standing, Standing::Left);
    assert!(world.fabric_target(ONE).is_none());
    world.stop(ONE);
    world.run_for(SECOND * 5);
    let owner = world.appliance(OWNER);
    assert!(owner.sealed.is_empty() && owner.rekeys.is_empty(), "it left in peace");
    world.start(ONE);
    world.link_all(ONE);
    world.run_for(SECOND);
    assert!(!world.is_eligible(ONE), "it drains as long as the operator wants");
    world.tell(ONE, Told::Drain { target: ONE, on: false });
    world.run_for(SECOND);
    assert!(world.is_eligible(ONE));
    assert!(world.appliance(OWNER).sealed.is_empty());
}

#[test]
fn an_undrained_target_returns_as_the_start_that_it_was() {
    let (mut world, _) = carried(7);
    let before = world.fabric_target(ONE).unwrap();
    world.tell(OWNER, Told::Drain { target: ONE, on: true });
    world.run_for(SECOND / 10);
    world.tell(OWNER, Told::Connections { dvipa: dvipa(), target: ONE, count: 0 });
    // It is wanted again while it is leaving.
    world.tell(OWNER, Told::Drain { target: ONE, on: false });
    world.run_for(SECOND);
    assert_eq!(world.fabric_target(ONE), Some(before));
    let drained = crate::facility::Request {
        id: 1,
        compare: vec![],
        change: vec![],
        read: vec![crate::facility::Read::Prefix("drained/".into())],
    };
    assert!(world.store.execute(&drained).unwrap().records.is_empty(), "it counts as one that has connections");
}

#[test]
fn a_count_from_before_all_cores_knew_lets_nobody_go() {
    let (mut world, _) = carried(8);
    world.tell(OWNER, Told::Connections { dvipa: dvipa(), target: ONE, count: 0 });
    world.tell(OWNER, Told::Drain { target: ONE, on: true });
    world.run_for(Duration::from_micros(50));
    world.tell(OWNER, Told::Connections { dvipa: dvipa(), target: ONE, count: 0 });
    world.run_for(SECOND);
    assert_eq!(world.member(OWNER).targets(dvipa())[0].standing, Standing::Present);
    world.tell(OWNER, Told::Connections { dvipa: dvipa(), target: ONE, count: 0 });
    world.run_for(SECOND);
    assert_eq!(world.member(OWNER).targets(dvipa())[0].standing, Standing::Left);
}

#[test]
fn freeings_that_come_before_their_target_is_recorded_are_said_again() {
    let (mut world, id) = carried(9);
    world.is_facility_up = false;
    world.start(ONE);
    world.link_all(ONE);
    world.run_for(SECOND / 2);
    for port in 0..3 {
        world.tell(ONE, Told::Stopped(vec![entry(7, port)]));
        world.uses(ONE, id, 100, 5);
        world.run_for(SECOND / 5);
    }
    assert!(world.appliance(OWNER).forgotten.is_empty());
    world.is_facility_up = true;
    world.run_for(SECOND);
    world.tell(ONE, Told::Stopped(vec![entry(7, 3)]));
    world.uses(ONE, id, 100, 6);
    world.run_for(SECOND * 3);
    assert_eq!(world.appliance(OWNER).forgotten.len(), 4);
    assert!(world.is_eligible(ONE) && world.refusals.is_empty());
}
