//! Resampling tables: for each output position, the first input position and the weights of the ones that follow.

use crate::plan::Filter;

/// Table of one axis; keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Taps {
    /// First input position and end of its weights, per output position.
    spans: Vec<(usize, usize)>,
    /// Weights in order; those of one output position sum to 1.
    weights: Vec<f32>,
}

impl Taps {
    /// Fills the table for `input` positions seen at `output` positions, both > 0.
    ///
    /// In f32, as PyTorch computes its own tables; only IEEE operations, so equal on every machine.
    pub(super) fn fill(&mut self, filter: Filter, input: usize, output: usize) {
        self.spans.clear();
        self.weights.clear();
        let scale = input as f32 / output as f32;
        for i in 0..output {
            let first = match filter {
                Filter::Nearest => {
                    self.weights.push(1.0);
                    i * input / output
                }
                Filter::Bilinear => self.two(scale, i, input),
                Filter::Area => self.triangle(scale, i, input),
            };
            self.spans.push((first, self.weights.len()));
        }
    }

    fn two(&mut self, scale: f32, i: usize, input: usize) -> usize {
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let first = (at as usize).min(input - 1);
        let upper = at - first as f32;
        if first + 1 < input {
            self.weights.extend([1.0 - upper, upper]);
        } else {
            self.weights.push(1.0);
        }
        first
    }

    fn triangle(&mut self, scale: f32, i: usize, input: usize) -> usize {
        let wide = scale.max(1.0);
        let centre = scale * (i as f32 + 0.5);
        let first = ((centre - wide + 0.5).max(0.0) as usize).min(input - 1);
        let end = ((centre + wide + 0.5) as usize).clamp(first + 1, input);
        let begin = self.weights.len();
        for j in first..end {
            let distance = ((j as f32 - centre + 0.5) / wide).abs();
            self.weights.push((1.0 - distance).max(0.0));
        }
        let own = &mut self.weights[begin..];
        let total: f32 = own.iter().sum();
        if total > 0.0 {
            own.iter_mut().for_each(|w| *w /= total);
        } else {
            own.fill(0.0);
            own[0] = 1.0;
        }
        first
    }

    /// Output positions.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// First input position and weights of output position `i`.
    #[inline]
    pub(super) fn at(&self, i: usize) -> (usize, &[f32]) {
        let begin = if i == 0 { 0 } else { self.spans[i - 1].1 };
        let (first, end) = self.spans[i];
        (first, &self.weights[begin..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(filter: Filter, input: usize, output: usize) -> Vec<(usize, Vec<f32>)> {
        let mut taps = Taps::default();
        taps.fill(filter, input, output);
        (0..output).map(|i| taps.at(i)).map(|(first, w)| (first, w.to_vec())).collect()
    }

    #[test]
    fn hand_computed_tables() {
        assert_eq!(table(Filter::Nearest, 3, 5), [0, 0, 1, 1, 2].map(|i| (i, vec![1.0])), "floor(i * 3 / 5)");
        // Positions -0.25 (cut to 0), 0.25, 0.75, 1.25 (last column alone).
        let doubled = [(0, vec![1.0, 0.0]), (0, vec![0.75, 0.25]), (0, vec![0.25, 0.75]), (1, vec![1.0])];
        assert_eq!(table(Filter::Bilinear, 2, 4), doubled);
        // Halving: triangle of half width 2 around 1.0 and 3.0, cut at the border.
        let halved = [(0, [3.0, 3.0, 1.0].iter().map(|w| w / 7.0).collect::<Vec<f32>>())];
        assert_eq!(table(Filter::Area, 4, 2)[..1], halved);
    }

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Area] {
            for (input, output) in [(1, 1), (1, 9), (9, 1), (7, 5), (5, 7), (224, 83), (83, 224), (1000, 3)] {
                for (first, weights) in table(filter, input, output) {
                    assert!(first + weights.len() <= input, "{filter:?} {input} to {output}");
                    assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                    assert!(weights.iter().all(|w| *w >= 0.0));
                }
            }
        }
    }
}
