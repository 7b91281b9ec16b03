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

/// The bytes of `tensor` (one dimension, u8, of this process's memory), which nobody else reads or writes meanwhile.
pub(super) fn own(tensor: &mut Tensor) -> &mut [u8] {
    assert_bytes(tensor);
    match tensor.numel() {
        0 => &mut [],
        // SAFETY: so many bytes are there, as was asserted, and live as long as the tensor. Who calls promises the rest.
        len => unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) },
    }
}

fn assert_bytes(tensor: &Tensor) {
    let plain = tensor.kind() == Kind::Uint8 && tensor.device() == Device::Cpu && tensor.is_contiguous();
    assert!(plain && tensor.dim() == 1, "bytes of this process's memory in a row");
}

/// Bytes of this process's memory that nobody writes any more, to be read by any thread.
pub(super) struct Rows(Tensor);

impl Rows {
    /// `rows` (one dimension, u8), of which nobody keeps a view to write to.
    pub(super) fn new(rows: Tensor) -> Rows {
        assert_bytes(&rows);
        Rows(rows)
    }
}

// SAFETY: a shared reference only tells where its bytes are and how many, which libtorch lets any thread ask; the bytes do
// not change.
unsafe impl Sync for Rows {}

impl AsRef<[u8]> for Rows {
    fn as_ref(&self) -> &[u8] {
        match self.0.numel() {
            0 => &[],
            // SAFETY: `new` saw that so many bytes are there; they live as long as the tensor.
            len => unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast(), len) },
        }
    }
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
