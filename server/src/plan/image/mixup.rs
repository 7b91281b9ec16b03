//! Mixup: a convex combination of two images and their labels.
//!
//! ICLR 2018, <https://arxiv.org/abs/1710.09412>. `lambda ~ Beta(alpha, alpha)`; no clipping. The label weight is
//! lambda. `lam_fold = max` uses `max(lambda, 1 - lambda)`, so that the base dominates (MixMatch).

use crate::plan::{Args, Choice, Draws, Mix, Op, Param, PlanInput, Policy, shared};
use crate::rng::Draw;

/// See the module.
#[derive(Debug)]
pub struct Mixup;

impl Policy for Mixup {
    fn name(&self) -> &'static str {
        "mixup"
    }
    fn paper(&self) -> &'static str {
        "mixup: Beyond Empirical Risk Minimization (2018)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/1710.09412"
    }
    fn summary(&self) -> &'static str {
        "convex combination of two images"
    }
    fn params(&self) -> &'static [Param] {
        const PARAMS: &[Param] = &[shared::alpha(1.0)];
        PARAMS
    }
    fn choices(&self) -> &'static [Choice] {
        &[Choice {
            name: "lam_fold",
            values: &["none", "max"],
            doc: "max: lambda becomes max(lambda, 1 - lambda)",
        }]
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let alpha = args.number("alpha");
        let drawn = draws.unit(Draw::Lambda).beta(alpha, alpha);
        let sampled = if args.word("lam_fold") == "max" { drawn.max(1.0 - drawn) } else { drawn };
        blend(input.partner, sampled)
    }
}

/// The mix of a given lambda; a lambda that rounds to 1 is a copy, bit for bit.
pub fn blend(partner: u32, sampled: f64) -> Mix {
    let (lambda, rest) = (sampled as f32, (1.0 - sampled) as f32);
    if lambda == 1.0 {
        return Mix { sampled, ..Mix::copy() };
    }
    Mix { ops: vec![Op::Blend { src: partner, lambda, rest }], sampled, own: sampled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_one_is_a_copy_and_tails_keep_their_precision() {
        assert_eq!(blend(1, 1.0).ops, []);
        assert_eq!(blend(1, 1.0 - 1e-9).ops, [], "rounds to one in f32, as in timm");
        let tail = blend(1, 1e-9);
        assert_eq!(tail.ops, [Op::Blend { src: 1, lambda: 1e-9, rest: 1.0 }]);
        assert_eq!(tail.own, 1e-9);
    }
}
