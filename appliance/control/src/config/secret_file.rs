//! Files with secrets: who may read them is checked on the opened file, and what was read is wiped after use.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// The longest secret file that is read, in bytes.
pub const SECRET_FILE_LEN_MAX: usize = 4096;

/// Permission bits that a secret file must not have: everything but reading and writing by its owner.
const MODE_FORBIDDEN: u32 = 0o7177;

/// Bytes that are wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes bytes that nobody else keeps.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the key derivation that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Why a secret file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is there.
    pub found: String,
    /// What may be there.
    pub allowed: &'static str,
    /// What the operator can do about it.
    pub remedy: String,
}

impl Refusal {
    fn new(found: impl Into<String>, allowed: &'static str, remedy: impl Into<String>) -> Self {
        Self { found: found.into(), allowed, remedy: remedy.into() }
    }
}

/// Reads a secret file as it is, after checking on the opened file that only its owner, who is root or ourselves, can.
///
/// # Errors
/// [`Refusal`] if it cannot be opened, is a symbolic link or no regular file, belongs to someone else, can be touched
/// by others, or is longer than [`SECRET_FILE_LEN_MAX`].
pub fn read(path: &Path) -> Result<SecretBytes, Refusal> {
    let shown = path.display();
    // Without O_NONBLOCK a FIFO in the file's place would hold us here.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Refusal::new(format!("no file {shown}"), "a file with the secret", "create it with mode 0600"),
        Errno::LOOP => {
            let remedy = "name the file that it points to";
            Refusal::new(format!("{shown}, a symbolic link"), "a regular file", remedy)
        }
        other => Refusal::new(format!("{shown}: {other}"), "a file that we can read", "check its owner and directory"),
    })?;
    let mut file = File::from(opened);
    let metadata = file.metadata().map_err(|error| {
        Refusal::new(format!("{shown}: {error}"), "a file that we can read", "check the file system")
    })?;
    if !metadata.is_file() {
        return Err(Refusal::new(
            format!("{shown}, which is no regular file"),
            "a regular file",
            "name a regular file",
        ));
    }
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != 0 && owner != ours {
        let found = format!("{shown}, which belongs to user {owner}");
        return Err(Refusal::new(found, "a file of root or of the running user", format!("chown {ours} {shown}")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_FORBIDDEN != 0 {
        let found = format!("{shown} with mode {mode:04o}");
        return Err(Refusal::new(found, "mode 0600 or narrower", format!("chmod 0600 {shown}")));
    }
    read_bounded(&mut file, &shown.to_string())
}

fn read_bounded(file: &mut File, shown: &str) -> Result<SecretBytes, Refusal> {
    // One allocation, so that no copy stays behind unwiped.
    let mut bytes = Zeroizing::new(vec![0; SECRET_FILE_LEN_MAX + 1]);
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Refusal::new(format!("{shown}: {error}"), "a file that we can read", "check the file"));
            }
        }
    }
    if len > SECRET_FILE_LEN_MAX {
        let found = format!("{shown}, longer than {SECRET_FILE_LEN_MAX} bytes");
        return Err(Refusal::new(found, "at most 4096 bytes", "name the right file"));
    }
    bytes.truncate(len);
    Ok(SecretBytes(bytes))
}

/// The secret that a file's text stands for, as swanctl reads it: `0x` starts hexadecimal, `0s` starts base64, anything
/// else is the secret itself. One line end at the end does not belong to it. Whoever takes the bytes wipes them.
///
/// # Errors
/// [`Refusal`] if nothing is left or the encoding is broken. It repeats nothing of the text.
pub(super) fn decode(text: &SecretBytes) -> Result<Vec<u8>, Refusal> {
    let text = trim_line_end(text.expose());
    let broken = |encoding: &str, allowed| Refusal::new(format!("broken {encoding}"), allowed, "write the file anew");
    let bytes = if let Some(hexadecimal) = text.strip_prefix(b"0x") {
        base16ct::mixed::decode_vec(hexadecimal)
            .map_err(|_| broken("hexadecimal after `0x`", "pairs of 0-9 and a-f"))?
    } else if let Some(base64) = text.strip_prefix(b"0s") {
        let base64 = std::str::from_utf8(base64).unwrap_or("?");
        let decode = <base64ct::Base64 as base64ct::Encoding>::decode_vec;
        decode(base64).map_err(|_| broken("base64 after `0s`", "base64 with its padding"))?
    } else {
        text.to_vec()
    };
    if bytes.is_empty() { Err(empty()) } else { Ok(bytes) }
}

/// A file without a secret in it.
pub(super) fn empty() -> Refusal {
    Refusal::new("an empty secret", "at least one byte", "write the secret into the file")
}

fn trim_line_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Refusal> {
        decode(&SecretBytes::new(text.to_vec()))
    }

    #[test]
    fn reads_text_hexadecimal_and_base64_as_swanctl_does() {
        assert_eq!(decoded(b"correct horse\n"), Ok(b"correct horse".to_vec()));
        assert_eq!(decoded(b"two lines\n\n"), Ok(b"two lines\n".to_vec()));
        assert_eq!(decoded(b"dos\r\n"), Ok(b"dos".to_vec()));
        assert_eq!(decoded(b"0x00fFa1\n"), Ok(vec![0, 0xff, 0xa1]));
        assert_eq!(decoded(b"0sAAECAw==\n"), Ok(vec![0, 1, 2, 3]));
    }

    #[test]
    fn what_is_broken_is_refused_without_repeating_it() {
        for text in [&b""[..], b"\n", b"0x", b"0x123\n", b"0xgg", b"0s", b"0sA", b"0s!!!!"] {
            let refusal = decoded(text).unwrap_err();
            assert!(!refusal.found.contains("gg") && !refusal.found.contains('!'), "{}", refusal.found);
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"hunter2".to_vec())), "SecretBytes(..)");
    }
}
