//! The AEAD engines: who does the AES-GCM of ESP.
//!
//! **Purpose.** Two engines stand behind one key type: Intel's ipsec-mb, the fastest for small packets on x86-64
//! (feature `ipsec-mb`), and `ring`, which runs everywhere. The set is closed, so a key is an enum and a packet costs
//! one predictable branch.
//!
//! **Promises.** A key can only be made for an [`Engine`], and only [`select`] makes one, after the engine has passed
//! its known-answer self-test in this very process: a library that miscomputes on this machine is never used.
//!
//! **What it never does.** It chooses no IV and judges no sequence number. It copies no key out again.

#[cfg(feature = "ipsec-mb")]
mod ipsec_mb_key;
mod peek;
mod ring_key;
mod self_test;

pub use peek::{PEEK_LEN_MAX, Peeked};
pub use self_test::SelfTestFailed;

pub(crate) use peek::{PeekBlocks, PeekKey};

use core::fmt;
use core::str::FromStr;

use crate::Spi;
use crate::cipher::Cipher;
use crate::esp::ICV_LEN;
use crate::key::SaKey;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// The portable one.
    Ring,
    /// Intel's multi-buffer library, called packet by packet.
    IpsecMb,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ring => "ring",
            Self::IpsecMb => "ipsec-mb",
        })
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The fastest that works here.
    #[default]
    Auto,
    /// This one, if it works here.
    Prefer(EngineKind),
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Prefer(kind) => kind.fmt(f),
        }
    }
}

/// The text names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine {found:?}; allowed are auto, ring and ipsec-mb")]
pub struct UnknownEngine {
    /// What was written.
    pub found: String,
}

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        match text {
            "auto" => Ok(Self::Auto),
            "ring" => Ok(Self::Prefer(EngineKind::Ring)),
            "ipsec-mb" => Ok(Self::Prefer(EngineKind::IpsecMb)),
            other => Err(UnknownEngine { found: other.to_owned() }),
        }
    }
}

/// An engine that has passed its self-test in this process. Only [`select`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    kind: EngineKind,
}

impl Engine {
    /// Which one it is.
    #[must_use]
    pub fn kind(self) -> EngineKind {
        self.kind
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// Why an engine is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// This program was built without it.
    #[error("{0} is not part of this build")]
    NotBuilt(EngineKind),
    /// The library refuses this machine.
    #[error("ipsec-mb cannot be used here: {0}")]
    Library(String),
    /// It computed something wrong.
    #[error("{0} failed its self-test: {1}")]
    SelfTest(EngineKind, SelfTestFailed),
}

/// The engine to use, and why it is not the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Use this.
    pub engine: Engine,
    /// Set if something better, or what was asked for, could not be used. Worth a warning.
    pub fell_back: Option<Unusable>,
}

/// Chooses an engine and tests it: [`EngineChoice::Auto`] tries ipsec-mb first. What does not work is replaced by
/// `ring`, with the reason.
///
/// # Errors
/// [`Unusable`] if `ring` itself fails its test: then nothing may be encrypted on this machine.
pub fn select(choice: EngineChoice) -> Result<Selection, Unusable> {
    let first = match choice {
        EngineChoice::Auto => EngineKind::IpsecMb,
        EngineChoice::Prefer(kind) => kind,
    };
    match usable(first) {
        Ok(engine) => Ok(Selection { engine, fell_back: None }),
        Err(reason) if first == EngineKind::Ring => Err(reason),
        Err(reason) => Ok(Selection { engine: usable(EngineKind::Ring)?, fell_back: Some(reason) }),
    }
}

fn usable(kind: EngineKind) -> Result<Engine, Unusable> {
    #[cfg(not(feature = "ipsec-mb"))]
    if kind == EngineKind::IpsecMb {
        return Err(Unusable::NotBuilt(kind));
    }
    #[cfg(feature = "ipsec-mb")]
    if kind == EngineKind::IpsecMb {
        ipsec_mb_key::probe().map_err(Unusable::Library)?;
    }
    self_test::run(kind).map_err(|failed| Unusable::SelfTest(kind, failed))?;
    Ok(Engine { kind })
}

/// The engine refused a key: impossible for a key of the right length on an engine that was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} refused a key")]
pub struct KeyRefused(pub EngineKind);

/// The integrity check value does not fit; the buffer is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// The engine refused to encrypt: too long, which no packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealFailed;

/// Bytes of a GCM nonce.
const NONCE_LEN: usize = 12;

/// What an engine is asked about one packet, beside the packet itself.
///
/// Engines load both parts as vectors, and such a load waits until what was written has reached the cache: about 15 ns
/// with ipsec-mb, more than half of what decrypting a small packet takes. So this is best made well before it is used,
/// and used where it lies: pass references.
#[derive(Debug)]
pub(crate) struct CipherInput {
    /// Salt, then IV (RFC 4106 §4).
    nonce: [u8; NONCE_LEN],
    /// SPI and sequence number: authenticated, but not encrypted (RFC 4106 §5).
    aad: [u8; 12],
    aad_len: usize,
}

impl CipherInput {
    #[inline]
    fn new(salt: [u8; 4], iv: [u8; 8], spi: Spi, sequence: u64, esn: bool) -> Self {
        let mut input = Self { nonce: [0; NONCE_LEN], aad: [0; 12], aad_len: if esn { 12 } else { 8 } };
        input.nonce[..4].copy_from_slice(&salt);
        input.nonce[4..].copy_from_slice(&iv);
        input.aad[..4].copy_from_slice(&spi.to_be_bytes());
        if esn {
            // The high 32 bits are authenticated although no packet carries them.
            input.aad[4..].copy_from_slice(&sequence.to_be_bytes());
        } else {
            input.aad[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
        }
        input
    }

    #[inline]
    fn aad(&self) -> &[u8] {
        &self.aad[..self.aad_len]
    }
}

/// The cipher of one SA, ready to work. It holds expanded key material and is never copied.
pub struct AeadKey {
    salt: [u8; 4],
    work: Work,
}

/// One variant for each engine, so that the packet path has no indirect call.
#[allow(clippy::large_enum_variant, reason = "a key lies behind its SA's Arc already; a box would cost a cache miss")]
enum Work {
    Ring(ring_key::RingKey),
    #[cfg(feature = "ipsec-mb")]
    IpsecMb(ipsec_mb_key::IpsecMbKey),
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({}, ..)", self.engine_kind())
    }
}

impl AeadKey {
    /// Expands a key for an engine.
    ///
    /// # Errors
    /// [`KeyRefused`], which a selected engine never does.
    pub fn new(engine: Engine, key: &SaKey) -> Result<Self, KeyRefused> {
        Ok(Self { salt: key.salt(), work: Work::new(engine.kind, key.cipher(), key.key_bytes())? })
    }

    /// Who does the work.
    #[must_use]
    pub fn engine_kind(&self) -> EngineKind {
        match self.work {
            Work::Ring(_) => EngineKind::Ring,
            #[cfg(feature = "ipsec-mb")]
            Work::IpsecMb(_) => EngineKind::IpsecMb,
        }
    }

    /// What the engine will be asked about a packet.
    #[inline]
    pub(crate) fn input(&self, iv: [u8; 8], spi: Spi, sequence: u64, esn: bool) -> CipherInput {
        CipherInput::new(self.salt, iv, spi, sequence, esn)
    }

    /// Verifies and decrypts ciphertext and ICV in place; the plaintext is all but the last 16 bytes.
    #[inline]
    pub(crate) fn open(&self, input: &CipherInput, sealed: &mut [u8]) -> Result<(), NotAuthentic> {
        self.work.open(&input.nonce, input.aad(), sealed)
    }

    /// Encrypts all but the last 16 bytes in place and writes the ICV into those.
    #[inline]
    pub(crate) fn seal(&self, input: &CipherInput, plain_and_room: &mut [u8]) -> Result<(), SealFailed> {
        self.work.seal(&input.nonce, input.aad(), plain_and_room)
    }
}

impl Work {
    fn new(kind: EngineKind, cipher: Cipher, key: &[u8]) -> Result<Self, KeyRefused> {
        match kind {
            EngineKind::Ring => Ok(Self::Ring(ring_key::RingKey::new(cipher, key)?)),
            #[cfg(feature = "ipsec-mb")]
            EngineKind::IpsecMb => Ok(Self::IpsecMb(ipsec_mb_key::IpsecMbKey::new(cipher, key)?)),
            #[cfg(not(feature = "ipsec-mb"))]
            EngineKind::IpsecMb => Err(KeyRefused(kind)),
        }
    }

    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8]) -> Result<(), NotAuthentic> {
        match self {
            Self::Ring(key) => key.open(nonce, aad, sealed),
            #[cfg(feature = "ipsec-mb")]
            Self::IpsecMb(key) => key.open(nonce, aad, sealed),
        }
    }

    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], plain_and_room: &mut [u8]) -> Result<(), SealFailed> {
        let (plain, icv) = plain_and_room.split_last_chunk_mut::<ICV_LEN>().ok_or(SealFailed)?;
        match self {
            Self::Ring(key) => key.seal(nonce, aad, plain, icv)?,
            #[cfg(feature = "ipsec-mb")]
            Self::IpsecMb(key) => key.seal(nonce, aad, plain, icv),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
