//! From what stands to what should: who needs an SA of its own, who gets which, and what changes by it.

use ipsec::time::Instant;

use super::{Asking, Child, Fallback, Kind, PeerSenders, Preferred, Readiness, Role, Step, Told};
use crate::id::{ChildId, MemberId};
use crate::member::SequencePolicy;

impl PeerSenders {
    /// Why a member with traffic shares an SA, under a policy by which it should not have to.
    #[must_use]
    pub fn fallback(&self, now: Instant) -> Option<Fallback> {
        if self.awaits_proof() {
            Some(Fallback::SiblingUnproven)
        } else if self.needy(now).is_empty() {
            None
        } else if self.is_refused {
            Some(Fallback::SiblingsRefused)
        } else if self.asking.is_some() {
            Some(Fallback::SiblingAsked)
        } else if self.siblings() >= usize::from(self.settings.siblings_max) {
            Some(Fallback::SiblingsFull)
        } else {
            Some(Fallback::BackingOff)
        }
    }

    /// Decides anew, and notes what changes by it.
    pub(super) fn plan(&mut self, now: Instant) {
        if self.settings.policy == SequencePolicy::Auto {
            self.ensure_shared();
            for (member, family) in self.needy(now) {
                if !self.assign_spare(member, family) {
                    self.ask(now, member, family);
                }
            }
        }
        self.note_dispensers();
        self.note_numbers();
        self.note_preferences();
    }

    /// Each family has an SA that everyone may send on: if its peer deleted that, another takes its place. One that nobody
    /// numbers rather than one that someone does, one that is proven rather than not, and then the newest.
    fn ensure_shared(&mut self) {
        if self.settings.is_alone {
            return;
        }
        for family in self.living_families() {
            let of_family = || self.children.iter().filter(move |child| child.family == family);
            if of_family().any(|child| child.role == Role::Shared) {
                continue;
            }
            let usable = of_family().enumerate().filter(|(_, child)| child.role != Role::Retired);
            let best = usable
                .max_by_key(|(age, child)| (child.readiness == Readiness::Ready, child.role == Role::Spare, *age));
            let Some(best) = best.map(|(_, child)| child.id) else { continue };
            // A rekey that is under way goes the same way.
            for child in &mut self.children {
                if child.id == best || (child.replaces == Some(best) && child.role != Role::Retired) {
                    child.role = Role::Shared;
                    // Whoever numbered it until now did so without the dispenser.
                    child.is_dispensed = false;
                }
            }
        }
    }

    fn living_families(&self) -> Vec<u32> {
        let mut families: Vec<u32> =
            self.children.iter().filter(|child| child.role != Role::Retired).map(|child| child.family).collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    /// Members that have traffic in a family and should have an SA of their own there: not the owner, which shares with
    /// nobody once all others have theirs.
    fn needy(&self, now: Instant) -> Vec<(MemberId, u32)> {
        if self.settings.policy != SequencePolicy::Auto || self.settings.is_alone {
            return Vec::new();
        }
        let wishes =
            self.members.iter().flat_map(|sender| sender.traffic.iter().map(|traffic| (sender.member, *traffic)));
        let needy = wishes.filter(|(member, traffic)| {
            let is_recent = now < traffic.wanted_at + self.settings.traffic_memory;
            let is_busy =
                now < traffic.wanted_at + self.settings.pause && now >= traffic.busy_since + self.settings.busy_after;
            is_recent
                && *member != self.settings.owner
                && !self.has_own(*member, traffic.family)
                && (is_busy || self.others_send(now, *member, traffic.family))
                && self.children.iter().any(|child| child.family == traffic.family && child.role != Role::Retired)
        });
        needy.map(|(member, traffic)| (member, traffic.family)).collect()
    }

    fn has_own(&self, member: MemberId, family: u32) -> bool {
        self.children.iter().any(|child| child.family == family && child.role == Role::Own(member))
    }

    /// Whether another member has traffic: it wants numbers, or has its own.
    fn others_send(&self, now: Instant, member: MemberId, family: u32) -> bool {
        self.members.iter().filter(|other| other.member != member).any(|other| {
            let mut wishes = other.traffic.iter().filter(|traffic| traffic.family == family);
            self.has_own(other.member, family)
                || wishes.any(|traffic| now < traffic.wanted_at + self.settings.traffic_memory)
        })
    }

    /// A sibling without a sender goes to who needs one.
    fn assign_spare(&mut self, member: MemberId, family: u32) -> bool {
        let fits =
            |child: &Child| child.family == family && child.role == Role::Spare && child.readiness == Readiness::Ready;
        let Some(id) = self.children.iter().rfind(|child| fits(child)).map(|child| child.id) else { return false };
        for child in &mut self.children {
            if child.id == id || (child.replaces == Some(id) && child.role == Role::Spare) {
                child.role = Role::Own(member);
            }
        }
        true
    }

    fn awaits_proof(&self) -> bool {
        let waits = |child: &Child| {
            child.is_sibling
                && child.replaces.is_none()
                && child.readiness == Readiness::AtPeerUse
                && matches!(child.role, Role::Own(_) | Role::Spare)
        };
        self.children.iter().any(waits)
    }

    fn ask(&mut self, now: Instant, member: MemberId, family: u32) {
        let is_early = self.back_off.is_some_and(|last| now < last.failed_at + last.pause);
        let is_full = self.siblings() >= usize::from(self.settings.siblings_max);
        if self.is_refused || self.asking.is_some() || is_early || is_full || self.awaits_proof() {
            return;
        }
        let ready = |child: &&Child| {
            child.family == family && child.role != Role::Retired && child.readiness == Readiness::Ready
        };
        let Some(of) = self.children.iter().filter(ready).max_by_key(|child| child.role == Role::Shared) else {
            return;
        };
        self.steps.push_back(Step::Ask(of.id));
        self.asking = Some(Asking { of: of.id, member, until: now + self.settings.answer_within });
    }

    /// Where an SA's numbers come from for a member. `None`: nowhere.
    fn kind(&self, member: MemberId, child: &Child) -> Option<Kind> {
        match self.settings.policy {
            SequencePolicy::Auto => match child.role {
                Role::Shared => Some(Kind::Sequencer),
                Role::Own(sender) => (sender == member).then_some(Kind::Own),
                Role::Spare | Role::Retired => None,
            },
            SequencePolicy::Sequencer => Some(Kind::Sequencer),
            SequencePolicy::ViaDistributor if member == self.settings.owner => Some(Kind::Own),
            SequencePolicy::ViaDistributor => Some(Kind::ViaOwner),
            SequencePolicy::LeasedBlocks => Some(Kind::Leased),
        }
    }

    fn note_dispensers(&mut self) {
        let is_given_out = match self.settings.policy {
            SequencePolicy::Auto => |child: &Child| child.role == Role::Shared,
            SequencePolicy::Sequencer | SequencePolicy::LeasedBlocks => |child: &Child| child.role != Role::Retired,
            SequencePolicy::ViaDistributor => |_: &Child| false,
        };
        for child in &mut self.children {
            if is_given_out(child) && !child.is_dispensed {
                child.is_dispensed = true;
                self.steps.push_back(Step::Dispense(child.id));
            }
        }
    }

    fn note_numbers(&mut self) {
        let mut changes = Vec::new();
        for child in self.children.iter().filter(|child| child.role != Role::Retired) {
            for sender in &self.members {
                let kind = self.kind(sender.member, child);
                let told = self.told.iter().find(|told| told.member == sender.member && told.child == child.id);
                let is_news = told.map_or(kind.is_some() || child.is_restored, |told| told.kind != kind);
                if is_news {
                    changes.push(Told { member: sender.member, child: child.id, kind, from: 0 });
                }
            }
        }
        for change in changes {
            let Told { member, child, kind, .. } = change;
            self.told.retain(|told| told.member != member || told.child != child);
            self.told.push(change);
            // What was noted before stays: a member that is silenced in between begins anew, at a new number.
            self.steps.push_back(match kind {
                Some(kind) => Step::Numbers(member, child, kind),
                None => Step::Silence(member, child),
            });
        }
    }

    fn note_preferences(&mut self) {
        let mut changes = Vec::new();
        for family in self.living_families() {
            for sender in &self.members {
                let Some(child) = self.best(sender.member, family) else { continue };
                let mine = |known: &&Preferred| known.member == sender.member && known.family == family;
                if self.preferred.iter().find(mine).is_none_or(|known| known.child != child) {
                    changes.push(Preferred { member: sender.member, family, child });
                }
            }
        }
        for change in changes {
            self.preferred.retain(|known| known.member != change.member || known.family != change.family);
            self.preferred.push(change);
            self.steps.push_back(Step::Prefer(change.member, change.child));
        }
    }

    /// Its own before the shared one, and the newest of those that are known to work.
    fn best(&self, member: MemberId, family: u32) -> Option<ChildId> {
        let usable = self.children.iter().enumerate().filter(|(_, child)| {
            child.family == family
                && child.role != Role::Retired
                && child.readiness == Readiness::Ready
                && self.kind(member, child).is_some()
        });
        usable.max_by_key(|(age, child)| (child.role == Role::Own(member), *age)).map(|(_, child)| child.id)
    }
}
