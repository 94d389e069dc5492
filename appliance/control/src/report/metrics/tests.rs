//! Names, values and bounds of the metrics, and the server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::super::protocol::tests::snapshot;
use super::server::CLIENTS_MAX;
use super::*;
use crate::report::{ChildKey, ChildTotals, ClusterRow, DvipaRow, LifesizeRow, MemberRow, ShadowRow, TargetRow};

fn full() -> Snapshot {
    let key = ChildKey { dvipa: Some([203, 0, 113, 80].into()), name: "web".into(), direction: "in".into() };
    Snapshot {
        uptime: Duration::from_secs(61),
        children: vec![(key, ChildTotals { sas: 1, packets: 2, bytes: 3, replay_drops: 4 })],
        ike_events: vec![("ike_up", 5), ("child_up", 6)],
        ike_sas: vec![("established", 1)],
        ..snapshot()
    }
}

/// As an owner of a cluster shows it.
fn clustered() -> Snapshot {
    let dvipa = "203.0.113.80".parse().unwrap();
    let row = DvipaRow {
        address: dvipa,
        owner: "d1".into(),
        epoch: 7,
        role: "owner".into(),
        processing: "target".into(),
        outbound_sequence: "auto".into(),
        distribution: "round-robin".into(),
        services: vec!["tcp/80".into()],
        sas: 2,
        settling: false,
        lifesize_reports: 12,
        refreshes: 3,
    };
    let target = TargetRow {
        dvipa,
        name: "t1".into(),
        state: "ready".into(),
        incarnation: 4,
        serial: 2,
        weight: 1,
        connections: 5,
        load: 40,
        services_ready: vec!["tcp/80".into()],
        shadows_acknowledged: 8,
        shadows_told: 9,
    };
    let shadow = ShadowRow {
        dvipa,
        spi_in: "0x0000c0de".into(),
        spi_out: "0x0000beef".into(),
        name: "web".into(),
        peer: "client@example".into(),
        epoch: 7,
        shadow: false,
        processing: "target".into(),
        floor: 0,
        sealed: false,
        numbers: "sequencer".into(),
        mark: Some(1 << 24),
        fallback: "siblings_refused".into(),
        held_by: vec!["t1".into()],
        sender: String::new(),
    };
    let lifesize = LifesizeRow {
        dvipa,
        spi_in: "0x0000c0de".into(),
        direction: "in".into(),
        used_bytes: 1,
        granted_bytes: 100,
        charged_bytes: 10,
        soft_limit_bytes: None,
        hard_limit_bytes: None,
        overrun_bound_bytes: 7,
        report_permille: 10,
        reports: 1,
    };
    let member = MemberRow {
        name: "t1".into(),
        id: 1,
        address: "10.0.0.2".parse().unwrap(),
        own: false,
        state: "up".into(),
        incarnation: 4,
        version: 1,
        heard_ms: Some(3),
        cores_move: true,
        carrier: true,
        next_hop: false,
    };
    let sealed = ShadowRow { sealed: true, fallback: String::new(), ..shadow.clone() };
    Snapshot {
        dvipas: vec![row],
        targets: vec![target],
        shadows: vec![shadow.clone(), shadow, sealed],
        lifesizes: vec![lifesize.clone(), lifesize],
        cluster: ClusterRow { name: "demo".into(), facility_up: true, members: vec![member], ..ClusterRow::default() },
        ..full()
    }
}

#[test]
fn a_member_of_a_cluster_has_more_and_a_lone_appliance_does_not() {
    let text = String::from_utf8(render(&clustered(), "0.1.0").unwrap()).unwrap();
    for line in [
        "phalanx_facility_up 1",
        "phalanx_member_up{member=\"t1\"} 1",
        "phalanx_member_cores_move{member=\"t1\"} 1",
        "phalanx_member_reaches_network{member=\"t1\"} 0",
        "phalanx_dvipa_owned{dvipa=\"203.0.113.80\"} 1",
        "phalanx_dvipa_epoch{dvipa=\"203.0.113.80\"} 7",
        "phalanx_target_state{dvipa=\"203.0.113.80\",state=\"ready\",target=\"t1\"} 1",
        "phalanx_target_connections{dvipa=\"203.0.113.80\",target=\"t1\"} 5",
        "phalanx_target_shadows_outstanding{dvipa=\"203.0.113.80\",target=\"t1\"} 1",
        "phalanx_shadow_sas{dvipa=\"203.0.113.80\",sealed=\"no\"} 2",
        "phalanx_shadow_sas{dvipa=\"203.0.113.80\",sealed=\"yes\"} 1",
        "phalanx_sequence_sas{dvipa=\"203.0.113.80\",numbers=\"sequencer\"} 3",
        "phalanx_sequence_fallback_sas{dvipa=\"203.0.113.80\",why=\"siblings_refused\"} 2",
        "phalanx_lifesize_granted_bytes{direction=\"in\",dvipa=\"203.0.113.80\"} 200",
        "phalanx_lifesize_charged_bytes{direction=\"in\",dvipa=\"203.0.113.80\"} 20",
        "phalanx_lifesize_overrun_bound_bytes{direction=\"in\",dvipa=\"203.0.113.80\"} 7",
        "phalanx_lifesize_reports_total{dvipa=\"203.0.113.80\"} 12",
        "phalanx_lifesize_refreshes_total{dvipa=\"203.0.113.80\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    let alone = self::text();
    assert!(!alone.contains("phalanx_dvipa_") && !alone.contains("phalanx_member_"), "{alone}");
}

fn text() -> String {
    String::from_utf8(render(&full(), "0.1.0").unwrap()).unwrap()
}

#[test]
fn values_arrive_under_their_names() {
    let text = text();
    for line in [
        "phalanx_build_info{version=\"0.1.0\"} 1",
        "phalanx_uptime_seconds 61",
        "phalanx_received_packets_total 10",
        "phalanx_dropped_packets_total{reason=\"replay_duplicate\",severity=\"suspicious\",stage=\"data\"} 20",
        "phalanx_dropped_packets_total{reason=\"no_route\",severity=\"suspicious\",stage=\"data\"} 0",
        "phalanx_held_packets 1",
        "phalanx_sa_bytes_total{child=\"web\",direction=\"in\",dvipa=\"203.0.113.80\"} 3",
        "phalanx_sa_replayed_packets_total{child=\"web\",direction=\"in\",dvipa=\"203.0.113.80\"} 4",
        "phalanx_ike_events_total{event=\"child_up\"} 6",
        "phalanx_port_link_up{port=\"net0\",role=\"network\"} 1",
        "phalanx_port_unbuffered_packets_total{port=\"net0\",role=\"network\"} 4",
        "phalanx_core_polls_total{core=\"0\",found=\"work\",role=\"data\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}

/// The rules of `promtool check metrics` that names can break, for machines that have no promtool.
#[test]
fn names_follow_the_rules_of_prometheus() {
    let text = String::from_utf8(render(&clustered(), "0.1.0").unwrap()).unwrap();
    let mut families = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        families += 1;
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(
            name.starts_with("phalanx_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        let help = format!("# HELP {name} ");
        assert!(text.lines().any(|line| line.starts_with(&help) && line.len() > help.len() + 5), "{name} has no help");
        for word in ["counter", "gauge", "milliseconds", "_ms", "kilobytes", "minutes", "percent", "_count", "_sum"] {
            assert!(!name.contains(word), "{name}");
        }
    }
    assert!(families > 20);
}

/// Prometheus' own checker has the last word. `PROMTOOL` says where it is, if not on the `PATH`.
#[test]
#[ignore = "needs promtool"]
fn promtool_has_nothing_to_say() {
    use std::process::{Command, Stdio};
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    child.stdin.take().unwrap().write_all(&render(&clustered(), "0.1.0").unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn http(address: std::net::SocketAddr, request: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn only_get_metrics_is_served() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), "0.1.0", || Ok(full())).unwrap();
    let address = server.local_addr();
    let answer = http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nphalanx_received_packets_total 10\n"), "{answer}");
    for (request, status) in
        [("GET / HTTP/1.1", 404), ("POST /metrics HTTP/1.1", 405), ("GET /metrics/x HTTP/1.1", 404)]
    {
        let answer = http(address, &format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    assert!(http(address, "\u{1}\u{2}\r\n\r\n").starts_with("HTTP/1.1 400 "));
    drop(server);
    assert!(TcpStream::connect(address).is_err(), "nobody listens after the end");
}

#[test]
fn an_address_in_use_is_told() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), "0.1.0", || Ok(full())).unwrap();
    let error = Server::start(server.local_addr(), "0.1.0", || Ok(full())).unwrap_err().to_string();
    assert!(error.contains(&server.local_addr().to_string()) && error.contains("metrics.listen"), "{error}");
}

#[test]
fn a_scrape_without_numbers_fails_and_shows_no_zeros() {
    let take = || Err("the control core does not answer".to_owned());
    let server = Server::start("127.0.0.1:0".parse().unwrap(), "0.1.0", take).unwrap();
    let answer = http(server.local_addr(), "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("does not answer"), "{answer}");
    assert!(!answer.contains("phalanx_"), "{answer}");
}

#[test]
fn a_crowd_that_says_nothing_does_not_grow() {
    let server = Server::start("127.0.0.1:0".parse().unwrap(), "0.1.0", || Ok(full())).unwrap();
    let mut crowd: Vec<TcpStream> =
        (0..CLIENTS_MAX).map(|_| TcpStream::connect(server.local_addr()).unwrap()).collect();
    let mut late = TcpStream::connect(server.local_addr()).unwrap();
    late.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(late.read(&mut [0]).is_err(), "answered, though all places are taken");
    drop(crowd.pop());
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Dashboards and alerts that ask for what nobody exports stay silent for ever.
#[test]
fn dashboard_and_alerts_ask_only_for_what_is_exported() {
    let exported = text();
    let names: Vec<&str> =
        exported.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for file in ["grafana.json", "alerts.yaml"] {
        let path = format!("{}/../../configs/{file}", env!("CARGO_MANIFEST_DIR"));
        let asked = std::fs::read_to_string(path).unwrap();
        let words = asked.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let asked: std::collections::BTreeSet<&str> = words.filter(|word| word.starts_with("phalanx_")).collect();
        assert!(asked.len() > 5, "{file}");
        for name in asked {
            assert!(names.contains(&name), "{file} asks for {name}");
        }
    }
}
