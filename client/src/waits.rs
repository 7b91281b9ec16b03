//! What a trainer waits for its batches, told to the server: it cannot see that itself.

use crate::{
    Batch, Error, StreamOptions,
    connection::{self, Line},
    mixture::learn,
    options::ClientOptions,
};
use mixfeed_proto as v1;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// Longest time for an answer: nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for the last one, after the stream has ended.
const LAST: Duration = Duration::from_secs(2);
/// Most seconds and steps that a server takes in one call.
const MAX_SECONDS: f64 = 1e7;
const MAX_STEPS: u64 = 1 << 32;

/// What the trainer does.
#[derive(Clone, Copy, Debug, Default)]
enum Doing {
    /// It has not asked for a batch yet, or will not ask for another one.
    #[default]
    Nothing,
    /// It waits for a batch, since then.
    Waiting(Instant),
    /// It does something else.
    Working(Instant),
}

/// Times so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    waited: Duration,
    worked: Duration,
    steps: u64,
    next_step: u64,
}

#[derive(Debug, Default)]
struct State {
    sums: Sums,
    doing: Doing,
}

impl State {
    /// Counts the time until `now`.
    fn count(&mut self, now: Instant) {
        match self.doing {
            Doing::Nothing => {}
            Doing::Waiting(since) => self.sums.waited += now.saturating_duration_since(since),
            Doing::Working(since) => self.sums.worked += now.saturating_duration_since(since),
        }
    }

    fn turn(&mut self, now: Instant, doing: Doing) {
        self.count(now);
        self.doing = doing;
    }

    /// Times until `now`, also of what goes on.
    fn sums(&mut self, now: Instant) -> Sums {
        let doing = match self.doing {
            Doing::Nothing => Doing::Nothing,
            Doing::Waiting(_) => Doing::Waiting(now),
            Doing::Working(_) => Doing::Working(now),
        };
        self.turn(now, doing);
        self.sums
    }
}

/// Measures a trainer; its halves are with the caller and with the thread that tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The caller has taken the end, or has left.
    over: Notify,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the caller has taken the end, or has left.
    async fn over(&self) {
        self.0.over.notified().await;
    }

    /// The stream begins at a step.
    pub(crate) fn begins(&self, step: u64) {
        self.lock().sums.next_step = step;
    }

    /// The caller asks for a batch, once until it has it.
    pub(crate) fn asks(&self, now: Instant) {
        self.lock().turn(now, Doing::Waiting(now));
    }

    /// It has what it asked for.
    pub(crate) fn has(&self, now: Instant, batch: Option<&Batch>) {
        let mut state = self.lock();
        match batch {
            Some(batch) => {
                state.turn(now, Doing::Working(now));
                state.sums.steps += 1;
                state.sums.next_step = batch.step().saturating_add(1);
            }
            // The end, or an error: whatever the trainer does from now on, it waits for nothing.
            None => {
                state.turn(now, Doing::Nothing);
                self.0.over.notify_one();
            }
        }
    }

    /// The caller is gone.
    pub(crate) fn left(&self, now: Instant) {
        self.lock().turn(now, Doing::Nothing);
        self.0.over.notify_one();
    }
}

/// Tells the server now and then. Whatever goes wrong is no matter of the stream's.
#[derive(Debug)]
pub(crate) struct Teller {
    meter: Meter,
    /// The connection of the stream: it leads to the server that serves it.
    line: Line,
    options: ClientOptions,
    job: String,
    stream: StreamOptions,
    /// What the server has answered.
    told: Sums,
    off: bool,
}

impl Teller {
    pub(crate) fn new(
        meter: Meter,
        line: Line,
        options: ClientOptions,
        job: String,
        stream: StreamOptions,
    ) -> Self {
        let off = options.tell_waits.is_zero();
        Teller { meter, line, options, job, stream, told: Sums::default(), off }
    }

    /// Tells for ever.
    pub(crate) async fn run(&mut self) {
        loop {
            if self.off {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.options.tell_waits).await;
            self.tell(PATIENCE).await;
        }
    }

    /// Tells while the caller takes what was received, and then the rest.
    pub(crate) async fn finish(&mut self) {
        let meter = self.meter.clone();
        tokio::select! {
            () = meter.over() => {}
            () = self.run() => {}
        }
        self.tell(LAST).await;
    }

    async fn tell(&mut self, patience: Duration) {
        let sums = self.meter.lock().sums(Instant::now());
        let Some(channel) = self.line.get().filter(|_| !self.off && sums != self.told) else { return };
        let more = |now: Duration, told: Duration| now.saturating_sub(told).as_secs_f64().min(MAX_SECONDS);
        let request = v1::ReportStatsRequest {
            job: self.job.clone(),
            rank: self.stream.rank,
            world_size: self.stream.world_size,
            replica: self.stream.replica,
            wait_seconds: more(sums.waited, self.told.waited),
            active_seconds: more(sums.worked, self.told.worked),
            steps: (sums.steps - self.told.steps).min(MAX_STEPS),
            next_step: sums.next_step,
        };
        let call = connection::unary::<v1::ReportStatsResponse>(
            channel,
            learn!("ReportStats"),
            &request,
            &self.options,
        );
        match timeout(patience, call).await {
            Ok(Ok(_)) => self.told = sums,
            Ok(Err(error)) => {
                tracing::debug!(%error, job = self.job, "waits were not taken");
                // An older server, or one that lets this client not: asking again would change nothing, unless the token
                // is replaced.
                let denied = matches!(error, Error::Denied { .. }) && self.options.token_changes();
                self.off = !error.is_transient() && !denied && !matches!(error, Error::NotFound { .. });
            }
            Err(_) => tracing::debug!(job = self.job, "waits were not answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_work_add_up_to_the_time_since_the_first_batch_was_asked_for() {
        let (meter, start) = (Meter::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        let seconds = |second: u64| {
            let sums = meter.lock().sums(at(second));
            (sums.waited.as_secs(), sums.worked.as_secs())
        };
        assert_eq!(seconds(5), (0, 0), "nothing is asked for yet");
        meter.asks(at(5));
        assert_eq!(seconds(7), (2, 0), "it still waits");
        assert_eq!(seconds(7), (2, 0), "and that is counted once");
        meter.lock().turn(at(8), Doing::Working(at(8)));
        assert_eq!(seconds(12), (3, 4));
        meter.asks(at(13));
        meter.has(at(14), None);
        assert_eq!(seconds(60), (4, 5), "after the end nothing counts");
    }
}
