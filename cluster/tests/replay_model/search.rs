//! Every state that can be reached, breadth first.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::model::Model;
use crate::rules::Rules;
use crate::state::State;
use crate::steps::Step;

/// What a search found.
pub enum Found {
    /// Nothing is delivered twice in any of so many states.
    Nothing { states: usize },
    /// The shortest way to a second delivery.
    Replay { states: usize, trace: Vec<Step> },
}

/// Passes a hash through that is one already.
#[derive(Default)]
struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Mixes each number in by a product of twice its width: short, and good enough to name states.
struct Mixed(u64);

impl Mixed {
    fn mix(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ (product >> 64) as u64 ^ number.rotate_left(32);
    }
}

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut number = [0; 8];
            number[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(number));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }
}

/// States are known by 64 bits of a hash: among ten million, the chance that two of them share one is below 1 to 300,000.
fn fingerprint(state: &State) -> u64 {
    let mut hasher = Mixed(0x243f_6a88_85a3_08d3);
    state.hash(&mut hasher);
    hasher.finish()
}

/// Looks at every state that `model` can reach.
pub fn search(rules: Rules, model: Model) -> Found {
    let mut seen: HashSet<u64, BuildHasherDefault<Passed>> = HashSet::default();
    // How each state was reached: from which, by what.
    let mut ways: Vec<(u32, Step)> = vec![(0, Step::Start)];
    let start = model.start().canonical();
    seen.insert(fingerprint(&start));
    let mut frontier = vec![(0_u32, start)];
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (from, state) in &frontier {
            let mut replayed = None;
            model.steps(rules, state, &mut |step, after| {
                let Some(after) = after else {
                    replayed = replayed.or(Some(step));
                    return;
                };
                let after = model.tidied(rules, after).canonical();
                if seen.insert(fingerprint(&after)) {
                    ways.push((*from, step));
                    next.push((ways.len() as u32 - 1, after));
                }
            });
            if let Some(step) = replayed {
                return Found::Replay { states: seen.len(), trace: trace(rules, model, &ways, *from, step) };
            }
        }
        frontier = next;
    }
    Found::Nothing { states: seen.len() }
}

/// The way to a replay, retold with each target keeping its name: states were known without.
fn trace(rules: Rules, model: Model, ways: &[(u32, Step)], last: u32, step: Step) -> Vec<Step> {
    let mut way = vec![step];
    let mut at = last;
    while at != 0 {
        let (from, step) = ways[at as usize];
        way.push(step);
        at = from;
    }
    way.reverse();
    let (mut known, mut told) = (model.start().canonical(), model.start());
    let mut trace = Vec::new();
    for step in way {
        let after = after(rules, model, &known, |found, _| found == step);
        let wanted = after.map(|(_, state)| state.map(State::canonical));
        let named = self::after(rules, model, &told, |_, state| Some(state.map(State::canonical)) == wanted);
        let (Some((_, Some(Some(next)))), Some((named, state))) = (Some((step, wanted)), named) else {
            trace.extend(named.map(|(named, _)| named));
            break;
        };
        trace.push(named);
        (known, told) = (next, state.unwrap_or(told));
    }
    trace
}

/// The first step from `state` that is wanted, and what it leads to.
fn after(
    rules: Rules,
    model: Model,
    state: &State,
    is_wanted: impl Fn(Step, Option<State>) -> bool,
) -> Option<(Step, Option<State>)> {
    let mut found = None;
    model.steps(rules, state, &mut |step, after| {
        let after = after.map(|after| model.tidied(rules, after));
        if found.is_none() && is_wanted(step, after) {
            found = Some((step, after));
        }
    });
    found
}
