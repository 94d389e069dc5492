//! A panic ends the process, and says so first.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

use std::process::Command;
use std::time::Duration;

const SELF: &str = "PHALANX_TEST_PANICS";

/// In a process of its own, which is this test again.
#[test]
fn a_panic_of_any_thread_is_told_and_ends_the_process_with_the_exit_code_of_a_failure() {
    if std::env::var_os(SELF).is_some() {
        phalanx::panics::end_process_with(1);
        let threads = ["data-0", "data-1"].map(|name| {
            std::thread::Builder::new().name(name.to_owned()).spawn(|| panic!("as the test wants")).unwrap()
        });
        drop(threads);
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--nocapture"]).env(SELF, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("thread data-") && said.contains("as the test wants"), "{said}");
    assert_eq!(said.matches("as the test wants").count(), 1, "the first panic is the one that counts: {said}");
}
