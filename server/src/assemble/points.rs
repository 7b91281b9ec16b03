//! The CPU part of a block of scenes: encoded bytes to columns of points.

mod scene;

use super::replace::{self, Sample, Slots, settle};
use super::{AssembleError, BUDGET_UNIT, Block, BlockAt, Encoded, Extent, Slabs, planned, rows};
use crate::batch::{Piece, SampleId, flags};
use crate::exec::points::columns::{self, Columns};
use crate::exec::points::union::{self, Part, len};
use crate::exec::points::voxel::{self, Pick, Voxels};
use crate::exec::points::{Points, Scratch, budget};
use crate::job::{Feed, MadeBy, Points as Rule};
use crate::metrics::{self, Stage};
use crate::plan::Plan;
use crate::rng::Draw;
use crate::trace;
use rayon::prelude::*;
use std::{cell::RefCell, ops::Range, time::Instant};
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
        record.size.min(rule.max_bytes) + record.points.min(rule.limits.points) * rule.making_bytes()
    };
    let making: u64 = at.places.iter().map(|place| record(place.id)).sum();
    (making as usize, keeping(feed, rule, at.places.len()))
}

/// Bytes that an ordinary slot takes: (while it is made, until it was sent).
pub(super) fn slot_cost(feed: &Feed, rule: &Rule) -> (usize, usize) {
    let (bytes, points) = rule.mean;
    ((bytes + points * rule.making_bytes()) as usize, keeping(feed, rule, 1))
}

/// Bytes of the columns of `slots` slots, at most.
fn keeping(feed: &Feed, rule: &Rule, slots: usize) -> usize {
    let share = rule.share(slots as u64, feed.order.batch()) as usize;
    rounded(share * rule.point_bytes())
}

fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / EIGHTHS).max(1 << 12))
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
    static VOXELS: RefCell<voxel::Scratch> = RefCell::new(voxel::Scratch::default());
}

/// Decodes, transforms, plans and mixes a block. `None` when a record of `slots` is to be read from a store first.
pub(super) fn make(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<Option<Block>, AssembleError> {
    let (start, span) = (Instant::now(), trace::stage("decode"));
    let Some((scenes, samples)) = scenes(feed, rule, at, slots)? else { return Ok(None) };
    replace::tally(&rule.tally, rule.max_bad_fraction, samples.iter())?;
    drop(span);
    let (start, span) = (Stage::Decode.done(start), trace::stage("execute"));
    let plan = plan(feed, rule, at, &samples);
    let made = mix(feed, rule, at, &plan, &scenes)?;
    let extent = made.extent();
    let parts = Layout::new(rule, extent);
    let mut slab = slabs.take(rounded(parts.end));
    made.write(rule, &scenes, &parts, &mut slab)?;
    SCRATCH.with_borrow_mut(|scratch| scenes.into_iter().for_each(|scene| scratch.recycle(scene)));
    drop(span);
    let (start, _span) = (Stage::Execute.done(start), trace::stage("checksum"));
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
    let tensors = parts.sent.into_iter().map(|range| Piece::new(whole.slice(range))).collect();
    Stage::Checksum.done(start);
    rows::count(feed, &samples);
    metrics::unpaired(
        &feed.job,
        plan.rows.iter().filter(|r| r.flags & flags::NO_PARTNER != 0).count() as u64,
    );
    metrics::thinned(&feed.job, made.thinned);
    Ok(Some(Block { tensors, plan, samples, extent, scenes: made.facts, by: MadeBy::CPU }))
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

/// Makes a block without writing its columns; blocks until its records were read.
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
    let Some((scenes, samples)) = scenes(feed, rule, at, slots)? else { return Ok(None) };
    let plan = plan(feed, rule, at, &samples);
    let mixed = mix(feed, rule, at, &plan, &scenes)?;
    Ok(Some(Opened { scenes, samples, plan, mixed }))
}

/// Scenes, and the records that they are.
type Scenes = (Vec<Points>, Vec<Sample>);

/// The scenes of a block's slots, transformed.
fn scenes(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    slots: &mut Slots,
) -> Result<Option<Scenes>, AssembleError> {
    let slots: Vec<_> = at.places.iter().zip(&mut slots.0).enumerate().collect();
    let one = |(i, (place, own))| {
        let slot = at.slot + i as u64;
        settle(feed, place, own, |id, encoded: &Encoded| {
            // Taken, not borrowed: decoding waits for other threads, and a thread that waits begins another scene.
            let mut scratch = SCRATCH.take();
            let made = scene::make(feed, rule, id, encoded, (at.step, slot), &mut scratch);
            SCRATCH.set(scratch);
            made
        })
    };
    let made = slots.into_par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let made: Option<Vec<_>> = made.into_iter().collect();
    Ok(made.map(|made| made.into_iter().unzip()))
}

fn plan(feed: &Feed, rule: &Rule, at: &BlockAt, samples: &[Sample]) -> Plan {
    planned(feed, at, samples, (&rule.mix, &rule.mix_stream, &rule.fields), (1, 1))
}

/// Rows of a block before they are written.
#[derive(Debug)]
pub struct Mixed {
    /// Parts of each row.
    pub rows: Vec<Vec<Part>>,
    /// Voxels of each row, of jobs that have them.
    pub voxels: Option<Vec<Voxels>>,
    /// What each row was made of.
    pub facts: Vec<SceneRow>,
    /// Points left out for the budget.
    pub thinned: u64,
}

/// Unites, keeps within the budget, and finds voxels.
fn mix(
    feed: &Feed,
    rule: &Rule,
    at: &BlockAt,
    plan: &Plan,
    scenes: &[Points],
) -> Result<Mixed, AssembleError> {
    let mut rows = union::rows(plan, scenes)?;
    let before: Vec<usize> = rows.iter().map(|row| len(row)).collect();
    let share = rule.share(at.places.len() as u64, feed.order.batch()) as usize;
    let centre = |slot| rule.scene_stream.at(Draw::SceneCrop, at.step, slot).uniform();
    let centres: Vec<f64> = (at.slot..).take(scenes.len()).map(centre).collect();
    budget::thin(&mut rows, scenes, share, &centres);
    let voxels = rule.voxels.map(|v| {
        let one = |(i, row): (usize, &Vec<Part>)| {
            let pick = match v.pick {
                crate::job::VoxelPick::First => Pick::First,
                crate::job::VoxelPick::Random => {
                    Pick::Random(rule.scene_stream.at(Draw::SceneVoxel, at.step, at.slot + i as u64).bits())
                }
            };
            let details = v.inverse || v.count || v.majority;
            let rule = voxel::Rule { size: v.size, pick, details };
            let mut found = VOXELS.with_borrow_mut(|own| voxel::voxels(row, scenes, &rule, own))?;
            if v.majority {
                found.majority(row, scenes);
            }
            Ok(found)
        };
        let rows: Vec<_> = rows.iter().enumerate().collect();
        rows.into_par_iter().map(one).collect::<Result<Vec<_>, AssembleError>>()
    });
    let voxels = voxels.transpose()?;
    let fact = |(i, row): (usize, &Vec<Part>)| {
        let thinned = len(row) < before[i];
        SceneRow {
            scenes: of(row),
            points: columns::served(row, voxels.as_ref().map(|v| &v[i])) as u64,
            inverse: len(row) as u64,
            flags: if thinned { flags::THINNED } else { 0 },
        }
    };
    let facts: Vec<SceneRow> = rows.iter().enumerate().map(fact).collect();
    let thinned = before.iter().sum::<usize>() as u64 - facts.iter().map(|f| f.inverse).sum::<u64>();
    Ok(Mixed { rows, voxels, facts, thinned })
}

/// Scenes of a row with their points, each scene once.
fn of(row: &[Part]) -> Vec<(u32, u64)> {
    let mut scenes: Vec<(u32, u64)> = Vec::new();
    for part in row {
        match scenes.iter_mut().find(|(slot, _)| *slot == part.slot) {
            Some((_, points)) => *points += part.len() as u64,
            None => scenes.push((part.slot, part.len() as u64)),
        }
    }
    scenes
}

fn classes<'a>(part: &'a Part, scenes: &'a [Points]) -> impl Iterator<Item = i32> + 'a {
    let segment = scenes[part.slot as usize].segment.as_deref().unwrap_or_default();
    part.numbers().map(|number| segment[number as usize])
}

/// Where each large tensor lies in a block's buffer, in descriptor order.
struct Layout {
    sent: Vec<Range<usize>>,
    end: usize,
}

impl Layout {
    fn new(rule: &Rule, extent: Extent) -> Layout {
        let mut layout = Layout { sent: Vec::new(), end: 0 };
        let (m, all) = (extent.points as usize, extent.inverse as usize);
        let features = columns::width(&rule.features);
        let voxels = rule.voxels;
        let inverse = voxels.is_some_and(|v| v.inverse);
        for (sent, bytes) in [
            (true, m * 12),
            (features > 0, m * features * 4),
            (true, m * 4),
            (true, m * 4),
            (true, m),
            (voxels.is_some(), m * 12),
            (voxels.is_some_and(|v| v.count), m * 4),
            (inverse, all * 4),
            (inverse, all * 4),
        ] {
            if sent {
                layout.sent.push(layout.end..layout.end + bytes);
                layout.end += bytes;
            }
        }
        layout
    }
}

impl Mixed {
    fn extent(&self) -> Extent {
        Extent {
            rows: self.rows.len() as u64,
            points: self.facts.iter().map(|f| f.points).sum(),
            inverse: self.facts.iter().map(|f| f.inverse).sum(),
            ..Extent::default()
        }
    }

    /// Writes every column where it is sent from.
    fn write(
        &self,
        rule: &Rule,
        scenes: &[Points],
        layout: &Layout,
        slab: &mut [u8],
    ) -> Result<(), AssembleError> {
        let mut left = &mut slab[..layout.end];
        let mut ranges = layout.sent.iter();
        let mut next = || {
            let bytes = ranges.next().map_or(0, Range::len);
            left.split_off_mut(..bytes).unwrap_or_default()
        };
        let voxels = rule.voxels;
        let inverse = voxels.is_some_and(|v| v.inverse);
        let coord = next();
        let feat = if rule.features.is_empty() { &mut [][..] } else { next() };
        let (segment, instance, scene) = (next(), next(), next());
        let grid = voxels.is_some().then(&mut next);
        let count = voxels.is_some_and(|v| v.count).then(&mut next);
        let of_points = inverse.then(&mut next);
        if let Some(out) = inverse.then(&mut next) {
            let all = self.rows.iter().flatten().flat_map(|part| classes(part, scenes));
            out.as_chunks_mut::<4>()
                .0
                .iter_mut()
                .zip(all)
                .for_each(|(out, class)| *out = class.to_le_bytes());
        }
        let out = Columns {
            coord,
            feat,
            segment: Some(segment),
            instance: Some(instance),
            scene: Some(scene),
            grid,
            count,
            inverse: of_points,
        };
        columns::write(&self.rows, self.voxels.as_deref(), scenes, &rule.features, out)?;
        Ok(())
    }
}
