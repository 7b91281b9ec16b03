//! Waiting from Python: the interpreter is let go of, and Ctrl-C ends it.

use pyo3::prelude::*;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

/// How long a signal may go unnoticed. Shorter costs wake-ups of an idle trainer, longer is felt after Ctrl-C.
const SLICE: Duration = Duration::from_millis(50);

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future whose work is done elsewhere. It is polled with the interpreter held, so polling must be cheap.
///
/// # Errors
/// What a signal handler raised, and what `check`, asked before every slice, gives.
pub fn wait<F: Future + Unpin>(
    py: Python<'_>,
    mut future: F,
    mut check: impl FnMut() -> PyResult<()>,
) -> PyResult<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut context) {
            return Ok(output);
        }
        check()?;
        py.detach(|| thread::park_timeout(SLICE));
        py.check_signals()?;
    }
}
