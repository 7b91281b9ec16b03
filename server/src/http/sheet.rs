//! Rows of a step, made once more for people: the sequence is a pure function, so nothing has to be kept.

use super::page::LastBatch;
use crate::assemble::{self, AssembleError, Assembler, BlockAt, Opened, Sample, Slots};
use crate::batch::Dtype;
use crate::exec::{self, Format};
use crate::job::{Feed, Image, Job, Points, places};
use crate::picture::scene::{ClassNames, Cloud, Paint, picture};
use crate::picture::{Picture, PictureError, Tiles};
use crate::stream::Memory;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Rows that are shown.
const ROWS: usize = 12;
/// Pictures side by side in the file.
const COLUMNS: usize = 4;
/// Pixels of a picture's longer side, and of a scene's.
const SIDE: u32 = 128;
const SCENE: u32 = 192;
/// A block whose making takes more bytes, or slots, is not made for a look: drawing needs all of it.
const MOST_BYTES: usize = 64 << 20;
const MOST_SLOTS: usize = 256;
/// How long a look waits for stores: far less than a batch, since it holds the place of others.
const STORES: Duration = Duration::from_secs(5);
/// Ids of a row of tokens that are shown; characters where ids are bytes of text.
const IDS: usize = 32;
const CHARS: usize = 200;

/// Rows as the page shows them.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    /// What they are.
    pub last: LastBatch,
    /// Their pictures.
    pub png: Option<Bytes>,
}

/// Rows that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unshown {
    /// The step is not in the sequence.
    #[error("step {0} is not planned")]
    Step(u64),
    /// A block that is too much for a look.
    #[error(
        "a pairing block of this job is {slots} rows of {bytes} bytes: too large to make it once more for a look"
    )]
    Large {
        /// Its rows.
        slots: usize,
        /// Bytes that making it takes.
        bytes: usize,
    },
    /// No memory for it.
    #[error("memory is promised to streams: {0}")]
    Memory(#[from] crate::stream::OutOfMemory),
    /// A store that is slow or away.
    #[error("its records are in a store that does not give them within {} seconds", STORES.as_secs())]
    Away,
    /// It cannot be made.
    #[error("it cannot be made: {0}")]
    Block(#[from] AssembleError),
    /// It cannot be drawn.
    #[error("it cannot be drawn: {0}")]
    Picture(#[from] PictureError),
}

/// Makes the first rows of rank 0 of `step`, beside the CPU pool and within the memory that is left.
pub(super) async fn make(
    assembler: &Assembler,
    memory: &Memory,
    job: &Arc<Job>,
    step: u64,
) -> Result<Sheet, Unshown> {
    let at = block(job, step)?;
    let mut slots = Slots::new(&at);
    let end = Instant::now() + STORES;
    loop {
        // Before memory is promised and a thread begun: a store that is away holds neither.
        let read = tokio::time::timeout_at(end, assembler.read_far(&job.feed, &mut slots)).await;
        read.map_err(|_| Unshown::Away)??;
        let (assembler, memory, job, at) = (assembler.clone(), memory.clone(), job.clone(), at.clone());
        let drawn = tokio::task::spawn_blocking(move || {
            let drawn = draw(&assembler, &memory, &job.feed, &at, &mut slots)?;
            Ok::<_, Unshown>((drawn, slots))
        });
        let drawn = drawn.await.unwrap_or_else(|lost| Err(AssembleError::Panic(lost.to_string()).into()))?;
        match drawn {
            (Some(sheet), _) => return Ok(sheet),
            (None, rest) => slots = rest,
        }
    }
}

/// What is to be made.
fn block(job: &Job, step: u64) -> Result<BlockAt, Unshown> {
    let (feed, view) = (&*job.feed, job.keeper.view());
    if view.ready_mark(step).is_none() {
        return Err(Unshown::Step(step));
    }
    let mut places = places(&view.sequence, step);
    if places.is_empty() {
        return Err(Unshown::Step(step));
    }
    places.truncate(if feed.tokens().is_some() { ROWS } else { feed.mix_block as usize });
    let at = BlockAt { step, slot: 0, places };
    let (making, keeping) = Assembler::cost(feed, &at);
    let (slots, bytes) = (at.places.len(), making + keeping);
    if bytes > MOST_BYTES || slots > MOST_SLOTS {
        return Err(Unshown::Large { slots, bytes });
    }
    Ok(at)
}

/// Draws a block whose far records were read; `None` when another one is to be read. Blocks.
fn draw(
    assembler: &Assembler,
    memory: &Memory,
    feed: &Feed,
    at: &BlockAt,
    slots: &mut Slots,
) -> Result<Option<Sheet>, Unshown> {
    let (making, keeping) = Assembler::cost(feed, at);
    let _promise = memory.reserve(making + keeping, making + keeping)?;
    assembler.beside(|| match (feed.image(), feed.points()) {
        (Some(image), _) => pictures(feed, image, at, slots),
        (None, Some(points)) => scenes(feed, points, at, slots),
        (None, None) => tokens(feed, at).map(Some),
    })
}

fn sheet(step: u64, tiles: Tiles, captions: Vec<String>) -> Sheet {
    let Tiles { columns, size, png } = tiles;
    Sheet { last: LastBatch::Pictures { step, columns, size, captions }, png: Some(png.into()) }
}

fn pictures(feed: &Feed, image: &Image, at: &BlockAt, slots: &mut Slots) -> Result<Option<Sheet>, Unshown> {
    let Some((clean, samples, plan)) = assemble::show_read(feed, image, at, slots)? else { return Ok(None) };
    // What a trainer gets before it is made a fraction and normalised.
    let format = Format { dtype: Dtype::U8, normalize: None, ..image.format.clone() };
    let mut scratch = exec::Scratch::default();
    let mut out = vec![0; format.raster.len()];
    let (mut shown, mut captions) = (Vec::new(), Vec::new());
    for row in plan.rows.iter().take(ROWS) {
        exec::run(row, &clean, &format, &mut scratch, &mut out);
        shown.push(Picture::from_row(&out, &format.raster));
        let policy = row.policy.map_or("clean", |p| image.mix.members[p as usize].policy.name());
        let label = |slot: u32| label(feed, &samples[slot as usize]);
        captions.push(match row.policy {
            None => format!("{policy}: {}", label(row.base)),
            Some(_) => {
                let (own, rest) = (row.own * 100.0, (1.0 - row.own) * 100.0);
                format!("{policy}: {own:.0} % {}, {rest:.0} % {}", label(row.base), label(row.partner))
            }
        });
    }
    Ok(Some(sheet(at.step, Tiles::new(&shown, COLUMNS, SIDE)?, captions)))
}

/// Class of a record, or its group where it has none.
fn label(feed: &Feed, sample: &Sample) -> String {
    let class = usize::try_from(sample.label).ok().and_then(|label| feed.classes.get(label));
    class.unwrap_or(&feed.groups[sample.id.group as usize].name).clone()
}

fn scenes(feed: &Feed, rule: &Points, at: &BlockAt, slots: &mut Slots) -> Result<Option<Sheet>, Unshown> {
    let Some(opened) = assemble::open_read(feed, rule, at, slots)? else { return Ok(None) };
    let Opened { scenes, samples, plan, mixed } = opened;
    let names: Vec<(i32, String)> = (0..).zip(feed.classes.iter().cloned()).collect();
    let (mut shown, mut captions) = (Vec::new(), Vec::new());
    for (i, row) in mixed.rows.iter().enumerate().take(ROWS) {
        let (mut coord, mut class) = (Vec::new(), Vec::new());
        for part in row {
            let (scene, turn) = (&scenes[part.slot as usize], part.turn());
            for number in part.numbers() {
                coord.push(turn.of(scene.coord[number as usize]));
                class.push(scene.segment.as_ref().map_or(-1, |class| class[number as usize]));
            }
        }
        let cloud = Cloud { coord: &coord, class: Some(&class), color: None };
        shown.push(picture(cloud, ClassNames::Own(&names), Paint::Class, (SCENE * 3 / 4, SCENE))?);
        let policy = plan.rows[i].policy.map_or("clean", |p| rule.mix.members[p as usize].policy.name());
        let facts = &mixed.facts[i];
        let of: Vec<&str> = facts
            .scenes
            .iter()
            .map(|(slot, _)| feed.groups[samples[*slot as usize].id.group as usize].name.as_str())
            .collect();
        captions.push(format!("{policy}: {}, {} points", of.join(" + "), facts.points));
    }
    Ok(Some(sheet(at.step, Tiles::new(&shown, COLUMNS, SCENE)?, captions)))
}

fn tokens(feed: &Feed, at: &BlockAt) -> Result<Sheet, Unshown> {
    let rows = assemble::tokens(feed, at)?;
    let row = |row: &assemble::TokenRow| {
        let group = &feed.groups[row.id.group as usize];
        let ids = || row.ids.iter().take(IDS).map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let text = if is_bytes(&*group.source) { text(&row.ids) } else { ids() };
        (format!("{}, {} tokens", group.name, row.ids.len()), text)
    };
    let rows = rows.iter().map(row).collect();
    Ok(Sheet { last: LastBatch::Tokens { step: at.step, rows }, png: None })
}

/// Whether ids are the bytes of a text: a tokenizer of as many ids as there are bytes, with or without an end of documents.
fn is_bytes(source: &dyn crate::source::Source) -> bool {
    let vocabulary = source.tokens().and_then(|corpus| corpus.vocabulary());
    source.kind() == "text" && matches!(vocabulary, Some(256 | 257))
}

fn text(ids: &[i32]) -> String {
    let bytes: Vec<u8> = ids.iter().take(CHARS).map(|id| u8::try_from(*id).unwrap_or(b' ')).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
