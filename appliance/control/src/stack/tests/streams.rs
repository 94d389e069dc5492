use super::*;
use proptest::prelude::*;
use wire::tcp::{self, Flags};
use xcf::{StreamAction, StreamEnd, StreamEvent, StreamId};

const ADDRESSES: [Ipv4Addr; 3] = [Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(10, 7, 0, 3)];
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 99);

fn mac(member: usize) -> MacAddress {
    MacAddress([2, 0, 0, 7, 0, member as u8 + 1])
}

/// A member whose port 0 is its trusted port.
fn member(at: usize) -> Stack {
    let mut stack = host(mac(at), ADDRESSES[at]);
    let others = (0..3).filter(|&other| other != at).map(|other| ADDRESSES[other].into()).collect();
    stack.open_trusted(trusted(at, others)).unwrap();
    stack
}

fn trusted(at: usize, members: Vec<IpAddr>) -> TrustedSettings {
    let (port, address) = (PORT, ADDRESSES[at].into());
    TrustedSettings { port, address, members, xcf_port: XCF_PORT, heartbeat_port: HEARTBEAT_PORT }
}

fn stream_events(stack: &mut Stack, now: Instant) -> Vec<StreamEvent> {
    core::iter::from_fn(|| stack.poll_stream(now)).collect()
}

const DIALLED: StreamId = StreamId::Dialled(0);
const ACCEPTED: StreamId = StreamId::Accepted(0);

/// Two members, the first connected to the second.
fn connected() -> Segment {
    let mut segment = Segment::new(vec![member(0), member(1)]);
    segment.run(Duration::from_secs(1));
    let now = segment.now;
    segment.stacks[0].stream_connect(now, DIALLED, socket(ADDRESSES[1], XCF_PORT));
    segment.run(Duration::from_millis(10));
    let room_bytes = STREAM_BUFFER_BYTES;
    let near = stream_events(&mut segment.stacks[0], segment.now);
    assert_eq!(near, [StreamEvent::Connected { stream: DIALLED, room_bytes }]);
    let far = stream_events(&mut segment.stacks[1], segment.now);
    assert!(matches!(far[..], [StreamEvent::Accepted { stream: ACCEPTED, from, .. }] if from.ip() == ADDRESSES[0]));
    segment
}

/// Writes as much as there is room for, until all is through, and returns what came out on the other side.
fn transfer(segment: &mut Segment, from: usize, bytes: &[u8], limit: Duration) -> Vec<u8> {
    let (id, to) = if from == 0 { (DIALLED, 1) } else { (ACCEPTED, 0) };
    let (mut written, mut room, mut received) = (0, STREAM_BUFFER_BYTES, Vec::new());
    let end = segment.now + limit;
    while received.len() < bytes.len() && segment.now < end {
        let piece = &bytes[written..bytes.len().min(written + room)];
        segment.stacks[from].stream_write(segment.now, id, piece);
        written += piece.len();
        room -= piece.len();
        segment.run(Duration::from_millis(1));
        for event in stream_events(&mut segment.stacks[from], segment.now) {
            let StreamEvent::Writable { room_bytes, .. } = event else { panic!("{event:?}") };
            room += room_bytes;
        }
        for event in stream_events(&mut segment.stacks[to], segment.now) {
            match event {
                StreamEvent::Readable { bytes, .. } => received.extend_from_slice(&bytes),
                StreamEvent::Writable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(room <= STREAM_BUFFER_BYTES);
    }
    received
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 255) as u8).collect()
}

/// The TCP segment in a frame, if it carries one: sender, flags, sequence number.
fn segment_of(frame: &[u8]) -> Option<(Ipv4Addr, Flags, u32)> {
    let view = ethernet::Packet::new_checked(frame).unwrap();
    let packet = (view.ether_type() == EtherType::Ipv4).then(|| ipv4::Packet::new_checked(view.payload()).unwrap())?;
    let segment = (packet.protocol() == protocol::TCP).then(|| tcp::Packet::new_checked(packet.payload()).unwrap())?;
    Some((packet.src(), segment.flags(), segment.sequence()))
}

/// A TCP segment from anybody.
fn tcp_frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: Flags) -> Vec<u8> {
    let header = tcp::Repr {
        src_port: from.1,
        dst_port: to.1,
        sequence: 1_000,
        acknowledgement: 0,
        flags,
        window: 1_000,
        urgent: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
    };
    let mut bytes = vec![0; header.buffer_len()];
    let mut view = tcp::Packet::new_unchecked(&mut bytes[..]);
    header.emit(&mut view);
    view.fill_checksum(from.0.into(), to.0.into());
    frame(mac(1), mac(0), EtherType::Ipv4, &ipv4_packet(from.0, to.0, protocol::TCP, &bytes))
}

#[test]
fn megabytes_pass_both_ways_and_nothing_is_left_over() {
    let mut segment = connected();
    let bytes = pattern(3 << 20);
    for from in [0, 1] {
        assert!(transfer(&mut segment, from, &bytes, Duration::from_secs(60)) == bytes);
    }
    assert!(segment.carried.iter().all(|frame| frame.len() <= 1_514));
}

#[test]
fn megabytes_pass_a_link_that_loses_and_reorders() {
    for seed in 0..3 {
        let mut segment = connected();
        segment.carried.clear();
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        segment.loses = Box::new(move |_| rng.next_u32().is_multiple_of(50));
        segment.reorders = Some(ChaCha20Rng::from_seed([seed + 100; 32]));
        let bytes = pattern(2 << 20);
        let received = transfer(&mut segment, 0, &bytes, Duration::from_secs(900));
        assert!(received == bytes, "seed {seed}: {} of {} bytes", received.len(), bytes.len());
    }
}

#[test]
fn an_end_in_order_comes_after_the_last_byte_and_frees_the_sockets() {
    let mut segment = Segment::new(vec![member(0), member(1)]);
    for round in 0..50 {
        let (dialled, accepted) = (StreamId::Dialled(round), StreamId::Accepted(round));
        let now = segment.now;
        segment.stacks[0].stream_connect(now, dialled, socket(ADDRESSES[1], XCF_PORT));
        segment.run(Duration::from_secs(3));
        let _connected = stream_events(&mut segment.stacks[0], segment.now);
        let now = segment.now;
        segment.stacks[0].stream_write(now, dialled, &pattern(20_000));
        segment.stacks[0].stream_close(now, dialled);
        segment.run(Duration::from_millis(100));
        let events = stream_events(&mut segment.stacks[1], segment.now);
        let read: usize = events
            .iter()
            .map(|event| if let StreamEvent::Readable { bytes, .. } = event { bytes.len() } else { 0 })
            .sum();
        assert_eq!(read, 20_000, "{round}");
        let closed = StreamEvent::Closed { stream: accepted, why: StreamEnd::Finished };
        assert_eq!(events.last(), Some(&closed), "{round}");
        segment.run(Duration::from_millis(100));
        assert_eq!(stream_events(&mut segment.stacks[0], segment.now), [], "who closes is told nothing");
    }
}

#[test]
fn a_reset_is_told_and_a_port_on_which_nobody_listens_refuses() {
    let mut segment = connected();
    let now = segment.now;
    segment.stacks[1].stream_abort(now, ACCEPTED);
    segment.run(Duration::from_millis(10));
    let reset = |stream| [StreamEvent::Closed { stream, why: StreamEnd::Reset }];
    assert_eq!(stream_events(&mut segment.stacks[0], segment.now), reset(DIALLED));
    assert_eq!(stream_events(&mut segment.stacks[1], segment.now), []);
    let now = segment.now;
    segment.stacks[0].stream_connect(now, StreamId::Dialled(1), socket(ADDRESSES[1], 80));
    segment.run(Duration::from_millis(10));
    assert_eq!(stream_events(&mut segment.stacks[0], segment.now), reset(StreamId::Dialled(1)));
    assert_eq!(segment.stacks[1].counters().dropped(DropReason::TcpPortNotServed), 1);
}

#[test]
fn a_member_that_has_restarted_resets_what_it_does_not_know() {
    let mut segment = connected();
    segment.stacks[1] = member(1);
    let now = segment.now;
    segment.stacks[0].stream_write(now, DIALLED, b"are you there?");
    segment.run(Duration::from_secs(3));
    let closed = StreamEvent::Closed { stream: DIALLED, why: StreamEnd::Reset };
    assert_eq!(stream_events(&mut segment.stacks[0], segment.now).last(), Some(&closed));
    assert!(segment.stacks[1].counters().dropped(DropReason::TcpNoConnection) >= 1);
}

#[test]
fn a_peer_that_vanishes_is_given_up() {
    let mut segment = connected();
    segment.loses = Box::new(|_| true);
    let now = segment.now;
    segment.stacks[0].stream_write(now, DIALLED, b"are you there?");
    segment.stacks[0].stream_connect(now, StreamId::Dialled(1), socket(ADDRESSES[2], XCF_PORT));
    segment.run(Duration::from_secs(40));
    let ends: BTreeMap<_, _> = stream_events(&mut segment.stacks[0], segment.now)
        .into_iter()
        .map(|event| match event {
            StreamEvent::Closed { stream, why } => (stream, why),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends, [DIALLED, StreamId::Dialled(1)].map(|stream| (stream, StreamEnd::TimedOut)).into());
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_loses_nothing() {
    let mut segment = connected();
    let now = segment.now;
    segment.stacks[0].stream_write(now, DIALLED, &pattern(STREAM_BUFFER_BYTES));
    segment.run(Duration::from_secs(1));
    let [StreamEvent::Writable { room_bytes, .. }] = stream_events(&mut segment.stacks[0], segment.now)[..] else {
        panic!("the first buffer is through")
    };
    let now = segment.now;
    segment.stacks[0].stream_write(now, DIALLED, &pattern(room_bytes));
    segment.run(Duration::from_secs(10));
    assert_eq!(stream_events(&mut segment.stacks[0], segment.now), [], "the other end is full");
    let mut read = 0;
    for _ in 0..20 {
        for event in stream_events(&mut segment.stacks[1], segment.now) {
            read += if let StreamEvent::Readable { bytes, .. } = event { bytes.len() } else { 0 };
        }
        segment.run(Duration::from_millis(500));
    }
    assert_eq!(read, STREAM_BUFFER_BYTES + room_bytes);
}

#[test]
fn hostile_39_tcp_from_strangers_reaches_no_socket() {
    let mut stack = member(1);
    drain(&mut stack);
    for at in 0..10_000_u32 {
        let from = (Ipv4Addr::from_bits(u32::from(NOBODY) + at % 100), 1_024 + (at % 60_000) as u16);
        stack.handle_frame(NOW, PORT, &tcp_frame(from, (ADDRESSES[1], XCF_PORT), Flags::SYN));
    }
    assert_eq!(stack.counters().dropped(DropReason::NotMember), 10_000);
    assert_eq!((drain(&mut stack), stack.poll_stream(NOW), stack.counters().difference()), (vec![], None, 0));
    // Without a trusted port nothing is served at all.
    let mut alone = host(mac(1), ADDRESSES[1]);
    drain(&mut alone);
    alone.handle_frame(NOW, PORT, &tcp_frame((ADDRESSES[0], 5_000), (ADDRESSES[1], XCF_PORT), Flags::SYN));
    assert_eq!((alone.counters().dropped(DropReason::TcpPortNotServed), drain(&mut alone)), (1, vec![]));
}

#[test]
fn hostile_39_half_open_connections_of_one_address_are_few_and_end_and_others_get_through() {
    let mut segment = Segment::new(vec![member(0), member(1), member(2)]);
    segment.run(Duration::from_secs(1));
    // Somebody in member 1's name opens and never completes.
    for port in 0..1_000 {
        let flood = tcp_frame((ADDRESSES[0], 2_000 + port), (ADDRESSES[1], XCF_PORT), Flags::SYN);
        segment.stacks[1].handle_frame(segment.now, PORT, &flood);
    }
    assert_eq!(segment.stacks[1].counters().dropped(DropReason::TcpHalfOpenFull), 998);
    let now = segment.now;
    segment.stacks[2].stream_connect(now, DIALLED, socket(ADDRESSES[1], XCF_PORT));
    segment.loses = Box::new(|frame| segment_of(frame).is_some_and(|(_, flags, _)| flags.contains(Flags::RST)));
    segment.run(Duration::from_millis(100));
    assert!(matches!(stream_events(&mut segment.stacks[2], segment.now)[..], [StreamEvent::Connected { .. }]));
    segment.run(Duration::from_secs(4));
    segment.loses = Box::new(|_| false);
    let now = segment.now;
    segment.stacks[0].stream_connect(now, DIALLED, socket(ADDRESSES[1], XCF_PORT));
    segment.run(Duration::from_millis(100));
    assert!(matches!(stream_events(&mut segment.stacks[0], segment.now)[..], [StreamEvent::Connected { .. }]));
}

#[test]
fn sockets_are_bounded_and_those_that_we_ask_for_keep_theirs() {
    let mut segment = Segment::new(vec![member(0), member(1)]);
    segment.run(Duration::from_secs(1));
    let mut refused = 0;
    for number in 0..20 {
        let now = segment.now;
        segment.stacks[0].stream_connect(now, StreamId::Dialled(number), socket(ADDRESSES[1], XCF_PORT));
        segment.run(Duration::from_millis(100));
        let events = stream_events(&mut segment.stacks[0], segment.now);
        refused +=
            events.iter().filter(|event| matches!(event, StreamEvent::Closed { why: StreamEnd::NoSocket, .. })).count();
        let _accepted = stream_events(&mut segment.stacks[1], segment.now);
    }
    // Eight sockets for two other members; one of them always listens.
    assert_eq!(refused, 20 - 7);
    assert!(segment.stacks[1].counters().dropped(DropReason::TcpSocketsFull) > 0);
    let now = segment.now;
    segment.stacks[1].stream_connect(now, StreamId::Dialled(0), socket(ADDRESSES[0], XCF_PORT));
    segment.run(Duration::from_millis(100));
    let events = stream_events(&mut segment.stacks[1], segment.now);
    assert!(events.iter().any(|event| matches!(event, StreamEvent::Connected { .. })), "{events:?}");
}

#[test]
fn two_meshes_meet_over_two_stacks() {
    use std::sync::Arc;
    use xcf::pki::{Authority, Validity};
    use xcf::{Identity, Mesh, MeshEvent, MeshSettings, Moment, Name, Part, PartMember, PemFile, Timing, Versions};

    let unix_seconds = 1_800_000_000;
    let name = |text: &str| Name::new(text).unwrap();
    let validity = Validity { from_unix_seconds: unix_seconds - 1, until_unix_seconds: unix_seconds + 1_000_000 };
    let authority = Authority::generate(&name("east"), validity).unwrap();
    let issuer = Authority::from_pem(authority.certificate_pem.as_bytes(), authority.key_pem.as_bytes()).unwrap();
    let id = |at: usize| ::cluster::id::MemberId(at as u16 + 1);
    let members: Vec<_> =
        ["a", "b"].iter().enumerate().map(|(at, text)| PartMember { id: id(at), name: name(text) }).collect();
    let mesh = |at: usize| {
        let issued = issuer.issue(&members[at].name, validity).unwrap();
        let file = |contents| PemFile { path: "file", contents };
        let pem = [authority.certificate_pem.as_bytes(), issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()];
        let identity = Arc::new(Identity::from_pem(file(pem[0]), file(pem[1]), file(pem[2])).unwrap());
        let incarnation = ::cluster::id::Incarnation(1);
        let part = Part::new(identity, name("east"), id(at), incarnation, Versions { min: 1, max: 1 }, members.clone());
        let addresses = (0..2).map(|at| (id(at), socket(ADDRESSES[at], XCF_PORT))).collect();
        let settings = MeshSettings { part: part.unwrap(), addresses, timing: Timing::default() };
        Mesh::new(Moment { at: NOW, unix_seconds }, settings, [at as u8; 32]).unwrap()
    };
    let mut meshes = [mesh(0), mesh(1)];
    let mut segment = Segment::new(vec![member(0), member(1)]);
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    segment.loses = Box::new(move |_| rng.next_u32().is_multiple_of(100));
    let (mut received, mut sent) = (0, 0);
    for _step in 0..30_000 {
        let moment = Moment { at: segment.now, unix_seconds };
        for (stack, mesh) in segment.stacks.iter_mut().zip(&mut meshes) {
            while let Some(event) = stack.poll_stream(moment.at) {
                mesh.handle_stream(moment, event);
            }
            if mesh.poll_timeout().is_some_and(|at| at <= moment.at) {
                mesh.handle_timeout(moment);
            }
            while let Some(event) = mesh.poll() {
                match event {
                    MeshEvent::Message { bytes, .. } => received += bytes.len(),
                    MeshEvent::Up { .. } | MeshEvent::Failed { .. } => {}
                    MeshEvent::Down { why, .. } => panic!("{why}"),
                }
            }
            while let Some(action) = mesh.poll_stream_action() {
                stack.do_stream_action(moment.at, action);
            }
        }
        if sent < 100 && meshes[0].send(segment.now, id(1), &pattern(50_000)).is_ok() {
            sent += 1;
        }
        if received == 100 * 50_000 {
            return;
        }
        segment.run(Duration::from_millis(1));
    }
    panic!("{sent} messages sent, {received} bytes received");
}

#[test]
fn heartbeats_pass_between_members_only() {
    let mut segment = Segment::new(vec![member(0), member(1), host(STRANGER_MAC, NOBODY)]);
    segment.run(Duration::from_secs(1));
    let now = segment.now;
    segment.stacks[0].send_heartbeat(now, ADDRESSES[1].into(), b"alive");
    segment.run(Duration::from_millis(10));
    assert_eq!(segment.stacks[1].poll_heartbeat(), Some((ADDRESSES[0].into(), b"alive".to_vec())));
    segment.stacks[0].send_heartbeat(now, NOBODY.into(), b"alive");
    assert_eq!(segment.stacks[0].counters().dropped(DropReason::DestinationInvalid), 1);
    let from = |address, length| udp_packet((address, 5_000), (ADDRESSES[1], HEARTBEAT_PORT), &vec![0; length]);
    let mut hand =
        |packet: &[u8]| segment.stacks[1].handle_frame(now, PORT, &frame(mac(1), mac(0), EtherType::Ipv4, packet));
    hand(&from(NOBODY, 40));
    hand(&from(ADDRESSES[0], xcf::heartbeat::DATAGRAM_BYTES_MAX + 1));
    (0..1_000).for_each(|_| hand(&from(ADDRESSES[0], 40)));
    let counters = segment.stacks[1].counters();
    let dropped = [DropReason::NotMember, DropReason::HeartbeatTooLong, DropReason::HeartbeatQueueFull];
    assert_eq!(dropped.map(|reason| counters.dropped(reason)), [1, 1, 1_000 - 4 * MEMBERS_MAX as u64]);
    assert_eq!(counters.difference(), 0);
}

#[test]
fn a_trusted_port_that_cannot_be_is_refused() {
    let other = || vec![IpAddr::from(ADDRESSES[1])];
    let refused = |spoil: &dyn Fn(&mut TrustedSettings)| {
        let mut settings = trusted(0, other());
        spoil(&mut settings);
        host(mac(0), ADDRESSES[0]).open_trusted(settings).unwrap_err()
    };
    let own = IpAddr::from(ADDRESSES[0]);
    assert_eq!(refused(&|s| s.port = PortId(9)), TrustedError::Address(own, PortId(9)));
    assert_eq!(refused(&|s| s.address = ADDRESSES[2].into()), TrustedError::Address(ADDRESSES[2].into(), PORT));
    assert_eq!(refused(&|s| s.members.clear()), TrustedError::Members(0));
    for wrong in [own, CLIENT.into(), Ipv4Addr::new(10, 7, 0, 255).into()] {
        assert_eq!(refused(&|s| s.members = vec![wrong]), TrustedError::Member(wrong, PORT));
    }
    assert_eq!(refused(&|s| s.heartbeat_port = 4_500), TrustedError::HeartbeatPort(4_500));
    assert_eq!(refused(&|s| s.xcf_port = 0), TrustedError::XcfPort);
    let mut stack = host(mac(0), ADDRESSES[0]);
    assert_eq!(stack.open_trusted(trusted(0, other())), Ok(()));
    assert_eq!(stack.open_trusted(trusted(0, other())), Err(TrustedError::Open));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn hostile_39_no_segment_of_a_member_makes_the_stack_panic_or_spin(
        segments in proptest::collection::vec((any::<u8>(), 0_u16..4, any::<bool>(), any::<u32>(), 0_u64..2_000), 1..60),
    ) {
        let mut stack = member(1);
        let mut now = NOW;
        for (flags, port, is_known_port, sequence, wait_ms) in segments {
            let to = if is_known_port { XCF_PORT } else { 80 };
            let mut frame = tcp_frame((ADDRESSES[0], 2_000 + port), (ADDRESSES[1], to), Flags::from_bits(flags));
            let mut segment = tcp::Packet::new_unchecked(&mut frame[14 + ipv4::HEADER_LEN..]);
            segment.set_sequence(sequence);
            segment.fill_checksum(ADDRESSES[0].into(), ADDRESSES[1].into());
            stack.handle_frame(now, PORT, &frame);
            now += Duration::from_millis(wait_ms);
            stack.handle_timeout(now);
            stream_events(&mut stack, now);
            drain(&mut stack);
            prop_assert_eq!(stack.counters().difference(), 0);
            prop_assert!(stack.poll_timeout().is_none_or(|next| next > now), "a timeout that does nothing would spin");
        }
    }
}

#[test]
fn actions_of_a_mesh_become_calls() {
    let mut segment = connected();
    let now = segment.now;
    segment.stacks[0].do_stream_action(now, StreamAction::Write { stream: DIALLED, bytes: b"x".to_vec() });
    segment.stacks[0].do_stream_action(now, StreamAction::Close { stream: DIALLED });
    segment.run(Duration::from_millis(10));
    let events = stream_events(&mut segment.stacks[1], segment.now);
    assert!(
        matches!(&events[..], [StreamEvent::Readable { bytes, .. }, StreamEvent::Closed { .. }] if bytes == b"x"),
        "{events:?}"
    );
}
