//! The scenes of a block in packed tensors: one upload for all of them.

use super::groups::{Group, groups};
use super::held::{Coord, Held, Hues};
use super::{DeviceError, transform};
use crate::exec::device::Scenes;
use crate::exec::points::Colors;
use crate::exec::torch::{Torch, host};
use crate::plan::scene::SceneOp;
use std::borrow::Cow;
use tch::{Kind, Tensor, kind::Element};

/// The points of all scenes of a block, transformed. Scenes lie one after the other, in an order of their own.
#[derive(Debug)]
pub(super) struct Cloud {
    /// First point of the scene of each slot.
    pub starts: Vec<i64>,
    /// Points of the scene of each slot.
    pub lens: Vec<i64>,
    /// f32 (points, 3).
    pub coord: Tensor,
    /// f32 (points, 3), 0..=255; where a column holds it, as the next two.
    pub color: Option<Tensor>,
    /// f32 (points, 3).
    pub normal: Option<Tensor>,
    /// f32 (points).
    pub intensity: Option<Tensor>,
    /// i32 (points).
    pub segment: Tensor,
    /// i32 (points), negative without; absent when no scene has any.
    pub instance: Option<Tensor>,
    /// Slots of the scenes that were transformed here, and the largest absolute coordinate of each, f32.
    pub far: Option<(Vec<usize>, Tensor)>,
}

/// Scenes in the order in which they are packed, those that are to be transformed first.
struct Packing<'a> {
    scenes: Vec<Held<'a>>,
    /// How many are to be transformed.
    stored: usize,
    groups: Vec<Group<'a>>,
    /// Colours of the others.
    hues: Vec<Cow<'a, [[f32; 3]]>>,
    /// Instances of the largest scene without any, if others have some.
    none: Option<Vec<i32>>,
}

impl<'a> Packing<'a> {
    fn new(block: &'a Scenes) -> Packing<'a> {
        let (mut scenes, made): (Vec<_>, Vec<_>) =
            Held::all(block).into_iter().partition(|scene| scene.ops().is_some());
        let stored = scenes.len();
        scenes.extend(made);
        let colours = scenes.iter().any(|scene| scene.color.is_some());
        let lists: Vec<_> =
            scenes.iter().filter_map(Held::ops).map(|ops| transform::list(ops, colours)).collect();
        let some = scenes.iter().any(|scene| scene.instance.is_some());
        let without = scenes.iter().filter(|scene| scene.instance.is_none()).map(|scene| scene.points);
        let none = some.then(|| vec![-1; without.max().unwrap_or(0)]);
        let hues = scenes.iter().filter_map(|scene| match scene.color {
            Some(Hues::Made(Colors::Each(colors))) => Some(Cow::Borrowed(colors.as_slice())),
            Some(Hues::Made(stored @ Colors::Stored(..))) => Some(Cow::Owned(stored.clone().each())),
            Some(Hues::Stored(_)) | None => None,
        });
        Packing { stored, groups: groups(&lists), hues: hues.collect(), none, scenes }
    }

    fn points(scenes: &[Held<'_>]) -> Vec<i64> {
        scenes.iter().map(|scene| scene.points as i64).collect()
    }

    /// Sends all of it.
    fn send(&self, torch: &mut Torch) -> Result<Sent, DeviceError> {
        let (mut parts, scenes) = (Parts::default(), || self.scenes.iter());
        let mut sent = Sent {
            // The widest numbers come first and bytes last, so that all are aligned.
            wide: parts.add(scenes().filter_map(|scene| match scene.coord {
                Coord::Stored(coord, ..) => Some(coord.as_flattened()),
                Coord::Made(_) => None,
            })),
            coord: parts.add(scenes().filter_map(|scene| match scene.coord {
                Coord::Stored(..) => None,
                Coord::Made(coord) => Some(coord.as_flattened()),
            })),
            hues: parts.add(self.hues.iter().map(|colors| colors.as_flattened())),
            normal: parts.add(scenes().filter_map(|scene| scene.normal).map(<[_]>::as_flattened)),
            intensity: parts.add(scenes().filter_map(|scene| scene.intensity)),
            drawn: self
                .groups
                .iter()
                .map(|group| parts.add(group.ops.iter().filter_map(|op| drawn(op))))
                .collect(),
            segment: parts.add(scenes().filter_map(|scene| scene.segment)),
            instance: parts.add(self.none.iter().flat_map(|none| {
                scenes().map(|scene| scene.instance.unwrap_or(&none[..scene.points.min(none.len())]))
            })),
            bytes: parts.add(scenes().filter_map(|scene| match scene.color {
                Some(Hues::Stored(bytes)) => Some(bytes.as_flattened()),
                Some(Hues::Made(_)) | None => None,
            })),
            all: Tensor::new(),
        };
        torch.scenes.stage(&torch.pool, &parts.bytes)?;
        sent.all = torch.scenes.up()?;
        Ok(sent)
    }
}

/// What an op holds of every point or node.
fn drawn(op: &SceneOp) -> Option<&[f32]> {
    match op {
        SceneOp::Jitter { offsets } | SceneOp::ColourJitter { offsets } => Some(offsets.as_flattened()),
        SceneOp::Elastic { noise, .. } => Some(&noise.noise),
        SceneOp::Centre
        | SceneOp::Recentre
        | SceneOp::Shift { .. }
        | SceneOp::Flip { .. }
        | SceneOp::Scale { .. }
        | SceneOp::Rotate { .. }
        | SceneOp::Colour { .. }
        | SceneOp::ChannelDrop { .. }
        | SceneOp::Keep { .. }
        | SceneOp::Crop { .. } => None,
    }
}

/// Parts of one upload.
#[derive(Default)]
struct Parts<'a> {
    bytes: Vec<&'a [u8]>,
    end: i64,
}

impl<'a> Parts<'a> {
    fn add<T: Element + 'a>(&mut self, values: impl Iterator<Item = &'a [T]>) -> Part {
        let start = self.end;
        for bytes in values.map(host::bytes).filter(|bytes| !bytes.is_empty()) {
            self.bytes.push(bytes);
            self.end += bytes.len() as i64;
        }
        Part { start, len: self.end - start, kind: T::KIND }
    }
}

/// Where values lie in an upload.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: i64,
    len: i64,
    kind: Kind,
}

/// An upload.
struct Sent {
    all: Tensor,
    wide: Part,
    coord: Part,
    hues: Part,
    normal: Part,
    intensity: Part,
    /// Of each group.
    drawn: Vec<Part>,
    segment: Part,
    instance: Part,
    bytes: Part,
}

impl Sent {
    /// Values in lines of `shape`, if there are any.
    fn get(&self, part: Part, shape: &[i64]) -> Result<Option<Tensor>, DeviceError> {
        if part.len == 0 {
            return Ok(None);
        }
        let values = self.all.f_narrow(0, part.start, part.len)?.f_view_dtype(part.kind)?;
        Ok(Some(values.f_view(shape)?))
    }

    fn triples(&self, part: Part) -> Result<Option<Tensor>, DeviceError> {
        self.get(part, &[-1, 3])
    }

    fn scalars(&self, part: Part) -> Result<Option<Tensor>, DeviceError> {
        self.get(part, &[-1])
    }
}

/// Sends the scenes of a block that was checked and transforms those that are stored.
///
/// # Errors
/// What the device answers.
pub(super) fn cloud(torch: &mut Torch, block: &Scenes) -> Result<Cloud, DeviceError> {
    let pack = Packing::new(block);
    let sent = pack.send(torch)?;
    let (mut coord, mut color, mut normal) = (None, None, sent.triples(sent.normal)?);
    let (own, made) = pack.scenes.split_at(pack.stored);
    let mut far = None;
    if let Some(wide) = sent.triples(sent.wide)? {
        let lens = Packing::points(own);
        let (moved, given) = (lens.iter().sum(), Packing::points(made).iter().sum());
        let drawn: Result<Vec<_>, _> = sent.drawn.iter().map(|part| sent.scalars(*part)).collect();
        let first = |normal: &Tensor| normal.f_narrow(0, 0, moved);
        let input = transform::Stored {
            coord: wide,
            color: sent.triples(sent.bytes)?,
            normal: normal.as_ref().map(first).transpose()?,
            centres: own.iter().map(transform::centre).collect(),
        };
        let moving = transform::transform(torch.place.device, lens, input, &pack.groups, &drawn?)?;
        far = Some((own.iter().map(|scene| scene.slot).collect(), moving.far()?));
        (coord, color) = (Some(moving.coord), moving.color);
        let rest = normal.map(|normal| normal.f_narrow(0, moved, given)).transpose()?;
        normal = joined(moving.normal, rest)?;
    }
    let missing = || DeviceError::Failed("scenes without points or classes".into());
    let (mut starts, mut lens, mut start) = (vec![0; block.scenes.len()], vec![0; block.scenes.len()], 0);
    for scene in &pack.scenes {
        (starts[scene.slot], lens[scene.slot]) = (start, scene.points as i64);
        start += scene.points as i64;
    }
    Ok(Cloud {
        starts,
        lens,
        coord: joined(coord, sent.triples(sent.coord)?)?.ok_or_else(missing)?,
        color: joined(color, sent.triples(sent.hues)?)?,
        normal,
        intensity: sent.scalars(sent.intensity)?,
        segment: sent.scalars(sent.segment)?.ok_or_else(missing)?,
        instance: sent.scalars(sent.instance)?,
        far,
    })
}

/// One after the other, those that are there.
fn joined(first: Option<Tensor>, second: Option<Tensor>) -> Result<Option<Tensor>, DeviceError> {
    match (first, second) {
        (Some(first), Some(second)) => Ok(Some(Tensor::f_cat(&[first, second], 0)?)),
        (first, second) => Ok(first.or(second)),
    }
}
