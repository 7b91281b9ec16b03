//! Rectangles of CutMix and its relatives (specs/mixing 3.1 restated).
//!
//! | rule | side | position |
//! | --- | --- | --- |
//! | `full_odd` | `int(side * r)`, exact unless clipped (timm >= 1.0.29) | centre uniform, clipped |
//! | `classic_even` | `2 * (int(side * r) / 2)` (CutMix authors, torchvision, timm before) | centre uniform, clipped |
//! | `inside` | `floor(side * r)` (kornia) | uniform, fully inside |
//! | `float_centre` | `side * r`, not truncated (PuzzleMix's CutMix) | real centre, ends clipped, then truncated |

use super::Rect;

/// How a box of given size is placed around a centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BoxRule {
    FullOdd,
    ClassicEven,
}

/// Box with sides `ratio` of the raster's, centred at (`cy`, `cx`) and clipped at the border.
pub fn centred(height: u32, width: u32, ratio: f64, cy: u32, cx: u32, rule: BoxRule) -> Rect {
    let (y0, y1) = span(height, ratio, cy, rule);
    let (x0, x1) = span(width, ratio, cx, rule);
    Rect { y0, y1, x0, x1 }
}

fn span(side: u32, ratio: f64, centre: u32, rule: BoxRule) -> (u32, u32) {
    let cut = (f64::from(side) * ratio) as u32;
    let after = match rule {
        BoxRule::FullOdd => cut.div_ceil(2),
        BoxRule::ClassicEven => cut / 2,
    };
    (centre.saturating_sub(cut / 2), (centre + after).min(side))
}

/// Box of sides `rows` x `columns` fully inside, its free space split by `u`, `v` in `[0, 1)`.
pub fn inside(height: u32, width: u32, rows: u32, columns: u32, u: f64, v: f64) -> Rect {
    let start = |side: u32, cut: u32, u: f64| (f64::from(side - cut + 1) * u) as u32;
    let (rows, columns) = (rows.min(height), columns.min(width));
    let (y0, x0) = (start(height, rows, u), start(width, columns, v));
    Rect { y0, y1: y0 + rows, x0, x1: x0 + columns }
}

/// Box of real sides `ratio` of the raster's around a real centre; ends clipped, then truncated.
pub fn float_centred(height: u32, width: u32, ratio: f64, cy: f64, cx: f64) -> Rect {
    let ends = |side: u32, centre: f64| {
        let (side, half) = (f64::from(side), f64::from(side) * ratio / 2.0);
        ((centre - half).clamp(0.0, side) as u32, (centre + half).clamp(0.0, side) as u32)
    };
    let ((y0, y1), (x0, x1)) = (ends(height, cy), ends(width, cx));
    Rect { y0, y1, x0, x1 }
}

/// Share of a `height` x `width` raster that lies outside `rect`: the realised weight of the base.
pub fn share_outside(height: u32, width: u32, rect: Rect) -> f64 {
    1.0 - rect.area() as f64 / (f64::from(height) * f64::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_boxes() {
        use BoxRule::{ClassicEven, FullOdd};
        let check =
            |(h, w): (u32, u32), lambda: f64, (cy, cx): (u32, u32), rule, want: [u32; 4], own: f64| {
                let r = centred(h, w, (1.0 - lambda).sqrt(), cy, cx, rule);
                assert_eq!([r.y0, r.y1, r.x0, r.x1], want, "{h}x{w} lambda {lambda} {rule:?}");
                assert!((share_outside(h, w, r) - own).abs() < 1e-7);
            };
        let square = (224, 224);
        check(square, 0.3, (10, 200), ClassicEven, [0, 103, 107, 224], 0.759_825_4);
        check(square, 0.3, (10, 200), FullOdd, [0, 104, 107, 224], 0.757_493_6);
        check(square, 0.3, (112, 112), ClassicEven, [19, 205, 19, 205], 0.310_507_0);
        check(square, 0.3, (112, 112), FullOdd, [19, 206, 19, 206], 0.303_073_2);
        for rule in [ClassicEven, FullOdd] {
            check((32, 32), 0.5, (16, 16), rule, [5, 27, 5, 27], 0.527_343_8);
            check((32, 32), 0.9, (0, 31), rule, [0, 5, 26, 32], 0.970_703_1);
            check((224, 160), 0.64, (100, 50), rule, [33, 167, 2, 98], 0.641_071_4);
            check((32, 32), 0.9995, (5, 5), rule, [5, 5, 5, 5], 1.0);
        }
    }
}
