//! The thread on which a loader's control calls and reports run. A runtime per loader and not one per process: it ends
//! with its loader, and a forked child has nothing of it to trip over.

use crate::{error, life::Life, wait::wait};
use mixfeed_client::Error;
use pyo3::prelude::*;
use std::{future::Future, pin::Pin, thread};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

/// Calls that may be under way to the thread; each is one blocked caller.
const CALLS: usize = 64;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Hands futures to the thread, which ends when every clone is gone and they are done.
#[derive(Clone, Debug)]
pub struct Control {
    tasks: mpsc::Sender<Task>,
    life: Life,
}

impl Control {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the operating system says when it has no thread or no socket to give.
    pub fn start(life: Life) -> std::io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (tasks, mut queue) = mpsc::channel::<Task>(CALLS);
        let body = move || {
            runtime.block_on(async {
                let mut running = tokio::task::JoinSet::new();
                loop {
                    tokio::select! {
                        task = queue.recv() => match task {
                            Some(task) => drop(running.spawn(task)),
                            None => break,
                        },
                        Some(_) = running.join_next() => {}
                    }
                }
                while running.join_next().await.is_some() {}
            });
        };
        thread::Builder::new().name("mixfeed-control".into()).spawn(body)?;
        Ok(Control { tasks, life })
    }

    /// Runs a future on the thread without waiting for it. `false`: the thread is busy with too many.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> bool {
        self.tasks.try_send(Box::pin(future)).is_ok()
    }

    /// Runs a future on the thread and waits for it. A signal that ends the wait ends the future too, and so does the
    /// loader's end.
    ///
    /// # Errors
    /// The call's, as exceptions; what a signal handler raised; `Closed`.
    pub fn call<T: Send + 'static>(
        &self,
        py: Python<'_>,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> PyResult<T> {
        let (mut sender, receiver) = oneshot::channel();
        let task = async move {
            let done = tokio::select! {
                done = future => Some(done),
                () = sender.closed() => None,
            };
            if let Some(done) = done {
                // The caller may have left meanwhile.
                drop(sender.send(done));
            }
        };
        if !self.spawn(task) {
            let message = format!("more than {CALLS} calls of one loader at a time");
            return Err(error::plain(py, "Exhausted", message));
        }
        match wait(py, receiver, || self.life.check(py))? {
            Ok(done) => done.map_err(|failed| error::raise(py, &failed)),
            Err(_) => Err(error::plain(py, "Closed", "the loader's thread has ended".into())),
        }
    }
}
