//! HOSTILE 10, 13, 25 and 26 for siblings: peers that answer wrongly, make too many, or tear down what they grant.

use ipsec::Spi;

use super::peer::{PEER_ESP, Peer, Server, settings, with_child};
use crate::config::Limits;
use crate::counters::DropReason;
use crate::error::CommandError;
use crate::event::DownReason;
use crate::message::payload::{Delete, Notify, NotifyKind, Payload, ProtocolId, SaPayload, TrafficSelectors};
use crate::message::{ExchangeType, PayloadChain};
use crate::proposal::offer_esp;
use crate::{Event, channel::Opened};

const CREATE: ExchangeType = ExchangeType::CreateChildSa;
const INFO: ExchangeType = ExchangeType::Informational;
const OURS: &str = "203.0.113.80/32";
const THEIRS: &str = "10.0.0.1/32";

/// What the server was told of the siblings that it asked for: whether for good, and why.
fn refusals(server: &Server) -> Vec<(bool, String)> {
    let refused = server.events.iter().filter_map(|event| match event {
        Event::SiblingRefused { for_good, why, .. } => Some((*for_good, why.clone())),
        _ => None,
    });
    refused.collect()
}

/// The server asks for a sibling of its first child: its request.
fn asked(server: &mut Server) -> Vec<u8> {
    let child = server.children_up()[0];
    server.endpoint.add_sibling(server.now, child).unwrap();
    let mut said = server.drain();
    assert_eq!(said.len(), 1);
    said.remove(0).payload
}

fn notify(kind: NotifyKind) -> PayloadChain {
    PayloadChain::new().with(&Payload::Notify(Notify::new(kind, &[])))
}

fn selectors(text: &str) -> TrafficSelectors {
    TrafficSelectors(vec![text.parse().unwrap()])
}

/// A grant: for whom the peer receives on which SPI, by which algorithms, and for what traffic.
fn grant(before: PayloadChain, spi: u32, proposal: &str, nonce: &[u8], ours: &str, theirs: &str) -> PayloadChain {
    before
        .with(&Payload::Sa(offer_esp(&[proposal.parse().unwrap()], &spi.to_be_bytes(), None)))
        .with(&Payload::Nonce(nonce))
        .with(&Payload::TsInitiator(selectors(ours)))
        .with(&Payload::TsResponder(selectors(theirs)))
}

fn good(spi: u32) -> PayloadChain {
    grant(PayloadChain::new(), spi, "aes128gcm16", &[5; 32], OURS, THEIRS)
}

/// The SPIs that a request of the server deletes.
fn deleted(opened: &Opened) -> Vec<u32> {
    opened.body().unwrap().deletes.iter().flat_map(Delete::spis).collect()
}

#[test]
fn a_peer_that_grants_just_what_was_asked_has_a_sibling() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 1);
    let request = asked(&mut server);
    let opened = peer.open(&request);
    let body = opened.body().unwrap();
    assert!(body.notifies.is_empty(), "neither REKEY_SA nor what only some peers speak");
    let (ts_initiator, ts_responder) = body.require_selectors().unwrap();
    assert_eq!((ts_initiator, ts_responder), (&selectors(OURS), &selectors(THEIRS)));
    let answer = peer.answer(&request, &good(PEER_ESP + 1));
    assert!(server.hear(peer.at, &answer).is_empty());
    // The same again is no second one.
    assert!(server.hear(peer.at, &answer).is_empty());
    assert_eq!((server.children_left(), server.dropped(DropReason::UnexpectedResponse)), (2, 1));
}

#[test]
fn hostile_26_an_answer_other_than_asked_for_is_deleted_again_and_nothing_else_is() {
    let (none, nonce) = (PayloadChain::new, [5; 32]);
    let transport = || notify(NotifyKind::USE_TRANSPORT_MODE);
    let spi = PEER_ESP + 1;
    let twice = {
        let number = spi.to_be_bytes();
        let one = offer_esp(&["aes128gcm16".parse().unwrap()], &number, None).proposals.remove(0);
        none()
            .with(&Payload::Sa(SaPayload { proposals: vec![one.clone(), one] }))
            .with(&Payload::Nonce(&nonce))
            .with(&Payload::TsInitiator(selectors(OURS)))
            .with(&Payload::TsResponder(selectors(THEIRS)))
    };
    for (number, (answer, hint)) in [
        (grant(none(), spi, "aes128gcm16", &nonce, OURS, "10.0.0.1/32[tcp/80]"), "narrowed"),
        (grant(none(), spi, "aes128gcm16", &nonce, "203.0.113.80/32[udp]", THEIRS), "narrowed"),
        (grant(none(), spi, "aes128gcm16", &nonce, OURS, "10.0.0.2/32"), "not offered"),
        (grant(none(), spi, "aes128gcm16", &nonce, OURS, "10.0.0.0/8"), "not offered"),
        (grant(none(), spi, "aes128gcm16", &nonce, "0.0.0.0/0", THEIRS), "not offered"),
        (grant(transport(), spi, "aes128gcm16", &nonce, OURS, THEIRS), "not offered"),
        (grant(none(), spi, "aes256gcm16", &nonce, OURS, THEIRS), "not offered"),
        (grant(none(), spi, "aes128gcm16-esn", &nonce, OURS, THEIRS), "not offered"),
        (grant(none(), 0, "aes128gcm16", &nonce, OURS, THEIRS), "not offered"),
        (grant(none(), 255, "aes128gcm16", &nonce, OURS, THEIRS), "not offered"),
        (grant(none(), PEER_ESP, "aes128gcm16", &nonce, OURS, THEIRS), "already"),
        (twice, "not offered"),
        (none(), "no nonce"),
        (none().with(&Payload::Nonce(&nonce)), "no TSi"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 2 + number as u64);
        let request = asked(&mut server);
        let opened = peer.open(&request);
        let offered = <[u8; 4]>::try_from(opened.body().unwrap().sa.unwrap().proposals[0].spi).unwrap();
        let answer = peer.answer(&request, &answer);
        let said = server.hear(peer.at, &answer);
        let refused = refusals(&server);
        assert!(refused.len() == 1 && refused[0].0 && refused[0].1.contains(hint), "{hint}: {refused:?}");
        assert_eq!(said.len(), 1, "{hint}");
        assert_eq!(deleted(&peer.open(&said[0].payload)), [u32::from_be_bytes(offered)], "{hint}");
        let fine = peer.empty_answer(&said[0].payload);
        assert!(server.hear(peer.at, &fine).is_empty());
        // The IKE SA and its child stand, and the peer is not asked again.
        assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (1, 1), "{hint}");
        assert!(peer.ask(&mut server, INFO, &none()).body().is_ok());
        let child = server.children_up()[0];
        assert_eq!(server.endpoint.add_sibling(server.now, child), Err(CommandError::SiblingsRefused));
    }
}

#[test]
fn hostile_13_a_sibling_with_our_own_nonce_is_refused_and_the_ike_sa_stands() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 20);
    let request = asked(&mut server);
    let nonce = peer.open(&request).body().unwrap().nonce.unwrap().to_vec();
    let answer = peer.answer(&request, &grant(PayloadChain::new(), PEER_ESP + 1, "aes128gcm16", &nonce, OURS, THEIRS));
    assert_eq!(server.hear(peer.at, &answer).len(), 1);
    assert!(refusals(&server)[0].0);
    assert_eq!((server.endpoint.occupancy().ike_sas, server.children_left()), (1, 1));
}

#[test]
fn only_a_temporary_failure_is_not_for_good_and_no_refusal_ends_the_ike_sa() {
    for (kind, for_good, again) in [
        (NotifyKind::TEMPORARY_FAILURE, false, false),
        (NotifyKind::NO_ADDITIONAL_SAS, true, false),
        (NotifyKind::TS_MAX_QUEUE, true, false),
        (NotifyKind::TS_UNACCEPTABLE, true, false),
        (NotifyKind::SINGLE_PAIR_REQUIRED, true, false),
        (NotifyKind::INVALID_SYNTAX, true, false),
        (NotifyKind::CHILD_SA_NOT_FOUND, true, false),
        (NotifyKind(9_999), true, false),
        // These two are about the key exchange, and are heard out once more.
        (NotifyKind::NO_PROPOSAL_CHOSEN, true, true),
        (NotifyKind::INVALID_KE_PAYLOAD, true, true),
    ] {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 21);
        let request = asked(&mut server);
        assert!(peer.open(&request).body().unwrap().key_exchange.is_none());
        let wanted = 31_u16.to_be_bytes();
        let error = PayloadChain::new().with(&Payload::Notify(Notify::new(kind, &wanted)));
        let answer = peer.answer(&request, &error);
        let mut said = server.hear(peer.at, &answer);
        assert_eq!(said.len(), usize::from(again), "{kind}");
        if let Some(second) = said.pop() {
            assert!(peer.open(&second.payload).body().unwrap().key_exchange.is_some());
            assert!(refusals(&server).is_empty());
            let answer = peer.answer(&second.payload, &error);
            assert!(server.hear(peer.at, &answer).is_empty(), "{kind}: not a third time");
        }
        let refused = refusals(&server);
        assert!(
            refused.len() == 1 && refused[0].0 == for_good && refused[0].1.contains(&kind.to_string()),
            "{refused:?}"
        );
        assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (1, 1));
        let child = server.children_up()[0];
        assert_eq!(server.endpoint.add_sibling(server.now, child).is_ok(), !for_good);
    }
}

#[test]
fn hostile_25_a_peer_that_deletes_what_it_grants_before_it_grants_it_has_no_sibling() {
    for (deletes, made) in [(&[PEER_ESP + 1][..], 1), (&[PEER_ESP + 7, PEER_ESP + 8], 2), (&[PEER_ESP + 7; 100], 2)] {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 22);
        let request = asked(&mut server);
        let spis: Vec<u8> = deletes.iter().flat_map(|spi| spi.to_be_bytes()).collect();
        let delete = PayloadChain::new().with(&Payload::Delete(Delete::esp(&spis)));
        assert!(deleted(&peer.ask(&mut server, INFO, &delete)).is_empty());
        let answer = peer.answer(&request, &good(PEER_ESP + 1));
        server.hear(peer.at, &answer);
        assert_eq!(server.children_left(), made);
        assert_eq!(refusals(&server).iter().map(|(for_good, _)| *for_good).collect::<Vec<_>>(), vec![false; 2 - made]);
        assert_eq!(server.endpoint.occupancy().esp_spis, made);
    }
}

#[test]
fn hostile_25_while_a_sibling_is_asked_for_the_peer_is_put_off_with_rekeyings_and_nothing_else() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 23);
    let request = asked(&mut server);
    assert_eq!(peer.rekey_request_refused(&mut server), Some(NotifyKind::TEMPORARY_FAILURE));
    // It may name what it has just granted, which we cannot know yet.
    let rekey = |spi: u32, new: u32| {
        let spi = spi.to_be_bytes();
        let rekey = Notify { protocol: ProtocolId::ESP, spi: &spi, kind: NotifyKind::REKEY_SA, data: &[] };
        let chain = PayloadChain::new().with(&Payload::Notify(rekey)).with(&Payload::Nonce(&[3; 32]));
        with_child(chain, new, THEIRS)
    };
    let error = peer.ask_for_error(&mut server, CREATE, &rekey(PEER_ESP + 1, PEER_ESP + 2));
    assert_eq!(error, Some(NotifyKind::TEMPORARY_FAILURE));
    assert_eq!(peer.ask_for_error(&mut server, CREATE, &rekey(PEER_ESP, PEER_ESP + 3)), None);
    let further = peer.create_child(PEER_ESP + 4, THEIRS);
    assert_eq!(peer.ask_for_error(&mut server, CREATE, &further), None);
    let answer = peer.answer(&request, &good(PEER_ESP + 1));
    server.hear(peer.at, &answer);
    assert_eq!(server.children_left(), 4);
    // And now it can be replaced.
    assert_eq!(peer.ask_for_error(&mut server, CREATE, &rekey(PEER_ESP + 1, PEER_ESP + 2)), None);
}

#[test]
fn hostile_10_an_spi_that_is_in_use_makes_no_second_child() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 24);
    let again = peer.create_child(PEER_ESP, THEIRS);
    assert_eq!(peer.ask_for_error(&mut server, CREATE, &again), Some(NotifyKind::NO_PROPOSAL_CHOSEN));
    assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (1, 1));
}

#[test]
fn hostile_26_siblings_of_the_peers_own_accord_come_to_an_end_in_either_language() {
    for (speaks, end) in [(false, NotifyKind::NO_ADDITIONAL_SAS), (true, NotifyKind::TS_MAX_QUEUE)] {
        let limits = Limits { children: 6, ..Limits::default() };
        let mut server = Server::with(limits, settings());
        let mut peer = Peer::connected(&mut server, 25);
        let mut errors = Vec::new();
        for number in 1..200 {
            let mut chain = peer.create_child(PEER_ESP + number, THEIRS);
            if speaks {
                chain.push(&Payload::Notify(Notify::new(NotifyKind::SA_RESOURCE_INFO, &number.to_be_bytes())));
            }
            let answer = peer.ask(&mut server, CREATE, &chain);
            let body = answer.body().unwrap();
            match body.error() {
                Some(error) => errors.push(error.kind),
                None => assert_eq!(body.has(NotifyKind::SA_RESOURCE_INFO), speaks),
            }
        }
        assert_eq!((errors.len(), server.children_left(), server.endpoint.occupancy().esp_spis), (194, 6, 6));
        assert!(errors.iter().all(|kind| *kind == end));
        // We keep to the same limit.
        let child = server.children_up()[0];
        let full = Err(CommandError::TooManyChildren { allowed: 6 });
        assert_eq!(server.endpoint.add_sibling(server.now, child), full);
        // All of them, and as often as it likes, may the peer delete.
        let spis: Vec<u8> = (0..6).flat_map(|number: u32| (PEER_ESP + number).to_be_bytes()).collect();
        let delete = PayloadChain::new().with(&Payload::Delete(Delete::esp(&spis)));
        assert_eq!(deleted(&peer.ask(&mut server, INFO, &delete)).len(), 6);
        assert!(deleted(&peer.ask(&mut server, INFO, &delete)).is_empty());
        assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (0, 0));
    }
}

#[test]
fn a_peer_that_speaks_of_resources_is_asked_in_its_language() {
    let mut server = Server::new();
    let mut peer = Peer::new(26);
    peer.begin(&mut server);
    let auth = peer.auth_request(super::peer::PSK);
    let auth = auth.with(&Payload::Notify(Notify::new(NotifyKind::SA_RESOURCE_INFO, b"cpu 0")));
    let answer = peer.ask(&mut server, ExchangeType::IkeAuth, &auth);
    assert!(answer.body().unwrap().has(NotifyKind::SA_RESOURCE_INFO));
    for number in 1..4 {
        let request = asked(&mut server);
        assert!(peer.open(&request).body().unwrap().has(NotifyKind::SA_RESOURCE_INFO));
        // The answer may say so too, or not.
        let before = if number == 1 { notify(NotifyKind::SA_RESOURCE_INFO) } else { PayloadChain::new() };
        let granted = grant(before, PEER_ESP + number, "aes128gcm16", &[5; 32], OURS, THEIRS);
        let answer = peer.answer(&request, &granted);
        server.hear(peer.at, &answer);
    }
    assert_eq!(server.children_left(), 4);
}

#[test]
fn a_peer_that_authenticates_anew_leaves_its_siblings_and_its_refusals_behind() {
    let mut server = Server::new();
    let mut old = Peer::connected(&mut server, 27);
    for number in 1..3 {
        let request = asked(&mut server);
        let answer = old.answer(&request, &good(PEER_ESP + number));
        server.hear(old.at, &answer);
    }
    let request = asked(&mut server);
    let answer = old.answer(&request, &notify(NotifyKind::NO_ADDITIONAL_SAS));
    server.hear(old.at, &answer);
    let left: Vec<Spi> = server.children_up();
    assert_eq!((left.len(), refusals(&server).len()), (3, 1));
    let mut new = Peer::connected(&mut server, 28);
    assert_eq!(server.children_left(), 4);
    old.ask(&mut server, INFO, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
    let downs = server.events.iter().filter_map(|event| match event {
        Event::ChildDown { inbound, reason, .. } => Some((*inbound, *reason)),
        _ => None,
    });
    let downs: Vec<(Spi, DownReason)> = downs.collect();
    assert!(left.iter().all(|spi| downs.contains(&(*spi, DownReason::PeerDeleted))) && downs.len() == 3);
    // The new lineage has refused nothing.
    let child = server.children_up()[3];
    server.endpoint.add_sibling(server.now, child).unwrap();
    let request = server.drain().remove(0).payload;
    let answer = new.answer(&request, &good(PEER_ESP + 1));
    server.hear(new.at, &answer);
    assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (2, 2));
}

#[test]
fn a_successor_in_another_mode_than_asked_for_is_deleted_again() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 29);
    let child = server.children_up()[0];
    server.endpoint.rekey_child(server.now, child).unwrap();
    let request = server.drain().remove(0).payload;
    let before = notify(NotifyKind::USE_TRANSPORT_MODE);
    let answer = peer.answer(&request, &grant(before, PEER_ESP + 1, "aes128gcm16", &[5; 32], OURS, THEIRS));
    let said = server.hear(peer.at, &answer);
    assert_eq!((said.len(), deleted(&peer.open(&said[0].payload)).len(), server.children_left()), (1, 1, 1));
    assert!(server.events.iter().any(|event| matches!(event, Event::RekeyFailed { .. })));
}
