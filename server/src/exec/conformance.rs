//! What every executor must do: hand-computed cases, and laws on random plans.

use super::simd::Level;
use super::{Format, Scratch, bytes_by_line, compose::Block, mask, run, run_at};
use crate::batch::{CHANNELS, Dtype, Layout, Raster};
use crate::plan::{Filter, Mask, Op, Rect, Row, fields::RankMap};
use proptest::prelude::*;
use std::sync::Arc;

pub(super) fn row(base: u32, partner: u32, ops: Vec<Op>) -> Row {
    Row { base, partner, ops, policy: Some(0), sampled: 1.0, own: 1.0, flags: 0 }
}

pub(super) fn format(height: usize, width: usize, layout: Layout, dtype: Dtype) -> Format {
    Format { raster: Raster::new(height, width, layout), dtype, normalize: None }
}

fn made(row: &Row, clean: &[u8], format: &Format) -> Vec<u8> {
    let mut out = vec![0xa5; format.raster.len() * format.dtype.size()];
    run(row, clean, format, &mut Scratch::default(), &mut out);
    out
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The same picture with channels last.
pub(super) fn interleaved(planar: &[u8], pixels: usize, size: usize) -> Vec<u8> {
    let element = |i: usize| (i % CHANNELS * pixels + i / CHANNELS) * size;
    (0..CHANNELS * pixels).flat_map(|i| planar[element(i)..element(i) + size].to_vec()).collect()
}

/// A block of two 2 x 3 rows: 10, 20, ..., 180 and 255 everywhere.
fn two_by_three() -> Vec<u8> {
    (1..=18).map(|i| i * 10).chain(std::iter::repeat_n(255, 18)).collect()
}

#[test]
fn blend_rounds_half_to_even() {
    let clean = [vec![1u8, 3, 0, 255, 10, 11], vec![2u8, 4, 1, 255, 20, 22]].concat();
    // Three planes of 1 x 2; halves of 3, 7, 1, 510, 30, 33.
    let half = row(0, 1, vec![Op::Blend { src: 1, lambda: 0.5, rest: 0.5 }]);
    assert_eq!(made(&half, &clean, &format(1, 2, Layout::Nchw, Dtype::U8)), [2, 4, 0, 255, 15, 16]);
}

#[test]
fn a_swapped_box_takes_each_row_from_the_untouched_other() {
    let clean = two_by_three();
    let rect = Rect { y0: 0, y1: 2, x0: 1, x1: 2 };
    let paste = |src| vec![Op::Paste { src, src_rect: rect, dst_rect: rect, filter: Filter::Nearest }];
    let nchw = format(2, 3, Layout::Nchw, Dtype::U8);
    let first = made(&row(0, 1, paste(1)), &clean, &nchw);
    assert_eq!(first, [10, 255, 30, 40, 255, 60, 70, 255, 90, 100, 255, 120, 130, 255, 150, 160, 255, 180]);
    let second = made(&row(1, 0, paste(0)), &clean, &nchw);
    assert_eq!(second[..6], [255, 20, 255, 255, 50, 255]);
}

#[test]
fn pastes_are_resampled_by_their_filter() {
    // One row of 1 x 4, every plane 0, 100, 200, 40; its halves are pasted over columns.
    let clean: Vec<u8> = [0, 100, 200, 40].repeat(3);
    let whole = Rect { y0: 0, y1: 1, x0: 0, x1: 4 };
    let check = |filter, src_rect, dst_rect, want: [u8; 4]| {
        let row = row(0, 0, vec![Op::Paste { src: 0, src_rect, dst_rect, filter }]);
        let nchw = format(1, 4, Layout::Nchw, Dtype::U8);
        assert_eq!(made(&row, &clean, &nchw), want.repeat(3), "{filter:?}");
    };
    let left = Rect { x1: 2, ..whole };
    check(Filter::Nearest, whole, left, [0, 200, 200, 40]);
    check(Filter::Bilinear, whole, left, [50, 120, 200, 40]);
    // Weights 3/7, 3/7, 1/7 of 0, 100, 200 and 1/7, 3/7, 3/7 of 100, 200, 40.
    check(Filter::Area, whole, left, [71, 117, 200, 40]);
    check(Filter::Bilinear, left, whole, [0, 25, 75, 100]);
}

#[test]
fn masks_by_hand() {
    let ranks = RankMap { height: 2, width: 3, id: 0, ranks: vec![5, 0, 3, 1, 4, 2] };
    let field = Arc::new(ranks);
    let check = |mask_op, want: [f32; 6]| {
        let row = row(0, 1, vec![Op::MaskBlend { src: 1, mask: mask_op }]);
        assert_eq!(mask(&row, 2, 3), want, "{row:?}");
    };
    let cells = Mask::Cells { cell: 2, columns: 2, keep: Arc::new([true, false]) };
    check(cells, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    let crop = Rect { y0: 0, y1: 2, x0: 1, x1: 3 };
    check(Mask::Lattice { crop, cell: (2, 2), hole: (1, 1) }, [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let bump = Mask::Bump { rows: Arc::new([1.0, 0.5]), columns: Arc::new([0.0, 1.0, 0.5]) };
    check(bump, [1.0, 0.0, 0.5, 1.0, 0.5, 0.75]);
    let binary = |shift| Mask::Ranks { field: field.clone(), shift, keep: 3, soft: 0 };
    check(binary((0, 0)), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    check(binary((1, 1)), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    // Ranks 1, 2, 3, 4 weigh 1, 2/3, 1/3, 0: the sum stays 3.
    let soft = Mask::Ranks { field: field.clone(), shift: (0, 0), keep: 3, soft: 2 };
    check(soft, [0.0, 1.0, 1.0 - 2.0 / 3.0, 1.0, 0.0, 1.0 - 1.0 / 3.0]);
}

#[test]
fn the_last_of_several_ops_sees_the_earlier_ones_but_clean_partners() {
    let clean = two_by_three();
    let left = Rect { y0: 0, y1: 2, x0: 0, x1: 1 };
    let ops = vec![
        Op::Paste { src: 1, src_rect: left, dst_rect: left, filter: Filter::Nearest },
        Op::Blend { src: 0, lambda: 0.5, rest: 0.5 },
    ];
    let row = row(0, 1, ops);
    // Column 0 is the mean of 255 and the clean base: 132.5 and 147.5 go to even.
    let bytes = made(&row, &clean, &format(2, 3, Layout::Nchw, Dtype::U8));
    assert_eq!(bytes[..6], [132, 20, 30, 148, 50, 60]);
    let exact = floats(&made(&row, &clean, &format(2, 3, Layout::Nchw, Dtype::F32)));
    assert!((exact[0] * 255.0 - 132.5).abs() < 1e-4, "floats are not rounded between ops");
    assert_eq!(mask(&row, 2, 3), [0.0, 0.5, 0.5, 0.0, 0.5, 0.5]);
}

#[test]
fn own_is_the_mean_of_the_mask_for_every_policy() {
    use crate::plan::{Args, Draws, PlanInput, fields, image};
    let (height, width) = (30, 22);
    let bank = fields::Bank::new(3, height, width);
    let stream = crate::rng::Stream::new(3, "mix");
    for policy in image::POLICIES {
        let args = Args::resolve(&policy.declared(), &Default::default(), &Default::default())
            .expect("defaults are legal");
        for step in 0..50 {
            let input = PlanInput { height, width, base: 0, partner: 1, next: &[1, 0], fields: &bank };
            let mix = policy.draw(&input, &args, &Draws::new(&stream, step, 0, 0));
            let weights = mask(&row(0, 1, mix.ops), height, width);
            let mean = weights.iter().map(|w| f64::from(*w)).sum::<f64>() / weights.len() as f64;
            assert!((mean - mix.own).abs() < 1e-6, "{} step {step}: {mean}, {}", policy.name(), mix.own);
        }
    }
}

const HEIGHTS: std::ops::RangeInclusive<usize> = 1..=4;
/// Wide enough for whole vectors and every remainder.
const WIDTHS: std::ops::RangeInclusive<usize> = 1..=70;
pub(super) const ROWS: u32 = 3;

fn rect(height: usize, width: usize) -> impl Strategy<Value = Rect> {
    let side = |n: usize| (0..=n as u32, 0..=n as u32).prop_map(|(a, b)| (a.min(b), a.max(b)));
    (side(height), side(width)).prop_map(|((y0, y1), (x0, x1))| Rect { y0, y1, x0, x1 })
}

fn masks(height: usize, width: usize) -> impl Strategy<Value = Mask> {
    let pixels = height * width;
    let cells = (1..9u32).prop_flat_map(move |cell| {
        let columns = (width as u32).div_ceil(cell);
        let count = (columns * (height as u32).div_ceil(cell)) as usize;
        prop::collection::vec(any::<bool>(), count).prop_map(move |keep| Mask::Cells {
            cell,
            columns,
            keep: keep.into(),
        })
    });
    let lattice = (rect(height, width), (1..5u32, 1..9u32), (0..6u32, 0..10u32))
        .prop_map(|(crop, cell, hole)| Mask::Lattice { crop, cell, hole });
    let weights = |n: usize| prop::collection::vec(0.0..=1.0f32, n);
    let bump = (weights(height), weights(width))
        .prop_map(|(rows, columns)| Mask::Bump { rows: rows.into(), columns: columns.into() });
    let order = Just((0..pixels as u32).collect::<Vec<_>>()).prop_shuffle();
    let ranks = (order, any::<(u16, u16)>(), 0..=pixels as u32, 0..4u32).prop_map(
        move |(ranks, (dy, dx), keep, soft)| {
            let field = RankMap { height: height as u32, width: width as u32, id: 0, ranks };
            Mask::Ranks { field: field.into(), shift: (dy.into(), dx.into()), keep, soft }
        },
    );
    prop_oneof![cells, lattice, bump, ranks, weights(pixels).prop_map(|w| Mask::Weights(w.into()))]
}

pub(super) fn ops(height: usize, width: usize) -> impl Strategy<Value = Op> {
    let filter = prop_oneof![Just(Filter::Nearest), Just(Filter::Bilinear), Just(Filter::Area)];
    let blend = (0..ROWS, 0.0..=1.0f64).prop_map(|(src, l)| Op::Blend {
        src,
        lambda: l as f32,
        rest: (1.0 - l) as f32,
    });
    let paste = (0..ROWS, rect(height, width), rect(height, width), filter, any::<bool>()).prop_map(
        |(src, src_rect, other, filter, same)| {
            let dst_rect = if same { src_rect } else { other };
            Op::Paste { src, src_rect, dst_rect, filter }
        },
    );
    let masked = (0..ROWS, masks(height, width)).prop_map(|(src, mask)| Op::MaskBlend { src, mask });
    prop_oneof![blend, paste, masked]
}

/// Height, width, planar block, row of up to `most` ops.
fn cases(most: usize) -> impl Strategy<Value = (usize, usize, Vec<u8>, Row)> {
    (HEIGHTS, WIDTHS).prop_flat_map(move |(height, width)| {
        let clean = prop::collection::vec(any::<u8>(), ROWS as usize * CHANNELS * height * width);
        let ops = prop::collection::vec(ops(height, width), 0..=most);
        (clean, 0..ROWS, ops).prop_map(move |(clean, base, ops)| {
            let partner = ops.first().map_or(base, src);
            (height, width, clean, row(base, partner, ops))
        })
    })
}

fn src(op: &Op) -> u32 {
    match op {
        Op::Blend { src, .. } | Op::Paste { src, .. } | Op::MaskBlend { src, .. } => *src,
        more @ (Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. }) => {
            panic!("{more:?} is not of pictures")
        }
    }
}

pub(super) const DTYPES: [Dtype; 4] = [Dtype::U8, Dtype::F16, Dtype::Bf16, Dtype::F32];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn simd_is_scalar_bit_for_bit((height, width, clean, row) in cases(3), normal in any::<bool>()) {
        for (dtype, layout) in DTYPES.into_iter().zip([Layout::Nchw, Layout::Nhwc, Layout::Nchw, Layout::Nhwc]) {
            let normalize = normal.then_some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
            let format = Format { normalize, ..format(height, width, layout, dtype) };
            let at = |level: Level| {
                let mut out = vec![0u8; format.raster.len() * dtype.size()];
                run_at(level, &row, &clean, &format, &mut Scratch::default(), &mut out);
                out
            };
            for level in Level::all() {
                prop_assert!(at(*level) == at(Level::Scalar), "{level:?} {dtype:?} {layout:?}");
            }
        }
    }

    #[test]
    fn channels_last_is_channels_first_transposed((height, width, clean, row) in cases(3)) {
        let pixels = height * width;
        let last: Vec<u8> =
            clean.chunks_exact(CHANNELS * pixels).flat_map(|row| interleaved(row, pixels, 1)).collect();
        for dtype in DTYPES {
            let normalize = Some(([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]));
            let planar = made(&row, &clean, &Format { normalize, ..format(height, width, Layout::Nchw, dtype) });
            let packed = made(&row, &last, &Format { normalize, ..format(height, width, Layout::Nhwc, dtype) });
            prop_assert!(packed == interleaved(&planar, pixels, dtype.size()), "{dtype:?}");
        }
    }

    #[test]
    fn whole_row_paths_equal_the_line_path((height, width, clean, row) in cases(1)) {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let format = format(height, width, layout, Dtype::U8);
            let (block, mut out) = (Block { clean: &clean, raster: &format.raster }, vec![0; format.raster.len()]);
            bytes_by_line(Level::best(), &row, block, &mut Scratch::default(), &mut out);
            prop_assert!(out == made(&row, &clean, &format));
        }
    }

    /// One op, whose mask says for each pixel: base, partner, or between them.
    #[test]
    fn pixels_obey_the_mask((height, width, clean, row) in cases(1)) {
        let format = format(height, width, Layout::Nchw, Dtype::U8);
        let (out, weights) = (made(&row, &clean, &format), mask(&row, height as u32, width as u32));
        let at = |i: u32| &clean[i as usize * format.raster.len()..][..format.raster.len()];
        let (a, b) = (at(row.base), at(row.partner));
        let moved = matches!(&row.ops[..], [Op::Paste { src_rect, dst_rect, .. }] if src_rect != dst_rect);
        for (i, y) in out.iter().enumerate() {
            let weight = weights[i % (height * width)];
            if weight == 1.0 {
                prop_assert_eq!(*y, a[i]);
            } else if moved {
                let plane = &b[i / (height * width) * height * width..][..height * width];
                let (low, high) = (plane.iter().min(), plane.iter().max());
                prop_assert!(low <= Some(y) && Some(y) <= high);
            } else {
                prop_assert!(weight > 0.0 || *y == b[i]);
                prop_assert!(a[i].min(b[i]) <= *y && *y <= a[i].max(b[i]));
            }
        }
    }

    #[test]
    fn floats_are_the_unrounded_bytes_and_halves_the_rounded_floats((height, width, clean, row) in cases(1)) {
        let of = |dtype| made(&row, &clean, &format(height, width, Layout::Nchw, dtype));
        let exact = floats(&of(Dtype::F32));
        let (bytes, halves, brain) = (of(Dtype::U8), of(Dtype::F16), of(Dtype::Bf16));
        for (i, v) in exact.iter().enumerate() {
            prop_assert!((v * 255.0 - f32::from(bytes[i])).abs() <= 0.5 + 1e-4, "{v} and {}", bytes[i]);
            prop_assert_eq!(&half::f16::from_f32(*v).to_le_bytes()[..], &halves[2 * i..2 * i + 2]);
            prop_assert_eq!(&half::bf16::from_f32(*v).to_le_bytes()[..], &brain[2 * i..2 * i + 2]);
        }
    }
}
