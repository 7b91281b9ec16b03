//! Random fields of a job, as rank maps: one stored field serves every lambda.
//!
//! FMix (<https://arxiv.org/abs/2002.12047>) thresholds low-frequency noise. Only the order of a field's values
//! matters, hence a field is stored as the rank of every pixel, and a mask is one comparison per pixel. A job has
//! [`Bank::ids`] fields, as many as fit in [`BANK_BYTES`] (at most [`MAX_IDS`]); together with a cyclic shift they give
//! `ids * height * width` masks. Field `id` is a function of (seed, height, width, spectrum, id), made on first use.
//!
//! A half spectrum `Z[u, v]` has `height` rows and `width / 2 + 1` columns; frequencies are in cycles per pixel; the
//! field is its inverse real transform, unnormalised.

use super::dft::{Complex, Dft};
use crate::rng::{Draw, Rng, Stream};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of all fields of one spectrum; decides [`Bank::ids`] and with it the plans: part of the numerics.
pub const BANK_BYTES: u64 = 64 << 20;
/// Most fields of a bank; part of the numerics.
pub const MAX_IDS: u64 = 4096;
/// Pixels above which a field is made on a coarser raster and its cells are enlarged: its visible structure is far
/// below that resolution, and the transform of 8192 x 8192 would take gigabytes. Part of the numerics.
const MAX_TRANSFORM: u64 = 1 << 20;

/// Rank of every pixel of a field, 0 = largest value, row-major.
#[derive(Debug, PartialEq)]
pub struct RankMap {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Position in the job's bank, for receipts.
    pub id: u32,
    /// A permutation of `0..height * width`; ties broken by position.
    pub ranks: Vec<u32>,
}

impl RankMap {
    /// Line `y` of the field shifted cyclically: pixel (y, x) shows the field at ((y + shift.0) mod height,
    /// (x + shift.1) mod width).
    pub fn line(&self, y: u32, shift: (u32, u32)) -> impl Iterator<Item = u32> + '_ {
        let (height, width) = (u64::from(self.height), self.width as usize);
        let row = ((u64::from(y) + u64::from(shift.0)) % height) as usize;
        let (left, right) = self.ranks[row * width..][..width].split_at(shift.1 as usize % width);
        right.iter().chain(left).copied()
    }

    /// The base's weight at `rank`: 1 below `keep - soft`, 0 from `keep + soft`, between them `2 * soft` equal steps that
    /// include both ends, so that the sum of all weights stays `keep`. `soft` is at least 1, and may be above `keep`.
    pub fn weight(rank: u32, keep: u32, soft: u32) -> f32 {
        let last = 2 * u64::from(soft) - 1;
        let above = (u64::from(rank) + u64::from(soft)).saturating_sub(u64::from(keep)).min(last);
        1.0 - above as f32 / last as f32
    }
}

/// How the amplitude falls with the frequency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spectrum {
    /// The paper's: `(n1 + i n2) max(f, 1 / max(height, width))^-decay` at every bin.
    Paper {
        /// Exponent, >= 0.
        decay: f64,
    },
    /// What the published code evaluates: an axis mix-up leaves only horizontal bins 0 and 1.
    Compat {
        /// Exponent, >= 0.
        decay: f64,
    },
}

impl Spectrum {
    fn key(self, id: u32) -> (bool, u64, u32) {
        match self {
            Spectrum::Paper { decay } => (false, decay.to_bits(), id),
            Spectrum::Compat { decay } => (true, decay.to_bits(), id),
        }
    }

    /// Draws the half spectrum of a `height` x `width` field.
    fn draw(self, height: usize, width: usize, rng: &mut Rng) -> Vec<Complex> {
        match self {
            Spectrum::Paper { decay } => {
                let scale = decays(height, width, decay);
                scale.into_iter().map(|s| Complex { re: s * rng.normal(), im: s * rng.normal() }).collect()
            }
            Spectrum::Compat { decay } => {
                let normals: Vec<f64> = (0..4 * compat_bins(width)).map(|_| rng.normal()).collect();
                compat(height, width, decay, &normals)
            }
        }
    }
}

/// `max(f, 1 / max(height, width))^-decay` of every bin of the half spectrum, row-major.
fn decays(height: usize, width: usize, decay: f64) -> Vec<f64> {
    let columns = width / 2 + 1;
    let mut out = vec![0.0; height * columns];
    for u in 0..=height / 2 {
        for v in 0..columns {
            out[u * columns + v] = decay_at(u, v, height, width, decay);
        }
    }
    // Negative vertical frequencies mirror the positive ones.
    for u in height / 2 + 1..height {
        out.copy_within((height - u) * columns..(height - u + 1) * columns, u * columns);
    }
    out
}

fn decay_at(u: usize, v: usize, height: usize, width: usize, decay: f64) -> f64 {
    let cycles = |k: usize, n: usize| k.min(n - k) as f64 / n as f64;
    let (y, x) = (cycles(u, height), cycles(v, width));
    let f = libm::sqrt(y * y + x * x).max(1.0 / height.max(width) as f64);
    libm::pow(f, -decay)
}

/// Horizontal bins that the published code lists: one more than needed for odd widths.
fn compat_bins(width: usize) -> usize {
    (width / 2 + 1 + width % 2).min(width)
}

/// The published code's half spectrum from `normals` of shape (2, bins, 2): its first two rows of (bins, re/im) draws,
/// the re/im axis taken for the horizontal one and rows for the two parts of the complex number.
fn compat(height: usize, width: usize, decay: f64, normals: &[f64]) -> Vec<Complex> {
    let (bins, columns) = (compat_bins(width), width / 2 + 1);
    let mut half = vec![Complex::default(); height * columns];
    for r in 0..bins.min(height) {
        // A single-row picture has no vertical bin 1; bin 0 takes its place.
        let (s0, s1) =
            (decay_at(0, r, height, width, decay), decay_at(1.min(height - 1), r, height, width, decay));
        for j in 0..columns.min(2) {
            let (n1, n2) = (normals[2 * r + j], normals[2 * (bins + r) + j]);
            half[r * columns + j] = Complex { re: s0 * n1, im: s1 * n2 };
        }
    }
    half
}

/// Transforms of one raster.
#[derive(Debug)]
struct Transform {
    height: usize,
    width: usize,
    vertical: Dft,
    horizontal: Dft,
}

impl Transform {
    fn new(height: usize, width: usize) -> Transform {
        Transform { height, width, vertical: Dft::new(height), horizontal: Dft::new(width) }
    }

    /// Unnormalised inverse real transform of a half spectrum: `height * width` times NumPy's `irfftn`.
    fn inverse(&self, mut half: Vec<Complex>) -> Vec<f64> {
        let (height, width, columns) = (self.height, self.width, self.width / 2 + 1);
        let mut scratch = Vec::new();
        let mut line = vec![Complex::default(); height];
        for v in 0..columns {
            (0..height).for_each(|u| line[u] = half[u * columns + v]);
            self.vertical.run(&mut line, &mut scratch);
            (0..height).for_each(|u| half[u * columns + v] = line[u]);
        }
        let mut out = Vec::with_capacity(height * width);
        let mut line = vec![Complex::default(); width];
        for pair in half.chunks(2 * columns) {
            // Two real rows are the real and imaginary part of one complex transform.
            let (a, b) = pair.split_at(columns);
            for v in 0..columns {
                let mirrored = (width - v) % width;
                let (a, b) = (a[v], b.get(v).copied().unwrap_or_default());
                if mirrored == v {
                    // Bins that are their own mirror are real, whatever was drawn.
                    line[v] = Complex { re: a.re, im: b.re };
                } else {
                    line[v] = a + b.turned();
                    line[mirrored] = a.conjugate() + b.conjugate().turned();
                }
            }
            self.horizontal.run(&mut line, &mut scratch);
            out.extend(line.iter().map(|c| c.re));
            if !b.is_empty() {
                out.extend(line.iter().map(|c| c.im));
            }
        }
        out
    }
}

/// Positions of `field` by descending value; ties by position.
fn order(field: &[f64]) -> Vec<u32> {
    // Bits of a float, ordered as integers; sorting (key, position) pairs is then total and fast.
    let key = |x: f64| {
        let bits = (x + 0.0).to_bits(); // one zero
        !(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    };
    let mut pairs: Vec<(u64, u32)> = field.iter().zip(0u32..).map(|(x, i)| (key(*x), i)).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, i)| i).collect()
}

/// Fields of one job, made on demand and kept in a bounded cache.
#[derive(Debug)]
pub struct Bank {
    stream: Stream,
    height: u32,
    width: u32,
    /// Side of a cell of the coarser raster that fields are made on; 1 for all but huge pictures.
    cell: u32,
    transform: OnceLock<Transform>,
    capacity: u64,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    fields: BTreeMap<(bool, u64, u32), Kept>,
    clock: u64,
}

/// A field that is made by the first who waits for it.
#[derive(Debug)]
struct Kept {
    field: Arc<OnceLock<Arc<RankMap>>>,
    used: u64,
}

impl Bank {
    /// Empty bank of a job with `seed` and an output raster of `height` x `width`, both >= 1.
    pub fn new(seed: u64, height: u32, width: u32) -> Bank {
        Bank::with_capacity(seed, height, width, BANK_BYTES)
    }

    /// As [`Bank::new`], keeping at most `capacity` bytes of fields (always the latest one). Changes the cost, never
    /// a field.
    pub fn with_capacity(seed: u64, height: u32, width: u32, capacity: u64) -> Bank {
        let coarse =
            |cell: u32| u64::from(height.div_ceil(cell)) * u64::from(width.div_ceil(cell)) <= MAX_TRANSFORM;
        let cell = (1..=height.max(width)).find(|c| coarse(*c)).unwrap_or(1);
        Bank {
            stream: Stream::new(seed, "fields"),
            height,
            width,
            cell,
            transform: OnceLock::new(),
            capacity,
            cache: Mutex::default(),
        }
    }

    /// Rows and columns of every field.
    pub fn size(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// Number of fields per spectrum, >= 1.
    pub fn ids(&self) -> u64 {
        (BANK_BYTES / self.bytes()).clamp(1, MAX_IDS)
    }

    /// Field `id` of `spectrum`.
    pub fn field(&self, spectrum: Spectrum, id: u32) -> Arc<RankMap> {
        let slot = self.keep(spectrum.key(id));
        // Made outside the lock, so that others can go on; a second asker of the same field waits for this one.
        slot.get_or_init(|| Arc::new(self.make(spectrum, id))).clone()
    }

    fn bytes(&self) -> u64 {
        4 * u64::from(self.height) * u64::from(self.width)
    }

    /// Place of a field in the cache; the least recently used ones leave.
    fn keep(&self, key: (bool, u64, u32)) -> Arc<OnceLock<Arc<RankMap>>> {
        // A panic elsewhere leaves the cache usable: it is only ever a map of finished fields.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let used = cache.clock;
        let kept = cache.fields.entry(key).or_insert_with(|| Kept { field: Arc::default(), used });
        kept.used = used;
        let field = kept.field.clone();
        while cache.fields.len() > 1 && cache.fields.len() as u64 * self.bytes() > self.capacity {
            let oldest = cache.fields.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key);
            oldest.and_then(|key| cache.fields.remove(&key));
        }
        field
    }

    fn make(&self, spectrum: Spectrum, id: u32) -> RankMap {
        let (height, width) = (self.height.div_ceil(self.cell), self.width.div_ceil(self.cell));
        let transform = self.transform.get_or_init(|| Transform::new(height as usize, width as usize));
        let mut rng = self.stream.at(Draw::MaskField, u64::from(id), 0);
        let half = spectrum.draw(height as usize, width as usize, &mut rng);
        let order = order(&transform.inverse(half));
        let mut ranks = vec![0; self.height as usize * self.width as usize];
        let mut next = 0;
        for place in order {
            let (y, x) = (place / width * self.cell, place % width * self.cell);
            for y in y..(y + self.cell).min(self.height) {
                for x in x..(x + self.cell).min(self.width) {
                    ranks[y as usize * self.width as usize + x as usize] = next;
                    next += 1;
                }
            }
        }
        RankMap { height: self.height, width: self.width, id, ranks }
    }
}

#[cfg(test)]
mod tests;
