//! Where a store is, for as long as a test runs.

#[cfg(feature = "etcd")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use facility::Facility;

/// A store that clients come to, that crashes, and that is restored from a backup.
pub trait Place {
    /// A new, empty store.
    fn new(test: &str) -> Self;
    /// An appliance that uses it. `number` tells appliances apart; each has a state directory of its own that stays.
    fn client(&self, number: u32) -> Facility;
    /// Whether several appliances can use it at once.
    const IS_SHARED: bool;
    /// Ends it without warning and starts it again. No client is open.
    fn crash(&mut self);
    /// Keeps a copy of the store, not of what appliances remember. No client is open.
    fn back_up(&mut self);
    /// Puts the copy in the place of the store. No client is open.
    fn restore(&mut self);
}

/// A directory that goes with the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(test: &str) -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("phalanx-facility-{test}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(feature = "etcd")]
/// Copies a directory with all that is in it, in the place of another.
pub fn copy_all(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
