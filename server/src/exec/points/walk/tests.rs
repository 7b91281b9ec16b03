//! Walks against the words of the steps, one number after the other.

use super::*;
use proptest::prelude::*;

/// The words of a step.
fn plain(step: &Step<'_>, values: &mut [[f32; 3]]) {
    for (i, v) in values.iter_mut().enumerate() {
        *v = match step {
            Step::Less(by) => std::array::from_fn(|a| (f64::from(v[a]) - by[a]) as f32),
            Step::Add(by) => std::array::from_fn(|a| v[a] + by[a]),
            Step::Scale(by) => std::array::from_fn(|a| v[a] * by[a]),
            Step::Mirror { sign, from } => std::array::from_fn(|a| from[a] + sign[a] * v[a]),
            Step::Turn { matrix: m, about } => {
                let d: [f32; 3] = std::array::from_fn(|a| v[a] - about[a]);
                std::array::from_fn(|a| ((m[a][0] * d[0] + m[a][1] * d[1]) + m[a][2] * d[2]) + about[a])
            }
            Step::Offsets(offsets) => std::array::from_fn(|a| v[a] + offsets[i][a]),
            Step::Tint { gain, offset, shift } => std::array::from_fn(|a| {
                ((gain * v[a] + offset).clamp(0.0, 255.0) + shift[a]).clamp(0.0, 255.0)
            }),
            Step::ClippedOffsets(offsets) => {
                std::array::from_fn(|a| (v[a] + offsets[i][a]).clamp(0.0, 255.0))
            }
        };
    }
}

/// Four lanes of sums, added as `(0 + 1) + (2 + 3)`.
fn plain_mean(values: &[[f32; 3]]) -> [f64; 3] {
    std::array::from_fn(|a| {
        let mut lanes = [0.0f64; 4];
        values.iter().enumerate().for_each(|(i, v)| lanes[i % 4] += f64::from(v[a]));
        ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) / values.len().max(1) as f64
    })
}

fn plain_bounds(values: &[[f32; 3]]) -> Extent {
    let fold =
        |f: fn(f32, f32) -> f32, from| std::array::from_fn(|a| values.iter().map(|v| v[a]).fold(from, f));
    (fold(f32::min, f32::INFINITY), fold(f32::max, f32::NEG_INFINITY))
}

fn bits(values: &[[f32; 3]]) -> Vec<u32> {
    values.as_flattened().iter().map(|v| v.to_bits()).collect()
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn range(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (high - low) * ((bits ^ bits >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn random(seed: u64, n: usize, size: f64) -> Vec<[f32; 3]> {
    let mut numbers = Numbers(seed);
    (0..n).map(|_| [0; 3].map(|_| numbers.range(-size, size) as f32)).collect()
}

/// A step of the `kind`-th sort with random numbers.
fn step<'a>(kind: usize, numbers: &mut Numbers, offsets: &'a [[f32; 3]]) -> Step<'a> {
    let mut three = |size: f64| [0; 3].map(|_| numbers.range(-size, size));
    let narrow = |v: [f64; 3]| v.map(|v| v as f32);
    match kind {
        0 => Step::Less(three(300.0)),
        1 => Step::Add(narrow(three(300.0))),
        2 => Step::Scale(narrow(three(2.0))),
        3 => {
            let (sign, from) = (three(1.0).map(|v| v.signum() as f32), narrow(three(300.0)));
            Step::Mirror { sign, from: std::array::from_fn(|a| if sign[a] < 0.0 { from[a] } else { -0.0 }) }
        }
        4 => Step::Turn { matrix: [0; 3].map(|_| narrow(three(1.0))), about: narrow(three(300.0)) },
        5 => Step::Offsets(offsets),
        6 => {
            let [gain, offset, _] = narrow(three(2.0));
            Step::Tint { gain, offset: 20.0 * offset, shift: narrow(three(20.0)) }
        }
        _ => Step::ClippedOffsets(offsets),
    }
}

/// Odd sizes around blocks and lanes.
const SIZES: [usize; 9] = [0, 1, 3, 4, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7];

proptest! {
    #[test]
    fn a_walk_is_one_step_after_the_other_at_every_level(
        which in 0..SIZES.len(), seed: u64, stored_input: bool, picks in proptest::collection::vec((0usize..8, 0..4), 0..7),
    ) {
        let n = SIZES[which];
        let offsets = random(seed ^ 1, n, 3.0);
        let stored: Vec<[f64; 3]> =
            random(seed, n, 1e6).into_iter().map(|v| v.map(|v| f64::from(v) + 5e6)).collect();
        let placed = random(seed, n, 200.0);
        let centre = [5e6, 5e6 - 3.5, 4.9e6];
        let begin: Vec<[f32; 3]> = match stored_input {
            false => placed.clone(),
            true => stored.iter().map(|v| std::array::from_fn(|a| (v[a] - centre[a]) as f32)).collect(),
        };
        let mut numbers = Numbers(!seed);
        let steps: Vec<_> = picks.iter().map(|(kind, ask)| (step(*kind, &mut numbers, &offsets), *ask)).collect();
        for level in Level::all() {
            let from = if stored_input { Input::Stored(&stored, centre) } else { Input::Place };
            let known = (n > 0).then(|| plain_bounds(&begin));
            let mut want = begin.clone();
            let mut walk = Walk::new(placed.clone(), from, known).at(*level);
            for (step, ask) in &steps {
                walk.push(*step);
                plain(step, &mut want);
                match ask {
                    0 => prop_assert_eq!(walk.mean(), plain_mean(&want)),
                    1 if n > 0 => prop_assert_eq!(walk.bounds(), plain_bounds(&want)),
                    2 => prop_assert_eq!(bits(walk.values()), bits(&want)),
                    _ => {}
                }
            }
            if n > 0 {
                prop_assert_eq!(walk.bounds(), plain_bounds(&want));
            }
            prop_assert_eq!(bits(&walk.done()), bits(&want));
        }
    }

    #[test]
    fn stored_coordinates_are_measured_as_told(which in 0..SIZES.len(), seed: u64) {
        let coord: Vec<[f64; 3]> =
            random(seed, SIZES[which], 1e3).into_iter().map(|v| v.map(|v| f64::from(v) + 1e7)).collect();
        let mut lanes = [[0.0f64; 3]; 4];
        coord.iter().enumerate().for_each(|(i, v)| (0..3).for_each(|a| lanes[i % 4][a] += v[a]));
        let count = coord.len().max(1) as f64;
        let mean = std::array::from_fn(|a| ((lanes[0][a] + lanes[1][a]) + (lanes[2][a] + lanes[3][a])) / count);
        let shape = crate::plan::scene::Shape::of(&coord);
        for level in Level::all() {
            prop_assert_eq!(level.measure(&coord), lanes::Measured { shape, mean });
        }
    }
}

#[test]
#[should_panic(expected = "offsets of another number of points")]
fn offsets_of_another_number_are_refused() {
    Walk::new(random(1, 5, 1.0), Input::Place, None).push(Step::Offsets(&[[0.0; 3]; 6]));
}

#[test]
fn an_extent_is_forgotten_when_points_are_handed_out() {
    let mut walk = Walk::new(vec![[1.0; 3], [2.0; 3]], Input::Place, None);
    assert_eq!(walk.bounds(), ([1.0; 3], [2.0; 3]));
    walk.values()[1] = [5.0, -7.0, 2.0];
    assert_eq!(walk.bounds(), ([1.0, -7.0, 1.0], [5.0, 1.0, 2.0]));
}
