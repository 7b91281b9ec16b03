//! Reports that arrived: which ones are taken, and what they say when put together.
//!
//! They lie in the order of their keys, whatever order they arrived in. A thousand ranks that report every step ask ten
//! thousand times per window whether a report overlaps and whether everything is there, so an [`Index`] answers that.

mod index;
#[cfg(test)]
mod tests;

use super::check::{Answer, numbers, steps};
use super::replicas::Replicas;
use super::rules::Rules;
use super::segment::{Segment, kind_of, want_of};
use crate::estimate::{Reduced, Seen, Want, When, reduce};
use index::Index;
use mixfeed_proto::{self as v1, ReportOutcome as Outcome, ReportReason as Reason};
use std::collections::BTreeMap;

/// Bytes of all reports that are kept.
const MAX_BYTES: usize = 256 << 20;

/// Held-out losses.
const EVAL: i32 = v1::ReportKind::Eval as i32;

/// (segment, rank, kind, attempt, seq).
type Key = (u64, u32, i32, u64, u64);

/// Reports by key: in the same order whatever order they arrived in.
#[derive(Clone, Debug, Default)]
pub struct Bag {
    reports: BTreeMap<Key, v1::ReportRequest>,
    index: Index,
    bytes: usize,
}

fn key(report: &v1::ReportRequest) -> Key {
    (report.segment, report.rank, report.kind, report.attempt, report.seq)
}

fn part(report: &v1::ReportRequest) -> reduce::Part {
    reduce::Part { values: report.values.clone(), counts: report.counts.clone() }
}

fn size(report: &v1::ReportRequest) -> usize {
    prost::Message::encoded_len(report) + 256
}

impl Bag {
    /// Keeps a report that was checked.
    pub fn add(&mut self, report: v1::ReportRequest) {
        self.bytes += size(&report);
        self.index.add(&report);
        self.reports.insert(key(&report), report);
    }

    /// Forgets the reports for which `gone` is true.
    pub fn forget(&mut self, gone: impl Fn(&v1::ReportRequest) -> bool) {
        for (_, report) in self.reports.extract_if(.., |_, report| gone(report)) {
            self.bytes -= size(&report);
            self.index.remove(&report);
        }
    }

    /// Forgets the reports on segments before `segment`.
    pub fn forget_before(&mut self, segment: u64) {
        while let Some(first) = self.reports.first_entry().filter(|first| first.key().0 < segment) {
            let report = first.remove();
            self.bytes -= size(&report);
            self.index.remove(&report);
        }
    }

    /// Whether there is no room for another report.
    pub fn is_full(&self, report: &v1::ReportRequest) -> bool {
        self.bytes + size(report) > MAX_BYTES
    }

    /// Furthest step that a report is about.
    pub fn furthest(&self) -> u64 {
        self.index.furthest()
    }

    /// Whether the report may be counted in `segment`; the first misfit otherwise. `boundary`: held-out losses are due
    /// where the segment begins, at the end of the one before.
    pub fn check(
        &self,
        rules: &Rules,
        segment: &Segment,
        report: &v1::ReportRequest,
        boundary: bool,
    ) -> Result<(), Answer> {
        let no = |reason, why: String| Err(Answer::rejected(reason, why));
        let Some(want) = want_of(report.kind) else {
            return no(Reason::NotDue, format!("kind {} is not known", report.kind));
        };
        if segment.mixture_id != report.mixture_id {
            let (found, wanted) = (report.mixture_id, segment.mixture_id);
            return no(Reason::Mixture, format!("mixture is {found}, segment {} has {wanted}", segment.seq));
        }
        if let Some(known) = self.reports.get(&key(report)) {
            return Err(match known == report {
                true => Answer::other(Outcome::Duplicate, "was counted already"),
                false => {
                    Answer::other(Outcome::Conflict, "another report with this number was counted; it stands")
                }
            });
        }
        let extra = want == Want::Train && rules.learner.is_some();
        let extra = extra || (want == Want::Eval && boundary);
        if !segment.asks(want) && !extra {
            return no(
                Reason::NotDue,
                format!("{} is not due in segment {}", kind_of(want).as_str_name(), segment.seq),
            );
        }
        if self.is_full(report) {
            return no(
                Reason::Full,
                format!("{} bytes of reports are kept, want at most {MAX_BYTES}", self.bytes),
            );
        }
        numbers(rules, want, report)?;
        steps(segment, want, report, boundary)?;
        self.overlap(want, report)
    }

    /// A report on steps that another one of the rank covers.
    fn overlap(&self, want: Want, report: &v1::ReportRequest) -> Result<(), Answer> {
        let owner = |r: &v1::ReportRequest| (r.owner, r.held_out);
        // The first one by key, so that the answer hangs on nothing else.
        let clash = match want {
            Want::Train | Want::Excess => self.index.overlapping(report).min(),
            Want::Sketch => {
                self.index.at(report).filter(|key| owner(&self.reports[key]) == owner(report)).min()
            }
            Want::Eval | Want::Dots | Want::GradientStats | Want::Influence | Want::Candidates => {
                self.index.at(report).min()
            }
        };
        let Some(other) = clash.map(|key| &self.reports[&key]) else { return Ok(()) };
        if other.attempt != report.attempt {
            return Err(Answer::stale(format!("was reported by attempt {} already", other.attempt)));
        }
        let (from, to, seq) = (other.from_step, other.to_step, other.seq);
        let why = format!("steps {from}..={to} were reported in number {seq}");
        Err(Answer::rejected(Reason::Overlap, why))
    }

    /// Whether every report that is due around `segment` is there.
    pub fn complete(&self, rules: &Rules, segment: &Segment) -> bool {
        let until = segment.until.unwrap_or(u64::MAX);
        let there = |(when, want): &(When, Want)| {
            let (kind, ranks) = (kind_of(*want) as i32, rules.reporters);
            let each = match want {
                Want::Sketch => rules.tasks.len() + rules.active.len(),
                Want::Eval
                | Want::Train
                | Want::Excess
                | Want::Dots
                | Want::GradientStats
                | Want::Influence
                | Want::Candidates => 1,
            };
            match when {
                When::Before => self.index.is_told(kind, segment.from, ranks, each),
                When::After => self.index.is_told(kind, until, ranks, each),
                When::EachStep => self.index.covers(segment.seq, kind, ranks, until - segment.from),
            }
        };
        segment.wants().iter().all(there)
    }

    /// Held-out losses after `step` steps as the ranks that `ranks` admits told them, in order.
    pub fn told(&self, step: u64, ranks: impl Fn(u32) -> bool) -> Vec<(u32, reduce::Part)> {
        let mut of: Vec<&Key> = self.index.told(EVAL, step).filter(|(_, rank, ..)| ranks(*rank)).collect();
        of.sort_unstable();
        of.into_iter().map(|key| (key.1, part(&self.reports[key]))).collect()
    }

    /// Held-out losses per task after `step` steps, over the ranks that are trusted and that `ranks` admits.
    pub fn losses(
        &self,
        rules: &Rules,
        replicas: &Replicas,
        step: u64,
        ranks: impl Fn(u32) -> bool,
    ) -> Option<Vec<f64>> {
        let told = self.told(step, |rank| ranks(rank) && replicas.trusts(rank));
        let parts: Vec<reduce::Part> = told.into_iter().map(|(_, part)| part).collect();
        let merged = reduce::merge(rules.reduce, &parts, replicas.faulty(rules))?.part;
        Some(merged.values.iter().zip(&merged.counts).map(|(sum, count)| sum / count).collect())
    }

    /// Reports on a segment, in order.
    fn of(&self, segment: u64) -> impl Iterator<Item = &v1::ReportRequest> {
        let (first, last) = ((segment, 0, i32::MIN, 0, 0), (segment, u32::MAX, i32::MAX, u64::MAX, u64::MAX));
        self.reports.range(first..=last).map(|(_, report)| report)
    }

    /// What became of `segment`, whose groups were served `rows`.
    pub fn seen(&self, rules: &Rules, replicas: &Replicas, segment: &Segment, rows: Vec<u64>) -> Seen {
        let until = segment.until.unwrap_or(segment.from);
        // A difference means something only between the same reporters: a missing one's shard would count as learning.
        let ranks = |step: u64| self.index.ranks(EVAL, step);
        let (first, last) = (ranks(segment.from), ranks(until));
        let lone = first.is_empty() || last.is_empty();
        let same = |rank: u32| lone || (first.contains(&rank) && last.contains(&rank));
        let skipped = self.of(segment.seq).map(|r| r.skipped_steps).max().unwrap_or(0);
        let mut window = segment.window.clone();
        window.steps = until - segment.from;
        Seen {
            from_step: segment.from,
            steps: window.steps.saturating_sub(skipped),
            rows,
            before: self.losses(rules, replicas, segment.from, same),
            after: self.losses(rules, replicas, until, same),
            reports: self.reduced(rules, replicas, segment),
            window,
        }
    }

    /// Reports of a segment other than held-out losses, several ranks' as one.
    fn reduced(&self, rules: &Rules, replicas: &Replicas, segment: &Segment) -> Vec<Reduced> {
        let mut by: BTreeMap<(u64, Want, bool, u32), Vec<&v1::ReportRequest>> = BTreeMap::new();
        for report in self.of(segment.seq).filter(|r| replicas.trusts(r.rank)) {
            if let Some(want) = want_of(report.kind).filter(|w| *w != Want::Eval) {
                by.entry((report.to_step, want, report.held_out, report.owner)).or_default().push(report);
            }
        }
        let one =
            |((to_step, want, held_out, owner), of): ((u64, Want, bool, u32), Vec<&v1::ReportRequest>)| {
                let merged = |parts: Vec<reduce::Part>| {
                    reduce::merge(rules.reduce, &parts, replicas.faulty(rules)).map(|m| m.part)
                };
                // Only losses are sums over tokens; a matrix, norms or a sketch are numbers of their own.
                let sums = matches!(want, Want::Train | Want::Excess);
                let numbers = |values: &Vec<f64>| reduce::Part { values: values.clone(), counts: Vec::new() };
                let main = match sums {
                    true => merged(of.iter().map(|r| part(r)).collect()),
                    false => merged(of.iter().map(|r| numbers(&r.values)).collect()),
                };
                let (values, counts) = main.map_or((Vec::new(), Vec::new()), |m| (m.values, m.counts));
                let more =
                    merged(of.iter().map(|r| numbers(&r.more)).collect()).map_or(Vec::new(), |m| m.values);
                let lr = of.first().map_or(0.0, |r| r.lr);
                let owner = match held_out {
                    true => owner as usize,
                    false => rules.active.iter().position(|g| *g == owner as usize).unwrap_or(0),
                };
                let reduced = Reduced { want, to_step, values, counts, more, lr, owner, held_out };
                narrow(rules, reduced)
            };
        by.into_iter().map(one).collect()
    }
}

/// Reports are about every group of the job, estimators see the active ones.
fn narrow(rules: &Rules, mut reduced: Reduced) -> Reduced {
    match reduced.want {
        Want::Train | Want::Excess => {
            reduced.values = rules.narrow(&reduced.values);
            reduced.counts = rules.narrow(&reduced.counts);
        }
        Want::Dots => reduced.values = rules.narrow(&reduced.values),
        Want::GradientStats => {
            reduced.values = rules.narrow(&reduced.values);
            reduced.more = rules.narrow(&reduced.more);
        }
        Want::Influence => {
            let rows = reduced.values.chunks(rules.groups.len());
            reduced.values = rows.flat_map(|row| rules.narrow(row)).collect();
        }
        Want::Eval | Want::Sketch | Want::Candidates => {}
    }
    reduced
}
