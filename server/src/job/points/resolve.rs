//! What a spec says about scenes, checked, with defaults filled in.

use super::{Attribute, Labels, MAX_POINTS, Points, VoxelPick, VoxelRule};
use crate::cloud;
use crate::exec::{mixer::Mixers, points::columns::Feature};
use crate::job::{
    JobGroup, MAX_BATCH, Numerics,
    check::Check,
    mix,
    pictures::{self, Tally},
};
use crate::plan::block::Pairing;
use crate::plan::fields::Bank;
use crate::plan::points;
use crate::plan::scene::{ClippedNormal, SceneRule};
use crate::rng::Stream;
use mixfeed_proto as v1;
use std::collections::BTreeMap;

/// Passes of elastic distortion: each is a grid in the memory of a thread.
const MAX_ELASTIC: usize = 4;
/// Points of a row at least: more than it can have parts, each of which keeps a point.
const MIN_POINTS: u64 = 64;
/// Scenes of a row that a job may name.
const MAX_SCENES: u32 = 8;
/// Largest coordinate of a scene that is not centred: an f32 there is right to a millimetre.
const FAR: f64 = 10_000.0;

/// Resolves what a spec says about scenes; fills in defaults. Misfits go to `check`.
pub(in crate::job) fn resolve(
    check: &mut Check,
    spec: &mut v1::JobSpec,
    numerics: Numerics,
    groups: &[JobGroup],
) -> Points {
    let mut given = spec.points.clone().unwrap_or_default();
    let scene = scene(check, &mut given);
    let known = mix::Known { policies: points::POLICIES, mixers: &Mixers::new() };
    let mix::Mixing { rule: mix, smoothing, .. } = mix::resolve(check, spec, &known);
    check.ensure(smoothing == 0.0, "mix.smoothing", || {
        "is of pictures' labels, want none with `points`".into()
    });
    let by_class = matches!(mix.pairing, Pairing::SameClass | Pairing::DifferentClass);
    check.ensure(!by_class, "mix.pairing", || "asks for classes of rows, which scenes don't have".into());
    let scenes = mix.members.iter().map(|member| scenes_of(&member.args)).max().unwrap_or(1);
    let least = MIN_POINTS * u64::from(spec.global_batch.clamp(1, MAX_BATCH));
    check.ensure((least..=MAX_POINTS).contains(&given.max_points), "points.max_points", || {
        format!("is {}, want {least}..={MAX_POINTS} for this batch", given.max_points)
    });
    let (limits, max_bytes) = limits(check, spec);
    let max_bad = *spec.max_bad_fraction.get_or_insert(0.01);
    let rule = Points {
        numerics,
        features: features(check, &given.features),
        labels: labels(check, &mut given),
        fill: fill(check, &given.fill),
        voxels: voxels(check, &mut given),
        far: (!scene.centre).then_some(FAR),
        max_points: given.max_points.clamp(least, MAX_POINTS.max(least)),
        max_bad_fraction: check.within("max_bad_fraction", max_bad, 0.0, 1.0),
        mix_stream: Stream::new(spec.seed, "mix"),
        scene_stream: Stream::new(spec.seed, "scene"),
        fields: Bank::new(spec.seed, 1, 1),
        tally: Tally::default(),
        mean: mean(groups),
        scene,
        mix,
        scenes,
        limits,
        max_bytes,
    };
    spec.points = Some(given);
    rule
}

/// Scenes of a row of a policy with these arguments.
fn scenes_of(args: &crate::plan::Args) -> u32 {
    args.numbers().find(|(name, _)| *name == "scenes").map_or(2, |(_, scenes)| scenes as u32).min(MAX_SCENES)
}

fn scene(check: &mut Check, given: &mut v1::PointSpec) -> SceneRule {
    let compat = given.compat.unwrap_or_default();
    let color = given.color.unwrap_or_default();
    let dropout = given.dropout.unwrap_or_default();
    let normal = |sigma: f64, clip: f64| {
        (sigma != 0.0).then_some(ClippedNormal { sigma, clip: if clip == 0.0 { 1e6 } else { clip } })
    };
    check.ensure(given.elastic.len() <= MAX_ELASTIC, "points.elastic", || {
        format!("has {} passes, want at most {MAX_ELASTIC}", given.elastic.len())
    });
    let mut span = |field: &str, values: &[f64], none: f64| match values {
        [] => (none, none),
        [low, high] if low <= high => (*low, *high),
        _ => {
            check.fail(&format!("points.{field}"), format!("is {values:?}, want two ascending numbers"));
            (none, none)
        }
    };
    let (scale, rotate, tilt) = (
        span("scale", &given.scale, 1.0),
        span("rotate_z", &given.rotate_z, 0.0),
        span("tilt", &given.tilt, 0.0),
    );
    let shift = color.shift;
    check.ensure(shift.fract() == 0.0 && (0.0..=255.0).contains(&shift), "points.color.shift", || {
        format!("is {shift}, want a whole number of 0..=255")
    });
    check.ensure(dropout.fraction < 1.0, "points.dropout.fraction", || {
        format!("is {}, want below 1", dropout.fraction)
    });
    let rule = SceneRule {
        centre: *given.center.get_or_insert(true),
        shift: given.shift,
        flip: [given.flip_x, given.flip_y],
        elastic: given.elastic.iter().map(|e| (e.granularity, e.magnitude)).collect(),
        elastic_p: *given.elastic_prob.get_or_insert(0.95),
        scale,
        rotate,
        tilt,
        jitter: given.jitter.and_then(|j| normal(j.sigma, j.clip)),
        brightness: color.brightness,
        contrast: color.contrast,
        colour_shift: shift.clamp(0.0, 255.0) as u32,
        channel_drop: color.drop,
        colour_jitter: normal(color.jitter, 0.0),
        dropout: dropout.p,
        dropout_fraction: dropout.fraction,
        max_points: (given.max_scene_points > 0).then_some(given.max_scene_points),
        crop_centre: None,
        flip_translates: compat.flip_translates,
        keep_offset: compat.keep_offset,
    };
    check.ensure(rule.centre || !rule.shift, "points.shift", || "wants points.center = true".into());
    match rule.check() {
        Ok(()) => rule,
        Err(error) => {
            check.fail(field(error.field), error.to_string());
            SceneRule::still()
        }
    }
}

/// Columns of "feat" by name.
const FEATURES: [(&str, Feature); 5] = [
    ("color", Feature::Color(None)),
    ("normal", Feature::Normal),
    ("intensity", Feature::Intensity),
    ("coord", Feature::Coord),
    ("distance", Feature::Distance),
];

/// Field of the spec that a field of the rule comes from.
fn field(rule: &str) -> &'static str {
    match rule {
        "flip" => "points.flip_x, points.flip_y",
        "elastic granularity" | "elastic magnitude" => "points.elastic",
        "elastic_p" => "points.elastic_prob",
        "scale" => "points.scale",
        "rotate" => "points.rotate_z",
        "tilt" => "points.tilt",
        "jitter" => "points.jitter",
        "dropout" | "dropout_fraction" => "points.dropout",
        _ => "points.color",
    }
}

fn features(check: &mut Check, names: &[String]) -> Vec<Feature> {
    let mut columns = Vec::new();
    for name in names {
        match FEATURES.iter().find(|(own, _)| own == name) {
            Some((_, column)) if !columns.contains(column) => columns.push(*column),
            Some(_) => check.fail("points.features", format!("names `{name}` twice")),
            None => {
                let known = FEATURES.map(|(name, _)| name).join(", ");
                check.fail("points.features", format!("has `{name}`, want {known}"));
            }
        }
    }
    columns
}

fn labels(check: &mut Check, given: &mut v1::PointSpec) -> Labels {
    let unmapped = match check.known("points.unmapped", given.unmapped) {
        v1::Unmapped::Unspecified | v1::Unmapped::Ignore => v1::Unmapped::Ignore,
        v1::Unmapped::Refuse => v1::Unmapped::Refuse,
    };
    given.set_unmapped(unmapped);
    let mut map = BTreeMap::new();
    for v1::LabelMap { stored, class } in &given.label_map {
        check.ensure(*class >= 0, "points.label_map", || format!("maps {stored} to {class}, want >= 0"));
        let twice = map.insert(*stored, *class).is_some();
        check.ensure(!twice, "points.label_map", || format!("maps {stored} twice"));
    }
    Labels {
        map: (!map.is_empty()).then_some(map),
        ignore: *given.ignore_label.get_or_insert(-1),
        refuse: unmapped == v1::Unmapped::Refuse,
    }
}

fn fill(check: &mut Check, given: &BTreeMap<String, f64>) -> BTreeMap<Attribute, f64> {
    let mut fill = BTreeMap::new();
    for (name, value) in given {
        let Some((attribute, _)) = Attribute::ALL.iter().find(|(_, own)| own == name) else {
            let known = Attribute::ALL.map(|(_, name)| name).join(", ");
            check.fail("points.fill", format!("names `{name}`, want {known}"));
            continue;
        };
        let (low, high, whole) = match attribute {
            Attribute::Color => (0.0, 255.0, true),
            Attribute::Segment => (-2147483648.0, 2147483647.0, true),
            Attribute::Instance => (-2147483648.0, 16_777_216.0, true),
            Attribute::Normal | Attribute::Intensity => (-1e9, 1e9, false),
        };
        let value = check.within(&format!("points.fill.{name}"), *value, low, high);
        check.ensure(!whole || value.fract() == 0.0, &format!("points.fill.{name}"), || {
            format!("is {value}, want a whole number")
        });
        fill.insert(*attribute, value);
    }
    fill
}

fn voxels(check: &mut Check, given: &mut v1::PointSpec) -> Option<VoxelRule> {
    let voxel = given.voxel.as_mut()?;
    let size = check.within("points.voxel.size", voxel.size, 1e-6, 1e9) as f32;
    let pick = match check.known("points.voxel.pick", voxel.pick) {
        v1::VoxelPick::Unspecified | v1::VoxelPick::First => (v1::VoxelPick::First, VoxelPick::First),
        v1::VoxelPick::Random => (v1::VoxelPick::Random, VoxelPick::Random),
    };
    voxel.set_pick(pick.0);
    let (inverse, count, majority) = (voxel.inverse, voxel.count, voxel.majority);
    Some(VoxelRule { size, pick: pick.1, inverse, count, majority })
}

fn limits(check: &mut Check, spec: &mut v1::JobSpec) -> (cloud::Limits, u64) {
    let limits = spec.limits.get_or_insert_default();
    if limits.max_points == 0 {
        limits.max_points = 20_000_000;
    }
    if limits.max_record_bytes == 0 {
        limits.max_record_bytes = 1 << 30;
    }
    check.ensure(limits.max_pixels == 0, "limits.max_pixels", || {
        "is of pictures, the job has `points`".into()
    });
    check.ensure(limits.max_points <= 1 << 28, "limits.max_points", || {
        format!("is {}, want at most 2^28", limits.max_points)
    });
    check.ensure(limits.max_record_bytes <= 1 << 30, "limits.max_record_bytes", || {
        format!("is {}, want at most 2^30", limits.max_record_bytes)
    });
    (cloud::Limits { points: limits.max_points.min(1 << 28) }, limits.max_record_bytes)
}

/// Encoded bytes and points of a scene, on average.
fn mean(groups: &[JobGroup]) -> (u64, u64) {
    let scenes = groups.iter().map(JobGroup::records).sum::<u64>().max(1);
    let points = |g: &JobGroup| {
        let records = &g.source.index().records;
        (0..g.records()).filter_map(|i| records.get(g.record(i) as usize)).map(|r| r.points).sum::<u64>()
    };
    (pictures::mean_record_bytes(groups), groups.iter().map(points).sum::<u64>() / scenes)
}
