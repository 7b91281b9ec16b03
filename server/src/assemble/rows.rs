//! The CPU part of a block: encoded bytes to finished rows.

use super::mix::mix;
use super::replace::{self, Refusal, Sample, Slot, Slots, settle};
use super::{AssembleError, Block, BlockAt, Encoded, Extent, Slab, Slabs, planned};
use crate::batch::{Piece, flags};
use crate::decode::{Decoder, peek};
use crate::exec::{
    self,
    device::Worker,
    mixer::{self, Place as Where},
};
use crate::job::{Feed, Image, Order, Place};
use crate::metrics::{self, Stage};
use crate::plan::{Plan, view};
use crate::trace;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};
use std::{cell::RefCell, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// A picture with more pixels is decoded alone: formats other than JPEG are decoded whole, at 3 to 6 bytes a pixel and
/// thread, beside what streams were promised.
const LARGE_PIXELS: u64 = 16_000_000;
static LARGE: Mutex<()> = Mutex::new(());

/// Memory of one CPU thread.
#[derive(Default)]
struct Desk {
    decoder: Decoder,
    crop: Vec<u8>,
    scratch: Vec<u8>,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::default());
}

/// Decodes, plans and mixes a block. `None` when a record of `slots` is to be read from a store first.
pub(super) fn make(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    (slabs, device): (&Slabs, Option<&Worker<Slab>>),
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<Option<Block>, AssembleError> {
    let (start, span) = (Instant::now(), trace::stage("decode"));
    let mut clean = slabs.take(at.places.len() * image.format.raster.len());
    let Some(samples) = decode(feed, image, at, slots, &mut clean)? else { return Ok(None) };
    replace::tally(&feed.job, &image.tally, image.max_bad_fraction, samples.iter())?;
    drop(span);
    let (start, span) = (Stage::Decode.done(start), trace::stage("execute"));
    let plan = plan(feed, image, at, &samples);
    let out = slabs.take(plan.rows.len() * image.bytes());
    let (plan, out, by) = mix(image, device, plan, clean, out)?;
    drop(span);
    let (start, _span) = (Stage::Execute.done(start), trace::stage("checksum"));
    let out = match permit.take() {
        Some(permit) => out.hold(permit),
        None => out,
    };
    let tensors = vec![Piece::new(out.freeze())];
    Stage::Checksum.done(start);
    count(feed, &samples);
    metrics::unpaired(
        &feed.job,
        plan.rows.iter().filter(|r| r.flags & flags::NO_PARTNER != 0).count() as u64,
    );
    let extent = Extent { rows: plan.rows.len() as u64, ..Extent::default() };
    Ok(Some(Block { tensors, plan, samples, extent, scenes: Vec::new(), by }))
}

/// A block step by step: clean rows of its slots (u8, in the feed's raster), samples and plan.
pub type Shown = (Vec<u8>, Vec<Sample>, Plan);

/// A block step by step, for pictures; blocks until its records were read.
///
/// # Errors
/// As [`super::Assembler::block`].
pub fn show(feed: &Feed, image: &Image, at: &BlockAt) -> Result<Shown, AssembleError> {
    let mut slots = Slots::new(at);
    loop {
        slots.read(feed)?;
        if let Some(shown) = show_read(feed, image, at, &mut slots)? {
            return Ok(shown);
        }
    }
}

/// As [`show`]; `None` when a record of `slots` is to be read from a store first. Its bad records count nowhere: who
/// looks at a batch once more must not end its job.
///
/// # Errors
/// As [`super::Assembler::block`].
pub fn show_read(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
) -> Result<Option<Shown>, AssembleError> {
    let mut clean = vec![0; at.places.len() * image.format.raster.len()];
    let Some(samples) = decode(feed, image, at, slots, &mut clean)? else { return Ok(None) };
    let mut plan = plan(feed, image, at, &samples);
    if mixer::is_asked(&plan.rows) {
        // On the processor: who looks at a batch once more takes no time of a device.
        let block = (&clean[..], &image.format.raster);
        plan.rows = mixer::realise(&image.mixers, &mut plan.rows, block, Where::Cpu)?;
    }
    Ok(Some((clean, samples, plan)))
}

fn decode(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    clean: &mut [u8],
) -> Result<Option<Vec<Sample>>, AssembleError> {
    let rows = clean.par_chunks_exact_mut(image.format.raster.len());
    let slots = rows.zip(&at.places).zip(&mut slots.0).enumerate();
    let one = |(i, ((row, place), slot)): (usize, ((&mut [u8], &Place), &mut Slot))| {
        let at = At { image, step: at.step, slot: at.slot + i as u64 };
        DESK.with_borrow_mut(|desk| sample(feed, at, place, slot, desk, row))
    };
    // All of them, also when one waits: what they need is then read at once.
    let samples = slots.map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(samples.into_iter().collect())
}

/// Where a picture is drawn for.
#[derive(Clone, Copy)]
struct At<'a> {
    image: &'a Image,
    step: u64,
    slot: u64,
}

/// Fills one clean row, from another record of the group when the slot's own is bad.
fn sample(
    feed: &Feed,
    at: At<'_>,
    place: &Place,
    slot: &mut Slot,
    desk: &mut Desk,
    row: &mut [u8],
) -> Result<Option<Sample>, AssembleError> {
    let settled = settle(feed, place, slot, |_, encoded| picture(at, encoded, desk, row))?;
    Ok(settled.map(|((), sample)| sample))
}

fn picture(at: At<'_>, encoded: &Encoded, desk: &mut Desk, row: &mut [u8]) -> Result<(), Refusal> {
    let At { image, step, slot } = at;
    let bytes = encoded.as_ref().map_err(Clone::clone)?;
    let peek = peek(bytes, image.limits)?;
    let pixels = u64::from(peek.height) * u64::from(peek.width);
    // Held while it is decoded; a lock that a panic poisoned guards nothing that could be broken.
    let _alone = (pixels > LARGE_PIXELS).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let view = view::draw(&image.view, &peek, &image.view_stream, step, slot);
    let len = view.size.0 as usize * view.size.1 as usize * crate::batch::CHANNELS;
    desk.crop.resize(len, 0);
    desk.decoder.decode(bytes, &peek, &view.crop, view.size, &mut desk.crop)?;
    exec::finish(&view, &desk.crop, &image.format.raster, &mut desk.scratch, row);
    Ok(())
}

fn plan(feed: &Feed, image: &Image, at: &BlockAt, samples: &[Sample]) -> Plan {
    let Image { mix, mix_stream, fields, view, .. } = image;
    planned(feed, at, samples, (mix, mix_stream, fields), (view.height, view.width))
}

/// Counts rows of each group that are served for training: those are what a mixture is about.
pub(super) fn count(feed: &Feed, samples: &[Sample]) {
    if !matches!(feed.order, Order::Train(_)) {
        return;
    }
    let mut rows = vec![0; feed.groups.len()];
    samples.iter().for_each(|s| rows[s.id.group as usize] += 1);
    metrics::group_rows(&feed.job, feed.groups.iter().map(|g| g.name.as_str()).zip(rows));
}
