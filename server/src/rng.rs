//! The only generator: addressed, not consumed.
//!
//! A draw is found by (seed, stream name, meaning, step, slot): ChaCha8 with
//! `key = BLAKE3(seed ‖ name ‖ meaning)`, `stream = step`, `word position = slot << 32`. A new draw in one policy moves
//! no other, and nothing depends on threads or order. Transcendental functions come from `libm`, never from `std`,
//! whose results differ between platforms.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};
use std::sync::LazyLock;

/// What a draw is for. The numbers are part of every job's numerics: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Draw {
    Gate = 0,
    Switch = 1,
    Pairing = 2,
    Lambda = 3,
    CenterY = 4,
    CenterX = 5,
    MaskField = 6,
    CountRounding = 7,
    Warp = 8,
    LabelNoise = 9,
    /// Private to a policy.
    PrivateA = 10,
    /// Private to a policy.
    PrivateB = 11,
    /// Private to a policy.
    PrivateC = 12,
    /// Private to a policy.
    PrivateD = 13,
    Flip = 14,
    Colour = 15,
    Erase = 16,
    Clean = 17,
    Order = 18,
    Permutation = 19,
    Probe = 20,
    /// Points that a scene keeps.
    SceneKeep = 21,
    /// Centre of a scene's crop.
    SceneCrop = 22,
    SceneShift = 23,
    SceneFlip = 24,
    /// Whether a scene is distorted, then the nodes of every pass.
    SceneElastic = 25,
    SceneScale = 26,
    SceneRotate = 27,
    SceneJitter = 28,
    /// Brightness, contrast, shift and dropped channels.
    SceneColour = 29,
    SceneColourJitter = 30,
    /// Which point stands for its voxel.
    SceneVoxel = 31,
}

/// Number of meanings.
const DRAWS: u8 = 32;

/// All draws of one seed and name; building it costs one hash per meaning, [`Stream::at`] none.
#[derive(Clone, Debug)]
pub struct Stream {
    keys: [[u8; 32]; DRAWS as usize],
}

impl Stream {
    /// Stream `name` of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        let key = |draw: usize| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes());
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&[draw as u8]);
            *hasher.finalize().as_bytes()
        };
        Stream { keys: std::array::from_fn(key) }
    }

    /// Generator of one draw. `slot` < 2^36.
    pub fn at(&self, draw: Draw, step: u64, slot: u64) -> Rng {
        let mut inner = ChaCha8Rng::from_seed(self.keys[draw as usize]);
        inner.set_stream(step);
        inner.set_word_pos(u128::from(slot) << 32);
        Rng { inner }
    }
}

/// Numbers of one draw, in order.
#[derive(Clone, Debug)]
pub struct Rng {
    inner: ChaCha8Rng,
}

impl Rng {
    /// Uniform 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `(0, 1]`, for logarithms.
    fn uniform_open(&mut self) -> f64 {
        1.0 - self.uniform()
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform integer in `[0, n)` without modulo bias; 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let wide = u128::from(self.bits()) * u128::from(n);
            // Reject the part of the range that would make small values likelier.
            if wide as u64 >= n.wrapping_neg().checked_rem(n).unwrap_or(0) {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Uniform integer in `low..=high`; `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box-Muller, the sine half is not used, so that each call takes two words).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform_open()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
    }

    /// Standard normals in f32, for fields of many: a ziggurat (Marsaglia and Tsang 2000) of 256 layers. A value takes
    /// one 32-bit word, about one in eighty takes more, so what follows in this draw depends on all of them.
    pub fn normals(&mut self, out: &mut [f32]) {
        let ziggurat: &Ziggurat = &ZIGGURAT;
        out.iter_mut().for_each(|value| *value = ziggurat.draw(self));
    }

    /// Natural logarithm of a Gamma(shape, 1) variate, `shape` > 0 (Marsaglia and Tsang 2000). Shapes below one use
    /// the boost in log space: at 0.01 the variate itself underflows.
    pub fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = libm::log(self.uniform_open()) / shape;
            return self.log_gamma(shape + 1.0) + boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let root = 1.0 + c * x;
            if root <= 0.0 {
                continue;
            }
            let v = root * root * root;
            if libm::log(self.uniform_open()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return libm::log(d * v);
            }
        }
    }

    /// Beta(a, b) variate in `[0, 1]`, `a, b` > 0.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let x = self.log_gamma(a);
        let y = self.log_gamma(b);
        1.0 / (1.0 + libm::exp(y - x))
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// Uniform permutation of `0..n`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut order);
        order
    }
}

/// Where the tail of the ziggurat begins, and the area of each of its layers.
const TAIL: f64 = 3.654_152_885_361_009;
const AREA: f64 = 0.004_928_673_233_974_655;
/// Steps of a value across its layer, to either side of 0; they fit an f32 exactly.
const STEPS: f64 = (1u32 << 23) as f64;

static ZIGGURAT: LazyLock<Ziggurat> = LazyLock::new(Ziggurat::new);

/// 256 layers of equal area that cover the density `exp(-x^2 / 2)`; layer 0 is the base with the tail.
#[derive(Debug)]
struct Ziggurat {
    /// Steps below which a value of the layer lies under the density for certain.
    sure: [u32; 256],
    /// Width of a step.
    step: [f32; 256],
    /// Density at the right edge of the layer.
    density: [f64; 256],
}

impl Ziggurat {
    fn new() -> Self {
        let density = |x: f64| libm::exp(-0.5 * x * x);
        // Right edges from the bottom up; the base is as wide as a box of its whole area would be.
        let mut edge = [0.0; 257];
        edge[0] = AREA / density(TAIL);
        edge[1] = TAIL;
        for i in 2..256 {
            edge[i] = libm::sqrt(-2.0 * libm::log(AREA / edge[i - 1] + density(edge[i - 1])));
        }
        Ziggurat {
            sure: std::array::from_fn(|i| (edge[i + 1] / edge[i] * STEPS) as u32),
            step: std::array::from_fn(|i| (edge[i] / STEPS) as f32),
            density: std::array::from_fn(|i| density(edge[i])),
        }
    }

    #[inline]
    fn draw(&self, rng: &mut Rng) -> f32 {
        loop {
            let word = rng.inner.next_u32();
            let (layer, steps) = ((word & 255) as usize, word as i32 >> 8);
            let value = steps as f32 * self.step[layer];
            if steps.unsigned_abs() < self.sure[layer] {
                return value;
            }
            if let Some(value) = self.edge(layer, value, rng) {
                return value;
            }
        }
    }

    /// A value of the tail, or `value` if it lies under the density in the part of its layer where not all do.
    #[cold]
    fn edge(&self, layer: usize, value: f32, rng: &mut Rng) -> Option<f32> {
        if layer == 0 {
            loop {
                let beyond = -libm::log(rng.uniform_open()) / TAIL;
                if -2.0 * libm::log(rng.uniform_open()) >= beyond * beyond {
                    return Some(((TAIL + beyond) as f32).copysign(value));
                }
            }
        }
        let (low, high) = (self.density[layer], self.density.get(layer + 1).copied().unwrap_or(1.0));
        let x = f64::from(value);
        (low + (high - low) * rng.uniform() < libm::exp(-0.5 * x * x)).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kolmogorov-Smirnov distance between sorted `samples` and a distribution function.
    fn ks(mut samples: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        samples.sort_by(f64::total_cmp);
        let n = samples.len() as f64;
        samples.iter().enumerate().fold(0.0, |worst: f64, (i, &x)| {
            let f = cdf(x);
            worst.max((f - i as f64 / n).abs()).max(((i + 1) as f64 / n - f).abs())
        })
    }

    #[test]
    fn the_same_address_gives_the_same_numbers_and_another_one_others() {
        let stream = Stream::new(7, "mix");
        let first = stream.at(Draw::Lambda, 3, 5).bits();
        assert_eq!(first, stream.at(Draw::Lambda, 3, 5).bits());
        for other in [
            stream.at(Draw::Gate, 3, 5),
            stream.at(Draw::Lambda, 4, 5),
            stream.at(Draw::Lambda, 3, 6),
            Stream::new(8, "mix").at(Draw::Lambda, 3, 5),
            Stream::new(7, "warp").at(Draw::Lambda, 3, 5),
        ] {
            assert_ne!(first, other.clone().bits());
        }
    }

    #[test]
    fn draws_are_pinned() {
        // A change here changes every job's bytes: it needs a new numerics number.
        let mut rng = Stream::new(42, "pin").at(Draw::Lambda, 1, 2);
        let seen = [rng.uniform(), rng.normal(), rng.beta(0.2, 0.2), rng.below(1000) as f64];
        let want: [f64; 4] = PINNED;
        assert_eq!(seen.map(f64::to_bits), want.map(f64::to_bits), "got {seen:?}");
    }
    const PINNED: [f64; 4] = [0.2937173900743364, 0.10508152808078791, 0.9992544019013003, 732.0];

    #[test]
    fn beta_follows_its_law() {
        // alpha = 1: uniform; alpha = 0.5: arcsine; alpha = 2: 3x^2 - 2x^3. False alarm below 1e-4 each (1.95 / sqrt n
        // is the 0.1 % point, 2.23 the 0.01 % point); the seed is fixed, so the test never flickers.
        let n = 20_000;
        let draw = |alpha: f64| {
            let stream = Stream::new(1, "beta");
            (0..n).map(|i| stream.at(Draw::Lambda, i, 0).beta(alpha, alpha)).collect::<Vec<_>>()
        };
        let limit = 2.23 / (n as f64).sqrt();
        assert!(ks(draw(1.0), |x| x) < limit);
        assert!(ks(draw(0.5), |x| 2.0 / std::f64::consts::PI * x.sqrt().asin()) < limit);
        assert!(ks(draw(2.0), |x| 3.0 * x * x - 2.0 * x * x * x) < limit);
    }

    #[test]
    fn beta_survives_tiny_alpha() {
        let stream = Stream::new(1, "tiny");
        let values: Vec<f64> = (0..1000).map(|i| stream.at(Draw::Lambda, i, 0).beta(0.001, 0.001)).collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        let ones = values.iter().filter(|v| **v > 0.5).count();
        assert!((400..600).contains(&ones), "{ones} of 1000 above one half");
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Stream::new(3, "below").at(Draw::Order, 0, 0);
        let mut seen = [0u32; 7];
        (0..7000).for_each(|_| seen[rng.below(7) as usize] += 1);
        assert!(seen.iter().all(|c| (880..1120).contains(c)), "{seen:?}");
        assert_eq!(rng.below(1), 0);
        assert_eq!(rng.below(0), 0);
    }

    fn some_normals(n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        Stream::new(5, "normals").at(Draw::SceneElastic, 0, 0).normals(&mut values);
        values
    }

    #[test]
    fn normals_are_pinned() {
        let values = some_normals(1 << 16);
        let digest = blake3::hash(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(&digest.to_hex()[..16], NORMALS, "first {:?}", &values[..3]);
    }
    const NORMALS: &str = "50d8563aa6136929";

    #[test]
    fn normals_follow_their_law() {
        let n = 1 << 20;
        let values: Vec<f64> = some_normals(n).into_iter().map(f64::from).collect();
        // Odd moments 0, even ones 1, 3, 15, 105; their variance is E x^2k - (E x^k)^2. Four standard errors.
        let wants = [0.0, 1.0, 0.0, 3.0, 0.0, 15.0, 0.0, 105.0];
        let even = [1.0, 3.0, 15.0, 105.0, 945.0, 10_395.0, 135_135.0, 2_027_025.0];
        for (k, (want, square)) in (1..).zip(wants.into_iter().zip(even)) {
            let got = values.iter().map(|x| x.powi(k)).sum::<f64>() / n as f64;
            let limit = 4.0 * ((square - want * want) / n as f64).sqrt();
            assert!((got - want).abs() < limit, "moment {k}: {got}, want {want} within {limit}");
        }
        let cdf = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        assert!(ks(values.clone(), cdf) < 2.23 / (n as f64).sqrt());
        // Each tail, and the steep part of the bottom layers before it.
        for bound in [2.5, 3.5, TAIL, 4.0] {
            for side in [1.0, -1.0] {
                let got = values.iter().filter(|x| side * **x > bound).count() as f64;
                let want = n as f64 * cdf(-bound);
                assert!((got - want).abs() < 4.0 * want.sqrt(), "{got} beyond {bound}, want {want}");
            }
        }
    }

    #[test]
    fn normals_do_not_depend_on_their_neighbours() {
        let values = some_normals(1 << 20);
        for lag in 1..8 {
            let pairs = values.iter().zip(&values[lag..]);
            let sum: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!(sum.abs() < 4.5 * 1024.0, "lag {lag}: {sum}");
        }
    }
}
