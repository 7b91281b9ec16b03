//! What was decoded to mixed rows, by the CPU or by the server's device.

use super::{AssembleError, Slab, Slabs, rows};
use crate::exec::device::{DeviceError, Input, Task, Worker};
use crate::exec::{self, Format};
use crate::job::{Image, MadeBy, Numerics};
use crate::metrics;
use crate::plan::Plan;
use rayon::prelude::*;
use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<exec::Scratch> = RefCell::new(exec::Scratch::default());
}

/// Carries out `task`; tells by whom. A job that tolerates it goes on with the CPU where the device fails.
pub(super) fn mix(
    image: &Image,
    device: Option<&Worker<Slab>>,
    slabs: &Slabs,
    task: Task<Slab>,
) -> Result<(Task<Slab>, MadeBy), AssembleError> {
    if !image.delivery.mixed() {
        // The trainer does.
        return Ok((task, MadeBy::CPU));
    }
    let tolerant = match image.numerics {
        Numerics::Cpu => return Ok(on_cpu(image, slabs, task)),
        Numerics::Torch => false,
        Numerics::Tolerant => true,
    };
    let Some(device) = device else {
        // Only a tolerant job is opened on a server without a device.
        return if tolerant {
            Ok(on_cpu(image, slabs, task))
        } else {
            Err(DeviceError::Lost("it was not started".into()).into())
        };
    };
    let failed = match device.run(task) {
        Ok(task) => return Ok((task, MadeBy::DEVICE)),
        Err(failed) => *failed,
    };
    match failed.task.filter(|_| tolerant) {
        Some(task) => {
            tracing::debug!(error = %failed.error, "a block is mixed by the CPU instead");
            metrics::fallback(failed.error.reason());
            Ok(on_cpu(image, slabs, task))
        }
        None => Err(failed.error.into()),
    }
}

/// Carries out `task`, on the threads that it is called from.
pub(super) fn on_cpu(image: &Image, slabs: &Slabs, task: Task<Slab>) -> (Task<Slab>, MadeBy) {
    let Task { plan, format, input, mut out } = task;
    let Format { raster, dtype, .. } = &format;
    let clean = match input {
        Input::Clean(clean) => clean,
        Input::Decoded(pictures) => {
            let mut clean = slabs.take(pictures.len() * raster.len());
            let rows = clean.par_chunks_exact_mut(raster.len()).zip(&pictures);
            rows.for_each(|(row, picture)| rows::finish(picture, image, row));
            clean
        }
    };
    let rows = out.par_chunks_exact_mut(raster.len() * dtype.size()).zip(&plan.rows);
    rows.for_each(|(out, row)| {
        SCRATCH.with_borrow_mut(|scratch| exec::run(row, &clean, &format, scratch, out));
    });
    (Task { plan, format, input: Input::Clean(clean), out }, MadeBy::CPU)
}
