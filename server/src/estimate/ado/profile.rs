//! The law by its exponent: for a given one it is linear in factor and limit, so that a scan finds its neighbourhood.
//!
//! The authors' code begins at the best of 512 laws on a grid instead: that costs more, and ends further from the best fit.

/// Bounds of a law's factor, limit and exponent, each as logarithms but the last; and where residuals turn linear.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub alpha: (f64, f64),
    pub log_beta: (f64, f64),
    pub log_epsilon: (f64, f64),
    pub huber: f64,
}

/// Exponents of a scan.
const SCAN: usize = 16;
/// Scans, each between the neighbours of the last one's best.
const SCANS: usize = 2;
/// Reweighted solutions per exponent.
const SOLVES: usize = 3;

impl Bounds {
    /// A law near the best, by (log samples, log loss): its log factor, log limit and exponent.
    pub fn scan(&self, points: &[(f64, f64)]) -> [f64; 3] {
        // Samples in units of the first point's: powers are near 1 there whatever the exponent.
        let unit = points[0].0;
        let inverse: Vec<f64> = points.iter().map(|(_, y)| libm::exp(-y)).collect();
        let (mut low, mut high) = self.alpha;
        let mut best = (f64::INFINITY, [self.log_beta.0, self.log_epsilon.0, low]);
        for _ in 0..SCANS {
            let step = (high - low) / (SCAN - 1) as f64;
            let mut powers: Vec<f64> = points.iter().map(|(n, _)| libm::exp(-low * (n - unit))).collect();
            let ratios: Vec<f64> = points.iter().map(|(n, _)| libm::exp(-step * (n - unit))).collect();
            for k in 0..SCAN {
                let alpha = (low + step * k as f64).min(high);
                let shift = alpha * unit;
                let factors = (libm::exp(self.log_beta.0 - shift), libm::exp(self.log_beta.1 - shift));
                let (off, factor, limit) = self.linear(&powers, &inverse, factors);
                if off < best.0 {
                    best = (off, [libm::log(factor) + shift, libm::log(limit), alpha]);
                }
                powers.iter_mut().zip(&ratios).for_each(|(p, r)| *p *= r);
            }
            let centre = best.1[2];
            (low, high) = ((centre - step).max(self.alpha.0), (centre + step).min(self.alpha.1));
        }
        best.1
    }

    /// Weight and loss of a relative residual.
    fn weigh(&self, residual: f64) -> (f64, f64) {
        let size = residual.abs();
        if size <= self.huber {
            (1.0, 0.5 * size * size)
        } else {
            (self.huber / size, self.huber * (size - 0.5 * self.huber))
        }
    }

    /// The best factor and limit for given powers of the samples, by reweighted least squares on relative residuals: how
    /// far they are off, and they.
    fn linear(&self, powers: &[f64], inverse: &[f64], factors: (f64, f64)) -> (f64, f64, f64) {
        let limits = (libm::exp(self.log_epsilon.0), libm::exp(self.log_epsilon.1));
        let mut found = (f64::INFINITY, factors.0, limits.0);
        let mut law: Option<(f64, f64)> = None;
        for turn in 0..=SOLVES {
            let mut off = 0.0;
            // Sums of weight times a², a b, b², a, b for a = power / loss and b = 1 / loss.
            let mut sums = [0.0; 5];
            for (power, b) in powers.iter().zip(inverse) {
                let a = power * b;
                let (weight, loss) = law.map_or((1.0, 0.0), |(f, l)| self.weigh(f * a + l * b - 1.0));
                off += loss;
                let (wa, wb) = (weight * a, weight * b);
                [wa * a, wa * b, wb * b, wa, wb].iter().zip(&mut sums).for_each(|(x, s)| *s += x);
            }
            if let Some((factor, limit)) = law.filter(|_| off < found.0) {
                found = (off, factor, limit);
            }
            if turn < SOLVES {
                law = Some(solve(sums, factors, limits));
            }
        }
        found
    }
}

/// Factor and limit of the normal equations within bounds.
fn solve([aa, ab, bb, a, b]: [f64; 5], factors: (f64, f64), limits: (f64, f64)) -> (f64, f64) {
    let clamp = |x: f64, (low, high): (f64, f64)| if x > low { x.min(high) } else { low };
    let determinant = aa * bb - ab * ab;
    // Powers that are all alike leave the limit open: the smallest one then.
    let limit = if determinant > 1e-12 * aa * bb { (aa * b - ab * a) / determinant } else { limits.0 };
    let limit = clamp(limit, limits);
    let free = (a - ab * limit) / aa;
    let factor = clamp(free, factors);
    if factor == free { (factor, limit) } else { (factor, clamp((b - ab * factor) / bb, limits)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_comes_near_the_law_and_keeps_bounds() {
        let bounds =
            Bounds { alpha: (0.001, 0.8), log_beta: (-20.0, 6.5), log_epsilon: (-10.0, 10.0), huber: 1e-3 };
        let points: Vec<(f64, f64)> = (1..60)
            .map(|k| libm::log(500.0 * f64::from(k)))
            .map(|n| (n, libm::log(libm::exp(2.0 - 0.3 * n) + libm::exp(0.5))))
            .collect();
        let found = bounds.scan(&points);
        assert!((found[2] - 0.3).abs() < 0.01 && (found[1] - 0.5).abs() < 0.02, "{found:?}");
        let high = Bounds { log_epsilon: (0.7, 10.0), ..bounds }.scan(&points);
        assert!(high[1] >= 0.7 - 1e-12, "{high:?}");
        let low = Bounds { log_beta: (-20.0, 1.0), ..bounds }.scan(&points);
        assert!(low[0] <= 1.0 + 1e-9, "{low:?}");
        let flat: Vec<(f64, f64)> = points.iter().map(|(n, _)| (*n, 1.0)).collect();
        let [log_beta, log_epsilon, alpha] = bounds.scan(&flat);
        for n in [points[0].0, points[58].0] {
            let law = libm::exp(log_beta - alpha * n) + libm::exp(log_epsilon);
            assert!((libm::log(law) - 1.0).abs() < 1e-3, "{law}");
        }
    }
}
