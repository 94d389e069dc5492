//! HOSTILE 29 and 30, IKE's part: addresses that are ours, ours no more, and ours again.

use core::net::SocketAddr;
use core::time::Duration;

use super::peer::{PEER_ESP, PSK, Peer, SERVER, Server, address, settings};
use crate::Event;
use crate::config::{EndpointConfig, Limits, Psk, Secrets};
use crate::counters::DropReason;
use crate::error::CommandError;
use crate::event::DownReason;
use crate::message::{ExchangeType, PayloadChain};

const OTHER: &str = "203.0.113.81:500";
const INFO: ExchangeType = ExchangeType::Informational;

fn peer_at(server: &mut Server, local: &str, number: u8) -> Peer {
    server.local = address(local);
    let mut peer = Peer::new(u64::from(number));
    peer.at = SocketAddr::new([192, 0, 2, number].into(), 500);
    peer.id = format!("peer{number}.example.com").parse().unwrap();
    peer.connect(server);
    peer
}

fn downs(server: &Server) -> Vec<DownReason> {
    let reasons = server.events.iter().filter_map(|event| match event {
        Event::IkeDown { reason, .. } | Event::ChildDown { reason, .. } => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn hostile_29_an_address_that_is_not_ours_is_silent_and_others_are_not() {
    let mut server = Server::new();
    let mut here = peer_at(&mut server, SERVER, 1);
    let mut there = peer_at(&mut server, OTHER, 2);
    server.endpoint.serve(server.now, address(SERVER).ip(), false);
    server.local = address(SERVER);
    let probe = here.next_request(INFO, &PayloadChain::new());
    assert!(server.hear(here.at, &probe).is_empty());
    let stranger = Peer::new(9);
    assert!(server.hear(address("192.0.2.9:500"), &stranger.init()).is_empty());
    assert_eq!(server.dropped(DropReason::NotServed), 2);
    // What we would have said is not said either: a request, its repetitions, a new beginning.
    let child = server.children_up()[0];
    server.endpoint.rekey_child(server.now, child).unwrap();
    assert!(server.drain().is_empty());
    assert!(server.wait(Duration::from_secs(2)).is_empty());
    assert!(server.dropped(DropReason::NotServed) > 3);
    let begin = server.endpoint.initiate(server.now, "office", "web", address(SERVER), address("192.0.2.7:500"));
    assert_eq!(begin, Err(CommandError::NotServed(address(SERVER).ip())));
    // The other address goes on.
    server.local = address(OTHER);
    assert!(there.ask(&mut server, INFO, &PayloadChain::new()).body().is_ok());
    assert_eq!((server.endpoint.occupancy().ike_sas, downs(&server).len()), (2, 0));
}

#[test]
fn hostile_29_an_address_that_is_ours_again_knows_nothing_of_before() {
    let mut server = Server::new();
    let mut peer = peer_at(&mut server, SERVER, 1);
    let dvipa = address(SERVER).ip();
    server.endpoint.serve(server.now, dvipa, true);
    assert_eq!(server.endpoint.occupancy().ike_sas, 1, "it was ours all the time");
    server.endpoint.serve(server.now, dvipa, false);
    let probe = peer.next_request(INFO, &PayloadChain::new());
    server.hear(peer.at, &probe);
    server.endpoint.serve(server.now, dvipa, true);
    assert!(server.drain().is_empty(), "without a word");
    assert_eq!(downs(&server), [DownReason::Disowned; 2]);
    assert!(server.hear(peer.at, &probe).is_empty());
    assert_eq!(server.dropped(DropReason::UnknownSa), 1);
    peer_at(&mut server, SERVER, 1);
    assert_eq!((server.endpoint.occupancy().ike_sas, server.endpoint.occupancy().esp_spis), (1, 1));
}

#[test]
fn an_address_is_forgotten_with_everything_that_was_begun_there_and_nothing_else() {
    let mut server = Server::with(Limits::default(), settings());
    let mut here = peer_at(&mut server, SERVER, 1);
    let mut there = peer_at(&mut server, OTHER, 2);
    server.local = address(SERVER);
    // An IKE SA with a request of ours under way, one that was replaced, a half-open one, one that we have begun.
    let mut left = peer_at(&mut server, SERVER, 3);
    left.rekey_ike(&mut server, 0x1000).unwrap();
    let child = server.children_up()[0];
    server.endpoint.rekey_child(server.now, child).unwrap();
    assert_eq!(server.drain().len(), 1);
    Peer::new(4).begin(&mut server);
    let to = address("192.0.2.200:500");
    server.endpoint.initiate(server.now, "office", "web", address(SERVER), to).unwrap();
    server.drain();
    server.events.clear();
    server.endpoint.forget_address(server.now, address(SERVER).ip());
    assert!(server.drain().is_empty(), "without a word");
    assert_eq!(downs(&server).iter().filter(|reason| **reason == DownReason::Disowned).count(), 4);
    let occupancy = server.endpoint.occupancy();
    assert_eq!((occupancy.ike_sas, occupancy.half_open, occupancy.initiating), (1, 0, 0));
    assert_eq!((occupancy.esp_spis, occupancy.ike_spis, occupancy.watched_selectors), (1, 1, 1));
    assert_eq!(occupancy.kept_responses, 1, "the other address still answers what it answered");
    let probe = here.next_request(INFO, &PayloadChain::new());
    assert!(server.hear(here.at, &probe).is_empty());
    server.local = address(OTHER);
    assert!(there.ask(&mut server, INFO, &PayloadChain::new()).body().is_ok());
}

#[test]
fn hostile_30_an_ike_sa_is_known_at_its_own_address_only() {
    let mut server = Server::new();
    let mut peer = peer_at(&mut server, SERVER, 1);
    server.local = address(OTHER);
    let chain = peer.create_child(PEER_ESP + 1, "10.0.0.1/32");
    let request = peer.next_request(ExchangeType::CreateChildSa, &chain);
    assert!(server.hear(peer.at, &request).is_empty());
    // Neither does a half-open one move to another address.
    let mut half = Peer::new(2);
    server.local = address(SERVER);
    half.begin(&mut server);
    let auth = half.auth_request(PSK);
    let auth = half.next_request(ExchangeType::IkeAuth, &auth);
    server.local = address(OTHER);
    assert!(server.hear(half.at, &auth).is_empty());
    assert_eq!((server.dropped(DropReason::UnknownSa), server.children_left()), (2, 1));
    server.local = address(SERVER);
    assert_eq!((server.hear(half.at, &auth).len(), server.hear(peer.at, &request).len()), (1, 1));
}

#[test]
fn sas_are_born_in_the_epoch_of_their_own_address() {
    let mut server = Server::new();
    server.endpoint.set_epoch(address(SERVER).ip(), 7);
    peer_at(&mut server, SERVER, 1);
    peer_at(&mut server, OTHER, 2);
    server.endpoint.set_epoch(address(OTHER).ip(), 3);
    server.endpoint.set_epoch(address(SERVER).ip(), 9);
    peer_at(&mut server, OTHER, 3);
    peer_at(&mut server, SERVER, 4);
    let born = server.events.iter().filter_map(|event| match event {
        Event::ChildUp(up) => Some((up.children.inbound.epoch, up.children.outbound.epoch)),
        _ => None,
    });
    assert_eq!(born.collect::<Vec<_>>(), [(7, 7), (0, 0), (3, 3), (9, 9)]);
}

#[test]
fn peers_are_numbered_from_the_base() {
    let config = EndpointConfig { peer_base: 5 << 40, ..EndpointConfig::default() };
    let mut server = Server::new();
    server.endpoint = crate::Endpoint::new(config, [9; 32]);
    let mut secrets = Secrets::default();
    secrets.add(Vec::new(), Psk::new(PSK.to_vec()).unwrap());
    server.endpoint.set_connections(vec![settings().check().unwrap()], secrets);
    for number in 1..4 {
        peer_at(&mut server, SERVER, number);
    }
    let peers: Vec<u64> = server.endpoint.sas().map(|sa| sa.peer.0 - (5 << 40)).collect();
    assert_eq!(peers.iter().copied().collect::<std::collections::BTreeSet<_>>(), [1, 2, 3].into());
}
