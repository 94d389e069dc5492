//! HOSTILE 10 and 26, and selector narrowing: what a peer may ask of CREATE_CHILD_SA.

use ipsec::sa::PeerId;

use super::peer::{PEER_ESP, Peer, Server, address, child, settings, with_child};
use crate::config::{ConnectionSettings, Limits, Overlap};
use crate::event::SendFrom;
use crate::message::payload::{
    Notify, NotifyKind, Payload, ProtocolId, SaPayload, TrafficSelectors, Transform, TransformKind,
};
use crate::message::{ExchangeType, PayloadChain};
use crate::proposal::offer_esp;
use crate::{Event, event::ChildUp};

const CREATE: ExchangeType = ExchangeType::CreateChildSa;

fn last_up(server: &Server) -> &ChildUp {
    let ups = server.events.iter().rev().filter_map(|event| match event {
        Event::ChildUp(up) => Some(&**up),
        _ => None,
    });
    ups.take(1).next().unwrap()
}

/// A request with these selectors: the peer's, then ours.
fn asking(peer: &Peer, spi: u32, theirs: &[&str], ours: &[&str]) -> PayloadChain {
    let read = |texts: &[&str]| TrafficSelectors(texts.iter().map(|text| text.parse().unwrap()).collect());
    let spi = spi.to_be_bytes();
    PayloadChain::new()
        .with(&Payload::Sa(offer_esp(&["aes128gcm16".parse().unwrap()], &spi, None)))
        .with(&Payload::Nonce(&peer.nonce))
        .with(&Payload::TsInitiator(read(theirs)))
        .with(&Payload::TsResponder(read(ours)))
}

#[test]
fn selectors_are_narrowed_to_what_a_child_allows() {
    let mut ssh = child("ssh");
    ssh.local_ts = vec!["203.0.113.80[tcp/22]".parse().unwrap()];
    ssh.remote_ts = vec!["192.168.0.0/16".parse().unwrap(), "10.9.0.0/16".parse().unwrap()];
    let mut web = child("web");
    web.local_ts = vec!["203.0.113.80[tcp/80]".parse().unwrap(), "203.0.113.80[tcp/443]".parse().unwrap()];
    let mut server = Server::with(Limits::default(), ConnectionSettings { children: vec![web, ssh], ..settings() });
    let mut peer = Peer::new(1);
    peer.begin(&mut server);
    let proof = peer.proof(super::peer::PSK, crate::message::payload::AuthMethod::SHARED_KEY);
    peer.ask(&mut server, ExchangeType::IkeAuth, &with_child(proof, PEER_ESP, "10.0.0.1/32"));
    for (number, (theirs, ours, name, agreed)) in [
        (
            &["10.1.0.0/16"][..],
            &["203.0.113.80"][..],
            "web",
            "203.0.113.80/32[tcp/80] 203.0.113.80/32[tcp/443] === 10.1.0.0/16",
        ),
        (&["0.0.0.0/0"], &["0.0.0.0/0[tcp/443]"], "web", "203.0.113.80/32[tcp/443] === 10.0.0.0/8"),
        (&["10.9.0.1"], &["203.0.113.80[tcp/22]"], "ssh", "203.0.113.80/32[tcp/22] === 10.9.0.1/32"),
        (&["192.168.1.1", "172.16.0.1"], &["203.0.113.0/24"], "ssh", "203.0.113.80/32[tcp/22] === 192.168.1.1/32"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = asking(&peer, PEER_ESP + 1 + number as u32, theirs, ours);
        let answer = peer.ask(&mut server, CREATE, &request);
        let body = answer.body().unwrap();
        assert_eq!(body.error(), None);
        let up = &last_up(&server).children.inbound;
        assert_eq!((&*up.name, up.selectors.to_string().as_str()), (name, agreed));
        let (initiator, responder) = body.require_selectors().unwrap();
        assert_eq!((&initiator.0, &responder.0), (&up.selectors.remote, &up.selectors.local));
        assert_eq!(last_up(&server).send, SendFrom::PeerUse);
    }
    for (theirs, ours) in [
        (&["172.16.0.1"][..], &["203.0.113.80"][..]),
        (&["10.0.0.1"], &["203.0.113.81"]),
        (&["10.0.0.1"], &["203.0.113.80[udp]"]),
        (&[], &["203.0.113.80"]),
        (&["2001:db8::1"], &["203.0.113.80"]),
    ] {
        let request = asking(&peer, PEER_ESP + 9, theirs, ours);
        let error = peer.ask_for_error(&mut server, CREATE, &request);
        assert_eq!(error, Some(NotifyKind::TS_UNACCEPTABLE), "{theirs:?} {ours:?}");
    }
    assert_eq!(server.endpoint.occupancy().esp_spis, server.children_left());
}

#[test]
fn hostile_26_255_selectors_are_capped() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 2);
    let texts: Vec<String> = (0..255).map(|number| format!("10.{number}.0.1")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let request = asking(&peer, PEER_ESP + 1, &texts, &["203.0.113.80"]);
    let answer = peer.ask(&mut server, CREATE, &request);
    let granted = answer.body().unwrap().ts_initiator.unwrap().0.len();
    assert_eq!(granted, ipsec::selector::SELECTORS_MAX);
    assert_eq!(last_up(&server).children.inbound.selectors.remote.len(), granted);
}

#[test]
fn hostile_26_children_without_end_get_no_additional_sas() {
    let mut server = Server::with(Limits { children: 5, ..Limits::default() }, settings());
    let mut peer = Peer::connected(&mut server, 3);
    let mut errors = 0;
    for number in 1..100 {
        let request = peer.create_child(PEER_ESP + number, "10.0.0.1/32");
        match peer.ask_for_error(&mut server, CREATE, &request) {
            None => {}
            Some(error) => {
                assert_eq!(error, NotifyKind::NO_ADDITIONAL_SAS);
                errors += 1;
            }
        }
    }
    assert_eq!((errors, server.children_left(), server.endpoint.occupancy().esp_spis), (95, 5, 5));
}

#[test]
fn hostile_26_selectors_of_another_peer_are_reported_or_refused_as_configured() {
    for (overlap, refused) in [(Overlap::Report, false), (Overlap::Refuse, true)] {
        let mut only = child("web");
        only.overlap = overlap;
        let mut server = Server::with(Limits::default(), ConnectionSettings { children: vec![only], ..settings() });
        let mut first = Peer::connected(&mut server, 4);
        assert_eq!(last_up(&server).overlaps, None);
        let mut second = Peer::new(5);
        second.id = "other.example.com".parse().unwrap();
        second.at = address("192.0.2.5:500");
        second.connect(&mut server);
        if refused {
            assert_eq!(server.children_left(), 1);
            assert!(server.events.iter().any(|event| matches!(event, Event::Refused { .. })));
        } else {
            assert_eq!(last_up(&server).overlaps, Some(PeerId(1)));
        }
        // One's own children may overlap.
        let request = first.create_child(PEER_ESP + 7, "10.0.0.1/32");
        let own = first.ask_for_error(&mut server, CREATE, &request);
        assert_eq!(own.is_some(), refused && server.children_left() > 2);
    }
}

fn rekey(spi: &[u8], protocol: ProtocolId) -> PayloadChain {
    let notify = Notify { protocol, spi, kind: NotifyKind::REKEY_SA, data: &[] };
    let chain = PayloadChain::new().with(&Payload::Notify(notify)).with(&Payload::Nonce(&[3; 32]));
    with_child(chain, PEER_ESP + 1, "10.0.0.1/32")
}

#[test]
fn hostile_10_rekey_sa_of_odd_protocols_and_sizes_is_refused_and_not_echoed() {
    let known = PEER_ESP.to_be_bytes();
    for (spi, protocol) in [
        (&known[..], ProtocolId::NONE),
        (&known, ProtocolId::IKE),
        (&known, ProtocolId(9)),
        (&known[..3], ProtocolId::ESP),
        (&[], ProtocolId::ESP),
        (&[0; 8], ProtocolId::ESP),
    ] {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 6);
        let answer = peer.ask(&mut server, CREATE, &rekey(spi, protocol));
        let body = answer.body().unwrap();
        let error = body.error().unwrap();
        assert_eq!((error.kind, error.spi, error.data), (NotifyKind::INVALID_SYNTAX, &[][..], &[][..]));
    }
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 6);
    for (spi, protocol) in [(PEER_ESP + 5, ProtocolId::ESP), (PEER_ESP, ProtocolId::AH), (0, ProtocolId::ESP)] {
        let spi = spi.to_be_bytes();
        let answer = peer.ask(&mut server, CREATE, &rekey(&spi, protocol));
        let body = answer.body().unwrap();
        let error = body.error().unwrap();
        assert_eq!((error.kind, error.protocol, error.spi), (NotifyKind::CHILD_SA_NOT_FOUND, protocol, &spi[..]));
    }
    let answer = peer.ask(&mut server, CREATE, &rekey(&known, ProtocolId::ESP));
    assert_eq!(answer.body().unwrap().error(), None);
    // It has been replaced and waits for its deletion: not a second time.
    let error = peer.ask_for_error(&mut server, CREATE, &rekey(&known, ProtocolId::ESP));
    assert_eq!(error, Some(NotifyKind::TEMPORARY_FAILURE));
    assert_eq!(server.children_left(), 2);
}

#[test]
fn a_replaced_child_that_the_peer_does_not_delete_is_deleted_by_us() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 7);
    peer.ask(&mut server, CREATE, &rekey(&PEER_ESP.to_be_bytes(), ProtocolId::ESP));
    assert_eq!(server.children_left(), 2);
    let sent = server.wait(core::time::Duration::from_secs(60));
    assert_eq!((sent.len(), server.children_left()), (1, 1));
    let request = peer.open(&sent[0].payload);
    let body = request.body().unwrap();
    assert_eq!(body.deletes[0].spis().collect::<Vec<_>>(), [server.children_up()[0].get()]);
}

#[test]
fn hostile_09_esp_proposals_that_cannot_be_met_get_no_proposal_chosen_and_the_ike_sa_stands() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 8);
    let gcm = Transform::with_key_bits(TransformKind::ENCRYPTION, 20, 128);
    let esn = |id| Transform::new(TransformKind::ESN, id);
    for transforms in
        [vec![gcm, esn(1)], vec![Transform::new(TransformKind::ENCRYPTION, 20), esn(0)], vec![esn(0)], vec![]]
    {
        let spi = [0, 0, 2, 0];
        let proposal =
            crate::message::payload::Proposal { number: 1, protocol: ProtocolId::ESP, spi: &spi, transforms };
        let chain = PayloadChain::new()
            .with(&Payload::Sa(SaPayload { proposals: vec![proposal] }))
            .with(&Payload::Nonce(&[3; 32]))
            .with(&Payload::TsInitiator(TrafficSelectors(vec!["10.0.0.1".parse().unwrap()])))
            .with(&Payload::TsResponder(TrafficSelectors(vec!["203.0.113.80".parse().unwrap()])));
        let error = peer.ask_for_error(&mut server, CREATE, &chain);
        assert_eq!(error, Some(NotifyKind::NO_PROPOSAL_CHOSEN));
    }
    assert_eq!(server.endpoint.occupancy().ike_sas, 1);
}

#[test]
fn an_ike_sa_whose_child_is_refused_stands_without_it() {
    let mut server = Server::new();
    let mut peer = Peer::new(9);
    peer.begin(&mut server);
    let proof = peer.proof(super::peer::PSK, crate::message::payload::AuthMethod::SHARED_KEY);
    let answer = peer.ask(&mut server, ExchangeType::IkeAuth, &with_child(proof, PEER_ESP, "172.16.0.1"));
    let body = answer.body().unwrap();
    assert!(body.auth.is_some());
    assert_eq!(body.error().map(|error| error.kind), Some(NotifyKind::TS_UNACCEPTABLE));
    assert_eq!((server.endpoint.occupancy().ike_sas, server.children_left()), (1, 0));
    let request = peer.create_child(PEER_ESP, "10.0.0.1/32");
    assert_eq!(peer.ask_for_error(&mut server, CREATE, &request), None);
}

/// A request to replace the peer's `number`-th child by the next.
fn replace(number: u32) -> PayloadChain {
    let spi = (PEER_ESP + number).to_be_bytes();
    let notify = Notify { protocol: ProtocolId::ESP, spi: &spi, kind: NotifyKind::REKEY_SA, data: &[] };
    let chain = PayloadChain::new().with(&Payload::Notify(notify)).with(&Payload::Nonce(&[3; 32]));
    with_child(chain, PEER_ESP + number + 1, "10.0.0.1/32")
}

#[test]
fn hostile_26_rekeying_without_end_and_without_deleting_leaves_few_children() {
    let limits = Limits { children: 5, ..Limits::default() };
    let most = 1 + limits.replaced_children;
    let mut server = Server::with(limits.clone(), settings());
    let mut peer = Peer::connected(&mut server, 10);
    for number in 0..200 {
        // The peer does answer when it is told that its oldest child is gone.
        let answer = peer.converse(&mut server, CREATE, &replace(number));
        assert_eq!(answer.body().unwrap().error(), None, "{number}");
        assert_eq!(server.children_left(), most.min(2 + number as usize));
        server.now += core::time::Duration::from_secs(1);
    }
    assert_eq!(server.endpoint.occupancy().esp_spis, most);
    // The last one is the one in use, and those that went are the oldest.
    let up = server.children_up();
    let sa = server.endpoint.sas().next().unwrap();
    let left: Vec<_> = sa.children.iter().map(|child| child.inbound).collect();
    assert!(up[up.len() - most..].iter().all(|young| left.contains(young)));
    assert_eq!(sa.children.iter().filter(|child| child.is_in_use).count(), 1);
    // What was replaced takes no room from what is to come.
    let further = peer.create_child(PEER_ESP + 1_000, "10.0.0.1/32");
    assert_eq!(peer.converse(&mut server, CREATE, &further).body().unwrap().error(), None);
}

#[test]
fn hostile_26_a_peer_that_rekeys_without_end_and_answers_nothing_is_put_off_and_then_given_up() {
    let limits = Limits { children: 5, ..Limits::default() };
    let mut server = Server::with(limits.clone(), settings());
    let mut peer = Peer::connected(&mut server, 11);
    let mut put_off = 0;
    let mut number = 0;
    for _ in 0..5_000 {
        let request = peer.next_request(CREATE, &replace(number));
        let answer = server.hear(peer.at, &request).remove(0);
        match peer.open(&answer.payload).body().unwrap().error() {
            None => number += 1,
            Some(error) => {
                assert_eq!(error.kind, NotifyKind::TEMPORARY_FAILURE);
                put_off += 1;
            }
        }
        assert!(server.children_left() <= 1 + limits.replaced_children);
    }
    // Those that are kept, one for each request that waits to be sent, and one for that which waits for its answer.
    let granted = limits.replaced_children + limits.waiting_requests() + 1;
    assert_eq!((put_off, number as usize), (5_000 - granted, granted));
    while server.endpoint.occupancy().ike_sas > 0 {
        server.wait(core::time::Duration::from_secs(1));
    }
    assert_eq!((server.children_left(), server.endpoint.occupancy().esp_spis), (0, 0));
}
