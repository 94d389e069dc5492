//! Peers that make, prove, rekey, refuse and delete SAs as they like, members that come and go, outputs that arrive late,
//! owners that follow each other: no number of an SA twice, and always an SA to send on.

use super::tests::newcomer;
use super::*;
use crate::member::SequencePolicy;
use crate::sequence::marks::{MarkSettings, Marks};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// Where a member's or the owner's numbers of one SA are, and the mark it was told.
#[derive(Clone, Copy)]
struct Counter {
    next: u64,
    below: u64,
}

#[derive(Default)]
struct Desk {
    sources: BTreeMap<ChildId, NumberSource>,
    own: BTreeMap<ChildId, Counter>,
    preferred: Option<ChildId>,
    /// Outputs under way to this member.
    inbox: VecDeque<(Output, Option<Counter>)>,
}

struct World {
    random: ChaCha8Rng,
    now: Instant,
    owner: MemberId,
    senders: PeerSenders,
    marks: Marks,
    /// What the facility holds.
    records: BTreeMap<ChildId, u64>,
    desks: BTreeMap<MemberId, Desk>,
    /// Desks of those that are believed gone and go on.
    ghosts: Vec<Desk>,
    dispensers: BTreeMap<ChildId, Counter>,
    standing: Vec<Newcomer>,
    asked: Option<ChildId>,
    refused: bool,
    spi: u32,
    used: BTreeSet<(ChildId, u64)>,
}

const MEMBERS: [MemberId; 4] = [MemberId(1), MemberId(2), MemberId(3), MemberId(4)];
const SIBLINGS_MAX: u8 = 3;

fn settings(owner: MemberId) -> SenderSettings {
    SenderSettings::new(SequencePolicy::Auto, SIBLINGS_MAX, owner, false)
}

impl World {
    fn new(seed: u64) -> Self {
        let owner = MEMBERS[0];
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: Instant::ZERO,
            owner,
            senders: PeerSenders::new(settings(owner), &MEMBERS),
            marks: Marks::new(MarkSettings { reserve_min: 30, reserve_max: 30, ..MarkSettings::default() }),
            records: BTreeMap::new(),
            desks: MEMBERS.map(|member| (member, Desk::default())).into(),
            ghosts: Vec::new(),
            dispensers: BTreeMap::new(),
            standing: Vec::new(),
            asked: None,
            refused: false,
            spi: 0,
            used: BTreeSet::new(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn step(&mut self) {
        let was_asking = self.senders.asking.is_some();
        self.now += Duration::from_millis(self.random.next_u64() % 400);
        match self.below(100) {
            0..5 => self.rise(None, None, Use::First),
            5..8 => self.rekey(),
            8..20 => self.answer(),
            20..23 => self.delete(),
            23..35 if !self.standing.is_empty() => {
                let index = self.below(self.standing.len());
                self.senders.handle_proven(self.now, self.standing[index].child);
            }
            35..38 => self.come_or_go(),
            38..39 => self.change_owner(),
            39..42 => self.senders.handle_timeout(self.now),
            42..60 => self.want(),
            60..75 => self.deliver(),
            _ => self.send(),
        }
        if self.senders.asking.is_some() && !was_asking {
            assert!(self.senders.siblings() < usize::from(SIBLINGS_MAX));
        }
        if self.below(3) == 0 {
            self.drain_outputs();
        }
        self.raise_marks();
    }

    fn rise(&mut self, replaces: Option<Spi>, sibling_of: Option<Spi>, usage: Use) {
        if self.standing.len() >= 12 {
            return;
        }
        self.spi += 1;
        let new = Newcomer { replaces, sibling_of, usage, ..newcomer(self.spi) };
        let below = self.marks.at_birth(1);
        self.records.insert(new.child, below);
        self.marks.born(self.now, new.child, true, 1, below);
        self.standing.push(new);
        self.senders.handle_up(self.now, new);
    }

    fn rekey(&mut self) {
        if self.standing.is_empty() {
            return;
        }
        let index = self.below(self.standing.len());
        let old = self.standing[index];
        let usage = [Use::First, Use::InReserve, Use::ReceiveOnly][self.below(3)];
        self.rise(Some(old.child.spi), old.sibling_of, usage);
    }

    fn answer(&mut self) {
        let Some(of) = self.asked.take() else { return };
        match self.below(10) {
            0 => self.senders.handle_refused(self.now, of, false),
            1 if self.below(10) == 0 => {
                self.refused = true;
                self.senders.handle_refused(self.now, of, true);
            }
            _ => self.rise(None, Some(of.spi), Use::First),
        }
    }

    fn delete(&mut self) {
        if !self.standing.is_empty() {
            let index = self.below(self.standing.len());
            let gone = self.standing.remove(index).child;
            self.marks.forget(gone);
            self.dispensers.remove(&gone);
            self.senders.handle_down(self.now, gone);
        }
    }

    fn come_or_go(&mut self) {
        let member = MEMBERS[self.below(MEMBERS.len())];
        if let Some(desk) = self.desks.remove(&member) {
            if member == self.owner {
                self.desks.insert(member, desk);
                return;
            }
            self.ghosts.push(desk);
            self.senders.handle_gone(self.now, member);
        } else {
            self.desks.insert(member, Desk::default());
            self.senders.handle_joined(self.now, member);
        }
    }

    /// The next owner knows the facility's marks, and of each SA who numbers it, or not even that.
    fn change_owner(&mut self) {
        let members: Vec<MemberId> = self.desks.keys().copied().collect();
        self.owner = members[self.below(members.len())];
        let knows = self.below(2) == 0;
        let before = std::mem::replace(&mut self.senders, PeerSenders::new(settings(self.owner), &members));
        self.marks = Marks::new(MarkSettings { reserve_min: 30, reserve_max: 30, ..MarkSettings::default() });
        self.dispensers.clear();
        self.asked = None;
        self.refused = false;
        for index in 0..self.standing.len() {
            let new = self.standing[index];
            let record = self.records[&new.child];
            self.marks.restore(self.now, new.child, true, record, record);
            let sender = before.sender(new.child).filter(|_| knows);
            let restored = Some(Restored { sender, is_proven: true });
            self.senders.handle_up(self.now, Newcomer { restored, ..new });
        }
    }

    fn want(&mut self) {
        let members: Vec<MemberId> = self.desks.keys().copied().collect();
        let member = members[self.below(members.len())];
        if let Some(child) = self.desks[&member].preferred {
            self.senders.handle_wanted(self.now, member, child);
        }
    }

    fn drain_outputs(&mut self) {
        let mut outputs = Vec::new();
        while let Some(output) = self.senders.poll_output(|child| self.marks.give(child)) {
            outputs.push(output);
        }
        for output in outputs {
            match output {
                Output::Ask(of) => {
                    assert!(self.asked.is_none() && !self.refused, "asked again");
                    self.asked = Some(of);
                }
                Output::Dispense { child, from } => {
                    let below = self.marks.below(child).unwrap();
                    self.dispensers.insert(child, Counter { next: from, below });
                }
                Output::Numbers { member, child, source: NumberSource::Own { from } } => {
                    let counter = Counter { next: from, below: self.marks.below(child).unwrap() };
                    self.desks.get_mut(&member).unwrap().inbox.push_back((output, Some(counter)));
                }
                Output::Numbers { member, .. } | Output::Silence { member, .. } | Output::Prefer { member, .. } => {
                    self.desks.get_mut(&member).unwrap().inbox.push_back((output, None));
                }
            }
        }
    }

    /// Durable at once here; told only to whoever numbers the SA by then.
    fn raise_marks(&mut self) {
        while let Some(raise) = self.marks.poll_raise(self.now) {
            raise.marks.iter().for_each(|raised| _ = self.records.insert(raised.child, raised.below));
            for (child, below) in self.marks.handle_raised(raise.ticket) {
                match self.senders.sender(child) {
                    Some(member) => {
                        let desk = self.desks.get_mut(&member).unwrap();
                        desk.own.entry(child).and_modify(|counter| counter.below = below);
                        desk.inbox.iter_mut().filter(|(output, _)| output_child(output) == child).for_each(
                            |(_, counter)| {
                                *counter = counter.map(|counter| Counter { below, ..counter });
                            },
                        );
                    }
                    None => _ = self.dispensers.entry(child).and_modify(|counter| counter.below = below),
                }
            }
        }
    }

    fn deliver(&mut self) {
        let members: Vec<MemberId> = self.desks.keys().copied().collect();
        let member = members[self.below(members.len())];
        let Some(desk) = self.desks.get_mut(&member) else { return };
        for _ in 0..3 {
            let Some((output, counter)) = desk.inbox.pop_front() else { return };
            desk.take(&output, counter);
        }
    }

    /// Everyone who believes to number an SA does so, the believed dead too.
    fn send(&mut self) {
        for desk in self.desks.values_mut().chain(&mut self.ghosts) {
            for (&child, counter) in &mut desk.own {
                if counter.next < counter.below {
                    assert!(self.used.insert((child, counter.next)), "{child} {} twice", counter.next);
                    counter.next += 1;
                    // The dead report nothing, but late reports of theirs must not harm.
                    self.marks.observe(self.now, child, counter.next);
                }
            }
        }
        for (&child, counter) in &mut self.dispensers {
            if counter.next < counter.below {
                assert!(self.used.insert((child, counter.next)), "{child} {} twice", counter.next);
                counter.next += 1;
                self.marks.observe(self.now, child, counter.next);
            }
        }
    }

    /// When all outputs have arrived: who prefers an SA may send on it, and one that is known to work is preferred.
    fn check_settled(&mut self) -> Result<(), TestCaseError> {
        self.drain_outputs();
        for (member, desk) in &mut self.desks {
            while let Some((output, counter)) = desk.inbox.pop_front() {
                desk.take(&output, counter);
            }
            let stands = |child: &ChildId| self.standing.iter().any(|new| new.child == *child);
            let preferred = desk.preferred.filter(stands);
            if let Some(child) = preferred {
                prop_assert!(desk.sources.contains_key(&child), "{member} prefers what it may not send on");
            }
            for told in self.senders.snapshot(*member) {
                match told {
                    Output::Numbers { child, source, .. } => prop_assert_eq!(desk.sources.get(&child), Some(&source)),
                    Output::Silence { child, .. } => prop_assert!(!desk.sources.contains_key(&child)),
                    Output::Prefer { .. } | Output::Ask(_) | Output::Dispense { .. } => {}
                }
            }
        }
        for child in &self.senders.children {
            if let Role::Own(member) = child.role {
                prop_assert!(self.desks.contains_key(&member), "an SA of one who is gone");
            }
        }
        Ok(())
    }
}

impl Desk {
    fn take(&mut self, output: &Output, counter: Option<Counter>) {
        match *output {
            Output::Numbers { child, source, .. } => {
                self.sources.insert(child, source);
                match counter {
                    // A sender that numbers the SA already goes on where it is, but may go as far as it is told.
                    Some(new) => _ = self.own.entry(child).and_modify(|old| old.below = new.below).or_insert(new),
                    None => _ = self.own.remove(&child),
                }
            }
            Output::Silence { child, .. } => {
                self.sources.remove(&child);
                self.own.remove(&child);
            }
            Output::Prefer { child, .. } => self.preferred = Some(child),
            Output::Ask(_) | Output::Dispense { .. } => {}
        }
    }
}

fn output_child(output: &Output) -> ChildId {
    match *output {
        Output::Ask(child)
        | Output::Dispense { child, .. }
        | Output::Numbers { child, .. }
        | Output::Silence { child, .. }
        | Output::Prefer { child, .. } => child,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_number_of_an_sa_is_used_twice_and_everyone_has_one_to_send_on(seed: u64) {
        let mut world = World::new(seed);
        world.rise(None, None, Use::First);
        world.drain_outputs();
        for step in 0..1_500 {
            world.step();
            if step % 100 == 99 {
                world.check_settled()?;
            }
        }
        prop_assert!(world.used.len() > 500, "hardly anything was sent: {}", world.used.len());
    }
}
