//! The owner's end of the sequencer: one counter, given out a burst at a time.
//!
//! **Purpose.** Several appliances send on one SA whose client keeps a replay window of W packets. The numbers *in
//! flight*, from the oldest that its sender has not confirmed to the newest that was granted, span at most W/2, over
//! all senders. So a packet may be overtaken by W/2 numbers on the way to its confirmation and by another W/2 after it
//! before a client could refuse it.
//!
//! **Promises.** A number is granted once. A request that comes twice gets the same numbers again, so that a lost grant
//! costs a repeat and no more. Numbers that are not confirmed in time are lost, never granted again: a dead sender
//! holds the others up once, for that time. Nothing is granted at or above the mark.
//!
//! **What it never does.** It does not judge who may ask: frames of non-members and stale epochs end before it.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::VecDeque;

use ipsec::time::Instant;

use super::{Grant, Request, RoundTrip, Times, budget, ceiling_packets_per_second};
use crate::id::{Incarnation, MemberId};

/// Most senders that one SA's dispenser remembers.
pub const SENDERS_MAX: usize = 64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Which member.
    pub member: MemberId,
    /// Which start of it. A new start numbers its requests anew.
    pub incarnation: Incarnation,
}

/// Gives out the numbers of one SA.
#[derive(Debug)]
pub struct Dispenser {
    times: Times,
    window_packets: u32,
    /// The next number.
    next: u64,
    /// What may still be on its way to a packet, by number.
    in_flight: VecDeque<InFlight>,
    senders: Vec<Known>,
    /// Who waits for numbers, longest first. Each is in `senders`.
    waiting: VecDeque<MemberId>,
    round_trip: RoundTrip,
    counters: DispenserCounters,
}

/// What a dispenser counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DispenserCounters {
    /// Numbers granted.
    pub granted: u64,
    /// Numbers that nobody confirmed in time.
    pub abandoned: u64,
    /// Requests that came again, and were answered as before.
    pub repeated: u64,
    /// Requests that a later one, or a later start of the sender, had overtaken.
    pub stale: u64,
    /// Requests of more senders than there can be.
    pub refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    first: u64,
    count: u16,
    sender: Sender,
    granted_at: Instant,
    is_repeated: bool,
}

/// A sender's latest request, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Known {
    sender: Sender,
    request: Request,
    heard_at: Instant,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Waiting,
    Given(Grant),
}

impl Dispenser {
    /// For a client with a window of so many packets. `first` is the first number that nobody can have used: 1 at an
    /// SA's birth, else its durable mark.
    #[must_use]
    pub fn new(window_packets: u32, first: u64, times: Times) -> Self {
        Self {
            times,
            window_packets,
            next: first.max(1),
            in_flight: VecDeque::new(),
            senders: Vec::new(),
            waiting: VecDeque::new(),
            round_trip: RoundTrip::default(),
            counters: DispenserCounters::default(),
        }
    }

    /// Takes a request, and returns what to answer at once. Call [`poll_grant`](Self::poll_grant) after it until that
    /// has no more: a request also confirms, which makes room for others. Nothing at or above `mark` is granted.
    #[must_use]
    pub fn handle_request(&mut self, now: Instant, sender: Sender, request: Request, mark: u64) -> Option<Grant> {
        self.abandon(now);
        let known = self.senders.iter().position(|known| known.sender.member == sender.member);
        let Some(index) = known else {
            return self.meet(now, sender, request).then(|| self.answer(now, sender, mark)).flatten();
        };
        let known = self.senders[index];
        let order = (sender.incarnation, request.number).cmp(&(known.sender.incarnation, known.request.number));
        match order {
            core::cmp::Ordering::Less => {
                self.counters.stale += 1;
                return None;
            }
            core::cmp::Ordering::Equal => return self.handle_repeat(now, index, request, mark),
            core::cmp::Ordering::Greater => {}
        }
        // A new start confirms nothing of the one before: what that held is lost, after its time.
        if known.sender == sender {
            self.confirm(now, sender, request.want > 0);
        }
        self.senders[index] = Known { sender, request, heard_at: now, answer: Answer::Waiting };
        self.queue(sender.member, request.want);
        self.answer(now, sender, mark)
    }

    /// The next grant to someone who waited for it.
    #[must_use]
    pub fn poll_grant(&mut self, now: Instant, mark: u64) -> Option<(Sender, Grant)> {
        self.abandon(now);
        while let Some(&member) = self.waiting.front() {
            let known = self.senders.iter().position(|known| known.sender.member == member);
            // Who has asked no more for so long is gone, and would hold the others up.
            let index = known.filter(|&index| now < self.senders[index].heard_at + self.times.abandon_after);
            let Some(index) = index else {
                self.waiting.pop_front();
                continue;
            };
            return self.grant(now, index, mark).map(|grant| (self.senders[index].sender, grant));
        }
        None
    }

    /// When [`poll_grant`](Self::poll_grant) may have something though no request comes.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let front = self.in_flight.front()?;
        (!self.waiting.is_empty()).then(|| front.granted_at + self.times.abandon_after)
    }

    /// A member is gone. What it holds is lost after its time; what it sent may still be under way.
    pub fn forget(&mut self, member: MemberId) {
        self.waiting.retain(|&waiting| waiting != member);
        self.senders.retain(|known| known.sender.member != member);
    }

    /// The first number that was never granted.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The oldest number that may still be unsent; [`next_number`](Self::next_number) if there is none.
    #[must_use]
    pub fn oldest_in_flight(&self) -> u64 {
        self.in_flight.front().map_or(self.next, |oldest| oldest.first)
    }

    /// How many senders wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The smoothed time from a grant to its confirmation by the next request, once one was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.0
    }

    /// The most packets a second that all senders together can send this way; `None` before anything was measured.
    #[must_use]
    pub fn ceiling_packets_per_second(&self) -> Option<u64> {
        self.round_trip.0.map(|round_trip| ceiling_packets_per_second(self.window_packets, round_trip))
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &DispenserCounters {
        &self.counters
    }

    /// Remembers a new sender, in place of one that holds nothing and wants nothing if there are too many.
    fn meet(&mut self, now: Instant, sender: Sender, request: Request) -> bool {
        if self.senders.len() >= SENDERS_MAX {
            let idle = |known: &&Known| {
                !self.waiting.contains(&known.sender.member)
                    && !self.in_flight.iter().any(|held| held.sender == known.sender)
            };
            let oldest = self.senders.iter().filter(idle).min_by_key(|known| known.heard_at).map(|known| known.sender);
            let Some(oldest) = oldest else {
                self.counters.refused += 1;
                return false;
            };
            self.senders.retain(|known| known.sender != oldest);
        }
        self.senders.push(Known { sender, request, heard_at: now, answer: Answer::Waiting });
        self.queue(sender.member, request.want);
        true
    }

    /// The answer to a sender's latest request: an acknowledgement, or numbers if it is its turn.
    fn answer(&mut self, now: Instant, sender: Sender, mark: u64) -> Option<Grant> {
        let index = self.senders.iter().position(|known| known.sender == sender)?;
        let request = self.senders[index].request;
        if request.want == 0 {
            let grant = Grant { number: request.number, first: 0, count: 0 };
            self.senders[index].answer = Answer::Given(grant);
            return Some(grant);
        }
        if self.waiting.front() == Some(&sender.member) { self.grant(now, index, mark) } else { None }
    }

    /// The same request again: the same answer again, as long as its numbers are not counted as lost.
    fn handle_repeat(&mut self, now: Instant, index: usize, request: Request, mark: u64) -> Option<Grant> {
        self.counters.repeated += 1;
        self.senders[index].heard_at = now;
        let sender = self.senders[index].sender;
        match self.senders[index].answer {
            Answer::Waiting => {
                self.senders[index].request = request;
                self.queue(sender.member, request.want);
                self.answer(now, sender, mark)
            }
            Answer::Given(grant) if grant.count == 0 => Some(grant),
            Answer::Given(grant) => {
                let held = self.in_flight.iter_mut().find(|held| held.first == grant.first)?;
                held.is_repeated = true;
                Some(grant)
            }
        }
    }

    fn queue(&mut self, member: MemberId, want: u16) {
        if want == 0 {
            self.waiting.retain(|&waiting| waiting != member);
        } else if !self.waiting.contains(&member) {
            self.waiting.push_back(member);
        }
    }

    /// Grants to the first of those who wait, whose place among the senders is `index`.
    fn grant(&mut self, now: Instant, index: usize, mark: u64) -> Option<Grant> {
        let budget = budget(self.window_packets);
        let room = budget.saturating_sub(self.next - self.oldest_in_flight());
        let Known { sender, request, .. } = self.senders[index];
        let want = u64::from(request.want);
        // A fair share, but no crumbs: each grant costs two frames.
        let crumb = (budget / 4).max(1);
        let active = (self.waiting.len() + self.in_flight.len()) as u64;
        let share = want.min((budget / active.max(1)).max(crumb));
        if room < share.min(crumb) {
            return None;
        }
        let count = share.min(room).min(mark.saturating_sub(self.next)).min(u64::from(u16::MAX)) as u16;
        if count == 0 {
            return None;
        }
        let grant = Grant { number: request.number, first: self.next, count };
        self.waiting.pop_front();
        self.next += u64::from(count);
        self.counters.granted += u64::from(count);
        self.in_flight.push_back(InFlight { first: grant.first, count, sender, granted_at: now, is_repeated: false });
        self.senders[index].answer = Answer::Given(grant);
        Some(grant)
    }

    /// Whatever this sender held was used or thrown away. `is_busy` if it wants more at once, so that the time it took
    /// is a round trip.
    fn confirm(&mut self, now: Instant, sender: Sender, is_busy: bool) {
        let newest = self.in_flight.iter().rfind(|held| held.sender == sender);
        let Some(newest) = newest else { return };
        if is_busy && !newest.is_repeated {
            self.round_trip.measured(now.saturating_since(newest.granted_at));
        }
        self.in_flight.retain(|held| held.sender != sender);
    }

    /// Counts as lost what was granted too long ago. Only the oldest can be in anyone's way.
    fn abandon(&mut self, now: Instant) {
        while let Some(held) = self.in_flight.front().filter(|held| now >= held.granted_at + self.times.abandon_after) {
            self.counters.abandoned += u64::from(held.count);
            self.in_flight.pop_front();
        }
    }
}
