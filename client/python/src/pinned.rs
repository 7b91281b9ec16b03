//! Memory of batches that a CUDA device copies from directly.
#![allow(unsafe_code)] // three functions of the CUDA runtime

use mixfeed_client::Pages;
use pyo3::prelude::*;
use std::{
    collections::BTreeSet,
    ffi::{c_int, c_uint, c_void},
    fmt, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// `cudaHostRegister(pointer, bytes, flags)`.
type Register = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int;
/// `cudaHostUnregister(pointer)`.
type Unregister = unsafe extern "C" fn(*mut c_void) -> c_int;
/// `cudaSetDevice(device)`.
type SetDevice = unsafe extern "C" fn(c_int) -> c_int;

/// Every context of the process may copy from it: `cudaHostRegisterPortable`.
const PORTABLE: c_uint = 1;
/// Stands for an error of the runtime where a thread was lost.
const LOST: c_int = -1;
/// Smaller pieces are copied as fast as they are.
const LEAST: usize = 1 << 20;

/// Registers memory with the CUDA runtime that the process has loaded already, which is torch's.
pub struct Pinned {
    register: Register,
    unregister: Unregister,
    set_device: SetDevice,
    /// The trainer's device.
    device: c_int,
    /// Addresses that were registered: others must not be unregistered.
    done: Mutex<BTreeSet<usize>>,
    /// Whether it was said that memory was not registered.
    told: AtomicBool,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pinned").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Pinned {
    /// From the addresses of the runtime's `cudaHostRegister`, `cudaHostUnregister` and `cudaSetDevice`, which
    /// `mixfeed/cuda.py` looked up in a library that it never unloads, and the number of the trainer's device.
    pub fn of((register, unregister, set_device, device): (usize, usize, usize, c_int)) -> Self {
        let function = ptr::with_exposed_provenance::<c_void>;
        // SAFETY: `mixfeed/cuda.py` is the only caller, and these are the signatures of the functions that it looks up.
        unsafe {
            Pinned {
                register: std::mem::transmute::<*const c_void, Register>(function(register)),
                unregister: std::mem::transmute::<*const c_void, Unregister>(function(unregister)),
                set_device: std::mem::transmute::<*const c_void, SetDevice>(function(set_device)),
                device,
                done: Mutex::default(),
                told: AtomicBool::new(false),
            }
        }
    }

    /// Runs `call` on a thread whose device is the trainer's: on others the runtime would begin a context on device 0, which
    /// takes memory there. Nobody else's thread has its device changed. Memory is taken and given back rarely.
    fn on_device(&self, call: &(impl Fn() -> c_int + Sync)) -> c_int {
        let run = move || {
            // SAFETY: the runtime is loaded, and the thread is ours.
            match unsafe { (self.set_device)(self.device) } {
                0 => call(),
                failed => failed,
            }
        };
        thread::scope(|scope| {
            match thread::Builder::new().name("mixfeed-pin".into()).spawn_scoped(scope, run) {
                Ok(thread) => thread.join().unwrap_or(LOST),
                // Memory must not be given back registered.
                Err(_) => call(),
            }
        })
    }

    /// Says once, in Python's log, that memory could not be registered. On a thread of its own: the interpreter may be busy,
    /// or at its end.
    fn tell(&self, failed: c_int, bytes: usize) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let text = format!("{bytes} bytes of a batch stay pageable: cudaHostRegister gave error {failed}");
        let say = move || {
            Python::try_attach(|py| {
                let logger = py.import("logging")?.call_method1("getLogger", ("mixfeed",))?;
                logger.call_method1("warning", (text,)).map(drop)
            })
        };
        // Without a thread it goes unsaid.
        drop(thread::Builder::new().name("mixfeed-pin".into()).spawn(say));
    }
}

impl Pages for Pinned {
    fn adopt(&self, memory: &mut [u8]) {
        if memory.len() < LEAST {
            return;
        }
        let (address, bytes) = (memory.as_mut_ptr().expose_provenance(), memory.len());
        // SAFETY: the memory is ours and stays where it is until `release`. The runtime is thread-safe.
        let register =
            || unsafe { (self.register)(ptr::with_exposed_provenance_mut(address), bytes, PORTABLE) };
        match self.on_device(&register) {
            0 => {
                self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
            }
            // It is copied as any other memory: slower, and not wrong.
            failed => self.tell(failed, bytes),
        }
    }

    fn release(&self, memory: &mut [u8]) {
        let address = memory.as_mut_ptr().expose_provenance();
        if self.done.lock().unwrap_or_else(PoisonError::into_inner).remove(&address) {
            // SAFETY: it was registered in `adopt`, and only once.
            self.on_device(&|| unsafe { (self.unregister)(ptr::with_exposed_provenance_mut(address)) });
        }
    }
}
