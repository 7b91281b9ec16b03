//! Bytes of a batch stream: frames in, whole batches out, one copy in between.

mod assembly;
mod parser;
mod slab;

pub(crate) use assembly::{Assembly, Expect};
pub(crate) use parser::{Event, Parser, Part};
pub(crate) use slab::{Pool, Slab};
