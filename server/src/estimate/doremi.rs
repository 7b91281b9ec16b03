//! DoReMi: groups on which the model lags behind a reference get more.

use super::eg::{self, logs, softmax};
use super::fold::{Course, Folded, MIN_WINDOW, Rule, means};
use super::simplex::blended;
use super::{
    Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, Vectors, Want, When, Writer,
};
use crate::args::{Args, Choice, Param};

/// The method.
#[derive(Debug)]
pub struct Doremi;

impl Method for Doremi {
    fn name(&self) -> &'static str {
        "doremi"
    }
    fn paper(&self) -> &'static str {
        "DoReMi: Optimizing Data Mixtures Speeds Up Language Model Pretraining (2023)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2305.10429"
    }
    fn summary(&self) -> &'static str {
        "multiplicative updates by each group's excess loss over a reference model"
    }
    fn params(&self) -> &'static [Param] {
        &[
            MIN_WINDOW,
            Param { name: "eta", default: 1.0, min: 0.0, max: 1e3, doc: "step size per nat of excess loss" },
            Param {
                name: "floor",
                default: 1e-3,
                min: 0.0,
                max: 1.0,
                doc: "share mixed in uniformly after each update",
            },
            Param {
                name: "learn_steps",
                default: 0.0,
                min: 0.0,
                max: 1e15,
                doc: "apply = loss: steps of the proxy run; then the average is served; 0: never",
            },
        ]
    }
    fn choices(&self) -> &'static [Choice] {
        &[Choice {
            name: "apply",
            values: &["sampling", "loss"],
            doc: "sampling: alpha are the shares served (not the paper's form); loss (the paper): batches keep the job's \
                  weights, the trainer weighs its loss by the fact `loss_weights`",
        }]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::EachStep, Want::Excess)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let rule = DoremiRule {
            alpha: setup.initial.clone(),
            excess: vec![0.0; setup.groups],
            eta: args.number("eta"),
            floor: args.number("floor"),
            most: setup.log_vocabulary.unwrap_or(MAX_NATS) + 5.0,
            sampling: args.word("apply") == "sampling",
            course: Course::new(&setup.initial, args.number("learn_steps") as u64),
        };
        Ok(Box::new(Folded::new(rule, args)))
    }
}

/// Largest excess loss that is believed when the vocabulary is not known.
const MAX_NATS: f64 = 50.0;

#[derive(Debug)]
struct DoremiRule {
    alpha: Vec<f64>,
    /// Last excess loss of each group: groups that are absent keep it.
    excess: Vec<f64>,
    eta: f64,
    floor: f64,
    most: f64,
    sampling: bool,
    course: Course,
}

impl Rule for DoremiRule {
    fn due(&self) -> (When, Want) {
        (When::EachStep, Want::Excess)
    }
    fn learn(&mut self, report: &Reduced, _: &[f64]) -> bool {
        let Some(means) = means(report, self.alpha.len()) else { return false };
        for (kept, new) in self.excess.iter_mut().zip(&means).filter(|(_, m)| m.is_finite()) {
            *kept = new.min(self.most);
        }
        let mut moved = logs(&self.alpha);
        eg::step(&mut moved, &self.excess, self.eta);
        self.alpha = blended(&softmax(&moved), self.floor);
        self.course.add(&self.alpha);
        true
    }
    fn serve(&self, step: u64) -> Vec<f64> {
        if self.sampling { self.alpha.clone() } else { self.course.serve(step) }
    }
    fn steer(&mut self, shares: &[f64]) {
        self.alpha = shares.to_vec();
        self.course.steer(shares);
    }
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        let mut facts = vec![("excess", self.excess.clone()), ("average", self.course.average())];
        if !self.sampling {
            let sampled = self.course.sampled.iter();
            let weigh = |(a, p): (&f64, &f64)| if *p > 0.0 { a / p } else { 0.0 };
            facts.push(("loss_weights", self.alpha.iter().zip(sampled).map(weigh).collect()));
        }
        facts
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.alpha);
        out.f64s(&self.excess);
        self.course.save(out);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (alpha, excess) = (input.f64s(self.alpha.len())?, input.f64s(self.excess.len())?);
        self.course = self.course.read(input)?;
        (self.alpha, self.excess) = (alpha, excess);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::estimate::fold::evidence::{report, seen};
    use crate::estimate::plants::{setup, start};
    use crate::estimate::{Want, When};

    #[test]
    fn the_vector_of_the_specification() {
        let mut e = start("doremi", &[], &[], &setup(2, 2));
        let excess = report(Want::Excess, 1, &[20.0, 0.0], &[100.0, 100.0]);
        assert!(e.observe(&seen(&[0.5; 2], vec![excess])).used);
        for (got, want) in e.shares().iter().zip([0.549784, 0.450216]) {
            assert!((got - want).abs() < 1e-6, "{:?}", e.shares());
        }
    }

    #[test]
    fn an_absent_group_keeps_its_last_excess() {
        let mut e = start("doremi", &[], &[], &setup(2, 2));
        let first = report(Want::Excess, 1, &[20.0, 10.0], &[100.0, 100.0]);
        let absent = report(Want::Excess, 2, &[20.0, 0.0], &[100.0, 0.0]);
        e.observe(&seen(&[0.5; 2], vec![first]));
        let verdict = e.observe(&seen(&[0.5; 2], vec![absent]));
        assert_eq!(verdict.facts[0], ("excess", vec![0.2, 0.1]));
        let nan = report(Want::Excess, 3, &[f64::NAN, 0.0], &[100.0, 0.0]);
        assert!(!e.observe(&seen(&[0.5; 2], vec![nan])).used);
    }

    #[test]
    fn loss_weights_leave_sampling_alone_until_the_average_is_served() {
        let mut e = start("doremi", &[("learn_steps", 16.0)], &[("apply", "loss")], &setup(2, 2));
        assert_eq!(e.directive(0).windows[0].wants, [(When::EachStep, Want::Excess)]);
        let verdict = e.observe(&seen(&[0.5; 2], vec![report(Want::Excess, 1, &[20.0, 0.0], &[100.0; 2])]));
        let (name, weights) = &verdict.facts[2];
        assert_eq!(*name, "loss_weights");
        assert!((weights[0] - 0.549784 / 0.5).abs() < 1e-5 && (weights[1] - 0.450216 / 0.5).abs() < 1e-5);
        assert_eq!(e.shares(), [0.5, 0.5]);
        assert!((e.directive(16).windows[0].shares[0] - 0.549784).abs() < 1e-6);
    }
}
