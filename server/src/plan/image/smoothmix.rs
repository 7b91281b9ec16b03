//! SmoothMix: the partner shows through a Gaussian bump, so that no edge appears.
//!
//! CVPR workshops 2020, <https://openaccess.thecvf.com/content_CVPRW_2020/html/w45/Lee_SmoothMix_A_Simple_Yet_Effective_Data_Augmentation_to_Train_Robust_CVPRW_2020_paper.html>.
//! `sigma = U(sigma_min, sigma_max) height` pixels on both axes; the centre is uniform over the raster, `(side - 1) / 2
//! + U(-side / 2, side / 2)` per axis. The partner's weight is `k = exp(-distance^2 / (2 sigma^2))`, kept as one factor
//! per row and per column. The label weight is `1 - mean(k)` of the f32 factors.
//!
//! Deviations: openmixup returns `mean(k)` as the base's weight, which inverts the labels; it also draws a lambda that
//! it never uses, which we don't: the sampled lambda of a row is its label weight.

use crate::plan::{Args, Draws, Mask, Mix, Op, Param, PlanInput, Policy};
use crate::rng::{Draw, Rng};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct SmoothMix;

impl Policy for SmoothMix {
    fn name(&self) -> &'static str {
        "smoothmix"
    }
    fn paper(&self) -> &'static str {
        "SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust Classifiers (2020)"
    }
    fn url(&self) -> &'static str {
        "https://openaccess.thecvf.com/content_CVPRW_2020/html/w45/Lee_SmoothMix_A_Simple_Yet_Effective_Data_Augmentation_to_Train_Robust_CVPRW_2020_paper.html"
    }
    fn summary(&self) -> &'static str {
        "the partner through a Gaussian bump"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[
            Param {
                name: "sigma_min",
                default: 0.25,
                min: 0.01,
                max: 2.0,
                doc: "smallest sigma over the height",
            },
            Param {
                name: "sigma_max",
                default: 0.5,
                min: 0.01,
                max: 2.0,
                doc: "largest sigma over the height",
            },
        ];
        PARAMS
    }

    fn mask_words(&self, _args: &Args, height: u32, width: u32) -> usize {
        height as usize + width as usize
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let spread = draws.unit(Draw::PrivateA).range(args.number("sigma_min"), args.number("sigma_max"));
        let sigma = spread * f64::from(input.height);
        let centre =
            |side: u32, mut rng: Rng| (f64::from(side) - 1.0) / 2.0 + f64::from(side) * (rng.uniform() - 0.5);
        let rows = bump(input.height, centre(input.height, draws.unit(Draw::CenterY)), sigma);
        let columns = bump(input.width, centre(input.width, draws.unit(Draw::CenterX)), sigma);
        let own = 1.0 - mean(&rows) * mean(&columns);
        let mask = Mask::Bump { rows, columns };
        Mix { ops: vec![Op::MaskBlend { src: input.partner, mask }], sampled: own, own }
    }
}

/// `exp(-(p - centre)^2 / (2 sigma^2))` at `p = 0..side`.
fn bump(side: u32, centre: f64, sigma: f64) -> Arc<[f32]> {
    let at = |p: u32| {
        let d = (f64::from(p) - centre) / sigma;
        libm::exp(-0.5 * d * d) as f32
    };
    (0..side).map(at).collect()
}

fn mean(factors: &[f32]) -> f64 {
    factors.iter().map(|f| f64::from(*f)).sum::<f64>() / factors.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::tests::{defaults, draw_many};

    #[test]
    fn golden_bump() {
        let (rows, columns) = (bump(8, 4.5, 2.0), bump(8, 3.0, 2.0));
        let k = |y: usize, x: usize| f64::from(rows[y]) * f64::from(columns[x]);
        assert!((mean(&rows) * mean(&columns) - 0.346_756_7).abs() < 1e-7);
        assert!((k(4, 3) - 0.969_233_2).abs() < 1e-7);
        assert!((k(0, 0) - 0.025_829_2).abs() < 1e-7);
        assert_eq!(columns[3], 1.0, "1 at the centre");
        assert_eq!(columns[1], columns[5], "symmetric");
        assert_eq!(rows[3], rows[6], "symmetric about a half");
    }

    #[test]
    fn the_base_keeps_the_expected_weight() {
        // Centre and pixel are independent uniforms, so per axis of side 1 and sigma s
        // E[k] = sqrt(2 pi) s erf(1 / (sqrt(2) s)) - 2 s^2 (1 - exp(-1 / (2 s^2))); squared for two axes and averaged
        // over U(0.25, 0.5) it gives E[own] = 0.5710 on a square. Standard deviation 0.126 by simulation: 4000 draws
        // leave the band with a probability of 6e-5, and the seed is fixed.
        let mixes = draw_many(&SmoothMix, &defaults(&SmoothMix), 96, 96, 4000);
        let own = mixes.iter().map(|m| m.own).sum::<f64>() / mixes.len() as f64;
        assert!((own - 0.5710).abs() < 4.0 * 0.126 / 4000f64.sqrt(), "{own}");
    }
}
