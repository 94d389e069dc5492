//! Meshes joined by streams that break, under simulated time.

use core::net::Ipv4Addr;
use core::time::Duration;

use rand_core::Rng;

use super::*;
use crate::heartbeat::HeartbeatError;
use crate::stream::StreamEnd;
use crate::testing::{EAST, NOW, TestAuthority, VALID, VERSIONS, members, name};

fn address(member: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, member as u8).into(), 7_575)
}

fn moment(at: Instant) -> Moment {
    Moment { at, unix_seconds: NOW }
}

fn mesh_of(identity: Arc<Identity>, member: u16, incarnation: u64, at: Instant) -> Mesh {
    let (id, incarnation) = (MemberId(member), Incarnation(incarnation));
    let part = Part::new(identity, name("east"), id, incarnation, VERSIONS, members()).unwrap();
    let addresses = (1..=3).map(|id| (MemberId(id), address(id))).collect();
    let settings = MeshSettings { part, addresses, timing: Timing::default() };
    Mesh::new(moment(at), settings, [member as u8; 32]).unwrap()
}

fn mesh(member: u16, incarnation: u64, at: Instant) -> Mesh {
    mesh_of(EAST.identity(members()[usize::from(member) - 1].name.as_str()), member, incarnation, at)
}

/// The other end of a stream, by member index.
type End = (usize, StreamId);

/// Three members and the streams between them.
struct World {
    now: Instant,
    meshes: Vec<Mesh>,
    rng: ChaCha20Rng,
    peers: BTreeMap<End, End>,
    due: BTreeMap<(Instant, u64), (usize, StreamEvent)>,
    /// When the last event for an end comes, so that none overtakes another.
    last: BTreeMap<End, Instant>,
    numbers: u64,
    /// One in so many connects and writes fails; 0 for none.
    one_fails_in: u64,
    room_bytes: usize,
    log: Vec<(usize, MeshEvent)>,
}

impl World {
    fn new(seed: u8) -> World {
        let now = Instant::from_secs(1);
        let meshes = (1..=3).map(|member| mesh(member, 10, now)).collect();
        World {
            now,
            meshes,
            rng: ChaCha20Rng::from_seed([seed; 32]),
            peers: BTreeMap::new(),
            due: BTreeMap::new(),
            last: BTreeMap::new(),
            numbers: 0,
            one_fails_in: 0,
            room_bytes: 64 << 10,
            log: Vec::new(),
        }
    }

    fn fails(&mut self) -> bool {
        self.one_fails_in != 0 && self.rng.next_u64().is_multiple_of(self.one_fails_in)
    }

    fn schedule(&mut self, end: End, event: StreamEvent) {
        let delay = Duration::from_micros(100 + self.rng.next_u64() % 5_000);
        let last = self.last.entry(end).or_default();
        *last = (*last).max(self.now + delay);
        self.numbers += 1;
        self.due.insert((*last, self.numbers), (end.0, event));
    }

    fn act(&mut self, from: usize, action: StreamAction) {
        match action {
            StreamAction::Connect { stream, address: to } => {
                let near = (from, stream);
                if self.fails() {
                    return self.schedule(near, StreamEvent::Closed { stream, why: StreamEnd::TimedOut });
                }
                let to = (1..=3).position(|member| address(member) == to).unwrap();
                self.numbers += 1;
                let far = (to, StreamId::Accepted(self.numbers));
                self.peers.extend([(near, far), (far, near)]);
                let (room_bytes, from) = (self.room_bytes, address(from as u16 + 1));
                self.schedule(near, StreamEvent::Connected { stream, room_bytes });
                self.schedule(far, StreamEvent::Accepted { stream: far.1, from, room_bytes });
            }
            StreamAction::Write { stream, bytes } => {
                let near = (from, stream);
                let Some(&far) = self.peers.get(&near) else { return };
                if self.fails() {
                    return self.cut(near, far);
                }
                self.schedule(near, StreamEvent::Writable { stream, room_bytes: bytes.len() });
                self.schedule(far, StreamEvent::Readable { stream: far.1, bytes });
            }
            StreamAction::Close { stream } => self.leave((from, stream), StreamEnd::Finished),
            StreamAction::Abort { stream } => self.leave((from, stream), StreamEnd::Reset),
        }
    }

    fn leave(&mut self, near: End, why: StreamEnd) {
        if let Some(far) = self.peers.remove(&near) {
            self.peers.remove(&far);
            self.schedule(far, StreamEvent::Closed { stream: far.1, why });
        }
    }

    /// Breaks a stream: what is under way is lost.
    fn cut(&mut self, near: End, far: End) {
        self.peers.remove(&near);
        self.peers.remove(&far);
        for end in [near, far] {
            self.schedule(end, StreamEvent::Closed { stream: end.1, why: StreamEnd::Reset });
        }
    }

    fn settle(&mut self) {
        for at in 0..self.meshes.len() {
            while let Some(action) = self.meshes[at].poll_stream_action() {
                self.act(at, action);
            }
            while let Some(event) = self.meshes[at].poll() {
                self.log.push((at, event));
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        loop {
            let timeout = self.meshes.iter().filter_map(Mesh::poll_timeout).min();
            let event = self.due.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timeout.into_iter().chain(event).min().filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            if event.is_some_and(|at| at <= self.now) {
                let (_, (to, event)) = self.due.pop_first().unwrap();
                self.meshes[to].handle_stream(moment(self.now), event);
            } else {
                let now = moment(self.now);
                self.meshes.iter_mut().for_each(|mesh| mesh.handle_timeout(now));
                assert!(self.meshes.iter().filter_map(Mesh::poll_timeout).all(|at| at > self.now), "it would spin");
            }
            self.settle();
        }
        self.now = end;
    }

    /// A member dies, and starts anew.
    fn restart(&mut self, at: usize, incarnation: u64) {
        let ends: Vec<End> = self.peers.keys().copied().filter(|end| end.0 == at).collect();
        ends.into_iter().for_each(|end| self.leave(end, StreamEnd::Reset));
        self.due.retain(|_, (to, _)| *to != at);
        self.meshes[at] = mesh(at as u16 + 1, incarnation, self.now);
    }

    fn ups(&self) -> usize {
        self.meshes.iter().flat_map(Mesh::status).filter(|status| status.up.is_some()).count()
    }

    fn take_log(&mut self) -> Vec<(usize, MeshEvent)> {
        core::mem::take(&mut self.log)
    }
}

fn up(member: u16, incarnation: u64) -> MeshEvent {
    MeshEvent::Up { member: MemberId(member), incarnation: Incarnation(incarnation), version: 1 }
}

#[test]
fn every_member_finds_every_other_and_the_lower_number_has_dialled() {
    let mut world = World::new(1);
    world.run(Duration::from_secs(1));
    let log = world.take_log();
    for (me, other) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
        assert!(log.contains(&(me, up(other, 10))));
    }
    assert_eq!((log.len(), world.ups(), world.peers.len()), (6, 6, 6));
    let dials: Vec<usize> =
        world.peers.keys().filter(|(_, id)| matches!(id, StreamId::Dialled(_))).map(|end| end.0).collect();
    assert_eq!(dials, [0, 0, 1]);
}

#[test]
fn an_idle_mesh_stays_up_by_signs_of_life() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(600));
    assert_eq!((world.take_log().len(), world.ups()), (6, 6));
}

#[test]
fn messages_of_any_size_pass_a_narrow_stream_in_order() {
    let mut world = World::new(3);
    world.room_bytes = 1_000;
    world.run(Duration::from_secs(1));
    world.take_log();
    let sent: Vec<Vec<u8>> = (1..60_usize).map(|at| vec![at as u8; at * at * 11]).collect();
    for message in &sent {
        world.meshes[0].send(world.now, MemberId(3), message).unwrap();
    }
    world.run(Duration::from_secs(30));
    let found: Vec<Vec<u8>> = world
        .take_log()
        .into_iter()
        .map(|(at, event)| match event {
            MeshEvent::Message { member: MemberId(1), bytes } if at == 2 => bytes.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, sent);
}

#[test]
fn a_member_that_vanishes_is_found_out_and_comes_back_as_a_newer_start() {
    let mut world = World::new(4);
    world.run(Duration::from_secs(1));
    // Nobody tells the others: the streams just carry nothing any more.
    let ends: Vec<End> = world.peers.keys().copied().filter(|end| end.0 == 1).collect();
    for end in ends {
        let far = world.peers.remove(&end).unwrap();
        world.peers.remove(&far);
    }
    world.one_fails_in = 1;
    world.take_log();
    world.run(Duration::from_secs(11));
    let downs = world.take_log();
    for other in [0, 2] {
        assert!(
            downs.contains(&(other, MeshEvent::Down { member: MemberId(2), why: DownReason::Silent })),
            "{downs:?}"
        );
    }
    world.one_fails_in = 0;
    world.restart(1, 11);
    world.run(Duration::from_secs(60));
    let log = world.take_log();
    assert!(log.contains(&(0, up(2, 11))) && log.contains(&(2, up(2, 11))), "{log:?}");
    assert_eq!(world.ups(), 6);
}

#[test]
fn a_newer_session_takes_the_place_of_an_older_that_nobody_has_missed_yet() {
    let mut world = World::new(5);
    world.run(Duration::from_secs(1));
    world.take_log();
    // Member 1 restarts so fast that member 3 hears of the new session first.
    let far = *world.peers.iter().find(|(end, far)| end.0 == 0 && far.0 == 2).unwrap().1;
    world.peers.remove(&far);
    world.peers.retain(|end, _| end.0 != 0);
    world.meshes[0] = mesh(1, 11, world.now);
    world.run(Duration::from_secs(1));
    let of_third: Vec<MeshEvent> =
        world.take_log().into_iter().filter(|(at, _)| *at == 2).map(|(_, event)| event).collect();
    assert_eq!(of_third, [MeshEvent::Down { member: MemberId(1), why: DownReason::Replaced }, up(1, 11)]);
}

#[test]
fn hostile_39_an_older_start_never_takes_the_place_of_a_newer() {
    let mut world = World::new(6);
    world.run(Duration::from_secs(1));
    world.restart(0, 12);
    world.run(Duration::from_secs(1));
    assert_eq!(world.ups(), 6);
    world.take_log();
    // The older process was only asleep, and dials again.
    world.restart(0, 11);
    world.run(Duration::from_secs(20));
    let log = world.take_log();
    assert!(!log.iter().any(|(at, event)| *at != 0 && matches!(event, MeshEvent::Up { .. })), "{log:?}");
    let refused = DownReason::OlderIncarnation { member: MemberId(1), found: Incarnation(11), known: Incarnation(12) };
    assert!(
        log.iter().any(|(at, event)| *at == 2 && matches!(event, MeshEvent::Failed { why, .. } if *why == refused))
    );
    let attempts = log.iter().filter(|(at, event)| *at == 0 && *event == up(3, 10)).count();
    assert!((4..12).contains(&attempts), "{attempts} attempts in 20 s: it backs off");
    world.restart(0, 13);
    world.run(Duration::from_secs(10));
    assert_eq!(world.ups(), 6);
}

#[test]
fn broken_streams_lose_nothing_that_is_not_told_of_and_all_come_back() {
    for seed in 10..16 {
        let mut world = World::new(seed);
        world.one_fails_in = 40;
        world.room_bytes = 3_000;
        // What each member sends each other is numbered; within one session no number may be missing.
        let mut numbers = BTreeMap::<(usize, u16), u32>::new();
        for round in 0..400 {
            for (from, to) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2_u16)] {
                let number = numbers.entry((from, to)).or_default();
                let message = [&number.to_be_bytes()[..], &vec![7; (round * 37 + from * 11) % 4_000]].concat();
                if world.meshes[from].send(world.now, MemberId(to), &message).is_ok() {
                    *number += 1;
                }
            }
            if round % 100 == 99 {
                world.restart(round / 100 % 3, 20 + round as u64);
            }
            world.run(Duration::from_millis(100));
        }
        world.one_fails_in = 0;
        world.run(Duration::from_secs(30));
        assert_eq!(world.ups(), 6, "seed {seed}");
        let (mut next, mut downs, mut received) = (BTreeMap::<(usize, MemberId), u32>::new(), 0, 0);
        let mut is_up = BTreeMap::<(usize, MemberId), bool>::new();
        for (at, event) in world.take_log() {
            match event {
                MeshEvent::Up { member, .. } => {
                    // A restarted member begins anew, and cannot say that it was down.
                    is_up.insert((at, member), true);
                    next.remove(&(at, member));
                }
                MeshEvent::Down { member, .. } => {
                    assert_eq!(is_up.insert((at, member), false), Some(true));
                    downs += 1;
                }
                MeshEvent::Message { member, bytes } => {
                    assert_eq!(is_up.get(&(at, member)), Some(&true));
                    let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                    let expected = next.insert((at, member), number + 1);
                    assert!(expected.is_none_or(|expected| expected == number), "seed {seed}: {expected:?} {number}");
                    received += 1;
                }
                MeshEvent::Failed { .. } => {}
            }
        }
        assert!(downs > 30 && received > 600, "seed {seed}: {downs} downs, {received} messages");
    }
}

#[test]
fn hostile_39_streams_that_prove_nothing_are_bounded_and_end_in_time() {
    let mut mesh = mesh(3, 10, Instant::from_secs(1));
    let at = Instant::from_secs(2);
    let mut accept = |at: Instant, number: u64, from: SocketAddr| {
        let stream = StreamId::Accepted(number);
        mesh.handle_stream(moment(at), StreamEvent::Accepted { stream, from, room_bytes: 1_000 });
        let refused =
            core::iter::from_fn(|| mesh.poll_stream_action()).any(|action| action == StreamAction::Abort { stream });
        (refused, mesh.streams.len())
    };
    let stranger = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 77).into(), 1);
    assert_eq!(accept(at, 0, stranger), (true, 0));
    let kept = (1..1_000).filter(|&number| !accept(at, number, address(1 + (number % 2) as u16)).0).count();
    assert_eq!(kept, 2 * STREAMS_PER_ADDRESS);
    assert_eq!((mesh.refusals().strangers, mesh.refusals().crowded), (1, 999 - kept as u64));
    assert_eq!(mesh.events.len(), FAILURES_MAX);
    assert_eq!(mesh.poll_timeout(), Some(at + Timing::default().handshake));
    mesh.handle_timeout(moment(at + Timing::default().handshake));
    assert!(mesh.streams.is_empty());
    let aborts = core::iter::from_fn(|| mesh.poll_stream_action()).count();
    assert_eq!((aborts, mesh.poll_timeout()), (kept, None));
}

#[test]
fn hostile_39_a_member_without_the_authority_disturbs_nobody_else() {
    let mut world = World::new(7);
    let other = TestAuthority::new("east");
    world.meshes[1] = mesh_of(other.identity_believing("b", VALID, &EAST), 2, 10, world.now);
    world.run(Duration::from_secs(30));
    let log = world.take_log();
    assert!(log.contains(&(0, up(3, 10))) && log.contains(&(2, up(1, 10))));
    assert!(!log.iter().any(|(_, event)| matches!(event, MeshEvent::Up { member: MemberId(2), .. })));
    assert_eq!(world.ups(), 2);
    assert!(world.meshes.iter().all(|mesh| mesh.streams.len() <= 3));
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_session_on() {
    let mut world = World::new(8);
    world.run(Duration::from_secs(1));
    let foreign = TestAuthority::new("west").identity("a");
    assert!(matches!(world.meshes[0].renew(foreign), Err(PartError::Cluster { .. })));
    world.meshes[0].renew(EAST.identity("a")).unwrap();
    world.meshes[0].disconnect(world.now, MemberId(2));
    world.take_log();
    world.run(Duration::from_secs(5));
    assert!(world.take_log().contains(&(1, up(1, 10))));
}

#[test]
fn a_heartbeat_counts_once_from_its_member_and_also_while_the_stream_is_broken() {
    let mut world = World::new(9);
    assert!(world.meshes[0].seal_heartbeats(&[1], true, true).is_empty(), "no key before the first session");
    world.run(Duration::from_secs(1));
    let sealed = world.meshes[0].seal_heartbeats(&[5, 6], true, false);
    assert_eq!(sealed.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [address(2).ip(), address(3).ip()]);
    let (first, from) = (&sealed[0].1, address(1).ip());
    let beat = world.meshes[1].open_heartbeat(from, first).unwrap();
    assert_eq!((beat.member, beat.incarnation, beat.number), (MemberId(1), Incarnation(10), 1));
    assert_eq!((&beat.polls[..], beat.has_carrier, beat.next_hop_answers), (&[5, 6][..], true, false));
    assert_eq!(world.meshes[1].open_heartbeat(from, first), Err(HeartbeatError::Replayed { found: 1, highest: 1 }));
    assert_eq!(world.meshes[2].open_heartbeat(from, first), Err(HeartbeatError::Forged), "sealed for another member");
    assert_eq!(world.meshes[0].open_heartbeat(address(2).ip(), first), Err(HeartbeatError::Address), "its own echo");
    assert_eq!(world.meshes[1].open_heartbeat(address(3).ip(), first), Err(HeartbeatError::Address));
    assert_eq!(world.meshes[1].refusals().heartbeats, 2);
    // The stream breaks; the next heartbeat still counts, and so does the first under the next session's key.
    world.meshes[0].disconnect(world.now, MemberId(2));
    let sealed = world.meshes[0].seal_heartbeats(&[], true, true);
    assert_eq!(world.meshes[1].open_heartbeat(from, &sealed[0].1).unwrap().number, 2);
    let under_way = world.meshes[0].seal_heartbeats(&[], true, true);
    world.run(Duration::from_secs(3));
    let sealed = world.meshes[0].seal_heartbeats(&[], true, true);
    assert_eq!(world.meshes[1].open_heartbeat(from, &sealed[0].1).unwrap().number, 1);
    assert_eq!(world.meshes[1].open_heartbeat(from, &under_way[0].1).unwrap().number, 3);
}

#[test]
fn both_ends_of_a_link_export_one_key() {
    let mut world = World::new(10);
    world.run(Duration::from_secs(1));
    let export = |at: usize, member| {
        let mut key = [0; 32];
        world.meshes[at].export(MemberId(member), b"trusted port", &mut key).then_some(key)
    };
    assert_eq!(export(0, 2), export(1, 1));
    assert_ne!(export(0, 2), export(0, 3));
    assert_eq!(export(0, 1), None);
}
