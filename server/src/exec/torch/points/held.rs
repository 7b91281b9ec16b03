//! The scenes of a block as they are held, and whether they and the plan fit each other.

use super::{DeviceError, refused};
use crate::exec::device::{SceneInput, Scenes};
use crate::exec::points::columns::Feature;
use crate::exec::points::{Colors, Measured};
use crate::plan::scene::{Lattice, SceneOp};
use crate::plan::{Op, Row};

/// A scene with what the columns hold of it.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub slot: usize,
    pub points: usize,
    pub coord: Coord<'a>,
    pub color: Option<Hues<'a>>,
    pub normal: Option<&'a [[f32; 3]]>,
    pub intensity: Option<&'a [f32]>,
    pub segment: Option<&'a [i32]>,
    pub instance: Option<&'a [i32]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Coord<'a> {
    Stored(&'a [[f64; 3]], &'a Measured, &'a [SceneOp]),
    Made(&'a [[f32; 3]]),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Hues<'a> {
    Stored(&'a [[u8; 3]]),
    Made(&'a Colors),
}

impl<'a> Held<'a> {
    /// The scene of a slot. What is in none of `features` is left out.
    pub(super) fn of(slot: usize, input: &'a SceneInput, features: &[Feature]) -> Held<'a> {
        let held = match input {
            SceneInput::Made(points) => Held {
                slot,
                points: points.len(),
                coord: Coord::Made(&points.coord),
                color: points.color.as_ref().map(Hues::Made),
                normal: points.normal.as_deref(),
                intensity: points.intensity.as_deref(),
                segment: points.segment.as_deref(),
                instance: points.instance.as_deref(),
            },
            SceneInput::Stored { scene, measured, ops } => Held {
                slot,
                points: scene.len(),
                coord: Coord::Stored(&scene.coord, measured, ops),
                color: scene.color.as_deref().map(Hues::Stored),
                normal: scene.normal.as_deref(),
                intensity: scene.intensity.as_deref(),
                segment: scene.segment.as_deref(),
                instance: scene.instance.as_deref(),
            },
        };
        let has = |wanted: fn(&Feature) -> bool| features.iter().any(wanted);
        Held {
            color: held.color.filter(|_| has(|feature| matches!(feature, Feature::Color(_)))),
            normal: held.normal.filter(|_| has(|feature| *feature == Feature::Normal)),
            intensity: held.intensity.filter(|_| has(|feature| *feature == Feature::Intensity)),
            ..held
        }
    }

    /// All scenes of a block, by slot.
    pub(super) fn all(block: &'a Scenes) -> Vec<Held<'a>> {
        let scenes = block.scenes.iter().enumerate();
        scenes.map(|(slot, input)| Held::of(slot, input, &block.features)).collect()
    }

    /// What is drawn for it, if it is to be transformed.
    pub(super) fn ops(&self) -> Option<&'a [SceneOp]> {
        match self.coord {
            Coord::Stored(_, _, ops) => Some(ops),
            Coord::Made(_) => None,
        }
    }

    /// Checks that it has what `features` hold, of every point, and ops that are carried out here.
    fn check(&self, features: &[Feature]) -> Result<(), DeviceError> {
        let color = self.color.map(|color| match color {
            Hues::Stored(bytes) => bytes.len(),
            Hues::Made(colors) => colors.len(),
        });
        let (normal, intensity) = (self.normal.map(<[_]>::len), self.intensity.map(<[_]>::len));
        let (segment, instance) = (self.segment.map(<[_]>::len), self.instance.map(<[_]>::len));
        let lens = [color, normal, intensity, segment, instance];
        if lens.into_iter().flatten().any(|len| len != self.points) {
            return Err(DeviceError::Misfit { row: self.slot });
        }
        let has = |feature: &Feature| match feature {
            Feature::Color(_) => color.is_some(),
            Feature::Normal => normal.is_some(),
            Feature::Intensity => intensity.is_some(),
            Feature::Coord | Feature::Distance => true,
        };
        if self.points == 0 || segment.is_none() || !features.iter().all(has) {
            return Err(refused(self.slot));
        }
        self.ops().unwrap_or_default().iter().try_for_each(|op| self.check_op(op))
    }

    fn check_op(&self, op: &SceneOp) -> Result<(), DeviceError> {
        let fits = match op {
            // Points are cut as they are stored, before they are measured and sent here.
            SceneOp::Keep { .. } | SceneOp::Crop { .. } => return Err(refused(self.slot)),
            SceneOp::Jitter { offsets } | SceneOp::ColourJitter { offsets } => offsets.len() == self.points,
            SceneOp::Elastic { noise, .. } => {
                nodes(noise).is_some_and(|nodes| noise.noise.len() >= 3 * nodes)
            }
            SceneOp::Centre
            | SceneOp::Recentre
            | SceneOp::Shift { .. }
            | SceneOp::Flip { .. }
            | SceneOp::Scale { .. }
            | SceneOp::Rotate { .. }
            | SceneOp::Colour { .. }
            | SceneOp::ChannelDrop { .. } => true,
        };
        if fits { Ok(()) } else { Err(DeviceError::Misfit { row: self.slot }) }
    }
}

/// Nodes of a lattice that has at least three along each axis.
pub(super) fn nodes(lattice: &Lattice) -> Option<usize> {
    let wide = lattice.dims.iter().all(|dim| *dim >= 3);
    let all = lattice.dims.iter().try_fold(1usize, |all, dim| all.checked_mul(*dim as usize));
    all.filter(|nodes| wide && *nodes < 1 << 31)
}

/// Checks that `rows` and `block` fit each other.
///
/// # Errors
/// [`DeviceError::Misfit`], [`DeviceError::Refused`].
pub(super) fn check(rows: &[Row], block: &Scenes) -> Result<(), DeviceError> {
    let known = |slot: &u32| (*slot as usize) < block.scenes.len();
    let fits = |op: &Op| match op {
        Op::Union { scenes } => scenes.iter().all(known),
        Op::Sectors { src, .. } | Op::Instances { src, .. } | Op::Bands { src, .. } => known(src),
        // Of pictures; the CPU leaves them out as well.
        Op::Blend { .. } | Op::Paste { .. } | Op::MaskBlend { .. } => true,
    };
    let picked = block.voxels.as_ref().map_or(rows.len(), |wish| wish.picks.len());
    let misfit =
        |(number, row): (usize, &Row)| !known(&row.base) || !row.ops.iter().all(fits) || number >= picked;
    if let Some(row) = rows.iter().enumerate().position(misfit) {
        return Err(DeviceError::Misfit { row });
    }
    if block.centres.len() < block.scenes.len() {
        return Err(DeviceError::Misfit { row: block.centres.len() });
    }
    Held::all(block).iter().try_for_each(|scene| scene.check(&block.features))
}
