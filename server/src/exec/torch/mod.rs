//! The executor on libtorch, its CPU or a CUDA device: the plans of [`super`], a whole block at a time.
//!
//! Numerics `torch-1`: the arithmetic of the scalar executor in f32 over 0..=255, divided by 255 once at the end. What
//! is only moved (copies, pastes without resampling, binary masks) has the scalar executor's bits, and so have clean
//! rows made here of decoded pictures ([`views`]). What is computed by mixing is within one level (u8), 2^-20 (f32),
//! 2^-10 (f16) or 2^-7 (bf16) of it, the last three relative to the larger of the value and one over the smallest
//! standard deviation. Scenes of points: see [`points`].
//!
//! Ops are carried out in rounds: the first op of every row, then the second. A round sorts its rows by what they need
//! ([`round::Round`]) and does the same for all rows that need it at once; masks are made on the device from a few numbers
//! a row. Nothing waits for the device before the result is needed: numbers go up through pinned memory, and the worker
//! stages and begins the next block first. On the processor ([`here`]) a thread has one picture, then a few rows, at a time.

mod colours;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod conformance_views;
mod fields;
mod here;
mod host;
mod masks;
mod points;
mod resample;
mod round;
mod rounds;
mod staging;
mod tables;
pub(super) mod threads;
pub mod timing;
mod upload;
mod views;

use super::Format;
use super::device::{Buffer, Device, DeviceError, Input, Lent, Mixer, Progress, RowMade, Scenes, Worker};
use crate::batch::{CHANNELS, Dtype, Raster};
use crate::plan::{Row, fields::RankMap};
use fields::Fields;
use here::{Here, Pool};
use staging::Staging;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Kind, TchError, Tensor};

/// Bytes of f32 that rows, or decoded pictures, of a chunk may take on a device, where a pass must be large to be worth its
/// start.
const CHUNK: usize = 1 << 30;

impl From<TchError> for DeviceError {
    fn from(error: TchError) -> DeviceError {
        let text = error.to_string();
        // What follows is libtorch's own stack, which says nothing to an operator.
        let first = text.lines().next().unwrap_or_default().to_owned();
        if text.contains("out of memory") || text.contains("can't allocate memory") {
            DeviceError::Memory(first)
        } else if text.contains("CUDA error") {
            // The context is gone with whatever ran in it; only a new process gets another.
            DeviceError::Lost(first)
        } else {
            DeviceError::Failed(first)
        }
    }
}

/// Starts the worker of `device`, see [`super::device::start`].
pub(super) fn start<B: Buffer>(device: Device, threads: usize) -> Result<Option<Worker<B>>, DeviceError> {
    let Some(place) = place(device) else { return Ok(None) };
    Worker::start(move || Torch::new(place, threads)).map(Some)
}

/// Where libtorch is to work; `None` where the CPU executor does.
fn place(device: Device) -> Option<tch::Device> {
    match device {
        Device::Cpu => None,
        Device::Torch => Some(tch::Device::Cpu),
        Device::Cuda(index) => Some(tch::Device::Cuda(index)),
        Device::Auto => {
            host::load_cuda();
            (tch::Cuda::device_count() > 0).then_some(tch::Device::Cuda(0))
        }
    }
}

/// Where tensors are, and what is kept there.
#[derive(Debug)]
struct Place {
    device: tch::Device,
    fields: Mutex<Fields>,
}

impl Place {
    /// Ranks of `field`, (height, width) i32.
    fn field(&self, field: &Arc<RankMap>) -> Result<Tensor, DeviceError> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner).get(self.device, field)
    }
}

/// Refuses a CUDA device that libtorch does not see.
fn check_present(device: tch::Device) -> Result<(), DeviceError> {
    let tch::Device::Cuda(index) = device else { return Ok(()) };
    host::load_cuda();
    let found = tch::Cuda::device_count();
    if i64::try_from(index).is_ok_and(|index| index < found) {
        return Ok(());
    }
    let hint = "is the driver there, and libtorch_cuda.so where the linker finds it?".into();
    Err(DeviceError::Absent { index, found, hint })
}

/// Carries out plans on one device. A thread owns it: tensors may be sent but not shared.
#[derive(Debug)]
struct Torch {
    place: Place,
    /// Makes pictures on the processor, copies what a device is sent.
    pool: Pool,
    /// `None` for a device: blocks are begun there and waited for later, and go both ways through pinned memory.
    here: Option<Here>,
    /// Bytes of f32 that one chunk of a device's rows may take.
    chunk: usize,
    /// Bytes of f32 that decoded pictures may take which a device makes rows of together.
    together: usize,
    staging: Staging,
    /// As `staging`, for scenes: a block of pictures may be on its way meanwhile.
    scenes: Staging,
    /// 255 on the device. A number on the host would be multiplied by its reciprocal there, which rounds differently.
    full: Tensor,
}

impl Torch {
    /// An executor on `device` with so many threads of the processor, 0: one for each core.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] for a CUDA device that libtorch does not see, [`DeviceError::Failed`] without threads.
    fn new(device: tch::Device, threads: usize) -> Result<Torch, DeviceError> {
        check_present(device)?;
        Ok(Torch {
            place: Place { device, fields: Mutex::default() },
            pool: Pool::new(threads)?,
            here: (!device.is_cuda()).then(Here::default),
            chunk: CHUNK,
            together: CHUNK,
            staging: Staging::new(device),
            scenes: Staging::new(device),
            full: full(device)?,
        })
    }

    /// Makes rows of a block and mixes them.
    fn make<B: AsRef<[u8]> + Sync>(
        &mut self,
        rows: &[Row],
        input: &Input<B>,
        format: &Format,
        out: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        let raster = &format.raster;
        check(rows, input, raster)?;
        if let Some(here) = &mut self.here {
            here.clean(&self.pool, &self.place, input, raster)?.mix(&self.place, rows, format, out)?;
            return Ok(Progress::Done);
        }
        if !self.staging.is_staged() {
            self.stage_parts(input, raster)?;
        }
        self.staging.begin();
        let sent = self.staging.up()?;
        let clean = self.clean(input, &sent, raster)?;
        for made in mixed(&self.place, self.chunk, rows, &clean, format) {
            self.staging.down(&made?)?;
        }
        Ok(Progress::Begun)
    }

    /// Clean rows of the block that was `sent` to the device.
    fn clean<B>(&self, input: &Input<B>, sent: &Tensor, raster: &Raster) -> Result<Tensor, DeviceError> {
        match input {
            Input::Clean(_) => Ok(sent.f_view(shape(sent.numel() / raster.len(), raster))?),
            Input::Decoded(pictures) => views::together(&self.place, pictures, sent, raster, self.together),
        }
    }

    /// Copies what comes up in one go into pinned memory.
    fn stage_parts<B: AsRef<[u8]>>(&mut self, input: &Input<B>, raster: &Raster) -> Result<(), DeviceError> {
        let parts = match input {
            Input::Clean(clean) => {
                let clean = clean.as_ref();
                vec![&clean[..clean.len() / raster.len() * raster.len()]]
            }
            Input::Decoded(pictures) => {
                views::check(pictures, raster)?;
                pictures.iter().map(|picture| &picture.pixels.as_ref()[..picture.bytes()]).collect()
            }
        };
        self.staging.stage(&self.pool, &parts)
    }

    /// Waits until the device has nothing left to do.
    fn idle(&self) -> Result<(), DeviceError> {
        // Copying a number down waits, and tells what happened; libtorch's own call for it ends the process instead.
        let _ = self.full.f_to_device(tch::Device::Cpu)?;
        Ok(())
    }
}

/// Mixes `rows` of `clean` on a device, a chunk of `most` bytes of f32 at a time: their bytes.
fn mixed<'a>(
    place: &'a Place,
    most: usize,
    rows: &'a [Row],
    clean: &'a Tensor,
    format: &'a Format,
) -> impl Iterator<Item = Result<Tensor, DeviceError>> + 'a {
    let chunk = (most / (4 * format.raster.len())).max(1);
    rows.chunks(chunk).map(move |rows| store(place, rounds::run(place, rows, clean, format)?, format))
}

/// Refuses rows and pictures that do not fit their block.
fn check<B: AsRef<[u8]>>(rows: &[Row], input: &Input<B>, raster: &Raster) -> Result<(), DeviceError> {
    match input {
        Input::Clean(clean) => round::check(rows, clean.as_ref().len() / raster.len(), raster),
        Input::Decoded(pictures) => {
            round::check(rows, pictures.len(), raster)?;
            views::check(pictures, raster)
        }
    }
}

/// 255 on `device`, see [`Torch::full`].
fn full(device: tch::Device) -> Result<Tensor, DeviceError> {
    upload::floats(device, &[255.0], &[1])
}

/// From 0..=255 to the output's type, `(x / 255 - mean) / std` for floats: the bytes in one dimension.
fn store(place: &Place, made: Tensor, format: &Format) -> Result<Tensor, DeviceError> {
    let kind = match format.dtype {
        Dtype::U8 => return Ok(made.f_contiguous()?.f_view([-1])?),
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            panic!("pictures are u8, f16, bf16 or f32, not {:?}", format.dtype)
        }
    };
    let mut made = made.f_div(&full(place.device)?)?;
    if let Some((mean, std)) = &format.normalize {
        let channels = CHANNELS as i64;
        let shape = if format.raster.step == 1 { [1, channels, 1, 1, 1] } else { [1, 1, 1, 1, channels] };
        let _ = made.f_sub_(&upload::floats(place.device, mean, &shape)?)?;
        let _ = made.f_div_(&upload::floats(place.device, std, &shape)?)?;
    }
    Ok(made.f_to_kind(kind)?.f_contiguous()?.f_view([-1])?.f_view_dtype(Kind::Uint8)?)
}

impl<B: AsRef<[u8]> + Sync> Mixer<B> for Torch {
    fn stage(&mut self, input: &Input<B>, format: &Format) -> Result<(), DeviceError> {
        if format.raster.is_empty() || self.here.is_some() {
            return Ok(());
        }
        self.stage_parts(input, &format.raster)
    }

    fn run(
        &mut self,
        rows: &[Row],
        input: &Input<B>,
        format: &Format,
        out: &mut [u8],
    ) -> Result<Progress, DeviceError> {
        if rows.is_empty() || format.raster.is_empty() {
            self.staging.forget();
            return Ok(Progress::Done);
        }
        let made = self.make(rows, input, format, out);
        if made.is_err() {
            self.staging.forget();
            self.idle()?; // what was begun may still read the staged bytes
        }
        made
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        self.idle()?;
        self.staging.arrived();
        Ok(())
    }

    fn lend(&mut self, bytes: usize) -> Option<Lent> {
        self.staging.lend(bytes)
    }

    fn collect(&mut self, out: &mut [u8]) -> Result<(), DeviceError> {
        self.staging.collect(out)
    }

    fn scenes(&mut self, rows: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError> {
        self.make_scenes(rows, block, out)
    }
}

/// Sizes of `rows` rows: row, plane, y, x, element of a pixel. Planar and interleaved pictures share one code path.
fn shape(rows: usize, raster: &Raster) -> [i64; 5] {
    [rows, raster.planes, raster.height, raster.width, raster.step].map(|n| n as i64)
}
