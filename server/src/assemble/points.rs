//! A block of scenes: encoded bytes to columns of points, by the CPU or by the server's device.

mod device;
mod mixed;
mod scene;

pub(super) use device::task;
pub use mixed::Mixed;

use super::replace::{self, Refusal, Sample, Slots, settle};
use super::{AssembleError, BUDGET_UNIT, Block, BlockAt, Encoded, Extent, Slab, Slabs, planned, rows};
use crate::batch::{Piece, SampleId, flags};
use crate::exec::device::{Layout, SceneInput, Scenes, VoxelWish, Worker};
use crate::exec::points::voxel::Pick;
use crate::exec::points::{Points, Scratch};
use crate::job::{Feed, MadeBy, Numerics, Points as Rule, VoxelPick};
use crate::metrics::{self, Stage};
use crate::plan::Plan;
use crate::rng::Draw;
use crate::trace;
use device::Tried;
use rayon::prelude::*;
use std::{cell::RefCell, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Sizes of buffers are rounded up to an eighth of their power of two, so that they are used again.
const EIGHTHS: usize = 8;

/// What a row of scenes was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SceneRow {
    /// Slots of the block whose scenes are in it, the base first, with their points before voxels.
    pub scenes: Vec<(u32, u64)>,
    /// Points that are sent.
    pub points: u64,
    /// Points before voxels.
    pub inverse: u64,
    /// [`flags::THINNED`] or 0.
    pub flags: u32,
}

/// Bytes that making and keeping a block takes: (while it is made, until it was sent).
pub(super) fn cost(feed: &Feed, rule: &Rule, at: &BlockAt) -> (usize, usize) {
    let record = |id: SampleId| {
        let group = &feed.groups[id.group as usize];
        let record = &group.source.index().records[group.record(id.index) as usize];
        (record.size.min(rule.max_bytes), record.points.min(rule.limits.points))
    };
    let sum = |(bytes, points), (more_bytes, more)| (bytes + more_bytes, points + more);
    let (bytes, points) = at.places.iter().map(|place| record(place.id)).fold((0, 0), sum);
    bytes_of(feed, rule, at.places.len(), (bytes, points))
}

/// The same of an ordinary block of `slots` slots.
pub(super) fn block_cost(feed: &Feed, rule: &Rule, slots: usize) -> (usize, usize) {
    let (bytes, points) = rule.mean;
    bytes_of(feed, rule, slots, (slots as u64 * bytes, slots as u64 * points))
}

/// Bytes of a block whose records have so many bytes and points together: (while it is made, until it was sent).
fn bytes_of(feed: &Feed, rule: &Rule, slots: usize, (bytes, points): (u64, u64)) -> (usize, usize) {
    let share = rule.share(slots as u64, feed.order.batch());
    let united = share.min(points * u64::from(rule.scenes.max(1)));
    let noise = slots as u64 * scene::held_noise(rule);
    let making = bytes + points * rule.making_bytes() + united * rule.row_bytes() + noise;
    (making as usize, rounded(share as usize * rule.point_bytes()))
}

fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / EIGHTHS).max(1 << 12))
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// A block whose columns are written.
pub(super) struct Made {
    plan: Plan,
    samples: Vec<Sample>,
    facts: Vec<SceneRow>,
    /// Points left out for the budget.
    thinned: u64,
    columns: Layout,
    slab: Slab,
    by: MadeBy,
}

/// Decodes, transforms, plans and mixes a block. `None` when a record of `slots` is to be read from a store first.
pub(super) fn make(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    (slabs, device): (&Slabs, Option<&Worker<Slab>>),
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<Option<Block>, AssembleError> {
    let tried = match rule.numerics {
        Numerics::Cpu => Tried::Cpu,
        Numerics::Torch | Numerics::Tolerant => device::make(feed, rule, at, slots, (slabs, device))?,
    };
    let made = match tried {
        Tried::Made(made) => Some(*made),
        Tried::Waits => None,
        Tried::Cpu => timed(feed, rule, at, slots, slabs)?,
    };
    let Some(made) = made else { return Ok(None) };
    // Once, whoever had to begin the block again.
    replace::tally(&rule.tally, rule.max_bad_fraction, made.samples.iter())?;
    let (start, _span) = (Instant::now(), trace::stage("checksum"));
    let extent = extent(&made.facts);
    let Made { plan, samples, facts, thinned, columns, slab, by } = made;
    let slab = match permit.take() {
        Some(mut permit) => {
            // The budget was asked for as many points as the rows may have; few have them, and voxels are fewer.
            let surplus = permit.num_permits().saturating_sub(slab.len().div_ceil(BUDGET_UNIT));
            drop(permit.split(surplus));
            slab.hold(permit)
        }
        None => slab,
    };
    let whole = slab.freeze();
    let tensors = columns.sent.into_iter().map(|range| Piece::new(whole.slice(range))).collect();
    Stage::Checksum.done(start);
    rows::count(feed, &samples);
    metrics::unpaired(
        &feed.job,
        plan.rows.iter().filter(|r| r.flags & flags::NO_PARTNER != 0).count() as u64,
    );
    metrics::thinned(&feed.job, thinned);
    Ok(Some(Block { tensors, plan, samples, extent, scenes: facts, by }))
}

/// As [`by_cpu`], with its time told.
fn timed(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
) -> Result<Option<Made>, AssembleError> {
    let (start, span) = (Instant::now(), trace::stage("decode"));
    let Some(decoded) = transformed(feed, rule, at, slots)? else { return Ok(None) };
    drop(span);
    let (start, _span) = (Stage::Decode.done(start), trace::stage("execute"));
    let made = mixed(feed, rule, at, slabs, decoded)?;
    Stage::Execute.done(start);
    Ok(Some(made))
}

/// Makes a block by the CPU; nothing is counted.
pub(super) fn by_cpu(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
) -> Result<Option<Made>, AssembleError> {
    let Some(decoded) = transformed(feed, rule, at, slots)? else { return Ok(None) };
    mixed(feed, rule, at, slabs, decoded).map(Some)
}

/// Plans and mixes transformed scenes.
fn mixed(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slabs: &Slabs,
    (scenes, samples): (Vec<Points>, Vec<Sample>),
) -> Result<Made, AssembleError> {
    let plan = plan(feed, rule, at, &samples);
    let block = block(feed, rule, at, &plan, Vec::new());
    written(slabs, &block, scenes, (plan, samples))
}

/// Unites transformed scenes as `block` and the plan ask, and writes their columns.
fn written(
    slabs: &Slabs,
    block: &Scenes,
    scenes: Vec<Points>,
    (plan, samples): (Plan, Vec<Sample>),
) -> Result<Made, AssembleError> {
    let made = Mixed::of(&plan, block, &scenes)?;
    let Extent { points, inverse, .. } = extent(&made.facts);
    let columns = block.layout(points as usize, inverse as usize);
    let mut slab = slabs.take(rounded(columns.end));
    made.write(block, &scenes, &columns, &mut slab)?;
    recycle(scenes);
    let Mixed { facts, thinned, .. } = made;
    Ok(Made { plan, samples, facts, thinned, columns, slab, by: MadeBy::CPU })
}

/// Keeps the memory of scenes.
fn recycle(scenes: impl IntoIterator<Item = Points>) {
    SCRATCH.with_borrow_mut(|scratch| scenes.into_iter().for_each(|scene| scratch.recycle(scene)));
}

fn extent(facts: &[SceneRow]) -> Extent {
    Extent {
        rows: facts.len() as u64,
        points: facts.iter().map(|f| f.points).sum(),
        inverse: facts.iter().map(|f| f.inverse).sum(),
        ..Extent::default()
    }
}

/// A block step by step, for pictures and tests.
#[derive(Debug)]
pub struct Opened {
    /// Scenes of its slots, transformed.
    pub scenes: Vec<Points>,
    /// Records in its slots.
    pub samples: Vec<Sample>,
    /// What becomes of it.
    pub plan: Plan,
    /// What it became.
    pub mixed: Mixed,
}

/// Makes a block by the CPU, whoever makes the job's, without writing its columns; blocks until its records were read.
///
/// # Errors
/// As [`super::Assembler::block`].
pub fn open(feed: &Feed, rule: &Rule, at: &BlockAt) -> Result<Opened, AssembleError> {
    let mut slots = Slots::new(at);
    loop {
        slots.read(feed)?;
        if let Some(opened) = open_read(feed, rule, at, &mut slots)? {
            return Ok(opened);
        }
    }
}

/// As [`open`]; `None` when a record of `slots` is to be read from a store first. Its bad records count nowhere.
///
/// # Errors
/// As [`super::Assembler::block`].
pub fn open_read(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
) -> Result<Option<Opened>, AssembleError> {
    let Some((scenes, samples)) = transformed(feed, rule, at, slots)? else { return Ok(None) };
    let plan = plan(feed, rule, at, &samples);
    let mixed = Mixed::of(&plan, &block(feed, rule, at, &plan, Vec::new()), &scenes)?;
    Ok(Some(Opened { scenes, samples, plan, mixed }))
}

/// Something of each slot of a block, and the records in them.
type Decoded<T> = Option<(Vec<T>, Vec<Sample>)>;

/// The scenes of a block's slots, transformed.
fn transformed(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
) -> Result<Decoded<Points>, AssembleError> {
    decoded(feed, at, slots, |id, encoded, slot, scratch| {
        scene::drawn(feed, rule, id, encoded, (at.step, slot), scratch)?.transform(rule, scratch)
    })
}

/// What `make` makes of each slot's record, or of another one where that is bad, in parallel; `None` when a record is to be
/// read from a store first.
fn decoded<T: Send>(
    feed: &Feed,
    at: &BlockAt,
    slots: &mut Slots,
    make: impl Fn(SampleId, &Encoded, u64, &mut Scratch) -> Result<T, Refusal> + Sync,
) -> Result<Decoded<T>, AssembleError> {
    let slots: Vec<_> = at.places.iter().zip(&mut slots.0).enumerate().collect();
    let one = |(i, (place, own))| {
        let slot = at.slot + i as u64;
        settle(feed, place, own, |id, encoded: &Encoded| {
            with_scratch(|scratch| make(id, encoded, slot, scratch))
        })
    };
    let made = slots.into_par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let made: Option<Vec<_>> = made.into_iter().collect();
    Ok(made.map(|made| made.into_iter().unzip()))
}

/// Lends the thread's memory. Taken, not borrowed: decoding waits for other threads, and a thread that waits begins another
/// scene.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take();
    let made = work(&mut scratch);
    SCRATCH.set(scratch);
    made
}

fn plan(feed: &Feed, rule: &Rule, at: &BlockAt, samples: &[Sample]) -> Plan {
    planned(feed, at, samples, (&rule.mix, &rule.mix_stream, &rule.fields), (1, 1))
}

/// What is wanted of a block and drawn for it beside its plan. The CPU, which has transformed `scenes`, leaves them out.
fn block(feed: &Feed, rule: &Rule, at: &BlockAt, plan: &Plan, scenes: Vec<SceneInput>) -> Scenes {
    let draw = |kind, slot| rule.scene_stream.at(kind, at.step, slot);
    let centres = (at.slot..).take(at.places.len()).map(|slot| draw(Draw::SceneCrop, slot).uniform());
    let voxels = rule.voxels.map(|v| {
        let pick = |row| match v.pick {
            VoxelPick::First => Pick::First,
            VoxelPick::Random => Pick::Random(draw(Draw::SceneVoxel, row).bits()),
        };
        VoxelWish {
            size: v.size,
            picks: (at.slot..).take(plan.rows.len()).map(pick).collect(),
            inverse: v.inverse,
            count: v.count,
            majority: v.majority,
            // Whose coordinates differ in their last places must not take what the CPU refuses.
            far: scene::far(v.size) * 0.999,
        }
    });
    Scenes {
        scenes,
        share: rule.share(at.places.len() as u64, feed.order.batch()) as usize,
        centres: centres.collect(),
        voxels,
        features: rule.features.clone(),
    }
}
