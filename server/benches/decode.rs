//! Decoding speed of one thread: `cargo bench --bench decode [-- DIRECTORY...]`, default the demo photos.
//!
//! Prints, per directory of JPEG files: samples/s for the whole picture to 224 x 224 and for random resized crops
//! (area 8 % to 100 %, ratio 3/4 to 4/3) to 224 x 224, and what the resampling of such crops alone costs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use mixfeed_server::batch::{Crop, Peek};
use mixfeed_server::decode::{Decoder, Limits, peek};

const SIDE: u32 = 224;
const LIMITS: Limits = Limits { max_pixels: 1 << 28, max_bytes: 1 << 28 };
const LEAST: Duration = Duration::from_secs(4);
/// Long against the tick at which the system updates the time of a thread.
const PASS: Duration = Duration::from_millis(300);

fn main() {
    let mut directories: Vec<PathBuf> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    if directories.is_empty() {
        directories.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos"));
    }
    for directory in directories {
        let mut files = Vec::new();
        collect(&directory, &mut files);
        assert!(!files.is_empty(), "`{}` holds no .jpg file", directory.display());
        let peeks: Vec<Peek> = files.iter().map(|f| peek(f, LIMITS).expect("a sound picture")).collect();
        let bytes: usize = files.iter().map(Vec::len).sum();
        println!("{}: {} files, mean {} bytes", directory.display(), files.len(), bytes / files.len());
        let whole =
            |p: &Peek, _: &mut Lcg| Crop { y: 0.0, x: 0.0, height: p.height.into(), width: p.width.into() };
        let peeking = rate(files.len(), |i| drop(std::hint::black_box(peek(&files[i], LIMITS))));
        println!("  peek           {peeking:8.0} /s");
        println!("  whole picture  {:8.0} /s", decoding(&files, &peeks, whole));
        let crops = decoding(&files, &peeks, random_crop);
        let resize = resampling(&peeks);
        let (all, part) = (1e6 / crops, 1e6 / resize);
        println!(
            "  random crops   {crops:8.0} /s   {all:.0} us = {:.0} decode + {part:.0} resample",
            all - part
        );
    }
}

fn collect(directory: &Path, files: &mut Vec<Vec<u8>>) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "jpg") {
            files.push(std::fs::read(&path).expect("a readable file"));
        }
    }
}

/// Calls `one` on 0..count in turn for a while; calls per second of the best pass, as others use this machine.
fn rate(count: usize, mut one: impl FnMut(usize)) -> f64 {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < LEAST {
        let (begin, pass) = (Instant::now(), busy_seconds(start));
        let mut calls = 0;
        while begin.elapsed() < PASS {
            (0..count).for_each(&mut one);
            calls += count;
        }
        best = best.min((busy_seconds(start) - pass) / calls as f64);
    }
    1.0 / best
}

/// Seconds that this thread has run, where the system tells (Linux); wall time since `start` elsewhere.
fn busy_seconds(start: Instant) -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse::<f64>().ok());
    nanoseconds.map_or_else(|| start.elapsed().as_secs_f64(), |n| n / 1e9)
}

fn decoding(files: &[Vec<u8>], peeks: &[Peek], crop: impl Fn(&Peek, &mut Lcg) -> Crop) -> f64 {
    let (mut decoder, mut random) = (Decoder::new(), Lcg(1));
    let mut out = vec![0; (SIDE * SIDE * 3) as usize];
    // The same crops in each pass; 8 of each picture.
    let crops: Vec<Crop> = (0..files.len() * 8).map(|i| crop(&peeks[i % files.len()], &mut random)).collect();
    rate(crops.len(), |i| {
        let k = i % files.len();
        decoder.decode(&files[k], &peeks[k], &crops[i], (SIDE, SIDE), &mut out).expect("a sound picture");
    })
}

/// Resampling alone, at the scale that the decoder chooses here: 1/1.
fn resampling(peeks: &[Peek]) -> f64 {
    let (mut resizer, mut random) = (Resizer::new(), Lcg(1));
    let crops: Vec<Crop> =
        (0..peeks.len() * 8).map(|i| random_crop(&peeks[i % peeks.len()], &mut random)).collect();
    let mut to = Image::new(SIDE, SIDE, PixelType::U8x3);
    let pictures: Vec<Image> = peeks.iter().map(|p| Image::new(p.width, p.height, PixelType::U8x3)).collect();
    rate(crops.len(), |i| {
        let Crop { y, x, height, width } = crops[i];
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let picture = &pictures[i % pictures.len()];
        resizer.resize(picture, &mut to, &options.crop(x, y, width, height)).expect("crop inside");
    })
}

fn random_crop(peek: &Peek, random: &mut Lcg) -> Crop {
    let (h, w) = (f64::from(peek.height), f64::from(peek.width));
    let area = h * w * (0.08 + 0.92 * random.next());
    let ratio = (0.75_f64.ln() + (16.0_f64 / 9.0).ln() * random.next()).exp();
    let (height, width) = ((area / ratio).sqrt().round().min(h), (area * ratio).sqrt().round().min(w));
    let y = ((h - height) * random.next()).floor();
    Crop { y, x: ((w - width) * random.next()).floor(), height, width }
}

/// Numbers in [0, 1) for the choice of crops.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}
