//! A keeper and a trainer in one.

use super::{Plant, Told};
use crate::estimate::post::{Rules, settle};
use crate::estimate::reduce::{Part, Rule, merge};
use crate::estimate::{
    Directive, Estimator, Reduced, Seen, Verdict, Want, When, Window, WindowKind, hamilton,
};
use crate::rng::{Draw, Stream};
use std::collections::BTreeMap;

/// What faulty reporters tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    /// Always their first reading.
    Stale,
    /// The truth times this.
    Scale(f64),
    /// The truth plus this.
    Shift(f64),
    /// The truth plus noise of this standard deviation.
    Erratic(f64),
    /// NaN.
    Broken,
}

/// How a run goes.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Steps of the run.
    pub steps: u64,
    /// Seed of noise and gaps.
    pub seed: u64,
    /// Rows of a step; many, so that rounding does not matter unless a test wants it to.
    pub batch: u64,
    /// Standard deviation of each reading of each held-out loss.
    pub noise: f64,
    /// Probability that an evaluation never arrives.
    pub missing: f64,
    /// Probability that a number of an evaluation is NaN.
    pub broken: f64,
    /// Ranks that read the plant, each with noise of its own.
    pub reporters: usize,
    /// The last of them that are faulty.
    pub faulty: usize,
    /// What they tell.
    pub attack: Attack,
    /// How readings become one.
    pub rule: Rule,
    /// Reports asked for on top of the estimator's own, in every window: what a shadow gets.
    pub also: Vec<(When, Want)>,
    /// Issue the next directive before the last one is observed where no barrier forbids it, as a keeper does whose
    /// horizon runs ahead.
    pub ahead: bool,
    /// Bounds of main windows, as a keeper sets them.
    pub rules: Option<Rules>,
}

impl Default for Drive {
    fn default() -> Self {
        Drive {
            steps: 1000,
            seed: 1,
            batch: 1 << 20,
            noise: 0.0,
            missing: 0.0,
            broken: 0.0,
            reporters: 1,
            faulty: 0,
            attack: Attack::Stale,
            rule: Rule::Nearest,
            also: Vec::new(),
            ahead: false,
            rules: None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The plant's true losses at the end.
    pub losses: Vec<f64>,
    /// Windows as served, in order.
    pub windows: Vec<Seen>,
    /// Verdicts, one per directive that was observed.
    pub verdicts: Vec<Verdict>,
    /// Shares of each main window, in order.
    pub mains: Vec<Vec<f64>>,
    /// Shares at the end.
    pub shares: Vec<f64>,
}

impl Outcome {
    /// Mean of the true losses at the end.
    pub fn mean(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// Realised share of each group over the whole run.
    pub fn served(&self) -> Vec<f64> {
        let mut rows = vec![0u64; self.shares.len()];
        self.windows.iter().for_each(|w| rows.iter_mut().zip(&w.rows).for_each(|(a, b)| *a += b));
        let total: u64 = rows.iter().sum();
        rows.iter().map(|r| *r as f64 / total as f64).collect()
    }

    /// A fact of every verdict that has it.
    pub fn facts(&self, name: &str) -> Vec<Vec<f64>> {
        let find = |v: &Verdict| v.facts.iter().find(|(n, _)| *n == name).map(|(_, values)| values.clone());
        self.verdicts.iter().filter_map(find).collect()
    }
}

/// Trains `plant` for `how.steps` steps under `estimator`.
pub fn drive(estimator: &mut dyn Estimator, plant: &mut dyn Plant, how: &Drive) -> Outcome {
    let mut run = Run {
        how,
        noise: Stream::new(how.seed, "test/plants"),
        step: 0,
        first: plant.losses(),
        readings: BTreeMap::new(),
        outcome: Outcome {
            losses: Vec::new(),
            windows: Vec::new(),
            verdicts: Vec::new(),
            mains: Vec::new(),
            shares: Vec::new(),
        },
    };
    let mut planned: Option<Directive> = None;
    while run.step < how.steps {
        let directive = planned.take().unwrap_or_else(|| estimator.directive(run.step));
        assert!(!directive.windows.is_empty(), "a directive without windows");
        let length: u64 = directive.windows.iter().fold(0, |sum, w| sum.saturating_add(w.steps));
        if how.ahead && !directive.barrier && run.step.saturating_add(length) < how.steps {
            planned = Some(estimator.directive(run.step + length));
        }
        let windows = &directive.windows;
        let seen: Vec<Seen> =
            windows.iter().filter_map(|window| run.serve(window, plant, estimator)).collect();
        run.outcome.windows.extend(seen.iter().cloned());
        let verdict = estimator.observe(&seen);
        run.outcome.verdicts.push(verdict);
    }
    run.outcome.losses = plant.losses();
    run.outcome.shares = estimator.shares();
    run.outcome
}

/// A run under way.
struct Run<'a> {
    how: &'a Drive,
    noise: Stream,
    step: u64,
    /// Losses before the first step: what stale reporters tell.
    first: Vec<f64>,
    /// Evaluations by step: windows that meet share one.
    readings: BTreeMap<u64, Option<Vec<f64>>>,
    outcome: Outcome,
}

impl Run<'_> {
    /// Trains a window, as far as the run goes.
    fn serve(&mut self, window: &Window, plant: &mut dyn Plant, estimator: &dyn Estimator) -> Option<Seen> {
        let sum: f64 = window.shares.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9 && window.shares.iter().all(|s| *s >= 0.0), "{window:?}");
        assert!(window.steps >= 1 && window.shares.len() == plant.groups(), "{window:?}");
        let steps = window.steps.min(self.how.steps - self.step);
        if steps == 0 {
            return None;
        }
        let mut window = window.clone();
        if window.kind == WindowKind::Main {
            if let Some(rules) = &self.how.rules {
                let last = self.outcome.mains.last().map(Vec::as_slice);
                window.shares = settle(&window.shares, last, rules).shares;
            }
            self.outcome.mains.push(window.shares.clone());
        }
        let wants: Vec<(When, Want)> = window.wants.iter().chain(&self.how.also).copied().collect();
        let from_step = self.step;
        if wants.contains(&(When::Before, Want::Eval)) {
            self.read(plant);
        }
        let rows = hamilton::hamilton(self.how.batch * steps, &window.shares);
        let total: u64 = rows.iter().sum();
        let realised: Vec<f64> = rows.iter().map(|r| *r as f64 / total as f64).collect();
        let mut reports = self.told(&wants, When::Before, plant, &realised, estimator);
        if wants.iter().any(|(when, _)| *when == When::EachStep) {
            for _ in 0..steps {
                plant.step(&realised, 1);
                self.step += 1;
                reports.extend(self.told(&wants, When::EachStep, plant, &realised, estimator));
            }
        } else {
            plant.step(&realised, steps);
            self.step += steps;
        }
        reports.extend(self.told(&wants, When::After, plant, &realised, estimator));
        if wants.contains(&(When::After, Want::Eval)) {
            self.read(plant);
        }
        let reading = |step: u64| self.readings.get(&step).cloned().flatten();
        Some(Seen {
            window: Window { steps, ..window },
            from_step,
            steps,
            rows,
            before: reading(from_step),
            after: reading(self.step),
            reports,
        })
    }

    /// Evaluates the plant now, once per step.
    fn read(&mut self, plant: &dyn Plant) {
        let (how, step) = (self.how, self.step);
        if self.readings.contains_key(&step) {
            return;
        }
        let truth = plant.losses();
        let part = |rank: usize| {
            let mut rng = self.noise.at(Draw::PrivateA, step, rank as u64);
            let noisy = truth.iter().map(|l| l + how.noise * rng.normal()).collect::<Vec<_>>();
            let attack = (rank + how.faulty >= how.reporters).then_some(how.attack);
            let Some(attack) = attack else { return Part { counts: vec![1.0; noisy.len()], values: noisy } };
            let values = match attack {
                Attack::Stale => self.first.clone(),
                Attack::Scale(by) => noisy.iter().map(|l| l * by).collect(),
                Attack::Shift(by) => noisy.iter().map(|l| l + by).collect(),
                Attack::Erratic(by) => noisy.iter().map(|l| l + by * rng.normal()).collect(),
                Attack::Broken => vec![f64::NAN; noisy.len()],
            };
            let counts = vec![1.0; values.len()];
            Part { values, counts }
        };
        let parts: Vec<Part> = (0..how.reporters).map(part).collect();
        let mut gaps = self.noise.at(Draw::PrivateB, step, 0);
        let reading = if how.reporters == 1 {
            Some(parts[0].values.clone())
        } else {
            let merged = merge(how.rule, &parts, Some(how.faulty)).map(|m| m.part);
            merged.map(|p| p.values.iter().zip(&p.counts).map(|(v, n)| v / n).collect())
        };
        let reading = reading.filter(|_| !gaps.chance(how.missing));
        let reading = reading.map(|values: Vec<f64>| {
            values.iter().map(|v| if gaps.chance(how.broken) { f64::NAN } else { *v }).collect()
        });
        self.readings.insert(step, reading);
    }

    /// Reports of one moment other than evaluations.
    fn told(
        &self,
        wants: &[(When, Want)],
        when: When,
        plant: &dyn Plant,
        realised: &[f64],
        estimator: &dyn Estimator,
    ) -> Vec<Reduced> {
        let mut kinds: Vec<Want> = wants
            .iter()
            .filter(|(w, want)| *w == when && *want != Want::Eval)
            .map(|(_, want)| *want)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let one = |want: Want| {
            let told = plant.report(want, realised);
            let told = if !told.is_empty() {
                told
            } else if want == Want::Train {
                vec![self.train(plant, realised)]
            } else if want == Want::Candidates {
                candidates(estimator, plant, realised)
            } else {
                told
            };
            told.into_iter().map(move |t| (want, t))
        };
        let reduced = |(want, told): (Want, Told)| Reduced {
            want,
            to_step: self.step,
            values: told.values,
            counts: told.counts,
            more: told.more,
            lr: told.lr,
            owner: told.owner,
            held_out: told.held_out,
        };
        kinds.into_iter().flat_map(one).map(reduced).collect()
    }

    /// Training losses of one step: sums over the rows of each group.
    fn train(&self, plant: &dyn Plant, realised: &[f64]) -> Told {
        let mut rng = self.noise.at(Draw::PrivateC, self.step, 0);
        let counts: Vec<f64> = realised.iter().map(|s| s * self.how.batch as f64).collect();
        let losses = plant.train_losses();
        let noisy: Vec<f64> = losses.iter().map(|l| l + self.how.noise * rng.normal()).collect();
        Told { values: noisy.iter().zip(&counts).map(|(l, n)| l * n).collect(), counts, ..Told::default() }
    }
}

/// Influence of each mixture that the estimator asks about, by the plant's own influence matrix: the mean over tasks.
fn candidates(estimator: &dyn Estimator, plant: &dyn Plant, realised: &[f64]) -> Vec<Told> {
    let influence = plant.report(Want::Influence, realised);
    let Some(matrix) = influence.first() else { return Vec::new() };
    let (m, n) = (plant.groups(), plant.tasks());
    let value = |w: &Vec<f64>| -> f64 {
        (0..n).map(|i| (0..m).map(|j| matrix.values[i * m + j] * w[j]).sum::<f64>()).sum::<f64>() / n as f64
    };
    vec![Told { values: estimator.candidates().iter().map(value).collect(), ..Told::default() }]
}
