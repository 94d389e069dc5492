//! A whole cluster with its clients, attackers, links and facility, in simulated time.
//!
//! Nothing happens between events: time goes from one to the next. After each instant the model is asked.

mod faults;
mod frames;
mod traffic;

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use cluster::facility::Reply;
use cluster::id::{Incarnation, MemberId};
use cluster::member::Standing;
use datapath::routes::PortId;
use ipsec::time::Instant;

use crate::appliance::{Appliance, StartFault, senders_of};
use crate::client::Client;
use crate::dice::Dice;
use crate::facility::Facility;
use crate::model::{Model, Violation};
use crate::place::DVIPA;
use crate::plant::Plant;
use crate::topology::Topology;
use crate::weather::Link;

pub use faults::Background;
pub use frames::Hold;
pub use traffic::Traffic;

/// When the simulation begins.
const BEGIN: Instant = Instant::from_secs(10);
/// Data cores age their tables though nothing comes: so often they are let.
const CORE_TICK: Duration = Duration::from_millis(8);
/// An appliance that is busy still gets its next turn after this.
const NEXT_TURN: Duration = Duration::from_micros(50);

/// Why a simulation ended before its end.
#[derive(Debug)]
pub enum End {
    /// A rule was broken.
    Violation(Violation),
    /// The world itself failed: a fault of the simulator, or of what it is made of.
    World(String),
}

impl End {
    /// The rule and how it was broken.
    #[must_use]
    pub fn told(&self) -> (&str, &str) {
        match self {
            End::Violation(violation) => (violation.rule, &violation.what),
            End::World(what) => ("0 the world goes on", what),
        }
    }
}

impl From<StartFault> for End {
    fn from(fault: StartFault) -> End {
        End::World(fault.to_string())
    }
}

/// What is to happen.
#[derive(Debug)]
enum Happening {
    /// A frame arrives at a member's port.
    AtMember { member: MemberId, port: PortId, core: usize, frame: Vec<u8> },
    /// A frame arrives at a client.
    AtClient { client: usize, frame: Vec<u8> },
    /// A request reaches the facility.
    Asked { member: MemberId, life: u32 },
    /// A reply reaches a member.
    Answered { member: MemberId, life: u32, reply: Reply },
    /// The clients' users and the application hosts do something.
    Traffic,
    /// Attackers and faults do something.
    Background,
}

struct Scheduled {
    at: Instant,
    number: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// One member's place: what runs there, if anything does.
pub struct Node {
    /// The appliance, while it runs.
    pub appliance: Option<Appliance>,
    /// Which start of the process this is: what was under way for another is not for it.
    life: u32,
    /// How far its clock is ahead.
    skew: Duration,
    paused_until: Instant,
    wake: Instant,
}

/// Everything.
pub struct World {
    /// What it is made of.
    pub topology: Topology,
    /// The rules.
    pub model: Model,
    /// The coupling facility.
    pub facility: Facility,
    /// Chance for scenarios.
    pub dice: Dice,
    /// Clients, by number.
    pub clients: Vec<Client>,
    /// Members, by number.
    pub nodes: BTreeMap<MemberId, Node>,
    /// What clients and hosts do by themselves.
    pub traffic: Traffic,
    /// What happens by itself beside.
    pub background: Background,
    /// The network of the clients.
    pub network: Link,
    /// The members' link.
    pub trusted: Link,
    /// The frames that a scenario keeps back.
    pub hold: Hold,
    /// Ways on the trusted link that nothing passes, from and to.
    cut: BTreeSet<(MemberId, MemberId)>,
    /// Ways on the trusted link that only frames with packets pass.
    speechless: BTreeSet<(MemberId, MemberId)>,
    plant: Option<Plant>,
    now: Instant,
    events: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    /// Chance for links and starts.
    luck: Dice,
    /// ESP frames as attackers have captured them.
    pub captured: Vec<Vec<u8>>,
    trace: DefaultHasher,
    /// Instants that were looked at.
    pub steps: u64,
    /// Frames that attackers have sent.
    pub attacks: u64,
}

impl World {
    /// A cluster that has just been switched on.
    ///
    /// # Errors
    /// [`End::World`].
    pub fn new(seed: u64, topology: Topology, plant: Option<Plant>) -> Result<World, End> {
        let mut luck = Dice::new(seed, "luck");
        let hard = topology.bytes.hard;
        // A target may notice a little late, and a client's packet travels a while.
        let idle = topology.timeouts.closed;
        let mut world = World {
            model: Model::new(hard, idle),
            facility: Facility::new(topology.members(), &mut luck),
            dice: Dice::new(seed, "scenario"),
            clients: Vec::new(),
            nodes: BTreeMap::new(),
            traffic: Traffic::new(seed, topology.clients),
            background: Background::new(seed),
            network: Link::new(50, 300),
            trusted: Link::new(20, 120),
            hold: Hold::default(),
            cut: BTreeSet::new(),
            speechless: BTreeSet::new(),
            plant,
            now: BEGIN,
            events: BinaryHeap::new(),
            scheduled: 0,
            luck,
            captured: Vec::new(),
            trace: DefaultHasher::new(),
            steps: 0,
            attacks: 0,
            topology,
        };
        for member in world.topology.members() {
            let node = Node { appliance: None, life: 0, skew: Duration::ZERO, paused_until: BEGIN, wake: Instant::MAX };
            world.nodes.insert(member, node);
            world.start(member)?;
        }
        for number in 0..world.topology.clients {
            let client = Client::new(BEGIN, number, &world.topology, &mut world.luck)?;
            world.clients.push(client);
        }
        world.schedule(BEGIN, Happening::Traffic);
        world.schedule(BEGIN, Happening::Background);
        Ok(world)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What has happened so far, as one number.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    fn note(&mut self, what: impl Hash) {
        (self.now.as_nanos(), what).hash(&mut self.trace);
    }

    fn schedule(&mut self, at: Instant, what: Happening) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled { at: at.max(self.now), number: self.scheduled, what }));
    }

    /// Starts a member as a new start of it; whether the facility let it.
    ///
    /// # Errors
    /// [`End::World`].
    pub fn start(&mut self, member: MemberId) -> Result<bool, End> {
        self.stop(member);
        let nonce = self.luck.bytes();
        let Some(mut started) = self.facility.register(member, senders_of(&self.topology), nonce) else {
            return Ok(false);
        };
        if self.plant == Some(Plant::SenderId) {
            started.senders = 0..started.senders.end - started.senders.start;
        }
        let Some(node) = self.nodes.get_mut(&member) else { return Ok(false) };
        let now = self.now + node.skew;
        node.appliance = Some(Appliance::start(now, &self.topology, member, started, &mut self.luck)?);
        node.life += 1;
        (node.paused_until, node.wake) = (self.now, self.now);
        self.note(("start", member));
        tracing::info!(at = %self.now, %member, "SIM start");
        Ok(true)
    }

    /// A member is dead from now on.
    pub fn stop(&mut self, member: MemberId) {
        if let Some(node) = self.nodes.get_mut(&member) {
            node.appliance = None;
            (node.life, node.wake) = (node.life + 1, Instant::MAX);
            self.note(("stop", member));
            tracing::info!(at = %self.now, %member, "SIM stop");
        }
    }

    /// Whether a member runs.
    #[must_use]
    pub fn runs(&self, member: MemberId) -> bool {
        self.nodes.get(&member).is_some_and(|node| node.appliance.is_some())
    }

    /// Whether a member has SAs.
    #[must_use]
    pub fn has_sas(&self, member: MemberId) -> bool {
        let appliance = self.nodes.get(&member).and_then(|node| node.appliance.as_ref());
        appliance.is_some_and(|appliance| appliance.control.sas().next().is_some())
    }

    /// Whether the owner has given this start of a target up.
    #[must_use]
    pub fn is_given_up(&self, target: MemberId, start: Incarnation) -> bool {
        self.model.is_given_up(target, start)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// What ended the simulation.
    pub fn run_for(&mut self, span: Duration) -> Result<(), End> {
        self.run_until(span, |_| false).map(|_| ())
    }

    /// Lets time pass until something is so, or the span is over; whether it is so.
    ///
    /// # Errors
    /// What ended the simulation.
    pub fn run_until(&mut self, span: Duration, mut is_so: impl FnMut(&World) -> bool) -> Result<bool, End> {
        let end = self.now + span;
        while self.now < end {
            if is_so(self) {
                return Ok(true);
            }
            self.step(end)?;
        }
        Ok(is_so(self))
    }

    /// Lets the cluster come up, and the clients connect.
    ///
    /// # Errors
    /// What ended the simulation, or that nobody could connect.
    pub fn settle(&mut self) -> Result<(), End> {
        let is_up = |world: &World| world.clients.iter().all(Client::is_up);
        if self.run_until(Duration::from_secs(6), is_up)? {
            return self.run_for(Duration::from_millis(100));
        }
        let up = self.clients.iter().filter(|client| client.is_up()).count();
        Err(End::World(format!("{up} of {} clients are connected after six seconds", self.clients.len())))
    }

    /// One instant.
    fn step(&mut self, end: Instant) -> Result<(), End> {
        let events = self.events.peek().map(|Reverse(next)| next.at);
        let nodes = self.nodes.values().map(|node| node.wake.max(node.paused_until)).min();
        let clients = self.clients.iter().filter_map(Client::poll_timeout).min();
        let next = [events, nodes, clients].into_iter().flatten().min().unwrap_or(end);
        self.now = self.now.max(next.min(end));
        self.steps += 1;
        while self.events.peek().is_some_and(|Reverse(next)| next.at <= self.now) {
            if let Some(Reverse(next)) = self.events.pop() {
                self.happen(next.what)?;
            }
        }
        self.run_clients();
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        for member in members {
            self.run_member(member);
        }
        match self.model.violation() {
            Some(violation) => Err(End::Violation(violation.clone())),
            None => Ok(()),
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), End> {
        match what {
            Happening::AtMember { member, port, core, frame } => self.arrive(member, port, core, frame),
            Happening::AtClient { client, frame } => self.arrive_at_client(client, &frame),
            Happening::Asked { member, life } => {
                if self.life(member) == life
                    && let Some((reply, after)) = self.facility.carry_out(member, &mut self.luck)
                {
                    self.schedule(self.now + after, Happening::Answered { member, life, reply });
                }
            }
            Happening::Answered { member, life, reply } => {
                let now = self.now;
                if let Some(node) = self.nodes.get_mut(&member).filter(|node| node.life == life)
                    && let Some(appliance) = &mut node.appliance
                {
                    appliance.control.handle_facility_reply(now + node.skew, reply);
                    node.wake = now;
                }
                self.ask_next(member);
            }
            Happening::Traffic => self.do_traffic(),
            Happening::Background => self.do_background()?,
        }
        Ok(())
    }

    fn life(&self, member: MemberId) -> u32 {
        self.nodes.get(&member).map_or(0, |node| node.life)
    }

    /// Lets a member work if it is time, and carries away what came of it.
    fn run_member(&mut self, member: MemberId) {
        let Some(node) = self.nodes.get_mut(&member) else { return };
        if node.wake > self.now || node.paused_until > self.now {
            return;
        }
        let Some(appliance) = &mut node.appliance else { return };
        let now = self.now + node.skew;
        let busy = appliance.turn(now);
        let due = appliance.control.poll_timeout().map_or(Duration::MAX, |due| due.saturating_since(now));
        let rest = if busy { NEXT_TURN } else { due.clamp(NEXT_TURN, CORE_TICK) };
        node.wake = self.now + rest;
        let difference = appliance.imbalance();
        self.model.balanced(member, difference);
        let mut requests = Vec::new();
        while let Some(request) = appliance.control.poll_facility_request(now) {
            requests.push(request);
        }
        let is_asking = !requests.is_empty();
        requests.into_iter().for_each(|request| self.facility.ask(member, request));
        if is_asking {
            self.ask_next(member);
        }
        self.carry_away(member);
        self.watch_owner(member);
    }

    fn ask_next(&mut self, member: MemberId) {
        let life = self.life(member);
        if let Some(asked) = self.facility.next(member, &mut self.luck) {
            self.schedule(self.now + asked.after, Happening::Asked { member, life });
        }
    }

    /// What the owner says of itself and of its targets: which starts it no longer counts on.
    fn watch_owner(&mut self, member: MemberId) {
        let Some(appliance) = self.nodes.get(&member).and_then(|node| node.appliance.as_ref()) else { return };
        let Some(view) = appliance.control.member() else { return };
        let mine: Vec<_> = view.dvipas().iter().filter(|dvipa| dvipa.is_mine).map(|dvipa| dvipa.epoch).collect();
        let is_given_up = |standing| matches!(standing, Standing::Losing | Standing::Lost | Standing::Left);
        let targets = view.targets(DVIPA.into());
        mine.into_iter().for_each(|epoch| self.model.owns(member, epoch));
        for target in targets {
            if self.model.target(target.member, target.incarnation, is_given_up(target.standing)) {
                self.note(("given up", target.member, target.incarnation));
            }
        }
    }
}
