//! From slices to tensors of a device.

use super::DeviceError;
use tch::{Device, Tensor};

/// Truths, in `shape`.
pub(super) fn truths(device: Device, values: &[bool], shape: &[i64]) -> Result<Tensor, DeviceError> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)?)
}

/// Numbers, in `shape`.
pub(super) fn floats(device: Device, values: &[f32], shape: &[i64]) -> Result<Tensor, DeviceError> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)?)
}

/// Ranks and their bounds, in `shape`.
pub(super) fn small(device: Device, values: &[i32], shape: &[i64]) -> Result<Tensor, DeviceError> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)?)
}

/// Positions, in `shape`.
pub(super) fn places(device: Device, values: &[i64], shape: &[i64]) -> Result<Tensor, DeviceError> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_device(device)?)
}

/// `0..end`, in `shape`.
pub(super) fn range(device: Device, end: usize, shape: &[i64]) -> Result<Tensor, DeviceError> {
    places(device, &(0..end as i64).collect::<Vec<_>>(), shape)
}
