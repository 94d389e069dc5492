//! HOSTILE 42, secrets: a file that others could have read or written is not used, whatever it holds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the point of a test")]

mod config_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use config_support::RIGHT;
use control::config::{Config, ConfigError, read_secret_file};

/// A directory of its own for each test, with a right configuration and its secret in it.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    write(&directory.join("phalanx.yaml"), RIGHT.as_bytes(), 0o644);
    write(&directory.join("psk"), b"a pre-shared key of some length\n", 0o600);
    directory
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn load(directory: &Path) -> Result<Config, ConfigError> {
    Config::load(&directory.join("phalanx.yaml"))
}

/// Refused for its secret: the message names the configuration's line, the file, what was found and what is allowed.
#[track_caller]
fn assert_secret_refused(directory: &Path, found: &str, allowed: &str) {
    let error = load(directory).unwrap_err();
    assert!(matches!(error, ConfigError::Secret(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("{}:24:", directory.join("phalanx.yaml").display())), "{message}");
    assert!(message.contains("secrets.ike-office.file"), "{message}");
    assert!(error.fault().found.contains(found), "{message}");
    assert!(error.fault().allowed.contains(allowed), "{message}");
    assert!(!message.contains("pre-shared key of some length"), "{message}");
}

#[test]
fn a_file_that_only_its_owner_can_read_is_used() {
    let directory = directory("used");
    for mode in [0o600, 0o400] {
        fs::set_permissions(directory.join("psk"), Permissions::from_mode(mode)).unwrap();
        let config = load(&directory).unwrap();
        let secret = read_secret_file(&directory.join("psk")).unwrap();
        assert_eq!(secret.expose(), b"a pre-shared key of some length\n");
        assert_eq!(config.warnings, []);
    }
}

#[test]
fn hostile_42_a_missing_secret() {
    let directory = directory("missing");
    fs::remove_file(directory.join("psk")).unwrap();
    assert_secret_refused(&directory, "no file", "a file with the secret");
}

#[test]
fn hostile_42_a_file_name_that_no_message_should_repeat() {
    for name in ["\"a\\nb\"", "\"\\e[2J\"", "''", &"x".repeat(1_025)] {
        let directory = directory("name");
        let text = RIGHT.replace("file: psk", &format!("file: {name}"));
        write(&directory.join("phalanx.yaml"), text.as_bytes(), 0o644);
        let error = load(&directory).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid(_)), "{error}");
        assert!(!error.to_string().contains(char::is_control) && error.to_string().len() < 1_000, "{error}");
        assert!(error.to_string().contains("the name of a file"), "{error}");
    }
}

#[test]
fn hostile_42_a_secret_that_others_can_touch() {
    let directory = directory("mode");
    for mode in [0o640, 0o604, 0o660, 0o644, 0o700, 0o601, 0o4600, 0o1600] {
        fs::set_permissions(directory.join("psk"), Permissions::from_mode(mode)).unwrap();
        assert_secret_refused(&directory, &format!("mode {mode:04o}"), "0600");
    }
}

#[test]
#[ignore = "needs root: only root can give a file away"]
fn hostile_42_a_secret_that_belongs_to_somebody_else() {
    let directory = directory("owner");
    chown(directory.join("psk"), Some(65_534), None).unwrap();
    assert_secret_refused(&directory, "user 65534", "root or of the running user");
}

#[test]
fn hostile_42_a_secret_that_is_no_regular_file() {
    let directory = directory("kind");
    let psk = directory.join("psk");
    fs::rename(&psk, directory.join("elsewhere")).unwrap();
    symlink(directory.join("elsewhere"), &psk).unwrap();
    assert_secret_refused(&directory, "a symbolic link", "a regular file");

    fs::remove_file(&psk).unwrap();
    fs::create_dir(&psk).unwrap();
    assert_secret_refused(&directory, "no regular file", "a regular file");

    // A FIFO without a writer would hold an ordinary open() for ever.
    fs::remove_dir(&psk).unwrap();
    let owner_only = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &psk, rustix::fs::FileType::Fifo, owner_only, 0).unwrap();
    assert_secret_refused(&directory, "no regular file", "a regular file");
}

#[test]
fn hostile_42_a_secret_without_bounds_or_content() {
    let directory = directory("content");
    let psk = directory.join("psk");
    write(&psk, &[b'x'; 4097], 0o600);
    assert_secret_refused(&directory, "longer than 4096 bytes", "4096");
    write(&psk, &[b'x'; 4096], 0o600);
    assert!(load(&directory).is_ok());
    write(&psk, b"\n", 0o600);
    assert_secret_refused(&directory, "empty", "at least one byte");
    write(&psk, b"0xabc\n", 0o600);
    assert_secret_refused(&directory, "broken hexadecimal", "pairs");
    assert!(read_secret_file(Path::new("/dev/zero")).is_err());
}

#[test]
fn a_secret_that_can_be_guessed_is_warned_of() {
    let directory = directory("short");
    write(&directory.join("psk"), b"hunter2\n", 0o600);
    let warnings = load(&directory).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].line, 24);
    assert!(!warnings[0].to_string().contains("hunter2"));
}

#[test]
fn hostile_42_a_missing_configuration() {
    let directory = directory("no-config");
    for path in [directory.join("nothing.yaml"), directory.clone()] {
        let error = Config::load(&path).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable(_)), "{error}");
        let message = error.to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains("found ") && message.contains("allowed: a file that we can read"), "{message}");
    }
    write(&directory.join("latin.yaml"), b"eal: \xe9\n", 0o644);
    let error = Config::load(&directory.join("latin.yaml")).unwrap_err();
    assert!(error.to_string().contains("broken UTF-8"), "{error}");
    write(&directory.join("long.yaml"), &vec![b'#'; (1 << 20) + 1], 0o644);
    let error = Config::load(&directory.join("long.yaml")).unwrap_err();
    assert!(error.to_string().contains("at most 1048576 bytes"), "{error}");
}

#[test]
fn a_configuration_that_others_can_change_is_warned_of() {
    let directory = directory("open");
    fs::set_permissions(directory.join("phalanx.yaml"), Permissions::from_mode(0o666)).unwrap();
    let warnings = load(&directory).unwrap().warnings;
    assert!(warnings[0].text.contains("others than its owner can change"), "{}", warnings[0]);
}
