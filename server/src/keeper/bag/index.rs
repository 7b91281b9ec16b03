//! Which report stands where, without looking at all of them.

use super::{Key, key};
use mixfeed_proto as v1;
use std::collections::{BTreeMap, BTreeSet};

/// See [`super::Bag`].
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Reports by (kind, to_step), then by rank.
    told: BTreeMap<(i32, u64), BTreeMap<u32, Vec<Key>>>,
    /// Reports on a run of steps by (kind, rank, to_step): runs of one rank never overlap.
    runs: BTreeMap<(i32, u32, u64), (u64, Key)>,
    /// Steps reported on by (segment, kind).
    covered: BTreeMap<(u64, i32), Covered>,
    /// How many reports go up to each step.
    steps: BTreeMap<u64, usize>,
}

/// Steps that ranks have reported on.
#[derive(Clone, Debug, Default)]
struct Covered {
    by_rank: BTreeMap<u32, u64>,
    all: u64,
}

/// Steps that a report counts for; one about a point counts as a step.
fn length(report: &v1::ReportRequest) -> u64 {
    report.to_step.saturating_sub(report.from_step).max(1)
}

impl Index {
    pub(super) fn add(&mut self, report: &v1::ReportRequest) {
        let (kind, rank, from, to) = (report.kind, report.rank, report.from_step, report.to_step);
        self.told.entry((kind, to)).or_default().entry(rank).or_default().push(key(report));
        if from < to {
            self.runs.insert((kind, rank, to), (from, key(report)));
        }
        let covered = self.covered.entry((report.segment, kind)).or_default();
        *covered.by_rank.entry(rank).or_default() += length(report);
        covered.all += length(report);
        *self.steps.entry(to).or_default() += 1;
    }

    /// The opposite of [`Index::add`], of a report that was added.
    pub(super) fn remove(&mut self, report: &v1::ReportRequest) {
        let (kind, rank, to) = (report.kind, report.rank, report.to_step);
        if let Some(by_rank) = self.told.get_mut(&(kind, to)) {
            if let Some(keys) = by_rank.get_mut(&rank) {
                keys.retain(|other| *other != key(report));
                if keys.is_empty() {
                    by_rank.remove(&rank);
                }
            }
            if by_rank.is_empty() {
                self.told.remove(&(kind, to));
            }
        }
        if report.from_step < to {
            self.runs.remove(&(kind, rank, to));
        }
        if let Some(covered) = self.covered.get_mut(&(report.segment, kind)) {
            covered.all -= length(report);
            let left = covered.by_rank.get_mut(&rank).map(|steps| {
                *steps -= length(report);
                *steps
            });
            if left == Some(0) {
                covered.by_rank.remove(&rank);
            }
            if covered.all == 0 {
                self.covered.remove(&(report.segment, kind));
            }
        }
        if let Some(reports) = self.steps.get_mut(&to) {
            *reports -= 1;
            if *reports == 0 {
                self.steps.remove(&to);
            }
        }
    }

    /// Furthest step that a report goes up to.
    pub(super) fn furthest(&self) -> u64 {
        self.steps.last_key_value().map_or(0, |(step, _)| *step)
    }

    /// Reports of `kind` after `step` steps.
    pub(super) fn told(&self, kind: i32, step: u64) -> impl Iterator<Item = &Key> {
        self.told.get(&(kind, step)).into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// Ranks that reported `kind` after `step` steps.
    pub(super) fn ranks(&self, kind: i32, step: u64) -> BTreeSet<u32> {
        self.told.get(&(kind, step)).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// Reports of the same kind, rank and last step.
    pub(super) fn at(&self, report: &v1::ReportRequest) -> impl Iterator<Item = Key> {
        let by_rank = self.told.get(&(report.kind, report.to_step));
        by_rank.and_then(|by_rank| by_rank.get(&report.rank)).into_iter().flatten().copied()
    }

    /// Reports of the same kind and rank on some of the same steps; `report` is on a run of steps, as all of its kind.
    pub(super) fn overlapping(&self, report: &v1::ReportRequest) -> impl Iterator<Item = Key> {
        let (kind, rank, to) = (report.kind, report.rank, report.to_step);
        let after = (kind, rank, report.from_step.saturating_add(1))..=(kind, rank, u64::MAX);
        self.runs
            .range(after)
            .map(|(_, run)| run)
            .take_while(move |(from, _)| *from < to)
            .map(|(_, key)| *key)
    }

    /// Whether each of `ranks` has told at least `each` reports of `kind` after `step` steps.
    pub(super) fn is_told(&self, kind: i32, step: u64, ranks: u32, each: usize) -> bool {
        let Some(by_rank) = self.told.get(&(kind, step)) else { return false };
        by_rank.len() >= ranks as usize && by_rank.values().all(|keys| keys.len() >= each)
    }

    /// Whether each of `ranks` has reported `kind` on `steps` steps of `segment`.
    pub(super) fn covers(&self, segment: u64, kind: i32, ranks: u32, steps: u64) -> bool {
        let Some(covered) = self.covered.get(&(segment, kind)).filter(|_| steps > 0) else {
            return steps == 0;
        };
        // The sum first: it tells all but the last ones apart without looking at each.
        u128::from(covered.all) >= u128::from(steps) * u128::from(ranks)
            && covered.by_rank.len() >= ranks as usize
            && covered.by_rank.values().all(|own| *own >= steps)
    }
}
