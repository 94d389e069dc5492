//! The packet filter of a DVIPA, and where in a cluster it stands: at the target where the target processes, at the owner
//! where the owner does, once in either case.

use std::sync::Arc;

use cluster::fabric::Processing;
use datapath::drops::DropReason;
use datapath::mailbox::Command;
use datapath::policy::{Filter, Rule, Verdict};
use ipsec::selector::{AddressRange, PortRange};
use wire::tcp::Flags;
use wire::{ipv4, protocol};

use crate::support::client::{Client, SaSpec};
use crate::support::cluster::{Cluster, number};
use crate::support::packets::{DVIPA, Flow, ip, ip_header};
use crate::support::{Bench, Setup, policy_of};

/// Denies one port of TCP, then permits TCP from the client's own network, and nothing else.
fn filters() -> Vec<Filter> {
    let source: AddressRange = "10.7.0.0/16".parse().unwrap();
    let tcp = |ports, verdict| Rule { protocol: Some(protocol::TCP), source, ports, verdict };
    let rules = [tcp(PortRange::single(22), Verdict::Deny), tcp(PortRange::ANY, Verdict::Permit)];
    vec![Filter { address: DVIPA.into(), rules: rules.into() }]
}

fn setup(cores: usize) -> Setup {
    Setup { filters: filters(), ..Setup::of(cores) }
}

fn arrives(bench: &mut Bench, client: &mut Client, packet: &[u8]) -> bool {
    bench.client_sends(packet.len() % bench.cores(), &client.seal(packet));
    bench.settle();
    bench.take_delivered().len() == 1
}

#[test]
fn an_appliance_alone_filters_after_the_tunnel_check() {
    for cores in 1..=3 {
        let mut bench = Bench::with(setup(cores));
        let mut client = bench.connect(SaSpec::default());
        let to = |dst_port| Flow { dst_port, ..client.flow(5_000) };
        let permitted = [to(80).tcp(Flags::SYN, b""), to(443).tcp(Flags::ACK, b"mid-stream")];
        let denied = [to(22).tcp(Flags::SYN, b""), to(22).tcp(Flags::RST, b""), to(80).udp(b"not TCP")];
        let echo = client.flow(5_000).echo_request(b"not TCP either");
        let stranger = Flow { src: [10, 8, 0, 1].into(), ..client.flow(5_000) }.tcp(Flags::SYN, b"");
        for packet in &permitted {
            assert!(arrives(&mut bench, &mut client, packet));
        }
        for packet in denied.iter().chain([&echo, &stranger]) {
            assert!(!arrives(&mut bench, &mut client, packet));
        }
        bench.assert_drops(&[(DropReason::Filter, 4), (DropReason::TunnelCheck, 1)]);
        assert_eq!(bench.connections().len(), 2, "what is denied leaves no trace");
    }
}

#[test]
fn later_fragments_are_judged_by_what_they_show() {
    let mut bench = Bench::with(setup(2));
    let mut client = bench.connect(SaSpec::default());
    let later = |number: u8| {
        let header =
            ipv4::Repr { more_fragments: false, fragment_offset: 64, ..ip_header(client.inner, DVIPA, number) };
        ip(header, &[7; 36])
    };
    let (tcp, udp) = (later(protocol::TCP), later(protocol::UDP));
    assert!(arrives(&mut bench, &mut client, &tcp), "without its first one it never stands");
    assert!(!arrives(&mut bench, &mut client, &udp));
    bench.assert_drops(&[(DropReason::Filter, 1)]);
}

/// What a client sends to the denied port and to a permitted one, each SYN for a connection of its own.
fn run(cluster: &mut Cluster, client: &mut Client) -> usize {
    let mut delivered = 0;
    for dst_port in [80, 22] {
        for port in 5_000..5_012 {
            let flow = Flow { dst_port, ..client.flow(port) };
            cluster.client_sends(&client.seal(&flow.tcp(Flags::SYN, b"")));
            cluster.settle();
            let count: usize = cluster.delivered_counts().iter().sum();
            assert_eq!(count, usize::from(dst_port == 80));
            delivered += count;
        }
    }
    delivered
}

#[test]
fn where_the_target_processes_the_owner_bypasses_its_filter_and_the_target_does_not() {
    for (cores, owner_serves) in [(1, false), (3, false), (2, true)] {
        let mut cluster = Cluster::with(3, setup(cores));
        cluster.seats[0].is_target = owner_serves;
        cluster.announce();
        let mut client = cluster.connect(SaSpec::default());
        assert_eq!(run(&mut cluster, &mut client), 12);
        let denied: Vec<u64> = (0..3).map(|at| cluster.members[at].dropped(DropReason::Filter)).collect();
        assert_eq!(denied.iter().sum::<u64>(), 12);
        assert_eq!(denied[0] > 0, owner_serves, "{denied:?}");
        assert!(denied[1] > 0 && denied[2] > 0, "{denied:?}");
    }
}

#[test]
fn where_the_distributor_processes_it_filters_and_the_target_bypasses() {
    for cores in [1, 2] {
        let mut cluster = Cluster::with(3, setup(cores));
        cluster.processing = Processing::Distributor;
        cluster.announce();
        let mut client = cluster.connect(SaSpec::default());
        assert_eq!(run(&mut cluster, &mut client), 12);
        cluster.assert_drops(0, &[(DropReason::Filter, 12)]);
        (1..3).for_each(|at| cluster.assert_drops(at, &[]));
        assert!(
            cluster.routes_of(&Flow { dst_port: 22, ..client.flow(5_000) }.key(protocol::TCP)).is_empty(),
            "it made an entry"
        );
    }
}

/// The target takes the owner's word for it: a filter that stands at the target alone denies nothing there.
#[test]
fn a_target_does_not_filter_again_what_the_distributor_has_processed() {
    let mut cluster = Cluster::with(3, setup(1));
    cluster.processing = Processing::Distributor;
    cluster.announce();
    let without = Arc::new(policy_of(&Setup { member: Some(number(0)), ..Setup::of(1) }));
    cluster.members[0].command_all(|| Command::Policy(Arc::clone(&without)));
    cluster.members[0].settle();
    let mut client = cluster.connect(SaSpec::default());
    let flow = Flow { dst_port: 22, ..client.flow(5_000) };
    cluster.client_sends(&client.seal(&flow.tcp(Flags::SYN, b"")));
    cluster.settle();
    assert_eq!(cluster.delivered_counts().iter().sum::<usize>(), 1);
}
