//! Colour changes on planar bytes, with torchvision's rules for uint8 tensors: arithmetic in f32, cut to 0..=255,
//! truncated. Equal to torchvision 0.26 within one level (its own vector paths fuse, ours never do).

use super::simd::Level;
use crate::plan::view::Colour;

/// Applies `changes` in order to the planes `r`, `g`, `b` of equal length.
pub(super) fn apply(level: Level, changes: &[Colour], r: &mut [u8], g: &mut [u8], b: &mut [u8]) {
    for change in changes {
        match *change {
            Colour::Brightness(factor) => {
                [&mut *r, &mut *g, &mut *b].into_iter().for_each(|p| level.affine(p, factor, 0.0));
            }
            Colour::Contrast(factor) => {
                let mean = (level.grey_sum(r, g, b) as f64 / r.len().max(1) as f64) as f32;
                let offset = mean * rest(factor);
                [&mut *r, &mut *g, &mut *b].into_iter().for_each(|p| level.affine(p, factor, offset));
            }
            Colour::Saturation(factor) => level.saturate(r, g, b, factor, rest(factor)),
            Colour::Hue(shift) => level.turn_hue(r, g, b, shift),
        }
    }
}

fn rest(factor: f32) -> f32 {
    (1.0 - f64::from(factor)) as f32
}
