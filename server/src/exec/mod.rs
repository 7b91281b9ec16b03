//! 6 EXECUTE: carries out plans; draws nothing.
//!
//! [`finish()`] makes clean rows of bytes, [`run`] mixes them, [`labels`] mixes their labels. Numeric rules of `cpu-1`:
//! weights and sums in f32, in the order written, never fused. A byte result is rounded half to even once per op. A
//! float result is computed on `a / 255`: `(lambda * (a / 255) + rest * (b / 255) - mean) / std`, stored once.

mod colour;
mod compose;
#[cfg(test)]
mod conformance;
pub mod device;
mod finish;
mod kernel;
pub mod labels;
mod mask;
pub mod mixer;
pub mod points;
mod simd;
mod taps;
#[cfg(feature = "libtorch")]
pub mod torch;

pub use mask::mask;

use crate::batch::{CHANNELS, Dtype, Raster};
use crate::plan::{Op, Row, view::View};
use compose::{Block, ComposeScratch};
use simd::Level;

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

/// Memory that [`run`] keeps between calls: one per thread. Holds no results.
#[derive(Debug, Default)]
pub struct Scratch {
    compose: ComposeScratch,
    /// One line of every plane, as fractions of full scale.
    line: Vec<f32>,
    /// Mean and standard deviation of each element of `line`.
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// Turns one decoded crop (interleaved RGB, `view.size`) into a clean row: turn, colour, erase, in `raster`'s memory
/// order, u8. `scratch` keeps memory between calls.
///
/// # Panics
/// When `decoded` or `out` is shorter than `raster.len()`, or the erased box leaves the raster; both would be faults
/// of the caller, never of data.
pub fn finish(view: &View, decoded: &[u8], raster: &Raster, scratch: &mut Vec<u8>, out: &mut [u8]) {
    finish::finish(Level::best(), view, decoded, raster, scratch, out);
}

/// Carries out `row` on the clean rows of its block (`clean`: rows of `raster.len()` bytes in block order) and writes
/// the finished row, `raster.len() * dtype.size()` little-endian bytes, to `out`. Does not allocate once `scratch` has
/// seen a row of each kind.
///
/// # Panics
/// When the plan does not fit the block: a row beyond `clean`, a rectangle beyond the raster, a mask of another size,
/// a learned mask that [`mixer::realise`] was not asked for, or a `dtype` that no picture has. Plans are drawn for the raster, so these would be faults of the caller.
pub fn run(row: &Row, clean: &[u8], format: &Format, scratch: &mut Scratch, out: &mut [u8]) {
    run_at(Level::best(), row, clean, format, scratch, out);
}

fn run_at(level: Level, row: &Row, clean: &[u8], format: &Format, scratch: &mut Scratch, out: &mut [u8]) {
    let block = Block { clean, raster: &format.raster };
    let out = &mut out[..format.raster.len() * format.dtype.size()];
    match format.dtype {
        Dtype::U8 => bytes(level, row, block, scratch, out),
        Dtype::F32 => floats(level, row, block, format, scratch, out, Level::store_f32),
        Dtype::F16 => floats(level, row, block, format, scratch, out, Level::store_f16),
        Dtype::Bf16 => floats(level, row, block, format, scratch, out, Level::store_bf16),
        Dtype::F64 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            panic!("pictures are u8, f16, bf16 or f32, not {:?}", format.dtype)
        }
    }
}

fn bytes(level: Level, row: &Row, block: Block<'_>, scratch: &mut Scratch, out: &mut [u8]) {
    let base = block.row(row.base);
    match row.ops.as_slice() {
        [] => out.copy_from_slice(base),
        // The two policies that most jobs use touch every byte once, whole rows at a time.
        [Op::Blend { src, lambda, rest }] => level.blend_bytes(base, block.row(*src), *lambda, *rest, out),
        [Op::Paste { src, src_rect, dst_rect, .. }] if compose::same_size(src_rect, dst_rect) => {
            compose::cut_and_paste(block.raster, base, block.row(*src), src_rect, dst_rect, out);
        }
        _ => bytes_by_line(level, row, block, scratch, out),
    }
}

fn bytes_by_line(level: Level, row: &Row, block: Block<'_>, scratch: &mut Scratch, out: &mut [u8]) {
    let elements = block.raster.width * block.raster.step;
    scratch.compose.prepare(row);
    for y in 0..block.raster.height {
        let line = &mut out[y * elements..];
        scratch.compose.line(level, row, block, y, line, block.raster.plane_len());
    }
}

fn floats(
    level: Level,
    row: &Row,
    block: Block<'_>,
    format: &Format,
    scratch: &mut Scratch,
    out: &mut [u8],
    store: fn(Level, &[f32], &mut [u8]),
) {
    let raster = block.raster;
    let (elements, size) = (raster.width * raster.step, format.dtype.size());
    let Scratch { compose, line, mean, std } = scratch;
    line.resize(raster.planes * elements, 0.0);
    if let Some((of_mean, of_std)) = &format.normalize {
        // Element `i` of a line belongs to its plane, or to channel `i % 3` of an interleaved one.
        let channel = |i: usize| if raster.step == 1 { i / elements.max(1) } else { i % CHANNELS };
        for (line, value) in [(&mut *mean, of_mean), (&mut *std, of_std)] {
            line.clear();
            line.extend((0..raster.planes * elements).map(|i| value[channel(i)]));
        }
    }
    compose.prepare(row);
    for y in 0..raster.height {
        compose.line(level, row, block, y, line, elements);
        if format.normalize.is_some() {
            level.normalize(line, mean, std);
        }
        for plane in 0..raster.planes {
            let at = (plane * raster.plane_len() + y * elements) * size;
            store(level, &line[plane * elements..][..elements], &mut out[at..at + elements * size]);
        }
    }
}
