//! Plans as a fixed number of words per row, for executors outside of this program.
//!
//! Every row of a job has the same number of words, [`words`], so that a batch is one dense tensor and whoever carries it
//! out needs no loop over rows. A word is a u32; f32 are given by their bits; rows of a block are named by slots of the
//! step. Word 0 is the op, word 1 the partner's slot; words from [`HEAD`] on are a mask's data:
//!
//! | word 0 | words 2 .. | data |
//! | --- | --- | --- |
//! | 0 copy | | |
//! | 1 blend | lambda, rest (f32) | |
//! | 2 paste | source y0 y1 x0 x1, target y0 y1 x0 x1, filter (0 nearest, 1 bilinear, 2 area) | |
//! | 3 cells | side in pixels, cells per row | one bit per cell, lowest first: the base is kept |
//! | 4 lattice | crop y0 y1 x0 x1, rows and columns of a cell, of a hole | |
//! | 5 bump | | f32 per row, then per column: factors of the partner's weight |
//! | 6 weights | | f32 per pixel: the base's weight |
//!
//! Ranks become cells of one pixel, or weights where their edge is soft: a field is larger than the masks made of it.

use super::{Filter, Mask, Op, Rect, Row, block::Member, fields::RankMap};

/// Words before a mask's data.
pub const HEAD: usize = 12;

/// Words of a row of a job with `members` on a raster of `height` x `width`.
pub fn words(members: &[Member], height: u32, width: u32) -> usize {
    HEAD + members.iter().map(|m| m.policy.mask_words(&m.args, height, width)).max().unwrap_or(0)
}

/// Bytes of a row of `words` words.
pub fn bytes(words: usize) -> usize {
    words * size_of::<u32>()
}

/// Appends the `words` words of `row` to `out`, little-endian; `slot` is the step's slot of the block's first row,
/// `width` that of the raster.
///
/// # Panics
/// When the row has several ops, an op of points, or more data than `words` has room for: policies of pictures declare
/// what they need, so these would be faults of theirs.
pub fn encode(row: &Row, slot: u32, width: u32, words: usize, out: &mut Vec<u8>) {
    let end = out.len() + bytes(words);
    match row.ops.as_slice() {
        [] => put(out, &[0, slot + row.partner]),
        [op] => encode_op(op, slot, width, out),
        [_, _, ..] => panic!("a row of pictures has one op at most, not {}", row.ops.len()),
    }
    assert!(out.len() <= end, "a policy's mask has more words than it declares");
    out.resize(end, 0);
}

fn encode_op(op: &Op, slot: u32, width: u32, out: &mut Vec<u8>) {
    match op {
        Op::Blend { src, lambda, rest } => put(out, &[1, slot + src, lambda.to_bits(), rest.to_bits()]),
        Op::Paste { src, src_rect, dst_rect, filter } => {
            put(out, &[2, slot + src]);
            put(out, &rect(src_rect));
            put(out, &rect(dst_rect));
            let filter = match filter {
                Filter::Nearest => 0,
                Filter::Bilinear => 1,
                Filter::Area => 2,
            };
            put(out, &[filter]);
        }
        Op::MaskBlend { src, mask } => encode_mask(mask, slot + src, width, out),
        Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. } => {
            panic!("an op of points in a row of pictures")
        }
    }
}

fn encode_mask(mask: &Mask, src: u32, width: u32, out: &mut Vec<u8>) {
    let begin = out.len();
    match mask {
        Mask::Cells { cell, columns, keep } => {
            put(out, &[3, src, *cell, *columns]);
            head(out, begin);
            bits(out, keep.iter().copied());
        }
        Mask::Lattice { crop, cell, hole } => {
            put(out, &[4, src]);
            put(out, &rect(crop));
            put(out, &[cell.0, cell.1, hole.0, hole.1]);
        }
        Mask::Bump { rows, columns } => {
            put(out, &[5, src]);
            head(out, begin);
            floats(out, rows.iter().chain(columns.iter()).copied());
        }
        Mask::Ranks { field, shift, keep, soft: 0 } => {
            put(out, &[3, src, 1, width]);
            head(out, begin);
            bits(out, ranks(field, *shift).map(|rank| rank < *keep));
        }
        Mask::Ranks { field, shift, keep, soft } => {
            put(out, &[6, src]);
            head(out, begin);
            floats(out, ranks(field, *shift).map(|rank| RankMap::weight(rank, *keep, *soft)));
        }
        Mask::Weights(weights) => {
            put(out, &[6, src]);
            head(out, begin);
            floats(out, weights.iter().copied());
        }
        // Jobs with mixers are refused recipes.
        Mask::Learned { .. } => panic!("a mask that is still to be made"),
    }
}

/// Rank of every pixel, as `Mask::Ranks` says.
fn ranks(field: &RankMap, shift: (u32, u32)) -> impl Iterator<Item = u32> + '_ {
    (0..field.height).flat_map(move |y| field.line(y, shift))
}

fn rect(r: &Rect) -> [u32; 4] {
    [r.y0, r.y1, r.x0, r.x1]
}

/// Zeros up to a mask's data.
fn head(out: &mut Vec<u8>, begin: usize) {
    out.resize(begin + HEAD * 4, 0);
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|w| out.extend(w.to_le_bytes()));
}

fn floats(out: &mut Vec<u8>, values: impl Iterator<Item = f32>) {
    values.for_each(|v| out.extend(v.to_bits().to_le_bytes()));
}

fn bits(out: &mut Vec<u8>, values: impl Iterator<Item = bool>) {
    let (mut word, mut filled) = (0u32, 0);
    for bit in values {
        word |= u32::from(bit) << filled;
        filled += 1;
        if filled == 32 {
            put(out, &[word]);
            (word, filled) = (0, 0);
        }
    }
    if filled > 0 {
        put(out, &[word]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image;
    use std::sync::Arc;

    fn row(ops: Vec<Op>) -> Row {
        Row { base: 0, partner: 1, ops, policy: Some(0), sampled: 0.5, own: 0.5, flags: 0 }
    }

    fn encoded(ops: Vec<Op>, data: usize) -> Vec<u32> {
        let mut out = Vec::new();
        encode(&row(ops), 8, 3, HEAD + data, &mut out);
        out.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn words_are_as_the_table_says() {
        let r = |x1| Rect { y0: 1, y1: 2, x0: 0, x1 };
        assert_eq!(encoded(vec![], 0)[..3], [0, 9, 0]);
        let blend = Op::Blend { src: 1, lambda: 0.25, rest: 0.75 };
        assert_eq!(encoded(vec![blend], 0)[..4], [1, 9, 0.25f32.to_bits(), 0.75f32.to_bits()]);
        let paste = Op::Paste { src: 1, src_rect: r(3), dst_rect: r(2), filter: Filter::Area };
        assert_eq!(encoded(vec![paste], 0)[..11], [2, 9, 1, 2, 0, 3, 1, 2, 0, 2, 2]);
        let mask = |mask| vec![Op::MaskBlend { src: 1, mask }];
        let lattice = Mask::Lattice { crop: r(3), cell: (4, 5), hole: (2, 1) };
        assert_eq!(encoded(mask(lattice), 0)[..10], [4, 9, 1, 2, 0, 3, 4, 5, 2, 1]);
        let cells = Mask::Cells { cell: 2, columns: 2, keep: [true, false, true, true].as_slice().into() };
        let words = encoded(mask(cells), 2);
        assert_eq!((&words[..4], &words[HEAD..]), (&[3, 9, 2, 2][..], &[0b1101, 0][..]));
        let bump = Mask::Bump { rows: [0.5f32, 1.0].into(), columns: [0.25f32, 0.5, 1.0].into() };
        let words = encoded(mask(bump), 5);
        assert_eq!(words[HEAD..], [0.5f32, 1.0, 0.25, 0.5, 1.0].map(f32::to_bits));
    }

    #[test]
    fn ranks_are_sent_as_the_mask_they_make() {
        let field = Arc::new(RankMap { height: 2, width: 3, id: 7, ranks: vec![0, 1, 2, 3, 4, 5] });
        let ranks = |shift, keep, soft| {
            let mask = Mask::Ranks { field: field.clone(), shift, keep, soft };
            encoded(vec![Op::MaskBlend { src: 1, mask }], 6)
        };
        // Shifted by (1, 1) the picture shows ranks 4 5 3 / 1 2 0.
        let hard = ranks((1, 1), 2, 0);
        assert_eq!((&hard[..4], hard[HEAD]), (&[3, 9, 1, 3][..], 0b10_1000));
        let soft = ranks((1, 1), 3, 2);
        assert_eq!(soft[0], 6);
        let third = |n: f32| 1.0 - n / 3.0;
        // An edge that is wider than what is kept begins below rank 0.
        let wide = ranks((0, 0), 1, 2);
        assert_eq!(wide[HEAD..], [third(1.0), third(2.0), third(3.0), 0.0, 0.0, 0.0].map(f32::to_bits));
        assert_eq!(
            soft[HEAD..],
            [third(3.0), third(3.0), third(2.0), third(0.0), third(1.0), 1.0].map(f32::to_bits)
        );
    }

    #[test]
    fn policies_declare_enough_words_for_whatever_they_draw() {
        for (height, width) in [(1, 1), (7, 5), (33, 64), (224, 160)] {
            for policy in image::POLICIES {
                for args in image::tests::extremes(*policy) {
                    let words = HEAD + policy.mask_words(&args, height, width);
                    for mix in image::tests::draw_many(*policy, &args, height, width, 12) {
                        encode(&row(mix.ops), 0, width, words, &mut Vec::new());
                    }
                }
            }
        }
    }
}
