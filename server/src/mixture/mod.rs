//! 3 CHOOSE: which record stands at which slot of which step, as a pure function.
//!
//! [`Sequence::step`] is the whole room: allocate items to groups ([`window`]), give each group's k-th item a record
//! ([`perm`]), shuffle the step. Any step is found without walking.

mod perm;
mod weights;
mod window;

pub use perm::Permutation;
pub use weights::{ONE, Weights, WeightsError};

use crate::batch::SampleId;
use crate::rng::{Draw, Stream};
use window::Window;

/// What happens when every record of a group was served once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exhaustion {
    /// Next epoch in a new order.
    Repeat,
    /// The job ends before this group repeats.
    StopFirst,
    /// The job ends when every such group was used up.
    StopLast,
    /// The group leaves after so many items.
    Leave {
        /// Items served before it leaves, >= 1.
        after: u64,
    },
}

/// A group as the sequence sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRule {
    /// Records, >= 1.
    pub records: u64,
    /// What happens when they were all served.
    pub exhaustion: Exhaustion,
}

/// The `k`-th item ever taken from a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Group.
    pub group: u32,
    /// Items taken from it before this one.
    pub k: u64,
}

/// What happens to rows that don't fill a last batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LastBatch {
    Drop,
    Partial,
    Pad,
}

/// Where a sequence ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Steps in all.
    pub steps: u64,
    /// Items of the last step that are served (B unless it is partial or padded).
    pub last_rows: u64,
    /// Items that are not served.
    pub dropped: u64,
    /// Slots of the last step that repeat others.
    pub padded: u64,
}

/// The order of a job's samples.
#[derive(Debug)]
pub struct Sequence {
    groups: Vec<GroupRule>,
    batch: u64,
    windows: Vec<Window>,
    end: Option<End>,
    orders: Vec<Stream>,
    slots: Stream,
}

impl Sequence {
    /// The sequence of `seed` over `groups` with constant `weights` and `batch` items a step. `max_steps` of 0 means
    /// no limit.
    pub fn new(
        seed: u64,
        groups: Vec<GroupRule>,
        weights: Weights,
        batch: u64,
        last: LastBatch,
        max_steps: u64,
    ) -> Sequence {
        let orders = (0..groups.len()).map(|g| Stream::new(seed, &format!("order/{g}"))).collect();
        let (windows, leaves) = windows(&groups, weights);
        let mut sequence =
            Sequence { groups, batch, windows, end: None, orders, slots: Stream::new(seed, "slots") };
        let stops = sequence.stops().into_iter().chain(leaves);
        let limit = (max_steps > 0).then(|| max_steps.saturating_mul(batch));
        sequence.end = stops.chain(limit).min().map(|items| end(items, batch, last));
        sequence
    }

    /// Where the sequence ends; `None` when it never does.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Items of one full step.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Rows of `step` that hold items of their own; the rest of a padded step repeats them.
    pub fn rows(&self, step: u64) -> u64 {
        match self.end {
            Some(end) if step >= end.steps => 0,
            Some(end) if step + 1 == end.steps => end.last_rows,
            _ => self.batch,
        }
    }

    /// Epoch of the schedule at `step`.
    pub fn epoch(&self, step: u64) -> f64 {
        let records: u64 = self.groups.iter().map(|g| g.records).sum();
        step as f64 * self.batch as f64 / records as f64
    }

    /// The slots of `step` in serving order; empty past the end.
    pub fn step(&self, step: u64) -> Vec<Slot> {
        let first = step.saturating_mul(self.batch);
        let (from, to) = (self.counts(first), self.counts(first.saturating_add(self.rows(step))));
        let ranges = from.iter().zip(&to).enumerate();
        let mut slots: Vec<Slot> =
            ranges.flat_map(|(g, (a, b))| (*a..*b).map(move |k| Slot { group: g as u32, k })).collect();
        self.slots.at(Draw::Order, step, 0).shuffle(&mut slots);
        slots
    }

    /// Record of a slot.
    pub fn record(&self, slot: Slot) -> SampleId {
        let (group, n) = (slot.group as usize, self.groups[slot.group as usize].records);
        let order = self.orders[group].at(Draw::Permutation, slot.k / n, 0);
        SampleId { group: slot.group, index: Permutation::new(order, n).at(slot.k % n) }
    }

    /// What takes the place of a slot whose record is bad: the `probe`-th record (from 0) of a permutation keyed by
    /// the slot, `None` when the group has no further record.
    pub fn probe(&self, slot: Slot, probe: u64) -> Option<SampleId> {
        let (group, n) = (slot.group as usize, self.groups[slot.group as usize].records);
        let order = || self.orders[group].at(Draw::Probe, slot.k, 0);
        (probe < n).then(|| SampleId { group: slot.group, index: Permutation::new(order(), n).at(probe) })
    }

    /// Items of each group among the first `items` of the job.
    fn counts(&self, items: u64) -> Vec<u64> {
        let at = self.windows.partition_point(|w| w.start <= items).max(1) - 1;
        let window = &self.windows[at];
        let inside = window.counts(items - window.start);
        window.before.iter().zip(inside).map(|(b, c)| b + c).collect()
    }

    /// Items of the job up to and including the `c`-th of group `g`.
    fn position(&self, g: usize, c: u64) -> Option<u64> {
        let at = self.windows.iter().rposition(|w| w.before[g] < c)?;
        let window = &self.windows[at];
        let items = window.start + window.position(g, c - window.before[g])?;
        // Past the next window's start the weights are other ones, and this one's promise is void.
        self.windows.get(at + 1).is_none_or(|next| items <= next.start).then_some(items)
    }

    /// Items after which `stop_first` and `stop_last` groups end the job.
    fn stops(&self) -> Vec<u64> {
        let of = |wanted: Exhaustion, extra: u64| {
            let groups = self.groups.iter().enumerate().filter(move |(_, g)| g.exhaustion == wanted);
            groups.map(move |(g, rule)| self.position(g, rule.records + extra))
        };
        let first = of(Exhaustion::StopFirst, 1).flatten().map(|items| items - 1).min();
        // A group of weight zero is never used up, so it cannot end the job either.
        let last = of(Exhaustion::StopLast, 0).flatten().max();
        first.into_iter().chain(last).collect()
    }
}

/// Windows of constant weights, one more each time a group leaves, and the item at which the last one left.
fn windows(groups: &[GroupRule], weights: Weights) -> (Vec<Window>, Option<u64>) {
    let mut windows = vec![Window::first(weights)];
    let mut gone = vec![false; groups.len()];
    loop {
        let now = windows.last().expect("starts with one");
        // The c-th item of this window after which group g leaves.
        let leave = |g: usize| match groups[g].exhaustion {
            Exhaustion::Leave { after } if !gone[g] && now.weights.shares()[g] > 0 => {
                after.checked_sub(now.before[g]).map(|c| (g, c))
            }
            Exhaustion::Repeat | Exhaustion::StopFirst | Exhaustion::StopLast | Exhaustion::Leave { .. } => {
                None
            }
        };
        // Comparing thresholds is cheap; a position costs a pass over all groups.
        let next = (0..groups.len()).filter_map(leave).min_by(|a, b| now.earlier(a.0, a.1, b.0, b.1));
        let Some((items, g)) = next.and_then(|(g, c)| Some((now.position(g, c)?, g))) else {
            return (windows, None);
        };
        gone[g] = true;
        match now.weights.without(|g| gone[g]) {
            Some(weights) => windows.push(now.then(items, weights)),
            None => return (windows.clone(), Some(now.start + items)),
        }
    }
}

fn end(items: u64, batch: u64, last: LastBatch) -> End {
    let (whole, rest) = (items / batch, items % batch);
    match last {
        _ if rest == 0 => End { steps: whole, last_rows: batch, dropped: 0, padded: 0 },
        LastBatch::Drop => End { steps: whole, last_rows: batch, dropped: rest, padded: 0 },
        LastBatch::Partial => End { steps: whole + 1, last_rows: rest, dropped: 0, padded: 0 },
        LastBatch::Pad => End { steps: whole + 1, last_rows: rest, dropped: 0, padded: batch - rest },
    }
}

#[cfg(test)]
mod tests;
