//! Arithmetic on runs of elements: these bodies are the definition. [`super::simd`] compiles the same bodies again for
//! wider registers, so both give the same bits: elementwise IEEE operations in one fixed order, never fused.

// Those of scenes, beside what calls them.
pub(super) use super::points::lanes::measure;
pub(super) use super::points::voxel::{cells, widen};
pub(super) use super::points::walk::walk;

/// 1.5 * 2^23: adding it to `0.0..=255.5` leaves round-half-to-even of the value in the low byte of the sum.
const ROUND: f32 = 12_582_912.0;

/// `v` rounded half to even; `v` in `0.0..=255.5`, which every convex combination of bytes obeys.
#[inline(always)]
pub(super) fn rint(v: f32) -> u8 {
    (v + ROUND).to_bits() as u8
}

/// `v` cut to `0..=255`, then truncated, as a float to byte cast after `clamp_`.
#[inline(always)]
fn trunc(v: f32) -> u8 {
    rint(v.clamp(0.0, 255.0).floor())
}

/// Byte as a fraction of full scale.
#[inline(always)]
fn unit(v: u8) -> f32 {
    f32::from(v) / 255.0
}

#[inline(always)]
pub(super) fn blend_bytes(a: &[u8], b: &[u8], lambda: f32, rest: f32, out: &mut [u8]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = rint(f32::from(*a) * lambda + f32::from(*b) * rest);
    }
}

#[inline(always)]
pub(super) fn blend_into_bytes(line: &mut [u8], b: &[u8], lambda: f32, rest: f32) {
    for (a, b) in line.iter_mut().zip(b) {
        *a = rint(f32::from(*a) * lambda + f32::from(*b) * rest);
    }
}

#[inline(always)]
pub(super) fn weigh_bytes(line: &mut [u8], b: &[u8], weights: &[f32]) {
    for ((a, b), m) in line.iter_mut().zip(b).zip(weights) {
        *a = rint(f32::from(*a) * m + f32::from(*b) * (1.0 - m));
    }
}

#[inline(always)]
pub(super) fn round_bytes(line: &mut [u8], values: &[f32]) {
    for (a, v) in line.iter_mut().zip(values) {
        *a = rint(*v);
    }
}

#[inline(always)]
pub(super) fn load_floats(line: &mut [f32], b: &[u8]) {
    for (a, b) in line.iter_mut().zip(b) {
        *a = unit(*b);
    }
}

#[inline(always)]
pub(super) fn blend_into_floats(line: &mut [f32], b: &[u8], lambda: f32, rest: f32) {
    for (a, b) in line.iter_mut().zip(b) {
        *a = *a * lambda + unit(*b) * rest;
    }
}

#[inline(always)]
pub(super) fn weigh_floats(line: &mut [f32], b: &[u8], weights: &[f32]) {
    for ((a, b), m) in line.iter_mut().zip(b).zip(weights) {
        *a = *a * m + unit(*b) * (1.0 - m);
    }
}

#[inline(always)]
pub(super) fn scale_floats(line: &mut [f32], values: &[f32]) {
    for (a, v) in line.iter_mut().zip(values) {
        *a = *v / 255.0;
    }
}

/// `(x - mean) / std`, one mean and std per element.
#[inline(always)]
pub(super) fn normalize(line: &mut [f32], mean: &[f32], std: &[f32]) {
    for ((a, m), s) in line.iter_mut().zip(mean).zip(std) {
        *a = (*a - m) / s;
    }
}

/// `sums += weight * b`.
#[inline(always)]
pub(super) fn accumulate(sums: &mut [f32], b: &[u8], weight: f32) {
    for (s, b) in sums.iter_mut().zip(b) {
        *s += weight * f32::from(*b);
    }
}

#[inline(always)]
pub(super) fn store_f32(line: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(4).zip(line) {
        o.copy_from_slice(&v.to_le_bytes());
    }
}

#[inline(always)]
pub(super) fn store_bf16(line: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(2).zip(line) {
        let bits = v.to_bits();
        // Round half to even on the upper 16 bits; pictures hold no NaN.
        let half = 0x7fff + ((bits >> 16) & 1);
        o.copy_from_slice(&((bits.wrapping_add(half) >> 16) as u16).to_le_bytes());
    }
}

#[inline(always)]
pub(super) fn store_f16(line: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(2).zip(line) {
        o.copy_from_slice(&half::f16::from_f32(*v).to_le_bytes());
    }
}

/// Interleaved RGB to three runs.
#[inline(always)]
pub(super) fn split(rgb: &[u8], r: &mut [u8], g: &mut [u8], b: &mut [u8]) {
    for (((p, r), g), b) in rgb.chunks_exact(3).zip(r).zip(g).zip(b) {
        (*r, *g, *b) = (p[0], p[1], p[2]);
    }
}

/// As [`split`], last pixel first.
#[inline(always)]
pub(super) fn split_mirrored(rgb: &[u8], r: &mut [u8], g: &mut [u8], b: &mut [u8]) {
    for (((p, r), g), b) in rgb.chunks_exact(3).rev().zip(r).zip(g).zip(b) {
        (*r, *g, *b) = (p[0], p[1], p[2]);
    }
}

/// Three runs to interleaved RGB.
#[inline(always)]
pub(super) fn join(r: &[u8], g: &[u8], b: &[u8], rgb: &mut [u8]) {
    for (((p, r), g), b) in rgb.chunks_exact_mut(3).zip(r).zip(g).zip(b) {
        (p[0], p[1], p[2]) = (*r, *g, *b);
    }
}

/// `x * factor + offset`, cut and truncated: brightness and contrast.
#[inline(always)]
pub(super) fn affine(line: &mut [u8], factor: f32, offset: f32) {
    for v in line {
        *v = trunc(f32::from(*v) * factor + offset);
    }
}

/// Luma as torchvision computes it on bytes: floor of the weighted sum.
#[inline(always)]
fn grey(r: u8, g: u8, b: u8) -> f32 {
    (f32::from(r) * 0.2989 + f32::from(g) * 0.587 + f32::from(b) * 0.114).floor()
}

/// Sum of the grey values.
#[inline(always)]
pub(super) fn grey_sum(r: &[u8], g: &[u8], b: &[u8]) -> u64 {
    // Runs of 4096 keep the inner sum in 32 bits, which vectorises.
    let runs = r.chunks(4096).zip(g.chunks(4096)).zip(b.chunks(4096));
    let run = |((r, g), b): ((&[u8], &[u8]), &[u8])| {
        let pixels = r.iter().zip(g).zip(b);
        u64::from(pixels.map(|((r, g), b)| u32::from(rint(grey(*r, *g, *b)))).sum::<u32>())
    };
    runs.map(run).sum()
}

/// Blend with the grey picture.
#[inline(always)]
pub(super) fn saturate(r: &mut [u8], g: &mut [u8], b: &mut [u8], factor: f32, rest: f32) {
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let grey = grey(*r, *g, *b) * rest;
        *r = trunc(f32::from(*r) * factor + grey);
        *g = trunc(f32::from(*g) * factor + grey);
        *b = trunc(f32::from(*b) * factor + grey);
    }
}

/// Turns the hue by `shift` turns: RGB to HSV, add, back, all in f32.
#[inline(always)]
pub(super) fn turn_hue(r: &mut [u8], g: &mut [u8], b: &mut [u8], shift: f32) {
    for ((red, green), blue) in r.iter_mut().zip(g).zip(b) {
        let scale = |v: u8| f32::from(v) * (1.0 / 255.0);
        let (r, g, b) = (scale(*red), scale(*green), scale(*blue));
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let range = max - min;
        // A grey pixel has no hue; dividing by one instead of zero leaves it 0.
        let flat = max == min;
        let s = range / if flat { 1.0 } else { max };
        let d = if flat { 1.0 } else { range };
        let (from, to, sixths) = if max == r {
            (b, g, 6.0)
        } else if max == g {
            (r, b, 8.0)
        } else {
            (g, r, 10.0)
        };
        let h = ((to - from) / d + sixths) * (1.0 / 6.0);
        let h = h - h.floor() + shift;
        let h6 = (h - h.floor()) * 6.0;
        let i = h6.floor();
        let sf = s * (h6 - i);
        let (p, q, t) = ((1.0 - s) * max, (1.0 - sf) * max, (sf + (1.0 - s)) * max);
        // Which of v, p, q, t each channel shows in the sixths 0..=5; 6 is 0 again.
        let odd = i == 1.0 || i == 3.0 || i == 5.0;
        let ramp = if odd { q } else { t };
        let (x, y, z) = if i == 0.0 || i == 6.0 {
            (max, ramp, p)
        } else if i == 1.0 {
            (ramp, max, p)
        } else if i == 2.0 {
            (p, max, ramp)
        } else if i == 3.0 {
            (p, ramp, max)
        } else if i == 4.0 {
            (ramp, p, max)
        } else {
            (max, p, ramp)
        };
        let byte = |v: f32| trunc(v.clamp(0.0, 1.0) * 255.999);
        (*red, *green, *blue) = (byte(x), byte(y), byte(z));
    }
}
