//! An SA's life in the CF: its birth, its sequence mark, its seal, its end. All of it is fenced.

use ipsec::Spi;
use ipsec::iv::SenderNumber;

use super::claim::{Fence, Refused};
use super::record::{Birth, decode_number, encode_number};
use super::wrap::SaRecord;
use super::{Change, Compare, Outcome, Read, Request, name};

/// Most marks that one transaction raises: each is compared, written and read.
pub const MARKS_MAX: usize = 50;
/// Most SAs that one transaction seals.
pub const SEALS_MAX: usize = 50;
/// Most SAs that one transaction deletes.
pub const DELETES_MAX: usize = 30;

/// Makes the record of a new SA, with its first mark, in one step: no SA has one without the other.
///
/// The birth counter in the record is the one that the appliance knew when IKE made the SA, since the shadows that are
/// on their way say the same. It need not be the newest: senders that differ from one number by less than 2^15 share no
/// id, whatever the number is. What the counter is by now comes back, so that the next birth is nearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSa {
    /// Whoever owns the address.
    pub fence: Fence,
    /// The SA's inbound SPI.
    pub spi: Spi,
    /// Its record.
    pub record: SaRecord,
    /// Its outbound numbers below this may be used.
    pub mark: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The SA is durable; the cluster's sender counter stands here.
    Made(SenderNumber),
    /// Another SA has a record under this SPI: this one must not be used.
    Taken,
}

impl CreateSa {
    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let address = self.fence.address;
        let (sa, mark, seal) =
            (name::sa(address, self.spi), name::mark(address, self.spi), name::seal(address, self.spi));
        let reads = [sa.clone(), name::SENDERS.to_owned()].map(Read::Record).to_vec();
        let changes = vec![
            Change::Put(sa.clone(), self.record.encode()),
            Change::Put(mark, encode_number(self.mark)),
            // Of an SA that had this SPI before.
            Change::Delete(seal),
        ];
        self.fence.request(id, vec![Compare::Absent(sa)], changes, reads)
    }

    /// What came of it. A birth that was repeated knows its own record when it meets it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Created, Refused> {
        self.fence.check(outcome)?;
        let senders = outcome.record(name::SENDERS).map(|bytes| decode_number(name::SENDERS, bytes)).transpose()?;
        let is_ours = outcome.record(&name::sa(self.fence.address, self.spi)) == Some(&self.record.encode());
        if is_ours { Ok(Created::Made(SenderNumber(senders.unwrap_or(0)))) } else { Ok(Created::Taken) }
    }
}

/// A mark that is to be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRaise {
    /// Of which SA.
    pub spi: Spi,
    /// What the CF holds.
    pub from: u64,
    /// What it shall hold.
    pub to: u64,
}

/// Raises marks, each by compare-and-swap: a transaction that arrives late never lowers one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaiseMarks {
    fence: Fence,
    marks: Vec<MarkRaise>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raised {
    /// All marks stand at least as high as asked.
    Done,
    /// Some stood elsewhere: nothing was changed. What the CF holds of each, `None` where there is no mark; ask again
    /// with these.
    Elsewhere(Vec<(Spi, Option<u64>)>),
}

impl RaiseMarks {
    /// Splits any number of raises into transactions.
    #[must_use]
    pub fn batches(fence: Fence, marks: &[MarkRaise]) -> Vec<RaiseMarks> {
        marks.chunks(MARKS_MAX).map(|marks| RaiseMarks { fence, marks: marks.to_vec() }).collect()
    }

    /// The marks that it raises.
    #[must_use]
    pub fn marks(&self) -> &[MarkRaise] {
        &self.marks
    }

    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let key = |mark: &MarkRaise| name::mark(self.fence.address, mark.spi);
        let compares = self.marks.iter().map(|mark| Compare::Equals(key(mark), encode_number(mark.from))).collect();
        let changes = self.marks.iter().map(|mark| Change::Put(key(mark), encode_number(mark.to))).collect();
        let reads = self.marks.iter().map(|mark| Read::Record(key(mark))).collect();
        self.fence.request(id, compares, changes, reads)
    }

    /// What came of it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Raised, Refused> {
        self.fence.check(outcome)?;
        let mut held = Vec::new();
        for mark in &self.marks {
            let key = name::mark(self.fence.address, mark.spi);
            held.push((mark.spi, outcome.record(&key).map(|bytes| decode_number(&key, bytes)).transpose()?));
        }
        let is_done = |(mark, (_, held)): (&MarkRaise, &(Spi, Option<u64>))| held.is_some_and(|held| held >= mark.to);
        if self.marks.iter().zip(&held).all(is_done) { Ok(Raised::Done) } else { Ok(Raised::Elsewhere(held)) }
    }
}

/// Seals SAs one by one, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealSas {
    fence: Fence,
    spis: Vec<Spi>,
}

impl SealSas {
    /// Splits any number of seals into transactions.
    #[must_use]
    pub fn batches(fence: Fence, spis: &[Spi]) -> Vec<SealSas> {
        spis.chunks(SEALS_MAX).map(|spis| SealSas { fence, spis: spis.to_vec() }).collect()
    }

    /// The SAs that it seals.
    #[must_use]
    pub fn spis(&self) -> &[Spi] {
        &self.spis
    }

    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let epoch = encode_number(self.fence.record.epoch.0);
        let put = |&spi: &Spi| Change::Put(name::seal(self.fence.address, spi), epoch.clone());
        self.fence.request(id, vec![], self.spis.iter().map(put).collect(), vec![])
    }

    /// Whether it was done.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<(), Refused> {
        self.fence.check(outcome)
    }
}

/// Seals every SA that was born before a birth, by one record that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealBefore {
    /// Whoever owns the address.
    pub fence: Fence,
    /// What the CF holds, as far as is known; [`Birth::default`] at first.
    pub seen: Birth,
    /// SAs born before this are sealed.
    pub before: Birth,
}

/// What came of raising a record that only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It stands at least as high as asked.
    Done,
    /// It stood here; ask again with this.
    Elsewhere(Birth),
}

impl SealBefore {
    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let (compare, change, read) = self.parts();
        self.fence.request(id, vec![compare], vec![change], vec![read])
    }

    pub(super) fn parts(&self) -> (Compare, Change, Read) {
        let key = name::sealed(self.fence.address);
        let seen = (self.seen != Birth::default()).then(|| self.seen.encode());
        let put = Change::Put(key.clone(), self.seen.max(self.before).encode());
        (Compare::unchanged(key.clone(), seen), put, Read::Record(key))
    }

    /// What came of it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Sealed, Refused> {
        self.fence.check(outcome)?;
        let key = name::sealed(self.fence.address);
        let held = outcome.record(&key).map(|bytes| Birth::decode(&key, bytes)).transpose()?.unwrap_or_default();
        if held >= self.before { Ok(Sealed::Done) } else { Ok(Sealed::Elsewhere(held)) }
    }
}

/// Deletes SAs with all that the CF holds of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteSas {
    fence: Fence,
    spis: Vec<Spi>,
}

impl DeleteSas {
    /// Splits any number of deletions into transactions.
    #[must_use]
    pub fn batches(fence: Fence, spis: &[Spi]) -> Vec<DeleteSas> {
        spis.chunks(DELETES_MAX).map(|spis| DeleteSas { fence, spis: spis.to_vec() }).collect()
    }

    /// The SAs that it deletes.
    #[must_use]
    pub fn spis(&self) -> &[Spi] {
        &self.spis
    }

    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let address = self.fence.address;
        let names = |&spi: &Spi| [name::sa(address, spi), name::mark(address, spi), name::seal(address, spi)];
        let changes = self.spis.iter().flat_map(names).map(Change::Delete).collect();
        self.fence.request(id, vec![], changes, vec![])
    }

    /// Whether it was done.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<(), Refused> {
        self.fence.check(outcome)
    }
}

#[cfg(test)]
mod tests;
