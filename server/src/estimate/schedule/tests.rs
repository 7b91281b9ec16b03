//! Schedules are functions of the step.

use super::super::plants::setup;
use super::super::{Estimator, FOREVER, MethodError, Vectors, by_name};
use crate::args::Args;
use std::collections::BTreeMap;

fn start(word: &str, starts: &[f64], shares: &[f64]) -> Result<Box<dyn Estimator>, MethodError> {
    let method = by_name("schedule").expect("known");
    let words = [("interpolation".to_string(), word.to_string())].into();
    let numbers = BTreeMap::from([("min_window".to_string(), 10.0)]);
    let args = Args::resolve(&method.declared(), &numbers, &words).expect("legal");
    let vectors = Vectors::from([("starts".into(), starts.to_vec()), ("shares".into(), shares.to_vec())]);
    method.start(&setup(2, 2), &args, &vectors)
}

/// Shares of the first group and the length of the window that begins at `step`.
fn at(estimator: &mut dyn Estimator, step: u64) -> (f64, u64) {
    let directive = estimator.directive(step);
    assert!(directive.windows.len() == 1 && !directive.barrier);
    assert_eq!(estimator.shares(), directive.windows[0].shares);
    (directive.windows[0].shares[0], directive.windows[0].steps)
}

#[test]
fn steps_hold_until_the_next_start() {
    let mut e = start("step", &[100.0, 200.0], &[1.0, 1.0, 3.0, 1.0]).expect("starts");
    assert_eq!(at(&mut *e, 0), (0.5, 100), "before the first start its shares hold");
    assert_eq!(at(&mut *e, 100), (0.5, 100));
    assert_eq!(at(&mut *e, 150), (0.5, 50));
    assert_eq!(at(&mut *e, 200), (0.75, FOREVER));
    assert_eq!(at(&mut *e, 1 << 40), (0.75, FOREVER));
}

#[test]
fn lines_are_windows_on_a_grid() {
    let mut e = start("linear", &[100.0, 125.0], &[1.0, 1.0, 3.0, 1.0]).expect("starts");
    assert_eq!(at(&mut *e, 100), (0.5, 10));
    assert_eq!(at(&mut *e, 110), (0.6, 10));
    assert_eq!(at(&mut *e, 117), (0.6, 3), "from inside a window its rest");
    assert_eq!(at(&mut *e, 120), (0.7, 5), "the last window is cut at the next start");
    assert_eq!(at(&mut *e, 125), (0.75, FOREVER));
}

#[test]
fn an_operator_holds_until_the_next_start() {
    for word in ["step", "linear"] {
        let mut e = start(word, &[0.0, 200.0], &[1.0, 1.0, 3.0, 1.0]).expect("starts");
        at(&mut *e, 50);
        e.steer(&[0.9, 0.1]);
        assert_eq!(at(&mut *e, 60), (0.9, 140));
        assert_eq!(at(&mut *e, 200), (0.75, FOREVER));
    }
}

#[test]
fn misfits_are_named() {
    let said =
        |starts: &[f64], shares: &[f64]| start("step", starts, shares).expect_err("a misfit").to_string();
    let begin = "vector `starts` of estimator `schedule` ";
    assert_eq!(said(&[], &[]), format!("{begin}is empty, want at least one step"));
    assert_eq!(said(&[5.0, 5.0], &[1.0; 4]), format!("{begin}has 5 before 5, want ascending steps"));
    assert_eq!(said(&[0.5], &[1.0; 2]), format!("{begin}holds 0.5, want whole steps below 1e15"));
    assert!(said(&[-1.0], &[1.0; 2]).contains("holds -1, want finite numbers >= 0"));
    let begin = "vector `shares` of estimator `schedule` ";
    assert_eq!(said(&[0.0], &[1.0; 3]), format!("{begin}has 3 entries, want 2"));
    assert_eq!(said(&[7.0], &[0.0; 2]), format!("{begin}sum to 0 from step 7 on, want more than 0"));
}
