//! mixfeed: serves mixed, augmented training batches over gRPC.

pub mod batch;
pub mod decode;
pub mod exec;
pub mod job;
pub mod mixture;
pub mod picture;
pub mod plan;
pub mod rng;
pub mod source;
