//! State that ends with the process: for tests and demonstrations.

use super::{Store, StoreError};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryStore(Mutex<BTreeMap<String, Held>>);

/// What a key holds.
#[derive(Debug, Default)]
struct Held {
    records: Vec<Vec<u8>>,
    snapshot: Option<(u64, Vec<u8>)>,
}

impl MemoryStore {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        // No change stops half way, so what a panic elsewhere left is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn append(&self, key: &str, expected: u64, records: &[Vec<u8>]) -> Result<u64, StoreError> {
        let mut held = self.held();
        let found = held.get(key).map_or(0, |held| held.records.len() as u64);
        if found != expected {
            return Err(StoreError::Conflict { expected, found });
        }
        if !records.is_empty() {
            held.entry(key.into()).or_default().records.extend_from_slice(records);
        }
        Ok(found + records.len() as u64)
    }

    fn read(&self, key: &str, from: u64, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let held = self.held();
        let records = held.get(key).into_iter().flat_map(|held| held.records.iter().skip(from).take(most));
        Ok(records.cloned().collect())
    }

    fn len(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.held().get(key).map_or(0, |held| held.records.len() as u64))
    }

    fn put_snapshot(&self, key: &str, at: u64, state: &[u8]) -> Result<(), StoreError> {
        self.held().entry(key.into()).or_default().snapshot = Some((at, state.into()));
        Ok(())
    }

    fn snapshot(&self, key: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        Ok(self.held().get(key).and_then(|held| held.snapshot.clone()))
    }

    fn keys(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.held().keys().cloned().collect())
    }

    fn forget(&self, key: &str) -> Result<(), StoreError> {
        self.held().remove(key);
        Ok(())
    }
}
