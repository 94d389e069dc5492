use super::*;
use crate::testing::{engine, parameters};
use ipsec::iv::SenderNumber;
use ipsec::sa::{Direction, SaParameters};
use proptest::prelude::*;

/// An outbound SA towards these inner addresses.
fn entry(peer: u64, spi: u32, remote_ts: &[&str]) -> Box<OutboundEntry> {
    of(parameters(peer, spi, Direction::Outbound, remote_ts))
}

fn of(parameters: SaParameters) -> Box<OutboundEntry> {
    Box::new(OutboundEntry {
        remote: parameters.remote,
        shared: OutboundShared::new(parameters, engine(), SenderNumber(0)).unwrap(),
        inner_mtu: 1_400,
        home: 0,
        sealing: None,
        notes: Notes::default(),
        totals: Arc::default(),
    })
}

/// The same of a certain identity.
fn named(peer: u64, spi: u32, identity: &str) -> Box<OutboundEntry> {
    let mut parameters = parameters(peer, spi, Direction::Outbound, &["10.7.0.0/16"]);
    parameters.peer_name = identity.into();
    of(parameters)
}

fn towards(dst: [u8; 4]) -> FlowKey {
    FlowKey { src: [203, 0, 113, 80].into(), dst: dst.into(), protocol: 6, src_port: 80, dst_port: 9 }
}

fn spi_of(found: Option<&OutboundEntry>) -> Option<u32> {
    found.map(|entry| entry.shared.parameters().spi.get())
}

fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

#[test]
fn the_newest_sa_that_admits_is_used_until_it_goes() {
    let mut sas = OutboundSas::default();
    sas.insert(entry(1, 300, &["10.7.0.0/16"]));
    sas.insert(entry(1, 301, &["10.7.0.0/16"]));
    sas.insert(entry(1, 302, &["10.8.0.0/16"]));
    let of_peer = |sas: &OutboundSas| spi_of(sas.of_peer(PeerId(1), &towards([10, 7, 0, 9]), Fragment::Whole));
    assert_eq!(of_peer(&sas), Some(301));
    assert!(sas.remove(PeerId(1), spi(301)).is_some());
    assert_eq!(of_peer(&sas), Some(300));
    assert!(sas.remove(PeerId(1), spi(301)).is_none(), "it is gone");
    assert!(sas.remove(PeerId(2), spi(300)).is_none(), "it is another peer's");
    assert_eq!(spi_of(sas.get_mut(PeerId(1), spi(302)).as_deref()), Some(302));
}

#[test]
fn one_spi_of_two_peers_is_two_sas() {
    let mut sas = OutboundSas::default();
    sas.insert(entry(1, 300, &["10.7.0.1"]));
    sas.insert(entry(2, 300, &["10.7.0.2"]));
    assert!(sas.remove(PeerId(1), spi(300)).is_some());
    assert!(sas.get_mut(PeerId(1), spi(300)).is_none());
    assert_eq!(sas.get_mut(PeerId(2), spi(300)).map(|entry| entry.shared.parameters().peer), Some(PeerId(2)));
}

#[test]
fn a_peer_moves_within_its_address_family_only() {
    let mut sas = OutboundSas::default();
    sas.insert(entry(1, 300, &["10.7.0.1"]));
    sas.insert(entry(2, 301, &["10.7.0.2"]));
    let remotes = |sas: &mut OutboundSas| {
        [(1, 300), (2, 301)].map(|(peer, number)| sas.get_mut(PeerId(peer), spi(number)).unwrap().remote.to_string())
    };
    sas.move_peer(PeerId(1), "192.0.2.50:1024".parse().unwrap());
    sas.move_peer(PeerId(2), "[2001:db8::1]:4500".parse().unwrap());
    assert_eq!(remotes(&mut sas), ["192.0.2.50", "198.51.100.2"]);
}

#[test]
fn nothing_is_left_of_peers_that_have_gone() {
    let mut sas = OutboundSas::default();
    for round in 0..100 {
        sas.insert(entry(1, 300, &["10.7.0.1", "10.7.0.2"]));
        sas.insert(entry(1, 301, &["10.7.0.2", "10.8.0.0/16"]));
        sas.insert(entry(1, 302, &["10.7.0.3"]));
        for number in if round % 2 == 0 { [300, 301, 302] } else { [302, 301, 300] } {
            assert!(sas.remove(PeerId(1), spi(number)).is_some());
        }
    }
    assert!(sas.by_peer.is_empty() && sas.by_host.is_empty() && sas.wide.is_empty(), "{sas:?}");
}

#[test]
fn an_identity_that_has_come_anew_is_the_same_and_the_newest_is_meant() {
    let mut sas = OutboundSas::default();
    sas.insert(named(1, 300, "one"));
    sas.insert(named(2, 301, "other"));
    sas.insert(named(3, 302, "one"));
    let identity = |peer| sas.identity(PeerId(peer));
    assert!(identity(1).is_some() && identity(1) == identity(3));
    assert!(identity(2).is_some() && identity(2) != identity(1));
    assert_eq!(identity(9), None);
    let flow = towards([10, 7, 0, 1]);
    assert_eq!(sas.of_any(&flow, Fragment::Whole).err(), Some(DropReason::PeerAmbiguous));
    sas.remove(PeerId(2), spi(301));
    assert_eq!(spi_of(sas.of_any(&flow, Fragment::Whole).ok()), Some(302));
    // Whoever has come anew may not be ready yet.
    sas.insert_reserve(named(4, 303, "one"));
    assert_eq!(spi_of(sas.of_any(&flow, Fragment::Whole).ok()), Some(302));
    sas.prefer(PeerId(4), spi(303));
    assert_eq!(spi_of(sas.of_any(&flow, Fragment::Whole).ok()), Some(303));
}

proptest! {
    /// Whom a packet without a connection goes to, against a look at every SA.
    #[test]
    fn of_any_finds_an_sa_exactly_if_one_peer_has_one(
        steps in prop::collection::vec((any::<bool>(), 0_u64..4, 0_u32..4, 0_usize..5), 1..60),
    ) {
        const SELECTORS: [&[&str]; 5] =
            [&["10.7.0.1"], &["10.7.0.1", "10.7.0.2"], &["10.7.0.0/24"], &["10.7.0.2", "10.8.0.0/16"], &["0.0.0.0/0"]];
        let mut sas = OutboundSas::default();
        let mut model: Vec<(u64, u32, usize)> = Vec::new();
        for (is_insert, peer, number, selectors) in steps {
            let known = model.iter().position(|&(p, n, _)| (p, n) == (peer, number));
            if is_insert && known.is_none() {
                sas.insert(entry(peer, 300 + number, SELECTORS[selectors]));
                model.push((peer, number, selectors));
            } else if !is_insert {
                prop_assert_eq!(sas.remove(PeerId(peer), spi(300 + number)).is_some(), known.is_some());
                model.retain(|&(p, n, _)| (p, n) != (peer, number));
            }
            for dst in [[10, 7, 0, 1], [10, 7, 0, 2], [10, 7, 0, 3], [10, 8, 0, 1], [10, 9, 0, 1]] {
                let admits = |selectors: usize| {
                    let mut ranges = SELECTORS[selectors].iter().map(|text| text.parse::<TrafficSelector>().unwrap());
                    ranges.any(|selector| selector.addresses.contains(dst.into()))
                };
                let found = sas.of_any(&towards(dst), Fragment::Whole).map(|entry| {
                    let parameters = entry.shared.parameters();
                    (parameters.peer.0, parameters.spi.get() - 300)
                });
                let candidates: Vec<_> = model.iter().filter(|&&(_, _, s)| admits(s)).map(|&(p, n, _)| (p, n)).collect();
                let expected = match candidates.last() {
                    None => Err(DropReason::NoOutboundSa),
                    Some(newest) if candidates.iter().all(|(peer, _)| *peer == newest.0) => Ok(*newest),
                    Some(_) => Err(DropReason::PeerAmbiguous),
                };
                prop_assert_eq!(found, expected);
            }
        }
    }
}
