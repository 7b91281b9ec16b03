//! Voxels of a row, after its union: points of all scenes compete for a place.
//!
//! The voxel of a point is `floor(f64(coordinate) / f64(size))` per axis. Voxels come in the order in which the row's
//! points first meet them, so the result does not depend on the hash that finds them.

use super::Points;
use super::union::{Part, len};

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
    /// Points of each voxel; they add up to the points of the row.
    pub counts: Vec<i32>,
    /// Voxel of each point of the row.
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
    cells: Vec<[i32; 3]>,
    dealt: Vec<Entry>,
    ends: Vec<usize>,
    slots: Vec<u32>,
    blocks: Vec<u32>,
}

/// Voxels of side `size` of the points of `row`.
///
/// # Errors
/// [`VoxelError`] for coordinates that the size makes too large, and for a size of 0.
///
/// # Panics
/// When a part is of a slot that `scenes` lacks, or the row has 2^31 points: faults of the caller.
pub fn voxels(
    row: &[Part],
    scenes: &[Points],
    size: f32,
    pick: Pick,
    scratch: &mut Scratch,
) -> Result<Voxels, VoxelError> {
    assert!(len(row) < 1 << 31, "a row of {} points", len(row));
    scratch.set_cells(row, scenes, size)?;
    let (low, sides) = bounds(&scratch.cells, size)?;
    let blocks = sides.map(|side| side.div_ceil(BLOCK));
    let mut found = match blocks.iter().try_fold(1u64, |all, side| all.checked_mul(*side)) {
        Some(all) if all <= DENSE * scratch.cells.len() as u64 => scratch.dense(low, blocks, all),
        Some(_) | None => scratch.sparse(low),
    };
    let cells = scratch.cells.as_slice();
    if let Pick::Random(key) = pick {
        found.pick(key, cells);
    }
    Ok(found)
}

impl Voxels {
    /// Keeps the point of each voxel that `key` draws, in place of the first one; `cells` are those of all points.
    fn pick(&mut self, key: u64, cells: &[[i32; 3]]) {
        let draw = |(kept, count): (&u32, &i32)| (mix(key, cells[*kept as usize]) % *count as u64) as i32;
        let mut before: Vec<i32> = self.kept.iter().zip(&self.counts).map(draw).collect();
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

/// Voxel of a point, if it fits.
fn cell(place: [f32; 3], side: f64) -> Option<[i32; 3]> {
    let mut cell = [0; 3];
    for (cell, value) in cell.iter_mut().zip(place) {
        let exact = f64::from(value) / side;
        // NaN is in no range.
        if !(-2_147_483_648.0..2_147_483_648.0).contains(&exact) {
            return None;
        }
        // `floor` is a call on this machine's baseline; truncation is one instruction.
        let whole = exact as i32;
        *cell = whole - i32::from(f64::from(whole) > exact);
    }
    Some(cell)
}

#[cold]
fn far(place: [f32; 3], point: usize, size: f32) -> VoxelError {
    let inside = |v: f32| cell([v, 0.0, 0.0], f64::from(size)).is_some();
    let axis = place.iter().position(|v| !inside(*v)).unwrap_or(0);
    VoxelError::Far { axis: AXES[axis], point, value: place[axis], size }
}

/// Smallest voxel of each axis and how many there are from it to the largest, at most 2^31.
fn bounds(cells: &[[i32; 3]], size: f32) -> Result<([i32; 3], [u64; 3]), VoxelError> {
    let (mut low, mut high) = ([i32::MAX; 3], [i32::MIN; 3]);
    for cell in cells {
        for axis in 0..3 {
            (low[axis], high[axis]) = (low[axis].min(cell[axis]), high[axis].max(cell[axis]));
        }
    }
    let mut sides = [1; 3];
    for axis in 0..3 {
        let extent = i64::from(high[axis]) - i64::from(low[axis]);
        if extent > i64::from(i32::MAX) {
            return Err(VoxelError::Wide { axis: AXES[axis], voxels: extent + 1, size });
        }
        sides[axis] = (extent + 1).max(1) as u64;
    }
    Ok((low, sides))
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

/// Side of a block of places.
const BLOCK: u64 = 8;
/// Places of a block.
const TABLE: usize = (BLOCK * BLOCK * BLOCK) as usize;
/// Blocks of the row's box for each of its points up to which they are listed: the list must be cleared.
const DENSE: u64 = 4;
/// Points that are looked up together: few enough for their voxels and the slots to stay in the second-level cache.
const TOGETHER: usize = 1 << 12;

/// A point and its voxel.
type Entry = ([i32; 3], u32);

impl Scratch {
    /// Sets `cells` to the voxel of every point of the row.
    fn set_cells(&mut self, row: &[Part], scenes: &[Points], size: f32) -> Result<(), VoxelError> {
        self.cells.clear();
        self.cells.reserve(len(row));
        for part in row {
            let (coord, turn) = (&scenes[part.slot as usize].coord, part.turn());
            for number in part.numbers() {
                let place = turn.of(coord[number as usize]);
                let Some(cell) = cell(place, f64::from(size)) else {
                    return Err(far(place, self.cells.len(), size));
                };
                self.cells.push(cell);
            }
        }
        Ok(())
    }

    /// Voxels by tables of blocks of places: one look per point, and neighbours lie together. `blocks` are those of each
    /// axis of the row's box.
    fn dense(&mut self, low: [i32; 3], blocks: [u64; 3], all: u64) -> Voxels {
        let Scratch { cells, slots, blocks: tables, .. } = self;
        // Both: 0 where no point was yet, otherwise the number of a table, or of a voxel, from 1.
        tables.clear();
        tables.resize(all as usize, 0);
        slots.clear();
        let mut found = Voxels { inverse: Vec::with_capacity(cells.len()), ..Voxels::default() };
        for (cell, point) in cells.iter().zip(0..) {
            let at: [u64; 3] =
                std::array::from_fn(|axis| (i64::from(cell[axis]) - i64::from(low[axis])) as u64);
            let [x, y, z] = at.map(|at| at / BLOCK);
            let table = &mut tables[((x * blocks[1] + y) * blocks[2] + z) as usize];
            if *table == 0 {
                slots.resize(slots.len() + TABLE, 0);
                *table = (slots.len() / TABLE) as u32;
            }
            let [x, y, z] = at.map(|at| at % BLOCK);
            let inside = ((x * BLOCK + y) * BLOCK + z) as usize;
            let slot = &mut slots[(*table as usize - 1) * TABLE + inside];
            if *slot == 0 {
                found.kept.push(point);
                found.counts.push(0);
                found.grid.push(at.map(|side| side as i32));
                *slot = found.kept.len() as u32;
            }
            let voxel = *slot - 1;
            found.counts[voxel as usize] += 1;
            found.inverse.push(voxel as i32);
        }
        found
    }

    /// Voxels by hashing, for boxes with too many places.
    fn sparse(&mut self, low: [i32; 3]) -> Voxels {
        let (inverse, voxels) = self.firsts();
        let mut found = Voxels {
            kept: Vec::with_capacity(voxels),
            counts: Vec::with_capacity(voxels),
            grid: Vec::with_capacity(voxels),
            inverse,
            segment: None,
        };
        // A first point comes before all others of its voxel, so by then its entry is the number of the voxel.
        for (point, cell) in self.cells.iter().enumerate() {
            let first = found.inverse[point] as usize;
            let voxel = if first == point { found.kept.len() as i32 } else { found.inverse[first] };
            if first == point {
                found.kept.push(point as u32);
                found.counts.push(0);
                found.grid.push(std::array::from_fn(|axis| cell[axis] - low[axis]));
            }
            found.inverse[point] = voxel;
            found.counts[voxel as usize] += 1;
        }
        found
    }

    /// For every point the first one of its voxel, and how many voxels there are. Points are dealt out by hash first, in
    /// order, so that each table of open addressing, at most half full, stays in the cache.
    fn firsts(&mut self) -> (Vec<i32>, usize) {
        self.deal((self.cells.len() / TOGETHER).next_power_of_two().ilog2());
        let mut first = vec![0i32; self.cells.len()];
        let (mut start, mut voxels) = (0, 0);
        for end in &self.ends {
            voxels += find(&self.dealt[start..*end], &mut self.slots, &mut first);
            start = *end;
        }
        (first, voxels)
    }

    /// Sets `dealt` to the points in the order of the first `bits` bits of their hash, and `ends` to where those of each
    /// value end.
    fn deal(&mut self, bits: u32) {
        // Two shifts: one by all 64 bits would be none.
        let group = |cell: [i32; 3]| (hash(cell) >> 32 >> (32 - bits)) as usize;
        let ends = &mut self.ends;
        ends.clear();
        ends.resize(1 << bits, 0);
        self.cells.iter().for_each(|cell| ends[group(*cell)] += 1);
        let mut start = 0;
        for end in ends.iter_mut() {
            start += std::mem::replace(end, start);
        }
        // Every entry is written below, so what is left of an earlier row does no harm.
        self.dealt.resize(self.cells.len(), ([0; 3], 0));
        for (cell, point) in self.cells.iter().zip(0..) {
            let at = &mut ends[group(*cell)];
            self.dealt[*at] = (*cell, point);
            *at += 1;
        }
    }
}

/// Sets `first` for `points`, which are all of their voxels, and counts these. `slots` only keeps memory.
fn find(points: &[Entry], slots: &mut Vec<u32>, first: &mut [i32]) -> usize {
    let size = (points.len() * 2).next_power_of_two();
    let mask = size - 1;
    slots.clear();
    // 0 where free, otherwise a place in `points` + 1.
    slots.resize(size, 0);
    let mut voxels = 0;
    for (place, (cell, point)) in (1..).zip(points) {
        let mut at = hash(*cell) as usize & mask;
        let found = loop {
            let slot = slots[at];
            if slot == 0 {
                slots[at] = place;
                voxels += 1;
                break *point;
            }
            let (other, found) = points[slot as usize - 1];
            if other == *cell {
                break found;
            }
            at = (at + 1) & mask;
        };
        first[*point as usize] = found as i32;
    }
    voxels
}

/// Finds slots only: no result depends on it.
fn hash([x, y, z]: [i32; 3]) -> u64 {
    let plane = u64::from(x as u32) | u64::from(y as u32) << 32;
    let h = plane.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let h = (h ^ h >> 32 ^ u64::from(z as u32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ h >> 32
}

#[cfg(test)]
mod tests;
