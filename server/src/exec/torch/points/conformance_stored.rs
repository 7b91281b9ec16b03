//! libtorch against the CPU executor: scenes that are transformed on the device.
//!
//! Coordinates may differ by [`ULPS`] units of the last place of the largest number on their way; what is not decided by a
//! mean is equal, and what is made of the coordinates is what the CPU makes of the same ones.

#![allow(clippy::unwrap_used)]

use super::conformance::{FEATURES, block, by_cpu, by_device, rng, transformed, wish};
use crate::cloud::Scene;
use crate::exec::device::{DeviceError, SceneInput, Scenes, VoxelWish};
use crate::exec::points::columns::Feature;
use crate::exec::points::tests::{plan, planned, rule};
use crate::exec::points::voxel::Pick;
use crate::exec::points::{Measured, Points, Scratch, apply_cut};
use crate::plan::block::{Granularity, Pairing};
use crate::plan::scene::{ClippedNormal, Lattice, SceneOp, SceneRule, cut, draw};
use crate::plan::{Op, Row};
use crate::rng::Stream;
use proptest::prelude::*;
use std::sync::Arc;

/// See the module.
const ULPS: f32 = 4.0;

/// A scene of `n` points around `origin`, with every attribute.
fn scene(n: usize, size: f64, origin: f64, seed: u64) -> Scene {
    let mut rng = rng(seed);
    Scene {
        coord: (0..n).map(|_| [0; 3].map(|_| origin + rng.range(-size, size))).collect(),
        color: Some((0..n).map(|_| [0; 3].map(|_| rng.below(256) as u8)).collect()),
        normal: Some((0..n).map(|_| [0; 3].map(|_| rng.range(-1.0, 1.0) as f32)).collect()),
        intensity: Some((0..n).map(|_| rng.uniform() as f32).collect()),
        segment: Some((0..n).map(|_| rng.below(6) as i32).collect()),
        instance: rng.chance(0.7).then(|| (0..n).map(|_| rng.below(5) as i32 - 1).collect()),
    }
}

fn stored(scene: Scene, ops: Vec<SceneOp>) -> SceneInput {
    let measured = Measured::of(&scene.coord);
    SceneInput::Stored { scene, measured, ops }
}

/// What `rule` draws for the scene, cut.
fn drawn(mut scene: Scene, rule: &SceneRule, step: u64, slot: u64) -> SceneInput {
    let stream = Stream::new(3, "scene");
    let cuts = cut(rule, scene.len() as u32, &stream, step, slot);
    apply_cut(&mut scene, &cuts, &mut Scratch::default());
    let measured = Measured::of(&scene.coord);
    let ops = draw(rule, &measured.shape, &stream, step, slot).unwrap();
    SceneInput::Stored { scene, measured, ops }
}

/// A block as it stands, row by row.
fn alone(scenes: Vec<SceneInput>) -> (Vec<Row>, Scenes) {
    let rows = (0..scenes.len() as u32).map(|slot| planned(slot, vec![])).collect();
    let features = vec![Feature::Color(None), Feature::Normal, Feature::Intensity];
    (rows, Scenes { features, ..block(scenes) })
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The coordinates that the device gives each scene.
fn coords(scenes: Vec<SceneInput>) -> (Vec<Vec<[f32; 3]>>, Vec<SceneInput>) {
    let (rows, block) = alone(scenes);
    let (out, made) = by_device(&rows, &block).unwrap();
    let points: usize = made.iter().map(|row| row.points as usize).sum();
    let all = floats(&out[..12 * points]);
    let mut left = all.as_chunks::<3>().0;
    let mut own = |n: u64| left.split_off(..n as usize).unwrap().to_vec();
    (made.iter().map(|row| own(row.points)).collect(), block.scenes)
}

/// Largest absolute coordinate of a scene at any time, once it was centred.
fn largest(input: &SceneInput) -> f32 {
    let SceneInput::Stored { scene, measured, ops } = input else { return 0.0 };
    let first = usize::from(matches!(ops[..], [SceneOp::Centre, ..]));
    let at = |end: usize| {
        let ops = ops[..end].to_vec();
        let points = transformed(&SceneInput::Stored { scene: scene.clone(), measured: *measured, ops });
        points.coord.as_flattened().iter().fold(0.0, |far: f32, v| far.max(v.abs()))
    };
    (first..=ops.len()).map(at).fold(0.0, f32::max)
}

/// Checks a block of stored scenes on their own; `exact`: no mean decides.
fn near(scenes: Vec<SceneInput>, exact: bool) {
    let (rows, block) = alone(scenes);
    let ((got, made), (want, facts)) = (by_device(&rows, &block).unwrap(), by_cpu(&rows, &block));
    assert_eq!(made, facts);
    let points: usize = made.iter().map(|row| row.points as usize).sum();
    let (coord, feat) = (12 * points, (12 + 28) * points);
    assert_eq!(floats(&got[coord..feat]), floats(&want[coord..feat]), "features are computed point by point");
    assert!(got[feat..] == want[feat..], "integers");
    let (got, want) = (floats(&got[..coord]), floats(&want[..coord]));
    let mut at = 0;
    for (row, input) in made.iter().zip(&block.scenes) {
        let tolerance = if exact { 0.0 } else { ULPS * f32::EPSILON * largest(input) };
        for i in at..at + 3 * row.points as usize {
            let apart = (got[i] - want[i]).abs();
            let ops = match input {
                SceneInput::Stored { ops, .. } => {
                    ops.iter().map(|op| format!("{op:.40?}")).collect::<Vec<_>>()
                }
                SceneInput::Made(_) => vec![],
            };
            assert!(
                apart <= tolerance,
                "{} is {}, want {} within {tolerance}: {ops:?}",
                i - at,
                got[i],
                want[i]
            );
        }
        at += 3 * row.points as usize;
    }
}

fn elastic(granularity: f32, magnitude: f32, dims: [u32; 3]) -> SceneOp {
    let mut noise = vec![0.0; 3 * dims.iter().product::<u32>() as usize + 5];
    rng(dims[0].into()).normals(&mut noise);
    SceneOp::Elastic { granularity, magnitude, noise: Arc::new(Lattice { dims, noise }) }
}

/// Every op that changes something, and whether no mean decides it.
fn every_op(n: usize) -> Vec<(SceneOp, bool)> {
    let offsets: Arc<[[f32; 3]]> = (0..n).map(|i| [i as f32 * 0.01, -0.5, 7.0 - i as f32]).collect();
    let flip = |axes, translate| SceneOp::Flip { axes, translate };
    vec![
        (SceneOp::Centre, true),
        (SceneOp::Shift { fraction: [0.1, 0.9, 0.5] }, true),
        (flip([true, false, false], false), true),
        (flip([true, true, true], false), true),
        (flip([false, true, false], true), true),
        // Enough nodes, more than enough, too few along each axis.
        (elastic(0.7, 1.5, [20, 20, 20]), true),
        (elastic(3.0, -2.0, [3, 9, 40]), true),
        (elastic(1.0, 40.0, [3, 3, 3]), true),
        (elastic(1e9, 1.0, [3, 4, 5]), true),
        (elastic(1.0, 0.0, [3, 4, 5]), true),
        (SceneOp::Scale { factor: [0.9, -1.1, 3.0] }, true),
        (SceneOp::Rotate { angles: [1.0, 0.2, -0.3] }, false),
        (SceneOp::Recentre, false),
        (SceneOp::Jitter { offsets: offsets.clone() }, true),
        (SceneOp::Colour { gain: 1.2, offset: -20.0, shift: [3.0, 0.0, -20.0] }, true),
        (SceneOp::ColourJitter { offsets }, true),
        (SceneOp::ChannelDrop { drop: [true, false, true] }, true),
    ]
}

#[test]
fn every_op_by_itself_and_beside_scenes_without_it() {
    for (op, exact) in every_op(61) {
        let alone = |centre: bool, seed| {
            let ops = if centre { vec![SceneOp::Centre, op.clone()] } else { vec![op.clone()] };
            stored(scene(61, 4.0, 2.5, seed), ops)
        };
        near(vec![alone(true, 1), alone(true, 2)], exact);
        let other = stored(scene(33, 9.0, -1.0, 5), vec![SceneOp::Scale { factor: [2.0; 3] }]);
        near(vec![other, alone(false, 3), stored(scene(1, 1.0, 8.0, 6), vec![]), alone(true, 4)], exact);
    }
}

#[test]
fn one_point_by_every_op() {
    for (op, _) in every_op(1) {
        near(vec![stored(scene(1, 4.0, 3.0, 9), vec![SceneOp::Centre, op.clone()])], true);
        near(vec![stored(scene(1, 4.0, 3.0, 9), vec![op])], false);
    }
}

#[test]
fn points_on_nodes_and_beyond_the_last_one() {
    let coord = (0..60).map(|i| [0.2 * f64::from(i), f64::from(i % 7), f64::from(i / 7)]).collect();
    let on = Scene { coord, ..scene(60, 1.0, 0.0, 4) };
    for granularity in [0.1f32, 0.2, 0.3, 0.7, 1.0] {
        near(vec![stored(on.clone(), vec![elastic(granularity, 1.0, [64, 8, 5])])], true);
    }
}

#[test]
fn cuts_after_the_measure_and_faults_of_a_plan() {
    let answer = |op: SceneOp| {
        let scenes = vec![stored(scene(5, 1.0, 0.0, 1), vec![]), stored(scene(7, 1.0, 0.0, 2), vec![op])];
        let (rows, block) = alone(scenes);
        by_device(&rows, &block).unwrap_err()
    };
    let (refused, misfit) = (DeviceError::Refused { slot: 1 }, DeviceError::Misfit { row: 1 });
    assert_eq!(answer(SceneOp::Keep { points: [0, 1].into() }), refused);
    assert_eq!(answer(SceneOp::Crop { centre: 0.5, most: 3 }), refused);
    assert_eq!(answer(SceneOp::Jitter { offsets: vec![[0.0; 3]; 6].into() }), misfit);
    assert_eq!(answer(SceneOp::ColourJitter { offsets: vec![[0.0; 3]; 8].into() }), misfit);
    for (dims, noise) in [([2, 3, 3], 54), ([3, 3, 3], 80), ([1 << 31, 1 << 31, 1 << 31], 81)] {
        let noise = Arc::new(Lattice { dims, noise: vec![0.0; noise] });
        assert_eq!(answer(SceneOp::Elastic { granularity: 1.0, magnitude: 1.0, noise }), misfit);
    }
}

#[test]
fn a_scene_too_far_for_its_voxels_is_the_cpus() {
    let scenes = || vec![stored(scene(5, 1.0, 0.0, 1), vec![]), stored(scene(9, 1.0, 99.0, 2), vec![])];
    let (rows, mut block) = alone(scenes());
    block.voxels = Some(VoxelWish { far: 98.0, ..wish(2, 1.0) });
    assert_eq!(by_device(&rows, &block), Err(DeviceError::Refused { slot: 1 }));
    block.voxels = Some(VoxelWish { far: 101.0, ..wish(2, 1.0) });
    assert!(by_device(&rows, &block).is_ok());
    block.voxels = None;
    assert!(by_device(&rows, &block).is_ok());
}

prop_compose! {
    fn any_rule()(
        switches: [bool; 4],
        elastic in prop::collection::vec((0.8f64..3.0, 0.0..2.0), 0..3),
        scale in (0.5..1.0, 1.0..2.0),
        rotate in (-3.0..0.0, 0.0..3.0),
        noise in prop::option::of(0.0..2.0),
        colours in (0.0..0.9, 0.0..0.9, 0u32..60),
        drop in (0.0..=1.0, prop::option::of(1u32..90)),
    ) -> SceneRule {
        let [centre, shift, flip_translates, keep_offset] = switches;
        let noise = noise.map(|sigma| ClippedNormal { sigma, clip: 2.0 * sigma });
        SceneRule {
            centre, shift, flip_translates, keep_offset, flip: [0.5; 2], elastic, elastic_p: 0.8, scale, rotate,
            tilt: (-0.2, 0.2), jitter: noise, colour_jitter: noise, brightness: colours.0, contrast: colours.1,
            colour_shift: colours.2, channel_drop: 0.3, dropout: 0.5, dropout_fraction: drop.0, max_points: drop.1,
            ..SceneRule::still()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn scenes_of_any_rule_are_as_near_as_stated_and_no_one_depends_on_another(
        rule in any_rule(), sizes in prop::collection::vec(1usize..150, 1..5), size in 0.1f64..5.0,
        origin in prop_oneof![Just(0.0), Just(300.0), Just(5_123_456.7)], step: u64, seed: u32,
    ) {
        let own = |(slot, n): (usize, &usize)| {
            drawn(scene(*n, size, origin, u64::from(seed) + slot as u64), &rule, step, slot as u64)
        };
        let scenes = || sizes.iter().enumerate().map(own).collect::<Vec<_>>();
        near(scenes(), false);
        let (together, _) = coords(scenes());
        for (one, together) in scenes().into_iter().zip(together) {
            prop_assert_eq!(&coords(vec![one]).0[0], &together);
        }
    }

    #[test]
    fn what_is_made_of_transformed_scenes_is_what_the_cpu_makes_of_the_same_coordinates(
        scenes in any_rule(), which in 0usize..3, step in 0u64..1000, n in 1usize..6, seed: u32, size in 0.05f32..2.0,
        flags: [bool; 4], key: u64, budget in prop::option::of(60usize..300),
    ) {
        let policy = ["lasermix", "mix3d", "polarmix"][which];
        let rows = plan(&rule(policy, &[], Granularity::Elem, Pairing::Roll1), step, n).rows;
        let own = |slot: usize| drawn(scene(1 + slot * 53 % 97, 3.0, 0.0, u64::from(seed) + slot as u64), &scenes, step, slot as u64);
        let (coords, stored) = coords((0..n).map(own).collect());
        let made = |(coord, input): (Vec<[f32; 3]>, &SceneInput)| {
            SceneInput::Made(Points { coord, extent: None, ..transformed(input) })
        };
        let mut made = block(coords.into_iter().zip(&stored).map(made).collect());
        let [voxels, inverse, count, majority] = flags;
        let picks = (0..n as u64).map(|row| if row % 3 == 0 { Pick::First } else { Pick::Random(key ^ row) });
        made.voxels = voxels.then(|| VoxelWish { picks: picks.collect(), inverse, count, majority, ..wish(0, size) });
        made.share = budget.unwrap_or(made.share);
        made.features = FEATURES.to_vec();
        let want = by_cpu(&rows, &made);
        prop_assert!(by_device(&rows, &made).unwrap() == want, "made");
        made.scenes = stored;
        prop_assert!(by_device(&rows, &made).unwrap() == want, "stored");
    }
}

#[test]
fn stored_and_made_scenes_in_one_block() {
    let ops = vec![SceneOp::Centre, SceneOp::Scale { factor: [1.5; 3] }];
    let input = |slot: u64| stored(scene(20 + slot as usize, 3.0, 1.0, slot), ops.clone());
    let kept = |slot: u64| SceneInput::Made(transformed(&input(slot)));
    let rows =
        [planned(0, vec![Op::Union { scenes: vec![1, 2, 3] }]), planned(3, vec![]), planned(2, vec![])];
    let want = by_cpu(&rows, &block(vec![input(0), input(1), input(2), input(3)]));
    for scenes in [
        vec![kept(0), input(1), kept(2), input(3)],
        vec![input(0), input(1), kept(2), kept(3)],
        vec![kept(0), kept(1), kept(2), kept(3)],
        vec![input(0), input(1), input(2), input(3)],
    ] {
        assert!(by_device(&rows, &block(scenes)).unwrap() == want);
    }
}
