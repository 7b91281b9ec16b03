//! Canonical bytes of a planned row, for digests in receipts and golden files.
//!
//! Little-endian, fixed order, every list preceded by its length as u64, every variant by a tag byte. A field of the
//! bank is named by its id, since seed, raster and policy arguments are in the job's digest; so are those of mixers. What a
//! mixer makes of pixels is no part of a plan: the weight of a learned interval counts as drawn.

use super::{Filter, Mask, Op, Rect, Row};

impl Row {
    /// Appends the row's canonical bytes to `out`; equal bytes mean equal rows of one job.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Row { base, partner, ops, policy, sampled, own, flags } = self;
        words(out, &[*base, *partner, policy.map_or(0, |p| p + 1), *flags]);
        out.extend(sampled.to_bits().to_le_bytes());
        let made = ops
            .iter()
            .any(|op| matches!(op, Op::MaskBlend { mask: Mask::Learned { interval: true, .. }, .. }));
        out.extend(if made { sampled } else { own }.to_bits().to_le_bytes());
        length(out, ops.len());
        ops.iter().for_each(|op| encode_op(op, out));
    }
}

fn encode_op(op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Blend { src, lambda, rest } => {
            out.push(1);
            words(out, &[*src, lambda.to_bits(), rest.to_bits()]);
        }
        Op::Paste { src, src_rect, dst_rect, filter } => {
            out.push(2);
            words(out, &[*src]);
            rect(out, src_rect);
            rect(out, dst_rect);
            out.push(match filter {
                Filter::Nearest => 0,
                Filter::Bilinear => 1,
                Filter::Area => 2,
            });
        }
        Op::MaskBlend { src, mask } => {
            out.push(3);
            words(out, &[*src]);
            encode_mask(mask, out);
        }
        Op::Union { scenes } => {
            out.push(4);
            length(out, scenes.len());
            words(out, scenes);
        }
        Op::Sectors { src, from, to } => {
            out.push(5);
            words(out, &[*src, from.to_bits(), to.to_bits()]);
        }
        Op::Instances { src, classes, angles } => {
            out.push(6);
            words(out, &[*src]);
            length(out, classes.len());
            classes.iter().for_each(|c| out.extend(c.to_le_bytes()));
            floats(out, angles);
        }
        Op::Bands { src, edges, odd } => {
            out.push(7);
            words(out, &[*src]);
            floats(out, edges);
            out.push(u8::from(*odd));
        }
    }
}

fn encode_mask(mask: &Mask, out: &mut Vec<u8>) {
    match mask {
        Mask::Cells { cell, columns, keep } => {
            out.push(1);
            words(out, &[*cell, *columns]);
            length(out, keep.len());
            out.extend(keep.iter().map(|k| u8::from(*k)));
        }
        Mask::Lattice { crop, cell, hole } => {
            out.push(2);
            rect(out, crop);
            words(out, &[cell.0, cell.1, hole.0, hole.1]);
        }
        Mask::Bump { rows, columns } => {
            out.push(3);
            floats(out, rows);
            floats(out, columns);
        }
        Mask::Ranks { field, shift, keep, soft } => {
            out.push(4);
            words(out, &[field.id, shift.0, shift.1, *keep, *soft]);
        }
        Mask::Weights(weights) => {
            out.push(5);
            floats(out, weights);
        }
        Mask::Learned { mixer, lambda, interval } => {
            out.push(6);
            words(out, &[*mixer, lambda.to_bits(), u32::from(*interval)]);
        }
    }
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|w| out.extend(w.to_le_bytes()));
}

fn length(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u64).to_le_bytes());
}

fn floats(out: &mut Vec<u8>, values: &[f32]) {
    length(out, values.len());
    values.iter().for_each(|v| out.extend(v.to_bits().to_le_bytes()));
}

fn rect(out: &mut Vec<u8>, rect: &Rect) {
    words(out, &[rect.y0, rect.y1, rect.x0, rect.x1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fields::RankMap;
    use std::{collections::BTreeMap, sync::Arc};

    fn ops() -> Vec<Op> {
        let r = |x1| Rect { y0: 1, y1: 3, x0: 0, x1 };
        let paste = |src_rect, dst_rect, filter| Op::Paste { src: 1, src_rect, dst_rect, filter };
        let mask = |mask| Op::MaskBlend { src: 1, mask };
        let field = |id| Arc::new(RankMap { height: 1, width: 2, id, ranks: vec![0, 1] });
        let ranks = |id, shift, keep, soft| mask(Mask::Ranks { field: field(id), shift, keep, soft });
        let cells = |cell, columns, keep: &[bool]| mask(Mask::Cells { cell, columns, keep: keep.into() });
        let bump =
            |rows: &[f32], columns: &[f32]| mask(Mask::Bump { rows: rows.into(), columns: columns.into() });
        let instances = |src, classes: &[i32], angles: &[f32]| Op::Instances {
            src,
            classes: classes.into(),
            angles: angles.to_vec(),
        };
        let bands = |src, edges: &[f32], odd| Op::Bands { src, edges: edges.into(), odd };
        let learned = |mixer, lambda, interval| mask(Mask::Learned { mixer, lambda, interval });
        let lattice = |crop, cell, hole| mask(Mask::Lattice { crop, cell, hole });
        vec![
            Op::Blend { src: 1, lambda: 0.25, rest: 0.75 },
            Op::Blend { src: 2, lambda: 0.25, rest: 0.75 },
            Op::Blend { src: 1, lambda: 0.5, rest: 0.75 },
            Op::Blend { src: 1, lambda: 0.25, rest: 0.5 },
            paste(r(5), r(5), Filter::Nearest),
            paste(r(5), r(5), Filter::Bilinear),
            paste(r(5), r(5), Filter::Area),
            paste(r(4), r(5), Filter::Nearest),
            paste(r(5), r(4), Filter::Nearest),
            cells(2, 2, &[true, false]),
            cells(3, 2, &[true, false]),
            cells(2, 1, &[true, false]),
            cells(2, 2, &[false, true]),
            lattice(r(5), (2, 3), (1, 1)),
            lattice(r(4), (2, 3), (1, 1)),
            lattice(r(5), (3, 2), (1, 1)),
            lattice(r(5), (2, 3), (1, 2)),
            lattice(r(5), (2, 3), (2, 1)),
            bump(&[0.5], &[0.5, 0.5]),
            bump(&[0.5, 0.5], &[0.5]),
            bump(&[0.5], &[0.5, 0.25]),
            ranks(0, (1, 2), 3, 1),
            ranks(1, (1, 2), 3, 1),
            ranks(0, (2, 1), 3, 1),
            ranks(0, (1, 2), 2, 1),
            ranks(0, (1, 2), 3, 0),
            mask(Mask::Weights([0.5f32].as_slice().into())),
            mask(Mask::Weights([0.5f32, 0.5].as_slice().into())),
            learned(0, 0.25, false),
            learned(1, 0.25, false),
            learned(0, 0.5, false),
            learned(0, 0.25, true),
            Op::Union { scenes: vec![1] },
            Op::Union { scenes: vec![2] },
            Op::Union { scenes: vec![1, 2] },
            Op::Sectors { src: 1, from: 0.25, to: 0.5 },
            Op::Sectors { src: 2, from: 0.25, to: 0.5 },
            Op::Sectors { src: 1, from: 0.125, to: 0.5 },
            Op::Sectors { src: 1, from: 0.25, to: 0.75 },
            instances(1, &[3], &[0.5]),
            instances(2, &[3], &[0.5]),
            instances(1, &[4], &[0.5]),
            instances(1, &[3, 4], &[0.5]),
            instances(1, &[3], &[0.25]),
            instances(1, &[3], &[0.5, 0.25]),
            bands(1, &[0.5], false),
            bands(2, &[0.5], false),
            bands(1, &[0.25], false),
            bands(1, &[0.25, 0.5], false),
            bands(1, &[0.5], true),
        ]
    }

    #[test]
    fn every_field_of_every_variant_changes_the_bytes() {
        let plain = Row { base: 0, partner: 1, ops: vec![], policy: None, sampled: 0.5, own: 0.5, flags: 0 };
        let mut rows = vec![
            plain.clone(),
            Row { base: 1, ..plain.clone() },
            Row { partner: 2, ..plain.clone() },
            Row { policy: Some(0), ..plain.clone() },
            Row { policy: Some(1), ..plain.clone() },
            Row { sampled: 0.25, ..plain.clone() },
            Row { own: 0.25, ..plain.clone() },
            Row { flags: 16, ..plain.clone() },
        ];
        rows.extend(ops().into_iter().map(|op| Row { ops: vec![op], ..plain.clone() }));
        let two = ops()[..2].to_vec();
        rows.push(Row { ops: two.clone(), ..plain.clone() });
        rows.push(Row { ops: two.into_iter().rev().collect(), ..plain.clone() });
        let mut seen = BTreeMap::new();
        for row in &rows {
            let mut bytes = Vec::new();
            row.encode(&mut bytes);
            if let Some(other) = seen.insert(bytes, row) {
                panic!("{row:?} and {other:?} have the same bytes");
            }
        }
    }

    #[test]
    fn a_weight_that_a_mixer_gave_is_no_part_of_the_plan() {
        let bytes = |own, interval| {
            let mask = Mask::Learned { mixer: 0, lambda: 0.5, interval };
            let ops = vec![Op::MaskBlend { src: 1, mask }];
            let mut out = Vec::new();
            Row { base: 0, partner: 1, ops, policy: Some(0), sampled: 0.5, own, flags: 0 }.encode(&mut out);
            out
        };
        assert_eq!(bytes(0.5, true), bytes(0.75, true));
        assert_ne!(bytes(0.5, false), bytes(0.75, false));
    }

    #[test]
    fn the_layout_is_fixed() {
        let ops = vec![Op::Blend { src: 7, lambda: 1.0, rest: 0.0 }];
        let row = Row { base: 1, partner: 2, ops, policy: Some(2), sampled: 1.0, own: 0.5, flags: 0x102 };
        let mut bytes = vec![9];
        row.encode(&mut bytes);
        let one = [0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let half = [0, 0, 0, 0, 0, 0, 0xe0, 0x3f];
        let want = [
            &[9, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0][..],
            &one,
            &half,
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, want.concat());
    }

    #[test]
    fn the_layout_of_ops_on_points_is_fixed() {
        let bytes = |op: Op| {
            let mut out = Vec::new();
            encode_op(&op, &mut out);
            out
        };
        let (one, two) = ([0, 0, 0x80, 0x3f], [0, 0, 0, 0x40]);
        let (word, count) = (|n: u8| vec![n, 0, 0, 0], |n: u8| vec![n, 0, 0, 0, 0, 0, 0, 0]);
        let union = Op::Union { scenes: vec![7, 3] };
        assert_eq!(bytes(union), [vec![4], count(2), word(7), word(3)].concat());
        let sectors = Op::Sectors { src: 7, from: 1.0, to: 2.0 };
        assert_eq!(bytes(sectors), [vec![5], word(7), one.to_vec(), two.to_vec()].concat());
        let instances = Op::Instances { src: 7, classes: [-1].into(), angles: vec![1.0, 2.0] };
        let classes = [count(1), vec![255; 4]].concat();
        let angles = [count(2), one.to_vec(), two.to_vec()].concat();
        assert_eq!(bytes(instances), [vec![6], word(7), classes, angles].concat());
        let bands = Op::Bands { src: 7, edges: [1.0].into(), odd: true };
        assert_eq!(bytes(bands), [vec![7], word(7), count(1), one.to_vec(), vec![1]].concat());
    }
}
