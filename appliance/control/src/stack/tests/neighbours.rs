use super::*;

const INSIDE: PortId = PortId(1);

fn hop(address: Ipv4Addr) -> NextHop {
    NextHop { port: PORT, address: address.into() }
}

fn changes(stack: &mut Stack) -> Vec<(IpAddr, Option<MacAddress>)> {
    core::iter::from_fn(|| stack.poll_neighbour()).map(|change| (change.address, change.mac)).collect()
}

/// Lets a lone stack's time pass; the frames it sent, with their times in seconds since `from`.
fn pass(stack: &mut Stack, from: Instant, span: Duration) -> Vec<(u64, Vec<u8>)> {
    let mut sent = Vec::new();
    while let Some(next) = stack.poll_timeout().filter(|&next| next <= from + span) {
        stack.handle_timeout(next);
        sent.extend(drain(stack).into_iter().map(|(_, frame)| (next.saturating_since(from).as_secs(), frame)));
    }
    sent
}

fn questions_for(sent: &[(u64, Vec<u8>)], address: Ipv4Addr) -> Vec<u64> {
    let asks = |frame: &[u8]| arp_of(frame).is_some_and(|arp| arp.target_ip == address && arp.sender_ip != address);
    sent.iter().filter(|(_, frame)| asks(frame)).map(|&(at, _)| at).collect()
}

#[test]
fn at_start_addresses_are_announced_and_routers_asked_for() {
    let mut stack = appliance();
    let sent = drain(&mut stack);
    let announced = |port: PortId| -> Vec<Ipv4Addr> {
        let messages = sent.iter().filter(|(at, _)| *at == port).filter_map(|(_, frame)| arp_of(frame));
        messages.filter(|arp| arp.sender_ip == arp.target_ip).map(|arp| arp.sender_ip).collect()
    };
    assert_eq!(announced(PORT), [OWN, DVIPA]);
    assert_eq!(announced(INSIDE), [Ipv4Addr::new(10, 9, 0, 1)]);
    let question = sent.iter().filter_map(|(_, frame)| arp_of(frame)).find(|arp| arp.target_ip == ROUTER).unwrap();
    assert_eq!((question.sender_mac, question.sender_ip), (OWN_MAC, OWN), "we ask as ourselves, not as the DVIPA");
}

#[test]
fn our_addresses_are_answered_for_and_no_others() {
    let mut stack = appliance();
    drain(&mut stack);
    for (target, port, answered) in [
        (OWN, PORT, true),
        (DVIPA, PORT, true),
        (DVIPA, INSIDE, false),
        (Ipv4Addr::new(10, 9, 0, 1), INSIDE, true),
        (Ipv4Addr::new(10, 9, 0, 1), PORT, false),
        (Ipv4Addr::new(192, 0, 2, 11), PORT, false),
    ] {
        stack.handle_frame(NOW, port, &arp_request(STRANGER_MAC, STRANGER, target));
        let sent = drain(&mut stack);
        assert_eq!(sent.len(), usize::from(answered), "{target} on {port}");
        if let Some((at, frame)) = sent.first() {
            let view = ethernet::Packet::new_checked(&frame[..]).unwrap();
            let reply = arp_of(frame).unwrap();
            assert_eq!((*at, view.dst(), reply.target_mac), (port, STRANGER_MAC, STRANGER_MAC));
            assert_eq!((reply.operation, reply.sender_ip), (arp::Operation::Reply, target));
            assert_eq!(reply.sender_mac, view.src(), "the port's own link address speaks");
        }
    }
    assert_eq!(stack.neighbours(), 1, "who asks is no neighbour yet; only the router is");
    let not_for_us = stack.counters().dropped(DropReason::ArpNotForUs);
    let mut answer_to_all = arp_reply(STRANGER_MAC, STRANGER, OWN);
    answer_to_all[..6].copy_from_slice(&MacAddress::BROADCAST.0);
    stack.handle_frame(NOW, PORT, &answer_to_all);
    assert_eq!(stack.counters().dropped(DropReason::ArpNotForUs), not_for_us + 1);
}

#[test]
fn a_dvipa_is_answered_for_only_while_it_is_owned() {
    let mut stack = appliance();
    drain(&mut stack);
    assert!(stack.disown_dvipa(DVIPA.into()));
    assert!(!stack.disown_dvipa(DVIPA.into()) && !stack.disown_dvipa(OWN.into()));
    stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, STRANGER, DVIPA));
    assert_eq!(drain(&mut stack), []);
    stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), b"late");
    assert_eq!(stack.counters().dropped(DropReason::SourceNotOurs), 1);
    assert!(stack.own_dvipa(NOW, DVIPA.into()) && !stack.own_dvipa(NOW, OWN.into()));
    let announcement = arp_of(&drain(&mut stack)[0].1).unwrap();
    assert_eq!((announcement.sender_ip, announcement.target_ip), (DVIPA, DVIPA));
    stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, STRANGER, DVIPA));
    assert_eq!(drain(&mut stack).len(), 1);
}

#[test]
fn a_link_that_comes_back_hears_our_addresses_again() {
    let mut stack = appliance();
    pass(&mut stack, NOW, Duration::from_secs(3));
    drain(&mut stack);
    stack.announce_port(NOW + Duration::from_secs(60), PORT);
    let announced: Vec<_> =
        drain(&mut stack).iter().filter_map(|(_, frame)| arp_of(frame)).map(|arp| arp.sender_ip).collect();
    assert_eq!(announced, [OWN, DVIPA]);
}

#[test]
fn a_neighbour_is_resolved_by_asking() {
    let mut segment = Segment::new(vec![appliance(), host(STRANGER_MAC, STRANGER)]);
    segment.carry();
    assert_eq!(segment.stacks[0].resolve(segment.now, PORT, STRANGER.into()), Resolution::Pending);
    segment.carry();
    assert_eq!(segment.stacks[0].resolve(segment.now, PORT, STRANGER.into()), Resolution::Known(STRANGER_MAC));
    assert_eq!(changes(&mut segment.stacks[0]), [(STRANGER.into(), Some(STRANGER_MAC))]);
    assert_eq!(events(&mut segment.stacks[0]), [], "it is no router");
    segment.run(Duration::from_secs(600));
    assert_eq!(segment.stacks[0].resolve(segment.now, PORT, STRANGER.into()), Resolution::Known(STRANGER_MAC));
}

#[test]
fn lost_answers_are_asked_for_again() {
    let mut segment = Segment::new(vec![appliance(), host(STRANGER_MAC, STRANGER)]);
    segment.run(Duration::from_secs(5));
    let mut to_lose = 2;
    segment.loses = Box::new(move |frame| {
        let is_answer = arp_of(frame).is_some_and(|arp| arp.operation == arp::Operation::Reply);
        to_lose -= i32::from(is_answer);
        is_answer && to_lose >= 0
    });
    segment.stacks[0].resolve(segment.now, PORT, STRANGER.into());
    segment.run(Duration::from_millis(1_900));
    assert_eq!(segment.stacks[0].resolve(segment.now, PORT, STRANGER.into()), Resolution::Pending);
    segment.run(Duration::from_millis(200));
    assert_eq!(segment.stacks[0].resolve(segment.now, PORT, STRANGER.into()), Resolution::Known(STRANGER_MAC));
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_left_alone() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    changes(&mut stack);
    assert_eq!(stack.resolve(NOW, PORT, STRANGER.into()), Resolution::Pending);
    let first = drain(&mut stack);
    assert_eq!(first.iter().filter_map(|(_, frame)| arp_of(frame)).filter(|arp| arp.target_ip == STRANGER).count(), 1);
    let sent = pass(&mut stack, NOW, Duration::from_secs(4));
    assert_eq!(questions_for(&sent, STRANGER), [1, 2]);
    assert_eq!(changes(&mut stack), [(STRANGER.into(), None)]);
    let held_down = NOW + Duration::from_secs(6);
    assert_eq!(stack.resolve(held_down, PORT, STRANGER.into()), Resolution::Unreachable);
    assert_eq!(changes(&mut stack), [(STRANGER.into(), None)], "whoever asks is told, and no frame leaves");
    assert_eq!(drain(&mut stack), []);
    pass(&mut stack, NOW, Duration::from_secs(9));
    assert_eq!(stack.neighbours(), 1, "it is forgotten");
    assert_eq!(stack.resolve(NOW + Duration::from_secs(9), PORT, STRANGER.into()), Resolution::Pending);
}

#[test]
fn a_router_that_falls_silent_is_reported_and_asked_for_until_it_is_back() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    assert_eq!(events(&mut stack), [Event::NextHopUp(hop(ROUTER), ROUTER_MAC)]);
    let sent = pass(&mut stack, NOW, Duration::from_secs(120));
    assert_eq!(events(&mut stack), [Event::NextHopDown(hop(ROUTER))], "once");
    let unicast = sent.iter().filter(|(_, frame)| frame[..6] == ROUTER_MAC.0).count();
    assert_eq!(unicast, 2, "the station itself is asked before the link");
    let asked = questions_for(&sent, ROUTER);
    assert!(asked.last().is_some_and(|&last| last > 110), "{asked:?}");
    let mac = MacAddress([2, 0, 0, 0, 0, 2]);
    stack.handle_frame(NOW + Duration::from_secs(120), PORT, &arp_reply(mac, ROUTER, OWN));
    assert_eq!(events(&mut stack), [Event::NextHopUp(hop(ROUTER), mac)]);
}

#[test]
fn an_address_moves_only_when_its_holder_no_longer_defends_it() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    pass(&mut stack, NOW, Duration::from_secs(5));
    changes(&mut stack);
    let heir = MacAddress([2, 0, 0, 0, 0, 2]);
    // The holder defends it.
    let now = NOW + Duration::from_secs(10);
    stack.handle_frame(now, PORT, &arp_request(heir, ROUTER, ROUTER));
    assert_eq!(drain(&mut stack).len(), 1, "the link is asked who has it");
    stack.handle_frame(now, PORT, &arp_reply(heir, ROUTER, OWN));
    stack.handle_frame(now, PORT, &arp_reply(ROUTER_MAC, ROUTER, OWN));
    pass(&mut stack, now, Duration::from_secs(1));
    assert_eq!(changes(&mut stack), []);
    stack.handle_frame(now + Duration::from_secs(2), PORT, &arp_request(heir, ROUTER, ROUTER));
    assert_eq!(drain(&mut stack), [], "a claim that was refuted is not verified again at once");
    // The holder is gone.
    let now = NOW + Duration::from_secs(20);
    stack.handle_frame(now, PORT, &arp_request(heir, ROUTER, ROUTER));
    assert_eq!(changes(&mut stack), []);
    pass(&mut stack, now, Duration::from_secs(1));
    assert_eq!(changes(&mut stack), [(ROUTER.into(), Some(heir))]);
}

#[test]
fn what_is_no_neighbour_is_not_asked_for() {
    let mut stack = appliance();
    drain(&mut stack);
    for (port, address) in [
        (PORT, OWN),
        (PORT, DVIPA),
        (PORT, Ipv4Addr::new(192, 0, 2, 255)),
        (PORT, CLIENT),
        (INSIDE, ROUTER),
        (PortId(9), ROUTER),
        (PORT, Ipv4Addr::new(224, 0, 0, 1)),
    ] {
        assert_eq!(stack.resolve(NOW, port, address.into()), Resolution::Refused, "{address} on {port}");
    }
    assert_eq!(stack.resolve(NOW, PORT, "2001:db8::1".parse().unwrap()), Resolution::Refused);
    assert_eq!(drain(&mut stack), []);
}

#[test]
fn nobody_teaches_us_where_a_dvipa_is() {
    let mut settings = settings();
    settings.dvipas[0].owned = false;
    // Even where a route makes it look like a host on the link.
    settings.routes.push(StaticRoute { to: Prefix::host(DVIPA.into()), via: None, port: Some(PORT) });
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    drain(&mut stack);
    assert_eq!(stack.resolve(NOW, PORT, DVIPA.into()), Resolution::Refused);
    stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, DVIPA, DVIPA));
    stack.handle_frame(NOW, PORT, &arp_reply(STRANGER_MAC, DVIPA, OWN));
    assert_eq!((stack.neighbours(), changes(&mut stack)), (1, vec![]));
    assert_eq!(events(&mut stack), [], "its owner may announce it");
}

#[test]
fn frames_carry_the_ports_vlan_and_no_other_is_heard() {
    let mut settings = settings();
    settings.ports[0].vlan = Some(10);
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    drain(&mut stack);
    let question = arp_request(STRANGER_MAC, STRANGER, OWN);
    let tagged = |id: u16| {
        let tag = [&question[..12], &[0x81, 0x00], &id.to_be_bytes(), &question[12..]];
        tag.concat()
    };
    for frame in [question.clone(), tagged(11), tagged(0)] {
        stack.handle_frame(NOW, PORT, &frame);
    }
    assert_eq!((drain(&mut stack).len(), stack.counters().dropped(DropReason::WrongVlan)), (0, 3));
    let mut untagged = appliance();
    drain(&mut untagged);
    untagged.handle_frame(NOW, PORT, &tagged(10));
    assert_eq!(drain(&mut untagged).len(), 0);
    untagged.handle_frame(NOW, PORT, &tagged(0));
    assert_eq!(drain(&mut untagged).len(), 1, "a tag of VLAN 0 carries a priority only");
    stack.handle_frame(NOW, PORT, &tagged(10));
    let reply = drain(&mut stack).remove(0).1;
    assert_eq!(reply.len(), 60, "Ethernet carries no shorter frame");
    assert_eq!(ethernet::Packet::new_checked(&reply[..]).unwrap().vlan().map(|tag| tag.id), Some(10));
}

#[test]
fn a_fixed_neighbour_is_never_asked_for_and_never_moves() {
    let mut settings = settings();
    settings.ports[0].neighbours = vec![(ROUTER.into(), ROUTER_MAC)];
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    assert_eq!(changes(&mut stack), [(ROUTER.into(), Some(ROUTER_MAC))]);
    stack.handle_frame(NOW, PORT, &arp_reply(STRANGER_MAC, ROUTER, OWN));
    let sent = pass(&mut stack, NOW, Duration::from_secs(600));
    assert_eq!(questions_for(&sent, ROUTER), [0_u64; 0]);
    assert_eq!(stack.resolve(NOW, PORT, ROUTER.into()), Resolution::Known(ROUTER_MAC));
    drain(&mut stack);
    stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), b"request");
    assert_eq!(drain(&mut stack)[0].1[..6], ROUTER_MAC.0);
}

#[test]
fn an_application_host_that_asks_with_the_dvipa_as_sender_is_answered() {
    // It holds the DVIPA on its loopback, and Linux takes the sender of its question from the packet that waits.
    let mut stack = appliance();
    drain(&mut stack);
    let web = MacAddress([2, 0, 0, 0, 1, 2]);
    stack.handle_frame(NOW, INSIDE, &arp_request(web, DVIPA, Ipv4Addr::new(10, 9, 0, 1)));
    let reply = arp_of(&drain(&mut stack)[0].1).unwrap();
    assert_eq!((reply.target_mac, reply.target_ip), (web, DVIPA));
    assert_eq!((events(&mut stack), stack.neighbours()), (vec![], 1));
}
