//! Random bytes, random breaks, and the same again.

use core::time::Duration;

use ipsec::sa::PeerId;

use super::world::*;
use crate::id::{Epoch, MemberId};
use crate::member::Told;
use crate::message::{Body, Message, VERSION};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn random_bytes_end_a_session_and_harm_nothing() {
    let mut world = World::running(1);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    for _ in 0..2_000 {
        let len = world.random(200);
        let bytes = (0..len).map(|_| world.random(256) as u8).collect();
        world.link(OWNER, ONE);
        world.say(ONE, OWNER, bytes);
        world.run_for(Duration::from_millis(10));
    }
    world.link(OWNER, ONE);
    world.run_for(SECOND * 2);
    assert!(world.appliance(OWNER).installed.contains_key(&id));
    assert!(world.is_eligible(ONE) && world.is_eligible(TWO));
}

/// Well-formed messages that make no sense, from either side.
#[test]
fn messages_out_of_place_harm_nothing() {
    let mut world = World::running(2);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    for round in 0..400 {
        let number = u64::from(world.random(40));
        let spi = if world.random(2) == 0 { id.spi } else { child(0x9000 + round).spi };
        let bodies = [
            Body::ClaimAcknowledged { incarnation: crate::id::Incarnation(number), position: number },
            Body::ShadowsAcknowledged { number, lacking: 0 },
            Body::SnapshotEnd { number },
            Body::SnapshotBegin { number },
            Body::Deltas { first: number, deltas: vec![] },
            Body::Freed { batch: number, entries: vec![], tops: vec![] },
            Body::FreedAcknowledged { batch: number, serial: crate::id::Serial(number) },
            Body::FirstPacket(spi),
            Body::NumbersWanted(vec![crate::message::Wanted { spi, next: 1 }]),
            Body::DrainWanted { target: MemberId(77), on: true },
            Body::Expelled { incarnation: crate::id::Incarnation(number + 1_000) },
        ];
        let body = bodies[world.random(bodies.len() as u32) as usize].clone();
        let bytes = Message::Dvipa { dvipa: dvipa(), epoch: Epoch(1), body }.encode(VERSION).unwrap().to_vec();
        world.link(OWNER, ONE);
        let (from, to) = if world.random(2) == 0 { (OWNER, ONE) } else { (ONE, OWNER) };
        world.say(from, to, bytes);
        world.run_for(Duration::from_millis(15));
    }
    // Whatever that did to the two of them, a new start of the target is served.
    world.start(ONE);
    world.link_all(ONE);
    world.run_for(SECOND * 3);
    assert!(world.is_eligible(ONE) && world.is_eligible(TWO));
    assert!(world.appliance(ONE).installed.contains_key(&id));
}

/// Births, deaths, breaks, restarts, and an absent facility, at random; then quiet.
fn chaos(seed: u64) -> World {
    let mut world = World::running(seed);
    let mut alive = Vec::new();
    for round in 0..150u64 {
        match world.random(14) {
            0..4 => alive.push(world.birth(round)),
            4 if !alive.is_empty() => {
                let index = world.random(alive.len() as u32) as usize;
                let gone = alive.swap_remove(index);
                world.down(gone);
            }
            5 | 6 => world.unlink(OWNER, if round % 2 == 0 { ONE } else { TWO }),
            7 | 8 => [ONE, TWO].into_iter().for_each(|member| world.link(OWNER, member)),
            9 if world.random(6) == 0 => {
                world.start(ONE);
                world.link_all(ONE);
            }
            10 => world.is_facility_up = !world.is_facility_up,
            11 if world.random(20) == 0 => {
                world.start(OWNER);
                world.link_all(OWNER);
                alive.clear();
            }
            12 => {
                let stopped = (0..3).map(|port| entry(round, port)).collect();
                world.tell(TWO, Told::Stopped(stopped));
                world.tell(TWO, Told::Use(vec![]));
            }
            _ => {}
        }
        let millis = u64::from(world.random(300));
        world.run_for(Duration::from_millis(millis));
    }
    world.is_facility_up = true;
    for member in [OWNER, ONE, TWO] {
        world.link_all(member);
    }
    world.run_for(SECOND * 20);
    world
}

#[test]
fn after_every_chaos_all_have_the_same_and_everything_goes_on() {
    for seed in 0..60 {
        let mut world = chaos(seed);
        let (one, two) = (world.is_eligible(ONE), world.is_eligible(TWO));
        let targets = world.member(OWNER).targets(dvipa());
        let refusals = &world.refusals[world.refusals.len().saturating_sub(5)..];
        assert!(one && two, "seed {seed}: {targets:?}, last refused {refusals:?}");
        let of = |world: &World, member| world.appliance(member).installed.keys().copied().collect::<Vec<_>>();
        assert_eq!(of(&world, OWNER), of(&world, ONE), "seed {seed}");
        assert_eq!(of(&world, OWNER), of(&world, TWO), "seed {seed}");
        assert!(world.appliance(ONE).installed.values().all(|times| *times == 1), "seed {seed}");
        assert_eq!(world.member(TWO).dvipas()[0].tombs, 0, "seed {seed}");
        let records = crate::facility::Request {
            id: 1,
            compare: vec![],
            change: vec![],
            read: vec![crate::facility::Read::Prefix("sa/".into())],
        };
        let records = world.store.execute(&records).unwrap().records.len();
        assert_eq!(records, world.appliance(OWNER).installed.len(), "seed {seed}: one record for each SA");
        let id = world.birth(PeerId(1_000).0);
        world.run_for(SECOND);
        assert!(world.appliance(OWNER).released.contains(&id), "seed {seed}");
    }
}

#[test]
fn a_seed_makes_one_world() {
    assert_eq!(chaos(7).trace(), chaos(7).trace());
    assert_ne!(chaos(7).trace(), chaos(8).trace());
}
