//! From windows to evidence: what a probe served and what it did to the losses.

use super::super::reduce::median;
use super::super::{Seen, Setup, WindowKind};

/// A held-out loss this far above a uniform guess is a broken report.
const ABOVE_GUESS: f64 = 5.0;

/// Drops of each group's probes that are remembered.
pub(super) const REMEMBERED: usize = 20;

/// Fewer than these say nothing about what is usual.
const USUAL_FROM: usize = 6;

/// A drop this many typical deviations from the usual one is a spike.
const SPIKE: f64 = 5.0;

/// The typical deviation is at least this part of the usual drop: early drops shrink in a regular way, and without noise
/// the deviation is 0.
const REGULAR: f64 = 0.2;

/// What one probe told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub group: usize,
    pub sweep: u32,
    /// Realised shares.
    pub shares: Vec<f64>,
    /// Optimizer steps applied.
    pub steps: f64,
    /// Its middle, in steps of the job.
    pub middle: f64,
    /// Losses before it; NaN for a task without.
    pub before: Vec<f64>,
    /// Loss drop per task; NaN for a task that lacks an end.
    pub drop: Vec<f64>,
    /// Whether the probed group was served as planned, half at least: else it is no evidence of that group's own.
    pub own: bool,
}

/// The last evaluation: the step and the losses.
pub(super) type Edge = Option<(u64, Vec<f64>)>;

/// Probes of `seen` with both ends; an end that is not told is taken from the window before (`edge` for the first one).
pub(super) fn segments(seen: &[Seen], edge: &mut Edge, setup: &Setup) -> Vec<Segment> {
    let mut found = Vec::new();
    for seen in seen {
        let end = seen.from_step.saturating_add(seen.window.steps);
        let known = edge.take().filter(|(step, _)| *step == seen.from_step).map(|(_, losses)| losses);
        let before = reading(seen.before.as_deref(), setup).or(known);
        let after = reading(seen.after.as_deref(), setup);
        *edge = after.clone().map(|losses| (end, losses));
        if let (Some(before), Some(after)) = (before, after) {
            found.extend(segment(seen, before, &after, setup.groups));
        }
    }
    found
}

/// Losses with what can't be a loss as NaN; `None` when half of them or more are.
fn reading(losses: Option<&[f64]>, setup: &Setup) -> Option<Vec<f64>> {
    let losses = losses.filter(|l| l.len() == setup.tasks)?;
    let most = setup.log_vocabulary.map_or(f64::INFINITY, |v| v + ABOVE_GUESS);
    let clean = |l: &f64| if l.is_finite() && *l <= most { *l } else { f64::NAN };
    let clean: Vec<f64> = losses.iter().map(clean).collect();
    let bad = clean.iter().filter(|l| l.is_nan()).count();
    (bad == 0 || 2 * bad < clean.len()).then_some(clean)
}

fn segment(seen: &Seen, before: Vec<f64>, after: &[f64], groups: usize) -> Option<Segment> {
    let WindowKind::Probe { group, sweep } = seen.window.kind else { return None };
    let planned = seen.window.shares.get(group).copied().unwrap_or(0.0);
    let shares = seen.realised();
    let served = shares.iter().any(|s| *s > 0.0);
    if shares.len() != groups || group >= groups || seen.steps == 0 || !served {
        return None;
    }
    let drop = before.iter().zip(after).map(|(b, a)| b - a).collect();
    let own = shares[group] > 0.0 && shares[group] >= 0.5 * planned;
    let (steps, middle) = (seen.steps as f64, seen.from_step as f64 + seen.window.steps as f64 / 2.0);
    Some(Segment { group, sweep, shares, steps, middle, before, drop, own })
}

/// Drops of each group's last probes, in objective per step: what is usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usual {
    /// Per group, oldest first.
    pub drops: Vec<Vec<f64>>,
}

impl Usual {
    /// Remembers the drops of `segments` and takes out the spikes; says how many there were. The spikes are remembered
    /// too: what lasts is no spike.
    pub fn sift(&mut self, segments: &mut Vec<Segment>, setup: &Setup) -> usize {
        let before = segments.len();
        segments.retain(|segment| {
            let weights =
                setup.task_weights(&segment.drop.iter().zip(&segment.before).map(known).collect::<Vec<_>>());
            let drop: f64 =
                weights.iter().zip(&segment.drop).filter(|(w, _)| **w > 0.0).map(|(w, d)| w * d).sum();
            let rate = drop / segment.steps;
            let drops = &mut self.drops[segment.group];
            let spike = spikes(drops, rate);
            if drops.len() == REMEMBERED {
                drops.remove(0);
            }
            drops.push(rate);
            !spike
        });
        before - segments.len()
    }
}

/// The loss before, where the drop is known.
fn known((drop, before): (&f64, &f64)) -> f64 {
    if drop.is_nan() { f64::NAN } else { *before }
}

/// Whether `rate` is out of the usual.
fn spikes(drops: &[f64], rate: f64) -> bool {
    if drops.len() < USUAL_FROM {
        return false;
    }
    let usual = median(drops);
    let deviation = median(&drops.iter().map(|d| (d - usual).abs()).collect::<Vec<_>>());
    let deviation = deviation.max(REGULAR * usual.abs());
    deviation > 0.0 && (rate - usual).abs() > SPIKE * deviation
}
