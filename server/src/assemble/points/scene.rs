//! One scene: from encoded bytes to transformed points, or to what a device transforms, or why its record is bad.

use crate::assemble::{Encoded, replace::Refusal};
use crate::batch::SampleId;
use crate::cloud::{self, Scene};
use crate::exec::device::SceneInput;
use crate::exec::points::{self, Measured, Points, Scratch};
use crate::job::{Attribute, Feed, Numerics, Points as Rule};
use crate::plan::scene::{self, SceneOp};
use bytes::Bytes;

/// Voxels from the origin in every direction: the differences of two scenes' still fit 32 bits.
const MOST_VOXELS: f32 = (1 << 30) as f32;
/// Largest id of an instance: those of all parts of a row together fit 32 bits.
const MOST_INSTANCE: i32 = 1 << 24;

/// Bytes of drawn noise that a scene may hold until a device has it, beside those that are counted with its points: beyond both
/// it is transformed where it is decoded.
const NOISE: u64 = 1 << 20;

/// Bytes of noise that a slot holds beside its points, at most.
pub(super) fn held_noise(rule: &Rule) -> u64 {
    match rule.numerics {
        Numerics::Tolerant if !rule.scene.elastic.is_empty() => NOISE,
        Numerics::Cpu | Numerics::Torch | Numerics::Tolerant => 0,
    }
}

/// Largest absolute coordinate for voxels of `size`, exclusive.
pub(super) fn far(size: f32) -> f32 {
    size * MOST_VOXELS
}

/// A scene before its transforms: cut, measured, drawn for.
pub(super) struct Drawn {
    pub scene: Scene,
    pub measured: Measured,
    pub ops: Vec<SceneOp>,
}

/// Decodes the scene of a record and draws for it.
pub(super) fn drawn(
    feed: &Feed,
    rule: &Rule,
    id: SampleId,
    encoded: &Encoded,
    (step, slot): (u64, u64),
    scratch: &mut Scratch,
) -> Result<Drawn, Refusal> {
    let bytes: &Bytes = encoded.as_ref().map_err(Clone::clone)?;
    let group = &feed.groups[id.group as usize];
    let mut scene = cloud::record(bytes, &rule.limits)?;
    classify(rule, &group.classes, &mut scene)?;
    complete(rule, &mut scene)?;
    if let Some(limit) = rule.far {
        let value = scene.coord.as_flattened().iter().fold(0.0, |far: f64, c| far.max(c.abs()));
        if value > limit {
            return Err(Refusal::Far { value, limit });
        }
    }
    let stream = &rule.scene_stream;
    let cuts = scene::cut(&rule.scene, scene.len() as u32, stream, step, slot);
    points::apply_cut(&mut scene, &cuts, scratch);
    let measured = Measured::of(&scene.coord);
    let ops = scene::draw(&rule.scene, &measured.shape, stream, step, slot)?;
    Ok(Drawn { scene, measured, ops })
}

impl Drawn {
    /// The scene, transformed.
    pub(super) fn transform(self, rule: &Rule, scratch: &mut Scratch) -> Result<Points, Refusal> {
        let (points, value) = points::transform(self.scene, &self.measured, &self.ops, scratch);
        match rule.voxels {
            Some(rule) if value >= far(rule.size) => Err(Refusal::Fine { value, size: rule.size }),
            Some(_) | None => Ok(points),
        }
    }

    /// Whether it may be held as it is.
    pub(super) fn is_small(&self, rule: &Rule) -> bool {
        // What is drawn for each point is counted with it.
        let noise = |op: &SceneOp| match op {
            SceneOp::Elastic { noise, .. } => noise.noise.len() as u64 * size_of::<f32>() as u64,
            SceneOp::Centre
            | SceneOp::Shift { .. }
            | SceneOp::Flip { .. }
            | SceneOp::Scale { .. }
            | SceneOp::Rotate { .. }
            | SceneOp::Recentre
            | SceneOp::Jitter { .. }
            | SceneOp::Colour { .. }
            | SceneOp::ColourJitter { .. }
            | SceneOp::ChannelDrop { .. }
            | SceneOp::Keep { .. }
            | SceneOp::Crop { .. } => 0,
        };
        self.ops.iter().map(noise).sum::<u64>() <= NOISE.max(rule.noise_bytes() * self.scene.len() as u64)
    }

    /// As a device takes it.
    pub(super) fn stored(self) -> SceneInput {
        let Drawn { scene, measured, ops } = self;
        SceneInput::Stored { scene, measured, ops }
    }
}

/// Drops what the job does not use, and fills in what it declared for scenes that lack it.
fn complete(rule: &Rule, scene: &mut Scene) -> Result<(), Refusal> {
    let n = scene.len();
    for (attribute, name) in Attribute::ALL {
        let used = rule.used().any(|own| own == attribute);
        let value = rule.fill.get(&attribute).copied();
        match attribute {
            Attribute::Color => fill(&mut scene.color, used, value.map(|v| [v as u8; 3]), n, name)?,
            Attribute::Normal => fill(&mut scene.normal, used, value.map(|v| [v as f32; 3]), n, name)?,
            Attribute::Intensity => fill(&mut scene.intensity, used, value.map(|v| v as f32), n, name)?,
            Attribute::Segment => fill(&mut scene.segment, used, value.map(|v| v as i32), n, name)?,
            // Most scenes have no instances: then no point belongs to one, as if all were of -1.
            Attribute::Instance if scene.instance.is_none() && value.is_none() => {}
            Attribute::Instance => fill(&mut scene.instance, used, value.map(|v| v as i32), n, name)?,
        }
    }
    let ids = scene.instance.as_deref().unwrap_or_default();
    // The largest is found many at once; which one it is matters in bad scenes only.
    if ids.iter().copied().max().is_none_or(|largest| largest <= MOST_INSTANCE) {
        return Ok(());
    }
    match ids.iter().enumerate().find(|(_, id)| **id > MOST_INSTANCE) {
        Some((point, id)) => Err(Refusal::Instance { point, id: *id, limit: MOST_INSTANCE }),
        None => Ok(()),
    }
}

fn fill<T: Clone>(
    own: &mut Option<Vec<T>>,
    used: bool,
    value: Option<T>,
    points: usize,
    name: &'static str,
) -> Result<(), Refusal> {
    match (used, &own, value) {
        (false, ..) => *own = None,
        (true, Some(_), _) => {}
        (true, None, Some(value)) => *own = Some(vec![value; points]),
        (true, None, None) => return Err(Refusal::Missing(name)),
    }
    Ok(())
}

/// Stored classes to those of the job.
fn classify(rule: &Rule, classes: &[i32], scene: &mut Scene) -> Result<(), Refusal> {
    let Some(segment) = &mut scene.segment else { return Ok(()) };
    // Classes as stored stay, and most scenes have no other ones.
    let as_stored = rule.labels.map.is_none() && classes.is_empty();
    if as_stored && segment.iter().copied().min().is_none_or(|least| least >= 0) {
        return Ok(());
    }
    for (point, class) in segment.iter_mut().enumerate() {
        *class = match rule.labels.class(*class, classes) {
            Some(class) => class,
            None if rule.labels.refuse => return Err(Refusal::Class { point, class: *class }),
            None => rule.labels.ignore,
        };
    }
    Ok(())
}
