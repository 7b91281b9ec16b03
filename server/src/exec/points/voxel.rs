//! Voxels of a row, after its union: points of all scenes compete for a place.
//!
//! The voxel of a point is `floor(f64(coordinate) / f64(size))` per axis. Voxels come in the order in which the row's
//! points first meet them, so the result does not depend on the hash that finds them.

mod cells;
mod dense;
mod sparse;

pub(in crate::exec) use cells::{Blocks, Cells, cells, widen};

use super::Points;
use super::union::{Part, len};
use cells::cell;

/// What voxels are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Side of a voxel.
    pub size: f32,
    /// Which point of a voxel stays.
    pub pick: Pick,
    /// Fill in [`Voxels::counts`] and [`Voxels::inverse`] too. A random pick and [`Voxels::majority`] need them.
    pub details: bool,
}

/// Which point of a voxel stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The first one of the row.
    First,
    /// Its `(h mod count)`-th, where h mixes this drawn key with the voxel.
    Random(u64),
}

/// Voxels of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voxels {
    /// Point of the row that stays, one per voxel.
    pub kept: Vec<u32>,
    /// Points of each voxel, which add up to the points of the row; empty when not asked for.
    pub counts: Vec<i32>,
    /// Voxel of each point of the row; empty when not asked for.
    pub inverse: Vec<i32>,
    /// x, y, z of each voxel from the smallest of the row, so never negative.
    pub grid: Vec<[i32; 3]>,
    /// Class of each voxel, where it is not that of the point that stays.
    pub segment: Option<Vec<i32>>,
}

/// A row whose voxels can't be numbered.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum VoxelError {
    /// Too far away for the size.
    #[error("{axis} of point {point} of the row is {value}: its voxel of size {size} does not fit 32 bits")]
    Far {
        /// "x", "y", "z".
        axis: &'static str,
        /// Number of the point in the row.
        point: usize,
        /// Its coordinate.
        value: f32,
        /// Side of a voxel.
        size: f32,
    },
    /// Too far from each other for the size.
    #[error("the row has {voxels} voxels of size {size} along {axis}, want at most 2147483648")]
    Wide {
        /// "x", "y", "z".
        axis: &'static str,
        /// From the first to the last.
        voxels: i64,
        /// Side of a voxel.
        size: f32,
    },
}

const AXES: [&str; 3] = ["x", "y", "z"];

/// Memory that [`voxels`] keeps between calls: one per thread. Holds no results.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Turned or chosen points of a run.
    gathered: Vec<[f32; 3]>,
    tables: dense::Tables,
    hashes: sparse::Hashes,
}

/// The voxels of a row as a grid.
#[derive(Clone, Copy, Debug)]
pub(in crate::exec) struct Grid {
    /// Side of a voxel.
    side: f64,
    /// Smallest voxel per axis.
    low: [i32; 3],
    /// Voxels per axis, 1 to 2^31.
    sides: [u64; 3],
}

/// Voxels of the points of `row`.
///
/// # Errors
/// [`VoxelError`] for coordinates that the size makes too large, and for a size of 0.
///
/// # Panics
/// When a part is of a slot that `scenes` lacks, or the row has 2^31 points: faults of the caller.
pub fn voxels(
    row: &[Part],
    scenes: &[Points],
    rule: &Rule,
    scratch: &mut Scratch,
) -> Result<Voxels, VoxelError> {
    let points = len(row);
    assert!(points < 1 << 31, "a row of {points} points");
    if points == 0 {
        return Ok(Voxels::default());
    }
    let Scratch { gathered, tables, hashes } = scratch;
    let mut runs = cells::Runs { row, scenes, gathered };
    let grid = grid(&mut runs, rule.size)?;
    let details = rule.details || rule.pick != Pick::First;
    let found = match dense::Plan::of(&grid, points as u64) {
        Some(plan) => tables.find(&mut runs, &grid, &plan, details),
        None => hashes.find(&mut runs, &grid),
    };
    // Only a number that is none can be outside of the bounds.
    let mut found = found.ok_or_else(|| far(row, scenes, rule.size))?;
    if let Pick::Random(key) = rule.pick {
        found.pick(key, grid.low);
    }
    Ok(found)
}

/// The grid of a row with points: `floor` of a quotient never falls where the coordinate rises, so the voxels of the
/// smallest and the largest coordinate are the first and the last.
fn grid(runs: &mut cells::Runs<'_>, size: f32) -> Result<Grid, VoxelError> {
    let side = f64::from(size);
    let (low, high) = runs.bounds();
    let (Some(low), Some(high)) = (cell(low, side), cell(high, side)) else {
        return Err(far(runs.row, runs.scenes, size));
    };
    let mut sides = [1; 3];
    for axis in 0..3 {
        let extent = i64::from(high[axis]) - i64::from(low[axis]);
        if extent > i64::from(i32::MAX) {
            return Err(VoxelError::Wide { axis: AXES[axis], voxels: extent + 1, size });
        }
        sides[axis] = (extent + 1) as u64;
    }
    Ok(Grid { side, low, sides })
}

/// The first point of a row that no voxel of this size can have.
#[cold]
fn far(row: &[Part], scenes: &[Points], size: f32) -> VoxelError {
    let inside = |v: f32| cell([v, 0.0, 0.0], f64::from(size)).is_some();
    let places = row.iter().flat_map(|part| {
        let (coord, turn) = (&scenes[part.slot as usize].coord, part.turn());
        part.numbers().map(move |number| turn.of(coord[number as usize]))
    });
    let first = places.enumerate().find_map(|(point, place)| {
        let axis = place.iter().position(|v| !inside(*v))?;
        Some(VoxelError::Far { axis: AXES[axis], point, value: place[axis], size })
    });
    first.expect("a row is refused for one of its points")
}

impl Voxels {
    /// Keeps the point of each voxel that `key` draws, in place of the first one; `low` is the smallest voxel.
    fn pick(&mut self, key: u64, low: [i32; 3]) {
        let cell = |grid: &[i32; 3]| std::array::from_fn(|axis| grid[axis].wrapping_add(low[axis]));
        let draw = |(grid, count): (&[i32; 3], &i32)| (mix(key, cell(grid)) % *count as u64) as i32;
        let mut before: Vec<i32> = self.grid.iter().zip(&self.counts).map(draw).collect();
        for (point, voxel) in self.inverse.iter().enumerate() {
            let before = &mut before[*voxel as usize];
            if *before == 0 {
                self.kept[*voxel as usize] = point as u32;
            }
            *before -= 1;
        }
    }

    /// Gives each voxel the class that most of its points have, the smallest of several; `row` is what the voxels are
    /// of. Scenes without classes leave all as it is, for [`super::columns::write`] to refuse.
    pub fn majority(&mut self, row: &[Part], scenes: &[Points]) {
        let of = |part: &Part| scenes[part.slot as usize].segment.as_deref();
        if row.iter().any(|part| of(part).is_none()) {
            return;
        }
        let own = |part| of(part).unwrap_or_default();
        let classes = row.iter().flat_map(|part| part.numbers().map(move |n| own(part)[n as usize]));
        let mut start = 0;
        let begin = |count: &i32| {
            start += *count as usize;
            start - *count as usize
        };
        let mut next: Vec<usize> = self.counts.iter().map(begin).collect();
        let mut sorted = vec![0i32; self.inverse.len()];
        for (voxel, class) in self.inverse.iter().zip(classes) {
            let next = &mut next[*voxel as usize];
            sorted[*next] = class;
            *next += 1;
        }
        let mut rest = sorted.as_mut_slice();
        let most = |count: &i32| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(*count as usize);
            rest = others;
            most_frequent(own)
        };
        self.segment = Some(self.counts.iter().map(most).collect());
    }
}

/// The most frequent of `classes`, the smallest of several; sorts them.
fn most_frequent(classes: &mut [i32]) -> i32 {
    classes.sort_unstable();
    let (mut best, mut times) = (0, 0);
    for run in classes.chunk_by(|a, b| a == b) {
        // Runs ascend, so the first one of its length has the smallest class.
        if run.len() > times {
            (best, times) = (run[0], run.len());
        }
    }
    best
}

/// A fixed mix of a key and a voxel: two rounds of SplitMix64's finaliser. Part of a job's bytes.
fn mix(key: u64, [x, y, z]: [i32; 3]) -> u64 {
    let finish = |mut h: u64| {
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        h ^ (h >> 31)
    };
    let plane = u64::from(x as u32) | u64::from(y as u32) << 32;
    finish(finish(key ^ plane).wrapping_add(u64::from(z as u32)))
}

#[cfg(test)]
mod tests;
