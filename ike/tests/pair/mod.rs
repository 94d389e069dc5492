//! Two endpoints and the network between them, under simulated time.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // each test uses a part; a failed expectation is the point

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use ike::config::{
    ChildSettings, Connection, ConnectionSettings, EndpointConfig, IdentityPattern, Overlap, Psk, Secrets,
};
use ike::event::{ChildUp, DownReason};
use ike::{Datagram, Endpoint, Event};
use ipsec::Spi;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{Mode, SaParameters};
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

pub const CLIENT: &str = "192.0.2.1:500";
pub const SERVER: &str = "203.0.113.80:500";

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Which endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What an owner of an endpoint would have installed, and what it was told.
#[derive(Default)]
pub struct Installed {
    pub children: BTreeMap<Spi, ChildUp>,
    /// In the order in which they came.
    pub ups: Vec<Spi>,
    pub ike_up: usize,
    pub ike_down: Vec<DownReason>,
    pub ike_rekeyed: usize,
    pub downs: Vec<(Spi, DownReason)>,
    pub moved: Vec<SocketAddr>,
    pub refused: Vec<String>,
    pub failed: Vec<String>,
    pub rekey_failed: Vec<String>,
    /// Of which child, and whether for good.
    pub siblings_refused: Vec<(Spi, bool, String)>,
}

impl Installed {
    /// The child that came last of those that are there.
    pub fn newest(&self) -> Spi {
        *self.ups.iter().rfind(|spi| self.children.contains_key(spi)).unwrap()
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::IkeUp(_) => self.ike_up += 1,
            Event::IkeRekeyed { .. } => self.ike_rekeyed += 1,
            Event::IkeDown { reason, .. } => self.ike_down.push(reason),
            Event::ChildUp(up) => {
                let spi = up.children.inbound.spi;
                self.ups.push(spi);
                assert!(self.children.insert(spi, *up).is_none(), "{spi} was installed twice");
            }
            Event::ChildDown { inbound, reason, .. } => {
                assert!(self.children.remove(&inbound).is_some(), "{inbound} was not installed");
                self.downs.push((inbound, reason));
            }
            Event::AddressMoved { remote, .. } => self.moved.push(remote),
            Event::RekeyFailed { why, .. } => self.rekey_failed.push(why),
            Event::SiblingRefused { inbound, for_good, why, .. } => {
                self.siblings_refused.push((inbound, for_good, why));
            }
            Event::Refused { why, .. } => self.refused.push(why),
            Event::InitiationFailed { why, .. } => self.failed.push(why),
        }
    }
}

/// What the network does to datagrams.
#[derive(Clone, Default)]
pub struct Weather {
    /// Of a thousand.
    pub lost: u32,
    /// Of a thousand.
    pub doubled: u32,
    /// Each datagram takes up to so much longer than it must, by chance.
    pub jitter: Duration,
}

pub struct Pair {
    pub now: Instant,
    pub client: Endpoint,
    pub server: Endpoint,
    pub at_client: Installed,
    pub at_server: Installed,
    pub weather: Weather,
    /// On their way: when they arrive, a number to tell them apart, to whom.
    pub flying: BTreeMap<(Instant, u64), (Side, Datagram)>,
    /// The address that a NAT in front of the client shows, if there is one.
    pub nat: Option<SocketAddr>,
    /// Everything that was ever sent, by whom.
    pub sent: Vec<(Side, Datagram)>,
    /// Siblings that were asked for of the server, and promised an answer.
    pub wishes: usize,
    launched: u64,
    rng: ChaCha20Rng,
}

pub fn child_settings(name: &str) -> ChildSettings {
    ChildSettings {
        name: name.into(),
        local_ts: vec!["203.0.113.80/32[tcp/80]".parse().unwrap()],
        remote_ts: vec!["dynamic".parse().unwrap()],
        proposals: vec!["aes128gcm16".parse().unwrap()],
        mode: Mode::Tunnel,
        lifetime: Lifetime::NONE,
        replay_window_packets: 128,
        overlap: Overlap::Report,
    }
}

pub fn server_settings() -> ConnectionSettings {
    ConnectionSettings {
        name: "office".into(),
        local_addrs: vec![address(SERVER).ip()],
        remote_addrs: Vec::new(),
        local_id: Some("gw.example.com".parse().unwrap()),
        remote_id: IdentityPattern::Any,
        proposals: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
        rekey_time: None,
        over_time: None,
        ike_sas_per_identity: None,
        dpd_delay: None,
        children: vec![child_settings("web")],
    }
}

pub fn client_settings() -> ConnectionSettings {
    let child = ChildSettings {
        local_ts: vec!["dynamic".parse().unwrap()],
        remote_ts: vec!["203.0.113.80/32[tcp/80]".parse().unwrap()],
        ..child_settings("web")
    };
    ConnectionSettings {
        name: "home".into(),
        local_addrs: Vec::new(),
        local_id: Some("client.example.com".parse().unwrap()),
        remote_id: "gw.example.com".parse().unwrap(),
        children: vec![child],
        ..server_settings()
    }
}

pub fn secrets(octets: &[u8]) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add(Vec::new(), Psk::new(octets.to_vec()).unwrap());
    secrets
}

pub fn endpoint(config: EndpointConfig, seed: u8, settings: ConnectionSettings) -> Endpoint {
    let mut endpoint = Endpoint::new(config, [seed; 32]);
    let connection: Connection = settings.check().unwrap();
    endpoint.set_connections(vec![connection], secrets(b"correct horse battery staple"));
    endpoint
}

impl Pair {
    pub fn new(seed: u8) -> Pair {
        Pair::with(seed, EndpointConfig::default(), client_settings(), server_settings())
    }

    pub fn with(seed: u8, config: EndpointConfig, client: ConnectionSettings, server: ConnectionSettings) -> Pair {
        Pair {
            now: Instant::from_secs(1),
            client: endpoint(config.clone(), seed.wrapping_mul(2), client),
            server: endpoint(config, seed.wrapping_mul(2).wrapping_add(1), server),
            at_client: Installed::default(),
            at_server: Installed::default(),
            weather: Weather::default(),
            flying: BTreeMap::new(),
            nat: None,
            sent: Vec::new(),
            wishes: 0,
            launched: 0,
            rng: ChaCha20Rng::from_seed([seed; 32]),
        }
    }

    pub fn endpoint(&mut self, side: Side) -> &mut Endpoint {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    pub fn installed(&mut self, side: Side) -> &mut Installed {
        match side {
            Side::Client => &mut self.at_client,
            Side::Server => &mut self.at_server,
        }
    }

    /// Takes events and datagrams out of both endpoints.
    pub fn drain(&mut self) {
        for side in [Side::Client, Side::Server] {
            while let Some(event) = self.endpoint(side).poll_event() {
                self.installed(side).apply(event);
            }
            while let Some(datagram) = self.endpoint(side).poll_transmit() {
                self.sent.push((side, datagram.clone()));
                self.launch(side, datagram);
            }
        }
    }

    fn chance(&mut self, of_a_thousand: u32) -> bool {
        self.rng.next_u32() % 1000 < of_a_thousand
    }

    fn launch(&mut self, from: Side, datagram: Datagram) {
        let copies = if self.chance(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(self.weather.lost) {
                continue;
            }
            let jitter = self.weather.jitter.as_nanos() as u64;
            let extra = if jitter == 0 { 0 } else { self.rng.next_u64() % jitter };
            let arrives = self.now + Duration::from_millis(10) + Duration::from_nanos(extra);
            self.launched += 1;
            let seen = self.translate(from, &datagram);
            self.flying.insert((arrives, self.launched), (from.other(), seen));
        }
    }

    /// What the receiver sees: source and destination swapped, and the NAT's work.
    fn translate(&self, from: Side, datagram: &Datagram) -> Datagram {
        let mut seen = Datagram::new(datagram.remote, datagram.local, datagram.payload.clone());
        match (self.nat, from) {
            (None, _) => {}
            (Some(outside), Side::Client) => {
                seen.remote = SocketAddr::new(outside.ip(), outside.port() + datagram.local.port() % 1000);
            }
            (Some(outside), Side::Server) => {
                let inside: IpAddr = address(CLIENT).ip();
                let port = if datagram.local.port() == 4500 { 4500 } else { 500 };
                assert_eq!(datagram.remote.ip(), outside.ip(), "sent past the NAT");
                seen.local = SocketAddr::new(inside, port);
            }
        }
        seen
    }

    /// Hands one datagram to its receiver.
    pub fn deliver(&mut self, to: Side, datagram: &Datagram) {
        let now = self.now;
        self.endpoint(to).handle_datagram(now, datagram);
        self.drain();
    }

    /// Goes to the next arrival or deadline, if there is one until `end`.
    pub fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.client.poll_timeout().into_iter().chain(self.server.poll_timeout()).min();
        let Some(next) = arrival.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, datagram) = entry.remove();
            self.deliver(to, &datagram);
            return true;
        }
        let now = self.now;
        self.client.handle_timeout(now);
        self.server.handle_timeout(now);
        self.drain();
        true
    }

    /// Lets so much time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut steps = 0_u64;
        while self.step(end) {
            steps += 1;
            assert!(steps < 1_000_000, "the endpoints never rest");
        }
        self.now = end;
    }

    pub fn connect(&mut self) {
        let now = self.now;
        self.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).unwrap();
        self.run(Duration::from_secs(1));
    }

    /// A pair with an IKE SA and one child.
    pub fn connected(seed: u8) -> Pair {
        let mut pair = Pair::new(seed);
        pair.connect();
        pair.assert_children(1);
        pair
    }

    /// Each side has just so many children, and each of them is the mirror of one on the other side.
    #[track_caller]
    pub fn assert_children(&self, count: usize) {
        let counts = (self.at_client.children.len(), self.at_server.children.len());
        assert_eq!(counts, (count, count), "children at client and server");
        for child in self.at_client.children.values() {
            let theirs = &self.at_server.children[&child.children.outbound.spi].children;
            assert_mirrored(&child.children.inbound, &theirs.outbound);
            assert_mirrored(&child.children.outbound, &theirs.inbound);
        }
    }

    /// Nothing is left that belongs to no SA.
    #[track_caller]
    pub fn assert_no_leak(&mut self) {
        for side in [Side::Client, Side::Server] {
            let children = self.installed(side).children.len();
            let endpoint = self.endpoint(side);
            let occupancy = endpoint.occupancy();
            assert_eq!(occupancy.esp_spis, children, "SPIs for ESP at the {side:?}");
            assert_eq!(occupancy.watched_selectors, children, "selectors watched at the {side:?}");
            let ike = occupancy.ike_sas + occupancy.half_open + occupancy.initiating;
            assert_eq!(occupancy.ike_spis, ike, "SPIs for IKE at the {side:?}");
            let known: usize = endpoint.sas().map(|sa| sa.children.len()).sum();
            assert_eq!(known, children, "children known to IKE at the {side:?}");
        }
    }

    pub fn only_child(&mut self, side: Side) -> Spi {
        let children = &self.installed(side).children;
        assert_eq!(children.len(), 1);
        *children.keys().next().unwrap()
    }
}

/// One side's sending half is the other side's receiving half.
#[track_caller]
pub fn assert_mirrored(one: &SaParameters, other: &SaParameters) {
    assert_eq!(one.spi, other.spi);
    assert!(one.key == other.key, "the keys differ");
    assert_eq!((one.cipher, one.esn, one.mode), (other.cipher, other.esn, other.mode));
    assert_eq!(one.selectors.local, other.selectors.remote);
    assert_eq!(one.selectors.remote, other.selectors.local);
    assert_ne!(one.direction, other.direction);
}

/// How the other side names, by its own inbound SPI, the child that `side` receives on `spi`.
pub fn other_spi(spi: &Spi, pair: &Pair, side: Side) -> Spi {
    let installed = match side {
        Side::Client => &pair.at_client,
        Side::Server => &pair.at_server,
    };
    installed.children[spi].children.outbound.spi
}
