//! The kernels again for AVX2 and AVX-512: the one place that asks what the processor can do.
//!
//! Each entry compiles the scalar body of [`super::kernel`] under `#[target_feature]`; a body of the same IEEE
//! operations gives the same bits at any width. `fma` is left out on purpose: fusing changes rounding. Only storing
//! f16 is written by hand, as the compiler does not find that instruction.

#![allow(unsafe_code)]

use super::kernel;
use super::points::Measured;
use super::points::lanes::Bounds;
use super::points::voxel::{Blocks, Cells, Grid};
use super::points::walk::{Input, Notes, Step};

/// Instruction set that the kernels run on. Results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The definition.
    Scalar,
    /// AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The common part of AVX-512 (F, BW, DQ, VL) on top.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The widest level of this processor.
    #[inline]
    pub(super) fn best() -> Level {
        Level::all().last().copied().unwrap_or(Level::Scalar)
    }

    /// Every level that this processor has, narrowest first.
    #[inline]
    pub(super) fn all() -> &'static [Level] {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            const LEVELS: &[Level] = &[Level::Scalar, Level::Avx2, Level::Avx512];
            return if wide { LEVELS } else { &LEVELS[..2] };
        }
        &[Level::Scalar]
    }
}

/// Declares entries that take a level and run the scalar body or a twin of it; `avx2` names the twins' body.
macro_rules! entries {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?, avx2 = $twin:path;)*) => {
        impl Level { $(
            $(#[$doc])*
            #[inline]
            pub(super) fn $name(self, $($arg: $ty),*) $(-> $ret)? {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx2,f16c")]
                    fn twin($($arg: $ty),*) $(-> $ret)? {
                        $twin($($arg),*)
                    }
                    #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                    fn wide_twin($($arg: $ty),*) $(-> $ret)? {
                        $twin($($arg),*)
                    }
                    match self {
                        Level::Scalar => kernel::$name($($arg),*),
                        // SAFETY: `Level::all` alone makes this level, after it saw both features.
                        Level::Avx2 => unsafe { twin($($arg),*) },
                        // SAFETY: as above, with the four features of AVX-512.
                        Level::Avx512 => unsafe { wide_twin($($arg),*) },
                    }
                }
                #[cfg(not(target_arch = "x86_64"))]
                kernel::$name($($arg),*)
            }
        )* }
    };
}

entries! {
    /// `out = rint(a * lambda + b * rest)`.
    fn blend_bytes(a: &[u8], b: &[u8], lambda: f32, rest: f32, out: &mut [u8]), avx2 = kernel::blend_bytes;
    /// `line = rint(line * lambda + b * rest)`.
    fn blend_into_bytes(line: &mut [u8], b: &[u8], lambda: f32, rest: f32), avx2 = kernel::blend_into_bytes;
    /// `line = rint(line * m + b * (1 - m))`.
    fn weigh_bytes(line: &mut [u8], b: &[u8], weights: &[f32]), avx2 = kernel::weigh_bytes;
    /// `line = rint(values)`.
    fn round_bytes(line: &mut [u8], values: &[f32]), avx2 = kernel::round_bytes;
    /// `line = b / 255`.
    fn load_floats(line: &mut [f32], b: &[u8]), avx2 = kernel::load_floats;
    /// `line = line * lambda + b / 255 * rest`.
    fn blend_into_floats(line: &mut [f32], b: &[u8], lambda: f32, rest: f32), avx2 = kernel::blend_into_floats;
    /// `line = line * m + b / 255 * (1 - m)`.
    fn weigh_floats(line: &mut [f32], b: &[u8], weights: &[f32]), avx2 = kernel::weigh_floats;
    /// `line = values / 255`.
    fn scale_floats(line: &mut [f32], values: &[f32]), avx2 = kernel::scale_floats;
    /// `line = (line - mean) / std`.
    fn normalize(line: &mut [f32], mean: &[f32], std: &[f32]), avx2 = kernel::normalize;
    /// `sums += weight * b`.
    fn accumulate(sums: &mut [f32], b: &[u8], weight: f32), avx2 = kernel::accumulate;
    /// Little-endian f32.
    fn store_f32(line: &[f32], out: &mut [u8]), avx2 = kernel::store_f32;
    /// Little-endian bf16.
    fn store_bf16(line: &[f32], out: &mut [u8]), avx2 = kernel::store_bf16;
    /// Little-endian f16.
    fn store_f16(line: &[f32], out: &mut [u8]), avx2 = store_f16;
    /// Interleaved RGB to three runs.
    fn split(rgb: &[u8], r: &mut [u8], g: &mut [u8], b: &mut [u8]), avx2 = kernel::split;
    /// As `split`, last pixel first.
    fn split_mirrored(rgb: &[u8], r: &mut [u8], g: &mut [u8], b: &mut [u8]), avx2 = kernel::split_mirrored;
    /// Three runs to interleaved RGB.
    fn join(r: &[u8], g: &[u8], b: &[u8], rgb: &mut [u8]), avx2 = kernel::join;
    /// `line = trunc(clamp(line * factor + offset))`.
    fn affine(line: &mut [u8], factor: f32, offset: f32), avx2 = kernel::affine;
    /// Sum of the grey values.
    fn grey_sum(r: &[u8], g: &[u8], b: &[u8]) -> u64, avx2 = kernel::grey_sum;
    /// Blend with the grey picture.
    fn saturate(r: &mut [u8], g: &mut [u8], b: &mut [u8], factor: f32, rest: f32), avx2 = kernel::saturate;
    /// One walk over the triples of a scene.
    fn walk(from: Input<'_>, values: &mut [[f32; 3]], steps: &[Step<'_>], notes: &mut Notes), avx2 = kernel::walk;
    /// Extent and mean of stored coordinates.
    fn measure(coord: &[[f64; 3]]) -> Measured, avx2 = kernel::measure;
    /// Smallest and largest coordinates.
    fn widen(bounds: &mut [Bounds; 3], places: &[[f32; 3]]), avx2 = kernel::widen;
    /// Voxels of a run of points.
    fn cells(places: &[[f32; 3]], grid: &Grid, blocks: Blocks, cells: &mut Cells) -> bool, avx2 = kernel::cells;
    /// Turns the hue.
    fn turn_hue(r: &mut [u8], g: &mut [u8], b: &mut [u8], shift: f32), avx2 = kernel::turn_hue;
}

/// [`kernel::store_f16`] by the processor's own conversion, which rounds the same way; asking for it element by element,
/// as the scalar body does, costs six times as much.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn store_f16(line: &[f32], out: &mut [u8]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let (eights, rest) = line.as_chunks::<8>();
    let (wide, narrow) = out.split_at_mut((eights.len() * 16).min(out.len()));
    for (eight, out) in eights.iter().zip(wide.as_chunks_mut::<16>().0) {
        // SAFETY: `eight` is 32 readable bytes and `out` 16 writable ones; neither needs alignment.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(eight.as_ptr()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), halves);
        }
    }
    kernel::store_f16(rest, narrow);
}
