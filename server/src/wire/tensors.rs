//! The tensors of a batch: descriptors of all, contents of the small ones (labels, sample ids, plan, offsets).

use crate::assemble::{Block, Extent, Sample};
use crate::batch::{Dtype, Piece};
use crate::exec::{labels, points::columns::width};
use crate::job::{Feed, Image, Numerics, Pipeline, Points, Tokens};
use crate::plan::{Op, Row};
use bytes::Bytes;
use mixfeed_proto as v1;

/// One small tensor: name, element type, columns of a row (1 means no second axis).
type Column = (&'static str, Dtype, u64);

/// After the labels, in this order. Two columns mean (own, partner), (sampled lambda, label weight of the base).
const FACTS: [Column; 7] = [
    ("sample.group", Dtype::U32, 2),
    ("sample.index", Dtype::U64, 2),
    ("sample.flags", Dtype::U32, 1),
    ("plan.policy", Dtype::I32, 1),
    ("plan.partner", Dtype::U32, 1),
    ("plan.lambda", Dtype::F64, 2),
    ("plan.box", Dtype::U32, 4),
];

/// After those where clean rows are sent: the row's own slot.
const BASE: Column = ("plan.base", Dtype::U32, 1);

/// Of a row of tokens.
const IDS: [Column; 3] =
    [("sample.group", Dtype::U32, 1), ("sample.index", Dtype::U64, 1), ("sample.flags", Dtype::U32, 1)];

/// Of a row of scenes; `k` columns where the width is 0.
const SCENE_FACTS: [Column; 7] = [
    ("num_logical_samples", Dtype::I32, 1),
    ("mixed_from", Dtype::I32, 0),
    ("sample.group", Dtype::U32, 0),
    ("sample.index", Dtype::U64, 0),
    ("sample.points", Dtype::U64, 0),
    ("sample.flags", Dtype::U32, 1),
    ("plan.policy", Dtype::I32, 1),
];

/// Offsets of points, or of voxels.
const POINT_OFFSETS: &str = "offset";
/// Offsets of points before voxels.
const INVERSE_OFFSETS: &str = "point.offset";

/// Offsets of ragged rows of tokens.
const TOKEN_OFFSETS: &str = "input_ids.offsets";
/// Offsets of the beginnings of pieces.
const CUT_OFFSETS: &str = "cu_seqlens.offsets";

fn columns(feed: &Feed, image: &Image) -> Vec<Column> {
    let labels: &[Column] = match image.labels.dense {
        true => &[("label.dense", Dtype::F32, 0)],
        false => &[("label.class", Dtype::I32, 2), ("label.weight", Dtype::F32, 2)],
    };
    let width = |(name, dtype, width): Column| {
        (name, dtype, if width == 0 { feed.classes.len() as u64 } else { width })
    };
    let base = image.delivery.words().map(|_| BASE);
    labels.iter().chain(&FACTS).copied().map(width).chain(base).collect()
}

/// Offsets that a batch of tokens carries: name, and whether they count pieces instead of tokens.
fn offsets(rule: &Tokens) -> impl Iterator<Item = (&'static str, bool)> + use<> {
    let all = [(TOKEN_OFFSETS, false, rule.ragged()), (CUT_OFFSETS, true, rule.cu_seqlens)];
    all.into_iter().filter_map(|(name, pieces, wanted)| wanted.then_some((name, pieces)))
}

/// Descriptors of a batch of what `extent` says: the large tensors first, in the order of [`Block::tensors`], then those
/// of [`Columns`].
pub fn descriptors(feed: &Feed, extent: Extent) -> Vec<v1::TensorDescriptor> {
    let rows = extent.rows;
    let shape = |width| if width == 1 { vec![rows] } else { vec![rows, width] };
    match &feed.pipeline {
        Pipeline::Image(image) => {
            let [a, b, c] = image.shape();
            let mixed = describe("image", image.format.dtype, vec![rows, a, b, c], "");
            let clean = describe("image.clean", Dtype::U8, vec![extent.slots, a, b, c], "");
            let words = image.delivery.words();
            let ops = words.map(|words| describe("plan.op", Dtype::U32, vec![rows, words as u64], ""));
            let large = [image.delivery.mixed().then_some(mixed), words.map(|_| clean), ops];
            let small = columns(feed, image).into_iter();
            let small = small.map(|(name, dtype, width)| describe(name, dtype, shape(width), ""));
            large.into_iter().flatten().chain(small).collect()
        }
        Pipeline::Tokens(rule) => {
            let mut all = large(rule, extent);
            all.extend(offsets(rule).map(|(name, _)| describe(name, Dtype::I64, vec![rows + 1], "")));
            all.extend(IDS.iter().map(|(name, dtype, width)| describe(name, *dtype, shape(*width), "")));
            all
        }
        Pipeline::Points(rule) => {
            let mut all = of_points(rule, extent);
            all.extend(point_offsets(rule).map(|name| describe(name, Dtype::I64, vec![rows + 1], "")));
            let width = |width| if width == 0 { u64::from(rule.scenes) } else { width };
            let facts = SCENE_FACTS.iter();
            // With one scene a row these are still (n, 1): their shape does not depend on the policy.
            let wide = |w: u64| if w == 0 { vec![rows, width(w)] } else { shape(w) };
            all.extend(facts.map(|(name, dtype, w)| describe(name, *dtype, wide(*w), "")));
            all
        }
    }
}

/// Offsets that a batch of points carries.
fn point_offsets(rule: &Points) -> impl Iterator<Item = &'static str> + use<> {
    let inverse = rule.voxels.is_some_and(|v| v.inverse);
    std::iter::once(POINT_OFFSETS).chain(inverse.then_some(INVERSE_OFFSETS))
}

/// Descriptors of the large tensors of points, in the order of [`Block::tensors`].
fn of_points(rule: &Points, extent: Extent) -> Vec<v1::TensorDescriptor> {
    let (m, voxels) = (extent.points, rule.voxels);
    let features = width(&rule.features) as u64;
    let counted = voxels.is_some_and(|v| v.count);
    let inverse = voxels.is_some_and(|v| v.inverse);
    let all = [
        ("coord", Dtype::F32, vec![m, 3], POINT_OFFSETS, true),
        ("feat", Dtype::F32, vec![m, features], POINT_OFFSETS, features > 0),
        ("segment", Dtype::I32, vec![m], POINT_OFFSETS, true),
        ("instance", Dtype::I32, vec![m], POINT_OFFSETS, true),
        ("scene_id", Dtype::U8, vec![m], POINT_OFFSETS, true),
        ("grid_coord", Dtype::I32, vec![m, 3], POINT_OFFSETS, voxels.is_some()),
        ("voxel.count", Dtype::I32, vec![m], POINT_OFFSETS, counted),
        ("inverse", Dtype::I32, vec![extent.inverse], INVERSE_OFFSETS, inverse),
        ("point.segment", Dtype::I32, vec![extent.inverse], INVERSE_OFFSETS, inverse),
    ];
    let sent = all.into_iter().filter(|(.., sent)| *sent);
    sent.map(|(name, dtype, shape, offsets, _)| describe(name, dtype, shape, offsets)).collect()
}

/// Descriptors of the large tensors of tokens.
fn large(rule: &Tokens, extent: Extent) -> Vec<v1::TensorDescriptor> {
    let (shape, ragged) = match rule.ragged() {
        true => (vec![extent.tokens], TOKEN_OFFSETS),
        false => (vec![extent.rows, u64::from(rule.seq_len)], ""),
    };
    let per_token = [
        ("input_ids", Dtype::I32, true),
        ("loss_mask", Dtype::U8, !rule.ragged()),
        ("position_ids", Dtype::I32, rule.position_ids),
        ("segment_ids", Dtype::I32, rule.segment_ids),
        ("labels", Dtype::I32, rule.labels),
    ];
    let per_token = per_token.into_iter().filter(|(_, _, sent)| *sent);
    let mut all: Vec<_> =
        per_token.map(|(name, dtype, _)| describe(name, dtype, shape.clone(), ragged)).collect();
    if rule.cu_seqlens {
        let cuts = extent.pieces + extent.rows;
        all.push(describe("cu_seqlens", Dtype::I32, vec![cuts], CUT_OFFSETS));
    }
    all
}

fn describe(name: &str, dtype: Dtype, shape: Vec<u64>, offsets: &str) -> v1::TensorDescriptor {
    let bytes = shape.iter().product::<u64>() * dtype.size() as u64;
    let wire = super::info::dtype(dtype) as i32;
    v1::TensorDescriptor { name: name.into(), dtype: wire, shape, bytes, offsets: offsets.into() }
}

/// Collects the small tensors of a batch, block by block.
#[derive(Debug)]
pub struct Columns {
    data: Vec<Vec<u8>>,
    digest: blake3::Hasher,
    /// Last value of each offsets tensor.
    ends: Vec<i64>,
}

impl Columns {
    /// Empty columns of a batch of `feed`.
    pub fn new(feed: &Feed) -> Columns {
        let (data, ends) = match &feed.pipeline {
            Pipeline::Image(image) => (vec![Vec::new(); columns(feed, image).len()], Vec::new()),
            Pipeline::Tokens(rule) => {
                let offsets = offsets(rule).count();
                let mut data = vec![0i64.to_le_bytes().to_vec(); offsets];
                data.resize(offsets + IDS.len(), Vec::new());
                (data, vec![0; offsets])
            }
            Pipeline::Points(rule) => {
                let offsets = point_offsets(rule).count();
                let mut data = vec![0i64.to_le_bytes().to_vec(); offsets];
                data.resize(offsets + SCENE_FACTS.len(), Vec::new());
                (data, vec![0; offsets])
            }
        };
        Columns { data, digest: blake3::Hasher::new(), ends }
    }

    /// Number of its tensors.
    pub fn count(&self) -> usize {
        self.data.len()
    }

    /// Adds the rows of a block that starts at slot `slot` of the step.
    pub fn add(&mut self, feed: &Feed, slot: u64, block: &Block) {
        match &feed.pipeline {
            Pipeline::Image(image) => self.pictures(feed, image, slot, block),
            Pipeline::Tokens(rule) => self.tokens(rule, block),
            Pipeline::Points(rule) => self.points(rule, slot, block),
        }
    }

    fn points(&mut self, rule: &Points, slot: u64, block: &Block) {
        let (offset_data, facts) = self.data.split_at_mut(self.ends.len());
        for (row, made) in block.plan.rows.iter().zip(&block.scenes) {
            for ((out, end), more) in
                offset_data.iter_mut().zip(&mut self.ends).zip([made.points, made.inverse])
            {
                *end += more as i64;
                out.extend_from_slice(&end.to_le_bytes());
            }
            // A scene that comes several times (rotated copies) is one sample.
            let samples: Vec<&Sample> =
                made.scenes.iter().map(|(s, _)| &block.samples[*s as usize]).collect();
            let cells =
                |of: &dyn Fn(usize) -> Vec<u8>| (0..rule.scenes as usize).flat_map(of).collect::<Vec<u8>>();
            let group = |i: usize| samples.get(i).map_or(0, |s| s.id.group).to_le_bytes().to_vec();
            let index = |i: usize| samples.get(i).map_or(0, |s| s.id.index).to_le_bytes().to_vec();
            let from = |i: usize| {
                made.scenes.get(i).map_or(-1, |(s, _)| slot as i32 + *s as i32).to_le_bytes().to_vec()
            };
            let points =
                |i: usize| made.scenes.get(i).map_or(0, |(_, points)| *points).to_le_bytes().to_vec();
            let seen = block.samples[row.base as usize].flags;
            let cells: [Vec<u8>; SCENE_FACTS.len()] = [
                (samples.len() as i32).to_le_bytes().to_vec(),
                cells(&from),
                cells(&group),
                cells(&index),
                cells(&points),
                (row.flags | made.flags | seen).to_le_bytes().to_vec(),
                row.policy.map_or(-1, |p| p as i32).to_le_bytes().to_vec(),
            ];
            facts.iter_mut().zip(&cells).for_each(|(column, cell)| column.extend_from_slice(cell));
            match rule.numerics {
                Numerics::Cpu | Numerics::Torch => digest(&mut self.digest, row, &samples),
                // Whether a scene has a point on this side of an edge may depend on who transformed it; a replay may be by
                // another.
                Numerics::Tolerant => {
                    let named: Vec<&Sample> = named(row).map(|slot| &block.samples[slot as usize]).collect();
                    digest(&mut self.digest, row, &named);
                }
            }
        }
    }

    fn pictures(&mut self, feed: &Feed, image: &Image, slot: u64, block: &Block) {
        let own: Vec<i32> = block.samples.iter().map(|s| s.label).collect();
        let rows = &block.plan.rows;
        let facts = if image.labels.dense {
            let out = &mut self.data[0];
            labels::dense(rows, &own, image.labels.smoothing, feed.classes.len(), out)
                .expect("a job's labels are below its number of classes");
            &mut self.data[1..]
        } else {
            let [class, weight, facts @ ..] = &mut self.data[..] else {
                unreachable!("as many as columns()")
            };
            labels::sparse(rows, &own, class, weight);
            facts
        };
        for row in rows {
            let (base, partner) = (&block.samples[row.base as usize], &block.samples[row.partner as usize]);
            let rect = row.rect();
            let cells: [Vec<u8>; FACTS.len()] = [
                [base.id.group, partner.id.group].map(u32::to_le_bytes).concat(),
                [base.id.index, partner.id.index].map(u64::to_le_bytes).concat(),
                (row.flags | base.flags).to_le_bytes().to_vec(),
                row.policy.map_or(-1, |p| p as i32).to_le_bytes().to_vec(),
                (slot as u32 + row.partner).to_le_bytes().to_vec(),
                [row.sampled, row.own].map(f64::to_le_bytes).concat(),
                [rect.y0, rect.y1, rect.x0, rect.x1].map(u32::to_le_bytes).concat(),
            ];
            facts.iter_mut().zip(&cells).for_each(|(column, cell)| column.extend_from_slice(cell));
            digest(&mut self.digest, row, &[base, partner]);
        }
        if let [bases] = &mut facts[FACTS.len()..] {
            rows.iter().for_each(|row| bases.extend((slot as u32 + row.base).to_le_bytes()));
        }
    }

    fn tokens(&mut self, rule: &Tokens, block: &Block) {
        let (offset_data, ids) = self.data.split_at_mut(self.ends.len());
        for sample in &block.samples {
            let id = sample.id;
            for (((_, pieces), out), end) in offsets(rule).zip(offset_data.iter_mut()).zip(&mut self.ends) {
                *end += if pieces { i64::from(rule.pieces(id)) + 1 } else { i64::from(rule.row_tokens(id)) };
                out.extend_from_slice(&end.to_le_bytes());
            }
            let cells: [&[u8]; IDS.len()] =
                [&id.group.to_le_bytes(), &id.index.to_le_bytes(), &sample.flags.to_le_bytes()];
            for (column, cell) in ids.iter_mut().zip(cells) {
                column.extend_from_slice(cell);
                self.digest.update(cell);
            }
        }
    }

    /// The tensors in descriptor order (without the large ones), and the digest of plan and sample ids.
    pub fn finish(self) -> (Vec<Piece>, [u8; 32]) {
        let pieces = self.data.into_iter().map(|d| Piece::new(Bytes::from(d))).collect();
        (pieces, *self.digest.finalize().as_bytes())
    }
}

/// Slots that a row's plan names.
fn named(row: &Row) -> impl Iterator<Item = u32> {
    std::iter::once(row.base).chain(row.ops.iter().flat_map(come).copied())
}

/// Slots that come into a row.
fn come(op: &Op) -> &[u32] {
    match op {
        Op::Union { scenes } => scenes,
        Op::Blend { src, .. }
        | Op::Paste { src, .. }
        | Op::MaskBlend { src, .. }
        | Op::Sectors { src, .. }
        | Op::Instances { src, .. }
        | Op::Bands { src, .. } => std::slice::from_ref(src),
    }
}

/// Adds what a row was made of.
fn digest(hasher: &mut blake3::Hasher, row: &Row, samples: &[&Sample]) {
    let mut encoded = Vec::new();
    row.encode(&mut encoded);
    for sample in samples {
        encoded.extend_from_slice(&sample.id.group.to_le_bytes());
        encoded.extend_from_slice(&sample.id.index.to_le_bytes());
    }
    hasher.update(&(encoded.len() as u64).to_le_bytes());
    hasher.update(&encoded);
}
