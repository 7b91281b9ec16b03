//! A quadratic surface through measured mixtures, by ridge regression in its dual form.

use super::cholesky::Cholesky;

/// y = constant + linear.x + x.square.x with x_j = w_j / centre_j - 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quadratic {
    centre: Vec<f64>,
    constant: f64,
    linear: Vec<f64>,
    /// Symmetric, row-major.
    square: Vec<f64>,
    /// Explained part of the variance of points left out one by one; 1 is perfect, 0 no better than the mean.
    pub r2: f64,
}

/// Ridges that are tried, in units of the mean squared length of a point's features.
const RIDGES: [f64; 6] = [1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0];

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Inner product of the features 1, x_j and x_i x_j, i <= j: the mean of the values is not the surface's constant.
fn kernel(x: &[f64], y: &[f64]) -> f64 {
    let (mut once, mut twice) = (0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        let ab = a * b;
        once += ab;
        twice += ab * ab;
    }
    1.0 + once + 0.5 * (once * once + twice)
}

impl Quadratic {
    /// Through mixtures around `centre` with their values; the ridge is the one that predicts left-out points best.
    /// `None` with fewer than 3 points, or when numbers are not finite.
    pub fn fit(mixtures: &[Vec<f64>], values: &[f64], centre: &[f64]) -> Option<Self> {
        let n = mixtures.len();
        if n < 3 || values.len() != n || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let points: Vec<Vec<f64>> = mixtures.iter().map(|w| place(w, centre)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let right: Vec<f64> = values.iter().map(|v| v - mean).collect();
        let total = dot(&right, &right);
        let mut gram = vec![0.0; n * n];
        for i in 0..n {
            (0..=i).for_each(|k| gram[i * n + k] = kernel(&points[i], &points[k]));
        }
        let size = (0..n).map(|i| gram[i * n + i]).sum::<f64>() / n as f64;
        let spread = points.iter().any(|p| p != &points[0]);
        if !(size.is_finite() && spread && total.is_finite()) {
            return None;
        }
        let mut best: Option<(f64, Vec<f64>)> = None;
        for ridge in RIDGES {
            let mut damped = gram.clone();
            (0..n).for_each(|i| damped[i * n + i] += ridge * size);
            let factor = Cholesky::new(damped, n)?;
            let dual = factor.solve(&right);
            let missed =
                dual.iter().zip(factor.inverse_diagonal()).map(|(a, d)| (a / d) * (a / d)).sum::<f64>();
            if missed.is_finite() && best.as_ref().is_none_or(|(m, _)| missed < *m) {
                best = Some((missed, dual));
            }
        }
        let (missed, dual) = best?;
        let r2 = if total > 0.0 { 1.0 - missed / total } else { 0.0 };
        Some(Quadratic::primal(&points, &dual, centre, mean, r2))
    }

    fn primal(points: &[Vec<f64>], dual: &[f64], centre: &[f64], mean: f64, r2: f64) -> Self {
        let m = centre.len();
        let (mut linear, mut square) = (vec![0.0; m], vec![0.0; m * m]);
        let constant = mean + dual.iter().sum::<f64>();
        for (x, a) in points.iter().zip(dual) {
            for i in 0..m {
                linear[i] += a * x[i];
                let half = 0.5 * a * x[i];
                square[i * m..(i + 1) * m].iter_mut().zip(x).for_each(|(s, y)| *s += half * y);
                square[i * m + i] += half * x[i];
            }
        }
        Quadratic { centre: centre.to_vec(), constant, linear, square, r2 }
    }

    /// Its value at a mixture.
    pub fn at(&self, mixture: &[f64]) -> f64 {
        let x = place(mixture, &self.centre);
        let m = x.len();
        // Row sums first, element by element, so that the inner loop vectorises in this order.
        let mut pull = self.linear.clone();
        for (a, row) in x.iter().zip(self.square.chunks_exact(m.max(1))) {
            pull.iter_mut().zip(row).for_each(|(p, s)| *p += a * s);
        }
        self.constant + dot(&pull, &x)
    }
}

/// Coordinates in which every group counts alike.
fn place(mixture: &[f64], centre: &[f64]) -> Vec<f64> {
    mixture.iter().zip(centre).map(|(w, c)| if *c > 0.0 { w / c - 1.0 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::simplex::dirichlet;
    use super::*;
    use crate::rng::{Draw, Stream};

    fn cloud(n: usize, m: usize) -> Vec<Vec<f64>> {
        let stream = Stream::new(3, "quadratic");
        let flat = vec![3.0; m];
        (0..n as u64).map(|i| dirichlet(&mut stream.at(Draw::PrivateA, i, 0), &flat)).collect()
    }

    #[test]
    fn a_quadratic_is_found_and_a_coin_is_not() {
        let points = cloud(80, 4);
        let f = |w: &Vec<f64>| 1.0 + 2.0 * w[0] - w[1] * w[2] + 3.0 * w[3] * w[3];
        let fit = Quadratic::fit(&points, &points.iter().map(f).collect::<Vec<_>>(), &[0.25; 4]).unwrap();
        assert!(fit.r2 > 0.9999, "{}", fit.r2);
        for w in cloud(90, 4).iter().skip(80) {
            assert!((fit.at(w) - f(w)).abs() < 1e-2, "{} {}", fit.at(w), f(w));
        }
        let mut rng = Stream::new(4, "coin").at(Draw::PrivateA, 0, 0);
        let noise: Vec<f64> = points.iter().map(|_| rng.normal()).collect();
        assert!(Quadratic::fit(&points, &noise, &[0.25; 4]).unwrap().r2 < 0.3);
    }

    #[test]
    fn unusable_points_are_refused() {
        let points = cloud(5, 3);
        assert!(Quadratic::fit(&points[..2], &[1.0, 2.0], &[0.3; 3]).is_none());
        assert!(Quadratic::fit(&points, &[1.0, f64::NAN, 1.0, 1.0, 1.0], &[0.3; 3]).is_none());
        let same = vec![vec![0.3; 3]; 5];
        assert!(Quadratic::fit(&same, &[1.0; 5], &[0.3; 3]).is_none(), "nothing varies");
        let flat = Quadratic::fit(&points, &[1.0; 5], &[0.3; 3]).unwrap();
        assert_eq!(flat.r2, 0.0);
    }
}
