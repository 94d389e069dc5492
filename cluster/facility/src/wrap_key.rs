//! The cluster's wrap key: from its file, or for one start only.

use std::path::Path;

use cluster::facility::wrap::{WRAP_KEY_LEN, WrapKey};
use ring::rand::SecureRandom as _;
use zeroize::Zeroizing;

use crate::file::{FileError, read_secret};

/// Why there is no wrap key.
#[derive(Debug, thiserror::Error)]
pub enum WrapKeyError {
    /// Its file cannot be used.
    #[error("the cluster's wrap key: {0}; every member needs the same one, made once by `head -c 32 /dev/urandom`")]
    File(#[from] FileError),
    /// No randomness.
    #[error("the system's random source failed; nothing can be wrapped without it")]
    Randomness,
}

/// Reads the wrap key: a file of exactly 32 bytes, or of 64 hexadecimal digits, that only its owner may read.
///
/// # Errors
/// [`WrapKeyError::File`].
pub fn read_wrap_key(path: &Path) -> Result<WrapKey, WrapKeyError> {
    let bytes = read_secret(path, 2 * WRAP_KEY_LEN + 2)?;
    let why =
        format!("found {} bytes, expected {WRAP_KEY_LEN}, or {} hexadecimal digits", bytes.len(), 2 * WRAP_KEY_LEN);
    let refused = || FileError::Content { path: path.to_owned(), why };
    let mut key = Zeroizing::new([0; WRAP_KEY_LEN]);
    if bytes.len() == WRAP_KEY_LEN {
        key.copy_from_slice(&bytes);
    } else {
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if text.len() != 2 * WRAP_KEY_LEN {
            return Err(refused().into());
        }
        for (byte, pair) in key.iter_mut().zip(text.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(refused().into()) };
            *byte = (high * 16 + low) as u8;
        }
    }
    if key.iter().all(|&byte| byte == key[0]) {
        let why = "all its bytes are equal; make one by `head -c 32 /dev/urandom`".to_owned();
        return Err(FileError::Content { path: path.to_owned(), why }.into());
    }
    Ok(WrapKey::new(&key))
}

/// A wrap key that nobody keeps: with the embedded store no SA outlives the process, since nothing opens its record.
///
/// # Errors
/// [`WrapKeyError::Randomness`].
pub fn random_wrap_key() -> Result<WrapKey, WrapKeyError> {
    let mut key = Zeroizing::new([0; WRAP_KEY_LEN]);
    ring::rand::SystemRandom::new().fill(key.as_mut_slice()).map_err(|_| WrapKeyError::Randomness)?;
    Ok(WrapKey::new(&key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn read(name: &str, content: &[u8], mode: u32) -> Result<WrapKey, WrapKeyError> {
        let path = std::env::temp_dir().join(format!("phalanx-wrap-key-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let key = read_wrap_key(&path);
        std::fs::remove_file(path).unwrap();
        key
    }

    #[test]
    fn a_key_is_32_bytes_or_64_digits() {
        let bytes: Vec<u8> = (0..32).collect();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(read("raw", &bytes, 0o600).is_ok());
        assert!(read("digits", digits.as_bytes(), 0o400).is_ok());
        assert!(read("line", format!("{digits}\n").as_bytes(), 0o600).is_ok());
        for (name, content) in [("short", &bytes[..31]), ("none", &[]), ("text", &[b'x'; 64]), ("long", &[1; 100])] {
            assert!(read(name, content, 0o600).is_err(), "{name}");
        }
        assert!(read("zeros", &[0; 32], 0o600).unwrap_err().to_string().contains("equal"));
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_not_there_is_refused() {
        let bytes: Vec<u8> = (0..32).collect();
        for mode in [0o640, 0o604, 0o700] {
            let error = read("mode", &bytes, mode).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
        assert!(read_wrap_key(Path::new("/nowhere/key")).is_err());
        let error = read_wrap_key(Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }
}
