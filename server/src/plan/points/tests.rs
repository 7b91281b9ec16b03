//! What every policy of point clouds must hold, with extreme arguments.

use super::{MOST_PARTS, POLICIES, by_name, table};
use crate::plan::{Args, Draws, Mix, Op, PlanInput, Policy, fields::Bank};
use crate::rng::Stream;
use std::collections::{BTreeMap, BTreeSet};

/// `policy` with these numbers, the others at their defaults.
pub fn args(policy: &dyn Policy, numbers: &[(&str, f64)]) -> Args {
    let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
    Args::resolve(&policy.declared(), &numbers, &BTreeMap::new()).expect("legal")
}

fn at(policy: &dyn Policy, args: &Args, base: u32, next: &[u32], step: u64, row: (u64, u64)) -> Mix {
    let (stream, fields) = (Stream::new(5, "mix"), Bank::new(5, 1, 1));
    let partner = next[base as usize];
    let input = PlanInput { height: 1, width: 1, base, partner, next, fields: &fields };
    policy.draw(&input, args, &Draws::new(&stream, step, row.0, row.1))
}

/// Row `base` of a block of these partners at `step`.
pub fn draw(policy: &dyn Policy, args: &Args, base: u32, next: &[u32], step: u64) -> Mix {
    at(policy, args, base, next, step, (0, 0))
}

/// Row 0 of a block of two at `n` steps.
pub fn draw_many(policy: &dyn Policy, args: &Args, n: u64) -> Vec<Mix> {
    (0..n).map(|step| draw(policy, args, 0, &[1, 0], step)).collect()
}

/// Checks an op of row 0 of a block of `rows`; tells how many parts it may add.
fn check(op: &Op, rows: u32) -> usize {
    let turn = std::f32::consts::TAU + 1e-5;
    match op {
        Op::Union { scenes } => {
            let distinct: BTreeSet<_> = scenes.iter().collect();
            assert!(!scenes.is_empty() && distinct.len() == scenes.len(), "{op:?}");
            assert!(scenes.iter().all(|s| (1..rows).contains(s)), "{op:?}");
            scenes.len()
        }
        Op::Sectors { src, from, to } => {
            assert!(*src == 1 && from < to && to - from <= turn && from.abs() <= turn / 2.0, "{op:?}");
            1
        }
        Op::Instances { src, classes, angles } => {
            assert!(*src == 1 && !classes.is_empty() && classes.is_sorted(), "{op:?}");
            assert!(angles[0] == 0.0 && angles.iter().all(|a| (0.0..=turn).contains(a)), "{op:?}");
            angles.len()
        }
        Op::Bands { src, edges, .. } => {
            assert!(*src == 1 && !edges.is_empty() && edges.is_sorted(), "{op:?}");
            assert!(edges.iter().all(|e| e.abs() <= turn / 4.0), "{op:?}");
            1
        }
        Op::Blend { .. } | Op::Paste { .. } | Op::MaskBlend { .. } => panic!("{op:?} is of pictures"),
    }
}

/// Defaults, everything at its least, everything at its most, and each number alone at either end.
fn extremes(policy: &dyn Policy) -> Vec<Args> {
    let params = policy.params();
    let every = |pick: fn(&crate::plan::Param) -> f64| params.iter().map(|p| (p.name, pick(p))).collect();
    let mut numbers: Vec<Vec<(&str, f64)>> = vec![vec![], every(|p| p.min), every(|p| p.max)];
    params.iter().for_each(|p| numbers.extend([vec![(p.name, p.min)], vec![(p.name, p.max)]]));
    let legal = |n: Vec<(&str, f64)>| {
        let numbers = n.into_iter().map(|(n, v)| (n.to_string(), v)).collect();
        Args::resolve(&policy.declared(), &numbers, &BTreeMap::new()).ok()
    };
    let args: Vec<Args> = numbers.into_iter().filter_map(legal).collect();
    assert!(args.len() > params.len(), "`{}`: most extremes must be legal", policy.name());
    args
}

#[test]
fn policies_are_registered_in_order_and_documented() {
    assert!(POLICIES.is_sorted_by_key(|p| p.name()));
    for policy in POLICIES {
        let name = policy.name();
        assert_eq!(by_name(name).map(|p| p.name()), Some(name));
        assert!(crate::plan::image::by_name(name).is_none(), "a name has one meaning");
        assert!(policy.url().starts_with("https://") && policy.paper().ends_with(')'), "{name}");
        for p in policy.params() {
            assert!(p.min <= p.default && p.default <= p.max && !p.doc.is_empty(), "{name} {p:?}");
        }
    }
    assert!(by_name("mixup").is_none());
    let table = table();
    assert_eq!(table.lines().count(), 2 + POLICIES.len());
    assert!(table.lines().skip(2).zip(POLICIES).all(|(l, p)| l.starts_with(&format!("| `{}` |", p.name()))));
}

#[test]
fn every_policy_draws_legal_mixes_with_every_extreme() {
    for policy in POLICIES {
        for args in extremes(*policy) {
            for (step, next) in
                (0..60).zip([&[1, 0][..], &[1, 2, 0], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]].iter().cycle())
            {
                let mix = draw(*policy, &args, 0, next, step);
                assert_eq!(mix, draw(*policy, &args, 0, next, step), "reproducible");
                assert_eq!((mix.sampled, mix.own), (1.0, 1.0), "points keep their labels");
                let parts: usize = mix.ops.iter().map(|op| check(op, next.len() as u32)).sum();
                assert!(parts < MOST_PARTS, "{parts} besides the base");
            }
        }
    }
}

#[test]
fn rows_of_a_unit_share_every_draw_and_units_and_steps_differ() {
    for policy in POLICIES.iter().filter(|p| p.name() != "mix3d") {
        let args = args(*policy, &[]);
        let draw = |step, unit, row| at(*policy, &args, 0, &[1, 0], step, (unit, row));
        let first = draw(1, 2, 2);
        assert_eq!(first, draw(1, 2, 3), "`{}`: another row of the unit", policy.name());
        // LaserMix has eight results: twenty draws are all equal once in 8^19.
        let many = |f: &dyn Fn(u64) -> Mix| (0..20).any(|i| f(i) != first);
        assert!(many(&|i| draw(2 + i, 2, 2)) && many(&|i| draw(1, 3 + i, 3 + i)), "`{}`", policy.name());
    }
}
