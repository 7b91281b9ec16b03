//! The course of one job's mixture: a pure state machine from events to entries of the log.
//!
//! ```text
//! Plan / Report / Late / Attempt / Weights  ->  apply  ->  entries
//! ```
//! No clock, no I/O: the same events give the same entries, whatever machine and after whatever restart. A *round* is
//! everything from one barrier to the next; its segments stay open for reports until the barrier is passed.

use super::bag::{Answer, Bag};
use super::rules::{Barrier, Rules};
use super::segment::Segment;
use crate::estimate::{Estimator, MethodError, Verdict, Want, When};
use crate::mixture::{EntryError, Sequence, Weights};
use mixfeed_proto as v1;
use std::{collections::BTreeMap, sync::Arc};

/// Directives that can be gone back to: 4,096 steps of a method that decides every 16.
const KEPT: usize = 256;
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
    /// What the estimator made of the last round, for the next entry.
    pub(super) receipt: String,
    pub(super) late: bool,
    /// Losses behind the entry that is appended next: those of the round that led to it. Never whatever happens to be
    /// there: the log must not depend on how far streams had planned ahead when a report came.
    pub(super) told: Vec<f64>,
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
            receipt: String::new(),
            late: false,
            told: Vec::new(),
            rules,
        };
        course.lay(0)?;
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

    /// Whether three rounds in a row brought no evidence.
    pub fn degraded(&self) -> bool {
        self.stale_rounds >= STALE_ROUNDS
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
    fn advance(&mut self, covered: u64) -> Result<bool, CourseError> {
        let Some(last) = self.laid.last().filter(|l| l.barrier && self.observed < self.laid.len()) else {
            self.lay(covered)?;
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
            self.late = !complete;
        } else if !complete {
            return Ok(false);
        }
        self.observe();
        self.lay(covered)?;
        Ok(true)
    }

    /// A report; whether it was counted and what to answer.
    ///
    /// # Errors
    /// [`CourseError`]: a defect.
    pub fn report(&mut self, report: v1::ReportRequest) -> Result<Answer, CourseError> {
        // What can be gone back to gives way to what is learnt now.
        while self.observed > 0 && self.bag.is_full(&report) {
            self.laid.remove(0);
            self.observed -= 1;
            self.forget_closed();
        }
        if let Err(answer) = self.check(&report) {
            return Ok(answer);
        }
        let lagged = matches!(self.rules.barrier, Barrier::Lagged(_));
        self.bag.add(report);
        if let (false, Some(covered)) = (lagged, self.sequence().covered()) {
            let waiting = self.laid.last().is_some_and(|l| l.barrier) && self.observed < self.laid.len();
            if waiting && self.open().all(|s| self.bag.complete(&self.rules, s)) {
                self.advance(covered)?;
            }
        }
        Ok(Answer::accepted())
    }

    /// Whether a report would be counted; the answer otherwise. Attempts are the caller's to compare.
    ///
    /// # Errors
    /// The answer.
    pub fn check(&self, report: &v1::ReportRequest) -> Result<(), Answer> {
        use v1::ReportReason as Reason;
        if report.rank >= self.rules.reporters {
            let why = format!("rank {} reports, the job has {} reporters", report.rank, self.rules.reporters);
            return Err(Answer::rejected(Reason::Rank, why));
        }
        let Some(segment) = self.open().find(|s| s.seq == report.segment) else {
            let known =
                self.entries.iter().any(|e| e.seq == report.segment && e.mixture_id == report.mixture_id);
            return Err(match known {
                true => Answer::stale(format!("segment {} is closed", report.segment)),
                false => Answer::rejected(
                    Reason::Mixture,
                    format!("there is no segment {} with mixture {}", report.segment, report.mixture_id),
                ),
            });
        };
        // Losses at the end of a segment are those at the begin of the next one, whichever a report names.
        let ends =
            |s: &Segment| s.until == Some(report.to_step) && s.wants().contains(&(When::After, Want::Eval));
        let boundary = report.to_step == segment.from && self.open().any(ends);
        self.bag.check(&self.rules, segment, report, boundary)
    }

    /// Time ran out at `barrier`: goes on with what arrived.
    ///
    /// # Errors
    /// [`CourseError`]: a defect.
    pub fn late(&mut self, barrier: u64) -> Result<(), CourseError> {
        if self.barrier() != Some(barrier) {
            return Ok(()); // the last report came in between
        }
        if self.sequence().covered().is_none_or(|c| barrier < c) {
            // Between two segments of a block: nothing more is expected of those that ended.
            let ended = |s: &Segment| s.until.is_some_and(|until| until <= barrier);
            for segment in
                self.laid[self.observed..].iter_mut().flat_map(|l| &mut l.segments).filter(|s| ended(s))
            {
                segment.window.wants.clear();
            }
            return Ok(());
        }
        self.late = true;
        self.observe();
        self.lay(barrier)
    }

    /// Shows the round's segments to every estimator.
    fn observe(&mut self) {
        let sequence = self.sequence().clone();
        let segments: Vec<Segment> = self.open().filter(|s| s.until.is_some()).cloned().collect();
        let seen: Vec<_> = segments
            .iter()
            .map(|s| {
                let (before, after) =
                    (sequence.rows_before(s.from), sequence.rows_before(s.until.unwrap_or(s.from)));
                let rows: Vec<u64> = before.iter().zip(&after).map(|(b, a)| a - b).collect();
                self.bag.seen(&self.rules, s, self.rules.narrow(&rows))
            })
            .collect();
        let verdicts: Vec<Verdict> = self.estimators.iter_mut().map(|e| e.observe(&seen)).collect();
        if let Some(losses) = segments.last().and_then(|s| self.bag.losses(&self.rules, s.until?, |_| true)) {
            self.told = losses.clone();
            self.losses = losses;
        }
        let used = verdicts.first().is_some_and(|v| v.used);
        self.stale_rounds = if used { 0 } else { self.stale_rounds + 1 };
        self.receipt = verdicts.first().map(receipt).unwrap_or_default();
        self.observed = self.laid.len();
        self.round += 1;
        self.prune();
    }

    /// Forgets what can no longer be gone back to.
    pub(super) fn prune(&mut self) {
        let gone = self.laid.len().saturating_sub(KEPT).min(self.observed);
        self.laid.drain(..gone);
        self.observed -= gone;
        self.forget_closed();
    }

    /// Forgets reports on segments that are gone.
    fn forget_closed(&mut self) {
        if let Some(oldest) = self.laid.iter().flat_map(|l| &l.segments).map(|s| s.seq).min() {
            self.bag.forget(|r| r.segment < oldest);
        }
    }
}

/// A verdict as one line of JSON for the log.
fn receipt(verdict: &Verdict) -> String {
    let list = |values: &[f64]| values.iter().map(|v| format!("{v}")).collect::<Vec<_>>().join(",");
    let facts = verdict.facts.iter().map(|(name, values)| format!(",\"{name}\":[{}]", list(values)));
    format!("{{\"used\":{}{}}}", verdict.used, facts.collect::<String>())
}
