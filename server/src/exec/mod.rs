//! 6 EXECUTE: carries out plans; draws nothing.

use crate::batch::{Dtype, Raster};
use crate::plan::{Row, view::View};

/// Output of a feed's pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    /// Memory shape of one row.
    pub raster: Raster,
    /// Element type: U8 keeps 0..=255, F16, Bf16 and F32 are x / 255, normalised if asked.
    pub dtype: Dtype,
    /// Mean and standard deviation per channel; float types only.
    pub normalize: Option<([f32; 3], [f32; 3])>,
}

/// Turns one decoded crop (interleaved RGB, `view.size`) into a clean row: turn, colour, erase, in `raster`'s memory
/// order, u8. `scratch` keeps memory between calls.
pub fn finish(view: &View, decoded: &[u8], raster: &Raster, scratch: &mut Vec<u8>, out: &mut [u8]) {
    let _ = (view, decoded, raster, scratch, out);
}

/// Carries out `row` on the clean rows of its block (`clean`: rows of `raster.len()` bytes in block order) and writes
/// the finished row, `raster.len() * dtype.size()` little-endian bytes, to `out`.
pub fn run(row: &Row, clean: &[u8], format: &Format, out: &mut [u8]) {
    let _ = (row, clean, format, out);
}

/// Weight of the base at every pixel of `row`, row-major `height * width`, for pictures and tests.
pub fn mask(row: &Row, height: u32, width: u32) -> Vec<f32> {
    let _ = row;
    vec![1.0; (height * width) as usize]
}
