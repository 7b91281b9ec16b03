//! Replays what timm, torchvision and PyTorch did (`fixtures/make_parity.py`) through plans and the executor: their
//! lambdas, boxes and partners are put into plan rows, so no generator has to match.

#![allow(clippy::unwrap_used)] // fixtures are ours

use mixfeed_server::batch::{CHANNELS, Crop, Dtype, Layout, Raster, Turn};
use mixfeed_server::exec::{Format, Scratch, finish, labels, run};
use mixfeed_server::plan::view::{Colour, View};
use mixfeed_server::plan::{Filter, Op, Rect, Row};
use serde_json::Value;

struct Fixture {
    height: usize,
    width: usize,
    classes: usize,
    labels: Vec<i32>,
    /// Six planar pictures.
    pool: Vec<u8>,
    cases: Vec<Value>,
}

impl Fixture {
    fn load(text: &str) -> Fixture {
        let all: Value = serde_json::from_str(text).unwrap();
        let number = |name: &str| all[name].as_u64().unwrap() as usize;
        Fixture {
            height: number("height"),
            width: number("width"),
            classes: number("classes"),
            labels: all["labels"].as_array().unwrap().iter().map(|l| l.as_i64().unwrap() as i32).collect(),
            pool: hex(&all["pool"]),
            cases: all["cases"].as_array().unwrap().clone(),
        }
    }

    fn format(&self, case: &Value) -> Format {
        let triple = |v: &Value| [0, 1, 2].map(|i| v[i].as_f64().unwrap() as f32);
        let dtype = match case["dtype"].as_str().unwrap() {
            "u8" => Dtype::U8,
            "f16" => Dtype::F16,
            "bf16" => Dtype::Bf16,
            other => {
                assert_eq!(other, "f32");
                Dtype::F32
            }
        };
        let normal = case.get("normalize").map(|n| (triple(&n[0]), triple(&n[1])));
        Format { raster: Raster::new(self.height, self.width, Layout::Nchw), dtype, normalize: normal }
    }

    fn image(&self, i: usize) -> &[u8] {
        let len = CHANNELS * self.height * self.width;
        &self.pool[i * len..][..len]
    }
}

fn hex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn rect(v: &Value) -> Rect {
    let [y0, y1, x0, x1] = [0, 1, 2, 3].map(|i| v[i].as_u64().unwrap() as u32);
    Rect { y0, y1, x0, x1 }
}

fn row(v: &Value) -> Row {
    let index = |name: &str| v[name].as_u64().unwrap() as u32;
    let (base, src, own) = (index("base"), index("partner"), v["own"].as_f64().unwrap());
    let op = if let Some(weights) = v.get("blend") {
        let weight = |i: usize| weights[i].as_f64().unwrap() as f32;
        Some(Op::Blend { src, lambda: weight(0), rest: weight(1) })
    } else {
        v.get("box").map(rect).map(|r| Op::Paste { src, src_rect: r, dst_rect: r, filter: Filter::Nearest })
    };
    Row { base, partner: src, ops: op.into_iter().collect(), policy: Some(0), sampled: own, own, flags: 0 }
}

fn made(row: &Row, clean: &[u8], format: &Format) -> Vec<u8> {
    let mut out = vec![0; format.raster.len() * format.dtype.size()];
    run(row, clean, format, &mut Scratch::default(), &mut out);
    out
}

/// Pixels bit for bit, targets within 1e-7.
fn replay_batches(text: &str, wanted: usize) {
    let fixture = Fixture::load(text);
    assert_eq!(fixture.cases.len(), wanted);
    for case in &fixture.cases {
        let (name, n) = (case["name"].as_str().unwrap(), case["n"].as_u64().unwrap() as usize);
        let format = fixture.format(case);
        let rows: Vec<Row> = case["rows"].as_array().unwrap().iter().map(row).collect();
        let clean = &fixture.pool[..n * format.raster.len()];
        let pixels: Vec<u8> = rows.iter().flat_map(|row| made(row, clean, &format)).collect();
        assert!(pixels == hex(&case["pixels"]), "{name}: pixels");
        let mut target = Vec::new();
        let smoothing = case["smoothing"].as_f64().unwrap();
        labels::dense(&rows, &fixture.labels[..n], smoothing, fixture.classes, &mut target).unwrap();
        let (got, want) = (floats(&target), floats(&hex(&case["target"])));
        assert_eq!(got.len(), want.len(), "{name}: targets");
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-7, "{name}: target {got} is not {want}");
        }
    }
}

#[test]
fn timm_mixup_and_fast_collate() {
    replay_batches(include_str!("fixtures/parity/timm.json"), 38);
}

#[test]
fn torchvision_mixup_and_cutmix() {
    replay_batches(include_str!("fixtures/parity/torchvision.json"), 11);
}

/// Bytes within one level (PyTorch resamples bytes in fixed point), fractions within 1e-6, nearest exactly.
#[test]
fn interpolated_pastes() {
    let fixture = Fixture::load(include_str!("fixtures/parity/resample.json"));
    assert_eq!(fixture.cases.len(), 36);
    for case in &fixture.cases {
        let (filter, exact) = match case["filter"].as_str().unwrap() {
            "nearest" => (Filter::Nearest, true),
            "bilinear" => (Filter::Bilinear, false),
            other => {
                assert_eq!(other, "area");
                (Filter::Area, false)
            }
        };
        let op = Op::Paste { src: 1, src_rect: rect(&case["src"]), dst_rect: rect(&case["dst"]), filter };
        let row =
            Row { base: 0, partner: 1, ops: vec![op], policy: Some(0), sampled: 1.0, own: 1.0, flags: 0 };
        let format = fixture.format(case);
        let (got, want) = (made(&row, &fixture.pool, &format), hex(&case["pixels"]));
        let name = format!("{filter:?} {} to {} {:?}", case["src"], case["dst"], format.dtype);
        assert_eq!(got.len(), want.len(), "{name}");
        if exact {
            assert!(got == want, "{name}");
        } else if format.dtype == Dtype::U8 {
            assert!(got.iter().zip(&want).all(|(a, b)| a.abs_diff(*b) <= 1), "{name}");
        } else {
            let pairs = floats(&got).into_iter().zip(floats(&want));
            pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-6, "{name}: {a} is not {b}"));
        }
    }
}

/// Turns and erasing exactly, colour within one level, in both layouts.
#[test]
fn torchvision_colour_flips_and_erasing() {
    let fixture = Fixture::load(include_str!("fixtures/parity/view.json"));
    assert_eq!(fixture.cases.len(), 27);
    for case in &fixture.cases {
        let flag = |i: usize| case.get("turn").is_some_and(|t| t[i].as_bool().unwrap());
        let turn = Turn { transpose: flag(0), mirror_x: flag(1), mirror_y: flag(2) };
        let colour: Vec<Colour> =
            case.get("colour").map_or(Vec::new(), |c| c.as_array().unwrap().iter().map(change).collect());
        let (pixels, tolerance) =
            if colour.is_empty() { (fixture.image(3), 0) } else { (fixture.image(1), 1) };
        let count = fixture.height * fixture.width;
        let decoded: Vec<u8> =
            (0..pixels.len()).map(|i| pixels[i % CHANNELS * count + i / CHANNELS]).collect();
        let erase = case.get("erase").map(|e| (rect(e), [4, 5, 6].map(|i| e[i].as_u64().unwrap() as u8)));
        let size = (fixture.height as u32, fixture.width as u32);
        let crop = Crop { y: 0.0, x: 0.0, height: f64::from(size.0), width: f64::from(size.1) };
        let view = View { crop, size, turn, colour, erase };
        let (high, wide) = if turn.transpose { (size.1, size.0) } else { size };
        let want = hex(&case["pixels"]);
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let raster = Raster::new(high as usize, wide as usize, layout);
            let mut out = vec![0; raster.len()];
            finish(&view, &decoded, &raster, &mut Vec::new(), &mut out);
            for (i, want) in want.iter().enumerate() {
                let at = if layout == Layout::Nchw { i } else { i % count * CHANNELS + i / count };
                let got = out[at];
                assert!(got.abs_diff(*want) <= tolerance, "{view:?} {layout:?} {i}: {got} is not {want}");
            }
        }
    }
}

fn change(v: &Value) -> Colour {
    let factor = v[1].as_f64().unwrap() as f32;
    match v[0].as_str().unwrap() {
        "brightness" => Colour::Brightness(factor),
        "contrast" => Colour::Contrast(factor),
        "saturation" => Colour::Saturation(factor),
        other => {
            assert_eq!(other, "hue");
            Colour::Hue(factor)
        }
    }
}
