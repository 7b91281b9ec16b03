//! Memory of batches. A slab goes back to its pool when the batch is dropped, so that a steady stream touches the same
//! pages again and again.

use crate::Pages;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Alignment of every tensor's first byte: a cache line, and enough for any SIMD load.
pub(crate) const ALIGN: usize = 64;

/// Border and multiple of memory that `Pages` are told about. No page holds parts of two such pieces: a page is pinned once.
/// The largest page of the systems that have devices.
const PAGE: usize = 64 << 10;

/// Slabs that are kept: one being filled, one handed over, one in use, one to spare.
const KEEP: usize = 4;

/// Slabs above this size are rounded up to an eighth of their power of two: ragged batches are never equally long, and each
/// one that is the longest so far would have all memory taken anew.
const ROUGH: usize = 1 << 20;

/// Recycles slabs of one stream.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Memory>>,
    pages: Option<Arc<dyn Pages>>,
}

/// Memory that somebody may have to be told about.
#[derive(Default)]
struct Memory {
    /// Never resized while it lives.
    bytes: Vec<u8>,
    /// First byte that is used.
    start: usize,
    /// Bytes from there on; whole pages where somebody is told.
    len: usize,
    pages: Option<Arc<dyn Pages>>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Memory").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Memory {
    /// At least `len` bytes from a border on.
    fn new(len: usize, pages: Option<Arc<dyn Pages>>) -> Self {
        let (border, len) = match &pages {
            Some(_) => (PAGE, len.next_multiple_of(PAGE)),
            None => (ALIGN, len),
        };
        let mut bytes = vec![0; len + border];
        let start = bytes.as_ptr().align_offset(border).min(border);
        if let Some(pages) = &pages {
            pages.adopt(&mut bytes[start..start + len]);
        }
        Memory { bytes, start, len, pages }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(pages) = &self.pages {
            pages.release(&mut self.bytes[self.start..self.start + self.len]);
        }
    }
}

/// `len` bytes from a 64-byte border on.
pub(crate) struct Slab {
    /// At least `len` bytes.
    memory: Memory,
    len: usize,
    pool: Weak<Pool>,
}

impl fmt::Debug for Slab {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Slab").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool whose memory `pages` are told about.
    pub(crate) fn new(pages: Option<Arc<dyn Pages>>) -> Self {
        Pool { free: Mutex::default(), pages }
    }

    /// A slab of `len` bytes with arbitrary content. A new one is address space first; pages come when written.
    pub(crate) fn get(self: &Arc<Self>, len: usize) -> Slab {
        let want = rounded(len);
        let (kept, small) = self.look(want);
        // Given back and taken outside of the lock: the system may need a while for both.
        drop(small);
        let memory = kept.unwrap_or_else(|| Memory::new(want, self.pages.clone()));
        Slab { memory, len, pool: Arc::downgrade(self) }
    }

    /// A free slab of at least `want` bytes. Without one batches have grown: the small slabs will not be wanted again.
    fn look(&self, want: usize) -> (Option<Memory>, Vec<Memory>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match free.iter().position(|memory| memory.len >= want) {
            Some(index) => (Some(free.swap_remove(index)), Vec::new()),
            None => (None, std::mem::take(&mut *free)),
        }
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.lock().expect("no panic while locked").iter().map(|memory| memory.len).sum()
    }
}

fn rounded(bytes: usize) -> usize {
    if bytes < ROUGH { bytes } else { bytes.next_multiple_of(bytes.next_power_of_two() / 8) }
}

impl Slab {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory.bytes[self.memory.start..][..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[self.memory.start..][..self.len]
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEEP {
            free.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_comes_back() {
        let pool = Arc::new(Pool::default());
        for len in [0, 1, 63, 4097] {
            assert_eq!(pool.get(len).bytes().as_ptr() as usize % ALIGN, 0);
            assert_eq!(pool.get(len).bytes().len(), len);
        }
        let mut first = pool.get(5000);
        first.bytes_mut().fill(7);
        let address = first.bytes().as_ptr();
        drop(first);
        assert_eq!(pool.get(4000).bytes().as_ptr(), address);
    }

    /// Bytes that were taken and are not released.
    #[derive(Debug, Default)]
    struct Count(Mutex<usize>);

    impl Pages for Count {
        fn adopt(&self, memory: &mut [u8]) {
            assert!(memory.as_ptr().addr().is_multiple_of(PAGE) && memory.len().is_multiple_of(PAGE));
            *self.0.lock().expect("no panic while locked") += memory.len();
        }
        fn release(&self, memory: &mut [u8]) {
            *self.0.lock().expect("no panic while locked") -= memory.len();
        }
    }

    #[test]
    fn memory_is_told_of_once_and_released_when_it_is_gone() {
        let count = Arc::new(Count::default());
        let told = || *count.0.lock().expect("no panic while locked");
        let pool = Arc::new(Pool::new(Some(count.clone())));
        drop(pool.get(5000));
        let again = pool.get(5000);
        assert_eq!(told(), PAGE);
        drop(pool);
        assert_eq!(again.bytes().len(), 5000);
        assert_eq!(told(), PAGE, "a batch that outlives its stream keeps its memory");
        drop(again);
        assert_eq!(told(), 0);
    }

    #[test]
    fn a_batch_that_is_a_little_longer_fits_too() {
        let pool = Arc::new(Pool::default());
        let address = pool.get((3 << 20) + 1).bytes().as_ptr();
        assert_eq!(pool.get((3 << 20) + 100_000).bytes().as_ptr(), address);
        assert_eq!(pool.free_bytes(), (7 << 20) / 2, "the next eighth of 4 MiB");
    }

    #[test]
    fn pool_keeps_a_bounded_number_and_forgets_small_ones() {
        let pool = Arc::new(Pool::default());
        let slabs: Vec<_> = (0..9).map(|_| pool.get(100)).collect();
        drop(slabs);
        assert_eq!(pool.free_bytes(), KEEP * 100);
        drop(pool.get(1000));
        assert_eq!(pool.free_bytes(), 1000);
        let orphan = pool.get(10);
        drop(pool);
        assert_eq!(orphan.bytes().len(), 10);
    }
}
