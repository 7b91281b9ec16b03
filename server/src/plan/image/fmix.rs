//! FMix: masks of arbitrary shape from thresholded low-frequency noise.
//!
//! 2020, <https://arxiv.org/abs/2002.12047>. `lambda ~ Beta(alpha, alpha)`; of the `N` pixels of a random field the `k`
//! of largest value keep the base, `k = lambda N` rounded: `half` takes floor or ceiling with probability 1/2 each (the
//! paper), `stochastic` the ceiling with probability `frac(lambda N)`, which has no bias. `max_soft` > 0 turns the edge
//! into a linear ramp of `2 s` ranks around `k`, `s = floor(N min(max_soft, lambda, 1 - lambda))`. The label weight is
//! the mask's mean, `k / N`.
//!
//! `spectrum = paper` has amplitudes `f^-decay`, `f` in cycles per pixel; `compat` is what the published code makes
//! (see [`crate::plan::fields`]). Fields come from the job's bank; the paper's are periodic and alike everywhere, so a
//! random cyclic shift gives another one. Those of `compat` are not, and stay where they are.
//!
//! Deviations: one mask per unit of the job's granularity instead of one per batch; a finite bank; the label weight is
//! the realised one (`lam_from = sampled` for the paper's); no `reformulate` (one-sided labels).

use crate::plan::fields::Spectrum;
use crate::plan::{Args, Choice, Draws, Mask, Mix, Op, Param, PlanInput, Policy, shared};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct FMix;

impl Policy for FMix {
    fn name(&self) -> &'static str {
        "fmix"
    }
    fn paper(&self) -> &'static str {
        "FMix: Enhancing Mixed Sample Data Augmentation (2020)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2002.12047"
    }
    fn summary(&self) -> &'static str {
        "regions of arbitrary shape from low-frequency noise"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[
            shared::alpha(1.0),
            Param {
                name: "decay",
                default: 3.0,
                min: 0.0,
                max: 10.0,
                doc: "amplitude falls as frequency^-decay",
            },
            Param {
                name: "max_soft",
                default: 0.0,
                min: 0.0,
                max: 0.5,
                doc: "half width of the soft edge, share of pixels",
            },
        ];
        PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        const CHOICES: &[Choice] = &[
            Choice {
                name: "spectrum",
                values: &["paper", "compat"],
                doc: "the paper's, or the one that the published code evaluates",
            },
            Choice {
                name: "rounding",
                values: &["half", "stochastic"],
                doc: "of the pixel count: up or down evenly, or without bias",
            },
            shared::LAM_FROM,
        ];
        CHOICES
    }

    fn mask_words(&self, args: &Args, height: u32, width: u32) -> usize {
        let pixels = height as usize * width as usize;
        if args.number("max_soft") > 0.0 { pixels } else { pixels.div_ceil(32) }
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let (height, width) = (input.height, input.width);
        debug_assert_eq!(input.fields.size(), (height, width), "the bank is the job's");
        let alpha = args.number("alpha");
        let sampled = draws.unit(Draw::Lambda).beta(alpha, alpha);
        let pixels = f64::from(height) * f64::from(width);
        let u = draws.unit(Draw::CountRounding).uniform();
        let (keep, soft) = count(pixels, sampled, u, args.word("rounding"), args.number("max_soft"));
        if f64::from(keep) == pixels {
            return Mix { sampled, ..Mix::copy() };
        }
        let own = if args.word("lam_from") == "sampled" { sampled } else { f64::from(keep) / pixels };
        let decay = args.number("decay");
        let mut place = draws.unit(Draw::MaskField);
        let id = place.below(input.fields.ids()) as u32;
        let mut shift = |side: u32| place.below(u64::from(side)) as u32;
        let (spectrum, shift) = match args.word("spectrum") {
            "compat" => (Spectrum::Compat { decay }, (0, 0)),
            _ => (Spectrum::Paper { decay }, (shift(height), shift(width))),
        };
        let mask = Mask::Ranks { field: input.fields.field(spectrum, id), shift, keep, soft };
        Mix { ops: vec![Op::MaskBlend { src: input.partner, mask }], sampled, own }
    }
}

/// Pixels that keep the base, and half of the ramp, both of `pixels`; `u` in `[0, 1)` decides the rounding.
fn count(pixels: f64, lambda: f64, u: f64, rounding: &str, max_soft: f64) -> (u32, u32) {
    let exact = lambda * pixels;
    let up = if rounding == "stochastic" { u < exact.fract() } else { u < 0.5 };
    let keep = if up { exact.ceil() } else { exact.floor() };
    let soft = (pixels * max_soft.min(lambda).min(1.0 - lambda)).floor();
    // Rounding of the products must not push the ramp over an end.
    (keep as u32, soft.min(keep).min(pixels - keep) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fields::RankMap;
    use crate::plan::image::tests::{defaults, draw_many, weights};
    use std::sync::Arc;

    /// Ranks of the golden field, by hand: 0.9, 0.88, 0.77, 0.62, 0.5, 0.43, 0.35, 0.21, 0.1, 0.05.
    fn golden(keep: u32, soft: u32) -> Vec<f32> {
        let ranks = vec![8, 0, 6, 3, 9, 2, 4, 7, 1, 5];
        let field = Arc::new(RankMap { height: 1, width: 10, id: 0, ranks });
        weights(&Mask::Ranks { field, shift: (0, 0), keep, soft }, 1, 10)
    }

    #[test]
    fn golden_binarisation() {
        let (floor, ceil) = (0.9, 0.1);
        let ones = |m: Vec<f32>| (0..10).filter(|i| m[*i] == 1.0).collect::<Vec<_>>();
        let (keep, soft) = count(10.0, 0.33, floor, "half", 0.0);
        assert_eq!((keep, soft, ones(golden(keep, soft))), (3, 0, vec![1, 5, 8]));
        let (keep, soft) = count(10.0, 0.33, ceil, "half", 0.0);
        assert_eq!((keep, soft, ones(golden(keep, soft))), (4, 0, vec![1, 3, 5, 8]));
        let (keep, soft) = count(10.0, 0.5, ceil, "half", 0.2);
        let mask = golden(keep, soft);
        assert_eq!((keep, soft, ones(mask.clone())), (5, 2, vec![1, 3, 5, 8]));
        assert!((mask[6] - 2.0 / 3.0).abs() < 1e-6 && (mask[9] - 1.0 / 3.0).abs() < 1e-6, "{mask:?}");
        assert!((mask.iter().sum::<f32>() - 5.0).abs() < 1e-6);
    }

    #[test]
    fn rounding_is_half_and_half_or_without_bias() {
        assert_eq!(count(10.0, 0.33, 0.49, "half", 0.0).0, 4);
        assert_eq!(count(10.0, 0.33, 0.51, "half", 0.0).0, 3);
        assert_eq!(count(10.0, 0.33, 0.29, "stochastic", 0.0).0, 4);
        assert_eq!(count(10.0, 0.33, 0.31, "stochastic", 0.0).0, 3);
    }

    #[test]
    fn the_ramp_stays_within_the_ranks() {
        for pixels in [1.0, 7.0, 15.0, 35_840.0] {
            for step in 0..=1000 {
                let lambda = f64::from(step) / 1000.0;
                for u in [0.0, 0.999] {
                    let (keep, soft) = count(pixels, lambda, u, "half", 0.5);
                    assert!(soft <= keep && f64::from(keep + soft) <= pixels, "{pixels} {lambda}");
                }
            }
        }
    }

    #[test]
    fn ids_and_shifts_vary_and_compat_does_not_shift() {
        let mut args = defaults(&FMix);
        let place = |args: &Args| {
            let mixes = draw_many(&FMix, args, 6, 10, 64);
            let ranks = mixes.iter().filter_map(|mix| match &mix.ops[..] {
                [Op::MaskBlend { mask: Mask::Ranks { field, shift, .. }, .. }] => Some((field.id, *shift)),
                _ => None,
            });
            ranks.collect::<Vec<_>>()
        };
        let seen = place(&args);
        assert!(seen.len() > 55 && seen.iter().any(|(id, _)| *id > 2048), "{seen:?}");
        assert!((0..6).all(|y| seen.iter().any(|(_, s)| s.0 == y)), "64 draws miss one of 6 with 5e-5");
        let words = [("spectrum".to_string(), "compat".to_string())].into();
        args = Args::resolve(&FMix.declared(), &[].into(), &words).expect("legal");
        assert!(place(&args).iter().all(|(_, shift)| *shift == (0, 0)));
    }
}
