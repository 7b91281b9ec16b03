//! Pinned memory between this process and a CUDA device: what a device reads from other memory, the driver copies first,
//! and waits for the device meanwhile.

use super::DeviceError;
use super::host::{self, Rows};
use crate::exec::device::Lent;
use rayon::prelude::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tch::{Device, Kind, Tensor};

/// Bytes that a thread copies at a time: one alone is slower than a device's bus.
const PIECE: usize = 1 << 20;

/// Bytes of rows that may be lent at a time: libtorch keeps all pinned memory that it ever gave out.
const MOST_LENT: usize = 512 << 20;

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
    lent: Arc<AtomicUsize>,
    /// Where lent rows come back to: libtorch must not be called by whoever drops them, on any thread, when the device is
    /// lost or given back.
    back: (Sender<Rows>, Receiver<Rows>),
}

impl Staging {
    /// For blocks of `device`; nothing is reserved for the CPU.
    pub(super) fn new(device: Device) -> Staging {
        Staging {
            device,
            up: [None, None],
            next: 0,
            staged: None,
            coming: Vec::new(),
            here: Vec::new(),
            lent: Arc::default(),
            back: channel(),
        }
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

    /// Forgets what was to come down of a block that ended early.
    pub(super) fn begin(&mut self) {
        self.coming.clear();
    }

    /// What was to come down has arrived: the device was waited for.
    pub(super) fn arrived(&mut self) {
        self.here = std::mem::take(&mut self.coming);
    }

    /// The rows that have arrived, where they are one piece of `bytes` bytes; not while too many are lent.
    pub(super) fn lend(&mut self, bytes: usize) -> Option<Lent> {
        self.back.1.try_iter().for_each(drop);
        let [rows] = &self.here[..] else { return None };
        if rows.numel() != bytes || self.lent.load(Ordering::Relaxed) + bytes > MOST_LENT {
            return None;
        }
        // On the processor they may be the staged block itself, whose place another one takes.
        let copy = !self.device.is_cuda();
        let rows = rows.f_to_device_(Device::Cpu, Kind::Uint8, false, copy).ok()?;
        self.here.clear();
        self.lent.fetch_add(bytes, Ordering::Relaxed);
        let (lent, back) = (self.lent.clone(), self.back.0.clone());
        Some(Lent::new(Lease { rows: Some(Rows::new(rows)), bytes, lent, back }))
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

/// Rows that come back when they are dropped.
struct Lease {
    rows: Option<Rows>,
    bytes: usize,
    lent: Arc<AtomicUsize>,
    back: Sender<Rows>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self.rows.as_ref().map_or(&[], Rows::as_ref)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lent.fetch_sub(self.bytes, Ordering::Relaxed);
        let refused = self.rows.take().and_then(|rows| self.back.send(rows).err());
        // The device was given back, and the process ends: so does its memory.
        std::mem::forget(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_all_sizes_go_up_one_behind_the_other() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
        let all: Vec<u8> =
            (0..3 * PIECE as u32 + 8).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut staging = Staging::new(Device::Cpu);
        for ends in [[0, PIECE + 3, PIECE + 8], [5, 5, 2 * PIECE + 5], [1, 2, 3]] {
            let [a, b, c] = ends;
            staging.stage(&pool, &[&all[..a], &all[a..b], &all[b..c]]).expect("memory");
            let sent = Vec::<u8>::try_from(staging.up().expect("staged")).expect("bytes");
            assert!(sent == all[..c]);
        }
    }

    fn arrived(staging: &mut Staging, len: usize) {
        staging.begin();
        staging.down(&Tensor::full([len as i64], 7, (Kind::Uint8, Device::Cpu))).expect("memory");
        staging.arrived();
    }

    #[test]
    fn no_more_is_lent_than_may_be_and_what_is_dropped_comes_back() {
        let mut staging = Staging::new(Device::Cpu);
        let half = MOST_LENT / 2 + 1;
        arrived(&mut staging, half);
        let first = staging.lend(half).expect("the first half");
        arrived(&mut staging, half);
        assert!(staging.lend(half).is_none(), "the rest is less");
        drop(first);
        assert_eq!(staging.back.1.try_iter().count(), 1);
        assert_eq!(staging.lend(half).expect("again").as_ref()[half - 1], 7);
    }

    #[test]
    fn rows_outlive_the_device() {
        let mut staging = Staging::new(Device::Cpu);
        arrived(&mut staging, 3);
        let rows = staging.lend(3).expect("one piece");
        drop(staging);
        assert_eq!(rows.as_ref(), [7; 3]);
    }
}
