//! What each call needs. A call without a row here is refused, whoever asks.

use serde::Deserialize;
use std::fmt;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Open jobs, receive batches, look at jobs and mixtures.
    Pull,
    /// Report what training showed, and follow what the mixture asks for.
    Report,
    /// Everything, also to close jobs and to set weights.
    Admin,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Pull, Verb::Report, Verb::Admin];

    /// As token files name it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Pull => "pull",
            Verb::Report => "report",
            Verb::Admin => "admin",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Whom a call is open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody: health checks have no secrets and show none.
    Nothing,
    /// Whoever has a token.
    Token,
    /// A token with one of these verbs; `admin` has all of them.
    OneOf(&'static [Verb]),
}

/// A call and what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Path of its requests.
    pub path: &'static str,
    /// Name without its service.
    pub name: &'static str,
    /// Whom it is open to.
    pub need: Need,
}

const PULL: Need = Need::OneOf(&[Verb::Pull]);
const REPORT: Need = Need::OneOf(&[Verb::Report]);
const READ: Need = Need::OneOf(&[Verb::Pull, Verb::Report]);
const ADMIN: Need = Need::OneOf(&[Verb::Admin]);

macro_rules! table {
    ($($service:literal { $($name:literal $need:expr;)* })*) => {
        &[$($(Method { path: concat!("/", $service, "/", $name), name: $name, need: $need },)*)*]
    };
}

/// Every call that is served.
pub const METHODS: &[Method] = table! {
    "mixfeed.v1.FeedService" {
        "OpenJob" PULL;
        "StreamBatches" PULL;
        "StreamEvalSet" PULL;
        "ReplayBatch" PULL;
        "MixPairs" PULL;
        "DescribeJob" READ;
        "ListJobs" READ;
        "CloseJob" ADMIN;
        "ListPolicies" READ;
        "ListSources" READ;
    }
    "mixfeed.v1.MixtureService" {
        "OpenAttempt" REPORT;
        "Report" REPORT;
        "ReportStats" READ;
        "GetPlan" REPORT;
        "WatchMixture" REPORT;
        "SetWeights" ADMIN;
        "GetMixture" READ;
        "GetMixtureLog" READ;
        "GetAccounting" READ;
        "GetCandidates" READ;
        "ListEstimators" READ;
    }
    "grpc.health.v1.Health" {
        "Check" Need::Nothing;
        "Watch" Need::Nothing;
    }
    "grpc.reflection.v1.ServerReflection" {
        "ServerReflectionInfo" Need::Token;
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        "ServerReflectionInfo" Need::Token;
    }
};

/// The row of a path.
pub fn method(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}
