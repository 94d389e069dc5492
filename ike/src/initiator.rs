//! IKE_SA_INIT and IKE_AUTH as initiator (RFC 7296 §1.2, §2.6, §2.7).
//!
//! An IKE SA that we begin is [`Initiating`] until its peer has been authenticated. Its two phases are two types: the
//! keys exist only in the second. One cookie and one other group are accepted each, so that no peer and nobody in
//! between can keep us asking.

mod auth;
mod init;

use core::net::{IpAddr, SocketAddr};

use ipsec::time::Instant;

use crate::channel::{Channel, Wire};
use crate::config::{Connection, Retransmission};
use crate::context::Context;
use crate::counters::DropReason;
use crate::crypto::kex::OfferedKex;
use crate::crypto::keys::{IkeKeys, Nonces};
use crate::event::{Datagram, Event};
use crate::message::{ExchangeType, Header, IkeSpi, Spis};
use crate::nat::Nat;
use crate::proposal::IkeSuite;
use crate::sa::IkeSa;
use crate::window::{Outgoing, Patience};

/// An IKE SA that we have begun.
pub(crate) struct Initiating {
    pub(crate) connection: Connection,
    /// Which of its children to ask for along with IKE_AUTH.
    child: std::sync::Arc<str>,
    pub(crate) spi: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
    phase: Phase,
    outgoing: Outgoing,
}

enum Phase {
    /// IKE_SA_INIT has been sent.
    Init(Box<InitSent>),
    /// IKE_AUTH has been sent.
    Auth(Box<AuthSent>),
}

struct InitSent {
    nonce: Vec<u8>,
    kex: OfferedKex,
    public: Vec<u8>,
    cookie: Vec<u8>,
    request: Vec<u8>,
    cookies_taken: u8,
    groups_taken: u8,
}

struct AuthSent {
    spis: Spis,
    suite: IkeSuite,
    keys: IkeKeys,
    channel: Channel,
    nonces: Nonces,
    /// The whole IKE_SA_INIT response, which the responder signs.
    response: Vec<u8>,
    nat: Nat,
    /// What we would receive ESP on.
    inbound: ipsec::Spi,
}

/// What became of an IKE SA that we began.
pub(crate) enum Progress {
    /// It goes on.
    Waiting(Box<Initiating>),
    /// The peer is known.
    Established(Box<IkeSa>),
    /// It came to nothing, which has been reported.
    Failed,
}

impl Initiating {
    fn fail(self, cx: &mut Context, why: String) -> Progress {
        cx.events.push_back(Event::InitiationFailed {
            connection: self.connection.name.clone(),
            remote: self.remote,
            why,
        });
        self.dissolve(cx);
        Progress::Failed
    }

    /// Gives back what it holds.
    pub(crate) fn dissolve(self, cx: &mut Context) {
        cx.spis.free_ike(self.spi);
        match self.phase {
            Phase::Init(_) => {}
            Phase::Auth(sent) => cx.spis.free_esp(sent.inbound),
        }
    }

    /// Our address.
    pub(crate) fn local_address(&self) -> IpAddr {
        self.local.ip()
    }

    /// A datagram with our SPI.
    pub(crate) fn handle_datagram(self: Box<Self>, cx: &mut Context, header: &Header, datagram: &Datagram) -> Progress {
        if !header.is_response || header.from_initiator {
            cx.drop(DropReason::UnexpectedExchange);
            return Progress::Waiting(self);
        }
        if !self.outgoing.awaits(header.message_id, header.exchange) {
            cx.drop(DropReason::UnexpectedResponse);
            return Progress::Waiting(self);
        }
        match self.phase {
            Phase::Init(_) => self.handle_init_response(cx, header, datagram),
            Phase::Auth(_) => (*self).handle_auth_response(cx, header, datagram),
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let of_parts = match &self.phase {
            Phase::Init(_) => None,
            Phase::Auth(sent) => sent.channel.next_timeout(),
        };
        self.outgoing.next_timeout().into_iter().chain(of_parts).min()
    }

    pub(crate) fn handle_timeout(mut self: Box<Self>, cx: &mut Context) -> Progress {
        if let Phase::Auth(sent) = &mut self.phase {
            sent.channel.on_time(cx.now);
        }
        match self.outgoing.on_time(cx.now, &cx.config.timing.retransmission) {
            Patience::Wait => {}
            Patience::SendAgain(request) => {
                cx.counters.requests_resent += 1;
                cx.transmit_all(self.local, self.remote, request);
            }
            Patience::GiveUp => return self.fail(cx, "the peer does not answer".into()),
        }
        Progress::Waiting(self)
    }

    fn send(&mut self, cx: &mut Context, exchange: ExchangeType, request: Wire) {
        let pace: &Retransmission = &cx.config.timing.retransmission;
        self.outgoing.sent(cx.now, exchange, request.clone(), pace);
        cx.transmit_all(self.local, self.remote, request);
    }
}
