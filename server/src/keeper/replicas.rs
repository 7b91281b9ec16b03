//! Reporters that read the same held-out sets on the same weights: which ones are believed.
//!
//! Nearest-neighbour averaging leaves out the `faulty` most distant of every evaluation. One that is left out of
//! [`STRIKES`] evaluations running is quarantined until the trainer's next life: it counts as one of the faulty ones from
//! then on, also where it happens to lie near. How far each lies from what was agreed on is averaged over time, so that a
//! slow drift shows; it is told in the log and decides nothing.

use super::rules::Rules;
use crate::estimate::reduce::{self, Merged, Part};
use std::collections::BTreeMap;

/// Evaluations running that a replica is left out of before it is quarantined.
const STRIKES: u32 = 3;
/// Distance in nats up to which replicas agree: the most distant one of those that do is left out by chance.
const AGREE: f64 = 1e-3;
/// What the mean distance keeps of its past at each evaluation.
const KEEP: f64 = 0.9;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Replicas(BTreeMap<u32, Replica>);

#[derive(Clone, Debug, Default)]
struct Replica {
    strikes: u32,
    quarantined: bool,
    /// Mean of its losses less those agreed on, per task in nats.
    drift: Vec<f64>,
}

impl Replicas {
    /// Whether what `rank` says counts.
    pub fn trusts(&self, rank: u32) -> bool {
        self.0.get(&rank).is_none_or(|replica| !replica.quarantined)
    }

    fn quarantined(&self) -> usize {
        self.0.values().filter(|replica| replica.quarantined).count()
    }

    /// Reporters that may be wrong.
    fn budget(rules: &Rules) -> usize {
        rules.faulty.unwrap_or_else(|| reduce::default_faulty(rules.reporters as usize))
    }

    /// Reporters that may be wrong among those that are trusted; `None`: as many as there usually are.
    pub fn faulty(&self, rules: &Rules) -> Option<usize> {
        match self.quarantined() {
            0 => rules.faulty,
            out => Some(Replicas::budget(rules).saturating_sub(out)),
        }
    }

    /// Looks at one evaluation: what the trusted ranks told, and what [`reduce::Rule::Nearest`] made of it. Fewer than
    /// three are all believed.
    pub fn judge(&mut self, rules: &Rules, told: &[(u32, Part)], merged: &Merged) {
        if told.len() < 3 {
            return;
        }
        let agreed = means(&merged.part);
        for (i, (rank, part)) in told.iter().enumerate() {
            let full = self.quarantined() >= Replicas::budget(rules);
            let replica = self.0.entry(*rank).or_default();
            let off: Vec<f64> = means(part).iter().zip(&agreed).map(|(own, all)| own - all).collect();
            let far = norm(&off) > AGREE && merged.dropped.contains(&i);
            replica.strikes = if far { replica.strikes + 1 } else { 0 };
            replica.quarantined = replica.quarantined || (replica.strikes >= STRIKES && !full);
            replica.drift.resize(agreed.len(), 0.0);
            for (mean, off) in replica.drift.iter_mut().zip(off).filter(|(_, off)| off.is_finite()) {
                *mean = KEEP * *mean + (1.0 - KEEP) * off;
            }
        }
    }

    /// For the log: who is quarantined, and of the others the one that drifts most with how far it is off, in nats.
    pub fn facts(&self) -> Vec<(&'static str, Vec<f64>)> {
        let out = self.0.iter().filter(|(_, replica)| replica.quarantined).map(|(rank, _)| f64::from(*rank));
        let size = |replica: &Replica| norm(&replica.drift);
        let others = self.0.iter().filter(|(_, replica)| !replica.quarantined);
        let most = others.map(|(rank, replica)| (*rank, size(replica))).max_by(|a, b| a.1.total_cmp(&b.1));
        let out: Vec<f64> = out.collect();
        let quarantined = (!out.is_empty()).then_some(("quarantined", out));
        let drift = most.map(|(rank, size)| ("drift", vec![f64::from(rank), size]));
        quarantined.into_iter().chain(drift).collect()
    }
}

/// Euclidean length; what is not there counts as nothing.
fn norm(off: &[f64]) -> f64 {
    libm::sqrt(off.iter().filter(|d| d.is_finite()).map(|d| d * d).sum())
}

/// Losses per token; NaN for a task that was not evaluated.
fn means(part: &Part) -> Vec<f64> {
    part.values.iter().zip(&part.counts).map(|(sum, count)| sum / count).collect()
}
