//! What a job's spec says about its mixture, resolved.

use crate::args::Args;
use crate::estimate::{Estimator, Method, MethodError, Setup, Vectors, post, reduce};
use crate::mixture::Weights;
use std::time::Duration;

/// A method with its arguments.
#[derive(Clone, Debug)]
pub struct Learner {
    /// Name in the log: the method's, with "#2" for a second one of the same name.
    pub name: String,
    /// Method.
    pub method: &'static dyn Method,
    /// Numbers and words.
    pub args: Args,
    /// Lists.
    pub vectors: Vectors,
}

impl Learner {
    /// A fresh estimator.
    ///
    /// # Errors
    /// [`MethodError`] when the arguments don't fit the job.
    pub fn start(&self, setup: &Setup) -> Result<Box<dyn Estimator>, MethodError> {
        self.method.start(setup, &self.args, &self.vectors)
    }

    /// Whether it lives on reports.
    pub fn learns(&self) -> bool {
        !self.method.wants().is_empty()
    }
}

/// When training waits for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Once a round, before the weights change.
    Strict,
    /// After each segment that asks for a report.
    Segment,
    /// Never; new weights hold so many steps after the round's end.
    Lagged(u64),
}

/// Everything that the course of a job depends on, beside events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Names of all groups of the job.
    pub groups: Vec<String>,
    /// Groups that the estimators see: those with weight in the spec.
    pub active: Vec<usize>,
    /// Names of the objective's tasks.
    pub tasks: Vec<String>,
    /// Weights of the spec.
    pub initial: Weights,
    /// What estimators know; its groups are `active`.
    pub setup: Setup,
    /// In charge; `None`: the spec's weights hold until an operator changes them.
    pub learner: Option<Learner>,
    /// Beside it.
    pub shadows: Vec<Learner>,
    /// When training waits.
    pub barrier: Barrier,
    /// How long it waits.
    pub late_after: Duration,
    /// Ranks that report, >= 1.
    pub reporters: u32,
    /// How their reports become one.
    pub reduce: reduce::Rule,
    /// Reporters that may be wrong; `None`: a quarter of the others.
    pub faulty: Option<usize>,
    /// Bounds of learnt shares.
    pub post: post::Rules,
    /// Epochs of a group that its share may lead to; 0 for no cap.
    pub max_epochs: f64,
    /// Rows of one epoch of each active group.
    pub epoch_rows: Vec<f64>,
    /// Digest of the eval sets of the objective; empty when the job has none.
    pub eval_digest: Vec<u8>,
}

impl Rules {
    /// Shares of the active groups as shares of all.
    pub fn widen(&self, shares: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.groups.len()];
        self.active.iter().zip(shares).for_each(|(g, share)| all[*g] = *share);
        all
    }

    /// Values of all groups, the active ones only.
    pub fn narrow<T: Copy>(&self, all: &[T]) -> Vec<T> {
        self.active.iter().map(|g| all[*g]).collect()
    }
}
