//! Items of equal cost among groups, in closed form.
//!
//! Within a window of constant weights the first `n` items give group j
//! `max(0, floor(T * p_j + r_j + phi_j))` items, with the smallest T whose counts add up to n, ties to the lowest
//! index. The phase phi_j spreads many equal small groups over the batch; with one phase for all they would arrive in
//! one burst. All arithmetic is integral: p_j = W_j / 2^32, r_j = R_j / 2^32, thresholds are compared by cross
//! products. The j-th group's c-th item therefore falls at `T = (c * 2^32 - R_j - PHI_j) / W_j`.

use super::weights::{ONE, Weights};

/// Fixed phase of group `j` in units of 2^-32 (golden ratio steps).
fn phase(j: usize) -> i128 {
    i128::from((j as u64 + 1).wrapping_mul(2_654_435_769) % ONE)
}

/// A run of items under constant weights.
#[derive(Clone, Debug)]
pub struct Window {
    /// First item of the job that it governs.
    pub start: u64,
    /// Shares.
    pub weights: Weights,
    /// What each group is owed, in units of 2^-32; sums to zero.
    credit: Vec<i128>,
    /// Items each group had before this window.
    pub before: Vec<u64>,
}

impl Window {
    /// The first window of a job.
    pub fn first(weights: Weights) -> Window {
        let groups = weights.shares().len();
        Window { start: 0, weights, credit: vec![0; groups], before: vec![0; groups] }
    }

    /// The window that follows after `items` of this one, with other weights. Credit of groups that get nothing from
    /// now on moves to the others in proportion, the remainder to the last, so that the sum stays zero.
    pub fn then(&self, items: u64, weights: Weights) -> Window {
        let counts = self.counts(items);
        let shares = self.weights.shares();
        let owed = |j: usize| i128::from(items) * i128::from(shares[j]) - (i128::from(counts[j]) << 32);
        let mut credit: Vec<i128> = (0..shares.len()).map(|j| self.credit[j] + owed(j)).collect();
        let next = weights.shares();
        let orphaned: i128 = (0..next.len()).filter(|&j| next[j] == 0).map(|j| credit[j]).sum();
        let mut left = orphaned;
        for j in 0..next.len() {
            if next[j] == 0 {
                credit[j] = 0;
            } else {
                let part = orphaned * i128::from(next[j]) / i128::from(ONE);
                credit[j] += part;
                left -= part;
            }
        }
        if let Some(last) = next.iter().rposition(|w| *w > 0) {
            credit[last] += left;
        }
        let before = self.before.iter().zip(&counts).map(|(b, c)| b + c).collect();
        Window { start: self.start + items, weights, credit, before }
    }

    /// Items per group among the first `items` of this window; sums to `items`.
    pub fn counts(&self, items: u64) -> Vec<u64> {
        let groups = self.weights.shares().len();
        let at = |t: i128| (0..groups).map(|j| self.reached(j, t)).collect::<Vec<u64>>();
        let total = |counts: &[u64]| counts.iter().map(|c| u128::from(*c)).sum::<u128>();
        let wanted = u128::from(items);
        // Largest integer T whose counts don't exceed `items`. Credits are bounded by a few groups' worth, so the
        // bracket below always holds the answer; doubling makes that independent of how large they are.
        let (mut low, mut high) = (-1i128, i128::from(items) + 1);
        while total(&at(low)) > wanted {
            low *= 2;
        }
        while total(&at(high)) <= wanted {
            high += i128::from(items) + groups as i128 + 1;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if total(&at(middle)) <= wanted { low = middle } else { high = middle }
        }
        let mut counts = at(low);
        // The rest falls between T = low and low + 1, where a group gains at most two items: hand them out in order.
        for _ in total(&counts)..wanted {
            let next = (0..groups).filter(|&j| self.weights.shares()[j] > 0);
            let first = next.min_by(|&a, &b| self.earlier(a, counts[a] + 1, b, counts[b] + 1));
            counts[first.expect("weights sum to 2^32, so one is above zero")] += 1;
        }
        counts
    }

    /// Items of this window up to and including the `c`-th one of group `j` (c >= 1), or `None` if it never comes.
    pub fn position(&self, j: usize, c: u64) -> Option<u64> {
        if self.weights.shares()[j] == 0 {
            return None;
        }
        let (num, den) = self.threshold(j, c);
        let upto = |i: usize| -> i128 {
            // Largest c' with (c' * 2^32 - R_i - PHI_i) / W_i below (or equal, for lower indices) to num / den.
            let w = i128::from(self.weights.shares()[i]);
            if w == 0 {
                return 0;
            }
            let (top, bottom) = (num * w + (self.credit[i] + phase(i)) * den, den << 32);
            let whole = top.div_euclid(bottom);
            let tie = top.rem_euclid(bottom) == 0 && i > j;
            (whole - i128::from(tie)).max(0)
        };
        // Beyond 2^62 items it never comes for anyone who waits.
        let items: i128 = (0..self.weights.shares().len()).map(upto).sum();
        u64::try_from(items).ok().filter(|items| *items < 1 << 62)
    }

    fn reached(&self, j: usize, t: i128) -> u64 {
        let w = self.weights.shares()[j];
        if w == 0 {
            return 0;
        }
        (t * i128::from(w) + self.credit[j] + phase(j)).div_euclid(i128::from(ONE)).max(0) as u64
    }

    /// T at which group `j` gets its `c`-th item, as a fraction.
    fn threshold(&self, j: usize, c: u64) -> (i128, i128) {
        ((i128::from(c) << 32) - self.credit[j] - phase(j), i128::from(self.weights.shares()[j]))
    }

    /// Whether group `a` gets its `ca`-th item before group `b` its `cb`-th; both have weight.
    pub fn earlier(&self, a: usize, ca: u64, b: usize, cb: u64) -> std::cmp::Ordering {
        let ((na, da), (nb, db)) = (self.threshold(a, ca), self.threshold(b, cb));
        (na * db).cmp(&(nb * da)).then(a.cmp(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Draw, Stream};
    use proptest::prelude::*;

    fn weights(raw: &[f64]) -> Weights {
        Weights::normalise(raw).unwrap()
    }

    proptest! {
        #[test]
        fn counts_are_monotone_exact_and_close_to_the_weights(
            raw in prop::collection::vec(prop_oneof![Just(0.0), 0.001..1.0f64], 1..12), n in 0u64..5000) {
            prop_assume!(raw.iter().any(|w| *w > 0.0));
            let window = Window::first(weights(&raw));
            let (now, next) = (window.counts(n), window.counts(n + 1));
            prop_assert_eq!(now.iter().sum::<u64>(), n);
            prop_assert_eq!(next.iter().zip(&now).filter(|(a, b)| a != b).count(), 1);
            for (j, c) in now.iter().enumerate() {
                let wanted = n as f64 * window.weights.shares()[j] as f64 / ONE as f64;
                prop_assert!((*c as f64 - wanted).abs() < 2.0, "group {} has {} of {}", j, c, wanted);
                if *c > 0 {
                    let at = window.position(j, *c).unwrap();
                    prop_assert!(at <= n && window.counts(at)[j] == *c && window.counts(at - 1)[j] == *c - 1);
                }
            }
        }
    }

    #[test]
    fn many_equal_small_groups_arrive_evenly() {
        let mut raw = vec![1.0; 64];
        raw[63] = 8.0;
        let window = Window::first(weights(&raw));
        // 63 of 71 shares: 28.4 items of the small groups in each batch of 32.
        for step in 0..200 {
            let (a, b) = (window.counts(step * 32), window.counts((step + 1) * 32));
            let small: u64 = (0..63).map(|j| b[j] - a[j]).sum();
            assert!((26..=31).contains(&small), "step {step}: {small}");
        }
    }

    #[test]
    fn ten_thousand_hostile_changes_stay_within_the_bound() {
        let groups = 60;
        let mut rng = Stream::new(11, "hostile").at(Draw::Order, 0, 0);
        let mut window = Window::first(weights(&vec![1.0; groups]));
        let (mut wanted, mut worst) = (vec![0i128; groups], 0.0f64);
        for _ in 0..10_000 {
            let items = rng.between(1, 64);
            for (sum, w) in wanted.iter_mut().zip(window.weights.shares()) {
                *sum += i128::from(*w) * i128::from(items);
            }
            // A corner of 94 % that jumps at every change.
            let mut raw = vec![0.06 / (groups - 1) as f64; groups];
            raw[rng.below(groups as u64) as usize] = 0.94;
            window = window.then(items, weights(&raw));
            assert_eq!(window.credit.iter().sum::<i128>(), 0);
            for (j, sum) in wanted.iter().enumerate() {
                worst = worst.max((window.before[j] as f64 - *sum as f64 / ONE as f64).abs());
            }
        }
        println!("worst distance from the wanted count: {worst:.2}");
        assert!(worst < 2.0 + groups as f64 / 4.0, "{worst}");
    }

    #[test]
    fn far_positions_are_found_without_walking() {
        let window = Window::first(weights(&[0.5, 0.3, 0.2]));
        let n = 10_000_000 * 65_536;
        assert_eq!(window.counts(n).iter().sum::<u64>(), n);
    }
}
