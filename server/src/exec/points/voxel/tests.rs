//! Voxels against published words and a version of maps.

use super::super::union::{Chosen, Part};
use super::*;
use crate::exec::simd::Level;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn one(coord: &[[f32; 3]]) -> ([Part; 1], [Points; 1]) {
    let part = Part { slot: 0, scene: 0, chosen: Chosen::All(coord.len() as u32), angle: 0.0, instance: 0 };
    ([part], [Points { coord: coord.to_vec(), ..Points::default() }])
}

/// Voxels with everything that can be said of them.
fn whole(row: &[Part], scenes: &[Points], size: f32, pick: Pick) -> Result<Voxels, VoxelError> {
    voxels(row, scenes, &Rule { size, pick, details: true }, &mut Scratch::default())
}

#[test]
fn golden_voxels() {
    let coord = [[0.05, 0.0, 0.0], [-0.05, 0.0, 0.0], [0.09, 0.01, 0.0], [0.1, 0.0, 0.25], [-0.1, 0.0, 0.0]];
    let (row, scenes) = one(&coord);
    let made = whole(&row, &scenes, 0.1, Pick::First).expect("they fit");
    assert_eq!(made.kept, [0, 1, 3]);
    assert_eq!(made.counts, [2, 2, 1]);
    assert_eq!(made.inverse, [0, 1, 0, 2, 1]);
    // f32 0.1 / f32 0.1 is 1 exactly, and -0.1 / 0.1 is -1: borders belong to the voxel above.
    assert_eq!(made.grid, [[1, 0, 0], [0, 0, 0], [2, 0, 2]]);
}

#[test]
fn voxels_too_far_or_wide_are_refused() {
    let of = |coord: &[[f32; 3]], size| {
        let (row, scenes) = one(coord);
        whole(&row, &scenes, size, Pick::First)
    };
    let error = of(&[[0.0; 3], [0.0, 3e9, 0.0]], 1.0).expect_err("too far");
    assert_eq!(error, VoxelError::Far { axis: "y", point: 1, value: 3e9, size: 1.0 });
    assert_eq!(
        error.to_string(),
        "y of point 1 of the row is 3000000000: its voxel of size 1 does not fit 32 bits"
    );
    let wide = of(&[[0.0, 0.0, -2e9], [0.0, 0.0, 2e9]], 1.0).expect_err("too wide");
    assert_eq!(wide, VoxelError::Wide { axis: "z", voxels: 4_000_000_001, size: 1.0 });
    assert!(matches!(of(&[[0.0; 3]], 0.0), Err(VoxelError::Far { axis: "x", .. })), "0 / 0 is no voxel");
    assert_eq!(of(&[], 1.0), Ok(Voxels::default()));
    let far = of(&[[-2_147_483_648.0, 0.0, 0.0]], 1.0).expect("the last one that fits");
    assert_eq!(far.grid, [[0, 0, 0]]);
}

/// The words of the module as maps.
fn naive(coord: &[[f32; 3]], size: f32) -> (Vec<Vec<u32>>, Vec<[i64; 3]>) {
    let cell = |c: &[f32; 3]| c.map(|v| (f64::from(v) / f64::from(size)).floor() as i64);
    let mut of: BTreeMap<[i64; 3], Vec<u32>> = BTreeMap::new();
    coord.iter().enumerate().for_each(|(i, c)| of.entry(cell(c)).or_default().push(i as u32));
    let low: [i64; 3] = std::array::from_fn(|a| of.keys().map(|k| k[a]).min().unwrap_or(0));
    let mut all: Vec<_> = of.into_iter().collect();
    all.sort_by_key(|(_, points)| points[0]);
    let grid = all.iter().map(|(k, _)| std::array::from_fn(|a| k[a] - low[a])).collect();
    (all.into_iter().map(|(_, points)| points).collect(), grid)
}

#[test]
fn many_points_are_dealt_out_and_found_like_few() {
    // Four groups of the hash table; every voxel is met twice and more.
    let coord: Vec<[f32; 3]> = (0..30_000u32)
        .map(|i| [i.wrapping_mul(7919) % 97, i.wrapping_mul(104_729) % 61, i % 2].map(|v| v as f32 - 30.5))
        .collect();
    let (row, scenes) = one(&coord);
    let made = whole(&row, &scenes, 1.0, Pick::First).expect("they fit");
    let (points, grid) = naive(&coord, 1.0);
    assert_eq!(made.kept, points.iter().map(|p| p[0]).collect::<Vec<_>>());
    assert_eq!(made.counts, points.iter().map(|p| p.len() as i32).collect::<Vec<_>>());
    assert_eq!(made.grid.iter().map(|g| g.map(i64::from)).collect::<Vec<_>>(), grid);
    assert!(points.iter().enumerate().all(|(v, p)| p.iter().all(|p| made.inverse[*p as usize] == v as i32)));
    assert!(made.kept.len() > 4096 && made.counts.iter().all(|c| *c > 1), "{}", made.kept.len());
    // A key is part of a job's bytes: these never change without a new numerics number.
    let random = whole(&row, &scenes, 1.0, Pick::Random(42)).expect("they fit");
    assert_eq!(random.kept[..6], PICKED);
}
const PICKED: [u32; 6] = [23_668, 1, 2, 11_837, 23_672, 23_673];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn voxels_equal_the_naive_ones(
        coord in proptest::collection::vec(proptest::array::uniform3(-6.0f32..6.0), 0..300),
        size in prop_oneof![Just(0.1f32), Just(1.0), Just(3.0)], key in any::<u64>(),
    ) {
        let (row, scenes) = one(&coord);
        let first = whole(&row, &scenes, size, Pick::First).expect("they fit");
        let (points, grid) = naive(&coord, size);
        prop_assert_eq!(&first.kept, &points.iter().map(|p| p[0]).collect::<Vec<_>>());
        prop_assert_eq!(&first.counts, &points.iter().map(|p| p.len() as i32).collect::<Vec<_>>());
        prop_assert_eq!(first.grid.iter().map(|g| g.map(i64::from)).collect::<Vec<_>>(), grid);
        for (voxel, points) in points.iter().enumerate() {
            prop_assert!(points.iter().all(|p| first.inverse[*p as usize] == voxel as i32));
        }
        let random = whole(&row, &scenes, size, Pick::Random(key)).expect("they fit");
        prop_assert!(random.kept.iter().zip(&points).all(|(kept, points)| points.contains(kept)));
        prop_assert_eq!(Voxels { kept: first.kept.clone(), ..random }, first);
    }

    #[test]
    fn any_way_of_finding_voxels_gives_the_same(
        coord in proptest::collection::vec(proptest::array::uniform3(-40.0f32..40.0), 1..1200),
        size in prop_oneof![Just(0.25f32), Just(2.0), Just(7.0)], split in 0.0..1.0, angle in prop_oneof![Just(0.0f32), Just(0.5)],
    ) {
        let (_, scenes) = one(&coord);
        // A part that is chosen, one that may be turned, and the whole.
        let most = (split * coord.len() as f64) as u32;
        let part = |chosen, angle| Part { slot: 0, scene: 0, chosen, angle, instance: 0 };
        let mut row = vec![part(Chosen::All(most), angle), part(Chosen::All(coord.len() as u32), 0.0)];
        row.insert(1, part(Chosen::Some((0..most).step_by(3).collect()), 0.0));
        row.retain(|part| !part.is_empty());
        let Scratch { mut gathered, mut tables, mut hashes } = Scratch::default();
        let mut runs = cells::Runs { row: &row, scenes: &scenes, gathered: &mut gathered };
        let grid = grid(&mut runs, size).expect("they fit");
        let hashed = hashes.find(&mut runs, &grid).expect("they fit");
        for bits in [2, 3] {
            let plan = dense::Plan::with(&grid, bits).expect("few blocks");
            let found = tables.find(&mut runs, &grid, &plan, true).expect("they fit");
            prop_assert_eq!(&found, &hashed);
            let brief = tables.find(&mut runs, &grid, &plan, false).expect("they fit");
            prop_assert_eq!((&brief.kept, &brief.grid), (&hashed.kept, &hashed.grid));
            prop_assert!(brief.counts.is_empty() && brief.inverse.is_empty());
        }
        prop_assert_eq!(whole(&row, &scenes, size, Pick::First), Ok(hashed));
    }

    #[test]
    fn cells_are_those_of_floor_at_every_level(
        places in proptest::collection::vec(proptest::array::uniform3(
            prop_oneof![-300.0f32..300.0, -2.2e9f32..2.2e9, (-40i32..40).prop_map(|i| i as f32 * 0.05), Just(-0.0f32)],
        ), 0..cells::RUN),
        size in prop_oneof![Just(0.05f32), Just(1.0), Just(0.3)], bits in 0u32..4,
    ) {
        let grid = Grid { side: f64::from(size), low: [-7, 0, 11], sides: [1 << 31; 3] };
        let blocks = Blocks { bits, sides: [3, 5] };
        let exact = |v: f32| (f64::from(v) / f64::from(size)).floor();
        let fit = places.as_flattened().iter().all(|v| (-2_147_483_648.0..2_147_483_648.0).contains(&exact(*v)));
        for level in Level::all() {
            let (mut cells, mut bounds) = (Cells::default(), [super::super::lanes::Bounds::default(); 3]);
            prop_assert_eq!(level.cells(&places, &grid, blocks, &mut cells), fit);
            level.widen(&mut bounds, &places);
            for (i, place) in places.iter().enumerate() {
                prop_assert_eq!(cell(*place, grid.side).is_some(), place.iter().all(|v| exact(*v).abs() < 2_147_483_647.0));
                if !fit { continue; }
                let own: [i32; 3] = std::array::from_fn(|a| (exact(place[a]) as i32).wrapping_sub(grid.low[a]));
                prop_assert_eq!(cells.at(i), own);
                let [x, y, z] = own.map(|c| c as u32);
                let block = ((x >> bits).wrapping_mul(3).wrapping_add(y >> bits)).wrapping_mul(5).wrapping_add(z >> bits);
                let inside = own.map(|c| c as u32 % (1 << bits));
                prop_assert_eq!(cells.block[i], block);
                prop_assert_eq!(cells.place[i], (inside[0] << bits | inside[1]) << bits | inside[2]);
            }
            for (axis, bounds) in bounds.iter().enumerate().filter(|_| !places.is_empty()) {
                let all = || places.iter().map(|place| place[axis]);
                prop_assert_eq!(bounds.low(), all().fold(f32::INFINITY, f32::min));
                prop_assert_eq!(bounds.high(), all().fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }

    #[test]
    fn majorities_equal_the_naive_ones(
        points in proptest::collection::vec((0u8..6, -1i32..4), 0..200),
    ) {
        let coord: Vec<[f32; 3]> = points.iter().map(|p| [f32::from(p.0), 0.5, 0.5]).collect();
        let (row, mut scenes) = one(&coord);
        let mut made = whole(&row, &scenes, 1.0, Pick::First).expect("they fit");
        made.majority(&row, &scenes);
        prop_assert!(made.segment.is_none() || points.is_empty(), "without classes there is no majority");
        scenes[0].segment = Some(points.iter().map(|p| p.1).collect());
        made.majority(&row, &scenes);
        for (voxel, class) in made.segment.expect("just made").into_iter().enumerate() {
            let own = points[made.kept[voxel] as usize].0;
            let mut times: BTreeMap<i32, i32> = BTreeMap::new();
            points.iter().filter(|p| p.0 == own).for_each(|p| *times.entry(p.1).or_default() += 1);
            let most = times.values().max().copied();
            prop_assert_eq!(Some(class), times.into_iter().find(|t| Some(t.1) == most).map(|t| t.0));
        }
    }
}
