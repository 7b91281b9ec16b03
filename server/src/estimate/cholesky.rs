//! Symmetric positive definite systems, in one fixed scalar order.

/// Right sides that are solved side by side: one fixed order for each, many at once for the machine.
pub(super) const LANES: usize = 16;

/// One entry of each of [`LANES`] vectors.
pub(super) type Lanes = [f64; LANES];

/// Takes `factor` times `other` off each lane.
pub(super) fn take(lanes: &mut Lanes, factor: f64, other: &Lanes) {
    lanes.iter_mut().zip(other).for_each(|(x, o)| *x -= factor * o);
}

/// The lower triangle L of A = L Lᵀ, row-major.
#[derive(Clone, Debug)]
pub(super) struct Cholesky {
    lower: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// Of the n x n matrix `a`, whose lower triangle is read. A pivot that rounding made too small is raised to 1e-14 of
    /// its diagonal entry: the solution stays finite, and short of full rank it is one of many. `None` when an entry of
    /// the factor is not finite.
    pub fn new(mut a: Vec<f64>, n: usize) -> Option<Self> {
        let least: Vec<f64> = (0..n).map(|k| (1e-14 * a[k * n + k]).max(f64::MIN_POSITIVE)).collect();
        let mut column = vec![0.0; n];
        for k in 0..n {
            let pivot = libm::sqrt(a[k * n + k].max(least[k]));
            if !a[k * n + k].is_finite() {
                return None;
            }
            a[k * n + k] = pivot;
            for i in k + 1..n {
                a[i * n + k] /= pivot;
                column[i] = a[i * n + k];
            }
            // Right-looking: element by element, so that it vectorises without a new order.
            for i in k + 1..n {
                let factor = column[i];
                let row = &mut a[i * n + k + 1..=i * n + i];
                row.iter_mut().zip(&column[k + 1..=i]).for_each(|(x, c)| *x -= factor * c);
            }
        }
        a.iter().all(|x| x.is_finite()).then_some(Cholesky { lower: a, n })
    }

    /// x with A x = b.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let (l, n) = (&self.lower, self.n);
        let mut x = b.to_vec();
        for i in 0..n {
            let (done, rest) = x.split_at_mut(i);
            let sum: f64 = l[i * n..i * n + i].iter().zip(done.iter()).map(|(a, b)| a * b).sum();
            rest[0] = (rest[0] - sum) / l[i * n + i];
        }
        for i in (0..n).rev() {
            x[i] /= l[i * n + i];
            let (done, rest) = x.split_at_mut(i);
            done.iter_mut().zip(&l[i * n..i * n + i]).for_each(|(x, a)| *x -= a * rest[0]);
        }
        x
    }

    /// As [`Cholesky::solve`], for [`LANES`] right sides: b of each on entry, x on return.
    pub fn solve_lanes(&self, x: &mut [Lanes]) {
        let (l, n) = (&self.lower, self.n);
        for i in 0..n {
            let (done, rest) = x.split_at_mut(i);
            let mut left = rest[0];
            l[i * n..i * n + i].iter().zip(done.iter()).for_each(|(a, b)| take(&mut left, *a, b));
            rest[0] = left.map(|v| v / l[i * n + i]);
        }
        for i in (0..n).rev() {
            let (done, rest) = x.split_at_mut(i);
            let solved = rest[0].map(|v| v / l[i * n + i]);
            rest[0] = solved;
            done.iter_mut().zip(&l[i * n..i * n + i]).for_each(|(x, a)| take(x, *a, &solved));
        }
    }

    /// The diagonal of the inverse of A.
    pub fn inverse_diagonal(&self) -> Vec<f64> {
        let (l, n) = (&self.lower, self.n);
        let mut sums = vec![0.0; n];
        // Rows of the inverse of L, each from those above it.
        let mut inverse = vec![0.0; n * n];
        for i in 0..n {
            let (above, rest) = inverse.split_at_mut(i * n);
            let row = &mut rest[..=i];
            for (k, factor) in l[i * n..i * n + i].iter().enumerate() {
                row.iter_mut().zip(&above[k * n..=k * n + k]).for_each(|(r, x)| *r -= factor * x);
            }
            row[i] = 1.0;
            row.iter_mut().for_each(|r| *r /= l[i * n + i]);
            row.iter().zip(&mut sums).for_each(|(r, s)| *s += r * r);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_solves_and_survives_a_singular_matrix() {
        let a = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 1.0, 3.0, 6.0];
        let full = [[4.0, 2.0, 1.0], [2.0, 5.0, 3.0], [1.0, 3.0, 6.0]];
        let found = Cholesky::new(a, 3).unwrap();
        for (k, d) in found.inverse_diagonal().iter().enumerate() {
            let unit: Vec<f64> = (0..3).map(|i| f64::from(u8::from(i == k))).collect();
            assert!((found.solve(&unit)[k] - d).abs() < 1e-14);
        }
        let x = found.solve(&[1.0, 2.0, 3.0]);
        let mut lanes = [1.0, 2.0, 3.0].map(|b| std::array::from_fn(|k| b * k as f64));
        found.solve_lanes(&mut lanes);
        for (one, many) in x.iter().zip(&lanes) {
            assert!(many.iter().enumerate().all(|(k, y)| (y - k as f64 * one).abs() < 1e-13), "{many:?}");
        }
        for (row, want) in full.iter().zip([1.0, 2.0, 3.0]) {
            let got: f64 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert!((got - want).abs() < 1e-14, "{got}");
        }
        let x = Cholesky::new(vec![1.0, 0.0, 1.0, 1.0], 2).unwrap().solve(&[1.0, 1.0]);
        assert!((x[0] + x[1] - 1.0).abs() < 1e-6, "{x:?}");
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
        assert!(Cholesky::new(vec![f64::INFINITY], 1).is_none());
    }
}
