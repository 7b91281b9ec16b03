//! What is counted per job. Of a job that is not open nothing is.

use super::series::{OTHER, all};
use super::{
    BATCHES, BYTES, CLIENT_ACTIVE, CLIENT_STEP, CLIENT_STEPS, CLIENT_WAIT, DROPPED, ENTRIES, GROUP_SAMPLES,
    GROUP_WEIGHT, HORIZON, LOSS, PADDED, REPLACED, REPORTS, SAMPLES, SHADOW_WEIGHT, STATUS, STREAM_SECONDS,
    THINNED, UNPAIRED, VERSION,
};

/// Groups of one job that get series of their own; counts and shares of the others are added up.
const MAX_GROUPS: usize = 64;
/// Ranks of one job that get series of their own; what the others say is added up.
const MAX_RANKS: u32 = 64;
/// States of a mixture.
const STATES: [&str; 5] = ["given", "serving", "waiting", "degraded", "ended"];
/// Why rows are dropped.
const LAST_BATCH: [(&str, &str); 1] = [("reason", "last_batch")];

/// A job is opened: from now on it has series. Before its mixture tells anything.
pub fn job_opened(job: &str) {
    let mut series = all();
    if !series.open(job) {
        return;
    }
    // What is there from the beginning can be seen to grow.
    for family in [BATCHES, SAMPLES, BYTES, REPLACED, PADDED] {
        series.add(family, job, &[], 0.0);
    }
    series.add(DROPPED, job, &LAST_BATCH, 0.0);
    for state in ["making", "barrier", "sending"] {
        series.add(STREAM_SECONDS, job, &[("state", state)], 0.0);
    }
}

/// A job was closed, or could not be opened: its series end.
pub fn job_closed(job: &str) {
    all().close(job);
}

/// A batch was handed to the connection.
pub fn delivered(job: &str, rows: u64, bytes: u64) {
    let mut series = all();
    series.add(BATCHES, job, &[], 1.0);
    series.add(SAMPLES, job, &[], rows as f64);
    series.add(BYTES, job, &[], bytes as f64);
}

/// Streams of a job waited in `state`.
pub fn stream_seconds(job: &str, state: &'static str, seconds: f64) {
    all().add(STREAM_SECONDS, job, &[("state", state)], seconds);
}

/// A rank's trainer told its seconds of waiting and of something else, the batches that it took, and the step that it takes
/// next.
pub fn client(job: &str, rank: u32, (wait, active): (f64, f64), steps: u64, next_step: u64) {
    let label = if rank < MAX_RANKS { rank.to_string() } else { OTHER.into() };
    let labels = [("rank", label.as_str())];
    let mut series = all();
    series.add(CLIENT_WAIT, job, &labels, wait);
    series.add(CLIENT_ACTIVE, job, &labels, active);
    series.add(CLIENT_STEPS, job, &labels, steps as f64);
    if rank < MAX_RANKS {
        series.set(CLIENT_STEP, job, &labels, next_step as f64);
    }
}

/// The groups that have series of their own, and those that have not together.
fn capped<'a>(groups: impl Iterator<Item = (&'a str, f64)>) -> Vec<(&'a str, f64)> {
    let mut out: Vec<(&str, f64)> = Vec::new();
    for (i, (group, value)) in groups.enumerate() {
        match out.get_mut(MAX_GROUPS) {
            Some((_, sum)) => *sum += value,
            None => out.push((if i < MAX_GROUPS { group } else { OTHER }, value)),
        }
    }
    out
}

/// Rows of a job's groups were assembled.
pub fn group_rows<'a>(job: &str, rows: impl Iterator<Item = (&'a str, u64)>) {
    let mut series = all();
    for (group, rows) in capped(rows.map(|(group, rows)| (group, rows as f64))) {
        if rows > 0.0 {
            series.add(GROUP_SAMPLES, job, &[("group", group)], rows);
        }
    }
}

/// Shares of a job's groups, out of 2^32.
pub fn weights<'a>(job: &str, shares: impl Iterator<Item = (&'a str, u64)>) {
    let mut series = all();
    for (group, share) in capped(shares.map(|(group, share)| (group, share as f64))) {
        series.set(GROUP_WEIGHT, job, &[("group", group)], share / (1u64 << 32) as f64);
    }
}

/// What a shadow estimator would ask for.
pub fn shadow<'a>(job: &str, estimator: &str, shares: impl Iterator<Item = (&'a str, f64)>) {
    let mut series = all();
    for (group, share) in capped(shares) {
        series.set(SHADOW_WEIGHT, job, &[("estimator", estimator), ("group", group)], share);
    }
}

/// Held-out losses as they were last reported; NaN for none. Losses cannot be added up: the first 64 are told.
pub fn losses<'a>(job: &str, losses: impl Iterator<Item = (&'a str, f64)>) {
    let mut series = all();
    losses.take(MAX_GROUPS).for_each(|(group, loss)| series.set(LOSS, job, &[("group", group)], loss));
}

/// A report was answered; `outcome` and `reason` come from the contract.
pub fn report(job: &str, outcome: &'static str, reason: &'static str) {
    let outcome = outcome.trim_start_matches("REPORT_OUTCOME_").to_ascii_lowercase();
    let reason = reason.trim_start_matches("REPORT_REASON_").to_ascii_lowercase();
    all().add(REPORTS, job, &[("outcome", &outcome), ("reason", &reason)], 1.0);
}

/// An entry was appended to a job's log by `author` ("spec", "estimator:aioli", "operator:eve").
pub fn entry(job: &str, author: &str) {
    let author = author.split(':').next().unwrap_or(author);
    all().add(ENTRIES, job, &[("author", author)], 1.0);
}

/// A job's mixture as it stands: entries of its log, first step that nobody has begun, state.
pub fn mixture(job: &str, version: u64, horizon: u64, status: &'static str) {
    let mut series = all();
    series.set(VERSION, job, &[], version as f64);
    series.set(HORIZON, job, &[], horizon as f64);
    for state in STATES {
        series.set(STATUS, job, &[("status", state)], f64::from(state == status));
    }
}

/// Bad records of training were replaced.
pub fn replaced(job: &str, rows: u64) {
    if rows > 0 {
        all().add(REPLACED, job, &[], rows as f64);
    }
}

/// Rows were copied because no partner was found.
pub fn unpaired(job: &str, rows: u64) {
    all().add(UNPAIRED, job, &[], rows as f64);
}

/// Points were left out to keep steps within their budget.
pub fn thinned(job: &str, points: u64) {
    all().add(THINNED, job, &[], points as f64);
}

/// A job ended with rows left over or repeated.
pub fn leftovers(job: &str, dropped: u64, padded: u64) {
    let mut series = all();
    series.add(DROPPED, job, &LAST_BATCH, dropped as f64);
    series.add(PADDED, job, &[], padded as f64);
}
