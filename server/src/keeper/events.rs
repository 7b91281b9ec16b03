//! Events applied to a course, the same for a live one and a replayed one.

use super::check::Answer;
use super::course::Course;
use super::error::KeeperError;
use super::record::{AttemptEvent, Event, Record, WeightsEvent};
use super::rules::Rules;
use super::turn::Attempt;
use crate::mixture::Weights;
use crate::{metrics, store};
use mixfeed_proto::{self as v1, ReportOutcome};
use prost::Message;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Records read from the store at a time.
const PAGE: usize = 1_000;

/// What an event led to.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// To a report.
    pub answer: Option<Answer>,
    /// That was opened.
    pub attempt: Option<Attempt>,
    /// Whether there are new entries.
    pub planned: bool,
    /// Whether weights wait for the end of a probe block.
    pub pending: bool,
}

impl Done {
    /// Whether there is anything to keep: plans that planned nothing and reports that were refused leave no trace.
    pub fn changed(&self, event: &Event, entries: &[v1::MixtureEntry]) -> bool {
        match event {
            Event::Plan(_) => !entries.is_empty(),
            Event::Report(_) => self.answer.as_ref().is_some_and(|a| a.outcome == ReportOutcome::Accepted),
            Event::Late(_) | Event::Attempt(_) | Event::Weights(_) => true,
        }
    }
}

/// Applies an event to a course; the same for a live one and a replayed one.
pub(super) fn apply(course: &mut Course, event: Event) -> Result<Done, KeeperError> {
    let mut done = Done::default();
    match event {
        Event::Plan(step) => course.plan(step)?,
        Event::Report(report) => done.answer = Some(course.report(report)?),
        Event::Late(barrier) => course.late(barrier)?,
        Event::Attempt(AttemptEvent { completed, resume, horizon, branch }) => {
            let resume = v1::ResumeAttempt::try_from(resume).unwrap_or_default();
            done.attempt = Some(course.open_attempt(completed, branch, resume, horizon)?);
        }
        Event::Weights(WeightsEvent { weights, step, author, note }) => {
            let weights = Weights::exact(weights).expect("checked before it became an event");
            done.pending = course.set_weights(weights, step, &author, &note)?;
        }
    }
    Ok(done)
}

/// Applies a recorded event, which may be of another build or damaged: whatever it does, it only ends in a reason.
fn again(course: &mut Course, event: Event) -> Result<(), String> {
    if let Event::Weights(WeightsEvent { weights, .. }) = &event {
        let groups = course.rules().groups.len();
        Weights::exact(weights.clone()).map_err(|e| e.to_string())?;
        if weights.len() != groups {
            return Err(format!("it has {} weights for {groups} groups", weights.len()));
        }
    }
    match catch_unwind(AssertUnwindSafe(|| apply(course, event))) {
        Ok(applied) => applied.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err("it cannot be applied".into()),
    }
}

/// Applies the store's records to a fresh course; each must lead to the entries that are recorded with it.
pub(super) fn replay(
    job: &str,
    key: &str,
    course: &mut Course,
    store: &store::Shared,
    records: u64,
) -> Result<(), KeeperError> {
    let mut at = 0;
    let mut known = 0;
    while at < records {
        let page = store.read(key, at, PAGE)?;
        if page.is_empty() {
            break;
        }
        for bytes in page {
            let foreign = |why: String| KeeperError::Foreign { job: job.into(), record: at, why };
            let record = Record::decode(&bytes[..]).map_err(|e| foreign(e.to_string()))?;
            if let Some(event) = record.event {
                again(course, event).map_err(foreign)?;
            }
            let entries = course.entries().get(known..).unwrap_or_default();
            // By their bytes: a loss that nobody told is NaN, which equals nothing.
            let bytes = |entries: &[v1::MixtureEntry]| {
                entries.iter().flat_map(Message::encode_to_vec).collect::<Vec<u8>>()
            };
            if entries.len() != record.entries.len() || bytes(entries) != bytes(&record.entries) {
                return Err(foreign(format!(
                    "it has {} entries, this build makes {}",
                    record.entries.len(),
                    entries.len()
                )));
            }
            known += entries.len();
            at += 1;
        }
    }
    Ok(())
}

/// Metrics of new entries.
pub(super) fn tell(job: &str, rules: &Rules, entries: &[v1::MixtureEntry]) {
    let names = || rules.groups.iter().map(String::as_str);
    for entry in entries {
        metrics::entry(job, &entry.author);
        metrics::weights(job, names().zip(entry.weights.iter().copied()));
        metrics::losses(job, rules.tasks.iter().map(String::as_str).zip(entry.losses.iter().copied()));
        for shadow in &entry.shadows {
            metrics::shadow(job, &shadow.estimator, names().zip(shadow.shares.iter().copied()));
        }
    }
}
