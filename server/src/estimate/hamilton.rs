//! Whole numbers in given proportions.

/// Fractions closer than this are a tie: sums of decimal shares are off by a few units in the last place.
const TIE: f64 = 1e-9;

/// `total` items shared out by largest remainder (Hamilton), ties to the lowest index; the counts sum to `total`. Shares
/// need not sum to 1; negative ones and those that are not finite count as 0, and all are equal when nothing is left.
/// Ties are seen as such for totals below 2^20, beyond which sums of decimal shares differ by more than [`TIE`].
pub fn hamilton(total: u64, shares: &[f64]) -> Vec<u64> {
    if shares.is_empty() {
        return Vec::new();
    }
    let clean: Vec<f64> = shares.iter().map(|s| if s.is_finite() { s.max(0.0) } else { 0.0 }).collect();
    let sum: f64 = clean.iter().sum();
    let share = |s: &f64| if sum > 0.0 && sum.is_finite() { s / sum } else { 1.0 / clean.len() as f64 };
    let quotas: Vec<f64> = clean.iter().map(|s| share(s) * total as f64).collect();
    let mut counts: Vec<u64> = quotas.iter().map(|q| libm::floor(q + TIE) as u64).collect();
    // In units of TIE, so that the order is total and what is equal up to rounding is equal.
    let rest = |j: usize, counts: &[u64]| libm::round((quotas[j] - counts[j] as f64) / TIE) as i64;
    let mut order: Vec<usize> = (0..counts.len()).filter(|j| quotas[*j] > 0.0).collect();
    order.sort_by_key(|j| (-rest(*j, &counts), *j));
    let given: u64 = counts.iter().sum();
    for place in 0..total.saturating_sub(given) {
        counts[order[place as usize % order.len()]] += 1;
    }
    // TIE may round up more than there is when shares are many and tiny.
    for j in order.iter().rev().cycle().take(given.saturating_sub(total) as usize) {
        counts[*j] = counts[*j].saturating_sub(1);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_of_the_specification() {
        assert_eq!(hamilton(8, &[0.625, 0.375]), [5, 3]);
        assert_eq!(hamilton(8, &[0.5, 0.25, 0.25]), [4, 2, 2]);
        let b = 0.25 / 6.0;
        assert_eq!(hamilton(80, &[0.75, b, b, b, b, b, b]), [60, 4, 4, 3, 3, 3, 3]);
        assert_eq!(hamilton(80, &[b, b, 0.75, b, b, b, b]), [4, 4, 60, 3, 3, 3, 3]);
    }

    #[test]
    fn ties_go_to_the_lowest_index_even_when_sums_are_off_by_rounding() {
        assert_eq!(hamilton(1, &[0.3, 0.1 + 0.2, 0.4 - 1e-17]), [0, 0, 1]);
        assert_eq!(hamilton(5, &[0.1 + 0.2, 0.3, 0.3]), [2, 2, 1]);
        assert_eq!(hamilton(5, &[0.3, 0.1 + 0.2, 0.3]), [2, 2, 1]);
    }

    #[test]
    fn hostile_shares_still_give_the_total() {
        assert_eq!(hamilton(5, &[f64::NAN, 1.0, -3.0]), [0, 5, 0]);
        assert_eq!(hamilton(5, &[0.0, 0.0]), [3, 2]);
        assert_eq!(hamilton(3, &[]), [0u64; 0]);
        assert_eq!(hamilton(4, &[f64::MAX, f64::MAX]), [2, 2]);
    }

    proptest! {
        #[test]
        fn counts_sum_to_the_total_and_stay_within_one(
            total in 0u64..1 << 40,
            raw in proptest::collection::vec(0.0f64..1.0, 1..33),
        ) {
            let counts = hamilton(total, &raw);
            prop_assert_eq!(counts.iter().sum::<u64>(), total);
            let sum: f64 = raw.iter().sum();
            prop_assume!(sum > 0.0);
            for (count, share) in counts.iter().zip(&raw) {
                prop_assert!((*count as f64 - share / sum * total as f64).abs() < 1.0 + 1e-3);
            }
        }
    }
}
