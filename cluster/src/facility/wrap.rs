//! `sa/…`: an SA's record, whose keys only members of the cluster can read.
//!
//! **How.** The cluster's wrap key never encrypts anything itself. Each start of each member derives a key of its own
//! from it (HKDF-SHA256), and encrypts with AES-256-GCM under a nonce that counts. An incarnation never comes again, a
//! [`Sealer`] is made once of each, and its counter only grows: no key and nonce meet twice.
//!
//! **What is bound.** The record's name, its version, and all that stands in it in the clear are authenticated with it:
//! a record that was moved, or whose birth was changed, does not open.

use core::fmt;
use core::net::IpAddr;

use ipsec::Spi;
use ipsec::iv::SenderNumber;
use ring::{aead, hkdf};
use zeroize::Zeroizing;

use super::Key;
use super::layout::{Reader, Writer};
use super::name;
use super::record::{Birth, RecordError};
use super::start::FreshStart;
use crate::fabric::Processing;
use crate::id::{Epoch, Incarnation, MemberId};
use crate::shadow::ShadowSa;
use crate::shadow_codec::{ShadowCodecError, decode_shadow, encode_shadow};

/// Bytes of the cluster's wrap key.
pub const WRAP_KEY_LEN: usize = 32;

const VERSION: u8 = 1;

/// What tells these keys from any that are derived of the wrap key for another use.
const LABEL: &[u8] = b"phalanx sa record";

/// The key that all members share, and nothing else has. Wiped when dropped, never printed.
pub struct WrapKey(Zeroizing<Box<[u8]>>);

impl fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapKey(..)")
    }
}

/// Why an SA has no record, or its record is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// It is no record of this version.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It was wrapped with another key, or was changed or moved since.
    #[error(
        "the record {name} does not open: it was changed, or wrapped with another key; all members must have the same \
         wrap key"
    )]
    Refused {
        /// Which record.
        name: Key,
    },
    /// What was in it is no SA, or the SA is beyond what a record holds.
    #[error("the record {name}: {error}")]
    Shadow {
        /// Which record.
        name: Key,
        /// What is wrong.
        error: ShadowCodecError,
    },
    /// This start has wrapped as often as it may.
    #[error("this start has wrapped 2^64 records; restart it")]
    Exhausted,
    /// The library refused to work; nothing that a peer or an operator did.
    #[error("AES-256-GCM refused to wrap the record {name}")]
    Cipher {
        /// Which record.
        name: Key,
    },
}

/// What stands in an SA's record in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaHeader {
    /// When it was born.
    pub birth: Birth,
    /// Where the cluster's sender counter stood then.
    pub born_at: SenderNumber,
    /// Where its work is done.
    pub processing: Processing,
    /// The most inner bytes that one member is granted beyond what it has used.
    pub grant_bytes_max: u64,
    /// Who wrapped it.
    pub wrapped_by: MemberId,
    /// Which start of it.
    pub wrapped_in: Incarnation,
    /// The how manieth record of that start.
    pub wrapped_as: u64,
}

/// An SA's record.
#[derive(Clone, PartialEq, Eq)]
pub struct SaRecord {
    /// In the clear.
    pub header: SaHeader,
    /// The wrapped shadow.
    wrapped: Vec<u8>,
}

impl fmt::Debug for SaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaRecord").field("header", &self.header).finish_non_exhaustive()
    }
}

impl SaHeader {
    fn write(&self) -> Writer {
        let processing = match self.processing {
            Processing::Target => 0,
            Processing::Distributor => 1,
        };
        let to = Writer::version(VERSION).u64(self.birth.epoch.0).u64(self.birth.order).u64(self.born_at.0);
        let to = to.u8(processing).u64(self.grant_bytes_max);
        to.u16(self.wrapped_by.0).u64(self.wrapped_in.0).u64(self.wrapped_as)
    }

    /// What is authenticated with the record: its name, which cannot hold a zero, and its head.
    fn bound_to(&self, name: &str) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend(self.write().done());
        bytes
    }
}

impl SaRecord {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.header.write().bytes(&self.wrapped).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<SaRecord, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let birth = Birth { epoch: Epoch(from.u64()?), order: from.u64()? };
        let born_at = SenderNumber(from.u64()?);
        let processing = match from.u8()? {
            0 => Processing::Target,
            1 => Processing::Distributor,
            _ => return Err(from.damaged("it says of no known place that its work is done there")),
        };
        let header = SaHeader {
            birth,
            born_at,
            processing,
            grant_bytes_max: from.u64()?,
            wrapped_by: MemberId(from.u16()?),
            wrapped_in: Incarnation(from.u64()?),
            wrapped_as: from.u64()?,
        };
        Ok(SaRecord { header, wrapped: from.rest().to_vec() })
    }
}

impl WrapKey {
    /// Takes the key. The caller wipes what it read it from.
    #[must_use]
    pub fn new(bytes: &[u8; WRAP_KEY_LEN]) -> WrapKey {
        WrapKey(Zeroizing::new(bytes.as_slice().into()))
    }

    /// The key of one start of one member.
    fn of_start(&self, member: MemberId, incarnation: Incarnation) -> Option<aead::LessSafeKey> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL).extract(&self.0);
        let (member, incarnation) = (member.0.to_be_bytes(), incarnation.0.to_be_bytes());
        let info: [&[u8]; 2] = [&member, &incarnation];
        let key = secret.expand(&info, &aead::AES_256_GCM).ok()?;
        Some(aead::LessSafeKey::new(key.into()))
    }

    /// Opens the record of an SA.
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn open(&self, dvipa: IpAddr, spi: Spi, record: &SaRecord) -> Result<ShadowSa, WrapError> {
        let name = name::sa(dvipa, spi);
        let refused = || WrapError::Refused { name: name.clone() };
        let header = &record.header;
        let key = self.of_start(header.wrapped_by, header.wrapped_in).ok_or_else(refused)?;
        let mut bytes = Zeroizing::new(record.wrapped.clone());
        let aad = aead::Aad::from(header.bound_to(&name));
        let plain = key.open_in_place(nonce(header.wrapped_as), aad, &mut bytes).map_err(|_| refused())?;
        decode_shadow(plain).map_err(|error| WrapError::Shadow { name: name.clone(), error })
    }
}

/// Wraps records for one start of one member. Neither `Clone` nor restorable: a counter that went back would use a nonce
/// twice.
pub struct Sealer {
    key: aead::LessSafeKey,
    member: MemberId,
    incarnation: Incarnation,
    next: Option<u64>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({}, {})", self.member, self.incarnation)
    }
}

impl Sealer {
    /// The one sealer of this start, which the token is spent for.
    ///
    /// # Errors
    /// [`WrapError::Cipher`] if the library cannot derive a key.
    pub fn new(wrap_key: &WrapKey, start: FreshStart) -> Result<Sealer, WrapError> {
        let (member, incarnation) = start.spend();
        let cipher = || WrapError::Cipher { name: format!("of start {incarnation}") };
        let key = wrap_key.of_start(member, incarnation).ok_or_else(cipher)?;
        Ok(Sealer { key, member, incarnation, next: Some(0) })
    }

    /// The record of an SA that was born as its owner's `order`-th in the epoch that stands in it.
    ///
    /// # Errors
    /// [`WrapError::Shadow`] if the SA is beyond what a record holds, [`WrapError::Exhausted`] after 2^64.
    pub fn seal(&mut self, shadow: &ShadowSa, order: u64) -> Result<SaRecord, WrapError> {
        let id = shadow.id();
        let name = name::sa(id.dvipa, id.spi);
        let number = self.next.ok_or(WrapError::Exhausted)?;
        // Counted before it is used: an error on the way wastes a number and repeats none.
        self.next = number.checked_add(1);
        let header = SaHeader {
            birth: Birth { epoch: Epoch(shadow.child.inbound.epoch), order },
            born_at: shadow.born_at,
            processing: shadow.processing,
            grant_bytes_max: shadow.grant_bytes_max,
            wrapped_by: self.member,
            wrapped_in: self.incarnation,
            wrapped_as: number,
        };
        let mut plain = encode_shadow(shadow).map_err(|error| WrapError::Shadow { name: name.clone(), error })?;
        let aad = aead::Aad::from(header.bound_to(&name));
        let tag = self.key.seal_in_place_separate_tag(nonce(number), aad, &mut plain);
        let tag = tag.map_err(|_| WrapError::Cipher { name })?;
        Ok(SaRecord { header, wrapped: [plain.as_slice(), tag.as_ref()].concat() })
    }
}

fn nonce(number: u64) -> aead::Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    aead::Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::testing::{DVIPA, fresh_start, shadow};
    use std::collections::BTreeSet;

    fn sealer(key: &WrapKey, member: u16) -> Sealer {
        Sealer::new(key, fresh_start(member)).unwrap()
    }

    #[test]
    fn a_record_opens_with_the_same_key_and_only_in_its_place() {
        let key = WrapKey::new(&[7; 32]);
        let shadow = shadow(0x1000);
        let record = sealer(&key, 1).seal(&shadow, 5).unwrap();
        let back = SaRecord::decode("x", &record.encode()).unwrap();
        assert_eq!(back, record);
        assert_eq!(back.header.birth, Birth { epoch: Epoch(3), order: 5 });
        let (dvipa, spi) = (DVIPA.parse().unwrap(), Spi::new(0x1000).unwrap());
        let opened = key.open(dvipa, spi, &back).unwrap();
        assert_eq!(opened.child.inbound.key, shadow.child.inbound.key);
        assert_eq!(opened.child.outbound.key, shadow.child.outbound.key);
        assert_eq!(opened.born_at, shadow.born_at);

        let refused = |result: Result<ShadowSa, WrapError>| assert!(matches!(result, Err(WrapError::Refused { .. })));
        refused(WrapKey::new(&[8; 32]).open(dvipa, spi, &back));
        refused(key.open(dvipa, Spi::new(0x1001).unwrap(), &back));
        refused(key.open("203.0.113.81".parse().unwrap(), spi, &back));
    }

    #[test]
    fn no_byte_of_a_record_can_be_changed() {
        let key = WrapKey::new(&[7; 32]);
        let bytes = sealer(&key, 1).seal(&shadow(0x1000), 5).unwrap().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let opened = SaRecord::decode("x", &changed)
                .map_err(WrapError::from)
                .and_then(|record| key.open(DVIPA.parse().unwrap(), Spi::new(0x1000).unwrap(), &record));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    #[test]
    fn no_two_records_share_key_and_nonce() {
        let key = WrapKey::new(&[7; 32]);
        let (mut first, mut second) = (sealer(&key, 1), sealer(&key, 2));
        let mut seen = BTreeSet::new();
        for _ in 0..10 {
            for sealer in [&mut first, &mut second] {
                let header = sealer.seal(&shadow(0x1000), 0).unwrap().header;
                assert!(seen.insert((header.wrapped_by.0, header.wrapped_in, header.wrapped_as)));
            }
        }
        // Different starts encrypt under different keys: the same SA under the same counter differs.
        let records = [sealer(&key, 1).seal(&shadow(0x1000), 0), sealer(&key, 2).seal(&shadow(0x1000), 0)];
        let [a, b] = records.map(|record| record.unwrap().wrapped);
        assert_ne!(a, b);
    }

    #[test]
    fn a_sealer_stops_after_its_last_number() {
        let key = WrapKey::new(&[7; 32]);
        let mut sealer = sealer(&key, 1);
        sealer.next = Some(u64::MAX);
        assert_eq!(sealer.seal(&shadow(0x1000), 0).unwrap().header.wrapped_as, u64::MAX);
        assert_eq!(sealer.seal(&shadow(0x1000), 0).unwrap_err(), WrapError::Exhausted);
    }

    #[test]
    fn keys_are_never_printed_nor_stored_in_the_clear() {
        let key = WrapKey::new(&[7; 32]);
        assert_eq!(format!("{key:?}"), "WrapKey(..)");
        let shadow = shadow(0x1000);
        let bytes = sealer(&key, 1).seal(&shadow, 5).unwrap().encode();
        for keymat in [shadow.child.inbound.key.expose_keymat(), shadow.child.outbound.key.expose_keymat()] {
            assert!(!bytes.windows(8).any(|window| keymat.windows(8).any(|part| part == window)));
        }
    }
}
