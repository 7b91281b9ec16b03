//! What can go wrong, by what the caller can do about it.

use std::{collections::BTreeMap, fmt, time::Duration};

/// One field that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, `mix.policies[0].params`.
    pub field: String,
    /// What was expected.
    pub description: String,
}

/// A 32-byte digest, shown as hex; empty when the other side did not tell it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Digest(pub Vec<u8>);

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Everything a call or a stream can end with. Those that pass by themselves were already retried for
/// [`ClientOptions::patience`](crate::ClientOptions) when the caller sees them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint, an option or an argument that cannot be used.
    #[error("`{name}`: {reason}")]
    Argument {
        /// Endpoint, option or argument.
        name: String,
        /// What was expected.
        reason: String,
    },
    /// The server refused fields of the request (INVALID_ARGUMENT, OUT_OF_RANGE).
    #[error("invalid request: {message}{}", ViolationList(violations))]
    Invalid {
        /// The server's words.
        message: String,
        /// The fields, may be empty.
        violations: Vec<Violation>,
    },
    /// The server does not know the job, group or source.
    #[error("not found: {message}")]
    NotFound {
        /// The server's words.
        message: String,
    },
    /// The job of this name is another one than expected.
    #[error("another job has this name: {message} (expected digest `{expected}`, found `{found}`)")]
    OtherDigest {
        /// What was compared.
        message: String,
        /// Digest that was remembered or asked for.
        expected: Digest,
        /// Digest of the server's job.
        found: Digest,
    },
    /// Cursor of another spec or branch, other numerics, other data.
    #[error("failed precondition: {message}")]
    FailedPrecondition {
        /// The server's words.
        message: String,
        /// Stable machine key, `CURSOR_SPEC_MISMATCH`; empty when not told.
        reason: String,
        /// What the server adds, by name.
        details: BTreeMap<String, String>,
    },
    /// A quota or budget of the server is used up.
    #[error("exhausted: {message}")]
    Exhausted {
        /// The server's words.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// Records cannot be served: too many bad ones, or the data changed.
    #[error("data loss: {message}")]
    DataLoss {
        /// The server's words, naming source and record.
        message: String,
    },
    /// The job was closed or this reader was superseded.
    #[error("aborted: {message}")]
    Aborted {
        /// The server's words.
        message: String,
    },
    /// No endpoint could be reached or served for the whole patience.
    #[error("unavailable: {message}")]
    Unavailable {
        /// Last reason.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// The server's build lacks this.
    #[error("unimplemented: {message}")]
    Unimplemented {
        /// The server's words.
        message: String,
    },
    /// Token missing, wrong, or not allowed to do this.
    #[error("denied: {message}")]
    Denied {
        /// The server's words.
        message: String,
    },
    /// The server failed in a way that it has no better code for.
    #[error("server error {code}: {message}")]
    Server {
        /// gRPC status code.
        code: i32,
        /// The server's words.
        message: String,
    },
    /// A tensor arrived with other bytes than the server sent, twice.
    #[error("tensor `{tensor}` of step {step} is corrupt: crc32c {found:#010x}, expected {expected:#010x}")]
    Corrupt {
        /// Step.
        step: u64,
        /// Tensor.
        tensor: String,
        /// Checksum that the server sent.
        expected: u32,
        /// Checksum of the bytes that arrived.
        found: u32,
    },
    /// The server does not keep to the contract.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// Nothing arrived in time.
    #[error("timed out: {what} took longer than {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// A tensor is not of the asked kind, or the batch lacks it.
    #[error("tensor `{tensor}` is {found}, expected {expected}")]
    Tensor {
        /// Name.
        tensor: String,
        /// What it is.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

impl Error {
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Error::Unavailable { message: message.into(), retry_after: None }
    }

    /// Name of the variant, `Unavailable`, for languages that know errors by name.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Argument { .. } => "Argument",
            Error::Invalid { .. } => "Invalid",
            Error::NotFound { .. } => "NotFound",
            Error::OtherDigest { .. } => "OtherDigest",
            Error::FailedPrecondition { .. } => "FailedPrecondition",
            Error::Exhausted { .. } => "Exhausted",
            Error::DataLoss { .. } => "DataLoss",
            Error::Aborted { .. } => "Aborted",
            Error::Unavailable { .. } => "Unavailable",
            Error::Unimplemented { .. } => "Unimplemented",
            Error::Denied { .. } => "Denied",
            Error::Server { .. } => "Server",
            Error::Corrupt { .. } => "Corrupt",
            Error::Protocol(_) => "Protocol",
            Error::Timeout { .. } => "Timeout",
            Error::Tensor { .. } => "Tensor",
        }
    }

    /// True when the same call may succeed later or elsewhere.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Unavailable { .. } | Error::Timeout { .. } => true,
            Error::Exhausted { retry_after, .. } => retry_after.is_some(),
            Error::Argument { .. }
            | Error::Invalid { .. }
            | Error::NotFound { .. }
            | Error::OtherDigest { .. }
            | Error::FailedPrecondition { .. }
            | Error::DataLoss { .. }
            | Error::Aborted { .. }
            | Error::Unimplemented { .. }
            | Error::Denied { .. }
            | Error::Server { .. }
            | Error::Corrupt { .. }
            | Error::Protocol(_)
            | Error::Tensor { .. } => false,
        }
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Error::Exhausted { retry_after, .. } | Error::Unavailable { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }
}

struct ViolationList<'a>(&'a [Violation]);

impl fmt::Display for ViolationList<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|v| write!(out, "; `{}`: {}", v.field, v.description))
    }
}
