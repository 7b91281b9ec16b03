//! 7 ENCODE: blocks to messages. The only room that builds batch parts.
//!
//! Payload bytes are never copied: a chunk is a small head (gRPC prefix, protobuf keys and lengths) followed by a slice
//! of the slab that the executor wrote.

mod info;
mod tensors;

pub use info::{estimators, job_info, policies, source_info};
pub use tensors::{Columns, descriptors};

use bytes::{BufMut, Bytes, BytesMut};
use mixfeed_proto::{self as v1, MAX_PAYLOAD_BYTES, batch_part::Part};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

/// Field numbers of `BatchPart.chunk` and `TensorChunk`, as in batch.proto (a test compares with the generated code).
mod field {
    pub const CHUNK: u32 = 2;
    pub const TENSOR: u32 = 1;
    pub const OFFSET: u32 = 2;
    pub const DATA: u32 = 3;
}

/// Bytes of the gRPC prefix: compression flag and length.
const PREFIX: usize = 5;

/// A part as one gRPC frame.
pub fn frame(part: Part) -> Bytes {
    let part = v1::BatchPart { part: Some(part) };
    let len = part.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + len);
    prefix(&mut out, len);
    part.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// Calls `send` with the pieces of the chunks that carry `data`, which starts at byte `offset` of tensor `tensor`:
/// head, payload, head, payload, ... at most 1 MiB of payload each.
pub fn chunks(tensor: u32, offset: u64, data: &Bytes) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
    (0..data.len().div_ceil(MAX_PAYLOAD_BYTES)).map(move |i| {
        let from = i * MAX_PAYLOAD_BYTES;
        let payload = data.slice(from..data.len().min(from + MAX_PAYLOAD_BYTES));
        (head(tensor, offset + from as u64, payload.len()), payload)
    })
}

fn head(tensor: u32, offset: u64, payload: usize) -> Bytes {
    let payload = payload as u64;
    let number = |tag, value: u64| if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) };
    let inner = number(field::TENSOR, tensor.into())
        + number(field::OFFSET, offset)
        + key_len(field::DATA)
        + encoded_len_varint(payload)
        + payload as usize;
    let message = key_len(field::CHUNK) + encoded_len_varint(inner as u64) + inner;
    let mut out = BytesMut::with_capacity(PREFIX + 40);
    prefix(&mut out, message);
    encode_key(field::CHUNK, WireType::LengthDelimited, &mut out);
    encode_varint(inner as u64, &mut out);
    for (tag, value) in [(field::TENSOR, tensor.into()), (field::OFFSET, offset)] {
        if value != 0 {
            encode_key(tag, WireType::Varint, &mut out);
            encode_varint(value, &mut out);
        }
    }
    encode_key(field::DATA, WireType::LengthDelimited, &mut out);
    encode_varint(payload, &mut out);
    out.freeze()
}

fn prefix(out: &mut BytesMut, len: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("a part is far below 4 GiB"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(frame: &[u8]) -> v1::BatchPart {
        assert_eq!(frame[0], 0);
        assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - PREFIX);
        v1::BatchPart::decode(&frame[PREFIX..]).unwrap()
    }

    proptest! {
        #[test]
        fn a_chunk_is_what_the_generated_code_would_send(
            tensor in 0u32..12, offset in prop_oneof![Just(0u64), 0..u64::MAX / 2], len in 1usize..3000) {
            let data = Bytes::from((0..len).map(|i| i as u8).collect::<Vec<_>>());
            let (head, payload) = chunks(tensor, offset, &data).next().unwrap();
            let frame = [&head[..], &payload[..]].concat();
            let chunk = v1::TensorChunk { tensor, offset, data };
            prop_assert_eq!(decode(&frame).part, Some(Part::Chunk(chunk.clone())));
            prop_assert_eq!(&frame[..], &super::frame(Part::Chunk(chunk))[..]);
        }
    }

    #[test]
    fn payload_is_cut_at_one_mebibyte_and_not_copied() {
        let data = Bytes::from(vec![7u8; 2 * MAX_PAYLOAD_BYTES + 3]);
        let parts: Vec<_> = chunks(1, 10, &data).collect();
        let sizes: Vec<usize> = parts.iter().map(|(_, p)| p.len()).collect();
        assert_eq!(sizes, [MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES, 3]);
        assert_eq!(parts[1].1.as_ptr(), data[MAX_PAYLOAD_BYTES..].as_ptr());
        let Some(Part::Chunk(last)) = decode(&[&parts[2].0[..], &parts[2].1[..]].concat()).part else {
            panic!()
        };
        assert_eq!(last.offset, 10 + 2 * MAX_PAYLOAD_BYTES as u64);
        assert_eq!(chunks(0, 0, &Bytes::new()).count(), 0);
    }
}
