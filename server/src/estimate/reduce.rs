//! One report out of those of several ranks.
//!
//! Ranks that read disjoint shards add up ([`Rule::Mean`]): sums and counts are summed, which is exact. Ranks that read
//! the same pinned sets may be wrong or stale; the other rules survive up to `faulty` of them: coordinate-wise trimmed
//! means, or nearest-neighbour averaging (MoNNA, Farhadkhani et al. 2023), whose pivot is the coordinate-wise median here
//! because a server has no vector of its own.

#[cfg(test)]
mod tests;

/// How reports become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Sums and counts add up; without counts, the mean.
    Mean,
    /// Per number: the mean without the `faulty` largest and smallest.
    Trimmed,
    /// The mean of the `n - faulty` vectors nearest to the coordinate-wise median, by Euclidean distance.
    Nearest,
}

/// What one rank told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Sums (with counts) or numbers (without).
    pub values: Vec<f64>,
    /// Tokens behind each sum; empty for numbers that are none.
    pub counts: Vec<f64>,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Sums or numbers, as they came.
    pub part: Part,
    /// Parts that did not count: those that hold a number that is not finite, or another number of numbers than the
    /// first good one, and for [`Rule::Nearest`] the distant ones. Ascending.
    pub dropped: Vec<usize>,
}

/// Reporters that may be wrong among `n` when nobody says.
pub fn default_faulty(n: usize) -> usize {
    n.saturating_sub(1) / 4
}

/// One report out of `parts`, in the order of ranks; `None` when no part is finite. Bad parts are dropped first and count
/// towards `faulty` (default [`default_faulty`], at most (n - 1) / 2). Fewer than three good parts give the mean.
pub fn merge(rule: Rule, parts: &[Part], faulty: Option<usize>) -> Option<Merged> {
    let finite = |part: &Part| part.values.iter().chain(&part.counts).all(|v| v.is_finite());
    let shape = |part: &Part| (part.values.len(), part.counts.len());
    let first = parts.iter().find(|p| finite(p)).map(shape)?;
    let legal = first.1 == 0 || first.1 == first.0;
    let good = |part: &Part| legal && finite(part) && shape(part) == first;
    let (kept, mut dropped): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|i| good(&parts[*i]));
    let faulty = faulty.unwrap_or_else(|| default_faulty(parts.len())).min(parts.len().saturating_sub(1) / 2);
    let left = faulty.saturating_sub(dropped.len()).min(kept.len().saturating_sub(1) / 2);
    let chosen: Vec<&Part> = kept.iter().map(|i| &parts[*i]).collect();
    if chosen.is_empty() {
        return None;
    }
    let part = match rule {
        Rule::Mean => sum(&chosen),
        Rule::Trimmed | Rule::Nearest if chosen.len() < 3 => average(&chosen),
        Rule::Trimmed => {
            let means: Vec<Vec<f64>> = chosen.iter().map(|p| means(p)).collect();
            scaled(&chosen, trimmed_mean(&means, left))
        }
        Rule::Nearest => {
            let means: Vec<Vec<f64>> = chosen.iter().map(|p| means(p)).collect();
            let near = nearest(&means, left);
            dropped.extend((0..kept.len()).filter(|i| !near.contains(i)).map(|i| kept[i]));
            let near: Vec<&Part> = near.iter().map(|i| chosen[*i]).collect();
            average(&near)
        }
    };
    dropped.sort_unstable();
    Some(Merged { part, dropped })
}

/// Disjoint shards: sums and counts add up.
fn sum(parts: &[&Part]) -> Part {
    if parts[0].counts.is_empty() {
        return average(parts);
    }
    let add = |of: fn(&Part) -> &Vec<f64>, j: usize| parts.iter().map(|p| of(p)[j]).sum();
    Part {
        values: (0..parts[0].values.len()).map(|j| add(|p| &p.values, j)).collect(),
        counts: (0..parts[0].counts.len()).map(|j| add(|p| &p.counts, j)).collect(),
    }
}

/// Copies of one thing: the mean of the means, with the counts of one.
fn average(parts: &[&Part]) -> Part {
    let means: Vec<Vec<f64>> = parts.iter().map(|p| means(p)).collect();
    let center = (0..parts[0].values.len()).map(|j| mean(&known(&means, j))).collect();
    scaled(parts, center)
}

/// `center` as sums over the median count of each number.
fn scaled(parts: &[&Part], center: Vec<f64>) -> Part {
    if parts[0].counts.is_empty() {
        return Part { values: center, counts: Vec::new() };
    }
    let count =
        |j: usize| median(&parts.iter().map(|p| p.counts[j]).filter(|c| *c > 0.0).collect::<Vec<_>>());
    let counts: Vec<f64> = (0..center.len()).map(count).collect();
    let values = center.iter().zip(&counts).map(|(c, n)| if *n > 0.0 { c * n } else { 0.0 }).collect();
    Part { values, counts }
}

/// Sum over count of each number; NaN where a rank has none.
fn means(part: &Part) -> Vec<f64> {
    if part.counts.is_empty() {
        return part.values.clone();
    }
    part.values.iter().zip(&part.counts).map(|(v, n)| if *n > 0.0 { v / n } else { f64::NAN }).collect()
}

/// Number `j` of every vector that has it.
fn known(vectors: &[Vec<f64>], j: usize) -> Vec<f64> {
    vectors.iter().map(|v| v[j]).filter(|v| !v.is_nan()).collect()
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The middle value, of an even number the mean of the two; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Per number the mean without the `faulty` largest and smallest; NaN entries are none.
pub fn trimmed_mean(vectors: &[Vec<f64>], faulty: usize) -> Vec<f64> {
    let center = |j: usize| {
        let mut values = known(vectors, j);
        values.sort_by(f64::total_cmp);
        let cut = faulty.min(values.len().saturating_sub(1) / 2);
        mean(&values[cut..values.len() - cut])
    };
    (0..vectors.first().map_or(0, Vec::len)).map(center).collect()
}

/// Indices, ascending, of the `n - faulty` vectors nearest to the coordinate-wise median; of equally near ones the first.
pub fn nearest(vectors: &[Vec<f64>], faulty: usize) -> Vec<usize> {
    let pivot: Vec<f64> =
        (0..vectors.first().map_or(0, Vec::len)).map(|j| median(&known(vectors, j))).collect();
    let distance = |v: &Vec<f64>| -> f64 {
        v.iter().zip(&pivot).map(|(a, b)| (a - b) * (a - b)).filter(|d| !d.is_nan()).sum()
    };
    let distances: Vec<f64> = vectors.iter().map(distance).collect();
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|a, b| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b)));
    order.truncate(vectors.len().saturating_sub(faulty));
    order.sort_unstable();
    order
}
