//! Memory promised to streams: a server takes a reader only when it can keep the promise.

use crate::metrics;
use std::sync::{Arc, Mutex, PoisonError};

/// Part of what is left that one stream may be promised.
const SHARE: usize = 8;

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

    /// Most bytes that may be promised.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Promises `wanted` bytes, but not more than an eighth of what is left, so that later streams find room too; never
    /// less than `least`.
    ///
    /// # Errors
    /// [`OutOfMemory`] when less than `least` is left.
    pub fn reserve(&self, wanted: usize, least: usize) -> Result<Reservation, OutOfMemory> {
        let mut promised = self.0.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.0.limit - *promised;
        if left < least {
            return Err(OutOfMemory { promised: *promised, limit: self.0.limit, needed: least });
        }
        let bytes = wanted.min(left / SHARE).max(least);
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
        let memory = Memory::new(800);
        let wanted: Vec<Reservation> = (0..20).map_while(|_| memory.reserve(60, 50).ok()).collect();
        let bytes: Vec<usize> = wanted.iter().map(Reservation::bytes).collect();
        assert_eq!(bytes[..8], [60, 60, 60, 60, 60, 60, 55, 50]);
        assert_eq!((bytes.len(), memory.promised()), (14, 765));
        let refused = OutOfMemory { promised: 765, limit: 800, needed: 50 };
        assert_eq!(memory.reserve(60, 50).unwrap_err(), refused);
        drop(wanted);
        assert_eq!(memory.promised(), 0);
    }
}
