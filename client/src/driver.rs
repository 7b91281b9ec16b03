//! The closed loop around a trainer: batches in, reports out, exactly when they are due.
//!
//! ```no_run
//! # async fn learn<T: mixfeed_client::driver::Trainer>(trainer: T) -> Result<(), mixfeed_client::driver::DriveError> {
//! use mixfeed_client::{Client, driver::{Driver, DriverOptions}};
//!
//! let client = Client::connect(["http://127.0.0.1:7443"]).await?;
//! let mut driver = Driver::open(client, "lm", trainer, DriverOptions::default()).await?;
//! while driver.run(100).await?.end.is_none() {
//!     let position = driver.cursor(); // into the trainer's checkpoint; DriverOptions::start goes on from it
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The trainer's methods run on tokio's blocking threads (`spawn_blocking`), so that a synchronous trainer holds up
//! neither the runtime nor the connections; the driver therefore owns it while it runs. Reports go out after the update
//! that they are about, before the next batch is asked for: a barrier of the server is kept by itself.

mod error;
mod evals;
mod ledger;
mod measure;
mod options;
mod trainer;

pub use error::DriveError;
pub use ledger::Ledger;
pub use options::{DriverOptions, DriverStats, Progress};
pub use trainer::{
    Dots, EvalTask, GradientStats, Influence, LossSum, Moment, Sketch, StepReport, Trainer, TrainerError,
};

use crate::{
    Batch, BatchStream, Client, Cursor, Error, Outcome, Start, StreamOptions,
    client::other_digest,
    learn::{OpenAttemptResponse, ReportKind, ReportReason, ReportRequest},
    spec::JobInfo,
};
use evals::{Evals, Reading};
use std::{collections::VecDeque, fmt, panic, sync::Arc};
use tokio::{sync::oneshot, task::JoinHandle};

/// Where the trainer is.
enum Slot<T> {
    Here(T),
    /// At work for a run that waits for it, or was dropped.
    Busy(JoinHandle<T>),
}

/// What comes next in a step.
#[derive(Clone, Debug)]
enum Phase {
    Between,
    Before(Arc<Batch>),
    Train(Arc<Batch>),
    After(Arc<Batch>),
}

/// See the module.
pub struct Driver<T> {
    client: Client,
    job: JobInfo,
    options: DriverOptions,
    attempt: OpenAttemptResponse,
    groups: Arc<Vec<String>>,
    slot: Option<Slot<T>>,
    stream: BatchStream,
    evals: Evals,
    ledger: Ledger,
    phase: Phase,
    /// Reports that were measured and not answered yet.
    outbox: VecDeque<ReportRequest>,
    completed: u64,
    cursor: Option<Cursor>,
    reports: bool,
    evaluate_first: bool,
    /// Step at which the attempt's first losses were told.
    evaluated: Option<u64>,
    failed: bool,
    stats: DriverStats,
}

// Not derived: a trainer need not be `Debug`.
impl<T> fmt::Debug for Driver<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Driver")
            .field("job", &self.job.job)
            .field("attempt", &self.attempt)
            .field("completed", &self.completed)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl<T: Trainer> Driver<T> {
    /// Opens an attempt at the trainer's position, then its stream. `job` must be open.
    ///
    /// # Errors
    /// [`DriveError::Client`]: what attaching, opening the attempt or the stream fails with, among them
    /// [`Error::FailedPrecondition`] when `resume` must say what becomes of what was learnt later.
    pub async fn open(
        client: Client,
        job: &str,
        trainer: T,
        options: DriverOptions,
    ) -> Result<Self, DriveError> {
        let info = client.attach(job).await?;
        if let Some(cursor) = options.start.as_ref().filter(|cursor| cursor.0.digest != info.digest) {
            return Err(other_digest(job, &cursor.0.digest, &info.digest).into());
        }
        let completed = options.start.as_ref().map_or(0, Cursor::next_step);
        let branch = options.start.as_ref().map_or(0, |cursor| cursor.0.branch);
        // Before the stream: data asked for earlier would be those of the branch that is struck.
        let attempt = match options.attempt {
            Some(attempt) => attempt,
            None => client.open_attempt(job, completed, branch, options.resume).await?,
        };
        let DriverOptions { rank, world_size, replica, .. } = options;
        let start = Start::Step(completed);
        let stream = StreamOptions { rank, world_size, replica, start, ..Default::default() };
        let stream = client.stream(job, stream).await?;
        let spec = info.spec.clone().unwrap_or_default();
        let reporters = spec.mixture.as_ref().map_or(1, |mixture| mixture.reporters.max(1));
        let reading = Reading {
            batch: if options.eval_batch == 0 { spec.global_batch } else { options.eval_batch },
            rank: options.eval_rank,
            world_size: options.eval_world_size,
            memory: options.eval_memory,
        };
        Ok(Driver {
            client,
            attempt,
            groups: Arc::new(info.groups.iter().map(|group| group.name.clone()).collect()),
            slot: Some(Slot::Here(trainer)),
            stream,
            evals: Evals::new(&info, reading),
            ledger: Ledger::new(job, attempt.attempt, rank, info.groups.len()),
            phase: Phase::Between,
            outbox: VecDeque::new(),
            completed,
            cursor: options.start.clone(),
            reports: replica == 0 && rank < reporters,
            evaluate_first: attempt.evaluate_first,
            evaluated: None,
            failed: false,
            stats: DriverStats::default(),
            job: info,
            options,
        })
    }

    /// Takes at most `steps` steps, each with the reports that are due around it. An error of the client that may pass
    /// leaves everything in place: another run goes on where this one was. So does dropping the future, except while
    /// the trainer works.
    ///
    /// # Errors
    /// [`DriveError`]; after [`DriveError::Trainer`] in a training step, and after [`DriveError::Fenced`], every
    /// further run is [`DriveError::Interrupted`].
    pub async fn run(&mut self, steps: u64) -> Result<Progress, DriveError> {
        if self.failed || !matches!(self.slot, Some(Slot::Here(_))) {
            return Err(DriveError::Interrupted);
        }
        let until = self.completed.saturating_add(steps);
        loop {
            self.flush().await?;
            match self.phase.clone() {
                Phase::Between if self.completed >= until => break,
                Phase::Between if self.evaluate_first => {
                    // Before any batch is asked for: at a barrier none comes until this was told.
                    self.ledger.enter(self.attempt.segment, self.attempt.mixture_id, self.completed);
                    self.first_losses().await?;
                    self.evaluate_first = false;
                    self.evaluated = Some(self.completed);
                }
                Phase::Between => match self.next_batch().await? {
                    None => break,
                    Some(batch) => {
                        self.ledger.enter(batch.segment(), batch.mixture_id(), batch.step());
                        self.phase = Phase::Before(Arc::new(batch));
                    }
                },
                Phase::Before(batch) => {
                    let mut due = batch.due_before().to_vec();
                    if self.evaluated == Some(batch.step()) {
                        due.retain(|kind| *kind != ReportKind::Eval);
                    }
                    self.measure(&batch, &due).await?;
                    self.phase = Phase::Train(batch);
                }
                Phase::Train(batch) => {
                    self.train(&batch).await?;
                    self.phase = Phase::After(batch);
                }
                Phase::After(batch) => {
                    self.measure(&batch, batch.due_after()).await?;
                    self.phase = Phase::Between;
                }
            }
        }
        Ok(Progress { completed: self.completed, end: self.stream.end() })
    }

    /// The next step's batch. A stream that ends as aborted belongs to an attempt that was superseded, or to a job that
    /// was closed.
    async fn next_batch(&mut self) -> Result<Option<Batch>, DriveError> {
        match self.stream.next_batch().await {
            Err(Error::Aborted { message }) => {
                let newest = self.client.mixture(&self.job.job).await.map_or(0, |mixture| mixture.attempt);
                if newest > self.attempt.attempt {
                    return Err(self.fenced(message));
                }
                Err(Error::Aborted { message }.into())
            }
            batch => Ok(batch?),
        }
    }

    async fn train(&mut self, batch: &Arc<Batch>) -> Result<(), DriveError> {
        let given = Arc::clone(batch);
        let what = format!("take step {}", batch.step());
        let done = self.work(move |trainer| trainer.train(&given)).await?;
        // Nobody knows whether weights have changed.
        let step = done.map_err(|source| DriveError::Trainer { what, source });
        self.failed = step.is_err();
        let step = step?;
        self.completed = batch.step() + 1;
        self.cursor = batch.cursor().cloned();
        self.stats.steps += 1;
        let added = self.ledger.add(&step);
        self.failed = added.is_err();
        added
    }

    /// Runs `job` on a blocking thread. When this future is dropped the trainer stays reachable for
    /// [`Driver::into_trainer`].
    async fn work<R: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, DriveError> {
        let mut trainer = match self.slot.take() {
            Some(Slot::Here(trainer)) => trainer,
            busy => {
                self.slot = busy;
                return Err(DriveError::Interrupted);
            }
        };
        let (send, mut result) = oneshot::channel();
        let work = move || {
            // The run may have been dropped; then nobody asks for the result.
            let _ = send.send(job(&mut trainer));
            trainer
        };
        let busy = self.slot.insert(Slot::Busy(tokio::task::spawn_blocking(work)));
        let Slot::Busy(handle) = busy else { return Err(DriveError::Interrupted) };
        let trainer = back(handle.await)?;
        self.slot = Some(Slot::Here(trainer));
        result.try_recv().map_err(|_| DriveError::Interrupted)
    }

    /// Sends what was measured, in order.
    async fn flush(&mut self) -> Result<(), DriveError> {
        while let Some(report) = self.outbox.front() {
            let answer = self.client.report(report).await;
            let (kind, segment) = (report.kind(), report.segment);
            let answer = match answer {
                Ok(answer) => answer,
                Err(Error::Aborted { message }) => return Err(self.fenced(message)),
                Err(error) => return Err(error.into()),
            };
            self.outbox.pop_front();
            match answer.outcome {
                Outcome::Accepted => self.stats.counted += 1,
                Outcome::Duplicate => {
                    self.stats.counted += 1;
                    self.stats.duplicates += 1;
                }
                Outcome::Stale => self.stats.stale += 1,
                Outcome::Rejected(ReportReason::Attempt) => {
                    return Err(self.fenced(answer.message));
                }
                outcome @ (Outcome::Conflict | Outcome::Rejected(_)) => {
                    self.stats.refused += 1;
                    let message = answer.message;
                    let refused = DriveError::Refused { kind, segment, outcome, message };
                    if !self.options.lenient {
                        return Err(refused);
                    }
                    tracing::warn!(%refused, "a report does not count");
                }
            }
        }
        Ok(())
    }

    fn fenced(&mut self, message: String) -> DriveError {
        self.failed = true;
        self.outbox.clear();
        DriveError::Fenced { attempt: self.attempt.attempt, message }
    }

    /// The trainer; `None` when a run was dropped while it worked.
    pub fn trainer(&self) -> Option<&T> {
        match &self.slot {
            Some(Slot::Here(trainer)) => Some(trainer),
            Some(Slot::Busy(_)) | None => None,
        }
    }

    /// As [`trainer`](Self::trainer), to change it between runs.
    pub fn trainer_mut(&mut self) -> Option<&mut T> {
        match &mut self.slot {
            Some(Slot::Here(trainer)) => Some(trainer),
            Some(Slot::Busy(_)) | None => None,
        }
    }

    /// Ends the driver and gives the trainer back, once it has finished what it is at.
    ///
    /// # Errors
    /// [`DriveError::Interrupted`] when the runtime has ended its work.
    pub async fn into_trainer(self) -> Result<T, DriveError> {
        match self.slot {
            Some(Slot::Here(trainer)) => Ok(trainer),
            Some(Slot::Busy(handle)) => back(handle.await),
            None => Err(DriveError::Interrupted),
        }
    }

    /// The job as it was opened.
    pub fn job(&self) -> &JobInfo {
        &self.job
    }

    /// The attempt; other ranks take it as [`DriverOptions::attempt`].
    pub fn attempt(&self) -> OpenAttemptResponse {
        self.attempt
    }

    /// Position after the last completed step, for the trainer's checkpoint; `None` before the first one.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Steps whose updates are in the trainer's weights.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// What it has done.
    pub fn stats(&self) -> DriverStats {
        self.stats
    }
}

/// The trainer after its work; a panic of it goes on here.
fn back<T>(done: Result<T, tokio::task::JoinError>) -> Result<T, DriveError> {
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panic::resume_unwind(panic),
        Err(_) => DriveError::Interrupted,
    })
}
