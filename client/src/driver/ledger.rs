//! What a trainer saw since it last reported, and the numbers of its reports.

use super::{DriveError, LossSum, StepReport};
use crate::learn::{ReportKind, ReportRequest};
use std::collections::BTreeMap;

/// Sums per group over (from, now].
#[derive(Clone, Debug, Default)]
struct Sums {
    from: u64,
    groups: Vec<LossSum>,
    /// A step did not measure them.
    gap: bool,
}

impl Sums {
    fn begin(&mut self, step: u64, groups: usize) {
        *self = Sums { from: step, groups: vec![LossSum::default(); groups], gap: false };
    }

    fn add(&mut self, kind: ReportKind, step: &[LossSum]) -> Result<(), DriveError> {
        let (found, expected) = (step.len(), self.groups.len());
        if found == 0 {
            self.gap = true;
            return Ok(());
        }
        if found != expected {
            return Err(DriveError::Length { kind, found, expected });
        }
        for (sum, step) in self.groups.iter_mut().zip(step) {
            sum.add(*step);
        }
        Ok(())
    }
}

/// Sums of what steps saw and the numbers of reports, for trainers that drive themselves; a [`Driver`](super::Driver) has one
/// of its own. Everything in it belongs to one segment.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Job, attempt and rank are filled in; the rest is of the current segment.
    base: ReportRequest,
    groups: usize,
    numbers: BTreeMap<ReportKind, u64>,
    train: Sums,
    excess: Sums,
}

impl Ledger {
    /// Begins empty, for a job of `groups` groups and reports of `rank` in `attempt`.
    pub fn new(job: &str, attempt: u64, rank: u32, groups: usize) -> Self {
        let base = ReportRequest { job: job.into(), attempt, rank, ..Default::default() };
        Ledger { base, groups, numbers: BTreeMap::new(), train: Sums::default(), excess: Sums::default() }
    }

    /// Begins a segment at `step`, unless it is the current one.
    pub fn enter(&mut self, segment: u64, mixture_id: u64, step: u64) {
        if (self.base.segment, self.base.mixture_id) == (segment, mixture_id) {
            return;
        }
        (self.base.segment, self.base.mixture_id, self.base.skipped_steps) = (segment, mixture_id, 0);
        self.numbers.clear();
        self.train.begin(step, self.groups);
        self.excess.begin(step, self.groups);
    }

    /// Adds a step, in order.
    ///
    /// # Errors
    /// [`DriveError::Length`] when it has another number of groups.
    pub fn add(&mut self, step: &StepReport) -> Result<(), DriveError> {
        self.base.skipped_steps += u64::from(step.skipped);
        self.train.add(ReportKind::Train, &step.losses)?;
        self.excess.add(ReportKind::Excess, &step.excess)
    }

    /// A report taken after `completed` steps, with the next number of its kind.
    pub fn report(&mut self, kind: ReportKind, completed: u64) -> ReportRequest {
        let number = self.numbers.entry(kind).or_default();
        let seq = *number;
        *number += 1;
        ReportRequest {
            kind: kind.into(),
            seq,
            from_step: completed,
            to_step: completed,
            ..self.base.clone()
        }
    }

    /// Sums of training or excess losses since the last such report, which begin anew.
    ///
    /// # Errors
    /// [`DriveError::Unsupported`] when a step since then did not measure them.
    pub fn sums(&mut self, kind: ReportKind, completed: u64) -> Result<ReportRequest, DriveError> {
        let sums = if kind == ReportKind::Excess { &mut self.excess } else { &mut self.train };
        let taken = std::mem::take(sums);
        sums.begin(completed, self.groups);
        if taken.gap || taken.from == completed {
            return Err(DriveError::Unsupported { kind, step: completed });
        }
        let report = self.report(kind, completed);
        Ok(ReportRequest {
            from_step: taken.from,
            values: taken.groups.iter().map(|sum| sum.sum).collect(),
            counts: taken.groups.iter().map(|sum| sum.count).collect(),
            ..report
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(sum: f64) -> StepReport {
        StepReport { losses: vec![LossSum { sum, count: 2.0 }, LossSum::default()], ..Default::default() }
    }

    #[test]
    fn sums_cover_the_steps_since_the_last_report_of_the_segment() {
        let mut ledger = Ledger::new("j", 3, 1, 2);
        ledger.enter(7, 70, 10);
        for sum in [1.0, 2.5] {
            ledger.add(&step(sum)).expect("two groups");
        }
        ledger.enter(7, 70, 11);
        let first = ledger.sums(ReportKind::Train, 12).expect("measured");
        assert_eq!((first.segment, first.mixture_id, first.attempt, first.rank), (7, 70, 3, 1));
        assert_eq!((first.seq, first.from_step, first.to_step), (0, 10, 12));
        assert_eq!((first.values, first.counts), (vec![3.5, 0.0], vec![4.0, 0.0]));
        ledger.add(&StepReport { skipped: true, ..step(4.0) }).expect("two groups");
        let second = ledger.sums(ReportKind::Train, 13).expect("measured");
        assert_eq!((second.seq, second.from_step, second.skipped_steps), (1, 12, 1));
        // Another segment takes nothing along.
        ledger.enter(8, 80, 13);
        ledger.add(&step(9.0)).expect("two groups");
        let third = ledger.sums(ReportKind::Train, 14).expect("measured");
        assert_eq!((third.seq, third.segment, third.skipped_steps), (0, 8, 0));
        assert_eq!(third.values, [9.0, 0.0]);
    }

    #[test]
    fn what_was_not_measured_is_an_error_when_it_is_due() {
        let mut ledger = Ledger::new("j", 1, 0, 2);
        ledger.enter(1, 1, 0);
        ledger.add(&step(1.0)).expect("two groups");
        ledger.add(&StepReport::default()).expect("nothing measured");
        let error = ledger.sums(ReportKind::Train, 2).expect_err("a gap");
        assert!(matches!(error, DriveError::Unsupported { kind: ReportKind::Train, step: 2 }), "{error}");
        let one = StepReport { losses: vec![LossSum::default()], ..Default::default() };
        let error = ledger.add(&one).expect_err("one of two");
        assert!(matches!(error, DriveError::Length { found: 1, expected: 2, .. }), "{error}");
    }
}
