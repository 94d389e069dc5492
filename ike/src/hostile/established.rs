//! HOSTILE 10, 24 and 27, and silence: what happens on an IKE SA that stands.

use core::net::SocketAddr;
use core::time::Duration;

use super::peer::{PEER_ESP, PSK, Peer, Server, address, settings};
use crate::config::{ConnectionSettings, Limits};
use crate::counters::DropReason;
use crate::event::{DownReason, NATT_PORT};
use crate::message::payload::{Delete, Notify, NotifyKind, Payload, PayloadKind, ProtocolId};
use crate::message::{ExchangeType, HEADER_LEN, Header, PayloadChain};
use crate::window::NEARLY_USED_UP;
use crate::{Event, nat};

const INFO: ExchangeType = ExchangeType::Informational;

#[test]
fn hostile_24_an_old_request_gets_the_same_octets_and_is_not_done_twice() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 1);
    let chain = peer.create_child(PEER_ESP + 1, "10.0.0.1/32");
    let create = peer.next_request(ExchangeType::CreateChildSa, &chain);
    let first = server.hear(peer.at, &create);
    assert_eq!(server.children_left(), 2);
    for _ in 0..5 {
        assert_eq!(server.hear(peer.at, &create), first);
    }
    // From elsewhere too: the answer goes there, and nothing else does.
    let elsewhere = address("198.51.100.1:9999");
    let again = server.hear(elsewhere, &create);
    assert_eq!((again[0].remote, &again[0].payload), (elsewhere, &first[0].payload));
    assert_eq!(server.children_left(), 2);
    assert_eq!(server.endpoint.sas().next().unwrap().remote, peer.at);

    let next = peer.next_request(INFO, &PayloadChain::new());
    server.hear(peer.at, &next);
    assert!(server.hear(peer.at, &create).is_empty(), "before the window");
    assert_eq!(server.dropped(DropReason::OldMessageId), 1);
}

#[test]
fn hostile_24_requests_beyond_the_window_are_dropped() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 2);
    for message_id in [peer.next + 1, peer.next + 2, 1 << 31, u32::MAX] {
        let header = peer.header(INFO, message_id);
        let request = peer.seal(header, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
        assert!(server.hear(peer.at, &request).is_empty());
    }
    assert_eq!(server.dropped(DropReason::FutureMessageId), 4);
    assert_eq!(server.children_left(), 1);
}

#[test]
fn hostile_24_a_request_under_an_old_number_but_with_other_content_is_dropped() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 3);
    peer.ask(&mut server, INFO, &PayloadChain::new());
    let header = peer.header(INFO, peer.next - 1);
    let other = peer.seal(header, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
    assert!(server.hear(peer.at, &other).is_empty());
    assert_eq!(server.children_left(), 1);
}

/// Whether it asks for a new IKE SA.
fn is_rekeying(peer: &mut Peer, request: &[u8]) -> bool {
    let opened = peer.open(request);
    let body = opened.body().unwrap();
    Header::parse(request).unwrap().exchange == ExchangeType::CreateChildSa
        && body.sa.is_some_and(|sa| sa.proposals[0].protocol == ProtocolId::IKE)
}

#[test]
fn hostile_24_an_ike_sa_whose_numbers_come_to_their_end_is_replaced_in_time() {
    // By the peer's numbers: nothing until they are nearly used up.
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 17);
    server.endpoint.each_sa(|sa| sa.renumber(NEARLY_USED_UP - 2, 0));
    peer.next = NEARLY_USED_UP - 2;
    peer.ask(&mut server, INFO, &PayloadChain::new());
    let request = peer.next_request(INFO, &PayloadChain::new());
    let said = server.hear(peer.at, &request);
    assert_eq!(said.len(), 2);
    assert!(is_rekeying(&mut peer, &said[1].payload));
    // Asked once, whatever else the peer says meanwhile.
    peer.ask(&mut server, INFO, &PayloadChain::new());

    // By our own.
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 18);
    server.endpoint.each_sa(|sa| sa.renumber(2, NEARLY_USED_UP - 2));
    peer.next = 2;
    for last in [false, true] {
        let child = peer.create_child(PEER_ESP + 1 + u32::from(last), "10.0.0.1/32");
        peer.ask(&mut server, ExchangeType::CreateChildSa, &child);
        let child = *server.children_up().last().unwrap();
        server.endpoint.delete_child(server.now, child).unwrap();
        let sent = server.drain().remove(0).payload;
        let answer = peer.empty_answer(&sent);
        let said = server.hear(peer.at, &answer);
        assert_eq!(said.iter().any(|datagram| is_rekeying(&mut peer, &datagram.payload)), last);
    }
}

#[test]
fn hostile_24_the_last_number_of_all_is_good_for_one_request() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 19);
    server.endpoint.each_sa(|sa| sa.renumber(u32::MAX, u32::MAX));
    let header = peer.header(INFO, u32::MAX);
    let last = peer.seal(header, &PayloadChain::new());
    let answer = server.hear(peer.at, &last).remove(0);
    // We cannot ask for a new IKE SA any more either: this one is over, and its last words are kept.
    assert!(server.endpoint.is_idle());
    assert_eq!(server.hear(peer.at, &last), [answer]);
}

#[test]
fn hostile_24_a_captured_request_under_the_last_number_is_not_done_again() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 20);
    server.endpoint.each_sa(|sa| sa.renumber(u32::MAX, 0));
    let header = peer.header(ExchangeType::CreateChildSa, u32::MAX);
    let chain = peer.create_child(PEER_ESP + 1, "10.0.0.1/32");
    let last = peer.seal(header, &chain);
    let answer = server.hear(peer.at, &last).remove(0);
    assert_eq!(server.children_left(), 2);
    assert_eq!(server.hear(peer.at, &last), [answer]);
    for message_id in [0, 1, u32::MAX - 1, u32::MAX] {
        let header = peer.header(INFO, message_id);
        let request = peer.seal(header, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
        assert!(server.hear(peer.at, &request).is_empty());
    }
    assert_eq!((server.children_left(), server.dropped(DropReason::OldMessageId)), (2, 4));
}

#[test]
fn the_last_request_of_an_ike_sa_is_answered_again_after_its_end() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 4);
    let delete = peer.next_request(INFO, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
    let first = server.hear(peer.at, &delete);
    assert!(peer.open(&first[0].payload).body().unwrap().deletes.is_empty());
    assert!(server.endpoint.is_idle());
    assert_eq!(server.hear(peer.at, &delete), first);
    server.wait(Duration::from_secs(61));
    assert!(server.hear(peer.at, &delete).is_empty());
    assert_eq!(server.endpoint.occupancy().kept_responses, 0);
}

#[test]
fn hostile_10_delete_of_odd_protocols_and_sizes_is_invalid_syntax() {
    let known = PEER_ESP.to_be_bytes();
    for head in [[0, 4, 0, 1], [1, 4, 0, 1], [9, 4, 0, 1], [3, 4, 0, 2], [3, 2, 0, 2]] {
        let mut server = Server::new();
        let mut peer = Peer::connected(&mut server, 5);
        let body = [&head[..], &known].concat();
        let odd = Payload::Opaque { kind: PayloadKind::Delete, body: &body };
        let answer = peer.ask(&mut server, INFO, &PayloadChain::new().with(&odd));
        let body = answer.body().unwrap();
        assert_eq!(body.error().map(|error| error.kind), Some(NotifyKind::INVALID_SYNTAX), "{head:?}");
        assert!(body.deletes.is_empty(), "nothing is echoed");
    }
}

#[test]
fn deletes_of_what_is_not_there_are_answered_without_a_delete() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 6);
    let ah = Payload::Opaque { kind: PayloadKind::Delete, body: &[2, 4, 0, 1, 0xc0, 0xde, 0, 1] };
    for payload in [ah, Payload::Delete(Delete::esp(&[0, 0, 9, 9, 0, 0, 0, 0])), Payload::Delete(Delete::esp(&[]))] {
        let answer = peer.ask(&mut server, INFO, &PayloadChain::new().with(&payload));
        let body = answer.body().unwrap();
        assert!(body.deletes.is_empty() && body.error().is_none());
        assert_eq!(server.children_left(), 1);
    }
    let ours = server.children_up()[0];
    let twice = [PEER_ESP.to_be_bytes(), PEER_ESP.to_be_bytes()].concat();
    let delete = PayloadChain::new().with(&Payload::Delete(Delete::esp(&twice)));
    let answer = peer.ask(&mut server, INFO, &delete);
    assert_eq!(answer.body().unwrap().deletes[0].spis().collect::<Vec<_>>(), [ours.get()]);
    assert_eq!(server.children_left(), 0);
}

#[test]
fn hostile_25_a_child_that_both_delete_is_named_by_neither_answer() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 7);
    let ours = server.children_up()[0];
    server.endpoint.delete_child(server.now, ours).unwrap();
    let sent = server.drain();
    let theirs = PayloadChain::new().with(&Payload::Delete(Delete::esp(&PEER_ESP.to_be_bytes())));
    let answer = peer.ask(&mut server, INFO, &theirs);
    assert!(answer.body().unwrap().deletes.is_empty());
    assert_eq!(server.children_left(), 0);
    // And our own request is done with when its answer comes.
    let header = Header { is_response: true, ..peer.header(INFO, Header::parse(&sent[0].payload).unwrap().message_id) };
    let response = peer.seal(header, &PayloadChain::new());
    assert!(server.hear(peer.at, &response).is_empty());
    assert!(server.wait(Duration::from_secs(100)).is_empty());
}

/// A peer behind a NAT: its hash of its own address is not what arrives.
fn behind_nat(server: &mut Server, seed: u64) -> Peer {
    let mut peer = Peer::new(seed);
    let header = peer.init_header();
    let mut chain = peer.init_chain();
    nat::announce(&mut chain, header.spis, address("10.0.0.1:500"), address(super::peer::SERVER));
    let request = chain.into_message(header);
    let response = server.hear(peer.at, &request).remove(0).payload;
    peer.take_init(request, response);
    peer.at = address("192.0.2.1:40000");
    server.local.set_port(NATT_PORT);
    let chain = peer.auth_request(PSK);
    peer.ask(server, ExchangeType::IkeAuth, &chain);
    peer
}

fn moves(server: &Server) -> Vec<core::net::SocketAddr> {
    let moved = server.events.iter().filter_map(|event| match event {
        Event::AddressMoved { remote, .. } => Some(*remote),
        _ => None,
    });
    moved.collect()
}

#[test]
fn hostile_27_only_a_fresh_authentic_message_moves_a_mapping() {
    let mut server = Server::new();
    let mut peer = behind_nat(&mut server, 8);
    let elsewhere = address("192.0.2.1:50000");
    let request = peer.next_request(INFO, &PayloadChain::new());
    server.hear(peer.at, &request);
    // A repeated one.
    server.hear(elsewhere, &request);
    // A forged one, and one that is beyond the window.
    let mut forged = peer.next_request(INFO, &PayloadChain::new());
    *forged.last_mut().unwrap() ^= 1;
    server.hear(elsewhere, &forged);
    let header = peer.header(INFO, peer.next + 5);
    let ahead = peer.seal(header, &PayloadChain::new());
    server.hear(elsewhere, &ahead);
    assert_eq!(moves(&server), []);
    assert_eq!(server.endpoint.sas().next().unwrap().remote, peer.at);
    // A fresh one.
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(server.hear(elsewhere, &forged)[0].remote, elsewhere);
    assert_eq!(moves(&server), [elsewhere]);
    assert_eq!(server.endpoint.sas().next().unwrap().remote, elsewhere);
    // The old one again, from where the peer was: it does not move back.
    server.hear(peer.at, &request);
    server.hear(peer.at, &forged);
    assert_eq!(moves(&server), [elsewhere]);
    let spi = server.children_up()[0];
    server.endpoint.peer_moved(server.now, spi, address("192.0.2.1:60000")).unwrap();
    server.drain();
    assert_eq!(moves(&server), [elsewhere, address("192.0.2.1:60000")]);
}

#[test]
fn hostile_27_a_peer_whose_esp_comes_from_everywhere_is_followed_at_a_limited_rate() {
    let mut server = Server::new();
    behind_nat(&mut server, 8);
    let spi = server.children_up()[0];
    for port in 50_000..50_100 {
        server.endpoint.peer_moved(server.now, spi, SocketAddr::new([192, 0, 2, 1].into(), port)).unwrap();
        server.drain();
        server.wait(Duration::from_millis(10));
    }
    assert_eq!(moves(&server).len(), 10);
    let six = address("[2001:db8::1]:50000");
    server.wait(Duration::from_secs(1));
    server.endpoint.peer_moved(server.now, spi, six).unwrap();
    server.drain();
    assert_eq!(moves(&server).len(), 10, "another family is another path");
}

#[test]
fn hostile_27_a_late_message_on_a_replaced_ike_sa_leads_no_esp_astray() {
    let mut server = Server::new();
    let mut peer = behind_nat(&mut server, 14);
    let (home, elsewhere) = (peer.at, address("198.51.100.66:6666"));
    let mut old = peer.rekey_ike(&mut server, 0x1234).unwrap();
    peer.ask(&mut server, INFO, &PayloadChain::new());
    // The old one's last words were held back and come from elsewhere.
    peer.swap(&mut old);
    let delete = peer.next_request(INFO, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
    peer.swap(&mut old);
    let said = server.hear(elsewhere, &delete);
    assert_eq!(moves(&server), []);
    assert_eq!(server.endpoint.sas().next().unwrap().remote, home);
    // The answer goes to where they came from, and so does a question, which is put to the peer as well.
    assert_eq!(said.iter().map(|datagram| datagram.remote).collect::<Vec<_>>(), [elsewhere, elsewhere, home]);
    assert_eq!(said[1].payload, said[2].payload);
    // The peer answers from home, and so much for elsewhere.
    let answer = peer.empty_answer(&said[2].payload);
    server.hear(home, &answer);
    server.endpoint.rekey_child(server.now, server.children_up()[0]).unwrap();
    assert!(server.drain().iter().all(|datagram| datagram.remote == home));
    assert_eq!(moves(&server), []);
}

#[test]
fn hostile_27_a_peer_whose_nat_moves_it_while_the_ike_sa_is_replaced_is_found_again() {
    let dead_in = ConnectionSettings { dpd_delay: Some(Duration::from_secs(30)), ..settings() };
    for is_asked_already in [false, true] {
        let mut server = Server::with(Limits::default(), dead_in.clone());
        let mut peer = behind_nat(&mut server, 15);
        let elsewhere = address("192.0.2.1:41000");
        let mut old = peer.rekey_ike(&mut server, 0x1234).unwrap();
        let mut said = if is_asked_already { server.wait(Duration::from_secs(30)) } else { Vec::new() };
        peer.swap(&mut old);
        let delete = peer.next_request(INFO, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
        peer.swap(&mut old);
        said.extend(server.hear(elsewhere, &delete));
        said.extend(server.wait(Duration::from_secs(1)));
        // What is sent to where it was is lost; what is sent to where it is it answers.
        let question = said.iter().rfind(|datagram| datagram.remote == elsewhere).unwrap().payload.clone();
        let answer = peer.empty_answer(&question);
        assert_eq!(moves(&server), []);
        server.hear(elsewhere, &answer);
        assert_eq!(moves(&server), [elsewhere]);
        assert!(server.wait(Duration::from_secs(29)).is_empty(), "it lives");
    }
}

#[test]
fn an_ike_sa_that_inherits_knows_where_the_peer_has_gone_meanwhile() {
    let mut server = Server::new();
    let mut peer = behind_nat(&mut server, 16);
    let elsewhere = address("192.0.2.1:41000");
    let child = server.children_up()[0];
    server.endpoint.rekey_ike(server.now, child).unwrap();
    let ours = server.drain().remove(0).payload;
    // The peer rekeys as well, is moved by its NAT, and refuses what we began.
    let mut old = peer.rekey_ike(&mut server, 0x1234).unwrap();
    peer.swap(&mut old);
    peer.at = elsewhere;
    peer.ask(&mut server, INFO, &PayloadChain::new());
    assert_eq!(moves(&server), [elsewhere]);
    let refusal = Payload::Notify(Notify::new(NotifyKind::TEMPORARY_FAILURE, &[]));
    let asked = Header::parse(&ours).unwrap();
    let header = Header { is_response: true, ..peer.header(asked.exchange, asked.message_id) };
    let refused = peer.seal(header, &PayloadChain::new().with(&refusal));
    server.hear(elsewhere, &refused);
    let current = server.endpoint.sas().find(|sa| sa.is_current).unwrap();
    assert_eq!((current.spis.initiator, current.remote), (crate::message::IkeSpi::new(0x1234), elsewhere));
    server.endpoint.delete_child(server.now, child).unwrap();
    assert_eq!(server.drain()[0].remote, elsewhere);
}

#[test]
fn hostile_27_a_peer_that_is_not_behind_a_nat_does_not_move() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 9);
    let request = peer.next_request(INFO, &PayloadChain::new());
    let elsewhere = address("198.51.100.1:500");
    assert_eq!(server.hear(elsewhere, &request)[0].remote, elsewhere, "the answer goes to where the request came from");
    assert_eq!(moves(&server), []);
    assert_eq!(server.endpoint.sas().next().unwrap().remote, peer.at);
}

#[test]
fn a_silent_peer_is_asked_and_then_counts_as_dead() {
    let limits = Limits::default();
    let mut server =
        Server::with(limits, ConnectionSettings { dpd_delay: Some(Duration::from_secs(30)), ..settings() });
    let mut peer = Peer::connected(&mut server, 10);
    assert!(server.wait(Duration::from_secs(29)).is_empty());
    // Whatever is heard of it, by IKE or ESP, puts the question off.
    peer.ask(&mut server, INFO, &PayloadChain::new());
    assert!(server.wait(Duration::from_secs(29)).is_empty());
    let spi = server.children_up()[0];
    server.endpoint.peer_heard(server.now, spi, server.now).unwrap();
    assert!(server.wait(Duration::from_secs(20)).is_empty());
    // ESP that was heard of late counts from when it came, and what is older than that counts for nothing.
    server.endpoint.peer_heard(server.now, spi, server.now.checked_sub(Duration::from_secs(5)).unwrap()).unwrap();
    server.endpoint.peer_heard(server.now, spi, server.now.checked_sub(Duration::from_secs(15)).unwrap()).unwrap();
    assert!(server.endpoint.unheard(server.now).is_empty());
    assert!(server.wait(Duration::from_secs(24)).is_empty());
    let [silent] = server.endpoint.unheard(server.now + Duration::from_secs(1))[..] else { panic!("one child") };
    assert_eq!(silent.inbound, spi);
    let question = server.wait(Duration::from_secs(1)).remove(0).payload;
    let header = Header::parse(&question).unwrap();
    assert!(peer.open(&question).body().unwrap() == crate::message::Body::default());
    let answer = peer.seal(Header { is_response: true, ..peer.header(INFO, header.message_id) }, &PayloadChain::new());
    server.hear(peer.at, &answer);
    assert!(server.wait(Duration::from_secs(29)).is_empty());
    // From here on it says nothing any more.
    let mut asked = Vec::new();
    while server.endpoint.occupancy().ike_sas > 0 {
        asked.extend(server.wait(Duration::from_secs(1)));
    }
    assert_eq!(asked.len(), 6);
    assert!(asked.windows(2).all(|pair| pair[0] == pair[1]), "the same octets each time");
    let down = server.events.iter().any(|event| matches!(event, Event::IkeDown { reason: DownReason::PeerDead, .. }));
    assert!(down && server.children_left() == 0);
    assert_eq!(server.endpoint.occupancy().esp_spis, 0);
}

#[test]
fn responses_to_nothing_and_forged_responses_change_nothing() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 11);
    let header = Header { is_response: true, ..peer.header(INFO, 0) };
    let stray = peer.seal(header, &PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA)));
    assert!(server.hear(peer.at, &stray).is_empty());
    assert_eq!(server.dropped(DropReason::UnexpectedResponse), 1);
    let spi = server.children_up()[0];
    server.endpoint.rekey_child(server.now, spi).unwrap();
    server.drain();
    // Of another exchange, and not authentic.
    assert!(server.hear(peer.at, &stray).is_empty());
    let mut forged = peer.seal(Header { exchange: ExchangeType::CreateChildSa, ..header }, &PayloadChain::new());
    *forged.last_mut().unwrap() ^= 1;
    assert!(server.hear(peer.at, &forged).is_empty());
    assert_eq!((server.endpoint.occupancy().ike_sas, server.children_left()), (1, 1));
    assert!(!server.wait(Duration::from_secs(1)).is_empty(), "the request is still waiting");
}

#[test]
fn a_response_that_breaks_the_protocol_ends_the_ike_sa() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 12);
    let spi = server.children_up()[0];
    server.endpoint.rekey_child(server.now, spi).unwrap();
    server.drain();
    let header = Header { is_response: true, exchange: ExchangeType::CreateChildSa, ..peer.header(INFO, 0) };
    let response = peer.seal(header, &PayloadChain::new());
    assert!(response.len() > HEADER_LEN && server.hear(peer.at, &response).is_empty());
    assert!(server.endpoint.is_idle());
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.esp_spis, occupancy.ike_spis), (0, 0));
}

#[test]
fn hard_lifetime_of_a_child_ends_it_at_once_and_the_peer_is_told() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 13);
    let spi = server.children_up()[0];
    server.endpoint.child_expired(server.now, spi).unwrap();
    let sent = server.drain();
    assert_eq!(server.children_left(), 0);
    let opened = peer.open(&sent[0].payload);
    assert_eq!(opened.body().unwrap().deletes[0].spis().collect::<Vec<_>>(), [spi.get()]);
    assert!(server.endpoint.child_expired(server.now, spi).is_err());
}
