//! The course of one job's mixture: a pure state machine from events to entries of the log.
//!
//! ```text
//! Plan / Report / Late / Attempt / Weights  ->  apply  ->  entries
//! ```
//! No clock, no I/O: the same events give the same entries, whatever machine and after whatever restart. A *round* is
//! everything from one barrier to the next; its segments stay open for reports until the barrier is passed.

use super::bag::Bag;
use super::replicas::Replicas;
use super::round::Heard;
use super::rules::{Barrier, Rules};
use super::segment::Segment;
use crate::estimate::{Estimator, MethodError, Want};
use crate::mixture::{EntryError, Sequence, Weights};
use mixfeed_proto as v1;
use std::{collections::BTreeMap, sync::Arc};

/// Directives whose reports are told as due: what is further back is closed.
const DUE: usize = 8;
/// Rounds without usable evidence after which a job counts as degraded.
const STALE_ROUNDS: u32 = 3;
/// Directives that one event may lay out: a method that plans step by step must not spin.
const MAX_LAID: usize = 64;

/// A course that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CourseError {
    /// A method refuses the job.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// An entry that does not fit the log: a defect, or state of another build.
    #[error("mixture log: {0}")]
    Entry(#[from] EntryError),
    /// An estimator asked for what cannot be served: a defect.
    #[error("estimator `{name}` asked for {why}")]
    Directive {
        /// Its name.
        name: String,
        /// What.
        why: String,
    },
    /// Its saved state does not fit: a defect, or state of another build.
    #[error("estimator `{name}`: {error}")]
    State {
        /// Its name.
        name: String,
        /// Why.
        error: crate::estimate::StateError,
    },
}

/// One directive as it was laid out.
#[derive(Clone, Debug)]
pub(super) struct Laid {
    /// First step.
    pub from: u64,
    /// Whether training waits at its end.
    pub barrier: bool,
    /// Its segments, held ones after its end included.
    pub segments: Vec<Segment>,
    /// Round that it belongs to.
    pub round: u64,
    /// State of every estimator after it was given.
    pub state: Vec<Vec<u8>>,
    /// Shares of the last main window up to its end.
    pub main: Option<Vec<f64>>,
}

/// Weights that an operator has set and that wait for the end of a probe block.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// First step that may get them.
    pub step: u64,
    /// Shares of all groups.
    pub weights: Weights,
    /// "operator:NAME".
    pub author: String,
    /// Why.
    pub note: String,
}

/// See the module.
#[derive(Debug)]
pub struct Course {
    pub(super) rules: Arc<Rules>,
    pub(super) estimators: Vec<Box<dyn Estimator>>,
    pub(super) entries: Vec<v1::MixtureEntry>,
    pub(super) branch: u64,
    pub(super) branches: BTreeMap<u64, Arc<Sequence>>,
    pub(super) attempt: u64,
    pub(super) bag: Bag,
    pub(super) laid: Vec<Laid>,
    /// Directives before this index of `laid` were observed.
    pub(super) observed: usize,
    pub(super) round: u64,
    pub(super) main: Option<Vec<f64>>,
    pub(super) pending: Option<Pending>,
    pub(super) stale_rounds: u32,
    pub(super) losses: Vec<f64>,
    /// Rounds running in which some task had no finite loss.
    pub(super) masked_rounds: u32,
    /// Whether the last round was kept from the estimators because of that.
    pub(super) frozen: bool,
    pub(super) replicas: Replicas,
}

impl Course {
    /// The course of a job over `sequence`, which has no entry yet; the first ones are planned.
    ///
    /// # Errors
    /// [`CourseError`] when a method refuses the job.
    pub fn new(rules: Arc<Rules>, sequence: Sequence) -> Result<Course, CourseError> {
        let all = rules.learner.iter().chain(&rules.shadows);
        let estimators = all.map(|l| l.start(&rules.setup)).collect::<Result<Vec<_>, _>>()?;
        let mut course = Course {
            estimators,
            entries: Vec::new(),
            branch: 0,
            branches: BTreeMap::from([(0, Arc::new(sequence.starting(&rules.initial)))]),
            attempt: 0,
            bag: Bag::default(),
            laid: Vec::new(),
            observed: 0,
            round: 0,
            main: None,
            pending: None,
            stale_rounds: 0,
            losses: Vec::new(),
            masked_rounds: 0,
            frozen: false,
            replicas: Replicas::default(),
            rules,
        };
        course.lay(0, Heard::default())?;
        Ok(course)
    }

    /// The sequence of the current branch.
    pub fn sequence(&self) -> &Arc<Sequence> {
        &self.branches[&self.branch]
    }

    /// The sequence of any branch.
    pub fn branch_sequence(&self, branch: u64) -> Option<&Arc<Sequence>> {
        self.branches.get(&branch)
    }

    /// Steps that `branch` has in common with the current one: all before the first strike after it. `None` for a branch
    /// that there is not.
    pub fn common(&self, branch: u64) -> Option<u64> {
        let strikes =
            self.entries.iter().filter(|e| e.kind == v1::MixtureKind::Strike as i32 && e.branch > branch);
        (branch <= self.branch).then(|| strikes.map(|e| e.from_step).min().unwrap_or(u64::MAX))
    }

    /// The current branch.
    pub fn branch(&self) -> u64 {
        self.branch
    }

    /// The current attempt; 0 before the first.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Entry `seq` of the log; its number is its place.
    pub fn entry(&self, seq: u64) -> Option<&v1::MixtureEntry> {
        self.entries.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// The log.
    pub fn entries(&self) -> &[v1::MixtureEntry] {
        &self.entries
    }

    /// What it depends on.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Last held-out losses per task.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// The segment that governs `step` on the current branch.
    pub fn segment(&self, step: u64) -> Option<&Segment> {
        self.laid.iter().rev().flat_map(|l| l.segments.iter().rev()).find(|s| s.holds(step))
    }

    /// The segments that can still matter, for what is due.
    pub(super) fn recent(&self) -> Vec<Segment> {
        let from = self.laid.len().saturating_sub(DUE).min(self.observed);
        self.laid[from..].iter().flat_map(|l| &l.segments).cloned().collect()
    }

    /// Entries that govern `step` and later steps of the current branch, at most `most` of at most `bytes`.
    pub fn plan_from(&self, step: u64, most: usize, mut bytes: usize) -> Vec<v1::MixtureEntry> {
        let all = super::account::governing(&self.entries).into_iter().filter(|(_, _, until)| step < *until);
        let mut fits = |entry: &v1::MixtureEntry| {
            let left = bytes.checked_sub(prost::Message::encoded_len(entry) + 8);
            bytes = left.unwrap_or(0);
            left.is_some()
        };
        all.map(|(entry, _, _)| entry).take(most).take_while(|entry| fits(entry)).cloned().collect()
    }

    /// Whether segment `seq` got every report that it waits for; a closed one did.
    pub(super) fn is_complete(&self, seq: u64) -> bool {
        self.open().find(|s| s.seq == seq).is_none_or(|s| self.bag.complete(&self.rules, s))
    }

    /// What the estimator in charge wants measured, with the segment that it is for.
    pub fn candidates(&self) -> Option<(u64, Vec<Vec<f64>>)> {
        let segment = self.open().find(|s| s.asks(Want::Candidates))?;
        let all = self.estimators.first()?.candidates();
        Some((segment.seq, all.iter().map(|c| self.rules.widen(c)).collect()))
    }

    /// Whether the job ends at or before `step`, as far as is planned: nothing can follow there.
    pub(super) fn is_over(&self, step: u64) -> bool {
        self.sequence().end_by(step).is_some_and(|end| end.steps <= step)
    }

    /// Segments that take reports.
    pub(super) fn open(&self) -> impl Iterator<Item = &Segment> {
        self.laid[self.observed..].iter().flat_map(|l| &l.segments)
    }

    /// The barrier that training waits at: the first step that may not be served before reports arrive.
    pub fn barrier(&self) -> Option<u64> {
        let lagged = matches!(self.rules.barrier, Barrier::Lagged(_));
        let waits = |l: &&Laid| l.barrier && !lagged;
        let end = self.laid[self.observed..].iter().find(waits).and_then(|l| l.segments.last()?.until);
        let segment = (self.rules.barrier == Barrier::Segment).then(|| {
            let due = |s: &&Segment| !s.wants().is_empty() && !self.bag.complete(&self.rules, s);
            // What is due before a segment holds up none but itself; nothing is due after an open-ended one.
            self.open().filter(|s| s.until.is_some()).find(due).and_then(|s| s.until)
        });
        [end, segment.flatten()].into_iter().flatten().min()
    }

    /// Whether `step` may be served: planned, and no barrier before it.
    pub fn ready(&self, step: u64) -> bool {
        self.sequence().covered().is_none_or(|c| step < c) && self.barrier().is_none_or(|b| step < b)
    }

    /// Whether three rounds in a row brought no evidence, or the last one's losses froze the weights.
    pub fn degraded(&self) -> bool {
        self.frozen || self.stale_rounds >= STALE_ROUNDS
    }

    /// A stream wants to serve `step`: plans on as far as that takes, unless reports must come first.
    ///
    /// # Errors
    /// [`CourseError`]: a defect.
    pub fn plan(&mut self, step: u64) -> Result<(), CourseError> {
        for _ in 0..MAX_LAID {
            let covered = self.sequence().covered().filter(|c| *c <= step && !self.is_over(*c));
            let Some(covered) = covered else { return Ok(()) };
            if !self.advance(covered)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes on from `covered`, where the plan ends; false when reports must come first.
    pub(super) fn advance(&mut self, covered: u64) -> Result<bool, CourseError> {
        let Some(last) = self.laid.last().filter(|l| l.barrier && self.observed < self.laid.len()) else {
            self.lay(covered, Heard::default())?;
            return Ok(true);
        };
        let end = last.segments.iter().filter(|s| !s.wants().is_empty()).filter_map(|s| s.until).max();
        let complete = self.open().all(|s| self.bag.complete(&self.rules, s));
        if let Barrier::Lagged(lag) = self.rules.barrier {
            // New weights never hold before the lag is over, however early the reports came: the rule must not depend on
            // how fast a trainer is. What has not come by then is not waited for.
            if end == Some(covered) {
                self.hold(covered, lag.max(1))?;
                return Ok(true);
            }
        } else if !complete {
            return Ok(false);
        }
        let heard = Heard { late: !complete, ..self.observe() };
        self.lay(covered, heard)?;
        Ok(true)
    }
}
