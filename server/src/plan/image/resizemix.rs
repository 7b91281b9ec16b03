//! ResizeMix: the whole partner, shrunk, is pasted on the base.
//!
//! 2020, <https://arxiv.org/abs/2012.11101>. `law = uniform`: `tau ~ U(tau_min, tau_max)`; `beta`: `tau ~ Beta(alpha,
//! alpha)`, drawn uniformly instead where it falls outside the range (openmixup); `lambda`: `lambda = tau_min +
//! (tau_max - tau_min) Beta(alpha, alpha)` and `tau = sqrt(1 - lambda)` (mmpretrain). The box has sides `int(height
//! tau)`, `int(width tau)` and a uniform centre; it is clipped as in the authors' CutMix (`classic_even`), and the
//! partner is squashed into what is left. The label weight is the area outside the box; lambda as drawn is
//! `1 - tau^2`. Resampling is `interp`; the paper and mmpretrain use bilinear, openmixup nearest.

use crate::plan::{
    Args, Choice, Draws, Filter, Mix, Op, Param, PlanInput, Policy, Rect, boxes, boxes::BoxRule, shared,
};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct ResizeMix;

impl Policy for ResizeMix {
    fn name(&self) -> &'static str {
        "resizemix"
    }
    fn paper(&self) -> &'static str {
        "ResizeMix: Mixing Data with Preserved Object Information and True Labels (2020)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2012.11101"
    }
    fn summary(&self) -> &'static str {
        "the whole partner, shrunk into a rectangle"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[
            shared::alpha(1.0),
            Param {
                name: "tau_min",
                default: 0.1,
                min: 0.0,
                max: 1.0,
                doc: "smallest side over the raster's",
            },
            Param {
                name: "tau_max",
                default: 0.8,
                min: 0.0,
                max: 1.0,
                doc: "largest side over the raster's",
            },
        ];
        PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        const CHOICES: &[Choice] = &[
            Choice {
                name: "interp",
                values: &["bilinear", "nearest", "area"],
                doc: "resampling of the partner; area is antialiased",
            },
            Choice { name: "law", values: &["uniform", "beta", "lambda"], doc: "what is drawn" },
            shared::LAM_FROM,
        ];
        CHOICES
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let (height, width) = (input.height, input.width);
        let (tau, sampled) = scale(args, draws);
        let cy = draws.unit(Draw::CenterY).below(u64::from(height)) as u32;
        let cx = draws.unit(Draw::CenterX).below(u64::from(width)) as u32;
        let dst_rect = boxes::centred(height, width, tau, cy, cx, BoxRule::ClassicEven);
        if dst_rect.area() == 0 {
            return Mix { sampled, ..Mix::copy() };
        }
        let area = boxes::share_outside(height, width, dst_rect);
        let own = if args.word("lam_from") == "sampled" { sampled } else { area };
        let filter = match args.word("interp") {
            "nearest" => Filter::Nearest,
            "area" => Filter::Area,
            _ => Filter::Bilinear,
        };
        let src_rect = Rect::full(height, width);
        Mix { ops: vec![Op::Paste { src: input.partner, src_rect, dst_rect, filter }], sampled, own }
    }
}

/// Side of the box over the raster's, and the lambda that it stands for.
fn scale(args: &Args, draws: &Draws<'_>) -> (f64, f64) {
    let (low, high, alpha) = (args.number("tau_min"), args.number("tau_max"), args.number("alpha"));
    let beta = || draws.unit(Draw::Lambda).beta(alpha, alpha);
    let uniform = || draws.unit(Draw::PrivateA).range(low, high);
    let tau = match args.word("law") {
        "lambda" => {
            let lambda = low + (high - low) * beta();
            return (libm::sqrt(1.0 - lambda), lambda);
        }
        "beta" => Some(beta()).filter(|tau| (low..=high).contains(tau)).unwrap_or_else(uniform),
        _ => uniform(),
    };
    (tau, 1.0 - tau * tau)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::tests::{defaults, draw_many};

    #[test]
    fn golden_boxes() {
        let check = |h: u32, w: u32, tau: f64, centre: (u32, u32), want: [u32; 4], own: f64| {
            let r = boxes::centred(h, w, tau, centre.0, centre.1, BoxRule::ClassicEven);
            assert_eq!([r.y0, r.y1, r.x0, r.x1], want);
            assert!((boxes::share_outside(h, w, r) - own).abs() < 1e-7);
        };
        check(224, 224, 0.37, (30, 180), [0, 71, 139, 221], 0.883_968_4);
        check(32, 32, 0.8, (16, 16), [4, 28, 4, 28], 0.4375);
        check(32, 32, 0.1, (31, 0), [30, 32, 0, 1], 0.998_046_9);
    }

    #[test]
    fn the_whole_partner_goes_into_a_box_of_the_drawn_scale() {
        let args = defaults(&ResizeMix);
        let mixes = draw_many(&ResizeMix, &args, 224, 160, 4000);
        for mix in &mixes {
            let [Op::Paste { src_rect, dst_rect, filter: Filter::Bilinear, .. }] = mix.ops[..] else {
                panic!("{mix:?}")
            };
            assert_eq!(src_rect, Rect::full(224, 160));
            let tau = (1.0 - mix.sampled).sqrt();
            assert!((0.1..0.8).contains(&tau), "{tau}");
            assert!(f64::from(dst_rect.y1 - dst_rect.y0) <= 224.0 * tau);
        }
        // Per axis E[visible | tau] = tau - tau^2 / 4, so E[pasted] = E[(tau - tau^2 / 4)^2] = 0.1761 for U(0.1, 0.8)
        // in the continuum; 0.1731 on these pixels (sides are cut to even numbers), by an independent simulation of
        // 200,000 boxes. The standard deviation is 0.133: 4000 draws leave the band with a probability of 6e-5, and the
        // seed is fixed.
        let pasted = 1.0 - mixes.iter().map(|m| m.own).sum::<f64>() / mixes.len() as f64;
        assert!((pasted - 0.1731).abs() < 4.0 * 0.133 / 4000f64.sqrt(), "{pasted}");
    }
}
