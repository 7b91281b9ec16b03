//! What a driver is told and what it tells.

use crate::{
    Cursor, EndOfJob,
    learn::{OpenAttemptResponse, ResumeAttempt},
};

/// Options of a [`Driver`](super::Driver).
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// This trainer's rank, `0..world_size`. Those below the job's `reporters` report.
    pub rank: u32,
    /// Ranks that share each step.
    pub world_size: u32,
    /// Number of this reader among those that read the same rank; only number 0 reports.
    pub replica: u32,
    /// Position from the trainer's checkpoint; `None` is step 0.
    pub start: Option<Cursor>,
    /// What to do with what was learnt after it.
    pub resume: ResumeAttempt,
    /// The attempt, when another rank has opened it: each rank that opens one fences the others.
    pub attempt: Option<OpenAttemptResponse>,
    /// Evaluate when it is due even on ranks that do not report, for trainers that evaluate together.
    pub evaluate_always: bool,
    /// Rows of one batch of evaluation over `eval_world_size`; 0 means the job's `global_batch`.
    pub eval_batch: u32,
    /// This rank's part of the held-out sets, `0..eval_world_size`.
    pub eval_rank: u32,
    /// Ranks that share the held-out sets; 1, the default, reads all of them.
    pub eval_world_size: u32,
    /// Bytes of held-out tensors to keep in memory; sets beyond it are streamed again each time. Default 256 MiB.
    pub eval_memory: u64,
    /// Whether a refused or conflicting report is only logged and counted. Default: it ends the run.
    pub lenient: bool,
}

impl Default for DriverOptions {
    fn default() -> Self {
        DriverOptions {
            rank: 0,
            world_size: 1,
            replica: 0,
            start: None,
            resume: ResumeAttempt::Unspecified,
            attempt: None,
            evaluate_always: false,
            eval_batch: 0,
            eval_rank: 0,
            eval_world_size: 1,
            eval_memory: 256 << 20,
            lenient: false,
        }
    }
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps whose updates are in the trainer's weights.
    pub completed: u64,
    /// Set when the job is over.
    pub end: Option<EndOfJob>,
}

/// What a driver has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverStats {
    /// Steps.
    pub steps: u64,
    /// Passes over all held-out sets.
    pub evaluations: u64,
    /// Reports that count, duplicates among them.
    pub counted: u64,
    /// Of those, the ones whose first answer was lost.
    pub duplicates: u64,
    /// Reports about segments that were closed before.
    pub stale: u64,
    /// Refused or conflicting reports.
    pub refused: u64,
}
