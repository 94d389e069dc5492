//! A peer that says whatever a test wants, and the endpoint that has to bear it.

use core::net::SocketAddr;
use core::time::Duration;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::lifetime::Lifetime;
use ipsec::sa::Mode;
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::channel::{Channel, Opened, Role};
use crate::config::{
    ChildSettings, ConnectionSettings, EndpointConfig, Identity, IdentityPattern, Limits, Overlap, Psk, Secrets,
};
use crate::counters::DropReason;
use crate::crypto::kex::{Kex, OfferedKex};
use crate::crypto::keys::{IkeKeys, Nonces, skeyseed, skeyseed_of_rekey};
use crate::crypto::prf::Prf;
use crate::exchange::auth::SignedOctets;
use crate::message::payload::{
    Auth, AuthMethod, Identification, KeyExchange, Notify, NotifyKind, Payload, TrafficSelectors,
};
use crate::message::{Body, ExchangeType, HEADER_LEN, Header, IkeSpi, PayloadChain, Spis};
use crate::proposal::{IkeProposal, IkeSuite, offer_esp, offer_ike};
use crate::{Datagram, Endpoint, Event};

pub(super) const CLIENT: &str = "192.0.2.1:500";
pub(super) const SERVER: &str = "203.0.113.80:500";
pub(super) const PSK: &[u8] = b"correct horse battery staple";

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The endpoint under trial, and what it said.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    /// Where it hears.
    pub(super) local: SocketAddr,
    pub(super) now: Instant,
    pub(super) events: Vec<Event>,
}

pub(super) fn child(name: &str) -> ChildSettings {
    ChildSettings {
        name: name.into(),
        local_ts: vec!["203.0.113.80/32".parse().unwrap()],
        remote_ts: vec!["10.0.0.0/8".parse().unwrap()],
        proposals: vec!["aes128gcm16".parse().unwrap()],
        mode: Mode::Tunnel,
        lifetime: Lifetime::NONE,
        replay_window_packets: 128,
        overlap: Overlap::Report,
    }
}

pub(super) fn settings() -> ConnectionSettings {
    ConnectionSettings {
        name: "office".into(),
        local_addrs: Vec::new(),
        remote_addrs: Vec::new(),
        local_id: Some("gw.example.com".parse().unwrap()),
        remote_id: IdentityPattern::Any,
        proposals: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
        rekey_time: None,
        over_time: None,
        ike_sas_per_identity: None,
        dpd_delay: None,
        children: vec![child("web")],
    }
}

impl Server {
    pub(super) fn new() -> Server {
        Server::with(Limits::default(), settings())
    }

    pub(super) fn with(limits: Limits, settings: ConnectionSettings) -> Server {
        let config = EndpointConfig { limits, ..EndpointConfig::default() };
        let mut endpoint = Endpoint::new(config, [9; 32]);
        let mut secrets = Secrets::default();
        secrets.add(Vec::new(), Psk::new(PSK.to_vec()).unwrap());
        endpoint.set_connections(vec![settings.check().unwrap()], secrets);
        Server { endpoint, local: address(SERVER), now: Instant::from_secs(1), events: Vec::new() }
    }

    /// Hands it a datagram and takes what it answers.
    pub(super) fn hear(&mut self, remote: SocketAddr, payload: &[u8]) -> Vec<Datagram> {
        let datagram = Datagram::new(self.local, remote, payload.to_vec());
        self.endpoint.handle_datagram(self.now, &datagram);
        self.drain()
    }

    pub(super) fn wait(&mut self, span: Duration) -> Vec<Datagram> {
        self.now += span;
        self.endpoint.handle_timeout(self.now);
        self.drain()
    }

    pub(super) fn drain(&mut self) -> Vec<Datagram> {
        self.events.extend(core::iter::from_fn(|| self.endpoint.poll_event()));
        core::iter::from_fn(|| self.endpoint.poll_transmit()).collect()
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.endpoint.counters().dropped(reason)
    }

    pub(super) fn children_up(&self) -> Vec<Spi> {
        let up = self.events.iter().filter_map(|event| match event {
            Event::ChildUp(up) => Some(up.children.inbound.spi),
            _ => None,
        });
        up.collect()
    }

    /// CHILD_SAs that came and have not gone.
    pub(super) fn children_left(&self) -> usize {
        let downs = self.events.iter().filter(|event| matches!(event, Event::ChildDown { .. })).count();
        self.children_up().len() - downs
    }
}

/// A peer. What it has sent and received is there to be changed by hand.
pub(super) struct Peer {
    pub(super) at: SocketAddr,
    pub(super) id: Identity,
    pub(super) spi: IkeSpi,
    pub(super) nonce: Vec<u8>,
    pub(super) public: Vec<u8>,
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) spis: Spis,
    /// The next message ID of our requests.
    pub(super) next: u32,
    kex: Option<OfferedKex>,
    secrets: Option<(IkeKeys, Channel, Nonces)>,
    rng: ChaCha20Rng,
}

/// An IKE SA that the peer has replaced and not deleted.
pub(super) struct Predecessor {
    spis: Spis,
    next: u32,
    secrets: Option<(IkeKeys, Channel, Nonces)>,
}

const SUITE: IkeSuite = IkeSuite { cipher: Cipher::AesGcm128, prf: Prf::HmacSha256, kex: Kex::X25519 };
/// What the peer receives ESP on.
pub(super) const PEER_ESP: u32 = 0xc0de_0001;

pub(super) fn ike_proposal() -> IkeProposal {
    "aes128gcm16-prfsha256-x25519".parse().unwrap()
}

impl Peer {
    pub(super) fn new(seed: u64) -> Peer {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (kex, public) = Kex::X25519.offer(&mut rng);
        let mut nonce = vec![0; 32];
        rng.fill_bytes(&mut nonce);
        let spi = IkeSpi::new(rng.next_u64());
        Peer {
            at: address(CLIENT),
            id: "client.example.com".parse().unwrap(),
            spi,
            nonce,
            public,
            request: Vec::new(),
            response: Vec::new(),
            spis: Spis { initiator: spi, responder: IkeSpi::NONE },
            next: 0,
            kex: Some(kex),
            secrets: None,
            rng,
        }
    }

    /// One whose IKE SA and first child stand.
    pub(super) fn connected(server: &mut Server, seed: u64) -> Peer {
        let mut peer = Peer::new(seed);
        peer.connect(server);
        peer
    }

    pub(super) fn connect(&mut self, server: &mut Server) {
        self.begin(server);
        let request = self.auth_request(PSK);
        let answer = self.ask(server, ExchangeType::IkeAuth, &request);
        assert!(answer.body().unwrap().auth.is_some(), "IKE_AUTH failed: {answer:?}");
    }

    pub(super) fn init_header(&self) -> Header {
        Header {
            spis: Spis { initiator: self.spi, responder: IkeSpi::NONE },
            next_payload: 0,
            exchange: ExchangeType::IkeSaInit,
            from_initiator: true,
            is_response: false,
            message_id: 0,
        }
    }

    pub(super) fn init_chain(&self) -> PayloadChain {
        PayloadChain::new()
            .with(&Payload::Sa(offer_ike(&[ike_proposal()], &[])))
            .with(&Payload::KeyExchange(KeyExchange { group: 31, data: &self.public }))
            .with(&Payload::Nonce(&self.nonce))
    }

    pub(super) fn init(&self) -> Vec<u8> {
        self.init_chain().into_message(self.init_header())
    }

    pub(super) fn init_with_cookie(&self, cookie: &[u8]) -> Vec<u8> {
        PayloadChain::new()
            .with(&Payload::Notify(Notify::new(NotifyKind::COOKIE, cookie)))
            .with(&Payload::Sa(offer_ike(&[ike_proposal()], &[])))
            .with(&Payload::KeyExchange(KeyExchange { group: 31, data: &self.public }))
            .with(&Payload::Nonce(&self.nonce))
            .into_message(self.init_header())
    }

    /// IKE_SA_INIT, returning a cookie if one is asked for.
    pub(super) fn begin(&mut self, server: &mut Server) {
        let mut request = self.init();
        let mut answers = server.hear(self.at, &request);
        if let Some(cookie) = cookie_in(&answers[0].payload) {
            request = self.init_with_cookie(&cookie);
            answers = server.hear(self.at, &request);
        }
        let response = answers.remove(0).payload;
        self.take_init(request, response);
    }

    pub(super) fn take_init(&mut self, request: Vec<u8>, response: Vec<u8>) {
        let header = Header::parse(&response).unwrap();
        let body = Body::parse(header.next_payload, &response[HEADER_LEN..]).unwrap();
        let shared = self.kex.take().unwrap().finish(body.key_exchange.unwrap().data).unwrap();
        let nonces = Nonces { initiator: self.nonce.clone(), responder: body.nonce.unwrap().to_vec() };
        let keys = IkeKeys::derive(SUITE, &skeyseed(SUITE.prf, &nonces, &shared), &nonces, header.spis);
        let channel = Channel::new(Role::Initiator, SUITE, &keys, 0, false);
        self.spis = header.spis;
        self.next = 1;
        self.secrets = Some((keys, channel, nonces));
        (self.request, self.response) = (request, response);
    }

    /// What goes before the CHILD_SA in IKE_AUTH: IDi and AUTH.
    pub(super) fn proof(&self, psk: &[u8], method: AuthMethod) -> PayloadChain {
        let (keys, _, nonces) = self.secrets.as_ref().unwrap();
        let id_body = self.id.to_payload_body();
        let signed = SignedOctets {
            prf: SUITE.prf,
            message: &self.request,
            nonce: &nonces.responder,
            id_body: &id_body,
            sk_p: &keys.pi,
        };
        let mac = signed.psk_mac(&Psk::new(psk.to_vec()).unwrap());
        PayloadChain::new()
            .with(&Payload::IdInitiator(Identification::from_body(&id_body).unwrap()))
            .with(&Payload::Auth(Auth { method, data: &mac }))
    }

    pub(super) fn auth_request(&self, psk: &[u8]) -> PayloadChain {
        with_child(self.proof(psk, AuthMethod::SHARED_KEY), PEER_ESP, "10.0.0.1/32")
    }

    /// A CREATE_CHILD_SA request for a further child.
    pub(super) fn create_child(&self, spi: u32, remote_ts: &str) -> PayloadChain {
        with_child(PayloadChain::new().with(&Payload::Nonce(&self.nonce)), spi, remote_ts)
    }

    pub(super) fn header(&self, exchange: ExchangeType, message_id: u32) -> Header {
        Header { spis: self.spis, next_payload: 0, exchange, from_initiator: true, is_response: false, message_id }
    }

    pub(super) fn seal(&mut self, header: Header, chain: &PayloadChain) -> Vec<u8> {
        let (_, channel, _) = self.secrets.as_mut().unwrap();
        channel.seal(header, chain, &Limits::default()).unwrap().parts.remove(0)
    }

    pub(super) fn open(&mut self, payload: &[u8]) -> Opened {
        let (_, channel, _) = self.secrets.as_mut().unwrap();
        let header = Header::parse(payload).unwrap();
        channel.open(Instant::ZERO, &header, payload, &Limits::default()).unwrap()
    }

    /// The next request, sealed.
    pub(super) fn next_request(&mut self, exchange: ExchangeType, chain: &PayloadChain) -> Vec<u8> {
        let header = self.header(exchange, self.next);
        self.next += 1;
        self.seal(header, chain)
    }

    /// Asks, and opens the one answer.
    pub(super) fn ask(&mut self, server: &mut Server, exchange: ExchangeType, chain: &PayloadChain) -> Opened {
        let request = self.next_request(exchange, chain);
        let answers = server.hear(self.at, &request);
        assert_eq!(answers.len(), 1, "one answer to {exchange}");
        assert_eq!(answers[0].remote, self.at);
        self.open(&answers[0].payload)
    }

    /// Asks, and answers with nothing whatever the server asks in turn on the same IKE SA.
    pub(super) fn converse(&mut self, server: &mut Server, exchange: ExchangeType, chain: &PayloadChain) -> Opened {
        let request = self.next_request(exchange, chain);
        let mut said = server.hear(self.at, &request);
        let mut answer = None;
        while let Some(datagram) = said.pop() {
            let header = Header::parse(&datagram.payload).unwrap();
            if header.spis != self.spis {
                continue;
            }
            let opened = self.open(&datagram.payload);
            if header.is_response {
                answer = Some(opened);
                continue;
            }
            let nothing = self.empty_answer(&datagram.payload);
            said.extend(server.hear(self.at, &nothing));
        }
        answer.unwrap()
    }

    /// A request to replace the IKE SA by one that the peer calls `spi`, and the key exchange to finish it with.
    pub(super) fn rekey_request(&mut self, spi: u64, nonce: &[u8]) -> (OfferedKex, PayloadChain) {
        let (kex, public) = SUITE.kex.offer(&mut self.rng);
        let chain = PayloadChain::new()
            .with(&Payload::Sa(offer_ike(&[ike_proposal()], &spi.to_be_bytes())))
            .with(&Payload::Nonce(nonce))
            .with(&Payload::KeyExchange(KeyExchange { group: SUITE.kex.group(), data: &public }));
        (kex, chain)
    }

    /// Replaces the IKE SA, and goes on with the new one; the old one is left.
    pub(super) fn rekey_ike(&mut self, server: &mut Server, spi: u64) -> Result<Predecessor, NotifyKind> {
        let (kex, chain) = self.rekey_request(spi, &[7; 32]);
        let answer = self.converse(server, ExchangeType::CreateChildSa, &chain);
        let body = answer.body().unwrap();
        if let Some(error) = body.error() {
            return Err(error.kind);
        }
        let nonces = Nonces { initiator: vec![7; 32], responder: body.nonce.unwrap().to_vec() };
        let shared = kex.finish(body.key_exchange.unwrap().data).unwrap();
        let theirs = <[u8; 8]>::try_from(body.sa.as_ref().unwrap().proposals[0].spi).unwrap();
        let spis = Spis { initiator: IkeSpi::new(spi), responder: IkeSpi::from_bytes(theirs) };
        let old = self.secrets.take().unwrap();
        let seed = skeyseed_of_rekey(SUITE.prf, &old.0.d, &shared, &nonces);
        let keys = IkeKeys::derive(SUITE, &seed, &nonces, spis);
        let channel = Channel::new(Role::Initiator, SUITE, &keys, 0, false);
        let old = Predecessor { spis: self.spis, next: self.next, secrets: Some(old) };
        (self.spis, self.next, self.secrets) = (spis, 0, Some((keys, channel, nonces)));
        Ok(old)
    }

    /// Goes back to an IKE SA that was left, or on again: the two change places.
    pub(super) fn swap(&mut self, other: &mut Predecessor) {
        core::mem::swap(&mut self.spis, &mut other.spis);
        core::mem::swap(&mut self.next, &mut other.next);
        core::mem::swap(&mut self.secrets, &mut other.secrets);
    }

    /// Asks to replace the IKE SA, and is refused.
    pub(super) fn rekey_request_refused(&mut self, server: &mut Server) -> Option<NotifyKind> {
        let (_, chain) = self.rekey_request(0x7777, &[7; 32]);
        self.ask_for_error(server, ExchangeType::CreateChildSa, &chain)
    }

    /// An answer of nothing to a request of the server.
    pub(super) fn empty_answer(&mut self, request: &[u8]) -> Vec<u8> {
        self.answer(request, &PayloadChain::new())
    }

    /// An answer to a request of the server.
    pub(super) fn answer(&mut self, request: &[u8], chain: &PayloadChain) -> Vec<u8> {
        let asked = Header::parse(request).unwrap();
        let ours = Header { is_response: true, ..self.header(asked.exchange, asked.message_id) };
        self.seal(ours, chain)
    }

    /// The error that the server answers with.
    pub(super) fn ask_for_error(
        &mut self,
        server: &mut Server,
        exchange: ExchangeType,
        chain: &PayloadChain,
    ) -> Option<NotifyKind> {
        self.ask(server, exchange, chain).body().unwrap().error().map(|error| error.kind)
    }

    /// Random octets.
    pub(super) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.rng
    }
}

pub(super) fn with_child(chain: PayloadChain, spi: u32, remote_ts: &str) -> PayloadChain {
    let spi = spi.to_be_bytes();
    chain
        .with(&Payload::Sa(offer_esp(&["aes128gcm16".parse().unwrap()], &spi, None)))
        .with(&Payload::TsInitiator(TrafficSelectors(vec![remote_ts.parse().unwrap()])))
        .with(&Payload::TsResponder(TrafficSelectors(vec!["203.0.113.80/32".parse().unwrap()])))
}

pub(super) fn cleartext(payload: &[u8]) -> Body<'_> {
    let header = Header::parse(payload).unwrap();
    Body::parse(header.next_payload, &payload[HEADER_LEN..]).unwrap()
}

pub(super) fn cookie_in(payload: &[u8]) -> Option<Vec<u8>> {
    cleartext(payload).notify(NotifyKind::COOKIE).map(|cookie| cookie.data.to_vec())
}

/// The error in an unprotected answer.
pub(super) fn error_in(answers: &[Datagram]) -> Option<(NotifyKind, Vec<u8>)> {
    let answer = answers.first()?;
    cleartext(&answer.payload).error().map(|error| (error.kind, error.data.to_vec()))
}
