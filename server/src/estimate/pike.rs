//! PiKE: groups with strong gradients get more, those with noisy ones less.

use super::eg::{self, logs, softmax};
use super::fold::{Folded, MIN_WINDOW, Rule, present};
use super::simplex::blended;
use super::{
    Estimator, Method, MethodError, Reader, Reduced, Setup, StateError, Vectors, Want, When, Writer,
};
use crate::args::{Args, Param};

/// The method.
#[derive(Debug)]
pub struct Pike;

impl Method for Pike {
    fn name(&self) -> &'static str {
        "pike"
    }
    fn paper(&self) -> &'static str {
        "PiKE: Adaptive Data Mixing for Multi-Task Learning Under Low Gradient Conflicts (2025)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2502.06244"
    }
    fn summary(&self) -> &'static str {
        "mirror steps by squared gradient norms less gradient variance; two numbers per group"
    }
    fn params(&self) -> &'static [Param] {
        &[
            MIN_WINDOW,
            Param {
                name: "zeta1",
                default: 0.0,
                min: 0.0,
                max: 1e9,
                doc: "weight of squared norms; 0: 0.3 over their mean",
            },
            Param {
                name: "zeta2",
                default: 0.0,
                min: 0.0,
                max: 1e9,
                doc: "weight of variances over 2 rows; 0: such that their mean term is half of the norms'",
            },
            Param {
                name: "clip",
                default: 5.0,
                min: 0.0,
                max: 100.0,
                doc: "largest move of a log-weight per update",
            },
            Param {
                name: "floor",
                default: 0.0,
                min: 0.0,
                max: 1.0,
                doc: "share mixed in uniformly after each update",
            },
        ]
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::GradientStats)]
    }
    fn start(&self, setup: &Setup, args: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        let rule = PikeRule {
            shares: setup.initial.clone(),
            rows: setup.batch.max(1) as f64,
            zeta1: args.number("zeta1"),
            zeta2: args.number("zeta2"),
            clip: args.number("clip"),
            floor: args.number("floor"),
            last: vec![0.0; setup.groups],
        };
        Ok(Box::new(Folded::new(rule, args)))
    }
}

#[derive(Debug)]
struct PikeRule {
    shares: Vec<f64>,
    rows: f64,
    zeta1: f64,
    zeta2: f64,
    clip: f64,
    floor: f64,
    /// Last moves, for the log.
    last: Vec<f64>,
}

impl PikeRule {
    /// Move of each group's log-weight; 0 for groups without legal numbers.
    fn moves(&self, report: &Reduced) -> Option<Vec<f64>> {
        let groups = self.shares.len();
        if report.values.len() != groups || report.more.len() != groups {
            return None;
        }
        let believed = |x: f64| x.is_finite() && x.abs() < 1e100;
        let known: Vec<bool> = (0..groups)
            .map(|j| present(report, j) && believed(report.values[j]) && believed(report.more[j]))
            .collect();
        let count = known.iter().filter(|k| **k).count();
        if count == 0 {
            return None;
        }
        // The unbiased estimate of a squared norm can be below 0.
        let mean = |of: &[f64]| {
            let sum: f64 = of.iter().zip(&known).filter(|(_, k)| **k).map(|(v, _)| v.max(0.0)).sum();
            sum / count as f64
        };
        let scaled = |zeta: f64, part: f64, mean: f64| match (zeta > 0.0, mean > 0.0) {
            (true, _) => zeta,
            (false, true) => part / mean,
            (false, false) => 0.0,
        };
        let gain = scaled(self.zeta1, 0.3, mean(&report.values));
        let half = 0.5 * gain * mean(&report.values);
        let noise = match self.zeta2 > 0.0 {
            true => self.zeta2 / (2.0 * self.rows),
            false => scaled(0.0, half, mean(&report.more)),
        };
        let go = |j: usize| {
            let sum = gain * report.values[j].max(0.0) - noise * report.more[j].max(0.0);
            if known[j] { sum.clamp(-self.clip, self.clip) } else { 0.0 }
        };
        Some((0..groups).map(go).collect())
    }
}

impl Rule for PikeRule {
    fn due(&self) -> (When, Want) {
        (When::After, Want::GradientStats)
    }
    fn learn(&mut self, report: &Reduced, _: &[f64]) -> bool {
        let Some(moves) = self.moves(report) else { return false };
        let mut moved = logs(&self.shares);
        eg::step(&mut moved, &moves, 1.0);
        self.shares = blended(&softmax(&moved), self.floor);
        self.last = moves;
        true
    }
    fn serve(&self, _: u64) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("move", self.last.clone())]
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
        out.f64s(&self.last);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (shares, last) = (input.f64s(self.shares.len())?, input.f64s(self.last.len())?);
        (self.shares, self.last) = (shares, last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::estimate::fold::evidence::{report, seen};
    use crate::estimate::plants::{Drive, Plant, Quadratic, drive, setup, start};
    use crate::estimate::{Reduced, Setup, Want};

    fn stats(step: u64, norms: &[f64], variances: &[f64]) -> Reduced {
        Reduced { more: variances.to_vec(), ..report(Want::GradientStats, step, norms, &[]) }
    }

    #[test]
    fn the_vector_of_the_specification() {
        let job = Setup { batch: 32, ..setup(3, 3) };
        let mut e = start("pike", &[("zeta1", 0.5), ("zeta2", 0.1)], &[], &job);
        assert!(
            e.observe(&seen(&[1.0 / 3.0; 3], vec![stats(16, &[1.0, 0.5, 0.2], &[10.0, 40.0, 5.0])])).used
        );
        for (got, want) in e.shares().iter().zip([0.413443, 0.307245, 0.279313]) {
            assert!((got - want).abs() < 1e-6, "{:?}", e.shares());
        }
    }

    #[test]
    fn its_own_scales_need_no_unit() {
        let one = |unit: f64| {
            let mut e = start("pike", &[], &[], &setup(3, 3));
            let norms = [1.0, 0.5, 0.2].map(|x| x * unit);
            let verdict = e.observe(&seen(
                &[1.0 / 3.0; 3],
                vec![stats(16, &norms, &[10.0 * unit, 40.0 * unit, 5.0 * unit])],
            ));
            (e.shares(), verdict.facts[0].1.clone())
        };
        let ((a, moves), (b, _)) = (one(1.0), one(1e-9));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
        // 0.3 n_j / mean n - 0.15 s_j / mean s.
        let want = 0.3 * 1.0 / (1.7 / 3.0) - 0.15 * 10.0 / (55.0 / 3.0);
        assert!((moves[0] - want).abs() < 1e-12, "{moves:?} {want}");
    }

    #[test]
    fn bad_groups_stay_and_moves_are_bounded() {
        let mut e = start("pike", &[("zeta1", 1.0)], &[], &setup(3, 3));
        let verdict =
            e.observe(&seen(&[1.0 / 3.0; 3], vec![stats(16, &[f64::NAN, 1e9, 0.0], &[1.0, 0.0, 0.0])]));
        assert_eq!(verdict.facts[0].1, [0.0, 5.0, 0.0]);
        assert!(!e.observe(&seen(&[1.0 / 3.0; 3], vec![stats(32, &[f64::NAN; 3], &[1.0; 3])])).used);
    }

    #[test]
    fn on_quadratics_it_is_a_softmax_of_exact_norms() {
        let mut plant = Quadratic::random(3, 5, 4);
        let mut after = plant.clone();
        after.step(&[1.0 / 3.0; 3], 16);
        let told = &after.report(Want::GradientStats, &[1.0 / 3.0; 3])[0];
        let job = Setup { batch: 64, ..setup(3, 3) };
        let raw: Vec<f64> =
            told.values.iter().zip(&told.more).map(|(n, s)| libm::exp(0.1 * n - 0.2 / 128.0 * s)).collect();
        let mut e = start("pike", &[("zeta1", 0.1), ("zeta2", 0.2), ("clip", 100.0)], &[], &job);
        let outcome = drive(&mut *e, &mut plant, &Drive { steps: 16, ..Drive::default() });
        for (got, raw_j) in outcome.shares.iter().zip(&raw) {
            assert!((got - raw_j / raw.iter().sum::<f64>()).abs() < 1e-6, "{:?}", outcome.shares);
        }
    }
}
