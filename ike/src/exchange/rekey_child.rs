//! CREATE_CHILD_SA that replaces a CHILD_SA (RFC 7296 §1.3.3, §2.8), as either side, and as both at once (§2.8.1).
//!
//! Which CHILD_SA is meant is told by the SPI in the REKEY_SA notification and by nothing else: siblings with equal
//! selectors are no collision.

use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::Mode;
use ipsec::selector::Selectors;

use super::create_child::{Ingredients, agree, check_may_create, context_of, grant};
use crate::channel::Role;
use crate::child::{Agreement, Child, ChildState, Entry};
use crate::collision::{Verdict, judge};
use crate::config::ChildSettings;
use crate::context::Context;
use crate::crypto::Secret;
use crate::crypto::kex::{Kex, OfferedKex};
use crate::crypto::keys::{ChildKeys, Nonces};
use crate::error::{Malformed, Refusal};
use crate::event::{DownReason, Event, SendFrom};
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload, PayloadKind, ProtocolId, TrafficSelectors};
use crate::message::{Body, ExchangeType, PayloadChain};
use crate::proposal::{ChosenEsp, accept_esp, offer_esp};
use crate::sa::{Active, IkeSa, Request, Task};

/// Our request that waits for its response.
pub(crate) struct Pending {
    /// The inbound SPI of what is replaced, and its name in the configuration.
    old: Spi,
    name: Arc<str>,
    /// What we would receive on.
    pub(crate) inbound: Spi,
    nonce: Vec<u8>,
    kex: Option<OfferedKex>,
    selectors: Selectors,
    mode: Mode,
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
    let (name, state) = sa.child(old).map(|child| (child.name.clone(), child.state)).unzip();
    match state {
        Some(ChildState::InUse) => {}
        Some(ChildState::Closing | ChildState::Replaced | ChildState::Redundant) | None => {
            return Err(Refusal::TemporaryFailure("the CHILD_SA is being deleted"));
        }
    }
    if sa.pending_child().is_some_and(|pending| pending.old == old && pending.rival.is_some()) {
        return Err(Refusal::TemporaryFailure("the CHILD_SA has been rekeyed by the same peer already"));
    }
    let lineage = sa.lineage.clone();
    let terms = agree(cx, &lineage, &sa.path, body, context_of(body), name.as_deref())?;
    let ingredients = Ingredients::answer(cx, body, terms.kex())?;
    let mut chain = PayloadChain::new();
    let entry = Entry { replaces: Some(old), send: SendFrom::PeerUse };
    let child = grant(cx, &sa.ground(&lineage), terms, &ingredients, entry, &mut chain)?;
    if collides {
        let lowest_nonce = ingredients.nonces.lowest().to_vec();
        sa.meet_rival(Rival { inbound: child.inbound, lowest_nonce });
    } else {
        sa.retire_child(cx, old);
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
        None if sa.pending_child().is_some() => Err(Refusal::TemporaryFailure("a CHILD_SA is just being made")),
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

    /// Whether we are about to replace this child.
    fn rekeys(&self, old: Spi) -> bool {
        self.pending_child().is_some_and(|pending| pending.old == old)
    }

    fn meet_rival(&mut self, rival: Rival) {
        if let Some(Active::RekeyChild(pending)) = &mut self.active {
            pending.rival = Some(rival);
        }
    }

    /// Another child took its place. Whoever made that one deletes it; if that does not happen, we do: in a while, or
    /// when too many others have come after it.
    fn retire_child(&mut self, cx: &mut Context, inbound: Spi) {
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
    let (name, selectors, mode) = (child.name.clone(), child.selectors.clone(), child.mode);
    let kex = child.kex.map(|kex| kex.offer(&mut cx.rng));
    let (nonce, inbound) = (cx.nonce(), cx.spis.draw_esp(&mut cx.rng, sa.local_spi()));

    let old_spi = old.to_be_bytes();
    let rekey = Notify { protocol: ProtocolId::ESP, spi: &old_spi, kind: NotifyKind::REKEY_SA, data: &[] };
    let mut chain = PayloadChain::new().with(&Payload::Notify(rekey));
    if mode == Mode::Transport {
        chain.push(&Payload::Notify(Notify::new(NotifyKind::USE_TRANSPORT_MODE, &[])));
    }
    let method = kex.as_ref().map(|(offered, _)| offered.method());
    chain.push(&Payload::Sa(offer_esp(&settings.proposals, &inbound.to_be_bytes(), method)));
    chain.push(&Payload::Nonce(&nonce));
    if let Some((offered, public)) = &kex {
        chain.push(&Payload::KeyExchange(KeyExchange { group: offered.method().group(), data: public }));
    }
    chain.push(&Payload::TsInitiator(TrafficSelectors(selectors.local.clone())));
    chain.push(&Payload::TsResponder(TrafficSelectors(selectors.remote.clone())));
    let kex = kex.map(|(offered, _)| offered);
    let pending = Pending { old, name, inbound, nonce, kex, selectors, mode, rival: None };
    Some(Request { exchange: ExchangeType::CreateChildSa, chain, active: Active::RekeyChild(Box::new(pending)) })
}

/// Takes the response.
///
/// # Errors
/// A response without what it must have.
pub(crate) fn finish(sa: &mut IkeSa, cx: &mut Context, pending: Pending, body: &Body<'_>) -> Result<(), Malformed> {
    let inbound = pending.inbound;
    let settled = settle(sa, cx, pending, body);
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

fn settle(sa: &mut IkeSa, cx: &mut Context, pending: Pending, body: &Body<'_>) -> Result<Settled, Malformed> {
    if let Some(error) = body.error() {
        refused(sa, cx, &pending, error);
        return Ok(Settled::Nothing);
    }
    let lineage = sa.lineage.clone();
    let settings = lineage.connection.child(&pending.name);
    let (pending, granted) = match settings {
        Some(settings) => read_grant(pending, settings, body)?,
        None => (pending, None),
    };
    let Some((settings, granted)) = settings.zip(granted) else {
        // The peer has made something that we did not ask for. It is to forget it, and we try again later.
        sa.queue(Task::ReportGone(pending.inbound));
        failed(sa, cx, &pending, "the peer chose what was not offered".into());
        return Ok(Settled::Nothing);
    };
    install(sa, cx, &pending, settings, granted);
    Ok(Settled::Installed)
}

/// What the response grants.
struct Granted {
    chosen: ChosenEsp,
    nonces: Nonces,
    shared: Option<Secret>,
    selectors: Selectors,
    mode: Mode,
}

/// `None` if the peer chose outside of our offer.
fn read_grant(
    mut pending: Pending,
    settings: &ChildSettings,
    body: &Body<'_>,
) -> Result<(Pending, Option<Granted>), Malformed> {
    let theirs = body.require_nonce()?;
    if theirs == pending.nonce {
        return Err(Malformed::NonceReflected);
    }
    let (ts_initiator, ts_responder) = body.require_selectors()?;
    let selectors = Selectors { local: ts_initiator.0.clone(), remote: ts_responder.0.clone() };
    let method = pending.kex.as_ref().map(OfferedKex::method);
    let chosen = accept_esp(&settings.proposals, body.require_sa()?, method);
    let is_subset = pending.selectors.narrow(&selectors).is_some_and(|narrowed| narrowed == selectors);
    let Some(chosen) = chosen.filter(|_| is_subset) else { return Ok((pending, None)) };
    let shared = match pending.kex.take() {
        None => None,
        Some(kex) => {
            let answer = body.require_key_exchange()?;
            let group = kex.method().group();
            if answer.group != group {
                return Err(Malformed::KeyExchange { group: answer.group, fault: "not the group that was chosen" });
            }
            Some(kex.finish(answer.data)?)
        }
    };
    let nonces = Nonces { initiator: core::mem::take(&mut pending.nonce), responder: theirs.to_vec() };
    let is_transport = pending.mode == Mode::Transport && body.has(NotifyKind::USE_TRANSPORT_MODE);
    let mode = if is_transport { Mode::Transport } else { Mode::Tunnel };
    Ok((pending, Some(Granted { chosen, nonces, shared, selectors, mode })))
}

fn install(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, settings: &ChildSettings, granted: Granted) {
    let Granted { chosen, nonces, shared, selectors, mode } = granted;
    let verdict = match &pending.rival {
        None => Verdict::OursStays,
        Some(rival) => {
            cx.counters.collisions += 1;
            judge(&nonces, &rival.lowest_nonce)
        }
    };
    let Ok(keys) = ChildKeys::derive(sa.suite.prf, &sa.d, shared.as_ref(), &nonces, chosen.suite.cipher) else {
        return sa.queue(Task::ReportGone(pending.inbound));
    };
    let agreed = Agreement {
        inbound: pending.inbound,
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
    let entry = Entry { replaces: Some(pending.old), send };
    let lineage = sa.lineage.clone();
    let mut child = Child::establish(cx, &lineage, &sa.path, settings, agreed, entry);
    sa.retire_child(cx, pending.old);
    match verdict {
        Verdict::OursStays => {
            if let Some(rival) = &pending.rival {
                sa.make_redundant(cx, rival.inbound);
            }
            if let Some(old) = sa.child_mut(pending.old) {
                old.successor = Some(pending.inbound);
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
}

/// The peer refused (RFC 7296 §2.25.1).
fn refused(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, error: &Notify<'_>) {
    if pending.rival.is_some() {
        // The peer did not see a collision; what it made takes the old one's place.
        return sa.retire_child(cx, pending.old);
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
        kind => failed(sa, cx, pending, format!("the peer answered {kind}")),
    }
}

fn failed(sa: &mut IkeSa, cx: &mut Context, pending: &Pending, why: String) {
    sa.retry_later(cx, pending.old);
    cx.events.push_back(Event::RekeyFailed { peer: sa.lineage.peer, child: Some(pending.old), why });
}

impl IkeSa {
    /// It lost a collision; the peer, who made it, deletes it.
    fn make_redundant(&mut self, cx: &mut Context, inbound: Spi) {
        self.retire_child(cx, inbound);
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
