//! What the CF holds of the members that serve an address: who may have connections, who is lost, who was drained.
//!
//! A new owner learns from it whose reports it must wait for (DESIGN §4). So an owner writes that a start of a member is
//! a target *before* the first frame goes to it, and that it is lost *before* its connections are given to others.

use super::births::{SealBefore, Sealed};
use super::claim::{Fence, Refused};
use super::record::{Birth, DRAINED_PART_SAS, DrainedPart, DrainedTop, encode_number};
use super::{Change, Outcome, Read, Request, name};
use crate::id::{Incarnation, MemberId};

/// Lets a start of a member have connections, again if it was drained before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmitTarget {
    /// Whoever owns the address.
    pub fence: Fence,
    /// Which member.
    pub member: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Frames may go to it.
    Done,
    /// This start was lost before: it may come back only as another.
    Lost,
}

impl AdmitTarget {
    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let AdmitTarget { fence, member, incarnation } = *self;
        let epoch = encode_number(fence.record.epoch.0);
        let loss = name::loss(fence.address, member, incarnation);
        let changes = vec![
            Change::Put(name::target(fence.address, member, incarnation), epoch),
            // From now on it is not so any more.
            Change::DeletePrefix(name::drained_parts(fence.address, member, incarnation)),
        ];
        fence.request(id, vec![super::Compare::Absent(loss.clone())], changes, vec![Read::Record(loss)])
    }

    /// What came of it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Admitted, Refused> {
        self.fence.check(outcome)?;
        let loss = name::loss(self.fence.address, self.member, self.incarnation);
        if outcome.record(&loss).is_some() { Ok(Admitted::Lost) } else { Ok(Admitted::Done) }
    }
}

/// Records that a start of a member is lost, and that every SA born before is sealed, in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLoss {
    /// Which member.
    pub member: MemberId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Which SAs are sealed by it, and whose fence it is.
    pub seal: SealBefore,
}

impl RecordLoss {
    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let fence = self.seal.fence;
        let (compare, raise, read) = self.seal.parts();
        let loss = name::loss(fence.address, self.member, self.incarnation);
        let put = Change::Put(loss.clone(), encode_number(fence.record.epoch.0));
        fence.request(id, vec![compare], vec![raise, put], vec![read, Read::Record(loss)])
    }

    /// What came of it; with [`Sealed::Elsewhere`] nothing was recorded.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Sealed, Refused> {
        let sealed = self.seal.judge(outcome)?;
        let loss = name::loss(self.seal.fence.address, self.member, self.incarnation);
        match sealed {
            // Another loss had raised the seal far enough, and the comparison refused this one.
            Sealed::Done if outcome.record(&loss).is_none() => Ok(Sealed::Elsewhere(held_seal(self, outcome))),
            Sealed::Done | Sealed::Elsewhere(_) => Ok(sealed),
        }
    }
}

fn held_seal(loss: &RecordLoss, outcome: &Outcome) -> Birth {
    let key = name::sealed(loss.seal.fence.address);
    outcome.record(&key).and_then(|bytes| Birth::decode(&key, bytes).ok()).unwrap_or_default()
}

/// Records what a drained start of a member leaves behind, so that it can go without a seal. One transaction for each
/// part; it has been recorded when all were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordDrained {
    fence: Fence,
    member: MemberId,
    incarnation: Incarnation,
    part: DrainedPart,
}

impl RecordDrained {
    /// The transactions, at least one.
    #[must_use]
    pub fn parts(fence: Fence, member: MemberId, incarnation: Incarnation, tops: &[DrainedTop]) -> Vec<RecordDrained> {
        let chunks: Vec<&[DrainedTop]> =
            if tops.is_empty() { vec![tops] } else { tops.chunks(DRAINED_PART_SAS).collect() };
        let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
        let part = |(part, tops): (u16, &[DrainedTop])| RecordDrained {
            fence,
            member,
            incarnation,
            part: DrainedPart { epoch: fence.record.epoch, part, parts, tops: tops.to_vec() },
        };
        (0..parts).zip(chunks).map(part).collect()
    }

    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let key = name::drained(self.fence.address, self.member, self.incarnation, self.part.part);
        self.fence.request(id, vec![], vec![Change::Put(key, self.part.encode())], vec![])
    }

    /// Whether it was done.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, outcome: &Outcome) -> Result<(), Refused> {
        self.fence.check(outcome)
    }
}

/// Forgets starts of a member that nothing depends on any more: lost ones whose SAs are all gone, drained ones that
/// have left for good and whose SAs are gone.
#[must_use]
pub fn forget_start(id: u64, fence: &Fence, member: MemberId, incarnation: Incarnation) -> Request {
    let address = fence.address;
    let changes = vec![
        Change::Delete(name::target(address, member, incarnation)),
        Change::Delete(name::loss(address, member, incarnation)),
        Change::DeletePrefix(name::drained_parts(address, member, incarnation)),
    ];
    fence.request(id, vec![], changes, vec![])
}

#[cfg(test)]
mod tests;
