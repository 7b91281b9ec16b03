//! Clean rows to mixed ones, by the CPU or by the server's device.

use super::{AssembleError, Slab};
use crate::exec::device::{DeviceError, Task, Worker};
use crate::exec::mixer::{self, MixerError, Place};
use crate::exec::{self, Format};
use crate::job::{Image, MadeBy, Numerics};
use crate::metrics;
use crate::plan::{Plan, Row};
use rayon::prelude::*;
use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<exec::Scratch> = RefCell::new(exec::Scratch::default());
}

/// Mixes the `clean` rows of a block into `out` as `plan` says, and tells by whom; the plan that comes back has the label
/// weights that mixers gave. A job that tolerates it goes on with the CPU where the device fails.
pub(super) fn mix(
    image: &Image,
    device: Option<&Worker<Slab>>,
    mut plan: Plan,
    clean: Slab,
    out: Slab,
) -> Result<(Plan, Slab, MadeBy), AssembleError> {
    if !mixer::is_asked(&plan.rows) {
        return executed(image, device, plan, clean, out);
    }
    let made = Plan { rows: masks(image, &mut plan.rows, &clean)? };
    let (_, out, by) = executed(image, device, made, clean, out)?;
    // Masks are libtorch's, whoever mixed.
    Ok((plan, out, by.and(MadeBy::DEVICE)))
}

/// `rows` with the masks that mixers make: on the processor, in a job that tolerates it, where the device fails.
fn masks(image: &Image, rows: &mut [Row], clean: &[u8]) -> Result<Vec<Row>, MixerError> {
    let block = (clean, &image.format.raster);
    match mixer::realise(&image.mixers, rows, block, Place::Device) {
        Err(error) if image.numerics == Numerics::Tolerant => {
            let Some(failed) = error.of_device() else { return Err(error) };
            tracing::debug!(%error, "masks of a block are made by the CPU instead");
            metrics::fallback(failed.reason());
            mixer::realise(&image.mixers, rows, block, Place::Cpu)
        }
        made => made,
    }
}

/// As [`mix`], of a plan without mixers.
fn executed(
    image: &Image,
    device: Option<&Worker<Slab>>,
    plan: Plan,
    clean: Slab,
    out: Slab,
) -> Result<(Plan, Slab, MadeBy), AssembleError> {
    let task = Task { plan, format: image.format.clone(), clean, out };
    let tolerant = match image.numerics {
        Numerics::Cpu => return Ok(on_cpu(task)),
        Numerics::Torch => false,
        Numerics::Tolerant => true,
    };
    let Some(device) = device else {
        // Only a tolerant job is opened on a server without a device.
        return if tolerant {
            Ok(on_cpu(task))
        } else {
            Err(DeviceError::Lost("it was not started".into()).into())
        };
    };
    let failed = match device.run(task) {
        Ok(Task { plan, out, .. }) => return Ok((plan, out, MadeBy::DEVICE)),
        Err(failed) => *failed,
    };
    match failed.task.filter(|_| tolerant) {
        Some(task) => {
            tracing::debug!(error = %failed.error, "a block is mixed by the CPU instead");
            metrics::fallback(failed.error.reason());
            Ok(on_cpu(task))
        }
        None => Err(failed.error.into()),
    }
}

fn on_cpu(task: Task<Slab>) -> (Plan, Slab, MadeBy) {
    let Task { plan, format, clean, mut out } = task;
    let Format { raster, dtype, .. } = &format;
    let rows = out.par_chunks_exact_mut(raster.len() * dtype.size()).zip(&plan.rows);
    rows.for_each(|(out, row)| {
        SCRATCH.with_borrow_mut(|scratch| exec::run(row, &clean, &format, scratch, out));
    });
    (plan, out, MadeBy::CPU)
}
