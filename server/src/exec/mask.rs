//! Masks, line by line: runs of partner pixels where a mask is binary, weights where it is soft.

use crate::plan::{Mask, Op, Row, fields::RankMap};

/// What a mask says about one line.
pub(super) enum Line<'a> {
    /// Half-open column ranges that show the partner, in order.
    Runs(&'a [(usize, usize)]),
    /// Weight of the base per element (pixels repeated `step` times).
    Weights(&'a [f32]),
}

/// Memory for [`Line`].
#[derive(Debug, Default)]
pub(super) struct LineScratch {
    runs: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl LineScratch {
    /// Line `y` of `mask` on a raster of `width` pixels of `step` elements.
    pub(super) fn line(&mut self, mask: &Mask, y: usize, width: usize, step: usize) -> Line<'_> {
        self.runs.clear();
        self.weights.clear();
        match mask {
            Mask::Cells { cell, columns, keep } => {
                let (cell, columns) = (*cell as usize, *columns as usize);
                let cells = &keep[y / cell * columns..];
                for (i, _) in cells.iter().take(width.div_ceil(cell)).enumerate().filter(|(_, keep)| !**keep)
                {
                    self.run(i * cell, ((i + 1) * cell).min(width));
                }
            }
            Mask::Lattice { crop, cell, hole } => {
                let (y0, x0, x1) = (crop.y0 as usize, crop.x0 as usize, (crop.x1 as usize).min(width));
                let inside = (y0..crop.y1 as usize).contains(&y);
                if inside && (y - y0) % (cell.0 as usize) < hole.0 as usize {
                    for x in (x0..x1).step_by(cell.1 as usize) {
                        self.run(x, (x + hole.1.min(cell.1) as usize).min(x1));
                    }
                }
            }
            Mask::Ranks { field, shift, keep, soft: 0 } => {
                let mut shown = None;
                for (x, rank) in field.line(y as u32, *shift).enumerate() {
                    match (rank < *keep, shown) {
                        (false, None) => shown = Some(x),
                        (true, Some(x0)) => {
                            self.run(x0, x);
                            shown = None;
                        }
                        (true, None) | (false, Some(_)) => {}
                    }
                }
                if let Some(x0) = shown {
                    self.run(x0, width);
                }
            }
            Mask::Ranks { field, shift, keep, soft } => {
                let ranks = field.line(y as u32, *shift);
                self.weigh(step, ranks.map(|rank| RankMap::weight(rank, *keep, *soft)));
            }
            Mask::Bump { rows, columns } => {
                self.weigh(step, columns[..width].iter().map(|c| 1.0 - rows[y] * c));
            }
            Mask::Weights(weights) => self.weigh(step, weights[y * width..][..width].iter().copied()),
            Mask::Learned { .. } => panic!("a mixer makes its masks before rows are mixed"),
        }
        match mask {
            Mask::Cells { .. } | Mask::Lattice { .. } | Mask::Ranks { soft: 0, .. } => Line::Runs(&self.runs),
            Mask::Ranks { .. } | Mask::Bump { .. } | Mask::Weights(_) | Mask::Learned { .. } => {
                Line::Weights(&self.weights)
            }
        }
    }

    /// Adds a run, merged with the one it touches.
    fn run(&mut self, x0: usize, x1: usize) {
        match self.runs.last_mut() {
            Some(last) if last.1 == x0 => last.1 = x1,
            _ if x0 < x1 => self.runs.push((x0, x1)),
            _ => {}
        }
    }

    fn weigh(&mut self, step: usize, weights: impl Iterator<Item = f32>) {
        match step {
            1 => self.weights.extend(weights),
            _ => self.weights.extend(weights.flat_map(|w| std::iter::repeat_n(w, step))),
        }
    }
}

/// Weight of the base at every pixel of `row`, row-major `height * width`, for pictures and tests.
pub fn mask(row: &Row, height: u32, width: u32) -> Vec<f32> {
    let (height, width) = (height as usize, width as usize);
    let mut all = vec![1.0; height * width];
    let mut scratch = LineScratch::default();
    for (y, line) in all.chunks_exact_mut(width.max(1)).enumerate() {
        for op in &row.ops {
            match op {
                Op::Blend { lambda, .. } => line.iter_mut().for_each(|w| *w *= lambda),
                Op::Paste { src_rect, dst_rect, .. } => {
                    let inside = (dst_rect.y0 as usize..dst_rect.y1 as usize).contains(&y);
                    if inside && src_rect.area() > 0 && dst_rect.area() > 0 {
                        line[dst_rect.x0 as usize..dst_rect.x1 as usize].fill(0.0);
                    }
                }
                Op::MaskBlend { mask, .. } => match scratch.line(mask, y, width, 1) {
                    Line::Runs(runs) => runs.iter().for_each(|r| line[r.0..r.1].fill(0.0)),
                    Line::Weights(weights) => line.iter_mut().zip(weights).for_each(|(w, m)| *w *= m),
                },
                // A feed of pictures takes its policies from `plan::image`, none of which emits these.
                Op::Union { .. } | Op::Sectors { .. } | Op::Instances { .. } | Op::Bands { .. } => {}
            }
        }
    }
    all
}
