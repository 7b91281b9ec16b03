//! Tables of the decoder's resampler, as it rounds them: whole multiples of a power of two.
//!
//! A weight has at most 16 bits behind the point here and a level 8 before it, so that sums of their products are whole
//! multiples of 2^-16 below 256: f32 holds them exactly, in whatever order they are added. That is why a device makes the
//! bytes of the CPU's resampler (`decode`), which adds in integers.

use super::DeviceError;
use crate::exec::device::MOST_SHRUNK;

/// Bits behind the point beyond which f32 would round sums.
const MOST_BITS: i32 = 16;
/// Weights fit into as many bits, as in the decoder's resampler.
const WEIGHT_BITS: i32 = 15;

/// Weights of one axis of many pictures: for each bag of inputs one output.
#[derive(Debug, Default)]
pub(super) struct Bags {
    /// Inputs, bag after bag.
    pub(super) inputs: Vec<i32>,
    /// Their weights.
    pub(super) weights: Vec<f32>,
    /// Where each bag begins.
    pub(super) begins: Vec<i32>,
}

/// A crop of one axis and what it becomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Inputs.
    pub(super) input: u32,
    /// Where the crop begins and how long it is, in inputs.
    pub(super) crop: (f64, f64),
    /// Outputs.
    pub(super) output: u32,
    /// Last output first.
    pub(super) mirrored: bool,
}

impl Bags {
    /// Adds the outputs of `axis`, whose input `i` is `first + i` here.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] for a crop that is shrunk more than [`MOST_SHRUNK`] times.
    pub(super) fn add(&mut self, axis: Axis, first: usize) -> Result<(), DeviceError> {
        let (spans, weights) = triangle(&axis);
        let scale = scale(&weights)?;
        let begin = |i: usize| if i == 0 { 0 } else { spans[i - 1].1 };
        let mut put = |i: usize| {
            self.begins.push(self.inputs.len() as i32);
            let own = begin(i)..spans[i].1;
            self.inputs.extend((0..own.len()).map(|k| (first + spans[i].0 + k) as i32));
            self.weights.extend(weights[own].iter().map(|w| ((w * scale).round() / scale) as f32));
        };
        match axis.mirrored {
            false => (0..spans.len()).for_each(&mut put),
            true => (0..spans.len()).rev().for_each(&mut put),
        }
        Ok(())
    }
}

/// First input and end of the weights of each output, and the weights: a triangle around the output's centre that
/// widens when shrinking, 1 in sum.
fn triangle(axis: &Axis) -> (Vec<(usize, usize)>, Vec<f64>) {
    let scale = axis.crop.1 / f64::from(axis.output);
    let wide = scale.max(1.0);
    let narrow = 1.0 / wide;
    let (mut spans, mut weights) = (Vec::new(), Vec::new());
    for i in 0..axis.output {
        let centre = axis.crop.0 + (f64::from(i) + 0.5) * scale;
        let from = (centre - wide).floor().max(0.0) as usize;
        let end = (centre + wide).ceil().min(f64::from(axis.input)) as usize;
        let (begin, middle) = (weights.len(), centre - 0.5);
        let weight = |x: usize| (1.0 - ((x as f64 - middle) * narrow).abs()).max(0.0);
        // Zeros stand at the ends only.
        let first = (from..end).find(|x| weight(*x) > 0.0).unwrap_or(from);
        weights.extend((first..end).map(weight).take_while(|weight| *weight > 0.0));
        let own = &mut weights[begin..];
        let total: f64 = own.iter().sum();
        own.iter_mut().for_each(|weight| *weight /= total);
        spans.push((first, weights.len()));
    }
    (spans, weights)
}

/// The power of two that weights are whole multiples of, one over it: the largest with which all fit into
/// [`WEIGHT_BITS`].
fn scale(weights: &[f64]) -> Result<f64, DeviceError> {
    let most = weights.iter().copied().fold(0.0, f64::max);
    let fits = |bits: &i32| (most * 2f64.powi(*bits)).round() < 2f64.powi(WEIGHT_BITS);
    let bits = (1..=MOST_BITS + 1).take_while(fits).last().unwrap_or(1);
    if bits > MOST_BITS {
        let why = format!("a picture is shrunk more than {MOST_SHRUNK} times");
        return Err(DeviceError::Failed(why));
    }
    Ok(2f64.powi(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bags(input: u32, crop: (f64, f64), output: u32, mirrored: bool) -> Bags {
        let mut bags = Bags::default();
        bags.add(Axis { input, crop, output, mirrored }, 10).expect("not shrunk too much");
        bags
    }

    #[test]
    fn hand_computed_tables() {
        let same = bags(3, (0.0, 3.0), 3, false);
        assert_eq!(
            (same.inputs, same.weights),
            (vec![10, 11, 12], vec![1.0; 3]),
            "a copy has one weight each"
        );
        // Centres 1 and 3, half width 2: weights 3, 3, 1 of 7 and 1, 3, 3 of 7.
        let half = bags(4, (0.0, 4.0), 2, false);
        assert_eq!((&half.inputs[..], &half.begins[..]), (&[10, 11, 12, 11, 12, 13][..], &[0, 3][..]));
        let third = (3.0 / 7.0 * 65536f32).round() / 65536.0;
        assert_eq!(half.weights[..2], [third; 2], "0.43 fits into 15 bits with 16 behind the point");
        let mirrored = bags(4, (0.0, 4.0), 2, true);
        assert_eq!(mirrored.inputs, [11, 12, 13, 10, 11, 12]);
    }

    #[test]
    fn sums_of_levels_are_exact_up_to_the_most_that_is_shrunk_and_refused_beyond() {
        for shrunk in [0.01, 0.5, 1.0, 1.7, 2.0, 2.9, MOST_SHRUNK] {
            for offset in [0.0, 0.25, 0.5, 0.999] {
                let length = shrunk * 20.0;
                let input = (offset + length).ceil() as u32 + 1;
                let bags = bags(input, (offset, length), 20, false);
                assert!(bags.weights.iter().all(|w| (w * 65536.0).fract() == 0.0 && *w >= 0.0));
                for (i, begin) in bags.begins.iter().enumerate() {
                    let end = bags.begins.get(i + 1).map_or(bags.weights.len(), |end| *end as usize);
                    let sum: f32 = bags.weights[*begin as usize..end].iter().sum();
                    assert!(
                        (sum - 1.0).abs() < 1e-3 && sum * 255.0 + 0.5 < 256.0,
                        "{shrunk} {offset}: {sum}"
                    );
                }
            }
        }
        let far = Axis { input: 1000, crop: (0.0, 1000.0), output: 100, mirrored: false };
        assert!(Bags::default().add(far, 0).is_err());
    }
}
