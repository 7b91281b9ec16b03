//! DoGE: groups whose gradient points along the objective's get more.

use super::eg::{self, logs, softmax};
use super::fold::{Course, Folded, MIN_WINDOW, Rule, present};
use super::simplex::blended;
use super::{
    Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, Vectors, Want, When, Writer,
};
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
            Param {
                name: "mu",
                default: 0.01,
                min: 1e-6,
                max: 1e3,
                doc: "regulariser: smaller moves more; papers' configs 0.001 to 0.1",
            },
            Param { name: "clip", default: 5.0, min: 0.0, max: 1e3, doc: "largest score, in learning rates" },
            Param {
                name: "floor",
                default: 0.0,
                min: 0.0,
                max: 1.0,
                doc: "share mixed in uniformly after each update",
            },
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
            Choice {
                name: "when",
                values: &["after", "each_step"],
                doc: "report once per window, or after each step",
            },
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

#[cfg(test)]
mod tests {
    use crate::estimate::fold::evidence::{report, seen};
    use crate::estimate::plants::{Drive, Plant, Quadratic, drive, setup, start};
    use crate::estimate::{Reduced, Want};

    fn dots(step: u64, values: &[f64], norm: f64, lr: f64) -> Reduced {
        Reduced { more: vec![norm], lr, ..report(Want::Dots, step, values, &[]) }
    }

    #[test]
    fn the_vector_of_the_specification() {
        let mut e = start("doge", &[], &[], &setup(3, 3));
        let verdict = e.observe(&seen(&[1.0 / 3.0; 3], vec![dots(16, &[2.0, 1.0, -1.0], 1.5, 5e-4)]));
        assert!(verdict.used);
        let (_, scores) = &verdict.facts[0];
        for (got, want) in scores.iter().zip([6.667e-4, 3.333e-4, 0.0]) {
            assert!((got - want).abs() < 1e-7, "{scores:?}");
        }
        for (got, want) in e.shares().iter().zip([0.344504, 0.333210, 0.322286]) {
            assert!((got - want).abs() < 1e-6, "{:?}", e.shares());
        }
    }

    #[test]
    fn absent_groups_and_bad_numbers_do_not_move_and_no_move_is_too_large() {
        let absent = Reduced { counts: vec![0.0, 5.0, 5.0], ..dots(16, &[9.0, f64::NAN, 1e9], 1.0, 5e-4) };
        let mut e = start("doge", &[], &[], &setup(3, 3));
        assert!(e.observe(&seen(&[1.0 / 3.0; 3], vec![absent])).used);
        let p = e.shares();
        assert_eq!(p[0].to_bits(), p[1].to_bits());
        assert!((libm::log(p[2] / p[0]) - 0.25).abs() < 1e-9, "5 lr / mu: {p:?}");
        for bad in [
            dots(32, &[1.0, 1.0, 1.0], 1.0, 0.0),
            dots(32, &[1.0, 1.0], 1.0, 1.0),
            dots(32, &[1.0; 3], f64::NAN, 1.0),
        ] {
            assert!(!e.observe(&seen(&p, vec![bad])).used);
            assert_eq!(e.shares(), p);
        }
        assert!(!e.observe(&[]).used, "nothing arrived: it goes on");
    }

    #[test]
    fn a_report_counts_once() {
        let mut e = start("doge", &[], &[], &setup(2, 2));
        let one = || seen(&[0.5; 2], vec![dots(16, &[2.0, 1.0], 1.0, 5e-4)]);
        assert!(e.observe(&one()).used);
        let p = e.shares();
        assert!(!e.observe(&one()).used);
        assert_eq!(e.shares(), p);
    }

    #[test]
    fn the_proxy_run_is_sampled_by_the_jobs_shares_and_its_average_is_served() {
        let words = [("publish", "average")];
        let mut e = start("doge", &[("learn_steps", 32.0)], &words, &setup(2, 2));
        let mut each = Vec::new();
        for step in [0, 16] {
            assert_eq!(e.directive(step).windows[0].shares, [0.5, 0.5]);
            let mut online = start("doge", &[], &[], &setup(2, 2));
            (0..=step / 16).for_each(|k| {
                online.observe(&seen(&[0.5; 2], vec![dots(16 * (k + 1), &[2.0, 0.0], 1.0, 5e-4)]));
            });
            each.push(online.shares()[0]);
            e.observe(&seen(&[0.5; 2], vec![dots(step + 16, &[2.0, 0.0], 1.0, 5e-4)]));
        }
        let served = e.directive(32).windows[0].shares.clone();
        assert!((served[0] - (each[0] + each[1]) / 2.0).abs() < 1e-15, "{served:?} {each:?}");
        assert_eq!(e.shares(), served);
    }

    #[test]
    fn on_quadratics_it_follows_the_exact_gradients() {
        let mut plant = Quadratic::random(3, 5, 2);
        // Dots before the only window's report are those after its 16 steps.
        let mut after = plant.clone();
        after.step(&[1.0 / 3.0; 3], 16);
        let told = after.report(Want::Dots, &[1.0 / 3.0; 3]);
        let score = |dot: &f64| (after.lr * dot / (told[0].more[0] + 1e-6)).clamp(0.0, 5.0 * after.lr) / 0.01;
        let raw: Vec<f64> = told[0].values.iter().map(|d| libm::exp(score(d))).collect();
        let mut e = start("doge", &[], &[], &setup(3, 3));
        let outcome = drive(&mut *e, &mut plant, &Drive { steps: 16, ..Drive::default() });
        for (got, raw_j) in outcome.shares.iter().zip(&raw) {
            assert!((got - raw_j / raw.iter().sum::<f64>()).abs() < 1e-6, "{outcome:?}");
        }
    }
}
