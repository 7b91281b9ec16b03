//! One batch while it arrives.

use super::{Pool, Slab, slab::ALIGN};
use crate::{Batch, Dtype, Error, batch::Meta, tensor::Tensor};
use mixfeed_proto as v1;
use std::{collections::BTreeSet, sync::Arc};

/// Most tensors of a batch.
const MAX_TENSORS: usize = 256;

/// What the next batch must be.
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    /// Its step; `None` when the caller's receipt or cursor is the server's to read.
    pub(crate) step: Option<u64>,
    /// Rank and world size; `None` as above.
    pub(crate) slice: Option<(u32, u32)>,
    /// Whether it must carry a cursor to the step after it.
    pub(crate) cursor: bool,
    /// Most bytes over all tensors, each rounded up to a cache line.
    pub(crate) max_bytes: u64,
}

#[derive(Debug)]
struct Filling {
    tensor: Tensor,
    /// Bytes that have arrived, from the tensor's start.
    have: usize,
    /// crc32c of those.
    crc: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Assembly {
    meta: Meta,
    slab: Slab,
    tensors: Vec<Filling>,
}

fn protocol<T>(message: String) -> Result<T, Error> {
    Err(Error::Protocol(message))
}

impl Assembly {
    /// Checks a header completely, then takes memory for its batch.
    pub(crate) fn new(header: v1::BatchHeader, expect: &Expect, pool: &Arc<Pool>) -> Result<Self, Error> {
        check(&header, expect)?;
        let (tensors, total) = layout(&header.tensors, expect.max_bytes)?;
        let tensors = tensors.into_iter().map(|tensor| Filling { tensor, have: 0, crc: 0 }).collect();
        Ok(Assembly { meta: Meta::from(header), slab: pool.get(total), tensors })
    }

    /// Step being assembled.
    pub(crate) fn step(&self) -> u64 {
        self.meta.step
    }

    /// Copies bytes of a tensor to their place. They must follow those that came before.
    pub(crate) fn write(&mut self, tensor: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        let step = self.meta.step;
        let count = self.tensors.len();
        let Some(filling) = usize::try_from(tensor).ok().and_then(|index| self.tensors.get_mut(index)) else {
            return protocol(format!("chunk of tensor {tensor} in step {step}, which has {count} tensors"));
        };
        let Tensor { name, range, .. } = &filling.tensor;
        if offset != filling.have as u64 {
            let have = filling.have;
            return protocol(format!(
                "chunk at offset {offset} of tensor `{name}` in step {step}, expected {have}"
            ));
        }
        let from = range.start + filling.have;
        if data.len() > range.end - from {
            let (end, bytes) = (filling.have + data.len(), range.len());
            return protocol(format!(
                "chunk up to byte {end} of tensor `{name}` in step {step}, which has {bytes}"
            ));
        }
        let place = &mut self.slab.bytes_mut()[from..from + data.len()];
        place.copy_from_slice(data);
        // While they are still in the cache, and on what the trainer will read.
        filling.crc = crc32c::crc32c_append(filling.crc, place);
        filling.have += data.len();
        Ok(())
    }

    /// The batch, when all of it has arrived unharmed.
    pub(crate) fn finish(self, end: v1::BatchEnd) -> Result<Batch, Error> {
        let step = self.meta.step;
        if end.crc32c.len() != self.tensors.len() {
            let (found, count) = (end.crc32c.len(), self.tensors.len());
            return protocol(format!("step {step} ends with {found} checksums for {count} tensors"));
        }
        for (filling, expected) in self.tensors.iter().zip(end.crc32c) {
            let Tensor { name, range, .. } = &filling.tensor;
            if filling.have != range.len() {
                let (have, bytes) = (filling.have, range.len());
                return protocol(format!(
                    "tensor `{name}` of step {step} ends after {have} of {bytes} bytes"
                ));
            }
            if filling.crc != expected {
                return Err(Error::Corrupt { step, tensor: name.clone(), expected, found: filling.crc });
            }
        }
        let tensors = self.tensors.into_iter().map(|filling| filling.tensor).collect();
        Ok(Batch::new(self.meta, end.receipt, self.slab, tensors))
    }
}

fn check(header: &v1::BatchHeader, expect: &Expect) -> Result<(), Error> {
    let step = header.step;
    if let Some(wanted) = expect.step.filter(|wanted| *wanted != step) {
        return protocol(format!("step {step} arrived, expected {wanted}"));
    }
    let slice = (header.rank, header.world_size);
    if let Some((rank, world_size)) = expect.slice.filter(|wanted| *wanted != slice) {
        return protocol(format!(
            "step {step} is for rank {} of {}, expected {rank} of {world_size}",
            slice.0, slice.1
        ));
    }
    if header.slot_begin > header.slot_end {
        return protocol(format!("step {step} has slots {}..{}", header.slot_begin, header.slot_end));
    }
    let next = header.cursor.as_ref().map(|cursor| cursor.next_step);
    if expect.cursor && (next.is_none() || next != step.checked_add(1)) {
        return protocol(format!("step {step} carries a cursor to step {next:?}"));
    }
    Ok(())
}

/// Places the tensors, each on a cache line of its own, and counts their bytes.
fn layout(descriptors: &[v1::TensorDescriptor], max_bytes: u64) -> Result<(Vec<Tensor>, usize), Error> {
    if descriptors.len() > MAX_TENSORS {
        return protocol(format!("header with {} tensors, at most {MAX_TENSORS}", descriptors.len()));
    }
    let mut names = BTreeSet::new();
    let mut tensors = Vec::with_capacity(descriptors.len());
    let mut total = 0u64;
    for descriptor in descriptors {
        let name = &descriptor.name;
        if name.is_empty() || !names.insert(name) {
            return protocol(format!("tensor name `{name}` is empty or given twice"));
        }
        let (dtype, shape, bytes) = measure(descriptor)?;
        let begin = total;
        let end = begin.checked_add(bytes).filter(|end| *end <= max_bytes);
        let padded = end.and_then(|end| end.checked_next_multiple_of(ALIGN as u64));
        let (Some(end), Some(padded)) = (end, padded) else {
            return protocol(format!(
                "tensor `{name}` of {bytes} bytes takes the batch over its limit of {max_bytes} bytes"
            ));
        };
        let too_large = |_| Error::Protocol(format!("tensor `{name}` does not fit this machine's memory"));
        let range = usize::try_from(begin).map_err(too_large)?..usize::try_from(end).map_err(too_large)?;
        let offsets = Some(descriptor.offsets.clone()).filter(|name| !name.is_empty());
        tensors.push(Tensor { name: name.clone(), dtype, shape, range, offsets });
        total = padded;
    }
    check_ragged(&tensors)?;
    let total = usize::try_from(total).map_err(|_| Error::Protocol(format!("batch of {total} bytes")))?;
    Ok((tensors, total))
}

/// Element type, shape and size of a descriptor whose three agree.
fn measure(descriptor: &v1::TensorDescriptor) -> Result<(Dtype, Vec<usize>, u64), Error> {
    let v1::TensorDescriptor { name, bytes, shape, .. } = descriptor;
    let Some(dtype) = Dtype::from_wire(descriptor.dtype) else {
        return protocol(format!("tensor `{name}` has unknown dtype {}", descriptor.dtype));
    };
    let elements = shape.iter().try_fold(1u64, |product, axis| product.checked_mul(*axis));
    let wanted = elements.and_then(|n| n.checked_mul(dtype.size() as u64));
    if shape.len() > 16 || wanted != Some(*bytes) {
        return protocol(format!(
            "tensor `{name}` of shape {shape:?} and {dtype:?} is said to have {bytes} bytes"
        ));
    }
    let axes: Result<Vec<usize>, _> = shape.iter().map(|axis| usize::try_from(*axis)).collect();
    let axes = axes.map_err(|_| Error::Protocol(format!("tensor `{name}` has shape {shape:?}")))?;
    Ok((dtype, axes, *bytes))
}

fn check_ragged(tensors: &[Tensor]) -> Result<(), Error> {
    for tensor in tensors {
        let Some(wanted) = &tensor.offsets else { continue };
        let found = tensors.iter().find(|t| t.name == *wanted);
        if !found.is_some_and(|t| t.dtype == Dtype::I64 && t.shape.len() == 1) {
            let name = &tensor.name;
            return protocol(format!("offsets `{wanted}` of tensor `{name}` are no i64 tensor of one axis"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
