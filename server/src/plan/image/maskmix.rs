//! MaskMix: whole cells of a grid, aligned with a vision transformer's patches, come from one image each.
//!
//! MixPro, ICLR 2023, <https://arxiv.org/abs/2304.12043>. `lambda ~ Beta(alpha, alpha)`; the raster is cut into `n =
//! ceil(height / cell) ceil(width / cell)` cells, of which `ceil(n lambda)` keep the base, chosen by a permutation of
//! the row's own: at granularity `batch` rows share lambda, not the cells. `cell` is in pixels and should be a multiple
//! of the model's patch.
//!
//! Deviations: `lam_from = area` is the share of pixels that keep the base; the authors' `count`, the share of cells,
//! differs where cells are cut at the right and bottom border. Only the mask is made here; progressive attention
//! labelling needs the trainer's attention.

use crate::plan::{Args, Choice, Draws, Mask, Mix, Op, Param, PlanInput, Policy, shared};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct MaskMix;

impl Policy for MaskMix {
    fn name(&self) -> &'static str {
        "maskmix"
    }
    fn paper(&self) -> &'static str {
        "MixPro: Data Augmentation with MaskMix and Progressive Attention Labeling for Vision Transformer (2023)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2304.12043"
    }
    fn summary(&self) -> &'static str {
        "random cells of a grid show the partner"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[
            shared::alpha(1.0),
            Param {
                name: "cell",
                default: 56.0,
                min: 2.0,
                max: 8192.0,
                doc: "side of a cell in pixels, whole number",
            },
        ];
        PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        &[Choice {
            name: "lam_from",
            values: &["area", "count"],
            doc: "label weight: share of the base in pixels, or in cells",
        }]
    }

    fn mask_words(&self, args: &Args, height: u32, width: u32) -> usize {
        let cell = args.number("cell") as u32;
        (height.div_ceil(cell) as usize * width.div_ceil(cell) as usize).div_ceil(32)
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let alpha = args.number("alpha");
        let sampled = draws.unit(Draw::Lambda).beta(alpha, alpha);
        let cell = args.number("cell") as u32;
        let (rows, columns) = (input.height.div_ceil(cell), input.width.div_ceil(cell));
        let cells = rows as usize * columns as usize;
        let kept = count(cells, sampled);
        if kept == cells {
            return Mix { sampled, ..Mix::copy() };
        }
        let mut keep = vec![false; cells];
        let order = draws.row(Draw::MaskField).permutation(cells);
        order.into_iter().take(kept).for_each(|i| keep[i as usize] = true);
        let own = match args.word("lam_from") {
            "count" => kept as f64 / cells as f64,
            _ => area(&keep, cell, input.height, input.width),
        };
        let mask = Mask::Cells { cell, columns, keep: keep.into() };
        Mix { ops: vec![Op::MaskBlend { src: input.partner, mask }], sampled, own }
    }
}

/// Cells that keep the base.
fn count(cells: usize, lambda: f64) -> usize {
    ((cells as f64 * lambda).ceil() as usize).min(cells)
}

/// Share of the pixels in kept cells.
fn area(keep: &[bool], cell: u32, height: u32, width: u32) -> f64 {
    let columns = width.div_ceil(cell);
    let side = |i: u32, full: u32| u64::from(cell.min(full - i * cell));
    let kept = keep.iter().zip(0u32..).filter(|(keep, _)| **keep);
    let pixels: u64 = kept.map(|(_, i)| side(i / columns, height) * side(i % columns, width)).sum();
    pixels as f64 / (f64::from(height) * f64::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::tests::{defaults, draw_many};

    #[test]
    fn golden_counts() {
        let weight = |cells: usize, lambda| count(cells, lambda) as f64 / cells as f64;
        assert_eq!(weight(16, 0.3), 0.3125);
        assert_eq!(weight(16, 0.01), 0.0625);
        assert_eq!(weight(4, 0.3), 0.5);
        assert!((weight(49, 0.5) - 0.5102).abs() < 1e-4);
        assert_eq!((count(16, 0.0), count(16, 1.0)), (0, 16));
    }

    #[test]
    fn border_cells_count_by_their_pixels() {
        // 5 x 7 pixels in cells of 4: 4 x 4, 4 x 3, 1 x 4, 1 x 3.
        assert_eq!(area(&[true, false, false, false], 4, 5, 7), 16.0 / 35.0);
        assert_eq!(area(&[false, true, false, true], 4, 5, 7), 15.0 / 35.0);
        assert_eq!(area(&[true; 4], 4, 5, 7), 1.0);
    }

    #[test]
    fn the_ceiling_biases_towards_the_base() {
        // E = 1/2 + 1/(2 n) with n = 16 cells: 0.53125. Standard deviation at most sqrt(1/12) = 0.289: 4000 draws leave
        // the band with a probability of 6e-5, and the seed is fixed.
        let mixes = draw_many(&MaskMix, &defaults(&MaskMix), 224, 224, 4000);
        let own = mixes.iter().map(|m| m.own).sum::<f64>() / mixes.len() as f64;
        assert!((own - 0.53125).abs() < 4.0 * 0.289 / 4000f64.sqrt(), "{own}");
    }
}
