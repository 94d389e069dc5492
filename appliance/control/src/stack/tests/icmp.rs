use super::*;
use wire_icmp::v4::{Repr, Unreachable};

fn replies(stack: &mut Stack) -> Vec<(MacAddress, Ipv4Addr, Ipv4Addr)> {
    let frames = drain(stack);
    let of_frame = |frame: &[u8]| {
        let view = ethernet::Packet::new_checked(frame).unwrap();
        let packet = ipv4::Packet::new_checked(view.payload()).unwrap();
        (view.dst(), packet.src(), packet.dst())
    };
    frames.iter().map(|(_, frame)| of_frame(frame)).collect()
}

#[test]
fn echo_is_answered_for_our_addresses_on_their_port_only() {
    let mut stack = appliance();
    drain(&mut stack);
    let inside = Ipv4Addr::new(10, 9, 0, 1);
    for (dst, answered) in
        [(OWN, true), (DVIPA, true), (inside, false), (STRANGER, false), (Ipv4Addr::BROADCAST, false)]
    {
        let request = icmp_packet(CLIENT, dst, &Repr::EchoRequest { identifier: 1, sequence: 2, data: b"abc" });
        stack.handle_frame(NOW, PORT, &from_router(&request));
        let expected: &[_] = if answered { &[(ROUTER_MAC, dst, CLIENT)] } else { &[] };
        assert_eq!(replies(&mut stack), expected, "{dst}");
    }
    let echo = icmp_packet(CLIENT, OWN, &Repr::EchoRequest { identifier: 1, sequence: 2, data: b"abc" });
    stack.handle_frame(NOW, PORT, &from_router(&echo));
    let frame = drain(&mut stack).remove(0).1;
    let view = ethernet::Packet::new_checked(&frame[..]).unwrap();
    let packet = ipv4::Packet::new_checked(view.payload()).unwrap();
    let message = wire_icmp::Packet::new_checked(packet.payload()).unwrap();
    assert!(packet.verify_checksum() && message.verify_checksum_v4());
    assert_eq!(Repr::parse(&message), Ok(Repr::EchoReply { identifier: 1, sequence: 2, data: b"abc" }));
}

#[test]
fn a_large_echo_is_put_together_and_answered_in_fragments() {
    let mut stack = appliance();
    drain(&mut stack);
    let data: Vec<u8> = (0..5_000).map(|i| i as u8).collect();
    let whole = icmp_packet(CLIENT, OWN, &Repr::EchoRequest { identifier: 1, sequence: 2, data: &data });
    let pieces: Vec<&[u8]> = whole[ipv4::HEADER_LEN..].chunks(1_480).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let mut packet = ipv4_packet(CLIENT, OWN, protocol::ICMP, piece);
        let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
        view.set_fragmentation(false, i + 1 < pieces.len(), (i * 1_480) as u16);
        view.fill_checksum();
        stack.handle_frame(NOW, PORT, &from_router(&packet));
        assert_eq!(stack.counters().difference(), 0);
    }
    assert_eq!(replies(&mut stack), [(ROUTER_MAC, OWN, CLIENT); 4]);
    let counters = stack.counters();
    assert_eq!((counters.accepted, counters.merged, counters.held), (1, 3, 0));
}

#[test]
fn echoes_are_limited() {
    let mut stack = appliance();
    drain(&mut stack);
    let request = icmp_packet(CLIENT, OWN, &Repr::EchoRequest { identifier: 1, sequence: 2, data: b"abc" });
    for _ in 0..1_000 {
        stack.handle_frame(NOW, PORT, &from_router(&request));
    }
    assert_eq!(replies(&mut stack).len(), 200);
    assert_eq!(stack.counters().dropped(DropReason::EchoLimited), 800);
}

#[test]
fn a_path_mtu_about_our_packets_is_passed_on_and_any_other_is_not() {
    let mut stack = appliance();
    drain(&mut stack);
    let reason = Unreachable::FragmentationNeeded { next_hop_mtu_bytes: 1_400 };
    let esp = ipv4_packet(DVIPA, CLIENT, protocol::ESP, &[0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 9, 1, 2]);
    let of_others = ipv4_packet(STRANGER, CLIENT, protocol::ESP, &[0; 16]);
    for (quoted, reason) in [(&esp, reason), (&of_others, reason), (&esp, Unreachable::Port)] {
        let error = icmp_packet(ROUTER, DVIPA, &Repr::DestinationUnreachable { reason, quoted });
        stack.handle_frame(NOW, PORT, &from_router(&error));
    }
    let mut spoiled = icmp_packet(ROUTER, DVIPA, &Repr::DestinationUnreachable { reason, quoted: &esp });
    spoiled[ipv4::HEADER_LEN + 7] ^= 1;
    stack.handle_frame(NOW, PORT, &from_router(&spoiled));
    assert_eq!(stack.counters().dropped(DropReason::IcmpMalformed), 1);
    let expected = PathMtu {
        reporter: ROUTER.into(),
        local: DVIPA.into(),
        remote: CLIENT.into(),
        protocol: protocol::ESP,
        leading: [0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 9],
        mtu_bytes: 1_400,
    };
    assert_eq!(events(&mut stack), [Event::PathMtu(expected)]);
    assert_eq!(stack.counters().dropped(DropReason::IcmpNotServed), 2);
}

#[test]
fn forged_path_mtus_leave_room_for_alarms() {
    let mut stack = appliance();
    drain(&mut stack);
    let reason = Unreachable::FragmentationNeeded { next_hop_mtu_bytes: 68 };
    let quoted = ipv4_packet(DVIPA, CLIENT, protocol::ESP, &[7; 16]);
    let error = from_router(&icmp_packet(ROUTER, DVIPA, &Repr::DestinationUnreachable { reason, quoted: &quoted }));
    for _ in 0..10_000 {
        stack.handle_frame(NOW, PORT, &error);
    }
    stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, OWN, OWN));
    let events = events(&mut stack);
    assert_eq!(events.len(), EVENTS_MAX / 2 + 1);
    assert!(matches!(events.last(), Some(Event::AddressConflict { .. })));
}

#[test]
fn the_sender_of_an_oversize_packet_is_told_the_size_that_would_do() {
    let mut stack = appliance();
    drain(&mut stack);
    let (web, web_mac) = (Ipv4Addr::new(10, 9, 0, 2), MacAddress([2, 0, 0, 0, 1, 2]));
    let offending = ipv4_packet(web, CLIENT, protocol::TCP, &[0x55; 1_460]);
    stack.send_too_big(NOW, &offending, 1_438);
    let question = arp_of(&drain(&mut stack)[0].1).unwrap();
    let inside_mac = question.sender_mac;
    let answer = arp::Repr {
        operation: arp::Operation::Reply,
        sender_mac: web_mac,
        sender_ip: web,
        target_mac: inside_mac,
        target_ip: question.sender_ip,
    };
    stack.handle_frame(
        NOW,
        PortId(1),
        &frame(inside_mac, web_mac, EtherType::Arp, &{
            let mut packet = [0; arp::PACKET_LEN];
            answer.emit(&mut arp::Packet::new_unchecked(&mut packet[..]));
            packet
        }),
    );
    let (port, sent) = drain(&mut stack).remove(0);
    let view = ethernet::Packet::new_checked(&sent[..]).unwrap();
    let packet = ipv4::Packet::new_checked(view.payload()).unwrap();
    assert_eq!((port, view.dst(), packet.src(), packet.dst()), (PortId(1), web_mac, Ipv4Addr::new(10, 9, 0, 1), web));
    assert_eq!(packet.total_len(), 576);
    let message = wire_icmp::Packet::new_checked(packet.payload()).unwrap();
    assert!(packet.verify_checksum() && message.verify_checksum_v4());
    let Ok(Repr::DestinationUnreachable { reason, quoted }) = Repr::parse(&message) else { panic!("no such error") };
    assert_eq!(reason, Unreachable::FragmentationNeeded { next_hop_mtu_bytes: 1_438 });
    assert_eq!(quoted, &offending[..548]);
}

#[test]
fn no_error_answers_what_none_may_answer() {
    let web = Ipv4Addr::new(10, 9, 0, 2);
    let sound = ipv4_packet(web, CLIENT, protocol::TCP, &[0x55; 1_460]);
    assert!(too_big(OWN.into(), &sound, 1_438).is_some());
    let echo = icmp_packet(web, CLIENT, &Repr::EchoRequest { identifier: 1, sequence: 1, data: &[0; 1_400] });
    assert!(too_big(OWN.into(), &echo, 1_438).is_some());
    let error = icmp_packet(web, CLIENT, &Repr::DestinationUnreachable { reason: Unreachable::Port, quoted: &sound });
    let with = |dont_fragment, offset| {
        let mut packet = sound.clone();
        ipv4::Packet::new_unchecked(&mut packet[..]).set_fragmentation(dont_fragment, false, offset);
        packet
    };
    for offending in [
        error,
        with(false, 0),
        with(true, 8),
        ipv4_packet(web, Ipv4Addr::new(224, 0, 0, 1), protocol::TCP, &[0; 1_460]),
        ipv4_packet(Ipv4Addr::BROADCAST, CLIENT, protocol::TCP, &[0; 1_460]),
        ipv4_packet(Ipv4Addr::UNSPECIFIED, CLIENT, protocol::TCP, &[0; 1_460]),
        vec![],
        sound[..19].to_vec(),
    ] {
        assert_eq!(too_big(OWN.into(), &offending, 1_438), None);
    }
}

#[test]
fn size_errors_are_limited() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    let offending = ipv4_packet(CLIENT, STRANGER, protocol::TCP, &[0x55; 1_460]);
    for _ in 0..500 {
        stack.send_too_big(NOW, &offending, 1_438);
    }
    assert_eq!(drain(&mut stack).len(), 100);
    assert_eq!(stack.counters().dropped(DropReason::ErrorLimited), 400);
}
