use super::numbers::{END_SHORT, SOFT_SEQUENCE};
use super::*;
use crate::Spi;
use crate::cipher::Cipher;
use crate::inbound::InboundSa;
use crate::iv::SenderNumber;
use crate::key::SaKey;
use crate::lifetime::{Lifetime, Limits};
use crate::sa::{Direction, Encapsulation, SaParameters};
use crate::testing::mcgrew::CASES;
use crate::testing::{BORN_AT, ends, engines, hex, ipv4_packet, ivs, parameters, ring};
use core::net::IpAddr;
use proptest::prelude::*;
use std::collections::BTreeSet;
use wire::{ipv4, ipv6, udp};

const UDP: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 40_123 };

fn sender(change: impl Fn(&mut SaParameters)) -> OutboundSa {
    ends(ring(), change).0
}

/// An inner packet on its way out, all headers written.
fn encapsulated(sa: &mut OutboundSa, inner: &[u8]) -> Result<(Vec<u8>, Sealed), OutboundError> {
    let overhead = sa.shared().overhead(inner.len());
    let mut packet = vec![0xee; overhead.before + inner.len() + overhead.after];
    packet[overhead.before..][..inner.len()].copy_from_slice(inner);
    let sealed = sa.encapsulate(&mut ivs(), &mut packet, inner.len())?;
    Ok((packet, sealed))
}

fn v6(parameters: &mut SaParameters) {
    parameters.dvipa = "2001:db8::80".parse().unwrap();
    parameters.remote = "2001:db8:1::9".parse().unwrap();
}

#[test]
fn draft_mcgrew_gcm_test_01_is_what_we_send() {
    let mut run = 0;
    for engine in engines() {
        for case in &CASES {
            let [key, nonce, aad, plain, ciphertext, icv] =
                [case.key, case.nonce, case.aad, case.plain, case.ciphertext, case.icv].map(hex);
            let Some(spi) = Spi::from_be_bytes(aad[..4].try_into().unwrap()) else { continue };
            let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.key_len() == key.len()).unwrap();
            let mut number = [0; 8];
            number[12 - aad.len()..].copy_from_slice(&aad[4..]);
            let iv = u64::from_be_bytes(nonce[4..].try_into().unwrap());
            let sender_number = SenderNumber(iv >> 48);
            let mut parameters = parameters(Direction::Outbound);
            (parameters.spi, parameters.cipher, parameters.esn) = (spi, cipher, aad.len() == 12);
            parameters.key = SaKey::from_keymat(cipher, &[&key, &nonce[..4]].concat()).unwrap();
            parameters.mode = Mode::Transport;
            let shared = OutboundShared::new(parameters, engine, sender_number).unwrap();
            let mut sa = OutboundSa::new(shared, u64::from_be_bytes(number), OuterPolicy::default());
            let mut ivs = IvGenerator::standing_at(sender_number, iv & 0xffff_ffff_ffff);

            let payload_len = plain.len() - 2 - usize::from(plain[plain.len() - 2]);
            if sa.next_sequence() == u64::MAX {
                // The one number that we never send, see `numbers`. The cipher agrees all the same.
                let mut room = vec![0; plain.len() + BEFORE_PAYLOAD_LEN + ICV_LEN];
                let refused = sa.seal(&mut ivs, &mut room, payload_len, 59).unwrap_err();
                assert_eq!(refused, OutboundError::SequenceExhausted);
                let mut sealed = [&plain[..], &[0; ICV_LEN]].concat();
                let input = sa.shared().key.input(iv.to_be_bytes(), spi, u64::MAX, true);
                sa.shared().key.seal(&input, &mut sealed).unwrap();
                assert_eq!(sealed, [ciphertext, icv].concat(), "{engine}, case {}", case.number);
                run += 1;
                continue;
            }
            let mut packet = crate::testing::sealed(&mut sa, &mut ivs, &plain[..payload_len], plain[plain.len() - 1]);
            let expected = [&aad[..4], &number[4..], &nonce[4..], &ciphertext, &icv].concat();
            assert_eq!(packet, expected, "{engine}, case {}", case.number);
            packet.clear();
            run += 1;
        }
    }
    assert_eq!(run, 12 * engines().len());
}

#[test]
fn hostile_30_a_sent_spi_is_the_peers() {
    let mut sa = sender(|sa| sa.spi = Spi::new(0xabad_cafe).unwrap());
    let (packet, _) = encapsulated(&mut sa, &ipv4_packet(60)).unwrap();
    assert_eq!(packet[20..24], [0xab, 0xad, 0xca, 0xfe]);
}

#[test]
fn numbers_begin_with_one_and_grow_by_one() {
    let mut sa = sender(|_| ());
    for expected in 1..=5 {
        assert_eq!(sa.next_sequence(), expected);
        let (packet, sealed) = encapsulated(&mut sa, &ipv4_packet(60)).unwrap();
        assert_eq!(sealed.sequence, expected);
        assert_eq!(packet[24..28], (expected as u32).to_be_bytes());
    }
    assert_eq!(*sa.counters(), OutboundCounters { packets: 5, bytes: 300, refused: 0 });
    let shared = sa.shared().clone();
    assert_eq!(OutboundSa::new(shared, 0, OuterPolicy::default()).next_sequence(), 1, "0 is no number");
}

#[test]
fn without_esn_numbers_end_at_two_to_the_32_and_never_wrap() {
    let shared = sender(|_| ()).shared().clone();
    let mut sa = OutboundSa::new(shared, END_SHORT - 2, OuterPolicy::default());
    let seals: Vec<_> = (0..4).map(|_| encapsulated(&mut sa, &ipv4_packet(60)).map(|(_, sealed)| sealed)).collect();
    let exhausted = Err(OutboundError::SequenceExhausted);
    let sealed = |sequence, soft_reached| Ok(Sealed { sequence, soft_reached });
    assert_eq!(seals, [sealed(END_SHORT - 2, true), sealed(END_SHORT - 1, false), exhausted, exhausted]);
    assert_eq!(sa.counters().refused, 2);
}

#[test]
fn without_esn_half_of_the_numbers_is_the_soft_limit_said_once() {
    let shared = sender(|_| ()).shared().clone();
    let mut sa = OutboundSa::new(shared, SOFT_SEQUENCE - 1, OuterPolicy::default());
    let said: Vec<_> = (0..3).map(|_| encapsulated(&mut sa, &ipv4_packet(60)).unwrap().1.soft_reached).collect();
    assert_eq!(said, [false, true, false]);
}

#[test]
fn hostile_33_with_esn_numbers_go_on_beyond_two_to_the_32_and_end_at_two_to_the_64() {
    let (esn, _) = ends(ring(), |sa| sa.esn = true);
    let mut sa = OutboundSa::new(esn.shared().clone(), END_SHORT - 1, OuterPolicy::default());
    for expected in END_SHORT - 1..END_SHORT + 2 {
        let (packet, sealed) = encapsulated(&mut sa, &ipv4_packet(60)).unwrap();
        assert_eq!(sealed, Sealed { sequence: expected, soft_reached: false });
        assert_eq!(packet[24..28], (expected as u32).to_be_bytes());
    }
    let mut last = OutboundSa::new(esn.shared().clone(), u64::MAX - 1, OuterPolicy::default());
    assert_eq!(encapsulated(&mut last, &ipv4_packet(60)).unwrap().1.sequence, u64::MAX - 1);
    for _ in 0..3 {
        assert_eq!(encapsulated(&mut last, &ipv4_packet(60)).unwrap_err(), OutboundError::SequenceExhausted);
    }
}

#[test]
fn senders_too_far_from_the_birth_may_not_use_the_key() {
    let mut sa = sender(|_| ());
    let mut packet = vec![0; 100];
    for (number, allowed) in [(32_767, true), (32_768, false), (-32_767, true), (-32_768, false)] {
        let mut ivs = IvGenerator::new(SenderNumber(BORN_AT.0.saturating_add_signed(number)));
        let room = esp_overhead(60);
        packet.resize(room.before + 60 + room.after, 0);
        let sealed = sa.seal(&mut ivs, &mut packet, 60, 4).map(|_| ());
        assert_eq!(sealed, if allowed { Ok(()) } else { Err(OutboundError::SenderTooFar) }, "{number}");
    }
}

#[test]
fn a_sender_without_ivs_sends_nothing() {
    let mut sa = sender(|_| ());
    let mut ivs = IvGenerator::standing_at(BORN_AT, (1 << 48) - 1);
    let mut packet = vec![0; 96];
    assert!(sa.seal(&mut ivs, &mut packet, 60, 4).is_ok());
    assert_eq!(sa.seal(&mut ivs, &mut packet, 60, 4), Err(OutboundError::IvExhausted));
    assert_eq!(sa.next_sequence(), 2, "no number is lost");
}

#[test]
fn a_burst_prepared_ahead_leaves_as_if_sent_one_by_one() {
    let prepare = |sa: &mut OutboundSa, generator: &mut IvGenerator, inner: &[u8]| {
        let overhead = sa.shared().overhead(inner.len());
        let mut packet = vec![0xee; overhead.before + inner.len() + overhead.after];
        packet[overhead.before..][..inner.len()].copy_from_slice(inner);
        let prepared = sa.prepare_encapsulation(generator, &mut packet, inner.len()).unwrap();
        (packet, prepared)
    };
    let (mut sa, mut receiver) = ends(ring(), |_| ());
    let mut generator = ivs();
    let lengths = [60, 1_420, 28, 61];
    let mut burst = lengths.map(|len| prepare(&mut sa, &mut generator, &ipv4_packet(len)));
    assert_eq!(sa.counters().packets, 0, "nothing has left");
    for ((packet, prepared), (len, number)) in burst.iter_mut().zip(lengths.into_iter().zip(1..)) {
        assert_eq!(sa.finish(packet, prepared), Ok(Sealed { sequence: number, soft_reached: false }));
        arrives(&mut receiver, packet, 20, &ipv4_packet(len));
    }
    assert_eq!(*sa.counters(), OutboundCounters { packets: 4, bytes: 1_569, refused: 0 });
}

#[test]
fn what_was_prepared_is_finished_once_and_in_its_own_room() {
    let mut sa = sender(|_| ());
    let mut packet = vec![0x45; 96];
    let mut prepared = sa.prepare(&mut ivs(), &mut packet, 60, 4).unwrap();
    for len in (0..200).filter(|len| *len != packet.len()) {
        assert_eq!(sa.finish(&mut vec![0; len], &mut prepared), Err(OutboundError::WrongRoom));
    }
    assert!(sa.finish(&mut packet, &mut prepared).is_ok());
    let sent = packet.clone();
    assert_eq!(sa.finish(&mut packet, &mut prepared), Err(OutboundError::WrongRoom));
    assert_eq!(packet, sent, "no second packet under one IV");
    assert_eq!((sa.counters().packets, sa.counters().refused), (1, 200));
}

#[test]
fn limits_end_an_sa_after_saying_so() {
    let bytes = Limits { soft: Some(120), hard: Some(180) };
    let mut sa = sender(|sa| sa.lifetime = Lifetime { bytes, ..Lifetime::NONE });
    let said: Vec<_> =
        (0..4).map(|_| encapsulated(&mut sa, &ipv4_packet(60)).map(|(_, sealed)| sealed.soft_reached)).collect();
    assert_eq!(said, [Ok(false), Ok(true), Ok(false), Err(OutboundError::HardLimit)]);
    assert_eq!((sa.next_sequence(), sa.counters().bytes), (4, 180));
}

#[test]
fn buffers_of_the_wrong_size_are_refused_and_nothing_is_used_up() {
    let mut sa = sender(|_| ());
    let overhead = sa.shared().overhead(60);
    let right = overhead.before + 60 + overhead.after;
    for len in (0..right + 300).filter(|len| *len != right) {
        let mut packet = vec![0x45; len];
        let refused = sa.encapsulate(&mut ivs(), &mut packet, 60).unwrap_err();
        assert!(matches!(refused, OutboundError::WrongRoom | OutboundError::WrongMode), "{len}: {refused}");
    }
    for inner_len in [usize::MAX, usize::MAX - 20, right] {
        assert!(sa.encapsulate(&mut ivs(), &mut vec![0x45; right], inner_len).is_err());
    }
    assert_eq!((sa.next_sequence(), sa.counters().packets), (1, 0));
}

#[test]
fn a_tunnel_takes_ip_packets_and_only_a_tunnel_encapsulates() {
    let mut tunnel = sender(|_| ());
    assert_eq!(encapsulated(&mut tunnel, &[0x15; 60]).unwrap_err(), OutboundError::WrongMode);
    let mut transport = sender(|sa| sa.mode = Mode::Transport);
    assert_eq!(encapsulated(&mut transport, &ipv4_packet(60)).unwrap_err(), OutboundError::WrongMode);
}

#[test]
fn packets_that_ip_cannot_describe_are_refused() {
    let mut sa = sender(|_| ());
    let longest = sa.shared().inner_mtu(65_535);
    let mut inner = vec![0; longest];
    inner[0] = 0x45;
    let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
    assert!(packet.len() > 65_530);
    inner.extend([0; 4]);
    assert_eq!(encapsulated(&mut sa, &inner).unwrap_err(), OutboundError::TooLong);
}

/// What the receiver's side sees of a packet that left: outer headers stripped, opened, compared.
fn arrives(receiver: &mut InboundSa, packet: &[u8], outer_len: usize, inner: &[u8]) {
    let mut esp = packet[outer_len..].to_vec();
    let opened = receiver.open(&mut esp).unwrap();
    assert_eq!(esp[opened.inner], *inner);
}

#[test]
fn outer_ipv4_headers_are_legal_and_copy_what_they_should() {
    for (tos, dont_fragment) in [(0, false), (0xb8, true), (0x02, false), (0x03, true)] {
        let (mut sa, mut receiver) = ends(ring(), |_| ());
        let mut inner = ipv4_packet(100);
        (inner[1], inner[6]) = (tos, if dont_fragment { 0x40 } else { 0 });
        let (packet, sealed) = encapsulated(&mut sa, &inner).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.total_len(), ip.header_len(), ip.ttl(), ip.protocol()), (packet.len(), 20, 64, 50));
        assert_eq!(
            (IpAddr::from(ip.src()), IpAddr::from(ip.dst())),
            (sa.shared().parameters().dvipa, sa.shared().parameters().remote)
        );
        assert_eq!((ip.dscp() << 2 | ip.ecn(), ip.dont_fragment()), (tos, dont_fragment));
        assert_eq!(ip.identification(), sealed.sequence as u16);
        arrives(&mut receiver, &packet, 20, &inner);
    }
}

#[test]
fn outer_policy_can_set_and_clear_and_hide() {
    let cases = [
        (DontFragment::Set, false, true),
        (DontFragment::Set, true, true),
        (DontFragment::Clear, true, false),
        (DontFragment::Copy, true, true),
        (DontFragment::Copy, false, false),
    ];
    for (dont_fragment, inner_df, outer_df) in cases {
        let shared = sender(|_| ()).shared().clone();
        let policy = OuterPolicy { dont_fragment, dscp: Dscp::Fixed(0x0a), hop_limit: 17 };
        let mut sa = OutboundSa::new(shared, 1, policy);
        let mut inner = ipv4_packet(100);
        (inner[1], inner[6]) = (0xb9, if inner_df { 0x40 } else { 0 });
        let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.dont_fragment(), ip.ttl(), ip.dscp(), ip.ecn()), (outer_df, 17, 0x0a, 1), "{dont_fragment:?}");
    }
}

#[test]
fn udp_encapsulation_over_ipv4_has_no_checksum() {
    let (mut sa, mut receiver) = ends(ring(), |sa| sa.encapsulation = UDP);
    let inner = ipv4_packet(101);
    let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
    let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(ip.protocol(), 17);
    let udp = udp::Packet::new_checked(ip.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port(), udp.checksum()), (4500, 40_123, 0));
    assert_eq!(udp.len(), packet.len() - 20);
    arrives(&mut receiver, &packet, 28, &inner);
}

#[test]
fn outer_ipv6_headers_are_legal_and_udp_in_them_has_a_checksum() {
    for encapsulation in [Encapsulation::None, UDP] {
        let (mut sa, mut receiver) = ends(ring(), |sa| {
            v6(sa);
            sa.encapsulation = encapsulation;
        });
        let mut inner = vec![0; 77];
        (inner[0], inner[1], inner[5]) = (0x6b, 0x90, 37);
        let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
        let ip = ipv6::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!((ip.total_len(), ip.hop_limit(), ip.flow_label()), (packet.len(), 64, 0));
        assert_eq!((ip.dscp(), ip.ecn()), (0x2e, 1));
        let (local, remote) = (sa.shared().parameters().dvipa, sa.shared().parameters().remote);
        assert_eq!((IpAddr::from(ip.src()), IpAddr::from(ip.dst())), (local, remote));
        if encapsulation == UDP {
            let udp = udp::Packet::new_checked(ip.payload()).unwrap();
            assert!(udp.checksum() != 0 && udp.verify_checksum(local, remote));
            assert_eq!((udp.src_port(), udp.dst_port(), ip.next_header()), (4500, 40_123, 17));
            arrives(&mut receiver, &packet, 48, &inner);
        } else {
            assert_eq!(ip.next_header(), 50);
            arrives(&mut receiver, &packet, 40, &inner);
        }
    }
}

#[test]
fn an_inner_ipv6_packet_counts_as_never_fragmented() {
    let mut sa = sender(|_| ());
    let mut inner = vec![0; 60];
    (inner[0], inner[5]) = (0x60, 20);
    let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
    assert!(ipv4::Packet::new_checked(&packet[..]).unwrap().dont_fragment());
}

#[test]
fn a_peer_that_moved_is_followed_within_its_family() {
    for encapsulation in [Encapsulation::None, UDP] {
        let mut sa = sender(|sa| sa.encapsulation = encapsulation);
        sa.move_remote("192.0.2.200:50000".parse().unwrap()).unwrap();
        let (packet, _) = encapsulated(&mut sa, &ipv4_packet(60)).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.src().to_string(), ip.dst().to_string()), ("203.0.113.80".into(), "192.0.2.200".into()));
        if encapsulation == UDP {
            let udp = udp::Packet::new_checked(ip.payload()).unwrap();
            assert_eq!((udp.src_port(), udp.dst_port()), (4500, 50_000));
        }
        assert_eq!(sa.move_remote("[2001:db8::1]:50000".parse().unwrap()), Err(BadSa::Addresses));
    }
    let mut sa = sender(v6);
    sa.move_remote("[2001:db8::77]:1".parse().unwrap()).unwrap();
    let mut inner = vec![0; 60];
    inner[0] = 0x60;
    let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
    let ip = ipv6::Packet::new_checked(&packet[..]).unwrap();
    assert_eq!((ip.src().to_string(), ip.dst().to_string()), ("2001:db8::80".into(), "2001:db8::77".into()));
}

#[test]
fn outer_headers_refuse_what_they_cannot_describe() {
    let header = OuterHeader::new(&parameters(Direction::Outbound), OuterPolicy::default());
    let traits = InnerTraits { traffic_class: 0, dont_fragment: false };
    assert_eq!((header.len(), header.is_empty()), (20, false));
    assert_eq!(header.write(&mut [0; 19], traits, 0), Err(OuterLength { found: 19 }));
    assert_eq!(header.write(&mut [0; 20], traits, 0), Ok(()));
    assert_eq!(header.write(&mut vec![0; 65_536], traits, 0), Err(OuterLength { found: 65_536 }));
    let mut parameters = parameters(Direction::Outbound);
    v6(&mut parameters);
    let header = OuterHeader::new(&parameters, OuterPolicy::default());
    assert_eq!(header.write(&mut vec![0; 65_575], traits, 0), Ok(()));
    assert_eq!(header.write(&mut vec![0; 65_576], traits, 0), Err(OuterLength { found: 65_576 }));
    assert_eq!(InnerTraits::of(&[]), traits);
    assert_eq!(InnerTraits::of(&[0x45, 9, 0, 0, 0, 0]), traits);
}

#[test]
fn inbound_parameters_make_no_outbound_sa() {
    let refused = OutboundShared::new(parameters(Direction::Inbound), ring(), BORN_AT).unwrap_err();
    assert_eq!(refused, BadSa::Direction { found: Direction::Inbound });
}

#[test]
fn ivs_and_numbers_of_many_packets_are_all_different() {
    let (mut sa, _) = ends(ring(), |_| ());
    let mut generators = [ivs(), IvGenerator::new(SenderNumber(BORN_AT.0 + 1))];
    let mut seen = BTreeSet::new();
    for at in 0..2_000 {
        let packet = crate::testing::sealed(&mut sa, &mut generators[at % 2], &ipv4_packet(28), 4);
        assert!(seen.insert(packet[8..16].to_vec()), "an IV was used twice");
        assert_eq!(packet[4..8], (at as u32 + 1).to_be_bytes());
    }
}

proptest! {
    #[test]
    fn the_inner_mtu_is_exactly_what_fits(mtu in 0_usize..10_000, family_v6: bool, natted: bool) {
        let sa = sender(|sa| {
            if family_v6 {
                v6(sa);
            }
            sa.encapsulation = if natted { UDP } else { Encapsulation::None };
        });
        let inner_mtu = sa.shared().inner_mtu(mtu);
        let fitting = (1..=mtu).rev().find(|len| sa.shared().fits(*len, mtu)).unwrap_or(0);
        prop_assert_eq!(inner_mtu, fitting);
    }

    #[test]
    fn what_leaves_arrives(len in 28_usize..2_000, esn: bool, natted: bool, first in 1_u64..1 << 31) {
        let (outbound, mut receiver) = ends(ring(), |sa| {
            sa.esn = esn;
            sa.encapsulation = if natted { UDP } else { Encapsulation::None };
        });
        let mut sa = OutboundSa::new(outbound.shared().clone(), first, OuterPolicy::default());
        let inner = ipv4_packet(len);
        let (packet, _) = encapsulated(&mut sa, &inner).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        prop_assert!(ip.verify_checksum() && ip.total_len() == packet.len());
        arrives(&mut receiver, &packet, if natted { 28 } else { 20 }, &inner);
    }
}
