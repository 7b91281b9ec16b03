//! Exported mixers: networks, declared by the operator, that look at a pair of pictures and make its mask (policy
//! `learned`). A plan names the mixer and lambda; once the clean rows of a block are there, [`realise`] puts weights in
//! the place of such masks, and every executor mixes the same weights.
//!
//! A mask is a function of the mixer's files, the two clean rows and lambda. On the processor each network sees one
//! picture or pair at a time, on one thread, without the optimiser that changes a graph after its first runs: neither
//! the other rows of a block nor the number of threads change a bit. Another processor may: these bits are libtorch's.
//!
//! Builds without the feature `libtorch` have none; [`open`] says so.

#[cfg_attr(not(feature = "libtorch"), path = "absent.rs")]
mod module;
#[cfg(test)]
mod tests;

#[cfg(feature = "libtorch")]
mod golden;
#[cfg(feature = "libtorch")]
mod manifest;

use super::device::{Device, DeviceError};
use crate::batch::Raster;
use crate::plan::{Mask, Op, Row};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Mixers by name.
pub type Mixers = BTreeMap<String, Arc<Mixer>>;

/// A mixer that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MixerError {
    /// This build has no libtorch.
    #[error("mixer `{name}` needs libtorch, which is not in this build; build with `--features libtorch`")]
    NotBuilt {
        /// Mixer.
        name: String,
    },
    /// A file that cannot be read.
    #[error("mixer `{name}`: cannot read `{}`: {why}", file.display())]
    Read {
        /// Mixer.
        name: String,
        /// File.
        file: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A manifest that does not fit.
    #[error("mixer `{name}`: manifest `{}`: {why}", file.display())]
    Manifest {
        /// Mixer.
        name: String,
        /// File.
        file: PathBuf,
        /// Key, what is there and what is wanted.
        why: String,
    },
    /// A file that is not the one that the manifest means.
    #[error("mixer `{name}`: `{}` has sha256 {found}, its manifest says {expected}", file.display())]
    Digest {
        /// Mixer.
        name: String,
        /// File.
        file: PathBuf,
        /// Of the manifest, hex.
        expected: String,
        /// Of the file, hex.
        found: String,
    },
    /// A file that libtorch or NumPy's format does not know.
    #[error("mixer `{name}`: cannot use `{}`: {why}", file.display())]
    Load {
        /// Mixer.
        name: String,
        /// File.
        file: PathBuf,
        /// What libtorch says.
        why: String,
    },
    /// Another output than the golden one.
    #[error("mixer `{name}`: its output is off by {difference:e} from the golden one, want at most 1e-4")]
    Golden {
        /// Mixer.
        name: String,
        /// Largest difference; NaN when the output is.
        difference: f32,
    },
    /// Two runs on the same pair differ: the network draws.
    #[error("mixer `{name}`: two runs on the same pair differ; was it exported in evaluation mode?")]
    Unsteady {
        /// Mixer.
        name: String,
    },
    /// An output of another shape.
    #[error("mixer `{name}`: its output has shape {found:?}, want {wanted:?}")]
    Shape {
        /// Mixer.
        name: String,
        /// Sizes that came.
        found: Vec<i64>,
        /// Sizes that the manifest promises.
        wanted: Vec<i64>,
    },
    /// An output that is no mask and no interval.
    #[error("mixer `{name}`: rows {base} and {partner} of the block get {why}")]
    Values {
        /// Mixer.
        name: String,
        /// Row of the block.
        base: u32,
        /// Row of the block.
        partner: u32,
        /// What came and what is wanted.
        why: String,
    },
    /// Libtorch or its device failed.
    #[error("mixer `{name}`: {error}")]
    Device {
        /// Mixer.
        name: String,
        /// Why.
        error: DeviceError,
    },
}

impl MixerError {
    /// The device's own failure: another device, or this one later, may do it.
    pub fn of_device(&self) -> Option<&DeviceError> {
        match self {
            MixerError::Device { error, .. } => Some(error),
            MixerError::NotBuilt { .. }
            | MixerError::Read { .. }
            | MixerError::Manifest { .. }
            | MixerError::Digest { .. }
            | MixerError::Load { .. }
            | MixerError::Golden { .. }
            | MixerError::Unsteady { .. }
            | MixerError::Shape { .. }
            | MixerError::Values { .. } => None,
        }
    }
}

/// Where a mixer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the server's device.
    Device,
    /// On the processor.
    Cpu,
}

/// What a pair is asked for.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "nobody answers in such a build"))]
#[derive(Clone, Copy, Debug)]
struct Ask {
    base: u32,
    partner: u32,
    /// Weight of the base as drawn.
    lambda: f32,
}

/// What comes of it.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "nobody answers in such a build"))]
#[derive(Clone, Debug)]
enum Answer {
    /// Weight of the base per pixel, row-major.
    Mask(Arc<[f32]>),
    /// Lower end and length of the interval that the base's weight is taken from.
    Interval(f32, f32),
}

/// A mixer in memory.
#[derive(Debug)]
pub struct Mixer {
    name: String,
    module: module::Module,
}

impl Mixer {
    /// Loads the mixer `name` that the manifest at `file` describes, for a server with `device`, and proves it.
    ///
    /// # Errors
    /// [`MixerError`], for the first thing that does not fit.
    pub fn open(name: &str, file: &Path, device: Device) -> Result<Mixer, MixerError> {
        Ok(Mixer { name: name.into(), module: module::Module::open(name, file, device)? })
    }

    /// Name that the operator gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Digest of everything that it is: manifest and, by their digests there, its files.
    pub fn digest(&self) -> [u8; 32] {
        self.module.digest()
    }

    /// Whether it gives an interval for lambda instead of a mask.
    pub fn is_interval(&self) -> bool {
        self.module.is_interval()
    }
}

/// Loads mixers, by name and file of the manifest, for a server with `device`.
///
/// # Errors
/// As [`Mixer::open`].
pub fn open<'a>(
    declared: impl IntoIterator<Item = (&'a str, &'a Path)>,
    device: Device,
) -> Result<Mixers, MixerError> {
    let mut mixers = Mixers::new();
    for (name, file) in declared {
        let mixer = Mixer::open(name, file, device)?;
        tracing::info!(mixer = name, digest = %blake3::Hash::from(mixer.digest()), "mixer loaded");
        mixers.insert(name.into(), Arc::new(mixer));
    }
    Ok(mixers)
}

/// Whether a mixer has a part in `rows`.
pub fn is_asked(rows: &[Row]) -> bool {
    rows.iter().flat_map(|row| &row.ops).any(|op| learned(op).is_some())
}

/// `rows` with what their mixers, `mixers` by number, make of the `clean` rows of the block in the place of learned masks.
/// In `rows` themselves, those that a mixer gives an interval get the weight that is taken from it as `own`.
///
/// # Errors
/// [`MixerError`]; `rows` may be changed in part.
pub fn realise(
    mixers: &[Arc<Mixer>],
    rows: &mut [Row],
    (clean, raster): (&[u8], &Raster),
    place: Place,
) -> Result<Vec<Row>, MixerError> {
    let mut made = rows.to_vec();
    for (number, mixer) in mixers.iter().enumerate() {
        let (mut at, mut asks) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            for (k, op) in row.ops.iter().enumerate() {
                let Some((partner, lambda, _)) = learned(op).filter(|(_, _, of)| *of as usize == number)
                else {
                    continue;
                };
                at.push((i, k));
                asks.push(Ask { base: row.base, partner, lambda });
            }
        }
        if asks.is_empty() {
            continue;
        }
        let answers = mixer.module.answer(&mixer.name, &asks, clean, raster, place)?;
        for (((i, k), ask), answer) in at.into_iter().zip(asks).zip(answers) {
            made[i].ops[k] = match answer {
                Answer::Mask(weights) => Op::MaskBlend { src: ask.partner, mask: Mask::Weights(weights) },
                Answer::Interval(low, length) => {
                    let own = (f64::from(low) + f64::from(ask.lambda) * f64::from(length)).clamp(0.0, 1.0);
                    (rows[i].own, made[i].own) = (own, own);
                    Op::Blend { src: ask.partner, lambda: own as f32, rest: (1.0 - own) as f32 }
                }
            };
        }
    }
    Ok(made)
}

/// Partner, lambda and mixer of an op with a learned mask.
fn learned(op: &Op) -> Option<(u32, f32, u32)> {
    match op {
        Op::MaskBlend { src, mask: Mask::Learned { mixer, lambda, .. } } => Some((*src, *lambda, *mixer)),
        Op::MaskBlend { .. }
        | Op::Blend { .. }
        | Op::Paste { .. }
        | Op::Union { .. }
        | Op::Sectors { .. }
        | Op::Instances { .. }
        | Op::Bands { .. } => None,
    }
}
