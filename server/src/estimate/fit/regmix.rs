//! RegMix: a regression from mixtures to the objective, searched by simulation.
//!
//! "RegMix: Data Mixture as Regression for Language Model Pre-training" (2024), <https://arxiv.org/abs/2407.01492>. The
//! paper's regression is boosted trees; ours is a quadratic ridge, whose ridge is chosen by leaving runs out.

use super::super::post::water_fill;
use super::super::quadratic::Quadratic;
use super::super::simplex::{dirichlet, normalised};
use super::{Aim, Answer, FitError, Runs};
use crate::rng::{Draw, Stream};

/// Mixtures that are simulated.
const SAMPLES: u64 = 100_000;
/// Best ones that are averaged.
const BEST: usize = 128;
/// Strengths of the Dirichlet law around the mean of the runs, per group: 15 values, evenly in their logarithm.
const STRENGTHS: (f64, f64, u64) = (0.1, 5.0, 15);
/// Shares below this are 0.
const SMALLEST: f64 = 2e-4;
/// Fewest runs.
const RUNS: usize = 8;

/// The mixture with the lowest predicted objective and the regression's R² on runs left out; 1 is perfect, 0 no better
/// than the mean. Mixtures far from every run are not to be trusted.
///
/// # Errors
/// [`FitError`] with fewer than 8 runs that have every weighted loss, with runs that are all alike, or with caps that
/// leave no mixture.
pub fn fit(runs: &Runs, aim: &Aim, seed: u64) -> Result<(Answer, f64), FitError> {
    runs.check(aim)?;
    let (mixtures, values) = runs.with_objective(&aim.objective);
    if mixtures.len() < RUNS {
        return Err(FitError::Few { task: runs.tasks(), found: mixtures.len(), want: RUNS });
    }
    let m = runs.groups();
    let mean = |j: usize| mixtures.iter().map(|w| w[j]).sum::<f64>() / mixtures.len() as f64;
    let prior: Vec<f64> = (0..m).map(mean).collect();
    let Some(surface) = Quadratic::fit(&mixtures, &values, &prior) else {
        return Err(FitError::Table("the runs are all alike: nothing can be learnt from them".into()));
    };
    let stream = Stream::new(seed, "estimate/regmix");
    let low = vec![0.0; m];
    let mut best: Vec<(f64, Vec<f64>)> = Vec::new();
    for sample in 0..SAMPLES {
        let w = water_fill(&simulate(&stream, sample, &prior), &low, &aim.caps);
        let value = surface.at(&w);
        if best.len() < BEST || best.last().is_some_and(|(v, _)| value < *v) {
            let at = best.partition_point(|(v, _)| *v <= value);
            best.insert(at, (value, w));
            best.truncate(BEST);
        }
    }
    let sum = |j: usize| best.iter().map(|(_, w)| w[j]).sum::<f64>();
    let shares = normalised(&(0..m).map(sum).collect::<Vec<_>>()).unwrap_or(prior);
    let predicted = surface.at(&shares);
    Ok((Answer { shares, predicted, best_run: runs.best_run(&aim.objective) }, surface.r2))
}

/// One mixture around the prior.
fn simulate(stream: &Stream, sample: u64, prior: &[f64]) -> Vec<f64> {
    let mut rng = stream.at(Draw::PrivateA, sample, 0);
    let (first, last, count) = STRENGTHS;
    let part = rng.below(count) as f64 / (count - 1) as f64;
    let strength = first * libm::pow(last / first, part) * prior.len() as f64;
    let drawn = dirichlet(&mut rng, &prior.iter().map(|p| strength * p).collect::<Vec<_>>());
    let cut: Vec<f64> = drawn.iter().map(|w| if *w < SMALLEST { 0.0 } else { *w }).collect();
    normalised(&cut).unwrap_or_else(|| prior.to_vec())
}
