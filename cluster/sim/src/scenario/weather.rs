//! Everything that can happen, by chance.

use core::time::Duration;

use super::{Scenario, any};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario =
    Scenario { name: "weather", what: "everything that can happen, by chance", shape: any, run };

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    world.traffic.is_on = true;
    world.background.attacks = world.dice.between(50, 500);
    world.run_for(Duration::from_millis(200))?;
    world.background.faults = world.dice.between(2, 10);
    let span = world.dice.millis(1_500, 3_500);
    world.run_for(span)
}
