//! From an estimator's shares to those that are served.
//!
//! ```text
//! raw -> drop mask -> bounds and exposure caps -> floor -> trust region -> served
//! ```
//! The order is fixed. Bounds are met by a projection in the sense of Kullback and Leibler: what is free is scaled by one
//! factor. Hard bounds win over the floor and the trust region; a trust region that leaves no mixture at all (a large
//! group was dropped) is lifted for the round.

#[cfg(test)]
mod tests;

use super::eg;
use std::fmt::Write as _;

/// Changes of a share below this are not worth a word.
const TOLD: f64 = 1e-6;

/// Groups named per step at most.
const NAMED: usize = 4;

/// Slack of sums of bounds.
const SLACK: f64 = 1e-12;

/// What holds for a job's shares. Lists have one entry per group.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Groups that get nothing: dropped, used up, weight 0.
    pub dropped: Vec<bool>,
    /// Smallest shares, 0 for none.
    pub low: Vec<f64>,
    /// Largest shares, 1 for none.
    pub high: Vec<f64>,
    /// Largest shares by [`exposure_cap`], 1 for none.
    pub caps: Vec<f64>,
    /// Smallest share of any group that is not dropped; `None` means [`default_floor`].
    pub floor: Option<f64>,
    /// Largest change of a share's logarithm, 0 for no limit.
    pub trust: f64,
    /// As the papers: neither floor nor trust region.
    pub paper_faithful: bool,
}

impl Rules {
    /// No bounds, the default floor and a trust region of 1.
    pub fn new(groups: usize) -> Self {
        Rules {
            dropped: vec![false; groups],
            low: vec![0.0; groups],
            high: vec![1.0; groups],
            caps: vec![1.0; groups],
            floor: None,
            trust: 1.0,
            paper_faithful: false,
        }
    }
}

/// Shares to serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Shares, >= 0, summing to 1; all 0 when every group is dropped.
    pub shares: Vec<f64>,
    /// What each step changed, "" for nothing: "bounds: group 0 0.7000 -> 0.5000; floor 0.01: ...".
    pub changes: String,
}

/// 0.01 up to 20 groups, 0.2 / groups above.
pub fn default_floor(groups: usize) -> f64 {
    if groups <= 20 { 0.01 } else { 0.2 / groups as f64 }
}

/// Largest share of a group of `size` that leads to at most `max_epochs` epochs of it when `served` of it are gone and
/// `remaining` of the job are to come (all in one unit); 1 when nothing remains or nothing is known.
pub fn exposure_cap(max_epochs: f64, size: f64, served: f64, remaining: f64) -> f64 {
    let cap = (max_epochs * size - served) / remaining;
    if remaining > 0.0 && max_epochs > 0.0 && cap.is_finite() { cap.clamp(0.0, 1.0) } else { 1.0 }
}

/// Bounds `raw` by `rules`; `previous` are the shares served so far, for the trust region.
pub fn settle(raw: &[f64], previous: Option<&[f64]>, rules: &Rules) -> Settled {
    let m = raw.len();
    let live = |j: usize| !rules.dropped[j];
    let groups = (0..m).filter(|j| live(*j)).count();
    let mut changes = String::new();
    if groups == 0 {
        return Settled { shares: vec![0.0; m], changes: "every group is dropped".into() };
    }
    let previous = previous.filter(|p| p.len() == m && p.iter().all(|s| s.is_finite() && *s >= 0.0));
    let sane = raw.iter().all(|s| s.is_finite() && *s >= 0.0) && raw.iter().sum::<f64>() > 0.0;
    let mut shares = eg::proportional(if sane { raw } else { previous.unwrap_or(&[]) });
    if !sane {
        changes.push_str("raw shares are no shares: the last ones are kept");
        shares.resize(m, 1.0 / m as f64);
    }
    let masked: Vec<f64> = (0..m).map(|j| if live(j) { shares[j] } else { 0.0 }).collect();
    let masked = if masked.iter().sum::<f64>() > 0.0 {
        eg::proportional(&masked)
    } else {
        (0..m).map(|j| if live(j) { 1.0 / groups as f64 } else { 0.0 }).collect()
    };
    advance(&mut shares, masked, "drop", &mut changes);

    let high: Vec<f64> =
        (0..m).map(|j| if live(j) { rules.high[j].min(rules.caps[j]).max(0.0) } else { 0.0 }).collect();
    let low: Vec<f64> = (0..m).map(|j| if live(j) { rules.low[j].min(high[j]) } else { 0.0 }).collect();
    let (low, high) = feasible(low, high, &rules.dropped, &mut changes);
    let bounded = water_fill(&shares, &low, &high);
    advance(&mut shares, bounded, "bounds", &mut changes);
    if rules.paper_faithful {
        return Settled { shares, changes };
    }

    let delta = rules.floor.unwrap_or_else(|| default_floor(groups)).clamp(0.0, 1.0 / groups as f64);
    let lift = |j: usize| if live(j) { (1.0 - groups as f64 * delta) * shares[j] + delta } else { 0.0 };
    let floored: Vec<f64> = (0..m).map(lift).collect();
    // A group whose bound is below the floor stays at its bound.
    let least: Vec<f64> =
        (0..m).map(|j| if live(j) { low[j].max(delta.min(high[j])) } else { 0.0 }).collect();
    let least = if least.iter().sum::<f64>() <= 1.0 { least } else { low.clone() };
    let floored = water_fill(&floored, &least, &high);
    advance(&mut shares, floored, &format!("floor {delta}"), &mut changes);

    if let Some(previous) = previous.filter(|_| rules.trust > 0.0) {
        trust(&mut shares, previous, (&low, &high), rules.trust, &mut changes);
    }
    Settled { shares, changes }
}

/// Keeps every share within a factor e^kappa of the `previous` one, as far as the hard bounds allow.
fn trust(
    shares: &mut Vec<f64>,
    previous: &[f64],
    (low, high): (&[f64], &[f64]),
    kappa: f64,
    changes: &mut String,
) {
    let factor = libm::exp(kappa);
    // A group that had nothing has no logarithm: it is free.
    let bound = |j: usize, by: f64, none: f64| {
        if previous[j] > 0.0 { (previous[j] * by).clamp(low[j], high[j]) } else { none }
    };
    let least: Vec<f64> = (0..shares.len()).map(|j| bound(j, 1.0 / factor, low[j])).collect();
    let most: Vec<f64> = (0..shares.len()).map(|j| bound(j, factor, high[j])).collect();
    if least.iter().sum::<f64>() > 1.0 + SLACK || most.iter().sum::<f64>() < 1.0 - SLACK {
        push(changes, "trust region lifted: no mixture lies in it");
        return;
    }
    let near = water_fill(shares, &least, &most);
    advance(shares, near, &format!("trust {kappa}"), changes);
}

/// Bounds that leave a mixture: lower ones that sum to more than 1 are scaled down, upper ones that sum to less are
/// scaled up.
fn feasible(
    mut low: Vec<f64>,
    mut high: Vec<f64>,
    dropped: &[bool],
    changes: &mut String,
) -> (Vec<f64>, Vec<f64>) {
    let (least, most) = (low.iter().sum::<f64>(), high.iter().sum::<f64>());
    if most < 1.0 - SLACK {
        push(changes, &format!("upper bounds sum to {most:.4}: scaled up"));
        high = if most > 0.0 {
            high.iter().map(|h| h / most).collect()
        } else {
            eg::proportional(&mask(dropped))
        };
        low.iter_mut().zip(&high).for_each(|(l, h)| *l = l.min(*h));
    }
    if least > 1.0 + SLACK {
        push(changes, &format!("lower bounds sum to {least:.4}: scaled down"));
        low.iter_mut().for_each(|l| *l /= least);
    }
    (low, high)
}

fn mask(dropped: &[bool]) -> Vec<f64> {
    dropped.iter().map(|d| f64::from(!d)).collect()
}

/// The mixture within `low..=high` nearest to `shares` in the sense of Kullback and Leibler: shares times one factor, cut at
/// the bounds. The bounds must leave one (their sums are on either side of 1).
pub fn water_fill(shares: &[f64], low: &[f64], high: &[f64]) -> Vec<f64> {
    let m = shares.len();
    let mut fixed: Vec<Option<f64>> = vec![None; m];
    // A share of 0 can't be scaled: it counts as next to nothing.
    let weight = |j: usize| shares[j].max(SLACK);
    for _ in 0..m {
        let left = 1.0 - fixed.iter().flatten().sum::<f64>();
        let free: f64 = (0..m).filter(|j| fixed[*j].is_none()).map(weight).sum();
        let scaled: Vec<f64> =
            (0..m).map(|j| if free > 0.0 { weight(j) * left / free } else { 0.0 }).collect();
        let under = |j: &usize| fixed[*j].is_none() && scaled[*j] < low[*j];
        let over = |j: &usize| fixed[*j].is_none() && scaled[*j] > high[*j];
        let short: f64 = (0..m).filter(under).map(|j| low[j] - scaled[j]).sum();
        let excess: f64 = (0..m).filter(over).map(|j| scaled[j] - high[j]).sum();
        if short == 0.0 && excess == 0.0 {
            return (0..m).map(|j| fixed[j].unwrap_or(scaled[j])).collect();
        }
        // The larger violation is settled first: the factor then moves towards the other one only.
        let settled: Vec<(usize, f64)> = if short > excess {
            (0..m).filter(under).map(|j| (j, low[j])).collect()
        } else {
            (0..m).filter(over).map(|j| (j, high[j])).collect()
        };
        settled.into_iter().for_each(|(j, bound)| fixed[j] = Some(bound));
    }
    (0..m).map(|j| fixed[j].unwrap_or(low[j])).collect()
}

/// Replaces shares and says what changed.
fn advance(shares: &mut Vec<f64>, next: Vec<f64>, step: &str, changes: &mut String) {
    let moved: Vec<usize> = (0..next.len()).filter(|j| (next[*j] - shares[*j]).abs() > TOLD).collect();
    if !moved.is_empty() {
        let mut text = format!("{step}:");
        for (at, j) in moved.iter().take(NAMED).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma} group {j} {:.4} -> {:.4}", shares[*j], next[*j]);
        }
        if moved.len() > NAMED {
            let _ = write!(text, " and {} more", moved.len() - NAMED);
        }
        push(changes, &text);
    }
    *shares = next;
}

fn push(changes: &mut String, text: &str) {
    if !changes.is_empty() {
        changes.push_str("; ");
    }
    changes.push_str(text);
}
