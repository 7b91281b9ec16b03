//! Where a trainer's batches come from and its reports go: the service's side of a run, here without a service.

use mixfeed_server::estimate::hamilton::hamilton;
use mixfeed_server::estimate::{Directive, Estimator, Reduced, Seen, Want, When, WindowKind};
use mixfeed_server::mixture::{Exhaustion, GroupRule, LastBatch, ONE, Sequence, Slot, Weights};

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

/// What a job is.
#[derive(Clone, Debug)]
pub struct Job {
    /// Rows of each group.
    pub rows: Vec<usize>,
    /// Rows of a step.
    pub batch: u64,
    /// Steps.
    pub steps: u64,
    pub seed: u64,
}

/// A feed in this process: the estimator's directives are served one after the other, every barrier at once.
#[derive(Debug)]
pub struct Here {
    job: Job,
    estimator: Box<dyn Estimator>,
    sequence: Sequence,
    step: u64,
    /// Rows taken from each group so far.
    taken: Vec<u64>,
    /// What main windows owe each group.
    credit: Vec<i128>,
    directive: Directive,
    /// Windows of the directive that were begun; the last one is being served.
    seen: Vec<Seen>,
    /// Counts of the probe being served, not served yet.
    probe: Probe,
    /// Step and losses of the last evaluation.
    evaluated: Option<(u64, Vec<f64>)>,
    /// First step and shares of each window.
    pub log: Vec<(u64, Vec<f64>)>,
}

#[derive(Debug, Default)]
struct Probe {
    weights: Vec<u64>,
    credit: Vec<i128>,
}

impl Here {
    pub fn new(job: Job, mut estimator: Box<dyn Estimator>) -> Here {
        let groups = job.rows.len();
        let rule = |rows: &usize| GroupRule { records: *rows as u64, exhaustion: Exhaustion::Repeat };
        let weights = Weights::normalise(&vec![1.0; groups]).unwrap();
        let rules = job.rows.iter().map(rule).collect();
        let sequence = Sequence::new(job.seed, rules, weights, job.batch, LastBatch::Drop, job.steps);
        let directive = estimator.directive(0);
        let mut here = Here {
            job,
            estimator,
            sequence,
            step: 0,
            taken: vec![0; groups],
            credit: vec![0; groups],
            directive,
            seen: Vec::new(),
            probe: Probe::default(),
            evaluated: None,
            log: Vec::new(),
        };
        here.begin();
        here
    }

    /// Begins the next window of the directive.
    fn begin(&mut self) {
        let window = self.directive.windows[self.seen.len()].clone();
        self.log.push((self.step, window.shares.clone()));
        if let WindowKind::Probe { .. } = window.kind {
            let counts = hamilton(window.steps * self.job.batch, &window.shares);
            self.probe = Probe { credit: vec![0; counts.len()], weights: counts };
        }
        let known = self.evaluated.as_ref().filter(|(step, _)| *step == self.step);
        self.seen.push(Seen {
            before: known.map(|(_, losses)| losses.clone()),
            after: None,
            from_step: self.step,
            steps: 0,
            rows: vec![0; self.job.rows.len()],
            reports: Vec::new(),
            window,
        });
    }

    fn now(&mut self) -> &mut Seen {
        self.seen.last_mut().expect("a window is begun with the feed")
    }

    /// Goes on to the next window, or directive, when this one is complete.
    fn turn(&mut self) {
        let (served, steps) = (self.now().steps, self.now().window.steps);
        if served < steps {
            return;
        }
        if self.seen.len() == self.directive.windows.len() {
            self.estimator.observe(&std::mem::take(&mut self.seen));
            self.directive = self.estimator.directive(self.step);
        }
        self.begin();
    }

    /// Groups of the next step's rows.
    fn draw(&mut self) -> Vec<usize> {
        let window = self.now().window.clone();
        let (weights, total, credit) = match window.kind {
            WindowKind::Main => {
                let weights = Weights::normalise(&window.shares).unwrap();
                (weights.shares().to_vec(), ONE, &mut self.credit)
            }
            WindowKind::Probe { .. } => {
                (self.probe.weights.clone(), window.steps * self.job.batch, &mut self.probe.credit)
            }
        };
        (0..self.job.batch).map(|_| largest_deficit(credit, &weights, total)).collect()
    }
}

impl Feed for Here {
    fn next(&mut self) -> Option<Batch> {
        if self.step == self.job.steps {
            return None;
        }
        self.turn();
        let groups = self.draw();
        let mut rows = Vec::new();
        for group in groups {
            let record = self.sequence.record(Slot { group: group as u32, k: self.taken[group] });
            rows.push((group, record.index as usize));
            self.taken[group] += 1;
            self.now().rows[group] += 1;
        }
        let step = self.step;
        self.step += 1;
        let seen = self.now();
        seen.steps += 1;
        let (first, last) = (seen.steps == 1, seen.steps == seen.window.steps);
        let due = |when: When| seen.window.wants.iter().filter(move |w| w.0 == when).map(|w| w.1);
        let known = seen.before.is_some();
        let due_before = due(When::Before).filter(|w| first && !(known && *w == Want::Eval)).collect();
        let due_after = due(When::EachStep).chain(due(When::After).filter(|_| last)).collect();
        Some(Batch { step, rows, due_before, due_after })
    }

    fn report(&mut self, report: Reduced) {
        if report.want != Want::Eval {
            return self.now().reports.push(report);
        }
        let losses: Vec<f64> = report.values.iter().zip(&report.counts).map(|(sum, n)| sum / n).collect();
        let before = report.to_step < self.step;
        let seen = self.now();
        *(if before { &mut seen.before } else { &mut seen.after }) = Some(losses.clone());
        self.evaluated = Some((report.to_step, losses));
    }
}

/// The group owed most, ties to the lowest; it pays `total`, every group gains its weight (weights sum to `total`).
fn largest_deficit(credit: &mut [i128], weights: &[u64], total: u64) -> usize {
    credit.iter_mut().zip(weights).for_each(|(c, w)| *c += i128::from(*w));
    let owed = |j: &usize| (credit[*j], std::cmp::Reverse(*j));
    let most =
        (0..weights.len()).filter(|j| weights[*j] > 0).max_by_key(owed).expect("weights are not all zero");
    credit[most] -= i128::from(total);
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets;

    #[test]
    fn main_windows_give_the_sequence_of_the_specification() {
        let mut credit = vec![0; 3];
        let drawn: Vec<usize> = (0..10).map(|_| largest_deficit(&mut credit, &[5, 3, 2], 10)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]);
    }

    /// Rows per group of each window, and the steps at which an evaluation was due.
    fn served(way: &sets::Way, steps: u64) -> (Vec<(WindowKind, Vec<u64>)>, Vec<u64>) {
        let rows = vec![1000, 50, 1000];
        let mut feed = Here::new(
            Job { rows: rows.clone(), batch: 32, steps, seed: 7 },
            sets::estimator(way, &[1.0, 1.0, 1.0].map(|w| w / 3.0), &[0, 1, 2], &[64e3; 3], steps, 7),
        );
        let (mut windows, mut evaluated) = (Vec::new(), Vec::new());
        let mut order = Vec::new();
        while let Some(batch) = feed.next() {
            let kind = feed.now().window.kind;
            if feed.now().steps == 1 {
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
