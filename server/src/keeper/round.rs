//! A round of a course: reports on its segments, its end, what the estimators are shown.

use super::check::Answer;
use super::course::{Course, CourseError};
use super::rules::Barrier;
use super::segment::Segment;
use crate::estimate::{Seen, Verdict, Want, When, reduce};
use mixfeed_proto as v1;

/// Directives that can be gone back to: 4,096 steps of a method that decides every 16.
const KEPT: usize = 256;

/// What a round led to, for the entry that follows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// What the estimator in charge made of it.
    pub receipt: String,
    /// Held-out losses at its end. Never whatever happens to be there: the log must not depend on how far streams had
    /// planned ahead when a report came.
    pub losses: Vec<f64>,
    /// Whether something was missing that is not waited for any more.
    pub late: bool,
}

impl Course {
    /// A report; whether it was counted and what to answer.
    ///
    /// # Errors
    /// [`CourseError`]: a defect.
    pub fn report(&mut self, report: v1::ReportRequest) -> Result<Answer, CourseError> {
        // What can be gone back to gives way to what is learnt now.
        while self.observed > 0 && self.bag.is_full(&report) {
            self.laid.remove(0);
            self.observed -= 1;
            self.forget_closed();
        }
        if let Err(answer) = self.check(&report) {
            return Ok(answer);
        }
        let lagged = matches!(self.rules.barrier, Barrier::Lagged(_));
        self.bag.add(report);
        if let (false, Some(covered)) = (lagged, self.sequence().covered()) {
            let waiting = self.laid.last().is_some_and(|l| l.barrier) && self.observed < self.laid.len();
            if waiting && self.open().all(|s| self.bag.complete(&self.rules, s)) {
                self.advance(covered)?;
            }
        }
        Ok(Answer::accepted())
    }

    /// Whether a report would be counted; the answer otherwise. Attempts are the caller's to compare.
    ///
    /// # Errors
    /// The answer.
    pub fn check(&self, report: &v1::ReportRequest) -> Result<(), Answer> {
        use v1::ReportReason as Reason;
        if report.rank >= self.rules.reporters {
            let why = format!("rank {} reports, the job has {} reporters", report.rank, self.rules.reporters);
            return Err(Answer::rejected(Reason::Rank, why));
        }
        let Some(segment) = self.open().find(|s| s.seq == report.segment) else {
            let known = self.entry(report.segment).is_some_and(|e| e.mixture_id == report.mixture_id);
            return Err(match known {
                true => Answer::stale(format!("segment {} is closed", report.segment)),
                false => Answer::rejected(
                    Reason::Mixture,
                    format!("there is no segment {} with mixture {}", report.segment, report.mixture_id),
                ),
            });
        };
        // Losses at the end of a segment are those at the begin of the next one, whichever a report names.
        let ends =
            |s: &Segment| s.until == Some(report.to_step) && s.wants().contains(&(When::After, Want::Eval));
        let boundary = report.to_step == segment.from && self.open().any(ends);
        self.bag.check(&self.rules, segment, report, boundary)
    }

    /// Time ran out at `barrier`: goes on with what arrived.
    ///
    /// # Errors
    /// [`CourseError`]: a defect.
    pub fn late(&mut self, barrier: u64) -> Result<(), CourseError> {
        if self.barrier() != Some(barrier) {
            return Ok(()); // the last report came in between
        }
        if self.sequence().covered().is_none_or(|c| barrier < c) {
            // Between two segments of a block: nothing more is expected of those that ended.
            let ended = |s: &Segment| s.until.is_some_and(|until| until <= barrier);
            for segment in
                self.laid[self.observed..].iter_mut().flat_map(|l| &mut l.segments).filter(|s| ended(s))
            {
                segment.window.wants.clear();
            }
            return Ok(());
        }
        let heard = Heard { late: true, ..self.observe() };
        self.lay(barrier, heard)
    }

    /// Shows the round's segments to every estimator, unless their losses say that the trainer is falling apart.
    pub(super) fn observe(&mut self) -> Heard {
        let segments: Vec<Segment> = self.open().filter(|s| s.until.is_some()).cloned().collect();
        self.judge(&segments);
        let mut seen = self.seen(&segments);
        let masked = self.masked(&seen);
        if self.frozen {
            // Without evidence everybody stays where they are, and goes on measuring.
            seen.iter_mut().for_each(|s| (s.before, s.after, s.reports) = (None, None, Vec::new()));
        }
        let verdicts: Vec<Verdict> = self.estimators.iter_mut().map(|e| e.observe(&seen)).collect();
        let losses =
            segments.last().and_then(|s| self.bag.losses(&self.rules, &self.replicas, s.until?, |_| true));
        if let Some(losses) = &losses {
            self.losses.clone_from(losses);
        }
        let used = verdicts.first().is_some_and(|v| v.used);
        self.stale_rounds = if used { 0 } else { self.stale_rounds + 1 };
        let frozen = self.frozen.then_some(("frozen", masked));
        let more = self.replicas.facts().into_iter().chain(frozen);
        let receipt = verdicts.first().map(|verdict| receipt(verdict, more)).unwrap_or_default();
        self.observed = self.laid.len();
        self.round += 1;
        self.prune();
        Heard { receipt, losses: losses.unwrap_or_default(), late: false }
    }

    /// What became of each segment.
    fn seen(&self, segments: &[Segment]) -> Vec<Seen> {
        let sequence = self.sequence();
        let one = |s: &Segment| {
            let (before, after) =
                (sequence.rows_before(s.from), sequence.rows_before(s.until.unwrap_or(s.from)));
            let rows: Vec<u64> = before.iter().zip(&after).map(|(b, a)| a - b).collect();
            self.bag.seen(&self.rules, &self.replicas, s, self.rules.narrow(&rows))
        };
        segments.iter().map(one).collect()
    }

    /// Looks at who told what at the ends of `segments`.
    fn judge(&mut self, segments: &[Segment]) {
        if self.rules.reduce != reduce::Rule::Nearest {
            return; // nobody is left out
        }
        let mut ends: Vec<u64> = segments.iter().filter_map(|s| s.until).collect();
        ends.dedup();
        for step in ends {
            let told = self.bag.told(step, |rank| self.replicas.trusts(rank));
            let parts: Vec<_> = told.iter().map(|(_, part)| part.clone()).collect();
            let faulty = self.replicas.faulty(&self.rules);
            if let Some(merged) = reduce::merge(self.rules.reduce, &parts, faulty) {
                self.replicas.judge(&self.rules, &told, &merged);
            }
        }
    }

    /// Tasks without a loss although others have one; decides whether the weights are frozen: half of the tasks, or some
    /// in two rounds running.
    fn masked(&mut self, seen: &[Seen]) -> Vec<f64> {
        let all = || seen.iter().flat_map(|s| s.before.iter().chain(&s.after));
        let is_masked = |task: &usize| all().any(|losses| losses.get(*task).is_some_and(|l| !l.is_finite()));
        let masked: Vec<usize> = (0..self.rules.tasks.len()).filter(is_masked).collect();
        self.masked_rounds = if masked.is_empty() { 0 } else { self.masked_rounds + 1 };
        self.frozen =
            !masked.is_empty() && (2 * masked.len() >= self.rules.tasks.len() || self.masked_rounds >= 2);
        masked.into_iter().map(|task| task as f64).collect()
    }

    /// Forgets what can no longer be gone back to.
    pub(super) fn prune(&mut self) {
        let gone = self.laid.len().saturating_sub(KEPT).min(self.observed);
        self.laid.drain(..gone);
        self.observed -= gone;
        self.forget_closed();
    }

    /// Forgets reports on segments that are gone.
    fn forget_closed(&mut self) {
        if let Some(oldest) = self.laid.iter().flat_map(|l| &l.segments).map(|s| s.seq).min() {
            self.bag.forget_before(oldest);
        }
    }
}

/// A verdict as one line of JSON for the log, with `more` facts.
fn receipt(verdict: &Verdict, more: impl Iterator<Item = (&'static str, Vec<f64>)>) -> String {
    let list = |values: &[f64]| values.iter().map(|v| format!("{v}")).collect::<Vec<_>>().join(",");
    let facts = verdict.facts.iter().cloned().chain(more);
    let facts = facts.map(|(name, values)| format!(",\"{name}\":[{}]", list(&values)));
    format!("{{\"used\":{}{}}}", verdict.used, facts.collect::<String>())
}
