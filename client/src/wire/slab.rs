//! Memory of batches. A slab goes back to its pool when the batch is dropped, so that a steady stream touches the same
//! pages again and again.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Alignment of every tensor's first byte: a cache line, and enough for any SIMD load.
pub(crate) const ALIGN: usize = 64;

/// Slabs that are kept: one being filled, one handed over, one in use, one to spare.
const KEEP: usize = 4;

/// Slabs above this size are rounded up to an eighth of their power of two: ragged batches are never equally long, and each
/// one that is the longest so far would have all memory taken anew.
const ROUGH: usize = 1 << 20;

/// Recycles slabs of one stream.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

/// `len` bytes from a 64-byte border on.
pub(crate) struct Slab {
    /// Longer than `len`, so that a border lies within; never resized while it lives.
    memory: Vec<u8>,
    start: usize,
    len: usize,
    pool: Weak<Pool>,
}

impl fmt::Debug for Slab {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Slab").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Pool {
    /// A slab of `len` bytes with arbitrary content. A new one is address space first; pages come when written.
    pub(crate) fn get(self: &Arc<Self>, len: usize) -> Slab {
        let want = rounded(len + ALIGN);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = match free.iter().position(|memory| memory.len() >= want) {
            Some(index) => free.swap_remove(index),
            None => {
                // Batches have grown: the small slabs will not be wanted again.
                free.clear();
                vec![0; want]
            }
        };
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Slab { memory, start, len, pool: Arc::downgrade(self) }
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.free.lock().expect("no panic while locked").iter().map(Vec::len).sum()
    }
}

fn rounded(bytes: usize) -> usize {
    if bytes < ROUGH { bytes } else { bytes.next_multiple_of(bytes.next_power_of_two() / 8) }
}

impl Slab {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
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

    #[test]
    fn a_batch_that_is_a_little_longer_fits_too() {
        let pool = Arc::new(Pool::default());
        let address = pool.get(3 << 20).bytes().as_ptr();
        assert_eq!(pool.get((3 << 20) + 100_000).bytes().as_ptr(), address);
        assert_eq!(pool.free_bytes(), (7 << 20) / 2, "the next eighth of 4 MiB");
    }

    #[test]
    fn pool_keeps_a_bounded_number_and_forgets_small_ones() {
        let pool = Arc::new(Pool::default());
        let slabs: Vec<_> = (0..9).map(|_| pool.get(100)).collect();
        drop(slabs);
        assert_eq!(pool.free_bytes(), KEEP * (100 + ALIGN));
        drop(pool.get(1000));
        assert_eq!(pool.free_bytes(), 1000 + ALIGN);
        let orphan = pool.get(10);
        drop(pool);
        assert_eq!(orphan.bytes().len(), 10);
    }
}
