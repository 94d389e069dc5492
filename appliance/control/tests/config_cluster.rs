//! `cluster:` and what it adds to DVIPAs: taken as meant, and refused with line, found and allowed (HOSTILE 42).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

use std::path::Path;
use std::time::Duration;

use cluster::dpt::Method;
use cluster::fabric::{Encapsulation, Processing, Protection};
use cluster::id::MemberId;
use cluster::member::SequencePolicy;
use control::config::{Config, ConfigError, Refusal, Role, SecretBytes};

/// A member of a cluster of three, line by line as the tests count them.
const RIGHT: &str = "\
cluster:
  name: lab
  member: d1
  members:
    - {name: d1, id: 1, address: 10.255.0.1}
    - {name: t1, id: 2, address: 10.255.0.2}
    - {name: t2, id: 3, address: 10.255.0.3}
  pki: {ca: pki/ca.pem, certificate: pki/d1.pem, key: pki/d1.key}
  facility: {backend: etcd, endpoints: ['http://192.0.2.7:2379'], prefix: /phalanx/lab, wrap_key: wrap}
ports:
  - {name: net0, role: network, device: net_af_packet0, addresses: [192.0.2.10/24]}
  - {name: in0, role: inside, device: net_af_packet1, addresses: [10.9.0.1/24]}
  - {name: tr0, role: trusted, device: net_af_packet2, addresses: [10.255.0.1/24], mtu: 1700}
dvipas:
  - address: 203.0.113.80
    port: net0
    owners: [d1]
    targets: [{member: t1, weight: 3}, {member: t2}]
";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "phalanx.yaml", secret)
}

fn secret(path: &Path) -> Result<SecretBytes, Refusal> {
    let text = match path.to_str() {
        Some("wrap") => format!("0x{}\n", "5a".repeat(32)),
        Some("short") => "0x5a5a\n".to_owned(),
        _ => "-----BEGIN PRIVATE KEY-----\n".to_owned(),
    };
    Ok(SecretBytes::new(text.into_bytes()))
}

fn right_but(piece: &str, with: &str) -> String {
    assert!(RIGHT.contains(piece), "{piece:?} does not stand in the configuration");
    RIGHT.replacen(piece, with, 1)
}

#[track_caller]
fn assert_refused(text: &str, line: u64, found: &str, allowed: &str) {
    let error = match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    };
    let (message, fault) = (error.to_string(), error.fault());
    assert_eq!(fault.line, line, "{message}");
    assert!(message.contains(found), "{message}\n  lacks: {found}");
    assert!(message.contains(allowed), "{message}\n  lacks: {allowed}");
}

#[test]
fn a_member_knows_the_others_and_its_own_place() {
    let config = parse(RIGHT).unwrap();
    assert_eq!(config.ports[2].role, Role::Trusted);
    let cluster = config.cluster.unwrap();
    assert_eq!((&*cluster.name, cluster.me, cluster.port), ("lab", MemberId(1), 2));
    let members: Vec<_> = cluster.members.iter().map(|member| (member.id.0, &*member.name)).collect();
    assert_eq!(members, [(1, "d1"), (2, "t1"), (3, "t2")]);
    assert_eq!((cluster.encapsulation, cluster.protection), (Encapsulation::Gre, Protection::None));
    assert_eq!(cluster.facility.endpoints, ["http://192.0.2.7:2379"]);
    assert_eq!(*cluster.facility.wrap_key, [0x5a; 32]);
    assert_eq!((cluster.silence, cluster.shadow_patience), (Duration::from_secs(3), Duration::from_millis(500)));
    let dvipa = &config.dvipas[0];
    assert_eq!(dvipa.owners, [MemberId(1)]);
    let targets: Vec<_> = dvipa.targets.iter().map(|target| (target.member.0, target.weight)).collect();
    assert_eq!(targets, [(2, 3), (3, 1)]);
    assert_eq!(dvipa.distribution.method, Method::RoundRobin);
    assert_eq!((dvipa.peer_window_packets, dvipa.siblings_max), (32, 8));
}

#[test]
fn every_word_of_a_cluster_is_taken_as_meant() {
    let more = "    processing: distributor\n    outbound_sequence: via-distributor\n    distribution: hot-standby\n    \
                affinity: 10m\n    local_first: true\n    switch_back: false\n    peer_window: 64\n    max_siblings: 4\n";
    let text =
        right_but("  facility", "  trusted: {encapsulation: gre-in-udp, protect: none}\n  silence: 5s\n  facility");
    let config = parse(&(text + more)).unwrap();
    let (cluster, dvipa) = (config.cluster.unwrap(), &config.dvipas[0]);
    assert_eq!((cluster.encapsulation, cluster.protection), (Encapsulation::GreInUdp, Protection::None));
    assert_eq!(cluster.silence, Duration::from_secs(5));
    assert_eq!(dvipa.processing, Processing::Distributor);
    assert_eq!(dvipa.outbound_sequence, SequencePolicy::ViaDistributor);
    assert!(matches!(dvipa.distribution.method, Method::HotStandby { switches_back: false }));
    assert_eq!((dvipa.distribution.affinity, dvipa.distribution.local_first), (Some(Duration::from_secs(600)), true));
    assert_eq!((dvipa.peer_window_packets, dvipa.siblings_max), (64, 4));
}

#[test]
fn hostile_42_members_that_do_not_fit_together() {
    for (piece, with, line, found, allowed) in [
        ("member: d1\n", "member: d9\n", 3, "`d9`", "d1, t1, t2"),
        ("name: t1", "name: d1", 6, "stands in line 5 already", "each name once"),
        ("name: t1", "name: T_1", 6, "`T_1`", "small letters"),
        ("id: 2", "id: 1", 6, "stands in line 5 already", "each number once"),
        ("id: 2", "id: 0", 6, "`0`", "1 to 65535"),
        ("10.255.0.2}", "10.255.0.1}", 6, "stands in line 5 already", "each address once"),
        ("10.255.0.2}", "10.254.0.2}", 6, "`10.254.0.2`", "10.255.0.0/24"),
        ("10.255.0.2}", "192.0.2.10}", 7, "several members' addresses", "the address of one member"),
        ("role: trusted", "role: inside", 3, "role inside", "a trusted port"),
        ("10.255.0.1/24]", "10.255.0.9/24]", 3, "`d1`", "a member whose address one of our trusted ports holds"),
        ("mtu: 1700", "mtu: 1600", 3, "an MTU of 1600", "an MTU of 1604 at least"),
    ] {
        assert_refused(&right_but(piece, with), line, found, allowed);
    }
}

#[test]
fn hostile_42_facilities_that_cannot_serve_a_cluster() {
    for (piece, with, found, allowed) in [
        ("backend: etcd", "backend: embedded", "`embedded`", "etcd"),
        ("backend: etcd", "backend: zookeeper", "`zookeeper`", "etcd"),
        ("'http://192.0.2.7:2379'", "", "0 items", "1 to 16 items"),
        ("'http://192.0.2.7:2379'", "'192.0.2.7:2379'", "`192.0.2.7:2379`", "http:// or https://"),
        ("'http://192.0.2.7:2379'", "'https://192.0.2.7:2379'", "no key `ca`", "authority"),
        ("'http://192.0.2.7:2379'", "'https://a:1', 'http://b:1'", "`http://b:1`", "for all endpoints"),
        ("wrap_key: wrap", "wrap_key: short", "a key of 2 bytes", "32 bytes"),
        ("wrap_key: wrap", "wrap_key: wrap, ca: x.pem", "`x.pem`", "https:// endpoints"),
    ] {
        assert_refused(&right_but(piece, with), 9, found, allowed);
    }
    let without = right_but(", endpoints: ['http://192.0.2.7:2379']", "");
    assert_refused(&without, 9, "no key `endpoints`", "the addresses of etcd");
}

#[test]
fn hostile_42_dvipas_that_nobody_could_serve() {
    for (piece, with, line, found, allowed) in [
        ("    owners: [d1]\n", "", 15, "no key `owners`", "by rank"),
        ("owners: [d1]", "owners: [d1, d1]", 17, "`d1`", "each member once"),
        ("owners: [d1]", "owners: [x1]", 17, "`x1`", "d1, t1, t2"),
        ("owners: [d1]", "owners: []", 17, "0 items", "1 to 64 items"),
        ("{member: t2}", "{member: t1}", 18, "`t1`", "each member once"),
        ("{member: t2}", "{member: t9}", 18, "`t9`", "d1, t1, t2"),
        ("weight: 3", "weight: 0", 18, "`0`", "1 to 1000"),
        ("    owners: [d1]\n", "    owners: [d1]\n    distribution: random\n", 18, "`random`", "round-robin, weighted"),
        ("    owners: [d1]\n", "    owners: [d1]\n    peer_window: 3\n", 18, "`3`", "4 to 65536"),
        ("    owners: [d1]\n", "    owners: [d1]\n    affinity: 0s\n", 18, "`0s`", "1s"),
    ] {
        assert_refused(&right_but(piece, with), line, found, allowed);
    }
}

#[test]
fn every_way_to_share_outbound_numbers_is_taken() {
    for policy in ["auto", "sequencer", "via-distributor", "leased-blocks"] {
        let config =
            parse(&right_but("    owners: [d1]\n", &format!("    owners: [d1]\n    outbound_sequence: {policy}\n")));
        assert_eq!(config.unwrap().dvipas[0].outbound_sequence.name(), policy);
    }
}

#[test]
fn protected_frames_need_more_room_and_no_udp() {
    let esp = |words: &str| right_but("  facility", &format!("  trusted: {{{words}protect: esp}}\n  facility"));
    assert_eq!(parse(&esp("")).unwrap().cluster.unwrap().protection, Protection::Esp);
    assert_refused(
        &esp("encapsulation: gre-in-udp, "),
        9,
        "`gre-in-udp`, with `protect: esp`",
        "gre: ESP hides the ports",
    );
    let narrow = esp("").replace("mtu: 1700", "mtu: 1640");
    assert_refused(
        &narrow,
        3,
        "an MTU of 1640",
        "an MTU of 1641 at least: that of the network ports and 141 for GRE in ESP",
    );
    let unknown = right_but("  facility", "  trusted: {protect: tls}\n  facility");
    assert_refused(&unknown, 9, "`tls`", "none, esp");
}

#[test]
fn without_a_cluster_nothing_of_it_is_taken() {
    let (cluster, rest) = RIGHT.split_at(RIGHT.find("ports:").unwrap());
    assert!(cluster.starts_with("cluster:"));
    assert_refused(rest, 6, "`203.0.113.80`", "it needs several appliances");
    let alone = rest.replace("    owners: [d1]\n    targets: [{member: t1, weight: 3}, {member: t2}]\n", "");
    parse(&alone).unwrap();
    assert_refused(&(alone + "    local_first: true\n"), 8, "`true`", "it needs several appliances");
}
