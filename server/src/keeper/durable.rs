//! A course and the store that must hold what it went through before anybody is told.
//!
//! Where an event stops in the middle (the store is full, a panic) memory may be ahead of the store, or half of
//! something. It is thrown away then, and the next call folds the store's records anew: a job heals by itself as soon as
//! its store works, and goes on from what was durable.

use super::events::{Done, apply, replay, tell};
use super::record::Record;
use super::{Course, Event, Keeper, KeeperError, Rules, View};
use crate::mixture::Sequence;
use crate::store;
use mixfeed_proto as v1;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError, atomic::Ordering};
use tokio::time::Instant;

/// What is behind a keeper's mutex.
#[derive(Debug)]
pub(super) struct Inner {
    pub course: Course,
    /// Records in the store.
    pub head: u64,
    /// False from an event's begin to its end: after one that stopped in between the course is folded anew.
    pub sound: bool,
    /// Somebody else may keep the job by now.
    pub closed: bool,
    pub stride: u64,
    pub moved: Instant,
    pub outcomes: BTreeMap<(i32, i32), u64>,
}

/// The course that the store's records make, and how many there are; a job that is new gets its first one.
pub(super) fn fold(
    job: &str,
    key: &str,
    rules: &Arc<Rules>,
    empty: &Sequence,
    store: &store::Shared,
) -> Result<(Course, u64), KeeperError> {
    let mut course = Course::new(rules.clone(), empty.clone())?;
    let records = store.len(key)?;
    if records > 0 {
        replay(job, key, &mut course, store, records)?;
        return Ok((course, records));
    }
    let first = Record { event: None, entries: course.entries().to_vec() };
    let head = store.append(key, 0, &[first.encode_to_vec()])?;
    Ok((course, head))
}

impl Keeper {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, over a course that is what the store says.
    ///
    /// # Errors
    /// [`KeeperError::Closed`], or a store that still fails after it failed before.
    pub(super) fn sound(&self) -> Result<MutexGuard<'_, Inner>, KeeperError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(KeeperError::Closed);
        }
        if !inner.sound {
            self.heal(&mut inner)?;
        }
        Ok(inner)
    }

    /// Folds the store's records anew.
    fn heal(&self, inner: &mut Inner) -> Result<(), KeeperError> {
        let (course, head) = fold(&self.job, &self.key, &self.rules, &self.empty, &self.store)?;
        let told = self.view();
        (inner.course, inner.head, inner.sound) = (course, head, true);
        tracing::info!(job = self.job, records = head, "the mixture goes on from what is durable");
        // A write may have got there although its answer was an error.
        let course = &inner.course;
        let entries = course.entries().get(told.version as usize..).unwrap_or_default();
        tell(&self.job, &self.rules, entries);
        if course.branch() != told.branch
            && let Some(strike) = course.entries().iter().rfind(|e| e.kind == v1::MixtureKind::Strike as i32)
        {
            self.horizon.store(strike.from_step, Ordering::SeqCst);
        }
        self.publish(course);
        Ok(())
    }

    fn publish(&self, course: &Course) {
        self.live.set(course.sequence().clone());
        self.view.send_replace(Arc::new(View::of(course)));
    }

    /// Applies an event, makes it durable, tells everybody.
    pub(super) fn event(&self, event: Event) -> Result<Done, KeeperError> {
        self.apply(&mut *self.sound()?, event)
    }

    /// As [`Keeper::event`], under a lock that is held already, over a sound course.
    pub(super) fn apply(&self, inner: &mut Inner, event: Event) -> Result<Done, KeeperError> {
        inner.sound = false;
        let branch = inner.course.branch();
        let before = inner.course.entries().len();
        let mut done = match apply(&mut inner.course, event.clone()) {
            Ok(done) => done,
            Err(error) => {
                // A refused turn changed nothing.
                inner.sound = matches!(&error, KeeperError::Turn(turn) if turn.is_refusal());
                if !inner.sound {
                    tracing::error!(job = self.job, %error, "an event stopped in the middle");
                }
                return Err(error);
            }
        };
        let entries = inner.course.entries()[before..].to_vec();
        done.planned = !entries.is_empty();
        let attempt = match &event {
            Event::Attempt(attempt) => Some(attempt.completed),
            Event::Plan(_) | Event::Report(_) | Event::Late(_) | Event::Weights(_) => None,
        };
        if done.changed(&event, &entries) {
            let record = Record { event: Some(event), entries: entries.clone() }.encode_to_vec();
            inner.head = self.store.append(&self.key, inner.head, &[record]).inspect_err(
                |error| tracing::error!(job = self.job, %error, "an event could not be made durable"),
            )?;
        }
        if let Some(completed) = attempt {
            self.alive();
            if inner.course.branch() != branch {
                // Nothing of the new branch was begun.
                self.horizon.store(completed, Ordering::SeqCst);
            }
        }
        tell(&self.job, &self.rules, &entries);
        self.publish(&inner.course);
        inner.sound = true;
        Ok(done)
    }

    /// Runs `call` where blocking is allowed.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Keeper) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let keeper = self.clone();
        let done = tokio::task::spawn_blocking(move || call(&keeper)).await;
        done.unwrap_or_else(|lost| Err(KeeperError::Panic(lost.to_string())))
    }
}

pub(super) fn horizon_key(key: &str) -> String {
    format!("{key}/horizon")
}
