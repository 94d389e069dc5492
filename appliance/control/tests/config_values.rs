//! What a right configuration means: every word, its default, and what is made of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

mod config_support;

use std::net::IpAddr;
use std::time::Duration;

use cluster::fabric::Processing;
use cluster::member::SequencePolicy;
use config_support::{RIGHT, parse, right_but};
use control::config::{Cores, Eal, Idle, LogFormat, LogLevel, Neighbour, Role, Service, ServiceProtocol};
use ike::config::IdentityPattern;
use ipsec::cipher::Cipher;
use ipsec::lifetime::{Limits, TimeLimits};
use ipsec::sa::{Direction, Encapsulation, Mode};
use wire::Fragment;
use wire::flow::FlowKey;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_short_configuration_gets_good_defaults() {
    let config = parse(RIGHT).unwrap();
    assert_eq!(config.cores, Cores { data: vec![1, 2], control: 0, idle: Idle::Adaptive, connections: 65_536 });
    assert_eq!(config.eal, Eal::default());

    let port = &config.ports[0];
    assert_eq!((port.role, port.mtu_bytes, port.vlan, port.queues), (Role::Network, 1500, None, 2));
    assert_eq!(port.device, "0000:01:00.0");
    assert_eq!(port.addresses[0].to_string(), "192.0.2.10/24");
    assert!(port.is_on_link(address("192.0.2.77")) && !port.is_on_link(address("192.0.3.1")));

    assert_eq!(config.routes[0].to.to_string(), "0.0.0.0/0");
    assert_eq!((config.routes[0].via, config.routes[0].port), (address("192.0.2.1"), 0));

    let dvipa = &config.dvipas[0];
    assert_eq!((dvipa.address, dvipa.port), (address("203.0.113.80"), 0));
    assert_eq!((dvipa.processing, dvipa.outbound_sequence), (Processing::Target, SequencePolicy::Auto));
    assert_eq!(dvipa.services, []);

    let connection = &config.connections[0];
    assert_eq!(connection.local_addrs, [address("203.0.113.80")]);
    assert_eq!(connection.remote_addrs, [], "none means every one");
    assert_eq!(connection.local_id, Some("gw.example".parse().unwrap()));
    assert_eq!(connection.remote_id, "client@example".parse().unwrap());
    assert_eq!(connection.rekey_time, Some(Duration::from_secs(14_400)));
    assert_eq!(connection.over_time, Some(Duration::from_secs(15_840)));
    assert_eq!((connection.dpd_delay, connection.ike_sas_per_identity), (Some(Duration::from_secs(30)), None));
    let texts =
        |proposals: &[ike::proposal::IkeProposal]| proposals.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&connection.proposals), ["aes256gcm16-aes128gcm16-prfsha256-x25519"]);

    let child = &connection.children[0];
    assert_eq!((&*child.name, child.mode), ("web", Mode::Tunnel));
    assert_eq!(child.local_ts[0].to_string(), "203.0.113.80/32[tcp/80]");
    assert_eq!(child.remote_ts[0].to_string(), "dynamic");
    assert_eq!(child.proposals.iter().map(ToString::to_string).collect::<Vec<_>>(), ["aes256gcm16-aes128gcm16-noesn"]);
    assert_eq!(child.replay_window_packets, 128);
    assert_eq!(child.lifetime.bytes, Limits::NONE);
    assert_eq!(child.lifetime.packets, Limits::NONE);
    let hour = Duration::from_secs(3_600);
    assert_eq!(child.lifetime.time, TimeLimits { soft: Some(hour), hard: Some(hour + hour / 10) });

    assert_eq!(config.metrics, None);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
}

/// Every word but those of `static_sas:`, none at its default where another is served.
const EVERY_WORD: &str = "
eal: {args: [--no-huge, -m, '512'], mbufs: 256}
cores: {data: [3], control: 2, idle: spin, connections: 16}
ports:
  - name: net0
    role: network
    device: net_af_packet0,iface=eth0
    addresses: [192.0.2.10/24, 192.0.2.11/24]
    mtu: 9000
    vlan: 10
    queues: 1
    neighbours: [{address: 192.0.2.1, mac: 02:00:00:00:00:01}]
dvipas:
  - address: 203.0.113.80
    port: net0
    processing: target
    outbound_sequence: auto
    services: [{protocol: tcp, port: 80}, {protocol: udp, port: 53}]
connections:
  office:
    version: 2
    local_addrs: [203.0.113.80, 192.0.2.10]
    remote_addrs: [198.51.100.7, 10.0.0.0/8, 172.16.0.1-172.16.0.9]
    proposals: [aes128gcm16-prfsha256-x25519, aes256gcm16-aes128gcm16-prfsha256-curve25519, default]
    local: {auth: psk}
    remote: {auth: psk, id: '%any'}
    rekey_time: 2h
    over_time: 5m
    dpd_delay: 0
    ike_sas_per_identity: 500
    children:
      all:
        esp_proposals: [aes128gcm16-x25519-noesn, aes256gcm16-esn-noesn]
        mode: transport
        replay_window: 65536
        rekey_time: 20s
        life_time: 30s
        rekey_bytes: 500MB
        life_packets: 1000
secrets:
  ike-any: {file: psk}
metrics: {listen: '[::1]:9400'}
log: {level: debug, format: json}
";

#[test]
fn every_word_is_taken_as_written() {
    let config = parse(EVERY_WORD).unwrap();
    assert_eq!(
        (config.eal.args, config.eal.mbufs),
        (["--no-huge", "-m", "512"].map(str::to_owned).to_vec(), Some(256))
    );
    assert_eq!(config.cores, Cores { data: vec![3], control: 2, idle: Idle::Spin, connections: 16 });
    let port = &config.ports[0];
    assert_eq!((port.mtu_bytes, port.vlan, port.queues), (9000, Some(10), 1));
    assert_eq!(port.neighbours, [Neighbour { address: address("192.0.2.1"), mac: [2, 0, 0, 0, 0, 1] }]);
    let services = [(ServiceProtocol::Tcp, 80), (ServiceProtocol::Udp, 53)];
    assert_eq!(config.dvipas[0].services, services.map(|(protocol, port)| Service { protocol, port }));

    let connection = &config.connections[0];
    assert_eq!((&connection.local_id, &connection.remote_id), (&None, &IdentityPattern::Any));
    assert_eq!(connection.rekey_time, Some(Duration::from_secs(7_200)));
    assert_eq!(connection.over_time, Some(Duration::from_secs(7_500)));
    assert_eq!((connection.dpd_delay, connection.ike_sas_per_identity), (None, Some(500)));
    for (peer, fits) in [("198.51.100.7", true), ("10.255.0.1", true), ("172.16.0.9", true), ("172.16.0.10", false)] {
        assert_eq!(connection.remote_addrs.iter().any(|range| range.contains(address(peer))), fits, "{peer}");
    }
    let proposals: Vec<String> = connection.proposals.iter().map(ToString::to_string).collect();
    let all = "aes256gcm16-aes128gcm16-prfsha256-x25519";
    assert_eq!(proposals, ["aes128gcm16-prfsha256-x25519", all, all]);

    let child = &connection.children[0];
    assert_eq!(child.local_ts[0].to_string(), "dynamic");
    let proposals: Vec<String> = child.proposals.iter().map(ToString::to_string).collect();
    assert_eq!(proposals, ["aes128gcm16-x25519-noesn", "aes256gcm16-esn-noesn"]);
    assert_eq!((child.mode, child.replay_window_packets), (Mode::Transport, 65_536));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(child.lifetime.time, TimeLimits { soft: seconds(20), hard: seconds(30) });
    assert_eq!(child.lifetime.bytes, Limits { soft: Some(500_000_000), hard: Some(550_000_000) });
    assert_eq!(child.lifetime.packets, Limits { soft: Some(900), hard: Some(1000) });

    assert_eq!(config.metrics.unwrap().listen, "[::1]:9400".parse().unwrap());
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Json));
}

#[test]
fn anchors_save_repetition() {
    let text = right_but("        local_ts:", "        &shared esp_proposals: [aes128gcm16]\n        local_ts:");
    assert!(parse(&text).is_ok());
    let merged = right_but("      web:\n", "      base: &base {rekey_time: 10m}\n      web:\n        <<: *base\n");
    let connection = &parse(&merged).unwrap().connections[0];
    assert_eq!(connection.children[1].lifetime.time.soft, Some(Duration::from_secs(600)));
}

#[test]
fn zero_takes_a_limit_away() {
    let text = right_but(
        "      web:\n",
        "      web:\n        rekey_time: 0\n        rekey_bytes: 10MB\n        life_bytes: 0\n",
    );
    let lifetime = parse(&text).unwrap().connections[0].children[0].lifetime;
    assert_eq!(lifetime.time, TimeLimits::NONE);
    assert_eq!(lifetime.bytes, Limits { soft: Some(10_000_000), hard: None });
}

#[test]
fn a_connection_needs_a_secret_that_can_be_for_its_peers() {
    let secret = |id: &str| right_but("id: [client@example], ", id);
    for id in ["", "id: ['%any'], ", "id: ['*@example'], ", "id: [x, CLIENT@Example], "] {
        assert!(parse(&secret(id)).is_ok(), "{id}");
    }
    for id in ["id: [other@example], ", "id: ['*@test'], ", "id: [gw.example], "] {
        assert!(parse(&secret(id)).is_err(), "{id}");
    }
    // Anybody may come: whose secret it is shows only then.
    let anybody = right_but("id: client@example}", "id: '%any'}");
    assert!(parse(&anybody).is_ok());
}

#[test]
fn what_is_accepted_and_most_likely_a_slip_is_warned_of() {
    let twice = right_but(
        "secrets:",
        "  late: {local_addrs: [203.0.113.80], local: {auth: psk, id: gw.example}, remote: {auth: psk, id: client@example}, children: {x: {}}}\nsecrets:",
    );
    let warnings = parse(&twice).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].line, 23);
    assert!(warnings[0].text.contains("connections.late: never used"), "{}", warnings[0]);

    let spinning = right_but("control: 0", "control: 1, idle: spin");
    assert!(parse(&spinning).unwrap().warnings[0].text.contains("IKE will be slow"));
}

const STATIC: &str = "
static_sas:
  - name: lab
    peer: client
    dvipa: 203.0.113.80
    remote: 198.51.100.7
    cipher: aes128gcm16
    in: {spi: 0x00001001, key_file: in.key}
    out: {spi: 4098, key_file: out.key}
    local_ts: [203.0.113.80]
    remote_ts: ['10.1.0.0/16[tcp]']
";

#[test]
fn static_sas_are_taken_with_a_loud_warning() {
    let config = parse(&format!("{RIGHT}{STATIC}")).unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].text.contains("FOR LABORATORIES ONLY"), "{}", config.warnings[0]);
    let sa = &config.static_sas[0];
    let (inbound, outbound) = (sa.inbound.as_ref().unwrap(), sa.outbound.as_ref().unwrap());
    assert_eq!((inbound.spi.get(), outbound.spi.get()), (0x1001, 4098));
    assert_eq!((inbound.direction, outbound.direction), (Direction::Inbound, Direction::Outbound));
    assert_eq!((inbound.mode, inbound.encapsulation, inbound.esn), (Mode::Tunnel, Encapsulation::None, false));
    assert_eq!(inbound.replay_window_packets, 128);
    assert_eq!(inbound.selectors.to_string(), "203.0.113.80/32 === 10.1.0.0/16[tcp]");
    assert_eq!(inbound.peer, outbound.peer);
    assert!(inbound.peer.0 > u64::MAX / 2, "IKE numbers its peers from below, and no two peers may share a number");
    assert_eq!(inbound.key.cipher(), Cipher::AesGcm128);
    assert!(inbound.key != outbound.key);
}

#[test]
fn static_sas_may_do_without_a_replay_window_or_one_direction() {
    let lines = "    encap: udp\n    remote_port: 40001\n    replay_window: 0\n    esn: true\n    life_packets: 100\n";
    let text = STATIC.replace("    out: {spi: 4098, key_file: out.key}\n", lines);
    let config = parse(&format!("{RIGHT}{text}")).unwrap();
    let inbound = config.static_sas[0].inbound.as_ref().unwrap();
    assert!(config.static_sas[0].outbound.is_none());
    assert_eq!(inbound.encapsulation, Encapsulation::Udp { local_port: 4500, remote_port: 40_001 });
    assert_eq!((inbound.replay_window_packets, inbound.esn), (0, true));
    assert_eq!(inbound.lifetime.packets, Limits { soft: Some(90), hard: Some(100) });
    assert_eq!(inbound.lifetime.time, TimeLimits::NONE);
}

#[test]
fn static_sas_in_transport_mode_are_between_their_two_ends() {
    let text = STATIC
        .replace("10.1.0.0/16[tcp]", "198.51.100.7/32[tcp]")
        .replace("    cipher", "    mode: transport\n    cipher");
    let config = parse(&format!("{RIGHT}{text}")).unwrap();
    let sa = &config.static_sas[0];
    assert_eq!([&sa.inbound, &sa.outbound].map(|half| half.as_ref().unwrap().mode), [Mode::Transport; 2]);
}

#[test]
fn hostile_42_static_sas_that_do_not_hold_together() {
    use config_support::assert_refused;
    let with = |piece: &str, by: &str| {
        assert!(STATIC.contains(piece), "{piece}");
        format!("{RIGHT}{}", STATIC.replacen(piece, by, 1))
    };
    let second = STATIC.replace("\nstatic_sas:\n", "").replace("name: lab", "name: two");
    for (text, line, found, allowed) in [
        (with("spi: 4098", "spi: 255"), 33, "`255`", "256 to 4294967295"),
        (with("spi: 4098", "spi: 0x100000000"), 33, "`0x100000000`", "0x00000100"),
        (with("0x00001001", "+4097"), 32, "`+4097`", "256"),
        (with("out.key", "in.key"), 33, "`in.key`, which stands in line 32", "a key of its own"),
        (with("out.key", "other"), 33, "a key of 31 digits", "40 hexadecimal digits"),
        (with("dvipa: 203.0.113.80", "dvipa: 203.0.113.81"), 29, "`203.0.113.81`", "the address of a DVIPA"),
        (with("aes128gcm16", "aes128"), 31, "`aes128`", "aes256gcm16, aes128gcm16"),
        (with("    cipher:", "    replay_window: 32\n    cipher:"), 31, "`32`", "64 to 65536, or 0"),
        (with("    cipher:", "    remote_port: 4500\n    cipher:"), 31, "without `encap: udp`", "no remote_port"),
        (with("    cipher:", "    esn: yes\n    cipher:"), 31, "`yes`", "true, false"),
        (
            with("    cipher:", "    mode: transport\n    cipher:"),
            31,
            "selectors of other addresses",
            "`remote_ts` within",
        ),
        (with("    cipher:", "    mode: transport\n    encap: udp\n    cipher:"), 31, "with `encap: udp`", "a tunnel"),
        (with("    cipher:", "    mode: beet\n    cipher:"), 31, "`beet`", "tunnel, transport"),
        (with("[203.0.113.80]", "[dynamic]"), 34, "`dynamic`", "10.1.0.0/16[tcp/80]"),
        (with("[203.0.113.80]", "[]"), 34, "0 items", "1 to 32"),
        (format!("{RIGHT}{STATIC}{second}"), 41, "`0x00001001`, which stands in line 32", "each SPI once"),
        (
            format!("{RIGHT}{STATIC}{}", second.replace("two", "lab")),
            36,
            "`lab`, which stands in line 27",
            "each name once",
        ),
    ] {
        assert_refused(&text, line, found, allowed);
    }
    let neither = STATIC.lines().filter(|line| !line.contains("key_file")).collect::<Vec<_>>().join("\n");
    assert_refused(&format!("{RIGHT}{neither}"), 27, "no key `in`", "`in`, `out` or both");
}

#[test]
fn the_first_rule_of_a_filter_decides_and_what_none_names_is_denied() {
    let text = format!(
        "{RIGHT}filters:\n  - dvipa: 203.0.113.80\n    rules:\n      - {{action: deny, source: 10.7.0.0/24}}\n      \
         - {{action: permit, protocol: tcp, source: 10.7.0.0/16, port: 8000-8099}}\n      \
         - {{action: permit, protocol: icmp}}\n"
    );
    let policy = control::control_core::policy(&parse(&text).unwrap());
    let permits = |src: &str, protocol, dst_port, dst: &str| {
        let (src, dst) = (address(src), address(dst));
        policy.permits(&FlowKey { src, dst, protocol, src_port: 5_000, dst_port }, Fragment::Whole)
    };
    let dvipa = "203.0.113.80";
    assert!(permits("10.7.1.9", 6, 8_000, dvipa) && permits("10.7.1.9", 6, 8_099, dvipa));
    assert!(permits("10.8.1.9", 1, 0, dvipa));
    assert!(!permits("10.7.0.9", 6, 8_000, dvipa) && !permits("10.7.0.9", 1, 0, dvipa), "the first rule");
    assert!(!permits("10.7.1.9", 6, 8_100, dvipa) && !permits("10.7.1.9", 17, 8_000, dvipa), "named by none");
    assert!(!permits("10.8.1.9", 6, 8_000, dvipa), "another source");
    assert!(permits("10.7.0.9", 17, 9, "203.0.113.81"), "an address without a filter");
    let parsed = control::control_core::policy(&parse(RIGHT).unwrap());
    let flow = FlowKey { src: address("10.7.0.9"), dst: address(dvipa), protocol: 17, src_port: 1, dst_port: 9 };
    assert!(parsed.permits(&flow, Fragment::Whole));
}

#[test]
fn a_dvipas_services_become_the_data_paths_port_table() {
    let listed =
        right_but("port: net0}", "port: net0, services: [{protocol: tcp, port: 80}, {protocol: udp, port: 53}]}");
    let policy = control::control_core::policy(&parse(&listed).unwrap());
    let offers = |protocol, dst_port| {
        let (src, dst) = ("10.7.0.9".parse().unwrap(), "203.0.113.80".parse().unwrap());
        policy.offers(&FlowKey { src, dst, protocol, src_port: 5_000, dst_port }, Fragment::Whole)
    };
    assert!(offers(6, 80) && offers(17, 53));
    assert!(!offers(6, 53) && !offers(17, 80) && !offers(6, 443));
}
