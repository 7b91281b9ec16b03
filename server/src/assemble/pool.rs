//! How busy the threads are that read and make blocks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its threads.
    pub threads: usize,
    /// Threads at work; of the CPU pool, blocks that are being made, at most its threads.
    pub busy: usize,
    /// What waits for a thread: blocks; of the readers, runs of records.
    pub waiting: usize,
}

/// Tasks that wait and tasks that are being done.
#[derive(Debug, Default)]
pub(super) struct Work {
    waiting: AtomicUsize,
    /// Given to a pool and not done: they stand in its line or are in the making.
    queued: AtomicUsize,
    busy: AtomicUsize,
}

/// A task that waits until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Work>);

/// A task that is in a pool's line, or in the making, until this is dropped.
#[derive(Debug)]
pub(super) struct Queued(Arc<Work>);

/// A task that is being done until this is dropped.
#[derive(Debug)]
pub(super) struct Busy(Arc<Work>);

impl Work {
    /// Counts a task that waits.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(self.clone())
    }

    /// Counts a task that is given to a pool.
    pub fn queue(self: &Arc<Self>) -> Queued {
        self.queued.fetch_add(1, Relaxed);
        Queued(self.clone())
    }

    /// Tasks that were given to a pool and are not done.
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// As it stands, with so many threads.
    pub fn pool(&self, threads: usize) -> Pool {
        // A thread that waits for its rows may begin another block meanwhile.
        let busy = self.busy.load(Relaxed).min(threads);
        Pool { threads, busy, waiting: self.waiting.load(Relaxed) }
    }
}

impl Waiting {
    /// A thread has taken it.
    pub fn begin(self) -> Busy {
        self.0.busy.fetch_add(1, Relaxed);
        Busy(self.0.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// Threads of the blocking pool that may read at a time.
#[derive(Clone, Debug)]
pub(super) struct Readers {
    threads: usize,
    free: Arc<Semaphore>,
    work: Arc<Work>,
}

impl Readers {
    pub fn new(threads: usize) -> Readers {
        Readers { threads, free: Arc::new(Semaphore::new(threads)), work: Arc::default() }
    }

    /// Waits for a reader.
    pub async fn take(&self) -> (OwnedSemaphorePermit, Busy) {
        let waiting = self.work.wait();
        let permit = self.free.clone().acquire_owned().await.expect("never closed");
        (permit, waiting.begin())
    }

    /// As they stand.
    pub fn pool(&self) -> Pool {
        self.work.pool(self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn what_waits_and_what_is_done_is_counted_until_it_is_dropped() {
        let readers = Readers::new(2);
        let (first, second) = (readers.take().await, readers.take().await);
        assert_eq!(readers.pool(), Pool { threads: 2, busy: 2, waiting: 0 });
        let mut third = Box::pin(readers.take());
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(readers.pool(), Pool { threads: 2, busy: 2, waiting: 1 });
        drop(first);
        let third = third.await;
        assert_eq!(readers.pool(), Pool { threads: 2, busy: 2, waiting: 0 });
        // A block whose stream ends while it waits.
        let mut gone = Box::pin(readers.take());
        assert!(gone.as_mut().now_or_never().is_none());
        drop((gone, second, third));
        assert_eq!(readers.pool(), Pool { threads: 2, busy: 0, waiting: 0 });
    }

    #[test]
    fn a_thread_counts_once() {
        let work = Arc::new(Work::default());
        let _nested = [work.wait().begin(), work.wait().begin(), work.wait().begin()];
        assert_eq!(work.pool(2), Pool { threads: 2, busy: 2, waiting: 0 });
        let queued = work.queue();
        assert_eq!(work.queued(), 1);
        drop(queued);
        assert_eq!(work.queued(), 0);
    }
}
