//! CREATE_CHILD_SA that replaces the IKE SA (RFC 7296 §1.3.2, §2.8, §2.18), as either side, and as both at once
//! (§2.8.2, §2.25.2).
//!
//! The CHILD_SAs move to the new IKE SA. When both sides rekey at once they stay on the old one until the nonces, or
//! the peer's doings, tell which new one stays.

use crate::channel::{Channel, Role};
use crate::collision::{Verdict, judge};
use crate::context::{Context, Effect, Estate};
use crate::crypto::Secret;
use crate::crypto::kex::OfferedKex;
use crate::crypto::keys::{IkeKeys, Nonces, skeyseed_of_rekey};
use crate::error::{Malformed, Refusal};
use crate::event::{DownReason, Event};
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload};
use crate::message::{Body, ExchangeType, IkeSpi, PayloadChain, Spis};
use crate::proposal::{IkeSuite, accept_ike, choose_ike, offer_ike};
use crate::sa::{Active, Birth, IkeSa, Request, Standing, Task};
use crate::window::{Incoming, Outgoing};

/// Our request that waits for its response.
pub(crate) struct Pending {
    /// Our SPI of the IKE SA to be.
    pub(crate) local_spi: IkeSpi,
    nonce: Vec<u8>,
    kex: OfferedKex,
}

/// The IKE SA that the peer's exchange made while ours was under way.
pub(crate) struct Rival {
    /// Our SPI of it.
    pub(crate) spi: IkeSpi,
    lowest_nonce: Vec<u8>,
}

impl IkeSa {
    /// Whether we are about to replace this IKE SA.
    pub(crate) fn is_rekeying(&self) -> bool {
        matches!(self.active, Some(Active::RekeyIke(_)))
    }

    /// Whether a child is just being made, replaced or deleted by us.
    fn is_busy_with_child(&self) -> bool {
        matches!(
            self.active,
            Some(Active::RekeyChild(_) | Active::Sibling(_) | Active::DeleteChild(..) | Active::ReportGone)
        )
    }

    /// Makes the IKE SA that replaces this one.
    fn successor(
        &self,
        cx: &mut Context,
        role: Role,
        suite: IkeSuite,
        spis: Spis,
        nonces: &Nonces,
        shared: &Secret,
    ) -> IkeSa {
        let seed = skeyseed_of_rekey(self.suite.prf, &self.d, shared, nonces);
        let keys = IkeKeys::derive(suite, &seed, nonces, spis);
        let birth = Birth {
            spis,
            role,
            suite,
            channel: Channel::new(role, suite, &keys, cx.config.sender_id, self.fragmentation()),
            d: keys.d,
            lineage: self.lineage.clone(),
            path: self.path,
            incoming: Incoming::starting_at(0),
            outgoing: Outgoing::starting_at(0),
        };
        IkeSa::new(cx, birth)
    }

    /// Hands everything to `heir`, and waits to be deleted.
    fn bequeath_to(&mut self, cx: &mut Context, heir: &mut IkeSa) {
        let estate = self.surrender(cx);
        heir.inherit(cx, estate);
    }

    /// Gives away children and what was to be done with them, and waits to be deleted.
    pub(crate) fn surrender(&mut self, cx: &Context) -> Estate {
        self.rival = None;
        self.retire(cx, Standing::Replaced);
        Estate {
            children: core::mem::take(&mut self.children),
            tasks: self.take_child_tasks(),
            siblings: core::mem::take(&mut self.siblings),
            path: self.path,
        }
    }
}

// --- The peer rekeys -------------------------------------------------------------------------------------------------

/// Answers the peer's request.
pub(crate) fn respond(sa: &mut IkeSa, cx: &mut Context, body: &Body<'_>) -> Result<PayloadChain, Refusal> {
    if !sa.is_current() {
        return Err(Refusal::TemporaryFailure("the IKE SA is being replaced or deleted"));
    }
    if sa.is_busy_with_child() {
        return Err(Refusal::TemporaryFailure("a CHILD_SA is being replaced or deleted"));
    }
    if sa.rival.is_some() {
        return Err(Refusal::TemporaryFailure("the IKE SA has been rekeyed by the same peer already"));
    }
    if !cx.has_room_for_successor() {
        return Err(Refusal::TemporaryFailure("no room for another IKE SA"));
    }
    let offered = body.require_sa()?;
    let Some(chosen) = choose_ike(&sa.lineage.connection.proposals, offered, true) else {
        return Err(Refusal::NoProposalChosen("none of the offered IKE proposals is configured"));
    };
    let theirs = body.require_nonce()?;
    let ke = body.require_key_exchange()?;
    if ke.group != chosen.suite.kex.group() {
        return Err(Refusal::InvalidKe { found: ke.group, wanted: chosen.suite.kex.group() });
    }
    cx.counters.key_exchanges += 1;
    let (public, shared) = chosen.suite.kex.answer(ke.data, &mut cx.rng)?;
    let nonces = Nonces { initiator: theirs.to_vec(), responder: cx.nonce() };
    if nonces.initiator == nonces.responder {
        return Err(Malformed::NonceReflected.into());
    }
    let local_spi = cx.spis.draw_ike(&mut cx.rng);
    let spis = Spis { initiator: chosen.spi, responder: local_spi };
    let mut new = sa.successor(cx, Role::Responder, chosen.suite, spis, &nonces, &shared);
    if sa.is_rekeying() {
        new.standing = Standing::Contender { old: sa.local_spi() };
        sa.rival = Some(Rival { spi: local_spi, lowest_nonce: nonces.lowest().to_vec() });
    } else {
        sa.bequeath_to(cx, &mut new);
    }
    cx.effects.push(Effect::Install(Box::new(new)));
    let mut chain = PayloadChain::new();
    chain.push(&Payload::Sa(chosen.payload(&local_spi.to_bytes())));
    chain.push(&Payload::Nonce(&nonces.responder));
    chain.push(&Payload::KeyExchange(KeyExchange { group: ke.group, data: &public }));
    Ok(chain)
}

/// The peer deletes this IKE SA.
pub(crate) fn on_peer_delete(sa: &mut IkeSa, cx: &mut Context) {
    match (sa.standing, sa.rival.take()) {
        // It did not see our rekeying, so what it made itself is what stays (RFC 7296 §2.25.2).
        (Standing::Current, Some(rival)) => {
            let estate = sa.surrender(cx);
            cx.effects.push(Effect::Inherit { to: rival.spi, estate });
            sa.finish(DownReason::Replaced);
        }
        (Standing::Current, None) => sa.finish(DownReason::PeerDeleted),
        (Standing::Replaced, _) => sa.finish(DownReason::Replaced),
        (Standing::Contender { .. } | Standing::Redundant, _) => sa.finish(DownReason::Redundant),
    }
}

// --- We rekey --------------------------------------------------------------------------------------------------------

/// Our request.
pub(crate) fn start(sa: &mut IkeSa, cx: &mut Context) -> Request {
    let (kex, public) = sa.suite.kex.offer(&mut cx.rng);
    let (nonce, local_spi) = (cx.nonce(), cx.spis.draw_ike(&mut cx.rng));
    let spi = local_spi.to_bytes();
    let mut chain = PayloadChain::new();
    chain.push(&Payload::Sa(offer_ike(&sa.lineage.connection.proposals, &spi)));
    chain.push(&Payload::Nonce(&nonce));
    chain.push(&Payload::KeyExchange(KeyExchange { group: kex.method().group(), data: &public }));
    sa.rekey_at = None;
    let active = Active::RekeyIke(Box::new(Pending { local_spi, nonce, kex }));
    Request { exchange: ExchangeType::CreateChildSa, chain, active }
}

/// Takes the response.
///
/// # Errors
/// A response without what it must have.
pub(crate) fn finish(sa: &mut IkeSa, cx: &mut Context, pending: Pending, body: &Body<'_>) -> Result<(), Malformed> {
    let local_spi = pending.local_spi;
    let new = match body.error() {
        Some(error) => {
            refused(sa, cx, error);
            Ok(None)
        }
        None => read_grant(sa, cx, pending, body),
    };
    match new {
        Ok(Some((new, nonces))) => {
            settle(sa, cx, new, &nonces);
            Ok(())
        }
        Ok(None) => {
            cx.spis.free_ike(local_spi);
            Ok(())
        }
        Err(fault) => {
            cx.spis.free_ike(local_spi);
            Err(fault)
        }
    }
}

fn read_grant(
    sa: &IkeSa,
    cx: &mut Context,
    pending: Pending,
    body: &Body<'_>,
) -> Result<Option<(IkeSa, Nonces)>, Malformed> {
    let theirs = body.require_nonce()?;
    let ke = body.require_key_exchange()?;
    if theirs == pending.nonce {
        return Err(Malformed::NonceReflected);
    }
    let method = pending.kex.method();
    let chosen = accept_ike(&sa.lineage.connection.proposals, body.require_sa()?, true);
    let Some(chosen) = chosen.filter(|chosen| chosen.suite.kex == method && ke.group == method.group()) else {
        return Err(Malformed::KeyExchange { group: ke.group, fault: "not what was offered" });
    };
    let shared = pending.kex.finish(ke.data)?;
    let nonces = Nonces { initiator: pending.nonce, responder: theirs.to_vec() };
    let spis = Spis { initiator: pending.local_spi, responder: chosen.spi };
    let new = sa.successor(cx, Role::Initiator, chosen.suite, spis, &nonces, &shared);
    Ok(Some((new, nonces)))
}

/// Decides between what we made and what the peer may have made.
fn settle(sa: &mut IkeSa, cx: &mut Context, mut new: IkeSa, nonces: &Nonces) {
    let rival = sa.rival.take();
    if rival.is_some() {
        cx.counters.collisions += 1;
    }
    let verdict = match (&rival, sa.standing) {
        (Some(rival), _) => judge(nonces, &rival.lowest_nonce),
        (None, Standing::Current) => Verdict::OursStays,
        // The peer's new IKE SA has taken over in the meantime.
        (None, Standing::Contender { .. } | Standing::Replaced | Standing::Redundant) => Verdict::TheirsStays,
    };
    match (verdict, rival) {
        (Verdict::OursStays, rival) => {
            if let Some(rival) = rival {
                cx.effects.push(Effect::Demote(rival.spi));
            }
            sa.bequeath_to(cx, &mut new);
            sa.queue(Task::DeleteIke(DownReason::Replaced));
        }
        (Verdict::TheirsStays, rival) => {
            if let Some(rival) = rival {
                let estate = sa.surrender(cx);
                cx.effects.push(Effect::Inherit { to: rival.spi, estate });
            }
            new.retire(cx, Standing::Redundant);
            new.queue(Task::DeleteIke(DownReason::Redundant));
        }
    }
    cx.effects.push(Effect::Install(Box::new(new)));
}

/// The peer refused (RFC 7296 §2.25.2).
fn refused(sa: &mut IkeSa, cx: &mut Context, error: &Notify<'_>) {
    if let Some(rival) = sa.rival.take() {
        let estate = sa.surrender(cx);
        cx.effects.push(Effect::Inherit { to: rival.spi, estate });
        return;
    }
    if sa.standing != Standing::Current {
        return;
    }
    sa.retry_rekeying(cx);
    if error.kind != NotifyKind::TEMPORARY_FAILURE {
        let why = format!("the peer answered {}", error.kind);
        cx.events.push_back(Event::RekeyFailed { peer: sa.lineage.peer, child: None, why });
    }
}
