//! The contract of `phalanx show --json`, and the tables for people.

use serde_json::json;

use super::*;
use crate::report::{BalanceRow, ConnectionRow, CoreRow, DropRow, PortRow, SaRow, Snapshot};

pub(crate) fn sa() -> SaRow {
    SaRow {
        id: 7,
        name: "web".into(),
        peer: "client@example".into(),
        dvipa: [203, 0, 113, 80].into(),
        direction: "in".into(),
        spi: "0x0000c0de".into(),
        mode: "tunnel".into(),
        encap: "udp".into(),
        cipher: "aes128gcm16".into(),
        engine: "ipsec-mb".into(),
        packets: 0,
        bytes: 0,
        replay_drops: 0,
        replay_window_packets: 128,
        esn: false,
        soft_limit_bytes: Some(500_000_000),
        hard_limit_bytes: None,
        shadow: false,
        epoch: 0,
        outbound_sequence: "auto".into(),
        remote: [198, 51, 100, 7].into(),
        selectors: "203.0.113.80/32 === 10.1.0.5/32".into(),
    }
}

pub(crate) fn snapshot() -> Snapshot {
    let drop = |reason: &str, packets| DropRow {
        reason: reason.into(),
        packets,
        severity: "suspicious".into(),
        meaning: "Said in a sentence.".into(),
        stage: "data".into(),
    };
    Snapshot {
        sas: vec![sa(), SaRow { id: 8, direction: "out".into(), packets: 1_234_567, ..sa() }],
        drops: vec![drop("spi_unknown", 3), drop("no_route", 0), drop("replay_duplicate", 20)],
        balance: BalanceRow { received: 10, delivered: 6, dropped: 3, held: 1, ..BalanceRow::default() },
        connections: vec![ConnectionRow {
            peer: "client@example".into(),
            dvipa: [203, 0, 113, 80].into(),
            src: ConnectionRow::endpoint([10, 1, 0, 5].into(), 40_000, 6),
            dst: ConnectionRow::endpoint([203, 0, 113, 80].into(), 80, 6),
            protocol: ConnectionRow::protocol_name(6),
            state: "established".into(),
            target: "appliance1".into(),
            core: 1,
        }],
        ports: vec![PortRow {
            name: "net0".into(),
            role: "network".into(),
            device: "net_af_packet0,iface=eth0".into(),
            link: "up".into(),
            mac: "02:00:00:00:00:01".into(),
            numa: None,
            mtu: 1500,
            rx_packets: 1,
            tx_packets: 2,
            rx_missed: 3,
            rx_no_mbuf: 4,
            mempool_in_use: 5,
        }],
        cores: vec![CoreRow {
            core: 0,
            cpu: 2,
            role: "data".into(),
            thread: "data-0".into(),
            busy_polls: 1,
            idle_polls: 2,
            handed_over: 3,
            connections: 4,
        }],
        ..Snapshot::default()
    }
}

fn shown(what: What) -> Value {
    match snapshot().respond(what) {
        Response::Result(value) => value,
        Response::Error(error) => panic!("{error}"),
    }
}

/// The fields that stand in every row, in any order.
#[track_caller]
fn assert_fields(row: &Value, contract: &str) {
    let fields = row.as_object().unwrap();
    for field in contract.split_whitespace() {
        assert!(fields.contains_key(field), "{field} is missing in {row}");
    }
}

#[test]
fn the_json_fields_are_those_of_the_contract() {
    assert_fields(
        &shown(What::Sas)[0],
        "id name peer dvipa direction spi mode encap cipher engine packets bytes replay_drops replay_window_packets esn \
         soft_limit_bytes hard_limit_bytes shadow epoch outbound_sequence",
    );
    assert_fields(&shown(What::Drops)[0], "reason packets");
    assert_fields(&shown(What::Connections)[0], "peer dvipa src dst protocol state target core");
    assert_fields(
        &shown(What::Ports)[0],
        "name role device link mac numa mtu rx_packets tx_packets rx_missed rx_no_mbuf mempool_in_use",
    );
    assert_fields(&shown(What::Cores)[0], "core busy_polls idle_polls");
    let balance = shown(What::Balance);
    assert_fields(&balance, "received delivered forwarded punted merged dropped originated held difference");
}

#[test]
fn values_are_what_scripts_expect() {
    let sa = &shown(What::Sas)[0];
    assert_eq!(sa["spi"], "0x0000c0de");
    assert_eq!(sa["dvipa"], "203.0.113.80");
    assert_eq!(sa["soft_limit_bytes"], 500_000_000);
    assert_eq!(sa["hard_limit_bytes"], Value::Null);
    assert_eq!(sa["esn"], false);
    let connection = &shown(What::Connections)[0];
    assert_eq!((&connection["src"], &connection["protocol"]), (&json!("10.1.0.5:40000"), &json!("tcp")));
    assert_eq!(ConnectionRow::endpoint("2001:db8::1".parse().unwrap(), 80, 17), "[2001:db8::1]:80");
    assert_eq!(ConnectionRow::endpoint([10, 1, 0, 5].into(), 0, 1), "10.1.0.5");
}

#[test]
fn requests_read_back_and_responses_too() {
    for what in What::ALL {
        let request = Request::Show(what);
        assert_eq!(Request::parse(request.to_line().as_bytes()), Ok(request));
        let response = snapshot().respond(what);
        let line = response.clone().into_line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        assert_eq!(Response::parse(&line), Ok(response));
    }
    let error = Response::Error("no such thing\n".into());
    assert_eq!(Response::parse(&error.clone().into_line()), Ok(error));
    assert!(Response::parse(b"{}").is_err() && Response::parse(b"").is_err());
}

#[test]
fn where_and_drain_read_back_too() {
    let flow = "tcp 10.1.0.5:40000 203.0.113.80:80";
    let requests = [
        Request::where_is(flow).unwrap(),
        Request::where_is("udp [2001:db8::5]:53 [2001:db8::1]:53").unwrap(),
        Request::where_is("1 10.1.0.5 203.0.113.80").unwrap(),
        Request::Drain { target: "t1".into(), on: true },
        Request::Drain { target: "a \"quoted\" one\n".into(), on: false },
    ];
    for request in requests {
        assert_eq!(Request::parse(request.to_line().as_bytes()), Ok(request));
    }
    for wrong in [
        "",
        "tcp",
        "tcp 10.1.0.5:40000",
        "tcp 10.1.0.5:x 203.0.113.80:80",
        "tls 10.1.0.5 203.0.113.80",
        "tcp 10.1.0.5:1 [2001:db8::1]:80",
        "tcp 10.1.0.5:1 203.0.113.80:80 more",
        "300 10.1.0.5 203.0.113.80",
    ] {
        let error = Request::where_is(wrong).unwrap_err().to_string();
        assert!(error.contains("such as tcp 10.1.0.5:40000"), "{error}");
    }
}

#[test]
fn what_is_no_request_is_told_what_is_one() {
    for (line, allowed) in [
        (&b""[..], "\"command\":\"show\""),
        (b"show sas", "\"command\":\"show\""),
        (b"[]", "\"command\":\"show\""),
        (b"{\"command\":\"show\"}", "\"command\":\"show\""),
        (b"{\"command\":\"show\",\"what\":\"sas\",\"x\":1}", "\"command\":\"show\""),
        (b"{\"command\":\"show\",\"what\":\"sas\"} {}", "\"command\":\"show\""),
        (b"{\"command\":\"stop\",\"what\":\"sas\"}", "show"),
        (b"{\"command\":\"show\",\"what\":\"keys\"}", "sas, drops, balance, connections, ports, cores"),
    ] {
        let error = Request::parse(line).unwrap_err().to_string();
        assert!(error.contains(allowed), "{error}");
    }
    let long = vec![b' '; REQUEST_LEN_MAX + 1];
    assert_eq!(Request::parse(&long), Err(RequestError::TooLong));
    let deep = b"[".repeat(REQUEST_LEN_MAX);
    assert!(Request::parse(&deep).is_err());
}

#[test]
fn tables_are_aligned() {
    let text = human(What::Sas, &shown(What::Sas)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let end = lines[0].find("PACKETS").unwrap() + "PACKETS".len();
    assert!(lines[1][..end].ends_with("      0") && lines[2][..end].ends_with("1234567"), "{text}");

    let text = human(What::Drops, &shown(What::Drops)).unwrap();
    assert_eq!(
        text,
        "REASON            PACKETS  SEVERITY    MEANING\n\
         replay_duplicate       20  suspicious  Said in a sentence.\n\
         spi_unknown             3  suspicious  Said in a sentence.\n"
    );
    for what in What::ALL {
        assert!(human(what, &shown(what)).unwrap().ends_with('\n'));
        if !matches!(what, What::Balance | What::Cluster) {
            assert!(human(what, &json!([])).unwrap().starts_with("no "), "{what}");
        }
    }
    assert!(human(What::Sas, &json!([{"id": 1}])).is_err());
}

#[test]
fn a_peer_cannot_paint_the_operators_terminal() {
    let rows = json!([SaRow { peer: "a\u{1b}[2J\nb".into(), ..sa() }]);
    let text = human(What::Sas, &rows).unwrap();
    assert!(text.contains("a\\u{1b}[2J\\nb"), "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn rows_of_a_newer_appliance_are_understood() {
    let mut rows = shown(What::Drops);
    rows[0]["later"] = json!(1);
    assert!(human(What::Drops, &rows).is_ok());
}
