//! A block, before and after it is made.

use super::{Sample, SceneRow};
use crate::batch::Piece;
use crate::job::{MadeBy, Place};
use crate::plan::Plan;

/// Which block to make.
#[derive(Clone, Debug)]
pub struct BlockAt {
    /// Step.
    pub step: u64,
    /// First slot of the block in the step.
    pub slot: u64,
    /// Its records.
    pub places: Vec<Place>,
}

/// A finished block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its rows of the large tensors, in descriptor order: pixels, or token ids and what goes with them.
    pub tensors: Vec<Piece>,
    /// What became of its slots; rows of tokens have no plan.
    pub plan: Plan,
    /// Records in the slots, replacements applied.
    pub samples: Vec<Sample>,
    /// What its rows hold.
    pub extent: Extent,
    /// Of scenes: what each row was made of.
    pub scenes: Vec<SceneRow>,
    /// Who mixed it.
    pub by: MadeBy,
}

/// What rows hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Rows.
    pub rows: u64,
    /// Slots that the rows are made of, counted only for pictures.
    pub slots: u64,
    /// Tokens in rows of lengths of their own; as many as fit into rows of equal length.
    pub tokens: u64,
    /// Pieces of documents, counted only for jobs that send where they begin.
    pub pieces: u64,
    /// Points that are sent: voxels, where a job has them.
    pub points: u64,
    /// Points before voxels, counted only for jobs that send which voxel each became.
    pub inverse: u64,
}

impl std::iter::Sum for Extent {
    fn sum<I: Iterator<Item = Extent>>(all: I) -> Extent {
        all.fold(Extent::default(), |a, b| Extent {
            rows: a.rows + b.rows,
            slots: a.slots + b.slots,
            tokens: a.tokens + b.tokens,
            pieces: a.pieces + b.pieces,
            points: a.points + b.points,
            inverse: a.inverse + b.inverse,
        })
    }
}
