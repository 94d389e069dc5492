//! A cluster: who gets a connection, and what the owner does with each kind of packet.

use std::net::SocketAddr;

use cluster::fabric::{Encapsulation, Processing};
use datapath::drops::DropReason;
use datapath::mailbox::Event;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::Setup;
use crate::support::client::SaSpec;
use crate::support::cluster::{Cluster, number};
use crate::support::packets::{a_hop_later, ip, ip_header, ip_in};

#[test]
fn connections_of_one_sa_go_to_both_targets_and_are_answered_from_there() {
    for cores in 1..=3 {
        let mut cluster = Cluster::new(3, cores);
        let mut client = cluster.connect(SaSpec { home: cores - 1, ..SaSpec::default() });
        for port in 5_000..5_010 {
            let flow = client.flow(port);
            for (flags, payload) in [(Flags::SYN, &b""[..]), (Flags::ACK, b""), (Flags::PSH | Flags::ACK, b"get")] {
                cluster.client_sends(&client.seal(&flow.tcp(flags, payload)));
                cluster.settle();
            }
            let target = (1..3).find(|&at| !cluster.members[at].delivered.is_empty()).unwrap();
            let delivered = cluster.delivered(target);
            assert_eq!(delivered.len(), 3, "all of a connection comes to one target");
            assert_eq!(ip_in(&delivered[2]), a_hop_later(&flow.tcp(Flags::PSH | Flags::ACK, b"get")));
            assert_eq!(cluster.delivered_counts(), [0, 0, 0]);
            let route = cluster.routes_of(&flow.key(protocol::TCP));
            assert_eq!(route.len(), 1);
            assert_eq!((route[0].1.target, route[0].1.incarnation.0), (number(target), 100 + target as u64));

            cluster.web_sends(target, &flow.answer().tcp(Flags::ACK, b"page"));
            cluster.settle();
            let sent = cluster.sent(target);
            let answer = client.open(&sent[0]).unwrap();
            assert_eq!(answer.inner, a_hop_later(&flow.answer().tcp(Flags::ACK, b"page")));
        }
        let held = [1, 2].map(|at: usize| cluster.members[at].connections().len());
        assert_eq!(held.iter().sum::<usize>(), 10);
        assert!(held.iter().all(|&held| held >= 3), "they take turns, on each core: {held:?}");
        assert_eq!(cluster.members[0].connections().len(), 0);
        assert_eq!(cluster.members[0].balance().relayed, 30);
        (0..3).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn only_the_first_packet_of_a_connection_is_authenticated_by_the_owner() {
    let mut cluster = Cluster::new(3, 2);
    let mut client = cluster.connect(SaSpec::default());
    let flow = client.flow(5_000);
    for _ in 0..10 {
        cluster.client_sends(&client.seal(&flow.udp(b"data")));
        cluster.settle();
    }
    let spi = client.spec.spi_in;
    assert_eq!(cluster.top(spi, 0), 1);
    assert_eq!(cluster.top(spi, 1).max(cluster.top(spi, 2)), 10);
    let counted = |at: usize| cluster.shadow(spi, at).totals.iter().map(|totals| totals.packets.get()).sum::<u64>();
    assert_eq!((counted(0), counted(1) + counted(2)), (0, 10), "whoever delivers counts");
}

#[test]
fn hostile_34_a_forged_peek_goes_to_its_target_and_harms_nothing_there() {
    for cores in 1..=2 {
        let mut cluster = Cluster::new(3, cores);
        let mut client = cluster.connect(SaSpec::default());
        let flow = client.flow(5_000);
        cluster.client_sends(&client.seal(&flow.tcp(Flags::SYN, b"")));
        cluster.settle();
        let target = (1..3).find(|&at| !cluster.members[at].delivered.is_empty()).unwrap();
        cluster.delivered(target);
        let spi = client.spec.spi_in;
        let before = cluster.members[target].connections();
        // What decrypts to data, FIN and RST of the connection, and is not true.
        for flags in [Flags::ACK, Flags::FIN | Flags::ACK, Flags::RST] {
            let mut forged = client.seal(&flow.tcp(flags, b"never said"));
            *forged.last_mut().unwrap() ^= 1;
            cluster.client_sends(&forged);
        }
        cluster.settle();
        cluster.assert_drops(target, &[(DropReason::AuthenticationFailed, 3)]);
        cluster.assert_drops(0, &[]);
        assert_eq!(cluster.members[target].connections(), before);
        assert_eq!((cluster.top(spi, 0), cluster.top(spi, target)), (1, 1));
        // A forged SYN, and forged data of no connection, end at the owner.
        for (port, flags) in [(5_000, Flags::SYN), (5_001, Flags::SYN), (5_002, Flags::ACK)] {
            let mut forged = client.seal(&client.flow(port).tcp(flags, b""));
            *forged.last_mut().unwrap() ^= 1;
            cluster.client_sends(&forged);
        }
        cluster.settle();
        cluster.assert_drops(0, &[(DropReason::AuthenticationFailed, 3)]);
        assert!(cluster.routes_of(&client.flow(5_001).key(protocol::TCP)).is_empty());
        cluster.client_sends(&client.seal(&flow.tcp(Flags::ACK, b"true")));
        cluster.settle();
        assert_eq!(cluster.delivered(target).len(), 1);
    }
}

/// A connection on a target, with one packet delivered.
fn with_connection(cores: usize) -> (Cluster, crate::support::client::Client, usize) {
    let mut cluster = Cluster::new(3, cores);
    let mut client = cluster.connect(SaSpec::default());
    cluster.client_sends(&client.seal(&client.flow(5_000).tcp(Flags::SYN, b"")));
    cluster.settle();
    let target = (1..3).find(|&at| !cluster.members[at].delivered.is_empty()).unwrap();
    cluster.delivered(target);
    (cluster, client, target)
}

#[test]
fn while_a_new_owner_settles_nothing_passes_and_then_what_stands_goes_on() {
    let (mut cluster, mut client, target) = with_connection(2);
    cluster.is_settling = true;
    cluster.announce();
    for port in [5_000, 5_001] {
        cluster.client_sends(&client.seal(&client.flow(port).tcp(Flags::ACK, b"data")));
    }
    cluster.settle();
    cluster.assert_drops(0, &[(DropReason::Settling, 2)]);
    assert!(cluster.delivered(target).is_empty());
    cluster.is_settling = false;
    cluster.announce();
    cluster.client_sends(&client.seal(&client.flow(5_000).tcp(Flags::ACK, b"data")));
    cluster.settle();
    assert_eq!(cluster.delivered(target).len(), 1);
}

#[test]
fn a_packet_for_an_address_that_another_owns_ends_here() {
    let (mut cluster, mut client, target) = with_connection(1);
    let packet = client.seal(&client.flow(5_000).tcp(Flags::ACK, b"data"));
    cluster.members[target].client_sends(0, &packet);
    cluster.settle();
    cluster.assert_drops(target, &[(DropReason::NotOwner, 1)]);
}

#[test]
fn two_peers_on_one_flow_go_to_different_targets_and_a_third_to_none() {
    for cores in 1..=2 {
        let mut cluster = Cluster::new(3, cores);
        let mut clients: Vec<_> = (1..=3_u32)
            .map(|peer| {
                let remote = [198, 51, 100, peer as u8].into();
                let (spi_in, spi_out) = (0xc000_0000 + peer, 0xd000_0000 + peer);
                cluster.connect(SaSpec { peer: u64::from(peer), spi_in, spi_out, remote, ..SaSpec::default() })
            })
            .collect();
        let flow = clients[0].flow(5_000);
        let mut targets = Vec::new();
        for client in &mut clients[..2] {
            cluster.client_sends(&client.seal(&flow.tcp(Flags::SYN, b"mine")));
            cluster.settle();
            let counts = cluster.delivered_counts();
            targets.push(counts.iter().position(|&count| count == 1).unwrap());
        }
        assert_ne!(targets[0], targets[1]);
        for (client, &target) in clients.iter_mut().zip(&targets) {
            cluster.web_sends(target, &flow.answer().tcp(Flags::ACK, b"yours"));
            cluster.settle();
            let sent = cluster.sent(target);
            assert!(client.open(&sent[0]).is_ok(), "each is answered under its own SA");
        }
        cluster.client_sends(&clients[2].seal(&flow.tcp(Flags::SYN, b"mine")));
        cluster.settle();
        cluster.assert_drops(0, &[(DropReason::OthersFlow, 1)]);
        assert_eq!(cluster.routes_of(&flow.key(protocol::TCP)).len(), 2);
    }
}

#[test]
fn two_clients_with_one_inner_address_and_port_behind_different_nats_are_never_mixed() {
    for (cores, processing) in [(1, Processing::Target), (3, Processing::Target), (2, Processing::Distributor)] {
        let mut cluster = Cluster::new(3, cores);
        cluster.processing = processing;
        let mut client = |peer: u32| {
            let remote = [198, 51, 100, peer as u8].into();
            let (spi_in, spi_out, udp_port) = (0xc000_0000 + peer, 0xd000_0000 + peer, Some(40_000 + peer as u16));
            let identity = if peer == 1 { "one@example" } else { "two@example" };
            let spec = SaSpec { peer: peer.into(), identity, spi_in, spi_out, remote, udp_port, ..SaSpec::default() };
            cluster.connect(spec)
        };
        let mut clients = [client(1), client(2)];
        let flow = clients[0].flow(5_000);
        assert_eq!(flow.key(protocol::TCP), clients[1].flow(5_000).key(protocol::TCP));
        let mut targets = [None; 2];
        for round in 0..10 {
            for (at, client) in clients.iter_mut().enumerate() {
                let flags = if round == 0 { Flags::SYN } else { Flags::ACK };
                let packet = flow.tcp(flags, format!("client {at}, round {round}").as_bytes());
                cluster.client_sends(&client.seal(&packet));
                cluster.settle();
                let target = (1..3).find(|&target| !cluster.members[target].delivered.is_empty()).unwrap();
                assert_eq!(*targets[at].get_or_insert(target), target, "a connection stays with its target");
                assert_eq!(ip_in(&cluster.delivered(target)[0]), a_hop_later(&packet));
                let answer = flow.answer().tcp(Flags::ACK, format!("answer {at}, round {round}").as_bytes());
                cluster.web_sends(target, &answer);
                cluster.settle();
                let sent = cluster.sent(target);
                // Opening checks the NAT's address and port, too.
                assert_eq!((sent.len(), client.open(&sent[0]).unwrap().inner), (1, a_hop_later(&answer)));
            }
        }
        assert_ne!(targets[0], targets[1], "the service could not tell them apart");
        (0..3).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn what_the_trusted_wire_cannot_carry_is_dropped_and_counted() {
    let mut cluster = Cluster::with(2, Setup { trusted_mtu: 1_400, ..Setup::of(1) });
    let mut client = cluster.connect(SaSpec::default());
    cluster.client_sends(&client.seal(&client.flow(5_000).udp(&[0; 1_200])));
    cluster.client_sends(&client.seal(&client.flow(5_000).udp(&[0; 1_300])));
    cluster.settle();
    cluster.assert_drops(0, &[(DropReason::RelayTooBig, 1)]);
    assert_eq!(cluster.delivered_counts(), [0, 1]);
}

#[test]
fn an_owner_that_is_a_target_too_delivers_its_share_itself() {
    for cores in 1..=3 {
        let mut cluster = Cluster::new(2, cores);
        cluster.seats[0].is_target = true;
        cluster.announce();
        let mut client = cluster.connect(SaSpec::default());
        for port in 5_000..5_008 {
            let flow = client.flow(port);
            for payload in [&b"one"[..], b"two", b"three"] {
                cluster.client_sends(&client.seal(&flow.udp(payload)));
                cluster.settle();
            }
        }
        let counts = cluster.delivered_counts();
        assert_eq!(counts.iter().sum::<usize>(), 24);
        assert!(counts.iter().all(|&count| count > 0 && count % 3 == 0), "{counts:?}");
        let spi = client.spec.spi_in;
        let counted =
            |at: usize| cluster.shadow(spi, at).totals.iter().map(|totals| totals.packets.get()).sum::<u64>() as usize;
        assert_eq!([counted(0), counted(1)], [counts[0], counts[1]]);
        (0..2).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn fragments_follow_their_first_one_to_its_connection() {
    for cores in 1..=3 {
        let mut cluster = Cluster::new(3, cores);
        cluster.seats[0].is_target = true;
        cluster.announce();
        let mut client = cluster.connect(SaSpec::default());
        for port in 5_000..5_009_u16 {
            let flow = client.flow(port);
            cluster.client_sends(&client.seal(&flow.udp(b"whole")));
            cluster.settle();
            let target = cluster.delivered_counts().iter().position(|&count| count == 1).unwrap();
            let datagram = flow.udp_datagram(&[7; 1_000]);
            let fragment = |at: usize, more: bool, bytes: &[u8]| {
                let mut header = ip_header(flow.src, flow.dst, protocol::UDP);
                (header.more_fragments, header.dont_fragment) = (more, false);
                (header.fragment_offset, header.identification) = (at as u16, port);
                ip(header, bytes)
            };
            let (first, later) = (fragment(0, true, &datagram[..504]), fragment(504, false, &datagram[504..]));
            for piece in [&first, &later] {
                cluster.client_sends(&client.seal(piece));
                cluster.settle();
            }
            let delivered = cluster.delivered(target);
            assert_eq!(delivered.len(), 2, "both, where the connection is: port {port}, {cores} cores");
            assert_eq!(ip_in(&delivered[1]), a_hop_later(&later));
        }
        let orphan = {
            let mut header = ip_header(client.inner, crate::support::packets::DVIPA, protocol::UDP);
            (header.fragment_offset, header.identification) = (64, 1);
            ip(header, &[0; 64])
        };
        cluster.client_sends(&client.seal(&orphan));
        cluster.settle();
        cluster.assert_drops(0, &[(DropReason::FragmentUnknown, 1)]);
        (1..3).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn a_distributor_that_processes_sends_plain_packets_and_judges_replays_itself() {
    for cores in 1..=2 {
        let mut cluster = Cluster::new(3, cores);
        cluster.processing = Processing::Distributor;
        cluster.seats[0].is_target = true;
        cluster.announce();
        let mut client = cluster.connect(SaSpec::default());
        let spi = client.spec.spi_in;
        let mut sent = Vec::new();
        for port in 5_000..5_009 {
            for payload in [&b"one"[..], b"two"] {
                let packet = client.seal(&client.flow(port).udp(payload));
                cluster.client_sends(&packet);
                cluster.settle();
                sent.push(packet);
            }
        }
        let counts = cluster.delivered_counts();
        assert_eq!(counts.iter().sum::<usize>(), 18);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        for packet in &sent {
            cluster.client_sends(packet);
        }
        cluster.settle();
        cluster.assert_drops(0, &[(DropReason::ReplayDuplicate, 18)]);
        assert_eq!(cluster.delivered_counts(), [0, 0, 0]);
        let tops = (1..3).map(|at| cluster.top(spi, at)).max();
        assert!(tops >= Some(13), "targets tell the highest number that they saw: {tops:?}");
        for (at, &count) in counts.iter().enumerate() {
            let counted = cluster.shadow(spi, at).totals.iter().map(|totals| totals.packets.get()).sum::<u64>();
            assert_eq!(counted as usize, count, "whoever delivers counts");
        }
    }
}

#[test]
fn gre_in_udp_works_alike() {
    let mut cluster = Cluster::new(2, 2);
    cluster.encapsulation = Encapsulation::GreInUdp;
    cluster.announce();
    let mut client = cluster.connect(SaSpec { udp_port: Some(4_500), ..SaSpec::default() });
    cluster.client_sends(&client.seal(&client.flow(5_000).tcp(Flags::SYN, b"")));
    cluster.settle();
    assert_eq!(cluster.delivered_counts(), [0, 1]);
}

#[test]
fn no_packet_of_a_connection_that_stands_costs_an_allocation() {
    for cores in 1..=3 {
        let mut cluster = Cluster::new(3, cores);
        let mut client = cluster.connect(SaSpec::default());
        for port in 5_000..5_008 {
            cluster.client_sends(&client.seal(&client.flow(port).udp(b"hello")));
        }
        cluster.settle();
        cluster.delivered_counts();
        for port in (5_000..5_008).cycle().take(80) {
            cluster.client_sends(&client.seal(&client.flow(port).udp(b"data")));
            for at in 0..3 {
                for core in (0..cores).cycle().take(2 * cores) {
                    assert_eq!(cluster.members[at].poll_and_count_allocations(core), 0, "member {at}, {cores} cores");
                }
                cluster.carry();
            }
        }
        cluster.settle();
        assert_eq!(cluster.delivered_counts().iter().sum::<usize>(), 80);
    }
}

#[test]
fn a_peer_behind_a_nat_that_moves_is_noticed_by_the_target() {
    let mut cluster = Cluster::new(2, 2);
    let mut client = cluster.connect(SaSpec { udp_port: Some(4_500), ..SaSpec::default() });
    let flow = client.flow(5_000);
    cluster.client_sends(&client.seal(&flow.udp(b"from home")));
    cluster.settle();
    client.spec.udp_port = Some(1_024);
    let packet = client.seal(&flow.udp(b"from elsewhere"));
    let esp = packet[client.esp_start()..].to_vec();
    cluster.client_sends(&client.encapsulated(&esp));
    cluster.settle();
    let moved = cluster.members[1].events.iter().find_map(|(_, event)| match event {
        Event::PeerMoved { remote, sequence, .. } => Some((*remote, *sequence)),
        _other => None,
    });
    assert_eq!(moved, Some((SocketAddr::new(client.spec.remote.into(), 1_024), 2)));
    assert!(cluster.members[0].events.is_empty(), "the owner only peeked");
}
