//! A run of steps that one entry of the log governs, as the keeper sees it.

use crate::estimate::{Want, When, Window, WindowKind};
use mixfeed_proto as v1;

/// A segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Sequence number of its entry.
    pub seq: u64,
    /// Its mixture.
    pub mixture_id: u64,
    /// First step.
    pub from: u64,
    /// Step after its last; `None`: until the next entry.
    pub until: Option<u64>,
    /// What it is for; shares as they are served.
    pub window: Window,
}

impl Segment {
    /// Reports that are due around it.
    pub fn wants(&self) -> &[(When, Want)] {
        &self.window.wants
    }

    /// Whether `want` is due in it at all.
    pub fn asks(&self, want: Want) -> bool {
        self.wants().iter().any(|(_, w)| *w == want)
    }

    /// Whether `step` lies in it.
    pub fn holds(&self, step: u64) -> bool {
        self.from <= step && self.until.is_none_or(|until| step < until)
    }

    /// The part before `step` and the part from it on; reports due before go with the first, those due after with the
    /// second.
    pub fn split(&self, step: u64) -> (Segment, Segment) {
        let (mut head, mut tail) = (self.clone(), self.clone());
        head.until = Some(step);
        head.window.steps = step - self.from;
        head.window.wants.retain(|(when, _)| *when != When::After);
        tail.from = step;
        tail.window.steps = self.until.map_or(crate::estimate::FOREVER, |until| until - step);
        tail.window.wants.retain(|(when, _)| *when != When::Before);
        (head, tail)
    }

    /// What is due before and after `step`, one of its own.
    pub fn due(&self, step: u64) -> (Vec<Want>, Vec<Want>) {
        let of = |at: &dyn Fn(When) -> bool| {
            self.wants().iter().filter(|(when, _)| at(*when)).map(|(_, want)| *want).collect()
        };
        let before = of(&|when| when == When::Before && self.from == step);
        let after = of(&|when| match when {
            When::Before => false,
            When::After => self.until == Some(step + 1),
            When::EachStep => true,
        });
        (before, after)
    }

    /// Whether it is a probe.
    pub fn is_probe(&self) -> bool {
        matches!(self.window.kind, WindowKind::Probe { .. })
    }
}

/// A want as the contract names it.
pub fn kind_of(want: Want) -> v1::ReportKind {
    use v1::ReportKind as K;
    match want {
        Want::Eval => K::Eval,
        Want::Train => K::Train,
        Want::Excess => K::Excess,
        Want::Dots => K::Dots,
        Want::GradientStats => K::GradientStats,
        Want::Influence => K::Influence,
        Want::Sketch => K::Sketch,
        Want::Candidates => K::Candidates,
    }
}

/// The opposite of [`kind_of`]; `None` for an unset or unknown kind.
pub fn want_of(kind: i32) -> Option<Want> {
    use v1::ReportKind as K;
    match K::try_from(kind).ok()? {
        K::Unspecified => None,
        K::Eval => Some(Want::Eval),
        K::Train => Some(Want::Train),
        K::Excess => Some(Want::Excess),
        K::Dots => Some(Want::Dots),
        K::GradientStats => Some(Want::GradientStats),
        K::Influence => Some(Want::Influence),
        K::Sketch => Some(Want::Sketch),
        K::Candidates => Some(Want::Candidates),
    }
}

/// Wants as the contract carries them.
pub fn dues(wants: &[(When, Want)]) -> Vec<v1::Due> {
    let when = |when: When| match when {
        When::Before => v1::DueWhen::Before,
        When::After => v1::DueWhen::After,
        When::EachStep => v1::DueWhen::EachStep,
    };
    wants.iter().map(|(w, want)| v1::Due { kind: kind_of(*want).into(), when: when(*w).into() }).collect()
}
