//! Shares: what keeps a list of numbers a mixture. One fixed scalar order, `libm` only.

use super::eg::softmax;
use crate::rng::Rng;

/// Non-negative numbers over their sum. `None` when one is negative or not finite, or all are 0.
pub(super) fn normalised(raw: &[f64]) -> Option<Vec<f64>> {
    let sum: f64 = raw.iter().sum();
    let legal = sum.is_finite() && sum > 0.0 && raw.iter().all(|r| *r >= 0.0);
    legal.then(|| raw.iter().map(|r| r / sum).collect())
}

/// Shares with `floor` mixed in: (1 - floor) p + floor / m.
pub(super) fn blended(shares: &[f64], floor: f64) -> Vec<f64> {
    let uniform = 1.0 / shares.len().max(1) as f64;
    shares.iter().map(|s| (1.0 - floor) * s + floor * uniform).collect()
}

/// A Dirichlet variate; concentrations below 1e-3 count as 1e-3.
pub(super) fn dirichlet(rng: &mut Rng, concentration: &[f64]) -> Vec<f64> {
    let logs: Vec<f64> = concentration.iter().map(|a| rng.log_gamma(a.max(1e-3))).collect();
    softmax(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draw, Stream};

    #[test]
    fn only_masses_are_normalised() {
        assert_eq!(normalised(&[0.0, 0.0]), None);
        assert_eq!(normalised(&[f64::MAX, f64::MAX]), None);
        assert_eq!(normalised(&[1.0, 3.0]), Some(vec![0.25, 0.75]));
    }

    #[test]
    fn dirichlet_has_its_mean_and_survives_zeros() {
        let stream = Stream::new(1, "test");
        let draws: Vec<_> =
            (0..4000).map(|i| dirichlet(&mut stream.at(Draw::PrivateA, i, 0), &[2.0, 6.0, 0.0])).collect();
        let mean = |j: usize| draws.iter().map(|d| d[j]).sum::<f64>() / 4000.0;
        // Standard deviation of the mean is sqrt(.25 * .75 / 9 / 4000) = .0023.
        assert!((mean(0) - 0.25).abs() < 0.01 && (mean(1) - 0.75).abs() < 0.01, "{} {}", mean(0), mean(1));
        assert!(draws.iter().all(|d| (d.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    }
}
