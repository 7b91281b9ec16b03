//! WatchMixture: entries of a log, old ones first, then as they are appended.

use super::status;
use crate::auth::StreamHold;
use crate::job::Job;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use mixfeed_proto as v1;
use std::{collections::VecDeque, pin::Pin, sync::Arc};
use tokio::sync::watch;
use tonic::Status;

/// Entries read from the log at a time.
const PAGE: usize = 100;

type Entries = Pin<Box<dyn Stream<Item = Result<v1::WatchMixtureResponse, Status>> + Send>>;

/// Where a watcher is.
struct Watcher {
    job: Arc<Job>,
    changes: watch::Receiver<Arc<crate::keeper::View>>,
    closed: watch::Receiver<bool>,
    draining: watch::Receiver<bool>,
    revoked: BoxFuture<'static, Status>,
    next: usize,
    page: VecDeque<v1::MixtureEntry>,
    _hold: StreamHold,
}

/// Entries from `from_seq` (1 is the first) on, until the job is closed, the server stops, or `revoked` says that the
/// watcher may no longer watch; `hold` counts against its token as long.
pub fn entries(
    job: Arc<Job>,
    from_seq: u64,
    draining: watch::Receiver<bool>,
    revoked: impl Future<Output = Status> + Send + 'static,
    hold: StreamHold,
) -> Entries {
    let (changes, closed) = (job.keeper.watch(), job.closed.subscribe());
    let next = usize::try_from(from_seq.max(1) - 1).unwrap_or(usize::MAX);
    let (revoked, page) = (revoked.boxed(), VecDeque::new());
    let watcher = Watcher { job, changes, closed, draining, revoked, next, page, _hold: hold };
    stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.entry().await {
            Ok(entry) => Some((Ok(v1::WatchMixtureResponse { entry: Some(entry) }), Some(watcher))),
            Err(status) => Some((Err(status), None)),
        }
    })
    .boxed()
}

impl Watcher {
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
                _ = self.closed.wait_for(|closed| *closed) => {
                    return Err(Status::aborted(format!("job `{}` was closed", self.job.name)));
                }
                status = &mut self.revoked => return Err(status),
                _ = self.draining.wait_for(|stop| *stop) => return Err(status::draining()),
                changed = self.changes.changed() => changed.map_err(|_| status::draining())?,
            }
        }
    }
}
