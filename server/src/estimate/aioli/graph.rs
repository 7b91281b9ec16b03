//! LearnParams: evidence to graph, graph to gains.

use super::super::solve::ridge;
use super::evidence::Segment;

/// Pull towards the previous graph, as a part of the mean square share: decides only directions without evidence.
const RIDGE: f64 = 1e-6;

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

    /// Learns the rows of `live` tasks from segments, by ridge least squares over realised shares. Columns without a
    /// probe of their own stay as they are; until they are known they count as the mean of the others. `own` limits a
    /// group's effect to one task. Returns the effects to act on: rows of tasks that are not live are 0.
    pub fn learn(&mut self, segments: &[Segment], live: &[bool], own: Option<&[Option<usize>]>) -> Vec<f64> {
        let m = self.groups;
        let fresh: Vec<bool> = (0..m).map(|j| segments.iter().any(|s| s.own && s.group == j)).collect();
        let mut acting = vec![0.0; self.effects.len()];
        for i in (0..live.len()).filter(|i| live[*i]) {
            let row = match own {
                None => full(segments, i, &fresh, self.row(i)),
                Some(own) => diagonal(segments, i, own, self.row(i)),
            };
            acting[i * m..][..m].copy_from_slice(&row);
            let kept = &mut self.effects[i * m..][..m];
            (0..m).filter(|j| fresh[*j]).for_each(|j| kept[j] = row[j]);
        }
        acting
    }
}

/// Row of task `i`: solves for the columns that are `fresh`, given the others.
fn full(segments: &[Segment], i: usize, fresh: &[bool], known: &[f64]) -> Vec<f64> {
    let m = known.len();
    let columns: Vec<usize> = (0..m).filter(|j| fresh[*j]).collect();
    // A column that nothing is known of is the mean of the fresh ones: its share is spread over theirs.
    let blank = |j: &usize| !fresh[*j] && known[*j].is_nan();
    let mut rows = Vec::new();
    let mut right = Vec::new();
    for s in segments {
        let spread = (0..m).filter(blank).map(|j| s.shares[j]).sum::<f64>() / columns.len().max(1) as f64;
        rows.push(columns.iter().map(|j| s.steps * (s.shares[*j] + spread)).collect::<Vec<f64>>());
        let given = (0..m).filter(|j| !fresh[*j] && !known[*j].is_nan());
        right.push(s.drop[i] - s.steps * given.map(|j| s.shares[j] * known[j]).sum::<f64>());
    }
    let pull: Vec<f64> = columns.iter().map(|j| if known[*j].is_nan() { 0.0 } else { known[*j] }).collect();
    let solved = ridge(&rows, &right, &pull, RIDGE);
    let mean = solved.iter().sum::<f64>() / solved.len().max(1) as f64;
    let mut row: Vec<f64> = known.iter().map(|a| if a.is_nan() { mean } else { *a }).collect();
    columns.iter().zip(&solved).for_each(|(j, a)| row[*j] = *a);
    row
}

/// Row of task `i` when each group acts on its own task alone: drop over share, of the group's own probes.
fn diagonal(segments: &[Segment], i: usize, own: &[Option<usize>], known: &[f64]) -> Vec<f64> {
    let slope = |j: usize| {
        let task = own[j].unwrap_or(i);
        let probes = segments.iter().filter(|s| s.own && s.group == j && s.drop[task].is_finite());
        let sums = probes.fold((0.0, 0.0), |(top, bottom), s| {
            let x = s.steps * s.shares[j];
            (top + x * s.drop[task], bottom + x * x)
        });
        (sums.1 > 0.0).then(|| sums.0 / sums.1)
    };
    let slopes: Vec<f64> = (0..known.len()).filter_map(slope).collect();
    let mean = slopes.iter().sum::<f64>() / slopes.len().max(1) as f64;
    let entry = |j: usize| match slope(j) {
        _ if own[j] != Some(i) => 0.0,
        Some(slope) => slope,
        None if known[j].is_nan() => mean,
        None => known[j],
    };
    (0..known.len()).map(entry).collect()
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
    (0..m).map(|j| (0..weights.len()).map(|i| live * weights[i] * effects[i * m + j]).sum()).collect()
}
