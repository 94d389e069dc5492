//! No faults and no attacks: what is sent arrives.

use core::time::Duration;

use super::{Scenario, any};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario =
    Scenario { name: "calm", what: "no faults, no attacks: most of what is sent arrives", shape: any, run };

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    world.traffic.is_on = true;
    world.run_for(Duration::from_millis(1_200))?;
    // Some is lost to the first neighbours that are asked for, to lifesizes that are not granted yet, and to SAs that are
    // replaced; a cluster that loses half of it does not work.
    let (sent, delivered) = (world.model.sent_count(), world.model.counts.0);
    if delivered * 2 < sent as u64 {
        return Err(End::World(format!("{delivered} of {sent} segments were delivered though nothing was wrong")));
    }
    Ok(())
}
