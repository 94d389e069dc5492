//! Peers that fall silent, lifetimes that end, tables that are full.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::DropReason;
use ike::config::EndpointConfig;
use ike::event::DownReason;
use ipsec::lifetime::{Lifetime, TimeLimits};
use pair::{CLIENT, Pair, SERVER, Side, address, client_settings, server_settings};

const BOTH: [Side; 2] = [Side::Client, Side::Server];

#[test]
fn when_the_network_is_gone_each_side_gives_the_other_up() {
    let (mut client, mut server) = (client_settings(), server_settings());
    client.dpd_delay = Some(Duration::from_secs(30));
    server.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = Pair::with(1, EndpointConfig::default(), client, server);
    pair.connect();
    pair.run(Duration::from_secs(600));
    pair.assert_children(1);
    pair.weather.lost = 1000;
    pair.run(Duration::from_secs(120));
    for side in BOTH {
        assert_eq!(pair.installed(side).ike_down, [DownReason::PeerDead]);
        assert_eq!(pair.endpoint(side).counters().peers_dead, 1);
        assert!(pair.endpoint(side).is_idle());
    }
    pair.assert_children(0);
    pair.assert_no_leak();
}

#[test]
fn a_peer_that_dies_while_both_rekey_is_given_up_once() {
    let mut pair = Pair::connected(2);
    for side in BOTH {
        let (spi, now) = (pair.only_child(side), pair.now);
        pair.endpoint(side).rekey_ike(now, spi).unwrap();
    }
    pair.drain();
    // Both requests arrive, and from then on nothing does.
    while let Some(((at, _), (to, datagram))) = pair.flying.pop_first() {
        pair.now = at;
        let now = pair.now;
        pair.endpoint(to).handle_datagram(now, &datagram);
        pair.weather.lost = 1000;
    }
    pair.run(Duration::from_secs(300));
    for side in BOTH {
        let down = pair.installed(side).ike_down.clone();
        assert!(down.len() <= 1, "{side:?}: {down:?}");
    }
    pair.assert_no_leak();
}

#[test]
fn an_ike_sa_that_could_not_be_replaced_ends_with_its_over_time() {
    let mut server = server_settings();
    server.over_time = Some(Duration::from_secs(90));
    let mut pair = Pair::with(3, EndpointConfig::default(), client_settings(), server);
    pair.connect();
    pair.run(Duration::from_secs(80));
    pair.assert_children(1);
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.at_server.ike_down, [DownReason::Expired]);
    assert_eq!(pair.at_client.ike_down, [DownReason::PeerDeleted]);
    pair.assert_no_leak();
}

#[test]
fn a_child_past_its_hard_lifetime_is_gone_at_once_even_if_the_peer_is() {
    let mut server = server_settings();
    let time = TimeLimits { soft: None, hard: Some(Duration::from_secs(60)) };
    server.children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
    let mut pair = Pair::with(4, EndpointConfig::default(), client_settings(), server);
    pair.connect();
    pair.weather.lost = 1000;
    pair.run(Duration::from_secs(60));
    assert!(pair.at_server.children.is_empty());
    assert_eq!(pair.at_server.downs[0].1, DownReason::Expired);
    pair.run(Duration::from_secs(100));
    assert_eq!(pair.at_server.ike_down, [DownReason::PeerDead], "the report that nobody answers");
}

#[test]
fn behind_a_nat_we_keep_its_mapping_alive() {
    let mut pair = Pair::new(5);
    pair.nat = Some(address("198.51.100.7:40000"));
    let mut server = server_settings();
    server.children[0].remote_ts = vec!["192.0.2.0/24".parse().unwrap()];
    pair.server.set_connections(vec![server.check().unwrap()], pair::secrets(b"correct horse battery staple"));
    pair.connect();
    pair.sent.clear();
    pair.run(Duration::from_secs(100));
    let from = |side| pair.sent.iter().filter(move |(sender, _)| *sender == side).map(|(_, datagram)| datagram);
    assert_eq!(from(Side::Client).count(), 5);
    assert!(from(Side::Client).all(|datagram| datagram.payload == [0xff] && !datagram.needs_marker()));
    assert!(from(Side::Client).all(|datagram| datagram.local.port() == 4500));
    assert_eq!(from(Side::Server).count(), 0);
}

#[test]
fn a_nat_that_changes_its_mapping_is_followed() {
    let mut pair = Pair::new(6);
    pair.nat = Some(address("198.51.100.7:40000"));
    let mut server = server_settings();
    server.children[0].remote_ts = vec!["192.0.2.0/24".parse().unwrap()];
    pair.server.set_connections(vec![server.check().unwrap()], pair::secrets(b"correct horse battery staple"));
    pair.connect();
    pair.nat = Some(address("198.51.100.8:50000"));
    let (spi, now) = (pair.only_child(Side::Client), pair.now);
    pair.client.rekey_child(now, spi).unwrap();
    pair.run(Duration::from_secs(1));
    pair.assert_children(1);
    assert_eq!(pair.at_server.moved, [address("198.51.100.8:50500")]);
    let child = pair.at_server.children.values().next().unwrap();
    assert_eq!(child.children.outbound.remote, address("198.51.100.8:1").ip());
    // The server reaches it there.
    let (spi, now) = (pair.only_child(Side::Server), pair.now);
    pair.server.delete_child(now, spi).unwrap();
    pair.run(Duration::from_secs(1));
    pair.assert_children(0);
}

#[test]
fn hostile_41_a_full_table_of_ike_sas_refuses_new_peers_and_serves_the_others() {
    let mut config = EndpointConfig::default();
    config.limits.ike_sas = 1;
    let mut pair = Pair::with(7, config, client_settings(), server_settings());
    pair.connect();
    let now = pair.now;
    assert!(pair.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).is_err());
    let stranger =
        ike::config::ConnectionSettings { local_id: Some("other.example.com".parse().unwrap()), ..client_settings() };
    let mut other = pair::endpoint(EndpointConfig::default(), 99, stranger);
    other.initiate(now, "home", "web", address("192.0.2.9:500"), address(SERVER)).unwrap();
    let tell = |pair: &mut Pair, other: &mut ike::Endpoint| {
        while let Some(sent) = other.poll_transmit() {
            let seen = ike::Datagram::new(sent.remote, sent.local, sent.payload);
            pair.server.handle_datagram(pair.now, &seen);
            while let Some(answer) = pair.server.poll_transmit() {
                let seen = ike::Datagram::new(answer.remote, answer.local, answer.payload);
                other.handle_datagram(pair.now, &seen);
            }
        }
    };
    tell(&mut pair, &mut other);
    assert_eq!(pair.server.counters().dropped(DropReason::SaTableFull), 1);
    // The one that was there goes on.
    let (spi, now) = (pair.only_child(Side::Server), pair.now);
    pair.server.rekey_child(now, spi).unwrap();
    pair.run(Duration::from_secs(1));
    pair.assert_children(1);
    // And when it leaves, the next retransmission of the other one is let in.
    let now = pair.now;
    pair.client.initiate_shutdown(now);
    pair.run(Duration::from_secs(1));
    other.handle_timeout(pair.now);
    tell(&mut pair, &mut other);
    assert_eq!((other.occupancy().ike_sas, pair.server.occupancy().ike_sas), (1, 1));
}

#[test]
fn a_full_queue_drops_and_counts_what_would_be_sent() {
    let mut config = EndpointConfig::default();
    config.limits.transmit_queue = 0;
    let mut pair = Pair::with(8, config, client_settings(), server_settings());
    let now = pair.now;
    pair.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).unwrap();
    pair.run(Duration::from_secs(100));
    assert!(pair.sent.is_empty());
    assert_eq!(pair.client.counters().dropped(DropReason::TransmitQueueFull), 6);
    assert_eq!(pair.at_client.failed, ["the peer does not answer"]);
    pair.assert_no_leak();
}

#[test]
fn while_shutting_down_nobody_new_is_let_in() {
    let mut pair = Pair::connected(9);
    let now = pair.now;
    pair.server.initiate_shutdown(now);
    pair.run(Duration::from_secs(1));
    let now = pair.now;
    pair.client.initiate(now, "home", "web", address(CLIENT), address(SERVER)).unwrap();
    pair.run(Duration::from_secs(60));
    assert!(pair.server.is_idle());
    assert!(pair.server.counters().dropped(DropReason::ShuttingDown) > 0);
    assert!(pair.server.initiate(pair.now, "office", "web", address(SERVER), address(CLIENT)).is_err());
}
