//! The world that members live in here: links that delay and break, a facility that fails, and appliances that do at once,
//! or a little later, what their member says.

use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::DefaultHasher;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::iv::SenderNumber;
use ipsec::key::SaKey;
use ipsec::lifetime::{Lifetime, Limits, TimeLimits};
use ipsec::sa::{ChildSa, Direction, Encapsulation as EspIn, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};
use ipsec::time::Instant;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use wire::flow::FlowKey;

use super::appliance::Appliance;
use crate::fabric::{Encapsulation, FabricTarget, Processing, Protection};
use crate::facility::memory::Store;
use crate::facility::start::{Progress, Start};
use crate::facility::wrap::{Sealer, WrapKey};
use crate::facility::{Reply, Request, Unavailable};
use crate::id::{ChildId, Incarnation, MemberId};
use crate::member::{
    Action, DvipaSettings, EntryKey, LinkEvent, Member, MemberSettings, SaUse, SequencePolicy, ServicePort, Settings,
    Told,
};
use crate::message::{Message, VERSION};
use crate::shadow::{ShadowSa, Use};

pub const OWNER: MemberId = MemberId(1);
pub const ONE: MemberId = MemberId(2);
pub const TWO: MemberId = MemberId(3);

pub fn dvipa() -> IpAddr {
    "203.0.113.80".parse().unwrap()
}

pub fn child(spi: u32) -> ChildId {
    ChildId { dvipa: dvipa(), spi: Spi::new(spi).unwrap() }
}

pub fn entry(peer: u64, port: u16) -> EntryKey {
    let src = "10.1.0.9".parse().unwrap();
    EntryKey { peer: PeerId(peer), flow: FlowKey { src, dst: dvipa(), protocol: 6, src_port: port, dst_port: 443 } }
}

pub struct Node {
    pub member: Member,
    pub appliance: Appliance,
    pub start: Incarnation,
}

/// Messages with the times at which they arrive.
type Wire = VecDeque<(Instant, Vec<u8>)>;

pub struct World {
    pub now: Instant,
    pub store: Store,
    pub is_facility_up: bool,
    pub nodes: BTreeMap<MemberId, Node>,
    settings: Vec<Settings>,
    rng: ChaCha12Rng,
    /// What is under way from one member to another, in order.
    wires: BTreeMap<(MemberId, MemberId), Wire>,
    links: BTreeSet<(MemberId, MemberId)>,
    replies: VecDeque<(Instant, MemberId, Incarnation, Reply)>,
    pub refusals: Vec<(MemberId, super::super::Refused)>,
    trace: DefaultHasher,
    next_spi: u32,
}

pub fn dvipa_settings() -> DvipaSettings {
    DvipaSettings {
        address: dvipa(),
        owners: vec![OWNER],
        targets: vec![ONE, TWO],
        processing: Processing::Target,
        outbound_sequence: SequencePolicy::Auto,
        peer_window_packets: 32,
        siblings_max: 8,
        services: vec![],
    }
}

fn settings(me: MemberId, dvipa: &DvipaSettings, members: u16) -> Settings {
    let member = |number: u16| MemberSettings {
        id: MemberId(number),
        name: format!("member-{number}").into(),
        address: IpAddr::from([10, 9, 0, number as u8]),
    };
    Settings {
        me,
        members: (1..=members).map(member).collect(),
        encapsulation: Encapsulation::Gre,
        protection: Protection::None,
        dvipas: vec![dvipa.clone()],
        shadow_patience: Duration::from_millis(500),
        silence: Duration::from_secs(1),
        owner_silence: Duration::from_secs(5),
    }
}

impl World {
    /// One owner and two targets, none of them started.
    pub fn new(seed: u64) -> World {
        World::of(seed, dvipa_settings(), 3)
    }

    pub fn of(seed: u64, dvipa: DvipaSettings, members: u16) -> World {
        World {
            now: Instant::from_secs(100),
            store: Store::default(),
            is_facility_up: true,
            nodes: BTreeMap::new(),
            settings: (1..=members).map(|number| settings(MemberId(number), &dvipa, members)).collect(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            wires: BTreeMap::new(),
            links: BTreeSet::new(),
            replies: VecDeque::new(),
            refusals: Vec::new(),
            trace: DefaultHasher::new(),
            next_spi: 0x1000,
        }
    }

    /// Everyone runs, is linked, and serves.
    pub fn running(seed: u64) -> World {
        let mut world = World::new(seed);
        world.start_all();
        world
    }

    pub fn start_all(&mut self) {
        let all: Vec<_> = self.settings.iter().map(|settings| settings.me).collect();
        for &member in &all {
            self.start(member);
        }
        for &member in &all {
            self.link_all(member);
        }
        self.run_for(Duration::from_secs(2));
    }

    /// Starts a member, or starts it anew: as another start, with nothing.
    pub fn start(&mut self, id: MemberId) {
        self.stop(id);
        let mut nonce = [0; 16];
        self.rng.fill_bytes(&mut nonce);
        let mut start = Start::new(id, nonce, 4);
        let started = loop {
            let outcome = self.store.execute(&start.request(1)).unwrap();
            match start.take(&outcome).unwrap() {
                Progress::Again(again) => start = again,
                Progress::Done(started) => break started,
            }
        };
        let settings = self.settings.iter().find(|settings| settings.me == id).unwrap().clone();
        let sealer = Sealer::new(&WrapKey::new(&[9; 32]), started.fresh).unwrap();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let senders = SenderNumber(started.senders.end);
        let member = Member::new(self.now, settings, started.incarnation, senders, sealer, seed);
        let start = started.incarnation;
        self.nodes.insert(id, Node { member, appliance: Appliance::default(), start });
        self.poll(id);
        self.tell(id, Told::Services { dvipa: dvipa(), ready: vec![ServicePort { protocol: 6, port: 443 }] });
    }

    /// It is dead.
    pub fn stop(&mut self, id: MemberId) {
        for other in self.others(id) {
            self.unlink(id, other);
        }
        self.nodes.remove(&id);
    }

    fn others(&self, id: MemberId) -> Vec<MemberId> {
        self.nodes.keys().copied().filter(|&other| other != id).collect()
    }

    pub fn link_all(&mut self, id: MemberId) {
        for other in self.others(id) {
            self.link(id, other);
        }
    }

    pub fn link(&mut self, a: MemberId, b: MemberId) {
        let key = (a.min(b), a.max(b));
        if !self.nodes.contains_key(&a) || !self.nodes.contains_key(&b) || !self.links.insert(key) {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            let incarnation = self.nodes[&there].start;
            let event = LinkEvent::Up { incarnation, version: VERSION };
            self.with(here, |member, now| member.handle_link(now, there, event));
        }
    }

    /// What is under way is lost.
    pub fn unlink(&mut self, a: MemberId, b: MemberId) {
        if !self.links.remove(&(a.min(b), a.max(b))) {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            self.wires.remove(&(here, there));
            self.with(here, |member, now| member.handle_link(now, there, LinkEvent::Down));
        }
    }

    pub fn is_linked(&self, a: MemberId, b: MemberId) -> bool {
        self.links.contains(&(a.min(b), a.max(b)))
    }

    pub fn with(&mut self, id: MemberId, act: impl FnOnce(&mut Member, Instant)) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            act(&mut node.member, now);
            self.poll(id);
        }
    }

    pub fn tell(&mut self, id: MemberId, told: Told) {
        self.with(id, |member, now| member.handle_told(now, told));
    }

    /// As if it came from that member.
    pub fn say(&mut self, from: MemberId, to: MemberId, bytes: Vec<u8>) {
        let at = self.arrival(from, to);
        self.wires.entry((from, to)).or_default().push_back((at, bytes));
    }

    /// What is under way from one member to another.
    pub fn said_by(&self, from: MemberId, to: MemberId) -> Vec<Message> {
        let wire = self.wires.get(&(from, to)).into_iter().flatten();
        wire.map(|(_, bytes)| Message::decode(bytes, VERSION).unwrap()).collect()
    }

    fn arrival(&mut self, from: MemberId, to: MemberId) -> Instant {
        let at = self.now + Duration::from_micros(200 + u64::from(self.rng.next_u32() % 9_000));
        let last = self.wires.get(&(from, to)).and_then(|wire| wire.back()).map(|last| last.0);
        last.map_or(at, |last| at.max(last))
    }

    /// Takes everything that a member gives.
    fn poll(&mut self, id: MemberId) {
        while let Some((to, bytes)) = self.nodes.get_mut(&id).unwrap().member.poll_message() {
            (id, to, bytes.as_slice()).hash(&mut self.trace);
            if self.is_linked(id, to) {
                self.say(id, to, bytes.to_vec());
            }
        }
        while let Some(request) = self.nodes.get_mut(&id).unwrap().member.poll_request() {
            self.ask(id, &request);
        }
        while let Some(action) = self.nodes.get_mut(&id).unwrap().member.poll_action() {
            format!("{id} {action:?}").hash(&mut self.trace);
            let after = self.now + Duration::from_micros(100 + u64::from(self.rng.next_u32() % 3_000));
            if let Action::Disconnect { member, .. } = &action {
                let member = *member;
                self.unlink(id, member);
            }
            self.nodes.get_mut(&id).unwrap().appliance.act(after, action);
        }
        while self.nodes.get_mut(&id).unwrap().member.poll_notice().is_some() {}
    }

    /// A facility that is away may carry a transaction out nevertheless; that it did is not known.
    fn ask(&mut self, id: MemberId, request: &Request) {
        let is_lost = !self.is_facility_up;
        let happens = !is_lost || self.rng.next_u32().is_multiple_of(4);
        let outcome = happens.then(|| self.store.execute(request).unwrap());
        let outcome = outcome.filter(|_| !is_lost).ok_or(Unavailable { why: "it is away".into() });
        let at = self.now + Duration::from_micros(500 + u64::from(self.rng.next_u32() % 4_000));
        self.replies.push_back((at, id, self.nodes[&id].start, Reply { id: request.id, outcome }));
    }

    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let wire = self.wires.values().filter_map(|wire| wire.front()).map(|first| first.0).min();
            let reply = self.replies.iter().map(|reply| reply.0).min();
            let told = self.nodes.values().filter_map(|node| node.appliance.told.iter().map(|told| told.0).min()).min();
            let timer = self.nodes.values().map(|node| node.member.poll_timeout()).min();
            let Some(next) = [wire, reply, told, timer].into_iter().flatten().min() else { break };
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        let now = self.now;
        let due = self.wires.iter().find(|(_, wire)| wire.front().is_some_and(|first| first.0 <= now));
        if let Some((from, to)) = due.map(|(&key, _)| key) {
            let (_, bytes) = self.wires.get_mut(&(from, to)).unwrap().pop_front().unwrap();
            let mut refusal = None;
            self.with(to, |member, now| refusal = member.handle_message(now, from, &bytes).err());
            self.refusals.extend(refusal.map(|refusal| (to, refusal)));
            return;
        }
        if let Some(index) = self.replies.iter().position(|reply| reply.0 <= now) {
            let (_, id, start, reply) = self.replies.remove(index).unwrap();
            if self.nodes.get(&id).is_some_and(|node| node.start == start) {
                self.with(id, |member, now| member.handle_facility(now, reply));
            }
            return;
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let told = &mut self.nodes.get_mut(&id).unwrap().appliance.told;
            if let Some(index) = told.iter().position(|told| told.0 <= now) {
                let (_, told) = told.remove(index).unwrap();
                self.tell(id, told);
                return;
            }
            if self.nodes[&id].member.poll_timeout() <= now {
                self.with(id, Member::handle_timeout);
                assert!(self.nodes[&id].member.poll_timeout() > now, "a timer that does not go on");
                return;
            }
        }
    }

    /// IKE of the owner has a new SA.
    pub fn birth(&mut self, peer: u64) -> ChildId {
        self.birth_of(peer, Lifetime::NONE, None, None)
    }

    pub fn birth_of(
        &mut self,
        peer: u64,
        lifetime: Lifetime,
        sibling_of: Option<Spi>,
        replaces: Option<Spi>,
    ) -> ChildId {
        self.next_spi += 2;
        let epoch = self.appliance(OWNER).owned.get(&dvipa()).copied().unwrap_or(0);
        let mut sa = shadow(self.next_spi, peer, epoch, lifetime);
        (sa.sibling_of, sa.replaces) = (sibling_of, replaces);
        let id = sa.id();
        self.tell(OWNER, Told::ChildUp(Box::new(sa)));
        id
    }

    /// One whose peer may not be ready for it.
    pub fn birth_in_reserve(&mut self, peer: u64) -> ChildId {
        self.next_spi += 2;
        let epoch = self.appliance(OWNER).owned[&dvipa()];
        let mut sa = shadow(self.next_spi, peer, epoch, Lifetime::NONE);
        sa.usage = Use::InReserve;
        let id = sa.id();
        self.tell(OWNER, Told::ChildUp(Box::new(sa)));
        id
    }

    pub fn down(&mut self, child: ChildId) {
        self.tell(OWNER, Told::ChildDown { child, lingers: false, why: "it was deleted" });
    }

    pub fn appliance(&self, id: MemberId) -> &Appliance {
        &self.nodes[&id].appliance
    }

    pub fn appliance_mut(&mut self, id: MemberId) -> &mut Appliance {
        &mut self.nodes.get_mut(&id).unwrap().appliance
    }

    pub fn member(&self, id: MemberId) -> &Member {
        &self.nodes[&id].member
    }

    /// A target as the owner's packet path sees it.
    pub fn fabric_target(&self, target: MemberId) -> Option<FabricTarget> {
        let fabric = self.appliance(OWNER).fabric.as_ref()?;
        fabric.dvipa(dvipa())?.targets.iter().find(|it| it.member == target).copied()
    }

    pub fn is_eligible(&self, target: MemberId) -> bool {
        self.fabric_target(target).is_some_and(|target| target.is_eligible && target.is_member)
    }

    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub fn random(&mut self, below: u32) -> u32 {
        self.rng.next_u32() % below
    }

    /// Its cores have carried so much.
    pub fn uses(&mut self, id: MemberId, child: ChildId, bytes: u64, top: u64) {
        let usage = SaUse {
            child,
            inbound: (bytes, bytes / 100),
            outbound: (0, 0),
            top,
            next_outbound: 0,
            heard_ago: Some(Duration::ZERO),
        };
        self.tell(id, Told::Use(vec![usage]));
    }
}

pub fn limits(bytes_soft: u64, bytes_hard: u64) -> Lifetime {
    Lifetime {
        bytes: Limits { soft: Some(bytes_soft), hard: Some(bytes_hard) },
        packets: Limits::NONE,
        time: TimeLimits { soft: None, hard: None },
    }
}

pub fn shadow(spi: u32, peer: u64, epoch: u64, lifetime: Lifetime) -> ShadowSa {
    let half = |direction, spi: u32| SaParameters {
        name: "web".into(),
        peer: PeerId(peer),
        peer_name: "alice".into(),
        dvipa: dvipa(),
        remote: "192.0.2.20".parse().unwrap(),
        spi: Spi::new(spi).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: EspIn::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &[spi as u8; 20]).unwrap(),
        esn: true,
        replay_window_packets: 64,
        selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
        lifetime,
        epoch,
    };
    ShadowSa {
        child: ChildSa { inbound: half(Direction::Inbound, spi), outbound: half(Direction::Outbound, spi + 1) },
        processing: Processing::Target,
        born_at: SenderNumber(0),
        usage: Use::First,
        replaces: None,
        sibling_of: None,
        grant_bytes_max: 0,
    }
}
