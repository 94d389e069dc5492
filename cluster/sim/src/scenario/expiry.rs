//! A connection expires and comes back at another target while frames of its first life are under way.

use core::time::Duration;

use cluster::frame::Kind;
use cluster::member::SequencePolicy;
use wire::tcp::Flags;

use super::Scenario;
use super::acts::{PORT, connect, expire, replay, shadows, some_noise, talk};
use crate::dice::Dice;
use crate::topology::{OWNER, Topology};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "expiry",
    what: "a connection expires and is reassigned with frames in flight",
    shape: several_sas,
    run,
};

pub(super) const REPLACED: Scenario = Scenario {
    name: "replaced-sa",
    what: "the same over a rekeying: what came by the SA that was replaced comes again",
    shape: shadows,
    run: replaced,
};

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    if world.dice.permille(500) {
        have_siblings(world)?;
    }
    let target = connect(world, PORT)?;
    // By one SA and by another, where there are several.
    let mut seen = talk(world, PORT, 4);
    for back in 1..world.clients[0].sas().min(4) {
        seen.extend(world.client_sends(0, PORT, Flags::ACK, 200, back));
        seen.extend(world.client_sends(0, PORT, Flags::ACK, 200, back));
    }
    world.run_for(Duration::from_millis(2))?;
    // These are kept on the trusted wire; of some a copy arrives.
    world.hold.which = Some((OWNER, target, Kind::Esp));
    world.hold.copies = world.dice.permille(300);
    let count = world.dice.between(1, 6);
    let kept = talk(world, PORT, count);
    world.run_for(Duration::from_millis(3))?;
    world.hold.which = None;
    let early = world.dice.permille(300);
    expire(world)?;
    if early {
        world.release_held();
        world.run_for(Duration::from_millis(3))?;
    }
    connect(world, PORT)?;
    replay(world, &seen)?;
    replay(world, &kept)?;
    world.release_held();
    world.run_for(Duration::from_millis(5))?;
    replay(world, &kept)?;
    expire(world)?;
    replay(world, &seen)?;
    replay(world, &kept)
}

fn several_sas(dice: &mut Dice, topology: &mut Topology) {
    shadows(dice, topology);
    topology.sequence = SequencePolicy::Auto;
}

/// Several targets speak to client 0, so that each gets an SA of its own where that is how numbers are shared.
fn have_siblings(world: &mut World) -> Result<(), End> {
    world.traffic.answered = 1_000;
    let others: Vec<u16> = (1..5).map(|number| PORT + number).collect();
    for &port in &others {
        connect(world, port)?;
    }
    for _ in 0..60 {
        others.iter().for_each(|&port| _ = talk(world, port, 1));
        world.run_for(Duration::from_millis(3))?;
    }
    Ok(())
}

/// The SA that carried the connection is replaced while its entry goes.
fn replaced(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    connect(world, PORT)?;
    let seen = talk(world, PORT, 6);
    world.run_for(Duration::from_millis(2))?;
    let ages = world.topology.timeouts;
    let pause = ages.established_tcp.max(ages.new).saturating_sub(world.dice.millis(0, 150));
    world.run_for(pause)?;
    world.rekey_client(0);
    world.run_for(Duration::from_millis(250))?;
    connect(world, PORT)?;
    replay(world, &seen)?;
    world.run_for(Duration::from_millis(200))?;
    connect(world, PORT)?;
    replay(world, &seen)
}
