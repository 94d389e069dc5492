//! HOSTILE 1 to 13, at an endpoint: what is answered, what is dropped, and that nothing is kept of either.

use super::peer::{CLIENT, Peer, Server, address, cleartext, error_in, ike_proposal, settings, with_child};
use crate::config::Limits;
use crate::counters::DropReason;
use crate::message::payload::{
    AuthMethod, KeyExchange, NotifyKind, Payload, PayloadKind, Proposal, ProtocolId, RawPayloads, SaPayload,
    TrafficSelectors, Transform, TransformKind,
};
use crate::message::{ExchangeType, PayloadChain};
use crate::proposal::offer_ike;

fn assert_nothing_kept(server: &Server) {
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.half_open, occupancy.kept_responses, occupancy.ike_spis), (0, 0, 0));
    assert_eq!(server.endpoint.counters().key_exchanges, 0);
}

#[test]
fn hostile_01_lengths_that_lie_are_dropped() {
    let mut server = Server::new();
    let honest = Peer::new(1).init();
    for length in [0, 1, 27, 28, honest.len() - 1, honest.len() + 1, 0xffff_ffff] {
        let mut lying = honest.clone();
        lying[24..28].copy_from_slice(&(length as u32).to_be_bytes());
        assert!(server.hear(address(CLIENT), &lying).is_empty());
    }
    for cut in 0..honest.len() {
        assert!(server.hear(address(CLIENT), &honest[..cut]).is_empty());
    }
    assert_eq!(server.dropped(DropReason::Header), 7 + honest.len() as u64);
    assert_nothing_kept(&server);
}

#[test]
fn hostile_02_payload_lengths_that_lie_are_dropped_before_and_answered_after_authentication() {
    let mut server = Server::new();
    let mut lying = Peer::new(2).init();
    lying[30..32].copy_from_slice(&3_u16.to_be_bytes());
    assert!(server.hear(address(CLIENT), &lying).is_empty());
    lying[30..32].copy_from_slice(&0xffff_u16.to_be_bytes());
    assert!(server.hear(address(CLIENT), &lying).is_empty());
    assert_eq!(server.dropped(DropReason::Malformed), 2);
    assert_nothing_kept(&server);

    let mut peer = Peer::connected(&mut server, 2);
    // A delete payload that promises more SPIs than it has.
    let broken = Payload::Opaque { kind: PayloadKind::Delete, body: &[3, 4, 0, 9, 0, 0, 1, 0] };
    let chain = PayloadChain::new().with(&broken);
    let error = peer.ask_for_error(&mut server, ExchangeType::Informational, &chain);
    assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX));
    assert_eq!(server.endpoint.occupancy().ike_sas, 0, "the IKE SA cannot go on");
    assert_eq!(server.children_left(), 0);
}

/// Two payloads, the second of which says that it is `length` octets long. It is 14.
fn lying(length: u16) -> PayloadChain {
    let vendor = Payload::Opaque { kind: PayloadKind::VendorId, body: &[0x5a; 10] };
    let chain = PayloadChain::new().with(&vendor).with(&vendor);
    chain.changed(|octets| octets[16..18].copy_from_slice(&length.to_be_bytes()))
}

#[test]
fn hostile_02_payload_lengths_that_lie_inside_the_encrypted_payload_are_invalid_syntax() {
    for length in [0, 1, 2, 3, 13, 15, 200, 65_535] {
        let mut server = Server::new();
        let mut peer = Peer::new(20);
        peer.begin(&mut server);
        let error = peer.ask_for_error(&mut server, ExchangeType::IkeAuth, &lying(length));
        assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX), "{length} in IKE_AUTH");
        for (seed, exchange) in [(21, ExchangeType::Informational), (22, ExchangeType::CreateChildSa)] {
            let mut peer = Peer::connected(&mut server, seed);
            let error = peer.ask_for_error(&mut server, exchange, &lying(length));
            assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX), "{length} in {exchange}");
        }
        assert!(server.endpoint.is_idle() && server.children_left() == 0);
    }
    // It is the length that was wrong.
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 22);
    assert_eq!(peer.ask_for_error(&mut server, ExchangeType::Informational, &lying(14)), None);
    assert_eq!(server.endpoint.occupancy().ike_sas, 1);
}

#[test]
fn hostile_03_unknown_payloads_are_skipped_unless_critical() {
    let mut server = Server::new();
    let unknown = Payload::Opaque { kind: PayloadKind::Unknown(200), body: &[1, 2, 3] };

    let peer = Peer::new(3);
    let mut message = peer.init_chain().with(&unknown).into_message(peer.init_header());
    let at = message.len() - 7;
    message[at + 1] |= 0x80;
    let answers = server.hear(peer.at, &message);
    assert_eq!(error_in(&answers), Some((NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, vec![200])));
    assert_nothing_kept(&server);

    let message = peer.init_chain().with(&unknown).into_message(peer.init_header());
    assert!(cleartext(&server.hear(peer.at, &message)[0].payload).key_exchange.is_some());

    let mut peer = Peer::connected(&mut server, 4);
    let answer = peer.ask(&mut server, ExchangeType::Informational, &PayloadChain::new().with(&unknown));
    assert_eq!(answer.body().unwrap().error(), None);
    let request = peer.next_request(ExchangeType::Informational, &PayloadChain::new().with(&unknown).made_critical());
    let answers = server.hear(peer.at, &request);
    let answer = peer.open(&answers[0].payload);
    let body = answer.body().unwrap();
    let error = body.notify(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap();
    assert_eq!(error.data, [200]);
    assert_eq!(server.endpoint.occupancy().ike_sas, 1, "the IKE SA goes on");
}

#[test]
fn hostile_04_other_versions_make_no_state() {
    let mut server = Server::new();
    let honest = Peer::new(5).init();
    let with_version = |version: u8| {
        let mut message = honest.clone();
        message[17] = version;
        message
    };
    for version in [0x00, 0x10, 0x1f] {
        assert!(server.hear(address(CLIENT), &with_version(version)).is_empty());
    }
    let answers = server.hear(address(CLIENT), &with_version(0x30));
    assert_eq!(error_in(&answers), Some((NotifyKind::INVALID_MAJOR_VERSION, Vec::new())));
    assert_eq!(answers[0].payload[17], 0x20);
    // At a limited rate, and never to something that calls itself a response.
    let answered: usize = (0..1_000).map(|_| server.hear(address(CLIENT), &with_version(0x30)).len()).sum();
    assert!(answered < 50, "{answered}");
    let mut response = with_version(0x40);
    response[19] |= 0x20;
    assert!(server.hear(address("192.0.2.77:500"), &response).is_empty());
    assert_nothing_kept(&server);

    // The payload types of IKEv1 mean nothing here.
    let peer = Peer::new(6);
    let mut chain = peer.init_chain();
    for number in 1..=13 {
        chain.push(&Payload::Opaque { kind: PayloadKind::Unknown(number), body: &[0; 8] });
    }
    let answers = server.hear(peer.at, &chain.into_message(peer.init_header()));
    assert!(cleartext(&answers[0].payload).key_exchange.is_some());
}

#[test]
fn hostile_05_reserved_bits_and_another_order_are_accepted() {
    let mut server = Server::new();
    let mut peer = Peer::new(7);
    let chain = PayloadChain::new()
        .with(&Payload::Nonce(&peer.nonce))
        .with(&Payload::KeyExchange(KeyExchange { group: 31, data: &peer.public }))
        .with(&Payload::Sa(offer_ike(&[ike_proposal()], &[])));
    let mut request = chain.into_message(peer.init_header());
    request[19] |= 0xc7;
    request[29] = 0x7f;
    let response = server.hear(peer.at, &request).remove(0).payload;
    peer.take_init(request, response);
    // In IKE_AUTH the child's payloads come first.
    let child = with_child(PayloadChain::new(), 0x100, "10.0.0.1/32");
    let chain = child.followed_by(&peer.proof(super::peer::PSK, AuthMethod::SHARED_KEY));
    let answer = peer.ask(&mut server, ExchangeType::IkeAuth, &chain);
    assert!(answer.body().unwrap().auth.is_some());
    assert_eq!(server.children_left(), 1);
}

#[test]
fn hostile_06_missing_and_double_payloads_of_ike_sa_init_are_invalid_syntax() {
    let sa = || Payload::Sa(offer_ike(&[ike_proposal()], &[]));
    let peer = Peer::new(8);
    let ke = Payload::KeyExchange(KeyExchange { group: 31, data: &peer.public });
    let nonce = Payload::Nonce(&peer.nonce);
    let chain = |payloads: &[&Payload<'_>]| payloads.iter().fold(PayloadChain::new(), |chain, one| chain.with(one));
    for chain in [
        chain(&[&ke, &nonce]),
        chain(&[&sa(), &nonce]),
        chain(&[&sa(), &ke]),
        chain(&[]),
        chain(&[&sa(), &sa(), &ke, &nonce]),
        chain(&[&sa(), &ke, &ke, &nonce]),
        chain(&[&sa(), &ke, &nonce, &nonce]),
    ] {
        let mut server = Server::new();
        let answers = server.hear(peer.at, &chain.into_message(peer.init_header()));
        assert_eq!(error_in(&answers), Some((NotifyKind::INVALID_SYNTAX, Vec::new())));
        assert_nothing_kept(&server);
    }
}

#[test]
fn hostile_06_missing_and_double_payloads_of_ike_auth_are_invalid_syntax() {
    const PAYLOADS: usize = 6;
    // Each left out, each doubled; and none of both.
    for (times, odd) in [0, 2].into_iter().flat_map(|times| (0..PAYLOADS).map(move |odd| (times, odd))).chain([(1, 0)])
    {
        let mut server = Server::new();
        let mut peer = Peer::new(9);
        peer.begin(&mut server);
        let whole = with_child(peer.proof(super::peer::PSK, AuthMethod::SHARED_KEY), 0x100, "10.0.0.1/32");
        let ours = "gw.example.com".parse::<crate::config::Identity>().unwrap().to_payload_body();
        let idr = Payload::Opaque { kind: PayloadKind::IdResponder, body: &ours };
        let whole = whole.with(&idr);
        let links = RawPayloads::new(whole.first(), whole.bytes()).map(Result::unwrap).enumerate();
        let mut chain = PayloadChain::new();
        let mut kind = PayloadKind::Auth;
        for (at, link) in links {
            assert!(at < PAYLOADS);
            kind = if at == odd { link.kind } else { kind };
            let opaque = Payload::Opaque { kind: link.kind, body: link.body };
            (0..if at == odd { times } else { 1 }).for_each(|_| chain.push(&opaque));
        }
        let error = peer.ask_for_error(&mut server, ExchangeType::IkeAuth, &chain);
        let expected = match (times, kind) {
            (1, _) | (0, PayloadKind::IdResponder) => None,
            // Without AUTH the peer asks for EAP (RFC 7296 §2.16), which is well-formed and not to be had.
            (0, PayloadKind::Auth) => Some(NotifyKind::AUTHENTICATION_FAILED),
            (_, _) => Some(NotifyKind::INVALID_SYNTAX),
        };
        assert_eq!(error, expected, "{kind} {times} times");
        let stands = usize::from(expected.is_none());
        let occupancy = server.endpoint.occupancy();
        assert_eq!((occupancy.ike_sas, occupancy.half_open, occupancy.esp_spis), (stands, 0, stands), "{kind} {times}");
    }
}

#[test]
fn hostile_06_missing_payloads_of_the_other_exchanges_are_invalid_syntax() {
    let mut server = Server::new();
    let mut peer = Peer::new(9);
    peer.begin(&mut server);
    let chain = with_child(PayloadChain::new(), 0x100, "10.0.0.1/32");
    let error = peer.ask_for_error(&mut server, ExchangeType::IkeAuth, &chain);
    assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX));
    assert_eq!(server.endpoint.occupancy().ike_sas, 0);

    let nonce = Payload::Nonce(&[5; 32]);
    let ts = TrafficSelectors(vec!["10.0.0.1".parse().unwrap()]);
    let without_sa = PayloadChain::new().with(&nonce).with(&Payload::TsInitiator(ts.clone()));
    let without_nonce = with_child(PayloadChain::new(), 0x200, "10.0.0.1/32");
    let esp = crate::proposal::offer_esp(&["aes128gcm16".parse().unwrap()], &[0, 0, 2, 0], None);
    let without_ts = PayloadChain::new().with(&Payload::Sa(esp)).with(&nonce).with(&Payload::TsInitiator(ts));
    for (seed, chain) in (10..).zip([without_sa, without_nonce, without_ts]) {
        let mut peer = Peer::connected(&mut server, seed);
        let error = peer.ask_for_error(&mut server, ExchangeType::CreateChildSa, &chain);
        assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX));
        assert_eq!(server.endpoint.occupancy().ike_sas, 0);
    }
    assert_eq!(server.children_left(), 0);
}

#[test]
fn hostile_07_unknown_exchanges_make_no_state_and_get_no_answer() {
    let mut server = Server::new();
    for number in (0..=255).filter(|number| *number != 34) {
        let mut message = Peer::new(13).init();
        message[18] = number;
        assert!(server.hear(address(CLIENT), &message).is_empty());
        message[18] = 34;
        message[19] = 0x20;
        assert!(server.hear(address(CLIENT), &message).is_empty(), "a response to nothing");
    }
    assert_nothing_kept(&server);
    let mut peer = Peer::connected(&mut server, 14);
    for number in (0..=255).filter(|number| ![36, 37].contains(number)) {
        let header = peer.header(ExchangeType::from_number(number), peer.next);
        let request = peer.seal(header, &PayloadChain::new());
        assert!(server.hear(peer.at, &request).is_empty(), "exchange {number}");
    }
    // The message ID has not moved.
    peer.ask(&mut server, ExchangeType::Informational, &PayloadChain::new());
}

#[test]
fn ike_sa_init_with_a_responder_spi_or_another_message_id_is_dropped() {
    let mut server = Server::new();
    for at in [8, 15, 20, 23] {
        let mut message = Peer::new(15).init();
        message[at] ^= 1;
        assert!(server.hear(address(CLIENT), &message).is_empty());
    }
    let mut message = Peer::new(15).init();
    message[..8].fill(0);
    assert!(server.hear(address(CLIENT), &message).is_empty());
    let mut message = Peer::new(15).init();
    message[19] = 0;
    assert!(server.hear(address(CLIENT), &message).is_empty());
    assert_nothing_kept(&server);
}

#[test]
fn hostile_08_proposals_without_end_cost_linear_time() {
    let mut server =
        Server::with(Limits { init_bytes: 65_535, datagram_bytes: 65_535, ..Limits::default() }, settings());
    let peer = Peer::new(16);
    let transform = Transform::new(TransformKind::ENCRYPTION, 12);
    let one = Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: vec![transform; 255] };
    let sa = Payload::Sa(SaPayload { proposals: vec![one; 31] });
    let ke = Payload::KeyExchange(KeyExchange { group: 31, data: &peer.public });
    let chain = PayloadChain::new().with(&sa).with(&ke).with(&Payload::Nonce(&peer.nonce));
    let message = chain.into_message(peer.init_header());
    assert!(message.len() > 60_000);
    let answers = server.hear(peer.at, &message);
    assert_eq!(error_in(&answers), Some((NotifyKind::NO_PROPOSAL_CHOSEN, Vec::new())));
    // With the default bounds it is not even read.
    let mut server = Server::new();
    assert!(server.hear(peer.at, &message).is_empty());
    assert_eq!(server.dropped(DropReason::TooLong), 1);
}

#[test]
fn hostile_11_another_group_is_told_which_one_is_wanted_and_nothing_is_kept() {
    let mut server = Server::new();
    let peer = Peer::new(17);
    let chain = PayloadChain::new()
        .with(&Payload::Sa(offer_ike(&[ike_proposal()], &[])))
        .with(&Payload::KeyExchange(KeyExchange { group: 19, data: &[4; 64] }))
        .with(&Payload::Nonce(&peer.nonce));
    let answers = server.hear(peer.at, &chain.into_message(peer.init_header()));
    assert_eq!(error_in(&answers), Some((NotifyKind::INVALID_KE_PAYLOAD, vec![0, 31])));
    assert_nothing_kept(&server);
}

#[test]
fn hostile_12_key_exchange_data_that_makes_no_secret_is_invalid_syntax() {
    for data in [&[][..], &[9; 31], &[9; 33], &[0; 32], &[9; 256]] {
        let mut server = Server::new();
        let peer = Peer::new(18);
        let chain = PayloadChain::new()
            .with(&Payload::Sa(offer_ike(&[ike_proposal()], &[])))
            .with(&Payload::KeyExchange(KeyExchange { group: 31, data }))
            .with(&Payload::Nonce(&peer.nonce));
        let answers = server.hear(peer.at, &chain.into_message(peer.init_header()));
        assert_eq!(error_in(&answers), Some((NotifyKind::INVALID_SYNTAX, Vec::new())));
        let occupancy = server.endpoint.occupancy();
        assert_eq!((occupancy.half_open, occupancy.ike_spis), (0, 0));
    }
}

#[test]
fn hostile_13_nonces_too_short_or_too_long_are_invalid_syntax() {
    for length in [0, 15, 257] {
        let mut server = Server::new();
        let mut peer = Peer::new(19);
        peer.nonce = vec![1; length];
        let answers = server.hear(peer.at, &peer.init());
        assert_eq!(error_in(&answers), Some((NotifyKind::INVALID_SYNTAX, Vec::new())), "{length}");
        assert_nothing_kept(&server);
    }
}
