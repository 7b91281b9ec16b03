//! Objects in stores that speak S3 or HTTP, read by ranges.
//!
//! An object is pinned when it is found: its size and its ETag, or the time of its last change. Every read asks for that
//! state only, and what is answered is compared with it. Requests run on threads of their own, so that a store that is
//! slow or away holds none of the threads that read files.

mod address;
mod ahead;
mod cache;
mod client;
mod credentials;
mod fault;
#[cfg(test)]
mod faulty;
mod find;
mod object;
mod read;
mod retry;
mod store;
#[cfg(test)]
mod tests;

pub(super) use address::is_url;
pub(super) use ahead::Ahead;
#[cfg(test)]
pub(super) use faulty::Faulty;
pub(super) use find::{list, misfit};
pub(super) use object::Object;
pub(super) use read::{Span, fetch, hash, one};
pub use store::{Credentials, Store};

use super::{SourceError, declare::Rules};
use cache::Cache;
use client::Wire;
use retry::Patience;
use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock, mpsc},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinHandle,
};

/// Threads that move bytes of objects.
const THREADS: usize = 2;
/// Answers that are being received by one source, in KiB; a larger one is received alone.
const RECEIVED_KIB: u32 = 64 << 10;

/// What all objects of a source share.
#[derive(Debug)]
pub(super) struct Remote {
    source: String,
    wire: Wire,
    patience: Patience,
    timeout: Duration,
    requests: Semaphore,
    received: Semaphore,
    cache: Option<Arc<Cache>>,
}

impl Remote {
    fn new(rules: &Rules<'_>, s3: bool) -> Result<Arc<Remote>, SourceError> {
        let store = rules.declared.store.clone().unwrap_or_default();
        let host = store.endpoint.as_deref().unwrap_or(&rules.declared.path);
        let wire = Wire::new(&store, &rules.path(""), s3, host).map_err(|why| rules.misfit(why))?;
        let cache = store.cache.map(|limit| {
            let shown = store.cache_dir.as_deref().unwrap_or("mixfeed-cache/records");
            Cache::open(&rules.path(shown), limit.0 as u64)
                .map_err(|why| rules.misfit(format!("store.cache_dir `{shown}` {why}")))
        });
        Ok(Arc::new(Remote {
            source: rules.name.into(),
            wire,
            patience: Patience::new(&store),
            timeout: store.timeout(),
            requests: Semaphore::new(store.requests()),
            received: Semaphore::new(RECEIVED_KIB as usize),
            cache: cache.transpose()?,
        }))
    }
}

/// The threads, started when the first source needs them; they end with the process.
fn runtime() -> Result<&'static Runtime, SourceError> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("mixfeed-objects").enable_all().build()
    });
    made.as_ref().map_err(|error| SourceError::io("threads", io::Error::new(error.kind(), error.to_string())))
}

/// Runs `work` on the threads of this room and blocks until it is done. Must not be called from there.
pub(super) fn wait<T: Send + 'static>(
    work: impl Future<Output = Result<T, SourceError>> + Send + 'static,
) -> Result<T, SourceError> {
    // A plain channel: waiting on it is allowed on any thread.
    let (tell, hear) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        let _ = tell.send(work.await); // the other end waits
    });
    hear.recv().unwrap_or_else(|_| Err(lost()))
}

/// A defect of ours, in place of an answer.
fn lost() -> SourceError {
    SourceError::io("object", io::Error::other("its reader failed"))
}

/// Runs `work` on the threads of this room; dropping what is returned stops it.
pub(super) fn started<T: Send + 'static>(
    work: impl Future<Output = Result<T, SourceError>> + Send + 'static,
) -> impl Future<Output = Result<T, SourceError>> + Send {
    let task = runtime().map(|runtime| Task(runtime.spawn(work)));
    async move { task?.await }
}

struct Task<T>(JoinHandle<Result<T, SourceError>>);

impl<T> Future for Task<T> {
    type Output = Result<T, SourceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|done| done.unwrap_or_else(|_| Err(lost())))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
