//! What goes wrong in a keeper.

use super::{AHEAD, CourseError, TurnError};
use crate::store::StoreError;

/// A job's mixture that cannot go on, or a call that it refuses.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect, or state of another build.
    #[error(transparent)]
    Course(#[from] CourseError),
    /// A turn that is refused.
    #[error(transparent)]
    Turn(#[from] TurnError),
    /// Recorded state that this build would not have written.
    #[error("job `{job}`: record {record} of its log does not fit this build: {why}")]
    Foreign {
        /// Job.
        job: String,
        /// Number of the record.
        record: u64,
        /// What differs.
        why: String,
    },
    /// An older life of the trainer.
    #[error("attempt {given} was superseded, the current one is {current}")]
    Superseded {
        /// Attempt of the caller.
        given: u64,
        /// Current one.
        current: u64,
    },
    /// An attempt that was never opened.
    #[error("attempt {given} was not opened, the current one is {current}")]
    NoAttempt {
        /// Attempt of the caller.
        given: u64,
        /// Current one.
        current: u64,
    },
    /// The log has moved on.
    #[error("the log is at version {current}, the caller has seen {given}")]
    Version {
        /// Version of the caller.
        given: u64,
        /// Current one.
        current: u64,
    },
    /// A stream that would leave steps behind that nobody was served.
    #[error(
        "step {step} is more than {AHEAD} ahead of step {horizon}, where this learning job stands; start from a cursor of it, or replay the step to look at it"
    )]
    Skips {
        /// First step asked for.
        step: u64,
        /// First step that no stream has begun.
        horizon: u64,
    },
    /// A stream of a branch whose steps were taken back.
    #[error("the trainer went back on branch {current}, this stream is of branch {branch}; open it again")]
    Struck {
        /// Branch of the stream.
        branch: u64,
        /// Current one.
        current: u64,
    },
    /// Every group has left before a step that was to be planned.
    #[error("nothing can be planned for step {step}: every group has left")]
    AllLeft {
        /// The step.
        step: u64,
    },
    /// The job was closed.
    #[error("the job was closed")]
    Closed,
    /// A defect; the job goes on from what was durable.
    #[error("the keeper of this job failed: {0}")]
    Panic(String),
}
