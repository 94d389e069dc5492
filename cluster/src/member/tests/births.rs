//! Shadow SAs: from their birth to every target, and how targets are brought level.

use core::time::Duration;

use super::world::*;
use crate::member::Told;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_owner_owns_and_targets_are_admitted_and_eligible() {
    let world = World::running(1);
    assert_eq!(world.appliance(OWNER).owned.get(&dvipa()), Some(&1));
    assert!(world.is_eligible(ONE) && world.is_eligible(TWO));
    assert!(world.fabric_target(OWNER).is_none(), "the owner serves nothing here");
    let fabric = world.appliance(ONE).fabric.clone().unwrap();
    assert_eq!(fabric.dvipa(dvipa()).map(|dvipa| (dvipa.owner, dvipa.epoch.0)), Some((OWNER, 1)));
    assert!(world.refusals.is_empty());
}

#[test]
fn an_sa_is_released_once_everyone_has_it() {
    let mut world = World::running(2);
    let id = world.birth(7);
    assert!(!world.appliance(OWNER).released.contains(&id));
    world.run_for(SECOND / 10);
    for member in [OWNER, ONE, TWO] {
        assert_eq!(world.appliance(member).installed.get(&id), Some(&1), "member {member}");
    }
    assert!(world.appliance(OWNER).released.contains(&id));
    assert!(world.is_eligible(ONE) && world.is_eligible(TWO));
    let view = &world.member(OWNER).shadows(dvipa(), None, 10)[0];
    assert!(view.is_released && view.held_by == [ONE, TWO]);
    world.down(id);
    world.run_for(SECOND / 10);
    for member in [OWNER, ONE, TWO] {
        assert!(!world.appliance(member).installed.contains_key(&id), "member {member}");
    }
}

#[test]
fn a_target_that_does_not_keep_up_is_waited_for_and_then_not_chosen() {
    let mut world = World::running(3);
    world.appliance_mut(TWO).is_stuck = true;
    let id = world.birth(7);
    world.run_for(SECOND * 4 / 10);
    assert!(!world.appliance(OWNER).released.contains(&id), "patience is half a second");
    world.run_for(SECOND * 2 / 10);
    assert!(world.appliance(OWNER).released.contains(&id));
    assert!(world.is_eligible(ONE) && !world.is_eligible(TWO));
    let trail = &world.appliance(OWNER).trail;
    let release = trail.iter().rposition(|it| *it == "release").unwrap();
    assert_eq!(trail[release - 1], "fabric", "whoever lacks it is left out before it is used");
    // The next SA waits for nobody who lags anyway.
    let next = world.birth(8);
    world.run_for(SECOND / 10);
    assert!(world.appliance(OWNER).released.contains(&next));
    world.appliance_mut(TWO).is_stuck = false;
    for id in [id, next] {
        world.tell(TWO, Told::Installed(id));
    }
    world.run_for(SECOND / 10);
    assert!(world.is_eligible(TWO));
}

#[test]
fn a_target_without_room_gets_no_connections_until_it_has() {
    let mut world = World::running(4);
    world.appliance_mut(ONE).is_stuck = true;
    let id = world.birth(7);
    world.run_for(SECOND / 10);
    world.tell(ONE, Told::InstallFailed(id));
    world.run_for(SECOND / 10);
    assert!(world.appliance(OWNER).released.contains(&id));
    assert!(!world.is_eligible(ONE));
    world.down(id);
    world.run_for(SECOND / 10);
    assert!(world.is_eligible(ONE));
}

#[test]
fn a_late_joiner_gets_all_that_is_there_and_then_what_changes() {
    let mut world = World::new(5);
    for member in [OWNER, ONE] {
        world.start(member);
    }
    world.link(OWNER, ONE);
    world.run_for(SECOND * 2);
    let ids: Vec<_> = (0..300).map(|peer| world.birth(peer)).collect();
    world.run_for(SECOND * 2);
    world.down(ids[17]);
    world.start(TWO);
    world.link_all(TWO);
    world.run_for(Duration::from_millis(12));
    let during = world.birth(500);
    world.run_for(SECOND);
    let expected: Vec<_> = ids.iter().filter(|id| **id != ids[17]).chain([&during]).copied().collect();
    let held: Vec<_> = world.appliance(TWO).installed.keys().copied().collect();
    assert_eq!(held, expected);
    assert!(world.appliance(TWO).installed.values().all(|times| *times == 1), "none was installed twice");
    assert!(world.is_eligible(TWO));
}

#[test]
fn what_a_break_swallowed_is_sent_again_and_what_is_held_stays() {
    let mut world = World::running(6);
    let before = world.birth(1);
    world.run_for(SECOND / 10);
    world.unlink(OWNER, ONE);
    let missed = [world.birth(2), world.birth(3)];
    world.down(before);
    world.run_for(SECOND / 2);
    assert!(!world.is_eligible(ONE));
    world.link(OWNER, ONE);
    world.run_for(SECOND / 2);
    let appliance = world.appliance(ONE);
    assert_eq!(appliance.installed.keys().copied().collect::<Vec<_>>(), missed);
    assert!(appliance.installed.values().all(|times| *times == 1));
    assert!(world.is_eligible(ONE));
    assert!(world.appliance(OWNER).sealed.is_empty(), "a break alone loses nobody");
}

#[test]
fn more_changes_than_are_remembered_make_a_snapshot_that_resets_nothing() {
    let mut world = World::running(7);
    let stays = world.birth(1);
    world.run_for(SECOND / 10);
    world.uses(ONE, stays, 1_000, 77);
    world.unlink(OWNER, ONE);
    let goes = world.birth(2);
    world.run_for(SECOND / 20);
    let many: Vec<_> = (0..2_100).map(|peer| world.birth(100 + peer)).collect();
    world.run_for(SECOND / 2);
    many.into_iter().chain([goes]).for_each(|id| world.down(id));
    let last = world.birth(4);
    world.run_for(SECOND / 10);
    let (changes, ..) = world.member(OWNER).targets(dvipa())[0].changes;
    assert!(changes > 4_200, "{changes}");
    world.link(OWNER, ONE);
    world.run_for(SECOND);
    let appliance = world.appliance(ONE);
    assert_eq!(appliance.installed.keys().copied().collect::<Vec<_>>(), [stays, last]);
    assert_eq!(appliance.installed[&stays], 1, "it was not installed again");
    assert!(world.member(ONE).held(dvipa()).any(|held| held == (stays.spi, 77)), "nor was its top forgotten");
    assert!(world.is_eligible(ONE));
}

#[test]
fn preference_and_moves_reach_everyone() {
    let mut world = World::running(8);
    world.start(TWO);
    let id = world.birth_in_reserve(7);
    world.run_for(SECOND);
    world.tell(ONE, Told::FirstPacket(id));
    let remote = "192.0.2.99:4500".parse().unwrap();
    let peer = ipsec::sa::PeerId(7);
    world.tell(OWNER, Told::PeerMoved { peer, dvipa: dvipa(), remote, children: vec![id.spi] });
    world.run_for(SECOND / 10);
    for member in [OWNER, ONE] {
        assert_eq!(world.appliance(member).preferred, [id], "member {member}");
        assert_eq!(world.appliance(member).moved, [id.spi], "member {member}");
    }
    world.link_all(TWO);
    world.run_for(SECOND);
    let late = world.appliance(TWO);
    assert_eq!(late.installed_at.get(&id), Some(&(remote.ip(), crate::shadow::Use::First)));
}

#[test]
fn without_the_facility_a_new_sa_waits_and_is_refused_at_last_while_others_live() {
    let mut world = World::running(9);
    let old = world.birth(1);
    world.run_for(SECOND / 10);
    world.is_facility_up = false;
    let waits = world.birth(2);
    world.run_for(SECOND * 20);
    assert!(world.appliance(OWNER).installed.contains_key(&old));
    assert!(world.is_eligible(ONE) && world.is_eligible(TWO));
    assert!(!world.appliance(OWNER).installed.contains_key(&waits));
    assert!(world.appliance(OWNER).refused.is_empty());
    world.is_facility_up = true;
    world.run_for(SECOND * 2);
    assert!(world.appliance(OWNER).released.contains(&waits), "it waited, and came");
    world.is_facility_up = false;
    let never = world.birth(3);
    world.run_for(SECOND * 170);
    assert!(world.appliance(OWNER).refused.is_empty(), "its peer may still ask for it");
    world.run_for(SECOND * 15);
    assert!(world.appliance(OWNER).refused.contains(&never));
    assert!(!world.appliance(OWNER).installed.contains_key(&never));
    assert_eq!(world.appliance(OWNER).owned.len(), 1);
}
