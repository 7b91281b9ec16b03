//! 5 PLAN: pure draws; no pixel, no I/O, no device.
//!
//! A [`Policy`] says how one row is mixed with its partner; [`block`] asks it for every row of a pairing block, with the
//! draws addressed by the job's granularity. Executors obey the resulting [`Plan`] and never draw.

pub mod block;
pub mod boxes;
mod dft;
mod encode;
pub mod fields;
#[cfg(test)]
mod golden;
pub mod image;
pub mod points;
pub mod recipe;
pub mod scene;
mod shared;
pub mod view;

pub use crate::args::{ArgError, Args, Choice, Param};

use crate::args::Declared;
use crate::rng::{Draw, Rng, Stream};
use std::sync::Arc;

/// A rectangle of the output raster, half-open, height before width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// First row.
    pub y0: u32,
    /// Row after the last.
    pub y1: u32,
    /// First column.
    pub x0: u32,
    /// Column after the last.
    pub x1: u32,
}

impl Rect {
    /// Pixels inside; 0 for an empty or inverted rectangle.
    pub fn area(&self) -> u64 {
        u64::from(self.y1.saturating_sub(self.y0)) * u64::from(self.x1.saturating_sub(self.x0))
    }

    /// The whole raster.
    pub fn full(height: u32, width: u32) -> Rect {
        Rect { y0: 0, y1: height, x0: 0, x1: width }
    }
}

/// How a pasted rectangle is resampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `src = floor(dst * in / out)`.
    Nearest,
    /// Half-pixel centres, two taps, no antialiasing (PyTorch `align_corners=False`).
    Bilinear,
    /// Half-pixel centres, triangle filter scaled to the reduction (PyTorch `antialias=True`).
    Area,
}

/// Where the base is kept. `true`, 1 and "keep" always mean the base.
#[derive(Clone, Debug, PartialEq)]
pub enum Mask {
    /// Cells of `cell` x `cell` pixels, row-major in `columns`; cut at the right and bottom border. Pixel (y, x) keeps
    /// the base where `keep[(y / cell) * columns + x / cell]`.
    Cells {
        /// Side of a cell in pixels, > 0.
        cell: u32,
        /// Cells per row.
        columns: u32,
        /// One per cell: keep the base.
        keep: Arc<[bool]>,
    },
    /// Holes of a lattice inside `crop` show the partner: pixel (y, x) of `crop` does where
    /// `(y - crop.y0) % cell.0 < hole.0` and `(x - crop.x0) % cell.1 < hole.1`. Everything else keeps the base.
    Lattice {
        /// Area that holds the lattice.
        crop: Rect,
        /// Rows and columns of one cell, > 0.
        cell: (u32, u32),
        /// Rows and columns of the hole at each cell's top left.
        hole: (u32, u32),
    },
    /// Partner's weight at (y, x) is `rows[y] * columns[x]` in f32, the base's is 1 minus that; soft.
    Bump {
        /// One per row, 0..=1.
        rows: Arc<[f32]>,
        /// One per column, 0..=1.
        columns: Arc<[f32]>,
    },
    /// The `keep` pixels of largest value, those of rank `r < keep`, keep the base. With `soft` > 0 the `2 soft` ranks
    /// `keep - soft <= r < keep + soft` get the base's weight `1 - (r - (keep - soft)) / (2 soft - 1)`, a ramp from 1
    /// to 0 with both ends included; lower ranks 1, higher ones 0. The mean is `keep / pixels` either way.
    Ranks {
        /// Rank of every pixel, 0 = largest; as large as the output raster.
        field: Arc<fields::RankMap>,
        /// Cyclic shift: pixel (y, x) has the rank of `((y + shift.0) % height, (x + shift.1) % width)`.
        shift: (u32, u32),
        /// Pixels that keep the base, at most `height * width`.
        keep: u32,
        /// Half width of the ramp in ranks, at most `keep` and `height * width - keep`; 0 means a binary mask.
        soft: u32,
    },
    /// One weight of the base per pixel, row-major; for masks that come from outside.
    Weights(Arc<[f32]>),
    /// What a mixer makes of the pixels of both rows and of `lambda`: put in by `exec::mixer::realise` before rows are
    /// mixed, as [`Mask::Weights`], or as [`Op::Blend`] of a weight from an interval.
    Learned {
        /// Number among the job's mixers.
        mixer: u32,
        /// Weight of the base as drawn, 0..=1. For an interval where in it the weight lies: 0 at its lower end.
        lambda: f32,
        /// The mixer gives an interval: the row's `own` is known only after it.
        interval: bool,
    },
}

/// What is done to a row; all `src` mean rows of the block *before* the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `base * lambda + src * rest`, both f32 taken from the f64 lambda.
    Blend {
        /// Row of the block.
        src: u32,
        /// Weight of the base.
        lambda: f32,
        /// Weight of `src`: `1 - lambda` computed in f64.
        rest: f32,
    },
    /// `src_rect` of the partner, resampled to `dst_rect`.
    Paste {
        /// Row of the block.
        src: u32,
        /// Part of the partner.
        src_rect: Rect,
        /// Where it goes; same size as `src_rect` means a copy.
        dst_rect: Rect,
        /// Resampling.
        filter: Filter,
    },
    /// `base * M + src * (1 - M)`.
    MaskBlend {
        /// Row of the block.
        src: u32,
        /// Weight of the base.
        mask: Mask,
    },
    /// Points: whole scenes after what is there.
    Union {
        /// Rows of the block, in order.
        scenes: Vec<u32>,
    },
    /// Points: those in a sector of azimuth leave, those of `src` in it come. The azimuth `atan2(y, x)`, in radians, is
    /// in the sector where it, or it and a full turn either way, lies in `from..to`.
    Sectors {
        /// Row of the block.
        src: u32,
        /// First azimuth inside, about `-pi..pi`.
        from: f32,
        /// First azimuth outside, above `from` by at most a full turn.
        to: f32,
    },
    /// Points: those of `src` that have one of the classes come once per angle, turned about z.
    Instances {
        /// Row of the block.
        src: u32,
        /// Classes, ascending.
        classes: Arc<[i32]>,
        /// Radians, counter-clockwise; 0 is a plain copy.
        angles: Vec<f32>,
    },
    /// Points: the inclination `atan2(z, hypot(x, y))` is cut into `edges + 1` bands, numbered from the lowest. The odd
    /// ones leave and those of `src` come.
    Bands {
        /// Row of the block.
        src: u32,
        /// Ascending, radians; an edge belongs to the band above it.
        edges: Arc<[f32]>,
        /// The even bands leave and come instead.
        odd: bool,
    },
}

/// One output row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Row of the block that it starts from.
    pub base: u32,
    /// Row of the block that it is mixed with; `base` when it is not mixed.
    pub partner: u32,
    /// Applied in order; empty means a copy.
    pub ops: Vec<Op>,
    /// Index into the job's policies; `None` for a clean row.
    pub policy: Option<u32>,
    /// Lambda as drawn; 1 for a clean row.
    pub sampled: f64,
    /// Weight of the base's label, 0..=1; the partner's is `1 - own`. Of a learned interval: as drawn, until the mixer
    /// gave it.
    pub own: f64,
    /// [`crate::batch::flags`].
    pub flags: u32,
}

impl Row {
    /// The first pasted rectangle in output pixels; empty, all zero, for a row without one.
    pub fn rect(&self) -> Rect {
        let pasted = |op: &Op| match op {
            Op::Paste { dst_rect, .. } => Some(*dst_rect),
            Op::Blend { .. }
            | Op::MaskBlend { .. }
            | Op::Union { .. }
            | Op::Sectors { .. }
            | Op::Instances { .. }
            | Op::Bands { .. } => None,
        };
        self.ops.iter().find_map(pasted).unwrap_or_default()
    }
}

/// What becomes of one pairing block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Output rows in order.
    pub rows: Vec<Row>,
}

/// What a policy may look at: the output raster, never pixels or source shapes.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// Rows of the output raster, >= 1.
    pub height: u32,
    /// Columns of the output raster, >= 1.
    pub width: u32,
    /// Row of the block that is mixed.
    pub base: u32,
    /// Row of the block to mix with.
    pub partner: u32,
    /// Partner of every row of the block, the row itself where it has none; `next[base]` is `partner`.
    pub next: &'a [u32],
    /// Random fields of the job, made on demand.
    pub fields: &'a fields::Bank,
}

/// What a policy decides for one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Ops with `src` = the given partner, or rows reached through `next`; empty means a copy.
    pub ops: Vec<Op>,
    /// Lambda as drawn.
    pub sampled: f64,
    /// Label weight of the base from the mask actually used.
    pub own: f64,
}

impl Mix {
    /// A row that stays as it is.
    pub fn copy() -> Mix {
        Mix { ops: Vec::new(), sampled: 1.0, own: 1.0 }
    }
}

/// Draws of one row: `unit` ones are shared by the granularity's unit (batch, pair or row), `row` ones never are.
#[derive(Clone, Copy, Debug)]
pub struct Draws<'a> {
    stream: &'a Stream,
    step: u64,
    unit: u64,
    row: u64,
}

impl<'a> Draws<'a> {
    /// Draws of row `row` of step `step`, whose unit is addressed by slot `unit`.
    pub fn new(stream: &'a Stream, step: u64, unit: u64, row: u64) -> Self {
        Draws { stream, step, unit, row }
    }

    /// Shared by the rows of a unit.
    pub fn unit(&self, draw: Draw) -> Rng {
        self.stream.at(draw, self.step, self.unit)
    }

    /// Of this row alone.
    pub fn row(&self, draw: Draw) -> Rng {
        self.stream.at(draw, self.step, self.row)
    }
}

/// One way of mixing two rows; a unit struct in a file of its own.
pub trait Policy: Sync + std::fmt::Debug {
    /// Name in job specs, metrics and tables: the paper's, in snake_case.
    fn name(&self) -> &'static str;
    /// Title and year.
    fn paper(&self) -> &'static str;
    /// Where to read it.
    fn url(&self) -> &'static str;
    /// One sentence for tables.
    fn summary(&self) -> &'static str;
    /// Numbers it takes.
    fn params(&self) -> &'static [Param];
    /// Choices it takes.
    fn choices(&self) -> &'static [Choice] {
        &[]
    }
    /// An option beside [`Policy::choices`] that names a mixer of the server, which gives the policy the arguments
    /// `mixer` (its number) and `interval` (0 or 1).
    fn mixer(&self) -> Option<&'static str> {
        None
    }
    /// What it takes, for [`Args::resolve`].
    fn declared(&self) -> Declared {
        Declared { kind: "policy", name: self.name(), params: self.params(), choices: self.choices() }
    }
    /// Most words of data, 32 bit each, that a mask of its ops has in a recipe; see [`recipe`].
    fn mask_words(&self, _args: &Args, _height: u32, _width: u32) -> usize {
        0
    }
    /// Decides one row from its draws. Total: every legal `args` and every raster gives a legal mix.
    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix;
}
