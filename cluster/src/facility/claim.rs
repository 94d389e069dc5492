//! Who owns a DVIPA: the claim, the fence that it gives, and all that the CF holds of the address.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;

use super::name::{self, all_of};
use super::record::{Birth, DrainedPart, DrainedTop, DvipaRecord, RecordError, decode_number};
use super::wrap::SaRecord;
use super::{Change, Compare, Outcome, Read, Request};
use crate::id::{Epoch, Incarnation, MemberId};

/// Records that are read at once.
const PAGE: u32 = 500;

/// What there are many of for one address.
const KINDS: [&str; 6] = ["sa", "mark", "seal", "target", "loss", "drained"];

/// Who owns an address now, as the CF says, and what a claim of it must be above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerSeen {
    /// Its owner, if it ever had one.
    pub record: Option<DvipaRecord>,
    /// The epoch below which no claim may fall.
    floor: Option<u64>,
}

/// Asks who owns an address.
#[must_use]
pub fn ask_owner(id: u64, address: IpAddr) -> Request {
    Request { id, compare: vec![], change: vec![], read: reads_of_owner(address) }
}

fn reads_of_owner(address: IpAddr) -> Vec<Read> {
    vec![Read::Record(name::dvipa(address)), Read::Record(name::EPOCHS.to_owned())]
}

impl OwnerSeen {
    /// What the reply to [`ask_owner`] says.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(address: IpAddr, outcome: &Outcome) -> Result<OwnerSeen, RecordError> {
        let key = name::dvipa(address);
        let record = outcome.record(&key).map(|bytes| DvipaRecord::decode(&key, bytes)).transpose()?;
        let floor = outcome.record(name::EPOCHS).map(|bytes| decode_number(name::EPOCHS, bytes)).transpose()?;
        Ok(OwnerSeen { record, floor })
    }

    /// The epoch that a claim now would begin.
    #[must_use]
    pub fn next_epoch(&self) -> Epoch {
        let last = self.record.map_or(0, |record| record.epoch.0);
        Epoch(last.max(self.floor.unwrap_or(0))).next()
    }
}

/// Takes an address over: a compare-and-swap of its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    address: IpAddr,
    seen: OwnerSeen,
    fence: Fence,
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The address is ours, for as long as the fence holds.
    Owned(Fence),
    /// It is not: somebody else was faster, or it is not any more as it was seen.
    Lost(OwnerSeen),
}

impl Claim {
    /// A claim of this start of this member, over the owner that was seen.
    #[must_use]
    pub fn new(address: IpAddr, me: MemberId, incarnation: Incarnation, over: OwnerSeen) -> Claim {
        let record = DvipaRecord { owner: me, incarnation, epoch: over.next_epoch() };
        Claim { address, seen: over, fence: Fence { address, record } }
    }

    /// The transaction.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let key = name::dvipa(self.address);
        let floor = self.seen.floor.map(super::record::encode_number);
        Request {
            id,
            compare: vec![
                Compare::unchanged(key.clone(), self.seen.record.map(|record| record.encode())),
                Compare::unchanged(name::EPOCHS.to_owned(), floor),
            ],
            change: vec![Change::Put(key, self.fence.record.encode())],
            read: reads_of_owner(self.address),
        }
    }

    /// What came of it. A claim that was repeated knows its own record when it meets it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn judge(&self, outcome: &Outcome) -> Result<Claimed, RecordError> {
        let seen = OwnerSeen::read(self.address, outcome)?;
        if seen.record == Some(self.fence.record) { Ok(Claimed::Owned(self.fence)) } else { Ok(Claimed::Lost(seen)) }
    }
}

/// The right to write as the owner of an address in one epoch. Whatever an owner writes or deletes compares it, so that
/// nothing of a stale epoch is ever carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    /// Which address.
    pub address: IpAddr,
    /// What the CF must say of it.
    pub record: DvipaRecord,
}

/// The fence does not hold any more: another owner has claimed the address, or the facility went back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not ours any more: we owned it in epoch {}, the coupling facility says {}", ours.epoch, said(*found))]
pub struct Stale {
    /// Which address.
    pub address: IpAddr,
    /// As we had it.
    pub ours: DvipaRecord,
    /// As the CF has it.
    pub found: Option<DvipaRecord>,
}

fn said(found: Option<DvipaRecord>) -> String {
    match found {
        Some(DvipaRecord { owner, incarnation, epoch }) => {
            format!("member {owner} (start {incarnation}) owns it in epoch {epoch}")
        }
        None => "that nobody owns it".to_owned(),
    }
}

/// Why a fenced transaction was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Whoever asked is not the owner any more.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// A record cannot be understood.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Fence {
    /// A transaction that is carried out only for the owner.
    pub(super) fn request(&self, id: u64, compare: Vec<Compare>, change: Vec<Change>, read: Vec<Read>) -> Request {
        let key = name::dvipa(self.address);
        let mut request = Request { id, compare, change, read };
        request.compare.insert(0, Compare::Equals(key.clone(), self.record.encode()));
        request.read.insert(0, Read::Record(key));
        request
    }

    /// Whether the fence held, by what [`Fence::request`] read.
    pub(super) fn check(&self, outcome: &Outcome) -> Result<(), Refused> {
        let found = OwnerSeen::read(self.address, outcome)?.record;
        if found == Some(self.record) {
            Ok(())
        } else {
            Err(Stale { address: self.address, ours: self.record, found }.into())
        }
    }
}

/// Deletes everything that the CF holds of an address but its owner: a new owner that takes over no SA says so.
#[must_use]
pub fn forget_all(id: u64, fence: &Fence) -> Request {
    let address = fence.address;
    let mut change: Vec<_> = KINDS.iter().map(|kind| Change::DeletePrefix(all_of(kind, address))).collect();
    change.push(Change::Delete(name::sealed(address)));
    fence.request(id, vec![], change, vec![])
}

/// Whether it was done.
///
/// # Errors
/// [`Refused`].
pub fn judge_forgotten(fence: &Fence, outcome: &Outcome) -> Result<(), Refused> {
    fence.check(outcome)
}

/// Everything that the CF holds of an address beside its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The SAs.
    pub sas: BTreeMap<Spi, SaRecord>,
    /// The first number of each that may not have been used yet.
    pub marks: BTreeMap<Spi, u64>,
    /// Those that are sealed one by one.
    pub seals: BTreeSet<Spi>,
    /// All that were born before this are sealed.
    pub sealed_before: Birth,
    /// The starts of members that may have connections.
    pub targets: BTreeSet<(MemberId, Incarnation)>,
    /// Those that are lost.
    pub losses: BTreeSet<(MemberId, Incarnation)>,
    /// What those left behind that were drained; whole ones only.
    pub drained: BTreeMap<(MemberId, Incarnation), Vec<DrainedTop>>,
}

impl Held {
    /// Whether an SA is sealed.
    #[must_use]
    pub fn is_sealed(&self, spi: Spi) -> bool {
        let is_old = |record: &SaRecord| record.header.birth < self.sealed_before;
        self.seals.contains(&spi) || self.sas.get(&spi).is_some_and(is_old)
    }

    /// The starts whose reports a new owner needs before it may take old SAs into use without a seal.
    pub fn awaited(&self) -> impl Iterator<Item = (MemberId, Incarnation)> + '_ {
        let is_settled =
            |start: &(MemberId, Incarnation)| self.losses.contains(start) || self.drained.contains_key(start);
        self.targets.iter().copied().filter(move |start| !is_settled(start))
    }
}

/// Reads everything of an address, page by page. Since all of it is fenced, nobody changes it meanwhile but the owner
/// who reads.
#[derive(Debug)]
pub struct Reading {
    fence: Fence,
    kind: usize,
    after: Option<super::Key>,
    held: Held,
    parts: BTreeMap<(MemberId, Incarnation), Vec<DrainedPart>>,
}

impl Reading {
    /// To be read by the owner.
    #[must_use]
    pub fn new(fence: Fence) -> Reading {
        Reading { fence, kind: 0, after: None, held: Held::default(), parts: BTreeMap::new() }
    }

    /// The next page; the same one until its reply is taken. `None` when all is read.
    #[must_use]
    pub fn request(&self, id: u64) -> Option<Request> {
        let prefix = all_of(KINDS.get(self.kind)?, self.fence.address);
        let page = Read::Page { prefix, after: self.after.clone(), count: PAGE };
        let sealed = Read::Record(name::sealed(self.fence.address));
        Some(self.fence.request(id, vec![], vec![], vec![page, sealed]))
    }

    /// Takes a page in. `Some` when it was the last.
    ///
    /// # Errors
    /// [`Refused`]; one record that cannot be understood refuses all, since what it would have said is unknown.
    pub fn take(&mut self, outcome: &Outcome) -> Result<Option<Held>, Refused> {
        self.fence.check(outcome)?;
        let sealed = name::sealed(self.fence.address);
        if let Some(bytes) = outcome.record(&sealed) {
            self.held.sealed_before = Birth::decode(&sealed, bytes)?;
        }
        let Some(kind) = KINDS.get(self.kind) else { return Ok(None) };
        let prefix = all_of(kind, self.fence.address);
        let mut records = 0;
        for (key, value) in outcome.records.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            self.add(kind, key, value)?;
            self.after = Some(key.clone());
            records += 1;
        }
        if records < PAGE {
            (self.kind, self.after) = (self.kind + 1, None);
        }
        if self.kind < KINDS.len() { Ok(None) } else { Ok(Some(self.finish())) }
    }

    fn add(&mut self, kind: &str, key: &str, value: &[u8]) -> Result<(), RecordError> {
        let foreign = || RecordError::Damaged { name: key.to_owned(), why: "its name says not whose it is" };
        match kind {
            "sa" => _ = self.held.sas.insert(name::spi_of(key).ok_or_else(foreign)?, SaRecord::decode(key, value)?),
            "mark" => _ = self.held.marks.insert(name::spi_of(key).ok_or_else(foreign)?, decode_number(key, value)?),
            "seal" => _ = self.held.seals.insert(name::spi_of(key).ok_or_else(foreign)?),
            "target" => _ = self.held.targets.insert(name::start_of(key).ok_or_else(foreign)?),
            "loss" => _ = self.held.losses.insert(name::start_of(key).ok_or_else(foreign)?),
            _ => {
                let (member, incarnation, _) = name::drained_of(key).ok_or_else(foreign)?;
                self.parts.entry((member, incarnation)).or_default().push(DrainedPart::decode(key, value)?);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Held {
        for (start, parts) in std::mem::take(&mut self.parts) {
            let expected = parts.first().map_or(0, |part| usize::from(part.parts));
            let numbers: BTreeSet<u16> = parts.iter().map(|part| part.part).collect();
            let agree = parts.iter().all(|part| usize::from(part.parts) == expected);
            if agree && numbers.len() == expected {
                self.held.drained.insert(start, parts.into_iter().flat_map(|part| part.tops).collect());
            }
        }
        std::mem::take(&mut self.held)
    }
}
