//! Pairs of sessions in memory. Those named `hostile_39` answer to that line of the list of hostile inputs.

use proptest::prelude::*;

use super::*;
use crate::close::PeerError;
use crate::hello::Versions;
use crate::pki::Validity;
use crate::testing::{EAST, NOW, Pair, TestAuthority, VALID, VERSIONS, name, output, part, part_with};

fn closed(events: &[SessionEvent]) -> &CloseReason {
    match events.last() {
        Some(SessionEvent::Closed { why }) => why,
        other => panic!("not closed: {other:?}"),
    }
}

fn is_established(events: &[SessionEvent]) -> bool {
    events.iter().any(|event| matches!(event, SessionEvent::Established { .. }))
}

#[test]
fn two_members_find_who_the_other_is_and_exchange_messages_of_every_size() {
    let mut pair = Pair::established();
    let established =
        |member| SessionEvent::Established { member: MemberId(member), incarnation: Incarnation(100), version: 1 };
    assert_eq!((&pair.client_events[0], &pair.server_events[0]), (&established(2), &established(1)));
    for length in [1, 2, 1_000, RECORD_BYTES_MAX - 4, RECORD_BYTES_MAX, 100_000, MESSAGE_BYTES_MAX] {
        let message: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
        pair.client.send(&message).unwrap();
        pair.server.send(&message).unwrap();
        pair.run();
        assert_eq!(pair.server.poll_message().unwrap()[..], message);
        assert_eq!(pair.client.poll_message().unwrap()[..], message);
    }
    assert_eq!((pair.client.queued_bytes(), pair.server.poll_message()), (0, None));
}

#[test]
fn output_never_exceeds_the_room_and_nothing_is_lost_by_it() {
    let mut pair = Pair::established();
    let messages: Vec<Vec<u8>> = (1..200_usize).map(|at| vec![at as u8; at * 97]).collect();
    messages.iter().for_each(|message| pair.client.send(message).unwrap());
    let mut room_bytes = 1;
    loop {
        let mut bytes = Vec::new();
        let is_more = pair.client.poll_output(&mut bytes, room_bytes);
        assert!(bytes.len() <= room_bytes);
        pair.server.handle_input(&bytes);
        if !is_more {
            break;
        }
        room_bytes = room_bytes * 3 % 5_003;
    }
    let found: Vec<_> = core::iter::from_fn(|| pair.server.poll_message()).map(|message| message.to_vec()).collect();
    assert_eq!(found, messages);
}

#[test]
fn lengths_are_the_same_in_every_run() {
    let lengths = || {
        let mut pair = Pair::new(&part(1), &part(2));
        let mut lengths = Vec::new();
        for _ in 0..6 {
            let (to_server, to_client) = (output(&mut pair.client), output(&mut pair.server));
            lengths.push((to_server.len(), to_client.len()));
            pair.server.handle_input(&to_server);
            pair.client.handle_input(&to_client);
        }
        lengths
    };
    let first = lengths();
    (0..20).for_each(|_| assert_eq!(lengths(), first));
}

#[test]
fn both_ends_export_the_same_key_for_a_label_and_no_other_does() {
    let (pair, other) = (Pair::established(), Pair::established());
    let export = |session: &Session, label: &[u8]| {
        let mut key = [0; 32];
        assert!(session.export(label, &mut key));
        key
    };
    let key = export(&pair.client, b"one");
    assert_eq!(key, export(&pair.server, b"one"));
    assert_ne!(key, export(&pair.client, b"two"));
    assert_ne!(key, export(&other.client, b"one"));
    assert!(!Session::client(NOW, &part(1), &name("b")).unwrap().export(b"one", &mut [0; 32]));
}

#[test]
fn an_orderly_end_is_told_to_the_peer_after_the_last_message() {
    let mut pair = Pair::established();
    pair.client.send(b"last").unwrap();
    let bytes = output(&mut pair.client);
    pair.server.handle_input(&bytes);
    pair.client.close();
    let bytes = output(&mut pair.client);
    pair.server.handle_input(&bytes);
    assert_eq!(pair.server.poll_event(), None);
    assert_eq!(pair.server.poll_message().unwrap()[..], *b"last");
    assert_eq!(pair.server.poll_event(), Some(SessionEvent::Closed { why: CloseReason::PeerClosed }));
    assert_eq!(pair.client.poll_event(), Some(SessionEvent::Closed { why: CloseReason::Closed }));
    assert_eq!(pair.client.send(b"more"), Err(SendError::NotEstablished));
}

#[test]
fn a_sign_of_life_is_no_message_and_is_sent_only_where_nothing_waits() {
    let mut pair = Pair::established();
    pair.client.keep_alive();
    pair.client.keep_alive();
    assert_eq!(pair.client.queued_bytes(), LENGTH_BYTES);
    let bytes = output(&mut pair.client);
    assert!(!bytes.is_empty());
    pair.server.handle_input(&bytes);
    assert_eq!((pair.server.poll_message(), pair.server.poll_event()), (None, None));
}

#[test]
fn a_peer_that_takes_nothing_is_too_slow_in_the_end() {
    let mut pair = Pair::established();
    let message = vec![0; MESSAGE_BYTES_MAX];
    let sent = (0..100).take_while(|_| pair.client.send(&message).is_ok()).count();
    assert_eq!(sent, 7);
    assert!(matches!(pair.client.poll_event(), Some(SessionEvent::Closed { why: CloseReason::TooSlow { .. } })));
    assert_eq!(pair.client.queued_bytes(), 0);
    assert_eq!(pair.client.send(&[]), Err(SendError::NotEstablished));
}

#[test]
fn a_member_that_takes_nothing_out_is_too_slow_in_the_end() {
    let mut pair = Pair::established();
    let message = vec![0; MESSAGE_BYTES_MAX];
    for _ in 0..17 {
        pair.client.send(&message).unwrap();
        let bytes = output(&mut pair.client);
        pair.server.handle_input(&bytes);
    }
    assert_eq!(core::iter::from_fn(|| pair.server.poll_message()).count(), 16);
    assert!(matches!(pair.server.poll_event(), Some(SessionEvent::Closed { why: CloseReason::NotTaken { .. } })));
}

#[test]
fn messages_that_are_none_are_refused_and_harm_nothing() {
    let mut pair = Pair::established();
    assert_eq!(pair.client.send(&[]), Err(SendError::Empty));
    let found = MESSAGE_BYTES_MAX + 1;
    assert_eq!(pair.client.send(&vec![0; found]), Err(SendError::TooLong { found }));
    pair.client.send(b"fine").unwrap();
    pair.run();
    assert_eq!(pair.server.poll_message().unwrap()[..], *b"fine");
}

#[test]
fn hostile_39_a_certificate_of_another_authority_is_refused_by_both_sides() {
    let other = TestAuthority::new("east");
    let stranger = part_with(other.identity("a"), 1, VERSIONS);
    // The dialler refuses the dialled.
    let mut pair = Pair::new(&stranger, &part(2));
    pair.run();
    assert!(matches!(closed(&pair.client_events), CloseReason::Certificate(PeerError::Chain(_))));
    // Even if it believes the dialled, that one refuses it.
    let believing = part_with(other.identity_believing("a", VALID, &EAST), 1, VERSIONS);
    let mut pair = Pair::new(&believing, &part(2));
    pair.run();
    assert!(matches!(closed(&pair.server_events), CloseReason::Certificate(PeerError::Chain(_))));
    assert!(matches!(closed(&pair.client_events), CloseReason::Tls(_)), "{:?}", pair.client_events);
    assert!(!is_established(&pair.client_events) && !is_established(&pair.server_events));
}

#[test]
fn hostile_39_a_certificate_that_is_not_valid_now_is_refused() {
    let over = Validity { from_unix_seconds: NOW - 1_000, until_unix_seconds: NOW - 1 };
    let not_yet = Validity { from_unix_seconds: NOW + 100, until_unix_seconds: NOW + 1_000 };
    for validity in [over, not_yet] {
        let dialler = EAST.identity_believing("a", validity, &EAST);
        assert!(dialler.check(NOW).is_err() && dialler.check(validity.from_unix_seconds).is_ok());
        let mut pair = Pair::new(&part_with(dialler, 1, VERSIONS), &part(2));
        pair.run();
        let why = closed(&pair.server_events);
        assert!(matches!(why, CloseReason::Certificate(PeerError::Chain(_))), "{why}");
        let dialled = EAST.identity_believing("b", validity, &EAST);
        let mut pair = Pair::new(&part(1), &part_with(dialled, 2, VERSIONS));
        pair.run();
        assert!(matches!(closed(&pair.client_events), CloseReason::Certificate(PeerError::Chain(_))));
        assert!(!is_established(&pair.client_events) && !is_established(&pair.server_events));
    }
}

#[test]
fn hostile_39_another_member_than_the_one_dialled_is_refused() {
    let mut pair = Pair::new(&part(1), &part(3));
    pair.run();
    let expected = PeerError::OtherMember { found: name("c"), expected: name("b") };
    assert_eq!(closed(&pair.client_events), &CloseReason::Certificate(expected));
}

#[test]
fn hostile_39_a_member_that_the_configuration_does_not_name_is_refused() {
    let mut part_of_d = crate::testing::members();
    part_of_d.push(crate::PartMember { id: MemberId(4), name: name("d") });
    let d = Part::new(EAST.identity("d"), name("east"), MemberId(4), Incarnation(1), VERSIONS, part_of_d).unwrap();
    let mut pair = Pair::new(&Arc::new(d), &part(2));
    pair.run();
    let expected = PeerError::Stranger { found: name("d"), cluster: name("east") };
    assert_eq!(closed(&pair.server_events), &CloseReason::Certificate(expected));
    assert!(!is_established(&pair.client_events));
}

#[test]
fn hostile_39_a_member_of_another_cluster_is_refused_even_under_the_same_authority() {
    // The authority of east, misused to name a member of west.
    let west = crate::pki::tests::authority_for("west", &EAST);
    let mut pair = Pair::new(&crate::testing::part_claiming(&west, &EAST, "a", 1), &part(2));
    pair.run();
    let expected = PeerError::Cluster { found: name("west"), expected: name("east") };
    assert_eq!(closed(&pair.server_events), &CloseReason::Certificate(expected));
}

#[test]
fn hostile_39_a_peer_with_our_own_name_is_refused() {
    let mut pair = Pair::new(&part_with(EAST.identity("a"), 1, VERSIONS), &part(1));
    pair.run();
    assert!(matches!(closed(&pair.client_events), CloseReason::Certificate(PeerError::Ourselves(_))));
}

#[test]
fn hostile_39_a_dialler_without_a_certificate_is_refused() {
    let part_of_a = part(1);
    let mut pair = Pair::new(&part_of_a, &part(2));
    pair.client = Session::new(tls::tests::client_without_certificate(&part_of_a, &name("b"), NOW).into(), &part_of_a);
    pair.run();
    assert_eq!(closed(&pair.server_events), &CloseReason::NoCertificate);
    assert!(!is_established(&pair.client_events));
}

#[test]
fn hostile_39_versions_that_do_not_meet_close_the_session_and_name_both_ranges() {
    let old = part_with(EAST.identity("a"), 1, Versions { min: 1, max: 2 });
    let new = part_with(EAST.identity("b"), 2, Versions { min: 3, max: 5 });
    let mut pair = Pair::new(&old, &new);
    pair.run();
    for events in [&pair.client_events, &pair.server_events] {
        let why = closed(events).to_string();
        assert!(why.contains("1 to 2") && why.contains("3 to 5"), "{why}");
        assert!(!is_established(events));
    }
    let overlapping = part_with(EAST.identity("b"), 2, Versions { min: 2, max: 5 });
    let mut pair = Pair::new(&old, &overlapping);
    pair.run();
    assert!(matches!(pair.client_events[..], [SessionEvent::Established { version: 2, .. }]));
}

/// A member whose first bytes inside TLS are these instead of its first message.
fn first_bytes(bytes: &[u8]) -> CloseReason {
    let mut pair = Pair::new(&part(1), &part(2));
    for _ in 0..2 {
        let to_server = output(&mut pair.client);
        pair.server.handle_input(&to_server);
        let to_client = output(&mut pair.server);
        let mut rest = &to_client[..];
        while !rest.is_empty() && pair.client.tls.is_handshaking() {
            pair.client.tls.read_tls(&mut rest).unwrap();
            pair.client.tls.process_new_packets().unwrap();
        }
    }
    pair.client.tls.writer().write_all(bytes).unwrap();
    let mut sent = Vec::new();
    while pair.client.tls.wants_write() {
        pair.client.tls.write_tls(&mut sent).unwrap();
    }
    pair.server.handle_input(&sent);
    pair.server_events.extend(core::iter::from_fn(|| pair.server.poll_event()));
    assert!(!is_established(&pair.server_events));
    closed(&pair.server_events).clone()
}

#[test]
fn hostile_39_a_first_message_that_is_not_one_is_refused() {
    let unknown = CloseReason::FirstMessage(FirstMessageError::Unknown);
    assert_eq!(first_bytes(&frame(b"a message out of order")), unknown);
    assert_eq!(first_bytes(&frame(b"PHLX-XCG and more")), unknown);
    let cut = frame(&part(1).hello().to_bytes()[..20]);
    assert_eq!(first_bytes(&cut), CloseReason::FirstMessage(FirstMessageError::Malformed { found_bytes: 20 }));
    let mut of_other = part(1).hello();
    of_other.member = MemberId(3);
    let refused = first_bytes(&frame(&of_other.to_bytes()));
    assert!(matches!(refused, CloseReason::FirstMessage(FirstMessageError::Member { .. })));
    let mut of_west = part(1).hello();
    of_west.cluster = name("west");
    let refused = first_bytes(&frame(&of_west.to_bytes()));
    assert!(matches!(refused, CloseReason::FirstMessage(FirstMessageError::Cluster { .. })));
}

#[test]
fn hostile_39_a_message_of_4_gib_is_refused_before_and_after_the_first() {
    let found = u32::MAX as usize;
    let refused = first_bytes(&u32::MAX.to_be_bytes());
    assert_eq!(refused, CloseReason::MessageTooLong { found, max: HELLO_BYTES_MAX });
    let mut pair = Pair::established();
    pair.client.tls.writer().write_all(&u32::MAX.to_be_bytes()).unwrap();
    pair.run();
    let refused = closed(&pair.server_events);
    assert_eq!(refused, &CloseReason::MessageTooLong { found, max: MESSAGE_BYTES_MAX });
    assert_eq!(closed(&pair.client_events), &CloseReason::PeerClosed);
}

#[test]
fn hostile_39_a_handshake_cut_off_at_any_byte_establishes_nothing_and_harms_nobody() {
    let mut pair = Pair::new(&part(1), &part(2));
    let hello = output(&mut pair.client);
    pair.server.handle_input(&hello);
    let answer = output(&mut pair.server);
    for length in 0..hello.len() {
        let mut server = Session::server(NOW, &part(2)).unwrap();
        server.handle_input(&hello[..length]);
        assert_eq!(server.poll_event(), None, "{length}");
        assert!(output(&mut server).is_empty(), "{length}");
    }
    // Byte by byte, it stands as if it had come at once.
    let mut early = 0;
    for byte in answer {
        pair.client.handle_input(&[byte]);
        early += usize::from(pair.client.poll_event().is_some());
    }
    assert_eq!(early, 0);
    pair.run();
    assert!(is_established(&pair.client_events) && is_established(&pair.server_events));
}

#[test]
fn hostile_39_a_byte_changed_on_the_way_ends_the_session() {
    for at in [0, 1, 3, 5, 9, 20, 29] {
        let mut pair = Pair::established();
        pair.client.send(b"a message").unwrap();
        let mut bytes = output(&mut pair.client);
        bytes[at] ^= 0x40;
        pair.server.handle_input(&bytes);
        assert_eq!(pair.server.poll_message(), None, "{at}");
        let event = pair.server.poll_event();
        // A longer record only waits for its rest; the mesh has a time limit for that.
        let waits = event.is_none() && (3..5).contains(&at);
        assert!(waits || matches!(event, Some(SessionEvent::Closed { why: CloseReason::Tls(_) })), "{at}: {event:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_39_garbage_is_refused_and_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 1..3_000),
        begins_as_handshake in any::<bool>(),
        cut in 1_usize..700,
    ) {
        let prefix: &[u8] = if begins_as_handshake { &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3] } else { &[] };
        let bytes = [prefix, &bytes].concat();
        for mut session in [Session::server(NOW, &part(2)).unwrap(), Session::client(NOW, &part(1), &name("b")).unwrap()] {
            bytes.chunks(cut).for_each(|piece| session.handle_input(piece));
            let event = session.poll_event();
            let is_closed = matches!(event, Some(SessionEvent::Closed { .. }));
            prop_assert!(event.is_none() || is_closed);
            let _alert = output(&mut session);
        }
    }
}

#[test]
fn nothing_secret_is_printed() {
    let issued = EAST.authority.issue(&name("a"), VALID).unwrap();
    let identity = crate::testing::identity(&EAST.issued.certificate_pem, &issued.certificate_pem, &issued.key_pem);
    let secret: Vec<&str> = issued.key_pem.lines().filter(|line| !line.starts_with("---")).collect();
    let part = part_with(Arc::new(identity.unwrap()), 1, VERSIONS);
    let mut pair = Pair::new(&part, &crate::testing::part(2));
    pair.run();
    pair.client.send(b"a key").unwrap();
    pair.run();
    let message = pair.server.poll_message().unwrap();
    let key = crate::heartbeat::Key::of(&pair.client).unwrap();
    let printed = format!("{part:?} {:?} {:?} {message:?} {key:?}", pair.client, pair.server);
    assert!(secret.iter().all(|line| !printed.contains(line)) && !printed.contains("a key"), "{printed}");
    assert!(printed.len() < 2_000, "{printed}");
}
