//! The scenarios, by name.

use core::time::Duration;

use crate::dice::Dice;
use crate::topology::Topology;
use crate::world::{End, World};

/// A course of events that a seed varies.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub what: &'static str,
    /// What it asks of the cluster.
    pub shape: fn(&mut Dice, &mut Topology),
    /// What happens.
    pub run: fn(&mut World) -> Result<(), End>,
}

/// All of them.
pub static ALL: [Scenario; 2] = [
    Scenario { name: "weather", what: "everything that can happen, by chance", shape: |_, _| {}, run: weather },
    Scenario { name: "calm", what: "no faults, no attacks: everything arrives", shape: |_, _| {}, run: calm },
];

/// The scenario of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Everything that can happen, by chance.
fn weather(world: &mut World) -> Result<(), End> {
    world.settle()?;
    world.traffic.is_on = true;
    world.background.attacks = world.dice.between(50, 500);
    world.run_for(Duration::from_millis(200))?;
    world.background.faults = world.dice.between(2, 10);
    let span = world.dice.millis(2_000, 4_000);
    world.run_for(span)
}

/// Nothing happens but traffic, and all of it arrives.
fn calm(world: &mut World) -> Result<(), End> {
    world.settle()?;
    world.traffic.is_on = true;
    world.run_for(Duration::from_millis(1_500))
}
