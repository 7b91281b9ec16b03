//! Pinned memory between this process and a CUDA device: what a device reads from other memory, the driver copies first.

use super::{DeviceError, host};
use tch::{Device, Kind, Tensor};

/// One buffer each way, as large as the largest block so far. Both are free again when a block's result was downloaded,
/// which waits for the device.
#[derive(Debug)]
pub(super) struct Staging {
    device: Device,
    up: Option<Tensor>,
    down: Option<Tensor>,
}

impl Staging {
    /// For blocks of `device`; nothing is reserved for the CPU.
    pub(super) fn new(device: Device) -> Staging {
        Staging { device, up: None, down: None }
    }

    /// Sends `bytes` to the device, in `shape`.
    pub(super) fn up(&mut self, bytes: &[u8], shape: &[i64]) -> Result<Tensor, DeviceError> {
        let len = bytes.len() as i64;
        let mut pinned = part(&mut self.up, self.device, len)?;
        host::seen(bytes, &[len], |bytes| Ok(pinned.f_copy_(bytes)?))?;
        Ok(pinned.f_view(shape)?.f_to_device_(self.device, Kind::Uint8, true, false)?)
    }

    /// Sends all of `parts` to the device, one behind the other, in one go.
    pub(super) fn pack<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Tensor, DeviceError> {
        let all = parts.clone().map(|part| part.len() as i64).sum();
        let pinned = part(&mut self.up, self.device, all)?;
        let mut at = 0;
        for part in parts {
            let len = part.len() as i64;
            let mut own = pinned.f_narrow(0, at, len)?;
            host::seen(part, &[len], |part| Ok(own.f_copy_(part)?))?;
            at += len;
        }
        Ok(pinned.f_to_device_(self.device, Kind::Uint8, true, false)?)
    }

    /// Waits for `made` (one dimension, u8) and copies it to the beginning of `out`.
    pub(super) fn down(&mut self, made: &Tensor, out: &mut [u8]) -> Result<(), DeviceError> {
        if !self.device.is_cuda() {
            return host::copy_out(made, out);
        }
        let mut pinned = part(&mut self.down, self.device, made.numel() as i64)?;
        pinned.f_copy_(made)?;
        host::copy_out(&pinned, out)
    }
}

/// The first `len` bytes of a buffer that grows.
fn part(buffer: &mut Option<Tensor>, device: Device, len: i64) -> Result<Tensor, DeviceError> {
    if let Some(buffer) = buffer.as_ref().filter(|buffer| buffer.numel() as i64 >= len) {
        return Ok(buffer.f_narrow(0, 0, len)?);
    }
    *buffer = None; // given back before more is asked for
    let memory = Tensor::f_zeros([len], (Kind::Uint8, Device::Cpu))?;
    let memory = if device.is_cuda() { memory.f_pin_memory(device)? } else { memory };
    Ok(buffer.insert(memory).shallow_clone())
}
