//! What the configuration's tests share: a small configuration that is right, and how to read one that is not.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::panic, reason = "a failed expectation is the point of a test")]

use std::path::Path;

use control::config::{Config, ConfigError, Refusal, SecretBytes};

/// A whole configuration, line by line as the tests count them.
pub const RIGHT: &str = "\
cores: {data: [1, 2], control: 0}
ports:
  - name: net0
    role: network
    device: 0000:01:00.0
    addresses: [192.0.2.10/24]
  - name: in0
    role: inside
    device: net_tap0,iface=in0
    addresses: [10.9.0.1/24]
routes:
  - {to: 0.0.0.0/0, via: 192.0.2.1}
dvipas:
  - {address: 203.0.113.80, port: net0}
connections:
  office:
    local_addrs: [203.0.113.80]
    local: {auth: psk, id: gw.example}
    remote: {auth: psk, id: client@example}
    children:
      web:
        local_ts: ['203.0.113.80/32[tcp/80]']
secrets:
  ike-office: {id: [client@example], file: psk}
";

/// Validates a text; every file that it names holds a usable secret.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "phalanx.yaml", secret)
}

/// A secret that fits where a pre-shared key is expected, a cluster's wrap key, and a key of its own where the file is
/// called `*.key`.
pub fn secret(path: &Path) -> Result<SecretBytes, Refusal> {
    let name = path.display().to_string();
    if name.ends_with("wrap.key") {
        return Ok(SecretBytes::new(format!("0x{}\n", "5a".repeat(32)).into_bytes()));
    }
    if !name.ends_with(".key") {
        return Ok(SecretBytes::new(b"a pre-shared key of some length\n".to_vec()));
    }
    let sum = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Ok(SecretBytes::new(format!("0x{sum:040x}\n").into_bytes()))
}

/// [`RIGHT`] with one piece replaced. It must stand there.
pub fn right_but(piece: &str, with: &str) -> String {
    assert!(RIGHT.contains(piece), "{piece:?} does not stand in the configuration");
    RIGHT.replacen(piece, with, 1)
}

/// Refused at that line, with these pieces in what was found and in what is allowed, all of them in the message.
#[track_caller]
pub fn assert_refused(text: &str, line: u64, found: &str, allowed: &str) -> ConfigError {
    let error = match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error,
    };
    let message = error.to_string();
    let fault = error.fault();
    assert_eq!(fault.line, line, "{message}");
    assert!(fault.found.contains(found), "{message}\n  lacks as found: {found}");
    assert!(fault.allowed.contains(allowed), "{message}\n  lacks as allowed: {allowed}");
    assert!(message.contains(&format!("phalanx.yaml:{line}:{}:", fault.column)), "{message}");
    assert!(message.contains(&fault.found) && message.contains(&fault.allowed), "{message}");
    error
}
