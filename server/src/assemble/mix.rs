//! What was decoded to mixed rows, by the CPU or by the server's device.

use super::{AssembleError, Slab, Slabs, rows};
use crate::exec::device::{DeviceError, Input, Task, Worker};
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

/// Carries out `task`, and tells by whom; the plan that comes back has the label weights that mixers gave. A job that
/// tolerates it goes on with the CPU where the device fails.
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
    if !mixer::is_asked(&task.plan.rows) {
        return executed(image, device, slabs, task);
    }
    let Task { mut plan, format, input, out } = task;
    let clean = clean(image, slabs, input);
    let made = Plan { rows: masks(image, &mut plan.rows, &clean)? };
    let task = Task { plan: made, format, input: Input::Clean(clean), out };
    let (task, by) = executed(image, device, slabs, task)?;
    // Masks are libtorch's, whoever mixed.
    Ok((Task { plan, ..task }, by.and(MadeBy::DEVICE)))
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
    slabs: &Slabs,
    task: Task<Slab>,
) -> Result<(Task<Slab>, MadeBy), AssembleError> {
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
    let clean = clean(image, slabs, input);
    let rows = out.par_chunks_exact_mut(raster.len() * dtype.size()).zip(&plan.rows);
    rows.for_each(|(out, row)| {
        SCRATCH.with_borrow_mut(|scratch| exec::run(row, &clean, &format, scratch, out));
    });
    (Task { plan, format, input: Input::Clean(clean), out }, MadeBy::CPU)
}

/// Clean rows of what was decoded.
fn clean(image: &Image, slabs: &Slabs, input: Input<Slab>) -> Slab {
    match input {
        Input::Clean(clean) => clean,
        Input::Decoded(pictures) => {
            let len = image.format.raster.len();
            let mut clean = slabs.take(pictures.len() * len);
            let rows = clean.par_chunks_exact_mut(len).zip(&pictures);
            rows.for_each(|(row, picture)| rows::finish(picture, image, row));
            clean
        }
    }
}
