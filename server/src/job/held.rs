//! Records held out of training: the same ones for every seed, chosen by a hash of their position.

use super::{JobGroup, Pipeline, check::Check};
use crate::pack::Table;
use mixfeed_proto as v1;
use std::sync::Arc;

/// What is held out of a job.
#[derive(Debug)]
pub struct Held {
    /// The job's groups with their held-out records only.
    pub groups: Vec<JobGroup>,
    /// How their documents are packed; empty for jobs without tokens.
    pub tables: Vec<Arc<Table>>,
    /// What StreamEvalSet serves of each group.
    pub sets: Vec<EvalSet>,
    /// Digest over the sets of the objective's groups, all when there is no objective.
    pub digest: [u8; 32],
}

/// A pinned held-out set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalSet {
    /// Rows.
    pub rows: u64,
    /// Digest of its records and of how they are cut into rows.
    pub digest: [u8; 32],
}

/// The held-out half of every group, before its sets are known.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// See [`Held::groups`].
    pub groups: Vec<JobGroup>,
    /// See [`Held::tables`].
    pub tables: Vec<Arc<Table>>,
}

impl Held {
    /// Digests the sets.
    pub(super) fn new(spec: &v1::JobSpec, parts: Parts, pipeline: &Pipeline) -> Held {
        let Parts { groups, tables } = parts;
        let set = |(g, group): (usize, &JobGroup)| {
            let digest = match pipeline {
                Pipeline::Image(_) | Pipeline::Points(_) => records(group),
                Pipeline::Tokens(_) => documents(group, &tables[g]),
            };
            EvalSet { rows: group.len(), digest }
        };
        let sets: Vec<EvalSet> = groups.iter().enumerate().map(set).collect();
        let objective = spec.mixture.as_ref().map_or(&[][..], |mixture| &mixture.objective);
        let counts =
            |group: &JobGroup| objective.is_empty() || objective.iter().any(|t| t.group == group.name);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mixfeed eval sets 1\n");
        for (group, set) in groups.iter().zip(&sets).filter(|(group, _)| counts(group)) {
            hasher.update(&(group.name.len() as u64).to_le_bytes());
            hasher.update(group.name.as_bytes());
            hasher.update(&set.rows.to_le_bytes());
            hasher.update(&set.digest);
        }
        let digest = *hasher.finalize().as_bytes();
        Held { groups, tables, sets, digest }
    }
}

/// Digest of names and sizes of a group's records in order.
fn records(group: &JobGroup) -> [u8; 32] {
    let index = group.source.index();
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mixfeed eval records 1\n");
    for number in (0..group.records()).map(|i| group.record(i)) {
        let record = &index.records[number as usize];
        hasher.update(&(record.name.len() as u64).to_le_bytes());
        hasher.update(record.name.as_bytes());
        hasher.update(&record.size.to_le_bytes());
        hasher.update(&group.label(number).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Digest of a group's documents, which have no names: those of the whole group, which of them, and how they are cut.
fn documents(group: &JobGroup, table: &Table) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mixfeed eval documents 1\n");
    hasher.update(&group.source.index().groups[group.group].digest);
    group.positions().for_each(|position| {
        hasher.update(&position.to_le_bytes());
    });
    hasher.update(&table.digest());
    *hasher.finalize().as_bytes()
}

/// Splits every group when the spec says so: what stays in `groups` is trained on, what is returned is held out.
pub(super) fn split(check: &mut Check, spec: &mut v1::JobSpec, groups: &mut [JobGroup]) -> Option<Parts> {
    let given = spec.held_out.as_mut()?;
    let fraction = check.within("held_out.fraction", given.fraction, 0.0, 0.5);
    let mut parts = Parts::default();
    for group in groups {
        let all = group.records();
        check.ensure(all >= 2, "held_out", || {
            format!("leaves nothing of `{}`, which has {all} records, want at least 2", group.name)
        });
        let most = if given.max_records == 0 { all } else { given.max_records };
        let count = (libm::round(all as f64 * fraction) as u64).min(most).clamp(1, (all.max(2)) - 1).min(all);
        let (held, rest) = choose(all as u32, count as usize);
        parts.groups.push(JobGroup { chosen: Some(held.into()), ..group.clone() });
        group.chosen = Some(rest.into());
    }
    Some(parts)
}

/// The `count` of `0..all` whose hashes are smallest, ascending, and the others. A larger count holds a smaller one's.
fn choose(all: u32, count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut scored: Vec<([u8; 32], u32)> = (0..all).map(|position| (score(position), position)).collect();
    scored.sort_unstable();
    let mut positions: Vec<u32> = scored.into_iter().map(|(_, position)| position).collect();
    let mut rest = positions.split_off(count.min(positions.len()));
    positions.sort_unstable();
    rest.sort_unstable();
    (positions, rest)
}

fn score(position: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mixfeed held out 1\n");
    *hasher.update(&position.to_le_bytes()).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_nested_spread_and_pinned() {
        let (held, rest) = choose(1000, 100);
        assert_eq!((held.len(), rest.len()), (100, 900));
        assert!(held.iter().all(|p| !rest.contains(p)));
        let (fewer, _) = choose(1000, 10);
        assert!(fewer.iter().all(|p| held.contains(p)));
        let low = held.iter().filter(|p| **p < 500).count();
        assert!((30..70).contains(&low), "{low} of 100 in the first half");
        assert_eq!(fewer, PINNED, "a change holds other records out of every job");
        assert_eq!(choose(1, 1).1, Vec::<u32>::new());
    }
    const PINNED: [u32; 10] = [43, 126, 252, 482, 514, 563, 706, 774, 784, 904];
}
