//! HOSTILE 42: a configuration that does not hold together is refused with file, line, what was found, what is allowed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

mod config_support;

use config_support::{RIGHT, assert_refused, parse, right_but};
use control::config::ConfigError;

#[test]
fn the_configuration_that_these_tests_break_is_right() {
    let config = parse(RIGHT).unwrap();
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.warnings, []);
}

#[test]
fn hostile_42_unknown_keys() {
    let top = format!("{RIGHT}interfaces: []\n");
    let allowed = "eal, cores, ports, routes, dvipas, connections, secrets, static_sas, cluster, filters, metrics, log";
    let error = assert_refused(&top, 25, "`interfaces`", allowed);
    assert!(matches!(error, ConfigError::UnknownKey(_)));

    let port = right_but("    device: 0000:01:00.0\n", "    device: 0000:01:00.0\n    mtuu: 1500\n");
    let error = assert_refused(&port, 6, "`mtuu`", "name, role, device, addresses, mtu, vlan, queues");
    assert!(error.to_string().contains("ports[0].mtuu"), "{error}");
    assert!(error.to_string().contains("did you mean `mtu`?"), "{error}");

    let child = right_but("        local_ts:", "        local-ts:");
    let error = assert_refused(&child, 22, "`local-ts`", "local_ts, remote_ts, esp_proposals");
    assert!(error.to_string().contains("connections.*.children.*.local-ts"), "{error}");
}

#[test]
fn hostile_42_capacities_out_of_range() {
    for wrong in ["15", "16777217", "0", "-1", "many", "1e5", "''"] {
        let text = right_but("control: 0", &format!("control: 0, connections: {wrong}"));
        let error = assert_refused(&text, 1, "", "a whole number from 16 to 16777216");
        assert!(error.to_string().contains("cores.connections"), "{error}");
    }
    for wrong in ["255", "16777216", "0x1000"] {
        let text = format!("{RIGHT}eal: {{mbufs: {wrong}}}\n");
        let error = assert_refused(&text, 25, wrong, "a whole number from 256 to 16777215");
        assert!(error.to_string().contains("eal.mbufs"), "{error}");
    }
}

#[test]
fn hostile_42_arguments_of_dpdk_that_are_not_the_operators() {
    let other = "--mbuf-pool-ops-name, --proc-type, --telemetry";
    for (arg, allowed) in [
        ("--mbuf-pool-ops-name=ring_sp_sc", other),
        ("--mbuf-pool=ring_sp_sc", other),
        ("--proc-type=secondary", other),
        ("--telemetry", other),
        ("--lcores=0", "`cores:` names them"),
        ("--lcore=0", "`cores:` names them"),
        ("-l0", "`cores:` names them"),
        ("-l", "`cores:` names them"),
    ] {
        assert_refused(&format!("{RIGHT}eal: {{args: ['{arg}']}}\n"), 25, arg, allowed);
    }
    for arg in ["--log-level=lib.eal:debug", "-m", "--no-telemetry", "--legacy-mem"] {
        parse(&format!("{RIGHT}eal: {{args: ['{arg}']}}\n")).unwrap();
    }
}

#[test]
fn hostile_42_duplicate_keys() {
    for (text, line, key) in [
        (format!("{RIGHT}ports: []\n"), 25, "`ports`"),
        (right_but("    role: network\n", "    role: network\n    role: inside\n"), 5, "`role`"),
        (right_but("secrets:\n", "  office: {}\nsecrets:\n"), 23, "`office`"),
        (right_but("secrets:\n", "      web: {}\nsecrets:\n"), 23, "`web`"),
        (format!("{RIGHT}  ike-office: {{}}\n"), 25, "`ike-office`"),
    ] {
        let error = assert_refused(&text, line, key, "once");
        assert!(matches!(error, ConfigError::Duplicate(_)), "{error}");
    }
}

#[test]
fn hostile_42_duplicate_names() {
    for (text, line, found, allowed) in [
        (right_but("name: in0", "name: net0"), 7, "`net0`, which stands in line 3", "each name once"),
        (right_but("net_tap0,", "0000:01:00.0,"), 9, "which stands in line 5", "each device for one port"),
        (right_but("[1, 2]", "[1, 1]"), 1, "`1`", "each data core once"),
        (
            right_but("192.0.2.1}\n", "192.0.2.1}\n  - {to: 0.0.0.0/0, via: 192.0.2.2}\n"),
            13,
            "line 12",
            "each prefix once",
        ),
        (
            format!("{RIGHT}  ike-other: {{id: [x, client@example], file: psk}}\n"),
            25,
            "`client@example`, which stands in line 24",
            "one secret for each identity",
        ),
    ] {
        let error = assert_refused(&text, line, found, allowed);
        assert!(matches!(error, ConfigError::Duplicate(_)), "{error}");
    }
}

#[test]
fn hostile_42_overlapping_addresses() {
    let dvipa = "address: 203.0.113.80";
    for (text, line, found) in [
        // Port against port: the same address, and links that hold each other.
        (right_but("10.9.0.1/24", "192.0.2.10/32"), 10, "line 6 holds 192.0.2.10 already"),
        (right_but("10.9.0.1/24", "192.0.2.129/25"), 10, "overlaps 192.0.2.10/24 of another port, in line 6"),
        (right_but("10.9.0.1/24", "192.0.0.1/16"), 10, "overlaps 192.0.2.10/24 of another port, in line 6"),
        // DVIPA against port, and against another's link.
        (right_but(dvipa, "address: 192.0.2.10"), 14, "line 6 holds 192.0.2.10 already"),
        (right_but(dvipa, "address: 10.9.0.1"), 14, "line 10 holds 10.9.0.1 already"),
        (right_but(dvipa, "address: 10.9.0.80"), 14, "overlaps 10.9.0.1/24 of another port, in line 10"),
        // DVIPA against DVIPA.
        (
            right_but("connections:", "  - {address: 203.0.113.80, port: net0}\nconnections:"),
            15,
            "line 14 holds 203.0.113.80",
        ),
    ] {
        let error = assert_refused(&text, line, found, "");
        assert!(matches!(error, ConfigError::Conflict(_)), "{error}");
    }
    // On the link of its own port a DVIPA is at home.
    let at_home = RIGHT.replace("203.0.113.80", "192.0.2.80");
    assert!(parse(&at_home).is_ok());
}

#[test]
fn hostile_42_names_that_refer_to_nothing() {
    let no_dvipa = right_but("local_addrs: [203.0.113.80]", "local_addrs: [203.0.113.81]");
    for (text, line, found, allowed) in [
        (right_but("port: net0}", "port: net9}"), 14, "`net9`", "net0"),
        (right_but("port: net0}", "port: in0}"), 14, "`in0`, whose role is inside", "net0"),
        (right_but("via: 192.0.2.1}", "via: 198.51.100.1}"), 12, "`198.51.100.1`", "192.0.2.0/24, 10.9.0.0/24"),
        (right_but("via: 192.0.2.1}", "via: 192.0.2.1, port: in0}"), 12, "`192.0.2.1`", "10.9.0.0/24"),
        (right_but("via: 192.0.2.1}", "via: 192.0.2.1, port: x}"), 12, "`x`", "net0, in0"),
        (no_dvipa, 17, "`203.0.113.81`", "a DVIPA or of a port"),
        (right_but("id: [client@example]", "id: [other@example]"), 19, "`client@example`", "an identity with a secret"),
    ] {
        let error = assert_refused(&text, line, found, allowed);
        assert!(matches!(error, ConfigError::Dangling(_)), "{error}");
    }
    let no_secrets = RIGHT.split("secrets:").next().unwrap();
    assert_refused(no_secrets, 19, "`secrets:` holds nothing", "an identity with a secret");
    let anybody = no_secrets.replace("client@example", "'%any'");
    assert_refused(&anybody, 19, "`%any`", "an identity with a secret");
}

#[test]
fn hostile_42_values_out_of_range() {
    let port = "    role: inside\n";
    let child = "        local_ts: ['203.0.113.80/32[tcp/80]']\n";
    let with = |place: &str, line: &str| right_but(place, &format!("{place}{line}\n"));
    for (text, line, found, allowed) in [
        (with(port, "    mtu: 575"), 9, "`575`", "576 to 9216"),
        (with(port, "    mtu: 0x5dc"), 9, "`0x5dc`", "576 to 9216"),
        (with(port, "    vlan: 4095"), 9, "`4095`", "1 to 4094"),
        (with(port, "    queues: 3"), 9, "`3`", "1 to 2"),
        (with(child, "        replay_window: 63"), 23, "`63`", "64 to 65536"),
        (with(child, "        replay_window: 65537"), 23, "`65537`", "64 to 65536"),
        (with(child, "        replay_window: 0"), 23, "`0`", "64 to 65536"),
        (
            right_but("    local_addrs", "    rekey_time: 0\n    over_time: 1h\n    local_addrs"),
            18,
            "`1h`",
            "no over_time beside `rekey_time: 0`",
        ),
        (with(child, "        rekey_time: 1w"), 23, "`1w`", "ms, s, m, h, d"),
        (with(child, "        rekey_time: 500ms"), 23, "`500ms`", "1s to"),
        (with(child, "        rekey_bytes: 5mb"), 23, "`5mb`", "kB, MB"),
        (
            with(child, "        rekey_bytes: 600MB\n        life_bytes: 500MB"),
            24,
            "`500MB`, with rekey_bytes `600MB`",
            "more than",
        ),
        (right_but("[1, 2]", "[1, 1024]"), 1, "`1024`", "0 to 1023"),
        (right_but("[1, 2]", "[]"), 1, "0 items", "1 to 64"),
        (right_but("10.9.0.1/24", "10.9.0.0/24"), 10, "`10.9.0.0/24`", "the address of a host"),
        (right_but("10.9.0.1/24", "10.9.0.1"), 10, "`10.9.0.1`", "with its prefix length"),
        (right_but("to: 0.0.0.0/0", "to: 10.0.0.1/8"), 12, "`10.0.0.1/8`", "did you mean 10.0.0.0/8"),
        (right_but("via: 192.0.2.1}", "via: 192.0.2.10}"), 12, "`192.0.2.10`", "not one of our own"),
        (right_but("[tcp/80]", "[tcp/80000]"), 22, "`203.0.113.80/32[tcp/80000]`", "10.1.0.0/16[tcp/80]"),
        (right_but("name: in0", "name: in 0"), 7, "`in 0`", "letters, digits"),
        (right_but("ike-office:", "office:"), 24, "`office`", "`ike-`"),
        (format!("{RIGHT}metrics: {{listen: 9400}}\n"), 25, "`9400`", "127.0.0.1:9400"),
        (format!("{RIGHT}log: {{level: verbose}}\n"), 25, "`verbose`", "error, warn, info, debug, trace"),
    ] {
        let error = assert_refused(&text, line, found, allowed);
        assert!(matches!(error, ConfigError::Invalid(_)), "{error}");
    }
}

#[test]
fn hostile_42_proposals_that_nobody_can_mean() {
    let with = |key: &str, list: &str| {
        let (place, indent) = match key {
            "proposals" => ("    local_addrs:", "    "),
            _ => ("        local_ts:", "        "),
        };
        right_but(place, &format!("{indent}{key}: [{list}]\n{place}"))
    };
    for (text, line, found, allowed) in [
        (
            with("proposals", "aes128-sha256-modp2048"),
            17,
            "`aes128` in `aes128-sha256-modp2048`",
            "aes128gcm16, aes256gcm16",
        ),
        (with("proposals", "aes128gcm16-x25519"), 17, "`aes128gcm16-x25519` without a PRF", "prfsha256"),
        (with("proposals", "aes128gcm16-prfsha256"), 17, "`aes128gcm16-prfsha256` without a key exchange", "x25519"),
        (with("proposals", "prfsha256-x25519"), 17, "`prfsha256-x25519` without a cipher", "aes128gcm16"),
        (with("proposals", ""), 17, "0 items", "1 to 16"),
        (with("esp_proposals", "null-sha256"), 22, "`null` in `null-sha256`", "aes128gcm16"),
        (with("esp_proposals", "x25519"), 22, "`x25519` without a cipher", "aes128gcm16"),
        (with("esp_proposals", "aes128gcm16-"), 22, "`` in", "aes256gcm16"),
    ] {
        assert_refused(&text, line, found, allowed);
    }
}

#[test]
fn hostile_42_what_is_not_built_yet_is_refused_and_not_ignored() {
    let child = "        local_ts: ['203.0.113.80/32[tcp/80]']\n";
    let dvipa = "port: net0}";
    for (text, line, found, allowed) in [
        (right_but(child, &format!("{child}        mode: beet\n")), 23, "`beet`", "tunnel, transport"),
        (right_but(dvipa, "port: net0, processing: distributor}"), 14, "`distributor`", "target"),
        (right_but(dvipa, "port: net0, outbound_sequence: sequencer}"), 14, "`sequencer`", "auto"),
        (right_but("local: {auth: psk", "local: {auth: pubkey"), 18, "`pubkey`", "psk"),
        (right_but("    local_addrs:", "    version: 1\n    local_addrs:"), 17, "`1`", "2"),
        (right_but("id: gw.example", "id: 'CN=gw'"), 18, "`CN=gw`", "gw.example"),
        (right_but("ike-office:", "eap-office:"), 24, "`eap-office`", "`ike-`"),
        (right_but("[10.9.0.1/24]", "['2001:db8::1/64']"), 10, "`2001:db8::1/64`", "IPv4"),
        (right_but("to: 0.0.0.0/0", "to: '::/0'"), 12, "`::/0`", "IPv4"),
        (right_but("via: 192.0.2.1}", "via: '2001:db8::1'}"), 12, "`2001:db8::1`", "IPv4"),
        (right_but("address: 203.0.113.80", "address: '2001:db8::80'"), 14, "`2001:db8::80`", "IPv4"),
        (right_but("'203.0.113.80/32[tcp/80]'", "'2001:db8::80/128'"), 22, "`2001:db8::80/128`", "IPv4"),
    ] {
        let error = assert_refused(&text, line, found, allowed);
        assert!(matches!(error, ConfigError::Unserved(_)), "{error}");
    }
    for empty in ["cluster:", "filters: []", "filters:", "static_sas: []"] {
        assert!(parse(&format!("{RIGHT}{empty}\n")).is_ok(), "{empty}");
    }
    // A word that nobody knows is not promised for later.
    let unknown = right_but(child, &format!("{child}        mode: transprot\n"));
    assert!(matches!(assert_refused(&unknown, 23, "`transprot`", "tunnel"), ConfigError::Invalid(_)));
}

#[test]
fn hostile_42_filters_that_do_not_hold_together() {
    let with = |filter: &str| format!("{RIGHT}filters:\n  - {{{filter}}}\n");
    let rule = |words: &str| with(&format!("dvipa: 203.0.113.80, rules: [{{{words}}}]"));
    for (text, line, found, allowed) in [
        (with("dvipa: 203.0.113.81, rules: [{action: deny}]"), 26, "`203.0.113.81`", "the address of a DVIPA"),
        (with("dvipa: 203.0.113.80, rules: []"), 26, "0 items", "1 to 256"),
        (rule("action: allow"), 26, "`allow`", "permit, deny"),
        (rule("action: deny, protocol: sctp"), 26, "`sctp`", "any, tcp, udp, icmp"),
        (rule("action: deny, source: 10.0.0.1/8"), 26, "`10.0.0.1/8`", "a prefix"),
        (rule("action: deny, source: '2001:db8::/32'"), 26, "`2001:db8::/32`", "IPv4"),
        (rule("action: deny, protocol: tcp, port: 0"), 26, "`0`", "1 to 65535"),
        (rule("action: deny, protocol: tcp, port: 90-80"), 26, "`90-80`", "1 to 65535"),
        (rule("action: deny, port: 80"), 26, "without `protocol: tcp` or `udp`", "no port"),
        (rule("action: deny, protocol: icmp, port: 80"), 26, "without `protocol: tcp` or `udp`", "no port"),
        (rule("action: deny, ports: 80"), 26, "`ports`", "port"),
        (
            with("dvipa: 203.0.113.80, rules: [{action: deny}]}\n  - {dvipa: 203.0.113.80, rules: [{action: permit}]"),
            27,
            "stands in line 26",
            "one filter for each DVIPA",
        ),
    ] {
        assert_refused(&text, line, found, allowed);
    }
}

#[test]
fn hostile_42_values_of_another_shape() {
    for (text, line, found, allowed) in [
        (right_but("name: net0", "name: [net0]"), 3, "a list", "a single value"),
        (right_but("name: net0", "name: {a: b}"), 3, "a mapping", "a single value"),
        (right_but("name: net0", "name:"), 3, "no value", "a single value"),
        (right_but("[192.0.2.10/24]", "192.0.2.10/24"), 6, "a single value", "a list"),
        (right_but("cores: {data: [1, 2], control: 0}", "cores: 4"), 1, "a single value", "a mapping"),
        (RIGHT.replace("  - {to: 0.0.0.0/0, via: 192.0.2.1}", "  to: 0.0.0.0/0"), 12, "a mapping", "a list"),
    ] {
        let error = assert_refused(&text, line, found, allowed);
        assert!(matches!(error, ConfigError::WrongShape(_)), "{error}");
    }
}

#[test]
fn hostile_42_missing_keys() {
    // What is missing has no line; the last key of the mapping that lacks it has.
    for (text, line, found) in [
        (right_but("    device: 0000:01:00.0\n", ""), 5, "no key `device`"),
        (right_but("    local: {auth: psk, id: gw.example}\n", ""), 19, "no key `local`"),
        (right_but(", file: psk", ""), 24, "no key `file`"),
        ("cores: {data: [0]}\n".to_owned(), 1, "no key `ports`"),
    ] {
        let error = assert_refused(&text, line, found, "must be here");
        assert!(matches!(error, ConfigError::MissingKey(_)), "{error}");
    }
    for nothing in ["", "# only a comment\n", "---\n", "null\n", "{}\n"] {
        let error = parse(nothing).unwrap_err();
        assert!(error.fault().line > 0, "{error}");
        assert!(error.fault().allowed.contains("`ports`") || error.fault().allowed.contains("a mapping"), "{error}");
    }
}

#[test]
fn hostile_42_text_that_is_not_yaml() {
    for (text, line) in [
        ("ports: [\n", 2),
        ("ports:\n  - name: a\n   role: b\n", 3),
        ("a: *nothing\n", 1),
        ("ports: []\n---\nports: []\n", 3),
        ("ports:\n  - name: !secret x\n", 2),
        ("ports:\n  - name: \"\\x\"\n", 2),
    ] {
        let error = parse(text).unwrap_err();
        let fault = error.fault();
        assert!(fault.line.abs_diff(line) <= 1 && fault.line > 0, "{error}");
        assert!(!fault.found.is_empty() && !fault.allowed.is_empty(), "{error}");
    }
}

#[test]
fn hostile_42_a_selector_that_needs_quotes_says_so() {
    let error =
        assert_refused(&right_but("['203.0.113.80/32[tcp/80]']", "[10.1.0.0/16[tcp/80]]"), 22, "flow sequence", "YAML");
    assert!(error.to_string().contains("needs quotes"), "{error}");
    let one_a_line = right_but(" ['203.0.113.80/32[tcp/80]']", "\n          - 10.1.0.0/16[tcp/80]");
    assert_eq!(parse(&one_a_line).unwrap().connections[0].children[0].local_ts[0].to_string(), "10.1.0.0/16[tcp/80]");
}

#[test]
fn hostile_42_a_secret_in_a_wrong_place_is_not_repeated() {
    for text in [
        right_but("file: psk", "file: psk, secret: hunter2"),
        right_but("file: psk", "file: [hunter2]"),
        right_but("ike-office: {id: [client@example], file: psk}", "ike-office: hunter2"),
        right_but("id: [client@example]", "id: {hunter2: x}"),
    ] {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.fault().line, 24, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
