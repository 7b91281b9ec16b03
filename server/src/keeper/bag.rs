//! Reports that arrived: which ones are taken, and what they say when put together.

use super::rules::Rules;
use super::segment::{Segment, kind_of, want_of};
use crate::estimate::{Reduced, Seen, Want, When, reduce};
use mixfeed_proto::{self as v1, ReportOutcome as Outcome, ReportReason as Reason};
use std::collections::BTreeMap;

/// Numbers of one sketch.
const MAX_SKETCH: usize = 16_384;
/// Bytes of all reports that are kept.
const MAX_BYTES: usize = 256 << 20;
/// What a loss may lie above that of a uniform guess, in nats.
const MAX_ABOVE_UNIFORM: f64 = 5.0;

/// What is answered to a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

impl Answer {
    /// Counted.
    pub fn accepted() -> Answer {
        Answer { outcome: Outcome::Accepted, reason: Reason::Unspecified, message: String::new() }
    }

    fn other(outcome: Outcome, message: impl Into<String>) -> Answer {
        Answer { outcome, reason: Reason::Unspecified, message: message.into() }
    }

    /// Refused.
    pub fn rejected(reason: Reason, message: impl Into<String>) -> Answer {
        Answer { outcome: Outcome::Rejected, reason, message: message.into() }
    }

    /// About a segment that is closed.
    pub fn stale(message: impl Into<String>) -> Answer {
        Answer::other(Outcome::Stale, message)
    }
}

/// (segment, rank, kind, attempt, seq).
type Key = (u64, u32, i32, u64, u64);

/// Reports by key: in the same order whatever order they arrived in.
#[derive(Clone, Debug, Default)]
pub struct Bag {
    reports: BTreeMap<Key, v1::ReportRequest>,
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
        self.reports.insert(key(&report), report);
    }

    /// Forgets the reports for which `gone` is true.
    pub fn forget(&mut self, gone: impl Fn(&v1::ReportRequest) -> bool) {
        self.reports.retain(|_, report| !gone(report));
        self.bytes = self.reports.values().map(size).sum();
    }

    /// Whether there is no room for another report.
    pub fn is_full(&self, report: &v1::ReportRequest) -> bool {
        self.bytes + size(report) > MAX_BYTES
    }

    /// Furthest step that a report is about.
    pub fn furthest(&self) -> u64 {
        self.reports.values().map(|r| r.to_step).max().unwrap_or(0)
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
        let same = self.reports.values().filter(|r| r.kind == report.kind && r.rank == report.rank);
        let clash = |other: &&v1::ReportRequest| match want {
            Want::Eval => other.to_step == report.to_step,
            Want::Sketch => {
                let owner = |r: &v1::ReportRequest| (r.to_step, r.owner, r.held_out);
                owner(other) == owner(report)
            }
            Want::Train
            | Want::Excess
            | Want::Dots
            | Want::GradientStats
            | Want::Influence
            | Want::Candidates => {
                let point = other.from_step == other.to_step || report.from_step == report.to_step;
                match point {
                    true => other.to_step == report.to_step,
                    false => other.from_step < report.to_step && report.from_step < other.to_step,
                }
            }
        };
        match same.into_iter().find(clash) {
            Some(other) if other.attempt != report.attempt => {
                Err(Answer::stale(format!("was reported by attempt {} already", other.attempt)))
            }
            Some(other) => {
                let why = format!(
                    "steps {}..={} were reported in number {}",
                    other.from_step, other.to_step, other.seq
                );
                Err(Answer::rejected(Reason::Overlap, why))
            }
            None => Ok(()),
        }
    }

    /// Whether every report that is due around `segment` is there.
    pub fn complete(&self, rules: &Rules, segment: &Segment) -> bool {
        segment
            .wants()
            .iter()
            .all(|due| (0..rules.reporters).all(|rank| self.has(rules, segment, *due, rank)))
    }

    fn has(&self, rules: &Rules, segment: &Segment, (when, want): (When, Want), rank: u32) -> bool {
        let until = segment.until.unwrap_or(u64::MAX);
        let kind = kind_of(want) as i32;
        let mut of = self.reports.values().filter(|r| r.kind == kind && r.rank == rank);
        let at = match when {
            When::Before => segment.from,
            When::After => until,
            When::EachStep => {
                let inside = of.filter(|r| r.segment == segment.seq);
                return inside.map(|r| r.to_step.saturating_sub(r.from_step).max(1)).sum::<u64>()
                    >= until - segment.from;
            }
        };
        match want {
            Want::Sketch => of.filter(|r| r.to_step == at).count() >= rules.tasks.len() + rules.active.len(),
            Want::Eval
            | Want::Train
            | Want::Excess
            | Want::Dots
            | Want::GradientStats
            | Want::Influence
            | Want::Candidates => of.any(|r| r.to_step == at),
        }
    }

    /// Held-out losses per task after `step` steps, over the ranks that `ranks` admits.
    pub fn losses(&self, rules: &Rules, step: u64, ranks: impl Fn(u32) -> bool) -> Option<Vec<f64>> {
        let kind = v1::ReportKind::Eval as i32;
        let of = self.reports.values().filter(|r| r.kind == kind && r.to_step == step && ranks(r.rank));
        let parts: Vec<reduce::Part> = of.map(part).collect();
        let merged = reduce::merge(rules.reduce, &parts, rules.faulty)?.part;
        Some(merged.values.iter().zip(&merged.counts).map(|(sum, count)| sum / count).collect())
    }

    /// Ranks whose held-out losses after `step` steps are there.
    fn ranks(&self, step: u64) -> Vec<u32> {
        let kind = v1::ReportKind::Eval as i32;
        self.reports.values().filter(|r| r.kind == kind && r.to_step == step).map(|r| r.rank).collect()
    }

    /// What became of `segment`, whose groups were served `rows`.
    pub fn seen(&self, rules: &Rules, segment: &Segment, rows: Vec<u64>) -> Seen {
        let until = segment.until.unwrap_or(segment.from);
        // A difference means something only between the same reporters: a missing one's shard would count as learning.
        let (first, last) = (self.ranks(segment.from), self.ranks(until));
        let lone = first.is_empty() || last.is_empty();
        let same = |rank: u32| lone || (first.contains(&rank) && last.contains(&rank));
        let inside = self.reports.values().filter(|r| r.segment == segment.seq);
        let skipped = inside.map(|r| r.skipped_steps).max().unwrap_or(0);
        let mut window = segment.window.clone();
        window.steps = until - segment.from;
        Seen {
            from_step: segment.from,
            steps: window.steps.saturating_sub(skipped),
            rows,
            before: self.losses(rules, segment.from, same),
            after: self.losses(rules, until, same),
            reports: self.reduced(rules, segment),
            window,
        }
    }

    /// Reports of a segment other than held-out losses, several ranks' as one.
    fn reduced(&self, rules: &Rules, segment: &Segment) -> Vec<Reduced> {
        let mut by: BTreeMap<(u64, Want, bool, u32), Vec<&v1::ReportRequest>> = BTreeMap::new();
        for report in self.reports.values().filter(|r| r.segment == segment.seq) {
            if let Some(want) = want_of(report.kind).filter(|w| *w != Want::Eval) {
                by.entry((report.to_step, want, report.held_out, report.owner)).or_default().push(report);
            }
        }
        let one =
            |((to_step, want, held_out, owner), of): ((u64, Want, bool, u32), Vec<&v1::ReportRequest>)| {
                let merged = |parts: Vec<reduce::Part>| {
                    reduce::merge(rules.reduce, &parts, rules.faulty).map(|m| m.part)
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

/// Lengths, ranges and digest of a report's numbers.
fn numbers(rules: &Rules, want: Want, report: &v1::ReportRequest) -> Result<(), Answer> {
    let (m, n) = (rules.groups.len(), rules.tasks.len());
    let no = |reason, why: String| Err(Answer::rejected(reason, why));
    let (values, counts, more) = match want {
        Want::Eval => (n, n, 0),
        Want::Train | Want::Excess => (m, m, 0),
        Want::Dots => (m, 0, 1),
        Want::GradientStats => (m, 0, m),
        Want::Influence => (n * m, 1, 0),
        Want::Sketch => (report.values.len().clamp(1, MAX_SKETCH), 0, 0),
        Want::Candidates => (report.values.len(), 0, 0),
    };
    for (name, list, wanted) in
        [("values", &report.values, values), ("counts", &report.counts, counts), ("more", &report.more, more)]
    {
        if list.len() != wanted {
            return no(Reason::Length, format!("`{name}` has {} numbers, want {wanted}", list.len()));
        }
        if let Some(bad) = list.iter().find(|v| !v.is_finite()) {
            return no(Reason::NotFinite, format!("`{name}` holds {bad}, want finite numbers"));
        }
    }
    let losses = matches!(want, Want::Eval | Want::Train | Want::Excess);
    let positive = losses || want == Want::GradientStats;
    let negative = |list: &[f64]| list.iter().any(|v| *v < 0.0);
    if (positive && (negative(&report.values) || negative(&report.more)))
        || negative(&report.counts)
        || report.lr < 0.0
    {
        return no(Reason::Range, "holds a negative number, want >= 0".into());
    }
    if !report.lr.is_finite() {
        return no(Reason::NotFinite, format!("`lr` is {}, want a finite number", report.lr));
    }
    let owned = match report.held_out {
        true => (report.owner as usize) < n,
        false => rules.active.contains(&(report.owner as usize)),
    };
    if want == Want::Sketch && !owned {
        return no(
            Reason::Length,
            format!("`owner` is {}, want a task or a group that is learnt", report.owner),
        );
    }
    if losses {
        means(rules, want, report)?;
    }
    if want == Want::Eval && report.eval_digest != rules.eval_digest[..] {
        return no(
            Reason::EvalDigest,
            "`eval_digest` is not the job's: other held-out sets were read".into(),
        );
    }
    Ok(())
}

/// Losses per token.
fn means(rules: &Rules, want: Want, report: &v1::ReportRequest) -> Result<(), Answer> {
    let no = |reason, why: String| Err(Answer::rejected(reason, why));
    if report.counts.iter().all(|c| *c == 0.0) {
        return no(Reason::Empty, "`counts` are all 0: there is nothing behind the numbers".into());
    }
    let most = rules.setup.log_vocabulary.map(|v| v + MAX_ABOVE_UNIFORM);
    for (i, (sum, count)) in report.values.iter().zip(&report.counts).enumerate() {
        let mean = sum / count;
        if *count == 0.0 && *sum != 0.0 {
            return no(Reason::Range, format!("number {i} is {sum} over 0 tokens"));
        }
        if want != Want::Excess && *count > 0.0 && *sum <= 0.0 {
            return no(Reason::Range, format!("loss {i} is {mean}, want above 0"));
        }
        if *count > 0.0 && !mean.is_finite() {
            return no(
                Reason::NotFinite,
                format!("loss {i} is {sum} over {count} tokens, want a finite mean"),
            );
        }
        if let Some(most) = most.filter(|most| *count > 0.0 && mean > *most) {
            return no(
                Reason::Range,
                format!("loss {i} is {mean}, want at most {most:.2} (a uniform guess and 5)"),
            );
        }
    }
    Ok(())
}

/// Steps that a report covers.
fn steps(segment: &Segment, want: Want, report: &v1::ReportRequest, boundary: bool) -> Result<(), Answer> {
    let (from, to) = (report.from_step, report.to_step);
    let until = segment.until.unwrap_or(u64::MAX);
    let point = |when: When| segment.wants().contains(&(when, want));
    let fits = match want {
        Want::Eval => {
            let begin = to == segment.from && (boundary || point(When::Before));
            from == to && (begin || (to == until && point(When::After)))
        }
        Want::Train | Want::Excess => segment.from <= from && from < to && to <= until,
        Want::Dots | Want::GradientStats | Want::Influence | Want::Sketch | Want::Candidates => {
            segment.from <= to && to <= until && from == to
        }
    };
    if fits && report.skipped_steps <= until - segment.from {
        return Ok(());
    }
    let why =
        format!("steps ({from}, {to}] don't fit segment {} of steps {}..{until}", segment.seq, segment.from);
    Err(Answer::rejected(Reason::Steps, why))
}
