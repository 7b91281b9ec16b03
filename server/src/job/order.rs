//! Which record stands at which slot, for training sequences and eval sets alike.

use crate::batch::SampleId;
use crate::keeper::Live;
use crate::mixture::{Sequence, Slot};
use std::sync::Arc;

/// Which record stands at which slot.
#[derive(Debug)]
pub enum Order {
    /// The job's training sequence.
    Train(Arc<Live>),
    /// A pinned set in order, once.
    Eval {
        /// Groups in order with their records.
        spans: Vec<(u32, u64)>,
        /// Rows of a step.
        batch: u64,
        /// Fill the last step by repeating its rows, flagged.
        pad: bool,
    },
}

impl Order {
    /// Slots of a full step.
    pub fn batch(&self) -> u64 {
        match self {
            Order::Train(live) => live.now().batch(),
            Order::Eval { batch, .. } => *batch,
        }
    }

    /// Steps in all; `None` without end.
    pub fn steps(&self) -> Option<u64> {
        match self {
            Order::Train(live) => live.now().end().map(|end| end.steps),
            Order::Eval { spans, batch, .. } => Some(records(spans).div_ceil(*batch)),
        }
    }

    /// First step that is not planned yet; `None` when every step is.
    pub fn covered(&self) -> Option<u64> {
        match self {
            Order::Train(live) => live.now().covered(),
            Order::Eval { .. } => None,
        }
    }

    /// Rows dropped at the end and slots padded in the last step.
    pub fn leftovers(&self) -> (u64, u64) {
        match self {
            Order::Train(live) => live.now().end().map_or((0, 0), |end| (end.dropped, end.padded)),
            Order::Eval { spans, batch, pad } => {
                let rest = records(spans) % batch;
                (0, if *pad && rest > 0 { batch - rest } else { 0 })
            }
        }
    }

    /// Slots of `step` in order with their records; a padded step repeats its own.
    pub fn step(&self, step: u64) -> Vec<Place> {
        match self {
            Order::Train(live) => places(&live.now(), step),
            Order::Eval { spans, batch, pad } => {
                let first = step.saturating_mul(*batch);
                let place = |id| Place { id, slot: None, padded: false };
                let slots = (first..first.saturating_add(*batch)).map_while(|at| locate(spans, at));
                let own = slots.map(place).collect();
                if *pad { filled(own, *batch) } else { own }
            }
        }
    }

    /// What takes the place of a bad record; eval sets replace nothing.
    pub fn probe(&self, place: &Place, probe: u64) -> Option<SampleId> {
        match (self, place.slot) {
            (Order::Train(live), Some(slot)) => live.now().probe(slot, probe),
            _ => None,
        }
    }

    /// Epoch of the schedule at `step`.
    pub fn epoch(&self, step: u64) -> f64 {
        match self {
            Order::Train(live) => live.now().epoch(step),
            Order::Eval { .. } => 0.0,
        }
    }
}

/// Slots of `step` of a training sequence, of whatever branch.
pub fn places(sequence: &Sequence, step: u64) -> Vec<Place> {
    let slots = sequence.step(step).into_iter();
    let own =
        slots.map(|slot| Place { id: sequence.record(slot), slot: Some(slot), padded: false }).collect();
    let last = sequence.end_by(step).is_some_and(|end| end.padded > 0 && step + 1 == end.steps);
    if last { filled(own, sequence.batch()) } else { own }
}

/// Repeats places until there are `batch`.
fn filled(mut places: Vec<Place>, batch: u64) -> Vec<Place> {
    let own = places.len();
    if own > 0 {
        (own..batch as usize).for_each(|i| {
            let repeated = Place { padded: true, ..places[i % own] };
            places.push(repeated);
        });
    }
    places
}

/// Records in all spans.
fn records(spans: &[(u32, u64)]) -> u64 {
    spans.iter().map(|(_, records)| records).sum()
}

/// The `at`-th record of the spans.
fn locate(spans: &[(u32, u64)], mut at: u64) -> Option<SampleId> {
    for &(group, records) in spans {
        if at < records {
            return Some(SampleId { group, index: at });
        }
        at -= records;
    }
    None
}

/// A slot with its record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The record.
    pub id: SampleId,
    /// Its place in the sequence; `None` in eval sets.
    pub slot: Option<Slot>,
    /// Repeats another slot of the step.
    pub padded: bool,
}
