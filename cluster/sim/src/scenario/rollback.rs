//! The coupling facility is put back to an older backup while everybody goes on.

use core::time::Duration;

use super::Scenario;
use super::acts::{PORT, connect, replay, shadows, some_noise, talk};
use crate::topology::OWNER;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cf-rollback",
    what: "the facility is put back to an older backup; members restart upon it",
    shape: shadows,
    run,
};

fn run(world: &mut World) -> Result<(), End> {
    world.facility.back_up();
    world.settle()?;
    if world.dice.permille(500) {
        world.facility.back_up();
    }
    some_noise(world);
    connect(world, PORT)?;
    let seen = talk(world, PORT, 4);
    let target = world.dice.pick(&world.topology.targets).copied().unwrap_or(OWNER);
    world.stop(target);
    world.start(target)?;
    world.run_for(Duration::from_millis(300))?;
    world.roll_back();
    let next = if world.dice.permille(400) { OWNER } else { target };
    if world.dice.permille(700) {
        world.stop(next);
        world.start(next)?;
    }
    world.run_for(Duration::from_millis(100))?;
    (0..world.clients.len()).for_each(|client| world.renew_client(client, Duration::from_millis(20)));
    replay(world, &seen)?;
    world.run_until(Duration::from_secs(5), |world| world.clients.iter().all(crate::client::Client::is_up))?;
    world.traffic.is_on = true;
    world.run_for(Duration::from_millis(300))?;
    replay(world, &seen)
}
