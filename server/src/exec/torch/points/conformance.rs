//! libtorch against the CPU executor: scenes that the CPU transformed, bit for bit.
//!
//! As [`crate::exec::torch::conformance`], these run on libtorch's CPU or on the device of the environment.

#![allow(clippy::unwrap_used)]

use super::super::conformance::TORCH;
use crate::exec::device::{DeviceError, RowMade, SceneInput, Scenes, VoxelWish};
use crate::exec::points::columns::{self, Feature};
use crate::exec::points::tests::{plan, planned, rule};
use crate::exec::points::union::{self, Part, len};
use crate::exec::points::voxel::{self, Pick, Rule};
use crate::exec::points::{Colors, Points, Scratch, Table, budget, transform};
use crate::plan::block::{Granularity, Pairing};
use crate::plan::{Op, Row};
use crate::rng::{Draw, Rng, Stream};
use proptest::prelude::*;

/// Columns of a block, one after the other, and what its rows were made of.
pub type Made = (Vec<u8>, Vec<RowMade>);

pub fn rng(seed: u64) -> Rng {
    Stream::new(seed, "scenes").at(Draw::Order, 0, 0)
}

/// What the CPU makes of a block.
pub fn by_cpu(rows: &[Row], block: &Scenes) -> Made {
    let scenes: Vec<Points> = block.scenes.iter().map(transformed).collect();
    let mut parts: Vec<Vec<Part>> = rows.iter().map(|row| union::row(row, &scenes).unwrap()).collect();
    let united: Vec<u64> = parts.iter().map(|row| len(row) as u64).collect();
    budget::thin(&mut parts, &scenes, block.share, &block.centres);
    let voxels = block.voxels.as_ref().map(|wish| {
        let details = wish.inverse || wish.count || wish.majority;
        let found = parts.iter().zip(&wish.picks).map(|(row, pick)| {
            let rule = Rule { size: wish.size, pick: *pick, details };
            let mut found = voxel::voxels(row, &scenes, &rule, &mut voxel::Scratch::default()).unwrap();
            if wish.majority {
                found.majority(row, &scenes);
            }
            found
        });
        found.collect::<Vec<_>>()
    });
    let fact = |(at, row): (usize, &Vec<Part>)| {
        let mut made = RowMade { united: united[at], inverse: len(row) as u64, ..RowMade::default() };
        made.points = columns::served(row, voxels.as_ref().map(|v| &v[at])) as u64;
        for part in row {
            match made.scenes.iter_mut().find(|(slot, _)| *slot == part.slot) {
                Some((_, points)) => *points += part.len() as u64,
                None => made.scenes.push((part.slot, part.len() as u64)),
            }
        }
        made
    };
    let made: Vec<RowMade> = parts.iter().enumerate().map(fact).collect();
    let layout = layout(block, &made);
    let mut out = vec![0; layout.end];
    let (columns, classes) = block.columns(&layout, &mut out);
    columns::write(&parts, voxels.as_deref(), &scenes, &block.features, columns).unwrap();
    if let Some(classes) = classes {
        let class = |part: &Part, n: u32| scenes[part.slot as usize].segment.as_ref().unwrap()[n as usize];
        let all = parts.iter().flatten().flat_map(|part| part.numbers().map(move |n| class(part, n)));
        classes
            .chunks_exact_mut(4)
            .zip(all)
            .for_each(|(out, class)| out.copy_from_slice(&class.to_le_bytes()));
    }
    (out, made)
}

/// A scene as the CPU transforms it.
pub fn transformed(input: &SceneInput) -> Points {
    match input {
        SceneInput::Made(points) => points.clone(),
        SceneInput::Stored { scene, measured, ops } => {
            transform(scene.clone(), measured, ops, &mut Scratch::default()).0
        }
    }
}

fn layout(block: &Scenes, made: &[RowMade]) -> crate::exec::device::Layout {
    let sum = |of: fn(&RowMade) -> u64| made.iter().map(of).sum::<u64>() as usize;
    block.layout(sum(|row| row.points), sum(|row| row.inverse))
}

/// What the device makes of a block, in a buffer that is too large.
pub fn by_device(rows: &[Row], block: &Scenes) -> Result<Made, DeviceError> {
    let most = block.share.min(1 << 13);
    let mut out = vec![0xa5; block.layout(most, most).end + 7];
    let made = TORCH.with_borrow_mut(|torch| torch.make_scenes(rows, block, &mut out))?;
    let end = layout(block, &made).end;
    assert!(out[end..].iter().all(|byte| *byte == 0xa5), "bytes behind the columns are written");
    out.truncate(end);
    Ok((out, made))
}

fn same(rows: &[Row], block: &Scenes) {
    let (want, facts) = by_cpu(rows, block);
    let (got, made) = by_device(rows, block).unwrap();
    assert_eq!(made, facts, "{rows:?}");
    let names = ["coord", "feat", "segment", "instance", "scene", "grid", "count", "inverse", "class"];
    let voxels = block.voxels.as_ref();
    let has = |name: &&&str| match **name {
        "feat" => !block.features.is_empty(),
        "grid" => voxels.is_some(),
        "count" => voxels.is_some_and(|v| v.count),
        "inverse" | "class" => voxels.is_some_and(|v| v.inverse),
        _ => true,
    };
    for (name, range) in names.iter().filter(has).zip(layout(block, &made).sent) {
        assert!(got[range.clone()] == want[range], "{name} of {rows:?}, voxels {voxels:?}");
    }
}

/// A scene of `n` points: anywhere, on the corners of voxels, or on a few directions.
pub fn made(n: usize, seed: u64) -> Points {
    let mut rng = rng(seed);
    let kind = rng.below(3);
    let coord = |rng: &mut Rng| {
        let [x, y, z] = [0; 3].map(|_| rng.range(-5.0, 5.0) as f32);
        match kind {
            0 => [x, y, z],
            1 => [x, y, z].map(|v| v.round() * 0.5),
            _ => [x.signum() * (y > 0.0) as u8 as f32, x.signum() * (y <= 0.0) as u8 as f32, z.round()],
        }
    };
    let color = match rng.chance(0.5) {
        true => Colors::Each((0..n).map(|_| [0; 3].map(|_| rng.range(0.0, 255.0) as f32)).collect()),
        false => {
            let mut table: Table = [[0.0; 3]; 256];
            table.iter_mut().for_each(|v| *v = [0; 3].map(|_| rng.range(0.0, 255.0) as f32));
            Colors::Stored((0..n).map(|_| [0; 3].map(|_| rng.below(256) as u8)).collect(), Box::new(table))
        }
    };
    Points {
        coord: (0..n).map(|_| coord(&mut rng)).collect(),
        color: Some(color),
        normal: Some((0..n).map(|_| [0; 3].map(|_| rng.range(-1.0, 1.0) as f32)).collect()),
        intensity: Some((0..n).map(|_| rng.uniform() as f32).collect()),
        segment: Some((0..n).map(|_| rng.below(6) as i32 - 1).collect()),
        instance: rng.chance(0.7).then(|| (0..n).map(|_| rng.below(5) as i32 - 2).collect()),
        extent: None,
    }
}

pub const FEATURES: [Feature; 6] = [
    Feature::Coord,
    Feature::Color(None),
    Feature::Color(Some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))),
    Feature::Normal,
    Feature::Intensity,
    Feature::Distance,
];

/// A block of scenes with all features, no budget and no voxels.
pub fn block(scenes: Vec<SceneInput>) -> Scenes {
    let centres = (0..scenes.len()).map(|slot| slot as f64 * 0.37 % 1.0).collect();
    Scenes { scenes, share: 1 << 20, centres, voxels: None, features: FEATURES.to_vec() }
}

pub fn wish(rows: usize, size: f32) -> VoxelWish {
    let picks = (0..rows).map(|_| Pick::First).collect();
    VoxelWish { size, picks, inverse: false, count: false, majority: false, far: size * (1 << 30) as f32 }
}

fn blocks(sizes: &[usize], seed: u64) -> Scenes {
    block(sizes.iter().zip(seed..).map(|(n, seed)| SceneInput::Made(made(*n, seed))).collect())
}

prop_compose! {
    fn any_wish()(
        size in prop_oneof![Just(0.5f32), 0.01f32..3.0, Just(1e-7f32)],
        keys: [u64; 8], random: [bool; 8], details: [bool; 3],
    ) -> VoxelWish {
        let pick = |(key, random): (u64, bool)| if random { Pick::Random(key) } else { Pick::First };
        let [inverse, count, majority] = details;
        let picks = keys.into_iter().zip(random).map(pick).collect();
        VoxelWish { picks, inverse, count, majority, ..wish(0, size) }
    }
}

fn any_op(slots: u32) -> impl Strategy<Value = Op> {
    let angle = prop_oneof![Just(0.0f32), -3.2f32..3.2];
    let edges = prop::collection::vec(prop_oneof![Just(0.0f32), -1.5f32..1.5], 0..5);
    prop_oneof![
        prop::collection::vec(0..slots, 1..4).prop_map(|scenes| Op::Union { scenes }),
        (0..slots, prop_oneof![Just(0.0f32), -3.2f32..3.2], 0.0f32..6.3)
            .prop_map(|(src, from, width)| Op::Sectors { src, from, to: from + width }),
        (0..slots, prop::collection::btree_set(-1i32..6, 0..4), prop::collection::vec(angle, 1..4)).prop_map(
            |(src, classes, angles)| Op::Instances { src, classes: classes.into_iter().collect(), angles }
        ),
        (0..slots, edges, any::<bool>()).prop_map(|(src, mut edges, odd)| {
            edges.sort_by(f32::total_cmp);
            Op::Bands { src, edges: edges.into(), odd }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_plan_of_made_scenes_has_the_bits_of_the_cpu(
        sizes in prop::collection::vec(prop_oneof![Just(1usize), 1usize..80], 4),
        seed: u64,
        ops in prop::collection::vec((0u32..4, prop::collection::vec(any_op(4), 0..4)), 1..6),
        voxels in prop::option::of(any_wish()),
        budget in prop::option::of(0usize..120),
        features in prop::sample::subsequence(FEATURES.to_vec(), 0..=6),
    ) {
        let rows: Vec<Row> = ops.into_iter().map(|(base, ops)| planned(base, ops)).collect();
        let mut block = Scenes { features, voxels, ..blocks(&sizes, seed >> 8) };
        if let Some(extra) = budget {
            let scenes: Vec<Points> = block.scenes.iter().map(transformed).collect();
            let parts = rows.iter().map(|row| union::row(row, &scenes).unwrap().len()).sum::<usize>();
            block.share = parts + extra;
        }
        same(&rows, &block);
    }

    #[test]
    fn every_policy_has_the_bits_of_the_cpu(
        which in 0usize..3, pair: bool, step in 0u64..1000, seed: u32, n in 1usize..9,
        voxels in prop::option::of(any_wish()),
        budget in prop::option::of(100usize..400),
    ) {
        let policy = ["lasermix", "mix3d", "polarmix"][which];
        let granularity = if pair { Granularity::Pair } else { Granularity::Elem };
        let drawn = rule(policy, &[], granularity, Pairing::Roll1);
        let plan = plan(&drawn, step, n);
        let sizes: Vec<usize> = (0..n).map(|i| 1 + i * 37 % 90).collect();
        let share = budget.unwrap_or(1 << 20);
        same(&plan.rows, &Scenes { voxels, share, ..blocks(&sizes, seed.into()) });
    }
}

#[test]
fn scenes_without_instances_and_rows_of_which_nothing_is_left() {
    let mut block = blocks(&[9, 5, 1], 70);
    for scene in &mut block.scenes {
        let SceneInput::Made(points) = scene else { panic!("made") };
        points.instance = None;
        points.coord.iter_mut().for_each(|c| *c = [1.0, 1.0, c[2]]);
    }
    let empty = |src| Op::Sectors { src, from: 0.0, to: 1.0 };
    let away = Op::Bands { src: 2, edges: [].into(), odd: true };
    let rows = [
        planned(0, vec![empty(1), Op::Sectors { src: 2, from: 2.0, to: 3.0 }]),
        planned(1, vec![empty(2), empty(2)]),
        planned(2, vec![Op::Instances { src: 1, classes: [77].into(), angles: vec![0.0, 1.0] }, away]),
    ];
    same(&rows, &block);
    // One scene has ids: those of the others stay -1, and the base comes back with its own.
    let SceneInput::Made(points) = &mut block.scenes[0] else { panic!("made") };
    points.instance = Some((0..9).collect());
    points.coord.iter_mut().for_each(|c| *c = [1.0, 1.0, 0.0]);
    let nowhere = Op::Sectors { src: 1, from: 0.0, to: 1.0 };
    let SceneInput::Made(points) = &mut block.scenes[1] else { panic!("made") };
    points.coord.iter_mut().for_each(|c| *c = [-1.0, 1.0, 0.0]);
    let rows = [planned(0, vec![nowhere]), planned(0, vec![Op::Union { scenes: vec![1, 0, 2, 0] }])];
    let (_, facts) = by_cpu(&rows, &block);
    assert_eq!(facts[0].scenes, [(0, 9)], "nothing is left, so all of the base");
    same(&rows, &block);
}

#[test]
fn boxes_with_more_places_than_numbers() {
    let mut block = blocks(&[300, 200], 3);
    for (scene, by) in block.scenes.iter_mut().zip([1.9e8f32, 1.1e8]) {
        let SceneInput::Made(points) = scene else { panic!("made") };
        points.coord.iter_mut().flatten().for_each(|v| *v = (*v * 8.0).round() * by / 16.0);
    }
    let rows = [planned(0, vec![Op::Union { scenes: vec![1] }]), planned(1, vec![])];
    for inverse in [false, true] {
        let picks = vec![Pick::Random(7), Pick::First];
        block.voxels = Some(VoxelWish { picks, inverse, count: true, majority: true, ..wish(2, 1.0) });
        same(&rows, &block);
    }
}

#[test]
fn one_point() {
    let mut block = blocks(&[1], 11);
    same(&[planned(0, vec![])], &block);
    block.voxels = Some(VoxelWish { count: true, inverse: true, majority: true, ..wish(1, 0.1) });
    same(&[planned(0, vec![])], &block);
    assert_eq!(by_device(&[], &block).unwrap(), (vec![], vec![]));
}

#[test]
fn what_does_not_fit_is_told_and_what_the_cpu_refuses_is_left_to_it() {
    let union = |slot| vec![Op::Union { scenes: vec![slot] }];
    let answer = |rows: &[Row], block: &Scenes| by_device(rows, block).unwrap_err();
    let fine = || blocks(&[4, 5], 21);
    let rows = [planned(0, vec![]), planned(1, union(0))];
    let misfit = |row| DeviceError::Misfit { row };
    for bad in [
        planned(2, vec![]),
        planned(0, union(2)),
        planned(0, vec![Op::Bands { src: 9, edges: [].into(), odd: true }]),
    ] {
        assert_eq!(answer(&[rows[0].clone(), bad], &fine()), misfit(1));
    }
    assert_eq!(answer(&rows, &Scenes { share: 2, ..fine() }), misfit(1), "three parts");
    assert_eq!(answer(&rows, &Scenes { centres: vec![0.5], ..fine() }), misfit(1));
    assert_eq!(answer(&rows, &Scenes { voxels: Some(wish(1, 1.0)), ..fine() }), misfit(1));
    let with = |slot: usize, change: fn(&mut Points)| {
        let mut block = fine();
        let SceneInput::Made(points) = &mut block.scenes[slot] else { panic!("made") };
        change(points);
        block
    };
    assert_eq!(answer(&rows, &with(1, |p| p.segment = Some(vec![0]))), misfit(1));
    let refused = |slot| DeviceError::Refused { slot };
    let lacking: [fn(&mut Points); 5] = [
        |p| p.segment = None,
        |p| p.color = None,
        |p| p.normal = None,
        |p| p.intensity = None,
        |p| *p = Points { segment: Some(vec![]), ..Points::default() },
    ];
    for lacks in lacking {
        assert_eq!(answer(&rows, &with(1, lacks)), refused(1));
    }
    let mut most = with(0, |p| p.instance = Some(vec![i32::MAX; 4]));
    let SceneInput::Made(points) = &mut most.scenes[1] else { panic!("made") };
    points.instance = Some(vec![0; 5]);
    assert_eq!(answer(&rows[1..], &most), refused(0), "ids of both together");
    most.voxels = Some(wish(1, 0.0));
    assert_eq!(answer(&rows[..1], &most), refused(0), "voxels of no size");
    let mut far = with(1, |p| p.coord[2][1] = 3e9);
    far.voxels = Some(wish(2, 1.0));
    assert_eq!(answer(&rows, &far), refused(1));
    let mut wide = with(1, |p| (p.coord[0][0], p.coord[1][0]) = (-2e9, 2e9));
    wide.voxels = Some(wish(2, 1.0));
    assert_eq!(answer(&rows, &wide), refused(1));
    let mut short = [0; 3];
    let made = TORCH.with_borrow_mut(|torch| torch.make_scenes(&rows, &fine(), &mut short));
    assert!(matches!(made, Err(DeviceError::Failed(_))), "{made:?}");
    same(&rows, &fine());
}
