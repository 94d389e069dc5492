//! Owning an address: asking who does, claiming it, reading what is there, voiding it, and beginning.

use core::net::IpAddr;

use super::dvipa::Dvipa;
use super::jobs::Job;
use super::notice::Notice;
use super::owner::Owner;
use super::seam::Action;
use super::shared::Shared;
use crate::facility::Outcome;
use crate::facility::claim::{Claim, Claimed, Fence, OwnerSeen, Reading, Refused, Stale, judge_forgotten};
use crate::facility::record::RecordError;
use crate::message::Body;

impl Dvipa {
    /// Begins to claim the address, if this member is the first who may.
    pub fn begin(&mut self, cx: &mut Shared) {
        if self.settings.owners.first() == Some(&cx.me()) {
            cx.jobs.push(Job::AskOwner(self.address()));
        }
    }

    /// Who owns it is known: it is claimed over them.
    pub fn owner_seen(&mut self, cx: &mut Shared, outcome: &Outcome) {
        match OwnerSeen::read(self.address(), outcome) {
            Ok(seen) => self.claim_over(cx, seen),
            Err(error) => self.unreadable(cx, &error),
        }
    }

    /// Whether an address is still owned as its owner believes; of others' addresses nothing follows.
    pub fn looked(&self, believed: Option<Fence>, outcome: &Outcome) -> Result<(), Refused> {
        let Some(fence) = believed else { return Ok(()) };
        let found = OwnerSeen::read(self.address(), outcome)?.record;
        if found == Some(fence.record) {
            return Ok(());
        }
        Err(Stale { address: self.address(), ours: fence.record, found }.into())
    }

    fn claim_over(&mut self, cx: &mut Shared, seen: OwnerSeen) {
        let is_successor = seen.record.is_some_and(|it| it.owner == cx.me() && it.incarnation > cx.start);
        if is_successor {
            let what = "a later start of this member owns it: another appliance runs with the same number".to_owned();
            cx.notice(Notice::Facility { dvipa: Some(self.address()), what });
            return;
        }
        if seen.next_epoch() <= self.epoch {
            // Epochs that members have seen must not come again; whoever watches the facility raises them.
            let what = format!("the coupling facility is older than epoch {}, which was seen; waiting", self.epoch);
            cx.notice(Notice::Facility { dvipa: Some(self.address()), what });
            self.ask_again_at = Some(cx.now + ASK_AGAIN_AFTER);
            return;
        }
        let claim = Claim::new(self.address(), cx.me(), cx.start, seen);
        cx.jobs.push(Job::Claim(self.address(), claim));
    }

    pub fn claim_judged(&mut self, cx: &mut Shared, claim: &Claim, outcome: &Outcome) {
        match claim.judge(outcome) {
            Ok(Claimed::Owned(fence)) => cx.jobs.push(Job::Read(fence, Box::new(Reading::new(fence)))),
            Ok(Claimed::Lost(seen)) => self.claim_over(cx, seen),
            Err(error) => self.unreadable(cx, &error),
        }
    }

    /// A page of what there is of the address.
    pub fn page_read(&mut self, cx: &mut Shared, fence: Fence, mut reading: Box<Reading>, outcome: &Outcome) {
        match reading.take(outcome) {
            Ok(None) => cx.jobs.push(Job::Read(fence, reading)),
            Ok(Some(held)) => {
                self.found = Some(Box::new(held));
                cx.jobs.push(Job::ForgetAll(fence));
            }
            Err(refused) => self.claim_refused(cx, &refused),
        }
    }

    /// What there was is void: the epoch begins.
    pub fn forgotten_all(&mut self, cx: &mut Shared, fence: Fence, outcome: &Outcome) {
        match judge_forgotten(&fence, outcome) {
            Ok(()) => self.own_from(cx, fence),
            Err(refused) => self.claim_refused(cx, &refused),
        }
    }

    fn own_from(&mut self, cx: &mut Shared, fence: Fence) {
        let held = self.found.take().map(|held| *held).unwrap_or_default();
        let (me, epoch, dvipa) = (cx.me(), fence.record.epoch, self.address());
        self.disown(cx, "it is claimed anew");
        self.begin_epoch(cx, me, epoch);
        // This member was not there while it did not own the address: it awaits all but itself.
        let awaited = held.awaited().filter(|(member, _)| *member != me).collect();
        self.own = Some(Owner::new(fence, &self.settings, awaited, cx.now, cx.now + cx.settings.silence));
        cx.actions.push(Action::Own { dvipa, epoch });
        cx.actions.fabric_changed();
        cx.tables_changed();
        cx.notice(Notice::Owned { dvipa, epoch, void: held.sas.len() });
        for member in self.members() {
            cx.say(member, dvipa, epoch, Body::Claimed);
        }
    }

    /// A transaction of the owner's was refused.
    pub fn job_refused(&mut self, cx: &mut Shared, fence: &Fence, refused: &Refused) {
        match refused {
            Refused::Stale(stale) => {
                if self.own.as_ref().is_some_and(|own| own.fence == *fence) {
                    self.disown(cx, &stale.to_string());
                    self.begin(cx);
                }
            }
            Refused::Record(error) => self.unreadable(cx, error),
        }
    }

    fn claim_refused(&mut self, cx: &mut Shared, refused: &Refused) {
        match refused {
            // Somebody else was there meanwhile, or the facility went back: from the beginning.
            Refused::Stale(_) => self.begin(cx),
            Refused::Record(error) => self.unreadable(cx, error),
        }
    }

    /// A record that says nothing to this program: without it nothing may be decided.
    fn unreadable(&mut self, cx: &mut Shared, error: &RecordError) {
        cx.notice(Notice::Facility { dvipa: Some(self.address()), what: error.to_string() });
        self.ask_again_at = Some(cx.now + ASK_AGAIN_AFTER);
    }

    /// Asks again what could not be understood.
    pub fn ask_again(&mut self, cx: &mut Shared) {
        if self.ask_again_at.is_some_and(|at| at <= cx.now) {
            self.ask_again_at = None;
            if self.own.is_none() {
                self.begin(cx);
            }
        }
    }
}

/// How long a record that cannot be understood is left alone: an operator has to do something about it.
pub(super) const ASK_AGAIN_AFTER: core::time::Duration = core::time::Duration::from_secs(5);

/// The address that a job is about.
pub(super) fn address_of(job: &Job) -> Option<IpAddr> {
    match job {
        Job::AskOwner(address) | Job::Look(address, _) | Job::Claim(address, _) => Some(*address),
        Job::Rebirth(_) => None,
        Job::Read(..)
        | Job::ForgetAll(_)
        | Job::Admit(_)
        | Job::Birth(_)
        | Job::Deaths(..)
        | Job::Loss(_)
        | Job::Drained(..)
        | Job::ForgetStart(..)
        | Job::Marks(..) => job.fence().map(|fence| fence.address),
    }
}
