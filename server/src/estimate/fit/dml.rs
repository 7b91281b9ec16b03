//! Data mixing laws: L_i(p) = c_i + exp(k_i + t_i.p), fitted per task, then minimised.
//!
//! "Data Mixing Laws: Optimizing Data Mixtures by Predicting Language Modeling Performance" (2024),
//! <https://arxiv.org/abs/2403.16952>. On the simplex a constant can move between t_i and k_i: only contrasts of t_i mean
//! anything, and they are given with mean 0.

use super::super::cholesky::Cholesky;
use super::super::curve::{Fitted, Problem};
use super::super::post::water_fill;
use super::{Aim, Answer, FitError, Runs};

/// The law of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Law {
    /// c: loss that no mixture takes away, nats.
    pub floor: f64,
    /// k.
    pub log_height: f64,
    /// t, one per group, mean 0: negative lowers the loss.
    pub slopes: Vec<f64>,
    /// Part of the variance over the runs that it explains.
    pub r2: f64,
}

impl Law {
    /// Loss on the mixture `p`.
    pub fn at(&self, p: &[f64]) -> f64 {
        let lean: f64 = self.slopes.iter().zip(p).map(|(t, p)| t * p).sum();
        self.floor + libm::exp(self.log_height + lean)
    }
}

/// Floors that are tried as starts, in parts of the lowest loss.
const FLOORS: [f64; 10] = [0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.96, 0.99];
/// Residuals above this many nats count linearly.
const HUBER: f64 = 0.02;
/// Weight of the square of a slope: keeps what cannot be known near 0.
const RIDGE: f64 = 1e-9;
/// Steps of a descent, and the move that ends it.
const STEPS: usize = 20_000;
const STILL: f64 = 1e-12;

/// A law per task that `aim` weighs, and the mixture that minimises the weighted sum; laws of other tasks are fitted where
/// there are enough runs.
///
/// # Errors
/// [`FitError`] with fewer than groups + 1 runs, with mixtures that don't tell the groups apart, or with caps that leave
/// no mixture.
pub fn fit(runs: &Runs, aim: &Aim) -> Result<(Answer, Vec<Option<Law>>), FitError> {
    runs.check(aim)?;
    let mut laws = Vec::new();
    for (task, weight) in aim.objective.iter().enumerate() {
        match law(runs, task) {
            Ok(law) => laws.push(Some(law)),
            Err(error) if *weight > 0.0 => return Err(error),
            Err(_) => laws.push(None),
        }
    }
    let weighed: Vec<(&Law, f64)> =
        laws.iter().zip(&aim.objective).filter_map(|(l, q)| l.as_ref().map(|l| (l, *q))).collect();
    let (shares, predicted) = descend(&weighed, &aim.caps);
    Ok((Answer { shares, predicted, best_run: runs.best_run(&aim.objective) }, laws))
}

/// The law of one task.
fn law(runs: &Runs, task: usize) -> Result<Law, FitError> {
    let (mixtures, losses) = runs.with_loss(task);
    let groups = runs.groups();
    let (found, want) = (losses.len(), groups + 1);
    if found < want {
        return Err(FitError::Few { task, found, want });
    }
    let (found, want) = (Runs::directions(&mixtures), groups - 1);
    if found < want {
        return Err(FitError::Directions { found, want });
    }
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let residuals = |x: &[f64], out: &mut [f64], rows: &mut [f64]| {
        let floor = libm::exp(x[0]);
        for (i, row) in rows.chunks_exact_mut(x.len()).enumerate() {
            let lean: f64 = x[2..].iter().zip(mixtures[i]).map(|(t, p)| t * p).sum();
            let height = libm::exp(x[1] + lean);
            (row[0], row[1]) = (floor, height);
            row[2..].iter_mut().zip(mixtures[i]).for_each(|(r, p)| *r = height * p);
            out[i] = floor + height - losses[i];
        }
    };
    let mut bounds = vec![(-100.0, 100.0); groups + 2];
    bounds[0] = (libm::log(1e-6 * least), libm::log(least));
    let mut ridge = vec![RIDGE; groups + 2];
    (ridge[0], ridge[1]) = (0.0, 0.0);
    let problem =
        Problem { residuals: &residuals, points: losses.len(), bounds: &bounds, ridge: &ridge, huber: HUBER };
    let starts = FLOORS.iter().filter_map(|part| start(&mixtures, &losses, part * least));
    let tried = starts.map(|start| problem.minimise(&start, 200));
    let best = tried.min_by(|a: &Fitted, b| a.cost.total_cmp(&b.cost));
    let Some(best) = best.filter(|b| b.cost.is_finite()) else {
        return Err(FitError::Table(format!("no law fits the losses of task {task}")));
    };
    let mean = best.at[2..].iter().sum::<f64>() / groups as f64;
    let slopes = best.at[2..].iter().map(|t| t - mean).collect();
    let law = Law { floor: libm::exp(best.at[0]), log_height: best.at[1] + mean, slopes, r2: 0.0 };
    let middle = losses.iter().sum::<f64>() / losses.len() as f64;
    let total: f64 = losses.iter().map(|l| (l - middle) * (l - middle)).sum();
    let missed: f64 = mixtures.iter().zip(&losses).map(|(p, l)| (law.at(p) - l) * (law.at(p) - l)).sum();
    Ok(Law { r2: if total > 0.0 { 1.0 - missed / total } else { 0.0 }, ..law })
}

/// Parameters for a given floor: a line through the logarithm of what is above it.
fn start(mixtures: &[&[f64]], losses: &[f64], floor: f64) -> Option<Vec<f64>> {
    let k = mixtures[0].len();
    let (mut matrix, mut right) = (vec![0.0; k * k], vec![0.0; k]);
    for (p, loss) in mixtures.iter().zip(losses) {
        let height = libm::log((loss - floor).max(1e-9));
        for a in 0..k {
            right[a] += p[a] * height;
            (0..=a).for_each(|b| matrix[a * k + b] += p[a] * p[b]);
        }
    }
    (0..k).for_each(|a| matrix[a * k + a] += 1e-9);
    // Shares sum to 1: the constant is in the slopes.
    let slopes = Cholesky::new(matrix, k)?.solve(&right);
    Some([vec![libm::log(floor), 0.0], slopes].concat())
}

/// The minimum of the weighted laws within the caps, by mirror descent: the sum is convex, so any start will do.
fn descend(laws: &[(&Law, f64)], caps: &[f64]) -> (Vec<f64>, f64) {
    let m = caps.len();
    let low = vec![0.0; m];
    let project = |p: &[f64]| water_fill(p, &low, caps);
    let value = |p: &[f64]| laws.iter().map(|(law, q)| q * law.at(p)).sum::<f64>();
    let mut p = project(&vec![1.0 / m as f64; m]);
    let mut here = value(&p);
    let mut rate = 1.0;
    for _ in 0..STEPS {
        let mut slope = vec![0.0; m];
        for (law, q) in laws {
            let pull = q * (law.at(&p) - law.floor);
            slope.iter_mut().zip(&law.slopes).for_each(|(s, t)| *s += pull * t);
        }
        let mean: f64 = slope.iter().zip(&p).map(|(s, p)| s * p).sum();
        let tried = |rate: f64| {
            let raw: Vec<f64> = p
                .iter()
                .zip(&slope)
                .map(|(p, s)| p * libm::exp((rate * (mean - s)).clamp(-30.0, 30.0)))
                .collect();
            let sum: f64 = raw.iter().sum();
            project(&raw.iter().map(|r| r / sum).collect::<Vec<_>>())
        };
        let mut next = tried(rate);
        while value(&next) > here && rate > 1e-9 {
            rate *= 0.5;
            next = tried(rate);
        }
        let there = value(&next);
        if there > here {
            break;
        }
        let moved: f64 = next.iter().zip(&p).map(|(a, b)| (a - b).abs()).sum();
        (p, here) = (next, there);
        if moved < STILL {
            break;
        }
        rate = (rate * 1.5).min(1e6);
    }
    (p, here)
}
