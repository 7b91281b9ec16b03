//! The plants.

use super::{Plant, Told};
use crate::estimate::Want;
use crate::estimate::solve::Lu;
use crate::rng::{Draw, Stream};

/// Mean graph fitted on a run over ArXiv, Books and StackExchange around step 1500, per 500 steps, row-major.
pub const RELEASED: [f64; 9] = [0.595, 0.130, 0.228, 0.005, 0.459, 0.033, 0.161, 0.113, 0.800];

/// (matrix x), `matrix` row-major.
pub fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum()).collect()
}

/// Plant A: L <- L - A x per step.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Drop per step, (tasks, groups) row-major.
    pub effects: Vec<f64>,
    /// Loss per task.
    pub now: Vec<f64>,
    /// Groups.
    pub groups: usize,
}

impl Plant for Linear {
    fn groups(&self) -> usize {
        self.groups
    }
    fn tasks(&self) -> usize {
        self.now.len()
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        let drop = times(&self.effects, shares);
        self.now.iter_mut().zip(&drop).for_each(|(l, d)| *l -= d * steps as f64);
    }
    fn losses(&self) -> Vec<f64> {
        self.now.clone()
    }
}

/// Plant B: a data mixing law over the whole run, L_i = c_i + b_i exp(-(A p)_i), p being the mean share so far.
#[derive(Clone, Debug)]
pub struct MixingLaw {
    /// A, (tasks, groups) row-major.
    pub effects: Vec<f64>,
    /// c, per task.
    pub floors: Vec<f64>,
    /// b, per task.
    pub heights: Vec<f64>,
    /// Steps on each group so far.
    pub served: Vec<f64>,
}

impl MixingLaw {
    /// Losses of a finished run on the mixture `p`.
    pub fn at(&self, p: &[f64]) -> Vec<f64> {
        let law = |(i, drop): (usize, f64)| self.floors[i] + self.heights[i] * libm::exp(-drop);
        times(&self.effects, p).into_iter().enumerate().map(law).collect()
    }
}

impl Plant for MixingLaw {
    fn groups(&self) -> usize {
        self.served.len()
    }
    fn tasks(&self) -> usize {
        self.floors.len()
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        self.served.iter_mut().zip(shares).for_each(|(n, x)| *n += x * steps as f64);
    }
    fn losses(&self) -> Vec<f64> {
        let sum: f64 = self.served.iter().sum();
        self.at(&self.served.iter().map(|n| if sum > 0.0 { n / sum } else { 0.0 }).collect::<Vec<_>>())
    }
}

/// Plants C, D, E and G: dL_i = -sum_j C_ij x_j gain_j (L_i - e_i)^power per step, where gain_j = 1 - epochs_j / worn_j
/// falls with repetition (E) and is 1 for groups that never wear out.
#[derive(Clone, Debug)]
pub struct Saturating {
    /// C, (tasks, groups) row-major.
    pub rates: Vec<f64>,
    /// e, per task.
    pub floors: Vec<f64>,
    /// L, per task.
    pub now: Vec<f64>,
    /// Power of the distance to the floor.
    pub power: f64,
    /// Steps on each group alone that make it worthless; infinite for most.
    pub worn: Vec<f64>,
    /// Steps on each group so far.
    pub served: Vec<f64>,
}

impl Saturating {
    /// A plant whose groups don't wear out.
    pub fn new(rates: &[f64], floors: &[f64], start: &[f64], power: f64) -> Self {
        let m = rates.len() / floors.len();
        Saturating {
            rates: rates.to_vec(),
            floors: floors.to_vec(),
            now: start.to_vec(),
            power,
            worn: vec![f64::INFINITY; m],
            served: vec![0.0; m],
        }
    }

    /// Plant C of the specification.
    pub fn cubic() -> Self {
        let rates = [8e-4, 2e-4, 0.0, 2e-4, 5e-4, 0.0, 0.0, 0.0, 0.01];
        Saturating::new(&rates, &[1.5, 1.5, 3.9], &[6.0, 6.0, 5.0], 3.0)
    }

    /// Its version with linear rates, whose third group saturates.
    pub fn saturated() -> Self {
        let rates = [0.004, 0.001, 0.0, 0.001, 0.002, 0.0, 0.0, 0.0, 0.05];
        Saturating::new(&rates, &[2.0, 2.0, 4.0], &[6.0, 6.0, 5.0], 1.0)
    }

    /// Plant G: the third group's loss is high and nothing lowers it.
    pub fn trap() -> Self {
        let rates = [0.004, 0.001, 0.0, 0.001, 0.002, 0.0, 0.0, 0.0, 0.0];
        Saturating::new(&rates, &[2.0, 2.0, 8.0], &[6.0, 6.0, 8.0], 1.0)
    }

    /// Plant E: the third group is good for `steps` steps and harmful beyond.
    pub fn repeated(steps: f64) -> Self {
        let rates = [0.003, 0.0005, 0.0, 0.0005, 0.003, 0.0, 0.0, 0.0, 0.003];
        let plant = Saturating::new(&rates, &[2.0, 2.0, 2.0], &[6.0, 6.0, 6.0], 1.0);
        Saturating { worn: vec![f64::INFINITY, f64::INFINITY, steps], ..plant }
    }

    /// Plant D: the released graph's proportions, with a group of high loss that gains little from the others. Twice the
    /// perplexity of the rest lies there.
    pub fn released() -> Self {
        let rates: Vec<f64> = RELEASED.iter().map(|a| a / 1500.0).collect();
        Saturating::new(&rates, &[1.6, 2.6, 1.8], &[6.0, 7.0, 6.0], 1.0)
    }
}

impl Plant for Saturating {
    fn groups(&self) -> usize {
        self.served.len()
    }
    fn tasks(&self) -> usize {
        self.floors.len()
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        for _ in 0..steps {
            let gain = |j: usize| shares[j] * (1.0 - self.served[j] / self.worn[j]);
            let pull = times(&self.rates, &(0..shares.len()).map(gain).collect::<Vec<_>>());
            for (i, pull) in pull.iter().enumerate() {
                let above = (self.now[i] - self.floors[i]).max(0.0);
                self.now[i] -= pull * if self.power == 1.0 { above } else { libm::pow(above, self.power) };
            }
            self.served.iter_mut().zip(shares).for_each(|(n, x)| *n += x);
        }
    }
    fn losses(&self) -> Vec<f64> {
        self.now.clone()
    }
}

/// Plant F: quadratic losses L_j = base + (theta - mu_j)' K_j (theta - mu_j) / 2 under gradient descent; tasks are the
/// groups' own. Gradients, Hessians and influences are exact.
#[derive(Clone, Debug)]
pub struct Quadratic {
    /// Parameters.
    pub theta: Vec<f64>,
    /// Minimum of each group's loss.
    pub centers: Vec<Vec<f64>>,
    /// Hessian of each group's loss, (d, d) row-major, positive definite.
    pub hessians: Vec<Vec<f64>>,
    /// Loss at the minimum.
    pub base: f64,
    /// Learning rate.
    pub lr: f64,
    /// Variance of a per-sample gradient, per group.
    pub variances: Vec<f64>,
}

impl Quadratic {
    /// Random losses of `groups` groups in `d` dimensions.
    pub fn random(groups: usize, d: usize, seed: u64) -> Self {
        let mut rng = Stream::new(seed, "test/quadratic").at(Draw::PrivateA, 0, 0);
        let mut normals = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<_>>();
        let hessian = |b: Vec<f64>| -> Vec<f64> {
            let entry = |at: usize| {
                let (r, c) = (at / d, at % d);
                let product: f64 = (0..d).map(|k| b[r * d + k] * b[c * d + k]).sum();
                product / d as f64 + if r == c { 0.2 } else { 0.0 }
            };
            (0..d * d).map(entry).collect()
        };
        Quadratic {
            theta: vec![0.0; d],
            centers: (0..groups).map(|_| normals(d)).collect(),
            hessians: (0..groups).map(|_| hessian(normals(d * d))).collect(),
            base: 1.0,
            lr: 0.01,
            variances: vec![1.0; groups],
        }
    }

    /// Gradient of a group's loss.
    pub fn gradient(&self, group: usize) -> Vec<f64> {
        let away: Vec<f64> = self.theta.iter().zip(&self.centers[group]).map(|(t, c)| t - c).collect();
        times(&self.hessians[group], &away)
    }

    /// S_ij = g_i' H^-1 G_j with H the Hessian of the mixture `shares`: positive is helpful.
    pub fn influence(&self, shares: &[f64]) -> Vec<f64> {
        let d = self.theta.len();
        let entry = |at: usize| shares.iter().zip(&self.hessians).map(|(x, k)| x * k[at]).sum::<f64>();
        let mixture: Vec<f64> = (0..d * d).map(entry).collect();
        let lu = Lu::new(&mixture, d).expect("positive definite");
        let gradients: Vec<Vec<f64>> = (0..self.groups()).map(|j| self.gradient(j)).collect();
        let solved: Vec<Vec<f64>> = gradients.iter().map(|g| lu.solve(g)).collect();
        gradients.iter().flat_map(|g| solved.iter().map(|s| dot(g, s)).collect::<Vec<_>>()).collect()
    }
}

/// Inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Plant for Quadratic {
    fn groups(&self) -> usize {
        self.centers.len()
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        for _ in 0..steps {
            let gradients: Vec<Vec<f64>> = (0..self.groups()).map(|j| self.gradient(j)).collect();
            for (at, theta) in self.theta.iter_mut().enumerate() {
                *theta -= self.lr * shares.iter().zip(&gradients).map(|(x, g)| x * g[at]).sum::<f64>();
            }
        }
    }
    fn losses(&self) -> Vec<f64> {
        let loss = |j: usize| {
            let away: Vec<f64> = self.theta.iter().zip(&self.centers[j]).map(|(t, c)| t - c).collect();
            self.base + dot(&away, &self.gradient(j)) / 2.0
        };
        (0..self.groups()).map(loss).collect()
    }
    fn report(&self, want: Want, shares: &[f64]) -> Vec<Told> {
        let m = self.groups();
        let gradients: Vec<Vec<f64>> = (0..m).map(|j| self.gradient(j)).collect();
        let squares: Vec<f64> = gradients.iter().map(|g| dot(g, g)).collect();
        let told = match want {
            Want::Dots => {
                let target: Vec<f64> = (0..self.theta.len())
                    .map(|at| gradients.iter().map(|g| g[at]).sum::<f64>() / m as f64)
                    .collect();
                let norms: f64 = squares.iter().map(|s| libm::sqrt(*s)).sum();
                Told {
                    values: gradients.iter().map(|g| dot(g, &target)).collect(),
                    more: vec![norms / m as f64],
                    lr: self.lr,
                    ..Told::default()
                }
            }
            Want::GradientStats => Told { values: squares, more: self.variances.clone(), ..Told::default() },
            Want::Influence => Told { values: self.influence(shares), counts: vec![1e6], ..Told::default() },
            Want::Sketch => {
                let sketch = |(at, values): (usize, &Vec<f64>)| Told {
                    values: values.clone(),
                    owner: at % m,
                    held_out: at < m,
                    ..Told::default()
                };
                return gradients.iter().chain(&gradients).enumerate().map(sketch).collect();
            }
            Want::Eval | Want::Train | Want::Excess | Want::Candidates => return Vec::new(),
        };
        vec![told]
    }
}

/// A plant whose losses also walk at random: process noise of this standard deviation per step and task.
#[derive(Debug)]
pub struct Walking<P> {
    /// The plant.
    pub inner: P,
    /// Standard deviation per step.
    pub noise: f64,
    /// Seed of the walk.
    pub seed: u64,
    /// Steps so far.
    pub steps: u64,
    /// The walk so far, per task.
    pub walk: Vec<f64>,
}

impl<P: Plant> Plant for Walking<P> {
    fn groups(&self) -> usize {
        self.inner.groups()
    }
    fn tasks(&self) -> usize {
        self.inner.tasks()
    }
    fn step(&mut self, shares: &[f64], steps: u64) {
        self.inner.step(shares, steps);
        let stream = Stream::new(self.seed, "test/walk");
        for step in self.steps..self.steps + steps {
            let mut rng = stream.at(Draw::PrivateA, step, 0);
            self.walk.iter_mut().for_each(|w| *w += self.noise * rng.normal());
        }
        self.steps += steps;
    }
    fn losses(&self) -> Vec<f64> {
        self.inner.losses().iter().zip(&self.walk).map(|(l, w)| l + w).collect()
    }
    fn report(&self, want: Want, shares: &[f64]) -> Vec<Told> {
        self.inner.report(want, shares)
    }
}

/// Paired differences over seeds: mean, standard deviation and t.
pub fn paired(differences: &[f64]) -> (f64, f64, f64) {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / (n - 1.0);
    (mean, libm::sqrt(variance), mean / libm::sqrt(variance / n))
}

/// The assertion of section 8 that a method beats another one: one-sided t of at least 3 over 8 seeds or more, and no seed
/// worse than two standard deviations.
pub fn assert_better(name: &str, differences: &[f64]) {
    assert!(differences.len() >= 8);
    let (mean, deviation, t) = paired(differences);
    assert!(t <= -3.0, "{name}: mean {mean}, sd {deviation}, t {t}");
    assert!(differences.iter().all(|d| *d <= mean.max(0.0) + 2.0 * deviation), "{name}: {differences:?}");
}
