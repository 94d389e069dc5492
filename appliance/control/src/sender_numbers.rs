//! Sender numbers from a durable counter: what makes an IV unlike every other, across restarts too (RFC 6054).
//!
//! Every data core of every start draws a number that nobody drew before. The file is raised, and the raise is on the
//! disk, *before* a number is used: a crash may waste numbers and can never repeat one. The file belongs to one running
//! appliance; a lock on it says so.

use ipsec::iv::SenderNumber;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No counter file is longer; what is has been damaged.
const TEXT_LEN_MAX: u64 = 32;

/// Why no number can be drawn.
#[derive(Debug, thiserror::Error)]
pub enum SenderNumbersError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {step} failed: {error}; the counter of sender ids must be on a disk that this process can write")]
    Io {
        /// The counter file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{path}: locked by another process; two appliances must not share one state directory")]
    Locked {
        /// The counter file.
        path: PathBuf,
    },
    /// The content is no number.
    #[error(
        "{path}: found {found:?} where one decimal number is expected; if the true value is lost, write a number \
         larger than any that this appliance has ever drawn, and if it has never run, remove the file"
    )]
    Damaged {
        /// The counter file.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
}

/// The counter, open and locked for as long as this value lives.
#[derive(Debug)]
pub struct SenderNumbers {
    path: PathBuf,
    file: File,
    next: u64,
}

impl SenderNumbers {
    /// Opens the counter in `directory`, or begins a new one there.
    ///
    /// # Errors
    /// [`SenderNumbersError`]; a damaged file is never taken for a new one.
    pub fn open(directory: &Path) -> Result<SenderNumbers, SenderNumbersError> {
        let path = directory.join("sender-numbers");
        let at = |step: &'static str| {
            let path = path.clone();
            move |error| SenderNumbersError::Io { path, step, error }
        };
        std::fs::create_dir_all(directory).map_err(at("making its directory"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let (mut file, is_new) = match options.clone().create_new(true).open(&path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.open(&path).map_err(at("opening it"))?, false)
            }
            Err(error) => return Err(at("making it")(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(SenderNumbersError::Locked { path }),
            Err(std::fs::TryLockError::Error(error)) => return Err(at("locking it")(error)),
        }
        let mut text = String::new();
        (&mut file).take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(at("reading it"))?;
        // A file that lost its content says nothing of what was drawn; only one that is new may be empty.
        let next = match text.trim_end() {
            "" if is_new => 0,
            number => number.parse().map_err(|_| SenderNumbersError::Damaged { path: path.clone(), found: text })?,
        };
        // The name of a new file must survive a crash as its content does.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(at("syncing its directory"))?;
        let mut numbers = SenderNumbers { path, file, next };
        if is_new {
            numbers.write(next)?;
        }
        Ok(numbers)
    }

    /// Draws a number that was never drawn before.
    ///
    /// # Errors
    /// [`SenderNumbersError::Io`] when the raise did not reach the disk; the number is not used then.
    pub fn draw(&mut self) -> Result<SenderNumber, SenderNumbersError> {
        let number = self.next;
        self.write(number + 1)?;
        self.next = number + 1;
        Ok(SenderNumber(number))
    }

    /// Brings the counter to the disk. The longest number is written at its full width, so that a shorter one never
    /// leaves old digits behind it.
    fn write(&mut self, next: u64) -> Result<(), SenderNumbersError> {
        let text = format!("{next:020}\n");
        let written =
            self.file.rewind().and_then(|()| self.file.write_all(text.as_bytes())).and_then(|()| self.file.sync_data());
        written.map_err(|error| SenderNumbersError::Io { path: self.path.clone(), step: "raising it", error })
    }

    /// The counter as it stands: an SA born now records it.
    pub fn current(&self) -> SenderNumber {
        SenderNumber(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("phalanx-sender-numbers-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_never_repeat() {
        let directory = directory("restart");
        let mut drawn = Vec::new();
        for _ in 0..3 {
            let mut numbers = SenderNumbers::open(&directory).unwrap();
            drawn.extend((0..5).map(|_| numbers.draw().unwrap().0));
        }
        assert_eq!(drawn, (0..15).collect::<Vec<u64>>());
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Between the first start and the first draw the file is whole: a crash there is no damage.
    #[test]
    fn a_new_counter_is_on_the_disk_before_anything_is_drawn() {
        let directory = directory("new");
        drop(SenderNumbers::open(&directory).unwrap());
        assert_eq!(SenderNumbers::open(&directory).unwrap().draw().unwrap(), SenderNumber(0));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn two_processes_cannot_share_one_counter() {
        let directory = directory("lock");
        let _first = SenderNumbers::open(&directory).unwrap();
        assert!(matches!(SenderNumbers::open(&directory), Err(SenderNumbersError::Locked { .. })));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_damaged_counter_is_refused_and_not_begun_anew() {
        let directory = directory("damaged");
        std::fs::create_dir_all(&directory).unwrap();
        for content in ["12x", "", "\n", "-1", "99999999999999999999"] {
            std::fs::write(directory.join("sender-numbers"), content).unwrap();
            let error = SenderNumbers::open(&directory).unwrap_err();
            assert!(error.to_string().contains(&format!("{content:?}")), "{error}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
