//! The plan of one pairing block: who meets whom, which policy, with which draws.
//!
//! Granularities are timm's: a `batch` shares one draw per step, a `pair` one per two rows that are each other's
//! partner, `elem` draws per row, `half` does so for the first half of the block and returns only that. A row that is
//! its own partner (the middle of a flipped odd block, a fixed point of a permutation, a block of one) is returned as
//! it is with weight 1: odd and single-row blocks are never an error.

use super::{Args, Draws, Mix, Plan, PlanInput, Policy, Row, fields};
use crate::batch::flags;
use crate::rng::{Draw, Rng, Stream};

/// Unit that shares one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// The step.
    Batch,
    /// Two rows that are each other's partner; a row whose partner has another one draws alone.
    Pair,
    /// The row.
    Elem,
    /// The row; only the first half of the block is returned, the middle row of an odd block included, or with
    /// [`Pairing::Consecutive`] every second row from the first. With either that and [`Pairing::Flip`] each is mixed
    /// with a row that is not returned.
    Half,
}

/// Partner of row `i` in its block of `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `n - 1 - i`.
    Flip,
    /// Rows `2 k` and `2 k + 1` are each other's; an odd last row is its own.
    Consecutive,
    /// `i - 1 mod n`.
    Roll1,
    /// A uniform permutation, fixed points included.
    Perm,
    /// A uniform permutation without fixed points; a single row stays alone.
    Derange,
    /// A uniform other row of the same class. A row without class (negative label) has none.
    SameClass,
    /// A uniform row of another class. A row without class can't be told from any and takes no part.
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

    /// Slot of the block that output row `row` starts from.
    fn base_of(&self, row: usize) -> usize {
        let every_second = self.granularity == Granularity::Half && self.pairing == Pairing::Consecutive;
        if every_second { 2 * row } else { row }
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

/// Plans the block whose rows have `labels`, negative for rows without class.
pub fn block(rule: &MixRule, place: &Place<'_>, labels: &[i32]) -> Plan {
    let out = rule.rows_of(labels.len());
    let partners = partners(rule.pairing, place, labels);
    let clean = clean_rows(rule, place, out);
    let next: Vec<u32> = partners.iter().enumerate().map(|(i, p)| p.unwrap_or(i) as u32).collect();
    let gate = rule.gate_at(place.epoch);
    let rows = (0..out).map(|row| {
        let i = rule.base_of(row);
        if rule.members.is_empty() || clean[row] {
            return plain(i, 0);
        }
        let Some(partner) = partners[i] else { return plain(i, flags::NO_PARTNER) };
        let mutual = partners[partner] == Some(i);
        let draws = draws(rule, place, i, if mutual { partner } else { i });
        if !draws.unit(Draw::Gate).chance(gate) {
            return plain(i, 0);
        }
        mixed(rule, place, &draws, labels, i, &next)
    });
    Plan { rows: rows.collect() }
}

/// Row `i` as it is.
fn plain(i: usize, why: u32) -> Row {
    Row {
        base: i as u32,
        partner: i as u32,
        ops: Vec::new(),
        policy: None,
        sampled: 1.0,
        own: 1.0,
        flags: flags::IDENTITY | why,
    }
}

/// Row `i` mixed with its partner, `next[i]`, by the policy that the draws choose.
fn mixed(
    rule: &MixRule,
    place: &Place<'_>,
    draws: &Draws<'_>,
    labels: &[i32],
    i: usize,
    next: &[u32],
) -> Row {
    let partner = next[i] as usize;
    let chosen = choose(rule, place, draws);
    let member = &rule.members[chosen];
    let (height, width) = place.size;
    let input = PlanInput { height, width, base: i as u32, partner: next[i], next, fields: place.fields };
    let mut mix = member.policy.draw(&input, &member.args, draws);
    if partner == i {
        // A row mixed with itself is itself; running the ops would only add rounding.
        mix = Mix { sampled: mix.sampled, ..Mix::copy() };
    }
    let mut seen = 0;
    for (holds, flag) in [
        (partner == i, flags::SELF_PAIR),
        (labels[i] >= 0 && labels[partner] == labels[i], flags::SAME_CLASS),
        (mix.ops.is_empty(), flags::IDENTITY),
    ] {
        seen |= if holds { flag } else { 0 };
    }
    let Mix { ops, sampled, own } = mix;
    Row {
        base: i as u32,
        partner: partner as u32,
        ops,
        policy: Some(chosen as u32),
        sampled,
        own,
        flags: seen,
    }
}

/// Addresses of row `i`'s draws: a step has one batch unit, a pair is addressed by its lower row.
fn draws<'a>(rule: &MixRule, place: &Place<'a>, i: usize, other: usize) -> Draws<'a> {
    let row = place.slot + i as u64;
    let unit = match rule.granularity {
        Granularity::Batch => 0,
        Granularity::Pair => place.slot + i.min(other) as u64,
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

/// `clean * n` rows of a block stay clean, the fraction of a row by a draw. Rows are clean one by one at every
/// granularity: their partner is mixed with them all the same.
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
fn partners(pairing: Pairing, place: &Place<'_>, labels: &[i32]) -> Vec<Option<usize>> {
    let n = labels.len();
    let mut rng = place.stream.at(Draw::Pairing, place.step, place.slot);
    let all = |order: Vec<u32>| order.into_iter().map(|p| Some(p as usize)).collect();
    match pairing {
        Pairing::Flip => (0..n).map(|i| Some(n - 1 - i)).collect(),
        // The last row of an odd block has nobody behind it.
        Pairing::Consecutive => (0..n).map(|i| Some((i ^ 1).min(n - 1))).collect(),
        Pairing::Roll1 => (0..n).map(|i| Some((i + n - 1) % n)).collect(),
        Pairing::Perm => all(rng.permutation(n)),
        Pairing::Derange => all(derangement(n, &mut rng)),
        Pairing::SameClass => by_class(labels, &mut rng, true),
        Pairing::DifferentClass => by_class(labels, &mut rng, false),
    }
}

/// Uniform among the permutations of `0..n` without fixed points; the identity for n < 2.
fn derangement(n: usize, rng: &mut Rng) -> Vec<u32> {
    let identity: Vec<u32> = (0..n as u32).collect();
    // Rejection keeps derangements uniform; one permutation in e is one.
    loop {
        let mut order = identity.clone();
        if n < 2 || shuffle_unfixed(&mut order, rng) {
            return order;
        }
    }
}

/// Fisher-Yates on the identity that gives up at the first fixed point. It settles positions from the end, so failures
/// are seen early.
fn shuffle_unfixed(order: &mut [u32], rng: &mut Rng) -> bool {
    let mut settled = (1..order.len()).rev().map(|i| {
        order.swap(i, rng.below(i as u64 + 1) as usize);
        order[i] != i as u32
    });
    settled.all(|moved| moved) && order[0] != 0
}

/// A uniform partner of the same class, or of another one, for every row that has a class.
fn by_class(labels: &[i32], rng: &mut Rng, same: bool) -> Vec<Option<usize>> {
    // Rows sorted by class: a class is one run, and both choices are one number.
    let mut order: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] >= 0).collect();
    order.sort_by_key(|&i| labels[i]);
    let mut partners = vec![None; labels.len()];
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| labels[a] == labels[b]) {
        let others = if same { run.len() - 1 } else { order.len() - run.len() };
        for (at, &i) in run.iter().enumerate().filter(|_| others > 0) {
            let draw = rng.below(others as u64) as usize;
            // Step over the row itself, or over its whole class.
            let chosen = match same {
                true => start + draw + usize::from(draw >= at),
                false => draw + if draw >= start { run.len() } else { 0 },
            };
            partners[i] = Some(order[chosen]);
        }
        start += run.len();
    }
    partners
}

#[cfg(test)]
mod tests;
