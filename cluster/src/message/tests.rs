//! What is encoded is decoded, what is not ours is refused, and nothing panics.

use core::net::IpAddr;

use ipsec::Spi;
use ipsec::sa::PeerId;
use proptest::prelude::*;
use wire::flow::FlowKey;
use zeroize::Zeroizing;

use super::*;
use crate::id::{Incarnation, MemberId, Serial};
use crate::lifesize::{Amount, Percentage, Report};
use crate::member::{ActivePort, EntryKey, NumberSource, ServicePort};

fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

fn entry() -> EntryKey {
    let (src, dst) = ("10.0.0.1".parse().unwrap(), "203.0.113.80".parse().unwrap());
    EntryKey { peer: PeerId(9), flow: FlowKey { src, dst, protocol: 6, src_port: 1, dst_port: 443 } }
}

fn image() -> ShadowImage {
    ShadowImage {
        birth: 4,
        sa: SecretBytes::new(Zeroizing::new(b"a very secret key".to_vec())),
        is_preferred: true,
        remote: Some("192.0.2.1:4500".parse().unwrap()),
        percentage: Percentage::START,
        ceilings: [Amount::of((7, 1)), Amount::UNLIMITED],
    }
}

fn of(body: Body) -> Message {
    Message::Dvipa { dvipa: "203.0.113.80".parse::<IpAddr>().unwrap(), epoch: Epoch(3), body }
}

/// One of each kind.
fn all() -> Vec<Message> {
    let report = Report { used: Amount::of((5, 1)), ..Report::default() };
    let top = Top { spi: spi(300), number: 77 };
    let bodies = vec![
        Body::Claimed,
        Body::ClaimAcknowledged { incarnation: Incarnation(4), position: 9 },
        Body::Held(vec![top]),
        Body::Expelled { incarnation: Incarnation(4) },
        Body::Deltas {
            first: 8,
            deltas: vec![
                Delta::Born(image()),
                Delta::Gone(Departed { spi: spi(301), lingers: true, why: ShortReason::Deleted }),
                Delta::Moved(Moved {
                    peer: PeerId(1),
                    remote: "[2001:db8::1]:500".parse().unwrap(),
                    spis: vec![spi(300), spi(301)],
                }),
            ],
        },
        Body::SnapshotBegin { number: 3 },
        Body::SnapshotSas(vec![image()]),
        Body::SnapshotEnd { number: 3 },
        Body::ShadowsAcknowledged { number: 3, lacking: 1 },
        Body::Report {
            ready: vec![ServicePort { protocol: 6, port: 443 }],
            active: vec![ActivePort { service: ServicePort { protocol: 17, port: 53 }, connections: 7 }],
        },
        Body::FirstPacket(spi(300)),
        Body::PeerSeen { spi: spi(300), remote: "192.0.2.1:4500".parse().unwrap(), sequence: 5 },
        Body::Freed { batch: 1, entries: vec![entry()], tops: vec![top] },
        Body::FreedAcknowledged { batch: 1, serial: Serial(1) },
        Body::Verify { incarnation: Incarnation(4), entries: vec![entry()] },
        Body::DrainWanted { target: MemberId(3), on: true },
        Body::Use(vec![Used {
            spi: spi(300),
            inbound: report,
            outbound: report,
            top: 9,
            next_outbound: 8,
            heard_ago_ms: Some(4),
        }]),
        Body::Grants(vec![Granted { spi: spi(300), is_inbound: true, ceiling: Amount::of((9, 9)) }]),
        Body::NumbersWanted(vec![Wanted { spi: spi(300), next: 7 }]),
        Body::Numbers(vec![NumbersFrom { spi: spi(300), source: NumberSource::Own { from: 4 } }]),
        Body::Marks(vec![Marked { spi: spi(300), below: 1 << 24 }]),
        Body::Lease { spi: spi(300), first: 1, count: 9 },
        Body::Prefer(vec![spi(300)]),
        Body::Quiet(vec![spi(300)]),
    ];
    [Message::Pulse { load_permille: 400 }].into_iter().chain(bodies.into_iter().map(of)).collect()
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    for message in all() {
        let bytes = message.encode(VERSION).unwrap();
        assert_eq!(Message::decode(&bytes, VERSION), Ok(message));
    }
}

/// A kind's number is its place: whoever moves one changes what other versions understand.
#[test]
fn the_numbers_of_the_kinds_are_nailed() {
    let kinds: Vec<u8> = all()[1..].iter().map(|message| message.encode(VERSION).unwrap()[7]).collect();
    assert_eq!(kinds, (0..24).collect::<Vec<u8>>());
}

#[test]
fn a_kind_that_is_newer_than_the_session_is_neither_sent_nor_taken() {
    for message in all() {
        let bytes = message.encode(VERSION).unwrap();
        let refused = BadMessage::Newer { since: 1, agreed: 0 };
        assert_eq!(message.encode(0).unwrap_err(), refused);
        assert_eq!(Message::decode(&bytes, 0), Err(refused));
    }
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = of(Body::Claimed).encode(VERSION).unwrap().to_vec();
    bytes[7] = 24;
    assert_eq!(Message::decode(&bytes, VERSION), Err(BadMessage::Malformed));
}

#[test]
fn what_follows_a_message_and_what_is_too_long_is_refused() {
    let mut bytes = of(Body::Claimed).encode(VERSION).unwrap().to_vec();
    bytes.push(0);
    assert_eq!(Message::decode(&bytes, VERSION), Err(BadMessage::Trailing { found: 1 }));
    bytes.resize(MESSAGE_BYTES_MAX + 1, 0);
    assert_eq!(Message::decode(&bytes, VERSION), Err(BadMessage::TooLong { found: MESSAGE_BYTES_MAX + 1 }));
}

#[test]
fn lists_have_bounds_on_both_sides() {
    let tops = vec![Top { spi: spi(300), number: 1 }; LIST_MAX + 1];
    let message = of(Body::Held(tops));
    let refused = BadMessage::ListTooLong { found: LIST_MAX + 1, max: LIST_MAX };
    assert_eq!(message.encode(VERSION).unwrap_err(), refused);
    let bytes = postcard::to_allocvec(&message).unwrap();
    assert_eq!(Message::decode(&bytes, VERSION), Err(refused));
    let entries = vec![entry(); ENTRIES_MAX + 1];
    assert!(of(Body::Freed { batch: 1, entries, tops: vec![] }).encode(VERSION).is_err());
}

#[test]
fn reserved_spis_and_flows_of_two_families_are_refused() {
    let mut bytes = of(Body::FirstPacket(spi(256))).encode(VERSION).unwrap().to_vec();
    bytes.truncate(8);
    bytes.push(0x7f);
    assert_eq!(Message::decode(&bytes, VERSION), Err(BadMessage::Malformed));
    let mut odd = entry();
    odd.flow.src = "2001:db8::1".parse().unwrap();
    let bytes = postcard::to_allocvec(&of(Body::Verify { incarnation: Incarnation(1), entries: vec![odd] })).unwrap();
    assert_eq!(Message::decode(&bytes, VERSION), Err(BadMessage::Malformed));
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!("{:?}", of(Body::SnapshotSas(vec![image()])));
    assert!(printed.contains("SecretBytes(17 bytes)") && !printed.contains("secret key"), "{printed}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(&bytes, VERSION);
    }

    #[test]
    fn no_changed_message_panics(which in 0usize..25, at in any::<usize>(), with in any::<u8>()) {
        let all = all();
        let mut bytes = all[which % all.len()].encode(VERSION).unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        if let Ok(message) = Message::decode(&bytes, VERSION) {
            // What was taken can be said.
            prop_assert!(message.encode(VERSION).is_ok());
        }
    }
}
