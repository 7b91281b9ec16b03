//! 2 DECODE: encoded picture to pixels, only the crop and scale that the plan wants.

use crate::batch::{Crop, Peek};

/// Limits of one record, checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest height * width.
    pub max_pixels: u64,
    /// Largest encoded size in bytes.
    pub max_bytes: u64,
}

/// A bad record: its complete bytes cannot be decoded, or exceed a limit of the job. A property of the record, never of
/// the crop asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a picture of a known format.
    #[error("is no JPEG, PNG, WebP, GIF or BMP file")]
    Format,
    /// Every decoder refuses it.
    #[error("cannot be decoded: {0}")]
    Broken(String),
    /// Beyond a limit of the job.
    #[error("{what} is {value}, want at most {limit}")]
    Limit {
        /// "height * width" or "encoded size in bytes".
        what: &'static str,
        /// What the record says.
        value: u64,
        /// Limit.
        limit: u64,
    },
}

/// Reads the header of an encoded picture.
///
/// # Errors
/// [`DecodeError`]: unknown format, damaged header, over a limit, or an incomplete file.
pub fn peek(_bytes: &[u8], _limits: Limits) -> Result<Peek, DecodeError> {
    Err(DecodeError::Format)
}

/// Decodes pictures; keeps its scratch memory, so one per thread.
#[derive(Debug, Default)]
pub struct Decoder {}

impl Decoder {
    /// A decoder.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes `crop` (in stored pixels) of a picture whose header said `peek`, resampled to `size` (rows, columns),
    /// into `out`: interleaved RGB, `rows * columns * 3` bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; whether it fails does not depend on `crop` and `size`.
    pub fn decode(
        &mut self,
        _bytes: &[u8],
        _peek: &Peek,
        _crop: &Crop,
        _size: (u32, u32),
        _out: &mut [u8],
    ) -> Result<(), DecodeError> {
        Err(DecodeError::Format)
    }
}
