//! Which pixels of a picture must be decoded for a crop, and at which scale. Pure functions.

use crate::batch::{Crop, Peek};

/// Reductions n/8 of a JPEG that are used, smallest first: those whose inverse transform has vector code in
/// libjpeg-turbo. The others cost more than they save: random crops of 500 x 375 pictures to 224 x 224 decode at
/// 1,190/s with all eight and at 1,430/s with these (one thread, same machine and hour).
const EIGHTHS: [u8; 4] = [1, 2, 4, 8];

/// Narrowest region. libjpeg-turbo upsamples chroma by another rule where a component has two columns or fewer.
const MIN_WIDTH: u32 = 16;

/// Pixels beyond the reach of the resampling filter that are decoded on each side. libjpeg-turbo's chroma upsampling
/// at the left and right edge of a region differs from its neighbours' by one pixel.
const EDGE: f64 = 2.0;

/// A decoded rectangle of a (scaled) picture, and where the crop lies in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Source {
    /// Scale of the decoded pixels, n/8.
    pub eighths: u8,
    /// First row, in scaled pixels.
    pub y: u32,
    /// First column, in scaled pixels.
    pub x: u32,
    /// Rows, >= 1.
    pub height: u32,
    /// Columns, >= 1.
    pub width: u32,
    /// The whole scaled picture.
    pub is_whole: bool,
    /// The crop, in pixels of this rectangle; inside of it.
    pub crop: Crop,
}

/// The largest reduction whose crop is still at least `size` on both sides, among [`EIGHTHS`]: the n of n/8.
pub(super) fn eighths(crop: &Crop, size: (u32, u32)) -> u8 {
    let enough = |n: u8| {
        let scale = f64::from(n) / 8.0;
        crop.height * scale >= f64::from(size.0) && crop.width * scale >= f64::from(size.1)
    };
    EIGHTHS.into_iter().find(|n| enough(*n)).unwrap_or(8)
}

/// `length` pixels at a scale of n/8, as a JPEG decoder rounds it: up.
fn scaled(length: u32, eighths: u8) -> u32 {
    (u64::from(length) * u64::from(eighths)).div_ceil(8) as u32 // at most `length`
}

/// The whole picture at a scale of n/8.
pub(super) fn whole(peek: &Peek, crop: &Crop, eighths: u8) -> Source {
    let (height, width) = (scaled(peek.height, eighths), scaled(peek.width, eighths));
    let scale = f64::from(eighths) / 8.0;
    let (y, rows) = inside(crop.y * scale, crop.height * scale, height);
    let (x, columns) = inside(crop.x * scale, crop.width * scale, width);
    Source {
        eighths,
        y: 0,
        x: 0,
        height,
        width,
        is_whole: true,
        crop: Crop { y, x, height: rows, width: columns },
    }
}

/// The part of the picture at a scale of n/8 that resampling `crop` to `size` reads. Its left edge lies on a multiple
/// of `unit` unscaled pixels.
pub(super) fn around(peek: &Peek, crop: &Crop, size: (u32, u32), eighths: u8, unit: u32) -> Source {
    let all = whole(peek, crop, eighths);
    let (y, y_end) = reach(all.crop.y, all.crop.height, size.0, all.height);
    let (x, x_end) = reach(all.crop.x, all.crop.width, size.1, all.width);
    let unit = unit * u32::from(eighths) / 8; // exact: `unit` is a multiple of 8
    let x = x - x % unit;
    let x = if x_end - x < MIN_WIDTH { x.saturating_sub(MIN_WIDTH.next_multiple_of(unit)) } else { x };
    let x_end = x_end.max(all.width.min(x + MIN_WIDTH));
    let crop = Crop { y: all.crop.y - f64::from(y), x: all.crop.x - f64::from(x), ..all.crop };
    let (height, width) = (y_end - y, x_end - x);
    let is_whole = (height, width) == (all.height, all.width);
    Source { eighths, y, x, height, width, is_whole, crop }
}

/// Pixels `first..end` that resampling `start..start + length` to `size` samples reads, with [`EDGE`].
fn reach(start: f64, length: f64, size: u32, limit: u32) -> (u32, u32) {
    // The triangle reaches one output sample, or one source pixel when enlarging, beyond a sample's centre.
    let margin = (length / f64::from(size.max(1))).max(1.0) + EDGE;
    let first = (start - margin).floor().max(0.0) as u32;
    let end = (start + length + margin).ceil().min(f64::from(limit)) as u32;
    (first, end)
}

/// Clips `start..start + length` to `0..limit`. A plan's crop lies inside but for the rounding of its arithmetic.
fn inside(start: f64, length: f64, limit: u32) -> (f64, f64) {
    /// Smallest side of a crop in pixels; keeps a degenerate crop from dividing by zero.
    const SMALLEST: f64 = 1e-6;
    let limit = f64::from(limit);
    let start = start.max(0.0).min(limit - SMALLEST);
    (start, length.max(SMALLEST).min(limit - start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Format;

    fn crop(y: f64, x: f64, height: f64, width: f64) -> Crop {
        Crop { y, x, height, width }
    }

    #[test]
    fn the_scale_keeps_at_least_the_wanted_size_on_both_sides() {
        for (height, width, want) in
            [(448.0, 896.0, 4), (447.9, 896.0, 8), (900.0, 1800.0, 2), (100.0, 3.0, 8)]
        {
            assert_eq!(eighths(&crop(0.0, 0.0, height, width), (224, 224)), want, "{height} x {width}");
        }
        assert_eq!(eighths(&crop(0.0, 0.0, 2000.0, 2000.0), (1, 1)), 1);
        for n in 1..=8 {
            let crop = crop(0.0, 0.0, 500.0, 375.0);
            let size = (500 * n / 8, 375 * n / 8);
            let chosen = u32::from(eighths(&crop, size));
            assert!(500 * chosen >= size.0 * 8 && 375 * chosen >= size.1 * 8, "{size:?} at {chosen}/8");
        }
    }

    #[test]
    fn a_region_holds_the_reach_of_the_filter_and_starts_on_a_unit() {
        let peek = Peek { format: Format::Jpeg, height: 301, width: 517, orientation: 1 };
        let wanted = crop(100.5, 203.25, 40.0, 90.0);
        let source = around(&peek, &wanted, (20, 30), 8, 16);
        // Triangle: 2 rows and 3 columns beyond the crop, and 2 more for upsampling.
        assert_eq!((source.y, source.height), (96, 145 - 96));
        assert_eq!((source.x, source.x + source.width), (192, 299));
        assert_eq!(source.crop, crop(4.5, 11.25, 40.0, 90.0));
        assert!(!source.is_whole);
    }

    #[test]
    fn regions_at_the_borders_and_of_narrow_crops_lie_inside() {
        for (height, width) in [(301, 517), (1, 40), (40, 1), (17, 33), (65_535, 16)] {
            let peek = Peek { format: Format::Jpeg, height, width, orientation: 1 };
            let (h, w) = (f64::from(height), f64::from(width));
            for wanted in
                [crop(0.0, 0.0, h, w), crop(h - 0.5, w - 0.5, 0.5, 0.5), crop(h / 2.0, 0.0, 1e-9, w)]
            {
                for (n, unit) in (1..=8).flat_map(|n| [(n, 8), (n, 16), (n, 32)]) {
                    let source = around(&peek, &wanted, (9, 5), n, unit);
                    assert!(source.y + source.height <= scaled(height, n) && source.height > 0, "{source:?}");
                    assert!(source.x + source.width <= scaled(width, n) && source.width > 0, "{source:?}");
                    assert_eq!(source.x % (unit * u32::from(n) / 8), 0, "{source:?}");
                    assert!(source.width >= MIN_WIDTH.min(scaled(width, n)), "{source:?}");
                    let right = source.crop.x + source.crop.width;
                    assert!(source.crop.x >= 0.0 && right <= f64::from(source.width), "{source:?}");
                }
            }
        }
    }

    #[test]
    fn a_crop_that_sticks_out_or_is_no_number_is_clipped() {
        assert_eq!(inside(-3.0, 5.0, 4), (0.0, 4.0));
        assert_eq!(inside(f64::NAN, f64::NAN, 4).0, 0.0);
        let (start, length) = inside(9.0, 0.0, 4);
        assert!(start < 4.0 && length > 0.0 && start + length <= 4.0);
    }
}
