//! Trying again: longer and longer pauses of random length, up to a number of times and a total time. What is read does
//! not depend on them.

use super::{fault::Fault, store::Store};
use crate::metrics;
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};
use tokio::time::Instant;

/// Longest first pause; it doubles with every other one.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// Times that denied access is tried again: by then keys have been read anew, or they are wrong.
const DENIALS: u32 = 2;

/// How often and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    retries: u32,
    time: Duration,
}

/// Why an attempt was the last one.
#[derive(Debug)]
pub(super) struct GaveUp {
    /// What the last attempt met.
    pub fault: Fault,
    /// Attempts.
    pub tries: u32,
}

impl Patience {
    /// By the operator's table.
    pub fn new(store: &Store) -> Patience {
        let time = Duration::from_secs(store.retry_timeout.unwrap_or(120));
        Patience { retries: store.retries.unwrap_or(20), time }
    }

    /// Runs `attempt` until it succeeds or patience ends.
    pub async fn retried<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, GaveUp>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        // Begins with the first failure: before it, an attempt may have waited for its turn among many.
        let mut end = None;
        let mut tries = 0;
        loop {
            let fault = match attempt().await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            tries += 1;
            let end = *end.get_or_insert_with(|| Instant::now() + self.time);
            let most = match fault {
                Fault::Again(_) => self.retries,
                Fault::Denied(_) => self.retries.min(DENIALS),
                Fault::Changed(_) | Fault::Beyond | Fault::Never(_) => 0,
            };
            let pause = random_part(longest_pause(tries - 1));
            if tries > most || Instant::now() + pause >= end {
                return Err(GaveUp { fault, tries });
            }
            metrics::retry();
            tokio::time::sleep(pause).await;
        }
    }
}

/// The longest that the pause after failure `n`, from 0, may be.
fn longest_pause(n: u32) -> Duration {
    FIRST.saturating_mul(1 << n.min(16)).min(LONGEST)
}

/// From nothing to all of `longest`, so that many readers do not come back at once.
fn random_part(longest: Duration) -> Duration {
    // The standard library's keys for hash maps: random, and never seen in data.
    let draw = RandomState::new().build_hasher().finish();
    Duration::from_micros(draw % (longest.as_micros() as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    async fn tries(store: Store, fault: fn(u32) -> Option<Fault>) -> (u32, bool) {
        let count = Cell::new(0);
        let patience = Patience::new(&store);
        let done = patience.retried(|| {
            let n = count.replace(count.get() + 1);
            async move { fault(n).map_or(Ok(()), Err) }
        });
        let ok = done.await.is_ok();
        (count.get(), ok)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_nothing_else() {
        let again = || Fault::Again("busy".into());
        let three = |n| (n < 3).then(|| Fault::Again("busy".into()));
        assert_eq!(tries(Store::default(), three).await, (4, true));
        let limited = Store { retries: Some(2), ..Store::default() };
        assert_eq!(tries(limited, |_| Some(Fault::Again("busy".into()))).await, (3, false));
        assert_eq!(tries(Store::default(), |_| Some(Fault::Denied("no".into()))).await, (3, false));
        for never in [
            |_| Some(Fault::Never("x".into())),
            |_| Some(Fault::Changed("x".into())),
            |_| Some(Fault::Beyond),
        ] {
            assert_eq!(tries(Store::default(), never).await, (1, false));
        }
        assert_eq!(again().why(), "busy");
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_takes_no_longer_than_said() {
        let store = Store { retries: Some(1000), retry_timeout: Some(30), ..Store::default() };
        let start = Instant::now();
        let (tries, ok) = tries(store, |_| Some(Fault::Again("down".into()))).await;
        assert!(
            !ok && tries > 3 && start.elapsed() <= Duration::from_secs(30),
            "{tries}, {:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_turn_is_no_failure() {
        let (patience, count) = (Patience::new(&Store::default()), Cell::new(0));
        let done = patience.retried(|| {
            let n = count.replace(count.get() + 1);
            async move {
                tokio::time::sleep(Duration::from_secs(if n == 0 { 3600 } else { 0 })).await;
                if n == 0 { Err(Fault::Again("busy".into())) } else { Ok(()) }
            }
        });
        done.await.expect("the second attempt succeeds");
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_random() {
        assert_eq!(longest_pause(0), FIRST);
        assert_eq!(longest_pause(3), FIRST * 8);
        assert_eq!(longest_pause(u32::MAX), LONGEST);
        let draws: std::collections::BTreeSet<Duration> = (0..20).map(|_| random_part(LONGEST)).collect();
        assert!(draws.len() > 10 && draws.iter().all(|pause| *pause <= LONGEST));
    }
}
