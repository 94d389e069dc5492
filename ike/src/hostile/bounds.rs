//! HOSTILE 18, 26 and 41: what a peer that has proven who it is can make us keep.

use core::time::Duration;

use super::peer::{PEER_ESP, PSK, Peer, Predecessor, Server, address, settings};
use crate::config::{ConnectionSettings, Limits};
use crate::counters::DropReason;
use crate::event::DownReason;
use crate::message::payload::{Delete, Notify, NotifyKind, Payload};
use crate::message::{ExchangeType, Header, PayloadChain};
use crate::{Datagram, Event};

const INFO: ExchangeType = ExchangeType::Informational;

/// Another peer, at its own address.
fn other(number: u8, id: &str) -> Peer {
    let mut peer = Peer::new(1_000 + u64::from(number));
    peer.id = id.parse().unwrap();
    peer.at = address(&format!("198.51.100.{number}:500"));
    peer
}

fn delete_ike_sa() -> PayloadChain {
    PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA))
}

/// Says something on an IKE SA that was left.
fn say_on(peer: &mut Peer, old: &mut Predecessor, server: &mut Server, chain: &PayloadChain) -> Vec<Datagram> {
    peer.swap(old);
    let request = peer.next_request(INFO, chain);
    let said = server.hear(peer.at, &request);
    peer.swap(old);
    said
}

#[test]
fn hostile_26_replacing_the_ike_sa_without_end_and_without_deleting_leaves_few() {
    let limits = Limits { ike_sas: 3, ..Limits::default() };
    let most = 1 + limits.replaced_ike_sas;
    let mut server = Server::with(limits, settings());
    let mut peer = Peer::connected(&mut server, 1);
    let mut left = Vec::new();
    for number in 0..500_u64 {
        left.push(peer.rekey_ike(&mut server, 0x1000 + number).unwrap());
        let occupancy = server.endpoint.occupancy();
        assert_eq!(occupancy.ike_sas, most.min(2 + number as usize));
        assert_eq!((occupancy.ike_spis, occupancy.esp_spis), (occupancy.ike_sas, 1));
        server.now += Duration::from_millis(10);
    }
    // The youngest are still there, and the one in use works.
    for old in &mut left[499..] {
        assert_eq!(say_on(&mut peer, old, &mut server, &PayloadChain::new()).len(), 1);
    }
    assert!(say_on(&mut peer, &mut left[497], &mut server, &PayloadChain::new()).is_empty());
    let further = peer.create_child(PEER_ESP + 1, "10.0.0.1/32");
    assert_eq!(peer.ask_for_error(&mut server, ExchangeType::CreateChildSa, &further), None);
    assert!(!server.events.iter().any(|event| matches!(event, Event::IkeDown { .. })));
}

#[test]
fn an_ike_sa_that_goes_to_make_room_is_deleted_at_the_peer() {
    let mut server = Server::with(Limits { replaced_ike_sas: 1, ..Limits::default() }, settings());
    let mut peer = Peer::connected(&mut server, 2);
    let mut first = peer.rekey_ike(&mut server, 0x1000).unwrap();
    server.now += Duration::from_millis(10);
    let (_, chain) = peer.rekey_request(0x1001, &[7; 32]);
    let request = peer.next_request(ExchangeType::CreateChildSa, &chain);
    let said = server.hear(peer.at, &request);
    assert_eq!(said.len(), 2);
    peer.swap(&mut first);
    let header = Header::parse(&said[1].payload).unwrap();
    assert_eq!((header.spis, header.is_response), (peer.spis, false));
    assert_eq!(peer.open(&said[1].payload).body().unwrap().deletes, [Delete::IKE_SA]);
    assert!(server.wait(Duration::from_secs(59)).is_empty(), "said once");
}

#[test]
fn hostile_41_in_a_full_table_ike_sas_are_replaced_from_a_reserve() {
    let mut server = Server::with(Limits { ike_sas: 8, ..Limits::default() }, settings());
    let mut peers: Vec<Peer> = (0..8).map(|number| other(number, &format!("peer{number}.example.com"))).collect();
    peers.iter_mut().for_each(|peer| peer.connect(&mut server));
    let mut old = peers[0].rekey_ike(&mut server, 0x1000).unwrap();
    peers[1].rekey_ike(&mut server, 0x1001).unwrap();
    assert_eq!(server.endpoint.occupancy().ike_sas, 10);
    assert_eq!(peers[2].rekey_ike(&mut server, 0x1002).err(), Some(NotifyKind::TEMPORARY_FAILURE));
    // We keep to it as well.
    let child = server.children_up()[3];
    server.endpoint.rekey_ike(server.now, child).unwrap();
    assert!(server.drain().is_empty());
    let mut new = other(99, "new.example.com");
    new.begin(&mut server);
    let auth = new.auth_request(PSK);
    let auth = new.next_request(ExchangeType::IkeAuth, &auth);
    assert!(server.hear(new.at, &auth).is_empty());
    assert_eq!(server.dropped(DropReason::SaTableFull), 1);
    assert_eq!((server.endpoint.occupancy().ike_sas, server.endpoint.occupancy().half_open), (10, 1));
    // One place is given back, and whoever asks first has it.
    say_on(&mut peers[0], &mut old, &mut server, &delete_ike_sa());
    let sent = server.wait(Duration::from_secs(5));
    assert_eq!((sent.len(), sent[0].remote), (1, peers[3].at));
    peers[2].rekey_ike(&mut server, 0x1002).unwrap();
    assert_eq!(server.endpoint.occupancy().ike_sas, 10);
}

#[test]
fn hostile_41_one_identity_does_not_take_every_ike_sa() {
    let limits = Limits { ike_sas: 6, ike_sas_per_identity: 4, ..Limits::default() };
    let mut server = Server::with(limits, settings());
    let mut greedy: Vec<Peer> = (0..50).map(|number| other(number, "greedy.example.com")).collect();
    for (number, peer) in greedy.iter_mut().enumerate() {
        peer.begin(&mut server);
        let auth = peer.auth_request(PSK);
        assert!(peer.converse(&mut server, ExchangeType::IkeAuth, &auth).body().unwrap().auth.is_some());
        assert_eq!(server.endpoint.occupancy().ike_sas, 4.min(1 + number));
        assert_eq!(server.children_left(), 4.min(1 + number));
    }
    // The oldest went, and were told so.
    let downs = server.events.iter().filter_map(|event| match event {
        Event::IkeDown { peer, reason } => Some((peer.0, *reason)),
        _ => None,
    });
    assert_eq!(downs.collect::<Vec<_>>(), (1..=46).map(|peer| (peer, DownReason::Crowded)).collect::<Vec<_>>());
    greedy[49].ask(&mut server, INFO, &PayloadChain::new());
    let mut one_more = other(50, "greedy.example.com");
    one_more.begin(&mut server);
    let auth = one_more.auth_request(PSK);
    let request = one_more.next_request(ExchangeType::IkeAuth, &auth);
    let said = server.hear(one_more.at, &request);
    assert_eq!(said.iter().map(|datagram| datagram.remote).collect::<Vec<_>>(), [greedy[46].at, one_more.at]);
    assert_eq!(greedy[46].open(&said[0].payload).body().unwrap().deletes, [Delete::IKE_SA]);
    // There is room for others.
    other(60, "honest.example.com").connect(&mut server);
    other(61, "modest.example.com").connect(&mut server);
    assert_eq!(server.endpoint.occupancy().ike_sas, 6);
    assert!(!server.events.iter().any(|event| matches!(event, Event::IkeDown { peer, .. } if peer.0 > 47)));
}

#[test]
fn an_identity_that_is_at_its_limit_takes_its_own_places_only_and_only_in_that_connection() {
    let limits = Limits { ike_sas: 3, ike_sas_per_identity: 2, ..Limits::default() };
    let mut server = Server::with(limits, settings());
    let mut peers = [other(1, "a.example.com"), other(2, "b.example.com"), other(3, "a.example.com")];
    peers.iter_mut().for_each(|peer| peer.connect(&mut server));
    // A full table is no bar to one whose own oldest goes, nor to one that says that it has none.
    let mut back = other(4, "a.example.com");
    back.begin(&mut server);
    let auth = back.auth_request(PSK);
    back.converse(&mut server, ExchangeType::IkeAuth, &auth);
    let mut anew = other(5, "b.example.com");
    anew.begin(&mut server);
    let auth = anew.auth_request(PSK).with(&Payload::Notify(Notify::new(NotifyKind::INITIAL_CONTACT, &[])));
    anew.ask(&mut server, ExchangeType::IkeAuth, &auth);
    let mut names: Vec<_> = server.endpoint.sas().map(|sa| (sa.peer.0, sa.peer_name.to_string())).collect();
    names.sort();
    assert_eq!(names, [(3, "a.example.com"), (4, "a.example.com"), (5, "b.example.com")].map(|(n, s)| (n, s.into())));
    // A connection's own limit goes before the one for all.
    let one_each = ConnectionSettings { ike_sas_per_identity: Some(1), ..settings() };
    let mut server = Server::with(Limits::default(), one_each.clone());
    other(1, "a.example.com").connect(&mut server);
    let mut again = other(2, "a.example.com");
    again.begin(&mut server);
    let auth = again.auth_request(PSK);
    again.converse(&mut server, ExchangeType::IkeAuth, &auth);
    assert_eq!(server.endpoint.occupancy().ike_sas, 1);
    assert!(ConnectionSettings { ike_sas_per_identity: Some(0), ..one_each }.check().is_err());
    // In another connection it starts from nothing.
    let limits = Limits { ike_sas_per_identity: 1, ..Limits::default() };
    let mut server = Server::with(limits, settings());
    other(1, "a.example.com").connect(&mut server);
    let mut secrets = crate::config::Secrets::default();
    secrets.add(Vec::new(), crate::config::Psk::new(PSK.to_vec()).unwrap());
    let elsewhere = ConnectionSettings { name: "lab".into(), ..settings() };
    server.endpoint.set_connections(vec![elsewhere.check().unwrap()], secrets);
    other(2, "a.example.com").connect(&mut server);
    assert_eq!(server.endpoint.occupancy().ike_sas, 2);
}
