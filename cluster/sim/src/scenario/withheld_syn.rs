//! An attacker keeps a SYN back and lets it go in a later life of its connection.

use core::time::Duration;

use wire::tcp::Flags;

use super::Scenario;
use super::acts::{PORT, connect, expire, replay, shadows, some_noise, talk};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "withheld-syn",
    what: "an attacker keeps a SYN back, and lets it go when its connection is elsewhere",
    shape: shadows,
    run,
};

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let mut withheld = Vec::new();
    for _ in 0..world.dice.between(1, 3) {
        withheld.extend(world.client_seals(0, PORT, Flags::SYN, 0, 0));
        withheld.extend(world.client_seals(0, PORT, Flags::ACK, 100, 0));
    }
    connect(world, PORT)?;
    let seen = talk(world, PORT, 4);
    world.run_for(Duration::from_millis(3))?;
    if world.dice.permille(500) {
        replay(world, &withheld)?;
    }
    expire(world)?;
    replay(world, &withheld)?;
    if world.dice.permille(500) {
        connect(world, PORT)?;
    }
    replay(world, &withheld)?;
    replay(world, &seen)?;
    expire(world)?;
    replay(world, &withheld)?;
    replay(world, &seen)
}
