use super::*;
use proptest::prelude::*;

fn conflicts(stack: &mut Stack) -> Vec<u64> {
    let of_event = |event| match event {
        Event::AddressConflict { claims, .. } => Some(claims),
        Event::NextHopDown(_) | Event::NextHopUp(..) | Event::PathMtu(_) => None,
    };
    events(stack).into_iter().filter_map(of_event).collect()
}

#[test]
fn hostile_40_a_stranger_that_claims_an_address_of_ours_raises_an_alarm_and_is_contradicted() {
    for address in [DVIPA, OWN] {
        let mut stack = appliance();
        stack.handle_timeout(NOW + Duration::from_secs(5));
        stack.handle_timeout(NOW + Duration::from_secs(10));
        stack.handle_timeout(NOW + Duration::from_secs(15));
        drain(&mut stack);
        let now = NOW + Duration::from_secs(60);
        stack.handle_frame(now, PORT, &arp_request(STRANGER_MAC, address, address));
        let conflict =
            Event::AddressConflict { port: PORT, address: address.into(), claimant: STRANGER_MAC, claims: 1 };
        assert_eq!(events(&mut stack), [conflict]);
        let announcement = arp_of(&drain(&mut stack)[0].1).unwrap();
        assert_eq!(
            (announcement.sender_mac, announcement.sender_ip, announcement.target_ip),
            (OWN_MAC, address, address)
        );
        assert_eq!(stack.counters().dropped(DropReason::ArpConflict), 1);
        // A reply claims as well as a request does, and our own frames coming back do not.
        stack.handle_frame(now, PORT, &arp_reply(STRANGER_MAC, address, OWN));
        stack.handle_frame(now, PORT, &arp_request(OWN_MAC, address, address));
        assert_eq!(stack.counters().dropped(DropReason::ArpConflict), 2);
        assert_eq!(stack.counters().dropped(DropReason::ArpOwnEcho), 1);
    }
}

#[test]
fn hostile_40_a_flood_of_claims_is_answered_at_a_bounded_rate() {
    let mut stack = appliance();
    for secs in [5, 10, 15] {
        stack.handle_timeout(NOW + Duration::from_secs(secs));
    }
    drain(&mut stack);
    let start = NOW + Duration::from_secs(60);
    let claim = arp_request(STRANGER_MAC, DVIPA, DVIPA);
    let mut announced = 0;
    for i in 0..30_000_u64 {
        stack.handle_frame(start + Duration::from_millis(i), PORT, &claim);
        announced += drain(&mut stack).len();
    }
    assert_eq!(announced, 30, "once per second");
    assert_eq!(conflicts(&mut stack), [1, 10_000, 10_000], "an alarm every ten seconds, which counts the claims");
}

#[test]
fn hostile_40_a_million_arp_frames_leave_the_tables_as_they_were() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    while stack.poll_neighbour().is_some() {}
    let mut now = NOW;
    for i in 0..1_000_000_u32 {
        let [_, b, c, d] = i.to_be_bytes();
        let (mac, ip) = (MacAddress([6, 0, 0, b, c, d]), Ipv4Addr::new(192, 0, 2, (i % 250) as u8 + 2));
        let ip = if ip == OWN { STRANGER } else { ip };
        let frame = match i % 3 {
            0 => arp_reply(mac, ip, OWN),
            1 => arp_request(mac, ip, OWN),
            _ => arp_request(mac, ip, ip),
        };
        now += Duration::from_micros(1);
        stack.handle_frame(now, PORT, &frame);
        while stack.poll_transmit().is_some() {}
    }
    assert_eq!(stack.neighbours(), 1);
    assert_eq!(stack.poll_neighbour(), None);
    assert_eq!(stack.counters().difference(), 0);
}

#[test]
fn hostile_41_a_scan_of_the_link_does_not_displace_known_neighbours() {
    let mut settings = settings();
    settings.ports[0].addresses = vec![PortAddress::new(OWN.into(), 8).unwrap()];
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    introduce_router(&mut stack, NOW);
    let mut full = 0;
    for i in 0..100_000_u32 {
        let scanned = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(192, 1, 0, 0)) + i);
        full += usize::from(stack.resolve(NOW, PORT, scanned.into()) == Resolution::TableFull);
        while stack.poll_transmit().is_some() {}
    }
    assert_eq!((stack.neighbours(), full), (NEIGHBOURS.unresolved + 1, 100_000 - NEIGHBOURS.unresolved));
    assert_eq!(stack.resolve(NOW, PORT, ROUTER.into()), Resolution::Known(ROUTER_MAC));
    stack.send_datagram(NOW, socket(DVIPA, 500), socket(CLIENT, 500), b"established");
    assert_eq!(drain(&mut stack).len(), 1);
}

#[test]
fn hostile_41_a_full_neighbour_table_gives_up_only_what_nobody_wants() {
    let mut settings = settings();
    settings.ports[0].addresses = vec![PortAddress::new(OWN.into(), 8).unwrap()];
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    introduce_router(&mut stack, NOW);
    let resolve = |stack: &mut Stack, now: Instant, i: usize| {
        let address = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(192, 1, 0, 0)) + i as u32);
        let resolution = stack.resolve(now, PORT, address.into());
        stack.handle_frame(now, PORT, &arp_reply(STRANGER_MAC, address, OWN));
        while stack.poll_transmit().is_some() {}
        while stack.poll_neighbour().is_some() {}
        resolution
    };
    let filled = (0..10_000).filter(|&i| resolve(&mut stack, NOW, i) == Resolution::Pending).count();
    assert_eq!((filled, stack.neighbours()), (NEIGHBOURS.entries - 1, NEIGHBOURS.entries));
    let later = NOW + Duration::from_secs(61);
    for i in 1..filled {
        assert_eq!(resolve(&mut stack, later, i), Resolution::Known(STRANGER_MAC));
    }
    assert_eq!(resolve(&mut stack, later, 20_000), Resolution::Pending, "in the place of the one not asked for since");
    assert_eq!(resolve(&mut stack, later, 20_001), Resolution::TableFull);
    assert_eq!(stack.resolve(later, PORT, ROUTER.into()), Resolution::Known(ROUTER_MAC));
}

#[test]
fn hostile_41_changes_that_nobody_takes_out_stay_bounded() {
    let mut settings = settings();
    settings.ports[0].addresses = vec![PortAddress::new(OWN.into(), 8).unwrap()];
    let mut stack = Stack::new(NOW, settings, [1; 32]).unwrap();
    let (mut now, mut full, mut next) = (NOW, false, u32::from(Ipv4Addr::new(192, 1, 0, 0)));
    for _round in 0..20 {
        full |= (0..500).any(|_| {
            next += 1;
            stack.resolve(now, PORT, Ipv4Addr::from_bits(next).into()) == Resolution::TableFull
        });
        for _second in 0..10 {
            now += Duration::from_secs(1);
            stack.handle_timeout(now);
            drain(&mut stack);
        }
    }
    assert!(full);
    let told = core::iter::from_fn(|| stack.poll_neighbour()).count();
    assert!((CHANGES_MAX..CHANGES_MAX + NEIGHBOURS.entries).contains(&told), "{told}");
    assert_eq!(stack.resolve(now, PORT, STRANGER.into()), Resolution::Pending);
}

#[test]
fn hostile_41_queues_that_nobody_empties_stay_bounded() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    let initial = from_router(&udp_packet((CLIENT, 500), (DVIPA, 500), &[0; 300]));
    let established = from_router(&udp_packet((CLIENT, 500), (DVIPA, 500), &[1; 300]));
    for _ in 0..20_000 {
        stack.handle_frame(NOW, PORT, &initial);
        stack.handle_frame(NOW, PORT, &arp_request(STRANGER_MAC, STRANGER, OWN));
    }
    stack.handle_frame(NOW, PORT, &established);
    let counters = stack.counters();
    assert_eq!(counters.difference(), 0);
    assert_eq!(counters.dropped(DropReason::IkeInitialsFull), 20_000 - queue::DATAGRAMS_MAX as u64 / 2);
    assert_eq!(counters.dropped(DropReason::TransmitFull), 20_000 - queue::FRAMES_MAX as u64);
    assert_eq!(core::iter::from_fn(|| stack.poll_datagram()).count(), queue::DATAGRAMS_MAX / 2 + 1);
}

#[test]
fn hostile_36_fragments_that_never_complete_are_bounded_and_counted() {
    let mut stack = appliance();
    introduce_router(&mut stack, NOW);
    for i in 0..100_000_u32 {
        let mut packet = udp_packet((Ipv4Addr::from_bits(0x0a00_0000 + i), 500), (DVIPA, 500), &[0; 1_464]);
        let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
        view.set_fragmentation(false, true, 0);
        view.fill_checksum();
        stack.handle_frame(NOW, PORT, &from_router(&packet));
    }
    let counters = stack.counters();
    assert_eq!((counters.held, counters.difference()), (reassembly::DATAGRAMS_MAX as u64, 0));
    stack.handle_timeout(NOW + reassembly::TIMEOUT);
    let counters = stack.counters();
    assert_eq!((counters.held, counters.difference()), (0, 0));
    assert_eq!(counters.dropped(DropReason::FragmentTimedOut), reassembly::DATAGRAMS_MAX as u64);
}

#[test]
fn hostile_37_udp_4500_is_told_apart_as_rfc_3948_says() {
    let ike = [[0; 4].as_slice(), &[9; 28]].concat();
    type Expected = Result<&'static [u8], DropReason>;
    let cases: [(&[u8], Expected); 8] = [
        (&[0xff], Err(DropReason::NatKeepalive)),
        (&[0xfe], Err(DropReason::NatMalformed)),
        (&[], Err(DropReason::NatMalformed)),
        (&[0, 0, 0], Err(DropReason::NatMalformed)),
        (&[0, 0, 0, 0], Ok(&[])),
        (&ike, Ok(&[9; 28])),
        (&[1, 2, 3, 4, 0, 0, 0, 1, 5, 5], Err(DropReason::EspAtControl)),
        (&[1, 2, 3, 4, 0], Err(DropReason::NatMalformed)),
    ];
    for (payload, expected) in cases {
        let mut stack = appliance();
        stack.handle_frame(NOW, PORT, &from_router(&udp_packet((CLIENT, 4_500), (DVIPA, 4_500), payload)));
        let got = stack.poll_datagram();
        assert_eq!(got.as_ref().map(|datagram| &datagram.payload[..]), expected.ok(), "{payload:?}");
        let Err(reason) = expected else { continue };
        assert_eq!(stack.counters().dropped(reason), 1, "{payload:?}");
    }
}

#[test]
fn hostile_37_lengths_and_checksums_that_lie_are_dropped() {
    let sound = udp_packet((CLIENT, 4_500), (DVIPA, 4_500), &[0; 40]);
    let spoil = |at: usize, value: u8| {
        let mut packet = sound.clone();
        packet[at] = value;
        packet
    };
    let cases = [
        (spoil(ipv4::HEADER_LEN + 5, 255), DropReason::UdpMalformed),
        (spoil(ipv4::HEADER_LEN + 5, 7), DropReason::UdpMalformed),
        (spoil(ipv4::HEADER_LEN + 6, sound[ipv4::HEADER_LEN + 6] ^ 1), DropReason::UdpMalformed),
        (spoil(ipv4::HEADER_LEN + 3, 7), DropReason::UdpPortNotServed),
        (spoil(8, 63), DropReason::IpChecksum),
        (spoil(3, 255), DropReason::IpMalformed),
    ];
    for (packet, reason) in cases {
        let mut stack = appliance();
        stack.handle_frame(NOW, PORT, &from_router(&packet));
        assert_eq!((stack.poll_datagram(), stack.counters().dropped(reason)), (None, 1), "{reason:?}");
        assert_eq!(stack.counters().difference(), 0);
    }
}

#[test]
fn packets_with_impossible_sources_are_dropped() {
    let mut stack = appliance();
    drain(&mut stack);
    let sources = [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(192, 0, 2, 255),
        OWN,
        DVIPA,
    ];
    for source in sources {
        stack.handle_frame(NOW, PORT, &from_router(&udp_packet((source, 500), (OWN, 500), &[0; 28])));
    }
    assert_eq!(stack.counters().dropped(DropReason::SourceInvalid), sources.len() as u64);
    let broadcast =
        frame(MacAddress::BROADCAST, ROUTER_MAC, EtherType::Ipv4, &udp_packet((CLIENT, 500), (OWN, 500), &[]));
    stack.handle_frame(NOW, PORT, &broadcast);
    assert_eq!(stack.counters().dropped(DropReason::NotForUs), 1);
    assert_eq!((stack.poll_datagram(), drain(&mut stack)), (None, vec![]));
}

#[test]
fn stations_that_cannot_be_are_not_believed() {
    let mut stack = appliance();
    drain(&mut stack);
    for mac in [MacAddress::BROADCAST, MacAddress::ZERO, MacAddress([3, 0, 0, 0, 0, 1])] {
        let mut question = arp_request(STRANGER_MAC, STRANGER, OWN);
        question[22..28].copy_from_slice(&mac.0);
        stack.handle_frame(NOW, PORT, &question);
        let packet = udp_packet((CLIENT, 500), (DVIPA, 500), &[0; 28]);
        stack.handle_frame(NOW, PORT, &frame(OWN_MAC, mac, EtherType::Ipv4, &packet));
    }
    assert_eq!((drain(&mut stack), stack.poll_datagram()), (vec![], None));
    let counters = stack.counters();
    assert_eq!((counters.dropped(DropReason::ArpMalformed), counters.dropped(DropReason::FrameMalformed)), (3, 3));
}

#[test]
fn a_source_routed_packet_is_dropped() {
    let mut stack = appliance();
    let plain = udp_packet((CLIENT, 500), (DVIPA, 500), &[0; 28]);
    for (option, reason) in [
        ([131, 7, 4, 192, 0, 2, 1, 0], DropReason::IpSourceRouted),
        ([7, 1, 0, 0, 0, 0, 0, 0], DropReason::IpMalformed),
    ] {
        let mut packet = [&plain[..ipv4::HEADER_LEN], &option, &plain[ipv4::HEADER_LEN..]].concat();
        let length = packet.len() as u16;
        let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
        view.set_version_and_header_len(ipv4::HEADER_LEN + option.len());
        view.set_total_len(length);
        view.fill_checksum();
        stack.handle_frame(NOW, PORT, &from_router(&packet));
        assert_eq!((stack.poll_datagram(), stack.counters().dropped(reason)), (None, 1), "{reason:?}");
    }
}

/// Frames that are nearly right reach further than random bytes do.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let echo = wire_icmp::Repr::EchoRequest { identifier: 1, sequence: 1, data: &[1; 60] };
    let sound = vec![
        arp_request(STRANGER_MAC, STRANGER, OWN),
        arp_reply(ROUTER_MAC, ROUTER, OWN),
        from_router(&udp_packet((CLIENT, 4_500), (DVIPA, 4_500), &[0; 60])),
        from_router(&icmp_packet(CLIENT, OWN, &echo)),
        frame(OWN_MAC, ROUTER_MAC, EtherType::Ipv6, &[0x60; 80]),
    ];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(sound), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut frame, edits, length, mend)| {
            for (at, value) in edits {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            frame.truncate(frame.len() - length.index(frame.len() + 1) / 8);
            if mend && frame.len() > 34 {
                // With its header checksum mended, a spoiled header passes the first gate.
                if let Ok(mut view) = ipv4::Packet::new_checked(&mut frame[14..]) {
                    view.fill_checksum();
                }
            }
            frame
        },
    )
}

proptest! {
    #[test]
    fn hostile_18_no_frame_makes_the_stack_panic_or_lose_count(
        frames in proptest::collection::vec(prop_oneof![nearly_right(), proptest::collection::vec(any::<u8>(), 0..120)], 1..60),
        step_ms in 0_u64..2_000,
    ) {
        let mut stack = appliance();
        let mut now = NOW;
        for frame in frames {
            stack.handle_frame(now, PORT, &frame);
            now += Duration::from_millis(step_ms);
            stack.handle_timeout(now);
            prop_assert_eq!(stack.counters().difference(), 0);
            prop_assert!(stack.poll_timeout().is_none_or(|next| next > now), "a timeout that does nothing would spin");
        }
    }
}
