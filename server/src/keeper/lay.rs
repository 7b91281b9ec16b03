//! From what an estimator asks for to entries of the log.

use super::course::{Course, CourseError, Laid};
use super::round::Heard;
use super::segment::{Segment, dues};
use crate::estimate::{Directive, Estimator, FOREVER, Reader, Window, WindowKind, Writer};
use crate::estimate::{hamilton::hamilton, post};
use crate::mixture::{Entry, EntryError, EntryKind, ONE, Weights};
use mixfeed_proto as v1;
use std::sync::Arc;

/// Author of what is served because reports did not come.
const LATE: &str = "late";

/// What an entry says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Note {
    /// Who appends it.
    pub author: String,
    /// Why.
    pub receipt: String,
    /// Losses that led to it.
    pub losses: Vec<f64>,
    /// Whether it holds what was because reports did not come.
    pub held: bool,
}

impl Note {
    /// Nothing but an author.
    pub fn by(author: impl Into<String>) -> Note {
        Note { author: author.into(), ..Note::default() }
    }

    /// This note; what is left is for the entries that follow at once.
    fn take(&mut self) -> Note {
        let rest = Note { author: self.author.clone(), held: self.held, ..Note::default() };
        std::mem::replace(self, rest)
    }

    /// One more reason.
    fn add(&mut self, why: &str) {
        self.receipt = [std::mem::take(&mut self.receipt).as_str(), why].join(" ").trim().into();
    }
}

impl Course {
    /// Asks the estimator in charge what happens from `step` on and appends it to the log, the first entry with what was
    /// `heard` before. Past the job's end there is nothing to lay.
    pub(super) fn lay(&mut self, step: u64, heard: Heard) -> Result<(), CourseError> {
        if self.is_over(step) {
            return Ok(());
        }
        if self.open().all(|s| s.wants().is_empty()) {
            self.observed = self.laid.len(); // nobody reports on them
            self.prune();
        }
        let directive = self.directive(step)?;
        // Probes come first: an operator's weights are for the main mixture.
        let main = directive.windows.first().is_some_and(|w| w.kind == WindowKind::Main);
        let mut asked = self.pending.take_if(|pending| main && pending.step <= step);
        let Heard { receipt, losses, late } = heard;
        let mut note = Note { author: self.author(late), receipt, losses, held: late };
        if let Some(pending) = &asked {
            self.steer(&pending.weights.clone());
            (note.author, note.receipt) = (pending.author.clone(), pending.note.clone());
        }
        let state = self.states_now();
        let (from, barrier, round) = (step, directive.barrier, self.round);
        self.laid.push(Laid { from, barrier, segments: Vec::new(), round, state, main: None });
        let mut at = step;
        for window in directive.windows {
            let until = (window.steps != FOREVER).then(|| at.saturating_add(window.steps));
            match asked.take() {
                Some(pending) => {
                    let m = self.rules.narrow(pending.weights.shares());
                    let shares = m.iter().map(|w| *w as f64 / ONE as f64).collect();
                    let window = Window { shares, ..window };
                    self.append_counts(at, until, window, pending.weights, Vec::new(), note.take())?;
                }
                None => {
                    let mut note = note.take();
                    let window = self.bound(at, window, &mut note);
                    self.append(at, until, window, note)?;
                }
            }
            match until {
                Some(until) if !self.is_over(until) => at = until,
                Some(_) | None => break,
            }
        }
        self.laid.last_mut().expect("just pushed").main = self.main.clone();
        Ok(())
    }

    /// The next directive, checked: what an estimator asks for must be servable.
    fn directive(&mut self, step: u64) -> Result<Directive, CourseError> {
        let m = self.rules.active.len();
        let Some(learner) = &self.rules.learner else {
            let shares = self.rules.setup.initial.clone();
            let window = Window { kind: WindowKind::Main, steps: FOREVER, shares, wants: Vec::new() };
            return Ok(Directive { windows: vec![window], barrier: false });
        };
        let directive = self.estimators[0].directive(step);
        let wrong = |why: String| CourseError::Directive { name: learner.name.clone(), why };
        if directive.windows.is_empty() {
            return Err(wrong("no window".into()));
        }
        for window in &directive.windows {
            let sum: f64 = window.shares.iter().sum();
            let legal = window.shares.len() == m && window.shares.iter().all(|s| s.is_finite() && *s >= 0.0);
            if !legal || sum <= 0.0 || window.steps == 0 {
                return Err(wrong(format!("shares {:?} over {} steps", window.shares, window.steps)));
            }
        }
        let end = directive.windows.last().is_some_and(|w| w.steps == FOREVER);
        if directive.barrier && end {
            return Err(wrong("a barrier that never comes".into()));
        }
        Ok(directive)
    }

    /// Bounds the shares of a main window from `step` on that was learnt.
    fn bound(&mut self, step: u64, mut window: Window, note: &mut Note) -> Window {
        if window.kind == WindowKind::Main && self.rules.learner.as_ref().is_some_and(|l| l.learns()) {
            let rules = post::Rules { caps: self.caps(step), ..self.rules.post.clone() };
            let settled = post::settle(&window.shares, self.main.as_deref(), &rules);
            note.add(&settled.changes);
            window.shares = settled.shares;
        }
        if window.kind == WindowKind::Main {
            self.main = Some(window.shares.clone());
        }
        window
    }

    /// Largest shares that keep every group within the job's number of epochs.
    fn caps(&self, step: u64) -> Vec<f64> {
        let (rules, setup) = (&self.rules, &self.rules.setup);
        let served = rules.narrow(&self.sequence().rows_before(step));
        let left = setup.max_steps.saturating_sub(step) as f64 * setup.batch as f64;
        let cap =
            |(rows, served): (&f64, u64)| post::exposure_cap(rules.max_epochs, *rows, served as f64, left);
        rules.epoch_rows.iter().zip(served).map(cap).collect()
    }

    /// Appends an entry and its segment.
    pub(super) fn append(
        &mut self,
        from: u64,
        until: Option<u64>,
        mut window: Window,
        mut note: Note,
    ) -> Result<(), CourseError> {
        let mut weights = self.weights(&window);
        if window.kind == WindowKind::Main && self.nobody_left(from, until, &weights) {
            let m = self.rules.active.len() as f64;
            window.shares = vec![1.0 / m; self.rules.active.len()];
            weights = self.weights(&window);
            note.add("every group of these weights has left: equal shares");
        }
        let counts = match window.kind {
            WindowKind::Main => Vec::new(),
            WindowKind::Probe { .. } => {
                let rows = until.map_or(0, |until| until - from) * self.sequence().batch();
                hamilton(rows, &self.rules.widen(&window.shares))
            }
        };
        self.append_counts(from, until, window, weights, counts, note)
    }

    /// As [`Course::append`], with given weights and counts.
    pub(super) fn append_counts(
        &mut self,
        from: u64,
        until: Option<u64>,
        window: Window,
        weights: Weights,
        counts: Vec<u64>,
        note: Note,
    ) -> Result<(), CourseError> {
        let seq = self.entries.len() as u64 + 1;
        let last = self.entries.iter().rev().find(|e| !e.weights.is_empty());
        let same = last
            .is_some_and(|e| e.weights == weights.shares() && e.counts == counts && e.branch == self.branch);
        let mixture_id = last.map_or(1, |e| if same { e.mixture_id } else { e.mixture_id + 1 });
        let kind = match counts.is_empty() {
            true => EntryKind::Main,
            false => EntryKind::Probe { counts: counts.clone() },
        };
        let entry =
            Entry { seq, from_step: from, until_step: until, kind, weights: weights.clone(), mixture_id };
        let next = Arc::new(self.sequence().append(entry)?);
        self.branches.insert(self.branch, next);
        let (wire, probe_group) = match window.kind {
            WindowKind::Probe { group, .. } => (v1::MixtureKind::Probe, self.rules.active[group] as u32),
            WindowKind::Main if note.held => (v1::MixtureKind::Hold, 0),
            WindowKind::Main => (v1::MixtureKind::Main, 0),
        };
        self.entries.push(v1::MixtureEntry {
            seq,
            branch: self.branch,
            from_step: from,
            until_step: until.unwrap_or(0),
            kind: wire.into(),
            weights: weights.shares().to_vec(),
            counts,
            mixture_id,
            author: note.author,
            receipt: note.receipt,
            due: dues(&window.wants),
            probe_group,
            round: self.round,
            losses: note.losses,
            shadows: self.shadows(),
        });
        let segment = Segment { seq, mixture_id, from, until, window };
        self.laid.last_mut().expect("a directive is being laid out").segments.push(segment);
        Ok(())
    }

    /// Whether `weights` name only groups that have left by `from`.
    fn nobody_left(&self, from: u64, until: Option<u64>, weights: &Weights) -> bool {
        let (weights, kind) = (weights.clone(), EntryKind::Main);
        let entry = Entry { seq: 0, from_step: from, until_step: until, kind, weights, mixture_id: 0 };
        matches!(self.sequence().append(entry), Err(EntryError::AllLeft { .. }))
    }

    /// Weights of a window in integers; the spec's own where nobody learns.
    fn weights(&self, window: &Window) -> Weights {
        if self.rules.learner.is_none() && self.entries.is_empty() {
            return self.rules.initial.clone();
        }
        Weights::normalise(&self.rules.widen(&window.shares)).expect("a directive's shares were checked")
    }

    /// Holds the last main shares for `steps` more.
    pub(super) fn hold(&mut self, from: u64, steps: u64) -> Result<(), CourseError> {
        let shares = self.main.clone().unwrap_or_else(|| self.rules.setup.initial.clone());
        let window = Window { kind: WindowKind::Main, steps, shares, wants: Vec::new() };
        let note = Note { held: true, ..Note::by(LATE) };
        self.append(from, Some(from.saturating_add(steps)), window, note)
    }

    fn author(&self, late: bool) -> String {
        match &self.rules.learner {
            None => "spec".into(),
            Some(_) if late => LATE.into(),
            Some(learner) => format!("estimator:{}", learner.name),
        }
    }

    /// Tells the estimators that an operator has set the weights.
    pub(super) fn steer(&mut self, weights: &Weights) {
        let narrow: Vec<f64> = self.rules.narrow(weights.shares()).iter().map(|w| *w as f64).collect();
        let sum: f64 = narrow.iter().sum();
        let m = narrow.len() as f64;
        let shares: Vec<f64> = narrow.iter().map(|w| if sum > 0.0 { w / sum } else { 1.0 / m }).collect();
        self.estimators.iter_mut().for_each(|e| e.steer(&shares));
        self.main = Some(shares);
    }

    /// What each shadow would serve.
    pub fn shadows(&self) -> Vec<v1::ShadowMixture> {
        let first = usize::from(self.rules.learner.is_some());
        let all = self.rules.shadows.iter().zip(&self.estimators[first..]);
        all.map(|(l, e)| v1::ShadowMixture {
            estimator: l.name.clone(),
            shares: self.rules.widen(&e.shares()),
        })
        .collect()
    }

    pub(super) fn states_now(&self) -> Vec<Vec<u8>> {
        let save = |e: &dyn Estimator| {
            let mut out = Writer::default();
            e.save(&mut out);
            out.finish()
        };
        self.estimators.iter().map(|e| save(e.as_ref())).collect()
    }

    /// Puts every estimator back to a saved state.
    pub(super) fn restore(&mut self, states: &[Vec<u8>]) -> Result<(), CourseError> {
        let learners: Vec<String> =
            self.rules.learner.iter().chain(&self.rules.shadows).map(|l| l.name.clone()).collect();
        for ((estimator, state), name) in self.estimators.iter_mut().zip(states).zip(learners) {
            let mut input = Reader::new(state);
            let done = estimator.restore(&mut input).and_then(|()| input.end());
            done.map_err(|error| CourseError::State { name, error })?;
        }
        Ok(())
    }
}
