//! The `mixfeed.v1` contract: generated messages, clients and servers.
//!
//! The `.proto` files beside this crate are the documentation of every field. Job specs also (de)serialise with
//! serde, so that the same words work in TOML files and on the wire.

#[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
mod generated {
    tonic::include_proto!("mixfeed.v1");
}
pub mod names;

pub use generated::*;

/// Encoded `FileDescriptorSet` of the package, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest payload of one message in bytes. Any gRPC client takes it with default limits (4 MiB).
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;
