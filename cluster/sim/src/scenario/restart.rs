//! A target restarts while copies of frames for its last start are under way.

use core::time::Duration;

use cluster::frame::Kind;

use super::Scenario;
use super::acts::{PORT, connect, replay, replay_at, shadows, some_noise, talk};
use crate::topology::OWNER;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restart",
    what: "a target restarts, frames for its last start under way",
    shape: shadows,
    run: noticed,
};

pub(super) const UNNOTICED: Scenario = Scenario {
    name: "unnoticed-restart",
    what: "a target restarts before anybody misses it",
    shape: shadows,
    run: unnoticed,
};

fn noticed(world: &mut World) -> Result<(), End> {
    let span = world.topology.silence + Duration::from_millis(300);
    let span = world.dice.millis(5, span.as_millis() as u64);
    run(world, span)
}

fn unnoticed(world: &mut World) -> Result<(), End> {
    run(world, Duration::from_micros(50))
}

fn run(world: &mut World, away: Duration) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let target = connect(world, PORT)?;
    world.hold.which = Some((OWNER, target, Kind::Esp));
    world.hold.copies = true;
    let seen = talk(world, PORT, 6);
    world.run_for(Duration::from_millis(3))?;
    world.hold.which = None;
    world.stop(target);
    let before = world.dice.permille(300);
    world.run_for(away)?;
    if before {
        replay(world, &seen)?;
    }
    world.start(target)?;
    // The SAs are told to the new start while they are being replaced.
    let is_told = world.run_until(Duration::from_millis(1_500), |world| world.has_sas(target))?;
    if is_told {
        world.run_for(Duration::from_millis(1))?;
        world.release_held();
        world.run_for(Duration::from_millis(3))?;
    }
    replay(world, &seen)?;
    replay_at(world, target, &seen)?;
    world.run_for(Duration::from_millis(100))?;
    connect(world, PORT)?;
    replay(world, &seen)?;
    world.release_held();
    world.run_for(Duration::from_millis(300))
}
