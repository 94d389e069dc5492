//! IKE_AUTH (RFC 7296 §1.2, §2.15): from a half-open IKE SA to one whose peer is known.
//!
//! [`Authenticated`] is the proof that a peer showed who it is. Only the verification in this module makes one, and an
//! IKE SA cannot be made without one.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::create_child::{Ground, Ingredients, agree, grant};
use crate::channel::{Opened, Role};
use crate::child::{Child, Entry, Kinship};
use crate::config::{Connection, Identity, Psk};
use crate::context::Context;
use crate::crypto::Secret;
use crate::crypto::prf::Prf;
use crate::error::{Malformed, Refusal};
use crate::event::{Datagram, Event, IkeUp, SendFrom};
use crate::half_open::HalfOpen;
use crate::message::payload::{Auth, AuthMethod, Identification, NotifyKind, Payload, PayloadKind};
use crate::message::{Body, Header, PayloadChain};
use crate::proposal::EspContext;
use crate::sa::{Birth, IkeSa, Lineage, Path};
use crate::window::{Incoming, Outgoing};

/// The padding of RFC 7296 §2.15.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What one side signs: its own first message, the other's nonce, its own identity under its own key.
pub(crate) struct SignedOctets<'a> {
    pub(crate) prf: Prf,
    pub(crate) message: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) id_body: &'a [u8],
    pub(crate) sk_p: &'a Secret,
}

impl SignedOctets<'_> {
    /// The AUTH data under a pre-shared key.
    pub(crate) fn psk_mac(&self, psk: &Psk) -> Secret {
        let key = self.prf.compute(psk.octets(), &[KEY_PAD]);
        let maced_id = self.prf.compute(self.sk_p, &[self.id_body]);
        self.prf.compute(&key, &[self.message, self.nonce, &maced_id])
    }

    /// Verifies the peer's AUTH data, in constant time.
    fn verify_psk(&self, psk: &Psk, auth: &Auth<'_>) -> Result<(), Refusal> {
        if auth.method != AuthMethod::SHARED_KEY {
            return Err(Refusal::AuthenticationFailed("the method is not shared key"));
        }
        if bool::from(self.psk_mac(psk).ct_eq(auth.data)) {
            Ok(())
        } else {
            Err(Refusal::AuthenticationFailed("the proof is wrong; most likely the pre-shared keys differ"))
        }
    }
}

/// Proof that the peer is who it says, in this connection.
pub(crate) struct Authenticated {
    connection: Connection,
    local_id: Identity,
    remote_id: Identity,
}

impl Authenticated {
    /// Verifies the peer's proof. The signed octets must be those of the peer.
    pub(crate) fn verify(
        claim: Claim,
        signed: &SignedOctets<'_>,
        psk: &Psk,
        auth: &Auth<'_>,
    ) -> Result<Authenticated, Refusal> {
        signed.verify_psk(psk, auth)?;
        Ok(Authenticated { connection: claim.connection, local_id: claim.local_id, remote_id: claim.remote_id })
    }

    /// Begins a lineage.
    pub(crate) fn into_lineage(self, cx: &mut Context) -> Arc<Lineage> {
        let peer_name = Arc::from(self.remote_id.to_string());
        Arc::new(Lineage {
            peer: cx.next_peer(),
            connection: self.connection,
            local_id: self.local_id,
            remote_id: self.remote_id,
            peer_name,
        })
    }
}

/// Who the peer says it is and whom it wants, not yet proven.
pub(crate) struct Claim {
    pub(crate) connection: Connection,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
}

/// An IKE_AUTH request whose sender is known.
pub(crate) struct Proven<'a> {
    body: Body<'a>,
    who: Authenticated,
    psk: Psk,
}

impl Proven<'_> {
    /// Whether the peer says that it has no other IKE SA with us.
    pub(crate) fn is_initial_contact(&self) -> bool {
        self.body.has(NotifyKind::INITIAL_CONTACT)
    }

    /// The connection that they fit.
    pub(crate) fn connection(&self) -> &Connection {
        &self.who.connection
    }

    /// Ours, then the peer's.
    pub(crate) fn identities(&self) -> (&Identity, &Identity) {
        (&self.who.local_id, &self.who.remote_id)
    }
}

/// Finds out who sent an IKE_AUTH request.
pub(crate) fn verify<'a>(
    cx: &Context,
    half_open: &HalfOpen,
    opened: &'a Opened,
    datagram: &Datagram,
) -> Result<Proven<'a>, Refusal> {
    let body = opened.body()?;
    let (who, psk) = authenticate(cx, half_open, &body, datagram)?;
    // Without these the message is malformed, and no IKE SA comes of it (RFC 7296 §2.21.2).
    body.require_sa()?;
    body.require_selectors()?;
    Ok(Proven { body, who, psk })
}

/// Makes the IKE SA, with a child or without, and answers.
pub(crate) fn accept(
    cx: &mut Context,
    half_open: HalfOpen,
    proven: Proven<'_>,
    opened: &Opened,
    header: &Header,
    datagram: &Datagram,
) -> Box<IkeSa> {
    let Proven { body, who, psk } = proven;
    let path = Path { local: datagram.local, remote: datagram.remote, nat: half_open.nat };
    let lineage = who.into_lineage(cx);
    announce(cx, &lineage, &path, Role::Responder);
    let mut chain = prove_ourselves(&half_open, &lineage, &psk);
    let child = first_child(cx, &half_open, &lineage, &path, &body, &mut chain);
    let mut sa = establish(cx, half_open, lineage, path);
    sa.children.extend(child);
    sa.answer(cx, header, datagram, opened.digest(), &chain);
    Box::new(sa)
}

/// Tells the sender that it is not known. The half-open IKE SA is gone; the answer is kept.
pub(crate) fn refuse(
    cx: &mut Context,
    mut half_open: HalfOpen,
    refusal: &Refusal,
    opened: &Opened,
    header: &Header,
    datagram: &Datagram,
) {
    cx.report_refusal(datagram.remote, None, refusal);
    cx.counters.authentication_failed += u64::from(matches!(refusal, Refusal::AuthenticationFailed(_)));
    let reply = header.reply(half_open.spis.responder);
    if let Ok(response) = half_open.channel.seal(reply, &refusal.to_chain(), &cx.config.limits) {
        cx.kept.keep(cx.now, datagram.local.ip(), opened.digest(), response.clone());
        cx.transmit_all(datagram.local, datagram.remote, response);
    }
    cx.spis.free_ike(half_open.spis.responder);
}

/// Finds the connection that the claimed identities fit, and verifies the claim.
fn authenticate(
    cx: &Context,
    half_open: &HalfOpen,
    body: &Body<'_>,
    datagram: &Datagram,
) -> Result<(Authenticated, Psk), Refusal> {
    let id = body.id_initiator.ok_or(Malformed::Missing(PayloadKind::IdInitiator))?;
    let Some(auth) = body.auth else {
        return Err(Refusal::AuthenticationFailed("no AUTH payload, so the peer wants EAP, which is not configured"));
    };
    let remote_id = Identity::from_payload(&id).ok_or(Refusal::AuthenticationFailed("an unusable identity"))?;
    let wanted = match body.id_responder {
        None => None,
        Some(id) => Some(Identity::from_payload(&id).ok_or(Refusal::AuthenticationFailed("an unusable IDr"))?),
    };
    let (local, remote) = (datagram.local.ip(), datagram.remote.ip());
    let fits = |connection: &Connection| {
        let between = connection.is_between(local, remote) && connection.allows(half_open.suite);
        let is_wanted = wanted.as_ref().is_none_or(|wanted| *wanted == connection.local_identity(local));
        (between && is_wanted).then(|| connection.remote_id.matches(&remote_id)).flatten()
    };
    // The closest match counts; of equally close ones the first, hence the reversal.
    let best = cx.connections.iter().rev().filter_map(|one| fits(one).map(|closeness| (closeness, one)));
    let Some((_, connection)) = best.max_by_key(|(closeness, _)| *closeness) else {
        return Err(Refusal::AuthenticationFailed("no connection for this pair of identities"));
    };
    let claim = Claim { connection: connection.clone(), local_id: connection.local_identity(local), remote_id };
    let Some(psk) = cx.secrets.find(&claim.local_id, &claim.remote_id).cloned() else {
        return Err(Refusal::AuthenticationFailed("no pre-shared key for this peer"));
    };
    let signed = SignedOctets {
        prf: half_open.suite.prf,
        message: &half_open.request,
        nonce: &half_open.nonces.responder,
        id_body: id.body(),
        sk_p: &half_open.keys.pi,
    };
    Authenticated::verify(claim, &signed, &psk, &auth).map(|proven| (proven, psk))
}

/// IDr and AUTH.
fn prove_ourselves(half_open: &HalfOpen, lineage: &Lineage, psk: &Psk) -> PayloadChain {
    let id_body = lineage.local_id.to_payload_body();
    let signed = SignedOctets {
        prf: half_open.suite.prf,
        message: &half_open.response,
        nonce: &half_open.nonces.initiator,
        id_body: &id_body,
        sk_p: &half_open.keys.pr,
    };
    let mac = signed.psk_mac(psk);
    let mut chain = PayloadChain::new();
    if let Some(id) = Identification::from_body(&id_body) {
        chain.push(&Payload::IdResponder(id));
    }
    chain.push(&Payload::Auth(Auth { method: AuthMethod::SHARED_KEY, data: &mac }));
    chain
}

/// The CHILD_SA that comes with IKE_AUTH. If it is refused, the IKE SA stands without it (RFC 7296 §1.2).
fn first_child(
    cx: &mut Context,
    half_open: &HalfOpen,
    lineage: &Lineage,
    path: &Path,
    body: &Body<'_>,
    chain: &mut PayloadChain,
) -> Option<Child> {
    let ground =
        Ground { lineage, path, prf: half_open.suite.prf, d: &half_open.keys.d, owner: half_open.spis.responder };
    let ingredients = Ingredients::of_ike_auth(half_open.nonces.clone());
    let entry = Entry { replaces: None, send: SendFrom::PeerUse, kin: Kinship::default() };
    let granted = agree(cx, lineage, path, body, EspContext::IkeAuth, None)
        .and_then(|terms| grant(cx, &ground, terms, &ingredients, entry, chain));
    match granted {
        Ok(child) => Some(child),
        Err(refusal) => {
            cx.report_refusal(path.remote, Some(lineage.peer), &refusal);
            refusal.notify(chain);
            None
        }
    }
}

fn establish(cx: &mut Context, half_open: HalfOpen, lineage: Arc<Lineage>, path: Path) -> IkeSa {
    let birth = Birth {
        spis: half_open.spis,
        role: Role::Responder,
        suite: half_open.suite,
        d: half_open.keys.d,
        channel: half_open.channel,
        lineage,
        path,
        // IKE_SA_INIT was 0, IKE_AUTH is 1 and about to be answered; we have asked nothing yet.
        incoming: Incoming::starting_at(1),
        outgoing: Outgoing::starting_at(0),
    };
    IkeSa::new(cx, birth)
}

/// Says that a peer is known.
pub(crate) fn announce(cx: &mut Context, lineage: &Lineage, path: &Path, role: Role) {
    cx.counters.ike_up += 1;
    cx.events.push_back(Event::IkeUp(IkeUp {
        peer: lineage.peer,
        connection: lineage.connection.name.clone(),
        peer_name: lineage.peer_name.clone(),
        local: path.local,
        remote: path.remote,
        role,
        nat: path.nat.is_between(),
    }));
}
