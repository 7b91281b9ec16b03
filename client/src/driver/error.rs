//! What a run ends with.

use super::TrainerError;
use crate::{Error, Outcome, learn::ReportKind};

/// What a run can end with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// A call or the stream failed. The run may be continued when the error may pass.
    #[error(transparent)]
    Client(#[from] Error),
    /// The trainer's own code failed.
    #[error("trainer cannot {what}: {source}")]
    Trainer {
        /// What it was asked to do.
        what: String,
        /// Its words.
        source: TrainerError,
    },
    /// A newer attempt has taken the job over.
    #[error("attempt {attempt} was superseded: {message}")]
    Fenced {
        /// This driver's attempt.
        attempt: u64,
        /// The server's words.
        message: String,
    },
    /// A report was refused, or conflicts with one that was counted.
    #[error("report {} on segment {segment} is {outcome}: {message}", kind.as_str_name())]
    Refused {
        /// What was reported.
        kind: ReportKind,
        /// Segment.
        segment: u64,
        /// Why: `Rejected` with its reason, or `Conflict`.
        outcome: Outcome,
        /// The server's words.
        message: String,
    },
    /// A report is due that the trainer does not measure.
    #[error("report {} is due after {step} steps, but the trainer does not measure it", kind.as_str_name())]
    Unsupported {
        /// What is due; `Unspecified` for a kind that this client does not know.
        kind: ReportKind,
        /// Steps completed.
        step: u64,
    },
    /// The trainer gave a vector of another length.
    #[error("trainer gave {found} numbers for {}, expected {expected}", kind.as_str_name())]
    Length {
        /// What it is for.
        kind: ReportKind,
        /// Its length.
        found: usize,
        /// Groups, tasks or candidates.
        expected: usize,
    },
    /// A held-out set came with another number of rows than the job says.
    #[error("held-out set of `{group}` has {found} rows, expected {expected}")]
    EvalSet {
        /// "SOURCE/GROUP".
        group: String,
        /// Rows that came.
        found: u64,
        /// Rows of the set.
        expected: u64,
    },
    /// An earlier run failed, or was dropped, in the middle of a step: open another driver from a checkpoint.
    #[error("an earlier run ended in the middle of a step; open another driver from a checkpoint")]
    Interrupted,
}
