//! What streams and watchers see of a course, without its lock.

use super::course::Course;
use super::segment::{Segment, kind_of};
use crate::estimate::Want;
use crate::mixture::{End, Sequence};
use std::sync::Arc;

/// What is known without a lock.
#[derive(Clone, Debug)]
pub struct View {
    /// Sequence of the current branch.
    pub sequence: Arc<Sequence>,
    /// Branch.
    pub branch: u64,
    /// Step before which reports must come.
    pub barrier: Option<u64>,
    /// Entries of the log.
    pub version: u64,
    /// Whether the weights stay for want of usable evidence.
    pub degraded: bool,
    /// The last segments, for what is due.
    segments: Vec<Segment>,
}

impl View {
    pub(super) fn of(course: &Course) -> View {
        View {
            sequence: course.sequence().clone(),
            branch: course.branch(),
            barrier: course.barrier(),
            version: course.entries().len() as u64,
            degraded: course.degraded(),
            segments: course.recent(),
        }
    }

    pub(super) fn is_ready(&self, step: u64) -> bool {
        self.sequence.covered().is_none_or(|c| step < c) && self.barrier.is_none_or(|b| step < b)
    }

    /// What a header says about `step`, when it may be served now.
    pub fn ready_mark(&self, step: u64) -> Option<Mark> {
        self.is_ready(step).then(|| self.mark(step))
    }

    /// What a header says about `step`.
    pub(super) fn mark(&self, step: u64) -> Mark {
        let entry = self.sequence.entry(step);
        let segment = self.segments.iter().rev().find(|s| s.holds(step));
        let (before, after) = segment.map(|s| s.due(step)).unwrap_or_default();
        let kinds = |wants: Vec<Want>| wants.into_iter().map(|w| kind_of(w) as i32).collect();
        Mark {
            branch: self.branch,
            seq: entry.map_or(0, |e| e.seq),
            mixture_id: entry.map_or(0, |e| e.mixture_id),
            due_before: kinds(before),
            due_after: kinds(after),
        }
    }
}

/// What a batch's header says about the mixture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Branch of the log.
    pub branch: u64,
    /// Entry in force.
    pub seq: u64,
    /// Its mixture.
    pub mixture_id: u64,
    /// Kinds of reports due before the step.
    pub due_before: Vec<i32>,
    /// Kinds of reports due after it.
    pub due_after: Vec<i32>,
}

/// A step that may be served now.
#[derive(Clone, Debug)]
pub enum Reached {
    /// It is in the sequence.
    Step(Arc<Sequence>, Mark),
    /// The job ends before it.
    Over(End),
}
