//! Targets that are lost, or believed so.

use core::time::Duration;

use super::world::*;
use crate::member::Told;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_silent_target_is_lost_its_sas_sealed_and_rekeyed_one_by_one() {
    let mut world = World::running(1);
    let ids: Vec<_> = (0..10).map(|peer| world.birth(peer)).collect();
    world.run_for(SECOND / 2);
    world.stop(ONE);
    world.run_for(SECOND / 2);
    assert!(world.fabric_target(ONE).is_some_and(|it| it.is_member && !it.is_eligible), "a break may be short");
    world.run_for(SECOND);
    assert!(world.fabric_target(ONE).is_none());
    let owner = world.appliance(OWNER);
    assert_eq!(owner.sealed.iter().copied().collect::<Vec<_>>(), ids);
    assert!(owner.rekeys.len() < 4, "{} at once", owner.rekeys.len());
    let waits = *ids.iter().find(|id| !world.appliance(OWNER).rekeys.contains(id)).unwrap();
    let waits = ids.iter().rfind(|id| **id != waits).copied().unwrap();
    world.tell(OWNER, Told::SealMet(waits));
    let before = world.appliance(OWNER).rekeys.len();
    world.run_for(SECOND / 2);
    assert_eq!(world.appliance(OWNER).rekeys[before], waits, "whose peer waits is first");
    world.run_for(SECOND * 3);
    assert_eq!(world.appliance(OWNER).rekeys.len(), 10, "each once");
    let new = world.birth(3);
    world.run_for(SECOND / 2);
    assert!(!world.appliance(OWNER).sealed.contains(&new), "it was born after");
    assert!(world.is_eligible(TWO));
}

#[test]
fn nothing_of_a_lost_target_is_given_up_before_its_loss_is_recorded() {
    let mut world = World::running(2);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    world.is_facility_up = false;
    world.stop(ONE);
    world.run_for(SECOND * 5);
    let lost = world.fabric_target(ONE).expect("its entries are still its own");
    assert!(!lost.is_member, "but it gets no frames");
    assert!(world.appliance(OWNER).sealed.is_empty());
    world.is_facility_up = true;
    world.run_for(SECOND * 2);
    assert!(world.fabric_target(ONE).is_none());
    assert!(world.appliance(OWNER).sealed.contains(&id));
    let trail = &world.appliance(OWNER).trail;
    let seal = trail.iter().rposition(|it| *it == "seal").unwrap();
    assert!(trail[seal..].contains(&"fabric"), "sealed first, given up then");
}

#[test]
fn a_target_that_restarts_is_another_and_the_one_before_is_lost() {
    let mut world = World::running(3);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    let before = world.fabric_target(ONE).unwrap();
    world.start(ONE);
    world.link_all(ONE);
    world.run_for(SECOND / 2);
    let after = world.fabric_target(ONE).unwrap();
    assert!(after.incarnation > before.incarnation && after.is_eligible && after.is_member);
    assert!(world.appliance(OWNER).sealed.contains(&id), "what the start before accepted nobody knows");
    assert!(world.appliance(ONE).installed.contains_key(&id), "its peer is still served on old entries elsewhere");
    assert_eq!(after.serial.0, 0, "its freeings are numbered anew");
}

#[test]
fn a_false_suspicion_brings_it_back_empty_and_as_another() {
    let mut world = World::running(4);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    world.uses(ONE, id, 100, 50);
    let before = world.fabric_target(ONE).unwrap().incarnation;
    world.unlink(OWNER, ONE);
    world.tell(ONE, Told::Stopped(vec![entry(1, 5)]));
    world.uses(ONE, id, 100, 60);
    world.run_for(SECOND * 3);
    assert!(world.fabric_target(ONE).is_none());
    world.link(OWNER, ONE);
    world.run_for(SECOND);
    let after = world.fabric_target(ONE).unwrap();
    assert!(after.incarnation > before && after.is_eligible);
    assert_eq!(world.appliance(ONE).fabric.as_ref().unwrap().incarnation, after.incarnation);
    assert!(world.appliance(ONE).removed.contains(&id), "it came back empty");
    assert_eq!(world.appliance(ONE).installed.get(&id), Some(&1));
    assert_eq!(world.appliance(ONE).buried, [entry(1, 5)]);
    assert!(world.appliance(OWNER).forgotten.is_empty(), "what is lost frees nothing");
    assert!(world.appliance(OWNER).floors.is_empty());
    assert_eq!(world.member(ONE).held(dvipa()).collect::<Vec<_>>(), [(id.spi, 0)]);
}

#[test]
fn a_target_that_returns_before_its_loss_is_recorded_is_expelled_all_the_same() {
    let mut world = World::running(5);
    world.birth(1);
    world.run_for(SECOND / 2);
    let before = world.fabric_target(ONE).unwrap().incarnation;
    world.is_facility_up = false;
    world.unlink(OWNER, ONE);
    world.run_for(SECOND * 2);
    world.link(OWNER, ONE);
    world.run_for(SECOND * 2);
    assert!(world.fabric_target(ONE).is_some_and(|it| !it.is_member && it.incarnation == before));
    world.is_facility_up = true;
    world.run_for(SECOND * 2);
    assert!(world.fabric_target(ONE).is_some_and(|it| it.is_eligible && it.incarnation > before));
    let returned = world.member(ONE);
    assert!(returned.start() == before && returned.incarnation() > before, "its sessions are between the old starts");
}

#[test]
fn an_sa_that_is_being_born_when_a_target_is_lost_is_sealed_too() {
    let mut world = World::running(6);
    world.is_facility_up = false;
    world.stop(ONE);
    world.run_for(SECOND / 2);
    let id = world.birth(1);
    world.run_for(SECOND * 2);
    world.is_facility_up = true;
    world.run_for(SECOND * 2);
    assert!(world.appliance(OWNER).sealed.contains(&id));
}

/// How many losses are recorded.
fn losses(world: &mut World) -> usize {
    let read = vec![crate::facility::Read::Prefix("loss/".into())];
    let request = crate::facility::Request { id: 1, compare: vec![], change: vec![], read };
    world.store.execute(&request).unwrap().records.len()
}

#[test]
fn lost_starts_are_forgotten_when_no_sa_remembers_them() {
    let mut world = World::running(7);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    for _ in 0..3 {
        world.start(ONE);
        world.link_all(ONE);
        world.run_for(SECOND);
    }
    assert_eq!(losses(&mut world), 3);
    world.down(id);
    world.run_for(SECOND);
    assert_eq!(losses(&mut world), 0);
}

/// A core that has not heard of the suspension may send the lost target packets of SAs that are born meanwhile.
#[test]
fn a_loss_is_recorded_when_every_core_has_heard_that_no_frames_go_there() {
    let mut world = World::running(8);
    let before = world.birth(1);
    world.run_for(SECOND / 2);
    world.appliance_mut(OWNER).is_deaf = true;
    world.stop(ONE);
    world.run_for(SECOND * 3);
    assert!(world.fabric_target(ONE).is_some_and(|it| !it.is_member), "suspended, and not given up");
    assert!(world.appliance(OWNER).sealed.is_empty());
    assert_eq!(losses(&mut world), 0);
    let meanwhile = world.birth(2);
    world.run_for(SECOND / 2);
    assert!(world.appliance(OWNER).released.contains(&meanwhile));
    // Now the cores hear it, and what was born by now is sealed with the rest.
    let (suspended, _) = world.appliance(OWNER).awaited.iter().next_back().copied().unwrap();
    world.appliance_mut(OWNER).is_deaf = false;
    world.tell(OWNER, Told::Heard { ticket: suspended });
    world.run_for(SECOND / 2);
    assert_eq!(losses(&mut world), 1);
    assert_eq!(world.appliance(OWNER).sealed.iter().copied().collect::<Vec<_>>(), [before, meanwhile]);
    assert!(world.fabric_target(ONE).is_none());
    let trail = &world.appliance(OWNER).trail;
    let seal = trail.iter().position(|it| *it == "seal").unwrap();
    let wait = trail.iter().rposition(|it| *it == "await").unwrap();
    assert!(trail[..wait].ends_with(&["fabric"]), "the suspension first, and then the question who has heard it");
    assert!(wait < seal, "and nothing is sealed before the answer");
    let after = world.birth(3);
    world.run_for(SECOND / 2);
    assert!(!world.appliance(OWNER).sealed.contains(&after));
}
