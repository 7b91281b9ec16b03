//! Which points make the rows of a block: parts of scenes, by the number of packed points.

use super::decide::{self, Test};
use super::pack::Cloud;
use super::spans::{Spans, compact};
use super::{DeviceError, axes, refused};
use crate::exec::device::{SceneInput, Scenes};
use crate::exec::points::union::{self, Part, UnionError};
use crate::exec::torch::upload;
use crate::plan::{Op, Row};
use tch::{Device, Kind, Tensor};

/// Most scenes of a row: their numbers are bytes.
const MOST_SCENES: usize = 1 << 8;

/// Points of all parts of all rows, one after the other.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Parts of each row; of what they chose only how many are known here.
    pub rows: Vec<Vec<Part>>,
    /// Points of each part.
    pub spans: Spans,
    /// Number of each among the packed points, i64.
    pub points: Tensor,
}

impl Chosen {
    /// `points` of parts.
    pub(super) fn new(device: Device, rows: Vec<Vec<Part>>, points: Tensor) -> Result<Chosen, DeviceError> {
        let lens = rows.iter().flatten().map(|part| part.len() as i64).collect();
        Ok(Chosen { rows, spans: Spans::new(device, lens)?, points })
    }

    /// Triples of all points, (points, 3), turned with their parts.
    pub(super) fn turned(&self, triples: &Tensor) -> Result<Tensor, DeviceError> {
        let parts: Vec<&Part> = self.rows.iter().flatten().collect();
        turned(&self.spans, &parts, triples)
    }
}

/// Triples of points of parts: `(x cos - y sin, x sin + y cos, z)` where the part turns, their own bits where not.
pub(super) fn turned(spans: &Spans, parts: &[&Part], triples: &Tensor) -> Result<Tensor, DeviceError> {
    let turns: Vec<_> = parts.iter().map(|part| part.turn().cos_sin()).collect();
    if turns.iter().all(Option::is_none) {
        return Ok(triples.shallow_clone());
    }
    let device = triples.device();
    let table = |of: fn((f32, f32)) -> f32| -> Result<Tensor, DeviceError> {
        let values: Vec<f32> = turns.iter().map(|turn| turn.map_or(0.0, of)).collect();
        spans.spread(&upload::floats(device, &values, &[-1])?)
    };
    let (cos, sin) = (table(|turn| turn.0)?, table(|turn| turn.1)?);
    let turns: Vec<bool> = turns.iter().map(Option::is_some).collect();
    let turns = spans.spread(&upload::truths(device, &turns, &[-1])?)?;
    let [x, y, z] = axes(triples)?;
    let made = [x.f_mul(&cos)?.f_sub(&y.f_mul(&sin)?)?, x.f_mul(&sin)?.f_add(&y.f_mul(&cos)?)?, z];
    Ok(Tensor::f_stack(&made, 1)?.f_where_self(&turns.f_unsqueeze(1)?, triples)?)
}

/// A part that may have points: those of a scene that pass every test.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    row: usize,
    pub part: Part,
    pub tests: Vec<Test<'a>>,
}

/// Unites scenes as `rows` ask.
///
/// # Errors
/// [`DeviceError::Refused`] for scenes that the CPU refuses: too far away for their voxels, or ids that do not fit.
pub(super) fn unite(
    device: Device,
    rows: &[Row],
    block: &Scenes,
    cloud: &Cloud,
) -> Result<Chosen, DeviceError> {
    let drafts = drafts(rows, cloud);
    let lens = drafts.iter().map(|draft| draft.part.len() as i64).collect();
    let spans = Spans::new(device, lens)?;
    let starts: Vec<i64> = drafts.iter().map(|draft| cloud.starts[draft.part.slot as usize]).collect();
    let points = spans.places(&starts)?;
    let chosen = match drafts.iter().all(|draft| draft.tests.is_empty()) {
        true => None,
        false => Some(decide::pass(&drafts, &spans, &points, cloud)?),
    };
    let known = known(block, cloud, &drafts, &spans, &points, chosen.as_ref())?;

    let mut whole = Vec::new();
    let parts = parts(rows.len(), &drafts, &known, block, &mut whole)?;
    let points = match chosen {
        None => points,
        Some(chosen) => {
            for draft in whole {
                let _ = chosen.f_narrow(0, spans.starts[draft], spans.lens[draft])?.f_fill_(1)?;
            }
            let count = parts.iter().flatten().map(Part::len).sum::<usize>();
            compact(&points, &chosen, count as i64)?
        }
    };
    Chosen::new(device, parts, points)
}

/// Every part that the plan may make, in order.
fn drafts<'a>(rows: &'a [Row], cloud: &Cloud) -> Vec<Draft<'a>> {
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    for (row, planned) in rows.iter().enumerate() {
        let first = drafts.len();
        let draft = |slot: u32, angle: f32, tests| {
            let chosen = union::Chosen::All(cloud.lens[slot as usize] as u32);
            Draft { row, part: Part { slot, scene: 0, chosen, angle, instance: 0 }, tests }
        };
        drafts.push(draft(planned.base, 0.0, Vec::new()));
        let exchange = |drafts: &mut Vec<Draft<'a>>, src: u32, test: &dyn Fn(bool) -> Test<'a>| {
            drafts[first..].iter_mut().for_each(|draft| draft.tests.push(test(false)));
            drafts.push(draft(src, 0.0, vec![test(true)]));
        };
        for op in &planned.ops {
            match op {
                Op::Union { scenes } => {
                    drafts.extend(scenes.iter().map(|slot| draft(*slot, 0.0, Vec::new())))
                }
                Op::Sectors { src, from, to } => {
                    exchange(&mut drafts, *src, &|inside| Test::Sector { from: *from, to: *to, inside });
                }
                Op::Bands { src, edges, odd } => {
                    exchange(&mut drafts, *src, &|inside| Test::Bands { edges, odd: *odd, inside });
                }
                Op::Instances { src, classes, angles } => {
                    drafts
                        .extend(angles.iter().map(|angle| draft(*src, *angle, vec![Test::Classes(classes)])));
                }
                Op::Blend { .. } | Op::Paste { .. } | Op::MaskBlend { .. } => {}
            }
        }
    }
    drafts
}

/// What is known of drafts: points, and largest instance id, negative without any.
struct Known {
    points: Vec<u32>,
    largest: Vec<i32>,
}

/// Asks the device, once, for what is not known here, and whether all scenes that it transformed are near enough.
fn known(
    block: &Scenes,
    cloud: &Cloud,
    drafts: &[Draft<'_>],
    spans: &Spans,
    points: &Tensor,
    chosen: Option<&Tensor>,
) -> Result<Known, DeviceError> {
    let limit = block.voxels.as_ref().map(|wish| f64::from(wish.far));
    let far = cloud.far.as_ref().filter(|_| limit.is_some());
    let asked = [
        chosen.map(|chosen| spans.counts(chosen)).transpose()?,
        cloud.instance.as_ref().map(|ids| largest(ids, spans, points, chosen)).transpose()?,
        far.map(|(_, far)| far.shallow_clone()),
    ];
    let told = told(&asked)?;
    let values = |at: usize| asked[at].is_some().then(|| told[at].as_slice());
    if let (Some((slots, _)), Some(limit)) = (far, limit) {
        let beyond = |far: &f64| *far >= limit || far.is_nan();
        if let Some(slot) = slots.iter().zip(&told[2]).find_map(|(slot, far)| beyond(far).then_some(*slot)) {
            return Err(refused(slot));
        }
    }
    let whole = || drafts.iter().map(|draft| draft.part.len() as u32).collect();
    Ok(Known {
        points: values(0).map_or_else(whole, |counts| counts.iter().map(|n| *n as u32).collect()),
        largest: values(1).map_or(vec![-1; drafts.len()], |ids| ids.iter().map(|id| *id as i32).collect()),
    })
}

/// Largest instance id of the chosen points of each run, negative without any.
fn largest(
    ids: &Tensor,
    spans: &Spans,
    points: &Tensor,
    chosen: Option<&Tensor>,
) -> Result<Tensor, DeviceError> {
    let ids = ids.f_index_select(0, points)?;
    let ids = match chosen {
        Some(chosen) => ids.f_where_scalarother(chosen, -1)?,
        None => ids,
    };
    spans.each(&ids, |run| Ok(run.f_max()?))
}

/// The values of all tensors that are there, by one wait for the device. f64 holds each of them exactly.
fn told<const N: usize>(asked: &[Option<Tensor>; N]) -> Result<[Vec<f64>; N], DeviceError> {
    let there = asked.iter().flatten().map(|values| values.f_to_kind(Kind::Double));
    let there = there.collect::<Result<Vec<_>, _>>()?;
    let all: Vec<f64> = match there.is_empty() {
        true => Vec::new(),
        false => Vec::try_from(&Tensor::f_cat(&there, 0)?)?,
    };
    let mut left = all.into_iter();
    Ok(asked.each_ref().map(|values| left.by_ref().take(values.as_ref().map_or(0, Tensor::numel)).collect()))
}

/// The parts of each row; `whole` tells the drafts that get all points of their scene, whatever they chose: the bases of
/// rows of which nothing would be left.
fn parts(
    rows: usize,
    drafts: &[Draft<'_>],
    known: &Known,
    block: &Scenes,
    whole: &mut Vec<usize>,
) -> Result<Vec<Vec<Part>>, DeviceError> {
    let mut made = vec![Vec::new(); rows];
    let mut left = 0..drafts.len();
    for (row, made) in made.iter_mut().enumerate() {
        let end = drafts[left.start..].iter().take_while(|draft| draft.row == row).count() + left.start;
        let own = left.start..end;
        left.start = end;
        let mut largest = Vec::with_capacity(own.len());
        for draft in own.clone().filter(|draft| known.points[*draft] > 0) {
            let chosen = union::Chosen::All(known.points[draft]);
            made.push(Part { chosen, ..drafts[draft].part.clone() });
            largest.push(known.largest[draft]);
        }
        if made.is_empty() {
            let base = &drafts[own.start].part;
            whole.push(own.start);
            made.push(base.clone());
            largest.push(most(&block.scenes[base.slot as usize]));
        }
        let mut slots: Vec<u32> = made.iter().map(|part| part.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() > MOST_SCENES {
            return Err(DeviceError::Misfit { row });
        }
        union::number_scenes(made);
        union::number_instances(made, &largest).map_err(|error| match error {
            UnionError::Instances { slot, .. } | UnionError::NoClasses { slot } => refused(slot as usize),
        })?;
    }
    Ok(made)
}

/// Largest instance id of a scene, negative without any.
fn most(scene: &SceneInput) -> i32 {
    let ids = match scene {
        SceneInput::Made(points) => &points.instance,
        SceneInput::Stored { scene, .. } => &scene.instance,
    };
    ids.iter().flatten().copied().max().unwrap_or(-1)
}
