//! libtorch against the scalar executor: random plans of blocks, and plans of every policy.
//!
//! These run on libtorch's CPU; `MIXFEED_TORCH_DEVICE=cuda:0` runs the same on a device.

use super::{Device, DeviceError, Input, Mixer, Progress, Torch, start};
use crate::batch::{Dtype, Layout};
use crate::exec::conformance::{DTYPES, ROWS, format, interleaved, ops, row};
use crate::exec::{Format, Scratch, run_at, simd::Level};
use crate::plan::{Args, Draws, Filter, Mask, Op, PlanInput, Rect, Row, fields, image};
use proptest::prelude::*;
use std::{cell::RefCell, collections::BTreeMap};

thread_local! {
    pub(super) static TORCH: RefCell<Torch> = RefCell::new(Torch::new(device(), 0).expect("the device is there"));
}

/// Where these tests run: libtorch's CPU, or the device of the environment.
pub(super) fn device() -> tch::Device {
    let name = std::env::var("MIXFEED_TORCH_DEVICE").unwrap_or_else(|_| "torch".into());
    match name.parse().expect("`torch` or `cuda:N`") {
        Device::Cuda(index) => tch::Device::Cuda(index),
        Device::Cpu | Device::Torch | Device::Auto => tch::Device::Cpu,
    }
}

/// All that the worker does with a block.
pub(super) fn whole<B: AsRef<[u8]> + Sync>(
    torch: &mut Torch,
    rows: &[Row],
    input: &Input<B>,
    format: &Format,
    out: &mut [u8],
) -> Result<(), DeviceError> {
    if torch.run(rows, input, format, out)? == Progress::Begun {
        // `B` says nothing here.
        Mixer::<B>::wait(torch)?;
        match Mixer::<B>::lend(torch, out.len()) {
            Some(rows) => out.copy_from_slice(rows.as_ref()),
            None => Mixer::<B>::collect(torch, out)?,
        }
    }
    Ok(())
}

fn torch(rows: &[Row], clean: &[u8], format: &Format) -> Result<Vec<u8>, DeviceError> {
    let mut out = vec![0xa5; rows.len() * format.raster.len() * format.dtype.size()];
    TORCH.with_borrow_mut(|torch| whole(torch, rows, &Input::Clean(clean), format, &mut out)).map(|()| out)
}

pub(super) fn scalar(rows: &[Row], clean: &[u8], format: &Format) -> Vec<u8> {
    let bytes = format.raster.len() * format.dtype.size();
    let mut out = vec![0; rows.len() * bytes];
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(bytes)) {
        run_at(Level::Scalar, row, clean, format, &mut Scratch::default(), out);
    }
    out
}

/// Bytes that are moved only, never computed.
fn only_moves(row: &Row) -> bool {
    row.ops.iter().all(|op| match op {
        Op::Paste { src_rect: s, dst_rect: d, filter, .. } => {
            let same = (s.y1 - s.y0, s.x1 - s.x0) == (d.y1 - d.y0, d.x1 - d.x0);
            same || *filter == Filter::Nearest || s.area() == 0 || d.area() == 0
        }
        Op::MaskBlend { mask, .. } => {
            matches!(mask, Mask::Cells { .. } | Mask::Lattice { .. } | Mask::Ranks { soft: 0, .. })
        }
        Op::Blend { .. } => false,
        more @ (Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. }) => {
            panic!("{more:?} is not of pictures")
        }
    })
}

fn values(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let two = |b: &[u8]| [b[0], b[1]];
    match dtype {
        Dtype::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(two(b)).to_f32()).collect(),
        Dtype::Bf16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(two(b)).to_f32()).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F64 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            panic!("pictures are not {dtype:?}")
        }
    }
}

/// The tolerance that the module states, on values of about `scale`.
fn near(a: f32, b: f32, dtype: Dtype, scale: f32) -> bool {
    let relative = match dtype {
        Dtype::U8 => return (a - b).abs() <= 1.0,
        Dtype::F16 => 2f32.powi(-10),
        Dtype::Bf16 => 2f32.powi(-7),
        Dtype::F32 => 2f32.powi(-20),
        Dtype::F64 | Dtype::I32 | Dtype::I64 | Dtype::U16 | Dtype::U32 | Dtype::U64 => {
            panic!("pictures are not {dtype:?}")
        }
    };
    (a - b).abs() <= relative * a.abs().max(b.abs()).max(scale)
}

/// Panics with the first difference beyond the tolerance.
fn agree(name: &str, rows: &[Row], clean: &[u8], format: &Format) {
    let got = torch(rows, clean, format).expect("libtorch answers");
    let want = scalar(rows, clean, format);
    let (dtype, bytes) = (format.dtype, format.raster.len() * format.dtype.size());
    let scale = format.normalize.map_or(1.0, |(_, std)| 1.0 / std.into_iter().fold(f32::INFINITY, f32::min));
    for (at, row) in rows.iter().enumerate() {
        let own = at * bytes..(at + 1) * bytes;
        let (got, want) = (&got[own.clone()], &want[own]);
        if only_moves(row) && device() == tch::Device::Cpu {
            assert!(got == want, "{name} {format:?}: row {at}, only moved, differs: {row:?}");
        }
        for (i, (g, w)) in values(got, dtype).into_iter().zip(values(want, dtype)).enumerate() {
            assert!(near(g, w, dtype, scale), "{name} {format:?}: row {at} [{i}] is {g}, want {w}: {row:?}");
        }
    }
}

/// The same block with channels last.
fn last(clean: &[u8], pixels: usize) -> Vec<u8> {
    clean.chunks_exact(3 * pixels).flat_map(|row| interleaved(row, pixels, 1)).collect()
}

fn everywhere(name: &str, rows: &[Row], clean: &[u8], (height, width): (usize, usize), normal: bool) {
    let normalize = normal.then_some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    let packed = last(clean, height * width);
    for dtype in DTYPES {
        let normalize = normalize.filter(|_| dtype != Dtype::U8);
        for (layout, clean) in [(Layout::Nchw, clean), (Layout::Nhwc, &packed)] {
            agree(name, rows, clean, &Format { normalize, ..format(height, width, layout, dtype) });
        }
    }
}

/// Height, width, planar block of [`ROWS`] rows, and rows of up to three ops.
fn blocks() -> impl Strategy<Value = (usize, usize, Vec<u8>, Vec<Row>)> {
    (1..=13usize, 1..=21usize).prop_flat_map(|(height, width)| {
        let clean = prop::collection::vec(any::<u8>(), ROWS as usize * 3 * height * width);
        let one = (0..ROWS, prop::collection::vec(ops(height, width), 0..=3));
        let rows = prop::collection::vec(one.prop_map(|(base, ops)| row(base, base, ops)), 1..=7);
        (Just(height), Just(width), clean, rows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_plans_agree_with_the_scalar_executor((height, width, clean, rows) in blocks(), normal: bool) {
        everywhere("random", &rows, &clean, (height, width), normal);
    }
}

/// Pixels that differ everywhere, without a generator.
pub(super) fn pixels(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn every_policy_agrees_on_odd_batches_and_of_one() {
    let stream = crate::rng::Stream::new(11, "mix");
    for (height, width, count) in [(33usize, 47usize, 5u32), (40, 24, 1), (1, 9, 3)] {
        let bank = fields::Bank::new(5, height as u32, width as u32);
        let clean = pixels(count as usize * 3 * height * width);
        let next: Vec<u32> = (0..count).map(|i| (i + 1) % count).collect();
        for policy in image::POLICIES {
            let args =
                Args::resolve(&policy.declared(), &BTreeMap::new(), &BTreeMap::new()).expect("defaults");
            let mixed = |base: u32| {
                let partner = next[base as usize];
                let (h, w) = (height as u32, width as u32);
                let input = PlanInput { height: h, width: w, base, partner, next: &next, fields: &bank };
                let mix =
                    policy.draw(&input, &args, &Draws::new(&stream, 3, u64::from(base), u64::from(base)));
                row(base, partner, mix.ops)
            };
            let rows: Vec<Row> = (0..count).map(mixed).collect();
            everywhere(policy.name(), &rows, &clean, (height, width), true);
        }
    }
}

#[test]
fn chunks_of_rows_make_one_block() {
    let (height, width) = (19, 23);
    let clean = pixels(4 * 3 * height * width);
    let blend = |src| vec![Op::Blend { src, lambda: 0.3, rest: 0.7 }];
    let rows: Vec<Row> = (0..4).map(|i| row(i, 3 - i, blend(3 - i))).collect();
    let format = format(height, width, Layout::Nchw, Dtype::F16);
    let at_once = torch(&rows, &clean, &format).expect("libtorch answers");
    let mut out = vec![0; at_once.len()];
    let mut small = Torch::new(device(), 0).expect("the device is there");
    small.chunk = 3 * 4 * format.raster.len();
    if let Some(here) = &mut small.here {
        here.chunk = small.chunk;
    }
    whole(&mut small, &rows, &Input::Clean(&clean), &format, &mut out).expect("libtorch answers");
    assert!(out == at_once);
}

#[test]
fn a_plan_beyond_its_block_or_raster_is_refused_before_the_device_sees_it() {
    let format = format(2, 3, Layout::Nchw, Dtype::U8);
    let clean = pixels(2 * format.raster.len());
    let out = Rect { y0: 0, y1: 3, x0: 0, x1: 1 };
    let paste = Op::Paste { src: 0, src_rect: out, dst_rect: out, filter: Filter::Nearest };
    for bad in [row(2, 0, vec![]), row(0, 1, vec![paste])] {
        let rows = [row(0, 0, vec![]), bad];
        assert!(matches!(torch(&rows, &clean, &format), Err(DeviceError::Misfit { row: 1 })));
    }
    let absent = start::<Vec<u8>>(Device::Cuda(4096), 0).expect_err("no machine has as many");
    assert!(matches!(absent, DeviceError::Absent { index: 4096, .. }), "{absent}");
}
