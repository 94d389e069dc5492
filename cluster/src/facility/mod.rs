//! The coupling facility as the cluster speaks to it: one kind of request, one kind of reply.
//!
//! A [`Request`] is a transaction over small records: compared, changed and read as one step. Whoever serves it (a file
//! store, etcd) knows nothing of what the records mean.
//!
//! What they mean stands in the modules: [`name`] and [`record`] are the records, [`wrap`] keeps keys in them secret,
//! [`start`], [`claim`], [`births`], [`members`] and [`senders`] are the transactions with the interpreters of their
//! replies, [`watch`] finds a facility that was restored from a backup, [`memory`] is a facility without a disk.
//!
//! Every transaction may be repeated when nothing is known of it: what may change twice is changed by
//! compare-and-swap, and the interpreters know their own work when they meet it. So a transaction that arrives late, after
//! its requester gave up, never takes anything back.

pub mod births;
pub mod claim;
mod layout;
pub mod members;
pub mod memory;
pub mod name;
pub mod record;
pub mod senders;
pub mod start;
pub mod watch;
pub mod wrap;

#[cfg(test)]
mod testing;

/// Most comparisons, and most changes and reads together, of one transaction: what etcd takes by default (128), less
/// what those who carry it add.
pub const OPERATIONS_MAX: usize = 120;

/// Most bytes of one transaction's names and values: etcd takes 1.5 MiB by default.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A record's name, as etcd and people read it: `dvipa/203.0.113.80`, `member/3`, …
pub type Key = String;

/// A transaction. All of it happens, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the reply; the requester's to choose.
    pub id: u64,
    /// What must hold for it to happen.
    pub compare: Vec<Compare>,
    /// What it changes.
    pub change: Vec<Change>,
    /// What it reads, as it stands after the changes; also read when a comparison fails.
    pub read: Vec<Read>,
}

/// A condition on one record.
#[derive(Clone, PartialEq, Eq)]
pub enum Compare {
    /// There is no such record.
    Absent(Key),
    /// There is such a record, whatever it says.
    Present(Key),
    /// The record is exactly this.
    Equals(Key, Vec<u8>),
}

impl core::fmt::Debug for Compare {
    /// Names only, as for [`Change`].
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Compare::Absent(key) => write!(f, "Absent({key})"),
            Compare::Present(key) => write!(f, "Present({key})"),
            Compare::Equals(key, value) => write!(f, "Equals({key}, {} bytes)", value.len()),
        }
    }
}

/// A change of one record.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Write it.
    Put(Key, Vec<u8>),
    /// Delete it; no error if there is none.
    Delete(Key),
    /// Delete every record whose name begins so.
    DeletePrefix(Key),
}

impl core::fmt::Debug for Change {
    /// Names only: records hold wrapped keys.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Change::Put(key, value) => write!(f, "Put({key}, {} bytes)", value.len()),
            Change::Delete(key) => write!(f, "Delete({key})"),
            Change::DeletePrefix(key) => write!(f, "DeletePrefix({key})"),
        }
    }
}

/// What a transaction reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// One record.
    Record(Key),
    /// Every record whose name begins so, by name.
    Prefix(Key),
    /// The first of them by name.
    Page {
        /// How their names begin.
        prefix: Key,
        /// Only those whose names come later than this one.
        after: Option<Key>,
        /// At most so many.
        count: u32,
    },
}

/// A transaction that no facility takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too many comparisons, or too many changes and reads.
    #[error("a transaction of {found} operations, {OPERATIONS_MAX} are allowed")]
    Operations {
        /// How many.
        found: usize,
    },
    /// Too long.
    #[error("a transaction of {found} bytes, {REQUEST_BYTES_MAX} are allowed")]
    Bytes {
        /// How many.
        found: usize,
    },
    /// One record would be changed twice.
    #[error("a transaction that changes {key} twice")]
    Twice {
        /// Which.
        key: Key,
    },
    /// A record without a name.
    #[error("a transaction with an empty name or prefix")]
    Nameless,
}

impl Request {
    /// Whether every facility takes it. Both backends ask this, so that what one takes the other takes too.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn check(&self) -> Result<(), Malformed> {
        let found = self.compare.len().max(self.change.len() + self.read.len());
        if found > OPERATIONS_MAX {
            return Err(Malformed::Operations { found });
        }
        let compared = self.compare.iter().map(Compare::size_bytes).sum::<usize>();
        let found = compared + self.change.iter().map(Change::size_bytes).sum::<usize>();
        if found > REQUEST_BYTES_MAX {
            return Err(Malformed::Bytes { found });
        }
        let compared = self.compare.iter().map(Compare::key);
        let mut names = compared.chain(self.change.iter().map(Change::key)).chain(self.read.iter().map(Read::key));
        if names.any(|name| name.is_empty()) {
            return Err(Malformed::Nameless);
        }
        self.check_changes()
    }

    /// Each record is put at most once, and none that is put is deleted beside it: what would come of it differs.
    fn check_changes(&self) -> Result<(), Malformed> {
        for (at, change) in self.change.iter().enumerate() {
            let Change::Put(key, _) = change else { continue };
            let clashes = |other: &Change| match other {
                Change::Put(other, _) | Change::Delete(other) => other == key,
                Change::DeletePrefix(prefix) => key.starts_with(prefix.as_str()),
            };
            if self.change.iter().enumerate().any(|(other_at, other)| other_at != at && clashes(other)) {
                return Err(Malformed::Twice { key: key.clone() });
            }
        }
        Ok(())
    }
}

impl Compare {
    /// The record that is compared.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Compare::Absent(key) | Compare::Present(key) | Compare::Equals(key, _) => key,
        }
    }

    /// That the record is as it was read: a compare-and-swap's first half.
    #[must_use]
    pub fn unchanged(key: Key, seen: Option<Vec<u8>>) -> Compare {
        match seen {
            Some(value) => Compare::Equals(key, value),
            None => Compare::Absent(key),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Compare::Absent(key) | Compare::Present(key) => key.len(),
            Compare::Equals(key, value) => key.len() + value.len(),
        }
    }
}

impl Change {
    /// The record that is changed, or how those that are begin.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(key, _) | Change::Delete(key) | Change::DeletePrefix(key) => key,
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Change::Put(key, value) => key.len() + value.len(),
            Change::Delete(key) | Change::DeletePrefix(key) => key.len(),
        }
    }
}

impl Read {
    /// The record that is read, or how those that are begin.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Read::Record(key) | Read::Prefix(key) | Read::Page { prefix: key, .. } => key,
        }
    }
}

impl Outcome {
    /// A record that was read.
    #[must_use]
    pub fn record(&self, key: &str) -> Option<&[u8]> {
        self.records.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub outcome: Result<Outcome, Unavailable>,
}

/// A transaction was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the comparisons held and the changes are durable.
    pub is_committed: bool,
    /// What was read.
    pub records: Vec<(Key, Vec<u8>)>,
    /// The facility's revision: grows with each change. One that went back is a facility restored from a backup.
    pub revision: u64,
}

/// Nothing is known: the transaction may or may not have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coupling facility does not answer: {why}")]
pub struct Unavailable {
    /// What its client said.
    pub why: String,
}
