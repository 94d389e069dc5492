use super::*;

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn received(stack: &mut Stack) -> Vec<IkeDatagram> {
    core::iter::from_fn(|| stack.poll_datagram()).collect()
}

fn ip_frames(frames: &[(PortId, Vec<u8>)]) -> Vec<&[u8]> {
    frames.iter().map(|(_, frame)| &frame[..]).filter(|frame| arp_of(frame).is_none()).collect()
}

#[test]
fn ike_goes_both_ways_at_any_size_on_both_ports() {
    let mut segment = Segment::new(vec![appliance(), host(STRANGER_MAC, STRANGER)]);
    segment.run(Duration::from_secs(1));
    for port in [500, 4_500] {
        for length in [0, 28, 1_468, 1_472, 1_473, 3_000, 20_000, 65_503] {
            let payload = message(length);
            for (from, to, local, remote) in [(1, 0, STRANGER, OWN), (0, 1, OWN, STRANGER), (1, 0, STRANGER, OWN)] {
                segment.stacks[from].send_datagram(segment.now, socket(local, port), socket(remote, port), &payload);
                segment.run(Duration::from_millis(1));
                let got = received(&mut segment.stacks[to]);
                let expected =
                    IkeDatagram { local: socket(remote, port), remote: socket(local, port), payload: payload.clone() };
                assert_eq!(got, [expected], "{length} bytes on {port}");
            }
        }
    }
    assert!(segment.carried.iter().all(|frame| frame.len() <= 1_514));
}

#[test]
fn a_dvipa_is_reached_through_a_router_and_answers_as_itself() {
    let mut stack = appliance();
    drain(&mut stack);
    let packet = udp_packet((CLIENT, 4_500), (DVIPA, 4_500), &[&[0; 4], &message(40)[..]].concat());
    stack.handle_frame(NOW, PORT, &from_router(&packet));
    let expected = IkeDatagram { local: socket(DVIPA, 4_500), remote: socket(CLIENT, 4_500), payload: message(40) };
    assert_eq!(received(&mut stack), [expected]);
    stack.send_datagram(NOW, socket(DVIPA, 4_500), socket(CLIENT, 4_500), &message(30));
    let sent = drain(&mut stack);
    let frame = ethernet::Packet::new_checked(ip_frames(&sent)[0]).unwrap();
    assert_eq!(frame.dst(), ROUTER_MAC, "it goes to the station that the request came from, resolved or not");
    let packet = ipv4::Packet::new_checked(frame.payload()).unwrap();
    assert_eq!((packet.src(), packet.dst(), packet.verify_checksum()), (DVIPA, CLIENT, true));
    assert!(!packet.dont_fragment(), "IKE passes where the path is narrower");
    let datagram = udp::Packet::new_checked(packet.payload()).unwrap();
    assert!(datagram.verify_checksum(DVIPA.into(), CLIENT.into()));
    assert_eq!(datagram.payload(), [&[0; 4], &message(30)[..]].concat());
}

#[test]
fn packets_that_may_be_cut_are_numbered() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    let mut identifications = BTreeSet::new();
    for _ in 0..10 {
        stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), &message(100));
        let sent = drain(&mut stack);
        let frame = ethernet::Packet::new_checked(ip_frames(&sent)[0]).unwrap();
        identifications.insert(ipv4::Packet::new_checked(frame.payload()).unwrap().identification());
    }
    assert_eq!(identifications.len(), 10);
}

#[test]
fn hundreds_of_dvipas_are_served() {
    let mut settings = settings();
    let dvipa = |i: u16| Ipv4Addr::new(203, 0, (i >> 8) as u8, i as u8);
    settings.dvipas = (1..=600).map(|i| Dvipa { address: dvipa(i).into(), port: PORT, owned: true }).collect();
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    drain(&mut stack);
    for i in 1..=600 {
        let packet = udp_packet((CLIENT, 500), (dvipa(i), 500), &message(28));
        stack.handle_frame(NOW, PORT, &from_router(&packet));
        assert_eq!(received(&mut stack)[0].local, socket(dvipa(i), 500));
        stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, STRANGER, dvipa(i)));
        assert_eq!(drain(&mut stack).len(), 1);
    }
}

#[test]
fn an_answer_does_not_wait_for_a_neighbour_and_a_request_does() {
    let mut stack = appliance();
    drain(&mut stack);
    stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), &message(3_000));
    assert_eq!(ip_frames(&drain(&mut stack)).len(), 0);
    stack.handle_frame(NOW, PORT, &arp_reply(ROUTER_MAC, ROUTER, OWN));
    let sent = drain(&mut stack);
    assert_eq!(ip_frames(&sent).len(), 3, "all fragments follow when the router has answered");
    assert!(ip_frames(&sent).iter().all(|frame| frame[..6] == ROUTER_MAC.0));
}

#[test]
fn what_waits_for_a_silent_router_is_given_up() {
    let mut stack = appliance();
    drain(&mut stack);
    for _ in 0..100 {
        stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), &message(100));
    }
    assert_eq!(stack.counters().dropped(DropReason::WaitingFull), 36);
    while let Some(next) = stack.poll_timeout().filter(|&next| next < NOW + Duration::from_secs(5)) {
        stack.handle_timeout(next);
    }
    assert_eq!(stack.counters().dropped(DropReason::NeighbourUnreachable), 64);
    stack.send_datagram(NOW + Duration::from_secs(5), socket(DVIPA, 500), socket(CLIENT, 500), &message(100));
    assert_eq!(stack.counters().dropped(DropReason::NeighbourUnreachable), 65);
}

#[test]
fn a_way_back_is_taken_only_while_no_neighbour_is_known() {
    let mut stack = appliance();
    let detour = MacAddress([2, 0, 0, 0, 0, 3]);
    let packet = udp_packet((CLIENT, 500), (DVIPA, 500), &message(28));
    stack.handle_frame(NOW, PORT, &frame(OWN_MAC, detour, EtherType::Ipv4, &packet));
    let station = |stack: &mut Stack| {
        drain(stack);
        stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), &message(28));
        let sent = drain(stack);
        ethernet::Packet::new_checked(ip_frames(&sent)[0]).unwrap().dst()
    };
    assert_eq!(station(&mut stack), detour);
    introduce_router(&mut stack, NOW);
    stack.handle_frame(NOW, PORT, &frame(OWN_MAC, detour, EtherType::Ipv4, &packet));
    assert_eq!(station(&mut stack), ROUTER_MAC, "a stranger on the link leads nothing astray");
}

#[test]
fn what_cannot_be_sent_is_counted_by_reason() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    let broadcast = Ipv4Addr::new(192, 0, 2, 255);
    let cases = [
        (socket(DVIPA, 501), socket(CLIENT, 500), 28, DropReason::NotIkePort),
        (socket(CLIENT, 500), socket(CLIENT, 500), 28, DropReason::SourceNotOurs),
        (socket(DVIPA, 500), socket(OWN, 500), 28, DropReason::DestinationInvalid),
        (socket(DVIPA, 500), socket(CLIENT, 0), 28, DropReason::DestinationInvalid),
        (socket(DVIPA, 500), socket(broadcast, 500), 28, DropReason::DestinationInvalid),
        (socket(DVIPA, 500), socket(Ipv4Addr::new(224, 0, 0, 1), 500), 28, DropReason::DestinationInvalid),
        (socket(DVIPA, 500), "[2001:db8::1]:500".parse().unwrap(), 28, DropReason::DestinationInvalid),
        (socket(DVIPA, 500), socket(CLIENT, 500), 65_508, DropReason::DatagramTooBig),
        (socket(DVIPA, 4_500), socket(CLIENT, 500), 65_504, DropReason::DatagramTooBig),
    ];
    for (local, remote, length, reason) in cases {
        let before = stack.counters().dropped(reason);
        stack.send_datagram(NOW, local, remote, &message(length));
        assert_eq!(stack.counters().dropped(reason), before + 1, "{reason:?}");
        assert_eq!(drain(&mut stack), []);
    }
    let mut routeless = host(OWN_MAC, OWN);
    routeless.send_datagram(NOW, socket(OWN, 500), socket(CLIENT, 500), &message(28));
    assert_eq!(routeless.counters().dropped(DropReason::NoRoute), 1);
}

#[test]
fn ipv6_is_answered_to_the_station_that_it_came_from() {
    let own: IpAddr = "2001:db8::10".parse().unwrap();
    let peer: SocketAddr = "[2001:db8:9::1]:500".parse().unwrap();
    let mut settings = settings();
    settings.ports[0].addresses.push(PortAddress::new(own, 64).unwrap());
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    drain(&mut stack);
    let mut datagram = vec![0; udp::HEADER_LEN + 28];
    let mut view = udp::Packet::new_unchecked(&mut datagram[..]);
    view.set_src_port(500);
    view.set_dst_port(500);
    view.set_len(36);
    view.fill_checksum(peer.ip(), own);
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (peer.ip(), own) else { unreachable!() };
    let header = wire::ipv6::Repr {
        src,
        dst,
        next_header: protocol::UDP,
        dscp: 0,
        ecn: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_len: datagram.len(),
    };
    let mut packet = vec![0; header.buffer_len()];
    header.emit(&mut wire::ipv6::Packet::new_unchecked(&mut packet[..]));
    packet.extend_from_slice(&datagram);
    stack.handle_frame(NOW, PORT, &frame(OWN_MAC, ROUTER_MAC, EtherType::Ipv6, &packet));
    assert_eq!(
        received(&mut stack),
        [IkeDatagram { local: SocketAddr::new(own, 500), remote: peer, payload: vec![0; 28] }]
    );
    stack.send_datagram(NOW, SocketAddr::new(own, 500), peer, &message(1_452));
    let sent = drain(&mut stack);
    let view = ethernet::Packet::new_checked(&sent[0].1[..]).unwrap();
    assert_eq!((view.dst(), view.ether_type(), sent[0].1.len()), (ROUTER_MAC, EtherType::Ipv6, 1_514));
    stack.send_datagram(NOW, SocketAddr::new(own, 500), peer, &message(1_453));
    assert_eq!(stack.counters().dropped(DropReason::DatagramTooBig), 1);
}
