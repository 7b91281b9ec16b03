//! Presets, and what the arguments make of them.

use super::super::{Method, MethodError, Setup, Vectors, eg, vector};
use crate::args::Args;

/// Smoothing eps of the probes: each serves (1 - eps) of its group on top of eps of all alike.
const SMOOTHING: f64 = 0.75;

/// Steps of a round when neither they nor the job's end are known: the paper's for two and three groups.
const ROUND_STEPS: u64 = 250;

/// Everything resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub eta: f64,
    /// Share of the old graph that is kept, when it is smoothed at all.
    pub ema: Option<f64>,
    pub round_steps: u64,
    pub sweeps: u32,
    pub probe_steps: u64,
    /// Share of the group that is probed.
    pub one_hot: f64,
    pub prior_steps: u64,
    pub prior: Vec<f64>,
    pub from_prior: bool,
    pub diagonal: bool,
    pub once: bool,
    pub counterbalanced: bool,
    pub relative: bool,
}

impl Config {
    /// Checks arguments against the job.
    pub fn new(
        method: &dyn Method,
        setup: &Setup,
        args: &Args,
        vectors: &Vectors,
    ) -> Result<Self, MethodError> {
        let m = setup.groups;
        let refuse = |why: String| Err(MethodError::Job { method: method.name(), why });
        let short = args.word("variant") == "short_run";
        let given =
            |name: &str, preset: f64| if args.number(name) > 0.0 { args.number(name) } else { preset };
        let (sweeps, probe_steps, round_steps) = rounds(setup, args)?;
        let even = 1.0 / m as f64;
        let one_hot = given("one_hot", 1.0 - SMOOTHING + SMOOTHING * even);
        if one_hot <= even && m > 1 {
            return refuse(format!("has one_hot {one_hot}, want more than 1 / groups = {even}"));
        }
        let diagonal = args.word("graph") == "diagonal";
        if let Some(j) = setup.own_task.iter().position(Option::is_none).filter(|_| diagonal) {
            return refuse(format!(
                "has graph `diagonal`, want a task of its own for each group; group {j} has none"
            ));
        }
        let ema = match args.word("update") {
            "variant" => args.word("variant") == "paper_ema",
            word => word == "ema",
        };
        let gamma = if args.number("gamma") < 0.0 { 0.1 } else { args.number("gamma") };
        let prior = vector(method, vectors, "prior", m)?;
        if prior.as_ref().is_some_and(|p| p.iter().sum::<f64>() <= 0.0) {
            let why = "sums to 0, want more".into();
            return Err(MethodError::Vector { method: method.name(), name: "prior".into(), why });
        }
        Ok(Config {
            eta: given("eta", if short { 1.0 } else { 0.2 }),
            ema: ema.then_some(gamma),
            round_steps,
            sweeps,
            probe_steps,
            one_hot,
            prior_steps: args.number("prior_steps") as u64,
            prior: eg::proportional(prior.as_ref().unwrap_or(&setup.initial)),
            from_prior: args.word("start") == "prior",
            diagonal,
            once: args.word("learn") == "once",
            counterbalanced: args.word("order") == "counterbalanced",
            relative: args.word("normalisation") == "relative",
        })
    }

    /// Steps of a probe block.
    pub fn block(&self, groups: usize) -> u64 {
        u64::from(self.sweeps) * groups as u64 * self.probe_steps
    }

    /// Shares of the probe of `group`.
    pub fn probe(&self, group: usize, groups: usize) -> Vec<f64> {
        let rest = (1.0 - self.one_hot) / (groups.max(2) - 1) as f64;
        (0..groups).map(|j| if j == group { self.one_hot } else { rest }).collect()
    }
}

/// Sweeps, steps of a probe and steps of a round.
fn rounds(setup: &Setup, args: &Args) -> Result<(u32, u64, u64), MethodError> {
    let m = setup.groups;
    let short = args.word("variant") == "short_run";
    let given = |name: &str, preset: f64| if args.number(name) > 0.0 { args.number(name) } else { preset };
    let sweeps = given("sweeps", if m > 3 || short { 2.0 } else { 4.0 }).max(1.0) as u32;
    let paper_steps = [4.0, 4.0, 4.0, 6.0].get(m).copied().unwrap_or(10.0);
    let probe_steps = given("probe_steps", if short { 4.0 } else { paper_steps }).max(1.0) as u64;
    let probes = u64::from(sweeps) * m as u64 * probe_steps;
    let rounds = given("rounds", if short { 10.0 } else { 20.0 }).max(1.0) as u64;
    let planned = if setup.max_steps > 0 { setup.max_steps / rounds } else { ROUND_STEPS.max(2 * probes) };
    let round_steps = given("round_steps", planned as f64) as u64;
    if round_steps <= probes && m > 1 {
        let why = format!(
            "has rounds of {round_steps} steps, want more than the probes' {probes} (sweeps {sweeps} x groups {m} x \
             probe_steps {probe_steps}): set fewer `rounds`, more `round_steps` or fewer probes"
        );
        return Err(MethodError::Job { method: "aioli", why });
    }
    Ok((sweeps, probe_steps, round_steps))
}
