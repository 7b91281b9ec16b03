//! Aioli without a plant: what it plans, what it learns, what it survives.

mod direct;
mod failures;
mod learning;
mod planning;

use super::super::plants::{setup, start};
use super::super::{Directive, Estimator, Seen, Setup, Want, When, Window, WindowKind, hamilton};

/// Windows of a directive as served and read: losses fall by `drop(shares, steps)` from `losses` on.
fn served(
    directive: &Directive,
    from: u64,
    losses: &mut [f64],
    drop: &dyn Fn(&[f64], f64) -> Vec<f64>,
) -> Vec<Seen> {
    let mut step = from;
    let mut seen = Vec::new();
    for window in &directive.windows {
        let rows = hamilton::hamilton(window.steps * 1024, &window.shares);
        let before = losses.to_vec();
        let mut one = Seen {
            window: window.clone(),
            from_step: step,
            steps: window.steps,
            rows,
            before: Some(before),
            after: None,
            reports: Vec::new(),
        };
        let fallen = drop(&one.realised(), window.steps as f64);
        losses.iter_mut().zip(&fallen).for_each(|(l, d)| *l -= d);
        one.after = Some(losses.to_vec());
        step += window.steps;
        seen.push(one);
    }
    seen
}

/// Drops of a linear plant.
fn linear(effects: &[f64]) -> impl Fn(&[f64], f64) -> Vec<f64> + '_ {
    move |x, steps| super::super::plants::times(effects, x).iter().map(|d| d * steps).collect()
}

/// A fact of a verdict.
fn fact(verdict: &super::super::Verdict, name: &str) -> Vec<f64> {
    verdict.facts.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

/// That two lists agree.
fn close(a: &[f64], b: &[f64], tolerance: f64) {
    let far = |(a, b): (&f64, &f64)| (a - b).abs() > tolerance;
    assert!(a.len() == b.len() && !a.iter().zip(b).any(far), "{a:?}, want {b:?}");
}
