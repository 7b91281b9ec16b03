//! From a scene to the points of a part, one op after the other.

use super::lanes::Measured;
use super::walk::{Input, Step, Walk};
use super::{Points, Scratch, colors, crop, elastic};
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
    let measured = Measured::of(&scene.coord);
    transform(scene, &measured, ops, scratch).0
}

/// Carries out `ops` on a scene that was cut and then `measured`; also the largest absolute coordinate afterwards.
///
/// # Panics
/// As [`apply`].
pub fn transform(scene: Scene, measured: &Measured, ops: &[SceneOp], scratch: &mut Scratch) -> (Points, f32) {
    let Scene { coord, color, normal, intensity, segment, instance } = scene;
    let (centre, ops) = match ops {
        [SceneOp::Centre, ops @ ..] => (measured.mean, ops),
        // 0 is subtracted exactly.
        _ => ([0.0; 3], ops),
    };
    let n = coord.len();
    // Rounding keeps the order, so the ends are those of what is rounded.
    let end = |stored: [f64; 3]| std::array::from_fn(|a| (stored[a] - centre[a]) as f32);
    let extent = (end(measured.shape.min), end(measured.shape.max));
    let mut made = Making {
        coord: Walk::new(scratch.triples(n), Input::Stored(&coord, centre), Some(extent)),
        color: color.map(colors::Making::new),
        normal: normal.map(|n| Walk::new(n, Input::Place, None)),
        rest: Points { intensity, segment, instance, ..Points::default() },
    };
    if n > 0 {
        ops.iter().for_each(|op| run(&mut made, op, scratch));
    }
    let (low, high) = made.coord.bounds();
    let far = low.iter().chain(&high).fold(0.0, |far: f32, v| far.max(v.abs()));
    let points = Points {
        coord: made.coord.done(),
        color: made.color.map(colors::Making::done),
        normal: made.normal.map(Walk::done),
        extent: (n > 0).then_some((low, high)),
        ..made.rest
    };
    (points, if n > 0 { far } else { 0.0 })
}

/// Points whose coordinates, colours and normals have steps before them.
struct Making<'a> {
    coord: Walk<'a>,
    color: Option<colors::Making<'a>>,
    normal: Option<Walk<'a>>,
    /// Without those.
    rest: Points,
}

impl Making<'_> {
    fn keep(&mut self, keep: &[u32]) {
        crop::keep(self.coord.values(), keep);
        self.color.iter_mut().for_each(|color| color.keep(keep));
        self.normal.iter_mut().for_each(|walk| crop::keep(walk.values(), keep));
        crop::keep_some(&mut self.rest.intensity, keep);
        crop::keep_some(&mut self.rest.segment, keep);
        crop::keep_some(&mut self.rest.instance, keep);
    }
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

fn run<'a>(made: &mut Making<'a>, op: &'a SceneOp, scratch: &mut Scratch) {
    let Making { coord, color, normal, .. } = made;
    match op {
        SceneOp::Centre | SceneOp::Recentre => {
            let mean = coord.mean();
            coord.push(Step::Less(mean));
        }
        SceneOp::Shift { fraction } => {
            let (min, max) = coord.bounds();
            let by = std::array::from_fn(|a| 0.5 * (min[a] + fraction[a] * (max[a] - min[a])));
            coord.push(Step::Add(by));
        }
        SceneOp::Flip { axes, translate } => flip(made, axes, *translate),
        SceneOp::Elastic { granularity, magnitude, noise } => {
            let bounds = coord.bounds();
            elastic::distort(coord.values(), bounds, (*granularity, *magnitude), noise, &mut scratch.nodes);
        }
        SceneOp::Scale { factor } => coord.push(Step::Scale(*factor)),
        SceneOp::Rotate { angles } => {
            let (matrix, about) = (matrix(angles), coord.mean().map(|m| m as f32));
            coord.push(Step::Turn { matrix, about });
            normal.iter_mut().for_each(|n| n.push(Step::Turn { matrix, about: [0.0; 3] }));
        }
        SceneOp::Jitter { offsets } => coord.push(Step::Offsets(offsets)),
        SceneOp::Colour { gain, offset, shift } => {
            let step = Step::Tint { gain: *gain, offset: *offset, shift: *shift };
            color.iter_mut().for_each(|c| c.push(step));
        }
        SceneOp::ColourJitter { offsets } => {
            color.iter_mut().for_each(|c| c.jitter(offsets, scratch));
        }
        SceneOp::ChannelDrop { drop } => {
            let gain = drop.map(|drop| if drop { 0.0 } else { 1.0 });
            color.iter_mut().for_each(|c| c.push(Step::Scale(gain)));
        }
        SceneOp::Keep { points } => made.keep(points),
        SceneOp::Crop { centre, most } => {
            let nearest = crop::nearest_in(coord.values(), *centre, *most as usize, &mut scratch.keys);
            nearest.iter().for_each(|keep| made.keep(keep));
        }
    }
}

fn flip(made: &mut Making<'_>, axes: &[bool; 3], translate: bool) {
    let (min, max) = made.coord.bounds();
    // `from + -1 * c` is `from - c`, and `-0 + 1 * c` is `c`, exactly.
    let sign = axes.map(|flipped| if flipped { -1.0 } else { 1.0 });
    let from: [f32; 3] = std::array::from_fn(|a| match (axes[a], translate) {
        (false, _) => -0.0,
        (true, true) => max[a],
        (true, false) => min[a] + max[a],
    });
    made.coord.push(Step::Mirror { sign, from });
    made.normal.iter_mut().for_each(|n| n.push(Step::Mirror { sign, from: [-0.0; 3] }));
}

/// `Rx Ry Rz` for angles about z, y, x.
pub fn matrix(angles: &[f32; 3]) -> [[f32; 3]; 3] {
    let [(sz, cz), (sy, cy), (sx, cx)] = angles.map(|a| libm::sincos(f64::from(a)));
    let rows = [
        [cy * cz, -cy * sz, sy],
        [sx * sy * cz + cx * sz, cx * cz - sx * sy * sz, -sx * cy],
        [sx * sz - cx * sy * cz, cx * sy * sz + sx * cz, cx * cy],
    ];
    rows.map(|row| row.map(|v| v as f32))
}
