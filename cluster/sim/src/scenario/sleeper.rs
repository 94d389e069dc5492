//! An SA with extended numbers goes far ahead at one target while the others sleep.

use core::time::Duration;

use super::Scenario;
use super::acts::{PORT, connect, replay, shadows, some_noise, talk};
use crate::dice::Dice;
use crate::topology::Topology;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "esn-sleeper",
    what: "extended numbers go round 2^32 at one target, and another wakes up",
    shape,
    run,
};

fn shape(dice: &mut Dice, topology: &mut Topology) {
    shadows(dice, topology);
    topology.esn = true;
}

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let sleeper = connect(world, PORT)?;
    connect(world, PORT + 1)?;
    let seen = talk(world, PORT, 5);
    world.run_for(Duration::from_millis(3))?;
    for _ in 0..world.dice.between(1, 5) {
        let jump = world.dice.between(1 << 29, (1 << 31) - 1_000);
        world.clients[0].skip_numbers(jump);
        talk(world, PORT + 1, 2);
        world.run_for(Duration::from_millis(40))?;
        replay(world, &seen)?;
    }
    talk(world, PORT, 3);
    world.run_for(Duration::from_millis(3))?;
    replay(world, &seen)?;
    if world.dice.permille(500) {
        world.stop(sleeper);
        world.start(sleeper)?;
        world.run_for(Duration::from_millis(300))?;
    }
    let _ = connect(world, PORT);
    replay(world, &seen)
}
