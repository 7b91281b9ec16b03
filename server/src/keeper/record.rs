//! What a store keeps of a course: events in order, each with the entries that it led to.

use mixfeed_proto as v1;

/// An event.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// A stream wants to serve this step.
    #[prost(uint64, tag = "1")]
    Plan(u64),
    /// A report that was counted.
    #[prost(message, tag = "2")]
    Report(v1::ReportRequest),
    /// Time ran out at the barrier before this step.
    #[prost(uint64, tag = "3")]
    Late(u64),
    /// A trainer began a new life.
    #[prost(message, tag = "4")]
    Attempt(AttemptEvent),
    /// An operator set the weights.
    #[prost(message, tag = "5")]
    Weights(WeightsEvent),
}

/// See [`Event::Attempt`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttemptEvent {
    /// Steps completed.
    #[prost(uint64, tag = "1")]
    pub completed: u64,
    /// `ResumeAttempt`.
    #[prost(enumeration = "v1::ResumeAttempt", tag = "2")]
    pub resume: i32,
    /// Horizon at that time.
    #[prost(uint64, tag = "3")]
    pub horizon: u64,
    /// Branch of the checkpoint.
    #[prost(uint64, tag = "4")]
    pub branch: u64,
}

/// See [`Event::Weights`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WeightsEvent {
    /// Shares that sum to 2^32.
    #[prost(uint64, repeated, tag = "1")]
    pub weights: Vec<u64>,
    /// First step, at or after the horizon.
    #[prost(uint64, tag = "2")]
    pub step: u64,
    /// "operator:NAME".
    #[prost(string, tag = "3")]
    pub author: String,
    /// Why.
    #[prost(string, tag = "4")]
    pub note: String,
}

/// One record of the store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// What happened.
    #[prost(oneof = "Event", tags = "1, 2, 3, 4, 5")]
    pub event: Option<Event>,
    /// Entries that it led to: the log is law, a build that would write others must not go on.
    #[prost(message, repeated, tag = "15")]
    pub entries: Vec<v1::MixtureEntry>,
}
