//! The plan of one pairing block: who meets whom, which policy, with which draws.

use super::{Args, Draws, Mix, Plan, PlanInput, Policy, Row, fields};
use crate::batch::flags;
use crate::rng::{Draw, Stream};

/// Unit that shares one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Granularity {
    Batch,
    Pair,
    Elem,
    Half,
}

/// Partner of a row in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pairing {
    Flip,
    Roll1,
    Perm,
    Derange,
    SameClass,
    DifferentClass,
}

/// Shape of the warm-up of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Warmup {
    Linear,
    Cosine,
}

/// A policy of a job.
#[derive(Clone, Debug)]
pub struct Member {
    /// The policy.
    pub policy: &'static dyn Policy,
    /// Its arguments.
    pub args: Args,
    /// Share among the members; the shares of a job sum to 1.
    pub share: f64,
}

/// How a job mixes.
#[derive(Clone, Debug)]
pub struct MixRule {
    /// Policies; none means clean rows.
    pub members: Vec<Member>,
    /// Unit of draws.
    pub granularity: Granularity,
    /// Partners.
    pub pairing: Pairing,
    /// Choose the policy per unit instead of per step.
    pub choose_per_row: bool,
    /// Probability that a unit is mixed.
    pub gate: f64,
    /// Share of each block that stays clean.
    pub clean: f64,
    /// Warm-up and its length in epochs.
    pub warmup: Option<(Warmup, f64)>,
    /// Epoch from which nothing is mixed.
    pub off_after: Option<f64>,
}

impl MixRule {
    /// Probability that a unit is mixed at `epoch` of the schedule.
    pub fn gate_at(&self, epoch: f64) -> f64 {
        if self.off_after.is_some_and(|off| epoch >= off) {
            return 0.0;
        }
        match self.warmup {
            Some((shape, length)) if epoch < length => {
                let t = epoch / length;
                let ramp = match shape {
                    Warmup::Linear => t,
                    Warmup::Cosine => 0.5 - 0.5 * libm::cos(std::f64::consts::PI * t),
                };
                self.gate * ramp
            }
            _ => self.gate,
        }
    }

    /// Output rows of a block of `n` slots.
    pub fn rows_of(&self, n: usize) -> usize {
        if self.granularity == Granularity::Half { n.div_ceil(2) } else { n }
    }
}

/// Where a block is: everything that a draw may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Draws of the job's mixing.
    pub stream: &'a Stream,
    /// Random fields of the job.
    pub fields: &'a fields::Bank,
    /// Step.
    pub step: u64,
    /// Epoch of the schedule at the step.
    pub epoch: f64,
    /// First slot of the block in the step.
    pub slot: u64,
    /// Output rows (height) and columns (width).
    pub size: (u32, u32),
}

/// Plans the block whose rows have `labels`.
pub fn block(rule: &MixRule, place: &Place<'_>, labels: &[i32]) -> Plan {
    let n = labels.len();
    let out = rule.rows_of(n);
    let partners = partners(rule, place, labels);
    let clean = clean_rows(rule, place, out);
    let gate = rule.gate_at(place.epoch);
    let rows = (0..out).map(|i| {
        let partner = partners[i];
        let plain = Row {
            base: i as u32,
            partner: i as u32,
            ops: Vec::new(),
            policy: None,
            sampled: 1.0,
            own: 1.0,
            flags: flags::IDENTITY,
        };
        let Some(partner) = partner else {
            return Row { flags: flags::IDENTITY | flags::NO_PARTNER, ..plain };
        };
        if rule.members.is_empty() || clean[i] {
            return plain;
        }
        let draws = draws(rule, place, i, partner);
        if !draws.unit(Draw::Gate).chance(gate) {
            return plain;
        }
        let chosen = choose(rule, place, &draws);
        let member = &rule.members[chosen];
        let (height, width) = place.size;
        let input = PlanInput { height, width, partner: partner as u32, fields: place.fields };
        let Mix { ops, sampled, own } = member.policy.draw(&input, &member.args, &draws);
        let mut seen = 0;
        if partner == i {
            seen |= flags::SELF_PAIR;
        }
        if labels[partner] == labels[i] {
            seen |= flags::SAME_CLASS;
        }
        if ops.is_empty() || partner == i {
            seen |= flags::IDENTITY;
        }
        // A row mixed with itself is itself; running the ops would only add rounding.
        let ops = if partner == i { Vec::new() } else { ops };
        Row { partner: partner as u32, ops, policy: Some(chosen as u32), sampled, own, flags: seen, ..plain }
    });
    Plan { rows: rows.collect() }
}

/// Addresses of row `i`'s draws: a step has one batch unit, a pair is addressed by its lower row.
fn draws<'a>(rule: &MixRule, place: &Place<'a>, i: usize, partner: usize) -> Draws<'a> {
    let row = place.slot + i as u64;
    let unit = match rule.granularity {
        Granularity::Batch => 0,
        Granularity::Pair => place.slot + i.min(partner) as u64,
        Granularity::Elem | Granularity::Half => row,
    };
    Draws::new(place.stream, place.step, unit, row)
}

fn choose(rule: &MixRule, place: &Place<'_>, draws: &Draws<'_>) -> usize {
    let mut rng = match rule.choose_per_row {
        true => draws.unit(Draw::Switch),
        false => place.stream.at(Draw::Switch, place.step, 0),
    };
    let mut u = rng.uniform();
    for (i, member) in rule.members.iter().enumerate() {
        if u < member.share {
            return i;
        }
        u -= member.share;
    }
    // Rounding of the shares' sum: the last policy that can be chosen at all.
    rule.members.iter().rposition(|m| m.share > 0.0).unwrap_or(0)
}

/// Exactly `clean * n` rows of a block stay clean, the fraction by a draw.
fn clean_rows(rule: &MixRule, place: &Place<'_>, n: usize) -> Vec<bool> {
    let mut clean = vec![false; n];
    if rule.clean > 0.0 {
        let mut rng = place.stream.at(Draw::Clean, place.step, place.slot);
        let wanted = (rule.clean * n as f64 + rng.uniform()) as usize;
        rng.permutation(n).into_iter().take(wanted).for_each(|i| clean[i as usize] = true);
    }
    clean
}

/// Partner of every row; `None` where a class-restricted pairing finds none.
fn partners(rule: &MixRule, place: &Place<'_>, labels: &[i32]) -> Vec<Option<usize>> {
    let n = labels.len();
    let mut rng = place.stream.at(Draw::Pairing, place.step, place.slot);
    match rule.pairing {
        Pairing::Flip => (0..n).map(|i| Some(n - 1 - i)).collect(),
        Pairing::Roll1 => (0..n).map(|i| Some((i + n - 1) % n)).collect(),
        Pairing::Perm => rng.permutation(n).into_iter().map(|p| Some(p as usize)).collect(),
        Pairing::Derange => loop {
            let order = rng.permutation(n);
            // Rejection keeps derangements uniform; one in e permutations is one.
            if n < 2 || order.iter().enumerate().all(|(i, p)| i != *p as usize) {
                return order.into_iter().map(|p| Some(p as usize)).collect();
            }
        },
        Pairing::SameClass => pick(labels, &mut rng, |i, j| labels[i] == labels[j]),
        Pairing::DifferentClass => pick(labels, &mut rng, |i, j| labels[i] != labels[j]),
    }
}

fn pick(
    labels: &[i32],
    rng: &mut crate::rng::Rng,
    fits: impl Fn(usize, usize) -> bool,
) -> Vec<Option<usize>> {
    let n = labels.len();
    let choose = |i: usize| {
        let legal: Vec<usize> = (0..n).filter(|&j| j != i && fits(i, j)).collect();
        let at = rng.below(legal.len() as u64) as usize;
        legal.get(at).copied()
    };
    (0..n).map(choose).collect()
}
