//! A cluster on the bench: appliances joined by a trusted wire, with the test as the control side of all of them.
//!
//! The first member owns the DVIPA. What leaves a member by its trusted port arrives at the member whose link address it
//! names, on one core after the other. Each member's books are balanced after each of its polls.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use cluster::dpt::{DvipaTable, Method, PortTable, PortTarget, Tables};
use cluster::fabric::{Encapsulation, Fabric, FabricDvipa, FabricMember, FabricTarget, Processing, Protection};
use cluster::id::{Epoch, Incarnation, MemberId, Serial};
use cluster::member::EntryKey;
use cluster::protection::{End, SECRET_LEN, SessionKeys};
use cluster::vcrt::Route;
use datapath::cluster::reports::Report;
use datapath::drops::DropReason;
use datapath::forwarding::Mac;
use datapath::mailbox::{Command, Event};
use datapath::routes::NextHop;
use datapath::sas::{InboundEntry, Notes, OutboundEntry, SaTotals};
use ipsec::inbound::InboundShared;
use ipsec::outbound::{OutboundSa, OuterPolicy};
use wire::flow::FlowKey;

use super::client::{Client, SaSpec, engine};
use super::packets::DVIPA;
use super::{Bench, Sent, Setup, TRUSTED};

/// Rounds after which a cluster that is still not quiet never will be.
const ROUNDS_MAX: usize = 1_000;

pub fn trusted_address(member: MemberId) -> IpAddr {
    Ipv4Addr::new(10, 255, 0, member.0 as u8).into()
}

pub fn trusted_mac(member: MemberId) -> Mac {
    wire::ethernet::MacAddress([2, 0, 0, 0, 1, member.0 as u8])
}

/// A member as the cluster sees it.
#[derive(Debug, Clone)]
pub struct Seat {
    pub incarnation: Incarnation,
    /// The owner's serial for it.
    pub serial: Serial,
    /// The oldest serial that it accepts itself.
    pub oldest_serial: Serial,
    /// Whether it stands among the targets.
    pub is_target: bool,
    pub is_member: bool,
    pub is_eligible: bool,
}

/// An SA as one member holds it.
#[derive(Debug)]
pub struct Shadow {
    pub spi: u32,
    pub member: usize,
    pub inbound: Arc<InboundShared>,
    pub totals: Arc<[Arc<SaTotals>]>,
}

#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Bench>,
    pub seats: Vec<Seat>,
    pub shadows: Vec<Shadow>,
    pub owner: usize,
    pub epoch: Epoch,
    pub processing: Processing,
    pub encapsulation: Encapsulation,
    pub protection: Protection,
    pub is_settling: bool,
    /// How far apart the members begin to number new SAs.
    pub numbers_apart: u64,
    /// Frames between members that are not delivered, but kept.
    pub intercepted: Option<Vec<(usize, Vec<u8>)>>,
    spread: usize,
}

impl Cluster {
    /// So many members; the first owns the DVIPA, those after it are its targets.
    pub fn new(members: usize, cores: usize) -> Cluster {
        Cluster::with(members, Setup::of(cores))
    }

    pub fn with(members: usize, setup: Setup) -> Cluster {
        let bench = |at: usize| Bench::with(Setup { member: Some(number(at)), ..setup.clone() });
        let seat = |at: usize| Seat {
            incarnation: Incarnation(100 + at as u64),
            serial: Serial(1),
            oldest_serial: Serial(1),
            is_target: at > 0,
            is_member: true,
            is_eligible: true,
        };
        let mut cluster = Cluster {
            members: (0..members).map(bench).collect(),
            seats: (0..members).map(seat).collect(),
            shadows: Vec::new(),
            owner: 0,
            epoch: Epoch(1),
            processing: Processing::Target,
            encapsulation: Encapsulation::Gre,
            protection: Protection::None,
            is_settling: false,
            numbers_apart: 1_000,
            intercepted: None,
            spread: 0,
        };
        for at in 0..members {
            for other in (0..members).filter(|&other| other != at) {
                let hop = NextHop { port: TRUSTED, address: trusted_address(number(other)) };
                cluster.members[at].meet(hop, Some(trusted_mac(number(other))));
            }
        }
        cluster.announce();
        cluster
    }

    // What the control side does.

    /// The cluster as a member is told.
    pub fn fabric(&self, at: usize) -> Fabric {
        let known = |at: usize| FabricMember { id: number(at), address: trusted_address(number(at)) };
        let targets = self.seats.iter().enumerate().filter(|(_, seat)| seat.is_target);
        let target = |(at, seat): (usize, &Seat)| FabricTarget {
            member: number(at),
            incarnation: seat.incarnation,
            serial: seat.serial,
            is_member: seat.is_member,
            is_eligible: seat.is_eligible,
        };
        let dvipa = FabricDvipa {
            address: DVIPA.into(),
            owner: number(self.owner),
            epoch: self.epoch,
            processing: self.processing,
            oldest_serial: self.seats[at].oldest_serial,
            targets: if at == self.owner { targets.map(target).collect() } else { Vec::new() },
            is_settling: at == self.owner && self.is_settling,
        };
        Fabric {
            me: number(at),
            incarnation: self.seats[at].incarnation,
            encapsulation: self.encapsulation,
            protection: self.protection,
            members: (0..self.members.len()).map(known).collect(),
            dvipas: vec![dvipa],
        }
    }

    /// Tells a member how the cluster is.
    pub fn announce_to(&mut self, at: usize) {
        let fabric = Arc::new(self.fabric(at));
        let tables = Arc::new(self.tables(at));
        let now = self.members[at].now;
        self.members[at].command_all(|| Command::Fabric { fabric: Arc::clone(&fabric), at: now });
        self.members[at].command_all(|| Command::Dpt(Arc::clone(&tables)));
        self.members[at].settle();
    }

    /// Protects frames from now on, by sessions whose secrets are this byte, over and over.
    pub fn protect(&mut self, secret: u8) {
        self.protection = Protection::Esp;
        for at in 0..self.members.len() {
            (0..self.members.len()).filter(|&other| other != at).for_each(|other| self.share_keys(at, other, secret));
        }
        self.announce();
    }

    /// A member's half of a session with another one.
    pub fn share_keys(&mut self, at: usize, other: usize, secret: u8) {
        let end = |at: usize| End {
            member: number(at),
            incarnation: self.seats[at].incarnation,
            address: trusted_address(number(at)),
        };
        let (ours, theirs) = (end(at), end(other));
        // The same secret for both, another for each pair.
        let pair = (at.min(other) * 16 + at.max(other)) as u8;
        let keys = || SessionKeys::new(zeroize::Zeroizing::new([secret ^ pair; SECRET_LEN]), ours, theirs);
        self.members[at].command_all(|| Command::FrameKeys { keys: Box::new(keys()), engine: engine() });
        self.members[at].settle();
    }

    pub fn announce(&mut self) {
        (0..self.members.len()).for_each(|at| self.announce_to(at));
    }

    fn tables(&self, at: usize) -> Tables {
        let targets = (0..self.seats.len()).filter(|&at| self.seats[at].is_target);
        let target = |at| PortTarget {
            member: number(at),
            is_ready: true,
            weight: NonZeroU16::MIN,
            active: 0,
            load: 0,
            report: 0,
        };
        let every = PortTable::new(None, Method::RoundRobin, targets.map(target).collect());
        Tables::new(number(at), vec![DvipaTable { address: DVIPA.into(), ports: vec![every] }], None).unwrap()
    }

    /// Installs both halves of an SA on every member.
    pub fn connect(&mut self, spec: SaSpec) -> Client {
        let cores = self.members[0].cores();
        let client = Client::new(spec.clone(), spec.appliance_inbound(cores), cores);
        for at in 0..self.members.len() {
            let inbound = if at == 0 { Arc::clone(&client.inbound) } else { spec.appliance_inbound(cores) };
            let totals = if at == 0 { Arc::clone(&client.totals_in) } else { SaTotals::of_cores(cores) };
            let outbound = spec.appliance_outbound();
            for core in 0..cores {
                let (notes, processing) = (Notes::default(), self.processing);
                let entry = InboundEntry::new(Arc::clone(&inbound), spec.inner_mtu, notes, Arc::clone(&totals), core);
                self.members[at].command(core, Command::InstallInbound(Box::new(entry.processed_at(processing))));
                // Each member numbers from another place: what the test looks at is not the client's window.
                let first = 1 + self.numbers_apart * at as u64;
                let numbers = || OutboundSa::new(Arc::clone(&outbound), first, OuterPolicy::default());
                let entry = OutboundEntry {
                    shared: Arc::clone(&outbound),
                    remote: spec.remote.into(),
                    inner_mtu: spec.inner_mtu,
                    home: spec.home,
                    sealing: (core == spec.home).then(numbers),
                    notes: Notes::default(),
                    totals: Arc::default(),
                };
                self.members[at].command(core, Command::InstallOutbound(Box::new(entry)));
            }
            self.members[at].settle();
            self.shadows.push(Shadow { spi: spec.spi_in, member: at, inbound, totals });
        }
        client
    }

    pub fn shadow(&self, spi: u32, at: usize) -> &Shadow {
        self.shadows.iter().find(|shadow| (shadow.spi, shadow.member) == (spi, at)).unwrap()
    }

    /// The highest number of an SA that a member has accepted.
    pub fn top(&self, spi: u32, at: usize) -> u64 {
        self.shadow(spi, at).totals.iter().map(|totals| totals.top.get()).max().unwrap_or(0)
    }

    /// What a member has reported since the last look: the connections that ended there.
    pub fn take_stopped(&mut self, at: usize) -> Vec<EntryKey> {
        let reports = std::mem::take(&mut self.members[at].reports);
        let stopped = reports.into_iter().filter_map(|report| match report {
            Report::Stopped(key) => Some(key),
            _other => None,
        });
        stopped.collect()
    }

    /// The owner's half of a freeing: floors first, then the entries, then the serial.
    pub fn forget(&mut self, at: usize, keys: &[EntryKey], tops: &[(u32, u64)]) {
        for &(spi, top) in tops {
            self.shadow(spi, self.owner).inbound.raise_floor(top);
        }
        let (owner, target) = (self.owner, number(at));
        self.members[owner].command_all(|| Command::ForgetEntries { entries: keys.to_vec(), target });
        self.seats[at].serial = Serial(self.seats[at].serial.0 + 1);
        self.announce_to(owner);
    }

    /// The target's half: older serials are refused from now on, and the tombs go.
    pub fn acknowledge(&mut self, at: usize, keys: &[EntryKey]) {
        self.seats[at].oldest_serial = self.seats[at].serial;
        self.announce_to(at);
        self.members[at].command_all(|| Command::Bury(keys.to_vec()));
        self.members[at].settle();
    }

    /// A whole freeing of what has ended on a member.
    pub fn free(&mut self, at: usize) -> Vec<EntryKey> {
        let keys = self.take_stopped(at);
        let shadows = self.shadows.iter().filter(|shadow| shadow.member == at);
        let tops: Vec<(u32, u64)> = shadows.map(|shadow| (shadow.spi, self.top(shadow.spi, at))).collect();
        self.forget(at, &keys, &tops);
        self.acknowledge(at, &keys);
        keys
    }

    /// Where the owner routes the connections on a flow.
    pub fn routes_of(&mut self, flow: &FlowKey) -> Vec<(EntryKey, Route)> {
        let bench = &mut self.members[self.owner];
        bench.command_all(|| Command::FindConnection { flow: *flow });
        bench.settle();
        let mut found = Vec::new();
        bench.events.retain(|(_, event)| match event {
            Event::Found { entries, .. } => {
                found.extend(entries.iter().copied());
                false
            }
            _other => true,
        });
        found
    }

    /// Everything that the owner routes.
    pub fn all_routes(&mut self) -> Vec<(EntryKey, Route)> {
        let bench = &mut self.members[self.owner];
        bench.command_all(|| Command::ListEntries { cursor: 0, page: Vec::with_capacity(1_024) });
        bench.settle();
        let mut found = Vec::new();
        bench.events.retain(|(_, event)| match event {
            Event::Entries { page, .. } => {
                found.extend(page.iter().copied());
                false
            }
            _other => true,
        });
        found
    }

    // What the links bring.

    /// A client's packet comes to the owner.
    pub fn client_sends(&mut self, packet: &[u8]) {
        let (owner, core) = (self.owner, self.next_core());
        self.members[owner].client_sends(core, packet);
    }

    /// The application host behind a member answers.
    pub fn web_sends(&mut self, at: usize, packet: &[u8]) {
        let core = self.next_core();
        self.members[at].web_sends(core, packet);
    }

    fn next_core(&mut self) -> usize {
        self.spread += 1;
        self.spread % self.members[0].cores()
    }

    /// Lays a frame on the trusted link of a member.
    pub fn trusted_frame(&mut self, at: usize, frame: &[u8]) {
        let core = self.next_core();
        self.members[at].inject(core, TRUSTED, frame);
    }

    /// Carries what left by the trusted ports to where it goes; whether there was anything.
    pub fn carry(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.members.len() {
            for Sent { bytes, .. } in std::mem::take(&mut self.members[from].relayed) {
                moved = true;
                let to = (0..self.members.len()).find(|&at| bytes[..6] == trusted_mac(number(at)).0).unwrap();
                assert_ne!(from, to, "a frame to itself");
                match &mut self.intercepted {
                    Some(kept) => kept.push((to, bytes)),
                    None => self.trusted_frame(to, &bytes),
                }
            }
        }
        moved
    }

    /// Lets what was kept go on.
    pub fn release(&mut self) {
        for (to, frame) in self.intercepted.take().unwrap_or_default() {
            self.trusted_frame(to, &frame);
        }
    }

    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = false;
            for bench in &mut self.members {
                busy |= (0..bench.cores()).fold(false, |busy, core| bench.poll(core) | busy);
            }
            busy |= self.carry();
            // What waits for a frame that is kept back waits on.
            let is_held = self.intercepted.is_none() && self.members.iter().any(|bench| bench.balance().held > 0);
            match (busy, is_held) {
                (true, _) => {}
                (false, true) => self.advance(Duration::from_millis(1)),
                (false, false) => return,
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub fn advance(&mut self, span: Duration) {
        self.members.iter_mut().for_each(|bench| bench.advance(span));
    }

    /// Lets time pass, with polls enough for every entry to be looked at.
    pub fn pass(&mut self, span: Duration) {
        self.advance(span);
        for bench in &mut self.members {
            for _ in 0..200 {
                (0..bench.cores()).for_each(|core| _ = bench.poll(core));
            }
        }
        self.settle();
    }

    // What is to be seen.

    pub fn delivered(&mut self, at: usize) -> Vec<Vec<u8>> {
        self.members[at].take_delivered().into_iter().map(|sent| sent.bytes).collect()
    }

    /// How many packets each member has delivered since the last look.
    pub fn delivered_counts(&mut self) -> Vec<usize> {
        (0..self.members.len()).map(|at| self.delivered(at).len()).collect()
    }

    pub fn sent(&mut self, at: usize) -> Vec<Vec<u8>> {
        self.members[at].take_sent().into_iter().map(|sent| sent.bytes).collect()
    }

    #[track_caller]
    pub fn assert_drops(&self, at: usize, expected: &[(DropReason, u64)]) {
        self.members[at].assert_drops(expected);
    }
}

/// Members are numbered from 1.
pub fn number(at: usize) -> MemberId {
    MemberId(at as u16 + 1)
}
