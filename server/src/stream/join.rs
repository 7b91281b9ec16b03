//! Checksums of pieces to the checksum of the whole.

use crate::batch::Piece;
use std::collections::VecDeque;

/// Lengths that are remembered: a batch has few tensors, and most of its blocks are equally long.
const LENGTHS: usize = 16;

/// Appending n bytes to a message maps its checksum linearly, by a matrix that depends on n only. Making one takes 20 us,
/// applying it none: streams of equal blocks make few.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// Lengths seen last, the newest first; their columns once they came twice.
    seen: VecDeque<(usize, Option<[u32; 32]>)>,
}

impl Join {
    /// Checksum of what `before` is the checksum of, followed by `piece`.
    pub fn join(&mut self, before: u32, piece: &Piece) -> u32 {
        // Nothing before it, which is all there is to a tensor of one block.
        if before == 0 {
            return piece.crc;
        }
        let len = piece.bytes.len();
        match self.seen.iter_mut().find(|(seen, _)| *seen == len) {
            Some((_, Some(columns))) => apply(columns, before) ^ piece.crc,
            Some((_, columns)) => {
                let columns =
                    columns.insert(std::array::from_fn(|bit| crc32c::crc32c_combine(1 << bit, 0, len)));
                apply(columns, before) ^ piece.crc
            }
            None => {
                self.seen.truncate(LENGTHS - 1);
                self.seen.push_front((len, None));
                crc32c::crc32c_combine(before, piece.crc, len)
            }
        }
    }
}

fn apply(columns: &[u32; 32], crc: u32) -> u32 {
    columns
        .iter()
        .enumerate()
        .fold(0, |sum, (bit, column)| if crc >> bit & 1 == 1 { sum ^ column } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn joined_pieces_have_the_checksum_of_the_whole(lengths in prop::collection::vec(0usize..40, 0..60), seed: u8) {
            let (mut join, mut whole, mut crc) = (Join::default(), Vec::new(), 0);
            for len in lengths {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + whole.len() * 7) as u8 ^ seed).collect();
                whole.extend(&bytes);
                crc = join.join(crc, &Piece::new(Bytes::from(bytes)));
                prop_assert_eq!(crc, crc32c::crc32c(&whole));
            }
        }
    }
}
