//! When to try again.

use crate::{ClientOptions, Error};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// Waits between attempts until patience is used up. Made anew, or [`reset`](Retry::reset), by every success.
#[derive(Debug)]
pub(crate) struct Retry {
    patience: Duration,
    backoff: (Duration, Duration),
    since: Option<Instant>,
    attempt: u32,
}

impl Retry {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Retry { patience: options.patience, backoff: options.backoff, since: None, attempt: 0 }
    }

    pub(crate) fn reset(&mut self) {
        (self.since, self.attempt) = (None, 0);
    }

    /// Waits before another attempt after `error`, or gives it back when another attempt makes no sense.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let delay = jittered(self.backoff, self.attempt, salt()).max(error.retry_after().unwrap_or_default());
        self.attempt += 1;
        if since.elapsed().saturating_add(delay) > self.patience || self.patience.is_zero() {
            return Err(error);
        }
        tracing::warn!(%error, attempt = self.attempt, ?delay, "trying again");
        sleep(delay).await;
        Ok(())
    }
}

/// Spreads clients that lost the same server at the same moment. No generator: nothing here is part of the sequence.
fn salt() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    crc32c::crc32c(&[now.as_nanos().to_le_bytes().as_slice(), &std::process::id().to_le_bytes()].concat())
}

/// `first` doubled per attempt up to `most`, times a factor in [1/2, 1).
fn jittered((first, most): (Duration, Duration), attempt: u32, salt: u32) -> Duration {
    let full = first.saturating_mul(1 << attempt.min(20)).min(most);
    full.mul_f64(0.5 + f64::from(salt) / 2f64.powi(33))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most_and_jitter_stays_in_the_upper_half() {
        let backoff = (Duration::from_millis(50), Duration::from_secs(5));
        for attempt in 0..100 {
            let full = Duration::from_millis(50u64.saturating_mul(1 << attempt.min(20))).min(backoff.1);
            assert_eq!(jittered(backoff, attempt, 0), full / 2);
            assert!(jittered(backoff, attempt, u32::MAX) <= full);
        }
    }

    #[tokio::test]
    async fn only_transient_errors_are_waited_for_and_patience_ends() {
        let options = ClientOptions::default().patience(Duration::ZERO);
        let error = Error::unavailable("gone");
        assert_eq!(Retry::new(&options).wait(error.clone()).await, Err(error.clone()));
        let options = options.patience(Duration::from_secs(9)).backoff(Duration::ZERO, Duration::ZERO);
        let mut retry = Retry::new(&options);
        assert_eq!(retry.wait(error).await, Ok(()));
        let later =
            Error::Unavailable { message: "later".into(), retry_after: Some(Duration::from_secs(10)) };
        assert_eq!(retry.wait(later.clone()).await, Err(later));
        let fatal = Error::Aborted { message: "closed".into() };
        assert_eq!(retry.wait(fatal.clone()).await, Err(fatal));
    }
}
