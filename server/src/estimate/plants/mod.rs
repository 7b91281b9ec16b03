//! Plants: models with known truth, for tests of estimators.
//!
//! ```text
//! let mut estimator = start("aioli", &[("eta", 1.0)], &[("variant", "paper_eg")], &setup(3, 3));
//! let mut plant = Saturating::cubic();
//! let outcome = drive(&mut *estimator, &mut plant, &Drive { steps: 5000, ..Drive::default() });
//! ```
//! [`drive`] is a keeper and a trainer in one: it serves windows by Hamilton counts, reads the plant at their borders
//! (with noise, gaps and several reporters when asked to) and hands the estimator what it saw.

mod aioli;
mod checks;
mod conformance;
mod drive;
mod models;

pub use drive::{Attack, Drive, Outcome, drive};
pub use models::{
    Linear, MixingLaw, Quadratic, RELEASED, Saturating, Walking, assert_better, dot, paired, times,
};

use super::{Estimator, Setup, Vectors, Want, by_name};
use crate::args::Args;

/// A model to be trained.
pub trait Plant {
    /// Groups m.
    fn groups(&self) -> usize;
    /// Tasks n.
    fn tasks(&self) -> usize {
        self.groups()
    }
    /// Trains `steps` steps on batches of these realised shares.
    fn step(&mut self, shares: &[f64], steps: u64);
    /// Held-out loss per task.
    fn losses(&self) -> Vec<f64>;
    /// Training loss per group, as a trainer reports it after a step.
    fn train_losses(&self) -> Vec<f64> {
        self.losses()
    }
    /// What a trainer reports about the last step, served with `shares`: nothing when it can't. [`Want::Train`] comes from
    /// [`Plant::train_losses`] unless it is answered here.
    fn report(&self, _want: Want, _shares: &[f64]) -> Vec<Told> {
        Vec::new()
    }
}

/// One report of a plant's trainer; fields as in [`super::Reduced`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// Sums, dots, norms, a matrix, a sketch.
    pub values: Vec<f64>,
    /// Tokens behind each value.
    pub counts: Vec<f64>,
    /// Second vector.
    pub more: Vec<f64>,
    /// Learning rate.
    pub lr: f64,
    /// Task or group of a sketch.
    pub owner: usize,
    /// Whether a sketch is of a held-out gradient.
    pub held_out: bool,
}

/// A job of `groups` groups and `tasks` tasks: equal weights, tasks are the groups' own as far as they go, no end.
pub fn setup(groups: usize, tasks: usize) -> Setup {
    Setup {
        groups,
        tasks,
        own_task: (0..groups).map(|j| (j < tasks).then_some(j)).collect(),
        objective: vec![1.0 / tasks as f64; tasks],
        perplexity: false,
        initial: vec![1.0 / groups as f64; groups],
        sizes: vec![1e6; groups],
        batch: 1 << 20,
        max_steps: 0,
        seed: 1,
        log_vocabulary: None,
    }
}

/// Arguments of a method, checked.
pub fn arguments(method: &str, numbers: &[(&str, f64)], words: &[(&str, &str)]) -> Args {
    let method = by_name(method).expect("a known method");
    let numbers = numbers.iter().map(|(n, v)| (n.to_string(), *v)).collect();
    let words = words.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Args::resolve(&method.declared(), &numbers, &words).expect("legal arguments")
}

/// An estimator at work.
pub fn start(
    method: &str,
    numbers: &[(&str, f64)],
    words: &[(&str, &str)],
    setup: &Setup,
) -> Box<dyn Estimator> {
    let args = arguments(method, numbers, words);
    by_name(method).expect("a known method").start(setup, &args, &Vectors::new()).expect("starts")
}
