//! Mixing against memcpy: `cargo bench --bench exec`. One JSON line each; ratios above 1 are faster than memcpy.
//!
//! The batch is 256 x 3 x 224 x 224 u8 (38.5 MB), rows paired `flip`, on one thread. Accounting, per output byte:
//! Mixup reads 2 and writes 1, so its peer copies one and a half batches (1 read and 1 write per byte copied) between
//! the same two buffers; CutMix reads 1 and writes 1, so its peer copies one batch. Both peers copy row by row.
//! Bench and peer take turns of 16 rows, half a batch apart so that neither finds the other's rows in cache; a figure is
//! the sum over the batch of each turn's median.

use mixfeed_server::batch::{Crop, Dtype, Layout, Raster, Turn};
use mixfeed_server::exec::{Format, Scratch, finish, run};
use mixfeed_server::plan::view::{Colour, View};
use mixfeed_server::plan::{Filter, Op, Rect, Row};
use std::hint::black_box;
use std::time::Instant;

const ROWS: usize = 256;
const SIDE: usize = 224;
const RUNS: usize = 31;
/// Rows of one turn of a bench or its peer: a millisecond, so that a time slice lost to other work spoils few turns.
const TURN: usize = 16;

fn main() {
    let raster = Raster::new(SIDE, SIDE, Layout::Nchw);
    let clean: Vec<u8> = (0..ROWS * raster.len()).map(|i| (i * 7 + (i >> 9)) as u8).collect();
    against_memcpy("mixup", &raster, &clean, 3, |i| {
        let lambda = (i as f32 + 0.5) / ROWS as f32;
        vec![Op::Blend { src: (ROWS - 1 - i) as u32, lambda, rest: 1.0 - lambda }]
    });
    against_memcpy("cutmix", &raster, &clean, 2, |i| {
        let rect = rect(i);
        vec![Op::Paste {
            src: (ROWS - 1 - i) as u32,
            src_rect: rect,
            dst_rect: rect,
            filter: Filter::Nearest,
        }]
    });
    for (name, layout, dtype) in [
        ("f32_nchw", Layout::Nchw, Dtype::F32),
        ("f16_nchw", Layout::Nchw, Dtype::F16),
        ("bf16_nhwc", Layout::Nhwc, Dtype::Bf16),
    ] {
        float_mixup(name, layout, dtype, &clean);
    }
    for (name, layout, mirror_x, transpose, colour) in [
        ("nchw", Layout::Nchw, false, false, false),
        ("nchw_mirrored", Layout::Nchw, true, false, false),
        ("nchw_transposed", Layout::Nchw, false, true, false),
        ("nhwc_mirrored", Layout::Nhwc, true, false, false),
        ("nchw_jitter", Layout::Nchw, true, false, true),
    ] {
        finishing(name, layout, mirror_x, transpose, colour, &clean);
    }
}

/// Boxes of all sizes and places.
fn rect(i: usize) -> Rect {
    let side = |k: usize| (k * 37 % SIDE) as u32;
    let (a, b, c, d) = (side(i), side(i + 5), side(3 * i + 1), side(5 * i + 2));
    Rect { y0: a.min(b), y1: a.max(b) + 1, x0: c.min(d), x1: c.max(d) + 1 }
}

fn row(base: usize, ops: Vec<Op>) -> Row {
    let base = base as u32;
    Row { base, partner: ROWS as u32 - 1 - base, ops, policy: Some(0), sampled: 0.5, own: 0.5, flags: 0 }
}

/// `moved`: bytes read and written per output byte.
fn against_memcpy(name: &str, raster: &Raster, clean: &[u8], moved: usize, ops: impl Fn(usize) -> Vec<Op>) {
    let format = Format { raster: *raster, dtype: Dtype::U8, normalize: None };
    let rows: Vec<Row> = (0..ROWS).map(|i| row(i, ops(i))).collect();
    let (mut scratch, mut out) = (Scratch::default(), vec![1u8; clean.len()]);
    let mut times = vec![(Vec::new(), Vec::new()); ROWS / TURN];
    for turn in (0..RUNS).flat_map(|_| 0..ROWS / TURN) {
        times[turn].0.push(seconds(|| {
            let own = turn * TURN..(turn + 1) * TURN;
            let outs = out[own.start * raster.len()..own.end * raster.len()].chunks_exact_mut(raster.len());
            for (row, out) in rows[own].iter().zip(outs) {
                run(row, black_box(clean), &format, &mut scratch, out);
            }
        }));
        black_box(&mut out);
        times[turn].1.push(seconds(|| {
            for i in 0..TURN * moved / 2 {
                let at = (turn * TURN + ROWS / 2 + i) % ROWS;
                let of = |at: usize| at * raster.len()..(at + 1) * raster.len();
                out[of(at)].copy_from_slice(&black_box(clean)[of(ROWS - 1 - at)]);
            }
        }));
        black_box(&mut out);
    }
    let (own, peer) =
        times.into_iter().fold((0.0, 0.0), |(own, peer), (a, b)| (own + median(a), peer + median(b)));
    let gigabytes = (clean.len() * moved) as f64 / own / 1e9;
    println!(
        "{{\"bench\":\"{name}_vs_memcpy\",\"ratio\":{:.3},\"peer\":\"memcpy\",\"ms\":{:.2},\"peer_ms\":{:.2},\
         \"gb_per_s\":{gigabytes:.1},\"threads\":1}}",
        peer / own,
        own * 1e3,
        peer * 1e3
    );
}

fn float_mixup(name: &str, layout: Layout, dtype: Dtype, clean: &[u8]) {
    let raster = Raster::new(SIDE, SIDE, layout);
    let normalize = Some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    let format = Format { raster, dtype, normalize };
    let row = row(0, vec![Op::Blend { src: 1, lambda: 0.3, rest: 0.7 }]);
    let (mut scratch, mut out) = (Scratch::default(), vec![1u8; raster.len() * dtype.size()]);
    per_image(&format!("mixup_{name}"), || {
        run(&row, black_box(clean), &format, &mut scratch, black_box(&mut out));
    });
}

fn finishing(name: &str, layout: Layout, mirror_x: bool, transpose: bool, colour: bool, clean: &[u8]) {
    let raster = Raster::new(SIDE, SIDE, layout);
    let jitter = [Colour::Brightness(1.2), Colour::Contrast(0.9), Colour::Saturation(1.1), Colour::Hue(0.05)];
    let view = View {
        crop: Crop { y: 0.0, x: 0.0, height: SIDE as f64, width: SIDE as f64 },
        size: (SIDE as u32, SIDE as u32),
        turn: Turn { transpose, mirror_x, mirror_y: false },
        colour: if colour { jitter.to_vec() } else { Vec::new() },
        erase: None,
    };
    let (mut scratch, mut out) = (Vec::new(), vec![1u8; raster.len()]);
    let decoded = &clean[..raster.len()];
    per_image(&format!("finish_{name}"), || {
        finish(&view, black_box(decoded), &raster, &mut scratch, black_box(&mut out));
    });
}

fn per_image(name: &str, mut work: impl FnMut()) {
    const IMAGES: usize = 32;
    let time = (0..RUNS).map(|_| seconds(|| (0..IMAGES).for_each(|_| work()))).collect();
    println!("{{\"bench\":\"{name}\",\"us_per_image\":{:.1}}}", median(time) / IMAGES as f64 * 1e6);
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
