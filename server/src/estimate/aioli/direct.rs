//! Probes of the regular kind, solved without a system of equations.
//!
//! A probe of group j has the shares c + a_j e_j, c being what every other probe gives each group: with equal shares of
//! the rest the paper's smoothed one-hot form, whose inverse is A_ij = (beta_ij - b sum_k beta_ik) / a. Whole rows do not
//! divide evenly, so that a few entries are a row off: they are taken as served, by a short series.

use std::borrow::Cow;

/// Entries that are off the form, per group.
const ODD: usize = 4;

/// Least square of a_j, in mean squares of a group's shares: 100 times the pull of the least squares, of which no trace is
/// left then.
const LEAST: f64 = 1e-4;

/// Terms of the series fall at least by this factor.
const CONTRACTION: f64 = 0.125;

/// The probes of a round: P = diag(a) + 1 cᵀ + odd, and which probe tells of which group.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    /// c: share of each group in the probes of others.
    common: Vec<f64>,
    /// a: what its own probe adds.
    above: Vec<f64>,
    /// 1 + sum c / a.
    part: f64,
    /// (probed group, group, share) to add.
    odd: Vec<(usize, usize, f64)>,
    /// Terms of the series.
    terms: usize,
    /// (group, factor) per probe: the mean drop per step of a group's probes is the sum of factors times drops.
    weights: Vec<(usize, f64)>,
}

impl Direct {
    /// Of probes with these shares, steps and groups. `None` unless each group has one, those of a group were served
    /// alike, and all are regular: least squares it is then.
    pub fn new(shares: &[Cow<'_, [f64]>], steps: &[f64], probed: &[usize], groups: usize) -> Option<Self> {
        let mut first: Vec<Option<usize>> = vec![None; groups];
        let mut squares = vec![0.0; groups];
        for (at, j) in probed.iter().enumerate() {
            let one = *first[*j].get_or_insert(at);
            if shares[one] != shares[at] {
                return None;
            }
            squares[*j] += steps[at] * steps[at];
        }
        let rows: Vec<&[f64]> =
            first.into_iter().map(|at| at.map(|at| &*shares[at])).collect::<Option<_>>()?;
        let common = usual(&rows);
        let mut odd = Vec::new();
        for (j, row) in rows.iter().enumerate() {
            let off = row.iter().zip(&common).enumerate().filter(|(k, (x, c))| *k != j && x != c);
            odd.extend(off.map(|(k, (x, c))| (j, k, x - c)).take(ODD * groups));
            if odd.len() > ODD * groups {
                return None;
            }
        }
        let above: Vec<f64> = rows.iter().zip(&common).enumerate().map(|(j, (row, c))| row[j] - c).collect();
        let square = rows.iter().flat_map(|row| row.iter()).map(|x| x * x).sum::<f64>() / groups as f64;
        let least = above.iter().copied().fold(f64::INFINITY, f64::min);
        // The largest entry of P0⁻¹ odd z is at most this part of the largest of z.
        let mut sums = vec![0.0; groups];
        odd.iter().for_each(|(j, _, x)| sums[*j] += x.abs());
        let contraction = 2.0 * sums.iter().copied().fold(0.0, f64::max) / least;
        let regular = least > 0.0 && least * least >= LEAST * square && contraction <= CONTRACTION;
        let part = 1.0 + common.iter().zip(&above).map(|(c, a)| c / a).sum::<f64>();
        // Down to the rounding of the first term.
        let terms = if odd.is_empty() { 1 } else { 2 + (37.0 / -libm::log(contraction)) as usize };
        let weights = probed.iter().zip(steps).map(|(j, s)| (*j, s / squares[*j])).collect();
        regular.then_some(Direct { common, above, part, odd, terms, weights })
    }

    /// Effects per step (groups, sides) of drops (probes, sides), row-major.
    pub fn solve(&self, right: &[f64], sides: usize) -> Vec<f64> {
        let mut term = vec![0.0; self.above.len() * sides];
        for ((j, factor), right) in self.weights.iter().zip(right.chunks_exact(sides)) {
            add(&mut term[j * sides..][..sides], *factor, right);
        }
        self.invert(&mut term, sides);
        let mut sum = term.clone();
        for _ in 1..self.terms {
            let mut next = vec![0.0; term.len()];
            for (j, k, x) in &self.odd {
                add(&mut next[j * sides..][..sides], -x, &term[k * sides..][..sides]);
            }
            self.invert(&mut next, sides);
            add(&mut sum, 1.0, &next);
            term = next;
        }
        sum
    }

    /// z of (diag(a) + 1 cᵀ) z = r, in place.
    fn invert(&self, r: &mut [f64], sides: usize) {
        let mut level = vec![0.0; sides];
        for ((c, a), r) in self.common.iter().zip(&self.above).zip(r.chunks_exact(sides)) {
            add(&mut level, c / a / self.part, r);
        }
        for (a, r) in self.above.iter().zip(r.chunks_exact_mut(sides)) {
            r.iter_mut().zip(&level).for_each(|(r, l)| *r = (*r - l) / a);
        }
    }
}

fn add(to: &mut [f64], factor: f64, other: &[f64]) {
    to.iter_mut().zip(other).for_each(|(t, o)| *t += factor * o);
}

/// The share of each group that most probes of others give it, if most do; else any.
fn usual(rows: &[&[f64]]) -> Vec<f64> {
    let (mut votes, mut lead) = (vec![0.0; rows.len()], vec![0u32; rows.len()]);
    for (j, row) in rows.iter().enumerate() {
        for (k, x) in row.iter().enumerate().filter(|(k, _)| *k != j) {
            if lead[k] == 0 {
                votes[k] = *x;
            }
            lead[k] = if votes[k] == *x { lead[k] + 1 } else { lead[k] - 1 };
        }
    }
    votes
}
