//! Small dense linear algebra: LU with partial pivoting and least squares with a pull towards what was known before.

use super::cholesky::{Cholesky, LANES, Lanes, take};

/// Pivots below this share of the largest entry are 0.
const SINGULAR: f64 = 1e-14;

/// A square matrix as L and U.
#[derive(Clone, Debug, PartialEq)]
pub struct Lu {
    order: usize,
    /// L below the diagonal (its own is 1), U on and above it, row-major.
    factors: Vec<f64>,
    /// Row of the matrix that became row i.
    rows: Vec<usize>,
}

impl Lu {
    /// Factors of an (order, order) row-major matrix; `None` when it is singular or not finite. Of equal pivots the
    /// first is taken.
    pub fn new(matrix: &[f64], order: usize) -> Option<Self> {
        let largest = matrix.iter().fold(0.0f64, |top, v| top.max(v.abs()));
        if matrix.len() != order * order || matrix.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let (mut a, mut rows) = (matrix.to_vec(), (0..order).collect::<Vec<_>>());
        for k in 0..order {
            let mut best = k;
            for i in k + 1..order {
                if a[i * order + k].abs() > a[best * order + k].abs() {
                    best = i;
                }
            }
            if a[best * order + k].abs() <= SINGULAR * largest {
                return None;
            }
            rows.swap(k, best);
            if best != k {
                (0..order).for_each(|c| a.swap(k * order + c, best * order + c));
            }
            for i in k + 1..order {
                let factor = a[i * order + k] / a[k * order + k];
                a[i * order + k] = factor;
                for c in k + 1..order {
                    a[i * order + c] -= factor * a[k * order + c];
                }
            }
        }
        Some(Lu { order, factors: a, rows })
    }

    /// x of matrix x = `right`.
    pub fn solve(&self, right: &[f64]) -> Vec<f64> {
        let (n, a) = (self.order, &self.factors);
        let mut x: Vec<f64> = self.rows.iter().map(|r| right[*r]).collect();
        for i in 0..n {
            for c in 0..i {
                x[i] -= a[i * n + c] * x[c];
            }
        }
        for i in (0..n).rev() {
            for c in i + 1..n {
                x[i] -= a[i * n + c] * x[c];
            }
            x[i] /= a[i * n + i];
        }
        x
    }
}

/// Iterations of [`Ridge`] at most: in directions with evidence each takes off all but lambda / (lambda + eigenvalue).
const REFINEMENTS: usize = 8;

/// A correction below this part of the solution is rounding.
const SETTLED: f64 = 1e-14;

/// Ridge least squares by iterated Tikhonov, for any number of right sides: solutions are exact (up to rounding) in
/// directions with evidence and equal to what is known before in those without.
#[derive(Clone, Debug)]
pub struct Ridge {
    rows: Vec<Vec<f64>>,
    features: usize,
    gram: Vec<f64>,
    /// Factor of gram + lambda; `None` when a row is not finite.
    pulled: Option<Cholesky>,
}

impl Ridge {
    /// Each row is a (weighted) observation of `features` features; lambda is `ridge` times the mean of the Gram matrix's
    /// diagonal.
    pub fn new(rows: Vec<Vec<f64>>, features: usize, ridge: f64) -> Self {
        let m = features;
        let mut gram = vec![0.0; m * m];
        for row in &rows {
            for i in 0..m {
                let factor = row[i];
                gram[i * m..=i * m + i].iter_mut().zip(row).for_each(|(g, x)| *g += factor * x);
            }
        }
        (0..m).for_each(|i| (0..i).for_each(|j| gram[j * m + i] = gram[i * m + j]));
        let lambda = ridge * (0..m).map(|i| gram[i * m + i]).sum::<f64>() / m.max(1) as f64;
        let mut pulled = gram.clone();
        (0..m).for_each(|i| pulled[i * m + i] += lambda);
        Ridge { rows, features, gram, pulled: Cholesky::new(pulled, m) }
    }

    /// a of rows a = `right` for `sides` right sides: `right` is (rows, sides), `known` and the result are (features,
    /// sides), all row-major. `known` is the answer without evidence, or when something is not finite.
    pub fn solve(&self, right: &[f64], known: &[f64], sides: usize) -> Vec<f64> {
        let mut solved = known.to_vec();
        let Some(factor) = &self.pulled else { return solved };
        for first in (0..sides).step_by(LANES) {
            let width = LANES.min(sides - first);
            let lanes = |list: &[f64], row: usize| {
                let mut lanes: Lanes = [0.0; LANES];
                lanes[..width].copy_from_slice(&list[row * sides + first..][..width]);
                lanes
            };
            let mut cross = vec![[0.0; LANES]; self.features];
            for (at, row) in self.rows.iter().enumerate() {
                let right = lanes(right, at).map(|y| -y);
                cross.iter_mut().zip(row).for_each(|(c, x)| take(c, *x, &right));
            }
            let mut a: Vec<Lanes> = (0..self.features).map(|j| lanes(known, j)).collect();
            self.refine(factor, &cross, &mut a);
            for k in (0..width).filter(|k| a.iter().all(|a| a[*k].is_finite())) {
                a.iter().enumerate().for_each(|(j, a)| solved[j * sides + first + k] = a[k]);
            }
        }
        solved
    }

    /// Iterates until nothing changes any more.
    fn refine(&self, factor: &Cholesky, cross: &[Lanes], a: &mut [Lanes]) {
        let mut residual = cross.to_vec();
        for _ in 0..REFINEMENTS {
            for (i, out) in residual.iter_mut().enumerate() {
                let mut left = cross[i];
                let gram = &self.gram[i * self.features..][..self.features];
                gram.iter().zip(a.iter()).for_each(|(g, a)| take(&mut left, *g, a));
                *out = left;
            }
            factor.solve_lanes(&mut residual);
            a.iter_mut().zip(&residual).for_each(|(a, d)| take(a, -1.0, d));
            let largest = |list: &[Lanes], k: usize| list.iter().fold(0.0f64, |top, x| top.max(x[k].abs()));
            if (0..LANES).all(|k| largest(&residual, k) <= SETTLED * largest(a, k)) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draw, Stream};

    fn random(m: usize, seed: u64) -> Vec<f64> {
        let mut rng = Stream::new(seed, "test/solve").at(Draw::PrivateA, 0, 0);
        (0..m * m).map(|_| rng.normal()).collect()
    }

    fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
        let m = x.len();
        (0..matrix.len() / m).map(|i| (0..m).map(|j| matrix[i * m + j] * x[j]).sum()).collect()
    }

    #[test]
    fn solutions_solve() {
        for m in [1, 2, 3, 7, 32] {
            let (a, x) = (random(m, m as u64), random(m, 99)[..m].to_vec());
            let found = Lu::new(&a, m).expect("regular").solve(&times(&a, &x));
            let error = found.iter().zip(&x).fold(0.0f64, |e, (a, b)| e.max((a - b).abs()));
            assert!(error < 1e-10, "order {m}: {error}");
        }
    }

    #[test]
    fn a_zero_pivot_is_swapped_and_singular_matrices_are_none() {
        assert_eq!(Lu::new(&[0.0, 1.0, 1.0, 0.0], 2).expect("regular").solve(&[3.0, 4.0]), [4.0, 3.0]);
        assert_eq!(Lu::new(&[1.0, 2.0, 2.0, 4.0], 2), None);
        assert_eq!(Lu::new(&[0.0], 1), None);
        assert_eq!(Lu::new(&[f64::NAN], 1), None);
        assert_eq!(Lu::new(&[1.0, 2.0], 2), None);
        assert!(Lu::new(&[], 0).expect("nothing to solve").solve(&[]).is_empty());
    }

    fn ridge(rows: &[Vec<f64>], right: &[f64], known: &[f64], ridge: f64) -> Vec<f64> {
        Ridge::new(rows.to_vec(), known.len(), ridge).solve(right, known, 1)
    }

    #[test]
    fn right_sides_do_not_see_each_other() {
        let (m, sides) = (7, 2 * LANES + 3);
        let rows: Vec<Vec<f64>> = random(m, 1).chunks(m).map(<[f64]>::to_vec).collect();
        let mut right = random(sides, 2)[..m * sides].to_vec();
        right[3 * sides + 5] = f64::NAN;
        let known = random(sides, 3)[..m * sides].to_vec();
        let column = |list: &[f64], k: usize| (0..m).map(|j| list[j * sides + k]).collect::<Vec<_>>();
        let all = Ridge::new(rows.clone(), m, 1e-6).solve(&right, &known, sides);
        for k in 0..sides {
            let alone = ridge(&rows, &column(&right, k), &column(&known, k), 1e-6);
            let far = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-11 * (1.0 + b.abs());
            assert!(!column(&all, k).iter().zip(&alone).any(far), "side {k}");
        }
        assert_eq!(column(&all, 5), column(&known, 5), "what is not finite teaches nothing");
    }

    #[test]
    fn ridge_is_exact_where_there_is_evidence_and_keeps_what_is_known_elsewhere() {
        let x = [0.5, -2.0, 3.0];
        let rows: Vec<Vec<f64>> = random(3, 5).chunks(3).map(<[f64]>::to_vec).collect();
        let right: Vec<f64> = rows.iter().map(|r| times(r, &x)[0]).collect();
        let full = ridge(&rows, &right, &[9.0, 9.0, 9.0], 1e-6);
        assert!(full.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-12), "{full:?}");
        let alone = ridge(&[vec![2.0, 0.0, 0.0]], &[1.0], &[9.0, 8.0, 7.0], 1e-6);
        assert!((alone[0] - 0.5).abs() < 1e-12 && alone[1..] == [8.0, 7.0], "{alone:?}");
        assert_eq!(ridge(&[], &[], &[1.0, 2.0], 1e-6), [1.0, 2.0]);
        assert_eq!(ridge(&[vec![f64::NAN, 1.0]], &[1.0], &[1.0, 2.0], 1e-6), [1.0, 2.0]);
    }
}
