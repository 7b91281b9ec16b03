//! LaserMix: every second band of inclination comes from the partner.
//!
//! CVPR 2023, <https://arxiv.org/abs/2207.00026>. `bands ~ U{bands_min..bands_max}` (the authors' set is 3, 4, 5, 6)
//! equal bands between `pitch_min` and `pitch_max` degrees of inclination, the sensor's field of view (-25..3 for
//! SemanticKITTI); whether the even or the odd ones leave is drawn too, half and half. The outermost bands reach beyond
//! the range, so every point is in one; one band is a copy. Meant for scans that keep the sensor at the origin.
//!
//! Deviations: bands count from the lowest. With granularity `pair` the two rows of a pair are the two mixtures of the
//! paper. A public port loses the points outside the range, since it compares radians with degrees.

use crate::plan::{Args, Draws, Mix, Op, Param, PlanInput, Policy};
use crate::rng::Draw;
use std::f64::consts::PI;

/// See the module.
#[derive(Debug)]
pub struct LaserMix;

impl Policy for LaserMix {
    fn name(&self) -> &'static str {
        "lasermix"
    }
    fn paper(&self) -> &'static str {
        "LaserMix for Semi-Supervised LiDAR Semantic Segmentation (2022)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2207.00026"
    }
    fn summary(&self) -> &'static str {
        "every second band of inclination comes from the partner"
    }
    fn params(&self) -> &'static [Param] {
        const fn number(name: &'static str, default: f64, min: f64, max: f64, doc: &'static str) -> Param {
            Param { name, default, min, max, doc }
        }
        const PARAMS: &[Param] = &[
            number("bands_min", 3.0, 1.0, 64.0, "fewest bands, whole number"),
            number("bands_max", 6.0, 1.0, 64.0, "most bands, whole number"),
            number("pitch_min", -25.0, -90.0, 90.0, "lowest inclination, degrees"),
            number("pitch_max", 3.0, -90.0, 90.0, "highest inclination, degrees"),
        ];
        PARAMS
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let (fewest, most) = (args.number("bands_min") as u64, args.number("bands_max") as u64);
        let bands = draws.unit(Draw::PrivateA).between(fewest, most);
        if bands == 1 {
            return Mix::copy();
        }
        let odd = draws.unit(Draw::PrivateB).chance(0.5);
        let edges = edges(bands, args.number("pitch_min"), args.number("pitch_max"));
        Mix { ops: vec![Op::Bands { src: input.partner, edges: edges.into(), odd }], ..Mix::copy() }
    }
}

/// Inner edges, in radians, of equal bands between `low` and `high` degrees.
fn edges(bands: u64, low: f64, high: f64) -> Vec<f32> {
    let degrees = (1..bands).map(|k| low + (high - low) * k as f64 / bands as f64);
    degrees.map(|d| (d * (PI / 180.0)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::points::tests::{args, draw_many};
    use std::collections::BTreeMap;

    #[test]
    fn golden_edges() {
        let degrees = |e: Vec<f32>| e.into_iter().map(|e| e.to_degrees()).collect::<Vec<_>>();
        let got = degrees(edges(4, -25.0, 3.0));
        assert!(got.iter().zip([-18.0, -11.0, -4.0]).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?}");
        assert_eq!(got.len(), 3);
        assert!(edges(1, -25.0, 3.0).is_empty());
        assert_eq!(edges(3, 3.0, 3.0).len(), 2, "an empty range has empty inner bands");
    }

    #[test]
    fn bands_and_their_order_are_uniform() {
        let mut seen: BTreeMap<(usize, bool), u32> = BTreeMap::new();
        for mix in draw_many(&LaserMix, &args(&LaserMix, &[]), 4000) {
            let [Op::Bands { src: 1, edges, odd }] = &mix.ops[..] else { panic!("{mix:?}") };
            assert!(edges.is_sorted());
            *seen.entry((edges.len() + 1, *odd)).or_default() += 1;
        }
        assert_eq!(seen.keys().map(|k| k.0).min().zip(seen.keys().map(|k| k.0).max()), Some((3, 6)));
        // Eight cells, p = 1/8, n = 4000: four standard deviations are 84, false alarm 5e-4 for all; the seed is fixed.
        assert!(seen.len() == 8 && seen.values().all(|c| (416..584).contains(c)), "{seen:?}");
    }

    #[test]
    fn one_band_is_a_copy() {
        let one = args(&LaserMix, &[("bands_min", 1.0), ("bands_max", 1.0)]);
        assert_eq!(draw_many(&LaserMix, &one, 1), [Mix::copy()]);
    }
}
