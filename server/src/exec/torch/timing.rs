//! How long the parts of a block take on a device, one after the other: for benches. Nothing here is part of serving.

use super::{Device, DeviceError, Input, Torch, check, check_present, mixed, place};
use crate::exec::Format;
use crate::plan::Row;
use std::time::Instant;
use tch::{Kind, Tensor};

/// Seconds of the parts of a block, of the fastest run each. The device was waited for after each of them.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// What is decoded, into pinned memory and to the device; 0 on the processor.
    pub up: f64,
    /// Clean rows of it; 0 where they came up.
    pub finish: f64,
    /// Mixed rows in the output's type.
    pub mix: f64,
    /// To pinned memory; on the processor a part of `mix`.
    pub down: f64,
}

/// Seconds of plain copies, of the fastest run each.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// On the device, from one place to another.
    pub inside: f64,
    /// From pinned memory to the device.
    pub up: f64,
    /// From the device to pinned memory.
    pub down: f64,
}

/// Times a block on `device`, [`Device::Torch`] or [`Device::Cuda`].
///
/// # Errors
/// As [`super::Mixer::run`], and when the device is not there.
pub fn block<B: AsRef<[u8]> + Sync>(
    device: Device,
    rows: &[Row],
    input: &Input<B>,
    format: &Format,
    runs: usize,
) -> Result<Parts, DeviceError> {
    let mut torch = Torch::new(place(device).unwrap_or(tch::Device::Cpu), 0)?;
    let mut out = vec![0; rows.len() * format.raster.len() * format.dtype.size()];
    check(rows, input, &format.raster)?;
    let mut times = [(); 4].map(|()| Vec::with_capacity(runs));
    for _ in 0..runs {
        let parts = match &mut torch.here {
            Some(here) => {
                let mut clock = Clock::start(torch.place.device);
                let clean = here.clean(&torch.pool, &torch.place, input, &format.raster)?;
                let finish = clock.lap();
                clean.mix(&torch.place, rows, format, &mut out)?;
                [0.0, finish, clock.lap(), 0.0]
            }
            None => on_device(&mut torch, rows, input, format)?,
        };
        times.iter_mut().zip(parts).for_each(|(all, one)| all.push(one));
    }
    let [up, finish, mix, down] = times.map(best);
    Ok(Parts { up, finish, mix, down })
}

/// Seconds of up, finish, mix, down.
fn on_device<B: AsRef<[u8]>>(
    torch: &mut Torch,
    rows: &[Row],
    input: &Input<B>,
    format: &Format,
) -> Result<[f64; 4], DeviceError> {
    let mut clock = Clock::start(torch.place.device);
    torch.stage_parts(input, &format.raster)?;
    let sent = torch.staging.up()?;
    let up = clock.lap();
    let clean = torch.clean(input, &sent, &format.raster)?;
    let finish = clock.lap();
    let made = mixed(&torch.place, torch.chunk, rows, &clean, format).collect::<Result<Vec<_>, _>>()?;
    let mix = clock.lap();
    made.iter().try_for_each(|made| torch.staging.down(made))?;
    torch.idle()?;
    torch.staging.arrived();
    Ok([up, finish, mix, clock.lap()])
}

/// Times copies on `device`: `up` and `down` bytes through pinned memory, `inside` bytes on it.
///
/// # Errors
/// When the device is not there, or has no memory for it.
pub fn copies(
    device: Device,
    (up, inside, down): (usize, usize, usize),
    runs: usize,
) -> Result<Copies, DeviceError> {
    let device = place(device).unwrap_or(tch::Device::Cpu);
    check_present(device)?;
    let pinned = |len: usize| -> Result<Tensor, DeviceError> {
        let memory = Tensor::f_zeros([len as i64], (Kind::Uint8, tch::Device::Cpu))?;
        Ok(if device.is_cuda() { memory.f_pin_memory(device)? } else { memory })
    };
    let there = |len: usize| Tensor::f_zeros([len as i64], (Kind::Uint8, device));
    let time = |from: Tensor, mut to: Tensor| -> Result<f64, DeviceError> {
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let mut clock = Clock::start(device);
            to.f_copy_(&from)?;
            times.push(clock.lap());
        }
        Ok(best(times))
    };
    Ok(Copies {
        inside: time(there(inside)?, there(inside)?)?,
        up: time(pinned(up)?, there(up)?)?,
        down: time(there(down)?, pinned(down)?)?,
    })
}

/// Seconds between moments at which the device had nothing left to do.
struct Clock {
    device: tch::Device,
    last: Instant,
}

impl Clock {
    fn start(device: tch::Device) -> Clock {
        let mut clock = Clock { device, last: Instant::now() };
        clock.lap();
        clock
    }

    fn lap(&mut self) -> f64 {
        if let tch::Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
        let now = Instant::now();
        std::mem::replace(&mut self.last, now).elapsed().as_secs_f64()
    }
}

/// The fastest: other work on the machine only adds.
fn best(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}
