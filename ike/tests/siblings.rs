//! Several CHILD_SAs with equal selectors: asked for, refused, replaced, deleted.
#![allow(clippy::unwrap_used)] // a failed expectation is the point

mod pair;

use core::time::Duration;

use ike::config::{EndpointConfig, Limits};
use ike::error::CommandError;
use ike::event::{DownReason, SendFrom};
use ipsec::Spi;
use ipsec::lifetime::{Lifetime, TimeLimits};
use pair::{Pair, Side, client_settings, endpoint, server_settings};

const SECOND: Duration = Duration::from_secs(1);

fn ask(pair: &mut Pair, of: Spi) -> Result<(), CommandError> {
    let now = pair.now;
    let asked = pair.server.add_sibling(now, of);
    pair.run(SECOND);
    asked
}

/// A server with so many siblings of its first child, which is named too.
fn with_siblings(pair: &mut Pair, count: usize) -> (Spi, Vec<Spi>) {
    let base = pair.only_child(Side::Server);
    for _ in 0..count {
        ask(pair, base).unwrap();
    }
    pair.assert_children(1 + count);
    let siblings = pair.at_server.ups.iter().copied().filter(|spi| *spi != base).collect();
    (base, siblings)
}

#[test]
fn a_sibling_is_like_the_one_it_stands_beside_but_for_its_numbers_and_keys() {
    let mut pair = Pair::connected(70);
    let (base, siblings) = with_siblings(&mut pair, 3);
    pair.assert_no_leak();
    let installed = &pair.at_server.children;
    for sibling in &siblings {
        let (one, other) = (&installed[&base].children, &installed[sibling]);
        assert_eq!((other.sibling_of, other.replaces, other.send), (Some(base), None, SendFrom::Now));
        for (one, other) in [(&one.inbound, &other.children.inbound), (&one.outbound, &other.children.outbound)] {
            assert_eq!(
                (one.mode, one.cipher, one.esn, &one.selectors),
                (other.mode, other.cipher, other.esn, &other.selectors)
            );
            assert_eq!((one.peer, &one.name), (other.peer, &other.name));
            assert!(one.key != other.key && one.spi != other.spi);
        }
    }
    // The peer has answered; it sees a child like any other.
    for up in pair.at_client.children.values() {
        assert_eq!((up.sibling_of, up.send == SendFrom::Now), (None, up.children.outbound.spi == base));
    }
    assert_eq!(pair.server.counters().siblings_up, 3);
    let shown: Vec<_> = pair.server.sas().flat_map(|sa| sa.children).map(|child| child.sibling_of).collect();
    assert_eq!(shown.iter().filter(|of| **of == Some(base)).count(), 3);
}

#[test]
fn extended_sequence_numbers_and_the_longer_key_are_kept() {
    let (mut client, mut server) = (client_settings(), server_settings());
    server.children[0].proposals = vec!["aes128gcm16".parse().unwrap(), "aes256gcm16-esn-noesn".parse().unwrap()];
    client.children[0].proposals = vec!["aes256gcm16-esn".parse().unwrap()];
    let mut pair = Pair::with(71, EndpointConfig::default(), client, server);
    pair.connect();
    let (_, siblings) = with_siblings(&mut pair, 1);
    let up = &pair.at_server.children[&siblings[0]].children.inbound;
    assert!(up.esn && up.cipher == ipsec::cipher::Cipher::AesGcm256);
}

#[test]
fn a_sibling_is_asked_for_with_the_key_exchange_that_the_peer_wants() {
    for (client_kex, server_kex, requests) in
        [("-x25519", "-x25519", 1), ("-x25519", "", 2), ("", "-x25519", 1), ("", "", 1)]
    {
        let (mut client, mut server) = (client_settings(), server_settings());
        client.children[0].proposals = vec![format!("aes128gcm16{client_kex}").parse().unwrap()];
        server.children[0].proposals = vec![format!("aes128gcm16{server_kex}").parse().unwrap()];
        let mut pair = Pair::with(72, EndpointConfig::default(), client, server);
        pair.connect();
        let base = pair.only_child(Side::Server);
        for expected in [requests, 1, 1] {
            let before = pair.sent.len();
            ask(&mut pair, base).unwrap();
            // Once refused for its key exchange, it is known how the peer wants it.
            assert_eq!(pair.sent.len() - before, 2 * expected, "client{client_kex} server{server_kex}");
        }
        pair.assert_children(4);
        pair.assert_no_leak();
        assert!(pair.at_server.siblings_refused.is_empty());
    }
}

/// A pair whose client takes one child only.
fn refusing_client(seed: u8) -> Pair {
    let mut pair = Pair::new(seed);
    let config = EndpointConfig { limits: Limits { children: 1, ..Limits::default() }, ..EndpointConfig::default() };
    pair.client = endpoint(config, seed, client_settings());
    pair.connect();
    pair
}

#[test]
fn a_refusal_is_for_good_and_remembered_by_the_lineage_and_the_ike_sa_stands() {
    let mut pair = refusing_client(73);
    let base = pair.only_child(Side::Server);
    ask(&mut pair, base).unwrap();
    let (of, for_good, why) = pair.at_server.siblings_refused[0].clone();
    assert!(for_good && of == base && why.contains("NO_ADDITIONAL_SAS"), "{why}");
    assert_eq!(ask(&mut pair, base), Err(CommandError::SiblingsRefused));
    let now = pair.now;
    pair.server.rekey_ike(now, base).unwrap();
    pair.run(SECOND);
    assert_eq!((pair.at_server.ike_rekeyed, ask(&mut pair, base)), (1, Err(CommandError::SiblingsRefused)));
    pair.assert_children(1);
    pair.assert_no_leak();
    assert_eq!(pair.at_server.siblings_refused.len(), 1);
    assert!(pair.at_server.ike_down.is_empty());
}

#[test]
fn one_is_asked_for_after_the_other_and_never_more_than_one_ike_sa_may_have() {
    let mut pair = Pair::connected(74);
    let (base, now) = (pair.only_child(Side::Server), pair.now);
    pair.server.add_sibling(now, base).unwrap();
    assert_eq!(pair.server.add_sibling(now, base), Err(CommandError::SiblingUnderWay));
    pair.run(SECOND);
    let most = Limits::default().children;
    while pair.at_server.children.len() < most {
        ask(&mut pair, base).unwrap();
    }
    assert_eq!(ask(&mut pair, base), Err(CommandError::TooManyChildren { allowed: most }));
    pair.assert_children(most);
    let unknown = Spi::new(0x1234_5678).unwrap();
    assert_eq!(ask(&mut pair, unknown), Err(CommandError::UnknownChild(unknown)));
}

#[test]
fn what_replaces_a_sibling_is_a_sibling_whoever_replaced_it() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(75);
        let (base, siblings) = with_siblings(&mut pair, 2);
        for spi in siblings.iter().chain([&base]) {
            let now = pair.now;
            let named = if side == Side::Server { *spi } else { pair::other_spi(spi, &pair, Side::Server) };
            pair.endpoint(side).rekey_child(now, named).unwrap();
            pair.run(SECOND);
            let newest = &pair.at_server.children[&pair.at_server.newest()];
            assert_eq!(newest.replaces, Some(*spi));
            assert_eq!(newest.sibling_of, (*spi != base).then_some(base));
        }
        pair.assert_children(3);
        pair.assert_no_leak();
        let replaced = |(_, reason): &(Spi, DownReason)| *reason == DownReason::Replaced;
        assert!(pair.at_server.downs.len() == 3 && pair.at_server.downs.iter().all(replaced));
    }
}

#[test]
fn with_a_sibling_both_are_replaced_earlier_and_so_are_their_successors() {
    let mut server = server_settings();
    let time = TimeLimits { soft: Some(Duration::from_secs(1_000)), hard: Some(Duration::from_secs(2_000)) };
    server.children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
    let mut pair = Pair::with(76, EndpointConfig::default(), client_settings(), server);
    pair.connect();
    let due = |pair: &Pair| -> Vec<u64> {
        let children = pair.server.sas().flat_map(|sa| sa.children);
        let mut due: Vec<u64> = children.map(|child| child.rekey_at.unwrap().as_nanos() / 1_000_000_000).collect();
        due.sort_unstable();
        due
    };
    assert!((900..=1_001).contains(&due(&pair)[0]));
    with_siblings(&mut pair, 1);
    assert!(due(&pair).iter().all(|at| (540..=604).contains(at)), "{:?}", due(&pair));
    pair.run(Duration::from_secs(610));
    pair.assert_children(2);
    assert_eq!(pair.at_server.downs.len(), 2, "both have been replaced");
    assert!(due(&pair).iter().all(|at| (1_080..=1_220).contains(at)), "{:?}", due(&pair));
    // One whose soft lifetime has nearly passed is due at once, not before its time.
    let mut server = server_settings();
    server.children[0].lifetime = Lifetime { time, ..Lifetime::NONE };
    let mut pair = Pair::with(77, EndpointConfig::default(), client_settings(), server);
    pair.connect();
    pair.run(Duration::from_secs(700));
    let (base, _) = with_siblings(&mut pair, 0);
    ask(&mut pair, base).unwrap();
    pair.run(SECOND);
    pair.assert_children(2);
    assert_eq!(pair.at_server.downs, [(base, DownReason::Replaced)]);
}

#[test]
fn the_peer_may_delete_a_sibling_or_the_first_one_and_the_others_stay() {
    for first in [false, true] {
        let mut pair = Pair::connected(78);
        let (base, siblings) = with_siblings(&mut pair, 2);
        let gone = if first { base } else { siblings[0] };
        let (named, now) = (pair::other_spi(&gone, &pair, Side::Server), pair.now);
        pair.client.delete_child(now, named).unwrap();
        pair.run(SECOND);
        pair.assert_children(2);
        pair.assert_no_leak();
        assert_eq!(pair.at_server.downs, [(gone, DownReason::PeerDeleted)]);
        // Another takes its place, beside any that is left.
        ask(&mut pair, siblings[1]).unwrap();
        pair.assert_children(3);
        assert_eq!(pair.at_server.children[&pair.at_server.newest()].sibling_of, Some(siblings[1]));
        assert!(pair.at_server.siblings_refused.is_empty());
    }
}

#[test]
fn siblings_move_to_the_new_ike_sa() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::connected(79);
        let (base, _) = with_siblings(&mut pair, 2);
        let (now, child) = (pair.now, *pair.installed(side).children.keys().next().unwrap());
        pair.endpoint(side).rekey_ike(now, child).unwrap();
        pair.run(SECOND);
        pair.assert_children(3);
        ask(&mut pair, base).unwrap();
        pair.assert_children(4);
        pair.assert_no_leak();
        assert_eq!((pair.at_client.ike_rekeyed, pair.at_server.ike_rekeyed), (1, 1));
    }
}

#[test]
fn a_wish_is_answered_even_if_the_peer_is_not_there_any_more() {
    let mut pair = Pair::connected(80);
    let (base, now) = (pair.only_child(Side::Server), pair.now);
    pair.server.add_sibling(now, base).unwrap();
    pair.drain();
    let end = now + Duration::from_secs(300);
    while pair.step(end) {
        pair.flying.clear();
    }
    assert_eq!(pair.at_server.ike_down, [DownReason::PeerDead]);
    let (of, for_good, why) = &pair.at_server.siblings_refused[0];
    assert_eq!(
        (*of, *for_good, why.as_str(), pair.at_server.siblings_refused.len()),
        (base, false, "the IKE SA has ended", 1)
    );
    // The same if it has not even been asked.
    let mut pair = Pair::connected(81);
    let (base, now) = (pair.only_child(Side::Server), pair.now);
    pair.server.rekey_child(now, base).unwrap();
    pair.server.add_sibling(now, base).unwrap();
    pair.server.initiate_shutdown(now);
    pair.run(Duration::from_secs(5));
    assert_eq!((pair.at_server.siblings_refused.len(), pair.server.is_idle()), (1, true));
}
