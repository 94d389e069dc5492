//! The owner's side of targets: who serves the address, since which start of it, and how well.

use super::jobs::Job;
use super::notice::Notice;
use super::owner::{Owner, Standing, Target};
use super::seam::{ActivePort, ServicePort};
use super::shared::{Refused, Shared};
use crate::fabric::FabricTarget;
use crate::facility::members::{AdmitTarget, Admitted};
use crate::id::{Incarnation, MemberId};
use crate::message::{Body, Top, Used};

impl Owner {
    /// A member has heard of the epoch, and says as which start it may hold connections, and up to where it is level.
    pub fn acknowledged(
        &mut self,
        cx: &mut Shared,
        from: MemberId,
        is_target: bool,
        incarnation: Incarnation,
        position: u64,
    ) -> Result<(), Refused> {
        if position > self.log.last() {
            return Err(Refused::OutOfOrder("it has changes that were never made"));
        }
        self.acknowledged.insert(from);
        if self.awaited.remove(&(from, incarnation)) {
            cx.actions.fabric_changed();
        }
        if is_target || from == cx.me() {
            self.starts(cx, from, is_target, incarnation, position);
        }
        Ok(())
    }

    fn starts(&mut self, cx: &mut Shared, member: MemberId, serves: bool, incarnation: Incarnation, position: u64) {
        if self.given_up.contains(&(member, incarnation)) {
            // Its loss is being recorded, which must not overtake its admission.
            return self.expel(cx, member, incarnation);
        }
        let Some(target) = self.targets.get_mut(&member) else {
            self.admit(cx, member, serves, incarnation, position);
            return;
        };
        if incarnation == target.incarnation {
            match target.standing {
                Standing::Losing | Standing::Lost => self.expel(cx, member, incarnation),
                Standing::Admitting | Standing::Present | Standing::Leaving(_) | Standing::Left => {
                    target.is_synchronous = true;
                    target.snapshot = None;
                    target.sent = position;
                    target.acknowledged = target.acknowledged.min(position);
                    target.unsaid.extend(self.numbers.peers.keys());
                    cx.actions.fabric_changed();
                }
            }
        } else if incarnation < target.incarnation {
            self.expel(cx, member, incarnation);
        } else {
            match target.standing {
                Standing::Admitting | Standing::Present | Standing::Leaving(_) => {
                    target.successor = Some((incarnation, position));
                    self.lose(cx, member, "it has started anew");
                }
                Standing::Losing => target.successor = Some((incarnation, position)),
                Standing::Lost | Standing::Left => self.admit(cx, member, serves, incarnation, position),
            }
        }
    }

    /// Takes a start of a target in, once that is recorded.
    pub fn admit(&mut self, cx: &mut Shared, member: MemberId, serves: bool, incarnation: Incarnation, position: u64) {
        let mut target = Target::new(incarnation, position, serves);
        target.is_draining = self.targets.get(&member).is_some_and(|before| before.is_draining);
        target.unsaid.extend(self.numbers.peers.keys());
        self.targets.insert(member, target);
        self.join_ledgers(member, incarnation);
        self.sender_comes_or_goes(cx, member, true);
        if serves {
            cx.jobs.push(Job::Admit(AdmitTarget { fence: self.fence, member, incarnation }));
        }
    }

    fn expel(&mut self, cx: &mut Shared, member: MemberId, incarnation: Incarnation) {
        cx.say(member, self.fence.address, self.epoch(), Body::Expelled { incarnation });
    }

    /// A session with a member is up: its appliance may be another start than the one that is known.
    pub fn started_as(&mut self, cx: &mut Shared, member: MemberId, incarnation: Incarnation) {
        if self.targets.get(&member).is_some_and(|target| target.incarnation < incarnation) {
            self.lose(cx, member, "it has started anew");
        }
    }

    /// The start of a target is recorded, or was lost before.
    pub fn admitted(&mut self, cx: &mut Shared, admit: &AdmitTarget, admitted: Admitted) {
        let AdmitTarget { member, incarnation, .. } = *admit;
        let Some(target) = self.targets.get_mut(&member) else { return };
        if target.incarnation != incarnation || target.standing != Standing::Admitting {
            return;
        }
        match admitted {
            Admitted::Done => {
                target.standing = Standing::Present;
                cx.actions.fabric_changed();
                cx.notice(Notice::Admitted {
                    dvipa: self.fence.address,
                    epoch: self.epoch(),
                    target: member,
                    incarnation,
                });
            }
            Admitted::Lost => {
                target.standing = Standing::Lost;
                self.expel(cx, member, incarnation);
            }
        }
    }

    /// A session has ended: what was under way in it is lost, the start is not.
    pub fn link_down(&mut self, cx: &mut Shared, member: MemberId) {
        if let Some(target) = self.targets.get_mut(&member) {
            target.is_synchronous = false;
            target.snapshot = None;
            cx.actions.fabric_changed();
        }
    }

    /// A target says what it can serve, and does. Each report brings new tables: what was chosen since the last one is in
    /// its counts by now, or has ended.
    pub fn reported(&mut self, cx: &mut Shared, from: MemberId, ready: Vec<ServicePort>, active: Vec<ActivePort>) {
        let Some(target) = self.targets.get_mut(&from) else { return };
        if target.ready.as_ref() != Some(&ready) {
            target.ready = Some(ready);
            cx.actions.fabric_changed();
        }
        target.active = active;
        target.reports += 1;
        cx.tables_changed();
    }

    /// How far a target had come with SAs, or has: nothing moves back.
    pub fn held(&mut self, cx: &mut Shared, tops: &[Top]) {
        for top in tops {
            self.raise_floor(cx, *top);
        }
    }

    /// A target says what SAs have carried there.
    pub fn used(&mut self, cx: &mut Shared, from: MemberId, list: &[Used]) {
        let Some(target) = self.targets.get_mut(&from) else { return };
        let incarnation = target.incarnation;
        for used in list {
            let Some(child) = self.children.get_mut(&used.spi) else { continue };
            target.used.insert(used.spi, *used);
            if let Some(ago) = used.heard_ago_ms {
                let heard = cx.now.checked_sub(core::time::Duration::from_millis(ago));
                child.heard_at = child.heard_at.max(heard);
            }
        }
        for used in list {
            self.count_use(from, incarnation, used);
            self.observe_numbers(cx, from, used.spi, used.next_outbound);
        }
    }

    /// The targets as the packet path sees them. One that is not in the list is lost, or has none of the connections.
    pub fn fabric_targets(&self) -> Vec<FabricTarget> {
        let seen = |(&member, target): (&MemberId, &Target)| {
            if !target.serves {
                return None;
            }
            let is_member = match target.standing {
                Standing::Present | Standing::Leaving(_) => true,
                #[cfg(phalanx_plant)]
                Standing::Losing if ipsec::plant::breaks(ipsec::plant::Rule::EarlyLoss) => return None,
                Standing::Losing => false,
                Standing::Admitting | Standing::Lost | Standing::Left => return None,
            };
            Some(FabricTarget {
                member,
                incarnation: target.incarnation,
                serial: target.serial(),
                is_member,
                is_eligible: self.is_eligible(target),
            })
        };
        self.targets.iter().filter_map(seen).collect()
    }
}
