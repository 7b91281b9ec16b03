//! What every registered policy must hold, on odd rasters and with extreme arguments.

use super::{POLICIES, by_name, table};
use crate::plan::{Args, Draws, Filter, Mask, Mix, Op, PlanInput, Policy, Rect, fields::Bank};
use crate::rng::Stream;
use std::collections::{BTreeMap, BTreeSet};

const RASTERS: [(u32, u32); 4] = [(1, 1), (1, 7), (5, 3), (224, 160)];

/// `policy` with nothing given.
pub fn defaults(policy: &dyn Policy) -> Args {
    Args::resolve(&policy.declared(), &BTreeMap::new(), &BTreeMap::new()).expect("defaults are legal")
}

/// `n` independent draws on a `height` x `width` raster.
pub fn draw_many(policy: &dyn Policy, args: &Args, height: u32, width: u32, n: u64) -> Vec<Mix> {
    let (stream, fields) = (Stream::new(5, "mix"), Bank::new(5, height, width));
    let input = PlanInput { height, width, base: 0, partner: 1, next: &[1, 0], fields: &fields };
    (0..n).map(|step| policy.draw(&input, args, &Draws::new(&stream, step, 0, 0))).collect()
}

/// Weight of the base at every pixel, by the words of [`Mask`]: an oracle that shares nothing with executors.
pub fn weights(mask: &Mask, height: u32, width: u32) -> Vec<f32> {
    let at = |y: u32, x: u32| match mask {
        Mask::Cells { cell, columns, keep } => f32::from(keep[(y / cell * columns + x / cell) as usize]),
        Mask::Lattice { crop, cell, hole } => {
            let inside = (crop.y0..crop.y1).contains(&y) && (crop.x0..crop.x1).contains(&x);
            let shown = |p: u32, cell: u32, hole: u32| p % cell < hole;
            let partner = inside
                && shown(y.wrapping_sub(crop.y0), cell.0, hole.0)
                && shown(x.wrapping_sub(crop.x0), cell.1, hole.1);
            f32::from(!partner)
        }
        Mask::Bump { rows, columns } => 1.0 - rows[y as usize] * columns[x as usize],
        Mask::Ranks { field, shift, keep, soft } => {
            let (y, x) = ((y + shift.0) % height, (x + shift.1) % width);
            let rank = field.ranks[(y * width + x) as usize];
            match rank {
                r if r < keep - soft => 1.0,
                r if r >= keep + soft => 0.0,
                r => 1.0 - (r - (keep - soft)) as f32 / (2 * soft - 1) as f32,
            }
        }
        Mask::Weights(w) => w[(y * width + x) as usize],
        Mask::Learned { .. } => panic!("what a mixer makes depends on pixels"),
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect()
}

/// Mean of the base's weight over the ops of a mix.
fn mean(mix: &Mix, height: u32, width: u32) -> f64 {
    let pixels = f64::from(height) * f64::from(width);
    match &mix.ops[..] {
        [] => 1.0,
        [Op::Blend { lambda, .. }] => f64::from(*lambda),
        [Op::Paste { dst_rect, .. }] => 1.0 - dst_rect.area() as f64 / pixels,
        [Op::MaskBlend { mask, .. }] => {
            weights(mask, height, width).into_iter().map(f64::from).sum::<f64>() / pixels
        }
        more => panic!("a policy of more than one op needs a rule here: {more:?}"),
    }
}

fn legal_rect(r: &Rect, height: u32, width: u32) -> bool {
    r.y0 < r.y1 && r.y1 <= height && r.x0 < r.x1 && r.x1 <= width
}

fn check_op(op: &Op, height: u32, width: u32) {
    let pixels = u64::from(height) * u64::from(width);
    match op {
        Op::Blend { src, lambda, rest } => {
            assert!(*src == 1 && (lambda + rest - 1.0).abs() <= f32::EPSILON, "{op:?}");
        }
        Op::Paste { src, src_rect, dst_rect, filter } => {
            assert_eq!(*src, 1);
            assert!(legal_rect(src_rect, height, width) && legal_rect(dst_rect, height, width), "{op:?}");
            assert!(matches!(filter, Filter::Nearest | Filter::Bilinear | Filter::Area));
        }
        Op::MaskBlend { src, mask } => {
            assert_eq!(*src, 1);
            match mask {
                Mask::Cells { cell, columns, keep } => {
                    assert!(*cell > 0 && *columns == width.div_ceil(*cell), "{op:?}");
                    assert_eq!(keep.len() as u32, columns * height.div_ceil(*cell));
                }
                Mask::Lattice { crop, cell, hole } => {
                    assert!(legal_rect(crop, height, width), "{op:?}");
                    assert!((1..=cell.0).contains(&hole.0) && (1..=cell.1).contains(&hole.1), "{op:?}");
                }
                Mask::Bump { rows, columns } => {
                    assert_eq!((rows.len() as u32, columns.len() as u32), (height, width));
                    assert!(rows.iter().chain(&**columns).all(|w| (0.0..=1.0).contains(w)), "{op:?}");
                }
                Mask::Ranks { field, shift, keep, soft } => {
                    assert_eq!((field.height, field.width), (height, width));
                    assert!(shift.0 < height && shift.1 < width, "{op:?}");
                    assert!(soft <= keep && u64::from(keep + soft) <= pixels, "{keep} {soft}");
                }
                Mask::Weights(w) => assert_eq!(w.len() as u64, pixels),
                Mask::Learned { lambda, .. } => assert!((0.0..=1.0).contains(lambda), "{op:?}"),
            }
        }
        more @ (Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. }) => {
            panic!("{more:?} is not of pictures")
        }
    }
}

/// Defaults, everything at its least, everything at its most, and each number alone at either end; each with every
/// value of every option, one at a time.
pub fn extremes(policy: &dyn Policy) -> Vec<Args> {
    let every = |pick: fn(&crate::plan::Param) -> f64| -> BTreeMap<String, f64> {
        policy.params().iter().map(|p| (p.name.to_string(), pick(p))).collect()
    };
    let mut numbers = vec![BTreeMap::new(), every(|p| p.min), every(|p| p.max)];
    for p in policy.params() {
        numbers.extend([p.min, p.max].map(|v| BTreeMap::from([(p.name.to_string(), v)])));
    }
    let mut words = vec![BTreeMap::new()];
    for c in policy.choices() {
        words.extend(c.values[1..].iter().map(|v| BTreeMap::from([(c.name.to_string(), v.to_string())])));
    }
    let all = numbers.iter().flat_map(|n| words.iter().map(move |w| (n, w)));
    let args: Vec<Args> = all.filter_map(|(n, w)| Args::resolve(&policy.declared(), n, w).ok()).collect();
    assert!(args.len() > 2 * words.len(), "`{}`: most extremes must be legal", policy.name());
    args
}

#[test]
fn names_are_unique_snake_case_and_documented() {
    let names: BTreeSet<&str> = POLICIES.iter().map(|p| p.name()).collect();
    assert_eq!(names.len(), POLICIES.len());
    assert!(POLICIES.is_sorted_by_key(|p| p.name()));
    let snake = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    for policy in POLICIES {
        let name = policy.name();
        assert_eq!(by_name(name).map(|p| p.name()), Some(name));
        assert!(policy.url().starts_with("https://"), "{name}");
        assert!(policy.paper().ends_with(')') && !policy.summary().is_empty(), "{name}");
        let mut fields: Vec<&str> = policy.params().iter().map(|p| p.name).collect();
        fields.extend(policy.choices().iter().map(|c| c.name));
        assert!([name].iter().chain(&fields).all(|n| snake(n)), "{name}: {fields:?}");
        assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), fields.len(), "{name}: {fields:?}");
        for p in policy.params() {
            assert!(p.min <= p.default && p.default <= p.max && !p.doc.is_empty(), "{name} {p:?}");
        }
        for c in policy.choices() {
            assert!(c.values.iter().all(|v| snake(v)) && !c.doc.is_empty(), "{name} {c:?}");
        }
    }
    assert!(by_name("no_such_policy").is_none());
}

#[test]
fn every_policy_draws_legal_mixes_on_every_raster_with_every_extreme() {
    for policy in POLICIES {
        for (args, (height, width)) in extremes(*policy).iter().flat_map(|a| RASTERS.map(|r| (a, r))) {
            let (stream, fields) = (Stream::new(3, "mix"), Bank::new(3, height, width));
            let input = PlanInput { height, width, base: 0, partner: 1, next: &[1, 0], fields: &fields };
            let n = if height * width > 100 { 3 } else { 40 };
            for step in 0..n {
                let draw = || policy.draw(&input, args, &Draws::new(&stream, step, 8, 9));
                let mix = draw();
                assert_eq!(mix, draw(), "`{}` is not reproducible", policy.name());
                let place = format!("`{}` {height}x{width} {args:?} {mix:?}", policy.name());
                assert!((0.0..=1.0).contains(&mix.own) && (0.0..=1.0).contains(&mix.sampled), "{place}");
                mix.ops.iter().for_each(|op| check_op(op, height, width));
                let from = args.words().find(|w| w.0 == "lam_from").map_or("area", |w| w.1);
                if from == "area" {
                    // Blend: f32 of lambda; masks: half a pixel.
                    let slack = if matches!(mix.ops[..], [Op::Blend { .. }]) {
                        6e-8
                    } else {
                        0.5 / (f64::from(height) * f64::from(width))
                    };
                    let mean = mean(&mix, height, width);
                    assert!((mix.own - mean).abs() <= slack, "mean {mean}, {place}");
                }
            }
        }
    }
}

#[test]
fn rows_of_a_unit_share_what_the_unit_draws_and_steps_differ() {
    let (stream, fields) = (Stream::new(4, "mix"), Bank::new(4, 32, 48));
    let input = PlanInput { height: 32, width: 48, base: 0, partner: 1, next: &[1, 0], fields: &fields };
    for policy in POLICIES {
        let args = defaults(*policy);
        let draw = |step, unit, row| policy.draw(&input, &args, &Draws::new(&stream, step, unit, row));
        let first = draw(1, 2, 2);
        assert_eq!(first.sampled, draw(1, 2, 3).sampled, "`{}`: another row of the unit", policy.name());
        if policy.name() != "maskmix" {
            assert_eq!(first, draw(1, 2, 3), "`{}`: only MaskMix draws per row", policy.name());
        }
        assert_ne!(first, draw(2, 2, 2), "`{}`: another step", policy.name());
        assert_ne!(first, draw(1, 3, 3), "`{}`: another unit", policy.name());
    }
}

#[test]
fn a_policy_without_lambda_leaves_no_trace_in_another() {
    // The same address gives CutMix the same box whether or not ResizeMix drew before: draws are addressed.
    let alone =
        draw_many(by_name("cutmix").expect("registered"), &defaults(&super::cutmix::CutMix), 20, 30, 4);
    let (stream, fields) = (Stream::new(5, "mix"), Bank::new(5, 20, 30));
    let input = PlanInput { height: 20, width: 30, base: 0, partner: 1, next: &[1, 0], fields: &fields };
    for (step, alone) in alone.iter().enumerate() {
        let draws = Draws::new(&stream, step as u64, 0, 0);
        POLICIES.iter().filter(|p| p.name() != "cutmix").for_each(|p| {
            p.draw(&input, &defaults(*p), &draws);
        });
        assert_eq!(*alone, super::cutmix::CutMix.draw(&input, &defaults(&super::cutmix::CutMix), &draws));
    }
}

#[test]
fn the_table_lists_every_policy_with_its_parameters() {
    let table = table();
    assert_eq!(table.lines().count(), 2 + POLICIES.len());
    for (line, policy) in table.lines().skip(2).zip(POLICIES) {
        assert!(line.starts_with(&format!("| `{}` |", policy.name())), "{line}");
        assert_eq!(line.matches(" | ").count(), 4, "five columns: {line}");
        assert!(policy.params().iter().all(|p| line.contains(&format!("`{}` = {} (", p.name, p.default))));
        assert!(policy.choices().iter().all(|c| c.values.iter().all(|v| line.contains(v))));
        assert!(line.ends_with(&format!("({}) |", policy.url())));
    }
}
