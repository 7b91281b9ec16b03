//! What trainers, operators and readers ask of a keeper.

use super::durable::Inner;
use super::record::{AttemptEvent, WeightsEvent};
use super::{Answer, Attempt, Course, Event, Keeper, KeeperError};
use crate::mixture::Weights;
use mixfeed_proto::{self as v1, ReportOutcome, ReportReason};
use std::sync::Arc;

impl Keeper {
    /// Takes a report.
    ///
    /// # Errors
    /// [`KeeperError::Superseded`], [`KeeperError::NoAttempt`], or a failure.
    pub async fn report(
        self: &Arc<Self>,
        report: v1::ReportRequest,
    ) -> Result<(Answer, u64, bool), KeeperError> {
        self.blocking(move |keeper| {
            // One lock for the fence, the check and the event: nobody comes in between.
            let mut inner = keeper.sound()?;
            let (given, current) = (report.attempt, inner.course.attempt());
            if given != current || given == 0 {
                keeper.count(&mut inner, ReportOutcome::Rejected, ReportReason::Attempt);
                return Err(match given < current {
                    true => KeeperError::Superseded { given, current },
                    false => KeeperError::NoAttempt { given, current },
                });
            }
            let segment = report.segment;
            let ahead = report.to_step > keeper.horizon();
            let answer = match ahead {
                true => Answer::rejected(ReportReason::Steps, "the steps were not served yet"),
                false => {
                    keeper.apply(&mut inner, Event::Report(report))?.answer.unwrap_or_else(Answer::accepted)
                }
            };
            keeper.count(&mut inner, answer.outcome, answer.reason);
            if answer.outcome == ReportOutcome::Accepted {
                keeper.alive();
            }
            Ok((answer, inner.course.entries().len() as u64, inner.course.is_complete(segment)))
        })
        .await
    }

    fn count(&self, inner: &mut Inner, outcome: ReportOutcome, reason: ReportReason) {
        *inner.outcomes.entry((outcome.into(), reason.into())).or_default() += 1;
        crate::metrics::report(&self.job, outcome.as_str_name(), reason.as_str_name());
    }

    /// Begins a trainer's new life.
    ///
    /// # Errors
    /// [`KeeperError::Turn`], or a failure.
    pub async fn open_attempt(
        self: &Arc<Self>,
        completed: u64,
        branch: u64,
        resume: v1::ResumeAttempt,
    ) -> Result<Attempt, KeeperError> {
        self.blocking(move |keeper| {
            let horizon = keeper.horizon();
            let resume = resume.into();
            let done = keeper.event(Event::Attempt(AttemptEvent { completed, resume, horizon, branch }))?;
            Ok(done.attempt.expect("an attempt's event answers with it"))
        })
        .await
    }

    /// Sets the weights from `step` (or the horizon) on; returns the entry, `None` when a probe block comes first.
    ///
    /// # Errors
    /// [`KeeperError::Version`] when `expected` is neither 0 nor the current version.
    pub async fn set_weights(
        self: &Arc<Self>,
        weights: Weights,
        step: u64,
        expected: u64,
        author: String,
        note: String,
    ) -> Result<Option<v1::MixtureEntry>, KeeperError> {
        self.blocking(move |keeper| {
            let mut inner = keeper.sound()?;
            let current = inner.course.entries().len() as u64;
            if expected != 0 && expected != current {
                return Err(KeeperError::Version { given: expected, current });
            }
            let step = step.max(keeper.horizon());
            let weights = weights.shares().to_vec();
            let done =
                keeper.apply(&mut inner, Event::Weights(WeightsEvent { weights, step, author, note }))?;
            Ok(if done.pending { None } else { inner.course.entries().last().cloned() })
        })
        .await
    }

    /// Reads the course under its lock, where waiting for it holds up nobody.
    ///
    /// # Errors
    /// As [`Keeper::with`]; [`KeeperError::Panic`] when the reader panics.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Course) -> T + Send + 'static,
    ) -> Result<T, KeeperError> {
        self.blocking(move |keeper| keeper.with(read)).await
    }

    /// The job was closed: whatever comes after is refused, so that a keeper of the same job opened anew is alone.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Reads the course under its lock; may wait for a disk, so not on threads that many share.
    ///
    /// # Errors
    /// [`KeeperError::Closed`], or a store that still fails after it failed before.
    pub fn with<T>(&self, read: impl FnOnce(&Course) -> T) -> Result<T, KeeperError> {
        Ok(read(&self.sound()?.course))
    }

    /// Reports by outcome and reason since the job was opened.
    pub fn outcomes(&self) -> Vec<v1::OutcomeCount> {
        let count = |((outcome, reason), reports): (&(i32, i32), &u64)| v1::OutcomeCount {
            outcome: *outcome,
            reason: *reason,
            reports: *reports,
        };
        self.lock().outcomes.iter().map(count).collect()
    }
}
