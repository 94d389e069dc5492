//! Transport mode (RFC 7296 §1.3.1): wished for by one side, granted or declined by the other.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::{ChildSettings, ConnectionSettings, EndpointConfig};
use ipsec::sa::{Encapsulation, Mode};
use pair::{Pair, Side, address, child_settings, client_settings, server_settings};

const SECOND: Duration = Duration::from_secs(1);

fn with_modes(seed: u8, of_client: Mode, of_server: Mode) -> Pair {
    let (mut client, mut server) = (client_settings(), server_settings());
    client.children[0].mode = of_client;
    server.children[0].mode = of_server;
    Pair::with(seed, EndpointConfig::default(), client, server)
}

fn transport_pair(seed: u8) -> Pair {
    let mut pair = with_modes(seed, Mode::Transport, Mode::Transport);
    pair.connect();
    pair
}

#[track_caller]
fn assert_modes(pair: &Pair, mode: Mode) {
    for up in pair.at_client.children.values().chain(pair.at_server.children.values()) {
        assert_eq!((up.children.inbound.mode, up.children.outbound.mode), (mode, mode));
    }
}

#[test]
fn transport_mode_is_used_if_both_sides_wish_it_and_a_tunnel_otherwise() {
    use Mode::{Transport, Tunnel};
    for (of_client, of_server, agreed) in [
        (Transport, Transport, Transport),
        (Transport, Tunnel, Tunnel),
        (Tunnel, Transport, Tunnel),
        (Tunnel, Tunnel, Tunnel),
    ] {
        let mut pair = with_modes(90, of_client, of_server);
        pair.connect();
        pair.assert_children(1);
        pair.assert_no_leak();
        assert_modes(&pair, agreed);
    }
}

#[test]
fn a_transport_sa_is_between_the_two_addresses_only() {
    let (mut client, mut server) = (client_settings(), server_settings());
    for settings in [&mut client, &mut server] {
        settings.children[0].mode = Mode::Transport;
    }
    client.children[0].local_ts = vec!["192.0.2.0/24".parse().unwrap()];
    client.children[0].remote_ts = vec!["203.0.113.0/24[tcp/80]".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    server.children[0].local_ts = vec!["0.0.0.0/0".parse().unwrap()];
    server.children[0].remote_ts = vec!["0.0.0.0/0".parse().unwrap()];
    let mut pair = Pair::with(91, EndpointConfig::default(), client, server);
    pair.connect();
    pair.assert_children(1);
    assert_modes(&pair, Mode::Transport);
    let inbound = &pair.at_server.children.values().next().unwrap().children.inbound;
    assert_eq!(inbound.selectors.to_string(), "203.0.113.80/32[tcp/80] === 192.0.2.1/32");
    assert_eq!(inbound.encapsulation, Encapsulation::None);
}

#[test]
fn over_a_nat_it_is_a_tunnel() {
    let mut pair = with_modes(92, Mode::Transport, Mode::Transport);
    pair.nat = Some(address("198.51.100.7:40000"));
    let mut settings = server_settings();
    settings.children[0].mode = Mode::Transport;
    settings.children[0].remote_ts = vec!["192.0.2.0/24".parse().unwrap()];
    let secrets = pair::secrets(b"correct horse battery staple");
    pair.server.set_connections(vec![settings.check().unwrap()], secrets);
    pair.connect();
    pair.assert_children(1);
    assert_modes(&pair, Mode::Tunnel);
}

#[test]
fn what_carries_no_traffic_between_the_two_addresses_is_a_tunnel() {
    for at_client in [true, false] {
        let (mut client, mut server) = (client_settings(), server_settings());
        client.children[0].mode = Mode::Transport;
        server.children[0].mode = Mode::Transport;
        // The client could ask for it and does not; or it asks, and gets what the server can grant.
        let network = || vec!["10.7.0.0/16".parse().unwrap()];
        if at_client {
            client.children[0].local_ts = network();
        } else {
            client.children[0].local_ts = vec!["dynamic".parse().unwrap(), network().remove(0)];
        }
        server.children[0].remote_ts = network();
        let mut pair = Pair::with(93, EndpointConfig::default(), client, server);
        pair.connect();
        // Whoever asks for transport mode proposes the two addresses and nothing else, of which this server allows none.
        let children = usize::from(at_client);
        pair.assert_children(children);
        assert_modes(&pair, Mode::Tunnel);
        pair.assert_no_leak();
    }
}

#[test]
fn replacing_and_standing_beside_keep_the_mode_on_either_side() {
    for side in [Side::Client, Side::Server] {
        let mut pair = transport_pair(94);
        let (old, now) = (pair.only_child(side), pair.now);
        pair.endpoint(side).rekey_child(now, old).unwrap();
        pair.run(SECOND);
        let (new, now) = (pair.only_child(side), pair.now);
        assert_ne!(new, old);
        pair.endpoint(side).add_sibling(now, new).unwrap();
        pair.run(SECOND);
        let now = pair.now;
        pair.endpoint(side).rekey_ike(now, new).unwrap();
        pair.run(SECOND);
        pair.assert_children(2);
        pair.assert_no_leak();
        assert_modes(&pair, Mode::Transport);
        let selectors = |up: &ike::event::ChildUp| up.children.inbound.selectors.to_string();
        let all: Vec<String> = pair.at_server.children.values().map(selectors).collect();
        assert!(all.iter().all(|one| one == "203.0.113.80/32[tcp/80] === 192.0.2.1/32"), "{all:?}");
    }
}

/// A server with a tunnel and a transport child for the same traffic.
fn server_with_both(first: Mode) -> ConnectionSettings {
    let other = if first == Mode::Tunnel { Mode::Transport } else { Mode::Tunnel };
    let child = |mode| ChildSettings { mode, ..child_settings(&mode.to_string()) };
    ConnectionSettings { children: vec![child(first), child(other)], ..server_settings() }
}

#[test]
fn of_two_children_that_allow_as_much_the_one_of_the_mode_asked_for_is_taken() {
    for first in [Mode::Tunnel, Mode::Transport] {
        for asked in [Mode::Tunnel, Mode::Transport] {
            let mut client = client_settings();
            client.children[0].mode = asked;
            let mut pair = Pair::with(95, EndpointConfig::default(), client, server_with_both(first));
            pair.connect();
            assert_modes(&pair, asked);
            assert_eq!(&*pair.at_server.children.values().next().unwrap().children.inbound.name, asked.to_string());
        }
    }
}
