//! Reports of a trainer: numbered here, sent in order on the control thread, never waited for.

use crate::{
    batch::kind_name,
    client::{Client, argument, cursor_of, seconds},
    error,
    wait::wait,
};
use mixfeed_client::{
    Error, Outcome,
    driver::{DriveError, Ledger, LossSum, StepReport},
    learn::{ReportKind, ReportReason, ReportRequest, ResumeAttempt},
};
use pyo3::{prelude::*, types::PyDict};
use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::sync::{Notify, mpsc};

/// Most bytes of reports that wait for the server: an hour of one small report a second, or a few sketches.
const QUEUE_BYTES: usize = 16 << 20;

/// Most reports that are remembered as not counted until somebody asks for them; a step has less kinds.
const LOST: usize = 64;

/// What went wrong with a report since somebody last asked.
#[derive(Debug)]
enum Failure {
    Client(Error),
    /// The server answered that it does not count.
    Refused(String),
    /// Another attempt has begun.
    Fenced(String),
}

/// What the reports met with.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    counted: u64,
    stale: u64,
    refused: u64,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    /// Kind, first step and end of reports that do not count, since somebody last asked.
    lost: VecDeque<(String, u64, u64)>,
    counts: Counts,
    /// Reports after a fence are pointless.
    fenced: bool,
}

/// Shared with the task that sends.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    bytes: AtomicUsize,
    /// Wakes those who flush, once the queue is empty.
    empty: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives bytes back that were set aside.
    fn free(&self, bytes: usize) {
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.empty.notify_waiters();
        }
    }
}

/// Bytes that a report of so many numbers holds, about.
fn size(numbers: usize) -> usize {
    256 + 8 * numbers
}

/// A report and the bytes that were set aside for it.
type Queued = (ReportRequest, usize);

/// One attempt of a trainer and what it has to tell.
#[pyclass(frozen, module = "mixfeed._mixfeed")]
#[derive(Debug)]
pub struct Reporter {
    ledger: Mutex<Ledger>,
    queue: mpsc::UnboundedSender<Queued>,
    shared: Arc<Shared>,
    groups: usize,
    attempt: u64,
    /// Segment and mixture whose held-out losses are wanted before the first step.
    first: Option<(u64, u64)>,
}

#[pymethods]
impl Reporter {
    /// Begins an attempt at a position (cursor JSON, None: the beginning), or joins one that another rank began.
    #[new]
    #[pyo3(signature = (client, job, *, rank, groups, cursor, step, resume, attempt))]
    #[allow(clippy::too_many_arguments)] // keywords
    fn open(
        py: Python<'_>,
        client: &Client,
        job: String,
        rank: u32,
        groups: usize,
        cursor: Option<&str>,
        step: u64,
        resume: &str,
        attempt: Option<u64>,
    ) -> PyResult<Self> {
        let cursor = cursor.map(|text| cursor_of(py, text)).transpose()?;
        let completed = cursor.as_ref().map_or(step, mixfeed_client::Cursor::next_step);
        let branch = cursor.as_ref().map_or(0, mixfeed_client::Cursor::branch);
        let resume = match resume {
            "ask" => ResumeAttempt::Unspecified,
            "rewind" => ResumeAttempt::Rewind,
            "replay" => ResumeAttempt::Replay,
            other => {
                return Err(argument(
                    py,
                    "resume",
                    &format!("is `{other}`, want `ask`, `rewind` or `replay`"),
                ));
            }
        };
        let (caller, name) = (client.client.clone(), job.clone());
        let (attempt, first) = match attempt {
            Some(attempt) => (attempt, None),
            None => {
                let call = async move { caller.open_attempt(&name, completed, branch, resume).await };
                let opened = client.control.call(py, call)?;
                let first = opened.evaluate_first.then_some((opened.segment, opened.mixture_id));
                (opened.attempt, first)
            }
        };
        let shared = Arc::new(Shared::default());
        let (queue, reports) = mpsc::unbounded_channel();
        if !client.control.spawn(send(client.client.clone(), reports, shared.clone())) {
            return Err(error::plain(py, "Exhausted", "the loader's thread is busy".into()));
        }
        let ledger = Mutex::new(Ledger::new(&job, attempt, rank, groups));
        Ok(Reporter { ledger, queue, shared, groups, attempt, first })
    }

    /// Number of the attempt; other ranks that report join it.
    #[getter]
    fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Segment and mixture of the held-out losses that are wanted before the first step; None when they are not.
    #[getter]
    fn first(&self) -> Option<(u64, u64)> {
        self.first
    }

    /// Begins a segment at `step`, unless it is the current one.
    fn enter(&self, segment: u64, mixture_id: u64, step: u64) {
        self.lock().enter(segment, mixture_id, step);
    }

    /// Adds what a step saw: (sum, count) per group, or None where it was not measured.
    #[pyo3(signature = (losses, excess, skipped))]
    fn add(
        &self,
        py: Python<'_>,
        losses: Option<Vec<(f64, f64)>>,
        excess: Option<Vec<(f64, f64)>>,
        skipped: bool,
    ) -> PyResult<()> {
        let sums = |given: Option<Vec<(f64, f64)>>| {
            given.unwrap_or_default().into_iter().map(|(sum, count)| LossSum { sum, count }).collect()
        };
        let step = StepReport { losses: sums(losses), excess: sums(excess), lr: 0.0, skipped };
        self.lock().add(&step).map_err(|wrong| refused(py, &wrong))
    }

    /// Queues the sums of the steps since the last such report: "train" or "excess".
    fn sums(&self, py: Python<'_>, kind: &str, completed: u64) -> PyResult<()> {
        let kind = kind_of(py, kind)?;
        // Room first: sums that were taken, and a number that was given, would be lost without it.
        let bytes = self.room(py, 2 * self.groups)?;
        let report = self.lock().sums(kind, completed).map_err(|wrong| {
            self.shared.free(bytes);
            refused(py, &wrong)
        })?;
        self.push(py, report, bytes)
    }

    /// Queues a report with its numbers by field; `from_step` is for sums.
    fn vector(&self, py: Python<'_>, kind: &str, completed: u64, fields: &Bound<'_, PyDict>) -> PyResult<()> {
        let kind = kind_of(py, kind)?;
        // Read before the report is numbered: a number that is left out would never be filled.
        let mut given = ReportRequest { from_step: completed, ..Default::default() };
        for (name, value) in fields {
            match name.extract::<String>()?.as_str() {
                "values" => given.values = value.extract()?,
                "counts" => given.counts = value.extract()?,
                "more" => given.more = value.extract()?,
                "lr" => given.lr = value.extract()?,
                "from_step" => given.from_step = value.extract()?,
                "owner" => given.owner = value.extract()?,
                "held_out" => given.held_out = value.extract()?,
                "eval_digest" => given.eval_digest = value.extract::<Vec<u8>>()?.into(),
                other => return Err(argument(py, "gradients", &format!("has no field `{other}`"))),
            }
        }
        let bytes = self.room(py, given.values.len() + given.counts.len() + given.more.len())?;
        let report = self.lock().report(kind, completed);
        let ReportRequest { values, counts, more, lr, owner, held_out, eval_digest, from_step, .. } = given;
        let report =
            ReportRequest { values, counts, more, lr, owner, held_out, eval_digest, from_step, ..report };
        self.push(py, report, bytes)
    }

    /// Raises what went wrong since the last call, once.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        match self.shared.lock().failure.take() {
            None => Ok(()),
            Some(Failure::Client(failed)) => Err(error::raise(py, &failed)),
            Some(Failure::Refused(message)) => Err(error::plain(py, "Refused", message)),
            Some(Failure::Fenced(message)) => Err(error::plain(py, "Fenced", message)),
        }
    }

    /// Reports that do not count, since the last call: kind, first step and end.
    fn lost(&self) -> Vec<(String, u64, u64)> {
        self.shared.lock().lost.drain(..).collect()
    }

    /// Whether a report of `groups` numbers and counts would be taken.
    ///
    /// # Errors
    /// `Exhausted`, `Fenced`.
    fn ready(&self, py: Python<'_>) -> PyResult<()> {
        self.room(py, 2 * self.groups).map(|bytes| self.shared.free(bytes))
    }

    /// Waits until every report was answered, at most `timeout` seconds; whether they were.
    fn flush(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let until = Instant::now() + seconds(py, "timeout", timeout)?;
        let emptied = async {
            loop {
                let notified = self.shared.empty.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.shared.bytes.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::pin!(emptied);
        // What a signal handler raised after that moment is no lateness.
        let late = Cell::new(false);
        let check = || {
            late.set(Instant::now() >= until);
            if late.get() { Err(error::plain(py, "Timeout", String::new())) } else { Ok(()) }
        };
        match wait(py, emptied, check) {
            Ok(()) => Ok(true),
            Err(_) if late.get() => Ok(false),
            Err(raised) => Err(raised),
        }
    }

    /// Reports counted, stale, refused; and bytes that wait.
    #[getter]
    fn stats(&self) -> (u64, u64, u64, usize) {
        let Counts { counted, stale, refused } = self.shared.lock().counts;
        (counted, stale, refused, self.shared.bytes.load(Ordering::Acquire))
    }
}

impl Reporter {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets bytes aside for a report of so many numbers.
    fn room(&self, py: Python<'_>, numbers: usize) -> PyResult<usize> {
        if self.shared.lock().fenced {
            return Err(error::plain(py, "Fenced", "a newer attempt of this job's trainer has begun".into()));
        }
        let bytes = size(numbers);
        let before = self.shared.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes > QUEUE_BYTES {
            self.shared.free(bytes);
            let message = format!("{before} bytes of reports wait for the server, at most {QUEUE_BYTES}");
            return Err(error::plain(py, "Exhausted", message));
        }
        Ok(bytes)
    }

    fn push(&self, py: Python<'_>, report: ReportRequest, bytes: usize) -> PyResult<()> {
        self.queue
            .send((report, bytes))
            .map_err(|_| error::plain(py, "Closed", "the loader's thread has ended".into()))
    }
}

fn kind_of(py: Python<'_>, name: &str) -> PyResult<ReportKind> {
    ReportKind::from_str_name(&format!("REPORT_KIND_{}", name.to_ascii_uppercase()))
        .filter(|kind| *kind != ReportKind::Unspecified)
        .ok_or_else(|| argument(py, "kind", &format!("`{name}` is no kind of report")))
}

fn refused(py: Python<'_>, wrong: &DriveError) -> PyErr {
    error::plain(py, "Refused", wrong.to_string())
}

/// Sends reports in order until the reporter is gone and none is left.
async fn send(
    client: mixfeed_client::Client,
    mut reports: mpsc::UnboundedReceiver<Queued>,
    shared: Arc<Shared>,
) {
    while let Some((report, bytes)) = reports.recv().await {
        if !shared.lock().fenced {
            let answer = client.report(&report).await;
            shared.lock().note(&report, answer);
        }
        shared.free(bytes);
    }
}

impl State {
    /// Keeps the first failure; later ones are most likely its consequences.
    fn note(&mut self, report: &ReportRequest, answer: Result<mixfeed_client::Answer, Error>) {
        let told = |answer: &mixfeed_client::Answer| {
            let (kind, segment) = (kind_name(report.kind()), report.segment);
            format!("report `{kind}` of segment {segment} is {}: {}", answer.outcome, answer.message)
        };
        let failure = match answer {
            Err(Error::Aborted { message }) => Failure::Fenced(message),
            Err(error) => Failure::Client(error),
            Ok(answer) => match answer.outcome {
                Outcome::Accepted | Outcome::Duplicate => {
                    self.counts.counted += 1;
                    return;
                }
                Outcome::Stale => {
                    self.counts.stale += 1;
                    return;
                }
                Outcome::Rejected(ReportReason::Attempt) => Failure::Fenced(told(&answer)),
                Outcome::Conflict | Outcome::Rejected(_) => Failure::Refused(told(&answer)),
            },
        };
        self.counts.refused += 1;
        if self.lost.len() == LOST {
            self.lost.pop_front();
        }
        self.lost.push_back((kind_name(report.kind()), report.from_step, report.to_step));
        self.fenced |= matches!(failure, Failure::Fenced(_));
        self.failure.get_or_insert(failure);
    }
}
