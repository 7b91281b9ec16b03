//! What is counted by looking at it once a second.

use super::Shared;
use crate::assemble::Pool;
use crate::metrics;
use mixfeed_proto::MixtureStatus;
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch, time::MissedTickBehavior};

/// How often. A stream that stands still for minutes waits in every second of them: rates are true while it does.
const EVERY: Duration = Duration::from_secs(1);
/// Jobs that are looked at in one go.
const JOBS_PAGE: usize = 100;

/// Looks until `over` turns true, and then once more.
pub async fn sample(shared: Arc<Shared>, mut over: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            _ = over.wait_for(|over| *over) => true,
        };
        look(&shared);
        if last {
            return;
        }
    }
}

fn look(shared: &Shared) {
    for (job, wait, seconds) in shared.live.take_seconds() {
        metrics::stream_seconds(&job, wait.name(), seconds);
    }
    for (pool, Pool { threads, busy, waiting }) in shared.assembler.pools() {
        metrics::pool(pool, threads, busy, waiting);
    }
    let runtime = Handle::current().metrics();
    metrics::runtime(runtime.num_alive_tasks(), runtime.global_queue_depth());
    let mut after = String::new();
    loop {
        let jobs = shared.jobs.list(&after, JOBS_PAGE);
        let Some(last) = jobs.last() else { return };
        after.clone_from(&last.name);
        for job in &jobs {
            let (keeper, steps) = (&job.keeper, job.feed.order.steps());
            let ended = steps.is_some_and(|steps| keeper.horizon() >= steps);
            let status = if ended { "ended" } else { name(keeper.status()) };
            metrics::mixture(&job.name, keeper.view().version, keeper.horizon(), status);
        }
    }
}

/// As metrics name it.
fn name(status: MixtureStatus) -> &'static str {
    match status {
        MixtureStatus::Given | MixtureStatus::Unspecified => "given",
        MixtureStatus::Serving => "serving",
        MixtureStatus::Waiting => "waiting",
        MixtureStatus::Degraded => "degraded",
    }
}
