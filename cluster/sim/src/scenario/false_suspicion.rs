//! A target that lives is believed lost, and its connections go elsewhere.

use core::time::Duration;

use cluster::frame::Kind;

use super::Scenario;
use super::acts::{PORT, connect, replay, shadows, some_noise, talk};
use crate::topology::OWNER;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "false-suspicion",
    what: "a target that lives is believed lost; its connections begin anew elsewhere",
    shape: shadows,
    run,
};

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let target = connect(world, PORT)?;
    let seen = talk(world, PORT, 8);
    world.run_for(Duration::from_millis(2))?;
    world.hold.which = Some((OWNER, target, Kind::Esp));
    let kept = talk(world, PORT, 3);
    world.run_for(Duration::from_millis(2))?;
    world.hold.which = None;
    let start = world.incarnation_of(target);
    if world.dice.permille(500) {
        world.silence(target, OWNER);
    } else {
        world.cut(target, OWNER);
        world.cut(OWNER, target);
    }
    // Sealed SAs are replaced soon, so an attacker hurries.
    let patience = world.topology.silence + Duration::from_millis(600);
    world.run_until(patience, |world| world.is_given_up(target, start))?;
    let rounds = world.dice.between(2, 5);
    for _ in 0..rounds {
        replay(world, &seen)?;
        replay(world, &kept)?;
    }
    world.release_held();
    world.run_for(Duration::from_millis(3))?;
    let _ = connect(world, PORT);
    replay(world, &seen)?;
    world.heal();
    world.run_for(Duration::from_millis(500))?;
    connect(world, PORT)?;
    replay(world, &seen)?;
    replay(world, &kept)
}
