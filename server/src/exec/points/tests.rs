//! Rows of points from plan to bytes: published vectors, and properties against slow and plain versions.

use super::budget::thin;
use super::columns::{self, Columns, Feature, Missing};
use super::union::{Chosen, Part, Sector, UnionError, len, row, rows};
use super::voxel::Voxels;
use super::*;
use crate::plan::block::{self, Granularity, Member, MixRule, Pairing, Place};
use crate::plan::{Args, Op, Plan, Row, fields::Bank, points};
use crate::rng::Stream;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A scene of `n` points on a helix of its own, with every attribute.
pub fn scene(n: usize, seed: u32) -> Points {
    let at = |i: usize| {
        let a = i as f32 * 0.7 + seed as f32;
        [a.sin() * 5.0, a.cos() * 5.0, (i % 7) as f32 - 3.0]
    };
    let of = |k: i32| (0..n as i32).map(|i| (i * k + seed as i32) % 5).collect::<Vec<_>>();
    Points {
        coord: (0..n).map(at).collect(),
        color: Some(Colors::Each((0..n).map(|i| [i as f32 % 256.0, seed as f32 % 256.0, 255.0]).collect())),
        normal: Some((0..n).map(|i| [0.0, (i % 3) as f32, 1.0]).collect()),
        intensity: Some((0..n).map(|i| i as f32 / 8.0).collect()),
        segment: Some(of(1)),
        instance: Some(of(2).into_iter().map(|i| i - 1).collect()),
        extent: None,
    }
}

pub fn planned(base: u32, ops: Vec<Op>) -> Row {
    Row { base, partner: base, ops, policy: Some(0), sampled: 1.0, own: 1.0, flags: 0 }
}

pub fn rule(policy: &str, numbers: &[(&str, f64)], granularity: Granularity, pairing: Pairing) -> MixRule {
    let policy = points::by_name(policy).expect("registered");
    let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
    let args = Args::resolve(&policy.declared(), &numbers, &BTreeMap::new()).expect("legal");
    MixRule {
        members: vec![Member { policy, args, share: 1.0 }],
        granularity,
        pairing,
        choose_per_row: false,
        gate: 1.0,
        clean: 0.0,
        warmup: None,
        off_after: None,
    }
}

pub fn plan(rule: &MixRule, step: u64, n: usize) -> Plan {
    let (stream, fields) = (Stream::new(11, "mix"), Bank::new(11, 1, 1));
    let place = Place { stream: &stream, fields: &fields, step, epoch: 0.0, slot: 0, size: (1, 1) };
    block::block(rule, &place, &vec![-1; n])
}

/// Unique instance ids of a row's points.
pub fn instances(row: &[Part], scenes: &[Points]) -> Vec<i32> {
    let of = |part: &Part| -> Vec<i32> {
        let ids = scenes[part.slot as usize].instance.as_ref().expect("instances");
        let unique = |n: u32| match ids[n as usize] {
            id if id < 0 => id,
            id => id + part.instance,
        };
        part.numbers().map(unique).collect()
    };
    row.iter().flat_map(of).collect()
}

pub fn classes(row: &[Part], scenes: &[Points]) -> Vec<i32> {
    let of = |part: &Part| -> Vec<i32> {
        let classes = scenes[part.slot as usize].segment.as_ref().expect("classes");
        part.numbers().map(|n| classes[n as usize]).collect()
    };
    row.iter().flat_map(of).collect()
}

pub fn coords(row: &[Part], scenes: &[Points]) -> Vec<[f32; 3]> {
    let of = |part: &Part| -> Vec<[f32; 3]> {
        part.numbers().map(|n| part.turn().of(scenes[part.slot as usize].coord[n as usize])).collect()
    };
    row.iter().flat_map(of).collect()
}

#[test]
fn golden_union_of_consecutive_pairs() {
    let scenes: Vec<Points> = [5, 3, 4, 2, 6].iter().zip(0..).map(|(n, i)| scene(*n, i)).collect();
    let rule = rule("mix3d", &[], Granularity::Half, Pairing::Consecutive);
    let rows = rows(&plan(&rule, 0, 5), &scenes).expect("a union");
    let sizes: Vec<usize> = rows.iter().map(|r| len(r)).collect();
    assert_eq!(sizes, [8, 6, 6]);
    let offsets = sizes.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [8, 14, 20]);
    let scenes_of = |r: &[Part]| r.iter().map(|p| (p.slot, p.scene)).collect::<Vec<_>>();
    assert_eq!(scenes_of(&rows[0]), [(0, 0), (1, 1)]);
    assert_eq!(scenes_of(&rows[1]), [(2, 0), (3, 1)]);
    assert_eq!(scenes_of(&rows[2]), [(4, 0)]);
}

#[test]
fn golden_instance_ids() {
    let with = |ids: &[i32]| Points { instance: Some(ids.to_vec()), ..scene(ids.len(), 0) };
    let scenes = [with(&[0, 1, -1]), with(&[0, -1, 2]), with(&[-1]), with(&[5, 0])];
    let made = row(&planned(0, vec![Op::Union { scenes: vec![1] }]), &scenes).expect("a union");
    assert_eq!(instances(&made, &scenes), [0, 1, -1, 2, -1, 4]);
    let made = row(&planned(2, vec![Op::Union { scenes: vec![0, 2, 3] }]), &scenes).expect("a union");
    assert_eq!(instances(&made, &scenes), [-1, 0, 1, -1, -1, 7, 2], "a scene without ids counts for nothing");
    let most = [with(&[i32::MAX - 1]), with(&[0]), with(&[1])];
    let of = |scenes: Vec<u32>| row(&planned(0, vec![Op::Union { scenes }]), &most);
    assert_eq!(of(vec![1]).map(|r| instances(&r, &most)), Ok(vec![i32::MAX - 1, i32::MAX]));
    let error = of(vec![2]).expect_err("too many");
    assert_eq!(error, UnionError::Instances { slot: 2, value: 1 << 31 });
    assert!(error.to_string().contains("2147483648"), "{error}");
}

#[test]
fn a_sector_is_exchanged() {
    let ring = |z: f32| Points {
        coord: [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]].map(|[x, y]| [x, y, z]).to_vec(),
        ..Points::default()
    };
    let scenes = [ring(0.0), ring(1.0)];
    let pi = std::f32::consts::PI;
    let of = |from: f32, to: f32| {
        let made = row(&planned(0, vec![Op::Sectors { src: 1, from, to }]), &scenes).expect("a row");
        let numbers =
            |slot| made.iter().filter(|p| p.slot == slot).flat_map(Part::numbers).collect::<Vec<_>>();
        (numbers(0), numbers(1))
    };
    assert_eq!(of(0.0, 1.0), (vec![1, 2, 3], vec![0]), "the first border belongs to it");
    assert_eq!(of(-1.0, 0.0), (vec![0, 1, 2, 3], vec![]), "the last does not");
    assert_eq!(of(-0.1, 0.1), (vec![1, 2, 3], vec![0]));
    assert_eq!(of(3.0, 3.0 + pi), (vec![0, 1], vec![2, 3]), "beyond half a turn it goes on from below");
    assert_eq!(of(1.0, 1.0 + 2.0 * pi), (vec![], vec![0, 1, 2, 3]));
    assert_eq!(of(0.1, 0.2), (vec![0, 1, 2, 3], vec![]));
}

#[test]
fn bands_come_from_both_scans() {
    let column =
        |x: f32| Points { coord: (-3..=3).map(|z| [x, 0.0, z as f32]).collect(), ..Points::default() };
    let scenes = [column(1.0), column(-1.0)];
    let of = |edges: &[f32], odd| {
        let op = Op::Bands { src: 1, edges: edges.into(), odd };
        let made = row(&planned(0, vec![op]), &scenes).expect("a row");
        let numbers =
            |slot| made.iter().filter(|p| p.slot == slot).flat_map(Part::numbers).collect::<Vec<_>>();
        (numbers(0), numbers(1))
    };
    let edge = std::f32::consts::FRAC_PI_8;
    assert_eq!(of(&[-edge, edge], false), (vec![0, 1, 2, 4, 5, 6], vec![3]));
    assert_eq!(of(&[-edge, edge], true), (vec![3], vec![0, 1, 2, 4, 5, 6]));
    assert_eq!(of(&[0.0], false), (vec![0, 1, 2], vec![3, 4, 5, 6]), "an edge belongs to the band above");
    assert_eq!(of(&[], true).1.len(), 7);
}

#[test]
fn objects_are_pasted_turned_and_with_ids_of_their_own() {
    let scenes = [scene(4, 0), scene(9, 3)];
    let op = Op::Instances { src: 1, classes: [0, 3].into(), angles: vec![0.0, std::f32::consts::FRAC_PI_2] };
    let made = row(&planned(0, vec![op]), &scenes).expect("a row");
    assert_eq!(made.len(), 3);
    let objects: Vec<u32> = made[1].numbers().collect();
    assert_eq!(objects, [0, 2, 5, 7], "classes (i + 3) mod 5");
    assert_eq!(made[1].chosen, made[2].chosen);
    assert_eq!((made[0].scene, made[1].scene, made[2].scene), (0, 1, 1));
    for (n, [x, y, z]) in objects.iter().zip(coords(&made[1..2], &scenes)) {
        assert_eq!([x, y, z], scenes[1].coord[*n as usize]);
    }
    for ([x, y, z], [tx, ty, tz]) in coords(&made[1..2], &scenes).into_iter().zip(coords(&made[2..], &scenes))
    {
        assert!((tx + y).abs() < 1e-5 && (ty - x).abs() < 1e-5 && tz == z, "a quarter counter-clockwise");
    }
    let groups = made.iter().map(|p| instances(std::slice::from_ref(p), &scenes));
    let ids: Vec<BTreeSet<i32>> = groups.map(|g| g.into_iter().filter(|id| *id >= 0).collect()).collect();
    assert!(ids.iter().all(|g| !g.is_empty()));
    assert!(ids[0].is_disjoint(&ids[1]) && ids[1].is_disjoint(&ids[2]) && ids[0].is_disjoint(&ids[2]));
    let bare = [scene(2, 0), Points { segment: None, ..scene(2, 1) }];
    let op = Op::Instances { src: 1, classes: [0].into(), angles: vec![0.0] };
    assert_eq!(row(&planned(0, vec![op]), &bare), Err(UnionError::NoClasses { slot: 1 }));
}

#[test]
fn a_row_of_which_nothing_is_left_is_its_base() {
    let at = |x: f32| Points { coord: vec![[x, 0.5, 0.0]], ..Points::default() };
    let scenes = [at(1.0), at(-1.0)];
    let sector = Op::Sectors { src: 1, from: 0.0, to: 1.0 };
    let made = row(&planned(0, vec![sector]), &scenes).expect("a row");
    assert_eq!(made, [Part { slot: 0, scene: 0, chosen: Chosen::All(1), angle: 0.0, instance: 0 }]);
}

/// Blocks of scenes: sizes, one number per scene.
pub fn blocks() -> impl Strategy<Value = Vec<Points>> {
    let sizes = proptest::collection::vec((1usize..60, 0u32..99), 1..7);
    sizes.prop_map(|s| s.into_iter().map(|(n, seed)| scene(n, seed)).collect())
}

pub fn rules() -> impl Strategy<Value = MixRule> {
    let granularity = prop_oneof![Just(Granularity::Half), Just(Granularity::Elem), Just(Granularity::Pair)];
    let policy = prop_oneof![Just("mix3d"), Just("polarmix"), Just("lasermix")];
    (policy, 2u32..5, granularity, any::<bool>()).prop_map(|(policy, scenes, granularity, flip)| {
        let numbers: &[(&str, f64)] = match policy {
            "mix3d" => &[("scenes", f64::from(scenes))],
            "polarmix" => &[("class_max", 2.0), ("swap_prob", 0.7), ("paste_prob", 0.7), ("width_min", 20.0)],
            _ => &[],
        };
        let pairs = if flip { Pairing::Flip } else { Pairing::Consecutive };
        let pairing = if granularity == Granularity::Elem { Pairing::Derange } else { pairs };
        rule(policy, numbers, granularity, pairing)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_sides_of_a_sector_are_its_azimuths(
        from in -std::f32::consts::PI..std::f32::consts::PI, width in 0.001f32..6.3, r in 1e-3f32..1e3, at in 0.0f32..6.3, border in 0usize..5,
    ) {
        // Also points on the borders and opposite of them, and sectors of half a turn and of a whole one.
        let pi = std::f32::consts::PI;
        for width in [width, pi, 2.0 * pi] {
            let sector = Sector::new(from, from + width);
            let a = [at, from, from + width, from + pi, from + width + pi][border];
            for (x, y) in [(r * a.cos(), r * a.sin()), (r, 0.0), (-r, 0.0), (-r, -0.0), (0.0, -r), (0.0, 0.0)] {
                prop_assert_eq!(sector.holds([x, y, 1.0]), sector.has_azimuth_of(x, y), "{} {}", x, y);
            }
        }
    }

    #[test]
    fn a_pair_that_exchanges_keeps_every_point_once(
        sizes in proptest::array::uniform2((30usize..80, 0u32..99)), laser in any::<bool>(), step in 0u64..1000,
    ) {
        let scenes = sizes.map(|(n, seed)| scene(n, seed));
        let (policy, numbers) = match laser {
            true => ("lasermix", &[("pitch_min", -60.0), ("pitch_max", 60.0)][..]),
            false => ("polarmix", &[("paste_prob", 0.0), ("swap_prob", 1.0), ("width_min", 20.0)][..]),
        };
        let pair = rule(policy, numbers, Granularity::Pair, Pairing::Consecutive);
        let rows = rows(&plan(&pair, step, 2), &scenes).expect("rows");
        let mut seen: Vec<(u32, u32)> =
            rows.iter().flatten().flat_map(|p| p.numbers().map(|n| (p.slot, n))).collect();
        seen.sort_unstable();
        let every = (0..2u32).flat_map(|slot| (0..scenes[slot as usize].coord.len() as u32).map(move |n| (slot, n)));
        prop_assert_eq!(seen, every.collect::<Vec<_>>());
    }

    #[test]
    fn rows_conserve_classes_and_ids_from_plan_to_bytes(
        scenes in blocks(), rule in rules(), step in 0u64..1000, squeeze in 0usize..200, u in 0.0f64..1.0,
    ) {
        let plan = plan(&rule, step, scenes.len());
        let mut rows = rows(&plan, &scenes).expect("a union");
        prop_assert_eq!(rows.len(), rule.rows_of(scenes.len()));
        for (row, planned) in rows.iter().zip(&plan.rows) {
            prop_assert!(!row.is_empty() && row.iter().all(|p| !p.is_empty()));
            prop_assert!(row.iter().all(|p| p.numbers().is_sorted_by(|a, b| a < b)));
            prop_assert!(row.iter().all(|p| p.slot != planned.base || p.scene == 0));
            // Exchanges are swaps: a point of a scan is there or not, never twice.
            let plain: Vec<_> = row.iter().filter(|p| p.angle == 0.0).collect();
            if !planned.ops.iter().any(|op| matches!(op, Op::Instances { .. })) {
                let slots: BTreeSet<u32> = plain.iter().map(|p| p.slot).collect();
                prop_assert_eq!(slots.len(), plain.len());
            }
            if let [Op::Union { scenes: came }] = &planned.ops[..] {
                let whole = std::iter::once(&planned.base).chain(came);
                prop_assert_eq!(len(row), whole.map(|s| scenes[*s as usize].coord.len()).sum::<usize>());
            }
            ids_are_unique(row, &scenes)?;
        }
        let parts: usize = rows.iter().map(Vec::len).sum();
        let total: usize = rows.iter().map(|r| len(r)).sum();
        let share = parts + squeeze;
        thin(&mut rows, &scenes, share, &vec![u; scenes.len()]);
        prop_assert_eq!(rows.iter().map(|r| len(r)).sum::<usize>(), share.min(total));
        prop_assert!(rows.iter().flatten().all(|p| !p.is_empty() && p.numbers().is_sorted_by(|a, b| a < b)));
        bytes_are_those_of_the_parts(&rows, &scenes)?;
        for row in &rows {
            ids_are_unique(row, &scenes)?;
        }
    }

}

/// Ids of different parts are different, and equal within a part where the scene's are.
fn ids_are_unique(row: &[Part], scenes: &[Points]) -> Result<(), TestCaseError> {
    let mut seen = BTreeSet::new();
    for part in row {
        let part = std::slice::from_ref(part);
        let own: BTreeSet<i32> = instances(part, scenes).into_iter().filter(|id| *id >= 0).collect();
        let ids = scenes[part[0].slot as usize].instance.as_ref().expect("instances");
        let before: BTreeSet<i32> =
            part[0].numbers().map(|n| ids[n as usize]).filter(|id| *id >= 0).collect();
        prop_assert_eq!(own.len(), before.len(), "the number of instances adds up");
        for id in own {
            prop_assert!(seen.insert(id), "{} twice", id);
        }
    }
    Ok(())
}

/// Bytes of every column.
#[derive(Default)]
pub struct Bytes {
    pub coord: Vec<u8>,
    pub feat: Vec<u8>,
    pub segment: Vec<u8>,
    pub instance: Vec<u8>,
    pub scene: Vec<u8>,
    pub grid: Vec<u8>,
    pub count: Vec<u8>,
    pub inverse: Vec<u8>,
}

pub fn bytes(
    rows: &[Vec<Part>],
    made: Option<&[Voxels]>,
    scenes: &[Points],
    features: &[Feature],
) -> Result<Bytes, Missing> {
    let points: usize = rows.iter().map(|r| len(r)).sum();
    let n: usize = (0..rows.len()).map(|i| columns::served(&rows[i], made.map(|m| &m[i]))).sum();
    let voxel = if made.is_some() { n } else { 0 };
    let mut all = Bytes {
        coord: vec![0xee; 12 * n],
        feat: vec![0xee; 4 * columns::width(features) * n],
        segment: vec![0xee; 4 * n],
        instance: vec![0xee; 4 * n],
        scene: vec![0xee; n],
        grid: vec![0xee; 12 * voxel],
        count: vec![0xee; 4 * voxel],
        inverse: vec![0xee; if made.is_some() { 4 * points } else { 0 }],
    };
    let voxels = made.is_some();
    let out = Columns {
        coord: &mut all.coord,
        feat: &mut all.feat,
        segment: Some(&mut all.segment),
        instance: Some(&mut all.instance),
        scene: Some(&mut all.scene),
        grid: voxels.then_some(&mut all.grid),
        count: voxels.then_some(&mut all.count),
        inverse: voxels.then_some(&mut all.inverse),
    };
    columns::write(rows, made, scenes, features, out)?;
    Ok(all)
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

pub fn ints(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
}

/// The columns without voxels against the lists that the parts mean; classes are conserved part by part.
fn bytes_are_those_of_the_parts(rows: &[Vec<Part>], scenes: &[Points]) -> Result<(), TestCaseError> {
    let all = bytes(rows, None, scenes, &[Feature::Intensity]).expect("complete");
    let every = |of: &dyn Fn(&[Part]) -> Vec<i32>| rows.iter().flat_map(|r| of(r)).collect::<Vec<_>>();
    prop_assert_eq!(ints(&all.segment), every(&|r| classes(r, scenes)));
    prop_assert_eq!(ints(&all.instance), every(&|r| instances(r, scenes)));
    let coord: Vec<f32> = rows.iter().flat_map(|r| coords(r, scenes)).flatten().collect();
    prop_assert_eq!(floats(&all.coord), coord);
    let parts = rows.iter().flatten();
    let scene: Vec<u8> = parts.clone().flat_map(|p| vec![p.scene; p.len()]).collect();
    prop_assert_eq!(&all.scene, &scene);
    let per_class = |classes: &[i32]| {
        let mut times: BTreeMap<i32, usize> = BTreeMap::new();
        classes.iter().for_each(|c| *times.entry(*c).or_default() += 1);
        times
    };
    let mut sum: BTreeMap<i32, usize> = BTreeMap::new();
    for part in parts {
        per_class(&classes(std::slice::from_ref(part), scenes))
            .iter()
            .for_each(|(c, n)| *sum.entry(*c).or_default() += n);
    }
    prop_assert_eq!(per_class(&ints(&all.segment)), sum);
    Ok(())
}
