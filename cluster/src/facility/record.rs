//! The small records: what they say, and how they lie in bytes. Each begins with its version.

use ipsec::Spi;
use ipsec::iv::SenderNumber;

use super::layout::{Reader, Writer};
use crate::id::{Epoch, Incarnation, MemberId};

/// The version that all records here are written in.
const VERSION: u8 = 1;

/// Most SAs in one part of what a drained member left behind.
pub const DRAINED_PART_SAS: usize = 20_000;

/// Why a record cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by another version of the program.
    #[error(
        "the record {name} is of version {found}, this program knows {known}; run one version of the program on all \
         members, or upgrade this one"
    )]
    Version {
        /// Which record.
        name: String,
        /// Its version.
        found: u8,
        /// Ours.
        known: u8,
    },
    /// No program of ours wrote this.
    #[error("the record {name} is damaged: {why}; nothing else may write under the prefix of the coupling facility")]
    Damaged {
        /// Which record.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// `dvipa/<address>`: who owns it. Also the fence of everything that the owner writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DvipaRecord {
    /// Which member.
    pub owner: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Since which epoch.
    pub epoch: Epoch,
}

impl DvipaRecord {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::version(VERSION).u16(self.owner.0).u64(self.incarnation.0).u64(self.epoch.0).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<DvipaRecord, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let record = DvipaRecord {
            owner: MemberId(from.u16()?),
            incarnation: Incarnation(from.u64()?),
            epoch: Epoch(from.u64()?),
        };
        from.end().map(|()| record)
    }
}

/// `member/<id>`: a start of a member, with the sender numbers that it drew at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Which start.
    pub incarnation: Incarnation,
    /// What tells this start from another that was drawn from a facility that went back in time.
    pub nonce: [u8; 16],
    /// The first sender number of its own.
    pub senders_first: SenderNumber,
    /// How many.
    pub senders_count: u32,
}

impl MemberRecord {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let to = Writer::version(VERSION).u64(self.incarnation.0).bytes(&self.nonce);
        to.u64(self.senders_first.0).u32(self.senders_count).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<MemberRecord, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let record = MemberRecord {
            incarnation: Incarnation(from.u64()?),
            nonce: from.array()?,
            senders_first: SenderNumber(from.u64()?),
            senders_count: from.u32()?,
        };
        from.end().map(|()| record)
    }
}

/// `lineage`: which facility this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Drawn when the facility was new.
    pub identity: [u8; 16],
    /// How often it was found restored from a backup.
    pub generation: u64,
}

impl Lineage {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::version(VERSION).bytes(&self.identity).u64(self.generation).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Lineage, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let record = Lineage { identity: from.array()?, generation: from.u64()? };
        from.end().map(|()| record)
    }
}

/// A number: `incarnations`, `senders`, `epochs`, `mark/…`; in `seal/…`, `target/…` and `loss/…` the epoch that wrote it.
#[must_use]
pub fn encode_number(number: u64) -> Vec<u8> {
    Writer::version(VERSION).u64(number).done()
}

/// A number from bytes; `name` is for the error.
///
/// # Errors
/// [`RecordError`].
pub fn decode_number(name: &str, bytes: &[u8]) -> Result<u64, RecordError> {
    let mut from = Reader::version(name, bytes, VERSION)?;
    let number = from.u64()?;
    from.end().map(|()| number)
}

/// When an SA was born, in an order that is that of all owners and all their SAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Birth {
    /// In which epoch.
    pub epoch: Epoch,
    /// The how manieth of its owner's in that epoch.
    pub order: u64,
}

impl Birth {
    /// As bytes: `sealed/<address>`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::version(VERSION).u64(self.epoch.0).u64(self.order).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Birth, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let record = Birth { epoch: Epoch(from.u64()?), order: from.u64()? };
        from.end().map(|()| record)
    }
}

/// How far one SA had come at a member that was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainedTop {
    /// Which SA.
    pub spi: Spi,
    /// The highest number that the member accepted.
    pub top: u64,
    /// The floor as the owner held it.
    pub floor: u64,
}

/// `drained/…`: a part of what a member left behind that was drained. It counts only with all its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainedPart {
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// Which part, from 0.
    pub part: u16,
    /// Of how many.
    pub parts: u16,
    /// Each SA's; at most [`DRAINED_PART_SAS`].
    pub tops: Vec<DrainedTop>,
}

impl DrainedPart {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let to = Writer::version(VERSION).u64(self.epoch.0).u16(self.part).u16(self.parts);
        let add = |to: Writer, one: &DrainedTop| to.u32(one.spi.get()).u64(one.top).u64(one.floor);
        self.tops.iter().fold(to, add).done()
    }

    /// From bytes; `name` is for the error.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(name: &str, bytes: &[u8]) -> Result<DrainedPart, RecordError> {
        let mut from = Reader::version(name, bytes, VERSION)?;
        let (epoch, part, parts) = (Epoch(from.u64()?), from.u16()?, from.u16()?);
        if part >= parts {
            return Err(from.damaged("it is a part beyond the last"));
        }
        let mut tops = Vec::new();
        for mut one in from.rest().chunks(20).map(|chunk| Reader::bare(name, chunk)) {
            let spi = Spi::new(one.u32()?).ok_or_else(|| one.damaged("a reserved number names an SA"))?;
            tops.push(DrainedTop { spi, top: one.u64()?, floor: one.u64()? });
        }
        Ok(DrainedPart { epoch, part, parts, tops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dvipa() -> DvipaRecord {
        DvipaRecord { owner: MemberId(2), incarnation: Incarnation(7), epoch: Epoch(5) }
    }

    /// The form is compared byte for byte by members of other versions, so it is nailed here.
    #[test]
    fn the_fence_has_exactly_this_form() {
        assert_eq!(dvipa().encode(), [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(encode_number(0x0102), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn records_read_back() {
        let member = MemberRecord {
            incarnation: Incarnation(9),
            nonce: [3; 16],
            senders_first: SenderNumber(70_000),
            senders_count: 4,
        };
        let lineage = Lineage { identity: [9; 16], generation: 3 };
        let birth = Birth { epoch: Epoch(3), order: 4 };
        let top = |number: u32| DrainedTop { spi: Spi::new(number).unwrap(), top: number.into(), floor: 3 };
        let drained = DrainedPart { epoch: Epoch(1), part: 1, parts: 2, tops: (256..300).map(top).collect() };
        assert_eq!(DvipaRecord::decode("x", &dvipa().encode()), Ok(dvipa()));
        assert_eq!(MemberRecord::decode("x", &member.encode()), Ok(member));
        assert_eq!(Lineage::decode("x", &lineage.encode()), Ok(lineage));
        assert_eq!(Birth::decode("x", &birth.encode()), Ok(birth));
        assert_eq!(DrainedPart::decode("x", &drained.encode()), Ok(drained));
        assert_eq!(decode_number("x", &encode_number(u64::MAX)), Ok(u64::MAX));
    }

    #[test]
    fn an_unknown_version_says_so() {
        let mut bytes = dvipa().encode();
        bytes[0] = 2;
        let error = DvipaRecord::decode("dvipa/10.0.0.1", &bytes).unwrap_err();
        assert_eq!(error, RecordError::Version { name: "dvipa/10.0.0.1".into(), found: 2, known: 1 });
        assert!(error.to_string().contains("version 2, this program knows 1"), "{error}");
    }

    #[test]
    fn every_other_length_is_damage() {
        let whole = dvipa().encode();
        for len in (0..whole.len()).chain([whole.len() + 1]) {
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            assert!(matches!(DvipaRecord::decode("x", &bytes), Err(RecordError::Damaged { .. })), "{len}");
        }
        let tops = vec![DrainedTop { spi: Spi::new(300).unwrap(), top: 1, floor: 0 }];
        let mut bytes = DrainedPart { epoch: Epoch(1), part: 0, parts: 1, tops }.encode();
        bytes.pop();
        assert!(DrainedPart::decode("x", &bytes).is_err());
    }
}
