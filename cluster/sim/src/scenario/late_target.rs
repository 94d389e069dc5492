//! A target joins late and is told of all SAs while they carry traffic and are replaced.

use core::time::Duration;

use cluster::id::MemberId;

use super::Scenario;
use super::acts::{PORT, connect, replay, shadows, talk};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "late-target",
    what: "a target joins late and learns of the SAs while they carry traffic",
    shape: shadows,
    run,
};

fn run(world: &mut World) -> Result<(), End> {
    let late = world.topology.targets.last().copied().unwrap_or(MemberId(3));
    world.stop(late);
    world.settle()?;
    world.traffic.is_on = true;
    world.background.attacks = 200;
    connect(world, PORT)?;
    let seen = talk(world, PORT, 6);
    world.run_for(Duration::from_millis(50))?;
    world.start(late)?;
    for round in 0..6 {
        if round % 2 == 0 {
            world.rekey_client(0);
        }
        let pause = world.dice.millis(1, 120);
        world.run_for(pause)?;
        replay(world, &seen)?;
        // Its session breaks off and begins anew: it is brought level once more, and no window is reset.
        if round == 3 {
            world.silence(late, crate::topology::OWNER);
            world.run_for(Duration::from_millis(380))?;
            world.heal();
        }
    }
    world.run_for(Duration::from_millis(200))?;
    replay(world, &seen)
}
