//! Finds a facility that went back in time: one that was restored from a backup, or wiped.
//!
//! Counters that go back would be drawn twice, and with them incarnations, sender ids and epochs; records of SAs would
//! come back with marks and seals long past. So every appliance remembers the highest of what it has seen, on its own
//! disk, and compares it with each reply. What it finds older is *voided* before anything else is asked: the records of
//! all SAs and owners are deleted, which makes every fence stale, and the counters are raised above everything
//! remembered, by so much that they are above what others have seen too.
//!
//! A record of its own, `lineage`, says which facility it is and how often it was voided, so that of many members that
//! remember more only one voids it; a facility that is another altogether is never voided, its counters are raised.
//!
//! **Use.** While [`Watch::request`] gives something, nothing else is asked of the facility. Everything else goes out
//! as [`Watch::carry`] makes it and is believed only after [`Watch::judge`].

mod remembered;

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::name::{self, KINDS_OF_DVIPA};
use super::record::{DvipaRecord, Lineage, RecordError, decode_number, encode_number};
use super::{Change, Compare, Outcome, Read, Request};

pub use remembered::{Remembered, RememberedError};

/// By how much a counter is raised above what is remembered: far more than others can have drawn since.
const MARGIN: u64 = 1 << 16;

/// Watches one facility for one appliance.
#[derive(Debug)]
pub struct Watch {
    remembered: Remembered,
    /// For a facility that is new.
    identity: [u8; 16],
    phase: Phase,
    save: Save,
    notice: Option<RolledBack>,
}

#[derive(Debug)]
enum Phase {
    /// What stands there is to be read.
    Looking,
    /// Counters are to be raised, or all is to be voided.
    Settling(Box<Settling>),
    /// It is the one that is remembered.
    Open,
}

#[derive(Debug)]
struct Settling {
    found: Found,
    is_void: bool,
    lineage: Lineage,
    incarnations: u64,
    senders: u64,
    epochs: u64,
}

/// What stands in the facility.
#[derive(Clone, Debug, Default)]
struct Found {
    lineage: Option<Lineage>,
    incarnations: Option<u64>,
    senders: Option<u64>,
    epochs: Option<u64>,
    dvipas: BTreeMap<IpAddr, u64>,
    revision: u64,
}

/// How urgent it is to write down what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Save {
    /// Nothing has changed.
    No,
    /// Within seconds.
    Soon,
    /// Before the reply is believed.
    Now,
}

/// The facility was found older than remembered, and has been voided; by whomever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// How often that has happened to this facility.
    pub generation: u64,
    /// Its revision, as it was remembered.
    pub remembered_revision: u64,
    /// Its revision, as it was found.
    pub found_revision: u64,
    /// Whether it was this appliance that voided it.
    pub by_us: bool,
}

/// A reply that cannot be believed before the facility has been looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It is older than what is remembered.
    #[error("the coupling facility is older than remembered ({what}); it was restored from a backup, or wiped")]
    Older {
        /// What shows it.
        what: String,
    },
    /// It was voided by another member, or is another facility.
    #[error("the coupling facility is not the one that is remembered")]
    Other,
    /// A record cannot be understood.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Watch {
    /// Watches with what was remembered; `identity` is random, for a facility that is new.
    #[must_use]
    pub fn new(remembered: Remembered, identity: [u8; 16]) -> Watch {
        Watch { remembered, identity, phase: Phase::Looking, save: Save::No, notice: None }
    }

    /// What must be asked before anything else, if something must.
    #[must_use]
    pub fn request(&self, id: u64) -> Option<Request> {
        match &self.phase {
            Phase::Looking => Some(Request { id, compare: vec![], change: vec![], read: Found::reads() }),
            Phase::Settling(settling) => Some(settling.request(id)),
            Phase::Open => None,
        }
    }

    /// Takes the reply to [`Watch::request`] in.
    ///
    /// # Errors
    /// [`RecordError`] when nothing can be said of the facility; nothing else may be asked of it then.
    pub fn take(&mut self, outcome: &Outcome) -> Result<(), RecordError> {
        match std::mem::replace(&mut self.phase, Phase::Looking) {
            Phase::Looking | Phase::Open => self.look(Found::read(outcome)?),
            Phase::Settling(settling) if outcome.is_committed => self.settled(*settling, outcome.revision),
            // Somebody else was at it: look again.
            Phase::Settling(_) => {}
        }
        Ok(())
    }

    /// Nothing came back from [`Watch::request`]: what stands there is looked at anew.
    pub fn failed(&mut self) {
        self.phase = Phase::Looking;
    }

    /// The request as it goes out: it also reads which facility it is.
    #[must_use]
    pub fn carry(&self, mut request: Request) -> Request {
        request.read.push(Read::Record(name::LINEAGE.to_owned()));
        request
    }

    /// Compares a reply with what is remembered, and takes out of it what [`Watch::carry`] had asked.
    ///
    /// # Errors
    /// [`Doubt`]: the reply is not to be believed, though its transaction may have happened; ask [`Watch::request`].
    pub fn judge(&mut self, request: &Request, outcome: &mut Outcome) -> Result<(), Doubt> {
        let judged = self.compare(request, outcome);
        if judged.is_err() {
            self.phase = Phase::Looking;
        }
        judged
    }

    /// What is remembered, and how urgent it is to write it down. Whoever asks writes it.
    pub fn poll_save(&mut self, at_least: Save) -> Option<&Remembered> {
        if self.save == Save::No || self.save < at_least {
            return None;
        }
        self.save = Save::No;
        Some(&self.remembered)
    }

    /// What [`Watch::poll_save`] gave could not be written: it will be given again.
    pub fn save_failed(&mut self) {
        self.save = Save::Now;
    }

    /// What is remembered.
    #[must_use]
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// That the facility was found older, once each time.
    pub fn poll_notice(&mut self) -> Option<RolledBack> {
        self.notice.take()
    }

    fn look(&mut self, found: Found) {
        let is_behind = found.is_behind(&self.remembered);
        let remembered_identity = self.remembered.identity;
        let is_known = |lineage: &Lineage| remembered_identity == Some(lineage.identity);
        let is_void = match &found.lineage {
            Some(lineage) if is_known(lineage) => {
                let is_older =
                    (lineage.generation, found.revision) < (self.remembered.generation, self.remembered.revision);
                is_older || is_behind
            }
            // Another facility: it has its own records, which are not ours to void.
            Some(_) => false,
            None => self.remembered.identity.is_some(),
        };
        if is_void || is_behind || found.lineage.is_none() {
            let settling = Settling::of(found, &self.remembered, self.identity, is_void);
            self.phase = Phase::Settling(Box::new(settling));
            return;
        }
        let Some(lineage) = found.lineage else { return };
        if is_known(&lineage) && lineage.generation > self.remembered.generation {
            self.tell(lineage.generation, found.revision, false);
        }
        if !is_known(&lineage) {
            // What is remembered of addresses belongs to another facility, and is not above what stands here.
            self.remembered.epochs.clear();
        }
        self.adopt(lineage, found.revision);
        self.remembered.incarnations = self.remembered.incarnations.max(found.incarnations.unwrap_or(0));
        self.remembered.senders = self.remembered.senders.max(found.senders.unwrap_or(0));
        for (address, epoch) in found.dvipas {
            self.remembered.saw_epoch(address, epoch);
        }
    }

    fn settled(&mut self, settling: Settling, revision: u64) {
        if settling.is_void {
            self.tell(settling.lineage.generation, settling.found.revision, true);
        }
        self.adopt(settling.lineage, revision);
        self.remembered.incarnations = settling.incarnations;
        self.remembered.senders = settling.senders;
    }

    fn adopt(&mut self, lineage: Lineage, revision: u64) {
        self.remembered.identity = Some(lineage.identity);
        self.remembered.generation = lineage.generation;
        self.remembered.revision = revision;
        self.save = Save::Now;
        self.phase = Phase::Open;
    }

    fn tell(&mut self, generation: u64, found_revision: u64, by_us: bool) {
        let remembered_revision = self.remembered.revision;
        self.notice = Some(RolledBack { generation, remembered_revision, found_revision, by_us });
    }

    fn compare(&mut self, request: &Request, outcome: &mut Outcome) -> Result<(), Doubt> {
        let lineage = outcome.records.pop_if(|(key, _)| key == name::LINEAGE);
        let lineage = lineage.map(|(key, value)| Lineage::decode(&key, &value)).transpose()?;
        let older = |what: String| Err(Doubt::Older { what });
        let remembered = &mut self.remembered;
        let Some(Lineage { identity, generation }) = lineage else {
            return older("it does not say which facility it is".into());
        };
        if remembered.identity != Some(identity) || generation > remembered.generation {
            return Err(Doubt::Other);
        }
        if generation < remembered.generation || outcome.revision < remembered.revision {
            return older(format!("revision {}, {} was seen", outcome.revision, remembered.revision));
        }
        for read in &request.read {
            let Read::Record(key) = read else { continue };
            let highest = match key.as_str() {
                name::SENDERS => &mut remembered.senders,
                name::INCARNATIONS => &mut remembered.incarnations,
                _ => continue,
            };
            let found = outcome.record(key).map_or(Ok(0), |bytes| decode_number(key, bytes))?;
            if found < *highest {
                return older(format!("{key} {found}, {highest} was seen"));
            }
            if found > *highest {
                *highest = found;
                self.save = Save::Now;
            }
        }
        for (key, value) in &outcome.records {
            let Some(address) = name::dvipa_of(key) else { continue };
            if remembered.saw_epoch(address, DvipaRecord::decode(key, value)?.epoch.0) {
                self.save = Save::Now;
            }
        }
        if outcome.revision > remembered.revision {
            remembered.revision = outcome.revision;
            self.save = self.save.max(Save::Soon);
        }
        Ok(())
    }
}

impl Found {
    fn reads() -> Vec<Read> {
        let records = [name::LINEAGE, name::INCARNATIONS, name::SENDERS, name::EPOCHS];
        let reads = records.into_iter().map(|key| Read::Record(key.to_owned()));
        reads.chain([Read::Prefix(name::DVIPAS.to_owned())]).collect()
    }

    fn read(outcome: &Outcome) -> Result<Found, RecordError> {
        let number = |key: &str| outcome.record(key).map(|bytes| decode_number(key, bytes)).transpose();
        let lineage = outcome.record(name::LINEAGE).map(|bytes| Lineage::decode(name::LINEAGE, bytes)).transpose()?;
        let mut dvipas = BTreeMap::new();
        for (key, value) in &outcome.records {
            if let Some(address) = name::dvipa_of(key) {
                dvipas.insert(address, DvipaRecord::decode(key, value)?.epoch.0);
            }
        }
        Ok(Found {
            lineage,
            incarnations: number(name::INCARNATIONS)?,
            senders: number(name::SENDERS)?,
            epochs: number(name::EPOCHS)?,
            dvipas,
            revision: outcome.revision,
        })
    }

    /// Whether a counter stands lower than it was seen.
    fn is_behind(&self, remembered: &Remembered) -> bool {
        let floor = self.epochs.unwrap_or(0);
        let epoch = |address: &IpAddr| self.dvipas.get(address).copied().unwrap_or(0).max(floor);
        self.incarnations.unwrap_or(0) < remembered.incarnations
            || self.senders.unwrap_or(0) < remembered.senders
            || remembered.epochs.iter().any(|(address, seen)| epoch(address) < *seen)
    }
}

impl Settling {
    fn of(found: Found, remembered: &Remembered, identity: [u8; 16], is_void: bool) -> Settling {
        let lineage = match found.lineage {
            Some(lineage) => {
                let last = lineage.generation.max(remembered.generation);
                Lineage { generation: if is_void { last + 1 } else { lineage.generation }, ..lineage }
            }
            None => Lineage { identity, generation: remembered.generation + u64::from(is_void) },
        };
        let raised = |found: Option<u64>, seen: u64| {
            let found = found.unwrap_or(0);
            if is_void || found < seen { found.max(seen).saturating_add(MARGIN) } else { found }
        };
        let seen = |epochs: &BTreeMap<IpAddr, u64>| epochs.values().copied().max().unwrap_or(0);
        let highest = seen(&found.dvipas).max(seen(&remembered.epochs));
        Settling {
            is_void,
            lineage,
            incarnations: raised(found.incarnations, remembered.incarnations),
            senders: raised(found.senders, remembered.senders),
            epochs: raised(found.epochs, if found.is_behind(remembered) || is_void { highest } else { 0 }),
            found,
        }
    }

    fn request(&self, id: u64) -> Request {
        let counters = [
            (name::INCARNATIONS, self.found.incarnations, self.incarnations),
            (name::SENDERS, self.found.senders, self.senders),
            (name::EPOCHS, self.found.epochs, self.epochs),
        ];
        let lineage = name::LINEAGE.to_owned();
        let mut compare = vec![Compare::unchanged(lineage.clone(), self.found.lineage.map(|found| found.encode()))];
        let mut change = vec![Change::Put(lineage, self.lineage.encode())];
        for (key, found, raised) in counters {
            compare.push(Compare::unchanged(key.to_owned(), found.map(encode_number)));
            change.push(Change::Put(key.to_owned(), encode_number(raised)));
        }
        if self.is_void {
            let kinds = KINDS_OF_DVIPA.into_iter().chain([name::DVIPAS]);
            change.extend(kinds.map(|kind| Change::DeletePrefix(kind.to_owned())));
        }
        Request { id, compare, change, read: vec![] }
    }
}

#[cfg(test)]
mod tests;
