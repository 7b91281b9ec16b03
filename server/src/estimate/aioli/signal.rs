//! Is it signal or noise: the sweeps of a round against each other.

use super::equations::Equations;
use super::evidence::Segment;
use std::borrow::Cow;

/// What the sweeps say about the column sums.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signal {
    /// Standard error of each column sum; empty with fewer than two complete sweeps.
    pub errors: Vec<f64>,
    /// James-Stein factor on the differences between column sums: 1 is signal, 0 is noise; 1 when errors are unknown.
    pub shrinkage: f64,
}

/// Compares the complete sweeps of `segments`, given the round's column sums. Drops are weighted as the sums are; a drift
/// that is linear in time is taken out first, then each sweep's level.
pub(super) fn signal(segments: &[Segment], sums: &[f64], weights: &[f64]) -> Signal {
    let m = sums.len();
    let live = weights.iter().filter(|w| **w > 0.0).count() as f64;
    let drop = |s: &Segment| {
        let known = weights.iter().zip(&s.drop).filter(|(w, _)| **w > 0.0);
        live * known.map(|(w, d)| w * d).sum::<f64>()
    };
    let drops: Vec<f64> = segments.iter().map(drop).collect();
    let slope = drift(segments, m, &drops);
    let center = segments.iter().map(|s| s.middle).sum::<f64>() / segments.len().max(1) as f64;
    let mut numbers: Vec<u32> = segments.iter().map(|s| s.sweep).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut sweeps = Vec::new();
    for number in numbers {
        let sweep: Vec<(&Segment, f64)> =
            segments.iter().zip(drops.iter().copied()).filter(|(s, _)| s.sweep == number).collect();
        if complete(&sweep, m) {
            let shares: Vec<Cow<'_, [f64]>> =
                sweep.iter().map(|(s, _)| Cow::Borrowed(&s.shares[..])).collect();
            let steps: Vec<f64> = sweep.iter().map(|(s, _)| s.steps).collect();
            let probed: Vec<usize> = sweep.iter().map(|(s, _)| s.group).collect();
            let right: Vec<f64> =
                sweep.iter().map(|(s, drop)| drop - s.steps * slope * (s.middle - center)).collect();
            let equations = Equations::new(&shares, &steps, &probed, m);
            sweeps.push(less_mean(&equations.solve(&right, &vec![0.0; m], 1)));
        }
    }
    let k = sweeps.len() as f64;
    if k < 2.0 {
        return Signal { errors: Vec::new(), shrinkage: 1.0 };
    }
    let variance = |j: usize| {
        let mean = sweeps.iter().map(|s| s[j]).sum::<f64>() / k;
        sweeps.iter().map(|s| (s[j] - mean) * (s[j] - mean)).sum::<f64>() / (k - 1.0) / k
    };
    let variances: Vec<f64> = (0..m).map(variance).collect();
    let noise = variances.iter().sum::<f64>() / m as f64;
    let spread: f64 = less_mean(sums).iter().map(|d| d * d).sum();
    let shrinkage = if spread > 0.0 { (1.0 - (m as f64 - 1.0) * noise / spread).max(0.0) } else { 0.0 };
    Signal { errors: variances.iter().map(|v| libm::sqrt(*v)).collect(), shrinkage }
}

/// Whether each group has a probe of its own.
fn complete(sweep: &[(&Segment, f64)], groups: usize) -> bool {
    let mut there = vec![false; groups];
    sweep.iter().filter(|(s, _)| s.own).for_each(|(s, _)| there[s.group] = true);
    there.iter().all(|t| *t)
}

/// Change of the drop per step with time, within the probes of each group.
fn drift(segments: &[Segment], groups: usize, drops: &[f64]) -> f64 {
    let mut own: Vec<Vec<(f64, f64)>> = vec![Vec::new(); groups];
    segments.iter().zip(drops).for_each(|(s, drop)| own[s.group].push((s.middle, drop / s.steps)));
    let (mut top, mut bottom) = (0.0, 0.0);
    for own in own {
        let n = own.len().max(1) as f64;
        let (time, rate) = own.iter().fold((0.0, 0.0), |(t, r), (a, b)| (t + a / n, r + b / n));
        top += own.iter().map(|(t, r)| (t - time) * (r - rate)).sum::<f64>();
        bottom += own.iter().map(|(t, _)| (t - time) * (t - time)).sum::<f64>();
    }
    if bottom > 0.0 { top / bottom } else { 0.0 }
}

/// Values less their mean.
pub(super) fn less_mean(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    values.iter().map(|v| v - mean).collect()
}

/// Relative gains: shrunk differences over the mean size of the sums, within -1..=1.
pub(super) fn relative(sums: &[f64], shrinkage: f64) -> Vec<f64> {
    let size = sums.iter().map(|g| g.abs()).sum::<f64>() / sums.len().max(1) as f64;
    let gain = |d: f64| if size > 0.0 { (shrinkage * d / size).clamp(-1.0, 1.0) } else { 0.0 };
    less_mean(sums).into_iter().map(gain).collect()
}
