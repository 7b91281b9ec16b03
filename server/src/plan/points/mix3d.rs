//! Mix3D: the union of whole scenes, each transformed on its own.
//!
//! 3DV 2021, <https://arxiv.org/abs/2110.02210>. Nothing is drawn: a row is the base, its partner, the partner's partner
//! and so on, `scenes` of them, each scene once. A pairing whose cycle is shorter (`flip` and `consecutive` have cycles
//! of two) gives as many as it has. The probability of mixing is the job's gate.

use crate::plan::{Args, Draws, Mix, Op, Param, PlanInput, Policy};

/// See the module.
#[derive(Debug)]
pub struct Mix3d;

impl Policy for Mix3d {
    fn name(&self) -> &'static str {
        "mix3d"
    }
    fn paper(&self) -> &'static str {
        "Mix3D: Out-of-Context Data Augmentation for 3D Scenes (2021)"
    }
    fn url(&self) -> &'static str {
        "https://arxiv.org/abs/2110.02210"
    }
    fn summary(&self) -> &'static str {
        "union of whole scenes"
    }
    fn params(&self) -> &'static [Param] {
        &[Param { name: "scenes", default: 2.0, min: 2.0, max: 8.0, doc: "scenes of a row, whole number" }]
    }

    fn draw(&self, input: &PlanInput<'_>, args: &Args, _: &Draws<'_>) -> Mix {
        let most = args.number("scenes") as usize;
        let mut row = vec![input.base];
        let mut at = input.base;
        while row.len() < most {
            at = input.next[at as usize];
            if row.contains(&at) {
                break;
            }
            row.push(at);
        }
        row.remove(0);
        if row.is_empty() {
            return Mix::copy();
        }
        Mix { ops: vec![Op::Union { scenes: row }], ..Mix::copy() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::points::tests::{args, draw};

    /// Scenes that come to row `base`.
    fn scenes(most: f64, base: u32, next: &[u32]) -> Vec<u32> {
        let mix = draw(&Mix3d, &args(&Mix3d, &[("scenes", most)]), base, next, 0);
        match &mix.ops[..] {
            [] => Vec::new(),
            [Op::Union { scenes }] => scenes.clone(),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn a_row_walks_from_partner_to_partner_and_takes_every_scene_once() {
        let roll = [3, 0, 1, 2];
        assert_eq!(scenes(2.0, 1, &roll), [0]);
        assert_eq!(scenes(3.0, 1, &roll), [0, 3]);
        assert_eq!(scenes(8.0, 1, &roll), [0, 3, 2], "the cycle has four");
        assert_eq!(scenes(8.0, 1, &[1, 0]), [0], "the cycle has two");
        assert_eq!(scenes(8.0, 0, &[1, 2, 1]), [1, 2], "a walk into a cycle that leaves its start out");
        assert_eq!(scenes(8.0, 0, &[1, 1]), [1], "a scene without partner ends the walk");
        assert_eq!(scenes(2.0, 0, &[0]), [0; 0], "alone");
    }
}
