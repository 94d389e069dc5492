//! HOSTILE 13: a peer's nonce equal to ours, in every exchange that has nonces and on both sides.
//!
//! As responders we draw our nonce after the peer's has come, so nobody can send it back but by knowing our chance. The
//! same seed twice stands for that.

use super::peer::{PEER_ESP, Peer, Server, with_child};
use crate::Event;
use crate::event::DownReason;
use crate::message::payload::{Notify, NotifyKind, Payload, ProtocolId, TrafficSelectors};
use crate::message::{Body, ExchangeType, Header, PayloadChain};
use crate::proposal::offer_esp;

const CREATE: ExchangeType = ExchangeType::CreateChildSa;

/// What the same server answers to a request with another nonce, and to one with the nonce that it is about to draw.
fn reflected(request: impl Fn(&mut Peer, &[u8]) -> PayloadChain) -> (Option<NotifyKind>, Server) {
    let ask = |nonce: &[u8]| {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 1);
        let chain = request(&mut peer, nonce);
        let answer = peer.ask(&mut server, CREATE, &chain);
        let body = answer.body().unwrap();
        (body.nonce.map(<[u8]>::to_vec), body.error().map(|error| error.kind), server)
    };
    let (ours, error, _) = ask(&[7; 32]);
    assert_eq!(error, None);
    let (_, error, server) = ask(&ours.unwrap());
    (error, server)
}

fn assert_over(server: &Server) {
    assert!(server.endpoint.is_idle() && server.children_left() == 0);
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.esp_spis, occupancy.ike_spis), (0, 0));
    let down = |event: &Event| matches!(event, Event::IkeDown { reason: DownReason::ProtocolError, .. });
    assert!(server.events.iter().any(down));
}

#[test]
fn hostile_13_a_request_with_our_own_nonce_is_invalid_syntax() {
    let further = |_: &mut Peer, nonce: &[u8]| {
        with_child(PayloadChain::new().with(&Payload::Nonce(nonce)), PEER_ESP + 1, "10.0.0.1/32")
    };
    let rekey_child = |_: &mut Peer, nonce: &[u8]| {
        let spi = PEER_ESP.to_be_bytes();
        let rekey = Notify { protocol: ProtocolId::ESP, spi: &spi, kind: NotifyKind::REKEY_SA, data: &[] };
        let chain = PayloadChain::new().with(&Payload::Notify(rekey)).with(&Payload::Nonce(nonce));
        with_child(chain, PEER_ESP + 1, "10.0.0.1/32")
    };
    let rekey_ike = |peer: &mut Peer, nonce: &[u8]| peer.rekey_request(0x1000, nonce).1;
    for (error, server) in [reflected(further), reflected(rekey_child), reflected(rekey_ike)] {
        assert_eq!(error, Some(NotifyKind::INVALID_SYNTAX));
        assert_over(&server);
    }
}

/// Lets the server ask, and answers with what `answer` makes of its request and a nonce: one of the peer's own, then
/// the server's.
fn answered(
    begin: impl Fn(&mut Server),
    answer: impl Fn(&mut Peer, &Body<'_>, &[u8]) -> PayloadChain,
) -> (Server, Server) {
    let play = |reflects: bool| {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 2);
        begin(&mut server);
        let sent = server.drain().remove(0).payload;
        let asked = peer.open(&sent);
        let body = asked.body().unwrap();
        let nonce = if reflects { body.nonce.unwrap().to_vec() } else { vec![7; 32] };
        let chain = answer(&mut peer, &body, &nonce);
        let header = Header::parse(&sent).unwrap();
        let header = Header { is_response: true, ..peer.header(header.exchange, header.message_id) };
        let response = peer.seal(header, &chain);
        server.hear(peer.at, &response);
        server
    };
    (play(false), play(true))
}

#[test]
fn hostile_13_a_response_with_our_own_nonce_ends_the_ike_sa() {
    let (honest, reflecting) = answered(
        |server| {
            let child = server.children_up()[0];
            server.endpoint.rekey_child(server.now, child).unwrap();
        },
        |_, _, nonce| {
            let spi = (PEER_ESP + 1).to_be_bytes();
            PayloadChain::new()
                .with(&Payload::Sa(offer_esp(&["aes128gcm16".parse().unwrap()], &spi, None)))
                .with(&Payload::Nonce(nonce))
                .with(&Payload::TsInitiator(TrafficSelectors(vec!["203.0.113.80/32".parse().unwrap()])))
                .with(&Payload::TsResponder(TrafficSelectors(vec!["10.0.0.1/32".parse().unwrap()])))
        },
    );
    assert_eq!(honest.children_up().len(), 2);
    assert_eq!(reflecting.children_up().len(), 1);
    assert_over(&reflecting);

    let (honest, reflecting) = answered(
        |server| {
            let child = server.children_up()[0];
            server.endpoint.rekey_ike(server.now, child).unwrap();
        },
        |peer, _, nonce| peer.rekey_request(0x1000, nonce).1,
    );
    assert_eq!(honest.endpoint.counters().ike_rekeyed, 1);
    assert_eq!(reflecting.endpoint.counters().ike_rekeyed, 0);
    assert_over(&reflecting);
}
