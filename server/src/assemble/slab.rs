//! Reused memory. Fresh pages cost more than the work done on them (a blend into fresh pages took 19 times as long as
//! into reused ones), so buffers of a job go back to a shelf when the last byte of them was sent, or when a
//! device has lent its own in their place.

use crate::exec::device::{Buffer, Lent};
use bytes::Bytes;
use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedSemaphorePermit;

/// A shelf of free buffers, shared by all streams of a server.
#[derive(Clone, Debug)]
pub struct Slabs(Arc<Mutex<Shelf>>);

#[derive(Debug)]
struct Shelf {
    free: HashMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
    keep: usize,
}

impl Slabs {
    /// A shelf that keeps at most `keep` bytes of free buffers.
    pub fn new(keep: usize) -> Slabs {
        Slabs(Arc::new(Mutex::new(Shelf { free: HashMap::new(), bytes: 0, keep })))
    }

    /// A buffer of `len` bytes with any contents.
    pub fn take(&self, len: usize) -> Slab {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = shelf.free.get_mut(&len).and_then(Vec::pop);
        if memory.is_some() {
            shelf.bytes -= len;
        }
        drop(shelf);
        let memory = Memory::Own(memory.unwrap_or_else(|| vec![0; len]));
        Slab { memory, home: self.clone(), permit: None }
    }

    /// Bytes on the shelf.
    pub fn kept(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn put(&self, memory: Vec<u8>) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.bytes + memory.len() <= shelf.keep {
            shelf.bytes += memory.len();
            shelf.free.entry(memory.len()).or_default().push(memory);
        } else if shelf.free.keys().any(|len| *len != memory.len()) {
            // Another size is wanted now: what the last jobs left behind makes room.
            shelf.free.retain(|len, _| *len == memory.len());
            shelf.bytes = shelf.free.values().flatten().map(Vec::len).sum();
        }
    }
}

/// A buffer that goes back to its shelf.
#[derive(Debug)]
pub struct Slab {
    memory: Memory,
    home: Slabs,
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Memory {
    Own(Vec<u8>),
    /// What a device sent down: it leaves from where it is.
    Lent(Lent),
}

impl Slab {
    /// Keeps `permit` until the buffer is free again.
    pub fn hold(mut self, permit: OwnedSemaphorePermit) -> Slab {
        self.permit = Some(permit);
        self
    }

    /// Shares the bytes without copying; the buffer goes back when the last share is gone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Buffer for Slab {
    fn replace(&mut self, rows: Lent) {
        self.put(Memory::Lent(rows));
    }
}

impl Slab {
    /// Has `memory` in the place of its own, which goes back.
    fn put(&mut self, memory: Memory) {
        match std::mem::replace(&mut self.memory, memory) {
            Memory::Own(memory) => self.home.put(memory),
            Memory::Lent(_) => {}
        }
    }
}

impl Deref for Slab {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Own(memory) => memory,
            Memory::Lent(rows) => rows.as_ref(),
        }
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        // Lent rows may be seen by the device's library still.
        if let Memory::Lent(rows) = &self.memory {
            self.memory = Memory::Own(rows.as_ref().to_vec());
        }
        match &mut self.memory {
            Memory::Own(memory) => memory,
            Memory::Lent(_) => unreachable!("was replaced above"),
        }
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Slab {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.put(Memory::Own(Vec::new()));
        drop(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_share_is_gone() {
        let slabs = Slabs::new(100);
        let mut slab = slabs.take(40);
        slab[0] = 7;
        let bytes = slab.freeze();
        let half = bytes.slice(..20);
        drop(bytes);
        assert_eq!(slabs.kept(), 0);
        drop(half);
        assert_eq!(slabs.kept(), 40);
        let again = slabs.take(40);
        assert_eq!((again[0], slabs.kept()), (7, 0), "the same memory, not fresh pages");
    }

    #[test]
    fn lent_rows_leave_from_where_they_are_and_are_not_kept() {
        let slabs = Slabs::new(100);
        let mut slab = slabs.take(3);
        let rows = Arc::new([7u8, 8, 9]);
        slab.replace(Lent::new(Kept(rows.clone())));
        assert_eq!(slabs.kept(), 3, "its own memory is free");
        let bytes = slab.freeze();
        assert_eq!(bytes.as_ptr(), rows.as_ptr());
        let last = bytes.slice(2..);
        drop(bytes);
        assert_eq!((&last[..], Arc::strong_count(&rows)), (&[9][..], 2));
        drop(last);
        assert_eq!((slabs.kept(), Arc::strong_count(&rows)), (3, 1));
        let mut written = slabs.take(3);
        written.replace(Lent::new(Kept(rows.clone())));
        written[0] = 1;
        assert_eq!((&written[..], *rows), (&[1, 8, 9][..], [7, 8, 9]), "what is written is a copy");
    }

    struct Kept(Arc<[u8; 3]>);

    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &*self.0
        }
    }

    #[test]
    fn the_shelf_is_bounded_and_forgets_old_sizes() {
        let slabs = Slabs::new(100);
        let held: Vec<Slab> = (0..4).map(|_| slabs.take(30)).collect();
        drop(held);
        assert_eq!(slabs.kept(), 90);
        drop(slabs.take(50));
        assert!(slabs.kept() <= 100);
        drop(slabs.take(50));
        assert_eq!(slabs.kept(), 50, "the old size made room");
    }
}
