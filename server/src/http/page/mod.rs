//! The status page as text: plain data in, HTML out. No clock, no locks, no I/O.
//!
//! ```text
//! facts -> Overview, JobPage -> (verdict: what it means) -> overview, job -> (html: escaped by construction) -> String
//! ```

mod format;
mod html;
mod job;
mod overview;
mod parts;
#[cfg(test)]
mod tests;
mod verdict;

pub(super) use format::quoted;
pub use verdict::{Drift, Verdict};

use crate::live::{Problem, View, Wait};
use std::time::Duration;

/// Looks of every page; has no texts.
pub const STYLE: &str = include_str!("style.css");

/// The call that feeds trainers; others read eval sets, or a batch again.
pub const TRAINING: &str = "StreamBatches";

/// Seconds until a page that follows asks again.
pub const REFRESH: u64 = 5;

/// What holds for the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// Version of the program.
    pub version: &'static str,
    /// Rules of its bytes.
    pub numerics: &'static str,
    /// Since it started.
    pub uptime: Duration,
    /// Whether it is stopping.
    pub draining: bool,
    /// Bytes promised to streams, and the most that may be.
    pub memory: (u64, u64),
    /// CPU threads.
    pub threads: usize,
    /// Seconds over which rates and shares are told.
    pub window: f64,
    /// Blocks that were in each stage at a time, on average over the window.
    pub stages: Vec<(&'static str, f64)>,
    /// Whether pages load themselves anew.
    pub follow: bool,
}

/// One sample of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Seconds that it covers.
    pub seconds: f64,
    /// Batches, rows and tensor bytes sent in them.
    pub batches: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Seconds that its streams spent in each of [`Wait::ALL`], all together.
    pub spent: [f64; 3],
}

impl Moment {
    /// Shares of [`Wait::ALL`]; `None` when no stream was open.
    pub fn shares(&self) -> Option<[f64; 3]> {
        let all: f64 = self.spent.iter().sum();
        (all > 0.0).then(|| self.spent.map(|spent| spent / all))
    }
}

/// What a rank reported of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trainer {
    /// Rank.
    pub rank: u32,
    /// Steps since the job was opened.
    pub steps: u64,
    /// Share of its time that it waited for batches, since then.
    pub waited: f64,
    /// The same over the window; `None` when it reported nothing in it.
    pub lately: Option<f64>,
}

/// What its mixture is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mixture {
    /// "given", "serving", "waiting for reports", ...
    pub status: &'static str,
    /// Name of the estimator; "" when weights are given.
    pub estimator: String,
    /// Entries of the log.
    pub version: u64,
    /// First step that nobody has begun.
    pub horizon: u64,
    /// Attempt of the trainer.
    pub attempt: u64,
    /// Rows served.
    pub rows: u64,
    /// Whether shares are of tokens, so that shares of rows are no measure.
    pub by_tokens: bool,
    /// Groups in the order of the job.
    pub groups: Vec<Group>,
    /// Reports by outcome.
    pub reports: Vec<(String, u64)>,
}

/// A group of a job's mixture; shares are 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// "SOURCE/GROUP".
    pub name: String,
    /// Share that is asked for now.
    pub now: f64,
    /// Share that was asked for, on average over all steps served.
    pub asked: f64,
    /// Share that was served; `None` where rows are no measure, or none was.
    pub served: Option<f64>,
    /// Epochs served.
    pub epochs: f64,
    /// Held-out loss as last reported, nats.
    pub loss: Option<f64>,
    /// (asked, served) of equal stretches of steps from 0 to the horizon.
    pub track: Vec<(f64, Option<f64>)>,
}

/// The last batch that was sent, as far as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum LastBatch {
    /// Why there is none.
    Message(String),
    /// Pictures in a grid, all in one PNG.
    Pictures {
        /// Step.
        step: u64,
        /// Pictures side by side.
        columns: usize,
        /// Rows and columns of pixels of a picture.
        size: (u32, u32),
        /// One for each picture: what it is.
        captions: Vec<String>,
    },
    /// Rows of tokens.
    Tokens {
        /// Step.
        step: u64,
        /// (group, excerpt) of each row.
        rows: Vec<(String, String)>,
    },
}

/// What is known of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Name.
    pub name: String,
    /// "pictures 224 x 224", "tokens, rows of 512", "scenes".
    pub kind: String,
    /// Rows of a batch of all ranks.
    pub batch: u64,
    /// Policies that mix rows; empty where none does.
    pub policies: Vec<String>,
    /// The step after the last one sent; `None` before any was.
    pub step: Option<u64>,
    /// Steps in all; `None` without end.
    pub steps: Option<u64>,
    /// Epoch of the schedule.
    pub epoch: f64,
    /// Its open streams.
    pub streams: Vec<View>,
    /// Samples, the oldest first.
    pub trace: Vec<Moment>,
    /// The window at the end of the trace, as one.
    pub lately: Moment,
    /// Ranks that report.
    pub trainers: Vec<Trainer>,
    /// Its mixture, or why nothing is known of it.
    pub mixture: Result<Mixture, String>,
}

/// The page of all jobs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// The server.
    pub server: Server,
    /// Jobs by name.
    pub jobs: Vec<Job>,
    /// Problems, the newest first, with their age.
    pub problems: Vec<(Duration, Problem)>,
}

/// The page of one job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPage {
    /// The server.
    pub server: Server,
    /// The job.
    pub job: Job,
    /// Its last batch.
    pub last: LastBatch,
    /// Problems of it, the newest first, with their age.
    pub problems: Vec<(Duration, Problem)>,
}
