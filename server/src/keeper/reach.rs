//! From a step that a stream asks for to a step that may be served: plans, barriers and their clock, the horizon.

use super::durable::horizon_key;
use super::{AHEAD, Event, Keeper, KeeperError, Reached};
use std::sync::{Arc, PoisonError, atomic::Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Steps by which the durable horizon is ahead of the real one, at least and at most: a write a second is enough.
pub(super) const STRIDE: (u64, u64) = (64, 65_536);
const STRIDE_TIME: Duration = Duration::from_secs(1);

impl Keeper {
    /// Whether a stream may begin at `step` when no cursor of the job says so. Jobs whose weights are not learnt may be
    /// entered anywhere; operators hear where later weights will land.
    ///
    /// # Errors
    /// [`KeeperError::Skips`] when a job that learns would be entered more than [`AHEAD`] past the horizon.
    pub fn admit(&self, step: u64) -> Result<(), KeeperError> {
        let horizon = self.horizon();
        if step.saturating_sub(horizon) <= AHEAD {
            return Ok(());
        }
        if self.rules.learner.is_some() {
            return Err(KeeperError::Skips { step, horizon });
        }
        tracing::warn!(
            job = self.job,
            step,
            horizon,
            "a stream begins far ahead: weights set from now on hold after it"
        );
        Ok(())
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
                        return Err(KeeperError::AllLeft { step });
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
        let mut inner = self.sound()?;
        // Everybody who waits comes here; the first one has done it.
        let gone = inner.course.barrier() != Some(barrier);
        if gone || self.wait_at(barrier).elapsed() < self.rules.late_after {
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
    pub(super) fn alive(&self) {
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
        let mut inner = self.sound()?;
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
}
