//! The ciphers that an SA may use.

use core::fmt;
use core::str::FromStr;

/// An authenticated cipher for ESP with a 16-byte ICV (RFC 4106).
///
/// A closed set: whoever matches on it is told by the compiler when one is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-GCM with a 128-bit key.
    AesGcm128,
    /// AES-GCM with a 256-bit key.
    AesGcm256,
}

impl Cipher {
    /// Every cipher, strongest first.
    pub const ALL: [Self; 2] = [Self::AesGcm256, Self::AesGcm128];

    /// Bytes of the cipher key, without the salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesGcm128 => 16,
            Self::AesGcm256 => 32,
        }
    }

    /// Bytes of the salt that starts every nonce (RFC 4106 §4).
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 => 4,
        }
    }

    /// Bytes of keying material that one direction takes: key, then salt (RFC 4106 §8.1).
    #[must_use]
    pub const fn keymat_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    /// Bytes of the IV that every packet carries (RFC 4106 §3.1).
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 => 8,
        }
    }

    /// Bytes of the integrity check value that ends every packet.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 => 16,
        }
    }

    /// The name that strongSwan users write in a proposal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm128 => "aes128gcm16",
            Self::AesGcm256 => "aes256gcm16",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no cipher we have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ESP cipher {found:?}; allowed are aes128gcm16 and aes256gcm16")]
pub struct UnknownCipher {
    /// What was written.
    pub found: String,
}

impl FromStr for Cipher {
    type Err = UnknownCipher;

    fn from_str(text: &str) -> Result<Self, UnknownCipher> {
        Self::ALL
            .into_iter()
            .find(|cipher| cipher.name() == text)
            .ok_or_else(|| UnknownCipher { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for cipher in Cipher::ALL {
            assert_eq!(cipher.to_string().parse(), Ok(cipher));
        }
        assert_eq!("aes128gcm8".parse::<Cipher>(), Err(UnknownCipher { found: "aes128gcm8".into() }));
    }

    #[test]
    fn lengths_are_those_of_rfc_4106() {
        assert_eq!([Cipher::AesGcm128.keymat_len(), Cipher::AesGcm256.keymat_len()], [20, 36]);
        for cipher in Cipher::ALL {
            assert_eq!([cipher.salt_len(), cipher.iv_len(), cipher.icv_len()], [4, 8, 16]);
        }
    }
}
