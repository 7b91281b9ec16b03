//! Pairs with the output that a mixer had where it was exported.

use super::MixerError;
use super::manifest::{Entry, Manifest};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tch::{Kind, TchError, Tensor};

/// Most pairs of a file: enough to prove a network, few enough to start quickly.
const MOST_PAIRS: i64 = 64;

/// What the file holds.
#[derive(Debug)]
pub(super) struct Golden {
    /// Rows of the bases, then those of the partners, planar.
    pub(super) clean: Vec<u8>,
    /// One a pair.
    pub(super) lambda: Vec<f32>,
    /// Output of all pairs.
    pub(super) out: Vec<f32>,
}

impl Golden {
    /// Reads the file of `entry`.
    pub(super) fn read(
        name: &str,
        manifest: &Path,
        entry: &Entry,
        of: &Manifest,
    ) -> Result<Golden, MixerError> {
        // The digest first: what reads the archive gives up on some damage by a panic.
        let (file, _) = entry.read(name, manifest)?;
        let wrong = |file: PathBuf, why: String| MixerError::Load { name: name.into(), file, why };
        let arrays = catch_unwind(AssertUnwindSafe(|| Tensor::read_npz(&file)));
        let arrays = match arrays {
            Ok(Ok(arrays)) => arrays,
            Ok(Err(error)) => return Err(wrong(file, first_line(&error.to_string()))),
            Err(_) => return Err(wrong(file, "is no archive of NumPy arrays".into())),
        };
        golden(&arrays, of).map_err(|why| wrong(file, why))
    }
}

fn golden(arrays: &[(String, Tensor)], of: &Manifest) -> Result<Golden, String> {
    let found = |key: &str| {
        let array = arrays.iter().find(|(name, _)| name == key);
        array.map(|(_, array)| array).ok_or_else(|| format!("has no array `{key}`"))
    };
    let lambda = found("lambda")?;
    let n = lambda.size().first().copied().unwrap_or(0);
    if !(1..=MOST_PAIRS).contains(&n) {
        return Err(format!("has {n} pairs, want 1..={MOST_PAIRS}"));
    }
    let pictures = [n, 3, i64::from(of.height), i64::from(of.width)];
    let mut clean = bytes(found("a")?, "a", &pictures)?;
    clean.extend(bytes(found("b")?, "b", &pictures)?);
    let out = floats(found("out")?, "out", &of.shape(n as usize))?;
    Ok(Golden { clean, lambda: floats(lambda, "lambda", &[n])?, out })
}

fn flat(array: &Tensor, key: &str, shape: &[i64], kind: Kind) -> Result<Tensor, String> {
    if array.size() != shape || array.kind() != kind {
        return Err(format!("`{key}` is {:?} {:?}, want {kind:?} {shape:?}", array.kind(), array.size()));
    }
    array.f_reshape([-1]).map_err(|error: TchError| first_line(&error.to_string()))
}

fn bytes(array: &Tensor, key: &str, shape: &[i64]) -> Result<Vec<u8>, String> {
    let flat = flat(array, key, shape, Kind::Uint8)?;
    Vec::try_from(flat).map_err(|error: TchError| first_line(&error.to_string()))
}

fn floats(array: &Tensor, key: &str, shape: &[i64]) -> Result<Vec<f32>, String> {
    let flat = flat(array, key, shape, Kind::Float)?;
    Vec::try_from(flat).map_err(|error: TchError| first_line(&error.to_string()))
}

/// What libtorch says, without its stack.
pub(super) fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
