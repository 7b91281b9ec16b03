//! Carries out the ops of a row, one image line at a time, so that intermediate values stay in the first-level cache
//! and bytes and floats, planar and interleaved rasters share one path.

use super::mask::{Line, LineScratch};
use super::simd::Level;
use super::taps::Taps;
use crate::batch::Raster;
use crate::plan::{Op, Rect, Row};

/// What a line is kept in between ops: bytes (rounded after each op) or f32 fractions of full scale.
pub(super) trait Element: Copy {
    /// Starts a run from bytes.
    fn load(level: Level, line: &mut [Self], from: &[u8]);
    /// `line * lambda + from * rest`.
    fn blend(level: Level, line: &mut [Self], from: &[u8], lambda: f32, rest: f32);
    /// `line * w + from * (1 - w)`.
    fn weigh(level: Level, line: &mut [Self], from: &[u8], weights: &[f32]);
    /// Starts a run from resampled values, 0..=255.
    fn put(level: Level, line: &mut [Self], values: &[f32]);
}

impl Element for u8 {
    fn load(_: Level, line: &mut [u8], from: &[u8]) {
        line.copy_from_slice(from);
    }
    fn blend(level: Level, line: &mut [u8], from: &[u8], lambda: f32, rest: f32) {
        level.blend_into_bytes(line, from, lambda, rest);
    }
    fn weigh(level: Level, line: &mut [u8], from: &[u8], weights: &[f32]) {
        level.weigh_bytes(line, from, weights);
    }
    fn put(level: Level, line: &mut [u8], values: &[f32]) {
        level.round_bytes(line, values);
    }
}

impl Element for f32 {
    fn load(level: Level, line: &mut [f32], from: &[u8]) {
        level.load_floats(line, from);
    }
    fn blend(level: Level, line: &mut [f32], from: &[u8], lambda: f32, rest: f32) {
        level.blend_into_floats(line, from, lambda, rest);
    }
    fn weigh(level: Level, line: &mut [f32], from: &[u8], weights: &[f32]) {
        level.weigh_floats(line, from, weights);
    }
    fn put(level: Level, line: &mut [f32], values: &[f32]) {
        level.scale_floats(line, values);
    }
}

/// Memory that composing rows keeps between calls.
#[derive(Debug, Default)]
pub(super) struct ComposeScratch {
    masks: LineScratch,
    /// Tables of each op of the row: rows, columns.
    taps: Vec<(Taps, Taps)>,
    /// A line of the partner after the vertical pass, then after the horizontal one.
    tall: Vec<f32>,
    wide: Vec<f32>,
}

/// The clean rows of a block and the raster they share.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) clean: &'a [u8],
    pub(super) raster: &'a Raster,
}

impl<'a> Block<'a> {
    /// Row `i`.
    pub(super) fn row(&self, i: u32) -> &'a [u8] {
        &self.clean[i as usize * self.raster.len()..][..self.raster.len()]
    }

    /// Line `y` of plane `plane` of row `i`.
    fn line(&self, i: u32, plane: usize, y: usize) -> &'a [u8] {
        let elements = self.raster.width * self.raster.step;
        &self.row(i)[plane * self.raster.plane_len() + y * elements..][..elements]
    }
}

impl ComposeScratch {
    /// Prepares for the ops of `row`.
    pub(super) fn prepare(&mut self, row: &Row) {
        if self.taps.len() < row.ops.len() {
            self.taps.resize_with(row.ops.len(), Default::default);
        }
        for (op, (rows, columns)) in row.ops.iter().zip(&mut self.taps) {
            if let Op::Paste { src_rect, dst_rect, filter, .. } = op
                && !same_size(src_rect, dst_rect)
                && src_rect.area() > 0
                && dst_rect.area() > 0
            {
                rows.fill(*filter, height(src_rect), height(dst_rect));
                columns.fill(*filter, width(src_rect), width(dst_rect));
            }
        }
    }

    /// Computes line `y` of `row` into `line`, where plane `p` begins at `p * stride`. Call [`Self::prepare`] first.
    pub(super) fn line<E: Element>(
        &mut self,
        level: Level,
        row: &Row,
        block: Block<'_>,
        y: usize,
        line: &mut [E],
        stride: usize,
    ) {
        let raster = block.raster;
        let (step, elements) = (raster.step, raster.width * raster.step);
        for plane in 0..raster.planes {
            E::load(level, &mut line[plane * stride..][..elements], block.line(row.base, plane, y));
        }
        for (at, op) in row.ops.iter().enumerate() {
            match op {
                Op::Blend { src, lambda, rest } => {
                    for plane in 0..raster.planes {
                        let own = &mut line[plane * stride..][..elements];
                        E::blend(level, own, block.line(*src, plane, y), *lambda, *rest);
                    }
                }
                Op::Paste { src, src_rect, dst_rect, .. } => {
                    let inside = (dst_rect.y0 as usize..dst_rect.y1 as usize).contains(&y);
                    if inside && src_rect.area() > 0 && dst_rect.area() > 0 {
                        for plane in 0..raster.planes {
                            let own = &mut line[plane * stride..][columns(dst_rect, step)];
                            let dy = y - dst_rect.y0 as usize;
                            if same_size(src_rect, dst_rect) {
                                let from = block.line(*src, plane, src_rect.y0 as usize + dy);
                                E::load(level, own, &from[columns(src_rect, step)]);
                            } else {
                                E::put(
                                    level,
                                    own,
                                    self.resample(level, at, block, (*src, plane), src_rect, dy),
                                );
                            }
                        }
                    }
                }
                Op::MaskBlend { src, mask } => {
                    let shape = self.masks.line(mask, y, raster.width, step);
                    for plane in 0..raster.planes {
                        let own = &mut line[plane * stride..][..elements];
                        weigh(level, &shape, own, block.line(*src, plane, y), step);
                    }
                }
                // Only policies of points emit these, and a feed of pictures takes its policies from `plan::image`.
                Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. } => {}
            }
        }
    }

    /// Line `dy` of the resampled `rect` of a plane of a row: vertical pass first, so that only the rows of the output
    /// box are computed.
    fn resample(
        &mut self,
        level: Level,
        op: usize,
        block: Block<'_>,
        (src, plane): (u32, usize),
        rect: &Rect,
        dy: usize,
    ) -> &[f32] {
        let step = block.raster.step;
        let (rows, across) = &self.taps[op];
        let (first, weights) = rows.at(dy);
        self.tall.clear();
        self.tall.resize(width(rect) * step, 0.0);
        for (k, weight) in weights.iter().enumerate() {
            let from = block.line(src, plane, rect.y0 as usize + first + k);
            level.accumulate(&mut self.tall, &from[columns(rect, step)], *weight);
        }
        self.wide.clear();
        for x in 0..across.len() {
            let (first, weights) = across.at(x);
            for channel in 0..step {
                let taps = self.tall[first * step + channel..].iter().step_by(step).zip(weights);
                self.wide.push(taps.map(|(v, w)| v * w).sum());
            }
        }
        &self.wide
    }
}

/// Puts `from` over `own` where the mask says so.
fn weigh<E: Element>(level: Level, mask: &Line<'_>, own: &mut [E], from: &[u8], step: usize) {
    match mask {
        Line::Weights(weights) => E::weigh(level, own, from, weights),
        Line::Runs(runs) => {
            for (x0, x1) in *runs {
                let run = x0 * step..x1 * step;
                E::load(level, &mut own[run.clone()], &from[run]);
            }
        }
    }
}

/// Copies `base` to `out` with the same-sized `src_rect` of `partner` at `dst_rect`; touches every byte once.
pub(super) fn cut_and_paste(
    raster: &Raster,
    base: &[u8],
    partner: &[u8],
    src_rect: &Rect,
    dst_rect: &Rect,
    out: &mut [u8],
) {
    let elements = raster.width * raster.step;
    let (to, from) = (columns(dst_rect, raster.step), columns(src_rect, raster.step));
    // End of what is written so far; the base between two segments of the partner is one copy.
    let mut done = 0;
    for plane in 0..raster.planes {
        let begin = plane * raster.plane_len();
        for y in 0..height(dst_rect) {
            let at = begin + (dst_rect.y0 as usize + y) * elements;
            let of = begin + (src_rect.y0 as usize + y) * elements;
            out[done..at + to.start].copy_from_slice(&base[done..at + to.start]);
            out[at + to.start..at + to.end].copy_from_slice(&partner[of + from.start..of + from.end]);
            done = at + to.end;
        }
    }
    out[done..].copy_from_slice(&base[done..]);
}

/// True when a paste is a copy.
pub(super) fn same_size(src: &Rect, dst: &Rect) -> bool {
    height(src) == height(dst) && width(src) == width(dst)
}

fn height(rect: &Rect) -> usize {
    rect.y1.saturating_sub(rect.y0) as usize
}

fn width(rect: &Rect) -> usize {
    rect.x1.saturating_sub(rect.x0) as usize
}

fn columns(rect: &Rect, step: usize) -> std::ops::Range<usize> {
    rect.x0 as usize * step..rect.x1 as usize * step
}
