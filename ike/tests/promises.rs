//! Which messages promise that the peer may send on a CHILD_SA: these, and no others.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::EndpointConfig;
use ike::message::{ExchangeType, Header};
use ike::{Datagram, Event};
use ipsec::Spi;
use pair::{CLIENT, Pair, SERVER, Side, address, client_settings, server_settings};

/// What a side has said since the `from`-th datagram of all, and what each promised.
fn said(pair: &Pair, side: Side, from: usize) -> Vec<(ExchangeType, bool, Option<Spi>)> {
    let by_side = pair.sent[from..].iter().filter(|(by, _)| *by == side);
    let read = |datagram: &Datagram| {
        let header = Header::parse(&datagram.payload).unwrap();
        (header.exchange, header.is_response, datagram.promises)
    };
    by_side.map(|(_, datagram)| read(datagram)).collect()
}

use ExchangeType::{CreateChildSa, IkeAuth, IkeSaInit, Informational};

#[test]
fn the_response_that_grants_the_first_child_promises_it_and_nothing_else_does() {
    let pair = Pair::connected(60);
    let granted = *pair.at_server.children.keys().next().unwrap();
    assert_eq!(said(&pair, Side::Server, 0), [(IkeSaInit, true, None), (IkeAuth, true, Some(granted))]);
    assert_eq!(said(&pair, Side::Client, 0), [(IkeSaInit, false, None), (IkeAuth, false, None)]);
}

#[test]
fn in_a_rekeying_the_responder_promises_by_its_answer_and_the_initiator_by_deleting_the_old_one() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(61);
        let (old, now, from) = (pair.only_child(side), pair.now, pair.sent.len());
        pair.endpoint(side).rekey_child(now, old).unwrap();
        pair.run(Duration::from_secs(1));
        let (ours, theirs) = (pair.only_child(side), pair.only_child(side.other()));
        let asked = [(CreateChildSa, false, None), (Informational, false, Some(ours))];
        let answered = [(CreateChildSa, true, Some(theirs)), (Informational, true, None)];
        assert_eq!(said(&pair, side, from), asked);
        assert_eq!(said(&pair, side.other(), from), answered);
    }
}

#[test]
fn what_makes_no_child_usable_promises_nothing() {
    let mut settings = client_settings();
    settings.dpd_delay = Some(Duration::from_secs(5));
    let mut pair = Pair::with(62, EndpointConfig::default(), settings, server_settings());
    pair.connect();
    let (child, now, from) = (pair.only_child(Side::Client), pair.now, pair.sent.len());
    pair.client.rekey_ike(now, child).unwrap();
    pair.run(Duration::from_secs(20));
    let now = pair.now;
    pair.client.delete_child(now, child).unwrap();
    pair.run(Duration::from_secs(1));
    pair.client.initiate_shutdown(now);
    pair.run(Duration::from_secs(1));
    assert!(pair.sent[from..].len() > 10);
    assert!(pair.sent[from..].iter().all(|(_, datagram)| datagram.promises.is_none()));
}

#[test]
fn a_message_that_is_sent_again_promises_the_same_by_the_same_octets() {
    let mut pair = Pair::new(63);
    let now = pair.now;
    pair.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).unwrap();
    // The response is lost as long as it is held back, and the client asks again and again.
    let end = now + Duration::from_secs(10);
    while pair.now < end && pair.step(end) {
        pair.flying.retain(|_, (to, datagram)| *to == Side::Server || datagram.promises.is_none());
        pair.flying.retain(|_, (to, datagram)| {
            *to == Side::Server || Header::parse(&datagram.payload).unwrap().exchange == IkeSaInit
        });
    }
    let granted = *pair.at_server.children.keys().next().unwrap();
    let answers: Vec<&Datagram> =
        pair.sent.iter().filter(|(_, sent)| sent.promises.is_some()).map(|(_, s)| s).collect();
    assert!(answers.len() > 2, "{}", answers.len());
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.promises == Some(granted)));
    pair.run(Duration::from_secs(10));
    pair.assert_children(1);
}

#[test]
fn every_part_of_a_fragmented_answer_promises_the_same() {
    let mut config = EndpointConfig::default();
    config.limits.message_bytes = 120;
    let mut pair = Pair::with(64, config, client_settings(), server_settings());
    pair.connect();
    pair.assert_children(1);
    let granted = *pair.at_server.children.keys().next().unwrap();
    let parts = said(&pair, Side::Server, 0);
    assert!(parts.len() > 2);
    assert!(parts[1..].iter().all(|part| *part == (IkeAuth, true, Some(granted))), "{parts:?}");
}

#[test]
fn an_sa_that_cannot_be_used_after_all_is_deleted_by_a_request_that_nothing_holds_back() {
    let mut pair = Pair::new(65);
    let now = pair.now;
    pair.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).unwrap();
    // The owner of the server cannot install it, and says so before the response has left.
    let granted = loop {
        assert!(pair.step(now + Duration::from_secs(2)));
        if let Some(granted) = pair.at_server.children.keys().next() {
            break *granted;
        }
    };
    let now = pair.now;
    pair.server.delete_child(now, granted).unwrap();
    while let Some(event) = pair.server.poll_event() {
        assert!(!matches!(event, Event::IkeDown { .. }));
    }
    pair.run(Duration::from_secs(2));
    pair.assert_children(0);
    pair.assert_no_leak();
    assert_eq!(said(&pair, Side::Server, 0).last(), Some(&(Informational, false, None)));
}
