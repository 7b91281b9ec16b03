//! TiKMiX-M: candidate mixtures around an anchor, and the search on a surface through their measured influence.

use super::super::post::water_fill;
use super::super::quadratic::Quadratic;
use super::super::simplex::{dirichlet, normalised};
use crate::rng::{Draw, Stream};

/// Numbers of the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// Candidates that are measured.
    pub candidates: usize,
    /// Smallest and largest multiple of the anchor's share.
    pub interval: (f64, f64),
    /// Samples of a round of the search.
    pub samples: usize,
    /// Best samples whose mean is the next centre.
    pub best: usize,
    /// Rounds.
    pub rounds: usize,
}

/// Concentration per group in the first and last round. The paper lets it fall; from global to local it must rise.
const CONCENTRATION: (f64, f64) = (10.0, 1000.0);
/// Blocks of a Latin hypercube that are drawn before candidates are pushed into their intervals instead of rejected.
const BLOCKS: u64 = 16;
/// Movement that ends the search.
const STILL: f64 = 1e-4;

impl Search {
    /// Whether every share is within its interval, rounding aside.
    fn inside(&self, w: &[f64], anchor: &[f64]) -> bool {
        let (low, high) = self.interval;
        w.iter().zip(anchor).all(|(w, a)| *w >= low * a - 1e-12 && *w <= high * a + 1e-12)
    }

    /// The nearest shares within their intervals.
    fn pushed(&self, w: &[f64], anchor: &[f64]) -> Vec<f64> {
        let scaled = |by: f64| anchor.iter().map(|a| by * a).collect::<Vec<_>>();
        water_fill(w, &scaled(self.interval.0), &scaled(self.interval.1))
    }

    /// Mixtures whose influence is worth measuring, by Latin hypercubes over the intervals around `anchor`. The same for
    /// the same (stream, stage, anchor).
    pub fn candidates(&self, stream: &Stream, stage: u64, anchor: &[f64]) -> Vec<Vec<f64>> {
        let mut found = Vec::with_capacity(self.candidates);
        for block in 0..=BLOCKS {
            for w in self.hypercube(stream, stage, block, anchor) {
                if found.len() == self.candidates {
                    return found;
                }
                if self.inside(&w, anchor) {
                    found.push(w);
                } else if block == BLOCKS {
                    found.push(self.pushed(&w, anchor));
                }
            }
        }
        found
    }

    /// One block: each group's interval is cut into as many pieces as there are candidates, each used once.
    fn hypercube(&self, stream: &Stream, stage: u64, block: u64, anchor: &[f64]) -> Vec<Vec<f64>> {
        let (n, (low, high)) = (self.candidates, self.interval);
        let mut rng = stream.at(Draw::PrivateA, stage, block);
        let mut points = vec![vec![0.0; anchor.len()]; n];
        for (j, a) in anchor.iter().enumerate() {
            for (point, piece) in points.iter_mut().zip(rng.permutation(n)) {
                let at = (f64::from(piece) + rng.uniform()) / n as f64;
                point[j] = a * (low + (high - low) * at);
            }
        }
        points.iter().map(|p| normalised(p).unwrap_or_else(|| anchor.to_vec())).collect()
    }

    /// The mixture near `anchor` at which the surface is highest: rounds of samples, ever closer around the mean of the
    /// best ones.
    pub fn best(&self, surface: &Quadratic, stream: &Stream, stage: u64, anchor: &[f64]) -> Vec<f64> {
        let mut centre = anchor.to_vec();
        for round in 0..self.rounds {
            let part = if self.rounds > 1 { round as f64 / (self.rounds - 1) as f64 } else { 1.0 };
            let (first, last) = CONCENTRATION;
            let strength = first * libm::pow(last / first, part) * anchor.len() as f64;
            let law: Vec<f64> = centre.iter().map(|c| strength * c).collect();
            let mut rng = stream.at(Draw::PrivateB, stage, round as u64);
            let mut samples: Vec<(f64, Vec<f64>)> = (0..self.samples)
                .map(|_| {
                    let w = self.pushed(&dirichlet(&mut rng, &law), anchor);
                    (surface.at(&w), w)
                })
                .collect();
            samples.sort_by(|a, b| b.0.total_cmp(&a.0));
            let best = &samples[..self.best.min(samples.len())];
            let mean = |j: usize| best.iter().map(|(_, w)| w[j]).sum::<f64>();
            let next = normalised(&(0..anchor.len()).map(mean).collect::<Vec<_>>());
            let Some(next) = next else { return centre };
            let moved: f64 = next.iter().zip(&centre).map(|(a, b)| (a - b).abs()).sum();
            centre = next;
            if moved < STILL {
                break;
            }
        }
        centre
    }
}
