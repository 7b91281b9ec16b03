//! Voxels by hashing, for boxes with too many places.

use super::cells::{Blocks, Cells, Runs};
use super::{Grid, Voxels};
use crate::exec::simd::Level;

/// Points that are looked up together: few enough for their voxels and the slots to stay in the second-level cache.
const TOGETHER: usize = 1 << 12;

/// A point and its voxel.
type Entry = ([i32; 3], u32);

/// Memory of [`Hashes::find`].
#[derive(Debug, Default)]
pub(super) struct Hashes {
    cells: Vec<[i32; 3]>,
    dealt: Vec<Entry>,
    ends: Vec<usize>,
    slots: Vec<u32>,
}

impl Hashes {
    /// Voxels in the order of their first points; `None` when a point is in none.
    pub fn find(&mut self, runs: &mut Runs<'_>, grid: &Grid) -> Option<Voxels> {
        let level = Level::best();
        self.cells.clear();
        let (mut run, unused) = (Cells::default(), Blocks { bits: 0, sides: [0; 2] });
        let all = runs.all(|places| {
            let fit = level.cells(places, grid, unused, &mut run);
            self.cells.extend((0..places.len()).map(|i| run.at(i)));
            fit
        });
        all.then(|| self.number())
    }

    /// Voxels of the points of `cells`.
    fn number(&mut self) -> Voxels {
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
                found.grid.push(*cell);
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
