//! The sequence over a mixture log.

use super::carry::Carry;
use super::chain::{Node, Tail, last};
use super::ledger::Order;
use super::piece::Stop;
use super::span::Span;
use super::{Costs, End, Entry, EntryError, EntryKind, GroupRule, LastBatch, Permutation, Slot, Weights};
use crate::batch::SampleId;
use crate::rng::{Draw, Stream};
use std::sync::Arc;

/// The order of a job's samples under a mixture log: a snapshot, cheap to clone, that shares what it can with those
/// before and after it. A pure function of what it was made with and of the entries appended.
#[derive(Clone, Debug)]
pub struct Sequence {
    rules: Arc<Rules>,
    spans: Tail<Span>,
    /// Where the last entry stops governing, if it does.
    until: Option<u64>,
}

/// What doesn't change over the log.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) groups: Vec<GroupRule>,
    pub(super) costs: Costs,
    pub(super) batch: u64,
    last: LastBatch,
    /// Items of the job at most.
    most: u64,
    /// Weights in charge before the first main entry.
    first: Arc<[u64]>,
    orders: Vec<Stream>,
    slots: Stream,
}

impl Sequence {
    /// The sequence of `seed` over `groups` with `batch` items a step (>= 1), before its first entry. `max_steps` of 0
    /// means no limit.
    pub fn new(
        seed: u64,
        groups: Vec<GroupRule>,
        costs: Costs,
        batch: u64,
        last: LastBatch,
        max_steps: u64,
    ) -> Sequence {
        let orders = (0..groups.len()).map(|g| Stream::new(seed, &format!("order/{g}"))).collect();
        let most = if max_steps > 0 { max_steps.saturating_mul(batch) } else { u64::MAX };
        let slots = Stream::new(seed, "slots");
        let first = vec![1; groups.len()].into();
        let rules = Rules { groups, costs, batch, last, most, first, orders, slots };
        Sequence { rules: Arc::new(rules), spans: None, until: Some(0) }
    }

    /// The same sequence, without any entry yet, under `weights` until the first main entry: groups of weight zero stand
    /// in for nobody and hold up no end. All alike when nobody says.
    pub fn starting(&self, weights: &Weights) -> Sequence {
        let Rules { groups, costs, batch, last, most, orders, slots, .. } = &*self.rules;
        let (groups, costs) = (groups.clone(), costs.clone());
        let (orders, slots, first) = (orders.clone(), slots.clone(), weights.shared());
        let rules = Rules { groups, costs, batch: *batch, last: *last, most: *most, first, orders, slots };
        Sequence { rules: Arc::new(rules), spans: None, until: Some(0) }
    }

    /// This log with one more entry, which governs from its first step on.
    ///
    /// # Errors
    /// [`EntryError`] when it doesn't fit the job, or would change what was decided: it may begin where the last entry
    /// does (and takes its place) or later, up to [`Sequence::covered`], but within no probe and not after the end.
    pub fn append(&self, entry: Entry) -> Result<Sequence, EntryError> {
        entry.check(self.rules.groups.len(), self.rules.batch)?;
        self.follows(&entry)?;
        let (from, until) = (entry.from_step, entry.until_step);
        let before = self.cut(from);
        let items = from * self.rules.batch;
        if let Some(stop) = before.stop_by(items) {
            return Err(EntryError::Ended { from, items: stop.items });
        }
        let (carry, main) = match &before.spans {
            Some(node) => (node.value.carry(&self.rules, items), node.value.weights()),
            None => {
                let groups = self.rules.groups.len();
                (Carry::start(groups), self.rules.first.clone())
            }
        };
        let span = Span::open(&self.rules, entry, carry, main)?;
        Ok(Sequence { spans: Some(Node::push(span, before.spans)), until, rules: self.rules.clone() })
    }

    /// Whether `entry` may follow.
    fn follows(&self, entry: &Entry) -> Result<(), EntryError> {
        let from = entry.from_step;
        if let Some(node) = &self.spans {
            let last = &node.value.entry;
            if from < last.from_step {
                return Err(EntryError::Before { from, last: last.from_step });
            }
            if let (EntryKind::Probe { .. }, Some(until)) = (&last.kind, self.until)
                && from < until
            {
                return Err(EntryError::InsideProbe { from, start: last.from_step, until });
            }
        }
        match self.until.filter(|covered| from > *covered) {
            Some(covered) => Err(EntryError::Gap { from, covered }),
            None => Ok(()),
        }
    }

    /// A strike: what the log was for steps before `step`; nothing is planned from there on.
    pub fn cut(&self, step: u64) -> Sequence {
        let spans = last(&self.spans, |span| span.entry.from_step < step).cloned();
        let until = Some(self.until.map_or(step, |until| until.min(step)));
        Sequence { rules: self.rules.clone(), spans, until }
    }

    /// The entry that governs `step`.
    pub fn entry(&self, step: u64) -> Option<&Entry> {
        self.span(step).map(|span| &span.entry)
    }

    /// The first step that nothing governs; `None` when the last entry is open-ended.
    pub fn covered(&self) -> Option<u64> {
        self.until
    }

    /// Where the sequence ends; `None` when it never does, or not within what is covered: later entries could still
    /// move it. Also `None` when records differ in cost and only walking through an open-ended entry could tell; then
    /// [`Sequence::end_by`] tells when it is near.
    pub fn end(&self) -> Option<End> {
        let endless = self.until.is_none() && self.spans.as_ref().is_some_and(|s| s.value.must_walk());
        if endless && self.rules.groups.iter().any(GroupRule::may_end) {
            return None;
        }
        self.end_within(self.until.map_or(u64::MAX, |until| until.saturating_mul(self.rules.batch)))
    }

    /// Where the sequence ends, if that is within `step` or before.
    pub fn end_by(&self, step: u64) -> Option<End> {
        let covered = self.until.unwrap_or(u64::MAX);
        self.end_within(step.saturating_add(1).min(covered).saturating_mul(self.rules.batch))
    }

    fn end_within(&self, items: u64) -> Option<End> {
        let stop = self.stop_by(items)?;
        Some(end(stop.items, self.rules.batch, self.rules.last))
    }

    /// The end of the job, if it is certain after `items`, which must be covered.
    fn stop_by(&self, items: u64) -> Option<Stop> {
        let limit = Stop { items: self.rules.most, decided: self.rules.most };
        let limit = Some(limit).filter(|stop| stop.decided <= items && stop.items < u64::MAX);
        let items = items.min(self.rules.most);
        // Only the last span that has begun by then can end the job: nothing may follow an end.
        let begun = last(&self.spans, |span| span.entry.from_step * self.rules.batch <= items);
        begun.and_then(|node| node.value.stop_by(&self.rules, items)).into_iter().chain(limit).min()
    }

    /// Items of one full step.
    pub fn batch(&self) -> u64 {
        self.rules.batch
    }

    /// Rows of `step` that hold items of their own; the rest of a padded step repeats them. 0 past the end and where
    /// nothing is planned.
    pub fn rows(&self, step: u64) -> u64 {
        if self.until.is_some_and(|until| step >= until) {
            return 0;
        }
        match self.end_by(step) {
            Some(end) if step >= end.steps => 0,
            Some(end) if step + 1 == end.steps => end.last_rows,
            Some(_) | None => self.rules.batch,
        }
    }

    /// Items per group in the steps before `step` that are planned and served.
    pub fn rows_before(&self, step: u64) -> Vec<u64> {
        let step = step.min(self.until.unwrap_or(u64::MAX));
        let whole = step.saturating_mul(self.rules.batch);
        let items = match step.checked_sub(1).and_then(|last| self.end_by(last)) {
            Some(end) => end.steps * self.rules.batch - (self.rules.batch - end.last_rows),
            None => whole,
        };
        self.counts(items).to_vec()
    }

    /// Epoch of the schedule at `step`.
    pub fn epoch(&self, step: u64) -> f64 {
        let records: u64 = self.rules.groups.iter().map(|g| g.records).sum();
        step as f64 * self.rules.batch as f64 / records as f64
    }

    /// The slots of `step` in serving order; empty past the end and where nothing is planned.
    pub fn step(&self, step: u64) -> Vec<Slot> {
        let rows = self.rows(step);
        if rows == 0 {
            return Vec::new();
        }
        let first = step.saturating_mul(self.rules.batch);
        let (from, to) = (self.counts(first), self.counts(first.saturating_add(rows)));
        let ranges = from.iter().zip(&*to).enumerate();
        let mut slots: Vec<Slot> =
            ranges.flat_map(|(g, (a, b))| (*a..*b).map(move |k| Slot { group: g as u32, k })).collect();
        self.rules.slots.at(Draw::Order, step, 0).shuffle(&mut slots);
        slots
    }

    /// Record of a slot.
    pub fn record(&self, slot: Slot) -> SampleId {
        self.rules.record(slot, &mut None)
    }

    /// What takes the place of a slot whose record is bad: the `probe`-th record (from 0) of a permutation keyed by
    /// the slot, `None` when the group has no further record.
    pub fn probe(&self, slot: Slot, probe: u64) -> Option<SampleId> {
        let (group, n) = (slot.group as usize, self.rules.groups[slot.group as usize].records);
        let order = || self.rules.orders[group].at(Draw::Probe, slot.k, 0);
        (probe < n).then(|| SampleId { group: slot.group, index: Permutation::new(order(), n).at(probe) })
    }

    fn span(&self, step: u64) -> Option<&Span> {
        let node = last(&self.spans, |span| span.entry.from_step <= step)?;
        self.until.is_none_or(|until| step < until).then_some(&node.value)
    }

    /// Items of each group among the first `items` of the job, which must be covered.
    fn counts(&self, items: u64) -> Arc<[u64]> {
        match last(&self.spans, |span| span.entry.from_step * self.rules.batch <= items) {
            Some(node) => node.value.counts(&self.rules, items),
            None => vec![0; self.rules.groups.len()].into(),
        }
    }
}

impl Rules {
    /// Record of a slot; `order` keeps the permutation of the group's epoch between calls.
    fn record(&self, slot: Slot, order: &mut Order) -> SampleId {
        let (group, n) = (slot.group as usize, self.groups[slot.group as usize].records);
        let epoch = slot.k / n;
        let kept = order.take().filter(|(of, _)| *of == epoch);
        let (_, order) = order.insert(kept.unwrap_or_else(|| {
            (epoch, Permutation::new(self.orders[group].at(Draw::Permutation, epoch, 0), n))
        }));
        SampleId { group: slot.group, index: order.at(slot.k % n) }
    }

    /// What the item of a slot is charged.
    pub(super) fn cost(&self, slot: Slot, order: &mut Order) -> i128 {
        match &self.costs {
            Costs::Equal => 1,
            Costs::Varying(costs) => {
                let id = self.record(slot, order);
                // Bounded, so that credits times weights stay within 128 bits.
                i128::from(costs.cost(id.group, id.index).clamp(1, u64::from(u32::MAX)))
            }
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
