//! ODM: an EXP3 bandit whose reward is a group's training loss. It never sees whether a loss can be learnt away.

use super::eg::{logs, softmax};
use super::fold::{Folded, MIN_WINDOW, Rule, means};
use super::{
    Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, Vectors, Want, When, Writer,
};
use crate::args::{Args, Choice, Param};

/// The method.
#[derive(Debug)]
pub struct Odm;

impl Method for Odm {
    fn name(&self) -> &'static str {
        "odm"
    }
    fn paper(&self) -> &'static str {
        "Efficient Online Data Mixing For Language Model Pre-Training (2023)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2312.02406"
    }
    fn summary(&self) -> &'static str {
        "a bandit that samples groups about in proportion to their training loss; over-samples what cannot be learnt"
    }
    fn params(&self) -> &'static [Param] {
        &[
            MIN_WINDOW,
            Param {
                name: "scale",
                default: 10.0,
                min: 1e-3,
                max: 1e6,
                doc: "form = cumulative: losses are divided by it",
            },
            Param {
                name: "decay",
                default: 0.9,
                min: 0.0,
                max: 1.0,
                doc: "form = moving: part of the old reward that is kept",
            },
            Param {
                name: "warmup",
                default: 0.0,
                min: 0.0,
                max: 1e12,
                doc: "reports ignored at first, under the job's weights",
            },
        ]
    }
    fn choices(&self) -> &'static [Choice] {
        &[Choice {
            name: "form",
            values: &["cumulative", "moving"],
            doc: "rewards are summed (the published program) or averaged exponentially (the paper)",
        }]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::EachStep, Want::Train)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let rule = OdmRule {
            reward: vec![0.0; setup.groups],
            shares: setup.initial.clone(),
            reports: 0,
            updates: 0,
            most: setup.log_vocabulary.unwrap_or(MAX_NATS),
            moving: args.word("form") == "moving",
            scale: args.number("scale"),
            decay: args.number("decay"),
            warmup: args.number("warmup") as u64,
        };
        Ok(Box::new(Folded::new(rule, args)))
    }
}

/// Largest loss that is believed when the vocabulary is not known.
const MAX_NATS: f64 = 50.0;
/// Smallest share that a reward is divided by.
const MIN_SHARE: f64 = 1e-6;

#[derive(Debug)]
struct OdmRule {
    reward: Vec<f64>,
    shares: Vec<f64>,
    reports: u64,
    updates: u64,
    most: f64,
    moving: bool,
    scale: f64,
    decay: f64,
    warmup: u64,
}

/// Exploration at update `t`: min(1/m, sqrt(ln m / (m t))), 1/m before the first.
fn exploration(groups: usize, t: u64) -> f64 {
    let m = groups as f64;
    let most = 1.0 / m;
    if t == 0 { most } else { most.min(libm::sqrt(libm::log(m) / (m * t as f64))) }
}

/// Shares of update `t` for estimated rewards: (1 - m e_t) softmax(e_{t-1} R) + e_t.
fn policy(reward: &[f64], t: u64) -> Vec<f64> {
    let m = reward.len();
    let (last, now) = (exploration(m, t.saturating_sub(1)), exploration(m, t));
    let soft = softmax(&reward.iter().map(|r| last * r).collect::<Vec<_>>());
    let raw: Vec<f64> = soft.iter().map(|s| (1.0 - m as f64 * now) * s + now).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|r| r / sum).collect()
}

impl Rule for OdmRule {
    fn due(&self) -> (When, Want) {
        (When::EachStep, Want::Train)
    }
    fn learn(&mut self, report: &Reduced, served: &[f64]) -> bool {
        let Some(means) = means(report, self.reward.len()) else { return false };
        self.reports += 1;
        if self.reports <= self.warmup {
            return true;
        }
        for (j, loss) in means.iter().enumerate().filter(|(_, l)| l.is_finite()) {
            // The share that was served, not the current one: the credit belongs to it.
            let share = served.get(j).copied().unwrap_or(self.shares[j]).max(MIN_SHARE);
            let loss = loss.min(self.most);
            let reward = &mut self.reward[j];
            *reward = match self.moving {
                true => self.decay * *reward + (1.0 - self.decay) * loss / share,
                false => *reward + loss / self.scale / share,
            };
        }
        self.updates += 1;
        self.shares = policy(&self.reward, self.updates);
        true
    }
    fn serve(&self, _: u64) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        // Rewards that the softmax maps to these shares.
        let rate = exploration(self.reward.len(), self.updates);
        self.reward = logs(shares).iter().map(|l| l / rate.max(MIN_SHARE)).collect();
        self.shares = shares.to_vec();
    }
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![
            ("reward", self.reward.clone()),
            ("exploration", vec![exploration(self.reward.len(), self.updates)]),
        ]
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.reward);
        out.f64s(&self.shares);
        out.u64(self.reports);
        out.u64(self.updates);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (reward, shares) = (input.f64s(self.reward.len())?, input.f64s(self.shares.len())?);
        let (reports, updates) = (input.u64()?, input.u64()?);
        (self.reward, self.shares, self.reports, self.updates) = (reward, shares, reports, updates);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::fold::evidence::{report, seen};
    use crate::estimate::plants::{Drive, Saturating, drive, setup, start};

    #[test]
    fn the_vector_of_the_specification() {
        assert!((exploration(3, 99) - 0.0608197).abs() < 1e-7);
        assert!((exploration(3, 100) - 0.0605148).abs() < 1e-7);
        for (got, want) in policy(&[30.0, 28.0, 25.0], 100).iter().zip([0.372515, 0.336781, 0.290705]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(policy(&[1e300, 0.0], 1), [0.5, 0.5], "the first update is uniform");
        assert_eq!(policy(&[7.0], 9), [1.0]);
    }

    #[test]
    fn rewards_are_weighed_by_what_was_served() {
        let served = [0.8, 0.2];
        let mut e = start("odm", &[], &[], &setup(2, 2));
        let verdict = e.observe(&seen(&served, vec![report(Want::Train, 1, &[30.0, 0.0], &[10.0, 0.0])]));
        let (_, reward) = &verdict.facts[0];
        assert!((reward[0] - 0.3 / 0.8).abs() < 1e-12, "{reward:?}");
        assert_eq!(reward[1], 0.0, "absent: kept");
        let mut e = start("odm", &[], &[("form", "moving")], &setup(2, 2));
        let verdict = e.observe(&seen(&served, vec![report(Want::Train, 1, &[30.0, 10.0], &[10.0, 10.0])]));
        let (_, reward) = &verdict.facts[0];
        assert!((reward[0] - 0.1 * 3.0 / 0.8).abs() < 1e-12 && (reward[1] - 0.1 / 0.2).abs() < 1e-12);
    }

    #[test]
    fn spikes_are_clipped_to_a_uniform_guess_and_warm_up_changes_nothing() {
        let job = Setup { log_vocabulary: Some(4.0), ..setup(2, 2) };
        let mut e = start("odm", &[("warmup", 1.0)], &[], &job);
        let spike = |step| seen(&[0.5; 2], vec![report(Want::Train, step, &[1e9, 1.0], &[1.0, 1.0])]);
        e.observe(&spike(1));
        assert_eq!(e.shares(), [0.5, 0.5]);
        let verdict = e.observe(&spike(2));
        assert_eq!(verdict.facts[0].1[0], 4.0 / 10.0 / 0.5);
    }

    #[test]
    fn it_falls_into_the_trap() {
        // Documented: a group whose high loss cannot be learnt away is over-sampled.
        let mut e = start("odm", &[], &[], &setup(3, 3));
        let outcome = drive(&mut *e, &mut Saturating::trap(), &Drive { steps: 2000, ..Drive::default() });
        let served = outcome.served();
        assert!(served[2] > 0.4 && served[2] > 1.2 * served[0], "{served:?}");
    }
}
