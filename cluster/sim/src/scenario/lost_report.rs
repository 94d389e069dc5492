//! Much traffic on one SA while reports of what it has carried are lost.

use core::time::Duration;

use ipsec::lifetime::Limits;
use wire::tcp::Flags;

use super::Scenario;
use super::acts::{PORT, connect, shadows};
use crate::dice::Dice;
use crate::topology::{GRANT_BYTES, OWNER, Topology};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lost-report",
    what: "reports of what an SA has carried are lost, and the SA carries no more than it may",
    shape,
    run,
};

/// The least limits that so many members can have.
fn shape(dice: &mut Dice, topology: &mut Topology) {
    shadows(dice, topology);
    topology.targets.truncate(2);
    let grants = GRANT_BYTES * (topology.targets.len() as u64 + 2);
    topology.bytes = Limits { soft: Some(grants + 1_000), hard: Some(2 * grants + 1_000) };
    topology.clients = 1;
}

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    let target = connect(world, PORT)?;
    if world.dice.permille(700) {
        world.silence(target, OWNER);
    }
    // All sealed before any is sent, so that they go by one SA whatever is agreed on meanwhile.
    let frames: Vec<_> = (0..480).filter_map(|_| world.client_seals(0, PORT, Flags::ACK, 1_400, 0)).collect();
    let (first, last) = (10, world.dice.between(20, 300));
    for frame in frames {
        world.send_from_client(0, frame);
        let pause = world.dice.micros(first, last);
        world.run_for(pause)?;
    }
    world.run_for(Duration::from_millis(200))?;
    world.heal();
    world.run_for(Duration::from_millis(400))
}
