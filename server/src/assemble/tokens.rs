//! Rows of tokens: read to where they are sent from.

use super::{AssembleError, Block, BlockAt, Extent, Sample, Slabs, retried, rows};
use crate::batch::{Piece, SampleId, flags};
use crate::job::{Feed, MadeBy, Place, Tokens};
use crate::metrics::{self, Stage};
use crate::pack;
use crate::plan::Plan;
use crate::trace;
use std::sync::{Mutex, PoisonError};
use std::{collections::BTreeSet, ops::Range, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Label of a token that has no next one.
const NO_LABEL: [u8; 4] = (-100i32).to_le_bytes();
/// Buffers of rows that differ in length come in multiples of this, so that they are used again.
const GRAIN: usize = 16 << 10;

/// A row of tokens in process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Group and packed row.
    pub id: SampleId,
    /// [`flags::PADDED`], or 0.
    pub flags: u32,
    /// Ids without padding, 1..=seq_len.
    pub ids: Vec<i32>,
    /// Where its pieces begin, and its end; ascending.
    pub cuts: Vec<u32>,
}

/// The rows of a block, for who runs in this process: tests, validation runs.
///
/// # Errors
/// [`AssembleError::Source`]; a feed of pictures has no such rows.
pub fn tokens(feed: &Feed, at: &BlockAt) -> Result<Vec<TokenRow>, AssembleError> {
    let Some(rule) = feed.tokens() else { return Ok(Vec::new()) };
    let (mut files, mut ids, mut pieces) =
        (Touched::default(), vec![[0; 4]; rule.seq_len as usize], Vec::new());
    let row = |place: &Place| {
        pieces.clear();
        rule.row(place.id, &mut pieces);
        let len: usize = pieces.iter().map(|p| p.tokens as usize).sum();
        let mut left = &mut ids[..len];
        for piece in &pieces {
            let run = Run::of(feed, place.id.group, piece);
            files.read(feed, &run, take(&mut left, run.tokens))?;
        }
        let ids = ids[..len].iter().map(|id| i32::from_le_bytes(*id)).collect();
        let mut end = 0;
        let ends = pieces.iter().map(|piece| {
            end += piece.tokens;
            end
        });
        let cuts = std::iter::once(0).chain(ends).collect();
        Ok(TokenRow { id: place.id, flags: padded(place), ids, cuts })
    };
    let rows = at.places.iter().map(row).collect::<Result<Vec<_>, AssembleError>>()?;
    files.check(feed)?;
    Ok(rows)
}

fn padded(place: &Place) -> u32 {
    if place.padded { flags::PADDED } else { 0 }
}

/// What the rows of `places` hold.
pub(super) fn extent(rule: &Tokens, places: &[Place]) -> Extent {
    let tokens = |place: &Place| match rule.ragged() {
        true => u64::from(rule.row_tokens(place.id)),
        false => u64::from(rule.seq_len),
    };
    // Counting pieces is a search in the table: only where they are sent.
    let counted = if rule.cu_seqlens { places } else { &[] };
    Extent {
        rows: places.len() as u64,
        tokens: places.iter().map(tokens).sum(),
        pieces: counted.iter().map(|place| u64::from(rule.pieces(place.id))).sum(),
        ..Extent::default()
    }
}

/// Bytes of the large tensors.
pub(super) fn bytes(rule: &Tokens, extent: Extent) -> usize {
    Parts::new(rule, extent, false).end
}

/// Where each large tensor lies in a block's buffer, in descriptor order.
struct Parts {
    ids: Range<usize>,
    mask: Range<usize>,
    positions: Range<usize>,
    segments: Range<usize>,
    labels: Range<usize>,
    cuts: Range<usize>,
    end: usize,
}

impl Parts {
    /// `full`: no row has padding, so that the mask is [`full_mask`].
    fn new(rule: &Tokens, extent: Extent, full: bool) -> Parts {
        let (tokens, cuts) = (extent.tokens as usize, (extent.pieces + extent.rows) as usize);
        let mut end = 0;
        let mut part = |wanted: bool, bytes: usize| {
            let begin = end;
            end += if wanted { bytes } else { 0 };
            begin..end
        };
        Parts {
            ids: part(true, tokens * 4),
            mask: part(!rule.ragged() && !full, tokens),
            positions: part(rule.position_ids, tokens * 4),
            segments: part(rule.segment_ids, tokens * 4),
            labels: part(rule.labels, tokens * 4),
            cuts: part(rule.cu_seqlens, cuts * 4),
            end,
        }
    }

    /// Those that are sent; an empty one of a block with tokens is a full mask.
    fn sent(self, rule: &Tokens) -> Vec<Range<usize>> {
        let Parts { ids, mask, positions, segments, labels, cuts, .. } = self;
        let all = [
            (true, ids),
            (!rule.ragged(), mask),
            (rule.position_ids, positions),
            (rule.segment_ids, segments),
            (rule.labels, labels),
            (rule.cu_seqlens, cuts),
        ];
        all.into_iter().filter_map(|(sent, range)| sent.then_some(range)).collect()
    }
}

/// The mask of rows without padding: the same bytes for every block of its size, made and checksummed once.
fn full_mask(tokens: usize) -> Piece {
    static LAST: Mutex<Option<Piece>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some(mask) if mask.bytes.len() == tokens => mask.clone(),
        _ => last.insert(Piece::new(vec![1; tokens].into())).clone(),
    }
}

/// Makes a block.
pub(super) fn make(
    feed: &Feed,
    at: &BlockAt,
    slabs: &Slabs,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Block, AssembleError> {
    let (start, span) = (Instant::now(), trace::stage("read"));
    let rule = feed.tokens().expect("asked by the caller");
    let extent = extent(rule, &at.places);
    let filled = |place: &Place| rule.row_tokens(place.id) == rule.seq_len;
    let full = rule.rule == pack::Rule::Concat && at.places.iter().all(filled);
    let parts = Parts::new(rule, extent, full);
    let size = if rule.ragged() || rule.cu_seqlens { parts.end.next_multiple_of(GRAIN) } else { parts.end };
    let mut slab = slabs.take(size);
    fill(feed, rule, at, &parts, &mut slab)?;
    drop(span);
    let (start, _span) = (Stage::Read.done(start), trace::stage("checksum"));
    let slab = match permit {
        Some(permit) => slab.hold(permit),
        None => slab,
    };
    let whole = slab.freeze();
    let mask = parts.mask.start;
    let piece = |range: Range<usize>| match full && range == (mask..mask) {
        true => full_mask(extent.tokens as usize),
        false => Piece::new(whole.slice(range)),
    };
    let tensors = parts.sent(rule).into_iter().map(piece).collect();
    Stage::Checksum.done(start);
    let sample = |place: &Place| Sample { id: place.id, label: -1, flags: padded(place), replaced: None };
    let samples: Vec<Sample> = at.places.iter().map(sample).collect();
    rows::count(feed, &samples);
    Ok(Block { tensors, plan: Plan::default(), samples, extent, scenes: Vec::new(), by: MadeBy::CPU })
}

/// The parts of a buffer that are still to be filled.
struct Rest<'a> {
    ids: &'a mut [[u8; 4]],
    mask: &'a mut [u8],
    positions: &'a mut [[u8; 4]],
    segments: &'a mut [[u8; 4]],
    labels: &'a mut [[u8; 4]],
    cuts: &'a mut [[u8; 4]],
}

fn fill(
    feed: &Feed,
    rule: &Tokens,
    at: &BlockAt,
    parts: &Parts,
    slab: &mut [u8],
) -> Result<(), AssembleError> {
    let mut left = slab;
    let mut cut = |range: &Range<usize>| left.split_off_mut(..range.len()).unwrap_or_default();
    let (ids, mask) = (cut(&parts.ids), cut(&parts.mask));
    let (positions, segments) = (cut(&parts.positions), cut(&parts.segments));
    let (labels, cuts) = (cut(&parts.labels), cut(&parts.cuts));
    let mut rest = Rest {
        ids: ids.as_chunks_mut().0,
        mask,
        positions: positions.as_chunks_mut().0,
        segments: segments.as_chunks_mut().0,
        labels: labels.as_chunks_mut().0,
        cuts: cuts.as_chunks_mut().0,
    };
    let laid = Laid::of(feed, rule, &at.places);
    let (mut files, mut tokens) = (Touched::default(), 0);
    for runs in laid.rows() {
        tokens += row(feed, rule, runs, &mut rest, &mut files)?;
    }
    files.check(feed)?;
    metrics::reads(at.places.len() as u64, tokens * 4, true);
    Ok(())
}

/// Consecutive tokens of one document.
struct Run {
    group: u32,
    document: u32,
    from: u64,
    tokens: usize,
}

impl Run {
    fn of(feed: &Feed, group: u32, piece: &pack::Piece) -> Run {
        let document = feed.groups[group as usize].at(piece.position);
        Run { group, document, from: piece.from, tokens: piece.tokens as usize }
    }
}

/// What the rows of a block are made of.
struct Laid {
    runs: Vec<Run>,
    /// Runs up to and including each row.
    ends: Vec<usize>,
}

impl Laid {
    /// Looks everything up before anything is copied. Tables and files lie far apart in memory: short loops over many rows
    /// wait for several of them at once, where row after row each would be waited for alone.
    fn of(feed: &Feed, rule: &Tokens, places: &[Place]) -> Laid {
        let (mut pieces, mut ends) = (Vec::new(), Vec::with_capacity(places.len()));
        for place in places {
            rule.row(place.id, &mut pieces);
            ends.push(pieces.len());
        }
        let mut runs = Vec::with_capacity(pieces.len());
        for (place, end) in places.iter().zip(&ends) {
            let own = &pieces[runs.len()..*end];
            runs.extend(own.iter().map(|piece| Run::of(feed, place.id.group, piece)));
        }
        for run in &runs {
            if let Some(corpus) = feed.groups[run.group as usize].source.tokens() {
                corpus.touch(run.document, run.from);
            }
        }
        Laid { runs, ends }
    }

    /// The runs of each row.
    fn rows(&self) -> impl Iterator<Item = &[Run]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.runs[*begin..*end])
    }
}

/// Fills one row; returns its tokens.
fn row(
    feed: &Feed,
    rule: &Tokens,
    runs: &[Run],
    rest: &mut Rest<'_>,
    files: &mut Touched,
) -> Result<u64, AssembleError> {
    let len: usize = runs.iter().map(|run| run.tokens).sum();
    let width = if rule.ragged() { len } else { rule.seq_len as usize };
    let ids = take(&mut rest.ids, width);
    let mut left = &mut ids[..len];
    for run in runs {
        files.read(feed, run, take(&mut left, run.tokens))?;
    }
    ids[len..].fill(rule.pad_id.to_le_bytes());
    if !rest.mask.is_empty() {
        let mask = take(&mut rest.mask, width);
        mask[..len].fill(1);
        mask[len..].fill(0);
    }
    let positions = take(&mut rest.positions, if rule.position_ids { width } else { 0 });
    let segments = take(&mut rest.segments, if rule.segment_ids { width } else { 0 });
    let labels = take(&mut rest.labels, if rule.labels { width } else { 0 });
    let cuts = take(&mut rest.cuts, if rule.cu_seqlens { runs.len() + 1 } else { 0 });
    let mut begin = 0;
    for (number, run) in runs.iter().enumerate() {
        let own = begin..begin + run.tokens;
        if let Some(positions) = positions.get_mut(own.clone()) {
            positions.iter_mut().zip(0i32..).for_each(|(out, at)| *out = at.to_le_bytes());
        }
        if let Some(segments) = segments.get_mut(own.clone()) {
            segments.fill((number as i32 + 1).to_le_bytes());
        }
        if let Some(labels) = labels.get_mut(own.clone()) {
            let last = labels.len() - 1; // a piece has a token
            labels[..last].copy_from_slice(&ids[own.start + 1..own.end]);
            labels[last] = NO_LABEL;
        }
        if let Some(cut) = cuts.get_mut(number) {
            *cut = (begin as i32).to_le_bytes();
        }
        begin = own.end;
    }
    if let Some(cut) = cuts.last_mut() {
        *cut = (len as i32).to_le_bytes();
    }
    for (rest, none) in [(positions, [0; 4]), (segments, [0; 4]), (labels, NO_LABEL)] {
        rest.get_mut(len..).unwrap_or_default().fill(none);
    }
    Ok(len as u64)
}

/// The first `count` elements of what is left.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    rest.split_off_mut(..count).expect("the buffer was measured by the same tables")
}

/// Files that a block was read from.
#[derive(Default)]
struct Touched {
    files: BTreeSet<(u32, u32)>,
    /// The one read last.
    last: Option<(u32, u32)>,
}

impl Touched {
    /// Reads a run into `out`, which has its length.
    fn read(&mut self, feed: &Feed, run: &Run, out: &mut [[u8; 4]]) -> Result<(), AssembleError> {
        let Some(corpus) = feed.groups[run.group as usize].source.tokens() else { return Ok(()) };
        retried(|| corpus.read(run.document, run.from, out))?;
        let file = Some((run.group, corpus.file(run.document)));
        if file != self.last {
            self.files.extend(file);
            self.last = file;
        }
        Ok(())
    }

    /// Fails when one of them is no longer what was indexed.
    fn check(&self, feed: &Feed) -> Result<(), AssembleError> {
        for (group, file) in &self.files {
            if let Some(corpus) = feed.groups[*group as usize].source.tokens() {
                retried(|| corpus.check(*file))?;
            }
        }
        Ok(())
    }
}
