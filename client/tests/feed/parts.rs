//! What a batch of the fake is made of.

use crate::keeper::At;
use mixfeed_client::spec::JobSpec;
use mixfeed_proto::{self as v1, BatchPart, batch_part::Part};

pub fn digest(spec: &JobSpec) -> bytes::Bytes {
    vec![spec.seed as u8; 32].into()
}

/// Pixels of a batch: 3 x 33 x 47 per row, another pattern for every step and rank.
pub fn pixels(step: u64, rank: u32, rows: usize) -> Vec<u8> {
    let salt = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(rank) << 17;
    (0..(rows * 3 * 33 * 47) as u64).map(|i| (i.wrapping_mul(salt | 1) >> 11) as u8).collect()
}

fn classes(step: u64, rows: usize) -> Vec<u8> {
    (0..2 * rows as i32).flat_map(|i| (i + step as i32).to_le_bytes()).collect()
}

fn weights(rows: usize) -> Vec<u8> {
    (0..rows).flat_map(|_| [0.75f32, 0.25]).flat_map(f32::to_le_bytes).collect()
}

pub fn part(part: Part) -> BatchPart {
    BatchPart { part: Some(part) }
}

pub fn chunk(tensor: u32, offset: u64, data: &[u8]) -> BatchPart {
    part(Part::Chunk(v1::TensorChunk { tensor, offset, data: data.to_vec().into() }))
}

/// Groups of a batch's rows, base and partner: 0 and 1 by turns.
pub fn row_groups(step: u64, rows: usize) -> Vec<u32> {
    (0..rows as u32).flat_map(|row| [(row + step as u32) % 2, row % 2]).collect()
}

fn header(
    at: At,
    step: u64,
    (rank, world_size): (u32, u32),
    rows: usize,
    cursor: Option<v1::Cursor>,
) -> v1::BatchHeader {
    let n = rows as u64;
    let tensor = |name: &str, dtype: v1::Dtype, shape: Vec<u64>, size: u64| v1::TensorDescriptor {
        name: name.into(),
        dtype: dtype.into(),
        bytes: shape.iter().product::<u64>() * size,
        shape,
        offsets: String::new(),
    };
    v1::BatchHeader {
        step,
        epoch: step as f64 / 8.0,
        rank,
        world_size,
        slot_begin: rank * rows as u32,
        slot_end: (rank + 1) * rows as u32,
        tensors: vec![
            tensor("image", v1::Dtype::U8, vec![n, 3, 33, 47], 1),
            tensor("label.class", v1::Dtype::I32, vec![n, 2], 4),
            tensor("label.weight", v1::Dtype::F32, vec![n, 2], 4),
            tensor("sample.group", v1::Dtype::U32, vec![n, 2], 4),
        ],
        numerics: "cpu-1".into(),
        mixture_seq: at.seq,
        mixture_id: at.mixture_id,
        cursor,
        smoothing: 0.1,
        due_before: at.before,
        due_after: at.after,
        ..Default::default()
    }
}

/// A whole batch in pieces of an odd size.
pub fn batch(
    job: &v1::JobInfo,
    at: At,
    step: u64,
    (rank, world_size): (u32, u32),
    rows: usize,
) -> Vec<BatchPart> {
    let cursor = v1::Cursor {
        job: job.job.clone(),
        digest: job.digest.clone(),
        branch: 0,
        next_step: step + 1,
        mixture_seq: at.seq,
        crc: 0,
    };
    let mixture_seq = at.seq;
    let groups = row_groups(step, rows).into_iter().flat_map(u32::to_le_bytes).collect();
    let tensors = [pixels(step, rank, rows), classes(step, rows), weights(rows), groups];
    let mut parts = vec![part(Part::Header(header(at, step, (rank, world_size), rows, Some(cursor))))];
    for (index, tensor) in tensors.iter().enumerate() {
        for (piece, data) in tensor.chunks(99_991).enumerate() {
            parts.push(chunk(index as u32, piece as u64 * 99_991, data));
        }
    }
    let receipt = v1::Receipt {
        digest: job.digest.clone(),
        step,
        rank,
        world_size,
        mixture_seq,
        numerics: "cpu-1".into(),
        ..Default::default()
    };
    let crc32c = tensors.iter().map(|tensor| crc32c::crc32c(tensor)).collect();
    parts.push(part(Part::End(v1::BatchEnd { crc32c, receipt: Some(receipt) })));
    parts
}
