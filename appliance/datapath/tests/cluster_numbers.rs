//! A cluster: where the sequence numbers of a shared outbound SA come from, and both modes of SAs.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::fabric::Processing;
use cluster::member::NumberSource;
use datapath::cluster::reports::Report;
use datapath::drops::DropReason;
use datapath::mailbox::Command;
use datapath::policy::Service;
use ipsec::Spi;
use ipsec::sa::{Mode, PeerId};
use wire::protocol;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::cluster::Cluster;
use crate::support::packets::{DVIPA, Flow, a_hop_later, ip_in};

/// A cluster in which each target has a connection of the client.
fn with_connections(cores: usize) -> (Cluster, Client, [u16; 3]) {
    let mut cluster = Cluster::new(3, cores);
    cluster.numbers_apart = 0;
    let mut client = cluster.connect(SaSpec { home: cores - 1, ..SaSpec::default() });
    let mut ports = [0; 3];
    for port in 5_000.. {
        cluster.client_sends(&client.seal(&client.flow(port).udp(b"hello")));
        cluster.settle();
        let target = cluster.delivered_counts().iter().position(|&count| count == 1).unwrap();
        ports[target] = port;
        if ports[1..].iter().all(|&port| port > 0) {
            return (cluster, client, ports);
        }
    }
    unreachable!()
}

fn set_numbers(cluster: &mut Cluster, client: &Client, at: usize, source: NumberSource) {
    let spec = &client.spec;
    let (spi, child) = (Spi::new(spec.spi_out).unwrap(), Spi::new(spec.spi_in).unwrap());
    let peer = PeerId(spec.peer);
    cluster.members[at].command_all(|| Command::SetNumbers { peer, spi, child, source, window_packets: 32 });
    cluster.members[at].settle();
}

fn answers(cluster: &mut Cluster, client: &mut Client, at: usize) -> Vec<u64> {
    cluster.sent(at).iter().map(|frame| client.open(frame).unwrap().sequence).collect()
}

#[test]
fn an_owner_that_encrypts_sends_for_its_targets() {
    for cores in 1..=3 {
        let (mut cluster, mut client, ports) = with_connections(cores);
        (1..3).for_each(|at| set_numbers(&mut cluster, &client, at, NumberSource::ViaOwner));
        for (at, &port) in ports.iter().enumerate().skip(1) {
            cluster.web_sends(at, &client.flow(port).answer().udp(b"answer"));
            cluster.settle();
            assert!(cluster.sent(at).is_empty());
        }
        assert_eq!(answers(&mut cluster, &mut client, 0), [1, 2]);
        assert_eq!([1, 2].map(|at: usize| cluster.members[at].balance().relayed), [1, 1]);
        (0..3).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn the_sequencer_numbers_the_packets_of_all_members_once_and_in_order() {
    for cores in 1..=3 {
        let (mut cluster, mut client, ports) = with_connections(cores);
        (0..3).for_each(|at| {
            let source = if at == 0 { NumberSource::Own { from: 1 } } else { NumberSource::Sequencer };
            set_numbers(&mut cluster, &client, at, source);
        });
        let mut seen = BTreeSet::new();
        for round in 0..20 {
            for (at, &port) in ports.iter().enumerate().skip(1) {
                for _ in 0..=round % 7 {
                    cluster.web_sends(at, &client.flow(port).answer().udp(b"answer"));
                }
            }
            cluster.settle();
            for at in 1..3 {
                let numbers = answers(&mut cluster, &mut client, at);
                assert_eq!(numbers.len(), round % 7 + 1, "member {at}, round {round}");
                for number in numbers {
                    assert!(seen.insert(number), "{number} twice");
                }
            }
            cluster.pass(Duration::from_millis(2));
        }
        assert_eq!(seen.iter().copied().collect::<Vec<_>>(), (1..=seen.len() as u64).collect::<Vec<_>>());
        for at in 0..3 {
            cluster.assert_drops(at, &[]);
            assert_eq!(cluster.members[at].balance().held, 0);
        }
        assert!(cluster.members[1].reports.iter().any(|report| matches!(report, Report::NumbersWanted { .. })));
    }
}

#[test]
fn without_an_answer_what_waits_is_dropped_in_time_and_never_piles_up() {
    let (mut cluster, client, ports) = with_connections(2);
    set_numbers(&mut cluster, &client, 1, NumberSource::Sequencer);
    cluster.intercepted = Some(Vec::new());
    cluster.members[1].reports.clear();
    for _ in 0..100 {
        cluster.web_sends(1, &client.flow(ports[1]).answer().udp(b"answer"));
    }
    (0..40).for_each(|core| _ = cluster.members[1].poll(core % 2));
    assert_eq!(cluster.members[1].balance().held, 64);
    assert_eq!(cluster.members[1].dropped(DropReason::NoNumber), 36, "the oldest make room");
    let wanted = |cluster: &Cluster| {
        cluster.members[1].reports.iter().filter(|report| matches!(report, Report::NumbersWanted { .. })).count()
    };
    assert_eq!(wanted(&cluster), 1);
    for _ in 0..51 {
        cluster.advance(Duration::from_millis(1));
        (0..2).for_each(|core| _ = cluster.members[1].poll(core));
    }
    assert_eq!(cluster.members[1].dropped(DropReason::NoNumber), 100);
    assert_eq!(cluster.members[1].balance().held, 0);
}

#[test]
fn leased_numbers_are_used_up_and_then_waited_for() {
    let (mut cluster, mut client, ports) = with_connections(2);
    set_numbers(&mut cluster, &client, 1, NumberSource::Leased);
    let lease = |cluster: &mut Cluster, first, count| {
        let (peer, spi) = (PeerId(1), Spi::new(SaSpec::default().spi_out).unwrap());
        cluster.members[1].command_all(|| Command::GrantNumbers { peer, spi, first, count });
    };
    lease(&mut cluster, 2_000, 3);
    for _ in 0..5 {
        cluster.web_sends(1, &client.flow(ports[1]).answer().udp(b"answer"));
    }
    (0..20).for_each(|core| _ = cluster.members[1].poll(core % 2));
    assert_eq!(answers(&mut cluster, &mut client, 1), [2_000, 2_001, 2_002]);
    assert_eq!(cluster.members[1].balance().held, 2);
    lease(&mut cluster, 2_000, 3);
    lease(&mut cluster, 2_100, 10);
    cluster.settle();
    assert_eq!(answers(&mut cluster, &mut client, 1), [2_100, 2_101], "a lease that comes twice counts once");
    cluster.assert_drops(1, &[]);
}

#[test]
fn packets_that_wait_end_with_their_sa() {
    let (mut cluster, client, ports) = with_connections(2);
    set_numbers(&mut cluster, &client, 1, NumberSource::Leased);
    cluster.web_sends(1, &client.flow(ports[1]).answer().udp(b"answer"));
    (0..20).for_each(|core| _ = cluster.members[1].poll(core % 2));
    assert_eq!(cluster.members[1].balance().held, 1);
    cluster.members[1].remove_outbound(&client);
    cluster.assert_drops(1, &[(DropReason::NoOutboundSa, 1)]);
}

#[test]
fn a_target_tells_how_many_connections_each_service_has() {
    let (mut cluster, _client, _ports) = with_connections(1);
    let active = |cluster: &mut Cluster| {
        let reports = std::mem::take(&mut cluster.members[1].reports);
        let active = reports.into_iter().filter_map(|report| match report {
            Report::Active { service, connections } => Some((service, connections)),
            _other => None,
        });
        active.collect::<Vec<_>>()
    };
    cluster.pass(Duration::ZERO);
    let service = Service { address: DVIPA.into(), protocol: protocol::UDP, port: 80 };
    let told = active(&mut cluster);
    assert!(told.len() == 1 && told[0].0 == service && told[0].1 >= 1, "{told:?}");
    cluster.pass(Duration::from_secs(31));
    assert_eq!(active(&mut cluster).last(), Some(&(service, 0)));
}

#[test]
fn transport_mode_works_like_tunnel_mode_on_every_way() {
    for (cores, processing) in [(1, Processing::Target), (3, Processing::Target), (2, Processing::Distributor)] {
        let mut cluster = Cluster::new(3, cores);
        cluster.processing = processing;
        cluster.seats[0].is_target = true;
        cluster.announce();
        let spec = SaSpec { mode: Mode::Transport, remote_ts: "198.51.100.7/32", ..SaSpec::default() };
        let mut client = cluster.connect(spec);
        let spi = client.spec.spi_in;
        let mut at_each = [0; 3];
        for port in 5_000..5_009 {
            let flow = Flow { src: client.spec.remote, ..client.flow(port) };
            for (flags, payload) in [(Flags::SYN, &b""[..]), (Flags::ACK, b"some data")] {
                let packet = flow.tcp(flags, payload);
                cluster.client_sends(&client.seal(&packet));
                cluster.settle();
                let at = (0..3).find(|&at| !cluster.members[at].delivered.is_empty()).unwrap();
                let delivered = cluster.delivered(at);
                assert_eq!(ip_in(&delivered[0]), a_hop_later(&packet));
                at_each[at] += packet.len() as u64 - 20;
                let answer = flow.answer().tcp(Flags::ACK, b"answer");
                cluster.web_sends(at, &answer);
                cluster.settle();
                let sent = cluster.sent(at);
                assert_eq!(client.open(&sent[0]).unwrap().inner, a_hop_later(&answer));
            }
        }
        for (at, bytes) in at_each.into_iter().enumerate() {
            let counted: u64 = cluster.shadow(spi, at).totals.iter().map(|totals| totals.bytes.get()).sum();
            assert_eq!(counted, bytes, "the lifesize is that of the payloads");
            cluster.assert_drops(at, &[]);
        }
        let stranger = Flow { src: [192, 0, 2, 99].into(), ..client.flow(5_000) };
        cluster.client_sends(&client.seal(&stranger.udp(b"not within the selectors")));
        cluster.settle();
        cluster.assert_drops(0, &[(DropReason::TunnelCheck, 1)]);
    }
}
