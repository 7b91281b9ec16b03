//! What must outlive the process: per job an ordered list of records and one snapshot. Never batches.
//!
//! The keeper appends a record before it answers; after a restart it folds the records that follow the snapshot. A
//! store is shared by one server process (a second one is refused); a fleet's store comes later behind the same trait.

mod file;
#[cfg(test)]
pub(crate) mod flaky;
mod memory;

use std::path::Path;
use std::sync::Arc;

/// A store that cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "state at `{path}` is in use by another server; servers that share jobs need a fleet store (etcd)"
    )]
    InUse {
        /// Where it is.
        path: String,
    },
    /// The system failed.
    #[error("state at `{path}`: {why}")]
    Io {
        /// Where it is.
        path: String,
        /// What it says.
        why: String,
    },
    /// Somebody else appended meanwhile.
    #[error("the log has {found} records, this server expected {expected}")]
    Conflict {
        /// Records that the caller knew of.
        expected: u64,
        /// Records that there are.
        found: u64,
    },
    /// What is there cannot be understood.
    #[error("state at `{path}` is damaged: {why}")]
    Damaged {
        /// Where it is.
        path: String,
        /// What is wrong and what was expected.
        why: String,
    },
}

/// Durable state by key (a job's name and digest). Every method blocks until it is done; an append is on disk when it
/// returns.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Appends `records` if `key` holds `expected` of them (a missing key holds 0), all or none; returns the new number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it holds another number.
    fn append(&self, key: &str, expected: u64, records: &[Vec<u8>]) -> Result<u64, StoreError>;

    /// Records from number `from` on (from 0), at most `most`, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&self, key: &str, from: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Number of records.
    ///
    /// # Errors
    /// [`StoreError`].
    fn len(&self, key: &str) -> Result<u64, StoreError>;

    /// Replaces the snapshot of `key`: the state after its first `at` records.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put_snapshot(&self, key: &str, at: u64, state: &[u8]) -> Result<(), StoreError>;

    /// The last snapshot with the number of records it covers.
    ///
    /// # Errors
    /// [`StoreError`].
    fn snapshot(&self, key: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError>;

    /// Keys that hold records or a snapshot, sorted.
    ///
    /// # Errors
    /// [`StoreError`].
    fn keys(&self) -> Result<Vec<String>, StoreError>;

    /// Forgets `key`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn forget(&self, key: &str) -> Result<(), StoreError>;
}

/// A store as rooms share it.
pub type Shared = Arc<dyn Store>;

/// Opens the store in the folder `path`; makes both when they are missing.
///
/// # Errors
/// [`StoreError::InUse`] when another process has it open, [`StoreError::Damaged`] when its file cannot be understood,
/// [`StoreError::Io`] when the system refuses.
pub fn open(path: &Path) -> Result<Shared, StoreError> {
    Ok(Arc::new(file::FileStore::open(path)?))
}

/// An empty store that ends with the process: for tests and demonstrations.
pub fn memory() -> Shared {
    Arc::new(memory::MemoryStore::default())
}

#[cfg(test)]
mod conformance;
