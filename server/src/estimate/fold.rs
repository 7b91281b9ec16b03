//! Rules that learn from one report at a time, published per window.

use super::Writer;
use super::{
    Directive, Estimator, Reader, Reduced, Seen, StateError, Verdict, Want, When, Window, WindowKind,
};
use crate::args::{Args, Param};

/// Steps of a window, for every rule here.
pub(super) const MIN_WINDOW: Param = Param {
    name: "min_window",
    default: 16.0,
    min: 1.0,
    max: 1e9,
    doc: "steps between changes of the weights",
};

/// What to learn from one report.
pub(super) trait Rule: Send + std::fmt::Debug {
    /// The report it lives on.
    fn due(&self) -> (When, Want);
    /// Learns from a report that was taken while `served` was in charge. False when nothing in it could be used.
    fn learn(&mut self, report: &Reduced, served: &[f64]) -> bool;
    /// Shares to serve from `step` on.
    fn serve(&self, step: u64) -> Vec<f64>;
    /// An operator has set the weights.
    fn steer(&mut self, shares: &[f64]);
    /// Numbers for the log.
    fn facts(&self) -> Vec<(&'static str, Vec<f64>)>;
    /// Everything learnt.
    fn save(&self, out: &mut Writer);
    /// The opposite; unchanged on errors.
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError>;
}

/// An estimator around a [`Rule`]: one main window after the other, each report folded once.
#[derive(Debug)]
pub(super) struct Folded<R> {
    rule: R,
    window: u64,
    /// Reports taken before this many steps are folded.
    next: u64,
    /// Step of the last directive.
    at: u64,
}

impl<R: Rule> Folded<R> {
    /// Around `rule`, with the window of `args`.
    pub fn new(rule: R, args: &Args) -> Self {
        Folded { rule, window: args.number(MIN_WINDOW.name) as u64, next: 0, at: 0 }
    }
}

impl<R: Rule> Estimator for Folded<R> {
    fn directive(&mut self, step: u64) -> Directive {
        self.at = step;
        let (steps, wants) = (self.window, vec![self.rule.due()]);
        let window = Window { kind: WindowKind::Main, steps, shares: self.rule.serve(step), wants };
        Directive { windows: vec![window], barrier: true }
    }

    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        let (_, want) = self.rule.due();
        let mut used = false;
        for (window, report) in seen.iter().flat_map(|s| s.reports.iter().map(move |r| (&s.window, r))) {
            // A late report counts when its steps are not counted yet.
            if report.want == want && report.to_step >= self.next && self.rule.learn(report, &window.shares) {
                self.next = report.to_step.saturating_add(1);
                used = true;
            }
        }
        Verdict { used, facts: if used { self.rule.facts() } else { Vec::new() } }
    }

    fn shares(&self) -> Vec<f64> {
        self.rule.serve(self.at)
    }

    fn steer(&mut self, shares: &[f64]) {
        self.rule.steer(shares);
    }

    fn save(&self, out: &mut Writer) {
        out.u64(self.next);
        out.u64(self.at);
        self.rule.save(out);
    }

    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        let (next, at) = (input.u64()?, input.u64()?);
        self.rule.restore(input)?;
        (self.next, self.at) = (next, at);
        Ok(())
    }
}

/// Sum over count per group; NaN for groups without count or with numbers that are no losses. `None` when the lists are
/// not one number per group, or no group has any.
pub(super) fn means(report: &Reduced, groups: usize) -> Option<Vec<f64>> {
    if report.values.len() != groups || report.counts.len() != groups {
        return None;
    }
    let mean = |(sum, count): (&f64, &f64)| {
        let mean = sum / count;
        if *count > 0.0 && mean.is_finite() && mean >= 0.0 { mean } else { f64::NAN }
    };
    let means: Vec<f64> = report.values.iter().zip(&report.counts).map(mean).collect();
    means.iter().any(|m| m.is_finite()).then_some(means)
}

/// Whether group j was present in a report whose counts may be left out.
pub(super) fn present(report: &Reduced, group: usize) -> bool {
    report.counts.get(group).is_none_or(|c| *c > 0.0)
}

/// A learning stretch whose average is served after it: the paper's use of DoGE and DoReMi, whose proxy run is sampled by
/// given shares.
#[derive(Debug)]
pub(super) struct Course {
    /// Shares during the stretch.
    pub sampled: Vec<f64>,
    /// Steps of the stretch.
    pub steps: u64,
    sum: Vec<f64>,
    updates: u64,
}

impl Course {
    /// Sampling `shares` for `steps` steps, 0 for all of them.
    pub fn new(shares: &[f64], steps: u64) -> Self {
        let steps = if steps == 0 { u64::MAX } else { steps };
        Course { sampled: shares.to_vec(), steps, sum: vec![0.0; shares.len()], updates: 0 }
    }
    /// Counts one update.
    pub fn add(&mut self, shares: &[f64]) {
        self.sum.iter_mut().zip(shares).for_each(|(s, p)| *s += p);
        self.updates += 1;
    }
    /// Average over the updates; what is sampled before the first.
    pub fn average(&self) -> Vec<f64> {
        if self.updates == 0 {
            return self.sampled.clone();
        }
        self.sum.iter().map(|s| s / self.updates as f64).collect()
    }
    /// What to sample at `step`.
    pub fn serve(&self, step: u64) -> Vec<f64> {
        if step < self.steps { self.sampled.clone() } else { self.average() }
    }
    /// An operator's shares: sampled from now on, and what the average starts from.
    pub fn steer(&mut self, shares: &[f64]) {
        *self = Course::new(shares, self.steps);
    }
    /// Everything learnt.
    pub fn save(&self, out: &mut Writer) {
        out.f64s(&self.sampled);
        out.f64s(&self.sum);
        out.u64(self.updates);
    }
    /// The state written by [`Course::save`].
    pub fn read(&self, input: &mut Reader<'_>) -> Result<Self, StateError> {
        let (sampled, sum) = (input.f64s(self.sum.len())?, input.f64s(self.sum.len())?);
        Ok(Course { sampled, steps: self.steps, sum, updates: input.u64()? })
    }
}

/// Evidence for tests of the rules.
#[cfg(test)]
pub(super) mod evidence {
    use super::*;

    /// A report with these values and counts.
    pub fn report(want: Want, to_step: u64, values: &[f64], counts: &[f64]) -> Reduced {
        let (values, counts) = (values.to_vec(), counts.to_vec());
        Reduced { want, to_step, values, counts, more: Vec::new(), lr: 0.0, owner: 0, held_out: false }
    }

    /// One main window with reports.
    pub fn seen(shares: &[f64], reports: Vec<Reduced>) -> Vec<Seen> {
        let window = Window { kind: WindowKind::Main, steps: 16, shares: shares.to_vec(), wants: Vec::new() };
        let rows = shares.iter().map(|s| (s * 1600.0) as u64).collect();
        vec![Seen { window, from_step: 0, steps: 16, rows, before: None, after: None, reports }]
    }
}
