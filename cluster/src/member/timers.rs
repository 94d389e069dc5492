//! What happens by itself as time passes.

use core::time::Duration;

use ipsec::time::Instant;

use super::Member;
use super::dvipa::Dvipa;
use super::seam::Action;
use super::shared::Shared;
use crate::id::MemberId;
use crate::message::{Body, Message};

/// How often what is kept for SAs is looked through: repeated grants, repeated reports.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often targets say what they serve though nothing has changed.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// How often the coupling facility is looked at though nothing is wanted of it.
const FACILITY_EVERY: Duration = Duration::from_secs(5);

/// The timers of a member.
pub(super) struct Timers {
    look_at: Instant,
    pulse_at: Instant,
    report_at: Instant,
    facility_at: Instant,
    /// Whether another incarnation is being drawn.
    pub is_being_reborn: bool,
    /// When that is tried again, after a record that cannot be understood.
    pub reborn_again_at: Option<Instant>,
}

impl Timers {
    pub fn new(now: Instant) -> Timers {
        Timers {
            look_at: now,
            pulse_at: now,
            report_at: now,
            facility_at: now + FACILITY_EVERY,
            is_being_reborn: false,
            reborn_again_at: None,
        }
    }
}

impl Member {
    /// When [`Member::handle_timeout`] is to be called, if nothing else is before.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let Timers { look_at, pulse_at, report_at, facility_at, .. } = self.timers;
        let timers = [look_at, pulse_at, report_at, facility_at];
        let parts = self.dvipas.values().filter_map(Dvipa::next_timeout);
        let timers = timers.into_iter().chain(self.timers.reborn_again_at);
        timers.chain(parts).chain(self.cx.jobs.next_timeout()).min().unwrap_or(Instant::MAX)
    }

    pub(super) fn tick(&mut self) {
        let now = self.cx.now;
        if self.timers.pulse_at <= now {
            // Three in each time after which silence is loss, so that two may be late.
            self.timers.pulse_at = now + self.cx.settings.silence / 3;
            let load_permille = self.cx.load_permille;
            let members: Vec<_> = self.cx.links.keys().copied().collect();
            for member in members {
                self.cx.send(member, &Message::Pulse { load_permille });
            }
        }
        if self.timers.report_at <= now {
            self.timers.report_at = now + REPORT_EVERY;
            self.dvipas.values_mut().for_each(|dvipa| dvipa.is_report_due = true);
        }
        if self.timers.reborn_again_at.take_if(|at| *at <= now).is_some() {
            self.timers.is_being_reborn = false;
        }
        if self.timers.facility_at <= now {
            self.timers.facility_at = now + FACILITY_EVERY;
            for (&address, dvipa) in &self.dvipas {
                self.cx.jobs.look(address, dvipa.own.as_ref().map(|own| own.fence));
            }
        }
        if self.timers.look_at <= now {
            self.timers.look_at = now + LOOK_EVERY;
            for dvipa in self.dvipas.values_mut() {
                dvipa.look_through(&mut self.cx);
            }
        }
    }
}

impl Dvipa {
    fn next_timeout(&self) -> Option<Instant> {
        let own = self.own.as_ref().and_then(|own| {
            let verify = own.targets.values().filter_map(|target| target.verify_at).min();
            let settle = own.is_settling().then_some(own.settled_by);
            let release = own.next_release();
            [verify, settle, release].into_iter().flatten().min()
        });
        [own, self.stopped.next_timeout().filter(|_| self.is_acknowledged), self.ask_again_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is looked through now and then.
    fn look_through(&mut self, cx: &mut Shared) {
        self.cache.return_idle(cx, self.settings.address);
        self.report_use(cx);
        self.listen_to_owner(cx);
        if let Some(own) = &mut self.own {
            own.find_losses(cx);
            own.settle_ledgers(cx);
            own.rekey_sealed(cx);
            own.forget_lost(cx);
            own.wait_for_siblings(cx);
        }
    }

    /// Says what SAs have carried here, as far as it is due.
    pub fn report_use(&mut self, cx: &mut Shared) {
        let Some(owner) = self.owner.filter(|_| self.is_acknowledged && self.cache.is_busy()) else { return };
        if !cx.reaches(owner) {
            return;
        }
        let reports = self.cache.reports(cx.now);
        for some in reports.chunks(crate::message::LIST_MAX) {
            cx.say(owner, self.address(), self.epoch, Body::Use(some.to_vec()));
        }
    }

    /// Sends nothing more when the owner has been silent for long: another may count on it.
    fn listen_to_owner(&mut self, cx: &mut Shared) {
        let Some(owner) = self.owner else { return };
        let me: MemberId = cx.me();
        let patience = cx.settings.owner_silence;
        let is_mute = owner != me && cx.links.get(&owner).is_none_or(|link| link.is_silent(cx.now, patience));
        if core::mem::replace(&mut self.is_muted, is_mute) != is_mute {
            cx.actions.push(Action::Mute { dvipa: self.address(), is_mute });
        }
    }

    /// Everything that follows from what has just happened.
    pub fn settle(&mut self, cx: &mut Shared) {
        self.ask_again(cx);
        if let Some(own) = &mut self.own {
            let members: Vec<_> = own.targets.keys().copied().collect();
            for member in members {
                own.bring_level(cx, member);
            }
            own.settle_new_ledgers(cx);
            own.release(cx);
            own.tend_records(cx);
            own.verify(cx);
            own.let_go(cx);
            own.end_settling(cx);
            own.tend_numbers(cx);
        }
        self.speak_to_owner(cx);
    }

    /// A target's acknowledgements, freeings and reports, as far as they are due.
    fn speak_to_owner(&mut self, cx: &mut Shared) {
        let Some(owner) = self.owner.filter(|&owner| self.is_acknowledged && cx.reaches(owner)) else { return };
        let (dvipa, epoch) = (self.address(), self.epoch);
        if let Some(body) = self.cache.acknowledgement() {
            cx.say(owner, dvipa, epoch, body);
        }
        if self.is_target(cx.me()) {
            while let Some(body) = self.stopped.next(cx.now) {
                cx.say(owner, dvipa, epoch, body);
            }
            if core::mem::take(&mut self.is_report_due)
                && let Some(ready) = self.ready.clone()
            {
                cx.say(owner, dvipa, epoch, Body::Report { ready, active: self.active.clone() });
            }
        }
        for (target, on) in core::mem::take(&mut self.wishes) {
            cx.say(owner, dvipa, epoch, Body::DrainWanted { target, on });
        }
    }
}
