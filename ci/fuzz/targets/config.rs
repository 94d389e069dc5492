//! Configuration files: accepted and the same each time, or refused with a place and a reason that fit one log line.

#![no_main]

use std::path::Path;

use control::config::{Config, Refusal, SecretBytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, "fuzz.yaml", secret) {
        Ok(config) => {
            let again = Config::parse(text, "fuzz.yaml", secret).expect("it was accepted before");
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            assert!(!config.ports.is_empty());
        }
        Err(error) => {
            let (fault, message) = (error.fault(), error.to_string());
            assert!(!fault.found.is_empty() && !fault.allowed.is_empty(), "{message}");
            // YAML breaks lines at more characters than Rust's `lines` does.
            let breaks = text.chars().filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')).count();
            assert!(fault.line <= breaks as u64 + 1, "{message}");
            assert!(message.len() < 4_000 && !message.chars().any(char::is_control), "{message:?}");
            assert!(!message.contains("hush"), "a secret stands in the message: {message}");
        }
    }
});

/// Every file that a configuration names holds something usable, unless its name says otherwise.
fn secret(path: &Path) -> Result<SecretBytes, Refusal> {
    let name = path.display().to_string();
    if name.ends_with("none") {
        return Err(Refusal { found: "no such file".into(), allowed: "a file", remedy: "make one".into() });
    }
    let sum = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let bytes =
        if name.ends_with(".key") { format!("0x{sum:040x}\n") } else { format!("hush, this is secret {sum}\n") };
    Ok(SecretBytes::new(bytes.into_bytes()))
}
