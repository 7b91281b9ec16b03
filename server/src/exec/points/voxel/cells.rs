//! The voxels of points, run by run.

use super::Grid;
use crate::exec::points::union::{Part, Turn};
use crate::exec::points::{Points, lanes};
use crate::exec::simd::Level;

/// Points of a run: few enough that all that is made of them stays in the first-level cache.
pub(super) const RUN: usize = 256;

/// Voxel of a point, if it fits.
pub(super) fn cell(place: [f32; 3], side: f64) -> Option<[i32; 3]> {
    let whole = place.map(|v| floor(f64::from(v) / side));
    whole.iter().all(|(_, fits)| *fits).then(|| whole.map(|(whole, _)| whole))
}

/// 1.5 * 2^52: sums with it are whole numbers, in their low bits.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// The whole number at or below `exact`, and whether it fits. `f64::floor` is a call on this machine's baseline, and a
/// cast that saturates is not vectorised.
#[inline(always)]
#[allow(clippy::manual_range_contains)] // that would be a branch
fn floor(exact: f64) -> (i32, bool) {
    let sum = exact + WHOLE;
    let above = i32::from(sum - WHOLE > exact);
    // NaN is in no range.
    let fits = (exact >= -2_147_483_648.0) & (exact < 2_147_483_648.0);
    ((sum.to_bits() as i32).wrapping_sub(above), fits)
}

/// The voxels of a run of points, from the smallest one of the row.
#[derive(Debug)]
pub(in crate::exec) struct Cells {
    /// x, y, z of each.
    pub axes: [[i32; RUN]; 3],
    /// Its block, and its place there.
    pub block: [u32; RUN],
    pub place: [u32; RUN],
}

impl Default for Cells {
    fn default() -> Self {
        Cells { axes: [[0; RUN]; 3], block: [0; RUN], place: [0; RUN] }
    }
}

/// How voxels are numbered.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Blocks {
    /// Places of a block along an axis: `1 << bits`.
    pub bits: u32,
    /// Blocks along y and z.
    pub sides: [u32; 2],
}

/// Sets `cells` to those of `places`, at most a run; false when one does not fit 32 bits as counted from the origin.
#[inline(always)]
pub(in crate::exec) fn cells(places: &[[f32; 3]], grid: &Grid, blocks: Blocks, cells: &mut Cells) -> bool {
    // Beyond the last point lies the origin, which always fits.
    let values = apart(places);
    let (mut fit, clear) = multiplied(&values, grid, &mut cells.axes);
    if !clear {
        fit = divided(&values, grid, &mut cells.axes);
    }
    let Blocks { bits, sides } = blocks;
    let mask = (1 << bits) - 1;
    for i in 0..RUN {
        let [x, y, z] = [0, 1, 2].map(|a| cells.axes[a][i] as u32);
        let row = (x >> bits).wrapping_mul(sides[0]).wrapping_add(y >> bits);
        cells.block[i] = row.wrapping_mul(sides[1]).wrapping_add(z >> bits);
        cells.place[i] = ((x & mask) << bits | y & mask) << bits | z & mask;
    }
    fit
}

/// Voxels by a product with the reciprocal of their side, which takes half the time of a division: whether all fit, and
/// whether all are those of the quotients. A product is off by less than 2^-51 of itself, so its floor is another one only
/// where a whole number is that near.
#[inline(always)]
fn multiplied(values: &[[f32; RUN]; 3], grid: &Grid, out: &mut [[i32; RUN]; 3]) -> (bool, bool) {
    const NEAR: f64 = 1.0 / (1u64 << 50) as f64;
    let (per, mut fit, mut clear) = (1.0 / grid.side, true, true);
    for ((values, out), low) in values.iter().zip(out).zip(grid.low) {
        for (value, out) in values.iter().zip(out) {
            let product = f64::from(*value) * per;
            let (whole, fits) = floor(product);
            *out = whole.wrapping_sub(low);
            fit &= fits;
            let nearest = (product + WHOLE) - WHOLE;
            // 0 is exact.
            clear &= (product - nearest).abs() >= product.abs() * NEAR;
        }
    }
    (fit, clear)
}

/// Voxels by division, as they are defined; whether all fit.
#[inline(always)]
fn divided(values: &[[f32; RUN]; 3], grid: &Grid, out: &mut [[i32; RUN]; 3]) -> bool {
    let mut fit = true;
    for ((values, out), low) in values.iter().zip(out).zip(grid.low) {
        for (value, out) in values.iter().zip(out) {
            let (whole, fits) = floor(f64::from(*value) / grid.side);
            *out = whole.wrapping_sub(low);
            fit &= fits;
        }
    }
    fit
}

/// Widens `bounds` by `places`, at most a run.
#[inline(always)]
pub(in crate::exec) fn widen(bounds: &mut [lanes::Bounds; 3], places: &[[f32; 3]]) {
    let values = apart(places);
    for (bounds, values) in bounds.iter_mut().zip(&values) {
        *bounds = lanes::widened(*bounds, &values[..places.len()]);
    }
}

/// The axes of a run of points.
#[inline(always)]
fn apart(places: &[[f32; 3]]) -> [[f32; RUN]; 3] {
    let mut values = [[0.0; RUN]; 3];
    let [x, y, z] = &mut values;
    for (((place, x), y), z) in places.iter().zip(x).zip(y).zip(z) {
        (*x, *y, *z) = (place[0], place[1], place[2]);
    }
    values
}

impl Cells {
    /// Cell of point `i` of the run.
    #[inline]
    pub fn at(&self, i: usize) -> [i32; 3] {
        [self.axes[0][i], self.axes[1][i], self.axes[2][i]]
    }
}

/// The points of a row, in runs of at most [`RUN`].
pub(super) struct Runs<'a> {
    pub row: &'a [Part],
    pub scenes: &'a [Points],
    pub gathered: &'a mut Vec<[f32; 3]>,
}

impl Runs<'_> {
    /// Points of the row.
    pub fn points(&self) -> usize {
        crate::exec::points::union::len(self.row)
    }

    /// Calls `each` with the places of every run, until it says false; whether it never did.
    pub fn all(&mut self, mut each: impl FnMut(&[[f32; 3]]) -> bool) -> bool {
        let row = self.row;
        row.iter().all(|part| self.of(part, &mut each))
    }

    /// As [`Runs::all`], with the points of one part.
    fn of(&mut self, part: &Part, mut each: impl FnMut(&[[f32; 3]]) -> bool) -> bool {
        let (coord, turn) = (&self.scenes[part.slot as usize].coord, part.turn());
        if let Some(all) = part.whole(coord).filter(|_| turn == Turn::NONE) {
            return all.chunks(RUN).all(each);
        }
        let (mut numbers, gathered) = (part.numbers(), &mut *self.gathered);
        loop {
            gathered.clear();
            gathered.extend(numbers.by_ref().take(RUN).map(|n| turn.of(coord[n as usize])));
            if gathered.is_empty() {
                return true;
            }
            if !each(gathered) {
                return false;
            }
        }
    }

    /// Smallest and largest coordinate per axis.
    pub fn bounds(&mut self) -> ([f32; 3], [f32; 3]) {
        let (level, mut bounds) = (Level::best(), [lanes::Bounds::default(); 3]);
        for part in self.row {
            let scene = &self.scenes[part.slot as usize];
            let all = part.len() == scene.len() && part.turn() == Turn::NONE;
            match scene.extent.filter(|_| all) {
                Some((low, high)) => level.widen(&mut bounds, &[low, high]),
                None => {
                    self.of(part, |places| {
                        level.widen(&mut bounds, places);
                        true
                    });
                }
            }
        }
        (bounds.map(|b| b.low()), bounds.map(|b| b.high()))
    }
}
