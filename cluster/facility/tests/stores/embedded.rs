//! The embedded store, and what only it has.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cluster::facility::{Change, Read, Request};
use cluster::id::MemberId;
use facility::{Facility, Registration, Settings, StartError};

use crate::place::{Directory, Place};
use crate::suite::PATIENCE;

pub struct File {
    directory: Directory,
}

impl File {
    fn store(&self) -> PathBuf {
        self.directory.join("facility.redb")
    }

    fn copy(&self) -> PathBuf {
        self.directory.join("backup")
    }
}

impl Place for File {
    fn new(test: &str) -> File {
        File { directory: Directory::new(test) }
    }

    fn client(&self, _: u32) -> Facility {
        Facility::start(Settings::embedded(self.directory.0.clone())).unwrap()
    }

    const IS_SHARED: bool = false;

    fn crash(&mut self) {}

    fn back_up(&mut self) {
        std::fs::copy(self.store(), self.copy()).unwrap();
    }

    fn restore(&mut self) {
        std::fs::copy(self.copy(), self.store()).unwrap();
    }
}

fn put(id: u64, key: &str) -> Request {
    Request { id, compare: vec![], change: vec![Change::Put(key.into(), vec![7])], read: vec![] }
}

#[test]
fn it_is_for_one_process_and_its_owner_only() {
    let file = File::new("alone");
    let mut first = file.client(1);
    first.ask(put(1, "a")).unwrap();
    assert_eq!(std::fs::metadata(file.store()).unwrap().permissions().mode() & 0o777, 0o600);
    let error = Facility::start(Settings::embedded(file.directory.0.clone())).unwrap_err();
    assert!(matches!(error, StartError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("two appliances must not share one state directory"), "{error}");
    drop(first);
    assert!(file.client(1).ask(put(2, "b")).is_ok());
}

/// A copy that is made while the store is open is what a crash of the machine leaves.
#[test]
fn what_was_answered_is_on_the_disk_before_the_store_is_closed() {
    let (file, after) = (File::new("crash"), File::new("after-crash"));
    let mut client = file.client(1);
    for number in 0..20 {
        client.ask(put(number, &format!("record/{number:02}"))).unwrap();
        std::fs::copy(file.store(), after.store()).unwrap();
        let read = vec![Read::Prefix("record/".into())];
        let outcome = after.client(1).ask(Request { id: 1, compare: vec![], change: vec![], read }).unwrap();
        assert_eq!(outcome.records.len() as u64, number + 1);
    }
}

#[test]
fn a_store_that_is_none_is_refused_and_says_what_helps() {
    let file = File::new("damaged");
    std::fs::write(file.store(), vec![b'x'; 10_000]).unwrap();
    let error = Facility::start(Settings::embedded(file.directory.0.clone())).unwrap_err().to_string();
    assert!(error.contains("facility.redb") && error.contains("facility-seen"), "{error}");
}

#[test]
fn what_was_remembered_and_is_damaged_is_not_begun_anew() {
    let file = File::new("seen");
    drop(file.client(1));
    let seen = file.directory.join("facility-seen");
    let whole = std::fs::read_to_string(&seen).unwrap();
    for text in ["", "12", &whole[..whole.len() - 2]] {
        std::fs::write(&seen, text).unwrap();
        let error = Facility::start(Settings::embedded(file.directory.0.clone())).unwrap_err().to_string();
        assert!(error.contains("facility-seen") && error.contains("old backup"), "{error}");
    }
}

fn register(file: &File, senders: u32) -> std::ops::Range<u64> {
    let registration = Registration { me: MemberId(0), senders, patience: PATIENCE };
    file.client(1).register(registration).unwrap().senders
}

/// An appliance that drew its numbers from a file of its own before there was a facility.
#[test]
fn the_counter_of_an_older_program_is_never_fallen_below() {
    let file = File::new("older");
    let old = file.directory.join("sender-numbers");
    std::fs::write(&old, format!("{:020}\n", 4_711)).unwrap();
    let first = register(&file, 3);
    assert!(first.start >= 4_711, "{first:?}");
    assert_eq!(register(&file, 1).start, first.end, "it is taken over once");
    // The older program refuses to draw the same numbers again: this is no number to it.
    assert!(std::fs::read_to_string(&old).unwrap().trim_end().parse::<u64>().is_err());
}

#[test]
fn the_counter_of_an_older_program_that_still_runs_or_is_damaged_is_refused() {
    let file = File::new("older-runs");
    let old = file.directory.join("sender-numbers");
    std::fs::write(&old, "12x").unwrap();
    let error = Facility::start(Settings::embedded(file.directory.0.clone())).unwrap_err().to_string();
    assert!(error.contains("\"12x\""), "{error}");
    std::fs::write(&old, "12\n").unwrap();
    let running = std::fs::File::open(&old).unwrap();
    running.lock().unwrap();
    let error = Facility::start(Settings::embedded(file.directory.0.clone())).unwrap_err().to_string();
    assert!(error.contains("locked by another process"), "{error}");
}
