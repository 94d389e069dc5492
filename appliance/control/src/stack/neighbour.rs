//! Which station on a link has which address: resolved by asking, refreshed by hearing, never taught by strangers.
//!
//! An entry exists only because somebody here wants it: a route names the router, a packet waits for it, or the data
//! path asked. Frames that nobody asked for refresh an entry or make us ask again; they never create one and never move
//! one by themselves. When a second station claims an address, both are asked, and the present holder keeps the entry
//! if it answers. So a flood of claims costs its sender bandwidth and us nothing.
//!
//! Bounds: entries in all, entries without an answer (a scan of an on-link prefix cannot push out what works), one
//! question per entry and second.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::MacAddress;
use datapath::routes::NextHop;

/// Time between two questions to the same neighbour.
pub const RETRANSMIT: Duration = Duration::from_secs(1);
/// Questions before a neighbour that never answered counts as unreachable.
pub const QUESTIONS_MAX: u8 = 3;
/// Questions to the known station before the whole link is asked about it.
const PROBES_UNICAST: u8 = 2;
/// Questions in all before a station that fell silent counts as unreachable.
const PROBES_MAX: u8 = 4;
/// How long an unreachable neighbour is not asked again, so that a packet to it does not mean a broadcast.
pub const HOLD_DOWN: Duration = Duration::from_secs(5);
/// How long an answer stands before it is verified; spread over three quarters to five quarters of this.
pub const REACHABLE: Duration = Duration::from_secs(30);
/// How long the present holder of an address may take to defend it against another claimant.
pub const VERIFY: Duration = Duration::from_millis(500);
/// How long further claims are ignored once the holder has defended its address.
const DEFENDED: Duration = Duration::from_secs(5);
/// An entry that nobody has wanted for so long may be displaced by one that is wanted now.
const IDLE: Duration = Duration::from_secs(60);

/// How large the table may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in all. Routers of static routes are always admitted.
    pub entries: usize,
    /// Entries without an answer, beyond which no further neighbour is asked for.
    pub unresolved: usize,
}

/// What is known when a neighbour is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Its link address.
    Known(MacAddress),
    /// It has been asked for; the answer will be told.
    Pending,
    /// It did not answer lately, and is not asked again before the hold-down ends.
    Unreachable,
    /// The table has no room for it.
    TableFull,
    /// It is no host on the port's link, or one of our own addresses, or a DVIPA: it is not asked for.
    Refused,
}

/// A question to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Whom to ask for, and on which port.
    pub hop: NextHop,
    /// The station to ask; everybody on the link when it is unknown or doubtful.
    pub station: Option<MacAddress>,
}

/// The outcome of a resolution, or of its loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Which neighbour.
    pub hop: NextHop,
    /// Its link address, or `None`: it does not answer.
    pub mac: Option<MacAddress>,
    /// Whether a route depends on it.
    pub kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Incomplete { asked: u8 },
    Reachable { mac: MacAddress },
    Probe { mac: MacAddress, asked: u8 },
    Contested { mac: MacAddress, claimant: MacAddress },
    Unreachable,
}

impl State {
    fn mac(self) -> Option<MacAddress> {
        match self {
            State::Reachable { mac } | State::Probe { mac, .. } | State::Contested { mac, .. } => Some(mac),
            State::Incomplete { .. } | State::Unreachable => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    state: State,
    deadline: Instant,
    wanted: Instant,
    deaf_until: Instant,
    kept: bool,
}

/// The neighbours of all ports.
#[derive(Debug)]
pub struct NeighbourTable {
    limits: Limits,
    rng: ChaCha20Rng,
    fixed: BTreeMap<NextHop, MacAddress>,
    entries: BTreeMap<NextHop, Entry>,
    deadlines: BTreeSet<(Instant, NextHop)>,
    unresolved: usize,
    no_idle_before: Instant,
    questions: VecDeque<Question>,
    outcomes: VecDeque<Outcome>,
}

impl NeighbourTable {
    /// An empty table. `rng` spreads verifications in time; nothing secret depends on it.
    pub fn new(limits: Limits, rng: ChaCha20Rng) -> Self {
        Self {
            limits,
            rng,
            fixed: BTreeMap::new(),
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unresolved: 0,
            no_idle_before: Instant::ZERO,
            questions: VecDeque::new(),
            outcomes: VecDeque::new(),
        }
    }

    /// Takes a neighbour as known for good: it is never asked for, and what is heard of it changes nothing.
    pub fn fix(&mut self, hop: NextHop, mac: MacAddress) {
        self.fixed.insert(hop, mac);
        self.outcomes.push_back(Outcome { hop, mac: Some(mac), kept: false });
    }

    /// Resolves a neighbour that a route depends on, and keeps it resolved.
    pub fn keep(&mut self, now: Instant, hop: NextHop) {
        if self.fixed.contains_key(&hop) {
            return;
        }
        if !self.entries.contains_key(&hop) {
            self.ask_for(now, hop);
        }
        if let Some(entry) = self.entries.get_mut(&hop) {
            entry.kept = true;
        }
    }

    /// The neighbour's link address, which is asked for if it is unknown.
    pub fn resolve(&mut self, now: Instant, hop: NextHop) -> Resolution {
        if let Some(&mac) = self.fixed.get(&hop) {
            return Resolution::Known(mac);
        }
        if let Some(entry) = self.entries.get_mut(&hop) {
            entry.wanted = now;
            return match entry.state {
                State::Reachable { mac } | State::Probe { mac, .. } | State::Contested { mac, .. } => {
                    Resolution::Known(mac)
                }
                State::Incomplete { .. } => Resolution::Pending,
                State::Unreachable => Resolution::Unreachable,
            };
        }
        if self.unresolved >= self.limits.unresolved || !self.make_room(now) {
            return Resolution::TableFull;
        }
        self.ask_for(now, hop);
        Resolution::Pending
    }

    /// The link address as far as it is known; asks nobody.
    pub fn lookup(&self, hop: NextHop) -> Option<MacAddress> {
        self.fixed.get(&hop).copied().or_else(|| self.entries.get(&hop)?.state.mac())
    }

    /// Takes in that `mac` was heard speaking as `hop`. Refreshes what is wanted, and creates nothing.
    pub fn hear(&mut self, now: Instant, hop: NextHop, mac: MacAddress) {
        let Some(entry) = self.entries.get(&hop) else { return };
        match entry.state {
            State::Incomplete { .. } | State::Unreachable => self.settle(now, hop, mac),
            State::Reachable { mac: held } | State::Probe { mac: held, .. } if held == mac => {
                self.confirm(now, hop, mac);
            }
            State::Contested { mac: held, .. } if held == mac => {
                self.confirm(now, hop, mac);
                self.entries.entry(hop).and_modify(|entry| entry.deaf_until = now + DEFENDED);
            }
            State::Reachable { mac: held } | State::Probe { mac: held, .. } => {
                if now >= entry.deaf_until {
                    self.set(hop, State::Contested { mac: held, claimant: mac }, now + VERIFY);
                    self.questions.push_back(Question { hop, station: None });
                }
            }
            // The first claimant stands: the outcome does not depend on who shouts most.
            State::Contested { .. } => {}
        }
    }

    /// Asks again, verifies, gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, hop)) = self.deadlines.first()
            && deadline <= now
        {
            let Some(entry) = self.entries.get(&hop) else {
                self.deadlines.pop_first();
                continue;
            };
            let (state, kept) = (entry.state, entry.kept);
            match state {
                State::Incomplete { asked } if asked < QUESTIONS_MAX => {
                    self.ask(now, hop, State::Incomplete { asked: asked + 1 }, None);
                }
                State::Incomplete { .. } => self.fail(now, hop),
                State::Reachable { mac } => self.ask(now, hop, State::Probe { mac, asked: 1 }, Some(mac)),
                State::Probe { mac, asked } if asked < PROBES_MAX => {
                    let station = (asked < PROBES_UNICAST).then_some(mac);
                    self.ask(now, hop, State::Probe { mac, asked: asked + 1 }, station);
                }
                State::Probe { .. } => self.fail(now, hop),
                State::Contested { claimant, .. } => self.settle(now, hop, claimant),
                State::Unreachable if kept => self.ask(now, hop, State::Incomplete { asked: 1 }, None),
                State::Unreachable => self.remove(hop),
            }
        }
    }

    /// When something has to be asked, verified or given up.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// The next question to send.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.pop_front()
    }

    /// The next neighbour that answered, moved, or fell silent.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn ask_for(&mut self, now: Instant, hop: NextHop) {
        let state = State::Incomplete { asked: 0 };
        self.entries.insert(hop, Entry { state, deadline: now, wanted: now, deaf_until: now, kept: false });
        self.deadlines.insert((now, hop));
        self.unresolved += 1;
        self.ask(now, hop, State::Incomplete { asked: 1 }, None);
    }

    fn ask(&mut self, now: Instant, hop: NextHop, state: State, station: Option<MacAddress>) {
        self.set(hop, state, now + RETRANSMIT);
        self.questions.push_back(Question { hop, station });
    }

    fn confirm(&mut self, now: Instant, hop: NextHop, mac: MacAddress) {
        let deadline = now + self.reachable_time();
        self.set(hop, State::Reachable { mac }, deadline);
    }

    fn settle(&mut self, now: Instant, hop: NextHop, mac: MacAddress) {
        self.confirm(now, hop, mac);
        self.tell(hop, Some(mac));
    }

    fn fail(&mut self, now: Instant, hop: NextHop) {
        self.set(hop, State::Unreachable, now + HOLD_DOWN);
        self.tell(hop, None);
    }

    fn tell(&mut self, hop: NextHop, mac: Option<MacAddress>) {
        let kept = self.entries.get(&hop).is_some_and(|entry| entry.kept);
        self.outcomes.push_back(Outcome { hop, mac, kept });
    }

    fn set(&mut self, hop: NextHop, state: State, deadline: Instant) {
        let Some(entry) = self.entries.get_mut(&hop) else { return };
        self.deadlines.remove(&(entry.deadline, hop));
        self.deadlines.insert((deadline, hop));
        self.unresolved -= usize::from(entry.state.mac().is_none());
        self.unresolved += usize::from(state.mac().is_none());
        entry.state = state;
        entry.deadline = deadline;
    }

    fn remove(&mut self, hop: NextHop) {
        let Some(entry) = self.entries.remove(&hop) else { return };
        self.deadlines.remove(&(entry.deadline, hop));
        self.unresolved -= usize::from(entry.state.mac().is_none());
    }

    /// Room for one entry more, at the cost of one that nobody wants any longer.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.entries.len() < self.limits.entries {
            return true;
        }
        // A full table is searched once per second, however often it is asked.
        if now < self.no_idle_before {
            return false;
        }
        let unkept = self.entries.iter().filter(|(_, entry)| !entry.kept);
        let Some((&hop, entry)) = unkept.min_by_key(|(_, entry)| entry.wanted) else { return false };
        if now.saturating_since(entry.wanted) < IDLE {
            self.no_idle_before = now + RETRANSMIT;
            return false;
        }
        if entry.state.mac().is_some() {
            self.tell(hop, None);
        }
        self.remove(hop);
        true
    }

    fn reachable_time(&mut self) -> Duration {
        let spread = REACHABLE / 2;
        let share = self.rng.next_u32() % 1_024;
        REACHABLE - spread / 2 + spread * share / 1_024
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::routes::PortId;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    const LIMITS: Limits = Limits { entries: 6, unresolved: 3 };

    #[derive(Debug, Clone)]
    enum Step {
        Keep(u8),
        Resolve(u8),
        Hear(u8, u8),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..2).prop_map(Step::Keep),
            (0_u8..12).prop_map(Step::Resolve),
            (0_u8..12, 0_u8..3).prop_map(|(hop, mac)| Step::Hear(hop, mac)),
            (0_u64..100_000).prop_map(Step::Pass),
        ]
    }

    fn hop(last: u8) -> NextHop {
        NextHop { port: PortId(0), address: [192, 0, 2, last].into() }
    }

    proptest! {
        #[test]
        fn the_books_agree_and_everyone_is_told_what_holds(steps in proptest::collection::vec(step(), 1..200)) {
            let mut table = NeighbourTable::new(LIMITS, ChaCha20Rng::from_seed([3; 32]));
            let mut now = Instant::from_secs(1);
            let mut told = BTreeMap::new();
            let mut kept = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Keep(last) => {
                        kept.insert(hop(last));
                        table.keep(now, hop(last));
                    }
                    Step::Resolve(last) => drop(table.resolve(now, hop(last))),
                    Step::Hear(last, mac) => table.hear(now, hop(last), MacAddress([2, 0, 0, 0, 0, mac])),
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                }
                table.handle_timeout(now);
                while let Some(outcome) = table.poll_outcome() {
                    told.insert(outcome.hop, outcome.mac);
                }
                while table.poll_question().is_some() {}
                let deadlines: BTreeSet<_> = table.entries.iter().map(|(&hop, entry)| (entry.deadline, hop)).collect();
                prop_assert_eq!(&deadlines, &table.deadlines);
                prop_assert!(table.poll_timeout().is_none_or(|next| next > now));
                let unresolved = table.entries.values().filter(|entry| entry.state.mac().is_none()).count();
                prop_assert_eq!(unresolved, table.unresolved);
                prop_assert!(table.entries.len() <= LIMITS.entries + kept.len());
                prop_assert!(kept.iter().all(|hop| table.entries.contains_key(hop)));
                for last in 0..12 {
                    prop_assert_eq!(told.get(&hop(last)).copied().flatten(), table.lookup(hop(last)));
                }
            }
        }
    }
}
