//! The influence matrix S: as reported, or as inner products of sketches; smoothed over stages.

use super::super::{Reader, Reduced, Seen, StateError, Want, Writer};

/// S of the stages so far.
#[derive(Clone, Debug)]
pub(super) struct Influence {
    tasks: usize,
    groups: usize,
    /// Part of the old matrix that a stage keeps.
    keep: f64,
    /// (tasks, groups), row-major; empty before the first stage.
    matrix: Vec<f64>,
}

/// S of one stage: entries that are not known are NaN.
type Fresh = Vec<f64>;

impl Influence {
    /// Nothing known.
    pub fn new(tasks: usize, groups: usize, keep: f64) -> Self {
        Influence { tasks, groups, keep, matrix: Vec::new() }
    }

    /// The matrix, `None` before the first stage.
    pub fn matrix(&self) -> Option<&[f64]> {
        (!self.matrix.is_empty()).then_some(&self.matrix)
    }

    /// Adds a stage. False, and nothing changed, when it holds no influence, or any number that is not finite.
    pub fn add(&mut self, seen: &[Seen], first: Want) -> bool {
        let reports: Vec<&Reduced> = seen.iter().flat_map(|s| &s.reports).collect();
        let second = if first == Want::Sketch { Want::Influence } else { Want::Sketch };
        let fresh = self.read(&reports, first).or_else(|| self.read(&reports, second));
        let Some(fresh) = fresh.filter(|f| f.len() == self.tasks * self.groups) else { return false };
        if self.matrix.is_empty() {
            self.matrix = fill(fresh, self.groups);
            return true;
        }
        for (old, new) in self.matrix.iter_mut().zip(fresh).filter(|(_, n)| !n.is_nan()) {
            *old = self.keep * *old + (1.0 - self.keep) * new;
        }
        true
    }

    fn read(&self, reports: &[&Reduced], want: Want) -> Option<Fresh> {
        let mine: Vec<&Reduced> = reports.iter().copied().filter(|r| r.want == want).collect();
        if mine.iter().any(|r| r.values.iter().any(|v| !v.is_finite())) {
            return None;
        }
        let fresh = if want == Want::Sketch { self.sketched(&mine)? } else { self.reported(&mine)? };
        // Finite numbers can still overflow; NaN alone says unknown.
        fresh.iter().all(|s| !s.is_infinite()).then_some(fresh)
    }

    /// The mean of the matrices that have the right shape.
    fn reported(&self, reports: &[&Reduced]) -> Option<Fresh> {
        let cells = self.tasks * self.groups;
        mean(reports.iter().map(|r| &r.values[..]).filter(|v| v.len() == cells))
    }

    /// Inner products of the mean sketches; NaN where one is missing.
    fn sketched(&self, reports: &[&Reduced]) -> Option<Fresh> {
        let length = reports.first()?.values.len();
        let of = |held_out: bool, owner: usize| {
            let own = reports.iter().filter(|r| r.held_out == held_out && r.owner == owner);
            mean(own.map(|r| &r.values[..]).filter(|v| v.len() == length))
        };
        let tasks: Vec<_> = (0..self.tasks).map(|i| of(true, i)).collect();
        let groups: Vec<_> = (0..self.groups).map(|j| of(false, j)).collect();
        if tasks.iter().all(Option::is_none) || groups.iter().all(Option::is_none) {
            return None;
        }
        let product = |a: &Option<Vec<f64>>, b: &Option<Vec<f64>>| match (a, b) {
            (Some(a), Some(b)) => inner(a, b),
            (None, _) | (_, None) => f64::NAN,
        };
        // An overflow to NaN must not pass for a missing sketch.
        let cells: Vec<f64> = tasks.iter().flat_map(|a| groups.iter().map(move |b| product(a, b))).collect();
        let there = |k: usize| tasks[k / self.groups].is_some() && groups[k % self.groups].is_some();
        let sound = cells.iter().enumerate().all(|(k, s)| s.is_finite() || !there(k));
        sound.then_some(cells)
    }

    /// Everything.
    pub fn save(&self, out: &mut Writer) {
        out.bool(!self.matrix.is_empty());
        out.f64s(&self.matrix);
    }

    /// What [`Influence::save`] wrote.
    pub fn read_state(&self, input: &mut Reader<'_>) -> Result<Self, StateError> {
        let cells = if input.bool()? { self.tasks * self.groups } else { 0 };
        Ok(Influence { matrix: input.f64s(cells)?, ..self.clone() })
    }
}

/// First stage: an unknown column is the mean of the known ones, which favours nobody; an unknown row is 0 and drops out.
fn fill(mut fresh: Fresh, groups: usize) -> Vec<f64> {
    for row in fresh.chunks_mut(groups.max(1)) {
        let known = row.iter().filter(|s| !s.is_nan());
        let (sum, count) = known.fold((0.0, 0), |(s, c), x| (s + x, c + 1));
        let mean = if count > 0 { sum / f64::from(count) } else { 0.0 };
        row.iter_mut().filter(|s| s.is_nan()).for_each(|s| *s = mean);
    }
    fresh
}

/// Entry by entry; `None` of nothing.
fn mean<'a>(lists: impl Iterator<Item = &'a [f64]>) -> Option<Vec<f64>> {
    let mut sum: Option<(Vec<f64>, f64)> = None;
    for list in lists {
        match &mut sum {
            None => sum = Some((list.to_vec(), 1.0)),
            Some((total, count)) => {
                total.iter_mut().zip(list).for_each(|(t, x)| *t += x);
                *count += 1.0;
            }
        }
    }
    sum.map(|(total, count)| total.iter().map(|t| t / count).collect())
}

/// Inner product in eight running sums, then in order: one fixed order that can be vectorised.
fn inner(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (heads, tails) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = heads.remainder().iter().zip(tails.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in heads.zip(tails) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (x, y))| *s += x * y);
    }
    sums.iter().sum::<f64>() + rest
}
