//! mixfeed: serves mixed, augmented training batches over gRPC.

pub mod batch;
pub mod mixture;
pub mod plan;
pub mod rng;
