//! DLPack, the exchange format of array libraries: <https://dmlc.github.io/dlpack>. Structures as of version 1.0.
#![allow(unsafe_code)] // a C interface

use crate::batch::Held;
use mixfeed_client::Dtype;
use pyo3::{ffi, prelude::*, types::PyCapsule};
use std::{
    ffi::{CStr, c_void},
    ptr::{self, NonNull},
    sync::Arc,
};

/// Device kind 1, the host; its number 0.
pub const CPU: (i32, i32) = (1, 0);

/// Bit of the flags of version 1.
const READ_ONLY: u64 = 1;

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
struct Device {
    kind: i32,
    number: i32,
}

#[repr(C)]
struct Element {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Array {
    data: *mut c_void,
    device: Device,
    axes: i32,
    element: Element,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    array: Array,
    context: *mut c_void,
    delete: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: Version,
    context: *mut c_void,
    delete: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    array: Array,
}

/// What is exchanged.
pub struct Given<'a> {
    /// Address of the first element.
    pub address: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost axis first.
    pub shape: &'a [usize],
    /// Elements from one entry of each axis to the next.
    pub strides: &'a [usize],
    /// Keeps the memory.
    pub owner: Arc<Held>,
}

/// A managed tensor with what its pointers point to.
struct Export<T> {
    managed: T,
    extents: Vec<i64>,
    _owner: Arc<Held>,
}

/// Code and bits of an element type.
fn element(dtype: Dtype) -> Element {
    let code = match dtype {
        Dtype::I32 | Dtype::I64 => 0,
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => 1,
        Dtype::F16 | Dtype::F32 | Dtype::F64 => 2,
        Dtype::Bf16 => 4,
    };
    Element { code, bits: 8 * dtype.size() as u8, lanes: 1 }
}

/// A capsule that keeps the tensor's memory until its consumer, or the capsule itself if nobody consumed it, is gone.
///
/// # Errors
/// The interpreter's, when it has no memory.
pub fn capsule<'py>(py: Python<'py>, given: Given<'_>, versioned: bool) -> PyResult<Bound<'py, PyAny>> {
    let Given { address, dtype, shape, strides, owner } = given;
    let mut extents: Vec<i64> = shape.iter().chain(strides).map(|size| *size as i64).collect();
    let array = Array {
        data: ptr::with_exposed_provenance_mut(address),
        device: Device { kind: CPU.0, number: CPU.1 },
        axes: shape.len() as i32,
        element: element(dtype),
        shape: extents.as_mut_ptr(),
        strides: extents.as_mut_ptr().wrapping_add(shape.len()),
        byte_offset: 0,
    };
    if versioned {
        let (version, context) = (Version { major: 1, minor: 0 }, ptr::null_mut());
        let managed = Versioned { version, context, delete: Some(delete_versioned), flags: READ_ONLY, array };
        wrap(py, Export { managed, extents, _owner: owner }, VERSIONED, drop_versioned)
    } else {
        let managed = Managed { array, context: ptr::null_mut(), delete: Some(delete) };
        wrap(py, Export { managed, extents, _owner: owner }, PLAIN, drop_plain)
    }
}

const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// Implemented by the managed tensors that know where their export begins.
trait Context {
    fn set(&mut self, context: *mut c_void);
}

impl Context for Managed {
    fn set(&mut self, context: *mut c_void) {
        self.context = context;
    }
}

impl Context for Versioned {
    fn set(&mut self, context: *mut c_void) {
        self.context = context;
    }
}

fn wrap<'py, T: Context>(
    py: Python<'py>,
    export: Export<T>,
    name: &'static CStr,
    destructor: ffi::PyCapsule_Destructor,
) -> PyResult<Bound<'py, PyAny>> {
    debug_assert!(!export.extents.is_empty() || export.extents.capacity() == 0);
    let export = Box::into_raw(Box::new(export));
    // SAFETY: it was a box one line above and nobody else has it.
    let managed = unsafe {
        (*export).managed.set(export.cast());
        NonNull::from(&mut (*export).managed)
    };
    // SAFETY: the destructors below take back what is given here, and only while the capsule has its first name.
    let capsule =
        unsafe { PyCapsule::new_with_pointer_and_destructor(py, managed.cast(), name, Some(destructor)) };
    if capsule.is_err() {
        // SAFETY: no capsule took it.
        drop(unsafe { Box::from_raw(export) });
    }
    Ok(capsule?.into_any())
}

/// Called by a consumer that is done, on any thread, with or without the interpreter.
unsafe extern "C" fn delete(managed: *mut Managed) {
    // SAFETY: `wrap` put the box's address there, and the contract of DLPack is that each tensor is deleted once.
    drop(unsafe { Box::from_raw((*managed).context.cast::<Export<Managed>>()) });
}

/// As [`delete`].
unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    // SAFETY: as in `delete`.
    drop(unsafe { Box::from_raw((*managed).context.cast::<Export<Versioned>>()) });
}

/// Destructor of a capsule: a consumer has renamed it and deletes the tensor itself.
unsafe extern "C" fn drop_plain(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this with the capsule; with its first name it still has what `wrap` gave it.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, PLAIN.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, PLAIN.as_ptr()).cast());
        }
    }
}

/// As [`drop_plain`].
unsafe extern "C" fn drop_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: as in `drop_plain`.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        }
    }
}
