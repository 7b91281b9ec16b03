//! A block of scenes by the server's device.

use super::{
    Made, Rule, SceneRow, block, decoded, extent, plan, recycle, rounded, scene, with_scratch, written,
};
use crate::assemble::{AssembleError, BlockAt, Extent, Sample, Slab, Slabs, Slots};
use crate::batch::flags;
use crate::exec::device::{DeviceError, RowMade, SceneInput, SceneTask, Scenes, Worker};
use crate::exec::points::Points;
use crate::job::{Feed, MadeBy, Numerics};
use crate::metrics::{self, Stage};
use crate::plan::{Op, Plan, Row};
use crate::trace;
use rayon::prelude::*;
use std::time::Instant;

/// What became of a block that the job's numerics leave to a device.
pub(super) enum Tried {
    /// It is made.
    Made(Box<Made>),
    /// A record is to be read from a store first.
    Waits,
    /// The CPU is to make it from its records.
    Cpu,
}

/// Makes a block by the device. A job that tolerates it goes on with the CPU where the device fails.
pub(super) fn make(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    (slabs, device): (&Slabs, Option<&Worker<Slab>>),
) -> Result<Tried, AssembleError> {
    let tolerant = rule.numerics == Numerics::Tolerant;
    let Some(device) = device else {
        // Only a tolerant job is opened on a server without a device.
        let missing = DeviceError::Lost("it was not started".into());
        return if tolerant { Ok(Tried::Cpu) } else { Err(missing.into()) };
    };
    let (start, span) = (Instant::now(), trace::stage("decode"));
    // For a device that is gone, scenes are transformed where they are decoded.
    let stored = tolerant && !device.lost();
    let Some((task, samples)) = task(feed, rule, at, slots, slabs, stored)? else { return Ok(Tried::Waits) };
    drop(span);
    let (start, _span) = (Stage::Decode.done(start), trace::stage("execute"));
    let tried = match run(device, task) {
        Ok((task, rows)) => Tried::Made(Box::new(made(task, &rows, samples))),
        // Of scenes that the CPU transformed, as all of a `torch-1` job are, only an error can come then. Of others
        // another record may stand in for one, as it would in a job of the CPU. No device failed.
        Err((_, DeviceError::Refused { .. })) => Tried::Cpu,
        Err((task, error)) if tolerant => {
            tracing::debug!(%error, "a block of scenes is made by the CPU instead");
            metrics::fallback(error.reason());
            match task {
                Some(task) => finished(rule, slabs, task, samples)?,
                None => Tried::Cpu,
            }
        }
        Err((_, error)) => return Err(error.into()),
    };
    Stage::Execute.done(start);
    Ok(tried)
}

/// A block for a device, and the records in its slots; `None` where some are to be read first.
type Ready = Option<(SceneTask<Slab>, Vec<Sample>)>;

/// A block as a device takes it, transformed by the CPU unless it is to stay as `stored`. The plan is drawn as for the CPU.
pub(in crate::assemble) fn task(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
    stored: bool,
) -> Result<Ready, AssembleError> {
    let decoded = decoded(feed, at, slots, |id, encoded, slot, scratch| {
        let drawn = scene::drawn(feed, rule, id, encoded, (at.step, slot), scratch)?;
        if stored && drawn.is_small(rule) {
            return Ok(drawn.stored());
        }
        drawn.transform(rule, scratch).map(SceneInput::Made)
    });
    let Some((scenes, samples)) = decoded? else { return Ok(None) };
    let plan = plan(feed, rule, at, &samples);
    let block = Box::new(block(feed, rule, at, &plan, scenes));
    let most = most(&plan, &block);
    let out = slabs.take(rounded(block.layout(most, most).end));
    Ok(Some((SceneTask { plan, block, out }, samples)))
}

/// Points of a block's rows, at most.
fn most(plan: &Plan, block: &Scenes) -> usize {
    let len = |slot: &u32| match &block.scenes[*slot as usize] {
        SceneInput::Made(points) => points.len(),
        SceneInput::Stored { scene, .. } => scene.len(),
    };
    let added = |op: &Op| match op {
        Op::Union { scenes } => scenes.iter().map(len).sum(),
        Op::Sectors { src, .. } | Op::Bands { src, .. } => len(src),
        Op::Instances { src, angles, .. } => angles.len() * len(src),
        // Of pictures.
        Op::Blend { .. } | Op::Paste { .. } | Op::MaskBlend { .. } => 0,
    };
    let row = |row: &Row| len(&row.base) + row.ops.iter().map(added).sum::<usize>();
    plan.rows.iter().map(row).sum::<usize>().min(block.share)
}

/// A block that the device made, or the block and why not.
type Ran = Result<(SceneTask<Slab>, Vec<RowMade>), (Option<SceneTask<Slab>>, DeviceError)>;

fn run(device: &Worker<Slab>, task: SceneTask<Slab>) -> Ran {
    match device.scenes(task) {
        Ok((task, rows)) if fits(&task, &rows) => Ok((task, rows)),
        Ok((task, _)) => Err((Some(task), DeviceError::Failed("its rows do not fit their block".into()))),
        Err(failed) => Err((failed.task, failed.error)),
    }
}

/// Whether a device can have made `rows`: what it says decides where columns begin and end.
fn fits(task: &SceneTask<Slab>, rows: &[RowMade]) -> bool {
    let SceneTask { plan, block, out } = task;
    let share = block.share as u64;
    // In an order in which no sum can overflow.
    let row = |row: &RowMade| {
        let inside =
            |(slot, points): &(u32, u64)| (*slot as usize) < block.scenes.len() && *points <= row.inverse;
        row.points <= row.inverse
            && row.inverse <= row.united.min(share)
            && row.scenes.iter().all(inside)
            && row.scenes.iter().map(|(_, points)| points).sum::<u64>() == row.inverse
    };
    if rows.len() != plan.rows.len() || !rows.iter().all(row) {
        return false;
    }
    let Extent { points, inverse, .. } = extent(&facts(rows));
    inverse <= share && block.layout(points as usize, inverse as usize).end <= out.len()
}

fn facts(rows: &[RowMade]) -> Vec<SceneRow> {
    let fact = |row: &RowMade| SceneRow {
        scenes: row.scenes.clone(),
        points: row.points,
        inverse: row.inverse,
        flags: if row.inverse < row.united { flags::THINNED } else { 0 },
    };
    rows.iter().map(fact).collect()
}

fn made(task: SceneTask<Slab>, rows: &[RowMade], samples: Vec<Sample>) -> Made {
    let SceneTask { plan, block, out: slab } = task;
    let facts = facts(rows);
    let Extent { points, inverse, .. } = extent(&facts);
    let columns = block.layout(points as usize, inverse as usize);
    recycle(block.scenes.into_iter().filter_map(|scene| match scene {
        SceneInput::Made(points) => Some(points),
        SceneInput::Stored { .. } => None,
    }));
    let thinned = rows.iter().map(|row| row.united - row.inverse).sum();
    Made { plan, samples, facts, thinned, columns, slab, by: MadeBy::DEVICE }
}

/// Makes a block by the CPU that a device gave back.
fn finished(
    rule: &Rule,
    slabs: &Slabs,
    task: SceneTask<Slab>,
    samples: Vec<Sample>,
) -> Result<Tried, AssembleError> {
    let SceneTask { plan, mut block, out } = task;
    drop(out); // the CPU knows the size of what it writes
    let scenes = std::mem::take(&mut block.scenes).into_par_iter().map(|scene| match scene {
        SceneInput::Made(points) => Ok(points),
        SceneInput::Stored { scene, measured, ops } => {
            with_scratch(|scratch| scene::Drawn { scene, measured, ops }.transform(rule, scratch))
        }
    });
    let Ok(scenes) = scenes.collect::<Result<Vec<Points>, _>>() else {
        // Another record stands in for one of them.
        return Ok(Tried::Cpu);
    };
    Ok(Tried::Made(Box::new(written(slabs, &block, scenes, (plan, samples))?)))
}
