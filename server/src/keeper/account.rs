//! What was served: per group and per mixture, from the log alone.

use crate::mixture::{ONE, Sequence};
use mixfeed_proto as v1;

/// Mixtures that an answer lists.
const MOST: usize = 1_000;

/// What one group served.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupAccount {
    /// Rows.
    pub rows: u64,
    /// Share of rows that the log asked for.
    pub wanted: f64,
    /// Share of rows that was served.
    pub served: f64,
}

/// What was served under one mixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixtureAccount {
    /// Mixture.
    pub mixture_id: u64,
    /// First step.
    pub from: u64,
    /// Steps.
    pub steps: u64,
    /// Rows per group.
    pub rows: Vec<u64>,
}

/// Everything served in steps `[0, until)` of the current branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Per group.
    pub groups: Vec<GroupAccount>,
    /// Per mixture by first step, the last ones.
    pub mixtures: Vec<MixtureAccount>,
}

/// Entries that govern the current branch with the steps that each governs, in order.
pub(super) fn governing(entries: &[v1::MixtureEntry]) -> Vec<(&v1::MixtureEntry, u64, u64)> {
    let mut out: Vec<(&v1::MixtureEntry, u64, u64)> = Vec::new();
    for entry in entries {
        // A later entry, or a strike, ends what reaches past its first step.
        while out.last().is_some_and(|(_, from, _)| *from >= entry.from_step) {
            out.pop();
        }
        if let Some((_, _, until)) = out.last_mut() {
            *until = (*until).min(entry.from_step);
        }
        if entry.kind != v1::MixtureKind::Strike as i32 {
            let until = if entry.until_step == 0 { u64::MAX } else { entry.until_step };
            out.push((entry, entry.from_step, until));
        }
    }
    out
}

impl Account {
    /// Accounts for steps `[0, until)`.
    pub fn new(entries: &[v1::MixtureEntry], sequence: &Sequence, until: u64) -> Account {
        let until = sequence.end().map_or(until, |end| until.min(end.steps));
        let rows = sequence.rows_before(until);
        let total: u64 = rows.iter().sum();
        let mut wanted = vec![0.0; rows.len()];
        let mut mixtures: Vec<MixtureAccount> = Vec::new();
        for (entry, from, to) in governing(entries) {
            let to = to.min(until);
            if from >= to {
                continue;
            }
            let steps = to - from;
            for (want, weight) in wanted.iter_mut().zip(&entry.weights) {
                *want += *weight as f64 / ONE as f64 * steps as f64 / until as f64;
            }
            let (a, b) = (sequence.rows_before(from), sequence.rows_before(to));
            let rows = a.iter().zip(&b).map(|(a, b)| b - a);
            match mixtures.last_mut().filter(|m| m.mixture_id == entry.mixture_id) {
                Some(last) => {
                    last.steps += steps;
                    last.rows.iter_mut().zip(rows).for_each(|(sum, more)| *sum += more);
                }
                None => {
                    let rows = rows.collect();
                    mixtures.push(MixtureAccount { mixture_id: entry.mixture_id, from, steps, rows });
                }
            }
        }
        mixtures.drain(..mixtures.len().saturating_sub(MOST));
        let share = |rows: u64| if total == 0 { 0.0 } else { rows as f64 / total as f64 };
        let group = |(rows, wanted): (&u64, f64)| GroupAccount { rows: *rows, wanted, served: share(*rows) };
        Account { groups: rows.iter().zip(wanted).map(group).collect(), mixtures }
    }
}

/// Shares of all groups in a stretch of steps, in all one each where anything was served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// Steps.
    pub steps: u64,
    /// Share that the log asked for, on average.
    pub asked: Vec<f64>,
    /// Rows served.
    pub rows: Vec<u64>,
}

/// Steps `[0, until)` of the current branch in at most `parts` stretches of equal length: what the log asked for, and what
/// was served. Costs as much as `parts` looks at the sequence and one at the log. `until` must be planned.
pub fn stretches(entries: &[v1::MixtureEntry], sequence: &Sequence, until: u64, parts: u64) -> Vec<Stretch> {
    let parts = parts.min(until);
    let edge = |i: u64| (u128::from(until) * u128::from(i) / u128::from(parts.max(1))) as u64;
    let edges: Vec<u64> = (0..=parts).map(edge).collect();
    let all = governing(entries);
    let mut next = 0;
    let mut before = sequence.rows_before(0);
    let stretch = |edge: &[u64]| {
        let (from, to) = (edge[0], edge[1]);
        let after = sequence.rows_before(to);
        let rows = before.iter().zip(&after).map(|(a, b)| b - a).collect();
        before = after;
        let mut asked = vec![0.0; before.len()];
        // Entries are in order, and so are stretches: each is looked at once and once more at an edge.
        while next + 1 < all.len() && all[next].2 <= from {
            next += 1;
        }
        for (entry, begin, end) in all[next..].iter().take_while(|(_, begin, _)| *begin < to) {
            let steps = (*end).min(to).saturating_sub((*begin).max(from));
            for (asked, weight) in asked.iter_mut().zip(&entry.weights) {
                *asked += *weight as f64 / ONE as f64 * steps as f64 / (to - from) as f64;
            }
        }
        Stretch { steps: to - from, asked, rows }
    };
    edges.windows(2).filter(|edge| edge[0] < edge[1]).map(stretch).collect()
}
