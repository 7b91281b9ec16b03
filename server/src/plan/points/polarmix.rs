//! PolarMix: a sector of azimuth is exchanged with the partner, and turned copies of its objects are pasted.
//!
//! NeurIPS 2022, <https://arxiv.org/abs/2208.00223>. With `swap_prob` the points of a sector of `width` degrees (180 in
//! the paper) leave and the partner's come. With `paste_prob` the partner's points of the classes
//! `class_min..=class_max` (0..=7: the movable things of SemanticKITTI's 19 classes) come in `copies` copies: one where
//! they stand, copy j > 0 turned about z by `2 pi / copies * U(j - 1, j)`. Meant for scans that keep the sensor at the
//! origin: a job that shifts its scenes moves the poles apart.
//!
//! Deviations: a sector may begin at any azimuth, where the authors' code never lets it cross the one straight behind
//! the sensor; angles are drawn for every unit of the job's granularity, where that code draws them once per process.
//! With granularity `pair` both scans of a pair exchange the same sector, as in the paper.

use crate::plan::{Args, Draws, Mix, Op, Param, PlanInput, Policy};
use crate::rng::Draw;
use std::f64::consts::PI;

/// See the module.
#[derive(Debug)]
pub struct PolarMix;

impl Policy for PolarMix {
    fn name(&self) -> &'static str {
        "polarmix"
    }
    fn paper(&self) -> &'static str {
        "PolarMix: A General Data Augmentation Technique for LiDAR Point Clouds (2022)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2208.00223"
    }
    fn summary(&self) -> &'static str {
        "a sector of azimuth is exchanged, turned objects are pasted"
    }
    fn params(&self) -> &'static [Param] {
        const fn number(name: &'static str, default: f64, min: f64, max: f64, doc: &'static str) -> Param {
            Param { name, default, min, max, doc }
        }
        const PARAMS: &[Param] = &[
            number("swap_prob", 0.5, 0.0, 1.0, "probability of exchanging a sector"),
            number("width_min", 180.0, 1.0, 360.0, "narrowest sector, degrees"),
            number("width_max", 180.0, 1.0, 360.0, "widest sector, degrees"),
            number("paste_prob", 1.0, 0.0, 1.0, "probability of pasting objects"),
            number("class_min", 0.0, 0.0, 255.0, "first class that is pasted, whole number"),
            number("class_max", 7.0, 0.0, 255.0, "last class that is pasted, whole number"),
            number("copies", 3.0, 1.0, 8.0, "copies of an object with the one in place, whole number"),
        ];
        PARAMS
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, draws: &Draws<'_>) -> Mix {
        let src = input.partner;
        let mut ops = Vec::new();
        if draws.unit(Draw::PrivateA).chance(args.number("swap_prob")) {
            let mut rng = draws.unit(Draw::PrivateB);
            let from = rng.range(-PI, PI);
            let width = rng.range(args.number("width_min"), args.number("width_max")) * (PI / 180.0);
            ops.push(Op::Sectors { src, from: from as f32, to: (from + width) as f32 });
        }
        if draws.unit(Draw::PrivateC).chance(args.number("paste_prob")) {
            let (low, high) = (args.number("class_min") as i32, args.number("class_max") as i32);
            let copies = args.number("copies") as u32;
            let mut rng = draws.unit(Draw::PrivateD);
            let turned = (1..copies).map(|j| rng.range(f64::from(j - 1), f64::from(j)));
            let part = 2.0 * PI / f64::from(copies);
            let angles = std::iter::once(0.0).chain(turned.map(|u| (u * part) as f32)).collect();
            ops.push(Op::Instances { src, classes: (low..=high).collect(), angles });
        }
        Mix { ops, ..Mix::copy() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::points::tests::{args, draw_many};

    #[test]
    fn a_sector_of_half_a_turn_begins_anywhere_in_half_of_the_rows() {
        let mixes = draw_many(&PolarMix, &args(&PolarMix, &[("paste_prob", 0.0)]), 4000);
        let sectors: Vec<(f32, f32)> = mixes
            .iter()
            .filter_map(|mix| match &mix.ops[..] {
                [] => None,
                [Op::Sectors { src: 1, from, to }] => Some((*from, *to)),
                more => panic!("{more:?}"),
            })
            .collect();
        // Binomial, n = 4000, p = 0.5: four standard deviations are 0.032, false alarm 6e-5.
        let share = sectors.len() as f64 / 4000.0;
        assert!((share - 0.5).abs() < 0.032, "{share}");
        let pi = std::f32::consts::PI;
        assert!(sectors.iter().all(|(from, to)| (to - from - pi).abs() < 1e-6 && (-pi..pi).contains(from)));
        // Uniform, n about 2000: four standard deviations of the mean are 0.163, of a half 0.045.
        let mean = sectors.iter().map(|s| f64::from(s.0)).sum::<f64>() / sectors.len() as f64;
        assert!(mean.abs() < 0.163, "{mean}");
        let first = sectors.iter().filter(|s| s.0 < 0.0).count() as f64 / sectors.len() as f64;
        assert!((first - 0.5).abs() < 0.045, "{first}");
    }

    #[test]
    fn copies_stand_in_turned_thirds() {
        let third = std::f32::consts::TAU / 3.0;
        for mix in draw_many(&PolarMix, &args(&PolarMix, &[("swap_prob", 0.0)]), 200) {
            let [Op::Instances { src: 1, classes, angles }] = &mix.ops[..] else { panic!("{mix:?}") };
            assert_eq!(classes[..], [0, 1, 2, 3, 4, 5, 6, 7]);
            let [place, first, second] = angles[..] else { panic!("{angles:?}") };
            assert_eq!(place, 0.0);
            assert!((0.0..=third).contains(&first) && (third..=2.0 * third + 1e-6).contains(&second));
        }
        let one = draw_many(&PolarMix, &args(&PolarMix, &[("copies", 1.0), ("swap_prob", 1.0)]), 1);
        assert!(
            matches!(&one[0].ops[..], [Op::Sectors { .. }, Op::Instances { angles, .. }] if angles[..] == [0.0])
        );
    }

    #[test]
    fn without_swap_and_paste_a_row_is_a_copy() {
        let never = args(&PolarMix, &[("swap_prob", 0.0), ("paste_prob", 0.0)]);
        assert_eq!(draw_many(&PolarMix, &never, 1), [Mix::copy()]);
    }
}
