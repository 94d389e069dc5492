//! What ESP tells IKE: that the peer lives (RFC 7296 §2.4), and where its NAT has moved it (§2.23).

use core::time::Duration;

use datapath::forwarding::PortRole;
use ike::config::ConnectionSettings;
use ipsec::lifetime::Lifetime;
use wire::tcp::Flags;

use super::client::{Client, segment, server_settings};
use super::nat::{Nat, OUTSIDE};
use super::world::{CLIENT, World};
use super::{connected_with, round_trip, settle};

const DPD_DELAY: Duration = Duration::from_secs(5);

/// IKE messages that the appliance has sent.
fn asked(world: &World) -> u64 {
    world.control.ike().counters().datagrams_sent
}

fn pass(world: &mut World, client: &mut Client, span: Duration) {
    let end = world.now + span;
    while world.now < end {
        world.now += Duration::from_millis(20);
        world.step();
        client.step(world);
    }
}

#[test]
fn nobody_is_asked_whether_he_lives_while_his_esp_comes_and_everybody_is_when_it_ends() {
    let settings = ConnectionSettings { dpd_delay: Some(DPD_DELAY), ..server_settings(Lifetime::NONE) };
    let (mut world, mut client) = connected_with(settings, None);
    let before = asked(&world);
    for round in 0..30 {
        // One way, and by whichever core.
        client.send(&mut world, round % 2, &segment(true, 40_000 + round as u16, Flags::SYN, 10));
        pass(&mut world, &mut client, Duration::from_secs(1));
    }
    assert_eq!(asked(&world), before, "the peer was asked although it was heard");
    assert_eq!(world.control.ike().counters().peers_dead, 0);
    pass(&mut world, &mut client, DPD_DELAY - Duration::from_millis(1_200));
    assert_eq!(asked(&world), before, "the peer was asked too soon");
    pass(&mut world, &mut client, Duration::from_millis(400));
    assert_eq!(asked(&world), before + 1, "the peer was not asked when it fell silent");
    // It answers, so it lives on; ESP that is replayed does not speak for it.
    let captured = client.send(&mut world, 0, &segment(true, 50_000, Flags::SYN, 10));
    pass(&mut world, &mut client, DPD_DELAY / 2);
    for _ in 0..20 {
        world.inject(PortRole::Network, 1, &captured);
        pass(&mut world, &mut client, DPD_DELAY / 10);
    }
    assert!(asked(&world) > before + 1, "a replay passed for a sign of life");
}

fn behind_nat() -> (World, Client) {
    let mut settings = server_settings(Lifetime::NONE);
    settings.children[0].remote_ts = vec![format!("{CLIENT}/32").parse().unwrap()];
    connected_with(settings, Some(Nat::new(OUTSIDE[0], 10_000)))
}

fn remote(world: &World) -> core::net::SocketAddr {
    world.control.ike().sas().next().unwrap().remote
}

#[test]
fn a_peer_whose_nat_moves_it_is_followed_by_its_esp_alone() {
    let (mut world, mut client) = behind_nat();
    assert_eq!(round_trip(&mut world, &mut client, 0, 40_000, Flags::SYN), (1, 1));
    assert_eq!(remote(&world), client.nat.unwrap().shown());
    let before = asked(&world);
    for (round, nat) in [Nat::new(OUTSIDE[0], 20_000), Nat::new(OUTSIDE[1], 10_000)].into_iter().enumerate() {
        client.nat = Some(nat);
        client.send(&mut world, round, &segment(true, 40_000, Flags::ACK, 10));
        // The new address has to be resolved, which the next answer asks for.
        settle(&mut world, &mut client);
        assert_eq!(remote(&world), nat.shown());
        for client_port in 40_000..40_010 {
            let answered = round_trip(&mut world, &mut client, round, client_port, Flags::ACK);
            assert_eq!(answered, (1, 1), "after move {round}");
        }
    }
    assert_eq!(asked(&world), before, "IKE had no part in it");
    // And IKE's own messages go there too.
    world.control.initiate_shutdown(world.now);
    pass(&mut world, &mut client, Duration::from_millis(500));
    assert_eq!((world.control.is_idle(), client.sas()), (true, 0));
}

#[test]
fn hostile_27_esp_that_is_forged_or_replayed_from_elsewhere_moves_nobody() {
    let (mut world, mut client) = behind_nat();
    let (home, away) = (client.nat, Some(Nat::new(OUTSIDE[1], 30_000)));
    client.nat = None;
    let genuine = client.seal(&segment(true, 40_000, Flags::SYN, 10));
    client.nat = home;
    world.inject(PortRole::Network, 0, &home.unwrap().out(&genuine));
    pass(&mut world, &mut client, Duration::from_millis(100));
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    // Behind Ethernet, IP, UDP and the SPI: a number that would be the newest.
    let number = 14 + 20 + 8 + 4;
    forged[number..number + 4].copy_from_slice(&1_000_u32.to_be_bytes());
    for core in [0, 1] {
        for frame in [&genuine, &forged] {
            world.inject(PortRole::Network, core, &away.unwrap().out(frame));
            pass(&mut world, &mut client, Duration::from_millis(200));
        }
    }
    assert_eq!(world.collect(PortRole::Inside).len(), 1, "the genuine one, once");
    assert_eq!(remote(&world), home.unwrap().shown());
    assert_eq!(round_trip(&mut world, &mut client, 0, 40_000, Flags::ACK), (1, 1));
}

#[test]
fn an_sa_that_waits_for_its_first_packet_while_the_peer_moves_is_sent_on_to_where_the_peer_went() {
    let (mut world, mut client) = behind_nat();
    let inbound = world.control.ike().sas().next().unwrap().children[0].outbound;
    client.ike.rekey_child(world.now, inbound).unwrap();
    client.step(&mut world);
    // The appliance has the new SA and its answer is on the way; the client, which has moved, sends on the old one.
    (0..10).for_each(|_| world.step());
    assert_eq!(world.snapshot().sas.len(), 4);
    let moved = Nat::new(OUTSIDE[1], 20_000);
    client.nat = Some(moved);
    let packet = client.seal_on(0, &segment(true, 40_000, Flags::ACK, 10));
    world.inject(PortRole::Network, 0, &packet);
    (0..10).for_each(|_| world.step());
    assert_eq!(remote(&world), moved.shown());
    // The answer went to where the client was; it asks again, and goes over to the new SA.
    pass(&mut world, &mut client, Duration::from_secs(5));
    assert_eq!(client.sas(), 1);
    settle(&mut world, &mut client);
    assert_eq!(round_trip(&mut world, &mut client, 0, 40_000, Flags::ACK), (1, 1));
}
