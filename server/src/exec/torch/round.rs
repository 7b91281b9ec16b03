//! A round sorted by what the device has to do.

use super::DeviceError;
use crate::batch::Raster;
use crate::exec::compose::same_size;
use crate::plan::{Filter, Mask, Op, Rect, Row, fields::RankMap};
use std::sync::Arc;

/// Rows of a chunk that need the same, with their partners in the block.
#[derive(Debug)]
pub(super) struct List<T> {
    /// Rows of the chunk, ascending.
    pub(super) at: Vec<i64>,
    /// Rows of the block to take from.
    pub(super) src: Vec<i64>,
    /// What each needs.
    pub(super) of: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { at: Vec::new(), src: Vec::new(), of: Vec::new() }
    }
}

impl<T> List<T> {
    fn push(&mut self, at: usize, src: u32, of: T) {
        self.at.push(at as i64);
        self.src.push(i64::from(src));
        self.of.push(of);
    }
}

/// The partner shows where lines and columns of a lattice meet; a box is a lattice of one hole.
#[derive(Debug)]
pub(super) struct Cross {
    pub(super) crop: Rect,
    pub(super) cell: (u32, u32),
    pub(super) hole: (u32, u32),
}

impl Cross {
    /// Everything in `crop`, which is not empty.
    pub(super) fn filled(crop: Rect) -> Cross {
        let side = (crop.y1 - crop.y0, crop.x1 - crop.x0);
        Cross { crop, cell: side, hole: side }
    }
}

/// A box of the partner shown in another one.
#[derive(Debug)]
pub(super) struct Paste {
    pub(super) from: Rect,
    pub(super) to: Rect,
    pub(super) filter: Filter,
}

/// Cells that keep the base.
#[derive(Debug)]
pub(super) struct Cells<'a> {
    pub(super) cell: usize,
    pub(super) columns: usize,
    pub(super) keep: &'a [bool],
}

/// The `keep` first ranks of a shifted field keep the base, with a ramp of `soft` ranks either way.
#[derive(Debug)]
pub(super) struct Ranks<'a> {
    pub(super) field: &'a Arc<RankMap>,
    pub(super) shift: (u32, u32),
    pub(super) keep: u32,
    pub(super) soft: u32,
}

/// One op of every row of a chunk, at most.
#[derive(Debug, Default)]
pub(super) struct Round<'a> {
    /// Weights of base and partner.
    pub(super) fades: List<(f32, f32)>,
    /// Copied as they are.
    pub(super) copies: List<Paste>,
    pub(super) crosses: List<Cross>,
    /// Copied elsewhere, or by nearest pixels.
    pub(super) moves: List<Paste>,
    /// Resampled.
    pub(super) scales: List<Paste>,
    pub(super) cells: List<Cells<'a>>,
    /// Binary.
    pub(super) ranks: List<Ranks<'a>>,
    /// Soft.
    pub(super) ramps: List<Ranks<'a>>,
    /// Partner's weights of lines and of columns.
    pub(super) bumps: List<(&'a [f32], &'a [f32])>,
    /// Base's weights.
    pub(super) weights: List<&'a [f32]>,
}

impl<'a> Round<'a> {
    /// The ops that stand at `number` in `rows`. `slices`: boxes are copied one by one, not by a mask over all pixels.
    pub(super) fn new(rows: &'a [Row], number: usize, slices: bool) -> Round<'a> {
        let mut round = Round::default();
        for (at, row) in rows.iter().enumerate() {
            match row.ops.get(number) {
                Some(Op::Blend { src, lambda, rest }) => round.fades.push(at, *src, (*lambda, *rest)),
                Some(Op::Paste { src, src_rect, dst_rect, filter }) => {
                    round.paste(at, *src, Paste { from: *src_rect, to: *dst_rect, filter: *filter }, slices);
                }
                Some(Op::MaskBlend { src, mask }) => round.mask(at, *src, mask),
                // Only policies of points emit these, and a feed of pictures takes its policies from `plan::image`.
                Some(Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. }) => {}
                None => {}
            }
        }
        round
    }

    fn paste(&mut self, at: usize, src: u32, paste: Paste, slices: bool) {
        let Paste { from, to, filter } = paste;
        if from.area() == 0 || to.area() == 0 {
            return;
        }
        if slices && same_size(&from, &to) {
            self.copies.push(at, src, paste);
        } else if from == to {
            self.crosses.push(at, src, Cross::filled(to));
        } else if same_size(&from, &to) || filter == Filter::Nearest {
            // A copy is what the nearest pixels of as many are.
            self.moves.push(at, src, Paste { filter: Filter::Nearest, ..paste });
        } else {
            self.scales.push(at, src, paste);
        }
    }

    fn mask(&mut self, at: usize, src: u32, mask: &'a Mask) {
        match mask {
            Mask::Cells { cell, columns, keep } => {
                self.cells.push(at, src, Cells { cell: *cell as usize, columns: *columns as usize, keep });
            }
            Mask::Lattice { crop, cell, hole } => {
                self.crosses.push(at, src, Cross { crop: *crop, cell: *cell, hole: *hole });
            }
            Mask::Ranks { field, shift, keep, soft } => {
                let list = if *soft == 0 { &mut self.ranks } else { &mut self.ramps };
                list.push(at, src, Ranks { field, shift: *shift, keep: *keep, soft: *soft });
            }
            Mask::Bump { rows, columns } => self.bumps.push(at, src, (rows, columns)),
            Mask::Weights(weights) => self.weights.push(at, src, weights),
            Mask::Learned { .. } => {} // refused by `check`
        }
    }
}

/// Refuses rows that look beyond the `held` rows of the block or beyond the raster: on a CUDA device that would end the
/// context, and with it every job on it.
pub(super) fn check(rows: &[Row], held: usize, raster: &Raster) -> Result<(), DeviceError> {
    let within = |row: u32| (row as usize) < held;
    let op_fits = |op: &Op| match op {
        Op::Blend { src, .. } => within(*src),
        Op::Paste { src, src_rect, dst_rect, .. } => {
            within(*src) && [src_rect, dst_rect].into_iter().all(|rect| rect_fits(rect, raster))
        }
        Op::MaskBlend { src, mask } => within(*src) && mask_fits(mask, raster),
        Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. } => true,
    };
    let misfit = rows.iter().position(|row| !within(row.base) || !row.ops.iter().all(op_fits));
    misfit.map_or(Ok(()), |row| Err(DeviceError::Misfit { row }))
}

fn rect_fits(rect: &Rect, raster: &Raster) -> bool {
    rect.area() == 0 || (rect.y1 as usize <= raster.height && rect.x1 as usize <= raster.width)
}

fn mask_fits(mask: &Mask, raster: &Raster) -> bool {
    let Raster { height, width, .. } = *raster;
    match mask {
        Mask::Cells { cell, columns, keep } => {
            let (cell, columns) = (*cell as usize, *columns as usize);
            cell > 0 && columns >= width.div_ceil(cell) && keep.len() >= height.div_ceil(cell) * columns
        }
        Mask::Lattice { cell, .. } => cell.0 > 0 && cell.1 > 0,
        Mask::Bump { rows, columns } => rows.len() >= height && columns.len() >= width,
        Mask::Ranks { field, .. } => {
            (field.height as usize, field.width as usize) == (height, width)
                && field.ranks.len() == height * width
        }
        Mask::Weights(weights) => weights.len() >= height * width,
        // A mixer makes its masks before rows are mixed.
        Mask::Learned { .. } => false,
    }
}
