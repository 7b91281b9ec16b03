//! TiKMiX: shares by group influence, once per stage. D solves a convex program, M searches on measured candidates.
//!
//! Influence S_ij is what a step on group j takes off the loss of task i (to first order): positive is helpful. The paper
//! defines it the other way round and maximises it, which for losses would seek harm.

mod influence;
pub(super) mod program;
mod search;
#[cfg(test)]
mod tests;

use super::quadratic::Quadratic;
use super::{
    Directive, Estimator, Method, MethodError, Reader, Seen, Setup, StateError, Vectors, Verdict, Want,
};
use super::{When, Window, WindowKind, Writer};
use crate::args::{Args, Choice, Param};
use crate::rng::Stream;
use influence::Influence;
use program::{Pareto, Program, Solved};
use search::Search;

/// TiKMiX-D.
#[derive(Debug)]
pub struct TikmixD;

/// TiKMiX-M.
#[derive(Debug)]
pub struct TikmixM;

const PAPER: &str = "TiKMiX: Take Data Influence into Dynamic Mixture for Language Model Pre-training (2025)";
const URL: &str = "https://arxiv.org/abs/2508.17677";

const STAGE_STEPS: Param = Param {
    name: "stage_steps",
    default: 0.0,
    min: 0.0,
    max: 1e12,
    doc: "steps of a stage; 0: the job's steps over `stages`, 1000 when it has no end",
};
const STAGES: Param = Param { name: "stages", default: 5.0, min: 1.0, max: 1e6, doc: "stages of the job" };
const ALPHA: Param =
    Param { name: "alpha", default: 1.0, min: 0.0, max: 1e3, doc: "weight of the spread over tasks" };
const BETA: Param =
    Param { name: "beta", default: 1.0, min: 0.0, max: 1e3, doc: "weight of the summed benefit" };
const GAMMA: Param =
    Param { name: "gamma", default: 1.0, min: 0.01, max: 1e3, doc: "weight of the shares' entropy" };
const TAU: Param = Param {
    name: "tau",
    default: 0.1,
    min: 0.0,
    max: 1.0,
    doc: "pareto = slack: part of its benefit that a task may lose",
};
const KEEP: Param = Param {
    name: "keep",
    default: 0.5,
    min: 0.0,
    max: 1.0,
    doc: "part of the old influence that a stage keeps",
};

const PARETO: Choice = Choice {
    name: "pareto",
    values: &["slack", "hard", "off"],
    doc: "no task may lose more than tau of its benefit, any of it (the paper; often leaves no move), or no such rule",
};
const EVIDENCE: Choice = Choice {
    name: "evidence",
    values: &["sketch", "influence"],
    doc: "trainers report sketches of preconditioned gradients, or the matrix itself",
};

impl Method for TikmixD {
    fn name(&self) -> &'static str {
        "tikmix_d"
    }
    fn paper(&self) -> &'static str {
        PAPER
    }
    fn url(&self) -> &'static str {
        URL
    }
    fn summary(&self) -> &'static str {
        "once per stage, the mixture whose influence on all tasks is high and even, by a convex program"
    }
    fn params(&self) -> &'static [Param] {
        &[STAGE_STEPS, STAGES, ALPHA, BETA, GAMMA, TAU, KEEP]
    }
    fn choices(&self) -> &'static [Choice] {
        &[PARETO, EVIDENCE]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Sketch)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        Ok(Box::new(Tikmix::new(self.name(), setup, args, None)))
    }
}

const M_PARAMS: &[Param] = &[
    STAGE_STEPS,
    STAGES,
    ALPHA,
    BETA,
    GAMMA,
    TAU,
    KEEP,
    Param { name: "candidates", default: 256.0, min: 8.0, max: 1024.0, doc: "mixtures measured per stage" },
    Param {
        name: "scale_min",
        default: 0.5,
        min: 0.0,
        max: 1.0,
        doc: "least multiple of the anchor's share",
    },
    Param {
        name: "scale_max",
        default: 2.0,
        min: 1.0,
        max: 1e3,
        doc: "largest multiple of the anchor's share",
    },
    Param { name: "samples", default: 1024.0, min: 8.0, max: 1e5, doc: "samples of a round of the search" },
    Param { name: "best", default: 128.0, min: 1.0, max: 1e5, doc: "best samples that are averaged" },
    Param { name: "rounds", default: 20.0, min: 1.0, max: 1000.0, doc: "rounds of the search at most" },
    Param {
        name: "least_r2",
        default: 0.0,
        min: -1.0,
        max: 1.0,
        doc: "worst surface (on points left out) that is searched",
    },
];

impl Method for TikmixM {
    fn name(&self) -> &'static str {
        "tikmix_m"
    }
    fn paper(&self) -> &'static str {
        PAPER
    }
    fn url(&self) -> &'static str {
        URL
    }
    fn summary(&self) -> &'static str {
        "candidates around TiKMiX-D's mixture are measured; a quadratic surface through them is searched"
    }
    fn params(&self) -> &'static [Param] {
        M_PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        &[PARETO, EVIDENCE]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Sketch), (When::After, Want::Candidates)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let count = |name| args.number(name) as usize;
        let search = Search {
            candidates: count("candidates"),
            interval: (args.number("scale_min"), args.number("scale_max")),
            samples: count("samples"),
            best: count("best"),
            rounds: count("rounds"),
        };
        let measured = Measured { search, least_r2: args.number("least_r2"), anchor: setup.initial.clone() };
        Ok(Box::new(Tikmix::new(self.name(), setup, args, Some(measured))))
    }
}

/// What M adds to D.
#[derive(Clone, Debug)]
struct Measured {
    search: Search,
    least_r2: f64,
    /// Mixture that the candidates of this stage surround.
    anchor: Vec<f64>,
}

#[derive(Debug)]
struct Tikmix {
    setup: Setup,
    stream: Stream,
    steps: u64,
    weights: (f64, f64, f64),
    pareto: Pareto,
    evidence: Want,
    influence: Influence,
    shares: Vec<f64>,
    /// Stages observed.
    stage: u64,
    measured: Option<Measured>,
}

type Facts = Vec<(&'static str, Vec<f64>)>;

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

impl Tikmix {
    fn new(name: &str, setup: &Setup, args: &Args, measured: Option<Measured>) -> Self {
        let (steps, stages) = (args.number("stage_steps") as u64, args.number("stages") as u64);
        let steps = match (steps, setup.max_steps) {
            (0, 0) => 1000,
            (0, all) => all.div_ceil(stages).max(1),
            (steps, _) => steps,
        };
        Tikmix {
            setup: setup.clone(),
            stream: Stream::new(setup.seed, &format!("estimate/{name}")),
            steps,
            weights: (args.number("alpha"), args.number("beta"), args.number("gamma")),
            pareto: match args.word("pareto") {
                "hard" => Pareto::Hard,
                "off" => Pareto::Off,
                _ => Pareto::Slack(args.number("tau")),
            },
            evidence: if args.word("evidence") == "sketch" { Want::Sketch } else { Want::Influence },
            influence: Influence::new(setup.tasks, setup.groups, args.number("keep")),
            shares: setup.initial.clone(),
            stage: 0,
            measured,
        }
    }

    /// The convex program with what is known now.
    fn solve(&self, seen: &[Seen], facts: &mut Facts) -> Option<Vec<f64>> {
        let influence = self.influence.matrix()?;
        let losses = seen.iter().filter_map(|s| s.after.as_ref().or(s.before.as_ref())).next_back();
        let by_loss = losses.map(|l| self.setup.task_weights(l)).filter(|w| w.iter().sum::<f64>() > 0.0);
        let tasks = by_loss.filter(|_| self.setup.perplexity).unwrap_or_else(|| self.setup.objective.clone());
        let (alpha, beta, gamma) = self.weights;
        let (prior, pareto) = (&self.shares[..], self.pareto);
        let program = Program { influence, tasks: &tasks, prior, alpha, beta, gamma, pareto };
        facts.push(("influence", influence.to_vec()));
        facts.push(("feasible_set_singleton", vec![program.singleton().map_or(f64::NAN, flag)]));
        let solved = program.solve();
        facts.push(("solved", vec![flag(solved.is_some())]));
        let Solved { shares, gap, dropped, steps } = solved?;
        facts.push(("gap", vec![gap]));
        facts.push(("newton_steps", vec![steps as f64]));
        facts.push(("dropped_tasks", dropped.iter().map(|d| flag(*d)).collect()));
        Some(shares)
    }

    /// M: the best mixture on a surface through what was measured for the candidates of this stage.
    fn climb(&self, measured: &Measured, seen: &[Seen], facts: &mut Facts) -> Option<Vec<f64>> {
        let mut reports = seen.iter().flat_map(|s| &s.reports).filter(|r| r.want == Want::Candidates);
        let values = &reports.next_back()?.values;
        let Measured { search, least_r2, anchor } = measured;
        if values.len() != search.candidates {
            return None;
        }
        let candidates = search.candidates(&self.stream, self.stage, anchor);
        let surface = Quadratic::fit(&candidates, values, anchor)?;
        facts.push(("r2", vec![surface.r2]));
        (surface.r2 >= *least_r2).then(|| search.best(&surface, &self.stream, self.stage, anchor))
    }
}

impl Estimator for Tikmix {
    fn directive(&mut self, _: u64) -> Directive {
        let mut wants = vec![(When::After, self.evidence)];
        wants.extend(self.measured.as_ref().map(|_| (When::After, Want::Candidates)));
        let (steps, shares) = (self.steps, self.shares.clone());
        let window = Window { kind: WindowKind::Main, steps, shares, wants };
        Directive { windows: vec![window], barrier: true }
    }

    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        let mut facts = Facts::new();
        let fresh = self.influence.add(seen, self.evidence);
        let solved = if fresh { self.solve(seen, &mut facts) } else { None };
        let climbed = self.measured.as_ref().and_then(|m| self.climb(m, seen, &mut facts));
        if self.measured.is_some() {
            // Without candidates their value would be linear in the shares, and M only a worse D.
            facts.push(("fell_back_to_d", vec![flag(climbed.is_none())]));
        }
        let used = fresh || climbed.is_some();
        if let Some(shares) = climbed.as_ref().or(solved.as_ref()) {
            facts.push(("moved", vec![shares.iter().zip(&self.shares).map(|(a, b)| (a - b).abs()).sum()]));
            self.shares = shares.clone();
        }
        if let Some(measured) = &mut self.measured {
            measured.anchor = solved.unwrap_or_else(|| self.shares.clone());
        }
        self.stage += 1;
        Verdict { used, facts }
    }

    fn shares(&self) -> Vec<f64> {
        self.shares.clone()
    }

    /// The operator's shares are what the next stage is compared with.
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }

    fn candidates(&self) -> Vec<Vec<f64>> {
        self.measured
            .as_ref()
            .map_or_else(Vec::new, |m| m.search.candidates(&self.stream, self.stage, &m.anchor))
    }

    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
        out.u64(self.stage);
        self.influence.save(out);
        if let Some(measured) = &self.measured {
            out.f64s(&measured.anchor);
        }
    }

    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let groups = self.setup.groups;
        let (shares, stage) = (input.f64s(groups)?, input.u64()?);
        let influence = self.influence.read_state(input)?;
        let anchor = self.measured.as_ref().map(|_| input.f64s(groups)).transpose()?;
        (self.shares, self.stage, self.influence) = (shares, stage, influence);
        if let (Some(measured), Some(anchor)) = (&mut self.measured, anchor) {
            measured.anchor = anchor;
        }
        Ok(())
    }
}
