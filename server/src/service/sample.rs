//! What is counted by looking at it once a second.

use super::Shared;
use crate::metrics;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::MissedTickBehavior};

/// How often. A stream that stands still for minutes waits in every second of them: rates are true while it does.
const EVERY: Duration = Duration::from_secs(1);

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
}
