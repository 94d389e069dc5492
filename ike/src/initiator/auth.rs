//! IKE_AUTH: our proof and our wish for a child, and what we make of the response.

use std::sync::Arc;

use ipsec::sa::Mode;
use ipsec::selector::Selectors;

use super::{AuthSent, Initiating, Phase, Progress};
use crate::channel::Role;
use crate::child::{Agreement, Child, Entry, Kinship};
use crate::config::{ChildSettings, Identity, IdentityPattern};
use crate::context::Context;
use crate::crypto::keys::ChildKeys;
use crate::error::Malformed;
use crate::event::{Datagram, SendFrom};
use crate::exchange::auth::{Authenticated, Claim, SignedOctets, announce};
use crate::message::payload::{
    Auth, AuthMethod, Delete, Identification, Notify, NotifyKind, Payload, TrafficSelectors,
};
use crate::message::{Body, ExchangeType, Header, PayloadChain};
use crate::proposal::{accept_esp, offer_esp};
use crate::sa::{Birth, IkeSa, Lineage, Path, Task};
use crate::window::{Incoming, Outgoing};

impl Initiating {
    fn settings(&self) -> Option<&ChildSettings> {
        self.connection.child(&self.child)
    }

    /// Sends IKE_AUTH; `request` is our IKE_SA_INIT request, which we sign.
    pub(super) fn send_auth(&mut self, cx: &mut Context, request: &[u8]) {
        let chain = self.auth_request(cx, request);
        let Phase::Auth(sent) = &mut self.phase else { return };
        let header = Header {
            spis: sent.spis,
            next_payload: 0,
            exchange: ExchangeType::IkeAuth,
            from_initiator: true,
            is_response: false,
            message_id: 1,
        };
        self.outgoing = Outgoing::starting_at(1);
        if let Ok(message) = sent.channel.seal(header, &chain, &cx.config.limits) {
            self.send(cx, ExchangeType::IkeAuth, message);
        }
    }

    fn auth_request(&self, cx: &Context, request: &[u8]) -> PayloadChain {
        let mut chain = PayloadChain::new();
        let Phase::Auth(sent) = &self.phase else { return chain };
        let local_id = self.connection.local_identity(self.local.ip());
        let id_body = local_id.to_payload_body();
        if let Some(id) = Identification::from_body(&id_body) {
            chain.push(&Payload::IdInitiator(id));
        }
        chain.push(&Payload::Notify(Notify::new(NotifyKind::INITIAL_CONTACT, &[])));
        let wanted = match &self.connection.remote_id {
            IdentityPattern::Exactly(id) => Some(id),
            IdentityPattern::Any | IdentityPattern::Ending(_) => None,
        };
        let wanted_body = wanted.map(Identity::to_payload_body);
        if let Some(id) = wanted_body.as_deref().and_then(Identification::from_body) {
            chain.push(&Payload::IdResponder(id));
        }
        // Without a secret for this peer the proof cannot be made, and the peer will say so.
        let psk = cx.secrets.find(&local_id, wanted.unwrap_or(&Identity::address(self.remote.ip())));
        let signed = SignedOctets {
            prf: sent.suite.prf,
            message: request,
            nonce: &sent.nonces.responder,
            id_body: &id_body,
            sk_p: &sent.keys.pi,
        };
        if let Some(psk) = psk {
            let mac = signed.psk_mac(psk);
            chain.push(&Payload::Auth(Auth { method: AuthMethod::SHARED_KEY, data: &mac }));
        }
        if let Some(settings) = self.settings() {
            if cx.config.per_resource {
                chain.push(&Payload::Notify(Notify::new(NotifyKind::SA_RESOURCE_INFO, &[])));
            }
            self.ask_for_child(settings, sent, &mut chain);
        }
        chain
    }

    fn ask_for_child(&self, settings: &ChildSettings, sent: &AuthSent, chain: &mut PayloadChain) {
        let path = Path { local: self.local, remote: self.remote, nat: sent.nat };
        let (mode, selectors) = wish(settings, &path);
        if mode == Mode::Transport {
            chain.push(&Payload::Notify(Notify::new(NotifyKind::USE_TRANSPORT_MODE, &[])));
        }
        chain.push(&Payload::Sa(offer_esp(&settings.proposals, &sent.inbound.to_be_bytes(), None)));
        chain.push(&Payload::TsInitiator(TrafficSelectors(selectors.local)));
        chain.push(&Payload::TsResponder(TrafficSelectors(selectors.remote)));
    }

    pub(super) fn handle_auth_response(mut self, cx: &mut Context, header: &Header, datagram: &Datagram) -> Progress {
        let Phase::Auth(sent) = &mut self.phase else { return Progress::Waiting(Box::new(self)) };
        let opened = match sent.channel.open(cx.now, header, &datagram.payload, &cx.config.limits) {
            Ok(opened) => opened,
            Err(why) => {
                cx.count_unopened(&why);
                return Progress::Waiting(Box::new(self));
            }
        };
        let body = match opened.body() {
            Ok(body) => body,
            Err(fault) => return self.fail(cx, fault.to_string()),
        };
        match self.authenticate(cx, &body) {
            Ok(proven) => self.establish(cx, proven, &body, datagram),
            Err(why) => {
                // The peer believes that the IKE SA stands; it is told better, once (RFC 7296 §2.21.2).
                self.renounce(cx);
                self.fail(cx, why)
            }
        }
    }

    fn renounce(&mut self, cx: &mut Context) {
        let Phase::Auth(sent) = &mut self.phase else { return };
        let header = Header {
            spis: sent.spis,
            next_payload: 0,
            exchange: ExchangeType::Informational,
            from_initiator: true,
            is_response: false,
            message_id: 2,
        };
        let failed = Notify::new(NotifyKind::AUTHENTICATION_FAILED, &[]);
        let chain = PayloadChain::new().with(&Payload::Notify(failed)).with(&Payload::Delete(Delete::IKE_SA));
        if let Ok(message) = sent.channel.seal(header, &chain, &cx.config.limits) {
            cx.transmit_all(self.local, self.remote, message);
        }
    }

    fn authenticate(&self, cx: &Context, body: &Body<'_>) -> Result<Authenticated, String> {
        let Phase::Auth(sent) = &self.phase else { return Err("IKE_AUTH has not been sent".into()) };
        let (Some(id), Some(auth)) = (body.id_responder, body.auth) else {
            let said = body.error().map_or("nothing".to_owned(), |error| error.kind.to_string());
            return Err(format!("the peer did not prove who it is, but said {said}"));
        };
        let remote_id = Identity::from_payload(&id).ok_or("the peer claims an unusable identity")?;
        if self.connection.remote_id.matches(&remote_id).is_none() {
            return Err(format!("the peer is {remote_id}; expected {}", self.connection.remote_id));
        }
        let local_id = self.connection.local_identity(self.local.ip());
        let psk = cx.secrets.find(&local_id, &remote_id).ok_or("no pre-shared key for this peer")?;
        let signed = SignedOctets {
            prf: sent.suite.prf,
            message: &sent.response,
            nonce: &sent.nonces.initiator,
            id_body: id.body(),
            sk_p: &sent.keys.pr,
        };
        let claim = Claim { connection: self.connection.clone(), local_id, remote_id };
        Authenticated::verify(claim, &signed, psk, &auth).map_err(|refusal| refusal.to_string())
    }

    fn establish(self, cx: &mut Context, proven: Authenticated, body: &Body<'_>, datagram: &Datagram) -> Progress {
        let Initiating { connection, child, spi, local, phase, .. } = self;
        let Phase::Auth(sent) = phase else { return Progress::Failed };
        let path = Path { local, remote: datagram.remote, nat: sent.nat };
        let lineage: Arc<Lineage> = proven.into_lineage(cx);
        announce(cx, &lineage, &path, Role::Initiator);
        let settings = connection.child(&child);
        let is_made_there = body.sa.is_some();
        let made = settings.map(|settings| take_child(cx, settings, &sent, &lineage, &path, body));
        let first = match made {
            Some(Ok(child)) => Some(child),
            None | Some(Err(_)) => {
                let why = made.and_then(Result::err).unwrap_or_else(|| "no child of that name".into());
                cx.spis.free_esp(sent.inbound);
                cx.report(path.remote, Some(lineage.peer), &why);
                None
            }
        };
        let AuthSent { spis, suite, keys, channel, inbound, .. } = *sent;
        let birth = Birth {
            spis,
            role: Role::Initiator,
            suite,
            d: keys.d,
            channel,
            lineage,
            path,
            incoming: Incoming::starting_at(0),
            outgoing: Outgoing::starting_at(2),
        };
        debug_assert_eq!(spis.initiator, spi);
        let mut sa = IkeSa::new(cx, birth);
        if first.is_none() && is_made_there {
            sa.queue(Task::ReportGone(inbound));
        }
        sa.children.extend(first);
        Progress::Established(Box::new(sa))
    }
}

/// The mode and the selectors that we ask for.
fn wish(settings: &ChildSettings, path: &Path) -> (Mode, Selectors) {
    let selectors = settings.selectors(path.local.ip(), path.remote.ip());
    let for_transport = (settings.mode == Mode::Transport).then(|| path.transport_selectors(&selectors)).flatten();
    for_transport.map_or((Mode::Tunnel, selectors), |narrowed| (Mode::Transport, narrowed))
}

fn take_child(
    cx: &mut Context,
    settings: &ChildSettings,
    sent: &AuthSent,
    lineage: &Lineage,
    path: &Path,
    body: &Body<'_>,
) -> Result<Child, String> {
    if let Some(error) = body.error() {
        return Err(format!("the peer refused the CHILD_SA: {}", error.kind));
    }
    let text = |fault: Malformed| fault.to_string();
    let chosen = accept_esp(&settings.proposals, body.require_sa().map_err(text)?, None)
        .ok_or("the peer chose an ESP proposal that was not offered")?;
    let (initiator, responder) = body.require_selectors().map_err(text)?;
    let (offered_mode, offered) = wish(settings, path);
    let selectors = Selectors { local: initiator.0.clone(), remote: responder.0.clone() };
    let is_subset = offered.narrow(&selectors).is_some_and(|narrowed| narrowed == selectors);
    if !is_subset {
        return Err(format!("the peer chose the selectors {selectors}, outside of {offered}"));
    }
    let mode = if body.has(NotifyKind::USE_TRANSPORT_MODE) { Mode::Transport } else { Mode::Tunnel };
    if mode == Mode::Transport && offered_mode == Mode::Tunnel {
        return Err("the peer chose transport mode, which was not offered".into());
    }
    let keys = ChildKeys::derive(sent.suite.prf, &sent.keys.d, None, &sent.nonces, chosen.suite.cipher);
    let agreed = Agreement {
        inbound: sent.inbound,
        outbound: chosen.spi,
        suite: chosen.suite,
        mode,
        selectors,
        keys: keys.map_err(|error| error.to_string())?,
        role: Role::Initiator,
    };
    let kin = Kinship { per_resource: body.has(NotifyKind::SA_RESOURCE_INFO), ..Kinship::default() };
    let entry = Entry { replaces: None, send: SendFrom::Now, kin };
    Ok(Child::establish(cx, lineage, path, settings, agreed, entry))
}
