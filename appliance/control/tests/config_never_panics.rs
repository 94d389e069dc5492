//! No text makes the configuration panic, and none is refused without a reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

mod config_support;

use config_support::{RIGHT, parse};
use proptest::prelude::*;

/// Words that configurations are made of, and what breaks them.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "ports",
        "name",
        "net0",
        "role",
        "network",
        "device",
        "addresses",
        "192.0.2.10/24",
        "mtu",
        "1500",
        "dvipas",
        "connections",
        "children",
        "local_ts",
        "dynamic",
        "[tcp/80]",
        "secrets",
        "ike-x",
        "id",
        "file",
        "psk",
        "static_sas",
        "spi",
        "0x100",
        "null",
        "~",
        "&a",
        "*a",
        "<<",
        "!!binary",
        "0",
        "-1",
        "99999999999999999999",
        "4h",
        "500MB",
        "%any",
    ]);
    let marks = prop::sample::select(vec![
        ": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "'", "\"", "#", "|\n", "\t",
    ]);
    prop::collection::vec(prop_oneof![words, marks], 0..60).prop_map(|pieces| pieces.concat())
}

fn accepted_or_explained(text: &str) {
    if let Err(error) = parse(text) {
        assert!(!error.fault().found.is_empty() && !error.fault().allowed.is_empty(), "{error}\n{text}");
        assert!(error.to_string().len() < 4_000, "{error}");
        assert!(!error.to_string().contains(['\n', '\u{1b}']), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_42_any_text(text in ".{0,200}") {
        accepted_or_explained(&text);
    }

    #[test]
    fn hostile_42_texts_that_look_like_configurations(text in pieces()) {
        accepted_or_explained(&text);
    }

    #[test]
    fn hostile_42_a_right_configuration_with_bytes_replaced(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
    ) {
        let mut text: Vec<char> = RIGHT.chars().collect();
        for (at, by) in changes {
            let at = at.index(text.len());
            text[at] = by;
        }
        accepted_or_explained(&text.into_iter().collect::<String>());
    }

    #[test]
    fn hostile_42_a_right_configuration_cut_short(len in 0..RIGHT.len()) {
        accepted_or_explained(&RIGHT[..len]);
    }
}
