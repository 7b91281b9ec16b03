//! The CPU part of a block: encoded bytes to finished rows.

use super::mix::mix;
use super::replace::{self, Refusal, Sample, Slot, Slots, settle};
use super::{AssembleError, Block, BlockAt, Encoded, Extent, Slab, Slabs, planned};
use crate::batch::{CHANNELS, Crop, Peek, Piece, flags};
use crate::decode::{Decoder, Region, Resampler, peek};
use crate::exec;
use crate::exec::device::{Input, MOST_SHRUNK, Picture, Task, Worker};
use crate::exec::mixer::{self, Place as Where};
use crate::job::{Feed, Image, Numerics, Order, Place};
use crate::metrics::{self, Stage};
use crate::plan::{Plan, recipe, view, view::View};
use crate::trace;
use rayon::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{cell::RefCell, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// A picture with more pixels is decoded alone: formats other than JPEG are decoded whole, at 3 to 6 bytes a pixel and
/// thread, beside what streams were promised.
const LARGE_PIXELS: u64 = 16_000_000;
static LARGE: Mutex<()> = Mutex::new(());
/// Bytes of decoded pictures that a block may hold until a device has them, and how many times its clean rows: what is
/// larger is resampled where it is decoded, to the same bytes.
const DECODED: (usize, usize) = (32 << 20, 4);

/// Memory of one CPU thread.
#[derive(Default)]
struct Desk {
    decoder: Decoder,
    resampler: Resampler,
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
    let device = device.filter(|_| image.numerics != Numerics::Cpu);
    let alive = device.is_some_and(|device| !device.lost());
    let made = input(feed, image, at, slots, slabs, alive)?;
    let Some((input, samples)) = made else { return Ok(None) };
    replace::tally(&image.tally, image.max_bad_fraction, samples.iter())?;
    drop(span);
    let (start, span) = (Stage::Decode.done(start), trace::stage("execute"));
    let plan = plan(feed, image, at, &samples);
    let out = slabs.take(image.sent(at.places.len(), plan.rows.len()).0);
    let task = Task { plan, format: image.format.clone(), input, out };
    let (Task { plan, input, out, .. }, by) = mix(image, device, slabs, task)?;
    let ops = image.delivery.words().map(|words| ops(image, at, &plan, words, slabs));
    drop(span);
    let (start, _span) = (Stage::Execute.done(start), trace::stage("checksum"));
    let tensors = pieces(image, (out, input, ops), permit.take());
    Stage::Checksum.done(start);
    count(feed, &samples);
    metrics::unpaired(
        &feed.job,
        plan.rows.iter().filter(|r| r.flags & flags::NO_PARTNER != 0).count() as u64,
    );
    let extent = Extent { rows: plan.rows.len() as u64, slots: at.places.len() as u64, ..Extent::default() };
    Ok(Some(Block { tensors, plan, samples, extent, scenes: Vec::new(), by }))
}

/// The words of each row's plan.
fn ops(image: &Image, at: &BlockAt, plan: &Plan, words: usize, slabs: &Slabs) -> Slab {
    let mut ops = slabs.take(plan.rows.len() * recipe::bytes(words));
    let rows = ops.par_chunks_exact_mut(recipe::bytes(words)).zip(&plan.rows);
    rows.for_each_init(Vec::new, |encoded, (out, row)| {
        encoded.clear();
        recipe::encode(row, at.slot as u32, image.view.width, words, encoded);
        out.copy_from_slice(encoded);
    });
    ops
}

/// What is sent of a block: mixed rows, clean ones with their plans, or all. The stream's memory is held until the last of
/// them has left.
fn pieces(
    image: &Image,
    (mixed, input, ops): (Slab, Input<Slab>, Option<Slab>),
    permit: Option<OwnedSemaphorePermit>,
) -> Vec<Piece> {
    let clean = match input {
        Input::Clean(clean) => image.delivery.words().map(|_| clean),
        Input::Decoded(_) => None,
    };
    let mixed = image.delivery.mixed().then_some(mixed);
    let mut sent: Vec<Slab> = [mixed, clean, ops].into_iter().flatten().collect();
    if let Some(permit) = permit {
        let last = sent.pop().map(|last| last.hold(permit));
        sent.extend(last);
    }
    sent.into_iter().map(|slab| Piece::new(slab.freeze())).collect()
}

/// A block as a `device` takes it, or the CPU, for the clock only; `None` where records are to be read first.
pub(super) fn task(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
    device: bool,
) -> Result<Option<Task<Slab>>, AssembleError> {
    let Some((input, samples)) = input(feed, image, at, slots, slabs, device)? else { return Ok(None) };
    let plan = plan(feed, image, at, &samples);
    let out = slabs.take(plan.rows.len() * image.bytes());
    Ok(Some(Task { plan, format: image.format.clone(), input, out }))
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
    let made = each(feed, image, at, slots, rows, |at, encoded, desk, row| picture(at, encoded, desk, row))?;
    Ok(made.map(|made| made.into_iter().map(|((), sample)| sample).collect()))
}

/// What a block is made from, and the records in its slots.
type Decoded = (Input<Slab>, Vec<Sample>);

/// Decodes a block: for a device that resamples, or to clean rows where the host needs them.
fn input(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
    device: bool,
) -> Result<Option<Decoded>, AssembleError> {
    if device && !image.keeps_clean() {
        return pictures(feed, image, at, slots, slabs);
    }
    let mut clean = slabs.take(at.places.len() * image.format.raster.len());
    let samples = decode(feed, image, at, slots, &mut clean)?;
    Ok(samples.map(|samples| (Input::Clean(clean), samples)))
}

/// Decodes a block for a device, which resamples.
fn pictures(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    slabs: &Slabs,
) -> Result<Option<Decoded>, AssembleError> {
    let most = decoded_bytes(image, at.places.len()) / at.places.len().max(1);
    let rows = (0..at.places.len()).into_par_iter();
    let made =
        each(feed, image, at, slots, rows, |at, encoded, desk, _| decoded(at, encoded, desk, slabs, most))?;
    Ok(made.map(|made| {
        let (pictures, samples) = made.into_iter().unzip();
        (Input::Decoded(pictures), samples)
    }))
}

/// Most bytes of a block of `rows` before it is mixed that are not sent: clean rows, or decoded pictures where a device may
/// make them.
pub(super) fn clean_bytes(image: &Image, rows: usize) -> usize {
    match image.numerics {
        // `Image::sent` counts them.
        _ if image.delivery.words().is_some() => 0,
        _ if image.keeps_clean() => rows * image.format.raster.len(),
        Numerics::Cpu => rows * image.format.raster.len(),
        Numerics::Torch | Numerics::Tolerant => decoded_bytes(image, rows),
    }
}

/// Most bytes of decoded pictures of a block of `rows` for a device.
fn decoded_bytes(image: &Image, rows: usize) -> usize {
    let clean = rows * image.format.raster.len();
    (DECODED.1 * clean).min(DECODED.0).max(clean)
}

/// Makes something of each slot of a block, in parallel; `None` when a record is to be read from a store first.
fn each<R: Send, T: Send>(
    feed: &Feed,
    image: &Image,
    at: &BlockAt,
    slots: &mut Slots,
    rows: impl IndexedParallelIterator<Item = R>,
    make: impl Fn(At<'_>, &Encoded, &mut Desk, &mut R) -> Result<T, Refusal> + Sync,
) -> Result<Option<Vec<(T, Sample)>>, AssembleError> {
    let slots = rows.zip(&at.places).zip(&mut slots.0).enumerate();
    let one = |(i, ((mut row, place), slot)): (usize, ((R, &Place), &mut Slot))| {
        let at = At { image, step: at.step, slot: at.slot + i as u64 };
        let mut make = |encoded: &Encoded| DESK.with_borrow_mut(|desk| make(at, encoded, desk, &mut row));
        // From another record of the group when the slot's own is bad.
        settle(feed, place, slot, |_, encoded| make(encoded))
    };
    // All of them, also when one waits: what they need is then read at once.
    let made = slots.map(one).collect::<Result<Vec<_>, AssembleError>>()?;
    Ok(made.into_iter().collect())
}

/// Where a picture is drawn for.
#[derive(Clone, Copy)]
struct At<'a> {
    image: &'a Image,
    step: u64,
    slot: u64,
}

/// A record whose header was read.
struct Opened<'a> {
    bytes: &'a [u8],
    peek: Peek,
    view: View,
    /// Held while a large picture is decoded.
    _alone: Option<MutexGuard<'static, ()>>,
}

fn open<'a>(at: At<'_>, encoded: &'a Encoded) -> Result<Opened<'a>, Refusal> {
    let At { image, step, slot } = at;
    let bytes = encoded.as_ref().map_err(Clone::clone)?;
    let peek = peek(bytes, image.limits)?;
    let pixels = u64::from(peek.height) * u64::from(peek.width);
    // A lock that a panic poisoned guards nothing that could be broken.
    let _alone = (pixels > LARGE_PIXELS).then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    let view = view::draw(&image.view, &peek, &image.view_stream, step, slot);
    Ok(Opened { bytes, peek, view, _alone })
}

/// Fills one clean row.
fn picture(at: At<'_>, encoded: &Encoded, desk: &mut Desk, row: &mut [u8]) -> Result<(), Refusal> {
    let Opened { bytes, peek, view, .. } = &open(at, encoded)?;
    desk.crop.resize(area(view), 0);
    desk.decoder.decode(bytes, peek, &view.crop, view.size, &mut desk.crop)?;
    exec::finish(view, &desk.crop, &at.image.format.raster, &mut desk.scratch, row);
    Ok(())
}

/// Decodes one picture for a device; one that would take more than `most` bytes, or is shrunk too much, is resampled.
fn decoded(
    at: At<'_>,
    encoded: &Encoded,
    desk: &mut Desk,
    slabs: &Slabs,
    most: usize,
) -> Result<Picture<Slab>, Refusal> {
    let opened = open(at, encoded)?;
    let (size, crop) = (opened.view.size, opened.view.crop);
    let taken = desk.decoder.region(opened.bytes, &opened.peek, &crop, size, |region, pixels, resampler| {
        let shrunk = (region.crop.height / f64::from(size.0)).max(region.crop.width / f64::from(size.1));
        if shrunk <= MOST_SHRUNK && pixels.len() <= most {
            // Few sizes of buffers, so that they are used again.
            let mut memory = slabs.take(pixels.len().next_power_of_two().min(most));
            memory[..pixels.len()].copy_from_slice(pixels);
            return (memory, (region.height, region.width), region.crop);
        }
        let mut memory = slabs.take(area(&opened.view));
        resampler.run(pixels, region, size, &mut memory);
        let crop = Crop { y: 0.0, x: 0.0, height: size.0.into(), width: size.1.into() };
        (memory, size, crop)
    });
    let (pixels, (height, width), crop) = taken?;
    Ok(Picture { pixels, height, width, crop, view: opened.view })
}

/// Bytes of a picture after resampling.
fn area(view: &View) -> usize {
    view.size.0 as usize * view.size.1 as usize * CHANNELS
}

/// Makes the clean row of a picture that no device takes.
pub(super) fn finish(picture: &Picture<Slab>, image: &Image, row: &mut [u8]) {
    let Picture { pixels, height, width, crop, view } = picture;
    DESK.with_borrow_mut(|desk| {
        desk.crop.resize(area(view), 0);
        let region = Region { height: *height, width: *width, crop: *crop };
        desk.resampler.run(pixels, &region, view.size, &mut desk.crop);
        exec::finish(view, &desk.crop, &image.format.raster, &mut desk.scratch, row);
    });
}

fn plan(feed: &Feed, image: &Image, at: &BlockAt, samples: &[Sample]) -> Plan {
    let Image { mix, mix_stream, fields, view, .. } = image;
    planned(feed, at, samples, (mix, mix_stream, fields), (view.height, view.width))
}

/// Counts rows of each group that are served for training, and those of them that stand for a bad record: those are what a
/// mixture is about.
pub(super) fn count(feed: &Feed, samples: &[Sample]) {
    if !matches!(feed.order, Order::Train(_)) {
        return;
    }
    let mut rows = vec![0; feed.groups.len()];
    samples.iter().for_each(|s| rows[s.id.group as usize] += 1);
    metrics::group_rows(&feed.job, feed.groups.iter().map(|g| g.name.as_str()).zip(rows));
    metrics::replaced(&feed.job, samples.iter().filter(|s| s.replaced.is_some()).count() as u64);
}
