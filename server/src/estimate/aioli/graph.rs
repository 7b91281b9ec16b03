//! LearnParams: evidence to graph, graph to gains.

use super::equations::Equations;
use super::evidence::Segment;
use std::borrow::Cow;

/// A graph with a smaller sum says nothing.
const EMPTY: f64 = 1e-12;

/// Loss drop of task i per step on group j, (tasks, groups) row-major; NaN where nothing is known yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Graph {
    pub groups: usize,
    pub effects: Vec<f64>,
}

impl Graph {
    /// A graph that knows nothing.
    pub fn unknown(groups: usize, tasks: usize) -> Self {
        Graph { groups, effects: vec![f64::NAN; groups * tasks] }
    }

    /// Effects of the groups on task `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.effects[i * self.groups..][..self.groups]
    }

    /// Learns the rows of `live` tasks from segments, by their realised shares. Columns without a probe of their own stay
    /// as they are; until they are known they count as the mean of the others. `own` limits a group's effect to one task.
    /// Returns the effects to act on: rows of tasks that are not live are 0.
    pub fn learn(&mut self, segments: &[Segment], live: &[bool], own: Option<&[Option<usize>]>) -> Vec<f64> {
        let m = self.groups;
        let mut fresh = vec![false; m];
        segments.iter().filter(|s| s.own).for_each(|s| fresh[s.group] = true);
        let mut acting = vec![0.0; self.effects.len()];
        if let Some(own) = own {
            let slopes = slopes(segments, own);
            for i in (0..live.len()).filter(|i| live[*i]) {
                diagonal(&mut acting[i * m..][..m], i, own, &slopes, self.row(i));
            }
        } else {
            // Tasks share their equations unless they lack other columns.
            let mut systems: Vec<(Vec<bool>, Vec<usize>)> = Vec::new();
            for i in (0..live.len()).filter(|i| live[*i]) {
                let blank: Vec<bool> = (0..m).map(|j| !fresh[j] && self.row(i)[j].is_nan()).collect();
                match systems.iter_mut().find(|(known, _)| *known == blank) {
                    Some((_, tasks)) => tasks.push(i),
                    None => systems.push((blank, vec![i])),
                }
            }
            for (blank, tasks) in &systems {
                System::new(segments, &fresh, blank).solve(segments, tasks, &self.effects, &mut acting);
            }
        }
        for i in (0..live.len()).filter(|i| live[*i]) {
            let rows = self.effects[i * m..][..m].iter_mut().zip(&acting[i * m..]);
            rows.zip(&fresh).filter(|(_, fresh)| **fresh).for_each(|((kept, row), _)| *kept = *row);
        }
        acting
    }
}

/// The equations of one round for the columns with fresh evidence.
struct System {
    groups: usize,
    /// Columns with fresh evidence.
    columns: Vec<usize>,
    /// Columns without, of which something is known.
    given: Vec<usize>,
    equations: Equations,
}

impl System {
    /// `blank` are the columns without fresh evidence of which nothing is known either.
    fn new(segments: &[Segment], fresh: &[bool], blank: &[bool]) -> Self {
        let m = fresh.len();
        let columns: Vec<usize> = (0..m).filter(|j| fresh[*j]).collect();
        let given = (0..m).filter(|j| !fresh[*j] && !blank[*j]).collect();
        // A column that nothing is known of is the mean of the fresh ones: its share is spread over theirs.
        let row = |s: &Segment| {
            let spread: f64 = (0..m).filter(|j| blank[*j]).map(|j| s.shares[j]).sum();
            let spread = spread / columns.len().max(1) as f64;
            columns.iter().map(|j| s.shares[*j] + spread).collect()
        };
        let shares: Vec<Cow<'_, [f64]>> = segments
            .iter()
            .map(|s| if columns.len() == m { Cow::Borrowed(&s.shares[..]) } else { Cow::Owned(row(s)) })
            .collect();
        let steps: Vec<f64> = segments.iter().map(|s| s.steps).collect();
        let probed: Option<Vec<usize>> =
            segments.iter().map(|s| columns.binary_search(&s.group).ok().filter(|_| s.own)).collect();
        let equations = match probed {
            Some(probed) => Equations::new(&shares, &steps, &probed, columns.len()),
            None => Equations::least(&shares, &steps, columns.len()),
        };
        System { groups: m, columns, given, equations }
    }

    /// Rows of `tasks`, given the `effects` known before, into `acting`.
    fn solve(&self, segments: &[Segment], tasks: &[usize], effects: &[f64], acting: &mut [f64]) {
        let (m, sides) = (self.groups, tasks.len());
        let mut right = Vec::with_capacity(segments.len() * sides);
        for s in segments {
            let rest = |i: usize| self.given.iter().map(|j| s.shares[*j] * effects[i * m + j]).sum::<f64>();
            right.extend(tasks.iter().map(|i| s.drop[*i] - s.steps * rest(*i)));
        }
        let pull = |a: f64| if a.is_nan() { 0.0 } else { a };
        let known: Vec<f64> =
            self.columns.iter().flat_map(|j| tasks.iter().map(move |i| pull(effects[i * m + j]))).collect();
        let solved = self.equations.solve(&right, &known, sides);
        for (side, i) in tasks.iter().enumerate() {
            let found = || (0..self.columns.len()).map(|c| solved[c * sides + side]);
            let mean = found().sum::<f64>() / self.columns.len().max(1) as f64;
            let row = &mut acting[i * m..][..m];
            let before = &effects[i * m..][..m];
            row.iter_mut().zip(before).for_each(|(r, a)| *r = if a.is_nan() { mean } else { *a });
            self.columns.iter().zip(found()).for_each(|(j, a)| row[*j] = a);
        }
    }
}

/// Drop of each group's own task over its share, by its own probes; `None` for a group without.
fn slopes(segments: &[Segment], own: &[Option<usize>]) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0.0); own.len()];
    for s in segments.iter().filter(|s| s.own) {
        let Some(drop) = own[s.group].map(|task| s.drop[task]).filter(|d| d.is_finite()) else { continue };
        let (x, sums) = (s.steps * s.shares[s.group], &mut sums[s.group]);
        *sums = (sums.0 + x * drop, sums.1 + x * x);
    }
    sums.into_iter().map(|(top, bottom)| (bottom > 0.0).then(|| top / bottom)).collect()
}

/// Row of task `i` when each group acts on its own task alone.
fn diagonal(row: &mut [f64], i: usize, own: &[Option<usize>], slopes: &[Option<f64>], known: &[f64]) {
    let (sum, count) = slopes.iter().flatten().fold((0.0, 0.0), |(s, c), x| (s + x, c + 1.0));
    let mean = sum / f64::max(count, 1.0);
    for (j, entry) in row.iter_mut().enumerate().filter(|(j, _)| own[*j] == Some(i)) {
        *entry = slopes[j].unwrap_or(if known[j].is_nan() { mean } else { known[j] });
    }
}

/// The paper's normalisation over `live` rows: shifted to >= 0, divided by the sum; all alike when that is empty. Rows of
/// other tasks are 0.
pub(super) fn normalised(effects: &[f64], live: &[bool]) -> Vec<f64> {
    let m = effects.len() / live.len().max(1);
    let rows = || (0..live.len()).filter(|i| live[*i]).flat_map(|i| i * m..(i + 1) * m);
    let low = rows().map(|at| effects[at]).fold(0.0, f64::min);
    let sum: f64 = rows().map(|at| effects[at] - low).sum();
    let even = 1.0 / rows().count().max(1) as f64;
    let mut out = vec![0.0; effects.len()];
    rows().for_each(|at| out[at] = if sum > EMPTY { (effects[at] - low) / sum } else { even });
    out
}

/// Column sums under task weights: n sum_i q_i A_ij, n being the tasks that count.
pub(super) fn column_sums(effects: &[f64], weights: &[f64]) -> Vec<f64> {
    let m = effects.len() / weights.len().max(1);
    let live = weights.iter().filter(|w| **w > 0.0).count() as f64;
    let mut sums = vec![0.0; m];
    for (weight, row) in weights.iter().zip(effects.chunks_exact(m.max(1))) {
        sums.iter_mut().zip(row).for_each(|(s, a)| *s += live * weight * a);
    }
    sums
}
