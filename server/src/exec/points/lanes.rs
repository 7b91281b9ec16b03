//! Measures of triples, four at a time: their twelve numbers fill registers of any width evenly.

use crate::exec::simd::Level;
use crate::plan::scene::Shape;

/// What is known of stored coordinates before they are transformed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Points and extent.
    pub shape: Shape,
    /// Mean per axis as [`crate::plan::scene::SceneOp`] defines it; 0 without points.
    pub mean: [f64; 3],
}

impl Measured {
    /// Reads all coordinates once.
    pub fn of(coord: &[[f64; 3]]) -> Measured {
        Level::best().measure(coord)
    }
}

/// [`Measured::of`].
#[inline(always)]
pub(in crate::exec) fn measure(coord: &[[f64; 3]]) -> Measured {
    let (mut low, mut high, mut sums) = ([f64::INFINITY; 12], [f64::NEG_INFINITY; 12], [0.0; 12]);
    let (fours, rest) = coord.as_chunks::<4>();
    for four in fours {
        for (((v, low), high), sum) in four.as_flattened().iter().zip(&mut low).zip(&mut high).zip(&mut sums)
        {
            *low = if *v < *low { *v } else { *low };
            *high = if *v > *high { *v } else { *high };
            *sum += *v;
        }
    }
    for (i, v) in rest.as_flattened().iter().enumerate() {
        (low[i], high[i]) = (low[i].min(*v), high[i].max(*v));
        sums[i] += v;
    }
    let fold = |v: &[f64; 12], f: fn(f64, f64) -> f64| {
        std::array::from_fn(|a| f(f(v[a], v[a + 3]), f(v[a + 6], v[a + 9])))
    };
    // Which zero is the smaller one depends on the machine: + 0.0 makes both the positive one.
    let (min, max) = (fold(&low, f64::min).map(|v| v + 0.0), fold(&high, f64::max).map(|v| v + 0.0));
    let shape = Shape { points: coord.len() as u32, min, max };
    Measured { shape, mean: mean(&sums, coord.len()) }
}

/// Sums of the numbers of four points, point i in lane i mod 4.
pub(super) type Sums = [f64; 12];

/// `sums` and those of `values`, which go on at a multiple of four points.
#[inline(always)]
pub(super) fn sums(mut sums: Sums, values: &[[f32; 3]]) -> Sums {
    let (fours, rest) = values.as_chunks::<4>();
    for four in fours {
        for (sum, v) in sums.iter_mut().zip(four.as_flattened()) {
            *sum += f64::from(*v);
        }
    }
    for (sum, v) in sums.iter_mut().zip(rest.as_flattened()) {
        *sum += f64::from(*v);
    }
    sums
}

/// Mean per axis of so many points, as [`crate::plan::scene::SceneOp`] defines it. 0 without points.
pub(super) fn mean(sums: &Sums, points: usize) -> [f64; 3] {
    let count = points.max(1) as f64;
    std::array::from_fn(|a| ((sums[a] + sums[a + 3]) + (sums[a + 6] + sums[a + 9])) / count)
}

/// Smallest and largest of some numbers, -0 being below 0. Kept as whole numbers of the same order, whose extremes any
/// number of lanes can look for.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Bounds {
    low: i32,
    high: i32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { low: i32::MAX, high: i32::MIN }
    }
}

impl Bounds {
    /// The smallest; no number when there was none.
    pub fn low(self) -> f32 {
        f32::from_bits(ordered(self.low as u32) as u32)
    }

    /// The largest; no number when there was none.
    pub fn high(self) -> f32 {
        f32::from_bits(ordered(self.high as u32) as u32)
    }
}

/// Bits of a number that order as it does, and back.
#[inline(always)]
fn ordered(bits: u32) -> i32 {
    let bits = bits as i32;
    bits ^ ((bits >> 31) & i32::MAX)
}

/// `bounds` and those of `values`.
#[inline(always)]
pub(super) fn widened(bounds: Bounds, values: &[f32]) -> Bounds {
    let Bounds { mut low, mut high } = bounds;
    for v in values {
        let v = ordered(v.to_bits());
        (low, high) = (low.min(v), high.max(v));
    }
    Bounds { low, high }
}
