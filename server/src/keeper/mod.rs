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
mod calls;
mod check;
mod course;
mod durable;
mod error;
mod events;
mod lay;
mod live;
mod reach;
mod record;
mod replicas;
mod round;
mod rules;
mod segment;
#[cfg(test)]
mod tests;
mod turn;
mod view;

pub use account::{Account, GroupAccount, MixtureAccount, Stretch, stretches};
pub use check::Answer;
pub use course::{Course, CourseError};
pub use error::KeeperError;
pub use live::Live;
pub use record::Event;
pub use rules::{Barrier, Learner, Rules};
pub use segment::{Segment, dues, kind_of};
pub use turn::{Attempt, TurnError};
pub use view::{Mark, Reached, View};

use crate::mixture::Sequence;
use crate::store;
use durable::{Inner, fold, horizon_key};
use mixfeed_proto::MixtureStatus;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// Steps past the horizon within which a stream of a job that learns may begin when only a number says where: enough for
/// ranks that start together and for a look ahead. What is further would skip rounds, by a slip of the pen; a cursor shows
/// that the steps before it were trained.
pub const AHEAD: u64 = 1_024;

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    job: String,
    key: String,
    rules: Arc<Rules>,
    /// Its sequence without any entry, to fold records onto.
    empty: Sequence,
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
        let (course, head) = fold(job, &key, &rules, &empty, &store)?;
        let durable = store.snapshot(&horizon_key(&key))?.map_or(0, |(at, _)| at);
        live.set(course.sequence().clone());
        let view = watch::Sender::new(Arc::new(View::of(&course)));
        let inner = Inner {
            course,
            head,
            sound: true,
            closed: false,
            stride: reach::STRIDE.0,
            moved: Instant::now(),
            outcomes: BTreeMap::new(),
        };
        let (inner, waiting) = (Mutex::new(inner), Mutex::default());
        let (horizon, durable) = (AtomicU64::new(durable), AtomicU64::new(durable));
        let job = job.into();
        Ok(Keeper { job, key, rules, empty, store, live, inner, view, horizon, durable, waiting })
    }

    /// What it depends on.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What is in force.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// State of learning.
    pub fn status(&self) -> MixtureStatus {
        let view = self.view();
        match () {
            () if self.rules.learner.is_none() => MixtureStatus::Given,
            () if view.barrier.is_some_and(|barrier| barrier <= self.horizon()) => MixtureStatus::Waiting,
            () if view.degraded => MixtureStatus::Degraded,
            () => MixtureStatus::Serving,
        }
    }

    /// Hears of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// First step that no stream has begun.
    pub fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::SeqCst)
    }
}
