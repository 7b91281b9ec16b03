//! A file of ids seen through a memory map that survives the file.
//!
//! Where a mapped file is cut short, or its disk fails, the system sends SIGBUS, which ends a process. Here a handler puts
//! zeros in that place and marks the map as lost. Whoever copies from it asks afterwards, and reads by position instead:
//! that says what is wrong.
#![allow(unsafe_code)]

use memmap2::{Advice, Mmap};
use std::{
    fs::File,
    ptr,
    sync::{
        Once, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Maps that a process can have; further files are read by position.
const MAPS: usize = 4096;
/// Value of [`Slot::begin`] while a slot is being filled; no map lies there.
const TAKEN: usize = 1;
/// Bytes that are asked for before they are copied; shorter runs fault their pages in one by one.
const AHEAD: usize = 64 << 10;

/// Where a map lies, for the handler: it may only look at atomics.
struct Slot {
    /// Address of the first byte; 0 when the slot is free.
    begin: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; MAPS] =
    [const { Slot { begin: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) } };
        MAPS];

/// A mapped file.
pub(super) struct Map {
    map: Mmap,
    slot: &'static Slot,
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

impl Map {
    /// Maps a file; `None` where the system does not map it or there are too many maps.
    pub fn new(file: &File) -> Option<Map> {
        guard()?;
        // SAFETY: the bytes may change under the map; they are only ever copied through raw pointers, and what was copied
        // counts only when the file is still what was indexed.
        let map = unsafe { Mmap::map(file) }.ok()?;
        let slot = SLOTS.iter().find(|slot| {
            slot.begin.compare_exchange(0, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        slot.lost.store(false, Ordering::Relaxed);
        slot.end.store(map.as_ptr() as usize + map.len(), Ordering::Relaxed);
        slot.begin.store(map.as_ptr() as usize, Ordering::Release);
        // Rows lie anywhere: reading ahead would read what nobody asked for.
        let _ = map.advise(Advice::Random);
        Some(Map { map, slot })
    }

    /// Copies 16-bit ids that begin at `byte`; false when they are not all there.
    pub fn narrow(&self, byte: u64, out: &mut [[u8; 4]]) -> bool {
        let Some(from) = self.at(byte, out.len() * 2) else { return false };
        for (i, wide) in out.iter_mut().enumerate() {
            // SAFETY: `at` found `out.len()` ids from here on.
            let id = unsafe { ptr::read_unaligned(from.cast::<u16>().add(i)) };
            *wide = u32::from(u16::from_le(id)).to_le_bytes();
        }
        self.is_whole()
    }

    /// Copies 32-bit ids that begin at `byte`; false when they are not all there.
    pub fn wide(&self, byte: u64, out: &mut [[u8; 4]]) -> bool {
        let Some(from) = self.at(byte, out.len() * 4) else { return false };
        // SAFETY: `at` found the bytes; a map and a buffer of the caller do not overlap.
        unsafe { ptr::copy_nonoverlapping(from.cast::<[u8; 4]>(), out.as_mut_ptr(), out.len()) };
        self.is_whole()
    }

    /// Brings the first bytes of a run close, so that several runs wait for memory at once.
    pub fn touch(&self, byte: u64) {
        if let Some(from) = self.at(byte, 1) {
            // SAFETY: `at` found the byte. Volatile, or the read would be left out.
            unsafe { ptr::read_volatile(from) };
        }
    }

    fn at(&self, byte: u64, bytes: usize) -> Option<*const u8> {
        let begin = usize::try_from(byte).ok()?;
        begin.checked_add(bytes).filter(|end| *end <= self.map.len())?;
        if bytes >= AHEAD {
            let _ = self.map.advise_range(Advice::WillNeed, begin, bytes);
        }
        // SAFETY: `begin` is at most the length of the map.
        Some(unsafe { self.map.as_ptr().add(begin) })
    }

    /// Whether nothing of it was ever missing.
    fn is_whole(&self) -> bool {
        !self.slot.lost.load(Ordering::Acquire)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.slot.begin.store(0, Ordering::Release);
    }
}

/// What SIGBUS did before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler; `None` when the system refuses.
fn guard() -> Option<()> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both structures are plain data that the calls fill or read.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // Known before the handler can run.
            if libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) == 0 {
                let _ = BEFORE.set(before);
                libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
            }
        }
    });
    BEFORE.get().map(|_| ())
}

/// Puts a page of zeros where a map lost one; everything else goes to whoever had the signal before.
extern "C" fn on_bus(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info`; the calls below are plain system calls on whole pages of our own map, and
    // errno is put back. The page size is asked by a call that only reads a constant of the process.
    unsafe {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let address = (*info).si_addr() as usize;
        if let Some(slot) = slot_of(address) {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let place = (address & !(page - 1)) as *mut libc::c_void;
            // First the mark: nobody may meet the zeros without it.
            slot.lost.store(true, Ordering::Release);
            if libc::mmap(place, page, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
                *libc::__errno_location() = errno;
                return;
            }
        }
        if let Some(before) = BEFORE.get() {
            // The access is tried again on return, and now meets what was there before.
            libc::sigaction(signal, before, ptr::null_mut());
        }
    }
}

fn slot_of(address: usize) -> Option<&'static Slot> {
    SLOTS.iter().find(|slot| {
        let begin = slot.begin.load(Ordering::Acquire);
        begin > TAKEN && (begin..slot.end.load(Ordering::Relaxed)).contains(&address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn copies_what_the_file_holds() {
        let bytes: Vec<u8> = (0..=255).collect();
        let map = Map::new(&file(&bytes)).unwrap();
        let mut out = [[9; 4]; 3];
        assert!(map.narrow(1, &mut out));
        assert_eq!(out, [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 0, 0]]);
        assert!(map.wide(243, &mut out));
        assert_eq!(out, [[243, 244, 245, 246], [247, 248, 249, 250], [251, 252, 253, 254]]);
        assert!(!map.wide(245, &mut out) && !map.narrow(u64::MAX, &mut out));
        map.touch(1 << 40);
    }

    #[test]
    fn a_file_cut_short_is_told_and_not_the_end() {
        let long = vec![7; 20 << 12];
        let (cut, kept) = (file(&long), file(&long));
        let (map, other) = (Map::new(&cut).unwrap(), Map::new(&kept).unwrap());
        let mut out = [[0; 4]; 5];
        assert!(map.narrow(9 << 12, &mut out));
        cut.set_len(3 << 12).unwrap();
        assert!(!map.narrow(9 << 12, &mut out));
        map.touch(11 << 12);
        assert!(!map.wide(0, &mut out), "once lost, nothing of it counts");
        assert!(other.wide(9 << 12, &mut out));
        assert_eq!(out, [[7; 4]; 5]);
    }

    #[test]
    fn an_empty_file_has_no_ids() {
        let map = Map::new(&file(&[])).unwrap();
        assert!(!map.narrow(0, &mut [[0; 4]]) && map.narrow(0, &mut []));
    }
}
