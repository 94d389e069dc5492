//! IKE_SA_INIT: our request, and what we make of the response.

use core::net::SocketAddr;
use std::sync::Arc;

use super::{InitSent, Initiating, Phase, Progress};
use crate::channel::{Channel, Role};
use crate::config::Connection;
use crate::context::Context;
use crate::counters::DropReason;
use crate::crypto::kex::{Kex, OfferedKex};
use crate::crypto::keys::{IkeKeys, Nonces, skeyseed};
use crate::error::Malformed;
use crate::event::{Datagram, NATT_PORT};
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload};
use crate::message::{Body, ExchangeType, HEADER_LEN, Header, IkeSpi, PayloadChain, Spis};
use crate::nat::{self, Nat};
use crate::proposal::{ChosenIke, accept_ike, offer_ike};
use crate::window::Outgoing;

/// The ports of IKE (RFC 7296 §2).
const IKE_PORT: u16 = 500;

impl Initiating {
    /// Begins: IKE_SA_INIT leaves.
    pub(crate) fn begin(
        cx: &mut Context,
        connection: Connection,
        child: Arc<str>,
        kex: Kex,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Initiating {
        let (kex, public) = kex.offer(&mut cx.rng);
        let sent = InitSent {
            nonce: cx.nonce(),
            kex,
            public,
            cookie: Vec::new(),
            request: Vec::new(),
            cookies_taken: 0,
            groups_taken: 0,
        };
        let spi = cx.spis.draw_ike(&mut cx.rng);
        let phase = Phase::Init(Box::new(sent));
        let mut this = Initiating { connection, child, spi, local, remote, phase, outgoing: Outgoing::default() };
        this.send_init(cx);
        this
    }

    fn send_init(&mut self, cx: &mut Context) {
        let Phase::Init(sent) = &mut self.phase else { return };
        let spis = Spis { initiator: self.spi, responder: IkeSpi::NONE };
        let mut chain = PayloadChain::new();
        if !sent.cookie.is_empty() {
            chain.push(&Payload::Notify(Notify::new(NotifyKind::COOKIE, &sent.cookie)));
        }
        chain.push(&Payload::Sa(offer_ike(&self.connection.proposals, &[])));
        let group = sent.kex.method().group();
        chain.push(&Payload::KeyExchange(KeyExchange { group, data: &sent.public }));
        chain.push(&Payload::Nonce(&sent.nonce));
        nat::announce(&mut chain, spis, self.local, self.remote);
        chain.push(&Payload::Notify(Notify::new(NotifyKind::FRAGMENTATION_SUPPORTED, &[])));
        let exchange = ExchangeType::IkeSaInit;
        let request = chain.into_message(Header {
            spis,
            next_payload: 0,
            exchange,
            from_initiator: true,
            is_response: false,
            message_id: 0,
        });
        sent.request.clone_from(&request);
        // Each request of this exchange has message ID 0, also those with a cookie or another group.
        self.outgoing = Outgoing::starting_at(0);
        self.send(cx, exchange, request.into());
    }

    /// The response is not authenticated yet, so what makes no sense is dropped and the right one waited for.
    pub(super) fn handle_init_response(
        mut self: Box<Self>,
        cx: &mut Context,
        header: &Header,
        datagram: &Datagram,
    ) -> Progress {
        let Ok(body) = Body::parse(header.next_payload, &datagram.payload[HEADER_LEN..]) else {
            cx.drop(DropReason::Malformed);
            return Progress::Waiting(self);
        };
        if let Some(cookie) = body.notify(NotifyKind::COOKIE) {
            return self.take_cookie(cx, cookie.data);
        }
        if let Some(wanted) = body.notify(NotifyKind::INVALID_KE_PAYLOAD) {
            return self.take_group(cx, wanted.data);
        }
        if let Some(error) = body.error() {
            let why = format!("the peer answered IKE_SA_INIT with {}", error.kind);
            return self.fail(cx, why);
        }
        let chosen = match self.check_choice(header, &body) {
            Ok(Some(chosen)) => chosen,
            Ok(None) => return self.fail(cx, "the peer chose an IKE proposal that was not offered".into()),
            Err(_) => {
                cx.drop(DropReason::Malformed);
                return Progress::Waiting(self);
            }
        };
        match self.derive(cx, header, &body, datagram, chosen) {
            Ok(()) => Progress::Waiting(self),
            Err(fault) => self.fail(cx, fault.to_string()),
        }
    }

    /// Cookies are 1 to 64 octets long (RFC 7296 §2.6).
    fn take_cookie(mut self: Box<Self>, cx: &mut Context, cookie: &[u8]) -> Progress {
        let Phase::Init(sent) = &mut self.phase else { return Progress::Waiting(self) };
        if sent.cookies_taken > 0 || !(1..=64).contains(&cookie.len()) {
            cx.drop(DropReason::UnexpectedResponse);
            return Progress::Waiting(self);
        }
        sent.cookies_taken += 1;
        sent.cookie = cookie.to_vec();
        self.send_init(cx);
        Progress::Waiting(self)
    }

    /// Another group, if it is one that we offered.
    fn take_group(mut self: Box<Self>, cx: &mut Context, wanted: &[u8]) -> Progress {
        let Phase::Init(sent) = &mut self.phase else { return Progress::Waiting(self) };
        let wanted = <[u8; 2]>::try_from(wanted).ok().map(u16::from_be_bytes).and_then(Kex::from_group);
        let offered = wanted.filter(|kex| self.connection.proposals.iter().any(|one| one.kexes.contains(kex)));
        match offered {
            Some(kex) if sent.groups_taken == 0 && kex != sent.kex.method() => {
                sent.groups_taken += 1;
                (sent.kex, sent.public) = kex.offer(&mut cx.rng);
                self.send_init(cx);
            }
            Some(_) | None => cx.drop(DropReason::UnexpectedResponse),
        }
        Progress::Waiting(self)
    }

    /// `Ok(None)` if the peer chose what we did not offer.
    fn check_choice(&self, header: &Header, body: &Body<'_>) -> Result<Option<ChosenIke>, Malformed> {
        let Phase::Init(sent) = &self.phase else { return Ok(None) };
        let theirs = body.require_nonce()?;
        let ke = body.require_key_exchange()?;
        if theirs == sent.nonce || header.spis.responder.is_none() {
            return Err(Malformed::NonceReflected);
        }
        let chosen = accept_ike(&self.connection.proposals, body.require_sa()?, false);
        let same_group =
            |chosen: &ChosenIke| chosen.suite.kex == sent.kex.method() && ke.group == chosen.suite.kex.group();
        Ok(chosen.filter(same_group))
    }

    /// Keys, the move to port 4500 if there is a NAT between, and IKE_AUTH.
    fn derive(
        &mut self,
        cx: &mut Context,
        header: &Header,
        body: &Body<'_>,
        datagram: &Datagram,
        chosen: ChosenIke,
    ) -> Result<(), Malformed> {
        let Phase::Init(sent) = &mut self.phase else { return Ok(()) };
        let theirs = body.require_nonce()?;
        let ke = body.require_key_exchange()?;
        cx.counters.key_exchanges += 1;
        // The secret is used up, whether the exchange succeeds or not; a failure ends this IKE SA.
        let (spare, _) = chosen.suite.kex.offer(&mut cx.rng);
        let shared = OfferedKex::finish(core::mem::replace(&mut sent.kex, spare), ke.data)?;
        let nonces = Nonces { initiator: sent.nonce.clone(), responder: theirs.to_vec() };
        let request = core::mem::take(&mut sent.request);
        let keys = IkeKeys::derive(chosen.suite, &skeyseed(chosen.suite.prf, &nonces, &shared), &nonces, header.spis);
        let fragmentation = body.has(NotifyKind::FRAGMENTATION_SUPPORTED);
        let nat = nat::detect(body, header.spis, datagram.local, datagram.remote);
        self.float(nat);
        let sent = super::AuthSent {
            spis: header.spis,
            suite: chosen.suite,
            channel: Channel::new(Role::Initiator, chosen.suite, &keys, cx.config.sender_id, fragmentation),
            keys,
            nonces,
            response: datagram.payload.clone(),
            nat,
            inbound: cx.spis.draw_esp(&mut cx.rng, self.spi),
        };
        self.phase = Phase::Auth(Box::new(sent));
        self.send_auth(cx, &request);
        Ok(())
    }

    /// With a NAT between, IKE moves to the port that it shares with ESP in UDP (RFC 7296 §2.23).
    fn float(&mut self, nat: Nat) {
        if nat.is_between() {
            self.local.set_port(NATT_PORT);
            if self.remote.port() == IKE_PORT {
                self.remote.set_port(NATT_PORT);
            }
        }
    }
}
