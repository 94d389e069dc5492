//! The embedded store: one durable file, for one appliance.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cluster::facility::{Change, Compare, Key, Outcome, Read, Request};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableTable, TableDefinition};

use crate::file::{at, make_directory, sync_directory};
use crate::settings::StartError;
use crate::worker::Store;

/// Its name in the state directory.
const FILE: &str = "facility.redb";

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";

/// Memory for what was read lately; the records are few.
const CACHE_BYTES: usize = 4 << 20;

/// The store, locked for as long as it is open.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// Gone after a failure of the disk, and opened anew.
    database: Option<Database>,
}

impl Embedded {
    /// Opens the store in this directory, or begins a new one there.
    pub fn open(directory: &Path) -> Result<Embedded, StartError> {
        make_directory(directory)?;
        let path = directory.join(FILE);
        let database = open(&path)?;
        sync_directory(directory)?;
        Ok(Embedded { path, database: Some(database) })
    }

    fn execute(&mut self, request: &Request) -> Result<Outcome, String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path).map_err(|error| error.to_string())?,
        };
        let outcome = transact(&database, request).map_err(|error| format!("{}: {error}", self.path.display()))?;
        // After an error its library trusts the file no more; only what works is kept open.
        self.database = Some(database);
        Ok(outcome)
    }
}

impl Store for Embedded {
    async fn execute(&mut self, request: &Request) -> Result<Outcome, String> {
        Embedded::execute(self, request)
    }

    fn gave_up(&mut self) {}
}

fn open(path: &Path) -> Result<Database, StartError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(at(path, "opening it"))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(at(path, "closing it to others"))?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    let opened = FileBackend::new(file).and_then(|backend| builder.create_with_backend(backend));
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StartError::Locked { path: path.to_owned() }
        }
        other => StartError::Store { path: path.to_owned(), why: other.to_string() },
    })
}

fn transact(database: &Database, request: &Request) -> Result<Outcome, redb::Error> {
    let transaction = database.begin_write()?;
    let (is_committed, records, revision);
    {
        let mut table = transaction.open_table(RECORDS)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut now = numbers.get(REVISION)?.map_or(0, |revision| revision.value());
        is_committed = holds(&table, &request.compare)?;
        if is_committed && !request.change.is_empty() {
            for change in &request.change {
                make(&mut table, change)?;
            }
            now += 1;
            numbers.insert(REVISION, now)?;
        }
        revision = now;
        records = read_all(&table, &request.read)?;
    }
    if is_committed && !request.change.is_empty() {
        // Durable before it returns.
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(Outcome { is_committed, records, revision })
}

type Table<'a> = redb::Table<'a, &'static str, &'static [u8]>;

fn holds(table: &Table<'_>, compares: &[Compare]) -> Result<bool, redb::Error> {
    for compare in compares {
        let held = table.get(compare.key().as_str())?;
        let is_so = match compare {
            Compare::Absent(_) => held.is_none(),
            Compare::Present(_) => held.is_some(),
            Compare::Equals(_, value) => held.is_some_and(|held| held.value() == value.as_slice()),
        };
        if !is_so {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make(table: &mut Table<'_>, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put(key, value) => _ = table.insert(key.as_str(), value.as_slice())?,
        Change::Delete(key) => _ = table.remove(key.as_str())?,
        Change::DeletePrefix(prefix) => {
            for (key, _) in after(table, prefix, None, u32::MAX)? {
                table.remove(key.as_str())?;
            }
        }
    }
    Ok(())
}

fn read_all(table: &Table<'_>, reads: &[Read]) -> Result<Vec<(Key, Vec<u8>)>, redb::Error> {
    let mut records = Vec::new();
    for read in reads {
        match read {
            Read::Record(key) => {
                let held = table.get(key.as_str())?;
                records.extend(held.map(|held| (key.clone(), held.value().to_vec())));
            }
            Read::Prefix(prefix) => records.extend(after(table, prefix, None, u32::MAX)?),
            Read::Page { prefix, after: last, count } => {
                records.extend(after(table, prefix, last.as_deref(), *count)?);
            }
        }
    }
    Ok(records)
}

fn after(table: &Table<'_>, prefix: &str, last: Option<&str>, count: u32) -> Result<Vec<(Key, Vec<u8>)>, redb::Error> {
    let from = last.filter(|last| *last >= prefix).unwrap_or(prefix);
    let mut records = Vec::new();
    for entry in table.range(from..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(prefix) || records.len() as u64 == u64::from(count) {
            break;
        }
        if Some(key.value()) != last {
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
    }
    Ok(records)
}
