//! A stream of batches as Python reads it.

use crate::{batch::Batch, error, wait::wait};
use futures_util::Stream as _;
use mixfeed_client::BatchStream;
use pyo3::prelude::*;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often, and after which pause, a reader that is being told is looked for again: twice a slice of its wait.
const CLOSE_TRIES: u32 = 50;
const CLOSE_PAUSE: Duration = Duration::from_millis(2);

/// Batches in order. One thread reads at a time; any thread may close.
#[pyclass(frozen, module = "mixfeed._mixfeed")]
#[derive(Debug)]
pub struct Stream {
    stream: Mutex<Option<BatchStream>>,
    closed: AtomicBool,
}

impl Stream {
    pub fn new(stream: BatchStream) -> Self {
        Stream { stream: Mutex::new(Some(stream)), closed: AtomicBool::new(false) }
    }

    fn take(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Option<BatchStream>>> {
        match self.stream.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(error::plain(py, "Argument", "the stream is being read by another thread".into()))
            }
        }
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(error::plain(
                py,
                "Closed",
                "the loader was closed while a batch was waited for".into(),
            ));
        }
        Ok(())
    }
}

#[pymethods]
impl Stream {
    /// The next batch, or None after the last one. `also`, called while it is waited for, may end the wait by raising:
    /// a batch that waits for a report that was refused would never come.
    #[pyo3(signature = (also = None))]
    fn next(&self, py: Python<'_>, also: Option<Bound<'_, PyAny>>) -> PyResult<Option<Batch>> {
        let mut guard = self.take(py)?;
        let Some(stream) = guard.as_mut() else {
            return Err(error::plain(py, "Closed", "the stream is closed".into()));
        };
        let next = poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
        let check = || {
            self.check(py)?;
            also.as_ref().map_or(Ok(()), |also| also.call0().map(drop))
        };
        let batch = wait(py, next, check);
        if batch.is_err() && self.closed.load(Ordering::Acquire) {
            *guard = None;
        }
        match batch? {
            None => Ok(None),
            Some(Ok(batch)) => Ok(Some(Batch::new(batch))),
            Some(Err(failed)) => Err(error::raise(py, &failed)),
        }
    }

    /// Steps served, rows dropped and rows padded, once the job has ended.
    fn end(&self, py: Python<'_>) -> PyResult<Option<(u64, u64, u64)>> {
        let end = self.take(py)?.as_ref().and_then(BatchStream::end);
        Ok(end.map(|end| (end.steps, end.dropped_rows, end.padded_rows)))
    }

    /// Batches, their bytes, seconds waited for them, and connections after the first.
    fn stats(&self, py: Python<'_>) -> PyResult<Option<(u64, u64, f64, u64)>> {
        let stats = self.take(py)?.as_ref().map(BatchStream::stats);
        Ok(stats.map(|stats| (stats.batches, stats.bytes, stats.waited.as_secs_f64(), stats.reconnects)))
    }

    /// Ends the stream. A thread that waits for a batch is told within a slice of its wait, and is waited for about as
    /// long: an interpreter that ends should find nobody in here.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Release);
        for _ in 0..CLOSE_TRIES {
            match self.stream.try_lock() {
                Ok(mut guard) => return *guard = None,
                Err(TryLockError::Poisoned(poisoned)) => return *PoisonError::into_inner(poisoned) = None,
                Err(TryLockError::WouldBlock) => py.detach(|| thread::sleep(CLOSE_PAUSE)),
            }
        }
        // It may be this very thread, in a signal handler; whoever reads drops the stream.
    }
}
