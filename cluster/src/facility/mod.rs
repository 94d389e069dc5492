//! The coupling facility as the cluster speaks to it: one kind of request, one kind of reply.
//!
//! A [`Request`] is a transaction over small records: compared, changed and read as one step. Whoever serves it (a file
//! store, etcd) knows nothing of what the records mean.

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// There is no such record.
    Absent(Key),
    /// The record is exactly this.
    Equals(Key, Vec<u8>),
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
