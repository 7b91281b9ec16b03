//! ReportStats: what trainers say of their waits.

use super::streams::{MAX_STEP, check_rank};
use super::{Shared, status};
use crate::live::Reported;
use crate::metrics;
use mixfeed_proto as v1;
use tonic::Status;

/// Most seconds of one call: a trainer that found no server for months.
const MAX_SECONDS: f64 = 1e7;
/// Most steps of one call.
const MAX_STEPS: u64 = 1 << 32;

/// Checks and counts what a trainer says.
pub fn take(shared: &Shared, said: &v1::ReportStatsRequest) -> Result<v1::ReportStatsResponse, Status> {
    let job = shared.jobs.get(&said.job).map_err(|e| status::of_job(&e))?;
    check_rank(&job.feed, said.rank, said.world_size)?;
    for (field, value) in [("wait_seconds", said.wait_seconds), ("active_seconds", said.active_seconds)] {
        // A NaN is in no range.
        if !(0.0..=MAX_SECONDS).contains(&value) {
            return Err(status::invalid_field(field, format!("is {value}, want 0 to {MAX_SECONDS}")));
        }
    }
    for (field, value, most) in [("steps", said.steps, MAX_STEPS), ("next_step", said.next_step, MAX_STEP)] {
        if value > most {
            return Err(status::invalid_field(field, format!("is {value}, want at most {most}")));
        }
    }
    let v1::ReportStatsRequest { wait_seconds, active_seconds, steps, .. } = *said;
    shared.live.report(&job.name, said.rank, Reported { wait_seconds, active_seconds, steps });
    metrics::client(&job.name, said.rank, (wait_seconds, active_seconds), steps, said.next_step);
    tracing::debug!(
        job = job.name,
        rank = said.rank,
        replica = said.replica,
        wait_seconds,
        active_seconds,
        steps,
        "trainer waited"
    );
    Ok(v1::ReportStatsResponse {})
}
