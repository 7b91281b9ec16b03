//! From slices to tensors of a device. On their way to a CUDA device they lie in pinned memory that libtorch keeps until they
//! were sent: from other memory, each of these would wait for the device.

use super::DeviceError;
use tch::{Device, Tensor, kind::Element};

/// Truths, in `shape`.
pub(super) fn truths(device: Device, values: &[bool], shape: &[i64]) -> Result<Tensor, DeviceError> {
    sent(device, values, shape)
}

/// Numbers, in `shape`.
pub(super) fn floats(device: Device, values: &[f32], shape: &[i64]) -> Result<Tensor, DeviceError> {
    sent(device, values, shape)
}

/// Ranks and their bounds, in `shape`.
pub(super) fn small(device: Device, values: &[i32], shape: &[i64]) -> Result<Tensor, DeviceError> {
    sent(device, values, shape)
}

/// Positions, in `shape`.
pub(super) fn places(device: Device, values: &[i64], shape: &[i64]) -> Result<Tensor, DeviceError> {
    sent(device, values, shape)
}

/// `0..end`, in `shape`.
pub(super) fn range(device: Device, end: usize, shape: &[i64]) -> Result<Tensor, DeviceError> {
    Ok(Tensor::f_arange(end as i64, (tch::Kind::Int64, device))?.f_view(shape)?)
}

/// Values of any type, in `shape`.
pub(super) fn sent<T: Element>(device: Device, values: &[T], shape: &[i64]) -> Result<Tensor, DeviceError> {
    let values = Tensor::f_from_slice(values)?.f_view(shape)?;
    if !device.is_cuda() {
        return Ok(values);
    }
    let kind = values.f_kind()?;
    Ok(values.f_pin_memory(device)?.f_to_device_(device, kind, true, false)?)
}
