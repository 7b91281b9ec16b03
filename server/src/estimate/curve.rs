//! Nonlinear least squares with the Huber loss: Levenberg-Marquardt within bounds, in one fixed order.

use super::cholesky::Cholesky;

/// Residuals of all points at some parameters, into the second list; their derivatives by the parameters, a row per
/// point, into the third.
pub(super) type Residuals<'a> = dyn Fn(&[f64], &mut [f64], &mut [f64]) + 'a;

/// What to fit.
pub(super) struct Problem<'a> {
    /// What is to be small.
    pub residuals: &'a Residuals<'a>,
    /// Points.
    pub points: usize,
    /// Smallest and largest value of each parameter.
    pub bounds: &'a [(f64, f64)],
    /// Weight of the square of each parameter.
    pub ridge: &'a [f64],
    /// Residuals above this count linearly.
    pub huber: f64,
}

/// A fit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fitted {
    /// Parameters.
    pub at: Vec<f64>,
    /// Sum of Huber losses and ridge.
    pub cost: f64,
}

/// Cost (infinite where the model is not finite), Gauss-Newton matrix (lower triangle) and gradient at a point.
struct Local {
    cost: f64,
    matrix: Vec<f64>,
    gradient: Vec<f64>,
}

/// Room for residuals and their derivatives.
struct Room(Vec<f64>, Vec<f64>);

impl Problem<'_> {
    fn penalty(&self, x: &[f64]) -> f64 {
        x.iter().zip(self.ridge).map(|(x, r)| 0.5 * r * x * x).sum()
    }

    fn local(&self, x: &[f64], Room(residuals, rows): &mut Room) -> Local {
        let k = x.len();
        (self.residuals)(x, residuals, rows);
        let (mut matrix, mut gradient, mut losses) = (vec![0.0; k * k], vec![0.0; k], 0.0);
        for (residual, row) in residuals.iter().zip(rows.chunks_exact(k)) {
            losses += huber(*residual, self.huber);
            let weight = if residual.abs() <= self.huber { 1.0 } else { self.huber / residual.abs() };
            for a in 0..k {
                let scaled = weight * row[a];
                gradient[a] += scaled * residual;
                matrix[a * k..=a * k + a].iter_mut().zip(row).for_each(|(m, r)| *m += scaled * r);
            }
        }
        for a in 0..k {
            gradient[a] += self.ridge[a] * x[a];
            matrix[a * k + a] += self.ridge[a];
        }
        let cost = losses + self.penalty(x);
        Local { cost: if cost.is_finite() { cost } else { f64::INFINITY }, matrix, gradient }
    }

    /// The best point near `start` that `iterations` steps find.
    pub fn minimise(&self, start: &[f64], iterations: usize) -> Fitted {
        let k = start.len();
        let clamp = |x: f64, a: usize| x.clamp(self.bounds[a].0, self.bounds[a].1);
        let mut at: Vec<f64> = start.iter().enumerate().map(|(a, x)| clamp(*x, a)).collect();
        let mut room = Room(vec![0.0; self.points], vec![0.0; self.points * k]);
        let mut here = self.local(&at, &mut room);
        let mut damping = 1e-3;
        for _ in 0..iterations {
            let (low, high) = (|a: usize| at[a] <= self.bounds[a].0, |a: usize| at[a] >= self.bounds[a].1);
            // Parameters that press against a bound stay there.
            let held: Vec<bool> = (0..k)
                .map(|a| (low(a) && here.gradient[a] > 0.0) || (high(a) && here.gradient[a] < 0.0))
                .collect();
            let Some(step) = damped(&here, &held, damping) else { break };
            let next: Vec<f64> = (0..k).map(|a| clamp(at[a] - step[a], a)).collect();
            let there = self.local(&next, &mut room);
            if there.cost < here.cost {
                let gain = here.cost - there.cost;
                (at, here) = (next, there);
                damping = (damping * 0.2).max(1e-12);
                if gain <= 1e-12 * here.cost {
                    break;
                }
            } else {
                damping *= 8.0;
                if damping > 1e12 {
                    break;
                }
            }
        }
        Fitted { cost: here.cost, at }
    }
}

/// The Levenberg-Marquardt step (to be subtracted); held parameters do not move.
fn damped(here: &Local, held: &[bool], damping: f64) -> Option<Vec<f64>> {
    let k = held.len();
    let mut matrix = here.matrix.clone();
    let mut right = here.gradient.clone();
    for a in 0..k {
        if held[a] {
            (0..k).for_each(|b| matrix[a.max(b) * k + a.min(b)] = 0.0);
            right[a] = 0.0;
            matrix[a * k + a] = 1.0;
        } else {
            matrix[a * k + a] *= 1.0 + damping;
            matrix[a * k + a] += 1e-12 * damping;
        }
    }
    let step = Cholesky::new(matrix, k)?.solve(&right);
    step.iter().all(|s| s.is_finite()).then_some(step)
}

fn huber(residual: f64, delta: f64) -> f64 {
    let size = residual.abs();
    if size <= delta { 0.5 * size * size } else { delta * (size - 0.5 * delta) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// y = a exp(b x) at x = 0, .1, ...
    fn fit(noise: impl Fn(usize) -> f64, bounds: &[(f64, f64)], huber: f64) -> Fitted {
        let x = |i: usize| i as f64 * 0.1;
        let y: Vec<f64> = (0..30).map(|i| 2.0 * (-0.7 * x(i)).exp() + noise(i)).collect();
        let residuals = |p: &[f64], out: &mut [f64], rows: &mut [f64]| {
            for (i, row) in rows.chunks_exact_mut(2).enumerate() {
                let e = libm::exp(p[1] * x(i));
                (row[0], row[1]) = (e, p[0] * x(i) * e);
                out[i] = p[0] * e - y[i];
            }
        };
        let problem = Problem { residuals: &residuals, points: 30, bounds, ridge: &[0.0, 0.0], huber };
        problem.minimise(&[1.0, 0.0], 100)
    }

    const FREE: &[(f64, f64)] = &[(-1e9, 1e9), (-1e9, 1e9)];

    #[test]
    fn an_exact_curve_is_found() {
        let found = fit(|_| 0.0, FREE, 1.0);
        assert!((found.at[0] - 2.0).abs() < 1e-8 && (found.at[1] + 0.7).abs() < 1e-8, "{found:?}");
    }

    #[test]
    fn outliers_count_linearly() {
        let spike = |i: usize| if i == 7 { 50.0 } else { 0.0 };
        let (robust, square) = (fit(spike, FREE, 1e-3), fit(spike, FREE, 1e9));
        assert!((robust.at[1] + 0.7).abs() < 1e-2, "{robust:?}");
        assert!((square.at[0] - 2.0).abs() > 1.0, "{square:?}");
    }

    #[test]
    fn bounds_are_kept() {
        let found = fit(|_| 0.0, &[(0.0, 1.5), (-1e9, 1e9)], 1.0);
        assert_eq!(found.at[0], 1.5);
        let free = fit(|_| 0.0, &[(1.5, 1.5), (-1e9, 1e9)], 1.0);
        assert!((found.at[1] - free.at[1]).abs() < 1e-6, "{found:?} {free:?}");
    }
}
