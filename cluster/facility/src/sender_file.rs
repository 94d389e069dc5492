//! The counter of sender numbers as appliances kept it before they had a facility: its value is never fallen below.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::file::{FileError, at};

const FILE: &str = "sender-numbers";

/// What stands in it once the facility has taken over. An older program refuses it, rather than draw its numbers again.
const RETIRED: &str = "kept in facility-seen now\n";

/// No counter file is longer; what is has been damaged.
const TEXT_LEN_MAX: u64 = 32;

/// The old counter, open and locked.
#[derive(Debug)]
pub struct OldCounter {
    path: PathBuf,
    file: File,
    /// The first number that was not drawn.
    pub next: u64,
}

/// The old counter, if there is one that nobody has taken over yet.
pub fn take_over(directory: &Path) -> Result<Option<OldCounter>, FileError> {
    let path = directory.join(FILE);
    let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path, "opening it")(error)),
    };
    let content = |why: String| FileError::Content { path: path.clone(), why };
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(content("locked by another process; two appliances must not share one state directory".into()));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(at(&path, "locking it")(error)),
    }
    let mut text = String::new();
    (&mut file).take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(at(&path, "reading it"))?;
    if text == RETIRED {
        return Ok(None);
    }
    let next = text.trim_end().parse().map_err(|_| {
        content(format!(
            "found {text:?} where one decimal number is expected; if the true value is lost, write a number larger than \
             any that this appliance has ever drawn, and if it has never run, remove the file"
        ))
    })?;
    Ok(Some(OldCounter { path, file, next }))
}

impl OldCounter {
    /// Says in it that its value is remembered elsewhere. To be done when it is.
    pub fn retire(mut self) -> Result<(), FileError> {
        let written = self.file.rewind().and_then(|()| self.file.write_all(RETIRED.as_bytes()));
        let written = written.and_then(|()| self.file.set_len(RETIRED.len() as u64));
        written.and_then(|()| self.file.sync_all()).map_err(at(&self.path, "retiring it"))
    }
}
