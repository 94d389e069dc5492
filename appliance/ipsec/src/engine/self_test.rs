//! Known answers that every engine must give before it may touch a packet.
//!
//! The vectors are those of the GCM specification (McGrew and Viega, test cases 2, 4, 14 and 16): empty and odd-length
//! inputs, with and without additional data, both key sizes. Engines other than `ring` are then compared with it over
//! the lengths at which vector code changes its path.

use super::{EngineKind, NONCE_LEN, Work};
use crate::cipher::Cipher;
use crate::esp::ICV_LEN;

/// What an engine got wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestFailed {
    /// It refused a key.
    #[error("{0}: refused a key")]
    Key(Cipher),
    /// It encrypted to something else.
    #[error("{cipher}: wrong ciphertext or ICV for {plain_len} bytes")]
    Seal {
        /// With this cipher.
        cipher: Cipher,
        /// For a plaintext of this length.
        plain_len: usize,
    },
    /// It did not give the plaintext back.
    #[error("{cipher}: wrong plaintext for {plain_len} bytes")]
    Open {
        /// With this cipher.
        cipher: Cipher,
        /// For a plaintext of this length.
        plain_len: usize,
    },
    /// It accepted what had been tampered with.
    #[error("{cipher}: accepted {plain_len} bytes that had been changed")]
    Forgery {
        /// With this cipher.
        cipher: Cipher,
        /// For a plaintext of this length.
        plain_len: usize,
    },
}

struct Vector {
    cipher: Cipher,
    key: &'static [u8],
    nonce: [u8; NONCE_LEN],
    aad: &'static [u8],
    plain: &'static [u8],
    sealed: &'static [u8],
}

const KEY: [u8; 32] = *b"\xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08\
                         \xfe\xff\xe9\x92\x86\x65\x73\x1c\x6d\x6a\x8f\x94\x67\x30\x83\x08";
const NONCE: [u8; NONCE_LEN] = *b"\xca\xfe\xba\xbe\xfa\xce\xdb\xad\xde\xca\xf8\x88";
const AAD: &[u8] = b"\xfe\xed\xfa\xce\xde\xad\xbe\xef\xfe\xed\xfa\xce\xde\xad\xbe\xef\xab\xad\xda\xd2";
const PLAIN: &[u8] = b"\xd9\x31\x32\x25\xf8\x84\x06\xe5\xa5\x59\x09\xc5\xaf\xf5\x26\x9a\
                       \x86\xa7\xa9\x53\x15\x34\xf7\xda\x2e\x4c\x30\x3d\x8a\x31\x8a\x72\
                       \x1c\x3c\x0c\x95\x95\x68\x09\x53\x2f\xcf\x0e\x24\x49\xa6\xb5\x25\
                       \xb1\x6a\xed\xf5\xaa\x0d\xe6\x57\xba\x63\x7b\x39";

const VECTORS: [Vector; 4] = [
    Vector {
        cipher: Cipher::AesGcm128,
        key: &[0; 16],
        nonce: [0; NONCE_LEN],
        aad: &[],
        plain: &[0; 16],
        sealed: b"\x03\x88\xda\xce\x60\xb6\xa3\x92\xf3\x28\xc2\xb9\x71\xb2\xfe\x78\
                  \xab\x6e\x47\xd4\x2c\xec\x13\xbd\xf5\x3a\x67\xb2\x12\x57\xbd\xdf",
    },
    Vector {
        cipher: Cipher::AesGcm128,
        key: KEY.split_at(16).0,
        nonce: NONCE,
        aad: AAD,
        plain: PLAIN,
        sealed: b"\x42\x83\x1e\xc2\x21\x77\x74\x24\x4b\x72\x21\xb7\x84\xd0\xd4\x9c\
                  \xe3\xaa\x21\x2f\x2c\x02\xa4\xe0\x35\xc1\x7e\x23\x29\xac\xa1\x2e\
                  \x21\xd5\x14\xb2\x54\x66\x93\x1c\x7d\x8f\x6a\x5a\xac\x84\xaa\x05\
                  \x1b\xa3\x0b\x39\x6a\x0a\xac\x97\x3d\x58\xe0\x91\
                  \x5b\xc9\x4f\xbc\x32\x21\xa5\xdb\x94\xfa\xe9\x5a\xe7\x12\x1a\x47",
    },
    Vector {
        cipher: Cipher::AesGcm256,
        key: &[0; 32],
        nonce: [0; NONCE_LEN],
        aad: &[],
        plain: &[0; 16],
        sealed: b"\xce\xa7\x40\x3d\x4d\x60\x6b\x6e\x07\x4e\xc5\xd3\xba\xf3\x9d\x18\
                  \xd0\xd1\xc8\xa7\x99\x99\x6b\xf0\x26\x5b\x98\xb5\xd4\x8a\xb9\x19",
    },
    Vector {
        cipher: Cipher::AesGcm256,
        key: &KEY,
        nonce: NONCE,
        aad: AAD,
        plain: PLAIN,
        sealed: b"\x52\x2d\xc1\xf0\x99\x56\x7d\x07\xf4\x7f\x37\xa3\x2a\x84\x42\x7d\
                  \x64\x3a\x8c\xdc\xbf\xe5\xc0\xc9\x75\x98\xa2\xbd\x25\x55\xd1\xaa\
                  \x8c\xb0\x8e\x48\x59\x0d\xbb\x3d\xa7\xb0\x8b\x10\x56\x82\x88\x38\
                  \xc5\xf6\x1e\x63\x93\xba\x7a\x0a\xbc\xc9\xf6\x62\
                  \x76\xfc\x6e\xce\x0f\x4e\x17\x68\xcd\xdf\x88\x53\xbb\x2d\x55\x1b",
    },
];

/// Runs every test on one engine.
pub(super) fn run(kind: EngineKind) -> Result<(), SelfTestFailed> {
    for vector in &VECTORS {
        let work = Work::new(kind, vector.cipher, vector.key).map_err(|_| SelfTestFailed::Key(vector.cipher))?;
        vector.try_on(&work)?;
    }
    match kind {
        EngineKind::Ring => Ok(()),
        EngineKind::IpsecMb => Cipher::ALL.into_iter().try_for_each(|cipher| compare_with_ring(kind, cipher)),
    }
}

impl Vector {
    fn try_on(&self, work: &Work) -> Result<(), SelfTestFailed> {
        let (cipher, plain_len) = (self.cipher, self.plain.len());
        let mut buffer = [self.plain, &[0; ICV_LEN]].concat();
        let sealed = work.seal(&self.nonce, self.aad, &mut buffer);
        if sealed.is_err() || buffer != self.sealed {
            return Err(SelfTestFailed::Seal { cipher, plain_len });
        }
        let opened = work.open(&self.nonce, self.aad, &mut buffer);
        if opened.is_err() || buffer[..plain_len] != *self.plain {
            return Err(SelfTestFailed::Open { cipher, plain_len });
        }
        for at in 0..self.sealed.len() {
            let mut forged = self.sealed.to_vec();
            forged[at] ^= 1;
            if work.open(&self.nonce, self.aad, &mut forged).is_ok() {
                return Err(SelfTestFailed::Forgery { cipher, plain_len });
            }
        }
        Ok(())
    }
}

/// Both kinds of additional data that ESP has, and lengths around every power of two that vector code likes.
fn compare_with_ring(kind: EngineKind, cipher: Cipher) -> Result<(), SelfTestFailed> {
    let key = &KEY[..cipher.key_len()];
    let refused = |_| SelfTestFailed::Key(cipher);
    let candidate = Work::new(kind, cipher, key).map_err(refused)?;
    let reference = Work::new(EngineKind::Ring, cipher, key).map_err(refused)?;
    for plain_len in (0..=272).chain([511, 512, 513, 1_023, 1_024, 1_025, 1_420, 8_960, 65_535]) {
        for aad_len in [8, 12] {
            let aad = &AAD[..aad_len];
            let mut ours: Vec<u8> = (0..plain_len + ICV_LEN).map(|at| at as u8).collect();
            let mut theirs = ours.clone();
            let plain = ours[..plain_len].to_vec();
            let sealed = candidate.seal(&NONCE, aad, &mut ours).is_ok();
            if reference.seal(&NONCE, aad, &mut theirs).is_err() || !sealed || ours != theirs {
                return Err(SelfTestFailed::Seal { cipher, plain_len });
            }
            if candidate.open(&NONCE, aad, &mut ours).is_err() || ours[..plain_len] != plain {
                return Err(SelfTestFailed::Open { cipher, plain_len });
            }
            if let Some(last) = theirs.last_mut() {
                *last ^= 0x80;
            }
            if candidate.open(&NONCE, aad, &mut theirs).is_ok() {
                return Err(SelfTestFailed::Forgery { cipher, plain_len });
            }
        }
    }
    Ok(())
}

/// The first vector with one wrong bit, to see that the test can fail.
#[cfg(test)]
pub(super) fn with_broken_vector(kind: EngineKind) -> Result<(), SelfTestFailed> {
    let [good, ..] = VECTORS;
    let broken = Vector { plain: b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..good };
    let work = Work::new(kind, broken.cipher, broken.key).map_err(|_| SelfTestFailed::Key(broken.cipher))?;
    broken.try_on(&work)
}
