//! A block of scenes for a device, and what it makes of them.

use crate::cloud::Scene;
use crate::exec::points::columns::Feature;
use crate::exec::points::voxel::Pick;
use crate::exec::points::{Measured, Points};
use crate::plan::scene::SceneOp;

/// The scene of one slot.
#[derive(Debug)]
pub enum SceneInput {
    /// Transformed by the CPU: what a job gets that keeps the CPU's coordinates.
    Made(Points),
    /// Cut, measured, and still to be transformed.
    Stored {
        /// As it was stored and cut.
        scene: Scene,
        /// Its points, extent and mean.
        measured: Measured,
        /// What was drawn for it, without cuts of stored points.
        ops: Vec<SceneOp>,
    },
}

/// Voxels that a job wants.
#[derive(Clone, Debug, PartialEq)]
pub struct VoxelWish {
    /// Side of a voxel.
    pub size: f32,
    /// Which point of a voxel stays, for each row.
    pub picks: Vec<Pick>,
    /// Columns "inverse": voxel and class of every point before voxels.
    pub inverse: bool,
    /// Column "count".
    pub count: bool,
    /// A voxel has the class that most of its points have.
    pub majority: bool,
    /// Largest absolute coordinate of a scene, exclusive: beyond it scenes are refused, which is the CPU's to do.
    pub far: f32,
}

/// A block of scenes and what is sent of them.
#[derive(Debug)]
pub struct Scenes {
    /// One for each slot of the block.
    pub scenes: Vec<SceneInput>,
    /// Points that its rows may have together.
    pub share: usize,
    /// For each slot where its scene is cut to when the share is exceeded, in 0..1; see [`crate::exec::points::budget::thin`].
    pub centres: Vec<f64>,
    /// Voxels.
    pub voxels: Option<VoxelWish>,
    /// Columns of "feat".
    pub features: Vec<Feature>,
}

/// What a row was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMade {
    /// Slots whose scenes are in it, by number of the scene, with their points before voxels.
    pub scenes: Vec<(u32, u64)>,
    /// Points before the budget.
    pub united: u64,
    /// Points before voxels.
    pub inverse: u64,
    /// Points that are sent.
    pub points: u64,
}
