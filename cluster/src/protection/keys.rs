//! From what an XCF session exports to the keys of one lane (RFC 5869).

use core::fmt;
use core::net::IpAddr;

use ipsec::cipher::Cipher;
use ipsec::key::SaKey;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::id::{Incarnation, MemberId};

/// What the secret is exported under.
pub const LABEL: &[u8] = b"EXPORTER-phalanx-frames";
/// Bytes of the exported secret.
pub const SECRET_LEN: usize = 32;

/// Set in the number of every session, so that no SPI is a reserved one.
pub(super) const SESSION_BIT: u16 = 1 << 15;

pub(super) const CIPHER: Cipher = Cipher::AesGcm256;

/// One of the two members of a session: which, in which start, and where on the trusted wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its number.
    pub member: MemberId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Its address on the trusted port.
    pub address: IpAddr,
}

/// What two members have in common by one XCF session. Wiped when dropped, never printed.
pub struct SessionKeys {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    pub(super) ours: End,
    pub(super) theirs: End,
}

impl SessionKeys {
    /// Keys from a secret that both ends, and nobody else, have exported under [`LABEL`].
    #[must_use]
    pub fn new(secret: Zeroizing<[u8; SECRET_LEN]>, ours: End, theirs: End) -> SessionKeys {
        SessionKeys { secret, ours, theirs }
    }

    /// The same for another core.
    #[must_use]
    pub fn for_another_core(&self) -> SessionKeys {
        SessionKeys { secret: self.secret.clone(), ours: self.ours, theirs: self.theirs }
    }

    pub(super) fn are(&self, other: &SessionKeys) -> bool {
        (self.ours, self.theirs) == (other.ours, other.theirs)
            && bool::from(self.secret.as_slice().ct_eq(other.secret.as_slice()))
    }

    /// The number by which both ends name the session. It says nothing about the keys.
    pub(super) fn number(&self) -> u16 {
        let mut number = [0; 2];
        let expanded = self.expand(&[b"phalanx frames: session"], &mut number);
        expanded.map_or(0, |()| u16::from_be_bytes(number)) | SESSION_BIT
    }

    /// The key of one generation of the lane of one core of `sender`.
    pub(super) fn of_lane(&self, sender: End, core: u8, lane: u8, generation: u64) -> Option<SaKey> {
        let receiver = if sender == self.ours { self.theirs } else { self.ours };
        let mut info = [0; 31];
        info[..2].copy_from_slice(&sender.member.0.to_be_bytes());
        info[2..10].copy_from_slice(&sender.incarnation.0.to_be_bytes());
        info[10..12].copy_from_slice(&receiver.member.0.to_be_bytes());
        info[12..20].copy_from_slice(&receiver.incarnation.0.to_be_bytes());
        info[20..28].copy_from_slice(&generation.to_be_bytes());
        info[28..30].copy_from_slice(&[core, lane]);
        let mut keymat = Zeroizing::new([0; 36]);
        self.expand(&[b"phalanx frames: lane", &info], keymat.as_mut())?;
        SaKey::from_keymat(CIPHER, keymat.as_ref()).ok()
    }

    /// The secret is uniform already: TLS has extracted it. `None` only for lengths that HKDF cannot give.
    fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Option<()> {
        struct Length(usize);
        impl KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let prk = Prk::new_less_safe(HKDF_SHA256, self.secret.as_ref());
        prk.expand(info, Length(out.len())).and_then(|okm| okm.fill(out)).ok()
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys").field("ours", &self.ours).field("theirs", &self.theirs).finish_non_exhaustive()
    }
}
