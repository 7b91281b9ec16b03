//! Why a block cannot be made.

use super::Refusal;
use crate::exec::device::DeviceError;
use crate::exec::mixer::MixerError;
use crate::exec::points::{columns::Missing, union::UnionError, voxel::VoxelError};
use crate::keeper::KeeperError;
use crate::source::SourceError;

/// A block that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A record cannot be read now, or is no longer what was indexed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A bad record, and every record tried in its place is bad too.
    #[error("record `{record}` is bad ({reason}), and so were all {probes} tried in its place")]
    NoReplacement {
        /// Source and record.
        record: String,
        /// Why it was refused.
        reason: Refusal,
        /// Records tried.
        probes: u64,
    },
    /// More bad records than the job allows.
    #[error(
        "{bad} of {seen} records were bad, the job allows a share of {limit}; the last one: `{record}` ({reason})"
    )]
    TooManyBad {
        /// Bad records so far.
        bad: u64,
        /// Records so far.
        seen: u64,
        /// `max_bad_fraction` of the job.
        limit: f64,
        /// Source and record.
        record: String,
        /// Why it was refused.
        reason: String,
    },
    /// A block that is larger than all memory of its stream.
    #[error(
        "a block needs {needed} bytes while it is made, the stream has {budget}; ask for more `prefetch_bytes` or use a smaller `mix_block`"
    )]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes of the stream.
        budget: usize,
    },
    /// A batch that was made again is not the one of its receipt.
    #[error("step {step} came out otherwise than its receipt says")]
    Differs {
        /// Step.
        step: u64,
    },
    /// The mixture cannot say what stands in the step.
    #[error(transparent)]
    Mixture(#[from] KeeperError),
    /// Rows that cannot be made of their scenes.
    #[error(transparent)]
    Union(#[from] UnionError),
    /// Rows that the job's voxels are too small for.
    #[error(transparent)]
    Voxels(#[from] VoxelError),
    /// Scenes without what a column holds.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The server's device does not mix it, and the job allows no other executor.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A mixer of the job makes no mask of a pair.
    #[error(transparent)]
    Mixer(#[from] MixerError),
    /// A defect of ours; the block is lost, the server is not.
    #[error("internal error while making a block: {0}")]
    Panic(String),
}
