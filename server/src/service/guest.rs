//! One connection: what it does, and when it has to go.

use super::limits::{House, Limits, Peer, Refusal};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long an idle connection has to answer a GoAway.
const CLOSING: Duration = Duration::from_secs(5);

/// A connection as its task, its calls and the house see it.
#[derive(Debug)]
pub struct Guest {
    id: u64,
    peer: Peer,
    house: House,
    admitted: Instant,
    activity: Mutex<Activity>,
    /// When it last took bytes, in milliseconds of the connection's life.
    took: AtomicU64,
    /// A deadline may have come nearer.
    changed: Notify,
}

#[derive(Debug)]
struct Activity {
    /// Whether the gate let a call in.
    called: bool,
    /// Whether one of them was more than a look at the health.
    asked: bool,
    /// Since when there is nothing: the last call's end or the last ping.
    quiet: Instant,
    /// Why it has to go.
    cut: Option<Refusal>,
    /// The client closed the socket, or the network did.
    gone: bool,
    next: u64,
    /// Open calls.
    calls: BTreeMap<u64, Arc<Turn>>,
}

/// Whose turn it is in a call: milliseconds of the connection's life, and 1, since when the client has to take what is
/// ready; 0 while the server has to make something.
type Turn = AtomicU64;

/// Keeps a connection in the count.
#[derive(Debug)]
pub struct Stay(Arc<Guest>);

/// An open call; closed when it is dropped.
#[derive(Debug)]
pub struct Open {
    id: u64,
    turn: Arc<Turn>,
    guest: Arc<Guest>,
}

/// Bytes counted for a request or its answer, until this is dropped.
#[derive(Debug)]
pub struct Charge {
    bytes: usize,
    guest: Arc<Guest>,
}

impl Stay {
    pub(super) fn new(guest: Arc<Guest>) -> Stay {
        Stay(guest)
    }

    /// The connection.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.0
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.house.leave(self.0.peer, self.0.id);
    }
}

impl Guest {
    pub(super) fn new(id: u64, peer: Peer, house: House, now: Instant) -> Guest {
        let (called, asked, cut, gone) = (false, false, None, false);
        let activity = Activity { called, asked, quiet: now, cut, gone, next: 0, calls: BTreeMap::new() };
        let (activity, took, changed) = (Mutex::new(activity), AtomicU64::new(0), Notify::new());
        Guest { id, peer, house, admitted: now, activity, took, changed }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits of the house.
    pub fn limits(&self) -> Limits {
        self.house.limits()
    }

    /// When its first call must have come.
    pub fn first_request_by(&self) -> Instant {
        self.admitted + self.limits().first_request
    }

    /// A call begins.
    pub fn call(self: &Arc<Self>) -> Open {
        let turn = Arc::new(Turn::default());
        let mut activity = self.activity();
        activity.next += 1;
        let id = activity.next;
        activity.calls.insert(id, turn.clone());
        Open { id, turn, guest: self.clone() }
    }

    /// The gate let a call in; `asks` unless it only looks at the health. Before, this is a stranger.
    pub fn let_in(&self, asks: bool) {
        let mut activity = self.activity();
        activity.called = true;
        let first = asks && !activity.asked;
        activity.asked |= asks;
        drop(activity); // the house looks at guests
        if first {
            self.house.asked(self.id);
        }
    }

    /// Limits have changed.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// The client wants the connection to stay.
    pub fn pinged(&self) {
        self.activity().quiet = Instant::now();
    }

    /// The client took bytes, or its system did.
    pub fn took(&self) {
        self.took.store(millis(self.admitted.elapsed()), Relaxed);
    }

    /// The client closed the socket, or the network did.
    pub fn left(&self) {
        self.activity().gone = true;
    }

    pub(super) fn has_left(&self) -> bool {
        self.activity().gone
    }

    /// It has to go; the first reason counts.
    pub fn cut(&self, why: Refusal) {
        self.activity().cut.get_or_insert(why);
        self.changed.notify_one();
    }

    pub(super) fn is_cut(&self) -> Option<Refusal> {
        self.activity().cut
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.activity().calls.is_empty()
    }

    /// Counts `bytes` for a request; `None` when they do not fit.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.house.take(self.peer, bytes).then(|| Charge { bytes, guest: self.clone() })
    }

    /// Waits until the connection has to go. `leaving`: since when it was asked to.
    pub async fn over(&self, leaving: Option<Instant>) -> Refusal {
        loop {
            let changed = self.changed.notified();
            match self.verdict(leaving, Instant::now()) {
                Err(why) => return why,
                Ok(next) => {
                    // A timeout is the usual end: it is time to look again.
                    let _ = tokio::time::timeout_at(next.into(), changed).await;
                }
            }
        }
    }

    /// When to look again, or why it has to go.
    fn verdict(&self, leaving: Option<Instant>, now: Instant) -> Result<Instant, Refusal> {
        let (limits, activity) = (self.limits(), self.activity());
        if let Some(why) = activity.cut {
            return Err(why);
        }
        let due = |at: Instant, why| if at <= now { Err(why) } else { Ok(at) };
        if !activity.calls.is_empty() {
            let elapsed = millis(now.saturating_duration_since(self.admitted));
            let stalled = |turn: &Arc<Turn>| match turn.load(Relaxed) {
                0 => false,
                since => elapsed.saturating_sub(since - 1) >= millis(limits.stall_timeout),
            };
            // Turns change without a word, so look often enough to be late by a quarter at most.
            return match activity.calls.values().any(stalled) {
                true => Err(Refusal::Stalled),
                false => Ok(now + limits.stall_timeout / 4),
            };
        }
        match (activity.called, leaving) {
            // The last of an answer may still be on its way.
            (true, Some(since)) => {
                let took = self.admitted + Duration::from_millis(self.took.load(Relaxed));
                due(since.max(activity.quiet).max(took) + CLOSING, Refusal::Idle)
            }
            // There is nothing to finish, and a GoAway waits for the end of a preface that may never come.
            (false, Some(since)) => due(since + CLOSING, Refusal::Slow),
            (false, None) => due(self.admitted + limits.first_request, Refusal::Slow),
            (true, None) => due(activity.quiet + limits.idle_timeout, Refusal::Idle),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Open {
    /// The connection.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Something is ready: the client has to take it.
    pub fn ready(&self) {
        self.turn.store(millis(self.guest.admitted.elapsed()) + 1, Relaxed);
    }

    /// Everything was taken: the server has to make more.
    pub fn waiting(&self) {
        self.turn.store(0, Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut activity = self.guest.activity();
        activity.calls.remove(&self.id);
        if activity.calls.is_empty() {
            activity.quiet = Instant::now();
            self.guest.changed.notify_one();
        }
    }
}

impl Charge {
    /// Counts more; `false`, and nothing is counted, when it does not fit.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.guest.house.take(self.guest.peer, bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Counts `bytes` instead; `false`, and nothing changes, when that does not fit.
    pub fn set(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.guest.house.give_back(self.guest.peer, self.bytes - bytes);
        self.bytes = bytes;
        true
    }

    /// Counts `bytes` instead, over the limit if need be.
    pub fn force(&mut self, bytes: usize) {
        self.clear();
        self.guest.house.count(self.guest.peer, bytes);
        self.bytes = bytes;
    }

    /// Counts nothing any more.
    pub fn clear(&mut self) {
        self.guest.house.give_back(self.guest.peer, std::mem::take(&mut self.bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::limits::tests::limits;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_connection_goes_when_nothing_is_asked_taken_or_said() {
        let house = House::new(limits());
        let stay = house.admit(Peer::Local).unwrap();
        let guest = stay.guest();
        let start = guest.admitted;
        assert_eq!(guest.verdict(None, start), Ok(start + seconds(1)));
        assert_eq!(guest.verdict(None, start + seconds(1)), Err(Refusal::Slow));
        drop(guest.call());
        assert_eq!(guest.verdict(None, start + seconds(1)), Err(Refusal::Slow), "the gate let nothing in");
        guest.pinged();
        assert_eq!(guest.verdict(Some(start), start + seconds(5)), Err(Refusal::Slow), "the server stops");
        let call = guest.call();
        guest.let_in(true);
        assert_eq!(guest.verdict(None, start + seconds(1)), Ok(start + seconds(6)), "it has called");
        // The server's turn has no limit: a barrier may last.
        assert_eq!(guest.verdict(None, start + seconds(1000)), Ok(start + seconds(1005)));
        call.ready();
        assert!(guest.verdict(None, start + seconds(19)).is_ok());
        let stalled = Instant::now() + seconds(20);
        assert_eq!(guest.verdict(None, stalled), Err(Refusal::Stalled));
        call.waiting();
        assert!(guest.verdict(None, stalled).is_ok());
        drop(call);
        let quiet = guest.activity().quiet;
        assert_eq!(guest.verdict(None, quiet), Ok(quiet + seconds(10)));
        assert_eq!(guest.verdict(None, quiet + seconds(10)), Err(Refusal::Idle));
        guest.pinged();
        assert!(guest.activity().quiet >= quiet);
        assert_eq!(guest.verdict(Some(quiet), quiet + seconds(60)), Err(Refusal::Idle), "it was asked to go");
        guest.took.store(50_000, Relaxed);
        assert_eq!(
            guest.verdict(Some(quiet), start + seconds(54)),
            Ok(start + seconds(55)),
            "it still takes bytes"
        );
        assert_eq!(guest.verdict(Some(quiet), start + seconds(55)), Err(Refusal::Idle));
        guest.cut(Refusal::Flood);
        guest.cut(Refusal::Evicted);
        assert_eq!(guest.verdict(None, start), Err(Refusal::Flood));
    }
}
