//! Every error to one gRPC code. No wildcard arms: a new error must choose.

use crate::assemble::AssembleError;
use crate::auth::Denial;
use crate::job::{self, JobError, Violation};
use crate::keeper::{CourseError, KeeperError, TurnError};
use crate::source::SourceError;
use crate::store::StoreError;
use crate::stream::OutOfMemory;
use std::{collections::HashMap, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of `ErrorInfo`: the stable machine key is (domain, reason), messages are for people.
const DOMAIN: &str = "mixfeed";
/// When a refused stream may be asked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Longest message in bytes: it travels twice, in headers that clients limit to 16 KiB.
const MESSAGE_MAX: usize = 2 << 10;
/// Longest text of one field's violation.
const WHY_MAX: usize = 240;

fn info(reason: &str, facts: &[(&str, &str)]) -> ErrorDetails {
    let facts = facts.iter().map(|(name, value)| (name.to_string(), cut(value, WHY_MAX)));
    ErrorDetails::with_error_info(reason, DOMAIN, facts.collect::<HashMap<_, _>>())
}

fn status(code: Code, reason: &str, message: impl std::fmt::Display) -> Status {
    with_facts(code, reason, message, &[])
}

fn with_facts(code: Code, reason: &str, message: impl std::fmt::Display, facts: &[(&str, &str)]) -> Status {
    Status::with_error_details(code, cut(&message.to_string(), MESSAGE_MAX), info(reason, facts))
}

/// At most `most` bytes of `text`, at a character's border.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// Fields that do not fit.
pub fn invalid(violations: &[Violation]) -> Status {
    let mut details = info("INVALID_FIELD", &[]);
    for v in violations {
        details.add_bad_request_violation(cut(&v.field, WHY_MAX), cut(&v.why, WHY_MAX));
    }
    let message = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Status::with_error_details(Code::InvalidArgument, cut(&message, MESSAGE_MAX), details)
}

/// One field that does not fit.
pub fn invalid_field(field: &str, why: impl Into<String>) -> Status {
    invalid(&[Violation { field: field.into(), why: why.into() }])
}

/// A job that cannot be opened or served as asked.
pub fn of_job(error: &JobError) -> Status {
    match error {
        JobError::Invalid(violations) => invalid(violations),
        JobError::Unknown { .. } => status(Code::NotFound, "UNKNOWN_NAME", error),
        JobError::Numerics { asked } => {
            let facts = [("expected", job::NUMERICS), ("found", asked.as_str())];
            with_facts(Code::FailedPrecondition, "OTHER_NUMERICS", error, &facts)
        }
        JobError::NoDevice { built: true } => {
            let facts = [("expected", job::NUMERICS), ("found", job::TORCH)];
            with_facts(Code::FailedPrecondition, "OTHER_NUMERICS", error, &facts)
        }
        JobError::NoDevice { built: false } => status(Code::Unimplemented, "NOT_IN_THIS_BUILD", error),
        JobError::Unsupported(_) => status(Code::Unimplemented, "NOT_IN_THIS_BUILD", error),
        JobError::OtherDigest { open, given, .. } => {
            with_facts(Code::AlreadyExists, "OTHER_DIGEST", error, &[("expected", given), ("found", open)])
        }
        JobError::Expected { expected, found, .. } => with_facts(
            Code::FailedPrecondition,
            "DIGEST_MISMATCH",
            error,
            &[("expected", expected), ("found", found)],
        ),
        JobError::Position(_) => status(Code::FailedPrecondition, "POSITION", error),
        JobError::TooMany { .. } => exhausted("TOO_MANY_JOBS", error),
        JobError::Keeper(keeper) => of_keeper(keeper),
    }
}

/// A block that cannot be made.
pub fn of_assemble(error: &AssembleError) -> Status {
    match error {
        AssembleError::Source(source) => of_source(source),
        AssembleError::NoReplacement { .. } => status(Code::DataLoss, "BAD_RECORDS", error),
        AssembleError::TooManyBad { .. } => status(Code::DataLoss, "BAD_RECORDS", error),
        AssembleError::TooLarge { .. } => status(Code::ResourceExhausted, "BLOCK_TOO_LARGE", error),
        AssembleError::Differs { .. } => status(Code::DataLoss, "REPLAY_DIFFERS", error),
        AssembleError::Union(_) | AssembleError::Voxels(_) | AssembleError::Missing(_) => {
            status(Code::FailedPrecondition, "SCENES_DO_NOT_FIT", error)
        }
        // Another server may have a device that works.
        AssembleError::Device(_) => status(Code::Unavailable, "DEVICE", error),
        AssembleError::Mixer(mixer) => match mixer.of_device() {
            Some(_) => status(Code::Unavailable, "DEVICE", error),
            None => status(Code::FailedPrecondition, "MIXER", error),
        },
        AssembleError::Mixture(keeper) => of_keeper(keeper),
        AssembleError::Panic(_) => status(Code::Internal, "DEFECT", error),
    }
}

fn of_source(error: &SourceError) -> Status {
    match error {
        SourceError::Io { .. } | SourceError::Unavailable { .. } => {
            status(Code::Unavailable, "SOURCE_READ", error)
        }
        SourceError::Changed { .. } => status(Code::DataLoss, "SOURCE_CHANGED", error),
        SourceError::Format { .. } => status(Code::DataLoss, "SOURCE_FORMAT", error),
        SourceError::Declaration { .. } => status(Code::FailedPrecondition, "SOURCE_DECLARATION", error),
    }
}

/// A mixture that cannot go on, or a call that it refuses.
pub fn of_keeper(error: &KeeperError) -> Status {
    match error {
        KeeperError::Store(store) => of_store(store),
        KeeperError::Course(course) => of_course(course),
        KeeperError::Turn(turn) => match turn {
            TurnError::Ahead { .. } => status(Code::FailedPrecondition, "ATTEMPT_AHEAD", error),
            TurnError::Behind { .. } => status(Code::FailedPrecondition, "ATTEMPT_BEHIND", error),
            TurnError::Branch { .. } => status(Code::FailedPrecondition, "BRANCH", error),
            TurnError::TooFar { .. } => status(Code::FailedPrecondition, "REWIND_TOO_FAR", error),
            TurnError::Weights { .. } => status(Code::FailedPrecondition, "WEIGHTS", error),
            TurnError::Course(course) => of_course(course),
        },
        KeeperError::Foreign { .. } => status(Code::DataLoss, "OTHER_BUILD", error),
        KeeperError::Superseded { .. } => status(Code::Aborted, "SUPERSEDED", error),
        KeeperError::NoAttempt { .. } => status(Code::FailedPrecondition, "NO_ATTEMPT", error),
        KeeperError::Skips { .. } => status(Code::FailedPrecondition, "SKIPS", error),
        KeeperError::Struck { .. } => status(Code::Aborted, "STRUCK", error),
        KeeperError::Version { .. } => status(Code::Aborted, "VERSION", error),
        KeeperError::AllLeft { .. } => status(Code::FailedPrecondition, "ALL_LEFT", error),
        KeeperError::Closed => status(Code::Aborted, "CLOSED", error),
        KeeperError::Panic(_) => status(Code::Internal, "DEFECT", error),
    }
}

fn of_course(error: &CourseError) -> Status {
    match error {
        CourseError::Method(_) => status(Code::InvalidArgument, "ESTIMATOR", error),
        CourseError::Entry(_) | CourseError::Directive { .. } | CourseError::State { .. } => {
            status(Code::Internal, "DEFECT", error)
        }
    }
}

fn of_store(error: &StoreError) -> Status {
    match error {
        StoreError::InUse { .. } => status(Code::Unavailable, "STATE_IN_USE", error),
        StoreError::Io { .. } => status(Code::Unavailable, "STATE", error),
        StoreError::Conflict { .. } => status(Code::Aborted, "STATE_CONFLICT", error),
        StoreError::Damaged { .. } => status(Code::DataLoss, "STATE_DAMAGED", error),
    }
}

/// No memory for another stream; trying again helps only when it would ever fit.
pub fn of_memory(error: &OutOfMemory) -> Status {
    match error.needed > error.limit {
        true => status(
            Code::ResourceExhausted,
            "NEVER_FITS",
            format!("{error}; smaller pictures or a smaller mix_block need less"),
        ),
        false => exhausted("MEMORY", error),
    }
}

/// A caller that may not.
pub fn of_denial(denial: &Denial) -> Status {
    match denial {
        Denial::Missing => status(Code::Unauthenticated, "TOKEN_MISSING", denial),
        Denial::Unknown => status(Code::Unauthenticated, "TOKEN_UNKNOWN", denial),
        Denial::Expired { .. } => status(Code::Unauthenticated, "TOKEN_EXPIRED", denial),
        Denial::Verb { .. } => status(Code::PermissionDenied, "VERB", denial),
        Denial::Job { .. } => status(Code::PermissionDenied, "JOB", denial),
        Denial::Quota { limit, wanted, .. } if wanted > limit => {
            status(Code::ResourceExhausted, "NEVER_FITS", denial)
        }
        Denial::Quota { .. } => exhausted("QUOTA", denial),
        Denial::NoMethod { .. } => status(Code::Unimplemented, "NOT_IN_THIS_BUILD", denial),
    }
}

/// A limit of the server.
pub fn exhausted(reason: &str, message: impl std::fmt::Display) -> Status {
    let mut details = info(reason, &[]);
    details.set_retry_info(Some(RETRY));
    Status::with_error_details(Code::ResourceExhausted, cut(&message.to_string(), MESSAGE_MAX), details)
}

/// A call that took longer than it may.
pub fn overdue(limit: Duration) -> Status {
    status(Code::DeadlineExceeded, "CALL_TIMEOUT", format!("the call took longer than {limit:?}"))
}

/// The server is stopping.
pub fn draining() -> Status {
    status(Code::Unavailable, "DRAINING", "the server is stopping")
}

/// Another reader has this one's place.
pub fn fenced((job, rank, world_size, replica): &super::fence::Place) -> Status {
    let message = format!(
        "another reader of job `{job}` has taken the place of rank {rank} of {world_size}, replica {replica}"
    );
    status(Code::Aborted, "FENCED", message)
}

/// Described by the contract, served by a later release.
pub fn unimplemented(what: &str) -> Status {
    status(Code::Unimplemented, "NOT_IN_THIS_BUILD", format!("{what} is not in this build"))
}
