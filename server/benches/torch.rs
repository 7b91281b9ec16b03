//! The libtorch executor op by op: `cargo bench --features libtorch --bench torch -- DEVICE [BATCH [RUNS [SIDE,...]]]`.
//! One JSON line an op and size, all times in milliseconds for the whole batch, of the fastest run, since other work on
//! the machine only adds: `ms` through the device's worker, one block after the other; `up_ms`, `finish_ms`, `mix_ms`,
//! `down_ms` its parts, each waited for; beside them what plain copies of the same bytes take. `flow_ms`, a
//! mean, is a block's share of the time as a server has it: there is always another block to stage while the device works.
//! `moved` counts the bytes that mixing must read and write on the device. Peers run the same jobs in
//! `peers/device_ops.py`.

use mixfeed_server::assemble::{Slab, Slabs};
use mixfeed_server::batch::{CHANNELS, Crop, Dtype, Layout, Raster, Turn};
use mixfeed_server::exec::Format;
use mixfeed_server::exec::device::{Device, Input, Picture, Task, Worker, start};
use mixfeed_server::exec::torch::timing::{block, copies};
use mixfeed_server::plan::view::{Colour, View};
use mixfeed_server::plan::{Filter, Op, Plan, Rect, Row};
use std::time::Instant;

const NORMAL: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Blocks that each of the threads behind `flow_ms` runs, at most.
const FLOW: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let device: Device = arguments.next().unwrap_or_else(|| "torch".into()).parse().expect("torch or cuda:N");
    let mut number =
        |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (batch, runs) = (number(256), number(11));
    let sides = arguments.next().unwrap_or_else(|| "224,512".into());
    let worker = start::<Slab>(device, 0).expect("the device is there").expect("a device, not `cpu`");
    for side in sides.split(',').map(|side| side.parse().expect("a side")) {
        for job in jobs(batch, side) {
            job.time(device, &worker, runs);
        }
    }
}

/// A block of one kind.
struct Job {
    name: &'static str,
    side: usize,
    rows: Vec<Row>,
    format: Format,
    /// Made anew for each run: the worker takes it.
    input: fn(usize, usize) -> Input<Slab>,
    /// Bytes read and written by mixing, for each byte of a clean row.
    moved: usize,
}

impl Job {
    fn time(&self, device: Device, worker: &Worker<Slab>, runs: usize) {
        let Job { name, side, rows, format, .. } = self;
        let batch = rows.len();
        let mut input = (self.input)(batch, *side);
        let up = bytes(&input);
        let len = batch * format.raster.len() * format.dtype.size();
        let slabs = Slabs::new(3 * len);
        let parts = block(device, rows, &input, format, runs).expect("the device makes it");
        let inside = batch * format.raster.len() * self.moved / 2;
        let plain = copies(device, (up, inside, len), runs).expect("the device copies");
        let run = |input| {
            let (plan, format, out) = (Plan { rows: rows.clone() }, format.clone(), slabs.take(len));
            let begin = Instant::now();
            let done = worker.run(Task { plan, format, input, out }).expect("the device makes it");
            (begin.elapsed().as_secs_f64(), done.input)
        };
        let mut best = f64::INFINITY;
        for _ in 0..runs {
            let (time, back) = run(input);
            (best, input) = (best.min(time), back);
        }
        let flow = self.flow(batch, runs.min(FLOW), &run);
        let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
        println!(
            "{{\"op\":\"{name}\",\"side\":{side},\"batch\":{batch},\"device\":\"{device}\",\"ms\":{},\"flow_ms\":{},\"up_ms\":{},\
             \"finish_ms\":{},\"mix_ms\":{},\"down_ms\":{},\"copy_up_ms\":{},\"copy_inside_ms\":{},\"copy_down_ms\":{},\
             \"up_bytes\":{up},\"moved\":{},\"down_bytes\":{}}}",
            ms(best),
            ms(flow),
            ms(parts.up),
            ms(parts.finish),
            ms(parts.mix),
            ms(parts.down),
            ms(plain.up),
            ms(plain.inside),
            ms(plain.down),
            2 * inside,
            len,
        );
    }

    /// Seconds a block when three threads want the worker at once.
    fn flow(
        &self,
        batch: usize,
        runs: usize,
        run: &(impl Fn(Input<Slab>) -> (f64, Input<Slab>) + Sync),
    ) -> f64 {
        let all = |inputs: [Input<Slab>; 3], runs: usize| {
            std::thread::scope(|scope| {
                let each = |input| scope.spawn(move || (0..runs).fold(input, |input, _| run(input).1));
                inputs.map(each).map(|thread| thread.join().expect("the device makes it"))
            })
        };
        // Once for memory that is new.
        let inputs = all([(); 3].map(|()| (self.input)(batch, self.side)), 1);
        let begin = Instant::now();
        let blocks = all(inputs, runs).len() * runs;
        begin.elapsed().as_secs_f64() / blocks as f64
    }
}

fn bytes(input: &Input<Slab>) -> usize {
    match input {
        Input::Clean(clean) => clean.len(),
        Input::Decoded(pictures) => pictures.iter().map(Picture::bytes).sum(),
    }
}

fn jobs(batch: usize, side: usize) -> Vec<Job> {
    let format = |dtype: Dtype, normal: bool| Format {
        raster: Raster::new(side, side, Layout::Nchw),
        dtype,
        normalize: normal.then_some(NORMAL),
    };
    let rows = |ops: &dyn Fn(usize) -> Vec<Op>| (0..batch).map(|i| row(i, batch, ops(i))).collect();
    let plain = || rows(&|_| Vec::new());
    let job = |name, rows, format, input: fn(usize, usize) -> Input<Slab>, moved| Job {
        name,
        side,
        rows,
        format,
        input,
        moved,
    };
    let blend = |i: usize| {
        let lambda = (i as f32 + 0.5) / batch as f32;
        vec![Op::Blend { src: partner(i, batch), lambda, rest: 1.0 - lambda }]
    };
    let paste = |i: usize| {
        let (src_rect, src) = (rect(i, side), partner(i, batch));
        vec![Op::Paste { src, src_rect, dst_rect: src_rect, filter: Filter::Nearest }]
    };
    let bytes = format(Dtype::U8, false);
    vec![
        job("mixup_u8", rows(&blend), bytes.clone(), clean, 3),
        job("mixup_f32", rows(&blend), format(Dtype::F32, false), clean, 6),
        job("cutmix_u8", rows(&paste), bytes.clone(), clean, 2),
        job("normalize_f32", plain(), format(Dtype::F32, true), clean, 5),
        job("crop_resize_flip", plain(), bytes.clone(), |n, side| decoded(n, side, true, |_| vec![]), 2),
        job("brightness", plain(), bytes.clone(), |n, side| tinted(n, side, Colour::Brightness), 2),
        job("contrast", plain(), bytes.clone(), |n, side| tinted(n, side, Colour::Contrast), 2),
        job("saturation", plain(), bytes.clone(), |n, side| tinted(n, side, Colour::Saturation), 2),
        job("hue", plain(), bytes.clone(), |n, side| tinted(n, side, |factor| Colour::Hue(factor - 1.0)), 2),
        job("erase", plain(), bytes.clone(), erased, 2),
        job("plan_u8", rows(&blend), bytes, |n, side| decoded(n, side, true, |_| vec![]), 3),
        job(
            "plan_jitter_f32",
            rows(&blend),
            format(Dtype::F32, true),
            |n, side| decoded(n, side, true, jitter),
            6,
        ),
    ]
}

fn partner(i: usize, batch: usize) -> u32 {
    (batch - 1 - i) as u32
}

fn row(i: usize, batch: usize, ops: Vec<Op>) -> Row {
    let partner = partner(i, batch);
    Row { base: i as u32, partner, ops, policy: Some(0), sampled: 0.5, own: 0.5, flags: 0 }
}

/// Boxes of all sizes and places.
fn rect(i: usize, side: usize) -> Rect {
    let at = |k: usize| (k * 37 % side) as u32;
    let (a, b, c, d) = (at(i), at(i + 5), at(3 * i + 1), at(5 * i + 2));
    Rect { y0: a.min(b), y1: a.max(b) + 1, x0: c.min(d), x1: c.max(d) + 1 }
}

fn noise(len: usize) -> Slab {
    let mut slab = Slabs::new(0).take(len);
    slab.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 7 + (i >> 9)) as u8);
    slab
}

fn clean(batch: usize, side: usize) -> Input<Slab> {
    Input::Clean(noise(batch * side * side * CHANNELS))
}

/// Pictures as the decoder leaves them: 1 to 2 times the output on each side, or, when not `large`, of its size.
fn decoded(batch: usize, side: usize, large: bool, colour: fn(usize) -> Vec<Colour>) -> Input<Slab> {
    let size = |k: usize| if large { side + k * 53 % side } else { side };
    let picture = |i: usize| {
        let (height, width) = (size(i), size(3 * i + 1));
        let crop = Crop { y: 0.0, x: 0.0, height: height as f64, width: width as f64 };
        let turn = Turn { transpose: false, mirror_x: i % 2 == 1, mirror_y: false };
        let view = View { crop, size: (side as u32, side as u32), turn, colour: colour(i), erase: None };
        let pixels = noise(height * width * CHANNELS);
        Picture { pixels, height: height as u32, width: width as u32, crop, view }
    };
    Input::Decoded((0..batch).map(picture).collect())
}

/// A factor of 0.6 to 1.4.
fn factor(i: usize) -> f32 {
    0.6 + (i % 17) as f32 * 0.05
}

fn jitter(i: usize) -> Vec<Colour> {
    let hue = Colour::Hue(0.2 * (factor(i) - 1.0));
    vec![
        Colour::Brightness(factor(i)),
        Colour::Contrast(factor(i + 5)),
        Colour::Saturation(factor(i + 11)),
        hue,
    ]
}

fn changed(batch: usize, side: usize, change: impl Fn(usize, &mut View)) -> Input<Slab> {
    let Input::Decoded(mut pictures) = decoded(batch, side, false, |_| vec![]) else {
        unreachable!("decoded")
    };
    for (i, picture) in pictures.iter_mut().enumerate() {
        picture.view.turn = Turn::default();
        change(i, &mut picture.view);
    }
    Input::Decoded(pictures)
}

fn tinted(batch: usize, side: usize, colour: fn(f32) -> Colour) -> Input<Slab> {
    changed(batch, side, |i, view| view.colour = vec![colour(factor(i))])
}

fn erased(batch: usize, side: usize) -> Input<Slab> {
    changed(batch, side, |i, view| view.erase = Some((rect(i, side), [1, 2, 3])))
}
