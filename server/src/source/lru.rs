//! A bounded store of things that were used last: open files, decoded rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps the values used last, up to a total weight.
pub(super) struct Lru<T> {
    limit: u64,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    clock: u64,
    weight: u64,
    kept: HashMap<u32, Kept<T>>,
}

struct Kept<T> {
    used: u64,
    weight: u64,
    value: Arc<T>,
}

impl<T> std::fmt::Debug for Lru<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lru").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<T> Lru<T> {
    /// Keeps values of at most `limit` weight together.
    pub fn new(limit: u64) -> Lru<T> {
        Lru { limit, inner: Mutex::new(Inner { clock: 0, weight: 0, kept: HashMap::new() }) }
    }

    /// The value of `key`, made with its weight when it is not kept. Made outside the lock, so two threads may make it
    /// at once; the later one is kept.
    pub fn get<E>(&self, key: u32, make: impl FnOnce() -> Result<(T, u64), E>) -> Result<Arc<T>, E> {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.clock += 1;
            let now = inner.clock;
            if let Some(kept) = inner.kept.get_mut(&key) {
                kept.used = now;
                return Ok(kept.value.clone());
            }
        }
        let (value, weight) = make()?;
        let value = Arc::new(value);
        if weight <= self.limit {
            self.keep(key, value.clone(), weight);
        }
        Ok(value)
    }

    fn keep(&self, key: u32, value: Arc<T>, weight: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let used = inner.clock;
        if let Some(old) = inner.kept.insert(key, Kept { used, weight, value }) {
            inner.weight -= old.weight;
        }
        inner.weight += weight;
        while inner.weight > self.limit {
            // A scan: there are hundreds of files or blocks, and making one costs far more than this.
            let oldest = inner.kept.iter().filter(|(k, _)| **k != key).min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(k, _)| *k) else { break };
            if let Some(gone) = inner.kept.remove(&oldest) {
                inner.weight -= gone.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn made(lru: &Lru<u32>, key: u32, weight: u64) -> bool {
        let mut made = false;
        let value = lru.get(key, || {
            made = true;
            Ok::<_, Infallible>((key * 10, weight))
        });
        assert_eq!(*value.expect("infallible"), key * 10);
        made
    }

    #[test]
    fn the_oldest_go_when_the_limit_is_passed() {
        let lru = Lru::new(3);
        assert!(made(&lru, 1, 1) && made(&lru, 2, 1) && made(&lru, 3, 1));
        assert!(!made(&lru, 1, 1));
        assert!(made(&lru, 4, 1), "4 is new and drives 2 out");
        assert!(!made(&lru, 1, 1) && !made(&lru, 3, 1));
        assert!(made(&lru, 2, 1));
    }

    #[test]
    fn what_is_over_the_limit_is_made_but_not_kept() {
        let lru = Lru::new(3);
        assert!(made(&lru, 1, 2) && made(&lru, 2, 4) && made(&lru, 2, 4));
        assert!(!made(&lru, 1, 2), "and drives nothing out");
    }
}
