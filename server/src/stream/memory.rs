//! Memory promised to streams: a server takes a reader only when it can keep the promise.

use crate::metrics;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that may be promised.
#[derive(Clone, Debug)]
pub struct Memory(Arc<State>);

#[derive(Debug)]
struct State {
    limit: usize,
    promised: Mutex<usize>,
}

/// No room for another stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{promised} of {limit} bytes are promised to other streams, this one needs at least {needed}")]
pub struct OutOfMemory {
    /// Bytes promised.
    pub promised: usize,
    /// Limit of the server.
    pub limit: usize,
    /// Least that was asked for.
    pub needed: usize,
}

impl Memory {
    /// `limit` bytes.
    pub fn new(limit: usize) -> Memory {
        metrics::memory(0, limit as u64);
        Memory(Arc::new(State { limit, promised: Mutex::new(0) }))
    }

    /// Bytes promised at the moment.
    pub fn promised(&self) -> usize {
        *self.0.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises `wanted` bytes, or as much as is left but not below `least`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when less than `least` is left.
    pub fn reserve(&self, wanted: usize, least: usize) -> Result<Reservation, OutOfMemory> {
        let mut promised = self.0.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.0.limit - *promised;
        if left < least {
            return Err(OutOfMemory { promised: *promised, limit: self.0.limit, needed: least });
        }
        let bytes = wanted.max(least).min(left);
        *promised += bytes;
        metrics::memory(*promised as u64, self.0.limit as u64);
        Ok(Reservation { memory: self.clone(), bytes })
    }
}

/// A promise; kept until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Memory,
    bytes: usize,
}

impl Reservation {
    /// Bytes promised.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut promised = self.memory.0.promised.lock().unwrap_or_else(PoisonError::into_inner);
        *promised -= self.bytes;
        metrics::memory(*promised as u64, self.memory.0.limit as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_shrink_before_they_are_refused() {
        let memory = Memory::new(100);
        let first = memory.reserve(60, 10).unwrap();
        let second = memory.reserve(60, 10).unwrap();
        assert_eq!((first.bytes(), second.bytes()), (60, 40));
        assert_eq!(
            memory.reserve(60, 10).unwrap_err(),
            OutOfMemory { promised: 100, limit: 100, needed: 10 }
        );
        drop(first);
        assert_eq!(memory.reserve(5, 10).unwrap().bytes(), 10);
    }
}
