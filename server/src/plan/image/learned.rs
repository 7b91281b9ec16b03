//! Learned: a network that the operator exported looks at both pictures and makes the mask.
//!
//! AutoMix, ECCV 2022, <https://arxiv.org/abs/2103.13027>; SAMix, 2021, <https://arxiv.org/abs/2111.15454>; AdAutoMix, ICLR
//! 2024, <https://arxiv.org/abs/2312.11954>; AdaMixUp, AAAI 2019, <https://arxiv.org/abs/1809.02499>. What the network gives
//! depends on its kind:
//!
//! * a mask: `lambda ~ Beta(alpha, alpha)` (AutoMix 2, AdAutoMix 1) goes into the network. The label weight is lambda, not
//!   the mask's mean. Where lambda or `1 - lambda` is at most `lam_margin` (AutoMix 0.08, AdAutoMix 0.03), the pair is
//!   blended by lambda without the network.
//! * an interval (AdaMixUp) of length `b` from `a`: `u` is uniform in `[0, 1)`, the pair is blended by `a + u b`, and that is
//!   the label weight. `alpha` and `lam_margin` mean nothing.
//!
//! Deviations: masks of two pictures only; no `mask_adjust`, which is of training. Networks are frozen: the trainer exports
//! them, and a job is pinned to the files of its mixer.

use super::mixup;
use crate::plan::{Args, Draws, Mask, Mix, Op, Param, PlanInput, Policy, shared};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct Learned;

impl Policy for Learned {
    fn name(&self) -> &'static str {
        "learned"
    }
    fn paper(&self) -> &'static str {
        "AutoMix: Unveiling the Power of Mixup for Stronger Classifiers (2022)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2103.13027"
    }
    fn summary(&self) -> &'static str {
        "a mask made by a network of the operator"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[
            shared::alpha(2.0),
            Param {
                name: "lam_margin",
                default: 0.08,
                min: 0.0,
                max: 0.5,
                doc: "a lambda this near to 0 or 1 is blended without the network",
            },
        ];
        PARAMS
    }
    fn mixer(&self) -> Option<&'static str> {
        Some("mixer")
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let (mixer, interval) = (args.number("mixer") as u32, args.number("interval") != 0.0);
        let mut rng = draws.unit(Draw::Lambda);
        let alpha = args.number("alpha");
        let sampled = if interval { rng.uniform() } else { rng.beta(alpha, alpha) };
        if !interval && sampled.min(1.0 - sampled) <= args.number("lam_margin") {
            return mixup::blend(input.partner, sampled);
        }
        let mask = Mask::Learned { mixer, lambda: sampled as f32, interval };
        Mix { ops: vec![Op::MaskBlend { src: input.partner, mask }], sampled, own: sampled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::image::tests::draw_many;
    use std::collections::BTreeMap;

    fn args(numbers: &[(&str, f64)], interval: f64) -> Args {
        let numbers = numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let args = Args::resolve(&Learned.declared(), &numbers, &BTreeMap::new()).expect("legal");
        args.with("mixer", 3.0).with("interval", interval)
    }

    #[test]
    fn near_the_ends_the_network_is_not_asked() {
        let mut asked = 0;
        for mix in draw_many(&Learned, &args(&[], 0.0), 8, 8, 400) {
            assert_eq!(mix.own, mix.sampled, "the label weight is lambda as drawn");
            let near = mix.sampled.min(1.0 - mix.sampled) <= 0.08;
            match &mix.ops[..] {
                [Op::MaskBlend { src: 1, mask: Mask::Learned { mixer: 3, lambda, interval: false } }] => {
                    assert!(!near && *lambda == mix.sampled as f32);
                    asked += 1;
                }
                [Op::Blend { .. }] => assert!(near, "{}", mix.sampled),
                other => panic!("{other:?}"),
            }
        }
        // Beta(2, 2) has 2 (3 * 0.08^2 - 2 * 0.08^3) = 3.6 % within the margins: 386 +- 4 of 400.
        assert!((370..400).contains(&asked), "{asked}");
    }

    #[test]
    fn an_interval_gets_a_uniform_number_whatever_the_other_arguments() {
        let draws = draw_many(&Learned, &args(&[("lam_margin", 0.5), ("alpha", 0.01)], 1.0), 8, 8, 400);
        let asked = |mix: &Mix| {
            matches!(mix.ops[..], [Op::MaskBlend { mask: Mask::Learned { interval: true, .. }, .. }])
        };
        assert!(draws.iter().all(asked));
        let mean = draws.iter().map(|mix| mix.sampled).sum::<f64>() / 400.0;
        assert!((mean - 0.5).abs() < 0.06, "{mean}: 4 standard errors of 0.0144");
    }
}
