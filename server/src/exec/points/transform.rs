//! From a scene to the points of a part, one op after the other.

use super::{Points, Scratch, crop, elastic, lanes};
use crate::cloud::Scene;
use crate::plan::scene::SceneOp;

/// Cuts `scene` as [`crate::plan::scene::cut`] drew it.
///
/// # Panics
/// On an op that cuts nothing, and on numbers of points that the scene lacks: faults of the plan.
pub fn apply_cut(scene: &mut Scene, ops: &[SceneOp], scratch: &mut Scratch) {
    for op in ops {
        assert!(is_cut(op), "an op that cuts nothing among the cuts");
        cut(scene, op, scratch);
    }
}

/// Carries out `ops`, cuts first if there are any, on a scene as it is stored.
///
/// # Panics
/// When an op was drawn for another number of points, or a grid is too small for its noise: faults of the plan.
pub fn apply(mut scene: Scene, ops: &[SceneOp], scratch: &mut Scratch) -> Points {
    let cuts = ops.iter().take_while(|op| is_cut(op)).count();
    let (cuts, ops) = ops.split_at(cuts);
    apply_cut(&mut scene, cuts, scratch);
    let (centre, ops) = match ops {
        [SceneOp::Centre, ops @ ..] => (lanes::mean(&scene.coord), ops),
        // 0 is subtracted exactly.
        _ => ([0.0; 3], ops),
    };
    let mut coord = scratch.triples(scene.len());
    lanes::less(&scene.coord, centre, &mut coord);
    let mut points = Points {
        coord,
        color: scene.color.map(|c| widen(&c, scratch)),
        normal: scene.normal,
        intensity: scene.intensity,
        segment: scene.segment,
        instance: scene.instance,
    };
    if !points.is_empty() {
        ops.iter().for_each(|op| run(&mut points, op, scratch));
    }
    points
}

fn is_cut(op: &SceneOp) -> bool {
    matches!(op, SceneOp::Keep { .. } | SceneOp::Crop { .. })
}

fn cut(scene: &mut Scene, op: &SceneOp, scratch: &mut Scratch) {
    let chosen;
    let keep: &[u32] = match op {
        SceneOp::Keep { points } => points,
        SceneOp::Crop { centre, most } => {
            match crop::nearest_in(&scene.coord, *centre, *most as usize, &mut scratch.keys) {
                Some(nearest) => {
                    chosen = nearest;
                    &chosen
                }
                None => return,
            }
        }
        SceneOp::Centre
        | SceneOp::Shift { .. }
        | SceneOp::Flip { .. }
        | SceneOp::Elastic { .. }
        | SceneOp::Scale { .. }
        | SceneOp::Rotate { .. }
        | SceneOp::Recentre
        | SceneOp::Jitter { .. }
        | SceneOp::Colour { .. }
        | SceneOp::ColourJitter { .. }
        | SceneOp::ChannelDrop { .. } => return,
    };
    crop::keep(&mut scene.coord, keep);
    crop::keep_some(&mut scene.color, keep);
    crop::keep_some(&mut scene.normal, keep);
    crop::keep_some(&mut scene.intensity, keep);
    crop::keep_some(&mut scene.segment, keep);
    crop::keep_some(&mut scene.instance, keep);
}

fn widen(color: &[[u8; 3]], scratch: &mut Scratch) -> Vec<[f32; 3]> {
    let mut out = scratch.triples(color.len());
    out.as_flattened_mut().iter_mut().zip(color.as_flattened()).for_each(|(o, v)| *o = f32::from(*v));
    out
}

fn run(points: &mut Points, op: &SceneOp, scratch: &mut Scratch) {
    match op {
        SceneOp::Centre | SceneOp::Recentre => {
            let mean = lanes::mean(&points.coord);
            lanes::map(&mut points.coord, mean, |c, mean| (f64::from(c) - mean) as f32);
        }
        SceneOp::Shift { fraction } => {
            let (min, max) = lanes::bounds(&points.coord);
            let by = std::array::from_fn(|a| 0.5 * (min[a] + fraction[a] * (max[a] - min[a])));
            lanes::map(&mut points.coord, by, |c, by| c + by);
        }
        SceneOp::Flip { axes, translate } => flip(points, axes, *translate),
        SceneOp::Elastic { granularity, magnitude, noise } => {
            elastic::distort(&mut points.coord, *granularity, *magnitude, noise, &mut scratch.nodes);
        }
        SceneOp::Scale { factor } => lanes::map(&mut points.coord, *factor, |c, factor| c * factor),
        SceneOp::Rotate { angles } => {
            let (matrix, about) = (matrix(angles), lanes::mean(&points.coord).map(|m| m as f32));
            turn(&mut points.coord, &matrix, about);
            if let Some(normal) = &mut points.normal {
                turn(normal, &matrix, [0.0; 3]);
            }
        }
        SceneOp::Jitter { offsets } => lanes::zip(&mut points.coord, offsets, |c, offset| c + offset),
        SceneOp::Colour { gain, offset, shift } => {
            if let Some(color) = &mut points.color {
                let (gain, offset) = (*gain, *offset);
                lanes::map(color, *shift, |v, shift| clip(clip(gain * v + offset) + shift));
            }
        }
        SceneOp::ColourJitter { offsets } => {
            if let Some(color) = &mut points.color {
                lanes::zip(color, offsets, |v, offset| clip(v + offset));
            }
        }
        SceneOp::ChannelDrop { drop } => {
            if let Some(color) = &mut points.color {
                let gain = drop.map(|drop| if drop { 0.0 } else { 1.0 });
                lanes::map(color, gain, |v, gain| v * gain);
            }
        }
        SceneOp::Keep { points: keep } => points.keep(keep),
        SceneOp::Crop { centre, most } => {
            if let Some(keep) = crop::nearest_in(&points.coord, *centre, *most as usize, &mut scratch.keys) {
                points.keep(&keep);
            }
        }
    }
}

fn clip(v: f32) -> f32 {
    v.clamp(0.0, 255.0)
}

fn flip(points: &mut Points, axes: &[bool; 3], translate: bool) {
    let (min, max) = lanes::bounds(&points.coord);
    // `from + -1 * c` is `from - c`, and `-0 + 1 * c` is `c`, exactly.
    let sign = axes.map(|flipped| if flipped { -1.0 } else { 1.0 });
    let from: [f32; 3] = std::array::from_fn(|a| match (axes[a], translate) {
        (false, _) => -0.0,
        (true, true) => max[a],
        (true, false) => min[a] + max[a],
    });
    lanes::map(&mut points.coord, sign, |c, sign| sign * c);
    lanes::map(&mut points.coord, from, |c, from| from + c);
    if let Some(normal) = &mut points.normal {
        lanes::map(normal, sign, |n, sign| sign * n);
    }
}

/// `Rx Ry Rz` for angles about z, y, x.
fn matrix(angles: &[f32; 3]) -> [[f32; 3]; 3] {
    let [(sz, cz), (sy, cy), (sx, cx)] = angles.map(|a| libm::sincos(f64::from(a)));
    let rows = [
        [cy * cz, -cy * sz, sy],
        [sx * sy * cz + cx * sz, cx * cz - sx * sy * sz, -sx * cy],
        [sx * sz - cx * sy * cz, cx * sy * sz + sx * cz, cx * cy],
    ];
    rows.map(|row| row.map(|v| v as f32))
}

fn turn(vectors: &mut [[f32; 3]], m: &[[f32; 3]; 3], about: [f32; 3]) {
    // Columns of the matrix with a fourth lane, so that one point is one register.
    let column = |j: usize| [m[0][j], m[1][j], m[2][j], 0.0];
    let (x, y, z, to) = (column(0), column(1), column(2), [about[0], about[1], about[2], 0.0]);
    for v in vectors {
        let d: [f32; 3] = std::array::from_fn(|a| v[a] - about[a]);
        let turned: [f32; 4] = std::array::from_fn(|a| ((x[a] * d[0] + y[a] * d[1]) + z[a] * d[2]) + to[a]);
        *v = [turned[0], turned[1], turned[2]];
    }
}
