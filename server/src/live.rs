//! Who reads, what each reader waits for, and what went wrong lately: read by metrics and the status page.

mod clock;

pub use clock::Doing;

use clock::Clock;
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
/// Characters of a problem's text, and of its subject.
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
    /// Which of the readers of a rank, as it says; empty for calls that do not ask.
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
    /// Time of streams that were closed, by job, until it is taken.
    closed: Mutex<BTreeMap<String, [Duration; 3]>>,
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

/// An open stream; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    slot: Arc<Slot>,
    live: Arc<Live>,
}

/// The making half of a stream, which tells what it waits for; outlives the stream without harm.
#[derive(Debug)]
pub struct Maker(Arc<Slot>);

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
            clock: Mutex::new(Clock::new(now)),
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

    /// Seconds that the streams of each job waited since the last call, the closed ones and those that still wait too.
    /// Each second is in one answer.
    pub fn take_seconds(&self) -> Vec<(String, Wait, f64)> {
        // Under one lock: a stream that is closed meanwhile is in one of the two.
        let streams = lock(&self.streams);
        let mut all = std::mem::take(&mut *lock(&self.closed));
        let now = Instant::now();
        for slot in streams.values() {
            add(&mut all, &slot.who.job, lock(&slot.clock).take(now));
        }
        drop(streams);
        let of = |(job, spent): (String, [Duration; 3])| {
            Wait::ALL.map(|wait| (job.clone(), wait, spent[wait as usize].as_secs_f64()))
        };
        all.into_iter().flat_map(of).filter(|(_, _, seconds)| *seconds > 0.0).collect()
    }

    /// Remembers a problem; the oldest ones are forgotten. One that is remembered already is one of now.
    pub fn problem(&self, subject: &str, text: &str) {
        let cut = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let problem = Problem { at: SystemTime::now(), subject: cut(subject), text: cut(text) };
        let mut problems = lock(&self.problems);
        problems.retain(|known| (&known.subject, &known.text) != (&problem.subject, &problem.text));
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

/// Adds to a job's times.
fn add(all: &mut BTreeMap<String, [Duration; 3]>, job: &str, more: [Duration; 3]) {
    match all.get_mut(job) {
        Some(sum) => sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
        None => drop(all.insert(job.into(), more)),
    }
}

impl Slot {
    fn view(&self, id: u64, now: Instant) -> View {
        let clock = lock(&self.clock);
        View {
            id,
            who: self.who.clone(),
            age: now.saturating_duration_since(self.opened),
            step: self.step.load(Relaxed),
            batches: self.batches.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            wait: (clock.wait(), clock.running(now)),
            seconds: clock.spent(now).map(|spent| spent.as_secs_f64()),
        }
    }
}

impl Maker {
    /// The making half waits for something else now. It is what the stream waits for while nothing is on its way.
    pub fn waits(&self, wait: Wait) {
        lock(&self.0.clock).ahead(Instant::now(), wait);
    }
}

impl Stream {
    /// The sending half does something else now.
    pub fn doing(&self, doing: Doing) {
        lock(&self.slot.clock).doing(Instant::now(), doing);
    }

    /// For the half that makes ahead.
    pub fn maker(&self) -> Maker {
        Maker(self.slot.clone())
    }

    /// Something went wrong on this stream.
    pub fn problem(&self, text: &str) {
        let Who { job, call, rank, .. } = &self.slot.who;
        self.live.problem(job, &format!("{call}, rank {rank}: {text}"));
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
        let mut streams = lock(&self.live.streams);
        streams.remove(&self.id);
        let rest = lock(&self.slot.clock).take(Instant::now());
        add(&mut lock(&self.live.closed), &self.slot.who.job, rest);
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
        first.doing(Doing::Sending);
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
    fn seconds_of_open_and_closed_streams_are_taken_once() {
        let live = Arc::new(Live::default());
        let before = Instant::now();
        let (first, second) = (live.open(who(0), 7), live.open(who(1), 7));
        let maker = second.maker();
        let mut sum = 0.0;
        while sum < 0.05 {
            maker.waits(Wait::Barrier);
            sum += live.take_seconds().iter().map(|(_, _, seconds)| seconds).sum::<f64>();
            maker.waits(Wait::Making);
        }
        assert!(sum <= 2.0 * before.elapsed().as_secs_f64() + 1e-6, "{sum}");
        let seen: f64 = live.streams().iter().flat_map(|view| view.seconds).sum();
        drop((first, second));
        maker.waits(Wait::Barrier); // told too late: nobody looks any more
        sum += live.take_seconds().iter().map(|(_, _, seconds)| seconds).sum::<f64>();
        assert!(sum >= seen - 1e-6, "the rest is there too");
        assert!(live.take_seconds().is_empty() && live.streams().is_empty());
    }

    #[test]
    fn problems_and_reports_are_bounded_and_summed() {
        let live = Live::default();
        (0..60).for_each(|i| live.problem("source a", &format!("{i}{}", "x".repeat(1000))));
        let problems = live.problems();
        assert_eq!((problems.len(), problems[0].text.len()), (MAX_PROBLEMS, MAX_TEXT));
        assert!(problems[0].text.starts_with("59"));
        live.problem("source a", &problems[5].text);
        assert_eq!(live.problems()[0].text, problems[5].text);
        assert_eq!(live.problems().iter().filter(|p| p.text == problems[5].text).count(), 1);
        let half = Reported { wait_seconds: 0.5, active_seconds: 1.0, steps: 3 };
        live.report("a", 1, half);
        live.report("a", 1, half);
        live.report("b", 0, half);
        assert_eq!(live.reported("a"), [(1, Reported { wait_seconds: 1.0, active_seconds: 2.0, steps: 6 })]);
        live.forget("a");
        assert!(live.reported("a").is_empty() && live.reported("b").len() == 1);
    }
}
