//! What a member wants of the coupling facility: transactions that are asked again until they are answered.
//!
//! Every transaction may be carried out twice ([`crate::facility`]), so one of which nothing is known is simply repeated.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use ipsec::time::Instant;

use crate::facility::births::{CreateSa, DeleteSas, RaiseMarks};
use crate::facility::claim::{Claim, Fence, Reading, ask_owner, forget_all};
use crate::facility::members::{AdmitTarget, RecordDrained, RecordLoss, forget_start};
use crate::facility::start::Start;
use crate::facility::{Outcome, Reply, Request};
use crate::id::{Incarnation, MemberId};

/// Most transactions that are under way at once; more wait.
const ASKED_MAX: usize = 64;
/// Most transactions in all; births beyond are refused.
pub(super) const JOBS_MAX: usize = 4_096;
/// After this long one of which nothing is known is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// After this long one that was not answered at all is.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One transaction, or several that follow each other.
#[derive(Debug)]
pub(super) enum Job {
    /// Who owns it?
    AskOwner(IpAddr),
    /// Is all as it was? Asked now and then: so it shows when the facility falls silent, or goes back in time, though
    /// nothing is wanted of it. With what an owner believes of the address.
    Look(IpAddr, Option<Fence>),
    /// It is ours.
    Claim(IpAddr, Claim),
    /// What is there of it?
    Read(Fence, Box<Reading>),
    /// All of that is void.
    ForgetAll(Fence),
    /// A start of a target.
    Admit(AdmitTarget),
    /// A new SA.
    Birth(Box<CreateSa>),
    /// SAs that are gone.
    Deaths(Fence, DeleteSas),
    /// A lost target.
    Loss(RecordLoss),
    /// A target that left: of which address and member, and which part of how many.
    Drained(Fence, MemberId, Incarnation, RecordDrained),
    /// A start that nothing depends on any more.
    ForgetStart(Fence, MemberId, Incarnation),
    /// Higher marks, with the ticket of who asks for them.
    Marks(Fence, u64, RaiseMarks),
    /// Another incarnation for this member.
    Rebirth(Start),
}

impl Job {
    fn request(&self, id: u64) -> Option<Request> {
        Some(match self {
            Job::AskOwner(address) | Job::Look(address, _) => ask_owner(id, *address),
            Job::Claim(_, claim) => claim.request(id),
            Job::Read(_, reading) => reading.request(id)?,
            Job::ForgetAll(fence) => forget_all(id, fence),
            Job::Admit(admit) => admit.request(id),
            Job::Birth(create) => create.request(id),
            Job::Deaths(_, delete) => delete.request(id),
            Job::Loss(loss) => loss.request(id),
            Job::Drained(_, _, _, part) => part.request(id),
            Job::ForgetStart(fence, member, incarnation) => forget_start(id, fence, *member, *incarnation),
            Job::Marks(_, _, raise) => raise.request(id),
            Job::Rebirth(start) => start.request(id),
        })
    }

    /// What is done instead of repeating it. All that an owner forgets at its claim may be forgotten late, when there is
    /// new in its place: so nothing begins before that is answered, and where no answer comes, a new claim makes a late
    /// one void.
    fn begin_again(&mut self) {
        if let Job::ForgetAll(fence) = self {
            *self = Job::AskOwner(fence.address);
        }
    }

    /// In whose name it is asked, if it is an owner who asks.
    pub fn fence(&self) -> Option<Fence> {
        match self {
            Job::AskOwner(_) | Job::Claim(..) | Job::Rebirth(_) => None,
            Job::Look(_, fence) => *fence,
            Job::Read(fence, _)
            | Job::ForgetAll(fence)
            | Job::Deaths(fence, _)
            | Job::Drained(fence, ..)
            | Job::ForgetStart(fence, ..)
            | Job::Marks(fence, ..) => Some(*fence),
            Job::Admit(admit) => Some(admit.fence),
            Job::Birth(create) => Some(create.fence),
            Job::Loss(loss) => Some(loss.seal.fence),
        }
    }
}

struct Pending {
    job: Job,
    /// When it is asked again, unless it is answered before; `None` while it waits for its turn.
    again_at: Option<Instant>,
}

/// All that a member wants of the coupling facility.
#[derive(Default)]
pub(super) struct Jobs {
    last_id: u64,
    pending: BTreeMap<u64, Pending>,
    /// Those whose turn comes, oldest first.
    waiting: VecDeque<u64>,
    /// Since when the facility has not answered, if the last that was heard is that it does not.
    pub unavailable_since: Option<Instant>,
    /// The revision that it last told.
    pub revision: u64,
}

impl Jobs {
    pub fn push(&mut self, job: Job) {
        self.last_id += 1;
        self.pending.insert(self.last_id, Pending { job, again_at: None });
        self.waiting.push_back(self.last_id);
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Looks whether all is as it was, unless that is being asked already.
    pub fn look(&mut self, dvipa: IpAddr, fence: Option<Fence>) {
        let is_it = |pending: &Pending| matches!(pending.job, Job::Look(address, _) if address == dvipa);
        if !self.pending.values().any(is_it) {
            self.push(Job::Look(dvipa, fence));
        }
    }

    /// The next request to be asked.
    pub fn poll(&mut self, now: Instant) -> Option<Request> {
        while self.pending.len() - self.waiting.len() < ASKED_MAX {
            let id = self.waiting.pop_front()?;
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            match pending.job.request(id) {
                Some(request) => {
                    pending.again_at = Some(now + ANSWER_WITHIN);
                    return Some(request);
                }
                None => _ = self.pending.remove(&id),
            }
        }
        None
    }

    /// Takes an answer: the transaction that was judged, unless it was answered before or nothing is known of it.
    pub fn answered(&mut self, now: Instant, reply: Reply) -> Option<(Job, Outcome)> {
        match reply.outcome {
            Ok(outcome) => {
                self.unavailable_since = None;
                self.revision = self.revision.max(outcome.revision);
                let pending = self.pending.remove(&reply.id)?;
                if pending.again_at.is_none() {
                    // A late answer to one that waits to be asked again.
                    self.waiting.retain(|&id| id != reply.id);
                }
                Some((pending.job, outcome))
            }
            Err(_) => {
                self.unavailable_since.get_or_insert(now);
                if let Some(pending) = self.pending.get_mut(&reply.id).filter(|pending| pending.again_at.is_some()) {
                    pending.again_at = Some(now + ASK_AGAIN_AFTER);
                    pending.job.begin_again();
                }
                None
            }
        }
    }

    /// Queues again what was not answered.
    pub fn timeout(&mut self, now: Instant) {
        for (&id, pending) in &mut self.pending {
            if pending.again_at.is_some_and(|at| at <= now) {
                pending.again_at = None;
                pending.job.begin_again();
                self.waiting.push_back(id);
            }
        }
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.pending.values().filter_map(|pending| pending.again_at).min()
    }

    /// Forgets marks that an owner asks for anew.
    pub fn forget_marks(&mut self, fence: &Fence) {
        self.retain(|job| !matches!(job, Job::Marks(other, ..) if other == fence));
    }

    /// Forgets what an owner wanted who is none any more.
    pub fn forget(&mut self, fence: &Fence) {
        self.retain(|job| job.fence() != Some(*fence));
    }

    fn retain(&mut self, keep: impl Fn(&Job) -> bool) {
        self.pending.retain(|_, pending| keep(&pending.job));
        let pending = &self.pending;
        self.waiting.retain(|id| pending.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::Unavailable;

    fn unavailable(id: u64) -> Reply {
        Reply { id, outcome: Err(Unavailable { why: "it sleeps".into() }) }
    }

    fn outcome(id: u64) -> Reply {
        Reply { id, outcome: Ok(Outcome { is_committed: true, records: vec![], revision: 7 }) }
    }

    #[test]
    fn what_is_not_known_is_asked_again_until_it_is_answered_once() {
        let mut jobs = Jobs::default();
        let start = Instant::from_secs(1);
        jobs.push(Job::AskOwner("10.0.0.1".parse().unwrap()));
        let first = jobs.poll(start).unwrap();
        assert!(jobs.poll(start).is_none(), "asked once");
        assert!(jobs.answered(start, unavailable(first.id)).is_none());
        assert_eq!(jobs.unavailable_since, Some(start));
        jobs.timeout(start);
        assert!(jobs.poll(start).is_none(), "not at once");
        let later = start + ASK_AGAIN_AFTER;
        jobs.timeout(later);
        assert_eq!(jobs.poll(later), Some(first.clone()));
        assert!(jobs.answered(later, outcome(first.id)).is_some());
        assert!(jobs.answered(later, outcome(first.id)).is_none(), "a second answer is of no consequence");
        assert_eq!((jobs.len(), jobs.unavailable_since, jobs.revision), (0, None, 7));
    }

    #[test]
    fn so_many_are_under_way_and_no_more() {
        let mut jobs = Jobs::default();
        for _ in 0..ASKED_MAX + 5 {
            jobs.push(Job::AskOwner("10.0.0.1".parse().unwrap()));
        }
        let asked: Vec<_> = core::iter::from_fn(|| jobs.poll(Instant::ZERO)).collect();
        assert_eq!(asked.len(), ASKED_MAX);
        jobs.answered(Instant::ZERO, outcome(asked[3].id));
        assert!(jobs.poll(Instant::ZERO).is_some());
        assert!(jobs.poll(Instant::ZERO).is_none());
    }
}
