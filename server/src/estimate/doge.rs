//! DoGE: groups whose gradient points along the objective's get more.

use super::fold::{Course, Folded, MIN_WINDOW, Rule, present};
use super::{Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, Vectors, Want, When, Writer};
use super::eg::{self, logs, softmax};
use super::simplex::blended;
use crate::args::{Args, Choice, Param};

/// The method.
#[derive(Debug)]
pub struct Doge;

impl Method for Doge {
    fn name(&self) -> &'static str {
        "doge"
    }
    fn paper(&self) -> &'static str {
        "DoGE: Domain Reweighting with Generalization Estimation (2024)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2310.15393"
    }
    fn summary(&self) -> &'static str {
        "mirror steps along the inner products of each group's gradient with the objective's"
    }
    fn params(&self) -> &'static [Param] {
        &[
            MIN_WINDOW,
            Param { name: "mu", default: 0.01, min: 1e-6, max: 1e3, doc: "regulariser: smaller moves more; papers' configs 0.001 to 0.1" },
            Param { name: "clip", default: 5.0, min: 0.0, max: 1e3, doc: "largest score, in learning rates" },
            Param { name: "floor", default: 0.0, min: 0.0, max: 1.0, doc: "share mixed in uniformly after each update" },
            Param {
                name: "learn_steps",
                default: 0.0,
                min: 0.0,
                max: 1e15,
                doc: "publish = average: steps of the proxy run, sampled by the job's weights; 0: all",
            },
        ]
    }
    fn choices(&self) -> &'static [Choice] {
        &[
            Choice {
                name: "publish",
                values: &["online", "average"],
                doc: "online: serve the current weights; average (the paper): serve the job's weights for learn_steps, then the average of what was learnt",
            },
            Choice { name: "when", values: &["after", "each_step"], doc: "report once per window, or after each step" },
        ]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Dots)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let rule = DogeRule {
            log_p: logs(&setup.initial),
            mu: args.number("mu"),
            clip: args.number("clip"),
            floor: args.number("floor"),
            online: args.word("publish") == "online",
            when: if args.word("when") == "after" { When::After } else { When::EachStep },
            course: Course::new(&setup.initial, args.number("learn_steps") as u64),
            scores: vec![0.0; setup.groups],
        };
        Ok(Box::new(Folded::new(rule, args)))
    }
}

/// Largest learning rate that is believed.
const MAX_LR: f64 = 1e3;

#[derive(Debug)]
struct DogeRule {
    log_p: Vec<f64>,
    mu: f64,
    clip: f64,
    floor: f64,
    online: bool,
    when: When,
    course: Course,
    scores: Vec<f64>,
}

impl Rule for DogeRule {
    fn due(&self) -> (When, Want) {
        (self.when, Want::Dots)
    }
    fn learn(&mut self, report: &Reduced, _: &[f64]) -> bool {
        let lr = report.lr;
        let norm = report.more.first().copied().unwrap_or(f64::NAN);
        let legal = lr > 0.0 && lr <= MAX_LR && norm.is_finite() && norm >= 0.0;
        if report.values.len() != self.log_p.len() || !legal {
            return false;
        }
        let score = |(j, dot): (usize, &f64)| {
            // A group that was absent, or whose gradient is not finite, does not move.
            let score = if present(report, j) && dot.is_finite() { lr * dot / (norm + 1e-6) } else { 0.0 };
            score.clamp(0.0, self.clip * lr)
        };
        self.scores = report.values.iter().enumerate().map(score).collect();
        eg::step(&mut self.log_p, &self.scores, 1.0 / self.mu);
        let shares = blended(&softmax(&self.log_p), self.floor);
        if self.floor > 0.0 {
            self.log_p = logs(&shares);
        }
        self.course.add(&shares);
        true
    }
    fn serve(&self, step: u64) -> Vec<f64> {
        if self.online { softmax(&self.log_p) } else { self.course.serve(step) }
    }
    fn steer(&mut self, shares: &[f64]) {
        self.log_p = logs(shares);
        self.course.steer(shares);
    }
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("score", self.scores.clone()), ("average", self.course.average())]
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.log_p);
        out.f64s(&self.scores);
        self.course.save(out);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (log_p, scores) = (input.f64s(self.log_p.len())?, input.f64s(self.scores.len())?);
        self.course = self.course.read(input)?;
        (self.log_p, self.scores) = (log_p, scores);
        Ok(())
    }
}
