//! What a token holds: streams, bytes promised to them, jobs that it opened.

use super::Denial;
use crate::size::Size;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most that a token may hold at a time; `None` leaves it to the limits of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Open streams, those of mixture entries too.
    pub streams: Option<u64>,
    /// Bytes promised to its streams.
    pub bytes: Option<Size>,
    /// Open jobs that it opened.
    pub jobs: Option<u64>,
}

/// What a token holds. Shared by all tables of tokens that know its name.
#[derive(Debug, Default)]
pub struct Usage(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    streams: u64,
    bytes: u64,
    /// Jobs that it opened.
    kept: BTreeSet<String>,
    /// Jobs that it is about to open, with the number of calls that do: all ranks open the same one at once.
    pending: BTreeMap<String, usize>,
}

impl Used {
    fn holds(&self, job: &str) -> bool {
        self.kept.contains(job) || self.pending.contains_key(job)
    }

    fn jobs(&self) -> usize {
        self.kept.len() + self.pending.keys().filter(|job| !self.kept.contains(*job)).count()
    }

    /// One call less is about to open the job.
    fn settle(&mut self, job: &str) {
        if let Some(calls) = self.pending.get_mut(job) {
            *calls -= 1;
            if *calls == 0 {
                self.pending.remove(job);
            }
        }
    }
}

impl Usage {
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// (open streams, bytes promised to them).
    pub fn streams(&self) -> (u64, u64) {
        let used = self.lock();
        (used.streams, used.bytes)
    }
}

/// A stream that counts against its token until it is dropped.
#[derive(Debug, Default)]
pub struct StreamHold {
    usage: Option<Arc<Usage>>,
    bytes: u64,
}

impl StreamHold {
    /// A stream of somebody without limits.
    pub(super) fn free(bytes: u64) -> StreamHold {
        StreamHold { usage: None, bytes }
    }

    /// Takes a stream that wants `wanted` bytes and cannot do with less than `least`.
    pub(super) fn take(
        token: &str,
        quota: &Quota,
        usage: &Arc<Usage>,
        (wanted, least): (u64, u64),
    ) -> Result<StreamHold, Denial> {
        let refuse =
            |what, limit, held, wanted| Err(Denial::Quota { token: token.into(), what, limit, held, wanted });
        let mut used = usage.lock();
        if let Some(limit) = quota.streams.filter(|limit| used.streams >= *limit) {
            return refuse("streams", limit, used.streams, 1);
        }
        let limit = quota.bytes.map_or(u64::MAX, |size| size.0 as u64);
        let left = limit.saturating_sub(used.bytes);
        if left < least {
            return refuse("bytes", limit, used.bytes, least);
        }
        let bytes = wanted.max(least).min(left);
        used.streams += 1;
        used.bytes += bytes;
        drop(used);
        Ok(StreamHold { usage: Some(usage.clone()), bytes })
    }

    /// Bytes that the stream may be promised.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It was promised less: gives the rest back.
    pub fn shrink(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        if let Some(usage) = &self.usage {
            usage.lock().bytes -= less;
        }
    }
}

impl Drop for StreamHold {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            let mut used = usage.lock();
            used.streams -= 1;
            used.bytes -= self.bytes;
        }
    }
}

/// A job that is about to be opened; it counts when [`JobHold::keep`] is called.
#[derive(Debug)]
pub struct JobHold {
    usage: Option<Arc<Usage>>,
    job: String,
}

impl JobHold {
    pub(super) fn free() -> JobHold {
        JobHold { usage: None, job: String::new() }
    }

    /// Takes a job; those that are not open any more do not count.
    pub(super) fn take(
        token: &str,
        quota: &Quota,
        usage: &Arc<Usage>,
        job: &str,
        is_open: impl Fn(&str) -> bool,
    ) -> Result<JobHold, Denial> {
        if is_open(job) {
            return Ok(JobHold::free());
        }
        let mut used = usage.lock();
        used.kept.retain(|held| is_open(held));
        let held = used.jobs() as u64;
        if let Some(limit) = quota.jobs.filter(|limit| held >= *limit && !used.holds(job)) {
            return Err(Denial::Quota { token: token.into(), what: "jobs", limit, held, wanted: 1 });
        }
        *used.pending.entry(job.into()).or_default() += 1;
        drop(used);
        Ok(JobHold { usage: Some(usage.clone()), job: job.into() })
    }

    /// The job was opened: it counts until it is closed.
    pub fn keep(self) {
        if let Some(usage) = &self.usage {
            usage.lock().kept.insert(self.job.clone());
        }
    }
}

impl Drop for JobHold {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.lock().settle(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_bytes_are_held_until_they_are_dropped() {
        let quota = Quota { streams: Some(2), bytes: Some(Size(100)), jobs: None };
        let usage = Arc::new(Usage::default());
        let take = |wanted, least| StreamHold::take("t", &quota, &usage, (wanted, least));
        let mut first = take(70, 10).unwrap();
        let second = take(70, 10).unwrap();
        assert_eq!((first.bytes(), second.bytes(), usage.streams()), (70, 30, (2, 100)));
        let refused = take(1, 1).unwrap_err();
        assert_eq!(refused.to_string(), "token `t` holds 2 of 2 streams, 1 more is wanted");
        drop(second);
        let refused = take(70, 31).unwrap_err();
        assert_eq!(refused.to_string(), "token `t` holds 70 of 100 bytes, 31 more are wanted");
        first.shrink(40);
        assert_eq!(usage.streams(), (1, 40));
        assert_eq!(take(1, 60).unwrap().bytes(), 60);
        drop(first);
        assert_eq!(usage.streams(), (0, 0));
    }

    #[test]
    fn jobs_count_while_they_are_open() {
        let quota = Quota { streams: None, bytes: None, jobs: Some(1) };
        let usage = Arc::new(Usage::default());
        let take = |job, open: &'static [&str]| {
            JobHold::take("t", &quota, &usage, job, move |name| open.contains(&name))
        };
        drop(take("a", &[]).unwrap());
        take("a", &[]).unwrap().keep();
        assert!(take("b", &["a"]).is_err(), "one is open");
        take("a", &["a"]).unwrap().keep();
        drop(take("z", &["a", "z"]).unwrap());
        take("b", &[]).unwrap().keep();
        assert!(take("a", &["b"]).is_err(), "`a` was closed, `b` is open");
    }

    #[test]
    fn jobs_count_while_they_are_being_opened() {
        let quota = Quota { streams: None, bytes: None, jobs: Some(1) };
        let usage = Arc::new(Usage::default());
        let take = |job, open: &'static [&str]| {
            JobHold::take("t", &quota, &usage, job, move |name| open.contains(&name))
        };
        let (first, second) = (take("a", &[]).unwrap(), take("a", &[]).unwrap());
        assert!(take("b", &[]).is_err(), "`a` is about to be open");
        assert!(take("b", &[]).is_err(), "and was not forgotten by the question");
        first.keep();
        drop(second); // it found the job open
        assert!(take("b", &["a"]).is_err(), "`a` is open");
        take("b", &[]).unwrap();
    }
}
