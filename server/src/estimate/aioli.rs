//! Aioli: the effect of each group is measured by short probes inside the run, and the mixture follows it.
//!
//! ```text
//! round: [probe block: sweeps x groups windows of probe_steps, one group each in front] barrier [main: the rest] ...
//! ```
//! A probe serves (1 - eps) of one group on top of eps of all alike. The held-out losses at the borders of the probes give
//! the graph A (loss drop of task i per step on group j) by least squares over the realised shares; the mixture then
//! takes one exponentiated gradient step along the column sums of A (normalised).
//!
//! Two rules are in use under this name and both are here: the paper's accumulates log weights (`paper_eg`); the one of the
//! published scripts smooths A and starts from equal weights each round (`paper_ema`), so that with normalised A no two
//! shares ever differ by more than e^eta.

mod config;
mod direct;
mod equations;
mod evidence;
mod graph;
mod learner;
mod signal;
#[cfg(test)]
mod tests;

use super::{Estimator, Method, MethodError, Setup, VectorInfo, Vectors, Want, When};
use crate::args::{Args, Choice, Param};

/// The method.
#[derive(Debug)]
pub struct Aioli;

const fn param(name: &'static str, default: f64, min: f64, max: f64, doc: &'static str) -> Param {
    Param { name, default, min, max, doc }
}

impl Method for Aioli {
    fn name(&self) -> &'static str {
        "aioli"
    }
    fn paper(&self) -> &'static str {
        "Aioli: A Unified Optimization Framework for Language Model Data Mixing, 2024"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2411.05735"
    }
    fn summary(&self) -> &'static str {
        "probes every group inside the run, solves for its effect on every task and follows it"
    }
    fn params(&self) -> &'static [Param] {
        const {
            &[
                param("eta", 0.0, 0.0, 100.0, "step size; 0 means the variant's (0.2; short_run: 1)"),
                param("gamma", -1.0, -1.0, 1.0, "how much of the old graph `ema` keeps; -1 means 0.1"),
                param(
                    "rounds",
                    0.0,
                    0.0,
                    1e6,
                    "rounds in max_steps; 0 means the variant's (20; short_run: 10)",
                ),
                param(
                    "round_steps",
                    0.0,
                    0.0,
                    1e9,
                    "steps of a round, probes included; 0 means max_steps / rounds, without max_steps the larger of 250 \
                     and twice the probes",
                ),
                param(
                    "sweeps",
                    0.0,
                    0.0,
                    64.0,
                    "probes of each group per round; 0 means 4, for > 3 groups or short_run 2",
                ),
                param(
                    "probe_steps",
                    0.0,
                    0.0,
                    1e6,
                    "steps of a probe; 0 means 4 for 2 groups, 6 for 3, 10 for more, for short_run 4",
                ),
                param(
                    "one_hot",
                    0.0,
                    0.0,
                    1.0,
                    "share of the probed group, more than 1 / groups; 0 means 0.25 + 0.75 / groups",
                ),
                param("prior_steps", 0.0, 0.0, 1e12, "steps on the prior before the first round"),
            ]
        }
    }
    fn choices(&self) -> &'static [Choice] {
        &[
            Choice {
                name: "variant",
                values: &["paper_eg", "paper_ema", "short_run"],
                doc: "preset; short_run, for 10 rounds or fewer, goes well with the job's floor 0.02 and trust 1",
            },
            Choice {
                name: "update",
                values: &["variant", "accumulate", "ema"],
                doc: "accumulate log weights, or set them from the smoothed graph; variant: ema for paper_ema only",
            },
            Choice {
                name: "graph",
                values: &["full", "diagonal"],
                doc: "effects of every group on every task, or of each group on its own task alone",
            },
            Choice {
                name: "learn",
                values: &["every_round", "once"],
                doc: "once: the first round's shares hold to the end (static)",
            },
            Choice {
                name: "order",
                values: &["random", "counterbalanced"],
                doc: "of the probes; counterbalanced: every other sweep mirrors the one before, so that drift cancels",
            },
            Choice {
                name: "normalisation",
                values: &["paper", "relative"],
                doc: "paper: the graph shifted to >= 0 and divided by its sum; relative: column sums less their mean, \
                      shrunk by their noise, over the mean size: eta 0.2 moves about as much as 1 does with paper",
            },
            Choice {
                name: "start",
                values: &["uniform", "prior"],
                doc: "weights of the first round (the paper's are equal even after a prior phase)",
            },
        ]
    }
    fn vectors(&self) -> &'static [VectorInfo] {
        &[VectorInfo {
            name: "prior",
            doc: "one share per group for `prior_steps` and `start`, any positive scale; default: the groups' weights",
        }]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::Before, Want::Eval), (When::After, Want::Eval)]
    }
    fn start(
        &self,
        setup: &Setup,
        args: &Args,
        vectors: &Vectors,
    ) -> Result<Box<dyn Estimator>, MethodError> {
        let config = config::Config::new(self, setup, args, vectors)?;
        Ok(Box::new(learner::Learner::new(config, setup.clone())))
    }
}
