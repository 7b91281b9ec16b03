//! Keeps one job's mixture: the log, its reports, its estimators, its barriers; durable before anything is told.
//!
//! ```text
//! stream asks for a step -> reach -> (plan, wait at a barrier, move the horizon) -> sequence
//! trainer reports        -> report -> course -> store -> view -> streams, watchers
//! ```
//! [`Course`] decides, this room adds what it must not know: the clock of barriers, the store, who waits. One mutex is
//! held while an event is applied and made durable, on threads that may block; streams read the last published
//! [`View`] and never wait for a disk, except when the horizon moves past what is durable.

mod account;
mod bag;
mod course;
mod error;
mod events;
mod lay;
mod live;
mod record;
mod rules;
mod segment;
#[cfg(test)]
mod tests;
mod turn;
mod view;

pub use account::{Account, GroupAccount, MixtureAccount};
pub use bag::Answer;
pub use course::{Course, CourseError};
pub use error::KeeperError;
pub use live::Live;
pub use record::Event;
pub use rules::{Barrier, Learner, Rules};
pub use segment::{Segment, dues, kind_of};
pub use turn::{Attempt, TurnError};
pub use view::{Mark, Reached, View};

use crate::mixture::{Sequence, Weights};
use crate::store;
use events::{Done, apply, replay, tell};
use mixfeed_proto::{self as v1, ReportOutcome, ReportReason};
use prost::Message;
use record::{AttemptEvent, Record, WeightsEvent};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Steps by which the durable horizon is ahead of the real one, at least and at most: a write a second is enough.
const STRIDE: (u64, u64) = (64, 65_536);
/// Steps past the horizon within which a stream may begin when only a number says where: enough for ranks that start
/// together and for a look ahead. What is further moves the horizon, behind which no operator's weights can land, by a
/// slip of the pen; a cursor shows that the steps before it were trained.
pub const AHEAD: u64 = 1_024;
const STRIDE_TIME: Duration = Duration::from_secs(1);

/// What is behind the mutex.
#[derive(Debug)]
struct Inner {
    course: Course,
    /// Records in the store.
    head: u64,
    broken: Option<String>,
    stride: u64,
    moved: Instant,
    outcomes: BTreeMap<(i32, i32), u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    job: String,
    key: String,
    rules: Arc<Rules>,
    store: store::Shared,
    live: Arc<Live>,
    inner: Mutex<Inner>,
    view: watch::Sender<Arc<View>>,
    horizon: AtomicU64,
    /// Horizon that a restart will find.
    durable: AtomicU64,
    /// Barrier that somebody waits at, and since when.
    waiting: Mutex<Option<(u64, Instant)>>,
}

impl Keeper {
    /// Opens the mixture of `job` with `digest`, going on where the store's records end. `empty` is its sequence without
    /// any entry; `live` follows what is in force.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub fn open(
        job: &str,
        digest: &str,
        rules: Arc<Rules>,
        empty: Sequence,
        live: Arc<Live>,
        store: store::Shared,
    ) -> Result<Keeper, KeeperError> {
        let key = format!("{job}/{digest}");
        let mut course = Course::new(rules.clone(), empty)?;
        let head = match store.len(&key)? {
            0 => store.append(
                &key,
                0,
                &[Record { event: None, entries: course.entries().to_vec() }.encode_to_vec()],
            )?,
            records => {
                replay(job, &key, &mut course, &store, records)?;
                records
            }
        };
        let durable = store.snapshot(&horizon_key(&key))?.map_or(0, |(at, _)| at);
        live.set(course.sequence().clone());
        let view = watch::Sender::new(Arc::new(View::of(&course)));
        let inner = Inner {
            course,
            head,
            broken: None,
            stride: STRIDE.0,
            moved: Instant::now(),
            outcomes: BTreeMap::new(),
        };
        let (inner, waiting) = (Mutex::new(inner), Mutex::default());
        let (horizon, durable) = (AtomicU64::new(durable), AtomicU64::new(durable));
        Ok(Keeper { job: job.into(), key, rules, store, live, inner, view, horizon, durable, waiting })
    }

    /// What it depends on.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What is in force.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Hears of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// First step that no stream has begun.
    pub fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::SeqCst)
    }

    /// Whether a stream may begin at `step` when no cursor of the job says so.
    ///
    /// # Errors
    /// [`KeeperError::Skips`] when it is more than [`AHEAD`] past the horizon.
    pub fn admit(&self, step: u64) -> Result<(), KeeperError> {
        let horizon = self.horizon();
        match step.saturating_sub(horizon) > AHEAD {
            true => Err(KeeperError::Skips { step, horizon }),
            false => Ok(()),
        }
    }

    /// Waits until `step` may be served, and moves the horizon past it.
    ///
    /// # Errors
    /// [`KeeperError`].
    pub async fn reach(self: &Arc<Self>, step: u64) -> Result<Reached, KeeperError> {
        let mut changes = self.view.subscribe();
        let mut begun = false;
        loop {
            let view = changes.borrow_and_update().clone();
            if let Some(end) = view.sequence.end_by(step).filter(|end| step >= end.steps) {
                return Ok(Reached::Over(end));
            }
            if view.is_ready(step) {
                if begun {
                    return Ok(Reached::Step(view.sequence.clone(), view.mark(step)));
                }
                // Only what is seen after the horizon has moved holds: until then an entry may still land on the step.
                self.begin(step).await?;
                begun = true;
                continue;
            }
            begun = false;
            match view.barrier.filter(|b| *b <= step) {
                None => {
                    let done = self.blocking(move |keeper| keeper.event(Event::Plan(step))).await?;
                    if !done.planned {
                        let why = format!("nothing can be planned for step {step}: every group has left");
                        return Err(KeeperError::Broken(why));
                    }
                }
                Some(barrier) => {
                    let left = self.rules.late_after.saturating_sub(self.wait_at(barrier).elapsed());
                    tokio::select! {
                        changed = changes.changed() => changed.expect("the keeper outlives its calls"),
                        () = tokio::time::sleep(left) => {
                            let late = move |keeper: &Keeper| keeper.late(barrier);
                            self.blocking(late).await?;
                        }
                    }
                }
            }
        }
    }

    /// Time ran out at `barrier`, unless a report came meanwhile.
    fn late(&self, barrier: u64) -> Result<(), KeeperError> {
        let mut inner = self.lock();
        if self.wait_at(barrier).elapsed() < self.rules.late_after {
            return Ok(());
        }
        tracing::warn!(job = self.job, step = barrier, "reports are late, going on without them");
        self.apply(&mut inner, Event::Late(barrier)).map(drop)
    }

    /// Since when somebody waits at `barrier`: since it was reached, or since the last report.
    fn wait_at(&self, barrier: u64) -> Instant {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match *waiting {
            Some((at, since)) if at == barrier => since,
            _ => waiting.insert((barrier, Instant::now())).1,
        }
    }

    /// The trainer has shown that it lives: time begins anew.
    fn alive(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Moves the horizon past `step`; durably, in strides, so that a restart never takes back what was begun.
    async fn begin(self: &Arc<Self>, step: u64) -> Result<(), KeeperError> {
        if self.horizon.load(Ordering::SeqCst) > step && self.durable.load(Ordering::SeqCst) > step {
            return Ok(());
        }
        // Under the lock, behind whatever event is being applied: it has looked at the horizon already. On these
        // threads nobody may wait for it.
        if let Ok(_inner) = self.inner.try_lock()
            && self.durable.load(Ordering::SeqCst) > step
        {
            self.horizon.fetch_max(step + 1, Ordering::SeqCst);
            return Ok(());
        }
        self.blocking(move |keeper| keeper.begin_durably(step)).await
    }

    fn begin_durably(&self, step: u64) -> Result<(), KeeperError> {
        let mut inner = self.lock();
        if step >= self.durable.load(Ordering::SeqCst) {
            let quick = inner.moved.elapsed() < STRIDE_TIME;
            inner.stride = if quick { (inner.stride * 2).min(STRIDE.1) } else { STRIDE.0 };
            inner.moved = Instant::now();
            let covered = inner.course.sequence().covered().unwrap_or(u64::MAX);
            let durable = step.saturating_add(inner.stride).min(covered).max(step + 1);
            self.store.put_snapshot(&horizon_key(&self.key), durable, &[])?;
            self.durable.store(durable, Ordering::SeqCst);
        }
        self.horizon.fetch_max(step + 1, Ordering::SeqCst);
        Ok(())
    }

    /// Takes a report.
    ///
    /// # Errors
    /// [`KeeperError::Superseded`], [`KeeperError::NoAttempt`], or a failure.
    pub async fn report(
        self: &Arc<Self>,
        report: v1::ReportRequest,
    ) -> Result<(Answer, u64, bool), KeeperError> {
        self.blocking(move |keeper| {
            // One lock for the fence, the check and the event: nobody comes in between.
            let mut inner = keeper.lock();
            let (given, current) = (report.attempt, inner.course.attempt());
            if given != current || given == 0 {
                keeper.count(&mut inner, ReportOutcome::Rejected, ReportReason::Attempt);
                return Err(match given < current {
                    true => KeeperError::Superseded { given, current },
                    false => KeeperError::NoAttempt { given, current },
                });
            }
            let segment = report.segment;
            let ahead = report.to_step > keeper.horizon();
            let answer = match ahead {
                true => Answer::rejected(ReportReason::Steps, "the steps were not served yet"),
                false => {
                    keeper.apply(&mut inner, Event::Report(report))?.answer.unwrap_or_else(Answer::accepted)
                }
            };
            keeper.count(&mut inner, answer.outcome, answer.reason);
            if answer.outcome == ReportOutcome::Accepted {
                keeper.alive();
            }
            Ok((answer, inner.course.entries().len() as u64, inner.course.is_complete(segment)))
        })
        .await
    }

    fn count(&self, inner: &mut Inner, outcome: ReportOutcome, reason: ReportReason) {
        *inner.outcomes.entry((outcome.into(), reason.into())).or_default() += 1;
        crate::metrics::report(&self.job, outcome.as_str_name(), reason.as_str_name());
    }

    /// Begins a trainer's new life.
    ///
    /// # Errors
    /// [`KeeperError::Turn`], or a failure.
    pub async fn open_attempt(
        self: &Arc<Self>,
        completed: u64,
        branch: u64,
        resume: v1::ResumeAttempt,
    ) -> Result<Attempt, KeeperError> {
        self.blocking(move |keeper| {
            let horizon = keeper.horizon();
            let resume = resume.into();
            let done = keeper.event(Event::Attempt(AttemptEvent { completed, resume, horizon, branch }))?;
            Ok(done.attempt.expect("an attempt's event answers with it"))
        })
        .await
    }

    /// Sets the weights from `step` (or the horizon) on; returns the entry, `None` when a probe block comes first.
    ///
    /// # Errors
    /// [`KeeperError::Version`] when `expected` is neither 0 nor the current version.
    pub async fn set_weights(
        self: &Arc<Self>,
        weights: Weights,
        step: u64,
        expected: u64,
        author: String,
        note: String,
    ) -> Result<Option<v1::MixtureEntry>, KeeperError> {
        self.blocking(move |keeper| {
            let mut inner = keeper.lock();
            let current = inner.course.entries().len() as u64;
            if expected != 0 && expected != current {
                return Err(KeeperError::Version { given: expected, current });
            }
            let step = step.max(keeper.horizon());
            let weights = weights.shares().to_vec();
            let done =
                keeper.apply(&mut inner, Event::Weights(WeightsEvent { weights, step, author, note }))?;
            Ok(if done.pending { None } else { inner.course.entries().last().cloned() })
        })
        .await
    }

    /// Reads the course under its lock, where waiting for it holds up nobody.
    ///
    /// # Errors
    /// [`KeeperError::Broken`] when the reader panics.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Course) -> T + Send + 'static,
    ) -> Result<T, KeeperError> {
        self.blocking(move |keeper| Ok(keeper.with(read))).await
    }

    /// The job was closed: whatever comes after is refused, so that a keeper of the same job opened anew is alone.
    pub fn close(&self) {
        self.lock().broken.get_or_insert_with(|| "the job was closed".into());
    }

    /// Reads the course under its lock; may wait for a disk, so not on threads that many share.
    pub fn with<T>(&self, read: impl FnOnce(&Course) -> T) -> T {
        read(&self.lock().course)
    }

    /// Reports by outcome and reason since the job was opened.
    pub fn outcomes(&self) -> Vec<v1::OutcomeCount> {
        let count = |((outcome, reason), reports): (&(i32, i32), &u64)| v1::OutcomeCount {
            outcome: *outcome,
            reason: *reason,
            reports: *reports,
        };
        self.lock().outcomes.iter().map(count).collect()
    }

    /// Applies an event, makes it durable, tells everybody.
    fn event(&self, event: Event) -> Result<Done, KeeperError> {
        self.apply(&mut self.lock(), event)
    }

    /// As [`Keeper::event`], under a lock that is held already.
    fn apply(&self, inner: &mut Inner, event: Event) -> Result<Done, KeeperError> {
        if let Some(why) = &inner.broken {
            return Err(KeeperError::Broken(why.clone()));
        }
        let branch = inner.course.branch();
        let before = inner.course.entries().len();
        let mut done = match apply(&mut inner.course, event.clone()) {
            Ok(done) => done,
            // A refused turn changed nothing; anything else leaves a course that nobody can vouch for.
            Err(KeeperError::Turn(turn)) if turn.is_refusal() => return Err(turn.into()),
            Err(error) => {
                tracing::error!(job = self.job, %error, "the mixture stopped");
                inner.broken = Some(error.to_string());
                return Err(error);
            }
        };
        let entries = inner.course.entries()[before..].to_vec();
        done.planned = !entries.is_empty();
        if done.changed(&event, &entries) {
            let record = Record { event: Some(event.clone()), entries: entries.clone() }.encode_to_vec();
            match self.store.append(&self.key, inner.head, &[record]) {
                Ok(head) => inner.head = head,
                Err(error) => {
                    inner.broken = Some(error.to_string());
                    return Err(error.into());
                }
            }
        }
        if let Event::Attempt(attempt) = &event {
            self.alive();
            if inner.course.branch() != branch {
                // Nothing of the new branch was begun.
                self.horizon.store(attempt.completed, Ordering::SeqCst);
            }
        }
        tell(&self.job, &self.rules, &entries);
        self.live.set(inner.course.sequence().clone());
        self.view.send_replace(Arc::new(View::of(&inner.course)));
        Ok(done)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Keeper) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let keeper = self.clone();
        let done = tokio::task::spawn_blocking(move || call(&keeper)).await;
        done.unwrap_or_else(|lost| {
            // A panic in the middle of an event: what is in memory may be half of it.
            self.lock().broken.get_or_insert_with(|| lost.to_string());
            Err(KeeperError::Broken(lost.to_string()))
        })
    }
}

fn horizon_key(key: &str) -> String {
    format!("{key}/horizon")
}
