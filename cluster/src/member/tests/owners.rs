//! Owners that restart, and epochs.

use core::time::Duration;

use super::world::*;
use crate::id::Epoch;
use crate::member::{Refused, Told};
use crate::message::{Body, Message, Top, VERSION};

const SECOND: Duration = Duration::from_secs(1);

fn said(epoch: u64, body: Body) -> Vec<u8> {
    Message::Dvipa { dvipa: dvipa(), epoch: Epoch(epoch), body }.encode(VERSION).unwrap().to_vec()
}

#[test]
fn an_owner_that_restarts_begins_an_epoch_and_voids_all_that_was() {
    let mut world = World::running(1);
    let old = world.birth(1);
    world.run_for(SECOND / 2);
    world.tell(ONE, Told::Stopped(vec![entry(1, 1)]));
    world.start(OWNER);
    world.link_all(OWNER);
    world.run_for(SECOND / 2);
    assert_eq!(world.appliance(OWNER).owned.get(&dvipa()), Some(&2));
    for member in [ONE, TWO] {
        let appliance = world.appliance(member);
        assert!(!appliance.installed.contains_key(&old));
        assert_eq!(appliance.fabric.as_ref().unwrap().dvipa(dvipa()).unwrap().epoch, Epoch(2));
        assert!(world.is_eligible(member), "member {member}");
    }
    assert_eq!(world.appliance(ONE).buried, [entry(1, 1)]);
    let records = crate::facility::Request {
        id: 1,
        compare: vec![],
        change: vec![],
        read: vec![crate::facility::Read::Prefix("sa/".into())],
    };
    assert!(world.store.execute(&records).unwrap().records.is_empty());
    let new = world.birth(1);
    world.run_for(SECOND / 2);
    assert!(world.appliance(OWNER).released.contains(&new));
}

#[test]
fn a_new_epoch_settles_when_all_targets_of_the_last_have_answered_or_their_time_is_over() {
    let mut world = World::running(2);
    world.birth(1);
    world.run_for(SECOND / 2);
    world.stop(TWO);
    world.start(OWNER);
    world.link(OWNER, ONE);
    world.run_for(SECOND / 4);
    let settling = |world: &World| {
        world.appliance(OWNER).fabric.as_ref().unwrap().dvipa(dvipa()).is_some_and(|dvipa| dvipa.is_settling)
    };
    assert!(settling(&world), "member 3 has not answered");
    assert_eq!(world.member(OWNER).dvipas()[0].awaited.len(), 1);
    world.run_for(SECOND);
    assert!(!settling(&world));
    assert!(world.appliance(OWNER).sealed.is_empty(), "nothing of before is used");
}

/// A core that still takes frames of the epoch before could accept more than was reported.
#[test]
fn a_claim_is_acknowledged_with_final_tops_when_every_core_has_heard_of_the_epoch() {
    let mut world = World::running(9);
    let old = world.birth(1);
    world.run_for(SECOND / 2);
    world.uses(ONE, old, 100, 7);
    world.appliance_mut(ONE).is_deaf = true;
    world.start(OWNER);
    world.link_all(OWNER);
    world.run_for(SECOND / 2);
    let one = world.appliance(ONE);
    assert_eq!(one.fabric.as_ref().unwrap().dvipa(dvipa()).unwrap().epoch, Epoch(2), "the cores are told at once");
    assert!(one.installed.contains_key(&old), "and what they have stays until they all know");
    assert!(world.is_eligible(TWO) && world.fabric_target(ONE).is_none());
    let &(ticket, tops_of) = one.awaited.last().unwrap();
    assert_eq!(tops_of, Some(dvipa()));
    // What was taken since is told before the answer.
    world.uses(ONE, old, 100, 9);
    world.appliance_mut(ONE).is_deaf = false;
    world.tell(ONE, Told::Heard { ticket });
    assert!(!world.appliance(ONE).installed.contains_key(&old));
    let held = world.said_by(ONE, OWNER).into_iter().find_map(|message| match message {
        Message::Dvipa { body: Body::Held(tops), epoch, .. } => Some((epoch, tops)),
        _other => None,
    });
    assert_eq!(held, Some((Epoch(2), vec![Top { spi: old.spi, number: 9 }])));
    world.run_for(SECOND / 2);
    assert!(world.is_eligible(ONE));
}

/// Its loss is being recorded when it answers after all: it is not let in as the same start.
#[test]
fn a_start_that_answers_a_claim_too_late_comes_back_as_another() {
    let mut world = World::running(10);
    world.birth(1);
    world.run_for(SECOND / 2);
    let before = world.fabric_target(ONE).unwrap().incarnation;
    world.start(OWNER);
    world.link(OWNER, TWO);
    world.run_for(SECOND / 2);
    world.is_facility_up = false;
    world.run_for(SECOND);
    // What it answers now is asked of the facility before the loss is asked again.
    world.is_facility_up = true;
    world.link(OWNER, ONE);
    for _ in 0..200 {
        world.run_for(SECOND / 100);
        assert!(world.fabric_target(ONE).is_none_or(|it| it.incarnation > before), "that start gets no frames");
    }
    assert!(world.fabric_target(ONE).is_some_and(|it| it.is_eligible && it.incarnation > before));
}

/// Until its cores have dropped what it had as a target, an owner serves nothing.
#[test]
fn an_owner_settles_until_its_own_cores_have_heard_of_the_epoch() {
    let mut world = World::new(11);
    world.start(OWNER);
    world.appliance_mut(OWNER).is_deaf = true;
    world.run_for(SECOND / 5);
    let is_settling = |world: &World| {
        world.appliance(OWNER).fabric.as_ref().unwrap().dvipa(dvipa()).is_none_or(|dvipa| dvipa.is_settling)
    };
    assert!(world.appliance(OWNER).owned.contains_key(&dvipa()) && is_settling(&world));
    let &(ticket, _) = world.appliance(OWNER).awaited.last().unwrap();
    world.tell(OWNER, Told::Heard { ticket });
    assert!(!is_settling(&world));
}

#[test]
fn a_stale_epoch_is_refused_and_counted_and_disturbs_nothing() {
    let mut world = World::running(3);
    let old = world.birth(1);
    world.run_for(SECOND / 2);
    world.start(OWNER);
    world.link_all(OWNER);
    world.run_for(SECOND / 2);
    world.refusals.clear();
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    let top = Top { spi: id.spi, number: 99 };
    world.say(ONE, OWNER, said(1, Body::Freed { batch: 1, entries: vec![entry(1, 1)], tops: vec![top] }));
    world.say(OWNER, ONE, said(1, Body::SnapshotBegin { number: 9 }));
    world.say(OWNER, ONE, said(1, Body::Claimed));
    world.say(OWNER, ONE, said(3, Body::SnapshotBegin { number: 9 }));
    world.run_for(SECOND / 2);
    let (found, known) = (Epoch(1), Epoch(2));
    let stale = Refused::StaleEpoch { found, known };
    let future = Refused::FutureEpoch { found: Epoch(3), known };
    let mut refusals = world.refusals.clone();
    refusals.sort_by_key(|(member, _)| *member);
    assert_eq!(refusals, [(OWNER, stale.clone()), (ONE, stale.clone()), (ONE, stale), (ONE, future)]);
    assert!(world.appliance(OWNER).floors.is_empty());
    assert_eq!(world.member(ONE).dvipas()[0].stale_messages, 3);
    assert!(world.is_linked(OWNER, ONE) && world.is_eligible(ONE));
    assert!(!world.appliance(ONE).installed.contains_key(&old));
}

#[test]
fn only_members_who_may_own_are_followed() {
    let mut world = World::running(4);
    world.say(TWO, ONE, said(9, Body::Claimed));
    world.say(TWO, ONE, said(1, Body::SnapshotBegin { number: 9 }));
    world.run_for(SECOND / 5);
    assert_eq!(world.refusals, [(ONE, Refused::MayNotOwn(TWO)), (ONE, Refused::NotOwner(TWO))]);
    assert_eq!(world.member(ONE).dvipas()[0].owner, Some(OWNER));
}

/// Somebody else's hand makes TWO the owner.
fn fence_out(world: &mut World) {
    let key = crate::facility::name::dvipa(dvipa());
    let record = crate::facility::record::DvipaRecord {
        owner: TWO,
        incarnation: crate::id::Incarnation(1_000),
        epoch: Epoch(7),
    };
    let change = vec![crate::facility::Change::Put(key, record.encode())];
    let request = crate::facility::Request { id: 1, compare: vec![], change, read: vec![] };
    world.store.execute(&request).unwrap();
}

#[test]
fn an_owner_that_was_fenced_out_says_so_and_serves_nothing_more() {
    let mut world = World::running(5);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    fence_out(&mut world);
    let late = world.birth(2);
    world.run_for(SECOND);
    let owner = world.appliance(OWNER);
    assert!(owner.refused.contains(&late) && !owner.installed.contains_key(&id));
    assert_eq!(owner.owned.get(&dvipa()), Some(&8), "the only one who may own it claims it anew");
    assert!(world.is_eligible(ONE));
}

#[test]
fn an_owner_that_wants_nothing_of_the_facility_still_learns_that_it_is_fenced_out_or_silent() {
    let mut world = World::running(15);
    let id = world.birth(1);
    world.run_for(SECOND);
    fence_out(&mut world);
    world.run_for(SECOND * 7);
    let owner = world.appliance(OWNER);
    assert_eq!((owner.owned.get(&dvipa()), owner.installed.contains_key(&id)), (Some(&8), false));
    assert!(world.is_eligible(ONE));
    world.is_facility_up = false;
    world.run_for(SECOND * 7);
    for member in [OWNER, ONE, TWO] {
        assert!(world.member(member).facility().0.is_some(), "member {member} believes that the facility answers");
    }
    world.is_facility_up = true;
    world.run_for(SECOND * 7);
    for member in [OWNER, ONE, TWO] {
        assert!(world.member(member).facility().0.is_none(), "member {member} believes that the facility is silent");
    }
    assert_eq!(world.appliance(OWNER).owned.get(&dvipa()), Some(&8));
}

#[test]
fn an_owner_that_is_a_target_serves_itself_by_the_same_code() {
    let mut settings = dvipa_settings();
    settings.targets.push(OWNER);
    let mut world = World::of(6, settings, 3);
    world.start_all();
    let id = world.birth(1);
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).installed.get(&id), Some(&1), "once, though in two parts");
    assert!(world.appliance(OWNER).released.contains(&id));
    assert!(world.is_eligible(OWNER));
    world.tell(OWNER, Told::Stopped(vec![entry(1, 1)]));
    world.uses(OWNER, id, 100, 44);
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).buried, [entry(1, 1)]);
    assert_eq!(world.appliance(OWNER).floors.get(&id), Some(&44));
    world.down(id);
    world.run_for(SECOND / 5);
    assert_eq!(world.appliance(OWNER).removed, [id]);
}

#[test]
fn a_member_alone_is_a_cluster() {
    let mut settings = dvipa_settings();
    settings.targets = vec![OWNER];
    let mut world = World::of(7, settings, 1);
    world.start_all();
    let id = world.birth(1);
    world.run_for(SECOND / 5);
    assert!(world.appliance(OWNER).released.contains(&id) && world.is_eligible(OWNER));
}

#[test]
fn targets_stop_sending_when_the_owner_is_silent_for_long() {
    let mut world = World::running(8);
    world.unlink(OWNER, ONE);
    world.run_for(SECOND * 4);
    assert!(!world.appliance(ONE).muted);
    world.run_for(SECOND * 2);
    assert!(world.appliance(ONE).muted && !world.appliance(TWO).muted && !world.appliance(OWNER).muted);
    world.link(OWNER, ONE);
    world.run_for(SECOND);
    assert!(!world.appliance(ONE).muted);
}
