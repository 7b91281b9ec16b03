//! Memory of batches that a CUDA device copies from directly.
#![allow(unsafe_code)] // two functions of the CUDA runtime

use mixfeed_client::Pages;
use std::{
    collections::BTreeSet,
    ffi::{c_int, c_uint, c_void},
    fmt,
    sync::{Mutex, PoisonError},
};

/// `cudaHostRegister(pointer, bytes, flags)`.
type Register = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int;
/// `cudaHostUnregister(pointer)`.
type Unregister = unsafe extern "C" fn(*mut c_void) -> c_int;

/// Every context of the process may copy from it: `cudaHostRegisterPortable`.
const PORTABLE: c_uint = 1;
/// Smaller pieces share pages with other things, and pages are registered once.
const LEAST: usize = 1 << 20;

/// Registers memory with the CUDA runtime that the process has loaded already, which is torch's.
pub struct Pinned {
    register: Register,
    unregister: Unregister,
    /// Addresses that were registered: others must not be unregistered.
    done: Mutex<BTreeSet<usize>>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl Pinned {
    /// From the addresses of the runtime's `cudaHostRegister` and `cudaHostUnregister`, which `mixfeed/cuda.py` looked up in
    /// a library that it never unloads.
    pub fn of((register, unregister): (usize, usize)) -> Self {
        let register = std::ptr::with_exposed_provenance::<c_void>(register);
        let unregister = std::ptr::with_exposed_provenance::<c_void>(unregister);
        // SAFETY: `mixfeed/cuda.py` is the only caller, and these are the signatures of the functions that it looks up.
        unsafe {
            Pinned {
                register: std::mem::transmute::<*const c_void, Register>(register),
                unregister: std::mem::transmute::<*const c_void, Unregister>(unregister),
                done: Mutex::default(),
            }
        }
    }
}

impl Pages for Pinned {
    fn adopt(&self, memory: &mut [u8]) {
        if memory.len() < LEAST {
            return;
        }
        // SAFETY: the memory is ours and stays where it is until `release`. The runtime is thread-safe.
        let failed = unsafe { (self.register)(memory.as_mut_ptr().cast(), memory.len(), PORTABLE) };
        if failed == 0 {
            // What was not registered is copied as any other memory: slower, and not wrong.
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(memory.as_ptr().addr());
        }
    }

    fn release(&self, memory: &mut [u8]) {
        if self.done.lock().unwrap_or_else(PoisonError::into_inner).remove(&memory.as_ptr().addr()) {
            // SAFETY: it was registered in `adopt`, and only once.
            unsafe { (self.unregister)(memory.as_mut_ptr().cast()) };
        }
    }
}
