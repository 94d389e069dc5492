//! The owner restarts and claims the address anew while frames and packets of its last epoch are under way.

use core::time::Duration;

use cluster::frame::Kind;

use super::Scenario;
use super::acts::{PORT, connect, replay, replay_at, shadows, some_noise, talk};
use crate::topology::OWNER;
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-owners",
    what: "the owner claims anew, frames of its last epoch under way, an attacker on both sides",
    shape: shadows,
    run,
};

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    some_noise(world);
    let target = connect(world, PORT)?;
    world.hold.which = Some((OWNER, target, Kind::Esp));
    world.hold.copies = true;
    let seen = talk(world, PORT, 6);
    world.run_for(Duration::from_millis(3))?;
    world.hold.copies = false;
    let kept = talk(world, PORT, 3);
    world.run_for(Duration::from_millis(3))?;
    world.hold.which = None;
    world.stop(OWNER);
    replay_at(world, target, &seen)?;
    let away = world.dice.millis(0, 300);
    world.run_for(away)?;
    world.start(OWNER)?;
    let part = world.dice.millis(0, 40);
    world.run_for(part)?;
    replay(world, &seen)?;
    world.release_held();
    (0..world.clients.len()).for_each(|client| world.renew_client(client, Duration::from_millis(20)));
    replay(world, &kept)?;
    world.run_until(Duration::from_secs(4), |world| world.clients.iter().all(crate::client::Client::is_up))?;
    connect(world, PORT)?;
    replay(world, &seen)?;
    replay(world, &kept)?;
    replay_at(world, target, &kept)
}
