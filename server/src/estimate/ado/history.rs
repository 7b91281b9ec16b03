//! Losses of every step, smoothed and thinned: the state that the laws are fitted to.

use super::super::{Reader, StateError, Writer};
use crate::args::Args;
use std::collections::VecDeque;

/// Losses of all groups so far.
#[derive(Clone, Debug)]
pub(super) struct History {
    groups: usize,
    ignore: u64,
    stride: u64,
    sample_tokens: f64,
    /// Points kept at most.
    most: usize,
    /// Weights of the smoother, for the middle of its reports.
    smoother: Vec<f64>,
    reports: u64,
    samples: f64,
    /// Last loss of each group, NaN before the first.
    last: Vec<f64>,
    /// The last reports as they came: samples, then a loss per group.
    recent: VecDeque<Vec<f64>>,
    /// Smoothed reports, the same way.
    kept: Vec<Vec<f64>>,
}

impl History {
    /// Of nothing yet.
    pub fn new(groups: usize, args: &Args) -> Self {
        let half = (args.number("smooth") as u64 / 2) as i64;
        History {
            groups,
            ignore: args.number("ignore") as u64,
            stride: args.number("stride") as u64,
            sample_tokens: args.number("sample_tokens"),
            most: args.number("points") as usize,
            smoother: savitzky_golay(half),
            reports: 0,
            samples: 0.0,
            last: vec![f64::NAN; groups],
            recent: VecDeque::new(),
            kept: Vec::new(),
        }
    }

    /// Reports so far.
    pub fn reports(&self) -> u64 {
        self.reports
    }

    /// Samples of all groups so far.
    pub fn samples(&self) -> f64 {
        self.samples
    }

    /// Adds a report; NaN losses are those of the last one.
    pub fn push(&mut self, means: &[f64], tokens: f64) {
        self.reports += 1;
        self.samples = (self.samples + tokens / self.sample_tokens).min(1e300);
        for (last, new) in self.last.iter_mut().zip(means).filter(|(_, m)| m.is_finite()) {
            *last = *new;
        }
        if self.reports <= self.ignore {
            return;
        }
        let row = std::iter::once(self.samples).chain(self.last.iter().copied()).collect();
        self.recent.push_back(row);
        if self.recent.len() > self.smoother.len() {
            self.recent.pop_front();
        }
        if self.recent.len() == self.smoother.len() && self.reports.is_multiple_of(self.stride) {
            self.keep();
        }
    }

    fn keep(&mut self) {
        let mut row = vec![0.0; self.groups + 1];
        for (weight, recent) in self.smoother.iter().zip(&self.recent) {
            row.iter_mut().zip(recent).for_each(|(r, x)| *r += weight * x);
        }
        row[0] = self.recent[self.smoother.len() / 2][0];
        self.kept.push(row);
        if self.kept.len() > self.most {
            self.thin();
        }
    }

    /// Keeps half of the points, about evenly in the logarithm of their samples; always the first and the last.
    fn thin(&mut self) {
        let (first, last) = (self.kept[0][0].max(1.0), self.samples.max(2.0));
        let target = self.most / 2;
        let place = |n: f64| libm::log(n.max(first) / first) / libm::log(last / first) * target as f64;
        let mut next = 0.0;
        let end = self.kept.len() - 1;
        let mut index = 0;
        self.kept.retain(|row| {
            let at = place(row[0]);
            let keep = at >= next || index == end;
            if at >= next {
                next = libm::floor(at) + 1.0;
            }
            index += 1;
            keep
        });
    }

    /// (log samples, log loss) of a group, oldest first; about `most` of them, evenly, the first and the last among them.
    pub fn points(&self, group: usize, most: usize) -> Vec<(f64, f64)> {
        let sound = |row: &&Vec<f64>| row[group + 1].is_finite() && row[group + 1] > 0.0;
        let rows: Vec<&Vec<f64>> = self.kept.iter().filter(sound).collect();
        let point = |row: &Vec<f64>| (libm::log(row[0].max(1.0)), libm::log(row[group + 1]));
        spread(rows.len(), most).map(|i| point(rows[i])).collect()
    }

    /// Everything.
    pub fn save(&self, out: &mut Writer) {
        out.u64(self.reports);
        out.f64(self.samples);
        out.f64s(&self.last);
        for rows in [self.recent.len(), self.kept.len()] {
            out.u64(rows as u64);
        }
        self.recent.iter().chain(&self.kept).for_each(|row| out.f64s(row));
    }

    /// The history written by [`History::save`].
    pub fn read(&self, input: &mut Reader<'_>) -> Result<Self, StateError> {
        let (reports, samples, last) = (input.u64()?, input.f64()?, input.f64s(self.groups)?);
        let (recent, kept) = (input.u64()?, input.u64()?);
        if recent > self.smoother.len() as u64 || kept > self.most as u64 {
            return Err(StateError(format!("holds {recent} + {kept} reports, want fewer")));
        }
        let mut row = |_| input.f64s(self.groups + 1);
        let recent = (0..recent).map(&mut row).collect::<Result<_, _>>()?;
        let kept = (0..kept).map(&mut row).collect::<Result<_, _>>()?;
        Ok(History { reports, samples, last, recent, kept, ..self.clone() })
    }
}

/// Weights of the cubic least-squares smoother at the middle of 2 half + 1 points (Savitzky and Golay 1964).
fn savitzky_golay(half: i64) -> Vec<f64> {
    let below = ((2 * half + 3) * (2 * half + 1) * (2 * half - 1)) as f64;
    (-half..=half).map(|k| (3 * (3 * half * half + 3 * half - 1 - 5 * k * k)) as f64 / below).collect()
}

/// About `few` of `len` indices, evenly, the first and the last among them.
pub(super) fn spread(len: usize, few: usize) -> impl Iterator<Item = usize> {
    let count = len.min(few);
    (0..count).map(move |i| if count < 2 { i } else { i * (len - 1) / (count - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smoother_keeps_cubics() {
        for half in [0, 2, 50] {
            let weights = savitzky_golay(half);
            let cubic = |x: f64| 1.0 + 2.0 * x - 0.5 * x * x + 0.25 * x * x * x;
            let smooth: f64 = weights.iter().zip(-half..=half).map(|(w, k)| w * cubic(k as f64 * 0.1)).sum();
            assert!((smooth - 1.0).abs() < 1e-12, "half {half}: {smooth}");
        }
        assert!((savitzky_golay(2)[2] - 17.0 / 35.0).abs() < 1e-15);
    }

    #[test]
    fn indices_are_spread_from_end_to_end() {
        assert_eq!(spread(5, 9).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(spread(101, 3).collect::<Vec<_>>(), [0, 50, 100]);
        assert_eq!(spread(0, 3).count(), 0);
        assert_eq!(spread(1, 3).collect::<Vec<_>>(), [0]);
    }
}
