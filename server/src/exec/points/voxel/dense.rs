//! Voxels by tables of blocks of places: one look per point, and neighbours lie together.

use super::cells::{Blocks, Cells, RUN, Runs};
use super::{Grid, Voxels};
use crate::exec::simd::Level;

/// Blocks of the row's box for each of its points up to which they are listed: the list must be cleared.
const DENSE: u64 = 4;

/// The blocks that cover a grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    blocks: Blocks,
    /// How many.
    all: usize,
}

impl Plan {
    /// The smallest blocks that the box of `points` does not need too many of; points lie on surfaces, so most places of
    /// large ones are empty, and cleared in vain. `None` when even the largest are too many.
    pub fn of(grid: &Grid, points: u64) -> Option<Plan> {
        let few = |plan: &Plan| plan.all as u64 <= DENSE * points;
        [2, 3].into_iter().find_map(|bits| Plan::with(grid, bits).filter(few))
    }

    /// Blocks of `1 << bits` places a side, if fewer than 2^31 cover the grid.
    pub fn with(grid: &Grid, bits: u32) -> Option<Plan> {
        let sides = grid.sides.map(|side| side.div_ceil(1 << bits));
        let all = sides.iter().try_fold(1u64, |all, side| all.checked_mul(*side))?;
        let blocks = Blocks { bits, sides: [sides[1] as u32, sides[2] as u32] };
        (all < 1 << 31).then_some(Plan { blocks, all: all as usize })
    }
}

/// Memory of [`Tables::find`].
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Of each block of the box the number of its places among `slots`, from 1; 0 where no point was yet.
    blocks: Vec<u32>,
    /// Of each place the number of its voxel, from 1; 0 where no point was yet.
    slots: Vec<u32>,
}

/// What is known of a run of points.
struct Run {
    cells: Cells,
    /// Its points that are the first of their voxels, and these.
    kept: [u32; RUN],
    grid: [[i32; 3]; RUN],
    /// Voxel of each point, from 0.
    voxel: [i32; RUN],
}

impl Tables {
    /// Voxels in the order of their first points; `None` when a point is in none.
    pub fn find(&mut self, runs: &mut Runs<'_>, grid: &Grid, plan: &Plan, details: bool) -> Option<Voxels> {
        let level = Level::best();
        self.blocks.clear();
        self.blocks.resize(plan.all, 0);
        self.slots.clear();
        // Memory that is not written costs nothing, growing does.
        let points = runs.points();
        let (kept, grids) = (Vec::with_capacity(points), Vec::with_capacity(points));
        let (mut found, mut start) = (Voxels { kept, grid: grids, ..Voxels::default() }, 0);
        let mut run = Run { cells: Cells::default(), kept: [0; RUN], grid: [[0; 3]; RUN], voxel: [0; RUN] };
        let all = runs.all(|places| {
            let n = places.len();
            if !level.cells(places, grid, plan.blocks, &mut run.cells) {
                return false;
            }
            let new = self.number(&mut run, n, plan.blocks.bits, start, found.kept.len() as u32);
            found.kept.extend_from_slice(&run.kept[..new]);
            found.grid.extend_from_slice(&run.grid[..new]);
            if details {
                found.inverse.extend_from_slice(&run.voxel[..n]);
                found.counts.resize(found.kept.len(), 0);
                run.voxel[..n].iter().for_each(|voxel| found.counts[*voxel as usize] += 1);
            }
            start += n as u32;
            true
        });
        all.then_some(found)
    }

    /// Numbers the voxels of a run of `n` points, the first of them `start`, after `voxels` others; how many are new.
    /// Without a branch on whether one is, as nothing tells that beforehand.
    fn number(&mut self, run: &mut Run, n: usize, bits: u32, start: u32, voxels: u32) -> usize {
        let size = 1usize << (3 * bits);
        let mut new = 0;
        for i in 0..n {
            let table = &mut self.blocks[run.cells.block[i] as usize];
            if *table == 0 {
                self.slots.resize(self.slots.len() + size, 0);
                *table = (self.slots.len() / size) as u32;
            }
            let slot = &mut self.slots[(*table as usize - 1) * size + run.cells.place[i] as usize];
            run.kept[new] = start + i as u32;
            run.grid[new] = run.cells.at(i);
            let first = *slot == 0;
            new += usize::from(first);
            *slot = if first { voxels + new as u32 } else { *slot };
            run.voxel[i] = *slot as i32 - 1;
        }
        new
    }
}
