//! HOSTILE 11 and 13 from the other side: what a responder, or somebody in between, says to our IKE_SA_INIT.

use super::peer::{CLIENT, SERVER, Server, address, cleartext};
use crate::counters::DropReason;
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload};
use crate::message::{Body, Header, IkeSpi, PayloadChain};
use crate::proposal::offer_ike;
use crate::{Datagram, Event};

/// An endpoint that has just sent IKE_SA_INIT, and that message.
fn begun() -> (Server, Vec<u8>) {
    let mut server = Server::new();
    let (local, remote) = (address(SERVER), address(CLIENT));
    server.endpoint.initiate(server.now, "office", "web", local, remote).unwrap();
    let sent = server.drain().remove(0).payload;
    (server, sent)
}

fn answer(request: &[u8], chain: PayloadChain, responder: u64) -> Vec<u8> {
    chain.into_message(Header::parse(request).unwrap().reply(IkeSpi::new(responder)))
}

fn say(server: &mut Server, payload: &[u8]) -> Vec<Datagram> {
    server.hear(address(CLIENT), payload)
}

fn notify(kind: NotifyKind, data: &[u8]) -> PayloadChain {
    PayloadChain::new().with(&Payload::Notify(Notify::new(kind, data)))
}

#[test]
fn hostile_11_a_cookie_and_another_group_are_taken_once_each_and_the_game_ends() {
    let (mut server, first) = begun();
    let second = say(&mut server, &answer(&first, notify(NotifyKind::COOKIE, &[7; 8]), 0)).remove(0).payload;
    let body = cleartext(&second);
    assert_eq!(body.notify(NotifyKind::COOKIE).unwrap().data, [7; 8]);
    assert_eq!(body.nonce, cleartext(&first).nonce, "all but the cookie is as it was (RFC 7296 §2.6)");
    assert_eq!(
        &first[..20],
        &second[..20]
            .iter()
            .enumerate()
            .map(|(at, octet)| if at == 16 { first[16] } else { *octet })
            .collect::<Vec<_>>()[..]
    );
    for round in 0..20 {
        let cookie = notify(NotifyKind::COOKIE, &[round; 8]);
        assert!(say(&mut server, &answer(&first, cookie, 0)).is_empty());
        let group = notify(NotifyKind::INVALID_KE_PAYLOAD, &[0, 31]);
        assert!(say(&mut server, &answer(&first, group, 0)).is_empty(), "the group that we have sent");
        let group = notify(NotifyKind::INVALID_KE_PAYLOAD, &[0, 14]);
        assert!(say(&mut server, &answer(&first, group, 0)).is_empty(), "a group that we have not offered");
    }
    assert_eq!(server.dropped(DropReason::UnexpectedResponse), 60);
    assert_eq!(server.endpoint.occupancy().initiating, 1);
}

#[test]
fn a_cookie_of_an_impossible_length_is_not_returned() {
    for length in [0, 65, 1000] {
        let (mut server, first) = begun();
        assert!(say(&mut server, &answer(&first, notify(NotifyKind::COOKIE, &vec![1; length]), 0)).is_empty());
    }
}

fn response(request: &Body<'_>, nonce: &[u8], group: u16, data: &[u8], proposal: &str) -> PayloadChain {
    let _ = request;
    PayloadChain::new()
        .with(&Payload::Sa(offer_ike(&[proposal.parse().unwrap()], &[])))
        .with(&Payload::KeyExchange(KeyExchange { group, data }))
        .with(&Payload::Nonce(nonce))
}

#[test]
fn hostile_13_our_own_nonce_sent_back_is_not_believed() {
    let (mut server, first) = begun();
    let body = cleartext(&first);
    let ours = body.nonce.unwrap();
    let chain = response(&body, ours, 31, &[9; 32], "aes128gcm16-prfsha256-x25519");
    assert!(say(&mut server, &answer(&first, chain, 5)).is_empty());
    assert_eq!(server.endpoint.occupancy().initiating, 1, "the right response may still come");
    let chain = response(&body, &[3; 32], 31, &[9; 32], "aes128gcm16-prfsha256-x25519");
    assert!(say(&mut server, &answer(&first, chain, 0)).is_empty(), "no responder SPI");
    assert_eq!(server.endpoint.occupancy().initiating, 1);
}

#[test]
fn hostile_12_a_response_with_a_useless_key_exchange_or_a_foreign_choice_ends_the_attempt() {
    for (group, data, proposal) in [
        (31, &[0; 32][..], "aes128gcm16-prfsha256-x25519"),
        (31, &[9; 31], "aes128gcm16-prfsha256-x25519"),
        (19, &[9; 64], "aes128gcm16-prfsha256-x25519"),
        (31, &[9; 32], "aes256gcm16-prfsha256-x25519"),
    ] {
        let (mut server, first) = begun();
        let chain = response(&cleartext(&first), &[3; 32], group, data, proposal);
        assert!(say(&mut server, &answer(&first, chain, 5)).is_empty());
        assert!(server.events.iter().any(|event| matches!(event, Event::InitiationFailed { .. })));
        let occupancy = server.endpoint.occupancy();
        assert_eq!((occupancy.initiating, occupancy.ike_spis, occupancy.esp_spis), (0, 0, 0));
    }
}

#[test]
fn hostile_20_a_response_to_ike_auth_that_is_not_authentic_is_not_believed() {
    let (mut server, first) = begun();
    let chain = response(&cleartext(&first), &[3; 32], 31, &[9; 32], "aes128gcm16-prfsha256-x25519");
    let auth = say(&mut server, &answer(&first, chain, 5)).remove(0).payload;
    let mut forged = auth.clone();
    forged[19] = 0x20;
    assert!(say(&mut server, &forged).is_empty());
    let cleartext_error = notify(NotifyKind::AUTHENTICATION_FAILED, &[]);
    let header = Header::parse(&auth).unwrap();
    assert!(say(&mut server, &cleartext_error.into_message(header.reply(IkeSpi::new(5)))).is_empty());
    assert_eq!(server.endpoint.occupancy().initiating, 1);
    assert_eq!((server.dropped(DropReason::NotAuthentic), server.dropped(DropReason::NotEncrypted)), (1, 1));
    // Requests have no business here.
    let mut request = auth;
    request[19] = 0;
    assert!(say(&mut server, &request).is_empty());
    assert_eq!(server.dropped(DropReason::UnexpectedExchange), 1);
}
