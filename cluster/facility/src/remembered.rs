//! The file in which an appliance keeps what it has seen of its facility.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cluster::facility::watch::Remembered;

use crate::file::{FileError, at, make_directory, replace};
use crate::sender_file;

/// Its name in the state directory.
pub const FILE: &str = "facility-seen";

/// No such file is longer.
const LEN_MAX: u64 = 4 << 20;

/// The file, in its directory.
#[derive(Debug)]
pub struct RememberedFile {
    directory: PathBuf,
}

impl RememberedFile {
    /// Reads the file; an appliance that never had one begins with what its old counter of sender numbers says.
    pub fn open(directory: &Path) -> Result<(RememberedFile, Remembered), FileError> {
        make_directory(directory)?;
        let path = directory.join(FILE);
        let mut remembered = match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > LEN_MAX => return Err(damaged(&path, "it is too long")),
            Ok(_) => {
                let text = std::fs::read_to_string(&path).map_err(at(&path, "reading it"))?;
                Remembered::from_text(&text).map_err(|error| damaged(&path, &error.to_string()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Remembered::default(),
            Err(error) => return Err(at(&path, "looking for it")(error)),
        };
        let file = RememberedFile { directory: directory.to_owned() };
        if let Some(old) = sender_file::take_over(directory)? {
            remembered.senders = remembered.senders.max(old.next);
            file.write(&remembered)?;
            old.retire()?;
        }
        Ok((file, remembered))
    }

    /// Brings it to the disk.
    pub fn write(&self, remembered: &Remembered) -> Result<(), FileError> {
        replace(&self.directory, FILE, remembered.to_text().as_bytes())
    }
}

fn damaged(path: &Path, what: &str) -> FileError {
    let why = format!(
        "{what}; it keeps an old backup of the coupling facility from being taken for the newest: restore it, or remove \
         it if the facility is surely not older than this appliance knows it"
    );
    FileError::Content { path: path.to_owned(), why }
}
