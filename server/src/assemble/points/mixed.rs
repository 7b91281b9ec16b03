//! Rows of a block by the CPU, from transformed scenes to columns.

use super::SceneRow;
use crate::assemble::AssembleError;
use crate::batch::flags;
use crate::exec::device::{Layout, Scenes};
use crate::exec::points::columns;
use crate::exec::points::union::{self, Part, len};
use crate::exec::points::voxel::{self, Voxels};
use crate::exec::points::{Points, budget};
use crate::plan::Plan;
use rayon::prelude::*;
use std::cell::RefCell;

thread_local! {
    static VOXELS: RefCell<voxel::Scratch> = RefCell::new(voxel::Scratch::default());
}

/// Rows of a block before they are written.
#[derive(Debug)]
pub struct Mixed {
    /// Parts of each row.
    pub rows: Vec<Vec<Part>>,
    /// Voxels of each row, of jobs that have them.
    pub voxels: Option<Vec<Voxels>>,
    /// What each row was made of.
    pub facts: Vec<SceneRow>,
    /// Points left out for the budget.
    pub thinned: u64,
}

impl Mixed {
    /// Unites, keeps within the budget, and finds voxels.
    pub(super) fn of(plan: &Plan, block: &Scenes, scenes: &[Points]) -> Result<Mixed, AssembleError> {
        let mut rows = union::rows(plan, scenes)?;
        let before: Vec<usize> = rows.iter().map(|row| len(row)).collect();
        budget::thin(&mut rows, scenes, block.share, &block.centres);
        let voxels = block.voxels.as_ref().map(|v| {
            let one = |(row, pick): (&Vec<Part>, &voxel::Pick)| {
                let details = v.inverse || v.count || v.majority;
                let rule = voxel::Rule { size: v.size, pick: *pick, details };
                let mut found = VOXELS.with_borrow_mut(|own| voxel::voxels(row, scenes, &rule, own))?;
                if v.majority {
                    found.majority(row, scenes);
                }
                Ok(found)
            };
            rows.par_iter().zip(&v.picks).map(one).collect::<Result<Vec<_>, AssembleError>>()
        });
        let voxels = voxels.transpose()?;
        let fact = |(i, row): (usize, &Vec<Part>)| {
            let thinned = len(row) < before[i];
            SceneRow {
                scenes: union::scenes(row),
                points: columns::served(row, voxels.as_ref().map(|v| &v[i])) as u64,
                inverse: len(row) as u64,
                flags: if thinned { flags::THINNED } else { 0 },
            }
        };
        let facts: Vec<SceneRow> = rows.iter().enumerate().map(fact).collect();
        let thinned = before.iter().sum::<usize>() as u64 - facts.iter().map(|f| f.inverse).sum::<u64>();
        Ok(Mixed { rows, voxels, facts, thinned })
    }

    /// Writes every column where it is sent from.
    pub(super) fn write(
        &self,
        block: &Scenes,
        scenes: &[Points],
        layout: &Layout,
        slab: &mut [u8],
    ) -> Result<(), AssembleError> {
        let (out, of_all) = block.columns(layout, slab);
        if let Some(of_all) = of_all {
            let all = self.rows.iter().flatten().flat_map(|part| classes(part, scenes));
            let out = of_all.as_chunks_mut::<4>().0.iter_mut();
            out.zip(all).for_each(|(out, class)| *out = class.to_le_bytes());
        }
        columns::write(&self.rows, self.voxels.as_deref(), scenes, &block.features, out)?;
        Ok(())
    }
}

fn classes<'a>(part: &'a Part, scenes: &'a [Points]) -> impl Iterator<Item = i32> + 'a {
    let segment = scenes[part.slot as usize].segment.as_deref().unwrap_or_default();
    part.numbers().map(|number| segment[number as usize])
}
