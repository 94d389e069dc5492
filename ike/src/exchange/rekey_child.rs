//! CREATE_CHILD_SA that replaces a CHILD_SA (RFC 7296 §1.3.3, §2.8), as either side, and as both at once (§2.8.1).
//!
//! Which CHILD_SA is meant is told by the SPI in the REKEY_SA notification and by nothing else: siblings with equal
//! selectors are no collision.

use std::sync::Arc;

use ipsec::Spi;

use super::ask_child::{Asked, Granted, Wish};
use super::create_child::{Ingredients, agree, check_is_new, check_may_create, context_of, grant};
use crate::channel::Role;
use crate::child::{Agreement, Child, ChildState, Entry, Kinship};
use crate::collision::{Verdict, judge};
use crate::config::ChildSettings;
use crate::context::Context;
use crate::crypto::kex::Kex;
use crate::crypto::keys::ChildKeys;
use crate::error::{Malformed, Refusal};
use crate::event::{DownReason, Event, SendFrom};
use crate::message::payload::{Notify, NotifyKind, Payload, PayloadKind, ProtocolId};
use crate::message::{Body, ExchangeType, PayloadChain};
use crate::sa::{Active, IkeSa, Request, Task};

/// Our request that waits for its response.
pub(crate) struct Pending {
    /// The inbound SPI of what is replaced, and its name in the configuration.
    old: Spi,
    name: Arc<str>,
    kin: Kinship,
    pub(crate) asked: Asked,
    /// The peer replaced the same one in the meantime.
    rival: Option<Rival>,
}

/// The CHILD_SA that the peer's exchange made.
struct Rival {
    inbound: Spi,
    lowest_nonce: Vec<u8>,
}

// --- The peer rekeys -------------------------------------------------------------------------------------------------

/// Answers the peer's request.
pub(crate) fn respond(
    sa: &mut IkeSa,
    cx: &mut Context,
    body: &Body<'_>,
    rekey: &Notify<'_>,
) -> Result<PayloadChain, Refusal> {
    check_may_create(sa, cx)?;
    let old = find_rekeyed(sa, rekey)?;
    let collides = sa.rekeys(old);
    let found = sa.child(old).map(|child| (child.name.clone(), child.state, child.kin));
    let (name, kin) = match found {
        Some((name, ChildState::InUse, kin)) => (name, kin),
        Some((_, ChildState::Closing | ChildState::Replaced | ChildState::Redundant, _)) | None => {
            return Err(Refusal::TemporaryFailure("the CHILD_SA is being deleted"));
        }
    };
    if sa.pending_child().is_some_and(|pending| pending.old == old && pending.rival.is_some()) {
        return Err(Refusal::TemporaryFailure("the CHILD_SA has been rekeyed by the same peer already"));
    }
    let lineage = sa.lineage.clone();
    let terms = agree(cx, &lineage, &sa.path, body, context_of(body), Some(&name))?;
    check_is_new(sa, &terms)?;
    let ingredients = Ingredients::answer(cx, body, terms.kex())?;
    let mut chain = PayloadChain::new();
    let entry = Entry { replaces: Some(old), send: SendFrom::PeerUse, kin };
    let child = grant(cx, &sa.ground(&lineage), terms, &ingredients, entry, &mut chain)?;
    if collides {
        let lowest_nonce = ingredients.nonces.lowest().to_vec();
        sa.meet_rival(Rival { inbound: child.inbound, lowest_nonce });
    } else {
        sa.retire_child(cx, old, Some(child.inbound));
    }
    sa.children.push(child);
    Ok(chain)
}

/// The inbound SPI of the child that the peer wants replaced.
fn find_rekeyed(sa: &IkeSa, rekey: &Notify<'_>) -> Result<Spi, Refusal> {
    let fault = |fault| Malformed::Payload { kind: PayloadKind::Notify, fault };
    if rekey.protocol != ProtocolId::ESP && rekey.protocol != ProtocolId::AH {
        return Err(fault("REKEY_SA for a protocol that is neither AH nor ESP").into());
    }
    let spi = <[u8; 4]>::try_from(rekey.spi).map_err(|_| fault("REKEY_SA with an SPI that is not four octets long"))?;
    let spi = u32::from_be_bytes(spi);
    match sa.child_by_outbound(spi) {
        Some(child) if rekey.protocol == ProtocolId::ESP => Ok(child.inbound),
        // It may be the very one that the peer has granted us, if this has overtaken the response that says so.
        None if sa.may_be_granted_child() => Err(Refusal::TemporaryFailure("a CHILD_SA is just being made")),
        Some(_) | None => Err(Refusal::ChildSaNotFound { protocol: rekey.protocol, spi }),
    }
}

impl IkeSa {
    fn pending_child(&self) -> Option<&Pending> {
        match &self.active {
            Some(Active::RekeyChild(pending)) => Some(pending),
            Some(_) | None => None,
        }
    }

    /// Whether a response that is on its way may grant us a child.
    fn may_be_granted_child(&self) -> bool {
        matches!(self.active, Some(Active::RekeyChild(_) | Active::Sibling(_)))
    }

    /// Whether we are about to replace this child.
    fn rekeys(&self, old: Spi) -> bool {
        self.pending_child().is_some_and(|pending| pending.old == old)
    }

    fn meet_rival(&mut self, rival: Rival) {
        if let Some(Active::RekeyChild(pending)) = &mut self.active {
            pending.rival = Some(rival);
        }
    }

    /// Another child took its place, or won against it. Whoever made that one deletes it; if that does not happen, we do: in a while, or
    /// when too many others have come after it.
    fn retire_child(&mut self, cx: &mut Context, inbound: Spi, successor: Option<Spi>) {
        successor.into_iter().for_each(|new| self.note_successor(inbound, new));
        let until = cx.now + cx.config.timing.replaced_child;
        if let Some(child) = self.child_mut(inbound) {
            child.state = ChildState::Replaced;
            child.rekey_at = None;
            child.expires_at = Some(child.expires_at.map_or(until, |expires_at| expires_at.min(until)));
        }
        let mut retired: Vec<_> = self.children.iter().filter(|child| child.is_retired()).collect();
        retired.sort_by_key(|child| child.expires_at);
        // The last one must outlive the messages on their way that name it.
        let too_many = retired.len().saturating_sub(cx.config.limits.replaced_children.max(1));
        let oldest: Vec<Spi> = retired.iter().take(too_many).map(|child| child.inbound).collect();
        for inbound in oldest {
            self.expire_child(cx, inbound, DownReason::Replaced);
        }
    }
}

// --- We rekey --------------------------------------------------------------------------------------------------------

/// Our request, unless the child is gone or replaced by now.
pub(crate) fn start(sa: &mut IkeSa, cx: &mut Context, old: Spi) -> Option<Request> {
    let lineage = sa.lineage.clone();
    let child = sa.child(old).filter(|child| child.state == ChildState::InUse)?;
    let settings = lineage.connection.child(&child.name)?;
    let wish = Wish {
        proposals: settings.proposals.clone(),
        kex: child.kex,
        selectors: child.selectors.clone(),
        mode: child.mode,
        per_resource: child.kin.per_resource,
    };
    let (name, kin) = (child.name.clone(), child.kin);
    let old_spi = old.to_be_bytes();
    let rekey = Notify { protocol: ProtocolId::ESP, spi: &old_spi, kind: NotifyKind::REKEY_SA, data: &[] };
    let mut chain = PayloadChain::new().with(&Payload::Notify(rekey));
    let asked = Asked::ask(cx, sa.local_spi(), wish, &mut chain);
    let pending = Pending { old, name, kin, asked, rival: None };
    Some(Request { exchange: ExchangeType::CreateChildSa, chain, active: Active::RekeyChild(Box::new(pending)) })
}

/// Takes the response.
///
/// # Errors
/// A response without what it must have.
pub(crate) fn finish(sa: &mut IkeSa, cx: &mut Context, mut pending: Pending, body: &Body<'_>) -> Result<(), Malformed> {
    let inbound = pending.asked.inbound;
    let settled = settle(sa, cx, &mut pending, body);
    if !matches!(settled, Ok(Settled::Installed)) {
        cx.spis.free_esp(inbound);
    }
    settled.map(|_| ())
}

enum Settled {
    /// The new child is there and its SPI in use.
    Installed,
    /// There is no new child.
    Nothing,
}

fn settle(sa: &mut IkeSa, cx: &mut Context, pending: &mut Pending, body: &Body<'_>) -> Result<Settled, Malformed> {
    if let Some(error) = body.error() {
        refused(sa, cx, pending, error);
        return Ok(Settled::Nothing);
    }
    let lineage = sa.lineage.clone();
    let granted = pending.asked.read(body)?;
    let is_new = |granted: &Granted| sa.child_by_outbound(granted.chosen.spi.get()).is_none();
    let Some((settings, granted)) = lineage.connection.child(&pending.name).zip(granted.filter(is_new)) else {
        // The peer has made something that we did not ask for. It is to forget it, and we try again later.
        sa.queue(Task::ReportGone(pending.asked.inbound));
        failed(sa, cx, pending, "the peer chose what was not offered");
        return Ok(Settled::Nothing);
    };
    if pending.asked.is_forsaken(&granted) {
        failed(sa, cx, pending, "the peer deleted the new one at once");
        return Ok(Settled::Nothing);
    }
    Ok(install(sa, cx, pending, settings, granted))
}

fn install(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, settings: &ChildSettings, granted: Granted) -> Settled {
    let Granted { chosen, nonces, shared, selectors, mode } = granted;
    let verdict = match &pending.rival {
        None => Verdict::OursStays,
        Some(rival) => {
            cx.counters.collisions += 1;
            judge(&nonces, &rival.lowest_nonce)
        }
    };
    let Ok(keys) = ChildKeys::derive(sa.suite.prf, &sa.d, shared.as_ref(), &nonces, chosen.suite.cipher) else {
        sa.queue(Task::ReportGone(pending.asked.inbound));
        failed(sa, cx, pending, "no keys");
        return Settled::Nothing;
    };
    let agreed = Agreement {
        inbound: pending.asked.inbound,
        outbound: chosen.spi,
        suite: chosen.suite,
        mode,
        selectors,
        keys,
        role: Role::Initiator,
    };
    let send = match verdict {
        Verdict::OursStays => SendFrom::Now,
        Verdict::TheirsStays => SendFrom::Never,
    };
    let kin = sa.child(pending.old).map_or(pending.kin, |old| old.kin);
    let entry = Entry { replaces: Some(pending.old), send, kin };
    let lineage = sa.lineage.clone();
    let mut child = Child::establish(cx, &lineage, &sa.path, settings, agreed, entry);
    let winner = match (verdict, &pending.rival) {
        (Verdict::TheirsStays, Some(rival)) => rival.inbound,
        (Verdict::TheirsStays, None) | (Verdict::OursStays, _) => child.inbound,
    };
    sa.retire_child(cx, pending.old, Some(winner));
    match verdict {
        Verdict::OursStays => {
            if let Some(rival) = &pending.rival {
                sa.make_redundant(cx, rival.inbound);
            }
            sa.queue(Task::DeleteChild(pending.old, DownReason::Replaced));
        }
        Verdict::TheirsStays => {
            child.state = ChildState::Redundant;
            child.rekey_at = None;
            sa.queue(Task::DeleteChild(child.inbound, DownReason::Redundant));
        }
    }
    sa.children.push(child);
    Settled::Installed
}

/// The peer refused (RFC 7296 §2.25.1).
fn refused(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, error: &Notify<'_>) {
    if let Some(rival) = &pending.rival {
        // The peer did not see a collision; what it made takes the old one's place.
        return sa.retire_child(cx, pending.old, Some(rival.inbound));
    }
    match error.kind {
        NotifyKind::CHILD_SA_NOT_FOUND => {
            sa.remove_child(cx, pending.old, DownReason::PeerForgot);
        }
        NotifyKind::NO_PROPOSAL_CHOSEN if sa.try_other_kex(pending.old) => {
            sa.queue(Task::RekeyChild(pending.old));
        }
        NotifyKind::INVALID_KE_PAYLOAD if sa.try_group(pending.old, error.data) => {
            sa.queue(Task::RekeyChild(pending.old));
        }
        NotifyKind::TEMPORARY_FAILURE => sa.retry_later(cx, pending.old),
        kind => failed(sa, cx, pending, &format!("the peer answered {kind}")),
    }
}

/// There is no new child. If the peer has made one in the meantime, that takes the old one's place.
fn failed(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, why: &str) {
    if let Some(rival) = &pending.rival {
        return sa.retire_child(cx, pending.old, Some(rival.inbound));
    }
    sa.retry_later(cx, pending.old);
    let (peer, child) = (sa.lineage.peer, Some(pending.old));
    cx.events.push_back(Event::RekeyFailed { peer, child, why: why.to_owned() });
}

impl IkeSa {
    /// It lost a collision; the peer, who made it, deletes it.
    fn make_redundant(&mut self, cx: &mut Context, inbound: Spi) {
        self.retire_child(cx, inbound, None);
        if let Some(child) = self.child_mut(inbound) {
            child.state = ChildState::Redundant;
        }
    }

    /// Later each time, since what was refused is likely to be refused again.
    fn retry_later(&mut self, cx: &mut Context, inbound: Spi) {
        let first = cx.config.timing.retry;
        let Some(child) = self.child_mut(inbound) else { return };
        child.failures = child.failures.saturating_add(1);
        let wait = first * 2_u32.saturating_pow(child.failures.saturating_sub(1).min(5));
        child.rekey_at = Some(cx.now + cx.jittered(wait));
    }

    /// Without a configured key exchange, peers differ in whether they want one: the other form is tried, once.
    fn try_other_kex(&mut self, inbound: Spi) -> bool {
        let lineage = self.lineage.clone();
        let Some(child) = self.child_mut(inbound).filter(|child| !child.tried_other_kex) else { return false };
        let Some(settings) = lineage.connection.child(&child.name) else { return false };
        if settings.proposals.iter().any(|proposal| !proposal.kexes.is_empty()) {
            return false;
        }
        child.tried_other_kex = true;
        child.kex = match child.kex {
            Some(_) => None,
            None => Some(Kex::X25519),
        };
        true
    }

    /// The peer wants another group: taken once, if it is one of ours.
    fn try_group(&mut self, inbound: Spi, data: &[u8]) -> bool {
        let wanted = <[u8; 2]>::try_from(data).ok().map(u16::from_be_bytes).and_then(Kex::from_group);
        let lineage = self.lineage.clone();
        let Some(child) = self.child_mut(inbound).filter(|child| !child.tried_other_kex) else { return false };
        let settings = lineage.connection.child(&child.name);
        let is_ours = |kex: &Kex| settings.is_some_and(|settings| settings.allows_kex(*kex));
        let Some(kex) = wanted.filter(is_ours).filter(|kex| child.kex != Some(*kex)) else { return false };
        child.tried_other_kex = true;
        child.kex = Some(kex);
        true
    }
}
