//! GridMix: a lattice of holes inside a random crop shows the partner.
//!
//! Pattern Recognition 2021, <https://www.sciencedirect.com/science/article/pii/S0031320320303976>, in openmixup's form.
//! `lambda ~ Beta(alpha, alpha)`, `holes ~ U{holes_min..holes_max}` across the crop, whose area share and height / width
//! are uniform in their ranges. A cell is `ceil(crop width / holes)` wide and `hole_aspect` times as high; a hole has the
//! cell's sides times `sqrt(1 - lambda)`, at least 1 pixel and at most one less than the cell (a cell of one pixel is
//! all hole), and sits at the cell's top left. The label weight is the share of pixels outside holes; it is far from
//! lambda because of that clamp and of the crop, and a lambda of 1 still mixes.
//!
//! Deviations: one lattice per unit of the job's granularity instead of one per batch; a crop higher or wider than the
//! raster is cut, and more holes than half of the crop's columns are reduced, where openmixup fails.

use crate::plan::{Args, Choice, Draws, Mask, Mix, Op, Param, PlanInput, Policy, Rect, shared};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct GridMix;

impl Policy for GridMix {
    fn name(&self) -> &'static str {
        "gridmix"
    }
    fn paper(&self) -> &'static str {
        "GridMix: Strong regularization through local context mapping (2021)"
    }
    fn url(&self) -> &'static str {
        "https://www.sciencedirect.com/science/article/pii/S0031320320303976"
    }
    fn summary(&self) -> &'static str {
        "a lattice of holes in a random crop shows the partner"
    }
    fn params(&self) -> &'static [Param] {
        const fn number(name: &'static str, default: f64, min: f64, max: f64, doc: &'static str) -> Param {
            Param { name, default, min, max, doc }
        }
        const PARAMS: &[Param] = &[
            shared::alpha(0.2),
            number("holes_min", 2.0, 1.0, 64.0, "fewest holes across the crop, whole number"),
            number("holes_max", 6.0, 1.0, 64.0, "most holes across the crop, whole number"),
            number("hole_aspect", 1.0, 0.1, 10.0, "height / width of a cell"),
            number("area_min", 0.5, 0.01, 1.0, "smallest share of the raster in the crop"),
            number("area_max", 1.0, 0.01, 1.0, "largest share of the raster in the crop"),
            number("aspect_min", 0.5, 0.1, 10.0, "smallest height / width of the crop"),
            number("aspect_max", 2.0, 0.1, 10.0, "largest height / width of the crop"),
        ];
        PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        &[shared::LAM_FROM]
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let alpha = args.number("alpha");
        let sampled = draws.unit(Draw::Lambda).beta(alpha, alpha);
        let range = |draw, low, high| draws.unit(draw).range(args.number(low), args.number(high));
        let (fewest, most) = (args.number("holes_min") as u64, args.number("holes_max") as u64);
        let lattice = Lattice {
            lambda: sampled,
            holes: draws.unit(Draw::PrivateA).between(fewest, most) as u32,
            hole_aspect: args.number("hole_aspect"),
            area: range(Draw::PrivateB, "area_min", "area_max"),
            aspect: range(Draw::PrivateC, "aspect_min", "aspect_max"),
            at: (draws.unit(Draw::CenterY).uniform(), draws.unit(Draw::CenterX).uniform()),
        };
        let (crop, cell, hole) = lattice.place(input.height, input.width);
        let holes = covered(crop.y1 - crop.y0, cell.0, hole.0) * covered(crop.x1 - crop.x0, cell.1, hole.1);
        let area = 1.0 - holes as f64 / (f64::from(input.height) * f64::from(input.width));
        let own = if args.word("lam_from") == "sampled" { sampled } else { area };
        let mask = Mask::Lattice { crop, cell, hole };
        Mix { ops: vec![Op::MaskBlend { src: input.partner, mask }], sampled, own }
    }
}

/// What was drawn.
struct Lattice {
    lambda: f64,
    holes: u32,
    hole_aspect: f64,
    area: f64,
    aspect: f64,
    /// Split of the free space above and left of the crop, in `[0, 1)`.
    at: (f64, f64),
}

impl Lattice {
    /// Crop, rows and columns of a cell, rows and columns of a hole.
    fn place(&self, height: u32, width: u32) -> (Rect, (u32, u32), (u32, u32)) {
        let area = (f64::from(height) * f64::from(width) * self.area).trunc();
        let wide = libm::sqrt(area / self.aspect) as u32;
        let high = (f64::from(wide) * self.aspect) as u32;
        let (wide, high) = (wide.clamp(1, width), high.clamp(1, height));
        let start = |free: u32, u: f64| (f64::from(free) * u) as u32;
        let (y0, x0) = (start(height - high, self.at.0), start(width - wide, self.at.1));
        let columns = wide.div_ceil(self.holes.clamp(1, (wide / 2).max(1)));
        let rows = ((f64::from(columns) * self.hole_aspect) as u32).max(1);
        let ratio = libm::sqrt(1.0 - self.lambda);
        let hole = |cell: u32| ((f64::from(cell) * ratio) as u32).min(cell - 1).max(1);
        let crop = Rect { y0, y1: y0 + high, x0, x1: x0 + wide };
        (crop, (rows, columns), (hole(rows), hole(columns)))
    }
}

/// Pixels of `length` that lie in the first `hole` of each `cell`.
fn covered(length: u32, cell: u32, hole: u32) -> u64 {
    u64::from(length / cell) * u64::from(hole) + u64::from((length % cell).min(hole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::tests::{defaults, draw_many};

    #[test]
    fn golden_lattice() {
        let drawn =
            Lattice { lambda: 0.6, holes: 4, hole_aspect: 1.0, area: 0.8, aspect: 1.2, at: (0.5, 0.25) };
        let (crop, cell, hole) = drawn.place(32, 32);
        assert_eq!(crop, Rect { y0: 0, y1: 31, x0: 1, x1: 27 });
        assert_eq!((cell, hole), ((7, 7), (4, 4)));
        assert_eq!(covered(31, 7, 4) * covered(26, 7, 4), 304);
    }

    #[test]
    fn holes_never_fill_their_cell_and_more_holes_than_columns_are_reduced() {
        let drawn = |lambda, holes| {
            Lattice { lambda, holes, hole_aspect: 0.1, area: 1.0, aspect: 1.0, at: (0.0, 0.0) }.place(8, 10)
        };
        assert_eq!(drawn(0.0, 2).1.1 - 1, drawn(0.0, 2).2.1, "lambda 0 leaves one column");
        assert_eq!(drawn(1.0, 2).2, (1, 1), "lambda 1 leaves one pixel");
        assert_eq!(drawn(0.5, 64).1.1, 2, "a cell has at least two columns");
    }

    #[test]
    fn the_lattice_has_the_declared_holes_across() {
        for mix in draw_many(&GridMix, &defaults(&GridMix), 224, 160, 500) {
            let [Op::MaskBlend { mask: Mask::Lattice { crop, cell, .. }, .. }] = &mix.ops[..] else {
                panic!("{mix:?}")
            };
            let across = (crop.x1 - crop.x0).div_ceil(cell.1);
            assert!((2..=6).contains(&across), "{across}");
        }
    }
}
