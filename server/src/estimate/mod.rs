//! Learning the mixture: estimators as pure state machines.
//!
//! ```text
//! directive (windows of steps, what to report) -> served, trained -> observe (what was reported) -> directive -> ...
//! ```
//! An [`Estimator`] has no clock and does no I/O; what it draws comes from `rng` by (seed, "estimate/NAME", round). The
//! keeper turns its windows into entries of the mixture log, collects reports, reduces those of several ranks
//! ([`reduce`]) and bounds its shares ([`post`]). The same evidence in the same order gives the same bits.

mod ado;
mod aioli;
mod cholesky;
mod curve;
mod doge;
mod doremi;
pub mod eg;
pub mod fit;
mod fold;
mod given;
pub mod hamilton;
mod odm;
mod pike;
#[cfg(test)]
mod plants;
pub mod post;
mod proportional;
mod quadratic;
pub mod reduce;
mod schedule;
mod simplex;
mod skill_it;
pub mod solve;
mod state;
mod stratified;
mod table;
mod temperature;
mod tikmix;

pub use state::{Reader, StateError, Writer};
pub use table::{table, wanted};

use crate::args::{Args, Choice, Declared, Param};
use std::collections::BTreeMap;

/// What a trainer can be asked to report; `ReportKind` of the contract says what each holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// Held-out loss per task.
    Eval,
    /// Training loss per group.
    Train,
    /// Excess loss over a reference model per group.
    Excess,
    /// Inner products with the objective's gradient per group.
    Dots,
    /// Gradient norms and variances per group.
    GradientStats,
    /// Influence of groups on tasks, (tasks, groups) row-major.
    Influence,
    /// A linear sketch of one gradient.
    Sketch,
    /// Aggregate influence of each of [`Estimator::candidates`].
    Candidates,
}

/// When a report is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Before the window's first step.
    Before,
    /// After the window's last step.
    After,
    /// After each of its steps.
    EachStep,
}

/// What a window is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Weights in charge; may be bounded by [`post`].
    Main,
    /// A probe: served exactly, by counts.
    Probe {
        /// Group that is probed.
        group: usize,
        /// Sweep over the groups, from 0.
        sweep: u32,
    },
}

/// Steps of a window that lasts until somebody changes the weights.
pub const FOREVER: u64 = u64::MAX;

/// A run of steps under one mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What it is for.
    pub kind: WindowKind,
    /// Steps, >= 1; [`FOREVER`] for the last one of a directive without barrier.
    pub steps: u64,
    /// Share of each group, >= 0, summing to 1.
    pub shares: Vec<f64>,
    /// Reports that are due.
    pub wants: Vec<(When, Want)>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    /// Windows in order, at least one.
    pub windows: Vec<Window>,
    /// Whether the next directive depends on what is reported about this one: training waits (or lags) at its end.
    /// Without it the next directive follows at once, and this one is observed as soon as it is complete.
    pub barrier: bool,
}

/// One report, reduced over ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// What it is.
    pub want: Want,
    /// Steps completed when it was taken.
    pub to_step: u64,
    /// See `ReportKind`: sums of losses, dots, norms, the matrix, the sketch.
    pub values: Vec<f64>,
    /// Tokens behind each value.
    pub counts: Vec<f64>,
    /// Second vector.
    pub more: Vec<f64>,
    /// Learning rate, 0 when not told.
    pub lr: f64,
    /// Sketch: task or group.
    pub owner: usize,
    /// Sketch: of a held-out gradient.
    pub held_out: bool,
}

/// What became of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The window as it was served (cut short by a restart, perhaps).
    pub window: Window,
    /// Its first step.
    pub from_step: u64,
    /// Optimizer steps applied in it: its steps less those that the trainer skipped.
    pub steps: u64,
    /// Rows served per group: divided by their sum they are the realised shares.
    pub rows: Vec<u64>,
    /// Held-out loss per task before its first step, nats per token; NaN for a task that has none. `None`: not told.
    pub before: Option<Vec<f64>>,
    /// The same after its last step.
    pub after: Option<Vec<f64>>,
    /// Other reports, by step, kind and owner.
    pub reports: Vec<Reduced>,
}

impl Seen {
    /// Realised share of each group; zeros when nothing was served.
    pub fn realised(&self) -> Vec<f64> {
        let total: u64 = self.rows.iter().sum();
        self.rows.iter().map(|r| if total == 0 { 0.0 } else { *r as f64 / total as f64 }).collect()
    }
}

/// What an estimator made of its evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether the evidence was used; three rounds in a row without are a degraded job.
    pub used: bool,
    /// Numbers for the log, by name: "colsum", "se", "lambda_js", ...; lists are per group unless said.
    pub facts: Vec<(&'static str, Vec<f64>)>,
}

/// What every estimator of a job knows from the start. Groups here are those with weight > 0 in the job's spec; the keeper
/// maps them to the job's groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Groups m.
    pub groups: usize,
    /// Tasks n: held-out sets of the objective.
    pub tasks: usize,
    /// Task whose held-out set is group j's own.
    pub own_task: Vec<Option<usize>>,
    /// Weight q_i of each task, > 0, summing to 1.
    pub objective: Vec<f64>,
    /// Whether the mean perplexity counts instead of the mean loss.
    pub perplexity: bool,
    /// Shares of the job's spec.
    pub initial: Vec<f64>,
    /// Tokens (or records) of one epoch of each group.
    pub sizes: Vec<f64>,
    /// Rows of a step.
    pub batch: u64,
    /// Steps of the job, 0 when it has no end.
    pub max_steps: u64,
    /// The job's seed.
    pub seed: u64,
    /// Loss of a uniform guess in nats (ln V), when known; losses far above it are refused.
    pub log_vocabulary: Option<f64>,
}

impl Setup {
    /// Weights of the tasks that turn losses into the objective: q, or for perplexity q_i e^{L_i} / sum by the chain rule.
    /// Tasks whose loss is not finite get 0; zeros when all are.
    pub fn task_weights(&self, losses: &[f64]) -> Vec<f64> {
        let known = |i: usize| losses.get(i).is_some_and(|l| l.is_finite());
        let top = losses.iter().copied().filter(|l| l.is_finite()).fold(f64::NEG_INFINITY, f64::max);
        let raw: Vec<f64> = (0..self.tasks)
            .map(|i| match (known(i), self.perplexity) {
                (false, _) => 0.0,
                (true, false) => self.objective[i],
                (true, true) => self.objective[i] * libm::exp(losses[i] - top),
            })
            .collect();
        let sum: f64 = raw.iter().sum();
        raw.iter().map(|w| if sum > 0.0 { w / sum } else { 0.0 }).collect()
    }
}

/// An estimator at work.
pub trait Estimator: Send + std::fmt::Debug {
    /// What happens from `step` on. Called once per directive, in order.
    fn directive(&mut self, step: u64) -> Directive;

    /// Learns from the windows of one directive, its own or (as a shadow) those of the one in charge: windows it did not
    /// ask for must be welcome, evidence that is missing too.
    fn observe(&mut self, seen: &[Seen]) -> Verdict;

    /// Shares that it would serve now, summing to 1.
    fn shares(&self) -> Vec<f64>;

    /// An operator has set the weights: go on from them.
    fn steer(&mut self, shares: &[f64]);

    /// Mixtures whose influence it wants measured ([`Want::Candidates`]).
    fn candidates(&self) -> Vec<Vec<f64>> {
        Vec::new()
    }

    /// Everything it has learnt, bit for bit.
    fn save(&self, out: &mut Writer);

    /// The opposite of [`Estimator::save`], on a fresh estimator of the same method, setup and arguments.
    ///
    /// # Errors
    /// [`StateError`] when the bytes are not of such a one; the estimator is as before then.
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError>;
}

/// Arguments of a method that do not fit the job.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MethodError {
    /// A list has another length, or an entry that is not legal.
    #[error("vector `{name}` of estimator `{method}` {why}")]
    Vector {
        /// Method.
        method: &'static str,
        /// List.
        name: String,
        /// What is there and what is wanted.
        why: String,
    },
    /// The method cannot work on this job.
    #[error("estimator `{method}` {why}")]
    Job {
        /// Method.
        method: &'static str,
        /// What is there and what is wanted.
        why: String,
    },
}

/// Lists of numbers by name.
pub type Vectors = BTreeMap<String, Vec<f64>>;

/// A list that a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorInfo {
    /// Name in the job spec.
    pub name: &'static str,
    /// Meaning, length, default.
    pub doc: &'static str,
}

/// A way of setting the weights; a unit struct in a file of its own.
pub trait Method: Sync + std::fmt::Debug {
    /// Name in job specs, metrics and tables: the paper's, in snake_case.
    fn name(&self) -> &'static str;
    /// Title and year.
    fn paper(&self) -> &'static str;
    /// Where to read it.
    fn url(&self) -> &'static str;
    /// One sentence for tables.
    fn summary(&self) -> &'static str;
    /// Numbers it takes.
    fn params(&self) -> &'static [Param] {
        &[]
    }
    /// Choices it takes.
    fn choices(&self) -> &'static [Choice] {
        &[]
    }
    /// Lists it takes.
    fn vectors(&self) -> &'static [VectorInfo] {
        &[]
    }
    /// Reports it lives on: asked for in its windows; as a shadow it gets what is reported anyway.
    fn wants(&self) -> &'static [(When, Want)] {
        &[]
    }
    /// What it takes, for [`Args::resolve`].
    fn declared(&self) -> Declared {
        Declared { kind: "estimator", name: self.name(), params: self.params(), choices: self.choices() }
    }
    /// An estimator for a job.
    ///
    /// # Errors
    /// [`MethodError`] when `args` or `vectors` don't fit the job.
    fn start(&self, setup: &Setup, args: &Args, vectors: &Vectors)
    -> Result<Box<dyn Estimator>, MethodError>;
}

/// Every method, by name.
pub const METHODS: &[&dyn Method] = &[
    &given::Given,
    &stratified::Stratified,
    &proportional::Proportional,
    &temperature::Temperature,
    &schedule::Schedule,
    &aioli::Aioli,
    &doge::Doge,
    &doremi::Doremi,
    &skill_it::SkillIt,
    &odm::Odm,
    &ado::Ado,
    &pike::Pike,
    &tikmix::TikmixD,
    &tikmix::TikmixM,
];

/// The method called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|m| m.name() == name)
}

/// The list `name` when it is given.
///
/// # Errors
/// [`MethodError::Vector`] unless it has `len` finite entries >= 0.
fn vector(
    method: &dyn Method,
    vectors: &Vectors,
    name: &str,
    len: usize,
) -> Result<Option<Vec<f64>>, MethodError> {
    let Some(values) = vectors.get(name) else { return Ok(None) };
    let wrong = |why| MethodError::Vector { method: method.name(), name: name.into(), why };
    if values.len() != len {
        return Err(wrong(format!("has {} entries, want {len}", values.len())));
    }
    match values.iter().find(|v| !v.is_finite() || **v < 0.0) {
        Some(bad) => Err(wrong(format!("holds {bad}, want finite numbers >= 0"))),
        None => Ok(Some(values.clone())),
    }
}
