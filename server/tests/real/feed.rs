//! Where a trainer's batches come from and its reports go: the service's side of a run, here without a service.

use mixfeed_proto::{MixtureEntry, ReportKind, ReportOutcome, ReportRequest};
use mixfeed_server::estimate::{Reduced, Want, When};
use mixfeed_server::keeper::{Course, Rules};
use mixfeed_server::mixture::{Costs, Exhaustion, GroupRule, LastBatch, Sequence};
use std::sync::Arc;

/// A batch as the trainer gets it.
#[derive(Debug)]
pub struct Batch {
    /// Step from 0.
    pub step: u64,
    /// (group, row of the group).
    pub rows: Vec<(usize, usize)>,
    /// Reports due before the step's update.
    pub due_before: Vec<Want>,
    /// Reports due after it.
    pub due_after: Vec<Want>,
}

/// The service's side.
pub trait Feed {
    /// The next batch, `None` at the end.
    fn next(&mut self) -> Option<Batch>;
    /// A report that was due.
    fn report(&mut self, report: Reduced);
}

/// First step and integer weights of each entry of a log.
pub type Log = Vec<(u64, Vec<u64>)>;

/// See [`Log`].
pub fn log(entries: &[MixtureEntry]) -> Log {
    entries.iter().map(|e| (e.from_step, e.weights.clone())).collect()
}

/// A job's course in this process: what the service decides, without its clock, store and streams.
#[derive(Debug)]
pub struct Here {
    course: Course,
    step: u64,
    steps: u64,
    /// Number of the next report.
    number: u64,
}

impl Here {
    /// A job of `rules` and `rows` per group.
    pub fn new(rules: Rules, rows: &[usize]) -> Here {
        let rule = |rows: &usize| GroupRule { records: *rows as u64, exhaustion: Exhaustion::Repeat };
        let (setup, rules_of) = (&rules.setup, rows.iter().map(rule).collect());
        let (seed, batch, steps) = (setup.seed, setup.batch, setup.max_steps);
        let sequence = Sequence::new(seed, rules_of, Costs::Equal, batch, LastBatch::Drop, steps);
        let course = Course::new(Arc::new(rules), sequence).unwrap();
        Here { course, step: 0, steps, number: 0 }
    }

    /// First step and integer weights of each entry of the log.
    pub fn log(&self) -> Log {
        log(self.course.entries())
    }
}

impl Feed for Here {
    fn next(&mut self) -> Option<Batch> {
        if self.step == self.steps {
            return None;
        }
        let step = self.step;
        self.course.plan(step).unwrap();
        assert!(self.course.ready(step), "step {step} waits for a report that was due and not made");
        let segment = self.course.segment(step).expect("a step that is ready is planned");
        let (first, last) = (segment.from == step, segment.until == Some(step + 1));
        let due = |when: When| segment.wants().iter().filter(move |w| w.0 == when).map(|w| w.1);
        let due_before = due(When::Before).filter(|_| first).collect();
        let due_after = due(When::EachStep).chain(due(When::After).filter(|_| last)).collect();
        let sequence = self.course.sequence();
        let record = |slot| sequence.record(slot).index as usize;
        let rows = sequence.step(step).into_iter().map(|slot| (slot.group as usize, record(slot))).collect();
        self.step += 1;
        Some(Batch { step, rows, due_before, due_after })
    }

    fn report(&mut self, report: Reduced) {
        // Before the step's update its segment is asked, after it too: `next` has moved on already.
        let segment = self.course.segment(self.step - 1).expect("a served step is planned");
        let (kind, point) = match report.want {
            Want::Eval => (ReportKind::Eval, true),
            Want::Train => (ReportKind::Train, false),
            Want::Influence => (ReportKind::Influence, true),
            Want::Sketch => (ReportKind::Sketch, true),
            Want::Excess | Want::Dots | Want::GradientStats | Want::Candidates => {
                panic!("a count model has no {:?}", report.want)
            }
        };
        let request = ReportRequest {
            segment: segment.seq,
            mixture_id: segment.mixture_id,
            kind: kind.into(),
            seq: self.number,
            values: report.values,
            counts: report.counts,
            from_step: report.to_step - u64::from(!point),
            to_step: report.to_step,
            eval_digest: self.course.rules().eval_digest.clone().into(),
            owner: report.owner as u32,
            held_out: report.held_out,
            ..Default::default()
        };
        self.number += 1;
        let answer = self.course.report(request).unwrap();
        assert_eq!(answer.outcome, ReportOutcome::Accepted, "{answer:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets;
    use mixfeed_server::estimate::WindowKind;

    /// Rows per group of each window, and the steps at which an evaluation was due.
    fn served(way: &sets::Way, steps: u64) -> (Vec<(WindowKind, Vec<u64>)>, Vec<u64>) {
        let rows = vec![1000, 50, 1000];
        let even = [1.0 / 3.0; 3];
        let mut feed = Here::new(sets::rules(way, &even, &[0, 1, 2], &rows, steps, 7), &rows);
        let (mut windows, mut evaluated) = (Vec::new(), Vec::new());
        let mut order = Vec::new();
        while let Some(batch) = feed.next() {
            let segment = feed.course.segment(batch.step).unwrap();
            let kind = segment.window.kind;
            if segment.from == batch.step {
                windows.push((kind, vec![0; 3]));
            }
            let counts = &mut windows.last_mut().unwrap().1;
            batch.rows.iter().for_each(|(group, row)| {
                counts[*group] += 1;
                assert!(*row < rows[*group]);
            });
            order.extend(batch.rows.iter().filter(|(g, _)| *g == 1).map(|(_, row)| *row));
            let due = [(batch.due_before, batch.step), (batch.due_after, batch.step + 1)];
            for (_, at) in due.into_iter().filter(|(wants, _)| wants.contains(&Want::Eval)) {
                evaluated.push(at);
                let values = (0..3).map(|i| 64.0 * (3.0 + i as f64 - 0.01 * at as f64)).collect();
                feed.report(Reduced {
                    want: Want::Eval,
                    to_step: at,
                    values,
                    counts: vec![64.0; 3],
                    more: Vec::new(),
                    lr: 0.0,
                    owner: 0,
                    held_out: false,
                });
            }
        }
        let times: Vec<usize> = (0..50).map(|row| order.iter().filter(|r| **r == row).count()).collect();
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least > 1 && most - least <= 1, "an epoch has every row once: {times:?}");
        (windows, evaluated)
    }

    #[test]
    fn probes_are_served_exactly_and_every_boundary_is_evaluated_once() {
        let (windows, evaluated) = served(&sets::aioli(&[("eta", 1.0), ("round_steps", 60.0)]), 120);
        assert_eq!(evaluated, [0, 4, 8, 12, 16, 20, 24, 60, 64, 68, 72, 76, 80, 84]);
        for (kind, rows) in &windows {
            match kind {
                WindowKind::Main => assert_eq!(rows.iter().sum::<u64>(), 36 * 32),
                WindowKind::Probe { group, .. } => {
                    assert_eq!((rows[*group], rows.iter().sum()), (64, 128), "{rows:?}");
                }
            }
        }
        assert_eq!(windows.iter().filter(|(kind, _)| *kind == WindowKind::Main).count(), 2);
    }
}
