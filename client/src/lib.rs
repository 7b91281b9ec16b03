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
mod error;
mod options;
mod reader;
mod retry;
mod status;
mod stream;
mod tokens;
mod wire;

pub use batch::{Batch, Dtype, Labels, TensorView};
pub use client::{Client, Health};
pub use cursor::Cursor;
pub use error::{Digest, Error, Violation};
pub use options::{ClientOptions, EvalOptions, Replay, Resume, Start, StreamOptions};
pub use reader::EndOfJob;
pub use stream::{BatchStream, BlockingBatches, StreamStats};
pub use tokens::Tokens;

/// Messages of the contract: job specs, and what servers say about jobs, policies and sources.
pub mod spec {
    pub use mixfeed_proto::{
        ColorJitter, Delivery, Dtype, EvalSetInfo, Exhaustion, Granularity, GroupInfo, GroupSpec,
        HeldOutSpec, ImageLayout, ImageSpec, JobInfo, JobSpec, LabelLayout, LastBatch, LimitSpec, MixSpec,
        Normalize, OptionInfo, OutputSpec, Packing, Pairing, ParamInfo, PolicyInfo, PolicySpec,
        RandomErasing, RandomResizedCrop, Receipt, Replacement, ResizeCenterCrop, Schedule, SourceInfo,
        TokenSpec, Warmup, names,
    };
}
