//! Memory of this process seen as tensors, without copying, and the one library that must be loaded by hand.

#![allow(unsafe_code)]

use super::DeviceError;
use std::sync::Once;
use tch::{Device, Kind, Tensor, kind::Element};

/// Calls `use_it` with `bytes` seen as a tensor of `shape`. It must not keep the tensor or a view of it.
pub(super) fn seen<T>(
    bytes: &[u8],
    shape: &[i64],
    use_it: impl FnOnce(&Tensor) -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    assert!(shape.iter().product::<i64>() as usize <= bytes.len(), "a view is within its bytes");
    // SAFETY: the bytes are there, initialised and long enough, and stay borrowed until `use_it` returns; it only reads.
    let tensor = unsafe { Tensor::f_from_blob(bytes.as_ptr(), shape, &[], Kind::Uint8, Device::Cpu)? };
    use_it(&tensor)
}

/// As [`seen`], to be written.
pub(super) fn written<T>(
    bytes: &mut [u8],
    shape: &[i64],
    use_it: impl FnOnce(&mut Tensor) -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    assert!(shape.iter().product::<i64>() as usize <= bytes.len(), "a view is within its bytes");
    // SAFETY: as above; the bytes are borrowed for writing, and nothing else sees them meanwhile.
    let mut tensor =
        unsafe { Tensor::f_from_blob(bytes.as_mut_ptr(), shape, &[], Kind::Uint8, Device::Cpu)? };
    use_it(&mut tensor)
}

/// `values` as bytes.
pub(super) fn bytes<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: elements of tensors are plain numbers without gaps; the bytes are borrowed as long as the numbers are.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Copies `from` (contiguous, u8) to the beginning of `to`, from whatever device it is on.
pub(super) fn copy_out(from: &Tensor, to: &mut [u8]) -> Result<(), DeviceError> {
    let len = [from.numel() as i64];
    written(to, &len, |to| Ok(to.f_copy_(&from.f_view(&len[..])?)?))
}

/// Loads CUDA's half of libtorch. Programs are linked with the CPU's half only, so that one program runs with either
/// libtorch; without this call the other half sees no device, whatever the machine has.
pub(super) fn load_cuda() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the name is a C string; the library's initialisers are libtorch's own. Where it is absent this answers
        // null, and no device is seen.
        let loaded =
            unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if loaded.is_null() {
            tracing::debug!("libtorch_cuda.so was not found: no CUDA device will be seen");
        }
    });
}
