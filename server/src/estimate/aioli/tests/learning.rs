//! From evidence to weights.

use super::super::evidence::Segment;
use super::super::graph::{Graph, column_sums, normalised};
use super::super::signal::signal;
use super::*;
use crate::estimate::eg;
use crate::estimate::plants::{RELEASED, times};
use crate::rng::{Draw, Stream};

/// A probe without noise.
fn segment(group: usize, sweep: u32, shares: &[f64], steps: f64, effects: &[f64]) -> Segment {
    let drop: Vec<f64> = times(effects, shares).iter().map(|d| d * steps).collect();
    let before = vec![5.0; drop.len()];
    Segment { group, sweep, shares: shares.to_vec(), steps, middle: 0.0, before, drop, own: true }
}

/// The three probes of the specification's vectors: phi 0.5, one step.
fn probes(effects: &[f64]) -> Vec<Segment> {
    let shares = |j: usize| (0..3).map(|k| if k == j { 0.5 } else { 0.25 }).collect::<Vec<_>>();
    (0..3).map(|j| segment(j, 0, &shares(j), 1.0, effects)).collect()
}

#[test]
fn learn_params_of_the_specification() {
    let probes = probes(&RELEASED);
    let beta: Vec<f64> = (0..3).flat_map(|i| probes.iter().map(move |p| p.drop[i])).collect();
    close(&beta, &[0.387, 0.27075, 0.29525, 0.1255, 0.239, 0.1325, 0.30875, 0.29675, 0.4685], 1e-12);
    let mut graph = Graph::unknown(3, 3);
    let effects = graph.learn(&probes, &[true; 3], None);
    close(&effects, &RELEASED, 1e-12);
    let closed: Vec<f64> =
        beta.chunks(3).flat_map(|b| b.iter().map(|x| (x - 0.25 * b.iter().sum::<f64>()) / 0.25)).collect();
    close(&effects, &closed, 1e-12);
    let third = [1.0 / 3.0; 3];
    let sums = column_sums(&normalised(&effects, &[true; 3]), &third);
    close(&sums, &[0.301506, 0.278130, 0.420365], 1e-6);
    let mut log_weights = vec![0.0; 3];
    assert!(eg::step(&mut log_weights, &sums, 0.2));
    close(&eg::softmax(&log_weights), &[0.331192, 0.329648, 0.339160], 1e-6);
    let mut shifted = RELEASED;
    shifted[3] = -0.045;
    let sums = column_sums(&normalised(&shifted, &[true; 3]), &third);
    close(&sums, &[0.293852, 0.290726, 0.415422], 1e-6);
    let mut log_weights = vec![0.0; 3];
    assert!(eg::step(&mut log_weights, &sums, 0.2));
    close(&eg::softmax(&log_weights), &[0.330689, 0.330483, 0.338828], 1e-6);
}

#[test]
fn the_graph_is_recovered_for_any_size_smoothing_order_and_length() {
    let stream = Stream::new(4, "test/aioli");
    for case in 0..60u64 {
        let mut rng = stream.at(Draw::PrivateA, case, 0);
        let m = 2 + rng.below(31) as usize;
        let n = 1 + rng.below(5) as usize;
        let effects: Vec<f64> = (0..n * m).map(|_| 1e-3 * rng.normal()).collect();
        let phi = 1.0 / m as f64 + (1.0 - 1.0 / m as f64) * (0.15 + 0.85 * rng.uniform());
        let mut probes = Vec::new();
        for sweep in 0..2 {
            for group in rng.permutation(m) {
                // Rows are whole, lengths differ, as after a restart.
                let rest = (1.0 - phi) / (m - 1) as f64;
                let planned: Vec<f64> =
                    (0..m).map(|j| if j == group as usize { phi } else { rest }).collect();
                let rows = hamilton::hamilton(40 * m as u64, &planned);
                let shares: Vec<f64> = rows.iter().map(|r| *r as f64 / (40 * m) as f64).collect();
                probes.push(segment(group as usize, sweep, &shares, (3 + rng.below(5)) as f64, &effects));
            }
        }
        let found = Graph::unknown(m, n).learn(&probes, &vec![true; n], None);
        let size = effects.iter().map(|a| a * a).sum::<f64>().sqrt();
        let error = found.iter().zip(&effects).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        assert!(error <= 1e-12 * size, "case {case}: {m} groups, phi {phi}: {}", error / size);
    }
}

/// Shares after rounds on a linear plant, of which each round starts at `base` again.
fn rounds(
    numbers: &[(&str, f64)],
    words: &[(&str, &str)],
    job: &Setup,
    base: f64,
    scale: f64,
) -> Vec<Vec<f64>> {
    let mut e = start("aioli", numbers, words, job);
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-3 * scale).collect();
    let mut losses = vec![base; 3];
    let mut out = Vec::new();
    for round in 0..4 {
        let probes = e.directive(round * 250);
        let seen = served(&probes, round * 250, &mut losses, &linear(&effects));
        assert!(e.observe(&seen).used);
        out.push(e.directive(round * 250 + 72).windows[0].shares.clone());
    }
    out
}

#[test]
fn weights_follow_the_column_sums_of_a_constant_graph() {
    let sums = [0.301506, 0.278130, 0.420365];
    for (word, eta) in [("paper_eg", 0.2), ("paper_eg", 1.0), ("paper_ema", 1.0)] {
        let found = rounds(&[("eta", eta)], &[("variant", word)], &setup(3, 3), 5.0, 1.0);
        for (t, shares) in found.iter().enumerate() {
            let times = if word == "paper_eg" { (t + 1) as f64 } else { 1.0 };
            let want = eg::softmax(&sums.map(|s| eta * times * s));
            close(shares, &want, 1e-5);
        }
        let last = found.last().expect("four rounds");
        let (top, low) = last.iter().fold((0.0f64, 1.0f64), |(t, l), p| (t.max(*p), l.min(*p)));
        assert!(word == "paper_eg" || top / low <= eta.exp(), "the smoothing rule stays within e^eta");
    }
}

#[test]
fn constants_and_scales_of_the_losses_change_nothing() {
    for words in [[("normalisation", "paper")], [("normalisation", "relative")]] {
        let base = rounds(&[], &words, &setup(3, 3), 5.0, 1.0);
        for (loss, scale) in [(50.0, 1.0), (5.0, 3.0), (5.0, 0.1)] {
            let other = rounds(&[], &words, &setup(3, 3), loss, scale);
            base.iter().zip(&other).for_each(|(a, b)| close(a, b, 1e-9));
        }
    }
}

#[test]
fn no_information_moves_nothing() {
    for variant in ["paper_eg", "paper_ema", "short_run"] {
        for normalisation in ["paper", "relative"] {
            let words = [("variant", variant), ("normalisation", normalisation)];
            let mut e = start("aioli", &[("eta", 5.0)], &words, &setup(3, 3));
            let probes = e.directive(0);
            let seen = served(&probes, 0, &mut [3.0; 3], &|_, _| vec![0.0; 3]);
            assert!(e.observe(&seen).used);
            close(&e.shares(), &[1.0 / 3.0; 3], 1e-12);
        }
    }
}

#[test]
fn counterbalanced_sweeps_cancel_a_drift() {
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-2).collect();
    let error = |order: &str| {
        let mut e = start("aioli", &[], &[("order", order)], &setup(3, 3));
        let probes = e.directive(0);
        // Each segment's drop is smaller than the one before, by the same amount.
        let index = std::cell::Cell::new(0.0);
        let drop = |x: &[f64], steps: f64| -> Vec<f64> {
            index.set(index.get() + 1.0);
            linear(&effects)(x, steps).iter().map(|d| d + 0.2 - 0.01 * index.get()).collect()
        };
        let verdict = e.observe(&served(&probes, 0, &mut [9.0; 3], &drop));
        let sums = fact(&verdict, "colsum");
        let truth = column_sums(&effects, &[1.0 / 3.0; 3]);
        let contrast = |s: &[f64]| [s[0] - s[1], s[1] - s[2]];
        contrast(&sums).iter().zip(&contrast(&truth)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(error("counterbalanced") < 1e-12, "{}", error("counterbalanced"));
    assert!(error("random") > 1e-4, "{}", error("random"));
}

#[test]
fn noise_of_the_graph_is_as_predicted() {
    let (k, sigma) = (4u32, 0.01);
    let stream = Stream::new(9, "test/noise");
    let (mut squares, mut count, mut shrinkage) = (0.0, 0.0, 0.0);
    let cases = 400;
    for case in 0..cases {
        let mut rng = stream.at(Draw::PrivateA, case, 0);
        let mut segments: Vec<Segment> = (0..k).flat_map(|_| probes(&RELEASED)).collect();
        for (at, s) in segments.iter_mut().enumerate() {
            (s.sweep, s.middle) = (at as u32 / 3, at as f64);
            s.drop.iter_mut().for_each(|d| *d += sigma * rng.normal());
        }
        let found = Graph::unknown(3, 3).learn(&segments, &[true; 3], None);
        squares += found.iter().zip(&RELEASED).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        count += 9.0;
        let flat = vec![0.0; 3];
        let noise: Vec<Segment> = segments
            .iter()
            .map(|s| Segment { drop: (0..3).map(|_| rng.normal()).collect(), ..s.clone() })
            .collect();
        let effects = Graph::unknown(3, 3).learn(&noise, &[true; 3], None);
        let sums = column_sums(&effects, &[1.0 / 3.0; 3]);
        assert_ne!(sums, flat);
        shrinkage += signal(&noise, &sums, &[1.0 / 3.0; 3]).shrinkage / cases as f64;
    }
    let (b, a) = (0.25, 0.25);
    let want = sigma / f64::from(k).sqrt() * ((1.0f64 - b).powi(2) + 2.0 * b * b).sqrt() / a;
    let found = (squares / count).sqrt();
    assert!((want / (sigma / 2.0) - 3.32).abs() < 0.01, "{want}");
    assert!((found / want - 1.0).abs() < 0.2, "{found}, want {want}");
    assert!(shrinkage < 0.45, "mean factor {shrinkage} on noise alone");
}

#[test]
fn the_signal_is_told_and_shrinks_relative_gains_only() {
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-2).collect();
    let mut e = start("aioli", &[], &[("normalisation", "relative")], &setup(3, 3));
    let probes = e.directive(0);
    let verdict = e.observe(&served(&probes, 0, &mut [9.0; 3], &linear(&effects)));
    let truth = column_sums(&effects, &[1.0 / 3.0; 3]);
    close(&fact(&verdict, "colsum"), &truth, 1e-12);
    close(&fact(&verdict, "graph"), &effects, 1e-12);
    close(&fact(&verdict, "lambda_js"), &[1.0], 1e-9);
    assert!(fact(&verdict, "se").iter().all(|s| *s < 1e-12));
    let mean = truth.iter().sum::<f64>() / 3.0;
    let want: Vec<f64> = truth.iter().map(|g| 0.2 * (g - mean) / mean).collect();
    close(&e.shares(), &eg::softmax(&want), 1e-9);
    let mut one = start("aioli", &[("sweeps", 1.0)], &[], &setup(3, 3));
    let probes = one.directive(0);
    let verdict = one.observe(&served(&probes, 0, &mut [9.0; 3], &linear(&effects)));
    assert!(fact(&verdict, "se").is_empty(), "one sweep knows no error");
}

#[test]
fn variants_of_the_graph() {
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-2).collect();
    let mut e = start("aioli", &[], &[("graph", "diagonal")], &setup(3, 3));
    let probes = e.directive(0);
    let verdict = e.observe(&served(&probes, 0, &mut [9.0; 3], &linear(&effects)));
    let graph = fact(&verdict, "graph");
    // beta_jj / phi, per step.
    close(&graph, &[0.00774, 0.0, 0.0, 0.0, 0.00478, 0.0, 0.0, 0.0, 0.00937], 1e-12);

    let mut once = start("aioli", &[], &[("learn", "once")], &setup(3, 3));
    let probes = once.directive(0);
    once.observe(&served(&probes, 0, &mut [9.0; 3], &linear(&effects)));
    let main = once.directive(72).windows[0].clone();
    assert_eq!((main.kind, main.steps), (WindowKind::Main, crate::estimate::FOREVER));
    let kept = once.shares();
    assert!(once.observe(&served(&probes, 500, &mut [9.0; 3], &linear(&[0.1; 9]))).used);
    assert_eq!(once.shares(), kept);
}

#[test]
fn tasks_other_than_groups_and_perplexity_are_followed() {
    // One foreign task that only the second group helps.
    let mut e = start("aioli", &[("eta", 1.0)], &[], &setup(3, 1));
    let probes = e.directive(0);
    e.observe(&served(&probes, 0, &mut [9.0], &linear(&[0.0, 0.01, 0.0])));
    let p = e.shares();
    assert!(p[1] > 1.5 * p[0] && (p[0] - p[2]).abs() < 1e-9, "{p:?}");
    // Two tasks, the second of higher loss: for perplexity it counts e^2 times as much.
    let effects = [0.011, 0.0, 0.0, 0.01];
    let share = |perplexity: bool| {
        let job = Setup { perplexity, ..setup(2, 2) };
        let mut e = start("aioli", &[("eta", 1.0)], &[], &job);
        let probes = e.directive(0);
        e.observe(&served(&probes, 0, &mut [4.0, 6.0], &linear(&effects)));
        e.shares()[1]
    };
    assert!(share(false) < 0.5 && share(true) > 0.6, "{} {}", share(false), share(true));
}

#[test]
fn groups_are_nothing_but_names() {
    let effects: Vec<f64> = RELEASED.iter().map(|a| a * 1e-2).collect();
    let by = [2usize, 0, 1];
    let permuted: Vec<f64> = (0..3).flat_map(|i| by.map(|j| effects[by[i] * 3 + j])).collect();
    for words in [[("variant", "paper_eg")], [("variant", "paper_ema")], [("normalisation", "relative")]] {
        let learn = |effects: &[f64]| {
            let mut e = start("aioli", &[("eta", 1.0)], &words, &setup(3, 3));
            let probes = e.directive(0);
            e.observe(&served(&probes, 0, &mut [9.0; 3], &linear(effects)));
            e.shares()
        };
        let (plain, other) = (learn(&effects), learn(&permuted));
        close(&by.map(|j| plain[j]), &other, 1e-9);
    }
}
