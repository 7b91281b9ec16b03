//! Turns in a course from outside: a trainer that comes back, an operator who sets the weights.

use super::course::{Course, CourseError, Pending};
use super::lay::Note;
use super::replicas::Replicas;
use super::segment::Segment;
use crate::estimate::{Want, When, WindowKind, hamilton::hamilton};
use crate::mixture::{Entry, EntryError, EntryKind, Weights};
use mixfeed_proto::{self as v1, ResumeAttempt};
use std::sync::Arc;

/// What a turn answers when it is refused.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// A trainer is ahead of what was served.
    #[error("the trainer has completed {completed} steps, this job has served {horizon}")]
    Ahead {
        /// Steps of the trainer.
        completed: u64,
        /// Steps served.
        horizon: u64,
    },
    /// Reports were taken about steps that the trainer will do again.
    #[error(
        "the trainer comes back to step {completed}, reports on steps up to {reported} were taken; ask to resume by rewind (learn them anew) or replay (keep the log)"
    )]
    Behind {
        /// Steps of the trainer.
        completed: u64,
        /// Furthest step reported on.
        reported: u64,
    },
    /// A checkpoint whose steps were taken back.
    #[error("the trainer's {completed} steps are of branch {branch}, which this job left at step {common}")]
    Branch {
        /// Steps of the trainer.
        completed: u64,
        /// Branch of its checkpoint.
        branch: u64,
        /// Steps that are still the job's.
        common: u64,
    },
    /// A rewind to a step whose state is gone.
    #[error(
        "step {completed} is too far back to rewind to, the first one kept is {oldest}; replay or copy the job"
    )]
    TooFar {
        /// Steps of the trainer.
        completed: u64,
        /// First step that can be gone back to.
        oldest: u64,
    },
    /// Weights that cannot follow the log.
    #[error("the weights cannot hold from step {step} on: {error}")]
    Weights {
        /// First step.
        step: u64,
        /// Why.
        error: EntryError,
    },
    /// A defect.
    #[error(transparent)]
    Course(#[from] CourseError),
}

impl TurnError {
    /// Whether it changed nothing.
    pub fn is_refusal(&self) -> bool {
        match self {
            TurnError::Ahead { .. }
            | TurnError::Behind { .. }
            | TurnError::Branch { .. }
            | TurnError::TooFar { .. }
            | TurnError::Weights { .. } => true,
            TurnError::Course(_) => false,
        }
    }
}

/// A trainer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the attempt.
    pub attempt: u64,
    /// Branch on which training goes on.
    pub branch: u64,
    /// Segment whose held-out losses are wanted before the first step: its `seq` and mixture.
    pub evaluate: Option<(u64, u64)>,
}

impl Course {
    /// A trainer begins a new life with `completed` steps in its weights.
    ///
    /// # Errors
    /// [`TurnError`].
    pub fn open_attempt(
        &mut self,
        completed: u64,
        branch: u64,
        resume: ResumeAttempt,
        horizon: u64,
    ) -> Result<Attempt, TurnError> {
        let common = self.common(branch).unwrap_or(0);
        if completed > common {
            return Err(TurnError::Branch { completed, branch, common });
        }
        if completed > horizon {
            return Err(TurnError::Ahead { completed, horizon });
        }
        let reported = self.bag.furthest();
        if completed < reported {
            match resume {
                ResumeAttempt::Unspecified => return Err(TurnError::Behind { completed, reported }),
                ResumeAttempt::Replay => {}
                ResumeAttempt::Rewind => self.rewind(completed)?,
            }
        }
        self.attempt += 1;
        self.replicas = Replicas::default(); // other processes report now
        self.waive(completed);
        // A crash between a step and its report: the boundary's losses can still be told.
        let missing = |s: &&Segment| {
            let due = |when| s.wants().contains(&(when, Want::Eval));
            let at = (s.from == completed && due(When::Before))
                || (s.until == Some(completed) && due(When::After));
            at && !self.bag.complete(&self.rules, s)
        };
        let evaluate = self.open().find(missing).map(|s| (s.seq, s.mixture_id));
        Ok(Attempt { attempt: self.attempt, branch: self.branch, evaluate })
    }

    /// Reports that the lives before were to send and this one cannot make up for are not waited for: those on steps before
    /// `completed` that did not arrive. Held-out losses at the step itself can still be told.
    fn waive(&mut self, completed: u64) {
        let (rules, observed) = (self.rules.clone(), self.observed);
        let bag = &self.bag;
        for segment in self.laid[observed..].iter_mut().flat_map(|l| &mut l.segments) {
            let head = match segment.until {
                Some(until) if until <= completed => segment.clone(),
                _ if segment.from < completed => segment.split(completed).0,
                _ => continue,
            };
            let told = |due: &(When, Want)| {
                let mut one = head.clone();
                one.window.wants = vec![*due];
                bag.complete(&rules, &one)
            };
            let later = |due: &(When, Want)| match due.0 {
                When::Before => false,
                When::After => segment
                    .until
                    .is_none_or(|until| until > completed || (until == completed && due.1 == Want::Eval)),
                When::EachStep => false,
            };
            let keep: Vec<(When, Want)> =
                segment.wants().iter().filter(|due| later(due) || told(due)).copied().collect();
            segment.window.wants = keep;
        }
    }

    /// Takes back what was learnt and planned from `step` on, on a new branch. Nothing is deleted from the log.
    fn rewind(&mut self, step: u64) -> Result<(), TurnError> {
        let Some(index) = self.laid.iter().rposition(|l| l.from <= step) else {
            let oldest = self.laid.first().map_or(0, |l| l.from);
            return Err(TurnError::TooFar { completed: step, oldest });
        };
        self.laid.truncate(index + 1);
        let laid = self.laid[index].clone();
        self.round = laid.round;
        self.observed = self.laid.iter().position(|l| l.round == laid.round).unwrap_or(index);
        self.restore(&laid.state)?;
        self.main = laid.main.clone();
        (self.stale_rounds, self.masked_rounds, self.frozen) = (0, 0, false);
        self.bag.forget(|r| r.to_step > step);
        let before = self.sequence().clone();
        self.branch += 1;
        self.branches.insert(self.branch, Arc::new(before.cut(step)));
        self.strike(step);
        self.laid[index].segments.clear();
        let evaluates = laid.segments.iter().any(|s| s.asks(Want::Eval));
        let mut fresh = evaluates;
        for segment in laid.segments {
            if segment.until.is_some_and(|until| until <= step) {
                self.laid[index].segments.push(segment);
                continue;
            }
            let mut tail = segment;
            if tail.from < step {
                let (head, rest) = tail.split(step);
                self.laid[index].segments.push(head);
                tail = rest;
            }
            // Losses at the step itself are wanted anew: the differences of both parts hang on them.
            if std::mem::take(&mut fresh) && self.bag.told(step, |_| true).is_empty() {
                tail.window.wants.retain(|due| *due != (When::Before, Want::Eval));
                tail.window.wants.push((When::Before, Want::Eval));
            }
            if !self.is_over(tail.from) {
                self.relay(tail, &before)?;
            }
        }
        Ok(())
    }

    /// Appends what is left of a segment of another branch.
    fn relay(&mut self, tail: Segment, before: &crate::mixture::Sequence) -> Result<(), CourseError> {
        let note = Note::by(format!("attempt:{}", self.attempt + 1));
        let entry = self.entry(tail.seq);
        let begin = entry.map_or(tail.from, |e| e.from_step);
        let (weights, counts) =
            entry.map_or((Vec::new(), Vec::new()), |e| (e.weights.clone(), e.counts.clone()));
        let as_served = Weights::exact(weights).expect("weights of the log");
        match tail.window.kind {
            WindowKind::Main => {
                self.append_counts(tail.from, tail.until, tail.window, as_served, Vec::new(), note)
            }
            WindowKind::Probe { .. } => {
                // What the first part has not served yet, so that the whole block's counts stay exact; in proportion
                // where a group left and others stood in for it.
                let until = tail.until.unwrap_or(tail.from);
                let (a, b) = (before.rows_before(begin), before.rows_before(tail.from));
                let served = a.iter().zip(&b).map(|(a, b)| b - a);
                let mut rest: Vec<u64> =
                    counts.iter().zip(served).map(|(c, s)| c.saturating_sub(s)).collect();
                let wanted = (until - tail.from) * before.batch();
                if rest.iter().sum::<u64>() != wanted {
                    rest = hamilton(wanted, &self.rules.widen(&tail.window.shares));
                }
                self.append_counts(tail.from, tail.until, tail.window, as_served, rest, note)
            }
        }
    }

    /// Notes in the log that entries from `step` on were taken back.
    fn strike(&mut self, step: u64) {
        self.entries.push(v1::MixtureEntry {
            seq: self.entries.len() as u64 + 1,
            branch: self.branch,
            from_step: step,
            kind: v1::MixtureKind::Strike.into(),
            author: format!("attempt:{}", self.attempt + 1),
            round: self.round,
            ..Default::default()
        });
    }

    /// An operator sets the weights from `step` on (at or after the horizon). True when a probe block is finished first.
    ///
    /// # Errors
    /// [`TurnError::Weights`] when a later entry stands in the log already, or nobody is left to serve.
    pub fn set_weights(
        &mut self,
        weights: Weights,
        step: u64,
        author: &str,
        note: &str,
    ) -> Result<bool, TurnError> {
        let last = self.laid.last().and_then(|l| l.segments.last()).cloned();
        let Some(last) = last.filter(|s| s.holds(step) && !s.is_probe()) else {
            let planned = self.sequence().covered().is_none();
            if planned && self.rules.learner.is_none() {
                self.try_weights(&weights, step, None)?;
                self.entry_by(weights, step, None, author, note, Vec::new())?;
                return Ok(false);
            }
            self.pending = Some(Pending { step, weights, author: author.into(), note: note.into() });
            return Ok(true);
        };
        let wants = last.window.wants.clone();
        let wants = match last.from == step {
            true => wants,
            false => last.split(step).1.window.wants,
        };
        self.try_weights(&weights, step, last.until)?;
        self.entry_by(weights.clone(), step, last.until, author, note, wants)?;
        let segments = &mut self.laid.last_mut().expect("it has the segment").segments;
        let old = segments.len() - 2; // the new one was pushed behind it
        match segments[old].from == step {
            true => drop(segments.remove(old)),
            false => segments[old] = last.split(step).0,
        }
        self.steer(&weights);
        let states = self.states_now();
        self.laid.last_mut().expect("it has the segment").state = states;
        self.laid.last_mut().expect("it has the segment").main = self.main.clone();
        Ok(false)
    }

    /// Whether the log takes the weights: what an operator asks for must not stop a job.
    fn try_weights(&self, weights: &Weights, step: u64, until: Option<u64>) -> Result<(), TurnError> {
        let (weights, kind) = (weights.clone(), EntryKind::Main);
        let entry = Entry { seq: 0, from_step: step, until_step: until, kind, weights, mixture_id: 0 };
        self.sequence().append(entry).map(drop).map_err(|error| TurnError::Weights { step, error })
    }

    fn entry_by(
        &mut self,
        weights: Weights,
        from: u64,
        until: Option<u64>,
        author: &str,
        note: &str,
        wants: Vec<(When, Want)>,
    ) -> Result<(), CourseError> {
        let narrow = self.rules.narrow(weights.shares());
        let shares = narrow.iter().map(|w| *w as f64 / crate::mixture::ONE as f64).collect();
        let steps = until.map_or(crate::estimate::FOREVER, |until| until - from);
        let window = crate::estimate::Window { kind: WindowKind::Main, steps, shares, wants };
        let note = Note { receipt: note.into(), ..Note::by(author) };
        self.append_counts(from, until, window, weights, Vec::new(), note)
    }
}
