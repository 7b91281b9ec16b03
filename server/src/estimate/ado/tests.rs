use super::*;
use crate::estimate::fold::evidence::{report, seen};
use crate::estimate::plants::{setup, start};

const UNIFORM: [f64; 3] = [1.0 / 3.0; 3];

fn close(got: &[f64], want: &[f64], within: f64) {
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < within), "{got:?}, want {want:?}");
}

#[test]
fn the_vector_of_the_specification() {
    let fit = |alpha, beta| Some(Fit { log_beta: libm::log(beta), log_epsilon: 0.0, alpha });
    let fits = [fit(0.3, 10.0), fit(0.2, 8.0), fit(0.5, 20.0)];
    let rho = preferences(&UNIFORM, &[0.5, 0.3, 0.2], &fits, 1e4, 0.01).expect("laws");
    close(&rho, &[0.421615, 0.437513, 0.140872], 1e-6);
    let served: Vec<f64> = rho.iter().map(|r| 0.9 / 3.0 + 0.1 * r).collect();
    close(&served, &[0.342162, 0.343751, 0.314087], 1e-6);
    assert_eq!(preferences(&UNIFORM, &UNIFORM, &[None; 3], 1e4, 0.01), None);
    let one = preferences(&UNIFORM, &UNIFORM, &[fits[0], None, None], 1e4, 0.01).expect("a law");
    close(&one, &UNIFORM, 1e-12);
}

/// Laws of the test: (log beta, log epsilon, alpha).
const LAWS: [(f64, f64, f64); 3] = [(3.0, 0.8, 0.3), (2.0, 0.6, 0.2), (4.0, 0.7, 0.5)];

fn loss(j: usize, n: f64) -> f64 {
    let (b, e, a) = LAWS[j];
    libm::exp(b - a * libm::log(n)) + libm::exp(e)
}

#[test]
fn exact_laws_are_found() {
    let law = Bounds { alpha: (0.001, 0.8), log_beta: (-20.0, 6.5), log_epsilon: (0.5, 10.0), huber: 1e-3 };
    for (j, (b, e, a)) in LAWS.iter().enumerate() {
        let points: Vec<(f64, f64)> =
            (1..300).map(|k| f64::from(k) * 500.0).map(|n| (libm::log(n), libm::log(loss(j, n)))).collect();
        let fit = law.fit(&points).expect("a fit");
        close(&[fit.log_beta, fit.log_epsilon, fit.alpha], &[*b, *e, *a], 1e-3);
    }
    assert_eq!(law.fit(&[(1.0, 1.0); 3]), None, "too few points");
    let byte = Bounds { log_epsilon: (-10.0, 10.0), ..law };
    let points: Vec<(f64, f64)> =
        (1..300).map(|k| (libm::log(f64::from(k)), libm::log(2.0 / f64::from(k) + 0.5))).collect();
    assert!(law.fit(&points).expect("a fit").log_epsilon >= 0.5, "the paper's bound");
    let found = Bounds { alpha: (0.001, 2.0), ..byte }.fit(&points).expect("a fit");
    close(&[found.log_epsilon, found.alpha], &[libm::log(0.5), 1.0], 1e-3);
}

#[test]
fn fits_are_as_near_as_a_long_search_from_the_truth() {
    let stream = crate::rng::Stream::new(6, "test/ado");
    let law = Bounds { alpha: (0.001, 0.8), log_beta: (-20.0, 6.5), log_epsilon: (-10.0, 10.0), huber: 1e-3 };
    for case in 0..40 {
        let mut rng = stream.at(crate::rng::Draw::PrivateA, case, 0);
        let mut draw = |low: f64, high: f64| low + (high - low) * rng.uniform();
        let truth = [draw(0.0, 4.0), draw(-1.0, 1.0), draw(0.1, 0.6)];
        let mut noise = || 2e-3 * (draw(-1.0, 1.0) + draw(-1.0, 1.0));
        let log_loss = |n: f64| libm::log(libm::exp(truth[0] - truth[2] * n) + libm::exp(truth[1]));
        let points: Vec<(f64, f64)> =
            (1..=FINE).map(|k| libm::log(300.0 * k as f64)).map(|n| (n, log_loss(n) + noise())).collect();
        let best = law.polish(&points, &truth, 500).cost;
        let found = law.fit(&points).expect("a fit");
        let cost = law.polish(&points, &[found.log_beta, found.log_epsilon, found.alpha], 0).cost;
        assert!(cost <= 1.05 * best, "case {case}: {cost}, {best} is possible");
    }
}

/// Reports of 1024 samples a step of `tokens` each, shared evenly.
fn run(numbers: &[(&str, f64)], steps: u64, absent: impl Fn(u64, usize) -> bool) -> Box<dyn Estimator> {
    let mut e = start("ado", numbers, &[], &setup(3, 3));
    for step in 1..=steps {
        let n = step as f64 * 30.0;
        let count = |j: usize| if absent(step, j) { 0.0 } else { 10.0 * 1024.0 };
        let counts: Vec<f64> = (0..3).map(count).collect();
        let values: Vec<f64> = (0..3).map(|j| counts[j] * loss(j, n)).collect();
        e.observe(&seen(&UNIFORM, vec![report(Want::Train, step, &values, &counts)]));
    }
    e
}

const QUICK: [(&str, f64); 5] =
    [("start", 400.0), ("refit", 200.0), ("ignore", 20.0), ("smooth", 11.0), ("stride", 2.0)];

#[test]
fn shares_follow_the_slopes_once_there_is_a_fit() {
    assert_eq!(run(&QUICK, 399, |_, _| false).shares(), UNIFORM);
    let e = run(&QUICK, 1000, |_, _| false);
    let fits: Vec<_> =
        LAWS.iter().map(|(b, l, a)| Some(Fit { log_beta: *b, log_epsilon: *l, alpha: *a })).collect();
    let rho = preferences(&UNIFORM, &UNIFORM, &fits, 30_000.0, 0.01).expect("laws");
    let p = e.shares();
    let order = |x: &[f64]| (x[0] > x[1], x[1] > x[2], x[0] > x[2]);
    assert_eq!(order(&p), order(&rho), "{p:?} {rho:?}");
    assert!((0..3).all(|j| (p[j] - 1.0 / 3.0) * (rho[j] - 1.0 / 3.0) > 0.0), "{p:?} {rho:?}");
}

#[test]
fn a_missing_loss_is_the_last_one_and_a_group_without_any_is_neutral() {
    // The smoother sees steps instead of a curve here and there: nearly the same answer.
    let whole = run(&QUICK, 800, |_, _| false).shares();
    let gaps = run(&QUICK, 800, |step, j| (step + j as u64).is_multiple_of(7)).shares();
    close(&gaps, &whole, 0.01);
    let never = run(&QUICK, 800, |_, j| j == 2).shares();
    assert!(never.iter().all(|p| p.is_finite()) && (never.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn the_history_stays_bounded_and_keeps_its_ends() {
    let numbers = [QUICK[0], QUICK[1], QUICK[2], QUICK[3], ("stride", 1.0), ("points", 40.0)];
    let args = crate::estimate::plants::arguments("ado", &numbers, &[]);
    let mut history = History::new(1, &args);
    for step in 1..5000u64 {
        history.push(&[1.0 + 1.0 / step as f64], 1024.0);
    }
    let points = history.points(0, 40);
    assert!((10..=40).contains(&points.len()), "{}", points.len());
    // 20 are ignored, then half a smoother of 11.
    assert!((points[0].0 - libm::log(26.0)).abs() < 1e-9, "{:?}", points[0]);
    assert!((points[points.len() - 1].0 - libm::log(4994.0)).abs() < 0.05);
    let gaps: Vec<f64> = points.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert!(gaps.iter().all(|g| *g < 0.9), "evenly in the logarithm: {gaps:?}");
}

#[test]
fn a_bad_prior_is_refused() {
    let vectors = |v: &[f64]| Vectors::from([("prior".to_owned(), v.to_vec())]);
    let args = crate::estimate::plants::arguments("ado", &[], &[]);
    let said = |v: &[f64]| Ado.start(&setup(2, 2), &args, &vectors(v)).expect_err("a bad prior").to_string();
    assert_eq!(said(&[0.0, 0.0]), "vector `prior` of estimator `ado` sums to 0, want more");
    assert!(said(&[1.0]).contains("has 1 entries, want 2"));
    let e = Ado.start(&setup(2, 2), &args, &vectors(&[3.0, 1.0])).expect("legal");
    assert_eq!(e.shares(), [0.75, 0.25]);
}
