//! CREATE_CHILD_SA for a new CHILD_SA (RFC 7296 §1.3.1), and what all ways to make a CHILD_SA have in common.

use ipsec::sa::Mode;
use ipsec::selector::Selectors;

use crate::channel::Role;
use crate::child::{Agreement, Child, Entry, Kinship};
use crate::config::{ChildSettings, Overlap};
use crate::context::Context;
use crate::crypto::Secret;
use crate::crypto::kex::Kex;
use crate::crypto::keys::{ChildKeys, Nonces};
use crate::crypto::prf::Prf;
use crate::error::{Malformed, Refusal};
use crate::event::SendFrom;
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload, TrafficSelectors};
use crate::message::{Body, IkeSpi, PayloadChain};
use crate::proposal::{ChosenEsp, EspContext, choose_esp};
use crate::sa::{IkeSa, Lineage, Path};

/// What an IKE SA lends to the making of a CHILD_SA.
pub(crate) struct Ground<'a> {
    pub(crate) lineage: &'a Lineage,
    pub(crate) path: &'a Path,
    pub(crate) prf: Prf,
    pub(crate) d: &'a Secret,
    /// Our SPI of the IKE SA.
    pub(crate) owner: IkeSpi,
}

/// What we grant to a request.
pub(crate) struct Terms<'a> {
    settings: &'a ChildSettings,
    chosen: ChosenEsp,
    selectors: Selectors,
    mode: Mode,
    /// The peer says that it takes several with equal selectors, and so do we.
    per_resource: bool,
}

impl Terms<'_> {
    /// The key exchange that was chosen, if any.
    pub(crate) fn kex(&self) -> Option<Kex> {
        self.chosen.suite.kex
    }
}

/// A child of the connection, and what it would make of a request.
struct Candidate<'a> {
    settings: &'a ChildSettings,
    selectors: Selectors,
    mode: Mode,
    /// All that is proposed is allowed; and the mode is the one that the peer asks for. The higher, the better.
    fitness: (bool, bool),
}

impl<'a> Candidate<'a> {
    fn of(
        settings: &'a ChildSettings,
        path: &Path,
        proposed: &Selectors,
        asks_transport: bool,
    ) -> Option<Candidate<'a>> {
        let allowed = settings.selectors(path.local.ip(), path.remote.ip());
        let narrowed = allowed.narrow(proposed)?;
        let is_whole = allowed.contains(proposed);
        // Transport mode is the peer's wish, which we decline by leaving it out (RFC 7296 §1.3.1): a NAT between, or no
        // traffic between the two addresses themselves, leaves nothing but a tunnel.
        let may_be_transport = asks_transport && settings.mode == Mode::Transport;
        Some(match may_be_transport.then(|| path.transport_selectors(&narrowed)).flatten() {
            Some(selectors) => Candidate { settings, selectors, mode: Mode::Transport, fitness: (is_whole, true) },
            None => {
                let fits = !asks_transport && settings.mode == Mode::Tunnel;
                Candidate { settings, selectors: narrowed, mode: Mode::Tunnel, fitness: (is_whole, fits) }
            }
        })
    }
}

/// Finds the child of the connection that the request fits best; of equally good ones, the first. A rekeying names its
/// child itself.
pub(crate) fn agree<'a>(
    cx: &Context,
    lineage: &'a Lineage,
    path: &Path,
    body: &Body<'_>,
    context: EspContext,
    only: Option<&str>,
) -> Result<Terms<'a>, Refusal> {
    let (ts_initiator, ts_responder) = body.require_selectors()?;
    let proposed = Selectors { local: ts_responder.0.clone(), remote: ts_initiator.0.clone() };
    let asks_transport = body.has(NotifyKind::USE_TRANSPORT_MODE);
    let children = lineage.connection.children.iter().filter(|child| only.is_none_or(|name| *child.name == *name));
    let candidates = children.filter_map(|child| Candidate::of(child, path, &proposed, asks_transport));
    // The last of the best counts, hence the reversal.
    let Some(Candidate { settings, selectors, mode, .. }) = candidates.rev().max_by_key(|one| one.fitness) else {
        return Err(Refusal::TsUnacceptable(proposed.to_string()));
    };
    let Some(chosen) = choose_esp(&settings.proposals, body.require_sa()?, context) else {
        return Err(Refusal::NoProposalChosen("none of the offered ESP proposals is configured"));
    };
    if settings.overlap == Overlap::Refuse && cx.overlaps.find(lineage.peer, &selectors).is_some() {
        return Err(Refusal::TsUnacceptable(format!("{selectors}, which overlap another peer's")));
    }
    Ok(Terms { settings, chosen, selectors, mode, per_resource: body.has(NotifyKind::SA_RESOURCE_INFO) })
}

/// What the keys of a CHILD_SA are made from, and what the response must tell of it.
pub(crate) struct Ingredients {
    pub(crate) nonces: Nonces,
    shared: Option<Secret>,
    tell: Tell,
}

enum Tell {
    /// The nonces were exchanged by IKE_SA_INIT.
    Nothing,
    /// Our nonce, and our half of the key exchange if there is one.
    Fresh(Option<(Kex, Vec<u8>)>),
}

impl Ingredients {
    /// For the CHILD_SA of IKE_AUTH.
    pub(crate) fn of_ike_auth(nonces: Nonces) -> Ingredients {
        Ingredients { nonces, shared: None, tell: Tell::Nothing }
    }

    /// For a CREATE_CHILD_SA request: answers its nonce and its key exchange, if one was chosen.
    pub(crate) fn answer(cx: &mut Context, body: &Body<'_>, kex: Option<Kex>) -> Result<Ingredients, Refusal> {
        let theirs = body.require_nonce()?;
        let mut told = None;
        let mut shared = None;
        if let Some(kex) = kex {
            let ke = body.require_key_exchange()?;
            if ke.group != kex.group() {
                return Err(Refusal::InvalidKe { found: ke.group, wanted: kex.group() });
            }
            cx.counters.key_exchanges += 1;
            let (public, secret) = kex.answer(ke.data, &mut cx.rng)?;
            told = Some((kex, public));
            shared = Some(secret);
        }
        let ours = cx.nonce();
        if theirs == ours {
            return Err(Malformed::NonceReflected.into());
        }
        let nonces = Nonces { initiator: theirs.to_vec(), responder: ours };
        Ok(Ingredients { nonces, shared, tell: Tell::Fresh(told) })
    }

    /// The secret of the key exchange, if there was one.
    pub(crate) fn shared(&self) -> Option<&Secret> {
        self.shared.as_ref()
    }

    /// Appends Nr and KEr.
    pub(crate) fn tell(&self, chain: &mut PayloadChain) {
        let Tell::Fresh(ke) = &self.tell else { return };
        chain.push(&Payload::Nonce(&self.nonces.responder));
        if let Some((kex, public)) = ke {
            chain.push(&Payload::KeyExchange(KeyExchange { group: kex.group(), data: public }));
        }
    }
}

/// Makes the CHILD_SA that was granted, and appends what says so to the response.
pub(crate) fn grant(
    cx: &mut Context,
    ground: &Ground<'_>,
    terms: Terms<'_>,
    ingredients: &Ingredients,
    mut entry: Entry,
    chain: &mut PayloadChain,
) -> Result<Child, Refusal> {
    let inbound = cx.spis.draw_esp(&mut cx.rng, ground.owner);
    let (cipher, nonces) = (terms.chosen.suite.cipher, &ingredients.nonces);
    let Ok(keys) = ChildKeys::derive(ground.prf, ground.d, ingredients.shared(), nonces, cipher) else {
        cx.spis.free_esp(inbound);
        return Err(Refusal::TemporaryFailure("no keys"));
    };
    if terms.mode == Mode::Transport {
        chain.push(&Payload::Notify(Notify::new(NotifyKind::USE_TRANSPORT_MODE, &[])));
    }
    if terms.per_resource {
        entry.kin.per_resource = true;
        chain.push(&Payload::Notify(Notify::new(NotifyKind::SA_RESOURCE_INFO, &[])));
    }
    chain.promises = Some(inbound);
    chain.push(&Payload::Sa(terms.chosen.payload(&inbound.to_be_bytes())));
    ingredients.tell(chain);
    chain.push(&Payload::TsInitiator(TrafficSelectors(terms.selectors.remote.clone())));
    chain.push(&Payload::TsResponder(TrafficSelectors(terms.selectors.local.clone())));
    let agreed = Agreement {
        inbound,
        outbound: terms.chosen.spi,
        suite: terms.chosen.suite,
        mode: terms.mode,
        selectors: terms.selectors,
        keys,
        role: Role::Responder,
    };
    Ok(Child::establish(cx, ground.lineage, ground.path, terms.settings, agreed, entry))
}

/// The group of the request's KE payload, for the choice among proposals.
pub(crate) fn context_of(body: &Body<'_>) -> EspContext {
    EspContext::CreateChild { group: body.key_exchange.map(|ke| ke.group) }
}

impl IkeSa {
    pub(crate) fn ground<'a>(&'a self, lineage: &'a Lineage) -> Ground<'a> {
        Ground { lineage, path: &self.path, prf: self.suite.prf, d: &self.d, owner: self.local_spi() }
    }
}

/// A further CHILD_SA.
pub(crate) fn respond(sa: &mut IkeSa, cx: &mut Context, body: &Body<'_>) -> Result<PayloadChain, Refusal> {
    check_may_create(sa, cx)?;
    let allowed = cx.config.limits.children;
    if sa.children_in_use() >= allowed {
        let is_per_resource = body.has(NotifyKind::SA_RESOURCE_INFO);
        return Err(if is_per_resource {
            Refusal::TsMaxQueue { allowed }
        } else {
            Refusal::NoAdditionalSas { allowed }
        });
    }
    let lineage = sa.lineage.clone();
    let terms = agree(cx, &lineage, &sa.path, body, context_of(body), None)?;
    check_is_new(sa, &terms)?;
    let ingredients = Ingredients::answer(cx, body, terms.kex())?;
    let mut chain = PayloadChain::new();
    let entry = Entry { replaces: None, send: SendFrom::PeerUse, kin: Kinship::default() };
    let child = grant(cx, &sa.ground(&lineage), terms, &ingredients, entry, &mut chain)?;
    sa.children.push(child);
    Ok(chain)
}

/// One SPI is one CHILD_SA's: otherwise nobody could tell which of them is meant to be replaced or deleted.
pub(crate) fn check_is_new(sa: &IkeSa, terms: &Terms<'_>) -> Result<(), Refusal> {
    match sa.child_by_outbound(terms.chosen.spi.get()) {
        Some(_) => Err(Refusal::NoProposalChosen("the offered SPI is in use")),
        None => Ok(()),
    }
}

/// An IKE SA that is being replaced or deleted makes no more children (RFC 7296 §2.25.2), and neither does one whose
/// peer asks and asks but does not answer: each child may leave us something to tell.
pub(crate) fn check_may_create(sa: &IkeSa, cx: &Context) -> Result<(), Refusal> {
    if !sa.is_current() {
        return Err(Refusal::TemporaryFailure("the IKE SA is being replaced or deleted"));
    }
    if sa.is_rekeying() {
        return Err(Refusal::TemporaryFailure("the IKE SA is being rekeyed"));
    }
    if sa.waiting_requests() >= cx.config.limits.waiting_requests() {
        return Err(Refusal::TemporaryFailure("too many requests of ours wait for the peer"));
    }
    Ok(())
}
