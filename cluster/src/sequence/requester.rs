//! A sender's end of the sequencer: when it asks for numbers, and which answers it believes.
//!
//! One [`Requester`] stands beside each outbound SA whose numbers come from the owner, on the SA's home core. The core
//! calls [`poll`](Requester::poll) while packets wait or a timeout has passed, and gives what
//! [`handle_grant`](Requester::handle_grant) returns to the packets that wait **before it polls again**: the next
//! request says that they have been sent. The owner's own core does the same, without frames.

use core::time::Duration;

use ipsec::time::Instant;

use super::{Grant, Request, RoundTrip, Times};

/// Asks for the numbers of one SA.
#[derive(Debug)]
pub struct Requester {
    times: Times,
    /// The latest request's.
    number: u64,
    state: State,
    /// Nothing below this is taken: it may have been used.
    above: u64,
    round_trip: RoundTrip,
    expired: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The owner knows that nothing is held here.
    Quiet,
    /// A request is under way. With `want` 0 it only confirms.
    Asking { want: u16, first_sent: Instant, last_sent: Instant, is_repeated: bool },
    /// The last numbers are used or thrown away, and the owner does not know it yet.
    Done { since: Instant },
}

/// Consecutive sequence numbers, to be used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// How many; may be 0.
    pub count: u16,
}

/// Why a grant is not believed. None of these is an error of the network's: such a grant is late, or comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GrantRefused {
    /// It answers no request that is under way.
    #[error("the grant answers no request that is under way")]
    NotAsked,
    /// The request is so old that the owner may count these numbers as lost.
    #[error("the grant comes too late")]
    TooLate,
    /// It grants more than was asked for, or nothing.
    #[error("the grant is not of what was asked for")]
    NotAsAsked,
    /// It grants numbers that may have been used.
    #[error("the grant is of numbers that may have been used")]
    NotAbove,
}

impl Requester {
    /// For an SA that was just installed. `now` makes its requests newer than those of any requester that this start of
    /// the appliance had for the same SA before.
    #[must_use]
    pub fn new(now: Instant, times: Times) -> Self {
        Self {
            times,
            number: now.as_nanos(),
            state: State::Quiet,
            above: 1,
            round_trip: RoundTrip::default(),
            expired: 0,
        }
    }

    /// What to send to the owner now, if anything. `waiting` packets wait for numbers.
    #[must_use]
    pub fn poll(&mut self, now: Instant, waiting: u16) -> Option<Request> {
        match self.state {
            State::Quiet if waiting == 0 => None,
            State::Quiet => self.ask(now, waiting),
            State::Done { since } if waiting == 0 && now < since + self.times.confirm_after => None,
            State::Done { .. } => self.ask(now, waiting),
            State::Asking { want: 0, .. } if waiting > 0 => self.ask(now, waiting),
            State::Asking { first_sent, .. } if now >= first_sent + self.times.use_within => self.give_up(now, waiting),
            State::Asking { last_sent, .. } if now < last_sent + self.repeat_after() => None,
            State::Asking { want, first_sent, .. } => {
                self.state = State::Asking { want, first_sent, last_sent: now, is_repeated: true };
                Some(Request { number: self.number, want })
            }
        }
    }

    /// Takes the owner's answer. What it returns must be given to packets that wait, and sent, before the next poll;
    /// there are never more than `waiting`.
    ///
    /// # Errors
    /// [`GrantRefused`]; nothing has changed then.
    pub fn handle_grant(&mut self, now: Instant, grant: Grant, waiting: u16) -> Result<Numbers, GrantRefused> {
        let State::Asking { want, first_sent, last_sent, is_repeated } = self.state else {
            return Err(GrantRefused::NotAsked);
        };
        if grant.number != self.number {
            return Err(GrantRefused::NotAsked);
        }
        if now >= first_sent + self.times.use_within {
            return Err(GrantRefused::TooLate);
        }
        if grant.count > want || (grant.count == 0 && want > 0) {
            return Err(GrantRefused::NotAsAsked);
        }
        if want == 0 {
            self.state = State::Quiet;
            return Ok(Numbers { first: 0, count: 0 });
        }
        let past_end = grant.first.checked_add(u64::from(grant.count)).ok_or(GrantRefused::NotAsAsked)?;
        if grant.first < self.above {
            return Err(GrantRefused::NotAbove);
        }
        if !is_repeated {
            self.round_trip.measured(now.saturating_since(last_sent));
        }
        self.above = past_end;
        self.state = State::Done { since: now };
        Ok(Numbers { first: grant.first, count: grant.count.min(waiting) })
    }

    /// When to poll again though no packet waits and none comes.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Quiet => None,
            State::Done { since } => Some(since + self.times.confirm_after),
            State::Asking { first_sent, last_sent, .. } => {
                Some((last_sent + self.repeat_after()).min(first_sent + self.times.use_within))
            }
        }
    }

    /// The smoothed time from a request to its grant, once one was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.0
    }

    /// How many requests were given up for want of an answer.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }

    fn ask(&mut self, now: Instant, want: u16) -> Option<Request> {
        self.number = self.number.saturating_add(1);
        self.state = State::Asking { want, first_sent: now, last_sent: now, is_repeated: false };
        Some(Request { number: self.number, want })
    }

    /// The owner counts the request's numbers as lost or will; a new request says so at once. An owner that does not
    /// even hear a confirmation will find out by itself.
    fn give_up(&mut self, now: Instant, waiting: u16) -> Option<Request> {
        self.expired += 1;
        if let (State::Asking { want: 0, .. }, 0) = (self.state, waiting) {
            self.state = State::Quiet;
            return None;
        }
        self.ask(now, waiting)
    }

    fn repeat_after(&self) -> Duration {
        let Times { repeat_min, repeat_max, .. } = self.times;
        self.round_trip
            .0
            .map_or(repeat_max, |round_trip| (round_trip * 4).clamp(repeat_min, repeat_max.max(repeat_min)))
    }
}
