//! Durable marks: for each SA, the first number that nobody may have used.
//!
//! **Purpose.** Whoever numbers an SA may die with what it knows. So the coupling facility holds a *mark* for each SA,
//! numbers are used only below it, and whoever numbers the SA next begins at it. It is raised well before it is reached:
//! by what the SA would use while the facility is away.
//!
//! **Promises.** No mark is told before it is durable; a mark never goes back, here or in the facility. With extended
//! numbers no sender begins 2^31 or more above the last number that is known to be used, beyond which a client would
//! misread the high bits (RFC 4303 §A2.2). Renewals are batched.
//!
//! **What it never does.** It stops nobody: senders stop by themselves at the mark that they were told.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::time::Instant;

use crate::id::ChildId;

/// Without extended numbers the first number that there is not.
const END_WITHOUT_ESN: u64 = 1 << 32;
/// Without extended numbers, replace the SA from here on.
const REKEY_WITHOUT_ESN: u64 = 1 << 31;
/// Extended numbers end so far before the last one that nothing can overflow.
const END_WITH_ESN: u64 = u64::MAX - (1 << 33);
/// How far a new sender may begin above what was used: below 2^31 by what the client may have missed on the way.
const JUMP_MAX: u64 = (1 << 31) - (1 << 24);
/// Shorter spans say nothing of a rate.
const RATE_SPAN_MIN: Duration = Duration::from_millis(100);

/// How marks are kept ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkSettings {
    /// For how long the facility may be away while every SA goes on as fast as it did.
    pub outage: Duration,
    /// The reserve of an SA whose rate is not known, or low.
    pub reserve_min: u64,
    /// The largest reserve; at most 2^30.
    pub reserve_max: u64,
    /// Renewals that can wait are gathered for so long.
    pub batch_every: Duration,
    /// A batch that was not answered for so long is asked for again.
    pub patience: Duration,
    /// Most marks in one batch.
    pub batch_max: usize,
}

impl Default for MarkSettings {
    /// 60 s of outage; 2^24 numbers for a start: 280,000 packets a second for 60 s, and 1/256 of the numbers without ESN.
    fn default() -> Self {
        Self {
            outage: Duration::from_secs(60),
            reserve_min: 1 << 24,
            reserve_max: 1 << 30,
            batch_every: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            batch_max: 50,
        }
    }
}

/// The marks of every SA that this member owns.
#[derive(Debug)]
pub struct Marks {
    settings: MarkSettings,
    marks: BTreeMap<ChildId, Mark>,
    /// Whose mark is to be raised, at leisure …
    due: BTreeSet<ChildId>,
    /// … or at once.
    urgent: BTreeSet<ChildId>,
    rekey: BTreeSet<ChildId>,
    asked: Option<Asked>,
    ticket: u64,
    not_before: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    esn: bool,
    /// Durable, and told.
    below: u64,
    /// What the facility may hold by now.
    asked: u64,
    /// The next number, as last heard.
    observed: u64,
    /// Where numbers are taken now: `observed`, or where the latest sender began.
    start: u64,
    is_given: bool,
    rate_per_second: u64,
    rated: (Instant, u64),
    rekey_told: bool,
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    until: Instant,
    marks: Vec<RaisedMark>,
}

/// A mark to write, if the record still is what it is known to be: a transaction that comes late must lower nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaisedMark {
    /// Whose.
    pub child: ChildId,
    /// What the record holds.
    pub from: u64,
    /// The first number that may not be used, from now on.
    pub below: u64,
}

/// Marks of SAs of one address, to write in one transaction of the facility.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    /// Comes back with the answer.
    pub ticket: u64,
    /// The marks.
    pub marks: Vec<RaisedMark>,
}

impl Marks {
    /// Knows no SA.
    #[must_use]
    pub fn new(settings: MarkSettings) -> Self {
        let settings = MarkSettings { reserve_max: settings.reserve_max.min(1 << 30), ..settings };
        Self {
            settings,
            marks: BTreeMap::new(),
            due: BTreeSet::new(),
            urgent: BTreeSet::new(),
            rekey: BTreeSet::new(),
            asked: None,
            ticket: 0,
            not_before: Instant::ZERO,
        }
    }

    /// The mark to write into the record of an SA that is being born and begins with number `first`.
    #[must_use]
    pub fn at_birth(&self, first: u64) -> u64 {
        first.saturating_add(self.settings.reserve_min.min(self.settings.reserve_max))
    }

    /// An SA's record stands, with this mark in it.
    pub fn born(&mut self, now: Instant, child: ChildId, esn: bool, first: u64, below: u64) {
        let mark = Mark {
            esn,
            below,
            asked: below,
            observed: first,
            start: first,
            is_given: false,
            rate_per_second: 0,
            rated: (now, first),
            rekey_told: false,
        };
        self.marks.insert(child, mark);
        self.judge(child);
    }

    /// As a new owner: an SA's record says so. Whoever numbers it from now on begins at its mark. `observed` is the next
    /// number as anyone has heard it, or `below` if nobody has.
    pub fn restore(&mut self, now: Instant, child: ChildId, esn: bool, below: u64, observed: u64) {
        self.born(now, child, esn, observed.min(below), below);
        if let Some(mark) = self.marks.get_mut(&child) {
            (mark.start, mark.is_given) = (below, true);
        }
        self.judge(child);
    }

    /// Someone is to number this SA who did not before: the first number that nobody can have used. It must be told no
    /// mark of the SA but those of [`below`](Self::below) after this, and its predecessor no more marks. `None` if there
    /// is no such SA.
    #[must_use]
    pub fn give(&mut self, child: ChildId) -> Option<u64> {
        let mark = self.marks.get_mut(&child)?;
        if mark.is_given {
            mark.start = mark.below;
        }
        mark.is_given = true;
        let from = mark.start;
        self.judge(child);
        Some(from)
    }

    /// How far an SA has come.
    pub fn observe(&mut self, now: Instant, child: ChildId, next_number: u64) {
        let Some(mark) = self.marks.get_mut(&child) else { return };
        mark.observed = mark.observed.max(next_number.min(mark.below));
        mark.start = mark.start.max(mark.observed);
        let (since, from) = mark.rated;
        let span = now.saturating_since(since);
        if span >= RATE_SPAN_MIN {
            let rate = u128::from(mark.observed - from) * 1_000_000_000 / span.as_nanos();
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            // Up at once, down slowly: a reserve that is too large costs nothing.
            mark.rate_per_second = rate.max((mark.rate_per_second / 16).saturating_mul(15));
            mark.rated = (now, mark.observed);
        }
        self.judge(child);
    }

    /// The next transaction to ask the facility for. One is under way at a time.
    #[must_use]
    pub fn poll_raise(&mut self, now: Instant) -> Option<Raise> {
        if self.asked.as_ref().is_some_and(|asked| now < asked.until) || self.due_at().is_none_or(|at| now < at) {
            return None;
        }
        let by_urgency = || self.urgent.iter().chain(self.due.difference(&self.urgent));
        let dvipa = by_urgency().next()?.dvipa;
        let chosen = by_urgency().filter(|child| child.dvipa == dvipa).take(self.settings.batch_max.max(1));
        let marks: Vec<RaisedMark> = chosen
            .filter_map(|&child| {
                let mark = self.marks.get(&child)?;
                let below = mark.target(&self.settings).max(mark.asked);
                Some(RaisedMark { child, from: mark.below, below })
            })
            .collect();
        for raised in &marks {
            if let Some(mark) = self.marks.get_mut(&raised.child) {
                mark.asked = raised.below;
            }
        }
        self.ticket += 1;
        let takes_all = self.due.union(&self.urgent).count() == marks.len();
        self.not_before = if takes_all { now + self.settings.batch_every } else { now };
        self.asked = Some(Asked { ticket: self.ticket, until: now + self.settings.patience, marks: marks.clone() });
        Some(Raise { ticket: self.ticket, marks })
    }

    /// A transaction is durable. Returns what to tell to whoever numbers these SAs.
    #[must_use]
    pub fn handle_raised(&mut self, ticket: u64) -> Vec<(ChildId, u64)> {
        let Some(asked) = self.asked.take_if(|asked| asked.ticket == ticket) else { return Vec::new() };
        self.learn(asked.marks.into_iter().map(|raised| (raised.child, raised.below)))
    }

    /// A transaction changed nothing, since a record held something else: an earlier transaction of this owner had
    /// been made though its answer was lost. What the records hold, is durable. Returns what to tell.
    #[must_use]
    pub fn handle_found(&mut self, ticket: u64, found: &[(ChildId, u64)]) -> Vec<(ChildId, u64)> {
        if self.asked.take_if(|asked| asked.ticket == ticket).is_none() {
            return Vec::new();
        }
        self.learn(found.iter().copied())
    }

    fn learn(&mut self, durable: impl Iterator<Item = (ChildId, u64)>) -> Vec<(ChildId, u64)> {
        let mut told = Vec::new();
        for (child, below) in durable {
            let Some(mark) = self.marks.get_mut(&child) else { continue };
            if below > mark.below {
                mark.below = below;
                mark.asked = mark.asked.max(below);
                told.push((child, below));
            }
            self.judge(child);
        }
        told
    }

    /// Nothing is known of a transaction, or it was refused: asked for again after a while. Nothing is told.
    pub fn handle_failed(&mut self, now: Instant, ticket: u64) {
        if self.asked.take_if(|asked| asked.ticket == ticket).is_some() {
            self.not_before = now + self.settings.batch_every;
            // A failing facility is not hurried.
            self.asked = Some(Asked { ticket: 0, until: self.not_before, marks: Vec::new() });
        }
    }

    /// When [`poll_raise`](Self::poll_raise) has something.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let due_at = self.due_at()?;
        Some(self.asked.as_ref().map_or(due_at, |asked| due_at.max(asked.until)))
    }

    /// The SA is gone.
    pub fn forget(&mut self, child: ChildId) {
        self.marks.remove(&child);
        self.due.remove(&child);
        self.urgent.remove(&child);
        self.rekey.remove(&child);
    }

    /// The mark that an SA's sender may be told.
    #[must_use]
    pub fn below(&self, child: ChildId) -> Option<u64> {
        self.marks.get(&child).map(|mark| mark.below)
    }

    /// How many SAs have used all that they may, as far as was heard: their senders drop, counted.
    #[must_use]
    pub fn exhausted(&self) -> usize {
        self.urgent.iter().filter(|child| self.marks.get(child).is_some_and(|mark| mark.start >= mark.below)).count()
    }

    /// An SA that has too few numbers left and must be replaced. Each is told once.
    #[must_use]
    pub fn poll_rekey(&mut self) -> Option<ChildId> {
        self.rekey.pop_first()
    }

    fn due_at(&self) -> Option<Instant> {
        match (self.urgent.is_empty(), self.due.is_empty()) {
            (false, _) => Some(Instant::ZERO),
            (true, false) => Some(self.not_before),
            (true, true) => None,
        }
    }

    /// Notes whether an SA's mark is to be raised, and how soon.
    fn judge(&mut self, child: ChildId) {
        let Some(mark) = self.marks.get_mut(&child) else { return };
        let left = mark.below.saturating_sub(mark.start);
        let target = mark.target(&self.settings);
        let reserve = mark.reserve(&self.settings);
        let can_rise = target > mark.below;
        // What is left at 3/4 of 3/2 of an outage's need still lasts for an outage.
        let is_due = can_rise && left < reserve - reserve / 4;
        let is_urgent = can_rise && left <= reserve / 4;
        set(&mut self.due, child, is_due);
        set(&mut self.urgent, child, is_urgent);
        let is_stuck = !can_rise && left == 0;
        let is_worn = is_stuck || (!mark.esn && mark.start >= REKEY_WITHOUT_ESN);
        if is_worn && !mark.rekey_told {
            mark.rekey_told = true;
            self.rekey.insert(child);
        }
    }
}

impl Mark {
    fn reserve(&self, settings: &MarkSettings) -> u64 {
        let outage = u128::from(self.rate_per_second) * settings.outage.as_nanos() / 1_000_000_000;
        let reserve = u64::try_from(outage * 3 / 2).unwrap_or(u64::MAX);
        reserve.max(settings.reserve_min).min(settings.reserve_max)
    }

    /// Where the mark should stand.
    fn target(&self, settings: &MarkSettings) -> u64 {
        let farthest = if self.esn { self.observed.saturating_add(JUMP_MAX) } else { u64::MAX };
        self.start.saturating_add(self.reserve(settings)).min(farthest).min(self.end())
    }

    const fn end(&self) -> u64 {
        if self.esn { END_WITH_ESN } else { END_WITHOUT_ESN }
    }
}

fn set(children: &mut BTreeSet<ChildId>, child: ChildId, is_in: bool) {
    if is_in {
        children.insert(child);
    } else {
        children.remove(&child);
    }
}
