//! Exponentiated gradient: the one step that all estimators share.
//!
//! log w_j <- log w_j + eta g_j, p = softmax(log w), in log space and f64, with the maximum subtracted.

/// Smallest share that a logarithm is taken of: log weights stay finite, and a share below it rounds to 0 in the log.
const SMALLEST: f64 = 1e-12;

/// Shares of log weights: finite, >= 0, summing to 1. Empty for none; equal shares when a weight is not finite.
pub fn softmax(log_weights: &[f64]) -> Vec<f64> {
    if log_weights.iter().any(|w| !w.is_finite()) {
        return uniform(log_weights.len());
    }
    let top = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = log_weights.iter().map(|w| libm::exp(w - top)).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|w| w / sum).collect()
}

/// Moves log weights by `eta` times `gains` and takes the maximum off. Gains that are not finite, or another number of
/// them, move nothing; false then.
pub fn step(log_weights: &mut [f64], gains: &[f64], eta: f64) -> bool {
    let moves: Vec<f64> = gains.iter().map(|g| eta * g).collect();
    if moves.len() != log_weights.len() || moves.iter().any(|m| !m.is_finite()) {
        return false;
    }
    log_weights.iter_mut().zip(&moves).for_each(|(w, m)| *w += m);
    center(log_weights);
    true
}

/// Takes the maximum off.
pub fn center(log_weights: &mut [f64]) {
    let top = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top.is_finite() {
        log_weights.iter_mut().for_each(|w| *w -= top);
    }
}

/// Log weights of shares; those below 1e-12 (or not finite) count as 1e-12.
pub fn logs(shares: &[f64]) -> Vec<f64> {
    let log = |p: &f64| libm::log(if p.is_finite() { p.max(SMALLEST) } else { SMALLEST });
    let mut logs: Vec<f64> = shares.iter().map(log).collect();
    center(&mut logs);
    logs
}

/// Equal shares of `groups` groups.
pub fn uniform(groups: usize) -> Vec<f64> {
    vec![1.0 / groups as f64; groups]
}

/// Shares proportional to `raw`; equal ones when the sum is not a positive number.
pub fn proportional(raw: &[f64]) -> Vec<f64> {
    let sum: f64 = raw.iter().sum();
    if sum > 0.0 && sum.is_finite() { raw.iter().map(|w| w / sum).collect() } else { uniform(raw.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) {
        assert!(
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6),
            "{a:?}, want {b:?}"
        );
    }

    #[test]
    fn steps_of_the_specification() {
        let mut w = logs(&[1.0 / 3.0; 3]);
        assert!(step(&mut w, &[0.5, 0.3, 0.2], 0.2));
        close(&softmax(&w), &[0.344524, 0.331015, 0.324461]);
        assert!(step(&mut w, &[0.2, 0.3, 0.5], 0.2));
        close(&softmax(&w), &[0.335548, 0.328904, 0.335548]);
    }

    #[test]
    fn huge_gains_stay_finite_and_bad_ones_move_nothing() {
        let mut w = vec![0.0; 2];
        assert!(step(&mut w, &[1e6, -1e6], 1.0));
        assert_eq!(softmax(&w), [1.0, 0.0]);
        let before = w.clone();
        assert!(!step(&mut w, &[f64::NAN, 0.0], 1.0) && !step(&mut w, &[1.0], 1.0));
        assert!(!step(&mut w, &[f64::MAX, 0.0], 10.0), "an overflow is no move");
        assert_eq!(w, before);
        assert_eq!(softmax(&[f64::NAN, 0.0]), [0.5, 0.5]);
        assert!(softmax(&[]).is_empty());
    }

    #[test]
    fn logs_undo_softmax_and_survive_zero() {
        close(&softmax(&logs(&[0.2, 0.5, 0.3])), &[0.2, 0.5, 0.3]);
        let p = softmax(&logs(&[0.0, 1.0, f64::NAN]));
        assert!(p.iter().all(|p| p.is_finite()) && p[0] < 1e-11 && p[1] > 0.999, "{p:?}");
        assert_eq!(proportional(&[1.0, 3.0]), [0.25, 0.75]);
        assert_eq!(proportional(&[0.0, 0.0]), [0.5, 0.5]);
    }
}
