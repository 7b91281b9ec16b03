//! What streams did between two looks at them: the only memory that the page has.

use super::page::{Moment, Trainer};
use crate::live::{Reported, View};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Time between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(4);
/// Samples of a job that are kept: the last minutes.
const KEPT: usize = 75;
/// Samples that rates and shares are told of: the last minute.
const WINDOW: usize = 15;
/// Ranks of a job whose reports are looked at.
const RANKS: usize = 1_024;
/// Jobs that are looked at.
const JOBS: usize = 1_000;

/// One look at everything that changes.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When.
    pub at: Instant,
    /// Open streams with the rows of one of their batches.
    pub streams: Vec<(View, u64)>,
    /// What trainers reported, in all, of every open job.
    pub reported: BTreeMap<String, Vec<(u32, Reported)>>,
    /// Seconds that blocks spent in each stage, in all.
    pub busy: Vec<(&'static str, f64)>,
}

/// The samples of a server.
#[derive(Debug, Default)]
pub(super) struct History {
    at: Option<Instant>,
    streams: BTreeMap<u64, View>,
    jobs: BTreeMap<String, Trace>,
    busy: VecDeque<(Instant, Vec<(&'static str, f64)>)>,
}

/// The samples of a job.
#[derive(Debug, Default)]
struct Trace {
    moments: VecDeque<Moment>,
    reported: VecDeque<Vec<(u32, Reported)>>,
}

impl History {
    /// Takes a sample: what happened since the last one.
    pub fn take(&mut self, look: Look) {
        let seconds = self.at.map_or(0.0, |at| look.at.saturating_duration_since(at).as_secs_f64());
        self.at = Some(look.at);
        self.jobs.retain(|job, _| look.reported.contains_key(job));
        for (job, reported) in look.reported.into_iter().take(JOBS) {
            let trace = self.jobs.entry(job).or_default();
            push(&mut trace.moments, Moment { seconds, ..Moment::default() }, KEPT);
            push(&mut trace.reported, reported.into_iter().take(RANKS).collect(), WINDOW + 1);
        }
        for (view, rows) in &look.streams {
            let Some(trace) = self.jobs.get_mut(&view.who.job) else { continue };
            let moment = trace.moments.back_mut().expect("one was pushed");
            // A stream that was not there began with nothing. What one did between the last sample and its end is lost.
            let (batches, bytes, spent) = self
                .streams
                .get(&view.id)
                .map_or((0, 0, [0.0; 3]), |was| (was.batches, was.bytes, was.seconds));
            let more = view.batches.saturating_sub(batches);
            moment.batches += more;
            moment.rows += more * rows;
            moment.bytes += view.bytes.saturating_sub(bytes);
            let new = view.seconds.iter().zip(spent).map(|(now, was)| (now - was).max(0.0));
            moment.spent.iter_mut().zip(new).for_each(|(sum, more)| *sum += more);
        }
        self.streams = look.streams.into_iter().map(|(view, _)| (view.id, view)).collect();
        push(&mut self.busy, (look.at, look.busy), WINDOW + 1);
    }

    /// Samples of a job, the oldest first, and the last minute as one. The first one has no length and is left out.
    pub fn trace(&self, job: &str) -> (Vec<Moment>, Moment) {
        let Some(trace) = self.jobs.get(job) else { return Default::default() };
        let known: Vec<Moment> = trace.moments.iter().filter(|m| m.seconds > 0.0).copied().collect();
        let lately = known.iter().rev().take(WINDOW).fold(Moment::default(), |sum, m| Moment {
            seconds: sum.seconds + m.seconds,
            batches: sum.batches + m.batches,
            rows: sum.rows + m.rows,
            bytes: sum.bytes + m.bytes,
            spent: std::array::from_fn(|i| sum.spent[i] + m.spent[i]),
        });
        (known, lately)
    }

    /// What the ranks of a job reported.
    pub fn trainers(&self, job: &str) -> Vec<Trainer> {
        let Some(trace) = self.jobs.get(job) else { return Vec::new() };
        let (Some(first), Some(last)) = (trace.reported.front(), trace.reported.back()) else {
            return Vec::new();
        };
        let before: BTreeMap<u32, Reported> = first.iter().copied().collect();
        let trainer = |(rank, now): &(u32, Reported)| {
            let was = before.get(rank).copied().unwrap_or_default();
            let (wait, active) =
                (now.wait_seconds - was.wait_seconds, now.active_seconds - was.active_seconds);
            Trainer {
                rank: *rank,
                steps: now.steps,
                waited: share(now.wait_seconds, now.active_seconds).unwrap_or(0.0),
                lately: share(wait, active),
            }
        };
        last.iter().map(trainer).collect()
    }

    /// Blocks in each stage at a time, on average over the last minute, and the seconds that this is.
    pub fn stages(&self) -> (Vec<(&'static str, f64)>, f64) {
        let (Some((from, first)), Some((to, last))) = (self.busy.front(), self.busy.back()) else {
            return Default::default();
        };
        let seconds = to.saturating_duration_since(*from).as_secs_f64();
        let of = |((name, was), (_, now)): (&(&'static str, f64), &(&'static str, f64))| {
            (*name, if seconds > 0.0 { ((now - was) / seconds).max(0.0) } else { 0.0 })
        };
        (first.iter().zip(last).map(of).collect(), seconds)
    }
}

/// Share of waiting; `None` of no time.
fn share(wait: f64, active: f64) -> Option<f64> {
    let all = wait + active;
    (all > 0.0 && all.is_finite()).then(|| (wait / all).clamp(0.0, 1.0))
}

fn push<T>(onto: &mut VecDeque<T>, value: T, most: usize) {
    if onto.len() == most {
        onto.pop_front();
    }
    onto.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Wait, Who};

    fn view(id: u64, batches: u64, seconds: [f64; 3]) -> (View, u64) {
        let who =
            Who { job: "a".into(), call: "StreamBatches", rank: 0, world_size: 1, replica: String::new() };
        let view = View {
            id,
            who,
            age: Duration::ZERO,
            step: batches,
            batches,
            bytes: batches * 10,
            wait: (Wait::Making, Duration::ZERO),
            seconds,
        };
        (view, 8)
    }

    fn look(at: Instant, streams: Vec<(View, u64)>, told: f64) -> Look {
        let reported = Reported { wait_seconds: told, active_seconds: told * 3.0, steps: told as u64 };
        let reported = BTreeMap::from([("a".to_owned(), vec![(0, reported)])]);
        Look { at, streams, reported, busy: vec![("read", told), ("decode", told * 2.0)] }
    }

    #[test]
    fn rates_come_from_differences() {
        let (mut history, start) = (History::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        history.take(look(start, vec![view(1, 100, [5.0, 0.0, 5.0])], 10.0));
        assert!(history.trace("a").0.is_empty() && history.trace("b").0.is_empty());
        history.take(look(at(4), vec![view(1, 120, [6.0, 0.0, 8.0]), view(2, 3, [1.0, 1.0, 0.0])], 14.0));
        let (trace, lately) = history.trace("a");
        assert_eq!(trace.len(), 1);
        assert_eq!((lately.seconds, lately.batches, lately.rows, lately.bytes), (4.0, 23, 184, 230));
        assert_eq!(lately.spent, [2.0, 1.0, 3.0]);
        assert_eq!(lately.shares().map(|s| s.map(|s| (s * 6.0).round())), Some([2.0, 1.0, 3.0]));
        // Stream 1 has gone; nothing is counted backwards.
        history.take(look(at(8), vec![view(2, 3, [1.0, 5.0, 0.0])], 14.0));
        assert_eq!(history.trace("a").0[1].spent, [0.0, 4.0, 0.0]);
        let trainer = history.trainers("a")[0];
        assert_eq!((trainer.steps, trainer.waited, trainer.lately), (14, 0.25, Some(0.25)));
        assert_eq!(history.stages(), (vec![("read", 0.5), ("decode", 1.0)], 8.0));
    }

    #[test]
    fn memory_is_bounded_and_closed_jobs_are_forgotten() {
        let (mut history, start) = (History::default(), Instant::now());
        for i in 0..200 {
            let streams = vec![view(i, i, [i as f64, 0.0, 0.0])];
            history.take(look(start + Duration::from_secs(i), streams, 0.0));
        }
        let (trace, lately) = history.trace("a");
        assert_eq!((trace.len(), lately.seconds), (KEPT, WINDOW as f64));
        assert!(history.busy.len() == WINDOW + 1 && history.streams.len() == 1);
        assert_eq!(history.trainers("a")[0].lately, None);
        history
            .take(Look { reported: BTreeMap::new(), ..look(start + Duration::from_secs(300), vec![], 0.0) });
        assert!(history.jobs.is_empty() && history.streams.is_empty());
    }
}
