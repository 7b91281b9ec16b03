//! The draws of one scene, each at its own address.

use super::{ClippedNormal, FAR, Lattice, MOST_NODES, SceneError, SceneOp, SceneRule, Shape};
use crate::rng::{Draw, Rng, Stream};
use std::sync::Arc;

/// Most that a smoothed field reaches, for which a later pass keeps nodes ready: seven standard deviations.
const REACH: f64 = 0.8;

/// Draws which of `points` points the scene at `slot` of `step` keeps: [`SceneOp::Keep`] (dropout), then
/// [`SceneOp::Crop`] if it still has more than the rule allows. At least one point stays.
pub fn cut(rule: &SceneRule, points: u32, stream: &Stream, step: u64, slot: u64) -> Vec<SceneOp> {
    let mut ops = Vec::new();
    let mut left = points;
    let mut rng = stream.at(Draw::SceneKeep, step, slot);
    if rng.chance(rule.dropout) {
        let lost = (f64::from(points) * rule.dropout_fraction) as u32;
        left = points.saturating_sub(lost).max(1).min(points);
        if left < points {
            ops.push(SceneOp::Keep { points: subset(points, left, &mut rng) });
        }
    }
    if let Some(most) = rule.max_points.map(|m| m.max(1)).filter(|m| *m < left) {
        let centre = rule.crop_centre.unwrap_or_else(|| stream.at(Draw::SceneCrop, step, slot).uniform());
        ops.push(SceneOp::Crop { centre, most });
    }
    ops
}

/// `chosen` of the numbers `0..all`, ascending, every set equally likely (selection sampling, Knuth's algorithm S).
fn subset(all: u32, chosen: u32, rng: &mut Rng) -> Arc<[u32]> {
    let mut missing = chosen;
    let mut keep = |i: &u32| {
        let kept = rng.below(u64::from(all - i)) < u64::from(missing);
        missing -= u32::from(kept);
        kept
    };
    (0..all).filter(|i| keep(i)).collect()
}

/// Draws the transforms of the scene of `shape` at `slot` of `step`, in this order: Centre; Flip; Elastic, one op per
/// pass; Scale; Rotate; Recentre and Shift; Jitter; Colour; ChannelDrop; ColourJitter. `keep_offset` puts Shift after
/// Centre and leaves out Recentre. Ops that would change nothing are left out.
///
/// # Errors
/// [`SceneError`] when coordinates or grids are too large; it does not depend on what is drawn here.
pub fn draw(
    rule: &SceneRule,
    shape: &Shape,
    stream: &Stream,
    step: u64,
    slot: u64,
) -> Result<Vec<SceneOp>, SceneError> {
    near(shape)?;
    let at = |draw| stream.at(draw, step, slot);
    let mut ops = Vec::with_capacity(12);
    let shift =
        rule.shift.then(|| SceneOp::Shift { fraction: triple(&mut at(Draw::SceneShift), |r| r.uniform()) });
    if rule.keep_offset {
        ops.extend(shift.clone());
    }
    ops.extend(flip(rule, &mut at(Draw::SceneFlip)));
    ops.extend(elastic(rule, shape, &mut at(Draw::SceneElastic))?);
    let (low, high) = rule.scale;
    ops.push(SceneOp::Scale { factor: triple(&mut at(Draw::SceneScale), |r| r.range(low, high)) });
    ops.push(rotate(rule, &mut at(Draw::SceneRotate)));
    ops.retain(|op| !idle(op));
    if rule.centre && !rule.keep_offset && !ops.is_empty() {
        ops.push(SceneOp::Recentre);
    }
    if !rule.keep_offset {
        ops.extend(shift);
    }
    if rule.centre {
        ops.insert(0, SceneOp::Centre);
    }
    if let Some(noise) = &rule.jitter {
        ops.push(SceneOp::Jitter { offsets: offsets(noise, shape.points, &mut at(Draw::SceneJitter)) });
    }
    ops.extend(colour(rule, &mut at(Draw::SceneColour)));
    if let Some(noise) = &rule.colour_jitter {
        let offsets = offsets(noise, shape.points, &mut at(Draw::SceneColourJitter));
        ops.push(SceneOp::ColourJitter { offsets });
    }
    Ok(ops)
}

/// Whether a volume op as drawn changes nothing.
fn idle(op: &SceneOp) -> bool {
    match op {
        SceneOp::Scale { factor } => factor == &[1.0; 3],
        SceneOp::Rotate { angles } => angles == &[0.0; 3],
        SceneOp::Flip { axes, .. } => axes == &[false; 3],
        SceneOp::Elastic { magnitude, .. } => *magnitude == 0.0,
        SceneOp::Centre
        | SceneOp::Shift { .. }
        | SceneOp::Recentre
        | SceneOp::Jitter { .. }
        | SceneOp::Colour { .. }
        | SceneOp::ColourJitter { .. }
        | SceneOp::ChannelDrop { .. }
        | SceneOp::Keep { .. }
        | SceneOp::Crop { .. } => false,
    }
}

fn near(shape: &Shape) -> Result<(), SceneError> {
    for (a, axis) in ["x", "y", "z"].into_iter().enumerate() {
        let (min, max) = (shape.min[a], shape.max[a]);
        if !(min >= -FAR && max <= FAR) {
            return Err(SceneError::Far { axis, min, max });
        }
    }
    Ok(())
}

fn triple(rng: &mut Rng, mut one: impl FnMut(&mut Rng) -> f64) -> [f32; 3] {
    std::array::from_fn(|_| one(rng) as f32)
}

fn flip(rule: &SceneRule, rng: &mut Rng) -> Option<SceneOp> {
    let [x, y] = rule.flip.map(|p| rng.chance(p));
    (x || y).then_some(SceneOp::Flip { axes: [x, y, false], translate: rule.flip_translates })
}

fn elastic(rule: &SceneRule, shape: &Shape, rng: &mut Rng) -> Result<Vec<SceneOp>, SceneError> {
    if rule.elastic_p <= 0.0 {
        return Ok(Vec::new());
    }
    let mut reach = 0.0;
    let mut grids = Vec::with_capacity(rule.elastic.len());
    for &(granularity, magnitude) in &rule.elastic {
        grids.push(grid(shape, rule.centre, granularity, reach)?);
        reach += magnitude * REACH;
    }
    if !rng.chance(rule.elastic_p) {
        return Ok(Vec::new());
    }
    let passes = rule.elastic.iter().zip(grids).map(|(&(granularity, magnitude), dims)| {
        let mut noise = vec![0.0; 3 * dims.iter().product::<u32>() as usize];
        rng.normals(&mut noise);
        let noise = Arc::new(Lattice { dims, noise });
        SceneOp::Elastic { granularity: granularity as f32, magnitude: magnitude as f32, noise }
    });
    Ok(passes.collect())
}

/// Nodes per axis of a pass over a scene whose points moved by at most `reach` before it.
fn grid(shape: &Shape, centred: bool, granularity: f64, reach: f64) -> Result<[u32; 3], SceneError> {
    let extent: [f64; 3] = std::array::from_fn(|a| shape.max[a] - shape.min[a]);
    let nodes = [0, 1, 2].map(|a| {
        // The executor measures f32 coordinates, which are off by a few units of their last place.
        let size = if centred { extent[a] } else { shape.max[a].abs().max(shape.min[a].abs()) };
        ((extent[a] + 2.0 * reach + size * 2f64.powi(-20)) / granularity).floor() + 3.0
    });
    let all = nodes[0] * nodes[1] * nodes[2];
    if all <= f64::from(MOST_NODES) {
        Ok(nodes.map(|n| n as u32))
    } else {
        Err(SceneError::Nodes { granularity, extent, nodes: all })
    }
}

/// About z, then y and x.
fn rotate(rule: &SceneRule, rng: &mut Rng) -> SceneOp {
    let ranges = [rule.rotate, rule.tilt, rule.tilt];
    SceneOp::Rotate { angles: ranges.map(|(low, high)| rng.range(low, high) as f32) }
}

fn offsets(noise: &ClippedNormal, points: u32, rng: &mut Rng) -> Arc<[[f32; 3]]> {
    let mut offsets = vec![[0.0; 3]; points as usize];
    let (sigma, clip) = (noise.sigma as f32, noise.clip as f32);
    rng.normals(offsets.as_flattened_mut());
    offsets.as_flattened_mut().iter_mut().for_each(|v| *v = (*v * sigma).max(-clip).min(clip));
    offsets.into()
}

fn colour(rule: &SceneRule, rng: &mut Rng) -> Vec<SceneOp> {
    let contrast = rng.range(-rule.contrast, rule.contrast);
    let brightness = rng.range(-rule.brightness, rule.brightness);
    let most = rule.colour_shift;
    let shift = triple(rng, |r| r.below(2 * u64::from(most) + 1) as f64 - f64::from(most));
    let drop = [0; 3].map(|_| rng.chance(rule.channel_drop));
    let (gain, offset) = ((1.0 + contrast) as f32, (255.0 * brightness) as f32);
    let mut ops = Vec::new();
    if rule.contrast > 0.0 || rule.brightness > 0.0 || most > 0 {
        ops.push(SceneOp::Colour { gain, offset, shift });
    }
    if drop.contains(&true) {
        ops.push(SceneOp::ChannelDrop { drop });
    }
    ops
}
