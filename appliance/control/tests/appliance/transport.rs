//! Transport mode, agreed on by IKE and carried by ESP (RFC 7296 §1.3.1, RFC 4303 §3.1.1).

use datapath::forwarding::PortRole;
use ipsec::lifetime::{Lifetime, Limits};
use ipsec::sa::Mode;
use wire::ethernet;
use wire::tcp::Flags;

use super::client::{Client, segment, server_settings};
use super::nat::{Nat, OUTSIDE};
use super::world::{CLIENT, World};
use super::{round_trip, settle};

/// A world where the appliance agrees to transport mode, and a client that asks for `wish`.
fn connected(wish: Mode, lifetime: Lifetime, nat: Option<Nat>) -> (World, Client) {
    let mut settings = server_settings(lifetime);
    settings.children[0].mode = Mode::Transport;
    // By this name the client knows itself, and a NAT does not.
    settings.children[0].remote_ts = vec![format!("{CLIENT}/32").parse().unwrap()];
    let mut world = World::new(settings);
    let mut client = Client::offering(&world, "aes128gcm16", wish);
    client.nat = nat;
    client.connect(&world);
    settle(&mut world, &mut client);
    (world, client)
}

#[test]
fn a_client_reaches_a_service_in_transport_mode_and_stays_in_it_over_rekeyings() {
    let bytes = Limits { soft: Some(20_000), hard: Some(60_000) };
    let (mut world, mut client) = connected(Mode::Transport, Lifetime { bytes, ..Lifetime::NONE }, None);
    for round in 0..100 {
        let (core, port) = (round % 2, 40_000 + round as u16);
        assert_eq!(round_trip(&mut world, &mut client, core, port, Flags::SYN), (1, 1), "round {round}");
        let answer = client.received.last().unwrap();
        assert_eq!(answer[20..24], segment(false, port, Flags::SYN, 0)[20..24], "another connection's answer");
    }
    assert!(client.downs >= 3, "rekeyed {} times", client.downs);
    let snapshot = world.snapshot();
    assert!(snapshot.sas.iter().all(|sa| sa.mode == "transport"));
    let sum = |direction: &str| {
        let of = snapshot.children.iter().filter(|(key, _)| key.direction == direction);
        of.map(|(_, totals)| totals.bytes).sum::<u64>()
    };
    // The lifesize is that of the payload: TCP header and data, without the IP header. The first one settled the world.
    assert_eq!((sum("in"), sum("out")), (101 * 30, 101 * 1_020));
}

#[test]
fn the_packet_that_is_delivered_is_the_one_that_was_protected() {
    let (mut world, mut client) = connected(Mode::Transport, Lifetime::NONE, None);
    let sent = segment(true, 40_000, Flags::SYN, 33);
    client.send(&mut world, 0, &sent);
    (0..3).for_each(|_| world.step());
    let delivered = world.collect(PortRole::Inside);
    let packet = ethernet::Packet::new_checked(&delivered[0][..]).unwrap().payload().to_vec();
    let mut a_hop_later = sent;
    assert!(wire::ipv4::Packet::new_checked(&mut a_hop_later[..]).unwrap().decrement_ttl() > 0);
    assert_eq!(packet, a_hop_later);
}

#[test]
fn a_client_that_asks_for_a_tunnel_gets_one() {
    let (mut world, mut client) = connected(Mode::Tunnel, Lifetime::NONE, None);
    assert_eq!(round_trip(&mut world, &mut client, 0, 40_000, Flags::SYN), (1, 1));
    assert!(world.snapshot().sas.iter().all(|sa| sa.mode == "tunnel"));
}

/// A NAT changes the addresses that the checksums of TCP and UDP cover (RFC 3948 §3.1.2), so transport mode is declined.
#[test]
fn through_a_nat_transport_mode_is_declined() {
    let (mut world, mut client) = connected(Mode::Transport, Lifetime::NONE, Some(Nat::new(OUTSIDE[0], 10_000)));
    assert!(world.snapshot().sas.iter().all(|sa| sa.mode == "tunnel"));
    assert_eq!(client.modes(), [Mode::Tunnel]);
    assert_eq!(round_trip(&mut world, &mut client, 0, 40_000, Flags::SYN), (1, 1));
}
