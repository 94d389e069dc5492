//! Whatever the octets: nothing panics, and what can be written can be read.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipsec::selector::{AddressRange, PortRange, TrafficSelector};
use proptest::prelude::*;

use super::peer::{PSK, Peer, Server};
use crate::message::payload::{
    Auth, AuthMethod, Delete, IdKind, Identification, KeyExchange, Notify, NotifyKind, Payload, PayloadKind, Proposal,
    ProtocolId, RawPayloads, SaPayload, TrafficSelectors, Transform, TransformKind,
};
use crate::message::{Body, ExchangeType, HEADER_LEN, Header, PayloadChain};

fn octets(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), length)
}

type ProposalParts = (u8, u8, Vec<u8>, Vec<(u8, u16, Option<u16>)>);

/// A payload by its parts, since payloads borrow.
#[derive(Clone, Debug)]
enum Parts {
    Sa(Vec<ProposalParts>),
    KeyExchange(u16, Vec<u8>),
    Id(bool, u8, Vec<u8>),
    Auth(u8, Vec<u8>),
    Nonce(Vec<u8>),
    Notify(u8, Vec<u8>, u16, Vec<u8>),
    DeleteEsp(Vec<u8>),
    DeleteIke,
    Ts(bool, Vec<TrafficSelector>),
    Opaque(u8, Vec<u8>),
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u8>(), any::<u16>(), any::<u16>()).prop_map(
        |(is_v6, one, other, protocol, low, high)| {
            let address = |octets: [u8; 16]| match is_v6 {
                true => IpAddr::V6(Ipv6Addr::from(octets)),
                false => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            };
            let (start, end) = (address(one.min(other)), address(one.max(other)));
            let ports = PortRange::new(low.min(high), low.max(high)).unwrap();
            TrafficSelector { addresses: AddressRange::new(start, end).unwrap(), protocol, ports }
        },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>());
    let proposal = (any::<u8>(), any::<u8>(), octets(0..20), prop::collection::vec(transform, 0..6));
    prop_oneof![
        prop::collection::vec(proposal, 1..5).prop_map(Parts::Sa),
        (any::<u16>(), octets(0..70)).prop_map(|(group, data)| Parts::KeyExchange(group, data)),
        (any::<bool>(), any::<u8>(), octets(0..40)).prop_map(|(side, kind, data)| Parts::Id(side, kind, data)),
        (any::<u8>(), octets(0..40)).prop_map(|(method, data)| Parts::Auth(method, data)),
        octets(16..=256).prop_map(Parts::Nonce),
        (any::<u8>(), octets(0..20), any::<u16>(), octets(0..40))
            .prop_map(|(protocol, spi, kind, data)| Parts::Notify(protocol, spi, kind, data)),
        prop::collection::vec(any::<[u8; 4]>(), 0..5).prop_map(|spis| Parts::DeleteEsp(spis.concat())),
        Just(Parts::DeleteIke),
        (any::<bool>(), prop::collection::vec(selector(), 0..5)).prop_map(|(side, list)| Parts::Ts(side, list)),
        (49_u8..=52, octets(0..40)).prop_map(|(number, body)| Parts::Opaque(number, body)),
    ]
}

/// Calls `with` with the payload that the parts make.
fn payload_of<R>(parts: &Parts, with: impl FnOnce(&Payload<'_>) -> R) -> R {
    match parts {
        Parts::Sa(list) => {
            let proposals = list.iter().map(|(number, protocol, spi, transforms)| Proposal {
                number: *number,
                protocol: ProtocolId(*protocol),
                spi,
                transforms: transforms
                    .iter()
                    .map(|(kind, id, key_bits)| Transform {
                        kind: TransformKind(*kind),
                        id: *id,
                        key_bits: *key_bits,
                        odd: false,
                    })
                    .collect(),
            });
            with(&Payload::Sa(SaPayload { proposals: proposals.collect() }))
        }
        Parts::KeyExchange(group, data) => with(&Payload::KeyExchange(KeyExchange { group: *group, data })),
        Parts::Id(is_initiator, kind, data) => {
            let body = Identification::body_of(IdKind(*kind), data);
            let id = Identification::from_body(&body).unwrap();
            with(&if *is_initiator { Payload::IdInitiator(id) } else { Payload::IdResponder(id) })
        }
        Parts::Auth(method, data) => with(&Payload::Auth(Auth { method: AuthMethod(*method), data })),
        Parts::Nonce(nonce) => with(&Payload::Nonce(nonce)),
        Parts::Notify(protocol, spi, kind, data) => {
            with(&Payload::Notify(Notify { protocol: ProtocolId(*protocol), spi, kind: NotifyKind(*kind), data }))
        }
        Parts::DeleteEsp(spis) => with(&Payload::Delete(Delete::esp(spis))),
        Parts::DeleteIke => with(&Payload::Delete(Delete::IKE_SA)),
        Parts::Ts(is_initiator, list) => {
            let list = TrafficSelectors(list.clone());
            with(&if *is_initiator { Payload::TsInitiator(list) } else { Payload::TsResponder(list) })
        }
        Parts::Opaque(number, body) => with(&Payload::Opaque { kind: PayloadKind::from_number(*number), body }),
    }
}

/// Octets changed at random: set, cut, doubled, with lengths put right or not.
fn mutate(message: &[u8], changes: &[(u16, u8)], cut: Option<u16>, fix_length: bool) -> Vec<u8> {
    let mut mutated = message.to_vec();
    for (at, octet) in changes {
        let at = usize::from(*at) % mutated.len();
        mutated[at] = *octet;
    }
    if let Some(cut) = cut {
        mutated.truncate(usize::from(cut) % (mutated.len() + 1));
    }
    if fix_length && mutated.len() >= HEADER_LEN {
        let length = mutated.len() as u32;
        mutated[24..28].copy_from_slice(&length.to_be_bytes());
    }
    mutated
}

fn mutation() -> impl Strategy<Value = (Vec<(u16, u8)>, Option<u16>, bool)> {
    (prop::collection::vec(any::<(u16, u8)>(), 0..6), prop::option::weighted(0.2, any::<u16>()), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(all in prop::collection::vec(parts(), 0..6)) {
        let mut chain = PayloadChain::new();
        for parts in &all {
            payload_of(parts, |payload| chain.push(payload));
        }
        let links: Vec<_> = RawPayloads::new(chain.first(), chain.bytes()).collect();
        prop_assert_eq!(links.len(), all.len());
        for (link, parts) in links.into_iter().zip(&all) {
            let link = link.unwrap();
            let read = Payload::parse(link.kind, link.body);
            payload_of(parts, |payload| {
                prop_assert_eq!(read.as_ref(), Ok(payload));
                // And it writes to the same octets again.
                let mut again = Vec::new();
                payload.emit(&mut again);
                prop_assert_eq!(&again, link.body);
                Ok(())
            })?;
        }
    }

    #[test]
    fn reading_never_panics(first: u8, bytes in octets(0..200)) {
        let _ = Header::parse(&bytes);
        let _ = Body::parse(first, &bytes);
    }

    #[test]
    fn a_changed_ike_sa_init_never_panics(seed: u8, (changes, cut, fix) in mutation()) {
        let mut server = Server::new();
        let peer = Peer::new(u64::from(seed));
        server.hear(peer.at, &mutate(&peer.init(), &changes, cut, fix));
        prop_assert!(server.endpoint.occupancy().half_open <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Under the right keys, so that everything behind the integrity check is reached.
    #[test]
    fn a_changed_request_of_an_authenticated_peer_never_panics(
        all in prop::collection::vec((prop::bool::ANY, parts()), 1..4),
        changes in prop::collection::vec(any::<(u16, u8)>(), 0..5),
        is_create: bool,
        before_auth: bool,
    ) {
        let mut server = Server::new();
        let mut peer = Peer::new(1);
        peer.begin(&mut server);
        let mut chain = peer.auth_request(PSK);
        let mut exchange = ExchangeType::IkeAuth;
        if !before_auth {
            peer.ask(&mut server, exchange, &chain);
            exchange = if is_create { ExchangeType::CreateChildSa } else { ExchangeType::Informational };
            chain = if is_create { peer.create_child(0x500, "10.0.0.2") } else { PayloadChain::new() };
        }
        for (_, parts) in &all {
            payload_of(parts, |payload| chain.push(payload));
        }
        let chain = chain.changed(|bytes| {
            for (at, octet) in &changes {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *octet;
            }
        });
        let request = peer.next_request(exchange, &chain);
        let answers = server.hear(peer.at, &request);
        prop_assert!(answers.len() <= 2);
        let occupancy = server.endpoint.occupancy();
        prop_assert!(occupancy.ike_sas <= 2 && occupancy.esp_spis <= 3);
        prop_assert_eq!(occupancy.watched_selectors, server.children_left());
        server.wait(core::time::Duration::from_secs(200));
    }
}
