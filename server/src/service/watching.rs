//! WatchMixture: entries of a log, old ones first, then as they are appended.

use super::status;
use crate::auth::StreamHold;
use crate::job::Job;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use mixfeed_proto as v1;
use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// Entries read from the log at a time.
const PAGE: usize = 100;
/// Time that a watcher of a closed job has to take the last entries.
const LAST_ENTRIES: Duration = Duration::from_secs(30);

type Entries = Pin<Box<dyn Stream<Item = Result<v1::WatchMixtureResponse, Status>> + Send>>;

/// Where a watcher is.
struct Watcher {
    job: Arc<Job>,
    changes: watch::Receiver<Arc<crate::keeper::View>>,
    closed: watch::Receiver<bool>,
    next: usize,
    page: VecDeque<v1::MixtureEntry>,
    _hold: StreamHold,
}

/// Entries from `from_seq` (1 is the first) on, until the job is closed, the server stops, or `revoked` says that the
/// watcher may no longer watch; `hold` counts against its token as long. A task of its own looks for these ends: nobody
/// asks for the next entry of a watcher that does not read.
pub fn entries(
    job: Arc<Job>,
    from_seq: u64,
    draining: watch::Receiver<bool>,
    revoked: impl Future<Output = Status> + Send + 'static,
    hold: StreamHold,
) -> Entries {
    let (changes, closed) = (job.keeper.watch(), job.closed.subscribe());
    let next = usize::try_from(from_seq.max(1) - 1).unwrap_or(usize::MAX);
    let ends = ends(job.name.clone(), closed.clone(), draining, revoked).boxed();
    let watcher = Watcher { job, changes, closed, next, page: VecDeque::new(), _hold: hold };
    let (send, receive) = mpsc::channel(1);
    let task = tokio::spawn(watcher.run(ends, send));
    stream::unfold(Some((receive, task)), |watched| async move {
        let (mut receive, task) = watched?;
        if let Some(entry) = receive.recv().await {
            return Some((Ok(v1::WatchMixtureResponse { entry: Some(entry) }), Some((receive, task))));
        }
        let end = task.await.unwrap_or_else(|lost| Status::internal(lost.to_string()));
        Some((Err(end), None))
    })
    .boxed()
}

/// Waits until nothing more may be said, and says why.
async fn ends(
    job: String,
    mut closed: watch::Receiver<bool>,
    mut draining: watch::Receiver<bool>,
    revoked: impl Future<Output = Status> + Send + 'static,
) -> Status {
    let shut = async {
        drop(closed.wait_for(|closed| *closed).await);
        tokio::time::sleep(LAST_ENTRIES).await;
    };
    tokio::select! {
        status = revoked => status,
        _ = draining.wait_for(|stop| *stop) => status::draining(),
        () = shut => was_closed(&job),
    }
}

fn was_closed(job: &str) -> Status {
    Status::aborted(format!("job `{job}` was closed"))
}

impl Watcher {
    /// Sends entries for as long as somebody takes them and nothing `ends` it.
    async fn run(
        mut self,
        mut ends: BoxFuture<'static, Status>,
        entries: mpsc::Sender<v1::MixtureEntry>,
    ) -> Status {
        loop {
            let sent = async {
                let entry = self.entry().await?;
                entries.send(entry).await.map_err(|_| Status::cancelled("nobody watches"))
            };
            let over = tokio::select! {
                biased;
                status = &mut ends => Err(status),
                () = entries.closed() => Err(Status::cancelled("nobody watches")),
                sent = sent => sent,
            };
            if let Err(status) = over {
                return status;
            }
        }
    }

    async fn entry(&mut self) -> Result<v1::MixtureEntry, Status> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                self.next += 1;
                return Ok(entry);
            }
            let next = self.next;
            self.changes.mark_unchanged();
            let page = move |course: &crate::keeper::Course| {
                let all = course.entries();
                all.get(next..).unwrap_or_default().iter().take(PAGE).cloned().collect()
            };
            self.page = self.job.keeper.read(page).await.map_err(|e| status::of_keeper(&e))?;
            if !self.page.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.closed.wait_for(|closed| *closed) => return Err(was_closed(&self.job.name)),
                changed = self.changes.changed() => changed.map_err(|_| status::draining())?,
            }
        }
    }
}
