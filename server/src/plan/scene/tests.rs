#![allow(clippy::unwrap_used)]

use super::*;
use crate::rng::Stream;

fn stream() -> Stream {
    Stream::new(9, "scene")
}

fn room() -> Shape {
    Shape { points: 100, min: [2.0, -1.0, 0.0], max: [5.1, 0.9, 1.25] }
}

fn draws(rule: &SceneRule, n: u64) -> Vec<Vec<SceneOp>> {
    (0..n).map(|slot| draw(rule, &room(), &stream(), 4, slot).unwrap()).collect()
}

fn names(ops: &[SceneOp]) -> Vec<&'static str> {
    let name = |op: &SceneOp| match op {
        SceneOp::Centre => "centre",
        SceneOp::Shift { .. } => "shift",
        SceneOp::Flip { .. } => "flip",
        SceneOp::Elastic { .. } => "elastic",
        SceneOp::Scale { .. } => "scale",
        SceneOp::Rotate { .. } => "rotate",
        SceneOp::Recentre => "recentre",
        SceneOp::Jitter { .. } => "jitter",
        SceneOp::Colour { .. } => "colour",
        SceneOp::ColourJitter { .. } => "colour jitter",
        SceneOp::ChannelDrop { .. } => "channel drop",
        SceneOp::Keep { .. } => "keep",
        SceneOp::Crop { .. } => "crop",
    };
    ops.iter().map(name).collect()
}

/// A rule under which everything happens.
fn everything() -> SceneRule {
    let noise = Some(ClippedNormal { sigma: 0.01, clip: 0.02 });
    SceneRule {
        flip: [1.0; 2],
        elastic_p: 1.0,
        channel_drop: 1.0,
        jitter: noise,
        colour_jitter: noise,
        dropout: 1.0,
        dropout_fraction: 0.25,
        max_points: Some(50),
        ..SceneRule::mix3d()
    }
}

#[test]
fn a_draw_is_a_function_of_its_address() {
    let rule = everything();
    let ops = |step, slot| draw(&rule, &room(), &stream(), step, slot).unwrap();
    assert_eq!(ops(3, 7), ops(3, 7));
    assert_ne!(ops(3, 7), ops(3, 8));
    assert_ne!(ops(3, 7), ops(4, 7));
    assert_eq!(cut(&rule, 900, &stream(), 3, 7), cut(&rule, 900, &stream(), 3, 7));
    assert_ne!(cut(&rule, 900, &stream(), 3, 7), cut(&rule, 900, &stream(), 3, 8));
}

#[test]
fn ops_come_in_the_stated_order() {
    let rule = everything();
    let ours = [
        "centre",
        "flip",
        "elastic",
        "elastic",
        "scale",
        "rotate",
        "recentre",
        "shift",
        "jitter",
        "colour",
        "channel drop",
        "colour jitter",
    ];
    let ops = draws(&rule, 1).remove(0);
    assert_eq!(names(&ops), ours);
    let reference = SceneRule { keep_offset: true, flip_translates: true, ..rule.clone() };
    let theirs = draws(&reference, 1).remove(0);
    let mut order = ours.to_vec();
    order.retain(|n| !["shift", "recentre"].contains(n));
    order.insert(1, "shift");
    assert_eq!(names(&theirs), order);
    assert_eq!(theirs[2], SceneOp::Flip { axes: [true, true, false], translate: true });
    // A switch moves no other draw.
    assert_eq!((&ops[2..6], &ops[8..]), (&theirs[3..7], &theirs[7..]));
    assert_eq!(ops[7], theirs[1]);
    assert_eq!(names(&cut(&rule, 900, &stream(), 0, 0)), ["keep", "crop"]);
}

#[test]
fn what_would_change_nothing_is_left_out() {
    assert_eq!(draws(&SceneRule::still(), 1), [[SceneOp::Centre]]);
    let as_stored = SceneRule { centre: false, ..SceneRule::still() };
    assert_eq!(draws(&as_stored, 1), [[]]);
    let shifted = SceneRule { shift: true, ..SceneRule::still() };
    assert_eq!(names(&draws(&shifted, 1)[0]), ["centre", "shift"]);
    let unmoved = SceneRule { elastic: vec![(0.5, 0.0)], elastic_p: 1.0, ..SceneRule::still() };
    assert_eq!(draws(&unmoved, 1), [[SceneOp::Centre]]);
}

#[test]
fn an_eval_scene_is_not_random() {
    let plain = everything().plain();
    for slot in 0..20 {
        assert_eq!(draw(&plain, &room(), &stream(), 0, slot), Ok(vec![SceneOp::Centre]));
        assert_eq!(cut(&plain, 900, &stream(), 0, slot), [SceneOp::Crop { centre: 0.5, most: 50 }]);
        assert_eq!(cut(&plain, 50, &stream(), 0, slot), []);
    }
}

#[test]
fn dropout_keeps_an_even_set_of_the_stated_size() {
    let rule = SceneRule { dropout: 0.5, dropout_fraction: 0.3, ..SceneRule::still() };
    let (mut scenes, mut seen) = (0, [0u32; 10]);
    for slot in 0..4000 {
        for op in cut(&rule, 10, &stream(), 0, slot) {
            let SceneOp::Keep { points } = op else { panic!("{op:?}") };
            assert_eq!(points.len(), 7);
            assert!(points.is_sorted_by(|a, b| a < b));
            points.iter().for_each(|i| seen[*i as usize] += 1);
            scenes += 1;
        }
    }
    assert!((1850..2150).contains(&scenes), "{scenes} of 4000");
    // 0.7 a scene; four standard deviations of a binomial.
    let (want, limit) = (f64::from(scenes) * 0.7, 4.0 * (f64::from(scenes) * 0.21).sqrt());
    assert!(seen.iter().all(|c| (f64::from(*c) - want).abs() < limit), "{seen:?}, want {want}");
}

#[test]
fn a_cut_leaves_a_point() {
    let rule = SceneRule { dropout: 1.0, dropout_fraction: 1.0, max_points: Some(1), ..SceneRule::still() };
    for points in [1, 2, 1000] {
        for op in cut(&rule, points, &stream(), 0, 0) {
            let SceneOp::Keep { points } = op else { panic!("{op:?}") };
            assert_eq!(points.len(), 1);
        }
    }
    assert_eq!(cut(&rule, 0, &stream(), 0, 0), []);
}

#[test]
fn draws_follow_the_reference() {
    let n = 4000;
    let near = |got: usize, p: f64, what: &str| {
        let (want, limit) = (n as f64 * p, 4.0 * (n as f64 * p * (1.0 - p)).sqrt());
        assert!((got as f64 - want).abs() <= limit, "{what}: {got} of {n}, want {want} within {limit}");
    };
    let rule = SceneRule { elastic: vec![(3.0, 0.4), (4.0, 1.6)], channel_drop: 0.2, ..SceneRule::mix3d() };
    let (mut flips, mut passes, mut low, mut steps, mut dropped) = ([0; 2], 0, [0; 9], [0; 41], [0; 3]);
    for op in draws(&rule, n).iter().flatten() {
        match op {
            SceneOp::Flip { axes, translate } => {
                assert!(!axes[2] && !translate);
                [0, 1].into_iter().for_each(|a| flips[a] += usize::from(axes[a]));
            }
            SceneOp::Elastic { .. } => passes += 1,
            SceneOp::Shift { fraction } => {
                assert!(fraction.iter().all(|f| (0.0..=1.0).contains(f)));
                (0..3).for_each(|a| low[a] += usize::from(fraction[a] < 0.3));
            }
            SceneOp::Scale { factor } => {
                assert!(factor.iter().all(|f| (0.9..=1.1).contains(f)));
                (0..3).for_each(|a| low[3 + a] += usize::from(factor[a] < 0.96));
            }
            SceneOp::Rotate { angles } => {
                let most = [std::f32::consts::PI, 0.1309, 0.1309];
                assert!((0..3).all(|a| angles[a].abs() <= most[a]));
                (0..3).for_each(|a| low[6 + a] += usize::from(angles[a] < -0.4 * most[a]));
            }
            SceneOp::Colour { gain, offset, shift } => {
                assert!((0.8..=1.2).contains(gain) && offset.abs() <= 51.0);
                shift.iter().for_each(|s| steps[(*s + 20.0) as usize] += 1);
                assert!(shift.iter().all(|s| s.fract() == 0.0));
            }
            SceneOp::ChannelDrop { drop } => (0..3).for_each(|a| dropped[a] += usize::from(drop[a])),
            SceneOp::Centre | SceneOp::Recentre => {}
            SceneOp::Jitter { .. }
            | SceneOp::ColourJitter { .. }
            | SceneOp::Keep { .. }
            | SceneOp::Crop { .. } => panic!("{op:?}"),
        }
    }
    flips.iter().for_each(|got| near(*got, 0.5, "flips"));
    assert_eq!(passes % 2, 0, "both passes or none");
    near(passes / 2, 0.95, "elastic");
    low.iter().for_each(|got| near(*got, 0.3, "low values"));
    dropped.iter().for_each(|got| near(*got, 0.2, "dropped channels"));
    // 12,000 whole numbers over 41: five standard deviations.
    assert!(steps.iter().all(|c| (208..378).contains(c)), "{steps:?}");
}

#[test]
fn offsets_are_clipped_and_as_many_as_points() {
    let noise = Some(ClippedNormal { sigma: 2.0, clip: 3.0 });
    let shape = Shape { points: 20_000, ..room() };
    let rule = SceneRule { jitter: noise, ..SceneRule::still() };
    let ops = draw(&rule, &shape, &stream(), 0, 0).unwrap();
    let [SceneOp::Centre, SceneOp::Jitter { offsets }] = ops.as_slice() else { panic!("{ops:?}") };
    assert_eq!(offsets.len(), 20_000);
    let values = offsets.as_flattened();
    assert!(values.iter().all(|v| v.abs() <= 3.0));
    // P(|N| > 1.5) = 0.1336; P(|N| < 0.5) = 0.3829.
    let share = |f: fn(f32) -> bool| values.iter().filter(|v| f(v.abs())).count() as f64 / 60_000.0;
    assert!((share(|v| v == 3.0) - 0.1336).abs() < 0.006);
    assert!((share(|v| v < 1.0) - 0.3829).abs() < 0.008);
}

fn dims(rule: &SceneRule, shape: &Shape) -> Vec<[u32; 3]> {
    let dims = |op: SceneOp| if let SceneOp::Elastic { noise, .. } = op { Some(noise.dims) } else { None };
    draw(rule, shape, &stream(), 0, 0).unwrap().into_iter().filter_map(dims).collect()
}

#[test]
fn grids_cover_the_scene_and_what_earlier_passes_moved() {
    let rule = SceneRule { elastic: vec![(0.2, 0.4), (0.8, 1.6)], elastic_p: 1.0, ..SceneRule::still() };
    // Extents 3.1, 1.9, 1.25; the first pass may move points by 0.32 to either side.
    assert_eq!(dims(&rule, &room()), [[18, 12, 9], [7, 6, 5]]);
    let point = Shape { points: 1, min: [7e5, 5e6, 100.0], max: [7e5, 5e6, 100.0] };
    assert_eq!(dims(&rule, &point), [[3, 3, 3], [3, 3, 3]]);
    let exact = Shape { points: 9, min: [0.0; 3], max: [4.0, 2.0, 1.0] };
    let halves = SceneRule { elastic: vec![(0.5, 1.0)], ..rule };
    assert_eq!(dims(&halves, &exact), [[11, 7, 5]]);
}

#[test]
fn a_grid_that_is_too_large_is_an_error_and_so_are_far_coordinates() {
    let tile = Shape { points: 9, min: [0.0; 3], max: [1000.0, 1000.0, 50.0] };
    let error = draw(&SceneRule::mix3d(), &tile, &stream(), 0, 0).unwrap_err();
    assert!(matches!(error, SceneError::Nodes { granularity, .. } if granularity == 0.2), "{error}");
    assert!(error.to_string().contains("want at most 2097152"), "{error}");
    let rule = SceneRule { elastic: vec![(1e-6, 1.0)], ..SceneRule::mix3d() };
    let wide = Shape { points: 9, min: [-FAR; 3], max: [FAR; 3] };
    assert!(matches!(draw(&rule, &wide, &stream(), 0, 0), Err(SceneError::Nodes { .. })));
    for bad in [1.1e15, f64::INFINITY, f64::NAN] {
        let far = Shape { points: 9, min: [0.0; 3], max: [0.0, bad, 0.0] };
        let error = draw(&SceneRule::still(), &far, &stream(), 0, 0).unwrap_err();
        assert!(matches!(error, SceneError::Far { axis: "y", .. }), "{error}");
    }
    // Whether a record is bad does not depend on the draw.
    let seldom = SceneRule { elastic_p: 1e-9, ..SceneRule::mix3d() };
    assert!(draw(&seldom, &tile, &stream(), 0, 0).is_err());
    let never = SceneRule { elastic_p: 0.0, ..SceneRule::mix3d() };
    assert!(draw(&never, &tile, &stream(), 0, 0).is_ok());
}

#[test]
fn a_rule_names_the_field_that_is_out_of_range() {
    for rule in [SceneRule::mix3d(), SceneRule::still(), everything(), everything().plain()] {
        assert_eq!(rule.check(), Ok(()));
    }
    let noise = |sigma, clip| Some(ClippedNormal { sigma, clip });
    let still = SceneRule::still;
    let bad = [
        ("flip", SceneRule { flip: [0.0, 1.5], ..still() }),
        ("elastic granularity", SceneRule { elastic: vec![(0.0, 1.0)], ..still() }),
        ("elastic magnitude", SceneRule { elastic: vec![(1.0, f64::NAN)], ..still() }),
        ("elastic_p", SceneRule { elastic_p: -0.1, ..still() }),
        ("scale", SceneRule { scale: (1.1, 0.9), ..still() }),
        ("rotate", SceneRule { rotate: (0.0, f64::INFINITY), ..still() }),
        ("tilt", SceneRule { tilt: (-101.0, 0.0), ..still() }),
        ("jitter", SceneRule { jitter: noise(-1.0, 1.0), ..still() }),
        ("brightness", SceneRule { brightness: -0.2, ..still() }),
        ("contrast", SceneRule { contrast: 11.0, ..still() }),
        ("colour_shift", SceneRule { colour_shift: 256, ..still() }),
        ("channel_drop", SceneRule { channel_drop: 2.0, ..still() }),
        ("colour_jitter", SceneRule { colour_jitter: noise(1.0, f64::NAN), ..still() }),
        ("dropout", SceneRule { dropout: 1.1, ..still() }),
        ("dropout_fraction", SceneRule { dropout_fraction: -1.0, ..still() }),
        ("max_points", SceneRule { max_points: Some(0), ..still() }),
        ("crop_centre", SceneRule { crop_centre: Some(1.0), ..still() }),
    ];
    for (field, rule) in bad {
        assert_eq!(rule.check().map_err(|e| e.field), Err(field));
    }
}

#[test]
fn the_shape_is_that_of_all_points() {
    let coord: Vec<[f64; 3]> = (0..11).map(|i| [f64::from(i), -f64::from(i), 3.0]).collect();
    for n in 1..=coord.len() {
        let last = (n - 1) as f64;
        let want = Shape { points: n as u32, min: [0.0, -last, 3.0], max: [last, 0.0, 3.0] };
        assert_eq!(Shape::of(&coord[..n]), want);
    }
}
