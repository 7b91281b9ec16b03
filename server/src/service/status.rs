//! Every error to one gRPC code. No wildcard arms: a new error must choose.

use crate::assemble::AssembleError;
use crate::job::{JobError, Violation};
use crate::source::SourceError;
use crate::stream::OutOfMemory;
use std::{collections::HashMap, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of `ErrorInfo`: the stable machine key is (domain, reason), messages are for people.
const DOMAIN: &str = "mixfeed";
/// When a refused stream may be asked for again.
const RETRY: Duration = Duration::from_secs(5);

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

fn status(code: Code, reason: &str, message: impl std::fmt::Display) -> Status {
    Status::with_error_details(code, message.to_string(), info(reason))
}

/// Fields that do not fit.
pub fn invalid(violations: &[Violation]) -> Status {
    let mut details = info("INVALID_FIELD");
    for v in violations {
        details.add_bad_request_violation(&v.field, &v.why);
    }
    let message = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Status::with_error_details(Code::InvalidArgument, message, details)
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
        JobError::Numerics { .. } => status(Code::FailedPrecondition, "OTHER_NUMERICS", error),
        JobError::Unsupported(_) => status(Code::Unimplemented, "NOT_IN_THIS_BUILD", error),
        JobError::OtherDigest { .. } => status(Code::AlreadyExists, "OTHER_DIGEST", error),
        JobError::Expected { .. } => status(Code::FailedPrecondition, "DIGEST_MISMATCH", error),
        JobError::Position(_) => status(Code::FailedPrecondition, "POSITION", error),
        JobError::TooMany { .. } => exhausted("TOO_MANY_JOBS", error),
    }
}

/// A block that cannot be made.
pub fn of_assemble(error: &AssembleError) -> Status {
    match error {
        AssembleError::Source(source) => of_source(source),
        AssembleError::NoReplacement { .. } => status(Code::DataLoss, "BAD_RECORDS", error),
        AssembleError::TooManyBad { .. } => status(Code::DataLoss, "BAD_RECORDS", error),
        AssembleError::Panic(_) => status(Code::Internal, "DEFECT", error),
    }
}

fn of_source(error: &SourceError) -> Status {
    match error {
        SourceError::Io { .. } => status(Code::Unavailable, "SOURCE_READ", error),
        SourceError::Changed { .. } => status(Code::DataLoss, "SOURCE_CHANGED", error),
        SourceError::Format { .. } => status(Code::DataLoss, "SOURCE_FORMAT", error),
        SourceError::Declaration { .. } => status(Code::FailedPrecondition, "SOURCE_DECLARATION", error),
    }
}

/// No memory for another stream.
pub fn of_memory(error: &OutOfMemory) -> Status {
    exhausted("MEMORY", error)
}

/// A limit of the server.
pub fn exhausted(reason: &str, message: impl std::fmt::Display) -> Status {
    let mut details = info(reason);
    details.set_retry_info(Some(RETRY));
    Status::with_error_details(Code::ResourceExhausted, message.to_string(), details)
}

/// The server is stopping.
pub fn draining() -> Status {
    status(Code::Unavailable, "DRAINING", "the server is stopping")
}

/// Described by the contract, served by a later release.
pub fn unimplemented(what: &str) -> Status {
    status(Code::Unimplemented, "NOT_IN_THIS_BUILD", format!("{what} is not in this build"))
}
