//! The whole appliance but for DPDK, against a client with real IKE and real ESP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is the point

mod client;
mod esp_and_ike;
mod nat;
mod transport;
mod world;

use client::{Client, framed, from_host, segment, server_settings};
use datapath::forwarding::PortRole;
use ike::config::ConnectionSettings;
use ipsec::lifetime::{Lifetime, Limits};
use ipsec::sa::Mode;
use nat::Nat;
use wire::tcp::Flags;
use world::World;

/// A world in which the client's first CHILD_SA is up.
fn connected(lifetime: Lifetime) -> (World, Client) {
    connected_with(server_settings(lifetime), None)
}

/// The same with other settings of the appliance, or with a NAT in front of the client.
fn connected_with(settings: ConnectionSettings, nat: Option<Nat>) -> (World, Client) {
    let mut world = World::new(settings);
    let mut client = Client::new(&world);
    client.nat = nat;
    client.connect(&world);
    settle(&mut world, &mut client);
    assert!(client.is_up(), "no CHILD_SA came up");
    (world, client)
}

/// Two seconds: enough for a handshake, for the announcements at the start, and for resolving the client's address,
/// which the first answer asks for.
fn settle(world: &mut World, client: &mut Client) {
    for round in 0..2_000 {
        world.step();
        client.step(world);
        if round == 1_000 && client.is_up() {
            round_trip(world, client, 0, 39_999, Flags::SYN);
        }
    }
    world.collect(PortRole::Inside);
}

/// One round trip of a connection: segment in, answer out. Counts what arrived: at the host, at the client.
fn round_trip(world: &mut World, client: &mut Client, core: usize, client_port: u16, flags: Flags) -> (usize, usize) {
    client.send(world, core, &segment(true, client_port, flags, 10));
    for _ in 0..3 {
        world.step();
    }
    let delivered = world.collect(PortRole::Inside).len();
    world.inject(PortRole::Inside, 1 - core, &from_host(&segment(false, client_port, flags | Flags::ACK, 1000)));
    for _ in 0..3 {
        world.step();
    }
    let before = client.received.len();
    client.step(world);
    (delivered, client.received.len() - before)
}

#[test]
fn a_client_reaches_a_service_through_esp() {
    let (mut world, mut client) = connected(Lifetime::NONE);
    for client_port in 40_000..40_020 {
        let core = usize::from(client_port) % 2;
        assert_eq!(round_trip(&mut world, &mut client, core, client_port, Flags::SYN), (1, 1), "port {client_port}");
    }
    let snapshot = world.snapshot();
    let by_direction = |word: &str| snapshot.sas.iter().find(|sa| sa.direction == word).unwrap();
    assert_eq!((by_direction("in").packets, by_direction("in").bytes), (21, 21 * 50));
    assert_eq!((by_direction("out").packets, by_direction("out").bytes), (21, 21 * 1040));
    assert_eq!(by_direction("in").peer, "client.example");
    let handed_over: u64 = snapshot.cores.iter().map(|core| core.handed_over).sum();
    assert!(handed_over > 0, "no connection was handed to its owner");
    let owned: u64 = snapshot.cores.iter().map(|core| core.connections).sum();
    assert_eq!(owned, 21);
}

/// What is handed to the control core and dropped there is as visible as what the data cores drop themselves.
#[test]
fn every_part_of_the_appliance_shows_its_drops() {
    let (mut world, mut client) = connected(Lifetime::NONE);
    let again = client.send(&mut world, 0, &segment(true, 40_000, Flags::SYN, 10));
    world.inject(PortRole::Network, 1, &again);
    let arp = framed(world::CLIENT_MAC, world::NETWORK_MAC, &[0; 28]);
    let mut cut_arp = arp[..30].to_vec();
    cut_arp[12..14].copy_from_slice(&[0x08, 0x06]);
    world.inject(PortRole::Network, 0, &cut_arp);
    (0..1_100).for_each(|_| world.step());
    let snapshot = world.snapshot();
    let row = |reason: &str| snapshot.drops.iter().find(|row| row.reason == reason).unwrap();
    for (reason, stage, severity) in
        [("replay_duplicate", "data", "suspicious"), ("stack_arp_malformed", "stack", "suspicious")]
    {
        let row = row(reason);
        assert_eq!((row.packets, &*row.stage, &*row.severity), (1, stage, severity), "{reason}");
    }
    assert_eq!((row("ike_not_authentic").packets, &*row("ike_not_authentic").stage), (0, "ike"));
    let names: std::collections::BTreeSet<_> = snapshot.drops.iter().map(|row| &row.reason).collect();
    assert_eq!(names.len(), snapshot.drops.len(), "a reason stands twice");
    let in_data: u64 = snapshot.drops.iter().filter(|row| row.stage == "data").map(|row| row.packets).sum();
    assert_eq!(in_data, snapshot.balance.dropped);
}

#[test]
fn extended_sequence_numbers_are_agreed_on_and_stay_over_a_rekeying() {
    let mut settings = server_settings(Lifetime::NONE);
    settings.children[0].proposals = vec!["aes128gcm16-esn-noesn".parse().unwrap()];
    let mut world = World::new(settings);
    // The client offers both, as a strongSwan would with these words.
    let mut client = Client::offering(&world, "aes128gcm16-noesn-esn", Mode::Tunnel);
    client.connect(&world);
    settle(&mut world, &mut client);
    for rekeyed in [false, true] {
        if rekeyed {
            let child = world.control.ike().sas().next().unwrap().children[0].outbound;
            client.ike.rekey_child(world.now, child).unwrap();
            settle(&mut world, &mut client);
        }
        let snapshot = world.snapshot();
        assert!(snapshot.sas.len() == 2 && snapshot.sas.iter().all(|sa| sa.esn), "rekeyed: {rekeyed}");
        for (core, client_port) in (0..2).cycle().zip(40_000..40_010) {
            assert_eq!(round_trip(&mut world, &mut client, core, client_port, Flags::SYN), (1, 1));
        }
    }
}

/// A service on the next wire is quicker than the news of the client's first packet is on its way through control.
#[test]
fn the_first_answer_of_all_finds_its_sa() {
    let mut world = World::new(server_settings(Lifetime::NONE));
    let mut client = Client::new(&world);
    client.connect(&world);
    while !client.is_up() {
        world.step();
        client.step(&mut world);
    }
    client.send(&mut world, 0, &segment(true, 40_000, Flags::SYN, 0));
    (0..3).for_each(|_| world.step_cores());
    world.inject(PortRole::Inside, 1, &from_host(&segment(false, 40_000, Flags::SYN | Flags::ACK, 0)));
    (0..3).for_each(|_| world.step_cores());
    let row = |snapshot: &control::report::Snapshot, reason: &str| {
        snapshot.drops.iter().find(|row| row.reason == reason).unwrap().packets
    };
    let snapshot = world.snapshot();
    assert_eq!(row(&snapshot, "no_outbound_sa"), 0);
    let sealed: u64 = snapshot.sas.iter().filter(|sa| sa.direction == "out").map(|sa| sa.packets).sum();
    assert_eq!(sealed, 1);
}

#[test]
fn connections_are_listed_from_every_core() {
    let (mut world, mut client) = connected(Lifetime::NONE);
    for client_port in 40_000..40_020 {
        round_trip(&mut world, &mut client, 0, client_port, Flags::SYN);
    }
    world.control.start_listing();
    let listing = (0..20).find_map(|_| {
        world.step();
        world.control.take_listing()
    });
    let snapshot = world.control.snapshot(world.now, Default::default(), listing);
    assert_eq!(snapshot.connections.len(), 21);
    assert!((0..2).all(|core| snapshot.connections.iter().any(|connection| connection.core == core)));
    let first = &snapshot.connections[0];
    assert_eq!((&*first.peer, &*first.dst, &*first.state), ("client.example", "192.0.2.80:80", "established"));
    assert_eq!(first.dvipa, world::ip(world::DVIPA));
}

#[test]
fn a_soft_limit_of_bytes_rekeys_without_a_lost_packet() {
    let bytes = Limits { soft: Some(20_000), hard: Some(60_000) };
    let (mut world, mut client) = connected(Lifetime { bytes, ..Lifetime::NONE });
    let mut answered = 0;
    for round in 0..200 {
        let (delivered, received) = round_trip(&mut world, &mut client, round % 2, 40_000, Flags::ACK);
        assert_eq!((delivered, received), (1, 1), "round {round}");
        answered += 1;
    }
    assert_eq!(answered, 200);
    assert!(client.downs >= 5, "rekeyed {} times", client.downs);
    assert!(client.sas() <= 2, "old SAs stay: {}", client.sas());
    settle(&mut world, &mut client);
    let snapshot = world.snapshot();
    assert!(snapshot.sas.len() <= 4, "old SAs linger for ever: {}", snapshot.sas.len());
    let sum = |direction: &str| {
        let of = snapshot.children.iter().filter(|(key, _)| key.direction == direction);
        of.map(|(_, totals)| totals.packets).sum::<u64>()
    };
    assert_eq!((sum("in"), sum("out")), (202, 202), "what closed SAs carried is not forgotten");
}

#[test]
fn what_was_sent_before_a_rekey_arrives_after_it() {
    let bytes = Limits { soft: Some(20_000), hard: Some(60_000) };
    let (mut world, mut client) = connected(Lifetime { bytes, ..Lifetime::NONE });
    let late = client.seal(&segment(true, 40_001, Flags::SYN, 10));
    let before = client.downs;
    while client.downs == before {
        round_trip(&mut world, &mut client, 0, 40_000, Flags::ACK);
    }
    for delivered in [1, 0] {
        world.inject(PortRole::Network, 0, &late);
        (0..3).for_each(|_| world.step());
        assert_eq!(world.collect(PortRole::Inside).len(), delivered);
    }
}

#[test]
fn hostile_32_a_replay_after_a_rekey_is_never_delivered() {
    let bytes = Limits { soft: Some(20_000), hard: Some(60_000) };
    let (mut world, mut client) = connected(Lifetime { bytes, ..Lifetime::NONE });
    let captured = client.send(&mut world, 0, &segment(true, 40_001, Flags::SYN, 10));
    for _ in 0..3 {
        world.step();
    }
    assert_eq!(world.collect(PortRole::Inside).len(), 1);
    while client.downs == 0 {
        round_trip(&mut world, &mut client, 0, 40_000, Flags::ACK);
    }
    // The replaced SA is listened on for a moment, and its window with it; after that nobody knows its SPI.
    for reason in ["replay_duplicate", "spi_unknown"] {
        for core in [0, 1] {
            world.inject(PortRole::Network, core, &captured);
            (0..3).for_each(|_| world.step());
        }
        assert!(world.collect(PortRole::Inside).is_empty());
        let snapshot = world.snapshot();
        assert_eq!(snapshot.drops.iter().find(|row| row.reason == reason).unwrap().packets, 2, "{reason}");
        settle(&mut world, &mut client);
    }
}

#[test]
fn shutting_down_deletes_the_sas_at_the_peer() {
    let (mut world, mut client) = connected(Lifetime::NONE);
    assert_eq!(client.sas(), 1);
    world.control.initiate_shutdown(world.now);
    for _ in 0..500 {
        world.step();
        client.step(&mut world);
    }
    assert!(world.control.is_idle());
    assert_eq!(client.sas(), 0);
    assert!(world.snapshot().sas.is_empty(), "SAs stay on the data cores");
}

#[test]
fn a_client_that_was_killed_leaves_nothing_behind_when_it_starts_anew() {
    let (mut world, first) = connected(Lifetime::NONE);
    drop(first);
    let mut second = Client::new(&world);
    second.connect(&world);
    settle(&mut world, &mut second);
    assert_eq!(round_trip(&mut world, &mut second, 0, 40_000, Flags::SYN), (1, 1));
    assert_eq!(world.snapshot().sas.len(), 2, "one SA, both directions");
}

#[test]
fn no_frame_leaks_over_a_life_of_rekeys() {
    let bytes = Limits { soft: Some(20_000), hard: Some(60_000) };
    let (mut world, mut client) = connected(Lifetime { bytes, ..Lifetime::NONE });
    for _ in 0..100 {
        round_trip(&mut world, &mut client, 0, 40_000, Flags::ACK);
    }
    for _ in 0..20 {
        world.step();
        client.step(&mut world);
        world.collect(PortRole::Inside);
    }
    assert_eq!(world.pool.in_use(), 0);
}

/// What is in the clear for a protected address ends here, also in pieces: the control core puts them together, since IKE
/// may come so, and sees then that it is none.
#[test]
fn hostile_38_a_clear_datagram_in_fragments_is_counted_and_delivered_nowhere() {
    let (mut world, _client) = connected(Lifetime::NONE);
    let datagram = [&40_000_u16.to_be_bytes()[..], &80_u16.to_be_bytes(), &[0, 40, 0, 0], &[7; 32]].concat();
    for (offset, bytes) in [(0, &datagram[..24]), (24, &datagram[24..])] {
        let mut packet = vec![0; wire::ipv4::HEADER_LEN];
        packet.extend_from_slice(bytes);
        let header = wire::ipv4::Repr {
            src: world::CLIENT.parse().unwrap(),
            dst: world::DVIPA.parse().unwrap(),
            protocol: wire::protocol::UDP,
            dscp: 0,
            ecn: 0,
            identification: 7,
            dont_fragment: false,
            more_fragments: offset == 0,
            fragment_offset: offset,
            ttl: 64,
            payload_len: bytes.len(),
        };
        header.emit(&mut wire::ipv4::Packet::new_unchecked(&mut packet[..]));
        world.inject(
            PortRole::Network,
            usize::from(offset) % 2,
            &framed(world::CLIENT_MAC, world::NETWORK_MAC, &packet),
        );
    }
    (0..5).for_each(|_| world.step());
    let snapshot = world.snapshot();
    let refused = snapshot.drops.iter().find(|row| row.reason == "stack_udp_port_not_served").unwrap();
    assert_eq!(refused.packets, 1);
    assert!(world.collect(PortRole::Inside).is_empty());
}
