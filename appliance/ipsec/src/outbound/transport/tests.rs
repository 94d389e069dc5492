use super::*;
use crate::engine::Engine;
use crate::inbound::{InboundSa, Opened};
use crate::iv::SenderNumber;
use crate::lifetime::{Lifetime, Limits};
use crate::outbound::{OutboundCounters, Overhead};
use crate::sa::{Encapsulation, SaParameters};
use crate::testing::packets::{Sample, samples, upper, v4, v6};
use crate::testing::{ends, engines, ivs, ring};
use proptest::prelude::*;
use wire::{ipv4, ipv6, protocol};

fn transport_ends(engine: Engine, change: impl Fn(&mut SaParameters)) -> (OutboundSa, InboundSa) {
    ends(engine, |sa| {
        sa.mode = Mode::Transport;
        change(sa);
    })
}

/// Room around a packet, as the SA asks for it.
fn in_room(sa: &OutboundSa, ip: &[u8]) -> Vec<u8> {
    let Overhead { before, after } = sa.shared().overhead(ip.len());
    let mut packet = vec![0xee; before + ip.len() + after];
    packet[before..][..ip.len()].copy_from_slice(ip);
    packet
}

fn send(sa: &mut OutboundSa, ip: &[u8]) -> Result<Vec<u8>, OutboundError> {
    let mut packet = in_room(sa, ip);
    let _ = sa.encapsulate_transport(&mut ivs(), &mut packet, ip.len())?;
    Ok(packet)
}

/// What a receiver makes of it: finds ESP by the outer header alone, opens it, puts the header in order.
fn receive(receiver: &mut InboundSa, packet: &[u8], header_len: usize) -> (Vec<u8>, Opened) {
    let (header, esp) = packet.split_at(header_len);
    let mut esp = esp.to_vec();
    let opened = receiver.open(&mut esp).unwrap();
    let mut header = header.to_vec();
    transport::restore(&mut header, opened.next_header, opened.inner.len()).unwrap();
    ([&header[..], &esp[opened.inner.clone()]].concat(), opened)
}

/// Where the outer headers end and that ESP is what they say follows, as a router would read them.
fn esp_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 {
        let ip = ipv4::Packet::new_checked(packet).unwrap();
        assert!(ip.verify_checksum() && ip.total_len() == packet.len());
        assert_eq!(ip.protocol(), protocol::ESP);
        return ip.header_len();
    }
    let ip = ipv6::Packet::new_checked(packet).unwrap();
    let upper = ip.upper_layer().unwrap();
    assert_eq!((upper.protocol, ip.total_len()), (protocol::ESP, packet.len()));
    upper.offset
}

fn tcp(len: usize) -> Sample {
    v4(0, protocol::TCP, &upper(protocol::TCP, len))
}

#[test]
fn a_tcp_segment_keeps_its_header_and_everything_after_it_is_hidden() {
    for engine in engines() {
        let (mut sender, mut receiver) = transport_ends(engine, |_| ());
        let ip = tcp(100);
        let packet = send(&mut sender, &ip.bytes).unwrap();
        assert_eq!(packet.len(), 20 + 16 + 100 + 2 + 2 + 16);
        let mut header = packet[..20].to_vec();
        assert_eq!((&header[2..4], header[9]), (&u16::to_be_bytes(156)[..], 50));
        (header[3], header[9]) = (120, 6);
        header[10..12].copy_from_slice(&ip.bytes[10..12]);
        assert_eq!(header, ip.bytes[..20], "addresses, identification, time to live, marks");
        assert_eq!(packet[20..28], [0xc0, 0xde, 0, 1, 0, 0, 0, 1]);
        assert!(packet.windows(20).all(|window| window != &ip.bytes[20..40]), "the payload is in the clear");
        let (arrived, opened) = receive(&mut receiver, &packet, 20);
        assert_eq!(arrived, ip.bytes);
        assert_eq!((opened.next_header, opened.sequence()), (6, 1));
        assert_eq!(*sender.counters(), OutboundCounters { packets: 1, bytes: 100, refused: 0 });
        assert_eq!((receiver.counters().packets, receiver.counters().bytes), (1, 100), "payload bytes");
    }
}

#[test]
fn esp_goes_behind_the_headers_that_routers_need() {
    use protocol::{DESTINATION_OPTIONS as OPTIONS, FRAGMENT, HOP_BY_HOP as HOPS, ROUTING, TCP};
    let cases = [
        (&[][..], 40, TCP),
        (&[(HOPS, 0)], 48, TCP),
        (&[(OPTIONS, 1)], 40, OPTIONS),
        (&[(HOPS, 1), (ROUTING, 2)], 40 + 16 + 24, TCP),
        (&[(HOPS, 0), (OPTIONS, 0), (ROUTING, 2), (OPTIONS, 3)], 48 + 8 + 24, OPTIONS),
        (&[(FRAGMENT, 0xff)], 48, TCP),
        (&[(ROUTING, 0), (FRAGMENT, 9), (OPTIONS, 0)], 56, OPTIONS),
        (&[(OPTIONS, 2), (FRAGMENT, 0)], 40 + 24 + 8, TCP),
        (&[(OPTIONS, 0), (OPTIONS, 0)], 40, OPTIONS),
    ];
    for (chain, header_len, next_header) in cases {
        let ip = v6(chain, TCP, &upper(TCP, 60));
        assert_eq!((ip.header_len, ip.next_header), (header_len, next_header), "the sample itself");
        for engine in engines() {
            let (mut sender, mut receiver) = transport_ends(engine, |_| ());
            let packet = send(&mut sender, &ip.bytes).unwrap();
            assert_eq!(esp_at(&packet), header_len, "{chain:?}");
            let (arrived, opened) = receive(&mut receiver, &packet, header_len);
            assert_eq!((arrived, opened.next_header), (ip.bytes.clone(), next_header), "{chain:?}");
            let payload_len = ip.bytes.len() - header_len;
            assert_eq!(sender.counters().bytes, payload_len as u64);
        }
    }
}

#[test]
fn any_protocol_is_carried_but_a_dummy_stays_a_dummy() {
    let (mut sender, mut receiver) = transport_ends(ring(), |sa| sa.replay_window_packets = 1_024);
    for next_header in (0..=u8::MAX).filter(|next_header| *next_header != protocol::NO_NEXT_HEADER) {
        let ip = v4(0, next_header, &upper(next_header, 40));
        let packet = send(&mut sender, &ip.bytes).unwrap();
        let (arrived, opened) = receive(&mut receiver, &packet, 20);
        assert_eq!((arrived, opened.next_header), (ip.bytes, next_header));
    }
    let dummy = send(&mut sender, &v4(0, 59, &[1; 40]).bytes).unwrap();
    assert_eq!(receiver.open(&mut dummy[20..].to_vec()).unwrap_err(), crate::inbound::InboundError::Dummy);
}

#[test]
fn an_empty_payload_is_one_too() {
    let (mut sender, mut receiver) = transport_ends(ring(), |_| ());
    let ip = v4(2, protocol::UDP, &[]);
    let packet = send(&mut sender, &ip.bytes).unwrap();
    assert_eq!(receive(&mut receiver, &packet, 28).0, ip.bytes);
}

#[test]
fn fragments_and_what_is_no_packet_are_refused_and_left_as_they_are() {
    let (mut sender, _) = transport_ends(ring(), |_| ());
    let with = |ip: &Sample, at: usize, value: u8| {
        let mut bytes = ip.bytes.clone();
        bytes[at] = value;
        bytes
    };
    let (ip, ip6) = (tcp(60), v6(&[(protocol::FRAGMENT, 0)], protocol::TCP, &upper(protocol::TCP, 60)));
    let refused = [
        ("more fragments", with(&ip, 6, 0x20)),
        ("a later fragment", with(&ip, 7, 1)),
        ("first of IPv6", with(&ip6, 43, 1)),
        ("later of IPv6", with(&ip6, 43, 8)),
        ("longer than it says", [&ip.bytes[..], &[0; 4]].concat()),
        ("shorter than it says", ip.bytes[..76].to_vec()),
        ("a header of 16 bytes", with(&ip, 0, 0x44)),
        ("a header beyond the packet", v4(10, 6, &[]).bytes[..24].to_vec()),
        ("no version", with(&ip, 0, 0x15)),
        ("nothing", Vec::new()),
        ("a cut IPv6 header", ip6.bytes[..39].to_vec()),
        ("an extension header beyond the packet", v6(&[(protocol::ROUTING, 9)], 6, &[]).bytes[..48].to_vec()),
    ];
    for (what, bytes) in refused {
        let mut packet = in_room(&sender, &bytes);
        let before = packet.clone();
        let error = sender.encapsulate_transport(&mut ivs(), &mut packet, bytes.len()).unwrap_err();
        assert_eq!(error, OutboundError::WrongMode, "{what}");
        assert_eq!(packet, before, "{what}");
    }
    assert_eq!((sender.next_sequence(), sender.counters().refused), (1, 12));
}

#[test]
fn a_packet_that_has_to_wait_is_still_the_packet() {
    let (outbound, _) = transport_ends(ring(), |_| ());
    let mut sender = OutboundSa::granted(outbound.shared().clone(), crate::outbound::OuterPolicy::default());
    let ip = v4(10, protocol::TCP, &upper(protocol::TCP, 60));
    let mut packet = in_room(&sender, &ip.bytes);
    let before = packet.clone();
    let refused = sender.encapsulate_transport(&mut ivs(), &mut packet, ip.bytes.len());
    assert_eq!((refused, &packet), (Err(OutboundError::NoNumber), &before));
    let mut stranger = IvGenerator::new(SenderNumber(0));
    let refused = sender.encapsulate_transport(&mut stranger, &mut packet, ip.bytes.len());
    assert_eq!((refused, &packet), (Err(OutboundError::SenderTooFar), &before));
    sender.grant(5, 1).unwrap();
    assert_eq!(sender.encapsulate_transport(&mut ivs(), &mut packet, ip.bytes.len()).unwrap().sequence, 5);
}

#[test]
fn modes_are_not_mixed_and_nothing_goes_through_a_nat() {
    let ip = tcp(60);
    let (mut tunnel, _) = ends(ring(), |_| ());
    assert_eq!(send(&mut tunnel, &ip.bytes).unwrap_err(), OutboundError::WrongMode);
    let (mut natted, _) = transport_ends(ring(), |sa| {
        sa.encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
    });
    assert_eq!(send(&mut natted, &ip.bytes).unwrap_err(), OutboundError::WrongMode);
    let (mut transport, _) = transport_ends(ring(), |_| ());
    let mut packet = in_room(&transport, &ip.bytes);
    assert_eq!(transport.encapsulate(&mut ivs(), &mut packet, 80).unwrap_err(), OutboundError::WrongMode);
}

#[test]
fn buffers_of_the_wrong_size_are_refused_and_nothing_is_used_up() {
    let (mut sender, _) = transport_ends(ring(), |_| ());
    let ip = tcp(60);
    let right = in_room(&sender, &ip.bytes).len();
    for len in (0..right + 100).filter(|len| *len != right) {
        let mut packet = vec![0; len];
        packet.iter_mut().skip(16).zip(&ip.bytes).for_each(|(to, from)| *to = *from);
        let refused = sender.encapsulate_transport(&mut ivs(), &mut packet, ip.bytes.len()).unwrap_err();
        assert_eq!(refused, OutboundError::WrongRoom, "{len}");
    }
    for ip_len in [usize::MAX, usize::MAX - 16, right] {
        assert!(sender.encapsulate_transport(&mut ivs(), &mut vec![0x45; right], ip_len).is_err());
    }
    assert_eq!((sender.next_sequence(), sender.counters().packets), (1, 0));
}

#[test]
fn packets_that_ip_cannot_describe_are_refused() {
    let (mut sender, mut receiver) = transport_ends(ring(), |_| ());
    let longest = sender.shared().inner_mtu(65_535);
    for words in [0, 10] {
        let whole = v4(words, 17, &upper(17, longest - 20 - 4 * words));
        let packet = send(&mut sender, &whole.bytes).unwrap();
        assert!(packet.len() > 65_530);
        assert_eq!(receive(&mut receiver, &packet, whole.header_len).0, whole.bytes);
        let longer = v4(words, 17, &upper(17, longest - 20 - 4 * words + 4));
        assert_eq!(send(&mut sender, &longer.bytes).unwrap_err(), OutboundError::TooLong);
    }
    // IPv6 does not count its fixed header.
    let longest = sender.shared().inner_mtu(65_575);
    let chain = [(protocol::HOP_BY_HOP, 1)];
    let whole = v6(&chain, 17, &upper(17, longest - 56));
    let packet = send(&mut sender, &whole.bytes).unwrap();
    assert_eq!(receive(&mut receiver, &packet, 56).0, whole.bytes);
    let longer = v6(&chain, 17, &upper(17, longest - 56 + 4));
    assert_eq!(send(&mut sender, &longer.bytes).unwrap_err(), OutboundError::TooLong);
}

#[test]
fn the_lifesize_is_that_of_payloads() {
    let bytes = Limits { soft: None, hard: Some(100) };
    let lifetime = Lifetime { bytes, ..Lifetime::NONE };
    let (mut sender, _) = transport_ends(ring(), |sa| sa.lifetime = lifetime);
    assert!(send(&mut sender, &v4(10, 17, &[7; 60]).bytes).is_ok());
    assert!(send(&mut sender, &v4(0, 17, &[7; 40]).bytes).is_ok(), "160 bytes of packets, 100 of payloads");
    assert_eq!(send(&mut sender, &v4(0, 17, &[7]).bytes).unwrap_err(), OutboundError::HardLimit);
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let (mut sender, _) = transport_ends(ring(), |_| ());
    let mut ip = tcp(60).bytes;
    ip[11] ^= 1;
    let packet = send(&mut sender, &ip).unwrap();
    assert!(!ipv4::Packet::new_checked(&packet[..]).unwrap().verify_checksum());
}

#[test]
fn a_burst_prepared_ahead_leaves_as_if_sent_one_by_one() {
    for engine in engines() {
        let (mut sender, mut receiver) = transport_ends(engine, |_| ());
        let mut generator = ivs();
        let burst = [tcp(60), v6(&[(protocol::ROUTING, 2)], 6, &upper(6, 1_400)), v4(3, 17, &[9; 33])];
        let mut prepared = Vec::new();
        for ip in &burst {
            let mut packet = in_room(&sender, &ip.bytes);
            let ready = sender.prepare_transport(&mut generator, &mut packet, ip.bytes.len()).unwrap();
            prepared.push((packet, ready));
        }
        for ((packet, ready), ip) in prepared.iter_mut().zip(&burst) {
            let _ = sender.finish(packet, ready).unwrap();
            assert_eq!(receive(&mut receiver, packet, ip.header_len).0, ip.bytes);
            assert_eq!(sender.finish(packet, ready), Err(OutboundError::WrongRoom), "no second packet under one IV");
        }
    }
}

proptest! {
    #[test]
    fn what_leaves_arrives_whatever_stands_before_it(ip in samples(), esn: bool) {
        for engine in engines() {
            let (mut sender, mut receiver) = transport_ends(engine, |sa| sa.esn = esn);
            let packet = send(&mut sender, &ip.bytes).unwrap();
            prop_assert_eq!(esp_at(&packet), ip.header_len);
            let mtu = packet.len();
            prop_assert!(sender.shared().fits(ip.bytes.len(), mtu) && !sender.shared().fits(ip.bytes.len(), mtu - 1));
            let (arrived, opened) = receive(&mut receiver, &packet, ip.header_len);
            prop_assert_eq!((&arrived, opened.next_header), (&ip.bytes, ip.next_header));
            prop_assert_eq!(opened.inner.len(), ip.bytes.len() - ip.header_len);
            prop_assert_eq!(receiver.counters().bytes, sender.counters().bytes);
        }
    }

    #[test]
    fn the_inner_mtu_is_exactly_what_fits(mtu in 0_usize..10_000) {
        let (sender, _) = transport_ends(ring(), |_| ());
        let fitting = (1..=mtu).rev().find(|len| sender.shared().fits(*len, mtu)).unwrap_or(0);
        prop_assert_eq!(sender.shared().inner_mtu(mtu), fitting);
    }

    #[test]
    fn no_bytes_panic(first in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x00]), mut bytes in prop::collection::vec(any::<u8>(), 0..300), next in 0_u8..64) {
        let (mut sender, _) = transport_ends(ring(), |_| ());
        if bytes.len() > 40 {
            let (total, payload) = (bytes.len() as u16, bytes.len() as u16 - 40);
            bytes[0] = first;
            let stated = if first >> 4 == 4 { (2, total) } else { (4, payload) };
            bytes[stated.0..stated.0 + 2].copy_from_slice(&stated.1.to_be_bytes());
            bytes[6] = if first == 0x60 { next } else { 0 };
        }
        // A checksum that was wrong stays wrong, and no router would read on.
        let is_sound = bytes.first().is_none_or(|first| first >> 4 != 4)
            || ipv4::Packet::new_checked(&bytes[..]).is_ok_and(|ip| ip.verify_checksum());
        if let Ok(packet) = send(&mut sender, &bytes) && is_sound {
            prop_assert!(esp_at(&packet) >= 20);
        }
    }
}
