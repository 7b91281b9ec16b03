//! A store that fails as often as it is told to: for tests of those who must go on afterwards.

use super::{Shared, Store, StoreError};
use std::sync::atomic::{AtomicU32, Ordering};

/// Wraps another store.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: Shared,
    refused: AtomicU32,
    unsaid: AtomicU32,
    unread: AtomicU32,
}

impl Flaky {
    pub(crate) fn new(inner: Shared) -> Flaky {
        let none = || AtomicU32::new(0);
        Flaky { inner, refused: none(), unsaid: none(), unread: none() }
    }

    /// The next `n` writes fail and change nothing: the disk is full.
    pub(crate) fn refuse(&self, n: u32) {
        self.refused.store(n, Ordering::SeqCst);
    }

    /// The next `n` writes get there, but an error is answered.
    pub(crate) fn unsay(&self, n: u32) {
        self.unsaid.store(n, Ordering::SeqCst);
    }

    /// The next `n` reads fail.
    pub(crate) fn blind(&self, n: u32) {
        self.unread.store(n, Ordering::SeqCst);
    }

    fn fails(left: &AtomicU32) -> Result<(), StoreError> {
        let took = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match took {
            Ok(_) => Err(StoreError::Io { path: "flaky".into(), why: "no space left on device".into() }),
            Err(_) => Ok(()),
        }
    }

    fn write<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        Flaky::fails(&self.refused)?;
        let done = write()?;
        Flaky::fails(&self.unsaid)?;
        Ok(done)
    }
}

impl Store for Flaky {
    fn append(&self, key: &str, expected: u64, records: &[Vec<u8>]) -> Result<u64, StoreError> {
        self.write(|| self.inner.append(key, expected, records))
    }

    fn read(&self, key: &str, from: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        Flaky::fails(&self.unread)?;
        self.inner.read(key, from, most)
    }

    fn len(&self, key: &str) -> Result<u64, StoreError> {
        Flaky::fails(&self.unread)?;
        self.inner.len(key)
    }

    fn put_snapshot(&self, key: &str, at: u64, state: &[u8]) -> Result<(), StoreError> {
        self.write(|| self.inner.put_snapshot(key, at, state))
    }

    fn snapshot(&self, key: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        Flaky::fails(&self.unread)?;
        self.inner.snapshot(key)
    }

    fn keys(&self) -> Result<Vec<String>, StoreError> {
        self.inner.keys()
    }

    fn forget(&self, key: &str) -> Result<(), StoreError> {
        self.write(|| self.inner.forget(key))
    }
}
