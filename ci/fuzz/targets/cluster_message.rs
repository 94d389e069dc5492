//! Messages of another member, who has a certificate and may be broken or worse: to an owner and to a target.
//!
//! The input is a script: whose turn it is, and either arbitrary bytes or arbitrary bytes behind the head of a message
//! about the right address and epoch. What is read is written the same way again; whatever it says, floors and marks only
//! rise, nobody is sealed or buried twice for it, and what waits for a member stays bounded.

#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cluster::fabric::{Encapsulation, Processing};
use cluster::facility::Reply;
use cluster::facility::memory::Store;
use cluster::facility::start::{Progress, Start};
use cluster::facility::wrap::{Sealer, WrapKey};
use cluster::id::{ChildId, Epoch, MemberId};
use cluster::member::{Action, DvipaSettings, LinkEvent, Member, MemberSettings, SequencePolicy, Settings, Told};
use cluster::message::{Body, Message, VERSION};
use ipsec::iv::SenderNumber;
use ipsec::time::Instant;
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;

const OWNER: MemberId = MemberId(1);
const TARGET: MemberId = MemberId(2);

fuzz_target!(|data: &[u8]| {
    read_again(data);
    let mut script = data;
    let mut nodes = [Node::new(OWNER), Node::new(TARGET)];
    while let Some(([kind, len], rest)) = split::<2>(script) {
        let (content, rest) = rest.split_at(usize::from(len).min(rest.len()));
        script = rest;
        let node = &mut nodes[usize::from(kind & 1)];
        match kind >> 1 & 3 {
            0 => node.hear(content),
            1 => node.wait(Duration::from_millis(u64::from(len) * 8)),
            _ => {
                let mut message = head(u64::from(kind >> 3 & 1) + 1);
                message.extend_from_slice(content);
                node.hear(&message);
            }
        }
    }
});

fn dvipa() -> IpAddr {
    [203, 0, 113, 80].into()
}

/// A message about the address in this epoch, without its body.
fn head(epoch: u64) -> Vec<u8> {
    let claimed = Message::Dvipa { dvipa: dvipa(), epoch: Epoch(epoch), body: Body::Claimed };
    let mut bytes = claimed.encode(VERSION).expect("it is short").to_vec();
    bytes.pop();
    bytes
}

fn read_again(data: &[u8]) {
    for agreed in [1, VERSION] {
        let Ok(message) = Message::decode(data, agreed) else { continue };
        let again = message.encode(agreed).expect("it was allowed to come");
        // Numbers may come longer than need be; what we write is the shortest, and means the same.
        assert!(again.len() <= data.len());
        let once_more = Message::decode(&again, agreed).expect("we wrote it").encode(agreed).expect("as before");
        assert_eq!(*again, *once_more);
    }
}

/// A member whose appliance does at once what it is told, in session with the one that is fuzzed.
struct Node {
    member: Member,
    other: MemberId,
    store: Store,
    now: Instant,
    floors: BTreeMap<ChildId, u64>,
    marks: BTreeMap<ChildId, u64>,
}

impl Node {
    fn new(me: MemberId) -> Node {
        let mut store = Store::default();
        let mut start = Start::new(me, [7; 16], 4);
        let started = loop {
            let outcome = store.execute(&start.request(1)).expect("it is well formed");
            match start.take(&outcome).expect("the store is right") {
                Progress::Again(again) => start = again,
                Progress::Done(started) => break started,
            }
        };
        let sealer = Sealer::new(&WrapKey::new(&[9; 32]), started.fresh).expect("a key");
        let (now, senders) = (Instant::from_secs(100), SenderNumber(started.senders.end));
        let member = Member::new(now, settings(me), started.incarnation, senders, sealer, [3; 32]);
        let other = if me == OWNER { TARGET } else { OWNER };
        let mut node = Node { member, other, store, now, floors: BTreeMap::new(), marks: BTreeMap::new() };
        node.run();
        node.link(started.incarnation);
        node
    }

    fn link(&mut self, incarnation: cluster::id::Incarnation) {
        let event = LinkEvent::Up { incarnation, version: VERSION };
        self.member.handle_link(self.now, self.other, event);
        self.run();
    }

    fn hear(&mut self, bytes: &[u8]) {
        let result = self.member.handle_message(self.now, self.other, bytes);
        self.run();
        if result.is_err_and(|refused| refused.ends_session()) {
            self.link(cluster::id::Incarnation(2));
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        if self.member.poll_timeout() <= self.now {
            self.member.handle_timeout(self.now);
            assert!(self.member.poll_timeout() > self.now, "a timer that does not go on");
        }
        self.run();
    }

    /// Does what the member says until it says no more.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut told = Vec::new();
            while let Some(action) = self.member.poll_action() {
                self.act(action, &mut told);
            }
            while self.member.poll_message().is_some() {}
            while self.member.poll_notice().is_some() {}
            let request = self.member.poll_request();
            if told.is_empty() && request.is_none() {
                return;
            }
            for told in told {
                self.member.handle_told(self.now, told);
            }
            if let Some(request) = request {
                let outcome = self.store.execute(&request).expect("it is well formed");
                self.member.handle_facility(self.now, Reply { id: request.id, outcome: Ok(outcome) });
            }
        }
        panic!("it never comes to rest");
    }

    fn act(&mut self, action: Action, told: &mut Vec<Told>) {
        match action {
            Action::Await { ticket, .. } => told.push(Told::Heard { ticket }),
            Action::Install(sa) => told.push(Told::Installed(sa.id())),
            Action::RaiseFloor { child, floor } => {
                let before = self.floors.insert(child, floor);
                assert!(before.is_none_or(|before| floor > before), "floors only rise");
            }
            Action::Mark { child, below } => {
                let before = self.marks.insert(child, below);
                assert!(before.is_none_or(|before| below >= before) || self.other == OWNER, "marks only rise");
            }
            Action::Verify(entries) => {
                // One is there, one is not.
                let (alive, stopped): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.peer.0 & 1 == 0);
                told.extend([Told::Alive(alive), Told::Stopped(stopped), Told::Use(Vec::new())]);
            }
            _other => {}
        }
    }
}

fn settings(me: MemberId) -> Settings {
    let member = |id: MemberId| MemberSettings {
        id,
        name: format!("member-{id}").into(),
        address: [10, 255, 0, id.0 as u8].into(),
    };
    Settings {
        me,
        members: [OWNER, TARGET].map(member).to_vec(),
        encapsulation: Encapsulation::Gre,
        protection: cluster::fabric::Protection::None,
        dvipas: vec![DvipaSettings {
            address: dvipa(),
            owners: vec![OWNER],
            targets: vec![OWNER, TARGET],
            processing: Processing::Target,
            outbound_sequence: SequencePolicy::Auto,
            peer_window_packets: 32,
            siblings_max: 8,
            services: Vec::new(),
        }],
        shadow_patience: Duration::from_millis(500),
        silence: Duration::from_secs(1),
        owner_silence: Duration::from_secs(5),
    }
}
