//! HOSTILE 14 to 18: floods.

use core::net::SocketAddr;
use core::time::Duration;

use rand_core::Rng;

use super::peer::{CLIENT, PSK, Peer, Server, address, cleartext, cookie_in, settings};
use crate::config::Limits;
use crate::counters::DropReason;
use crate::message::payload::PayloadKind;
use crate::message::{ExchangeType, PayloadChain};

/// Where the nonce of [`Peer::init`] ends: at the end of the message.
const NONCE_LEN: usize = 32;

fn spoofed(number: u32) -> SocketAddr {
    SocketAddr::from((number.wrapping_mul(0x9e37_79b9).to_be_bytes(), 500))
}

#[test]
fn hostile_14_a_million_requests_without_cookie_cost_no_key_exchange_and_no_memory() {
    let mut server = Server::new();
    let limits = Limits::default();
    let mut message = Peer::new(1).init();
    let nonce_at = message.len() - NONCE_LEN;
    for number in 0..1_000_000_u32 {
        message[..4].copy_from_slice(&(number + 1).to_be_bytes());
        message[nonce_at..nonce_at + 4].copy_from_slice(&number.to_be_bytes());
        let answers = server.hear(spoofed(number), &message);
        assert!(answers.len() <= 1);
        if number % 100_000 == 99_999 {
            let occupancy = server.endpoint.occupancy();
            assert_eq!(occupancy.half_open, limits.cookie_threshold);
            assert_eq!(occupancy.kept_responses, limits.cookie_threshold);
            assert_eq!((occupancy.ike_spis, occupancy.esp_spis), (limits.cookie_threshold, 0));
            assert_eq!(server.endpoint.counters().key_exchanges, limits.cookie_threshold as u64);
        }
    }
    let asked = 1_000_000 - limits.cookie_threshold as u64;
    assert_eq!(server.endpoint.counters().cookies_sent, asked);
    // Once the flood is over everything is given back.
    server.wait(Duration::from_secs(61));
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.half_open, occupancy.kept_responses, occupancy.ike_spis), (0, 0, 0));
}

#[test]
fn hostile_14_a_cookie_counts_for_its_own_sender_only() {
    let mut server = Server::with(Limits { cookie_threshold: 0, ..Limits::default() }, settings());
    let peer = Peer::new(2);
    let cookie = cookie_in(&server.hear(peer.at, &peer.init())[0].payload).unwrap();
    let returned = peer.init_with_cookie(&cookie);
    let mut other_spi = returned.clone();
    other_spi[0] ^= 1;
    let mut other_nonce = returned.clone();
    *other_nonce.last_mut().unwrap() ^= 1;
    for (from, message) in [(address("192.0.2.2:500"), &returned), (peer.at, &other_spi), (peer.at, &other_nonce)] {
        let answer = server.hear(from, message).remove(0).payload;
        assert_ne!(cookie_in(&answer), Some(cookie.clone()), "a new cookie");
        assert!(cookie_in(&answer).is_some());
    }
    assert_eq!(server.endpoint.counters().key_exchanges, 0);
    let answer = server.hear(peer.at, &returned).remove(0).payload;
    assert!(cleartext(&answer).key_exchange.is_some());
}

#[test]
fn hostile_15_clients_behind_one_address_are_asked_for_cookies_and_never_locked_out() {
    let mut server = Server::new();
    let limits = Limits::default();
    let mut asked = 0;
    for number in 0..200_u16 {
        let mut peer = Peer::new(u64::from(number));
        peer.at.set_port(1024 + number);
        peer.begin(&mut server);
        asked = server.endpoint.counters().cookies_sent;
    }
    assert_eq!(asked, 200 - limits.cookie_threshold_per_address as u64);
    assert_eq!(server.endpoint.occupancy().half_open, 200);
    // Somebody else is not asked.
    let before = asked;
    let mut peer = Peer::new(1_000);
    peer.at = address("192.0.2.99:500");
    server.wait(Duration::from_secs(31));
    peer.connect(&mut server);
    assert_eq!(server.endpoint.counters().cookies_sent, before);
}

#[test]
fn hostile_15_one_address_that_fills_the_table_gives_way_to_others() {
    let limits = Limits { half_open: 20, cookie_threshold: 5, ..Limits::default() };
    let mut server = Server::with(limits, settings());
    for number in 0..40_u16 {
        let mut peer = Peer::new(u64::from(number));
        peer.at.set_port(1024 + number);
        let answers = server.hear(peer.at, &peer.init());
        if let Some(cookie) = answers.first().and_then(|answer| cookie_in(&answer.payload)) {
            server.hear(peer.at, &peer.init_with_cookie(&cookie));
        }
    }
    assert_eq!(server.endpoint.occupancy().half_open, 20);
    assert_eq!(server.dropped(DropReason::HalfOpenFull), 20);
    for number in 0..19 {
        let mut peer = Peer::new(1_000 + number);
        peer.at = SocketAddr::from(([198, 51, 100, number as u8], 500));
        peer.begin(&mut server);
    }
    assert_eq!(server.endpoint.occupancy().half_open, 20);
    assert_eq!(server.endpoint.occupancy().ike_spis, 20);
}

#[test]
fn hostile_16_a_repeated_ike_sa_init_gets_the_same_octets_and_no_second_state() {
    let mut server = Server::new();
    let mut peer = Peer::new(3);
    let request = peer.init();
    let first = server.hear(peer.at, &request);
    for _ in 0..10 {
        assert_eq!(server.hear(peer.at, &request), first);
    }
    assert_eq!((server.endpoint.occupancy().half_open, server.endpoint.counters().key_exchanges), (1, 1));
    // Also when it comes late, after the IKE SA stands.
    peer.take_init(request.clone(), first[0].payload.clone());
    let auth = peer.auth_request(PSK);
    let auth = peer.next_request(ExchangeType::IkeAuth, &auth);
    let answer = server.hear(peer.at, &auth);
    assert_eq!(server.hear(peer.at, &request), first);
    assert_eq!(server.hear(peer.at, &auth), answer);
    assert_eq!((server.endpoint.occupancy().half_open, server.endpoint.occupancy().ike_sas), (0, 1));
}

#[test]
fn hostile_16_the_responder_never_repeats_itself_unasked() {
    let mut server = Server::new();
    let peer = Peer::new(4);
    assert_eq!(server.hear(peer.at, &peer.init()).len(), 1);
    for _ in 0..100 {
        assert!(server.wait(Duration::from_secs(1)).is_empty());
    }
    assert_eq!(server.endpoint.occupancy().half_open, 0);
}

#[test]
fn hostile_17_ike_auth_that_is_not_authentic_leaves_the_half_open_ike_sa_as_it_is() {
    let mut server = Server::new();
    let mut peer = Peer::new(5);
    peer.begin(&mut server);
    let chain = peer.auth_request(PSK);
    let honest = peer.next_request(ExchangeType::IkeAuth, &chain);
    let mut forged = honest.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 1..Limits::default().auth_attempts {
        assert!(server.hear(peer.at, &forged).is_empty());
    }
    assert_eq!(server.endpoint.occupancy().half_open, 1);
    let answers = server.hear(peer.at, &honest);
    assert!(peer.open(&answers[0].payload).body().unwrap().auth.is_some());
}

#[test]
fn hostile_17_attempts_are_bounded() {
    let mut server = Server::new();
    let mut peer = Peer::new(6);
    peer.begin(&mut server);
    let chain = peer.auth_request(PSK);
    let honest = peer.next_request(ExchangeType::IkeAuth, &chain);
    let mut forged = honest.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..Limits::default().auth_attempts {
        server.hear(peer.at, &forged);
    }
    assert_eq!((server.endpoint.occupancy().half_open, server.endpoint.occupancy().ike_spis), (0, 0));
    assert_eq!(server.dropped(DropReason::AttemptsExhausted), 1);
    assert!(server.hear(peer.at, &honest).is_empty());
}

/// That the process does not grow either is tried in `tests/memory.rs`, with more of them.
#[test]
fn hostile_18_two_hundred_thousand_datagrams_that_deserve_no_answer_leave_nothing_behind() {
    let mut server = Server::new();
    let mut peer = Peer::connected(&mut server, 7);
    let before = server.endpoint.occupancy();
    let honest = peer.next_request(ExchangeType::Informational, &PayloadChain::new());
    let mut octets = vec![0; 200];
    for number in 0..200_000_u32 {
        peer.rng().fill_bytes(&mut octets);
        let mut message = match number % 4 {
            // Anything at all.
            0 => octets.clone(),
            // A well-framed message of another exchange, IKE SA or version.
            1 => [&honest[..28], &octets[..100]].concat(),
            // Our own IKE SA, not authentic.
            2 => [&honest[..32], &octets[..60]].concat(),
            // The right octets under another message ID.
            _ => honest.clone(),
        };
        let length = message.len() as u32;
        message[24..28].copy_from_slice(&length.to_be_bytes());
        match number % 4 {
            1 => message[..8].copy_from_slice(&octets[..8]),
            2 => message[30..32].copy_from_slice(&(length as u16 - 28).to_be_bytes()),
            3 => message[20..24].copy_from_slice(&octets[..4]),
            // Later versions would be answered, some of them.
            _ => (message[17], message[18]) = (octets[17] & 0x1f, octets[18] | 0x80),
        }
        assert!(server.hear(spoofed(number), &message).is_empty(), "{number}");
    }
    assert_eq!(server.endpoint.occupancy(), before);
    assert!(server.dropped(DropReason::NotAuthentic) > 0);
    let answers = server.hear(peer.at, &honest);
    assert_eq!(answers[0].payload[16], PayloadKind::Encrypted.number());
    assert_eq!(answers[0].remote, address(CLIENT));
}
