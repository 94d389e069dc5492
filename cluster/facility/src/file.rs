//! Small files that must survive a crash, and files that only their owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{}: {step} failed: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Its content is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what helps.
        why: String,
    },
    /// Others than its owner can touch it.
    #[error("{}: found mode {mode:04o}, expected 0600 or narrower: chmod 0600 {}", path.display(), path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("{}: it belongs to user {owner}, expected root or user {ours}: chown {ours} {}", path.display(), path.display())]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        ours: u32,
    },
}

/// What the system said of one step with one file.
pub fn at(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError::Io { path: path.to_owned(), step, error }
}

/// Makes a directory if it is not there.
pub fn make_directory(path: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(path).map_err(at(path, "making the directory"))
}

/// The names in a directory must survive a crash as the files' contents do.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(at(path, "syncing the directory"))
}

/// Puts a file in the place of the one before it: whole, durable, or not at all.
pub fn replace(directory: &Path, name: &str, content: &[u8]) -> Result<(), FileError> {
    let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new).map_err(at(&new, "making it"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(&new, "writing it"))?;
    std::fs::rename(&new, &path).map_err(at(&path, "putting it in place"))?;
    sync_directory(directory)
}

/// Reads a file with a secret: a regular file, ours or root's, that nobody else can touch, of at most `len_max` bytes.
pub fn read_secret(path: &Path, len_max: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Without O_NONBLOCK a FIFO in its place would hold us here.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    let file = options.open(path).map_err(at(path, "opening it"))?;
    let metadata = file.metadata().map_err(at(path, "looking at it"))?;
    let content = |why: &str| FileError::Content { path: path.to_owned(), why: why.to_owned() };
    if !metadata.is_file() {
        return Err(content("it is no regular file"));
    }
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != 0 && owner != ours {
        return Err(FileError::Owner { path: path.to_owned(), owner, ours });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o7177 != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode });
    }
    // One allocation, so that no copy stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len_max + 1));
    file.take(len_max as u64 + 1).read_to_end(&mut bytes).map_err(at(path, "reading it"))?;
    if bytes.len() > len_max { Err(content("it is too long")) } else { Ok(bytes) }
}
