//! The small tensors of a batch: labels, sample ids, plan.

use crate::assemble::{Block, Sample};
use crate::batch::{Dtype, Piece};
use crate::exec::labels;
use crate::job::Feed;
use crate::plan::Row;
use bytes::Bytes;
use mixfeed_proto as v1;

/// Index of the image tensor among the descriptors.
pub const IMAGE: u32 = 0;

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

fn columns(feed: &Feed) -> Vec<Column> {
    let labels: &[Column] = match feed.labels.dense {
        true => &[("label.dense", Dtype::F32, 0)],
        false => &[("label.class", Dtype::I32, 2), ("label.weight", Dtype::F32, 2)],
    };
    let width = |(name, dtype, width): Column| {
        (name, dtype, if width == 0 { feed.classes.len() as u64 } else { width })
    };
    labels.iter().chain(&FACTS).copied().map(width).collect()
}

/// Descriptors of a batch of `rows` rows: the image, labels, sample ids, plan.
pub fn descriptors(feed: &Feed, rows: u64) -> Vec<v1::TensorDescriptor> {
    let [a, b, c] = feed.image_shape();
    let image = describe("image", feed.format.dtype, vec![rows, a, b, c]);
    let small = columns(feed).into_iter().map(|(name, dtype, width)| {
        let shape = if width == 1 { vec![rows] } else { vec![rows, width] };
        describe(name, dtype, shape)
    });
    std::iter::once(image).chain(small).collect()
}

fn describe(name: &str, dtype: Dtype, shape: Vec<u64>) -> v1::TensorDescriptor {
    let bytes = shape.iter().product::<u64>() * dtype.size() as u64;
    let wire = super::info::dtype(dtype) as i32;
    v1::TensorDescriptor { name: name.into(), dtype: wire, shape, bytes, offsets: String::new() }
}

/// Collects the small tensors of a batch, block by block.
#[derive(Debug)]
pub struct Columns {
    data: Vec<Vec<u8>>,
    digest: blake3::Hasher,
}

impl Columns {
    /// Empty columns of a batch of `feed`.
    pub fn new(feed: &Feed) -> Columns {
        Columns { data: vec![Vec::new(); columns(feed).len()], digest: blake3::Hasher::new() }
    }

    /// Adds the rows of a block that starts at slot `slot` of the step.
    pub fn add(&mut self, feed: &Feed, slot: u64, block: &Block) {
        let own: Vec<i32> = block.samples.iter().map(|s| s.label).collect();
        let rows = &block.plan.rows;
        let facts = if feed.labels.dense {
            let out = &mut self.data[0];
            labels::dense(rows, &own, feed.labels.smoothing, feed.classes.len(), out)
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
            digest(&mut self.digest, row, base, partner);
        }
    }

    /// The tensors in descriptor order (without the image), and the digest of plan and sample ids.
    pub fn finish(self) -> (Vec<Piece>, [u8; 32]) {
        let pieces = self.data.into_iter().map(|d| Piece::new(Bytes::from(d))).collect();
        (pieces, *self.digest.finalize().as_bytes())
    }
}

/// Adds what a row was made of.
fn digest(hasher: &mut blake3::Hasher, row: &Row, base: &Sample, partner: &Sample) {
    let mut encoded = Vec::new();
    row.encode(&mut encoded);
    for sample in [base, partner] {
        encoded.extend_from_slice(&sample.id.group.to_le_bytes());
        encoded.extend_from_slice(&sample.id.index.to_le_bytes());
    }
    hasher.update(&(encoded.len() as u64).to_le_bytes());
    hasher.update(&encoded);
}
