//! The owner's side of lifesize: each SA's two ledgers, fed by what members report, and what comes of them.

use ipsec::Spi;
use ipsec::sa::PeerId;

use super::notice::Notice;
use super::owner::{Child, Owner};
use super::seam::{Action, DvipaSettings};
use super::shared::Shared;
use crate::id::{Incarnation, MemberId};
use crate::lifesize::{GrantLimits, GrantTooSmall, OwnerLedger, Percentage, Refresh};
use crate::message::{Body, Granted, LIST_MAX, Used};
use crate::shadow::ShadowSa;

/// A ceiling that is not acknowledged is told again after this.
const GRANT_AGAIN_AFTER: core::time::Duration = core::time::Duration::from_millis(500);

/// The ledgers of a new SA, and the most that one member is granted of either half.
///
/// # Errors
/// [`GrantTooSmall`] if the limits of the SA are too near to each other for so many members.
pub(super) fn ledgers(
    sa: &ShadowSa,
    settings: &DvipaSettings,
    percentage: Percentage,
) -> Result<([OwnerLedger; 2], u64), GrantTooSmall> {
    // All targets and the owner, and one start of one of them that is coming while another is going.
    let members_max = settings.targets.len() as u16 + 2;
    let inbound = GrantLimits::new(&sa.child.inbound.lifetime, members_max)?;
    let outbound = GrantLimits::new(&sa.child.outbound.lifetime, members_max)?;
    let grant_max = inbound.grant_max.bytes.max(outbound.grant_max.bytes);
    let ledger = |limits| OwnerLedger::new(limits, percentage, GRANT_AGAIN_AFTER);
    Ok(([ledger(&inbound), ledger(&outbound)], grant_max))
}

impl Owner {
    /// A new SA has a first share for every member that may use it.
    pub fn share_out(&mut self, spi: Spi) {
        let Some(child) = self.children.get_mut(&spi) else { return };
        for (&member, target) in self.targets.iter().filter(|(_, target)| target.may_use()) {
            join(child, member, target.incarnation);
        }
        self.uneven.insert(spi);
        self.is_uneven_new = true;
    }

    /// A start of a member has a first share of every SA.
    pub fn join_ledgers(&mut self, member: MemberId, incarnation: Incarnation) {
        for (&spi, child) in &mut self.children {
            join(child, member, incarnation);
            self.uneven.insert(spi);
            self.is_uneven_new = true;
        }
    }

    /// A start of a member is lost: whatever it was granted counts as carried.
    pub fn charge_ledgers(&mut self, member: MemberId, incarnation: Incarnation) {
        for (&spi, child) in &mut self.children {
            for ledger in &mut child.ledgers {
                ledger.charge(member, incarnation);
            }
            self.uneven.insert(spi);
            self.is_uneven_new = true;
        }
    }

    pub fn count_use(&mut self, from: MemberId, incarnation: Incarnation, used: &Used) {
        let Some(child) = self.children.get_mut(&used.spi) else { return };
        self.lifesize_reports += 1;
        for (ledger, report) in child.ledgers.iter_mut().zip([used.inbound, used.outbound]) {
            // Of a start that was charged nothing more is taken; it is expelled when it speaks of itself.
            let _ = ledger.handle_report(from, incarnation, report);
        }
        self.uneven.insert(used.spi);
        self.is_uneven_new = true;
    }

    /// Tells what is new at once; what was told before is looked through now and then.
    pub fn settle_new_ledgers(&mut self, cx: &mut Shared) {
        if core::mem::take(&mut self.is_uneven_new) {
            self.settle_ledgers(cx);
        }
    }

    /// Tells new ceilings, and has SAs replaced that have come to their soft limit.
    pub fn settle_ledgers(&mut self, cx: &mut Shared) {
        let (dvipa, epoch) = (self.fence.address, self.epoch());
        let mut grants = std::collections::BTreeMap::<MemberId, Vec<Granted>>::new();
        let (children, refreshes) = (&mut self.children, &mut self.refreshes);
        self.uneven.retain(|&spi| {
            let Some(child) = children.get_mut(&spi) else { return false };
            if !child.is_born() {
                return true;
            }
            for (ledger, is_inbound) in child.ledgers.iter_mut().zip([true, false]) {
                while let Some(grant) = ledger.poll_grant(cx.now) {
                    grants.entry(grant.member).or_default().push(Granted { spi, is_inbound, ceiling: grant.ceiling });
                }
                if ledger.take_soft_reached() && !core::mem::replace(&mut child.is_rekey_asked, true) {
                    *refreshes += 1;
                    let id = crate::id::ChildId { dvipa, spi };
                    cx.notice(Notice::Worn { child: id, epoch, is_inbound, used: ledger.used() });
                    cx.actions.push(Action::Rekey(id));
                }
            }
            child.ledgers.iter().any(|ledger| ledger.next_timeout().is_some())
        });
        for (member, grants) in grants {
            for some in grants.chunks(LIST_MAX) {
                cx.say(member, dvipa, epoch, Body::Grants(some.to_vec()));
            }
        }
    }

    /// How much of the lifesize of a peer's next SA may go unreported.
    pub fn percentage_of(&self, peer: PeerId) -> Percentage {
        self.peers.get(&peer).map(|known| known.1).unwrap_or_default()
    }

    /// The same, of an SA that there is now.
    pub fn meet_peer(&mut self, peer: PeerId) -> Percentage {
        let (sas, percentage) = self.peers.entry(peer).or_default();
        *sas += 1;
        *percentage
    }

    /// An SA is gone: its peer's next one learns from how it was refreshed.
    pub fn learn_refresh(&mut self, gone: &Child) {
        let Some((sas, percentage)) = self.peers.get_mut(&gone.peer) else { return };
        let [inbound, outbound] = &gone.ledgers;
        let went = match (inbound.refresh(), outbound.refresh()) {
            (Refresh::Late, _) | (_, Refresh::Late) => Refresh::Late,
            (Refresh::InTime, _) | (_, Refresh::InTime) => Refresh::InTime,
            (Refresh::NotByLifesize, Refresh::NotByLifesize) => Refresh::NotByLifesize,
        };
        *percentage = percentage.after(went);
        *sas -= 1;
        if *sas == 0 {
            self.peers.remove(&gone.peer);
        }
    }
}

fn join(child: &mut Child, member: MemberId, incarnation: Incarnation) {
    for ledger in &mut child.ledgers {
        // No room for another can only be when starts come faster than they are given up; it gets nothing then.
        let _ = ledger.join(member, incarnation);
    }
}
