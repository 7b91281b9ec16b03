//! Pinned memory between this process and a CUDA device: what a device reads from other memory, the driver copies first,
//! and waits for the device meanwhile.

use super::{DeviceError, host};
use crate::exec::device::Lent;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Bytes that a thread copies at a time: one alone is slower than a device's bus.
const PIECE: usize = 1 << 20;

/// Two buffers on the way up, as large as the largest block so far: one is filled while the device may still read the
/// other one. What comes down lands in pinned memory that libtorch keeps.
#[derive(Debug)]
pub(super) struct Staging {
    device: Device,
    up: [Option<Tensor>; 2],
    /// Buffer that is filled next.
    next: usize,
    /// Bytes of the block that is staged, in the other buffer.
    staged: Option<i64>,
    /// Rows on their way down, then those that have arrived.
    coming: Vec<Tensor>,
    here: Vec<Tensor>,
}

impl Staging {
    /// For blocks of `device`; nothing is reserved for the CPU.
    pub(super) fn new(device: Device) -> Staging {
        Staging { device, up: [None, None], next: 0, staged: None, coming: Vec::new(), here: Vec::new() }
    }

    /// Copies all of `parts` into one buffer, one behind the other.
    pub(super) fn stage(&mut self, pool: &rayon::ThreadPool, parts: &[&[u8]]) -> Result<(), DeviceError> {
        self.staged = None;
        let all = parts.iter().map(|part| part.len() as i64).sum();
        let mut buffer = first(&mut self.up[self.next], self.device, all)?;
        let (mut rest, mut copies) = (host::own(&mut buffer), Vec::new());
        for part in parts {
            let (own, after) = rest.split_at_mut(part.len());
            copies.extend(own.chunks_mut(PIECE).zip(part.chunks(PIECE)));
            rest = after;
        }
        pool.install(|| copies.into_par_iter().for_each(|(own, part)| own.copy_from_slice(part)));
        self.staged = Some(all);
        self.next = 1 - self.next;
        Ok(())
    }

    /// Whether a block is staged that was not sent.
    pub(super) fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// Sends the staged block to the device: one dimension, u8.
    pub(super) fn up(&mut self) -> Result<Tensor, DeviceError> {
        let nothing = || DeviceError::Failed("no block is staged".into());
        let len = self.staged.take().ok_or_else(nothing)?;
        let buffer = first(&mut self.up[1 - self.next], self.device, len)?;
        Ok(buffer.f_to_device_(self.device, Kind::Uint8, true, false)?)
    }

    /// Lets `made` (one dimension, u8) follow the rows that come down; waits for nothing.
    pub(super) fn down(&mut self, made: &Tensor) -> Result<(), DeviceError> {
        self.coming.push(made.f_to_device_(Device::Cpu, Kind::Uint8, true, false)?);
        Ok(())
    }

    /// Forgets what was staged and what was to come down.
    pub(super) fn forget(&mut self) {
        self.staged = None;
        self.coming.clear();
    }

    /// What was to come down has arrived: the device was waited for.
    pub(super) fn arrived(&mut self) {
        self.here = std::mem::take(&mut self.coming);
    }

    /// The rows that have arrived, where they are one piece of `bytes` bytes.
    pub(super) fn lend(&mut self, bytes: usize) -> Option<Lent> {
        let [rows] = &self.here[..] else { return None };
        if rows.numel() != bytes {
            return None;
        }
        // On the processor they may be the staged block itself, whose place another one takes.
        let copy = !self.device.is_cuda();
        let rows = rows.f_to_device_(Device::Cpu, Kind::Uint8, false, copy).ok()?;
        self.here.clear();
        Some(host::lent(rows))
    }

    /// Copies the rows that have arrived to the beginning of `out`.
    pub(super) fn collect(&mut self, out: &mut [u8]) -> Result<(), DeviceError> {
        let mut rest = out;
        for rows in self.here.drain(..) {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(rows.numel());
            host::copy_out(&rows, own)?;
            rest = after;
        }
        Ok(())
    }
}

/// The first `len` bytes of a buffer that grows.
fn first(buffer: &mut Option<Tensor>, device: Device, len: i64) -> Result<Tensor, DeviceError> {
    if let Some(buffer) = buffer.as_ref().filter(|buffer| buffer.numel() as i64 >= len) {
        return Ok(buffer.f_narrow(0, 0, len)?);
    }
    *buffer = None; // given back before more is asked for
    let memory = Tensor::f_zeros([len], (Kind::Uint8, Device::Cpu))?;
    let memory = if device.is_cuda() { memory.f_pin_memory(device)? } else { memory };
    Ok(buffer.insert(memory).shallow_clone())
}
