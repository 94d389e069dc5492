//! The owner's acknowledgement of a freeing comes late.

use core::time::Duration;

use cluster::frame::Kind;

use super::Scenario;
use super::acts::{PORT, connect, expire, replay, shadows, some_noise, talk};
use crate::topology::OWNER;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "late-acknowledgement",
    what: "a freeing is acknowledged late: what stopped stays stopped",
    shape,
    run,
};

fn shape(dice: &mut crate::dice::Dice, topology: &mut crate::topology::Topology) {
    shadows(dice, topology);
    // Long enough not to be lost meanwhile.
    topology.silence = Duration::from_millis(2_500);
}

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let target = connect(world, PORT)?;
    talk(world, PORT, 3);
    world.run_for(Duration::from_millis(2))?;
    world.hold.which = Some((OWNER, target, Kind::Esp));
    let kept = talk(world, PORT, 4);
    world.run_for(Duration::from_millis(2))?;
    world.hold.which = None;
    let ages = world.topology.timeouts;
    let dies = ages.established_tcp.max(ages.new);
    world.run_for(dies.saturating_sub(Duration::from_millis(50)))?;
    // The owner hears of the freeing, and its answer does not come.
    world.silence(OWNER, target);
    world.run_for(Duration::from_millis(350))?;
    connect(world, PORT)?;
    replay(world, &kept)?;
    world.release_held();
    world.run_for(Duration::from_millis(3))?;
    replay(world, &kept)?;
    world.heal();
    world.run_for(Duration::from_millis(600))?;
    replay(world, &kept)?;
    expire(world)?;
    replay(world, &kept)
}
