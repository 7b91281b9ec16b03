//! A batch: what its header and receipt say, its tensors, its labels and groups.

use crate::tensor::{Tensor, TensorView};
use crate::{Cursor, Error, Points, Tokens, learn::ReportKind, spec::Receipt, wire::Slab};
use mixfeed_proto as v1;
use std::{fmt, ops::Range};

/// What the header says, apart from tensors.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) step: u64,
    epoch: f64,
    rank: u32,
    world_size: u32,
    slots: Range<u32>,
    partial: bool,
    numerics: String,
    mixture_seq: u64,
    mixture_id: u64,
    smoothing: f64,
    cursor: Option<Cursor>,
    due_before: Vec<v1::ReportKind>,
    due_after: Vec<v1::ReportKind>,
}

/// Kinds of reports; what this client does not know is `Unspecified`.
fn kinds(raw: &[i32]) -> Vec<v1::ReportKind> {
    raw.iter().map(|kind| v1::ReportKind::try_from(*kind).unwrap_or_default()).collect()
}

impl From<v1::BatchHeader> for Meta {
    fn from(header: v1::BatchHeader) -> Self {
        Meta {
            step: header.step,
            epoch: header.epoch,
            rank: header.rank,
            world_size: header.world_size,
            slots: header.slot_begin..header.slot_end,
            partial: header.partial,
            numerics: header.numerics,
            mixture_seq: header.mixture_seq,
            mixture_id: header.mixture_id,
            smoothing: header.smoothing,
            cursor: header.cursor.map(Cursor),
            due_before: kinds(&header.due_before),
            due_after: kinds(&header.due_after),
        }
    }
}

/// One rank's rows of one step, complete and checked. Its memory goes back to the stream's pool when it is dropped.
pub struct Batch {
    meta: Meta,
    receipt: Option<Receipt>,
    slab: Slab,
    tensors: Vec<Tensor>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Batch").field("meta", &self.meta).field("tensors", &self.tensors).finish()
    }
}

impl Batch {
    pub(crate) fn new(meta: Meta, receipt: Option<Receipt>, slab: Slab, tensors: Vec<Tensor>) -> Self {
        Batch { meta, receipt, slab, tensors }
    }

    /// Index of the global batch, from 0.
    pub fn step(&self) -> u64 {
        self.meta.step
    }

    /// Epoch of the schedule at this step.
    pub fn epoch(&self) -> f64 {
        self.meta.epoch
    }

    /// Rank that these rows are for.
    pub fn rank(&self) -> u32 {
        self.meta.rank
    }

    /// Ranks that share the step.
    pub fn world_size(&self) -> u32 {
        self.meta.world_size
    }

    /// Slots of the step that this rank has.
    pub fn slots(&self) -> Range<u32> {
        self.meta.slots.clone()
    }

    /// Rows of this batch.
    pub fn rows(&self) -> Result<usize, Error> {
        Ok(self.wanted("sample.flags")?.shape.first().copied().unwrap_or_default())
    }

    /// True when there are fewer rows than slots.
    pub fn partial(&self) -> bool {
        self.meta.partial
    }

    /// Rules that made the bytes, `cpu-1`.
    pub fn numerics(&self) -> &str {
        &self.meta.numerics
    }

    /// Entry of the mixture log in force.
    pub fn mixture_seq(&self) -> u64 {
        self.meta.mixture_seq
    }

    /// Segment that reports on this step name: its entry of the mixture log.
    pub fn segment(&self) -> u64 {
        self.meta.mixture_seq
    }

    /// Reports that are due before this step's update, in order. `Unspecified` is a kind that this client does not know.
    pub fn due_before(&self) -> &[ReportKind] {
        &self.meta.due_before
    }

    /// Reports that are due after this step's update, as above.
    pub fn due_after(&self) -> &[ReportKind] {
        &self.meta.due_after
    }

    /// Name of the mixture, for reports of losses.
    pub fn mixture_id(&self) -> u64 {
        self.meta.mixture_id
    }

    /// Label smoothing that the trainer still has to apply to sparse labels.
    pub fn smoothing(&self) -> f64 {
        self.meta.smoothing
    }

    /// Position after this batch, for the trainer's checkpoint. `None` in evaluation and replay.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.meta.cursor.as_ref()
    }

    /// What made this batch; [`Replay::Receipt`](crate::Replay) makes it again.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Bytes over all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.range.len()).sum()
    }

    /// All tensors in the server's order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|tensor| self.view(tensor))
    }

    /// Bytes of all tensors in the server's order, to write to: a batch is its trainer's own.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (mut rest, mut at) = (self.slab.bytes_mut(), 0);
        self.tensors.iter().map(move |tensor| {
            // Tensors lie in this order, each behind the one before.
            let (_, from) = std::mem::take(&mut rest).split_at_mut(tensor.range.start - at);
            let (bytes, after) = from.split_at_mut(tensor.range.len());
            (rest, at) = (after, tensor.range.end);
            bytes
        })
    }

    /// Tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| self.view(tensor))
    }

    /// Pixels, tensor `image`: (n, 3, height, width) or (n, height, width, 3).
    pub fn images(&self) -> Result<TensorView<'_>, Error> {
        self.wanted("image")
    }

    /// Labels, dense when the batch has `label.dense`.
    pub fn labels(&self) -> Result<Labels<'_>, Error> {
        if let Some(dense) = self.tensor("label.dense") {
            let classes = dense.shape.last().copied().unwrap_or_default();
            return Ok(Labels::Dense { weights: dense.as_f32()?, classes });
        }
        let class = self.wanted("label.class")?;
        let weight = self.wanted("label.weight")?;
        if class.shape != weight.shape {
            return Err(weight.is_not(&format!("of shape {:?} as `label.class`", class.shape)));
        }
        let per_row = class.shape.get(1).copied().unwrap_or(1);
        Ok(Labels::Sparse { classes: class.as_i32()?, weights: weight.as_f32()?, per_row })
    }

    /// Group of every row, from tensor `sample.group`.
    pub fn groups(&self) -> Result<RowGroups<'_>, Error> {
        let groups = self.wanted("sample.group")?;
        let per_row = groups.shape.get(1).copied().unwrap_or(1).max(1);
        Ok(RowGroups { values: groups.as_u32()?, per_row })
    }

    /// Rows of token ids, tensor `input_ids` and those that go with it.
    pub fn tokens(&self) -> Result<Tokens<'_>, Error> {
        Tokens::of(self)
    }

    /// Points of every row, of jobs with `points`.
    pub fn points(&self) -> Result<Points<'_>, Error> {
        Points::of(self)
    }

    /// Offsets in tensor `name`: from 0 to `values`, ascending.
    pub(crate) fn offsets(&self, name: &str, values: usize) -> Result<&[i64], Error> {
        let view = self.wanted(name)?;
        let offsets = view.as_i64()?;
        let ends = offsets.first() == Some(&0) && offsets.last() == i64::try_from(values).ok().as_ref();
        if ends && offsets.is_sorted() {
            Ok(offsets)
        } else {
            Err(view.is_not("ascending from 0 to the number of values"))
        }
    }

    pub(crate) fn wanted(&self, name: &str) -> Result<TensorView<'_>, Error> {
        self.tensor(name).ok_or_else(|| Error::Tensor {
            tensor: name.into(),
            found: "absent".into(),
            expected: "in the batch".into(),
        })
    }

    fn view<'a>(&'a self, tensor: &'a Tensor) -> TensorView<'a> {
        TensorView {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            offsets: tensor.offsets.as_deref(),
            bytes: &self.slab.bytes()[tensor.range.clone()],
        }
    }
}

/// Labels of a batch, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Labels<'a> {
    /// `per_row` classes for each row with their weights; mixed rows have two.
    Sparse {
        /// (n, per_row) class indices.
        classes: &'a [i32],
        /// (n, per_row) weights.
        weights: &'a [f32],
        /// Entries per row.
        per_row: usize,
    },
    /// One weight for every class.
    Dense {
        /// (n, classes) weights.
        weights: &'a [f32],
        /// Classes.
        classes: usize,
    },
}

/// Groups of a batch's rows, indexes into [`JobInfo::groups`](crate::spec::JobInfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroups<'a> {
    /// (n, per_row) groups; of mixed rows the base's and the partner's.
    pub values: &'a [u32],
    /// Entries per row, 1 or 2.
    pub per_row: usize,
}

impl<'a> RowGroups<'a> {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.per_row
    }

    /// Group of each row's own record, in order; that of its partner is left out.
    pub fn own(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.values.iter().step_by(self.per_row).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::batch;
    use crate::Dtype;

    #[test]
    fn what_is_written_to_a_tensor_is_read_from_it() {
        let zeros = |name, shape: &'static [usize]| (name, Dtype::U8, shape, None, vec![0; shape[0]]);
        let mut batch = batch(&[zeros("a", &[3]), zeros("b", &[0]), zeros("c", &[70])]);
        for (value, bytes) in batch.tensors_mut().enumerate() {
            bytes.fill(value as u8 + 1);
        }
        let bytes = |name| batch.tensor(name).expect("is there").bytes;
        assert_eq!((bytes("a"), bytes("b")), (&[1; 3][..], &[][..]));
        assert_eq!(bytes("c"), [3; 70]);
    }
}

/// Batches for tests of views.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::{Batch, Meta, Tensor};
    use crate::{Dtype, wire::Pool};
    use std::sync::Arc;

    /// Name, element type, shape, offsets, bytes.
    pub(crate) type Given<'a> = (&'a str, Dtype, &'a [usize], Option<&'a str>, Vec<u8>);

    pub(crate) fn batch(tensors: &[Given<'_>]) -> Batch {
        let padded = |bytes: &Vec<u8>| bytes.len().next_multiple_of(64);
        let mut slab = Arc::new(Pool::default()).get(tensors.iter().map(|t| padded(&t.4)).sum());
        let (mut begin, mut placed) = (0, Vec::new());
        for (name, dtype, shape, offsets, bytes) in tensors {
            let range = begin..begin + bytes.len();
            slab.bytes_mut()[range.clone()].copy_from_slice(bytes);
            let (name, shape, offsets) = ((*name).into(), shape.to_vec(), offsets.map(String::from));
            placed.push(Tensor { name, dtype: *dtype, shape, range, offsets });
            begin += padded(bytes);
        }
        Batch::new(Meta::from(mixfeed_proto::BatchHeader::default()), None, slab, placed)
    }

    pub(crate) fn i32s(values: &[i32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    pub(crate) fn i64s(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}
