//! mixfeed: serves mixed, augmented training batches over gRPC.

pub mod batch;
pub mod plan;
pub mod rng;
