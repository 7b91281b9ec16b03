//! A point on the simplex in integers that sum to 2^32: the same on every machine.

use std::sync::Arc;

/// Sum of all weights.
pub const ONE: u64 = 1 << 32;

/// Shares of the groups of a job, integers that sum to [`ONE`]; zero is legal, all zero is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights(Arc<[u64]>);

/// Weights that are not a mixture.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WeightsError {
    /// No group at all.
    #[error("no weights given, want at least one")]
    Empty,
    /// A weight is negative or not finite.
    #[error("weight of group {group} is {value}, want a finite number >= 0")]
    Value {
        /// Index of the group.
        group: usize,
        /// Value given.
        value: f64,
    },
    /// Recorded shares that are none.
    #[error("weights sum to {sum}, want 2^32")]
    Sum {
        /// Their sum.
        sum: u128,
    },
    /// Nothing to divide by.
    #[error("all weights are zero, want at least one above zero")]
    Zero,
}

impl Weights {
    /// Divides `raw` (one weight per group, any positive scale) by its sum; Hamilton rounding, ties to the lowest
    /// index. A group with a weight above zero keeps at least 2^-32.
    ///
    /// # Errors
    /// [`WeightsError`] when `raw` is empty, has a negative or non-finite entry, or sums to zero.
    pub fn normalise(raw: &[f64]) -> Result<Weights, WeightsError> {
        if raw.is_empty() {
            return Err(WeightsError::Empty);
        }
        if let Some((group, &value)) = raw.iter().enumerate().find(|(_, w)| !w.is_finite() || **w < 0.0) {
            return Err(WeightsError::Value { group, value });
        }
        // Dividing by the largest first keeps the sum finite for any finite input.
        let largest = raw.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return Err(WeightsError::Zero);
        }
        let scaled: Vec<f64> = raw.iter().map(|w| w / largest).collect();
        let sum: f64 = scaled.iter().sum();
        let exact: Vec<f64> = scaled.iter().map(|w| w / sum * ONE as f64).collect();
        let least = |i: usize| u64::from(raw[i] > 0.0);
        let mut shares: Vec<u64> = exact.iter().enumerate().map(|(i, w)| (*w as u64).max(least(i))).collect();
        let mut order: Vec<usize> = (0..raw.len()).filter(|&i| raw[i] > 0.0).collect();
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
        let given: u64 = shares.iter().sum();
        for &i in order.iter().cycle().take(ONE.saturating_sub(given) as usize) {
            shares[i] += 1;
        }
        if given > ONE {
            let most = (0..shares.len()).max_by_key(|&i| (shares[i], usize::MAX - i)).unwrap_or(0);
            shares[most] -= given - ONE;
        }
        Ok(Weights(shares.into()))
    }

    /// Shares as they were recorded.
    ///
    /// # Errors
    /// [`WeightsError::Sum`] unless they sum to [`ONE`].
    pub fn exact(shares: Vec<u64>) -> Result<Weights, WeightsError> {
        match shares.iter().map(|w| u128::from(*w)).sum::<u128>() {
            sum if sum == u128::from(ONE) => Ok(Weights(shares.into())),
            sum => Err(WeightsError::Sum { sum }),
        }
    }

    /// One share per group.
    pub fn shares(&self) -> &[u64] {
        &self.0
    }

    /// The shares as spans keep them.
    pub(super) fn shared(&self) -> Arc<[u64]> {
        self.0.clone()
    }

    /// What is left of `shares` without the groups for which `gone` is true; `None` when that is nothing.
    pub(super) fn without(shares: &[u64], gone: impl Fn(usize) -> bool) -> Option<Weights> {
        let left = shares.iter().enumerate().map(|(i, w)| if gone(i) { 0.0 } else { *w as f64 });
        Weights::normalise(&left.collect::<Vec<_>>()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_sum_to_one_and_zero_stays_zero(raw in prop::collection::vec(
            prop_oneof![Just(0.0), 0.0..1e3f64, Just(1e-300), Just(1e300)], 1..70)) {
            prop_assume!(raw.iter().any(|w| *w > 0.0));
            let w = Weights::normalise(&raw).unwrap();
            prop_assert_eq!(w.shares().iter().sum::<u64>(), ONE);
            for (share, raw) in w.shares().iter().zip(&raw) {
                prop_assert_eq!(*share == 0, *raw == 0.0);
            }
        }
    }

    #[test]
    fn what_is_no_mixture_is_refused() {
        assert_eq!(Weights::normalise(&[]), Err(WeightsError::Empty));
        assert_eq!(Weights::normalise(&[0.0, 0.0]), Err(WeightsError::Zero));
        assert_eq!(Weights::normalise(&[1.0, -0.5]), Err(WeightsError::Value { group: 1, value: -0.5 }));
        assert!(matches!(Weights::normalise(&[f64::NAN]), Err(WeightsError::Value { group: 0, .. })));
        assert!(matches!(Weights::normalise(&[f64::INFINITY]), Err(WeightsError::Value { group: 0, .. })));
    }

    #[test]
    fn thirds_round_to_the_lowest_index() {
        let w = Weights::normalise(&[1.0, 1.0, 1.0]).unwrap();
        assert_eq!(w.shares(), [1_431_655_766, 1_431_655_765, 1_431_655_765]);
    }
}
