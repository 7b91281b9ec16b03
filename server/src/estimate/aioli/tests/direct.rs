//! Regular probes are solved directly, and to the same effects as by least squares.

use super::super::direct::Direct;
use super::super::equations::Equations;
use super::super::evidence::Segment;
use super::super::graph::Graph;
use super::*;
use crate::estimate::plants::times;
use crate::rng::{Draw, Rng, Stream};
use std::borrow::Cow;

/// Two sweeps of probes of `rows` rows as served, lengths and losses of `n` tasks being random.
fn probes(m: usize, n: usize, phi: f64, rows: u64, rng: &mut Rng) -> Vec<Segment> {
    let mut segments = Vec::new();
    for sweep in 0..2 {
        for group in rng.permutation(m).into_iter().map(|j| j as usize) {
            let rest = (1.0 - phi) / (m - 1) as f64;
            let planned: Vec<f64> = (0..m).map(|j| if j == group { phi } else { rest }).collect();
            let shares = hamilton::hamilton(rows, &planned).iter().map(|r| *r as f64 / rows as f64).collect();
            let (steps, before) = ((3 + rng.below(5)) as f64, vec![5.0; n]);
            let drop = (0..n).map(|_| rng.normal()).collect();
            segments.push(Segment { group, sweep, shares, steps, middle: 0.0, before, drop, own: true });
        }
    }
    segments
}

fn parts(segments: &[Segment]) -> (Vec<Cow<'_, [f64]>>, Vec<f64>, Vec<usize>) {
    let shares = segments.iter().map(|s| Cow::Borrowed(&s.shares[..])).collect();
    (shares, segments.iter().map(|s| s.steps).collect(), segments.iter().map(|s| s.group).collect())
}

fn is_direct(segments: &[Segment], m: usize) -> bool {
    let (shares, steps, probed) = parts(segments);
    Direct::new(&shares, &steps, &probed, m).is_some()
}

#[test]
fn it_agrees_with_least_squares_whatever_the_rounding() {
    let stream = Stream::new(3, "test/direct");
    let sizes = [(2, 80), (3, 80), (7, 80), (7, 700), (20, 320), (64, 10_240), (64, 5_003), (128, 10_240)];
    for (case, (m, rows)) in sizes.into_iter().enumerate() {
        for (nth, part) in [0.25, 0.7].into_iter().enumerate() {
            let mut rng = stream.at(Draw::PrivateA, case as u64, nth as u64);
            let phi = part + (1.0 - part) / m as f64;
            let mut segments = probes(m, 5, phi, rows, &mut rng);
            // A sweep need not be whole, as long as each group has a probe.
            segments.pop();
            let (shares, steps, probed) = parts(&segments);
            let right: Vec<f64> = segments.iter().flat_map(|s| s.drop.clone()).collect();
            let known = vec![0.0; m * 5];
            let direct = Direct::new(&shares, &steps, &probed, m).expect("regular").solve(&right, 5);
            let least = Equations::least(&shares, &steps, m).solve(&right, &known, 5);
            let size = least.iter().fold(0.0f64, |top, a| top.max(a.abs()));
            close(&direct, &least, 1e-9 * size);
        }
    }
}

#[test]
fn a_thousand_groups_are_recovered() {
    let (m, n) = (1000, 3);
    let mut rng = Stream::new(5, "test/direct").at(Draw::PrivateA, 0, 0);
    let effects: Vec<f64> = (0..n * m).map(|_| 1e-3 * rng.normal()).collect();
    // 7.68 rows for each of the others: not two probes have the same.
    let mut segments = probes(m, n, 0.25 + 0.75 / m as f64, 10_240, &mut rng);
    for s in &mut segments {
        s.drop = times(&effects, &s.shares).iter().map(|d| d * s.steps).collect();
    }
    assert!(is_direct(&segments, m));
    close(&Graph::unknown(m, n).learn(&segments, &vec![true; n], None), &effects, 1e-14);
}

#[test]
fn other_probes_are_left_to_least_squares() {
    let mut rng = Stream::new(7, "test/direct").at(Draw::PrivateA, 0, 0);
    let segments = probes(7, 1, 0.5, 80, &mut rng);
    assert!(is_direct(&segments, 7));
    let but = |change: &dyn Fn(&mut Vec<Segment>)| {
        let mut changed = segments.clone();
        change(&mut changed);
        is_direct(&changed, 7)
    };
    assert!(!but(&|s| s[0].shares.swap(0, 6)), "sweeps that were served differently");
    assert!(!but(&|s| s.retain(|s| s.group != 3)), "a group without a probe");
    assert!(!but(&|s| s.iter_mut().for_each(|s| s.shares = vec![1.0 / 7.0; 7])), "probes that are all alike");
    let mut other = segments.clone();
    for s in &mut other {
        let odd: Vec<f64> =
            s.shares.iter().map(|x| x + 0.2 * ((s.group * 5 + 3) % 7) as f64 * x * x).collect();
        let sum: f64 = odd.iter().sum();
        s.shares = odd.iter().map(|x| x / sum).collect();
    }
    assert!(!is_direct(&other, 7), "shares far from the form");
}

#[test]
fn what_overflows_leaves_what_is_known() {
    let mut rng = Stream::new(9, "test/direct").at(Draw::PrivateA, 0, 0);
    let segments = probes(3, 2, 0.5, 80, &mut rng);
    let (shares, steps, probed) = parts(&segments);
    let equations = Equations::new(&shares, &steps, &probed, 3);
    assert!(matches!(equations, Equations::Direct(_)));
    let mut right = vec![0.5; 2 * segments.len()];
    right[4] = f64::INFINITY;
    let found = equations.solve(&right, &[7.0; 6], 2);
    assert!([0, 2, 4].iter().all(|at| found[*at] == 7.0) && [1, 3, 5].iter().all(|at| found[*at] != 7.0));
}
