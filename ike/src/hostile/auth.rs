//! HOSTILE 20, 21 and 28: who may do what before and after it has shown who it is.

use super::peer::{PEER_ESP, PSK, Peer, Server, address, child, settings, with_child};
use crate::config::{ConnectionSettings, Limits, Overlap, Psk, Secrets};
use crate::counters::DropReason;
use crate::event::DownReason;
use crate::message::payload::{AuthMethod, Delete, Notify, NotifyKind, Payload, PayloadKind};
use crate::message::{ExchangeType, PayloadChain};
use crate::{Event, Kex};

#[test]
fn hostile_20_nothing_but_ike_auth_is_done_before_authentication() {
    let mut server = Server::new();
    let mut peer = Peer::new(1);
    peer.begin(&mut server);
    for exchange in [ExchangeType::CreateChildSa, ExchangeType::Informational, ExchangeType::Unknown(43)] {
        for chain in [
            PayloadChain::new(),
            peer.create_child(PEER_ESP, "10.0.0.1/32"),
            PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)),
        ] {
            for message_id in [0, 1, 2] {
                let header = peer.header(exchange, message_id);
                let request = peer.seal(header, &chain);
                assert!(server.hear(peer.at, &request).is_empty());
            }
        }
    }
    assert_eq!(server.dropped(DropReason::UnexpectedExchange), 27);
    assert!(server.events.is_empty());
    let request = peer.auth_request(PSK);
    assert!(peer.ask(&mut server, ExchangeType::IkeAuth, &request).body().unwrap().auth.is_some());
}

/// What IKE_AUTH is answered with; the half-open IKE SA must be gone and nothing must stand.
fn failure(settings: ConnectionSettings, secrets: Option<Secrets>, make: impl Fn(&Peer) -> PayloadChain) -> Vec<u8> {
    let mut server = Server::with(Limits::default(), settings.clone());
    if let Some(secrets) = secrets {
        server.endpoint.set_connections(vec![settings.check().unwrap()], secrets);
    }
    let mut peer = Peer::new(2);
    peer.begin(&mut server);
    let chain = make(&peer);
    let request = peer.next_request(ExchangeType::IkeAuth, &chain);
    let answers = server.hear(peer.at, &request);
    let answer = peer.open(&answers[0].payload);
    let body = answer.body().unwrap();
    assert_eq!(body.error().map(|error| error.kind), Some(NotifyKind::AUTHENTICATION_FAILED));
    assert!(body.auth.is_none() && body.id_responder.is_none(), "nothing is told about us");
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.half_open, occupancy.ike_sas, occupancy.ike_spis, occupancy.esp_spis), (0, 0, 0, 0));
    assert!(!server.events.iter().any(|event| matches!(event, Event::IkeUp(_) | Event::ChildUp(_))));
    assert_eq!(server.hear(peer.at, &request), answers, "the same octets again");
    let header = peer.header(ExchangeType::Informational, 2);
    let request = peer.seal(header, &PayloadChain::new());
    assert!(server.hear(peer.at, &request).is_empty());
    answers[0].payload[16..24].to_vec()
}

#[test]
fn hostile_21_every_failed_proof_gets_the_same_answer() {
    let wrong_id = ConnectionSettings { remote_id: "somebody.else".parse().unwrap(), ..settings() };
    let wanted = |peer: &Peer, id: &str| {
        let body = id.parse::<crate::config::Identity>().unwrap().to_payload_body();
        let id = crate::message::payload::Identification::from_body(&body).unwrap();
        peer.auth_request(PSK).with(&Payload::IdResponder(id))
    };
    let answers = [
        failure(settings(), None, |peer| peer.auth_request(b"wrong")),
        failure(settings(), Some(Secrets::default()), |peer| peer.auth_request(PSK)),
        failure(wrong_id, None, |peer| peer.auth_request(PSK)),
        failure(settings(), None, |peer| wanted(peer, "other.example.com")),
        // A method that was not offered, with the right octets.
        failure(settings(), None, |peer| with_child(peer.proof(PSK, AuthMethod(14)), PEER_ESP, "10.0.0.1/32")),
        failure(settings(), None, |peer| with_child(peer.proof(PSK, AuthMethod(1)), PEER_ESP, "10.0.0.1/32")),
        // No AUTH payload: the peer wants EAP.
        failure(settings(), None, |peer| {
            let id = peer.id.to_payload_body();
            let id = crate::message::payload::Identification::from_body(&id).unwrap();
            with_child(PayloadChain::new().with(&Payload::IdInitiator(id)), PEER_ESP, "10.0.0.1/32")
        }),
        // An identity too long to be kept.
        failure(settings(), None, |peer| {
            let body = [&[2, 0, 0, 0][..], &[b'a'; 300]].concat();
            let id = Payload::Opaque { kind: PayloadKind::IdInitiator, body: &body };
            let auth = Payload::Opaque { kind: PayloadKind::Auth, body: &[2; 36] };
            let _ = peer;
            PayloadChain::new().with(&id).with(&auth)
        }),
    ];
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

#[test]
fn hostile_21_empty_and_truncated_proofs_fail() {
    for length in [0, 1, 31, 33, 64] {
        failure(settings(), None, |peer| {
            let id = peer.id.to_payload_body();
            let id = crate::message::payload::Identification::from_body(&id).unwrap();
            let auth = crate::message::payload::Auth { method: AuthMethod::SHARED_KEY, data: &vec![0; length] };
            PayloadChain::new().with(&Payload::IdInitiator(id)).with(&Payload::Auth(auth))
        });
    }
}

#[test]
fn each_peer_has_its_own_secret() {
    let mut secrets = Secrets::default();
    secrets.add(vec!["client.example.com".parse().unwrap()], Psk::new(b"one".to_vec()).unwrap());
    secrets.add(vec!["other.example.com".parse().unwrap()], Psk::new(b"two".to_vec()).unwrap());
    failure(settings(), Some(secrets.clone()), |peer| peer.auth_request(b"two"));
    let mut server = Server::new();
    server.endpoint.set_connections(vec![settings().check().unwrap()], secrets);
    for (seed, id, psk) in [(3, "client.example.com", b"one"), (4, "other.example.com", b"two")] {
        let mut peer = Peer::new(seed);
        peer.id = id.parse().unwrap();
        peer.begin(&mut server);
        let request = peer.auth_request(psk);
        assert!(peer.ask(&mut server, ExchangeType::IkeAuth, &request).body().unwrap().auth.is_some());
    }
}

#[test]
fn the_connection_that_names_the_peer_most_closely_is_taken() {
    let named = |name: &str, remote_id: &str| {
        let children = vec![child(name)];
        ConnectionSettings { name: name.into(), remote_id: remote_id.parse().unwrap(), children, ..settings() }
    };
    let mut server = Server::new();
    let mut secrets = Secrets::default();
    secrets.add(Vec::new(), Psk::new(PSK.to_vec()).unwrap());
    let all = [
        named("any", "%any"),
        named("domain", "*.example.com"),
        named("one", "client.example.com"),
        named("late", "client.example.com"),
    ];
    let all = all.map(|settings| settings.check().unwrap()).to_vec();
    server.endpoint.set_connections(all, secrets);
    for (number, (id, connection)) in
        [("client.example.com", "one"), ("b.example.com", "domain"), ("x.org", "any")].into_iter().enumerate()
    {
        let mut peer = Peer::new(10 + number as u64);
        peer.id = id.parse().unwrap();
        peer.connect(&mut server);
        let found = server.endpoint.sas().find(|sa| &*sa.peer_name == id).unwrap();
        assert_eq!((&*found.connection, &*found.children[0].name), (connection, connection));
        assert_eq!(found.suite.kex, Kex::X25519);
    }
}

fn connect_again(server: &mut Server, seed: u64, id: &str, initial_contact: bool) -> Peer {
    let mut peer = Peer::new(seed);
    peer.id = id.parse().unwrap();
    peer.at = address(&format!("192.0.2.{seed}:500"));
    peer.begin(server);
    let mut chain = peer.auth_request(PSK);
    if initial_contact {
        chain.push(&Payload::Notify(Notify::new(NotifyKind::INITIAL_CONTACT, &[])));
    }
    assert!(peer.ask(server, ExchangeType::IkeAuth, &chain).body().unwrap().auth.is_some());
    peer
}

#[test]
fn hostile_28_initial_contact_ends_the_ike_sas_of_that_identity_and_no_other() {
    let mut server = Server::new();
    let mut old = connect_again(&mut server, 1, "a.example.com", false);
    let mut other = connect_again(&mut server, 2, "b.example.com", false);
    connect_again(&mut server, 3, "a.example.com", false);
    assert_eq!(server.endpoint.occupancy().ike_sas, 3, "two lineages of one identity are two peers");
    server.events.clear();
    connect_again(&mut server, 4, "a.example.com", true);
    assert_eq!(server.endpoint.occupancy().ike_sas, 2);
    let mut downs: Vec<_> = server
        .events
        .iter()
        .filter_map(|event| if let Event::IkeDown { peer, reason } = event { Some((peer.0, *reason)) } else { None })
        .collect();
    downs.sort_by_key(|(peer, _)| *peer);
    assert_eq!(downs, [(1, DownReason::InitialContact), (3, DownReason::InitialContact)]);
    other.ask(&mut server, ExchangeType::Informational, &PayloadChain::new());
    let request = old.next_request(ExchangeType::Informational, &PayloadChain::new());
    assert!(server.hear(old.at, &request).is_empty());
}

#[test]
fn hostile_28_initial_contact_by_one_who_fails_to_prove_it_ends_nothing() {
    let mut server = Server::new();
    let mut real = connect_again(&mut server, 1, "a.example.com", false);
    let mut fake = Peer::new(9);
    fake.id = "a.example.com".parse().unwrap();
    fake.begin(&mut server);
    let mut chain = fake.auth_request(b"guess");
    chain.push(&Payload::Notify(Notify::new(NotifyKind::INITIAL_CONTACT, &[])));
    let error = fake.ask_for_error(&mut server, ExchangeType::IkeAuth, &chain);
    assert_eq!(error, Some(NotifyKind::AUTHENTICATION_FAILED));
    real.ask(&mut server, ExchangeType::Informational, &PayloadChain::new());
    assert_eq!(server.children_left(), 1);
}

#[test]
fn a_client_that_comes_back_does_not_stand_in_its_own_way() {
    let mut only = child("web");
    only.overlap = Overlap::Refuse;
    let mut server = Server::with(Limits::default(), ConnectionSettings { children: vec![only], ..settings() });
    connect_again(&mut server, 1, "a.example.com", true);
    connect_again(&mut server, 2, "a.example.com", true);
    assert_eq!((server.endpoint.occupancy().ike_sas, server.children_left()), (1, 1));
    let down = server.events.iter().position(|event| matches!(event, Event::ChildDown { .. })).unwrap();
    let up = server.events.iter().rposition(|event| matches!(event, Event::ChildUp(_))).unwrap();
    assert!(down < up, "what goes is said to be gone before what comes");
}
