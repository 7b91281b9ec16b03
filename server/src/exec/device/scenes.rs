//! A block of scenes for a device, and what it makes of them.

use crate::cloud::Scene;
use crate::exec::points::columns::{Columns, Feature, width};
use crate::exec::points::voxel::Pick;
use crate::exec::points::{Measured, Points};
use crate::plan::scene::SceneOp;
use std::ops::Range;

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

/// Where each column lies in a block's buffer, in descriptor order: "coord", "feat", "segment", "instance", "scene", then
/// of voxels "grid", "count", "inverse" and the class of every point; those that the job has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of each column that is sent.
    pub sent: Vec<Range<usize>>,
    /// Bytes of all of them.
    pub end: usize,
    /// Bytes of every column, sent or not.
    all: [Range<usize>; 9],
}

impl Scenes {
    /// Columns of `points` points that are sent, of `inverse` before voxels.
    pub fn layout(&self, points: usize, inverse: usize) -> Layout {
        let features = width(&self.features);
        let voxels = self.voxels.as_ref();
        let count = voxels.is_some_and(|v| v.count);
        let inverted = voxels.is_some_and(|v| v.inverse);
        let columns = [
            (true, points * 12),
            (features > 0, points * features * 4),
            (true, points * 4),
            (true, points * 4),
            (true, points),
            (voxels.is_some(), points * 12),
            (count, points * 4),
            (inverted, inverse * 4),
            (inverted, inverse * 4),
        ];
        let mut end = 0;
        let all = columns.map(|(sent, bytes)| {
            let start = end;
            end += if sent { bytes } else { 0 };
            start..end
        });
        let sent = columns.iter().zip(&all).filter(|((sent, _), _)| *sent).map(|(_, range)| range.clone());
        Layout { sent: sent.collect(), end, all }
    }

    /// The columns of `layout` in `out`, and that of the class of every point before voxels; columns that are not sent are
    /// absent or empty.
    ///
    /// # Panics
    /// When `out` is shorter than the layout: a fault of the caller.
    pub fn columns<'a>(&self, layout: &Layout, out: &'a mut [u8]) -> (Columns<'a>, Option<&'a mut [u8]>) {
        let mut left = &mut out[..layout.end];
        let [coord, feat, segment, instance, scene, grid, count, inverse, classes] =
            layout.all.each_ref().map(|range| left.split_off_mut(..range.len()).unwrap_or_default());
        let voxels = self.voxels.as_ref();
        let inverted = voxels.is_some_and(|v| v.inverse);
        let columns = Columns {
            coord,
            feat,
            segment: Some(segment),
            instance: Some(instance),
            scene: Some(scene),
            grid: voxels.is_some().then_some(grid),
            count: voxels.is_some_and(|v| v.count).then_some(count),
            inverse: inverted.then_some(inverse),
        };
        (columns, inverted.then_some(classes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lie_one_after_the_other_and_those_that_are_not_sent_take_nothing() {
        let mut block = Scenes {
            scenes: Vec::new(),
            share: 9,
            centres: Vec::new(),
            voxels: None,
            features: vec![Feature::Normal, Feature::Distance],
        };
        let plain = block.layout(5, 7);
        assert_eq!(plain.sent, [0..60, 60..140, 140..160, 160..180, 180..185]);
        block.voxels = Some(VoxelWish {
            size: 1.0,
            picks: vec![],
            inverse: true,
            count: false,
            majority: false,
            far: 1.0,
        });
        block.features.clear();
        let voxels = block.layout(5, 7);
        assert_eq!(voxels.sent, [0..60, 60..80, 80..100, 100..105, 105..165, 165..193, 193..221]);
        let mut out = vec![0; voxels.end];
        let (columns, classes) = block.columns(&voxels, &mut out);
        assert_eq!((columns.coord.len(), columns.feat.len(), columns.count), (60, 0, None));
        assert_eq!((columns.inverse.map(|c| c.len()), classes.map(|c| c.len())), (Some(28), Some(28)));
    }
}
