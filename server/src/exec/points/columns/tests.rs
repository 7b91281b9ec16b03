//! Columns of features, attributes and voxels, byte by byte.

use super::super::tests::{
    blocks, bytes, classes, coords, floats, instances, ints, plan, planned, rules, scene,
};
use super::super::union::{row, rows};
use super::super::voxel::{Pick, Rule, Scratch, voxels};
use super::*;
use crate::plan::Op;
use proptest::prelude::*;

#[test]
fn golden_features() {
    let point = Points {
        coord: vec![[3.0, 4.0, 12.0]],
        color: Some(Colors::Each(vec![[51.0, 255.0, 0.0]])),
        normal: Some(vec![[1.0, 0.0, 0.5]]),
        intensity: Some(vec![0.25]),
        segment: Some(vec![7]),
        instance: Some(vec![2]),
        extent: None,
    };
    let scenes = [point.clone(), point];
    let quarter = std::f32::consts::FRAC_PI_2;
    let op = Op::Instances { src: 1, classes: [7].into(), angles: vec![quarter] };
    let rows = [row(&planned(0, vec![op]), &scenes).expect("a row")];
    let normal = Feature::Color(Some(([0.5, 0.5, 0.5], [0.25, 0.5, 0.125])));
    let features = [
        Feature::Color(None),
        normal,
        Feature::Normal,
        Feature::Intensity,
        Feature::Coord,
        Feature::Distance,
    ];
    let all = bytes(&rows, None, &scenes, &features).expect("complete");
    let base = [0.2, 1.0, 0.0, (0.2 - 0.5) / 0.25, 1.0, -4.0, 1.0, 0.0, 0.5, 0.25, 3.0, 4.0, 12.0, 13.0];
    let turned = [0.2, 1.0, 0.0, (0.2 - 0.5) / 0.25, 1.0, -4.0, 0.0, 1.0, 0.5, 0.25, -4.0, 3.0, 12.0, 13.0];
    let got = floats(&all.feat);
    assert_eq!(got.len(), 28);
    assert_eq!(got[..14], base);
    assert!(got[14..].iter().zip(turned).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}");
    assert_eq!((ints(&all.segment), ints(&all.instance), all.scene), (vec![7, 7], vec![2, 5], vec![0, 1]));
}

#[test]
fn scenes_without_a_served_attribute_are_refused() {
    let bare = |strip: fn(&mut Points)| {
        let mut scenes = [scene(3, 0), scene(2, 1)];
        strip(&mut scenes[1]);
        let rows = [row(&planned(0, vec![Op::Union { scenes: vec![1] }]), &scenes).expect("a union")];
        let features = [Feature::Color(None), Feature::Normal, Feature::Intensity];
        bytes(&rows, None, &scenes, &features).map(|_| ()).expect_err("not complete")
    };
    let missing = |attribute, column| Missing { slot: 1, attribute, column };
    assert_eq!(bare(|p| p.color = None), missing("color", "feat"));
    assert_eq!(bare(|p| p.normal = None), missing("normal", "feat"));
    assert_eq!(bare(|p| p.intensity = None), missing("intensity", "feat"));
    assert_eq!(bare(|p| p.segment = None), missing("segment", "segment"));
    assert_eq!(
        missing("color", "feat").to_string(),
        "scene of slot 1 has no color, which column `feat` holds"
    );
}

#[test]
fn points_of_scenes_without_instances_are_of_none() {
    let scenes = [Points { instance: None, ..scene(3, 0) }, scene(4, 1)];
    let rows = [row(&planned(0, vec![Op::Union { scenes: vec![1] }]), &scenes).expect("a union")];
    let all = bytes(&rows, None, &scenes, &[]).expect("complete");
    let ids = scenes[1].instance.clone().expect("instances");
    assert_eq!(ints(&all.instance), [vec![-1; 3], ids].concat());
}

#[test]
#[should_panic(expected = "columns of what voxels were not asked for")]
fn counts_that_were_not_asked_for_are_refused() {
    let scenes = [scene(5, 0)];
    let rows = [row(&planned(0, vec![]), &scenes).expect("a row")];
    let rule = Rule { size: 1.0, pick: Pick::First, details: false };
    let found = [voxels(&rows[0], &scenes, &rule, &mut Scratch::default()).expect("they fit")];
    let (mut coord, mut count) = ([0; 60], [0; 20]);
    let out = Columns { coord: &mut coord, count: Some(&mut count), ..Columns::default() };
    let _ = write(&rows, Some(&found), &scenes, &[], out);
}

#[test]
fn many_points_pass_in_runs() {
    // More points than a run, of two scenes, with voxels that keep points of both in turn.
    let line = |y: f32| Points {
        coord: (0..2000).map(|i| [i as f32 / 2.0, y, 0.0]).collect(),
        ..scene(2000, y as u32)
    };
    let scenes = [line(0.0), line(1.0)];
    let rows = [row(&planned(0, vec![Op::Union { scenes: vec![1] }]), &scenes).expect("a union")];
    let rule = Rule { size: 2.0, pick: Pick::Random(3), details: true };
    let made = [voxels(&rows[0], &scenes, &rule, &mut Scratch::default()).expect("they fit")];
    assert_eq!(made[0].kept.len(), 500);
    let part: Vec<bool> = made[0].kept.iter().map(|k| *k >= 2000).collect();
    assert!(part.windows(2).filter(|w| w[0] != w[1]).count() > 100, "both scenes win voxels");
    let all = bytes(&rows, Some(&made), &scenes, &[Feature::Coord]).expect("complete");
    let coord = coords(&rows[0], &scenes);
    let want: Vec<f32> = made[0].kept.iter().flat_map(|k| coord[*k as usize]).collect();
    assert_eq!(floats(&all.coord), want);
    assert_eq!(all.coord, all.feat);
    let whole = bytes(&rows, None, &scenes, &[]).expect("complete");
    assert_eq!(floats(&whole.coord), coord.concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn voxels_account_for_every_point_and_columns_follow_them(
        scenes in blocks(), rule in rules(), step in 0u64..1000, random in any::<bool>(), vote in any::<bool>(),
    ) {
        let rows = rows(&plan(&rule, step, scenes.len()), &scenes).expect("a union");
        let pick = if random { Pick::Random(step) } else { Pick::First };
        let mut made = Vec::new();
        for row in &rows {
            let rule = Rule { size: 1.5, pick, details: true };
            let mut voxels = voxels(row, &scenes, &rule, &mut Scratch::default()).expect("they fit");
            if vote {
                voxels.majority(row, &scenes);
            }
            prop_assert_eq!(voxels.counts.iter().sum::<i32>() as usize, len(row));
            prop_assert_eq!(voxels.inverse.len(), len(row));
            made.push(voxels);
        }
        let all = bytes(&rows, Some(&made), &scenes, &[Feature::Coord, Feature::Distance]).expect("complete");
        let mut at = 0;
        for (row, voxels) in rows.iter().zip(&made) {
            let (coord, of, ids) = (coords(row, &scenes), classes(row, &scenes), instances(row, &scenes));
            for (voxel, kept) in voxels.kept.iter().map(|k| *k as usize).enumerate() {
                prop_assert_eq!(floats(&all.coord)[3 * at..][..3].to_vec(), coord[kept].to_vec());
                prop_assert_eq!(floats(&all.feat)[4 * at..][..3].to_vec(), coord[kept].to_vec());
                let want = voxels.segment.as_ref().map_or(of[kept], |s| s[voxel]);
                prop_assert_eq!(ints(&all.segment)[at], want);
                prop_assert_eq!(ints(&all.instance)[at], ids[kept]);
                prop_assert_eq!(ints(&all.grid)[3 * at..][..3].to_vec(), voxels.grid[voxel].to_vec());
                prop_assert_eq!(ints(&all.count)[at], voxels.counts[voxel]);
                at += 1;
            }
        }
        let inverse: Vec<i32> = made.iter().flat_map(|v| v.inverse.clone()).collect();
        prop_assert_eq!(ints(&all.inverse), inverse);
    }
}
