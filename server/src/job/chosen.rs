//! Which executor a job gets that leaves it to a server with two: the faster one on the job's own first block. It is
//! measured once, when the job is opened, and recorded with the job's state, since another one makes other bytes.

use super::{Draft, Feed, JobError, NUMERICS, TORCH, hex, resolve};
use crate::keeper::KeeperError;
use crate::source::Source;
use crate::store;
use mixfeed_proto as v1;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// What a block of a job took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Decoded and mixed by the CPU.
    pub cpu: Duration,
    /// With the device: the longer of decoding and what the device did, since both work at once.
    pub device: Duration,
}

/// Makes the first block of a feed both ways.
pub type Measure = Arc<dyn Fn(&Feed) -> Result<Took, String> + Send + Sync>;

/// What a server mixes pictures and scenes with.
#[derive(Clone, Default)]
pub enum Executors {
    /// The CPU alone.
    #[default]
    Cpu,
    /// A device, for jobs that allow it.
    Device,
    /// A device where it is faster.
    Faster(Measure),
}

impl Executors {
    /// Whether there is a device.
    pub(super) fn device(&self) -> bool {
        match self {
            Executors::Cpu => false,
            Executors::Device | Executors::Faster(_) => true,
        }
    }
}

impl fmt::Debug for Executors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Executors::Cpu => "Cpu",
            Executors::Device => "Device",
            Executors::Faster(_) => "Faster",
        })
    }
}

/// The draft of a `spec` of pictures or scenes that names no numerics. Its numerics are, in this order, those of `open` (the digest
/// of the job that is open under this name), of `expected` (the digest that the client knows), those recorded in `store`,
/// and those that `measure` finds faster, which are recorded then.
///
/// # Errors
/// [`JobError`]. A block that cannot be made now chooses the CPU, whose stream will tell why.
pub(super) fn chosen(
    name: &str,
    spec: &v1::JobSpec,
    sources: &BTreeMap<String, Arc<dyn Source>>,
    (open, expected): (Option<[u8; 32]>, &[u8]),
    store: &store::Shared,
    measure: &Measure,
) -> Result<Draft, JobError> {
    let with =
        |numerics: &str| resolve(name, v1::JobSpec { numerics: numerics.into(), ..spec.clone() }, sources);
    let cpu = with(NUMERICS)?;
    let is_known = |draft: &Draft| open == Some(draft.digest) || expected == draft.digest;
    if is_known(&cpu) {
        return Ok(cpu);
    }
    let torch = with(TORCH)?;
    if is_known(&torch) {
        return Ok(torch);
    }
    let failed = |error| JobError::Keeper(KeeperError::Store(error));
    let key = format!("{name}/{}/device", hex(&cpu.digest));
    if let Some((_, recorded)) = store.snapshot(&key).map_err(failed)? {
        return Ok(if recorded == TORCH.as_bytes() { torch } else { cpu });
    }
    let (draft, numerics) = match measure(&torch.feed) {
        Ok(Took { cpu: by_cpu, device }) => {
            let chosen = if device < by_cpu { (torch, TORCH) } else { (cpu, NUMERICS) };
            tracing::info!(
                job = name,
                ?by_cpu,
                ?device,
                numerics = chosen.1,
                "the faster executor was chosen"
            );
            chosen
        }
        Err(why) => {
            tracing::warn!(job = name, why, "no block could be made to compare executors: the CPU mixes");
            (cpu, NUMERICS)
        }
    };
    store.put_snapshot(&key, 0, numerics.as_bytes()).map_err(failed)?;
    Ok(draft)
}
