//! What an operator says of a mixer: a JSON file beside its modules.

use super::MixerError;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Largest side of a mixer's pictures.
const MOST_SIDE: u32 = 4096;

/// What a network's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Output {
    /// (n, 1, height / factor, width / factor): logits of the partner; the base's weight is 1 - sigmoid (AutoMix, SAMix).
    PartnerSigmoid,
    /// (n, 2, height / factor, width / factor): logits of base and partner; the base's weight is its share of the softmax
    /// (AdAutoMix).
    Softmax,
    /// (n, 2): lower end and length of the interval that lambda is taken from (AdaMixUp).
    Interval,
}

/// How logits become as large as the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Upsample {
    /// Each logit fills its cell.
    Nearest,
    /// Half-pixel centres.
    Bilinear,
}

/// Whose weight a network is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Lambda {
    /// The base's.
    Base,
    /// The partner's.
    Partner,
}

/// A file beside the manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Path, relative to the manifest.
    pub(super) file: PathBuf,
    /// Digest of its bytes, hex.
    sha256: String,
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// What the output means.
    pub(super) output: Output,
    /// Rows of the pictures that the network sees; those of a job are resampled if they have others.
    pub(super) height: u32,
    /// Columns.
    pub(super) width: u32,
    /// Pictures are (x / 255 - mean) / std, per channel.
    pub(super) mean: [f32; 3],
    /// See `mean`.
    pub(super) std: [f32; 3],
    /// Whose weight goes in.
    pub(super) lambda: Lambda,
    /// Pixels of the picture for one logit, each way; masks only.
    factor: Option<u32>,
    /// How logits become a mask; masks only.
    upsample: Option<Upsample>,
    /// TorchScript: pictures (n, 3, height, width) f32 to features (n, ...); without one the mixer sees pictures.
    pub(super) stem: Option<Entry>,
    /// TorchScript: features of base and partner and lambda (n) f32 to the output.
    pub(super) mixer: Entry,
    /// NumPy archive of `a` and `b` (n, 3, height, width) u8, `lambda` (n) f32, `out` f32.
    pub(super) golden: Entry,
}

impl Manifest {
    /// Reads and checks `file`; returns its bytes as well.
    pub(super) fn read(name: &str, file: &Path) -> Result<(Manifest, Vec<u8>), MixerError> {
        let bytes = read(name, file)?;
        let wrong = |why: String| MixerError::Manifest { name: name.into(), file: file.into(), why };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        manifest.misfit().map_or(Ok((manifest, bytes)), |why| Err(wrong(why)))
    }

    /// The first value that does not fit.
    fn misfit(&self) -> Option<String> {
        for (key, side) in [("height", self.height), ("width", self.width)] {
            if !(1..=MOST_SIDE).contains(&side) {
                return Some(format!("`{key}` is {side}, want 1..={MOST_SIDE}"));
            }
        }
        if !self.mean.iter().all(|x| x.is_finite()) {
            return Some("`mean` wants three finite numbers".into());
        }
        if !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Some("`std` wants three finite numbers above 0".into());
        }
        match (self.output, self.factor, self.upsample) {
            (Output::Interval, None, None) => None,
            (Output::Interval, _, _) => Some("`factor` and `upsample` mean nothing to an interval".into()),
            (Output::PartnerSigmoid | Output::Softmax, Some(factor), Some(_)) => {
                let fits =
                    factor > 0 && self.height.is_multiple_of(factor) && self.width.is_multiple_of(factor);
                let (h, w) = (self.height, self.width);
                (!fits).then(|| format!("`factor` is {factor}, want a divisor of {h} and of {w}"))
            }
            (Output::PartnerSigmoid | Output::Softmax, _, _) => {
                Some("`factor` and `upsample` are missing, which masks need".into())
            }
        }
    }

    /// Sizes of the output for `n` pairs.
    pub(super) fn shape(&self, n: usize) -> Vec<i64> {
        let cells = |side: u32| i64::from(side / self.factor.unwrap_or(1));
        match self.output {
            Output::PartnerSigmoid => vec![n as i64, 1, cells(self.height), cells(self.width)],
            Output::Softmax => vec![n as i64, 2, cells(self.height), cells(self.width)],
            Output::Interval => vec![n as i64, 2],
        }
    }

    /// How logits grow.
    pub(super) fn upsample(&self) -> Upsample {
        self.upsample.unwrap_or(Upsample::Nearest)
    }
}

impl Entry {
    /// Path of the file, given the manifest's, and its bytes, which are what the manifest means.
    pub(super) fn read(&self, name: &str, manifest: &Path) -> Result<(PathBuf, Vec<u8>), MixerError> {
        let file = manifest.parent().unwrap_or(Path::new("")).join(&self.file);
        let bytes = read(name, &file)?;
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if !found.eq_ignore_ascii_case(&self.sha256) {
            let (name, expected) = (name.into(), self.sha256.clone());
            return Err(MixerError::Digest { name, file, expected, found });
        }
        Ok((file, bytes))
    }
}

fn read(name: &str, file: &Path) -> Result<Vec<u8>, MixerError> {
    std::fs::read(file).map_err(|error| MixerError::Read {
        name: name.into(),
        file: file.into(),
        why: error.to_string(),
    })
}
