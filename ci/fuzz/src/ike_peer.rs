//! A peer that holds all keys: just enough of an IKEv2 initiator to say anything at all under them.
//!
//! Independent of the `ike` crate but for its header and payload codec, so that it also checks, from the other side,
//! that what an endpoint sends is right: keys are derived here from RFC 7296 §2.14 anew, and every protected message of
//! the endpoint must open and parse.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ike::config::{ChildSettings, ConnectionSettings, EndpointConfig, IdentityPattern, Limits, Overlap, Psk, Secrets};
use ike::message::payload::{
    Auth, AuthMethod, IdKind, Identification, KeyExchange, Notify, NotifyKind, Payload, PayloadKind, Proposal,
    ProtocolId, RawPayloads, SaPayload, TrafficSelectors, Transform, TransformKind,
};
use ike::message::{Body, ExchangeType, HEADER_LEN, Header, IkeSpi, PayloadChain, Spis};
use ike::{Datagram, Endpoint, Event};
use ipsec::lifetime::Lifetime;
use ipsec::sa::Mode;
use ipsec::time::Instant;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use x25519_dalek::{PublicKey, StaticSecret};

/// What we receive on: the SPI of our first CHILD_SA, for texts that delete or rekey it.
pub const OUR_ESP_SPI: [u8; 4] = [0, 0, 0xc0, 0x01];
/// Our side of the IKE SA.
pub const OUR_IKE_SPI: IkeSpi = IkeSpi::new(0xa1a2_a3a4_a5a6_a7a8);

const PSK: &[u8] = b"known to both";
const NONCE: [u8; 32] = [7; 32];
const NONCE_LEN_IN_GCM: usize = 12;
const IV_LEN: usize = 8;
const KEYMAT_LEN: usize = 20;
const PRF_LEN: usize = 32;

/// Limits small enough to be reached.
pub fn limits() -> Limits {
    Limits {
        message_bytes: 200,
        ike_sas: 4,
        half_open: 4,
        children: 4,
        kept_responses: 8,
        transmit_queue: 64,
        ..Limits::default()
    }
}

/// One endpoint, and what its peer knows.
pub struct World {
    /// The one that is tried.
    pub endpoint: Endpoint,
    /// The time, which only grows.
    pub now: Instant,
    /// Set once the endpoint said that it knows its peer.
    pub is_up: bool,
    /// The message ID of our next request.
    pub next_request: u32,
    /// Message IDs of requests of the endpoint that we have not answered.
    pub unanswered: Vec<u32>,
    /// Inbound SPIs of the endpoint's CHILD_SAs.
    pub children: BTreeSet<ipsec::Spi>,
    /// Siblings that the endpoint has taken the wish for and not answered yet.
    pub wishes: BTreeSet<ipsec::Spi>,
    /// Messages under one key: which octets stand under an IV, and which under a message ID.
    ivs: BTreeMap<(IkeSpi, IkeSpi, [u8; IV_LEN]), Vec<u8>>,
    messages: BTreeMap<(MessageName, u16), Vec<u8>>,
    /// The insides of fragments that the endpoint sent, until all of a message are there.
    assembling: BTreeMap<MessageName, BTreeMap<u16, Vec<u8>>>,
    keys: Option<Keys>,
    iv: u64,
}

/// Both SPIs, whether from the initiator, whether a response, message ID.
type MessageName = (IkeSpi, IkeSpi, bool, bool, u32);

struct Keys {
    spis: Spis,
    ei: Vec<u8>,
    er: Vec<u8>,
    pi: Vec<u8>,
    init_request: Vec<u8>,
    nonce_r: Vec<u8>,
}

fn local() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 80], 500))
}

fn remote() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 500))
}

fn connection() -> ConnectionSettings {
    let child = ChildSettings {
        name: "web".into(),
        local_ts: vec!["203.0.113.80/32".parse().expect("a selector")],
        remote_ts: vec!["dynamic".parse().expect("a selector"), "10.0.0.0/8".parse().expect("a selector")],
        proposals: vec!["aes128gcm16".parse().expect("a proposal")],
        mode: Mode::Tunnel,
        lifetime: Lifetime::NONE,
        replay_window_packets: 64,
        overlap: Overlap::Report,
    };
    ConnectionSettings {
        name: "office".into(),
        local_addrs: vec![local().ip()],
        remote_addrs: Vec::new(),
        local_id: Some("gw.example".parse().expect("an identity")),
        remote_id: IdentityPattern::Any,
        proposals: vec!["aes128gcm16-prfsha256-x25519".parse().expect("a proposal")],
        rekey_time: Some(Duration::from_secs(3600)),
        over_time: Some(Duration::from_secs(4000)),
        ike_sas_per_identity: None,
        dpd_delay: Some(Duration::from_secs(30)),
        children: vec![child],
    }
}

impl World {
    /// An endpoint that nobody has spoken to yet.
    #[must_use]
    pub fn new() -> Self {
        let config = EndpointConfig { limits: limits(), sender_id: 7, ..EndpointConfig::default() };
        let mut endpoint = Endpoint::new(config, [42; 32]);
        let mut secrets = Secrets::default();
        secrets.add(Vec::new(), Psk::new(PSK.to_vec()).expect("it is not empty"));
        endpoint.set_connections(vec![connection().check().expect("it holds together")], secrets);
        Self {
            endpoint,
            now: Instant::from_nanos(1_000_000_000),
            is_up: false,
            next_request: 1,
            unanswered: Vec::new(),
            children: BTreeSet::new(),
            wishes: BTreeSet::new(),
            ivs: BTreeMap::new(),
            messages: BTreeMap::new(),
            assembling: BTreeMap::new(),
            keys: None,
            iv: 0,
        }
    }

    /// An endpoint with one half-open IKE SA, whose keys are known here. `fragments`: we say that we know RFC 7383.
    #[must_use]
    pub fn half_open(fragments: bool) -> Self {
        let mut world = Self::new();
        let secret = StaticSecret::from([9; 32]);
        let request = init_request(&PublicKey::from(&secret), fragments);
        let answers = world.hand_in(request.clone());
        let response = &answers.first().expect("a right IKE_SA_INIT is answered").payload;
        let header = Header::parse(response).expect("what an endpoint sends is a message");
        let body = Body::parse(header.next_payload, &response[HEADER_LEN..]).expect("and it parses");
        let theirs = body.require_key_exchange().expect("a responder sends its half").data;
        let nonce_r = body.require_nonce().expect("a responder sends a nonce").to_vec();
        let shared = agree(&secret, theirs);
        world.keys = Some(Keys::derive(&shared, header.spis, request, nonce_r));
        world
    }

    /// An endpoint with one IKE SA and one CHILD_SA.
    #[must_use]
    pub fn established(fragments: bool) -> Self {
        let mut world = Self::half_open(fragments);
        let id = Identification::body_of(IdKind::FQDN, b"client");
        let sa = SaPayload { proposals: vec![esp_proposal(&OUR_ESP_SPI)] };
        let all = TrafficSelectors(vec!["0.0.0.0/0".parse().expect("a selector")]);
        let auth = world.auth(&id);
        let chain = PayloadChain::new()
            .with(&Payload::IdInitiator(Identification::from_body(&id).expect("it has a type")))
            .with(&Payload::Auth(Auth { method: AuthMethod::SHARED_KEY, data: &auth }))
            .with(&Payload::Sa(sa))
            .with(&Payload::TsInitiator(all.clone()))
            .with(&Payload::TsResponder(all));
        world.request(ExchangeType::IkeAuth, chain.first(), chain.bytes());
        assert!(world.is_up && world.children.len() == 1, "an honest peer is let in");
        world
    }

    /// Our proof for an identity payload of this body (RFC 7296 §2.15).
    #[must_use]
    pub fn auth(&self, id_body: &[u8]) -> Vec<u8> {
        let keys = self.keys.as_ref().expect("the IKE SA is half-open at least");
        let key = prf(PSK, &[b"Key Pad for IKEv2"]);
        prf(&key, &[&keys.init_request, &keys.nonce_r, &prf(&keys.pi, &[id_body])])
    }

    /// Sends a protected request with our next message ID, and gives what was sent. The ID is spent once it is answered.
    pub fn request(&mut self, exchange: ExchangeType, first: u8, chain: &[u8]) -> Vec<u8> {
        let message = self.seal(exchange, false, self.next_request, first, chain);
        self.hand_in(message.clone());
        self.spend_answered();
        message
    }

    /// Moves on to the next message ID if the last request was answered.
    pub fn spend_answered(&mut self) {
        let Spis { initiator, responder } = self.keys.as_ref().expect("the IKE SA is half-open at least").spis;
        let answer = (initiator, responder, false, true, self.next_request);
        if self.messages.range((answer, 0)..=(answer, u16::MAX)).next().is_some() {
            self.next_request += 1;
        }
    }

    /// A protected message that says just this.
    pub fn seal(
        &mut self,
        exchange: ExchangeType,
        is_response: bool,
        message_id: u32,
        first: u8,
        chain: &[u8],
    ) -> Vec<u8> {
        self.seal_part(exchange, is_response, message_id, first, None, chain)
    }

    /// One fragment of a protected message: number and total are anything.
    pub fn seal_part(
        &mut self,
        exchange: ExchangeType,
        is_response: bool,
        message_id: u32,
        first: u8,
        fragment: Option<(u16, u16)>,
        content: &[u8],
    ) -> Vec<u8> {
        let keys = self.keys.as_ref().expect("the IKE SA is half-open at least");
        let (kind, head_len) = match fragment {
            None => (PayloadKind::Encrypted, 4),
            Some(_) => (PayloadKind::EncryptedFragment, 8),
        };
        let payload_len = head_len + IV_LEN + content.len() + 1 + AES_128_GCM.tag_len();
        let next_payload = kind.number();
        let header = Header { spis: keys.spis, next_payload, exchange, from_initiator: true, is_response, message_id };
        let mut message = Vec::new();
        header.emit((HEADER_LEN + payload_len) as u32, &mut message);
        message.extend([first, 0]);
        message.extend((payload_len as u16).to_be_bytes());
        if let Some((number, total)) = fragment {
            message.extend([number.to_be_bytes(), total.to_be_bytes()].concat());
        }
        self.iv += 1;
        let iv = self.iv.to_be_bytes();
        let mut plain = [content, &[0]].concat();
        let (key, nonce) = gcm(&keys.ei, iv);
        key.seal_in_place_append_tag(nonce, Aad::from(&message), &mut plain).expect("it is short enough");
        message.extend(iv);
        message.extend(plain);
        message
    }

    /// Gives the endpoint a datagram, and checks whatever it says and does.
    pub fn hand_in(&mut self, payload: Vec<u8>) -> Vec<Datagram> {
        self.endpoint.handle_datagram(self.now, &Datagram::new(local(), remote(), payload));
        self.drain()
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Duration) -> Vec<Datagram> {
        self.now = self.now + span;
        self.endpoint.handle_timeout(self.now);
        let next = self.endpoint.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "what is due was not done: {next:?}");
        self.drain()
    }

    /// Takes events and datagrams, and holds them against what must always hold.
    pub fn drain(&mut self) -> Vec<Datagram> {
        while let Some(event) = self.endpoint.poll_event() {
            self.note(event);
        }
        let mut sent = Vec::new();
        while let Some(datagram) = self.endpoint.poll_transmit() {
            assert!(sent.len() <= limits().transmit_queue);
            if datagram.payload != [0xff] {
                self.check_message(&datagram.payload);
            }
            sent.push(datagram);
        }
        let (occupancy, limits) = (self.endpoint.occupancy(), limits());
        let ike_sas_max = limits.ike_sas_with_replaced();
        assert!(occupancy.ike_sas <= ike_sas_max && occupancy.half_open <= limits.half_open);
        assert!(occupancy.kept_responses <= limits.kept_responses);
        // One more of each kind while both sides replace one at once, and until the oldest is told to go.
        let children_max = limits.children + 1 + limits.replaced_children + 1;
        assert!(self.children.len() <= children_max * ike_sas_max);
        sent
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::IkeUp(_) => self.is_up = true,
            Event::ChildUp(up) => {
                assert!(self.is_up, "a CHILD_SA for a stranger");
                assert!(self.children.insert(up.children.inbound.spi), "one SPI for two SAs");
                assert!(up.replaces.is_none_or(|old| self.children.contains(&old)));
                if let (Some(of), None) = (up.sibling_of, up.replaces) {
                    assert!(self.wishes.remove(&of), "a sibling that nobody wished for");
                }
            }
            Event::ChildDown { inbound, .. } => assert!(self.children.remove(&inbound), "it was never up"),
            Event::IkeRekeyed { .. } | Event::IkeDown { .. } => assert!(self.is_up),
            Event::AddressMoved { .. } => assert!(self.is_up, "a stranger moved an address"),
            Event::SiblingRefused { inbound, .. } => assert!(self.wishes.remove(&inbound), "it was answered before"),
            Event::Refused { why, .. }
            | Event::RekeyFailed { why, .. }
            | Event::InitiationFailed { why, .. } => {
                assert!(!why.chars().any(char::is_control), "{why:?} would break a log line");
            }
        }
    }

    /// What an endpoint sends is a message; under one key, one IV and one message ID stand for one message.
    fn check_message(&mut self, message: &[u8]) {
        let header = Header::parse(message).expect("what an endpoint sends is a message");
        let body = Body::parse(header.next_payload, &message[HEADER_LEN..]).expect("and it parses");
        let Some(encrypted) = body.encrypted else { return };
        let iv: [u8; IV_LEN] = *encrypted.sealed.first_chunk().expect("a sealed payload begins with its IV");
        let Spis { initiator, responder } = header.spis;
        let under_iv = self.ivs.entry((initiator, responder, iv)).or_insert_with(|| message.to_vec());
        assert_eq!(under_iv, message, "one IV for two messages");
        let name = (initiator, responder, header.from_initiator, header.is_response, header.message_id);
        let (number, total) = encrypted.fragment.unwrap_or((0, 1));
        let is_new = !self.messages.contains_key(&(name, number));
        let under_id = self.messages.entry((name, number)).or_insert_with(|| message.to_vec());
        assert_eq!(under_id, message, "one message ID for two messages");
        let Some(keys) = self.keys.as_ref().filter(|keys| keys.spis == header.spis && is_new) else { return };
        let (key, nonce) = gcm(&keys.er, iv);
        let (aad, sealed) = message.split_at(message.len() - encrypted.sealed.len());
        let mut plain = sealed[IV_LEN..].to_vec();
        let plain = key.open_in_place(nonce, Aad::from(aad), &mut plain).expect("it is sealed for us");
        let (padding, plain) = plain.split_last().expect("a pad length is there");
        assert_eq!(*padding, 0, "AES-GCM needs no padding");
        if number <= 1 && !header.is_response {
            self.unanswered.push(header.message_id);
        }
        assert_eq!(encrypted.first == 0 && !plain.is_empty(), number > 1, "only the first fragment names a type");
        let parts = self.assembling.entry(name).or_default();
        parts.insert(number, [&[encrypted.first][..], plain].concat());
        if parts.len() == usize::from(total) {
            let first = parts.values().next().map_or(0, |part| part[0]);
            let whole: Vec<u8> = parts.values().flat_map(|part| &part[1..]).copied().collect();
            Body::parse(first, &whole).expect("what an endpoint says parses");
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    fn derive(shared: &[u8], spis: Spis, init_request: Vec<u8>, nonce_r: Vec<u8>) -> Self {
        let seed = [&NONCE, &nonce_r[..], &spis.initiator.to_bytes(), &spis.responder.to_bytes()].concat();
        let skeyseed = prf(&[&NONCE, &nonce_r[..]].concat(), &[shared]);
        let (mut all, mut block) = (Vec::new(), Vec::new());
        for counter in 1..=8 {
            block = prf(&skeyseed, &[&block, &seed, &[counter]]);
            all.extend_from_slice(&block);
        }
        let ei_at = PRF_LEN;
        let pi_at = ei_at + 2 * KEYMAT_LEN;
        Self {
            spis,
            ei: all[ei_at..ei_at + KEYMAT_LEN].to_vec(),
            er: all[ei_at + KEYMAT_LEN..pi_at].to_vec(),
            pi: all[pi_at..pi_at + PRF_LEN].to_vec(),
            init_request,
            nonce_r,
        }
    }
}

/// X25519, remembered: the endpoint's randomness is seeded, so its half is nearly always the same.
fn agree(secret: &StaticSecret, theirs: &[u8]) -> Vec<u8> {
    static KNOWN: Mutex<BTreeMap<Vec<u8>, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let compute = || {
        let theirs: [u8; 32] = theirs.try_into().expect("X25519 has 32 octets");
        secret.diffie_hellman(&PublicKey::from(theirs)).as_bytes().to_vec()
    };
    known.entry(theirs.to_vec()).or_insert_with(compute).clone()
}

fn init_request(public: &PublicKey, fragments: bool) -> Vec<u8> {
    let proposal = Proposal {
        number: 1,
        protocol: ProtocolId::IKE,
        spi: &[],
        transforms: vec![
            Transform::with_key_bits(TransformKind::ENCRYPTION, 20, 128),
            Transform::new(TransformKind::PRF, 5),
            Transform::new(TransformKind::KEY_EXCHANGE, 31),
        ],
    };
    let header = Header {
        spis: Spis { initiator: OUR_IKE_SPI, responder: IkeSpi::NONE },
        next_payload: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        is_response: false,
        message_id: 0,
    };
    let mut chain = PayloadChain::new()
        .with(&Payload::Sa(SaPayload { proposals: vec![proposal] }))
        .with(&Payload::KeyExchange(KeyExchange { group: 31, data: public.as_bytes() }))
        .with(&Payload::Nonce(&NONCE));
    if fragments {
        chain.push(&Payload::Notify(Notify::new(NotifyKind::FRAGMENTATION_SUPPORTED, &[])));
    }
    chain.into_message(header)
}

fn esp_proposal(spi: &[u8]) -> Proposal<'_> {
    let transforms =
        vec![Transform::with_key_bits(TransformKind::ENCRYPTION, 20, 128), Transform::new(TransformKind::ESN, 0)];
    Proposal { number: 1, protocol: ProtocolId::ESP, spi, transforms }
}

fn prf(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

fn gcm(keymat: &[u8], iv: [u8; IV_LEN]) -> (LessSafeKey, Nonce) {
    let (key, salt) = keymat.split_at(KEYMAT_LEN - 4);
    let mut nonce = [0; NONCE_LEN_IN_GCM];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(&iv);
    let key = UnboundKey::new(&AES_128_GCM, key).expect("it has the right length");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
}

/// Payloads laid out by an input: type, length, content, again and again, so that a mutation seldom breaks the framing,
/// which another target tries. Gives the first type and the chain.
#[must_use]
pub fn lay_out(mut script: &[u8]) -> (u8, Vec<u8>) {
    let mut parts = Vec::new();
    while let [kind, len, rest @ ..] = script {
        let (body, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        parts.push((*kind, body));
        script = rest;
    }
    let mut chain = Vec::new();
    for (at, (_, body)) in parts.iter().enumerate() {
        let next = parts.get(at + 1).map_or(0, |(kind, _)| *kind);
        chain.extend([next, 0]);
        chain.extend(((4 + body.len()) as u16).to_be_bytes());
        chain.extend_from_slice(body);
    }
    (parts.first().map_or(0, |(kind, _)| *kind), chain)
}

/// The body of the first initiator identity in a chain, if there is one.
#[must_use]
pub fn identity_in(first: u8, chain: &[u8]) -> Option<&[u8]> {
    let is_identity = |link: &ike::message::payload::RawPayload<'_>| link.kind == PayloadKind::IdInitiator;
    RawPayloads::new(first, chain).filter_map(Result::ok).find(is_identity).map(|link| link.body)
}
