//! Runs seeds, and says what came of them.

use crate::dice::Dice;
use crate::plant::Plant;
use crate::scenario::{ALL, Scenario};
use crate::topology::Topology;
use crate::world::{End, World};

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// Which seed.
    pub seed: u64,
    /// Which scenario it was.
    pub scenario: &'static str,
    /// What happened, as one number.
    pub trace_hash: u64,
    /// Segments that hosts got, and that clients got.
    pub counts: (u64, u64),
    /// What attackers sent.
    pub attacks: u64,
    /// Instants that were looked at.
    pub steps: u64,
    /// What ended it before its end.
    pub end: Option<End>,
}

/// The scenario of a seed, unless one is asked for.
#[must_use]
pub fn scenario_of(seed: u64) -> &'static Scenario {
    // The general one for every second seed.
    let named = 1 + (seed / 2) as usize % (ALL.len() - 1);
    &ALL[if seed.is_multiple_of(2) { 0 } else { named }]
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, scenario: Option<&'static Scenario>, plant: Option<Plant>) -> Outcome {
    let scenario = scenario.unwrap_or_else(|| scenario_of(seed));
    let mut dice = Dice::new(seed, "topology");
    let mut topology = Topology::draw(&mut dice);
    (scenario.shape)(&mut dice, &mut topology);
    tracing::info!(seed, scenario = scenario.name, ?topology, "SIM begins");
    Plant::set(plant);
    let mut outcome =
        Outcome { seed, scenario: scenario.name, trace_hash: 0, counts: (0, 0), attacks: 0, steps: 0, end: None };
    match World::new(seed, topology, plant) {
        Ok(mut world) => {
            outcome.end = (scenario.run)(&mut world).err();
            (outcome.trace_hash, outcome.counts) = (world.trace_hash(), world.model.counts);
            (outcome.attacks, outcome.steps) = (world.attacks, world.steps);
        }
        Err(end) => outcome.end = Some(end),
    }
    Plant::set(None);
    outcome
}
