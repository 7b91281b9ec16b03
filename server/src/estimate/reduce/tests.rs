//! Aggregation: vectors of the specification, metamorphic relations, and who beats whom under attack.

use super::*;
use crate::rng::{Draw, Stream};

fn plain(values: &[f64]) -> Part {
    Part { values: values.to_vec(), counts: Vec::new() }
}

fn line(values: &[f64]) -> Vec<Part> {
    values.iter().map(|v| plain(&[*v])).collect()
}

#[test]
fn nearest_neighbours_of_the_specification() {
    let merged = merge(Rule::Nearest, &line(&[0.0, 1.0, 2.0, 3.0, 100.0]), Some(1)).expect("finite");
    assert_eq!((merged.part.values, merged.dropped), (vec![1.5], vec![4]));
}

#[test]
fn shards_add_up() {
    let part = |values: &[f64], counts: &[f64]| Part { values: values.to_vec(), counts: counts.to_vec() };
    let parts = [part(&[10.0, 0.0], &[5.0, 0.0]), part(&[2.0, 8.0], &[1.0, 4.0])];
    let merged = merge(Rule::Mean, &parts, None).expect("finite");
    assert_eq!(merged.part, part(&[12.0, 8.0], &[6.0, 4.0]));
    assert_eq!(merge(Rule::Mean, &line(&[1.0, 2.0, 6.0]), None).expect("finite").part.values, [3.0]);
}

#[test]
fn copies_keep_the_count_of_one() {
    let part = |mean: f64| Part { values: vec![mean * 7.0, 0.0], counts: vec![7.0, 0.0] };
    let parts: Vec<Part> = [1.0, 2.0, 3.0, 4.0, 90.0].map(part).to_vec();
    for (rule, want) in [(Rule::Nearest, 2.5), (Rule::Trimmed, 3.0)] {
        let merged = merge(rule, &parts, Some(1)).expect("finite").part;
        assert!((merged.values[0] - want * 7.0).abs() < 1e-12, "{rule:?} {merged:?}");
        assert_eq!((merged.values[1], merged.counts), (0.0, vec![7.0, 0.0]));
    }
}

#[test]
fn broken_parts_are_dropped_first_and_count_as_faulty() {
    let mut parts = line(&[0.0, 1.0, 2.0, 3.0, 4.0, 50.0]);
    parts.push(plain(&[f64::NAN]));
    // Two may be faulty: the broken one and one more.
    let merged = merge(Rule::Nearest, &parts, Some(2)).expect("finite");
    assert_eq!((merged.part.values, merged.dropped), (vec![2.0], vec![5, 6]));
    let merged = merge(Rule::Nearest, &parts, Some(1)).expect("finite");
    assert_eq!(
        (merged.part.values, merged.dropped),
        (vec![10.0], vec![6]),
        "the broken one was the faulty one"
    );
    parts[6] = plain(&[1.0, 1.0]);
    assert_eq!(merge(Rule::Nearest, &parts, Some(1)).expect("finite").dropped, [6], "another length");
    assert_eq!(merge(Rule::Nearest, &[plain(&[f64::INFINITY])], None), None);
    assert_eq!(merge(Rule::Mean, &[], None), None);
    let odd = Part { values: vec![1.0], counts: vec![1.0, 2.0] };
    assert_eq!(merge(Rule::Mean, &[odd], None), None);
}

#[test]
fn few_parts_give_the_mean_and_defaults_are_a_quarter() {
    for rule in [Rule::Nearest, Rule::Trimmed] {
        assert_eq!(merge(rule, &line(&[1.0, 100.0]), Some(1)).expect("finite").part.values, [50.5]);
        let default = merge(rule, &line(&[1.0, 2.0, 3.0, 2.0, 99.0]), None).expect("finite").part.values;
        assert_eq!(
            default,
            merge(rule, &line(&[1.0, 2.0, 3.0, 2.0, 99.0]), Some(1)).expect("finite").part.values
        );
    }
    assert_eq!([1, 2, 4, 5, 8, 9, 0].map(default_faulty), [0, 0, 0, 1, 1, 2, 0]);
}

#[test]
fn ties_are_broken_by_rank() {
    let merged = merge(Rule::Nearest, &line(&[1.0, -1.0, 0.0, 1.0, -1.0]), Some(2)).expect("finite");
    assert_eq!(merged.dropped, [3, 4], "all four are equally far: the first stay");
    assert_eq!(merged.part.values, [0.0]);
}

#[test]
fn none_faulty_is_the_mean_and_order_shift_and_scale_carry_over() {
    let stream = Stream::new(3, "test/reduce");
    for case in 0..50u64 {
        let mut rng = stream.at(Draw::PrivateA, case, 0);
        let vectors: Vec<Vec<f64>> = (0..7).map(|_| (0..4).map(|_| rng.normal()).collect()).collect();
        let parts: Vec<Part> = vectors.iter().map(|v| plain(v)).collect();
        let get = |rule, parts: &[Part], f| merge(rule, parts, Some(f)).expect("finite").part.values;
        let near = |a: &[f64], b: &[f64]| {
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
        };
        for rule in [Rule::Nearest, Rule::Trimmed] {
            near(&get(rule, &parts, 0), &get(Rule::Mean, &parts, 0));
            let one = get(rule, &parts, 2);
            let reversed: Vec<Part> = parts.iter().rev().cloned().collect();
            near(&get(rule, &reversed, 2), &one);
            let moved: Vec<Part> =
                vectors.iter().map(|v| plain(&v.iter().map(|x| 3.0 * x + 5.0).collect::<Vec<_>>())).collect();
            near(&get(rule, &moved, 2), &one.iter().map(|x| 3.0 * x + 5.0).collect::<Vec<_>>());
        }
    }
}

/// Root mean square error of the aggregate of 7 reporters of which 2 are faulty, noise 0.01, 5 numbers.
fn rms(rule: Rule, attack: impl Fn(f64) -> f64) -> f64 {
    let stream = Stream::new(5, "test/attack");
    let mut sum = 0.0;
    let cases = 400;
    for case in 0..cases {
        let mut rng = stream.at(Draw::PrivateA, case, 0);
        let truth: Vec<f64> = (0..5).map(|_| 2.0 + rng.uniform()).collect();
        let mut parts: Vec<Part> = (0..7)
            .map(|_| plain(&truth.iter().map(|t| t + 0.01 * rng.normal()).collect::<Vec<_>>()))
            .collect();
        parts[5..].iter_mut().for_each(|p| p.values.iter_mut().for_each(|v| *v = attack(*v)));
        let merged = merge(rule, &parts, Some(2)).expect("finite").part.values;
        sum += merged.iter().zip(&truth).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    }
    (sum / cases as f64).sqrt()
}

#[test]
fn nearest_neighbours_win_under_attack_and_cost_little_without() {
    let table = |attack: fn(f64) -> f64| [Rule::Mean, Rule::Trimmed, Rule::Nearest].map(|r| rms(r, attack));
    let [mean, _, near] = table(|v| v);
    assert!(mean < 0.0095 && near < 1.4 * mean, "no attack: mean {mean}, nearest {near}");
    for (name, attack, worse) in [
        ("five times", (|v| 5.0 * v) as fn(f64) -> f64, 300.0),
        ("stale", |v| v + 0.3, 10.0),
        ("small shift", |v| v - 0.05, 2.0),
    ] {
        let [mean, trimmed, near] = table(attack);
        assert!(near < trimmed && trimmed < mean && mean > worse * near, "{name}: {mean} {trimmed} {near}");
        assert!(near < 0.0115, "{name}: {near}, as good as without the attack");
    }
    let [mean, _, near] = table(|v| v + 0.02);
    assert!(near < 1.15 * mean, "tiny shift: mean {mean}, nearest {near}");
}
