//! From nothing to a CHILD_SA, and back.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::EndpointConfig;
use ike::event::{DownReason, SendFrom};
use ipsec::sa::Encapsulation;
use pair::{Pair, Side, Weather, address};

#[test]
fn two_endpoints_agree_on_an_ike_sa_and_a_child() {
    let pair = Pair::connected(1);
    assert_eq!((pair.at_client.ike_up, pair.at_server.ike_up), (1, 1));
    let server = pair.at_server.children.values().next().unwrap();
    let inbound = &server.children.inbound;
    assert_eq!(inbound.encapsulation, Encapsulation::None);
    assert_eq!(inbound.selectors.to_string(), "203.0.113.80/32[tcp/80] === 192.0.2.1/32");
    assert_eq!((&*inbound.name, &*inbound.peer_name), ("web", "client.example.com"));
    assert_eq!(server.send, SendFrom::PeerUse);
    let client = pair.at_client.children.values().next().unwrap();
    assert_eq!((&*client.children.inbound.peer_name, client.send), ("gw.example.com", SendFrom::Now));
}

#[test]
fn a_nat_moves_ike_to_4500_and_esp_into_udp() {
    let mut pair = Pair::new(2);
    pair.nat = Some(address("198.51.100.7:40000"));
    pair.server.set_connections(
        vec![{
            let mut settings = pair::server_settings();
            settings.children[0].remote_ts = vec!["192.0.2.0/24".parse().unwrap()];
            settings.check().unwrap()
        }],
        pair::secrets(b"correct horse battery staple"),
    );
    pair.connect();
    pair.assert_children(1);
    let server = &pair.at_server.children.values().next().unwrap().children.outbound;
    assert_eq!(server.encapsulation, Encapsulation::Udp { local_port: 4500, remote_port: 40500 });
    assert_eq!(server.remote, address("198.51.100.7:1").ip());
    let client = &pair.at_client.children.values().next().unwrap().children.outbound;
    assert_eq!(client.encapsulation, Encapsulation::Udp { local_port: 4500, remote_port: 4500 });
}

#[test]
fn deleting_a_child_removes_it_on_both_sides_and_leaves_the_ike_sa() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(3);
        let (spi, now) = (pair.only_child(side), pair.now);
        pair.endpoint(side).delete_child(now, spi).unwrap();
        pair.run(Duration::from_secs(1));
        pair.assert_children(0);
        pair.assert_no_leak();
        assert_eq!(pair.installed(side).downs[0].1, DownReason::Deleted);
        assert_eq!(pair.installed(side.other()).downs[0].1, DownReason::PeerDeleted);
        assert_eq!((pair.client.occupancy().ike_sas, pair.server.occupancy().ike_sas), (1, 1));
    }
}

#[test]
fn shutting_down_deletes_everything_at_the_peer() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(4);
        let now = pair.now;
        pair.endpoint(side).initiate_shutdown(now);
        assert!(!pair.endpoint(side).is_idle());
        pair.run(Duration::from_secs(1));
        assert!(pair.client.is_idle() && pair.server.is_idle());
        pair.assert_children(0);
        pair.assert_no_leak();
        assert_eq!(pair.installed(side).ike_down, [DownReason::Shutdown]);
        assert_eq!(pair.installed(side.other()).ike_down, [DownReason::PeerDeleted]);
    }
}

#[test]
fn shutting_down_ends_in_time_when_the_peer_is_silent() {
    let mut pair = Pair::connected(5);
    pair.weather.lost = 1000;
    let now = pair.now;
    pair.server.initiate_shutdown(now);
    pair.run(Duration::from_millis(2_999));
    assert!(!pair.server.is_idle());
    pair.run(Duration::from_millis(2));
    assert!(pair.server.is_idle());
    assert!(pair.at_server.children.is_empty());
}

#[test]
fn foul_weather_only_delays_it() {
    for seed in 0..40 {
        let mut pair = Pair::new(seed);
        pair.weather = Weather { lost: 300, doubled: 300, jitter: Duration::from_secs(3) };
        pair.connect();
        pair.run(Duration::from_secs(60));
        if pair.at_client.failed.is_empty() {
            pair.assert_children(1);
            assert_eq!((pair.at_client.ike_up, pair.at_server.ike_up), (1, 1), "seed {seed}");
        }
    }
}

#[test]
fn long_messages_travel_in_fragments_through_any_weather() {
    for seed in 0..20 {
        let mut config = EndpointConfig::default();
        config.limits.message_bytes = 120;
        config.timing.retransmission.tries = 20;
        let mut pair = Pair::with(seed, config, pair::client_settings(), pair::server_settings());
        pair.weather = Weather { lost: 100, doubled: 200, jitter: Duration::from_millis(500) };
        pair.connect();
        pair.run(Duration::from_secs(300));
        pair.assert_children(1);
        let (spi, now) = (pair.only_child(Side::Server), pair.now);
        pair.server.rekey_child(now, spi).unwrap();
        pair.run(Duration::from_secs(300));
        pair.assert_children(1);
        assert_ne!(pair.only_child(Side::Server), spi);
        assert!(pair.client.counters().fragments_kept > 0 && pair.server.counters().fragments_kept > 0);
        assert_eq!((pair.client.occupancy().fragment_octets, pair.server.occupancy().fragment_octets), (0, 0));
        // IKE_SA_INIT is never fragmented; whatever is, keeps its measure.
        assert!(pair.sent.iter().all(|(_, datagram)| datagram.payload[18] == 34 || datagram.payload.len() <= 120));
    }
}
