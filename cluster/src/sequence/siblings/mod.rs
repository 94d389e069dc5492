//! Which member numbers which of a peer's SAs (DESIGN §5): where the peer agrees, each on an SA of its own.
//!
//! **Purpose.** One [`PeerSenders`] for each peer, at the owner. Under policy `auto` every member sends on the peer's
//! first SA by the sequencer; when a second one has traffic, or the only one much, it asks for a *sibling*, a CHILD_SA
//! like the first that one member numbers alone. Under the other policies it tells what they say.
//!
//! **How a sibling is proven.** By the first authentic packet on its inbound half. The response to CREATE_CHILD_SA is not
//! enough: there are peers that answer before they load the SA, and fail to. A peer sends on the newest SA that it has, so a
//! sibling that works shows it as soon as its peer sends anything, which a peer with traffic from two members does. One
//! is proven before the next is asked for, for else only the last would be. A sibling that is never proven is kept and
//! not used. What replaces a proven one by rekeying needs no new proof: had it failed, so would have any rekeying.
//!
//! **Promises.** Each SA is numbered by one member, or by the sequencer, or leased; whoever begins does so at the number that
//! [`Marks::give`](super::marks::Marks::give) allows. One request is outstanding for each peer. A refusal is remembered.
//! Traffic stays on an SA that is known to work until another is. All this is deterministic.
//!
//! **What it never does.** It deletes no SA: some peers take the deletion of their newest for the end of the connection,
//! and an idle sibling costs little. When its sender leaves, it waits for the next member that needs one.

mod plan;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod types;

pub use types::{Fallback, Newcomer, Output, Restored, SenderSettings};

use core::time::Duration;
use std::collections::VecDeque;

use ipsec::Spi;
use ipsec::time::Instant;

use crate::id::{ChildId, MemberId};
use crate::member::NumberSource;
use crate::shadow::Use;

/// Who sends on the SAs of one peer.
#[derive(Debug)]
pub struct PeerSenders {
    settings: SenderSettings,
    members: Vec<Sender>,
    /// Oldest first.
    children: Vec<Child>,
    families: u32,
    asking: Option<Asking>,
    is_refused: bool,
    back_off: Option<BackOff>,
    told: Vec<Told>,
    preferred: Vec<Preferred>,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Sender {
    member: MemberId,
    traffic: Vec<Traffic>,
}

/// A member's wishes for numbers in one family.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    family: u32,
    wanted_at: Instant,
    busy_since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Child {
    id: ChildId,
    /// The same for siblings, which have the same selectors, and for what replaces them.
    family: u32,
    is_sibling: bool,
    role: Role,
    readiness: Readiness,
    replaces: Option<ChildId>,
    is_restored: bool,
    is_dispensed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Everyone's who has no other.
    Shared,
    /// Numbered by one member.
    Own(MemberId),
    /// Waits for a member that needs it.
    Spare,
    /// Replaced, or never to be used: stays as it is until it goes.
    Retired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Once the peer has sent on it.
    AtPeerUse,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    of: ChildId,
    member: MemberId,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct BackOff {
    failed_at: Instant,
    pause: Duration,
}

/// What a member was told of an SA; `None` is to be silent.
#[derive(Clone, Copy, Debug)]
struct Told {
    member: MemberId,
    child: ChildId,
    kind: Option<Kind>,
    from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Preferred {
    member: MemberId,
    family: u32,
    child: ChildId,
}

/// A [`NumberSource`] whose first number is not yet drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Sequencer,
    ViaOwner,
    Leased,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask(ChildId),
    Dispense(ChildId),
    Numbers(MemberId, ChildId, Kind),
    Silence(MemberId, ChildId),
    Prefer(MemberId, ChildId),
}

impl PeerSenders {
    /// For a peer without SAs, and the members that may send to it now.
    #[must_use]
    pub fn new(settings: SenderSettings, members: &[MemberId]) -> Self {
        let mut senders = Self {
            settings,
            members: Vec::new(),
            children: Vec::new(),
            families: 0,
            asking: None,
            is_refused: false,
            back_off: None,
            told: Vec::new(),
            preferred: Vec::new(),
            steps: VecDeque::new(),
        };
        members.iter().for_each(|&member| senders.admit(member));
        senders
    }

    /// A CHILD_SA has come up.
    pub fn handle_up(&mut self, now: Instant, newcomer: Newcomer) {
        let Newcomer { child: id, usage, replaces, sibling_of, restored } = newcomer;
        if self.children.iter().any(|child| child.id == id) {
            return;
        }
        let named = |spi: Option<Spi>| {
            let id = ChildId { dvipa: id.dvipa, spi: spi? };
            self.children.iter().find(|child| child.id == id).copied()
        };
        let (before, beside) = (named(replaces), named(sibling_of));
        let asked = self.asking.filter(|asking| before.is_none() && Some(asking.of.spi) == sibling_of);
        let is_sibling = before.map_or(sibling_of.is_some(), |before| before.is_sibling);
        let is_loser = usage == Use::ReceiveOnly && restored.is_none() && (before.is_some() || !is_sibling);
        let role = match (before, restored.and_then(|restored| restored.sender), asked) {
            _ if is_loser => Role::Retired,
            (Some(before), _, _) if before.role != Role::Retired => before.role,
            (_, Some(sender), _) => self.living(sender).map_or(Role::Spare, Role::Own),
            (_, None, Some(asked)) => self.living(asked.member).map_or(Role::Spare, Role::Own),
            (_, None, None) if is_sibling => Role::Spare,
            (_, None, None) if self.settings.is_alone => Role::Own(self.settings.owner),
            (_, None, None) => Role::Shared,
        };
        let readiness = match (usage, before, restored) {
            (_, _, Some(restored)) if restored.is_proven => Readiness::Ready,
            (Use::First, before, _)
                if !is_sibling || before.is_some_and(|before| before.readiness == Readiness::Ready) =>
            {
                Readiness::Ready
            }
            (Use::First | Use::InReserve | Use::ReceiveOnly, _, _) => Readiness::AtPeerUse,
        };
        let family = before.or(beside).map_or_else(|| self.new_family(asked), |kin| kin.family);
        self.children.push(Child {
            id,
            family,
            is_sibling,
            role,
            readiness,
            replaces: before.map(|before| before.id),
            is_restored: restored.is_some(),
            is_dispensed: false,
        });
        if asked.is_some() {
            self.asking = None;
        }
        if readiness == Readiness::Ready && role != Role::Retired {
            self.retire_before(id);
        }
        self.plan(now);
    }

    /// The peer has sent an authentic packet on this SA, or a probe of it was answered.
    pub fn handle_proven(&mut self, now: Instant, child: ChildId) {
        let Some(known) = self.children.iter_mut().find(|known| known.id == child) else { return };
        if known.readiness == Readiness::AtPeerUse && known.role != Role::Retired {
            known.readiness = Readiness::Ready;
            self.retire_before(child);
            self.plan(now);
        }
    }

    /// A CHILD_SA is gone. That a peer deletes a sibling is normal.
    pub fn handle_down(&mut self, now: Instant, child: ChildId) {
        let Some(index) = self.children.iter().position(|known| known.id == child) else { return };
        let gone = self.children.remove(index);
        self.told.retain(|told| told.child != child);
        self.preferred.retain(|preferred| preferred.child != child);
        self.steps.retain(|step| step.child() != child);
        let mut is_replaced = false;
        for next in self.children.iter_mut().filter(|next| next.replaces == Some(child) && next.role != Role::Retired) {
            is_replaced = true;
            next.readiness = Readiness::Ready;
        }
        if !self.children.iter().any(|known| known.family == gone.family) {
            self.members.iter_mut().for_each(|sender| sender.traffic.retain(|traffic| traffic.family != gone.family));
            self.preferred.retain(|preferred| preferred.family != gone.family);
        } else if gone.role != Role::Retired && !is_replaced {
            self.fail(now);
        }
        self.plan(now);
    }

    /// A member has packets that wait for numbers of this SA.
    pub fn handle_wanted(&mut self, now: Instant, member: MemberId, child: ChildId) {
        let Some(family) = self.children.iter().find(|known| known.id == child).map(|known| known.family) else {
            return;
        };
        let pause = self.settings.pause;
        let Some(sender) = self.members.iter_mut().find(|sender| sender.member == member) else { return };
        match sender.traffic.iter_mut().find(|traffic| traffic.family == family) {
            Some(traffic) => {
                if now >= traffic.wanted_at + pause {
                    traffic.busy_since = now;
                }
                traffic.wanted_at = now;
            }
            None => sender.traffic.push(Traffic { family, wanted_at: now, busy_since: now }),
        }
        self.plan(now);
    }

    /// IKE could make no sibling of this SA.
    pub fn handle_refused(&mut self, now: Instant, child: ChildId, for_good: bool) {
        if self.asking.take_if(|asking| asking.of == child).is_some() {
            self.is_refused |= for_good;
            self.fail(now);
            self.plan(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.asking.take_if(|asking| now >= asking.until).is_some() {
            self.fail(now);
        }
        self.plan(now);
    }

    /// A member may send from now on; it was told nothing yet.
    pub fn handle_joined(&mut self, now: Instant, member: MemberId) {
        self.admit(member);
        self.plan(now);
    }

    /// A member sends no more: it is drained, or lost. Its siblings wait for others.
    pub fn handle_gone(&mut self, now: Instant, member: MemberId) {
        self.members.retain(|sender| sender.member != member);
        self.told.retain(|told| told.member != member);
        self.preferred.retain(|preferred| preferred.member != member);
        self.steps.retain(|step| step.member() != Some(member));
        for child in self.children.iter_mut().filter(|child| child.role == Role::Own(member)) {
            child.role = Role::Spare;
        }
        self.plan(now);
    }

    /// The next change. `from` gives the first number of an SA that nobody can have used, and takes it as used up to
    /// there: [`Marks::give`](super::marks::Marks::give).
    #[must_use]
    pub fn poll_output(&mut self, mut from: impl FnMut(ChildId) -> Option<u64>) -> Option<Output> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Ask(child) => return Some(Output::Ask(child)),
                Step::Silence(member, child) => return Some(Output::Silence { member, child }),
                Step::Prefer(member, child) => return Some(Output::Prefer { member, child }),
                Step::Dispense(child) => {
                    let Some(from) = from(child) else { continue };
                    return Some(Output::Dispense { child, from });
                }
                Step::Numbers(member, child, kind) => {
                    let from = if kind == Kind::Own { from(child) } else { Some(0) };
                    let Some(from) = from else { continue };
                    let told = self.told.iter_mut().find(|told| told.member == member && told.child == child);
                    if let Some(told) = told {
                        told.from = from;
                    }
                    return Some(Output::Numbers { member, child, source: kind.source(from) });
                }
            }
        }
        None
    }

    /// Everything that a member has been told and that still holds, for one that must be told again: its session broke, and it
    /// is still the same start of it.
    #[must_use]
    pub fn snapshot(&self, member: MemberId) -> Vec<Output> {
        let pending = |step: Step| self.steps.contains(&step);
        let mine = self.told.iter().filter(|told| told.member == member);
        let numbers = mine.filter_map(|&Told { child, kind, from, .. }| match kind {
            Some(kind) if pending(Step::Numbers(member, child, kind)) => None,
            Some(kind) => Some(Output::Numbers { member, child, source: kind.source(from) }),
            None => Some(Output::Silence { member, child }),
        });
        let preferred = self.preferred.iter().filter(|preferred| preferred.member == member);
        numbers.chain(preferred.map(|preferred| Output::Prefer { member, child: preferred.child })).collect()
    }

    /// When [`handle_timeout`](Self::handle_timeout) may change something.
    #[must_use]
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let pause_over = self.back_off.map(|back_off| back_off.failed_at + back_off.pause).filter(|&over| over > now);
        self.asking.map(|asking| asking.until).or(pause_over)
    }

    /// Which member numbers this SA alone, and is to be told its marks. The owner is, if there is none.
    #[must_use]
    pub fn sender(&self, child: ChildId) -> Option<MemberId> {
        match self.children.iter().find(|known| known.id == child)?.role {
            Role::Own(member) => Some(member),
            Role::Shared | Role::Spare | Role::Retired => None,
        }
    }

    /// How many siblings stand.
    #[must_use]
    pub fn siblings(&self) -> usize {
        let replaces = |next: &Child, id| next.replaces == Some(id) && next.role != Role::Retired;
        let replaced = |id| self.children.iter().any(|next| replaces(next, id));
        let stands = |child: &&Child| child.is_sibling && child.role != Role::Retired && !replaced(child.id);
        self.children.iter().filter(stands).count()
    }

    fn admit(&mut self, member: MemberId) {
        if self.living(member).is_none() {
            self.members.push(Sender { member, traffic: Vec::new() });
        }
    }

    fn living(&self, member: MemberId) -> Option<MemberId> {
        self.members.iter().any(|sender| sender.member == member).then_some(member)
    }

    /// Of an SA without kin; a sibling whose kin has gone belongs to whoever asked for it.
    fn new_family(&mut self, asked: Option<Asking>) -> u32 {
        let kin = asked.and_then(|asked| self.children.iter().find(|child| child.id == asked.of));
        if let Some(kin) = kin {
            return kin.family;
        }
        self.families += 1;
        self.families
    }

    /// What an SA that may be used replaces is used no more, nor is another that replaces the same.
    fn retire_before(&mut self, child: ChildId) {
        let before = self.children.iter().find(|known| known.id == child).and_then(|known| known.replaces);
        let Some(before) = before else { return };
        let rival = |known: &Child| known.id == before || (known.replaces == Some(before) && known.id != child);
        self.children.iter_mut().filter(|known| rival(known)).for_each(|known| known.role = Role::Retired);
    }

    fn fail(&mut self, now: Instant) {
        let SenderSettings { back_off_min, back_off_max, .. } = self.settings;
        let recent = self.back_off.filter(|last| now < last.failed_at + last.pause + back_off_max);
        let pause = recent.map_or(back_off_min, |last| (last.pause * 2).min(back_off_max));
        self.back_off = Some(BackOff { failed_at: now, pause });
    }
}

impl Kind {
    const fn source(self, from: u64) -> NumberSource {
        match self {
            Self::Own => NumberSource::Own { from },
            Self::Sequencer => NumberSource::Sequencer,
            Self::ViaOwner => NumberSource::ViaOwner,
            Self::Leased => NumberSource::Leased,
        }
    }
}

impl Step {
    const fn child(self) -> ChildId {
        match self {
            Self::Ask(child)
            | Self::Dispense(child)
            | Self::Numbers(_, child, _)
            | Self::Silence(_, child)
            | Self::Prefer(_, child) => child,
        }
    }

    const fn member(self) -> Option<MemberId> {
        match self {
            Self::Ask(_) | Self::Dispense(_) => None,
            Self::Numbers(member, ..) | Self::Silence(member, _) | Self::Prefer(member, _) => Some(member),
        }
    }
}
