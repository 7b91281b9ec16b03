//! Executors beside the CPU's: which one a server has, and the thread that owns it.
//!
//! Blocks of pictures may overlap, see [`Mixer`]; a block of scenes is made in one go, with nothing else begun.
//!
//! A device is not shared: one thread has it, and blocks wait for it in a bounded queue. It may fail where the CPU does
//! not, so every answer of it is a result, and a block comes back with its error: whoever asked may still mix it here.

mod scenes;
mod worker;

pub use scenes::{Layout, RowMade, SceneInput, Scenes, VoxelWish};
pub use worker::{Failed, SceneTask, Task, Worker};

use crate::batch::{CHANNELS, Crop};

use super::Format;
use crate::plan::{Row, view::View};
use std::{fmt, str::FromStr};

/// What makes rows of decoded pictures and scenes for a server's jobs, as the operator wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU executor.
    #[default]
    Cpu,
    /// libtorch on the processor.
    Torch,
    /// libtorch on a CUDA device.
    Cuda(usize),
    /// For each job the faster one of CUDA device 0, where there is one, and the CPU executor.
    Auto,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("cpu", _) => Ok(Device::Cpu),
            ("torch", _) => Ok(Device::Torch),
            ("auto", _) => Ok(Device::Auto),
            (_, Some(Ok(index))) => Ok(Device::Cuda(index)),
            _ => Err(format!("`{text}` is no device, want cpu, torch, cuda:N or auto")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Torch => f.write_str("torch"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Auto => f.write_str("auto"),
        }
    }
}

/// Why a device does not mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// This build has no such executor.
    #[error("device `{0}` is not in this build; build with `--features libtorch`, or use `cpu`")]
    NotBuilt(Device),
    /// This machine has no such device.
    #[error("there is no device `cuda:{index}`, libtorch sees {found}; {hint}")]
    Absent {
        /// Number asked for.
        index: usize,
        /// Devices that libtorch sees.
        found: i64,
        /// What to look at.
        hint: String,
    },
    /// It has no memory left for the block.
    #[error("the device is out of memory: {0}")]
    Memory(String),
    /// It is gone for this process.
    #[error("the device is lost until the server is started again: {0}")]
    Lost(String),
    /// It could not make this block.
    #[error("the device failed: {0}")]
    Failed(String),
    /// The plan asks for what the block or the raster does not have.
    #[error("row {row} of the plan does not fit its block")]
    Misfit {
        /// Row of the plan, or picture.
        row: usize,
    },
    /// What the block gives cause for, an error or another record in the place of one, is the CPU's to say.
    #[error("slot {slot} has a scene that only the CPU may refuse")]
    Refused {
        /// Slot of the block.
        slot: u32,
    },
}

impl DeviceError {
    /// Whether who chose the device is to blame, and not the device.
    pub fn is_choice(&self) -> bool {
        match self {
            DeviceError::NotBuilt(_) | DeviceError::Absent { .. } => true,
            DeviceError::Memory(_)
            | DeviceError::Lost(_)
            | DeviceError::Failed(_)
            | DeviceError::Misfit { .. }
            | DeviceError::Refused { .. } => false,
        }
    }

    /// Label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            DeviceError::NotBuilt(_) | DeviceError::Absent { .. } => "absent",
            DeviceError::Memory(_) => "memory",
            DeviceError::Lost(_) => "lost",
            DeviceError::Failed(_) | DeviceError::Misfit { .. } => "failed",
            DeviceError::Refused { .. } => "refused",
        }
    }
}

/// How many times a crop may be shrunk, either way, that a device resamples. Where a picture is shrunk more, resampling
/// leaves so much less to send that it is done first; up to it, f32 holds the resampler's sums exactly.
pub const MOST_SHRUNK: f64 = 3.0;

/// A decoded part of a picture that is still to become a clean row.
#[derive(Debug)]
pub struct Picture<B> {
    /// Interleaved RGB, in its first [`Picture::bytes`].
    pub pixels: B,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// The crop, in pixels of this part; inside of it, and shrunk at most [`MOST_SHRUNK`] times.
    pub crop: Crop,
    /// What its pixels become: the size after resampling, turn, colour, erasing. (Its own crop is of the stored picture.)
    pub view: View,
}

impl<B> Picture<B> {
    /// Bytes of its pixels.
    pub fn bytes(&self) -> usize {
        self.height as usize * self.width as usize * CHANNELS
    }
}

/// Rows in memory of a device's library, which is given back when they are dropped.
pub struct Lent(Box<dyn AsRef<[u8]> + Send + Sync>);

impl Lent {
    /// Keeps `rows` until it is dropped.
    pub fn new(rows: impl AsRef<[u8]> + Send + Sync + 'static) -> Lent {
        Lent(Box::new(rows))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("bytes", &self.as_ref().len()).finish()
    }
}

/// Memory of a block.
pub trait Buffer: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static {
    /// Has `rows`, as many bytes as its own, in the place of these.
    fn replace(&mut self, rows: Lent);
}

impl Buffer for Vec<u8> {
    fn replace(&mut self, rows: Lent) {
        self.copy_from_slice(rows.as_ref());
    }
}

/// What a block is made from.
#[derive(Debug)]
pub enum Input<B> {
    /// Clean rows, `raster.len()` bytes each.
    Clean(B),
    /// Decoded pictures, one for each clean row.
    Decoded(Vec<Picture<B>>),
}

/// How far a block is when [`Mixer::run`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its rows are in `out`.
    Done,
    /// The device works on it.
    Begun,
}

/// Makes blocks of `B`; lives on one thread. A block that was only begun is waited for and collected; in between, the next
/// one is staged while the device works, and begun before rows are copied or handed on.
pub trait Mixer<B> {
    /// Copies what the next [`Mixer::run`] reads to where the device takes it.
    ///
    /// # Errors
    /// [`DeviceError`]; the block is not run then.
    fn stage(&mut self, _input: &Input<B>, _format: &Format) -> Result<(), DeviceError> {
        Ok(())
    }

    /// As [`super::finish()`] for the pictures of `input`, where they are not clean rows yet, and [`super::run`] for all
    /// `rows` of a block; `out` takes `rows.len()` rows of `raster.len() * dtype.size()` little-endian bytes.
    ///
    /// # Errors
    /// [`DeviceError`], with any bytes in `out`.
    fn run(
        &mut self,
        rows: &[Row],
        input: &Input<B>,
        format: &Format,
        out: &mut [u8],
    ) -> Result<Progress, DeviceError>;

    /// Waits for the block that was begun.
    ///
    /// # Errors
    /// What happened on the device meanwhile.
    fn wait(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// The rows of the block that was waited for, where they lie in one piece of `bytes` bytes: nobody copies them then.
    fn lend(&mut self, _bytes: usize) -> Option<Lent> {
        None
    }

    /// Writes the rows of the block that was waited for, which were not lent.
    ///
    /// # Errors
    /// [`DeviceError`], with any bytes in `out`.
    fn collect(&mut self, _out: &mut [u8]) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Makes all `rows` of a block of scenes: its columns lie in `out` one after the other, in descriptor order and
    /// little-endian, as many bytes as the points of what is returned ask for. No block of pictures is begun meanwhile.
    ///
    /// # Errors
    /// [`DeviceError`], with any bytes in `out`; [`DeviceError::Refused`] where the CPU would refuse the block or one of
    /// its scenes.
    fn scenes(&mut self, rows: &[Row], block: &Scenes, out: &mut [u8]) -> Result<Vec<RowMade>, DeviceError>;
}

/// Starts the worker of `device`; `None` where the CPU executor does the work. `threads` are those that make pictures
/// on the processor, or copy what a device is sent; 0: one for each core.
///
/// # Errors
/// [`DeviceError::NotBuilt`] or [`DeviceError::Absent`], and whatever the device answers to a first small upload.
pub fn start<B: Buffer>(device: Device, threads: usize) -> Result<Option<Worker<B>>, DeviceError> {
    if device == Device::Cpu {
        return Ok(None);
    }
    #[cfg(feature = "libtorch")]
    {
        super::torch::start(device, threads)
    }
    #[cfg(not(feature = "libtorch"))]
    match (device, threads) {
        (Device::Auto, _) => Ok(None),
        (Device::Cpu | Device::Torch | Device::Cuda(_), _) => Err(DeviceError::NotBuilt(device)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_read() {
        for device in [Device::Cpu, Device::Torch, Device::Cuda(0), Device::Cuda(7), Device::Auto] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let error = wrong.parse::<Device>().expect_err("no device");
            assert_eq!(error, format!("`{wrong}` is no device, want cpu, torch, cuda:N or auto"));
        }
    }

    #[test]
    fn what_is_not_built_is_refused_with_what_to_do() {
        assert!(matches!(start::<Vec<u8>>(Device::Cpu, 0), Ok(None)));
        if !cfg!(feature = "libtorch") {
            assert!(matches!(start::<Vec<u8>>(Device::Auto, 0), Ok(None)));
            let error = start::<Vec<u8>>(Device::Cuda(3), 0).expect_err("not built").to_string();
            let want = "device `cuda:3` is not in this build; build with `--features libtorch`, or use `cpu`";
            assert_eq!(error, want);
        }
    }
}
