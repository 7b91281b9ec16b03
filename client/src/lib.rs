//! Pulls mixed training batches from a mixfeed server.
//!
//! ```no_run
//! # async fn train() -> Result<(), mixfeed_client::Error> {
//! use mixfeed_client::{Client, StreamOptions};
//!
//! let client = Client::connect(["http://127.0.0.1:7443"]).await?;
//! let mut batches = client.stream("vit-b16", StreamOptions::default()).await?;
//! while let Some(batch) = batches.next_batch().await? {
//!     let pixels = batch.images()?.as_u8()?;
//!     println!("step {}: {} bytes", batch.step(), pixels.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every step arrives exactly once and in order, over lost connections, draining servers and restarts: a stream keeps
//! the position of its last batch and asks for the next one, on another endpoint if need be. A trainer that keeps
//! [`Batch::cursor`] in its checkpoint continues there with [`Start::Cursor`].
//!
//! Payloads are copied once, from the received HTTP/2 frames to the batch's own memory, and checked there.

mod batch;
mod client;
mod connection;
mod cursor;
pub mod driver;
mod error;
mod mixture;
#[cfg(feature = "ngram")]
pub mod ngram;
mod options;
mod points;
mod reader;
mod retry;
mod status;
mod stream;
mod tensor;
mod tokens;
mod waits;
mod watch;
mod wire;

pub use batch::{Batch, Labels, RowGroups};
pub use client::{Client, Health};
pub use cursor::Cursor;
pub use error::{Digest, Error, Violation};
pub use mixture::{Answer, Outcome, SetWeights};
pub use options::{ClientOptions, EvalOptions, Pages, Replay, Resume, Start, StreamOptions};
pub use points::{Inverse, Points};
pub use reader::EndOfJob;
pub use stream::{BatchStream, BlockingBatches, StreamStats};
pub use tensor::{Dtype, TensorView};
pub use tokens::Tokens;
pub use watch::Watch;

/// Messages of the contract: job specs, and what servers say about jobs, policies and sources.
pub mod spec {
    pub use mixfeed_proto::{
        ColorJitter, Delivery, Dtype, Elastic, EvalSetInfo, Exhaustion, Granularity, GroupInfo, GroupSpec,
        HeldOutSpec, ImageLayout, ImageSpec, JobInfo, JobSpec, LabelLayout, LabelMap, LastBatch, LimitSpec,
        MixSpec, Normalize, OptionInfo, OutputSpec, Packing, Pairing, ParamInfo, PointColor, PointCompat,
        PointDropout, PointJitter, PointSpec, PolicyInfo, PolicySpec, RandomErasing, RandomResizedCrop,
        Receipt, Replacement, ResizeCenterCrop, Schedule, SourceInfo, TokenSpec, Unmapped, VoxelPick,
        VoxelSpec, Warmup, names,
    };
}

/// Messages of the contract about learning: reports, and what servers say about mixtures and estimators.
pub mod learn {
    pub use mixfeed_proto::{
        Barrier, BoundSpec, Due, DueWhen, EstimatorInfo, EstimatorSpec, EvalSetInfo, GetAccountingResponse,
        GetCandidatesResponse, GetMixtureResponse, GetPlanResponse, GroupAccount, HeldOutSpec,
        MixtureAccount, MixtureEntry, MixtureKind, MixtureSpec, MixtureStatus, OpenAttemptResponse,
        OptionInfo, OutcomeCount, ParamInfo, Reduce, ReportKind, ReportOutcome, ReportReason, ReportRequest,
        ResumeAttempt, SetWeightsResponse, ShadowMixture, TaskSpec, Transform, Vector,
    };
}
