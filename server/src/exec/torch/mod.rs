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
//! stages and begins the next block first.

mod colours;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod conformance_views;
mod fields;
mod host;
mod masks;
mod points;
mod resample;
mod round;
mod rounds;
mod staging;
mod tables;
pub mod timing;
mod upload;
mod views;

use super::Format;
use super::device::{Device, DeviceError, Input, Mixer, Progress, RowMade, Scenes, Worker};
use crate::batch::{CHANNELS, Dtype, Raster};
use crate::plan::Row;
use fields::Fields;
use staging::Staging;
use tch::{Kind, TchError, Tensor};

/// Bytes of f32 that a chunk of rows may take on the CPU: about a second-level cache, so that one pass finds there what
/// the last one left.
const CPU_CHUNK: usize = 2 << 20;
/// As [`CPU_CHUNK`], on a device with memory of its own, where a pass must be large to be worth its start.
const CUDA_CHUNK: usize = 1 << 30;

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
pub(super) fn start<B: AsRef<[u8]> + AsMut<[u8]> + Send + 'static>(
    device: Device,
) -> Result<Option<Worker<B>>, DeviceError> {
    let Some(place) = place(device) else { return Ok(None) };
    Worker::start(move || Torch::new(place)).map(Some)
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

/// Carries out plans on one device. A thread owns it: tensors may be sent but not shared.
#[derive(Debug)]
struct Torch {
    device: tch::Device,
    /// Bytes of f32 that one chunk of rows may take.
    chunk: usize,
    /// Bytes of f32 that decoded pictures may take which are made rows of together; 0: one by one.
    together: usize,
    /// Blocks are begun and waited for later, and go both ways through pinned memory.
    queued: bool,
    fields: Fields,
    staging: Staging,
    /// As `staging`, for scenes: a block of pictures may be on its way meanwhile.
    scenes: Staging,
    /// 255 on the device. A number on the host would be multiplied by its reciprocal there, which rounds differently.
    full: Tensor,
}

impl Torch {
    /// An executor on `device`.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] for a CUDA device that libtorch does not see.
    fn new(device: tch::Device) -> Result<Torch, DeviceError> {
        if let tch::Device::Cuda(index) = device {
            host::load_cuda();
            let found = tch::Cuda::device_count();
            if i64::try_from(index).map_or(true, |index| index >= found) {
                let hint = "is the driver there, and libtorch_cuda.so where the linker finds it?".into();
                return Err(DeviceError::Absent { index, found, hint });
            }
        }
        let (chunk, together) = if device.is_cuda() { (CUDA_CHUNK, CUDA_CHUNK) } else { (CPU_CHUNK, 0) };
        let full = upload::floats(device, &[255.0], &[1])?;
        Ok(Torch {
            device,
            chunk,
            together,
            queued: device.is_cuda(),
            fields: Fields::default(),
            staging: Staging::new(device),
            scenes: Staging::new(device),
            full,
        })
    }

    /// Mixes `rows`, a chunk at a time.
    fn chunks(
        &mut self,
        rows: &[Row],
        clean: &Tensor,
        format: &Format,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let elements = format.raster.len();
        let chunk = (self.chunk / (4 * elements)).max(1);
        let bytes = chunk * elements * format.dtype.size();
        for (rows, out) in rows.chunks(chunk).zip(out.chunks_mut(bytes)) {
            let made = rounds::run(self, rows, clean, format)?;
            let made = self.store(made, format)?.f_view([-1])?.f_view_dtype(Kind::Uint8)?;
            match self.queued {
                true => self.staging.down(&made)?,
                false => host::copy_out(&made, out)?,
            }
        }
        Ok(())
    }

    /// Makes rows of a block and mixes them.
    fn make<B: AsRef<[u8]>>(
        &mut self,
        rows: &[Row],
        input: &Input<B>,
        format: &Format,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let raster = &format.raster;
        match input {
            Input::Clean(clean) => {
                let clean = clean.as_ref();
                let held = clean.len() / raster.len();
                round::check(rows, held, raster)?;
                let shape = shape(held, raster);
                if self.queued {
                    let clean = self.staging.up()?.f_view(shape)?;
                    return self.chunks(rows, &clean, format, out);
                }
                host::seen(clean, &shape, |clean| self.chunks(rows, clean, format, out))
            }
            Input::Decoded(pictures) => {
                round::check(rows, pictures.len(), raster)?;
                views::check(pictures, raster)?;
                let pack = if self.together > 0 { Some(self.staging.up()?) } else { None };
                let clean = views::finish(self, pictures, pack.as_ref(), raster)?;
                self.chunks(rows, &clean, format, out)
            }
        }
    }

    /// Copies what comes up in one go into pinned memory.
    fn stage_parts<B: AsRef<[u8]>>(&mut self, input: &Input<B>, raster: &Raster) -> Result<(), DeviceError> {
        match input {
            Input::Clean(clean) => {
                let clean = clean.as_ref();
                let held = clean.len() / raster.len() * raster.len();
                self.staging.stage(std::iter::once(&clean[..held]))
            }
            Input::Decoded(pictures) => {
                views::check(pictures, raster)?;
                self.staging.stage(pictures.iter().map(|picture| &picture.pixels.as_ref()[..picture.bytes()]))
            }
        }
    }

    /// Waits until the device has nothing left to do.
    fn idle(&self) -> Result<(), DeviceError> {
        // Copying a number down waits, and tells what happened; libtorch's own call for it ends the process instead.
        let _ = self.full.f_to_device(tch::Device::Cpu)?;
        Ok(())
    }

    /// Whether blocks are packed on their way to where they are made.
    fn packs<B>(&self, input: &Input<B>) -> bool {
        match input {
            Input::Clean(_) => self.queued,
            Input::Decoded(_) => self.together > 0,
        }
    }

    /// From 0..=255 to the output's type: `(x / 255 - mean) / std` for floats.
    fn store(&self, made: Tensor, format: &Format) -> Result<Tensor, DeviceError> {
        let kind = match format.dtype {
            Dtype::U8 => return Ok(made.f_contiguous()?),
            Dtype::F16 => Kind::Half,
            Dtype::Bf16 => Kind::BFloat16,
            Dtype::F32 => Kind::Float,
            Dtype::F64 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
                panic!("pictures are u8, f16, bf16 or f32, not {:?}", format.dtype)
            }
        };
        let mut made = made.f_div(&self.full)?;
        if let Some((mean, std)) = &format.normalize {
            let channels = CHANNELS as i64;
            let shape = if format.raster.step == 1 { [1, channels, 1, 1, 1] } else { [1, 1, 1, 1, channels] };
            let _ = made.f_sub_(&upload::floats(self.device, mean, &shape)?)?;
            let _ = made.f_div_(&upload::floats(self.device, std, &shape)?)?;
        }
        Ok(made.f_to_kind(kind)?.f_contiguous()?)
    }
}

impl<B: AsRef<[u8]>> Mixer<B> for Torch {
    fn stage(&mut self, input: &Input<B>, format: &Format) -> Result<(), DeviceError> {
        if format.raster.is_empty() || !self.packs(input) {
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
        if self.packs(input) && !self.staging.is_staged() {
            self.stage_parts(input, &format.raster)?;
        }
        if let Err(error) = self.make(rows, input, format, out) {
            self.staging.forget();
            self.idle()?; // what was begun may still read the staged bytes
            return Err(error);
        }
        Ok(if self.queued { Progress::Begun } else { Progress::Done })
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        self.idle()?;
        self.staging.arrived();
        Ok(())
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
