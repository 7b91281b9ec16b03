//! The point half of a job: what is done with one scene, how scenes are mixed, and what is sent of them.

mod resolve;

pub(super) use resolve::resolve;

use super::Numerics;
use super::check::Check;
use super::pictures::Tally;
use crate::cloud;
use crate::exec::points::columns::{Feature, width};
use crate::plan::block::{Granularity, MixRule};
use crate::plan::fields::Bank;
use crate::plan::scene::SceneRule;
use crate::rng::Stream;
use std::collections::BTreeMap;

/// Most points of a step: what a stream promises memory for.
const MAX_POINTS: u64 = 1 << 28;

/// How scenes become rows.
#[derive(Debug)]
pub struct Points {
    /// Rules that rows are made by.
    pub numerics: Numerics,
    /// One scene.
    pub scene: SceneRule,
    /// Mixing.
    pub mix: MixRule,
    /// Most scenes of a row.
    pub scenes: u32,
    /// Points of a step.
    pub max_points: u64,
    /// Columns of "feat".
    pub features: Vec<Feature>,
    /// Classes.
    pub labels: Labels,
    /// Values of attributes that a scene may lack.
    pub fill: BTreeMap<Attribute, f64>,
    /// Voxels.
    pub voxels: Option<VoxelRule>,
    /// Largest absolute coordinate, of scenes that are not centred.
    pub far: Option<f64>,
    /// Most points of a stored scene.
    pub limits: cloud::Limits,
    /// Largest encoded size in bytes.
    pub max_bytes: u64,
    /// Share of bad records above which the feed fails.
    pub max_bad_fraction: f64,
    /// Draws of mixing.
    pub mix_stream: Stream,
    /// Draws of scenes.
    pub scene_stream: Stream,
    /// No policy of scenes has fields, but mixing asks for a bank.
    pub fields: Bank,
    /// Scenes decoded and refused so far.
    pub tally: Tally,
    /// Encoded bytes and points of a scene, on average.
    pub mean: (u64, u64),
}

/// What a scene may have beside coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the documentation
pub enum Attribute {
    Color,
    Normal,
    Intensity,
    Segment,
    Instance,
}

impl Attribute {
    /// Every one with its name.
    pub const ALL: [(Attribute, &'static str); 5] = [
        (Attribute::Color, "color"),
        (Attribute::Normal, "normal"),
        (Attribute::Intensity, "intensity"),
        (Attribute::Segment, "segment"),
        (Attribute::Instance, "instance"),
    ];

    /// Name in specs.
    pub fn name(self) -> &'static str {
        Attribute::ALL.iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }
}

/// From stored classes to those that are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Given map; `None`: by the names of the source's classes, or as stored.
    pub map: Option<BTreeMap<i32, i32>>,
    /// Of points that are not to count.
    pub ignore: i32,
    /// A class that is not mapped makes the scene a bad record; otherwise it is ignored.
    pub refuse: bool,
}

impl Labels {
    /// Class of a stored one; `None` when it is not mapped. `classes` is the job's number of each class of the source.
    pub fn class(&self, stored: i32, classes: &[i32]) -> Option<i32> {
        let own = match &self.map {
            Some(map) => map.get(&stored).copied(),
            None if classes.is_empty() => (stored >= 0).then_some(stored),
            None => usize::try_from(stored).ok().and_then(|stored| classes.get(stored)).copied(),
        };
        // What is to be ignored already needs no place in the map.
        own.or((stored == self.ignore).then_some(stored))
    }
}

/// One point per cell of a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoxelRule {
    /// Side of a cell, 1e-6..=1e9.
    pub size: f32,
    /// Which point stands for its cell.
    pub pick: VoxelPick,
    /// Also say which voxel each point became.
    pub inverse: bool,
    /// Also say how many points a voxel has.
    pub count: bool,
    /// The class of a voxel is the most frequent one among its points.
    pub majority: bool,
}

/// Which point stands for its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoxelPick {
    /// The first in point order.
    First,
    /// A drawn one.
    Random,
}

impl Points {
    /// Bytes of a point as it is sent, at most.
    pub fn point_bytes(&self) -> usize {
        let features = width(&self.features) * 4;
        let voxels =
            self.voxels.map_or(0, |v| 12 + if v.count { 4 } else { 0 } + if v.inverse { 8 } else { 0 });
        12 + features + 4 + 4 + 1 + voxels
    }

    /// Memory of a stored point until its row is written, beside its encoded bytes: as decoded, transformed, what transforms
    /// draw for it, and its place in a table of voxels.
    pub fn making_bytes(&self) -> u64 {
        /// Coordinates and every attribute that a file may have.
        const DECODED: u64 = 24 + 3 + 12 + 4 + 4 + 4;
        let attribute = |a: Attribute| match a {
            Attribute::Color => 3,
            Attribute::Normal => 12,
            Attribute::Intensity | Attribute::Segment | Attribute::Instance => 4,
        };
        let (scene, when) = (&self.scene, |drawn: bool, bytes: u64| if drawn { bytes } else { 0 });
        // Offsets of coordinates; those of colours and the colours that they make floats; distances and their order.
        let draws = when(scene.jitter.is_some(), 12)
            + when(scene.colour_jitter.is_some(), 12 + 12)
            + when(scene.dropout > 0.0, 4)
            + when(scene.max_points.is_some(), 8 + 8 + 4);
        let voxels = when(self.voxels.is_some(), 16);
        let used: u64 = self.used().map(attribute).sum();
        DECODED.max(24 + 12 + used + draws + self.noise_bytes() + voxels)
    }

    /// Memory of a point of a row until the row is written: its number, and its voxel.
    pub fn row_bytes(&self) -> u64 {
        // Of a voxel the point that stands for it and its place; which one is each point's, and how many it has.
        4 + match self.voxels {
            None => 0,
            Some(VoxelRule {
                pick: VoxelPick::First, inverse: false, count: false, majority: false, ..
            }) => 4 + 12,
            Some(_) => 4 + 12 + 4 + 4,
        }
    }

    /// Memory of elastic distortion for each point: three numbers of a node for every pass, of as many nodes as points.
    pub fn noise_bytes(&self) -> u64 {
        12 * self.scene.elastic.len() as u64
    }

    /// Points that the rows of `slots` slots of a step of `batch` may have: their part of `max_points`.
    pub fn share(&self, slots: u64, batch: u64) -> u64 {
        (u128::from(self.max_points) * u128::from(slots) / u128::from(batch.max(1))) as u64
    }

    /// Attributes that are used.
    pub fn used(&self) -> impl Iterator<Item = Attribute> + '_ {
        let features = self.features.iter().filter_map(|column| match column {
            Feature::Color(_) => Some(Attribute::Color),
            Feature::Normal => Some(Attribute::Normal),
            Feature::Intensity => Some(Attribute::Intensity),
            Feature::Coord | Feature::Distance => None,
        });
        features.chain([Attribute::Segment, Attribute::Instance])
    }

    /// The same without chance and mixing, for eval sets of `batch` rows a step: with as many points a row.
    pub(super) fn plain(&self, check: &mut Check, batch: u32, global_batch: u64) -> Points {
        let points = u128::from(self.max_points) * u128::from(batch) / u128::from(global_batch.max(1));
        let fits = points <= u128::from(MAX_POINTS);
        check.ensure(fits, "batch", || {
            format!("is {batch}, for {points} points a step; want at most {MAX_POINTS}")
        });
        let max_points = if fits { points as u64 } else { MAX_POINTS };
        let none =
            MixRule { members: Vec::new(), granularity: Granularity::Elem, clean: 0.0, ..self.mix.clone() };
        Points {
            numerics: self.numerics,
            scene: self.scene.plain(),
            mix: none,
            scenes: 1,
            max_points,
            features: self.features.clone(),
            labels: self.labels.clone(),
            fill: self.fill.clone(),
            voxels: self.voxels,
            far: self.far,
            limits: self.limits,
            max_bytes: self.max_bytes,
            max_bad_fraction: self.max_bad_fraction,
            mix_stream: self.mix_stream.clone(),
            scene_stream: self.scene_stream.clone(),
            fields: Bank::new(0, 1, 1),
            tally: Tally::default(),
            mean: self.mean,
        }
    }
}
