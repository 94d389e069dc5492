//! The scenarios, by name: each is a course of events that a seed varies.

mod acts;
mod calm;
mod expiry;
mod false_suspicion;
mod late_acknowledgement;
mod late_target;
mod lost_report;
mod restart;
mod rollback;
mod senders;
mod sleeper;
mod two_owners;
mod weather;
mod withheld_syn;

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

/// All of them, the general one first.
pub static ALL: [Scenario; 15] = [
    weather::SCENARIO,
    calm::SCENARIO,
    expiry::SCENARIO,
    withheld_syn::SCENARIO,
    restart::SCENARIO,
    restart::UNNOTICED,
    false_suspicion::SCENARIO,
    late_acknowledgement::SCENARIO,
    lost_report::SCENARIO,
    two_owners::SCENARIO,
    senders::SCENARIO,
    sleeper::SCENARIO,
    rollback::SCENARIO,
    late_target::SCENARIO,
    expiry::REPLACED,
];

/// The scenario of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Any cluster will do.
fn any(_: &mut Dice, _: &mut Topology) {}
