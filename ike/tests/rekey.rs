//! One side replaces an SA while the other does not.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::EndpointConfig;
use ike::event::{DownReason, SendFrom};
use ipsec::lifetime::{Lifetime, TimeLimits};
use ipsec::sa::SaParameters;
use pair::{Installed, Pair, Side, Weather, client_settings, server_settings};

const BOTH: [Side; 2] = [Side::Client, Side::Server];

fn key_of(pair: &mut Pair, side: Side) -> SaParameters {
    let spi = pair.only_child(side);
    pair.installed(side).children.remove(&spi).unwrap().children.outbound
}

#[test]
fn a_child_is_replaced_by_one_with_other_keys_and_then_deleted() {
    for side in BOTH {
        let mut pair = Pair::connected(10);
        let (old, now) = (pair.only_child(side), pair.now);
        pair.endpoint(side).rekey_child(now, old).unwrap();
        pair.run(Duration::from_secs(1));
        pair.assert_children(1);
        pair.assert_no_leak();
        let new = pair.only_child(side);
        assert_ne!(new, old);
        assert_eq!(pair.installed(side).children[&new].replaces, Some(old));
        assert_eq!(pair.installed(side).children[&new].send, SendFrom::Now);
        assert_eq!(pair.installed(side).downs, [(old, DownReason::Replaced)]);
        let other = pair.only_child(side.other());
        assert_eq!(pair.installed(side.other()).children[&other].send, SendFrom::PeerUse);
        assert_eq!(pair.installed(side.other()).downs[0].1, DownReason::Replaced);
    }
}

#[test]
fn every_rekeying_makes_new_keys() {
    let mut pair = Pair::connected(11);
    let spi = pair.only_child(Side::Client);
    let now = pair.now;
    pair.client.rekey_child(now, spi).unwrap();
    pair.run(Duration::from_secs(1));
    let mut other = Pair::connected(11);
    assert!(key_of(&mut pair, Side::Client).key != key_of(&mut other, Side::Client).key);
}

#[test]
fn rekeying_by_time_goes_on_for_ever() {
    for side in BOTH {
        let mut settings = [client_settings(), server_settings()];
        let time = TimeLimits { soft: Some(Duration::from_secs(60)), hard: Some(Duration::from_secs(90)) };
        let which = usize::from(side == Side::Server);
        settings[which].children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
        settings[which].rekey_time = Some(Duration::from_secs(100));
        let [client, server] = settings;
        let mut pair = Pair::with(12, Default::default(), client, server);
        pair.connect();
        pair.run(Duration::from_secs(600));
        pair.assert_children(1);
        pair.assert_no_leak();
        let counters = pair.endpoint(side).counters().clone();
        assert!((9..=12).contains(&counters.child_down), "{} children were replaced", counters.child_down);
        assert!((5..=7).contains(&counters.ike_rekeyed), "{} IKE SAs were replaced", counters.ike_rekeyed);
        assert!(pair.installed(side).downs.iter().all(|(_, reason)| *reason == DownReason::Replaced));
        assert_eq!((pair.at_client.ike_down.len(), pair.at_server.ike_down.len()), (0, 0));
    }
}

#[test]
fn an_ike_sa_is_replaced_and_its_children_stay_as_they_are() {
    for side in BOTH {
        let mut pair = Pair::connected(13);
        let (child, now) = (pair.only_child(side), pair.now);
        let before = pair.endpoint(side).sas().next().unwrap();
        pair.endpoint(side).rekey_ike(now, child).unwrap();
        pair.run(Duration::from_secs(1));
        pair.assert_children(1);
        pair.assert_no_leak();
        assert_eq!(pair.only_child(side), child);
        let after: Vec<_> = pair.endpoint(side).sas().collect();
        assert_eq!(after.len(), 1);
        assert_ne!(after[0].spis, before.spis);
        assert_eq!(after[0].peer, before.peer);
        assert_eq!((pair.at_client.ike_rekeyed, pair.at_server.ike_rekeyed), (1, 1));
        // On the new one the child can be replaced as before.
        let (now, theirs) = (pair.now, pair::other_spi(&child, &pair, side));
        pair.endpoint(side.other()).rekey_child(now, theirs).unwrap();
        pair.run(Duration::from_secs(1));
        pair.assert_children(1);
        pair.assert_no_leak();
        assert_ne!(pair.only_child(side), child);
    }
}

#[test]
fn children_with_a_key_exchange_of_their_own_are_replaced() {
    for (client_kex, server_kex) in [("-x25519", "-x25519"), ("-x25519", ""), ("", "-x25519"), ("", "")] {
        for side in BOTH {
            let (mut client, mut server) = (client_settings(), server_settings());
            client.children[0].proposals = vec![format!("aes128gcm16{client_kex}").parse().unwrap()];
            server.children[0].proposals = vec![format!("aes128gcm16{server_kex}").parse().unwrap()];
            let mut pair = Pair::with(14, Default::default(), client, server);
            pair.connect();
            let (old, now) = (pair.only_child(side), pair.now);
            pair.endpoint(side).rekey_child(now, old).unwrap();
            pair.run(Duration::from_secs(1));
            pair.assert_children(1);
            pair.assert_no_leak();
            assert_ne!(pair.only_child(side), old, "client{client_kex} server{server_kex} {side:?}");
        }
    }
}

#[test]
fn a_refused_rekeying_is_tried_again_later_and_ends_with_the_hard_lifetime() {
    let (mut client, mut server) = (client_settings(), server_settings());
    // In IKE_AUTH neither form counts; in CREATE_CHILD_SA nothing that the server offers will do for the client.
    client.children[0].proposals = vec!["aes128gcm16-x25519".parse().unwrap(), "aes256gcm16".parse().unwrap()];
    let time = TimeLimits { soft: Some(Duration::from_secs(60)), hard: Some(Duration::from_secs(90)) };
    server.children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
    server.children[0].proposals = vec!["aes128gcm16".parse().unwrap()];
    let mut pair = Pair::with(15, Default::default(), client, server);
    pair.connect();
    let inner = pair.sent.len();
    pair.run(Duration::from_secs(120));
    assert!(pair.sent.len() > inner);
    pair.assert_children(1);
    pair.assert_no_leak();
}

#[test]
fn foul_weather_only_delays_rekeying() {
    for seed in 0..30 {
        let mut settings = [client_settings(), server_settings()];
        for settings in &mut settings {
            let time = TimeLimits { soft: Some(Duration::from_secs(60)), hard: Some(Duration::from_secs(400)) };
            settings.children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
            settings.rekey_time = Some(Duration::from_secs(110));
            settings.dpd_delay = Some(Duration::from_secs(30));
        }
        let [client, server] = settings;
        // So many tries that in this weather nobody counts as dead by chance.
        let mut config = EndpointConfig::default();
        config.timing.retransmission.tries = 20;
        let mut pair = Pair::with(seed, config, client, server);
        pair.connect();
        pair.weather = Weather { lost: 150, doubled: 200, jitter: Duration::from_millis(1500) };
        pair.run(Duration::from_secs(1800));
        pair.weather = Weather::default();
        pair.run(Duration::from_secs(59));
        for side in BOTH {
            let down = &pair.installed(side).ike_down;
            assert!(down.is_empty(), "seed {seed}, {side:?}: {down:?}");
        }
        pair.assert_no_leak();
        let ike_sas = (pair.client.occupancy().ike_sas, pair.server.occupancy().ike_sas);
        assert!(ike_sas.0 <= 2 && ike_sas.1 <= 2, "seed {seed}: {ike_sas:?}");
    }
}

#[test]
fn rekeying_every_second_from_either_side_and_from_both_goes_on_however_few_replaced_ones_are_kept() {
    for seed in 16..24 {
        for (replaced_children, jitter) in [(8, 0), (1, 0), (8, 900), (1, 900)] {
            let mut config = EndpointConfig::default();
            config.limits.replaced_children = replaced_children;
            let mut pair = Pair::with(seed, config, client_settings(), server_settings());
            pair.connect();
            // Requests and responses overtake each other, and one rekeying the next.
            pair.weather = Weather { jitter: Duration::from_millis(jitter), ..Weather::default() };
            for second in 0..120 {
                for &side in [&BOTH[..], &BOTH[..1], &BOTH[1..]][second % 3] {
                    let (newest, now) = (pair.installed(side).newest(), pair.now);
                    pair.endpoint(side).rekey_child(now, newest).unwrap();
                }
                pair.run(Duration::from_secs(1));
            }
            pair.weather = Weather::default();
            pair.run(Duration::from_secs(61));
            pair.assert_children(1);
            pair.assert_no_leak();
            for side in BOTH {
                let Installed { downs, ike_down, rekey_failed, .. } = pair.installed(side);
                assert!(downs.len() > 60, "{} were replaced", downs.len());
                assert!(ike_down.is_empty() && rekey_failed.is_empty());
            }
        }
    }
}
