//! One appliance's part in the cluster.
//!
//! **Purpose.** [`Member`] stands between XCF (messages of other members), the coupling facility (transactions), IKE and
//! the data path ([`Told`] in, [`Action`] out). Per DVIPA it is the owner, a target, or both; the owner speaks to itself
//! as a target by the same messages as to all others.
//!
//! **Promises.** A new SA is used by its peer only when its record stands, every core of the owner has it, and every
//! target that may be chosen has it. Floors rise before entries are forgotten, and entries are forgotten before their
//! target hears of it. A lost target's connections go to others only after its loss is recorded and every SA born before
//! is sealed. Nothing of a stale epoch is acted on. Everything kept for another member is bounded.
//!
//! **What it never does.** It touches no packet, reads no clock, opens no socket, and believes nobody dead for good: who
//! was believed lost comes back, empty.
//!
//! **Use.** Call the `handle_*` functions as things happen, and [`Member::handle_timeout`] at
//! [`Member::poll_timeout`]; after each call poll until nothing comes: actions in their order, requests, messages.

mod cache;
mod drain;
mod dvipa;
mod freeing;
mod jobs;
mod lifesizes;
mod link;
mod log;
mod loss;
mod notice;
mod numbers;
mod outbox;
mod owner;
mod ownership;
mod seam;
mod serving;
mod shadows;
mod shared;
mod stopped;
mod targets;
#[cfg(test)]
mod tests;
mod timers;
mod views;

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

use ipsec::iv::SenderNumber;
use ipsec::time::Instant;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::fabric::{Fabric, FabricMember};
use crate::facility::claim::Refused as FenceRefused;
use crate::facility::start::{Progress, Start};
use crate::facility::wrap::Sealer;
use crate::facility::{Outcome, Reply, Request};
use crate::id::{Incarnation, MemberId};
use crate::message::Message;

use dvipa::Dvipa;
use jobs::{Job, Jobs};
use link::{Link, Session};
use outbox::{Actions, LastFabric, Next, Outbox};
use shared::Shared;

pub use link::LinkEvent;
pub use notice::Notice;
pub use owner::Standing;
pub use seam::{
    Action, ActivePort, DvipaSettings, EntryKey, MemberSettings, NumberSource, SaUse, SequencePolicy, ServicePort,
    Settings, Told,
};
pub use shared::Refused;
pub use views::{DvipaView, LifesizeView, MemberView, ShadowView, TargetView};

/// One appliance's part in the cluster.
pub struct Member {
    cx: Shared,
    dvipas: BTreeMap<IpAddr, Dvipa>,
    last_fabric: LastFabric,
    timers: timers::Timers,
    rng: ChaCha12Rng,
}

impl Member {
    /// A member that has just started as `incarnation`, which was drawn for this start, with the sealer made of it.
    /// `senders` is where the cluster's sender counter stood then. `seed` is random.
    ///
    /// It begins at once: with the first polls it gives its fabric and asks the facility for what it may own.
    #[must_use]
    pub fn new(
        now: Instant,
        settings: Settings,
        incarnation: Incarnation,
        senders: SenderNumber,
        sealer: Sealer,
        seed: [u8; 32],
    ) -> Member {
        let others = settings.members.iter().map(|member| member.id).filter(|&id| id != settings.me);
        let links = others.map(|id| (id, Link::default())).collect();
        let has_part =
            |dvipa: &&DvipaSettings| dvipa.owners.contains(&settings.me) || dvipa.targets.contains(&settings.me);
        let dvipas: BTreeMap<_, _> =
            settings.dvipas.iter().filter(has_part).map(|dvipa| (dvipa.address, Dvipa::new(dvipa.clone()))).collect();
        let cx = Shared {
            settings,
            incarnation,
            start: incarnation,
            now,
            links,
            outbox: Outbox::default(),
            loopback: VecDeque::new(),
            actions: Actions::default(),
            jobs: Jobs::default(),
            ticket: 0,
            senders,
            load_permille: 0,
            sealer,
            notices: VecDeque::new(),
            disconnected: Vec::new(),
            is_expelled: false,
            are_tables_stale: false,
        };
        let mut member = Member {
            cx,
            dvipas,
            last_fabric: LastFabric::default(),
            timers: timers::Timers::new(now),
            rng: ChaCha12Rng::from_seed(seed),
        };
        member.cx.actions.fabric_changed();
        for dvipa in member.dvipas.values_mut() {
            dvipa.begin(&mut member.cx);
        }
        member
    }

    /// A session with another member is up, or down.
    pub fn handle_link(&mut self, now: Instant, member: MemberId, event: LinkEvent) {
        self.cx.now = self.cx.now.max(now);
        let Some(link) = self.cx.links.get_mut(&member) else { return };
        let had_session = link.session.take().is_some();
        if let LinkEvent::Up { incarnation, version } = event {
            link.session = Some(Session { incarnation, version });
            link.heard_at = Some(self.cx.now);
        }
        self.cx.outbox.clear(member);
        for dvipa in self.dvipas.values_mut() {
            if had_session {
                dvipa.link_down(&mut self.cx, member);
            }
            if let LinkEvent::Up { incarnation, .. } = event {
                dvipa.link_up(&mut self.cx, member, incarnation);
            }
        }
        self.settle();
    }

    /// A message of another member, whole and in order.
    ///
    /// # Errors
    /// [`Refused`]: nothing came of it. Where [`Refused::ends_session`] says so the session is ended here, and an
    /// [`Action::Disconnect`] says so too.
    pub fn handle_message(&mut self, now: Instant, from: MemberId, bytes: &[u8]) -> Result<(), Refused> {
        self.cx.now = self.cx.now.max(now);
        let handled = self.message(from, bytes);
        if let Err(refused) = &handled {
            if let Some(link) = self.cx.links.get_mut(&from) {
                link.refused += 1;
            }
            if refused.ends_session() {
                self.cx.disconnect(from, "it sent what cannot be taken");
            }
        }
        self.settle();
        handled
    }

    /// The appliance says something of its own.
    pub fn handle_told(&mut self, now: Instant, told: Told) {
        self.cx.now = self.cx.now.max(now);
        self.told(told);
        self.settle();
    }

    /// The coupling facility has answered, or does not.
    pub fn handle_facility(&mut self, now: Instant, reply: Reply) {
        self.cx.now = self.cx.now.max(now);
        if let Some((job, outcome)) = self.cx.jobs.answered(self.cx.now, reply) {
            self.judged(job, &outcome);
        }
        self.settle();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.cx.now = self.cx.now.max(now);
        self.cx.jobs.timeout(self.cx.now);
        self.tick();
        self.settle();
    }

    /// The next message for another member.
    pub fn poll_message(&mut self) -> Option<(MemberId, Zeroizing<Vec<u8>>)> {
        let (member, message) = self.cx.outbox.pop()?;
        self.go_on(member);
        Some((member, message))
    }

    /// The next message for one member, so that a session that takes no more holds up no other.
    pub fn poll_message_for(&mut self, member: MemberId) -> Option<Zeroizing<Vec<u8>>> {
        let message = self.cx.outbox.pop_for(member)?;
        self.go_on(member);
        Some(message)
    }

    /// Whoever was sent as much as its session takes is sent more.
    fn go_on(&mut self, member: MemberId) {
        if self.cx.outbox.waiting(member) == shadows::AHEAD_MAX / 2 {
            for own in self.dvipas.values_mut().filter_map(|dvipa| dvipa.own.as_mut()) {
                own.bring_level(&mut self.cx, member);
            }
        }
    }

    /// The next transaction for the coupling facility.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.cx.jobs.poll(self.cx.now)
    }

    /// The next thing for the appliance to do. The order matters.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            match self.cx.actions.pop() {
                Some(Next::Do(action)) => return Some(*action),
                Some(Next::Fabric) => {
                    if let Some(fabric) = self.last_fabric.changed(self.fabric()) {
                        // Who may be chosen stands in it.
                        self.cx.are_tables_stale |= self.dvipas.values().any(|dvipa| dvipa.own.is_some());
                        return Some(Action::Fabric(fabric));
                    }
                }
                None if core::mem::take(&mut self.cx.are_tables_stale) => return Some(Action::TargetsChanged),
                None => return None,
            }
        }
    }

    /// The next thing that an operator should find in the log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.cx.notices.pop_front()
    }

    /// The cluster as this member's packet path should see it now.
    fn fabric(&self) -> Fabric {
        let member = |member: &MemberSettings| FabricMember { id: member.id, address: member.address };
        Fabric {
            me: self.cx.me(),
            incarnation: self.cx.incarnation,
            encapsulation: self.cx.settings.encapsulation,
            protection: self.cx.settings.protection,
            members: self.cx.settings.members.iter().map(member).collect(),
            dvipas: self.dvipas.values().filter_map(Dvipa::fabric).collect(),
        }
    }

    fn message(&mut self, from: MemberId, bytes: &[u8]) -> Result<(), Refused> {
        let Some(link) = self.cx.links.get_mut(&from) else { return Err(Refused::NoSession(from)) };
        let Some(session) = link.session else { return Err(Refused::NoSession(from)) };
        let message = Message::decode(bytes, session.version)?;
        link.heard_at = Some(self.cx.now);
        self.take(from, message)
    }

    fn take(&mut self, from: MemberId, message: Message) -> Result<(), Refused> {
        match message {
            Message::Pulse { load_permille } => {
                if let Some(link) = self.cx.links.get_mut(&from) {
                    link.load_permille = load_permille.min(1_000);
                    self.cx.are_tables_stale |= self.dvipas.values().any(|dvipa| dvipa.own.is_some());
                }
                Ok(())
            }
            Message::Dvipa { dvipa, epoch, body } => {
                let Some(dvipa) = self.dvipas.get_mut(&dvipa) else { return Err(Refused::UnknownDvipa(dvipa)) };
                dvipa.handle(&mut self.cx, from, epoch, body)
            }
        }
    }

    /// Brings everything to rest: what this member says to itself, what targets lack, what may be released.
    fn settle(&mut self) {
        // Each round answers the one before; what is said to oneself ends.
        loop {
            while let Some(bytes) = self.cx.loopback.pop_front() {
                let me = self.cx.me();
                if let Ok(message) = Message::decode(&bytes, crate::message::VERSION) {
                    // What this member refuses of itself, it has changed its mind about meanwhile.
                    let _ = self.take(me, message);
                }
            }
            for member in core::mem::take(&mut self.cx.disconnected) {
                for dvipa in self.dvipas.values_mut() {
                    dvipa.link_down(&mut self.cx, member);
                }
            }
            for dvipa in self.dvipas.values_mut() {
                dvipa.settle(&mut self.cx);
            }
            if self.cx.loopback.is_empty() && self.cx.disconnected.is_empty() {
                break;
            }
        }
        self.be_reborn();
    }

    /// Draws another incarnation when the one that is there was given up.
    fn be_reborn(&mut self) {
        if self.cx.is_expelled && !self.timers.is_being_reborn {
            self.timers.is_being_reborn = true;
            for dvipa in self.dvipas.values_mut() {
                dvipa.empty(&mut self.cx);
            }
            let mut nonce = [0; 16];
            self.rng.fill_bytes(&mut nonce);
            self.cx.jobs.push(Job::Rebirth(Start::new(self.cx.me(), nonce, 0)));
        }
    }

    fn reborn(&mut self, start: Start, outcome: &Outcome) {
        match start.take(outcome) {
            Ok(Progress::Done(started)) => {
                self.cx.incarnation = started.incarnation;
                self.cx.is_expelled = false;
                self.timers.is_being_reborn = false;
                self.cx.actions.fabric_changed();
                self.cx.notice(Notice::Reborn { incarnation: started.incarnation });
                for dvipa in self.dvipas.values_mut() {
                    dvipa.acknowledge(&mut self.cx);
                }
            }
            Ok(Progress::Again(start)) => self.cx.jobs.push(Job::Rebirth(start)),
            Err(error) => {
                self.cx.notice(Notice::Facility { dvipa: None, what: error.to_string() });
                self.timers.reborn_again_at = Some(self.cx.now + ownership::ASK_AGAIN_AFTER);
            }
        }
    }

    /// The facility has judged a transaction.
    fn judged(&mut self, job: Job, outcome: &Outcome) {
        if let Job::Rebirth(start) = job {
            return self.reborn(start, outcome);
        }
        let Some(dvipa) = ownership::address_of(&job).and_then(|address| self.dvipas.get_mut(&address)) else { return };
        let fence = job.fence();
        if let Err(refused) = dvipa.judged(&mut self.cx, job, outcome)
            && let Some(fence) = fence
        {
            dvipa.job_refused(&mut self.cx, &fence, &refused);
        }
    }
}

impl Dvipa {
    fn judged(&mut self, cx: &mut Shared, job: Job, outcome: &Outcome) -> Result<(), FenceRefused> {
        match job {
            Job::AskOwner(_) => self.owner_seen(cx, outcome),
            Job::Look(_, fence) => self.looked(fence, outcome)?,
            Job::Claim(_, claim) => self.claim_judged(cx, &claim, outcome),
            Job::Read(fence, reading) => self.page_read(cx, fence, reading, outcome),
            Job::ForgetAll(fence) => self.forgotten_all(cx, fence, outcome),
            Job::Deaths(_, delete) => delete.judge(outcome)?,
            Job::ForgetStart(fence, ..) => crate::facility::claim::judge_forgotten(&fence, outcome)?,
            Job::Rebirth(_) => {}
            Job::Admit(_) | Job::Birth(_) | Job::Loss(_) | Job::Drained(..) | Job::Marks(..) => {
                let Some(own) = &mut self.own else { return Ok(()) };
                if job.fence() == Some(own.fence) {
                    own.judged(cx, job, outcome)?;
                }
            }
        }
        Ok(())
    }
}

impl owner::Owner {
    fn judged(&mut self, cx: &mut Shared, job: Job, outcome: &Outcome) -> Result<(), FenceRefused> {
        match job {
            Job::Admit(admit) => self.admitted(cx, &admit, admit.judge(outcome)?),
            Job::Birth(create) => self.recorded(cx, &create, create.judge(outcome)?),
            Job::Loss(loss) => self.loss_recorded(cx, &loss, loss.judge(outcome)?),
            Job::Drained(fence, member, incarnation, part) => {
                part.judge(outcome)?;
                self.drained(cx, &fence, member, incarnation);
            }
            Job::Marks(_, ticket, raise) => self.marks_raised(ticket, raise.judge(outcome)?),
            Job::AskOwner(_)
            | Job::Look(..)
            | Job::Claim(..)
            | Job::Read(..)
            | Job::ForgetAll(_)
            | Job::Deaths(..)
            | Job::ForgetStart(..)
            | Job::Rebirth(_) => {}
        }
        Ok(())
    }
}
