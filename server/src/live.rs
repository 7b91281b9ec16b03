//! Who reads, what each reader waits for, and what went wrong lately: read by metrics and the status page.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// Problems that are remembered.
const MAX_PROBLEMS: usize = 50;
/// Characters of a problem's text.
const MAX_TEXT: usize = 300;

/// What a stream is waiting for. Exactly one holds at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The server: blocks of the next batch are read, decoded or mixed.
    Making,
    /// Reports or a decision that the mixture waits for.
    Barrier,
    /// The client or the network: frames are ready and nobody takes them.
    Sending,
}

impl Wait {
    /// All of them.
    pub const ALL: [Wait; 3] = [Wait::Making, Wait::Barrier, Wait::Sending];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Making => "making",
            Wait::Barrier => "barrier",
            Wait::Sending => "sending",
        }
    }
}

/// Who opened a stream, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Job.
    pub job: String,
    /// Call: "StreamBatches", "StreamEvalSet", "ReplayBatch".
    pub call: &'static str,
    /// Rank, < world_size.
    pub rank: u32,
    /// Ranks.
    pub world_size: u32,
    /// Name that the trainer gave itself; may be empty.
    pub replica: String,
}

/// What a trainer said of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    /// Seconds that it waited for batches.
    pub wait_seconds: f64,
    /// Seconds that it did something else.
    pub active_seconds: f64,
    /// Steps that it took.
    pub steps: u64,
}

/// An open stream as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Number of the stream in this process, from 1.
    pub id: u64,
    /// Who reads.
    pub who: Who,
    /// How long it is open.
    pub age: Duration,
    /// The step that is made or sent.
    pub step: u64,
    /// Batches sent to their end.
    pub batches: u64,
    /// Tensor bytes of those.
    pub bytes: u64,
    /// What it waits for now, and how long.
    pub wait: (Wait, Duration),
    /// Seconds in each of [`Wait::ALL`], until now.
    pub seconds: [f64; 3],
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// When.
    pub at: SystemTime,
    /// Job, source or place.
    pub subject: String,
    /// What, for people.
    pub text: String,
}

/// Open streams and recent problems of a server.
#[derive(Debug, Default)]
pub struct Live {
    next: AtomicU64,
    streams: Mutex<BTreeMap<u64, Arc<Slot>>>,
    problems: Mutex<VecDeque<Problem>>,
    /// What trainers reported, by (job, rank).
    reported: Mutex<BTreeMap<(String, u32), Reported>>,
}

/// What of a stream changes.
#[derive(Debug)]
struct Slot {
    who: Who,
    opened: Instant,
    step: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    clock: Mutex<Clock>,
}

#[derive(Debug)]
struct Clock {
    wait: Wait,
    since: Instant,
    spent: [Duration; 3],
}

/// An open stream; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    slot: Arc<Slot>,
    live: Arc<Live>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// A stream was opened; it waits for its first batch.
    pub fn open(self: &Arc<Self>, who: Who, from: u64) -> Stream {
        let now = Instant::now();
        let slot = Arc::new(Slot {
            who,
            opened: now,
            step: AtomicU64::new(from),
            batches: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            clock: Mutex::new(Clock { wait: Wait::Making, since: now, spent: [Duration::ZERO; 3] }),
        });
        let id = self.next.fetch_add(1, Relaxed) + 1;
        lock(&self.streams).insert(id, slot.clone());
        Stream { id, slot, live: self.clone() }
    }

    /// Open streams in the order of their opening.
    pub fn streams(&self) -> Vec<View> {
        let now = Instant::now();
        lock(&self.streams).iter().map(|(id, slot)| slot.view(*id, now)).collect()
    }

    /// Remembers a problem; the oldest ones are forgotten.
    pub fn problem(&self, subject: &str, text: &str) {
        let text = text.chars().take(MAX_TEXT).collect();
        let problem = Problem { at: SystemTime::now(), subject: subject.into(), text };
        let mut problems = lock(&self.problems);
        if problems.len() == MAX_PROBLEMS {
            problems.pop_front();
        }
        problems.push_back(problem);
    }

    /// Recent problems, the newest first.
    pub fn problems(&self) -> Vec<Problem> {
        lock(&self.problems).iter().rev().cloned().collect()
    }

    /// Adds what a trainer reported of itself.
    pub fn report(&self, job: &str, rank: u32, more: Reported) {
        let mut reported = lock(&self.reported);
        let sum = reported.entry((job.into(), rank)).or_default();
        sum.wait_seconds += more.wait_seconds;
        sum.active_seconds += more.active_seconds;
        sum.steps += more.steps;
    }

    /// What the ranks of `job` reported, in all, by rank.
    pub fn reported(&self, job: &str) -> Vec<(u32, Reported)> {
        let all = lock(&self.reported);
        all.iter().filter(|((of, _), _)| of == job).map(|((_, rank), sum)| (*rank, *sum)).collect()
    }

    /// Forgets what trainers of `job` reported: it was closed.
    pub fn forget(&self, job: &str) {
        lock(&self.reported).retain(|(of, _), _| of != job);
    }
}

impl Slot {
    fn view(&self, id: u64, now: Instant) -> View {
        let clock = lock(&self.clock);
        let running = now.saturating_duration_since(clock.since);
        let seconds = Wait::ALL.map(|wait| {
            let more = if wait == clock.wait { running } else { Duration::ZERO };
            (clock.spent[wait as usize] + more).as_secs_f64()
        });
        View {
            id,
            who: self.who.clone(),
            age: now.saturating_duration_since(self.opened),
            step: self.step.load(Relaxed),
            batches: self.batches.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            wait: (clock.wait, running),
            seconds,
        }
    }
}

impl Stream {
    /// It waits for something else now; returns what it waited for until now, and how long.
    pub fn waits(&self, wait: Wait) -> (Wait, Duration) {
        let now = Instant::now();
        let mut clock = lock(&self.slot.clock);
        let spent = now.saturating_duration_since(clock.since);
        let was = clock.wait;
        clock.spent[was as usize] += spent;
        (clock.wait, clock.since) = (wait, now);
        (was, spent)
    }

    /// A batch was sent to its end; `next` is the step after it.
    pub fn sent(&self, next: u64, bytes: u64) {
        self.slot.step.store(next, Relaxed);
        self.slot.batches.fetch_add(1, Relaxed);
        self.slot.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        lock(&self.live.streams).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(rank: u32) -> Who {
        Who { job: "a".into(), call: "StreamBatches", rank, world_size: 2, replica: String::new() }
    }

    #[test]
    fn a_stream_is_seen_until_it_is_dropped_and_its_seconds_add_up() {
        let live = Arc::new(Live::default());
        let (first, second) = (live.open(who(0), 7), live.open(who(1), 7));
        assert_eq!(first.waits(Wait::Sending).0, Wait::Making);
        first.sent(8, 100);
        let seen = live.streams();
        assert_eq!(
            seen.iter().map(|v| (v.id, v.who.rank, v.step)).collect::<Vec<_>>(),
            [(1, 0, 8), (2, 1, 7)]
        );
        assert_eq!((seen[0].batches, seen[0].bytes, seen[0].wait.0), (1, 100, Wait::Sending));
        let all: f64 = seen[0].seconds.iter().sum();
        assert!((all - seen[0].age.as_secs_f64()).abs() < 1e-3, "{seen:?}");
        drop(second);
        assert_eq!(live.streams().len(), 1);
    }

    #[test]
    fn problems_and_reports_are_bounded_and_summed() {
        let live = Live::default();
        (0..60).for_each(|i| live.problem("source a", &format!("{i}{}", "x".repeat(1000))));
        let problems = live.problems();
        assert_eq!((problems.len(), problems[0].text.len()), (MAX_PROBLEMS, MAX_TEXT));
        assert!(problems[0].text.starts_with("59"));
        let half = Reported { wait_seconds: 0.5, active_seconds: 1.0, steps: 3 };
        live.report("a", 1, half);
        live.report("a", 1, half);
        live.report("b", 0, half);
        assert_eq!(live.reported("a"), [(1, Reported { wait_seconds: 1.0, active_seconds: 2.0, steps: 6 })]);
        live.forget("a");
        assert!(live.reported("a").is_empty() && live.reported("b").len() == 1);
    }
}
