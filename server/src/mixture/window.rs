//! Items of equal cost among groups, in closed form.
//!
//! Within a window of constant shares the first `n` items give group j
//! `max(0, floor(T * p_j + r_j + phi_j))` items, with the smallest T whose counts add up to n, ties to the lowest
//! index. The phase phi_j spreads many equal small groups over the batch; with one phase for all they would arrive in
//! one burst. All arithmetic is integral: p_j = W_j / sum W, r_j = R_j / 2^32, thresholds are compared by cross
//! products. The j-th group's c-th item therefore falls at `T = (c * 2^32 - R_j - PHI_j) / W_j`, in units of
//! `sum W / 2^32` items.
//!
//! Weights of an entry sum to 2^32; a probe's shares are its counts, and without credit `sum W` items give each group
//! exactly W_j: there T is 2^32, and no phase reaches one item.

use super::carry::{Carry, settle};
use super::weights::ONE;
use std::sync::Arc;

/// Positions beyond this many items never come for anyone who waits.
pub const FAR: u64 = 1 << 62;

/// Fixed phase of group `j` in units of 2^-32 (golden ratio steps).
fn phase(j: usize) -> i128 {
    i128::from((j as u64 + 1).wrapping_mul(2_654_435_769) % ONE)
}

/// A run of items under constant shares.
#[derive(Clone, Debug)]
pub struct Window {
    /// First item of the job that it governs.
    pub start: u64,
    /// Shares of the groups, not all zero.
    pub shares: Arc<[u64]>,
    /// What each group is owed, in units of 2^-32; sums to zero.
    credit: Arc<[i128]>,
    /// Items each group had before this window.
    pub before: Arc<[u64]>,
}

impl Window {
    /// The window of `weights` that goes on from `carry`.
    pub fn follow(carry: &Carry, shares: Arc<[u64]>) -> Window {
        let credit = settle(&carry.credit, &shares);
        Window { start: carry.items, shares, credit, before: carry.counts.clone() }
    }

    /// A window of exactly `counts` items, whatever the groups are owed; not all of them zero.
    pub fn exact(carry: &Carry, counts: Vec<u64>) -> Window {
        let credit = vec![0; counts.len()].into();
        Window { start: carry.items, shares: counts.into(), credit, before: carry.counts.clone() }
    }

    /// Items and credit of the job after `items` of this window.
    pub fn carry(&self, items: u64) -> Carry {
        let counts = self.counts(items);
        let owed = |j: usize| i128::from(items) * i128::from(self.shares[j]) - (i128::from(counts[j]) << 32);
        let credit = (0..counts.len()).map(|j| self.credit[j] + owed(j)).collect();
        Carry { items: self.start + items, counts: self.plus(&counts), credit }
    }

    /// Items per group of the job after `items` of this window.
    pub fn total(&self, items: u64) -> Arc<[u64]> {
        self.plus(&self.counts(items))
    }

    fn plus(&self, counts: &[u64]) -> Arc<[u64]> {
        self.before.iter().zip(counts).map(|(b, c)| b + c).collect()
    }

    /// Items per group among the first `items` of this window; sums to `items`.
    fn counts(&self, items: u64) -> Vec<u64> {
        let groups = self.shares.len();
        let at = |t: i128| (0..groups).map(|j| self.reached(j, t)).collect::<Vec<u64>>();
        let total = |t: i128| (0..groups).map(|j| u128::from(self.reached(j, t))).sum::<u128>();
        let wanted = u128::from(items);
        // Largest integer T whose counts don't exceed `items`. Without credits it is near `items` in units of T;
        // credits are bounded by a few groups' worth, and doubling makes the bracket independent of how large they are.
        let unit = |n: u128| ((n << 32) / self.shares.iter().map(|w| u128::from(*w)).sum::<u128>()) as i128;
        let (guess, mut reach) = (unit(wanted), unit(groups as u128) + 1);
        let (mut low, mut high) = (guess - reach, guess + reach);
        while total(low) > wanted {
            (high, low, reach) = (low, low - 2 * reach, 2 * reach);
        }
        while total(high) <= wanted {
            (low, high, reach) = (high, high + 2 * reach, 2 * reach);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if total(middle) <= wanted { low = middle } else { high = middle }
        }
        let mut counts = at(low);
        // The rest falls between T = low and low + 1, where a group gains at most two items: hand them out in order.
        for _ in counts.iter().map(|c| u128::from(*c)).sum::<u128>()..wanted {
            let next = (0..groups).filter(|&j| self.shares[j] > 0);
            let first = next.min_by(|&a, &b| self.earlier(a, counts[a] + 1, b, counts[b] + 1));
            counts[first.expect("not all shares are zero")] += 1;
        }
        counts
    }

    /// Items of this window up to and including the `c`-th one of group `j` (c >= 1), or `None` if it never comes.
    pub fn position(&self, j: usize, c: u64) -> Option<u64> {
        if self.shares[j] == 0 || c >= FAR {
            return None;
        }
        let (num, den) = self.threshold(j, c);
        let upto = |i: usize| -> i128 {
            // Largest c' with (c' * 2^32 - R_i - PHI_i) / W_i below (or equal, for lower indices) to num / den.
            let w = i128::from(self.shares[i]);
            if w == 0 {
                return 0;
            }
            let (top, bottom) = (num * w + (self.credit[i] + phase(i)) * den, den << 32);
            let whole = top.div_euclid(bottom);
            let tie = top.rem_euclid(bottom) == 0 && i > j;
            (whole - i128::from(tie)).max(0)
        };
        let items: i128 = (0..self.shares.len()).map(upto).sum();
        u64::try_from(items).ok().filter(|items| *items < FAR)
    }

    fn reached(&self, j: usize, t: i128) -> u64 {
        let w = self.shares[j];
        if w == 0 {
            return 0;
        }
        // An arithmetic shift is the floor of a division by 2^32.
        ((t * i128::from(w) + self.credit[j] + phase(j)) >> 32).max(0) as u64
    }

    /// T at which group `j` gets its `c`-th item, as a fraction.
    fn threshold(&self, j: usize, c: u64) -> (i128, i128) {
        ((i128::from(c) << 32) - self.credit[j] - phase(j), i128::from(self.shares[j]))
    }

    /// Whether group `a` gets its `ca`-th item before group `b` its `cb`-th; both have a share.
    pub fn earlier(&self, a: usize, ca: u64, b: usize, cb: u64) -> std::cmp::Ordering {
        let ((na, da), (nb, db)) = (self.threshold(a, ca), self.threshold(b, cb));
        (na * db).cmp(&(nb * da)).then(a.cmp(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::Weights;
    use crate::rng::{Draw, Stream};
    use proptest::prelude::*;

    fn window(raw: &[f64]) -> Window {
        let weights = Weights::normalise(raw).unwrap();
        Window::follow(&Carry::start(raw.len()), weights.shared())
    }

    proptest! {
        #[test]
        fn counts_are_monotone_exact_and_close_to_the_weights(
            raw in prop::collection::vec(prop_oneof![Just(0.0), 0.001..1.0f64], 1..12), n in 0u64..5000) {
            prop_assume!(raw.iter().any(|w| *w > 0.0));
            let window = window(&raw);
            let (now, next) = (window.counts(n), window.counts(n + 1));
            prop_assert_eq!(now.iter().sum::<u64>(), n);
            prop_assert_eq!(next.iter().zip(&now).filter(|(a, b)| a != b).count(), 1);
            for (j, c) in now.iter().enumerate() {
                let wanted = n as f64 * window.shares[j] as f64 / ONE as f64;
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
        let window = window(&raw);
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
        let mut window = window(&vec![1.0; groups]);
        let (mut wanted, mut worst) = (vec![0i128; groups], 0.0f64);
        for _ in 0..10_000 {
            let items = rng.between(1, 64);
            for (sum, w) in wanted.iter_mut().zip(window.shares.iter()) {
                *sum += i128::from(*w) * i128::from(items);
            }
            // A corner of 94 % that jumps at every change.
            let mut raw = vec![0.06 / (groups - 1) as f64; groups];
            raw[rng.below(groups as u64) as usize] = 0.94;
            let next = Weights::normalise(&raw).unwrap();
            window = Window::follow(&window.carry(items), next.shared());
            assert_eq!(window.credit.iter().sum::<i128>(), 0);
            for (j, sum) in wanted.iter().enumerate() {
                worst = worst.max((window.before[j] as f64 - *sum as f64 / ONE as f64).abs());
            }
        }
        println!("worst distance from the wanted count: {worst:.2}");
        assert!(worst < 2.0 + groups as f64 / 4.0, "{worst}");
    }

    proptest! {
        #[test]
        fn a_probe_gives_exactly_its_counts_and_spreads_them(counts in prop::collection::vec(0u64..500, 1..12)) {
            let items: u64 = counts.iter().sum();
            prop_assume!(items > 0);
            let window = Window::exact(&Carry::start(counts.len()), counts.clone());
            prop_assert_eq!(window.counts(items), counts.clone());
            for n in [1, items / 3, items / 2, items - 1] {
                for (c, wanted) in window.counts(n).iter().zip(&counts) {
                    let wanted = *wanted as f64 * n as f64 / items as f64;
                    prop_assert!((*c as f64 - wanted).abs() < 2.0, "{} of {}", c, wanted);
                }
            }
        }
    }

    #[test]
    fn far_positions_are_found_without_walking() {
        let window = window(&[0.5, 0.3, 0.2]);
        let n = 10_000_000 * 65_536;
        assert_eq!(window.counts(n).iter().sum::<u64>(), n);
    }
}
