//! Names, values and bounds of the metrics, and the server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::super::protocol::tests::snapshot;
use super::server::CLIENTS_MAX;
use super::*;
use crate::report::{ChildKey, ChildTotals};

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
    let text = text();
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
    child.stdin.take().unwrap().write_all(text().as_bytes()).unwrap();
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
