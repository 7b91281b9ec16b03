//! State in one file of a folder, by redb: a B-tree that is copied on write and checksummed page by page.
//!
//! Tables: keys to (number, records), (number, n) to the n-th record, number to snapshot. Every change is one
//! transaction that is on disk when it returns. The whole file is checked when it is opened; the system's lock on it keeps
//! a second process out.

use super::{Store, StoreError};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Name of the file in its folder.
const NAME: &str = "mixfeed.redb";
/// Layout of the tables.
const FORMAT: u64 = 1;
/// Bytes of pages kept in memory.
const CACHE: usize = 16 << 20;

/// "format" and "next", the number of the next new key.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
/// Number of a key and how many records it holds.
const KEYS: TableDefinition<&str, (u64, u64)> = TableDefinition::new("keys");
const RECORDS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("records");
/// Records covered and the state after them.
const SNAPSHOTS: TableDefinition<u64, (u64, &[u8])> = TableDefinition::new("snapshots");

/// A store in a file.
#[derive(Debug)]
pub(super) struct FileStore {
    path: PathBuf,
    database: Database,
}

impl FileStore {
    /// Opens the store in `folder`; makes both when they are missing.
    pub(super) fn open(folder: &Path) -> Result<FileStore, StoreError> {
        let path = folder.join(NAME);
        let system = |error: std::io::Error| failed(&path, error);
        fs::create_dir_all(folder).map_err(system)?;
        let new = match fs::metadata(&path) {
            Ok(there) if there.len() == 0 => {
                return Err(damaged(&path, "the file is empty, want a database"));
            }
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(system(error)),
        };
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(!new);
        let opened = if new { builder.create(&path) } else { builder.open(&path) };
        let database = opened.map_err(|error| failed(&path, error))?;
        let store = FileStore { path, database };
        if new {
            store.write(|transaction| {
                transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
                transaction.open_table(KEYS)?;
                transaction.open_table(RECORDS)?;
                transaction.open_table(SNAPSHOTS)?;
                Ok(())
            })?;
            // The name of a new file is durable when its folder is.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&store.path, e))?;
        }
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let format = self.ask(|read| Ok(read.open_table(ABOUT)?.get("format")?.map(|f| f.value())))?;
        if format == Some(FORMAT) {
            return Ok(());
        }
        let found = format.map_or("none".into(), |f| f.to_string());
        Err(damaged(&self.path, &format!("its format is {found}, this build reads {FORMAT}")))
    }

    /// One transaction, on disk when this returns.
    fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Refused>,
    ) -> Result<T, StoreError> {
        let run = || {
            let transaction = self.database.begin_write()?;
            let out = change(&transaction)?;
            transaction.commit()?;
            Ok(out)
        };
        run().map_err(|refused| self.refused(refused))
    }

    /// One consistent view.
    fn ask<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || look(&self.database.begin_read()?);
        run().map_err(|error| failed(&self.path, error))
    }

    fn refused(&self, refused: Refused) -> StoreError {
        match refused {
            Refused::Store(error) => error,
            Refused::Database(error) => failed(&self.path, error),
        }
    }
}

impl Store for FileStore {
    fn append(&self, key: &str, expected: u64, records: &[Vec<u8>]) -> Result<u64, StoreError> {
        self.write(|transaction| {
            let mut keys = transaction.open_table(KEYS)?;
            let held = keys.get(key)?.map(|row| row.value());
            let found = held.map_or(0, |(_, records)| records);
            if found != expected {
                return Err(StoreError::Conflict { expected, found }.into());
            }
            if records.is_empty() {
                return Ok(found);
            }
            let number = number(transaction, held)?;
            let mut table = transaction.open_table(RECORDS)?;
            for (n, record) in (found..).zip(records) {
                table.insert((number, n), record.as_slice())?;
            }
            let now = found + records.len() as u64;
            keys.insert(key, (number, now))?;
            Ok(now)
        })
    }

    fn read(&self, key: &str, from: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.ask(|read| {
            let Some(row) = read.open_table(KEYS)?.get(key)? else { return Ok(Vec::new()) };
            let (number, records) = row.value();
            let until = from.saturating_add(most as u64).min(records).max(from);
            let table = read.open_table(RECORDS)?;
            let rows = table.range((number, from)..(number, until))?;
            rows.map(|row| Ok(row?.1.value().to_vec())).collect()
        })
    }

    fn len(&self, key: &str) -> Result<u64, StoreError> {
        self.ask(|read| Ok(read.open_table(KEYS)?.get(key)?.map_or(0, |row| row.value().1)))
    }

    fn put_snapshot(&self, key: &str, at: u64, state: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut keys = transaction.open_table(KEYS)?;
            let held = keys.get(key)?.map(|row| row.value());
            let number = number(transaction, held)?;
            keys.insert(key, (number, held.map_or(0, |(_, records)| records)))?;
            transaction.open_table(SNAPSHOTS)?.insert(number, (at, state))?;
            Ok(())
        })
    }

    fn snapshot(&self, key: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.ask(|read| {
            let Some(row) = read.open_table(KEYS)?.get(key)? else { return Ok(None) };
            let table = read.open_table(SNAPSHOTS)?;
            let found = table.get(row.value().0)?;
            Ok(found.map(|row| (row.value().0, row.value().1.to_vec())))
        })
    }

    fn keys(&self) -> Result<Vec<String>, StoreError> {
        self.ask(|read| {
            let table = read.open_table(KEYS)?;
            table.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect()
        })
    }

    fn forget(&self, key: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            let held = transaction.open_table(KEYS)?.remove(key)?.map(|row| row.value());
            let Some((number, _)) = held else { return Ok(()) };
            let mut table = transaction.open_table(RECORDS)?;
            table.retain_in((number, 0)..=(number, u64::MAX), |_, _| false)?;
            transaction.open_table(SNAPSHOTS)?.remove(number)?;
            Ok(())
        })
    }
}

/// The number of a key: the one that it holds, or a new one.
fn number(transaction: &WriteTransaction, held: Option<(u64, u64)>) -> Result<u64, redb::Error> {
    if let Some((number, _)) = held {
        return Ok(number);
    }
    let mut about: Table<&str, u64> = transaction.open_table(ABOUT)?;
    let next = about.get("next")?.map_or(0, |row| row.value());
    about.insert("next", next + 1)?;
    Ok(next)
}

/// Why a transaction was given up.
enum Refused {
    Store(StoreError),
    Database(redb::Error),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused::Store(error)
    }
}

impl<E: Into<redb::Error>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Database(error.into())
    }
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), why: why.into() }
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    use redb::Error as E;
    let error = error.into();
    if matches!(error, E::DatabaseAlreadyOpen | E::LockProtocolMismatch) {
        return StoreError::InUse { path: path.display().to_string() };
    }
    let broken = [ErrorKind::InvalidData, ErrorKind::UnexpectedEof];
    let foreign = matches!(
        error,
        E::Corrupted(_)
            | E::UpgradeRequired(_)
            | E::TableTypeMismatch { .. }
            | E::TableIsMultimap(_)
            | E::TypeDefinitionChanged { .. }
            | E::TableDoesNotExist(_)
    );
    if foreign || matches!(&error, E::Io(io) if broken.contains(&io.kind())) {
        return damaged(path, &error.to_string());
    }
    StoreError::Io { path: path.display().to_string(), why: error.to_string() }
}
