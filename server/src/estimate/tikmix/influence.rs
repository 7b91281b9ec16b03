//! The influence matrix S: as reported, or as inner products of sketches; smoothed over stages.

use super::super::{Reader, Reduced, Seen, StateError, Want, Writer};
use std::borrow::Cow;

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
        mean(reports.iter().map(|r| &r.values[..]).filter(|v| v.len() == cells)).map(Cow::into_owned)
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
        let missing = vec![0.0; length];
        let there = |list: &'_ [Option<Cow<'_, [f64]>>]| list.iter().map(Option::is_some).collect::<Vec<_>>();
        let (is_task, is_group) = (there(&tasks), there(&groups));
        let tasks: Vec<&[f64]> = tasks.iter().map(|t| t.as_deref().unwrap_or(&missing)).collect();
        let groups: Vec<&[f64]> = groups.iter().map(|g| g.as_deref().unwrap_or(&missing)).collect();
        let mut cells = products(&tasks, &groups, length);
        // An overflow to NaN must not pass for a missing sketch.
        for (k, cell) in cells.iter_mut().enumerate() {
            match (is_task[k / self.groups] && is_group[k % self.groups], cell.is_finite()) {
                (true, false) => return None,
                (true, true) => (),
                (false, _) => *cell = f64::NAN,
            }
        }
        Some(cells)
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
fn mean<'a>(mut lists: impl Iterator<Item = &'a [f64]>) -> Option<Cow<'a, [f64]>> {
    let (mut total, mut count) = (Cow::Borrowed(lists.next()?), 1.0);
    for list in lists {
        total.to_mut().iter_mut().zip(list).for_each(|(t, x)| *t += x);
        count += 1.0;
    }
    if count > 1.0 {
        total.to_mut().iter_mut().for_each(|t| *t /= count);
    }
    Some(total)
}

/// Numbers of each list that are multiplied at a time: those of four stay in the fastest cache.
const BLOCK: usize = 512;

/// Inner products of all pairs, (rows, columns): per block of numbers, in four running sums each.
fn products(rows: &[&[f64]], columns: &[&[f64]], length: usize) -> Vec<f64> {
    let width = columns.len();
    let mut out = vec![0.0; rows.len() * width];
    let whole = width - width % 4;
    for from in (0..length).step_by(BLOCK) {
        let range = from..length.min(from + BLOCK);
        for at in (0..whole).step_by(4) {
            let four: [&[f64]; 4] = std::array::from_fn(|k| &columns[at + k][range.clone()]);
            for (i, row) in rows.iter().enumerate() {
                let sums = inner(&row[range.clone()], four);
                out[i * width + at..][..4].iter_mut().zip(sums).for_each(|(o, s)| *o += s);
            }
        }
        for at in whole..width {
            for (i, row) in rows.iter().enumerate() {
                let [sum] = inner(&row[range.clone()], [&columns[at][range.clone()]]);
                out[i * width + at] += sum;
            }
        }
    }
    out
}

/// Inner products of `a` with each of `b`, in four running sums, then in order: one fixed order that can be vectorised.
fn inner<const N: usize>(a: &[f64], b: [&[f64]; N]) -> [f64; N] {
    let (heads, tail) = a.as_chunks::<4>();
    let others = b.map(|b| b.as_chunks::<4>());
    let mut sums = [[0.0; 4]; N];
    for (at, x) in heads.iter().enumerate() {
        for (sums, (heads, _)) in sums.iter_mut().zip(&others) {
            let y = &heads[at];
            (0..4).for_each(|l| sums[l] += x[l] * y[l]);
        }
    }
    std::array::from_fn(|k| {
        let rest: f64 = tail.iter().zip(others[k].1).map(|(x, y)| x * y).sum();
        sums[k].iter().sum::<f64>() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_pairs_at_any_size() {
        for (rows, columns, length) in [(1, 1, 1), (2, 3, 7), (3, 4, 512), (2, 9, 1031), (0, 2, 3), (2, 2, 0)]
        {
            let list = |seed: usize| (0..length).map(|k| ((k * 7 + seed * 13) % 11) as f64 - 5.0).collect();
            let a: Vec<Vec<f64>> = (0..rows).map(list).collect();
            let b: Vec<Vec<f64>> = (0..columns).map(|j| list(j + 100)).collect();
            let left: Vec<&[f64]> = a.iter().map(Vec::as_slice).collect();
            let right: Vec<&[f64]> = b.iter().map(Vec::as_slice).collect();
            // Whole numbers: sums are exact in any order.
            let pair = |x: &Vec<f64>, y: &Vec<f64>| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let want: Vec<f64> = a.iter().flat_map(|x| b.iter().map(move |y| pair(x, y))).collect();
            assert_eq!(products(&left, &right, length), want);
        }
    }
}
