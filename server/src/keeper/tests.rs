//! The course and its keeper with an estimator simple enough to know every answer.

mod bent;
mod durable;
mod rounds;
mod stretches;
mod turns;

use super::record::Record;
use super::*;
use crate::args::Args;
use crate::estimate::{
    Directive, Estimator, Method, MethodError, Reader, Seen, Setup, StateError, Vectors, Verdict, Want, When,
    Window, WindowKind, Writer, post, reduce,
};
use crate::mixture::{Costs, Exhaustion, GroupRule, LastBatch, Weights};
use mixfeed_proto as v1;
use prost::Message;
use std::time::Duration;
use v1::{ReportOutcome as Outcome, ReportReason as Reason};

/// Probes each of two groups for 2 steps, then serves 4 steps in proportion to how much the losses fell.
#[derive(Debug)]
struct Falls;

#[derive(Debug, Clone)]
struct Fall {
    shares: Vec<f64>,
    probing: bool,
    rounds: u64,
}

impl Method for Falls {
    fn name(&self) -> &'static str {
        "falls"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn url(&self) -> &'static str {
        ""
    }
    fn summary(&self) -> &'static str {
        "for tests"
    }
    fn wants(&self) -> &'static [(When, Want)] {
        &[(When::After, Want::Eval)]
    }
    fn start(&self, _: &Setup, _: &Args, _: &Vectors) -> Result<Box<dyn Estimator>, MethodError> {
        Ok(Box::new(Fall { shares: vec![0.5, 0.5], probing: false, rounds: 0 }))
    }
}

impl Estimator for Fall {
    fn directive(&mut self, step: u64) -> Directive {
        self.probing = !self.probing;
        let after = vec![(When::After, Want::Eval)];
        if !self.probing {
            let window =
                Window { kind: WindowKind::Main, steps: 4, shares: self.shares.clone(), wants: after };
            return Directive { windows: vec![window], barrier: false };
        }
        let probe = |group: usize| {
            let shares = if group == 0 { vec![0.75, 0.25] } else { vec![0.25, 0.75] };
            let mut wants = after.clone();
            if step == 0 && group == 0 {
                wants.push((When::Before, Want::Eval));
            }
            Window { kind: WindowKind::Probe { group, sweep: 0 }, steps: 2, shares, wants }
        };
        Directive { windows: vec![probe(0), probe(1)], barrier: true }
    }
    fn observe(&mut self, seen: &[Seen]) -> Verdict {
        self.rounds += 1;
        let fell = |g: usize| {
            let probe =
                seen.iter().find(|s| matches!(s.window.kind, WindowKind::Probe { group, .. } if group == g));
            let fell = probe.and_then(|s| Some(s.before.as_ref()?[g] - s.after.as_ref()?[g]));
            fell.filter(|fell| fell.is_finite())
        };
        let (Some(a), Some(b)) = (fell(0), fell(1)) else { return Verdict::default() };
        self.shares = vec![a / (a + b), b / (a + b)];
        Verdict { used: true, facts: vec![("fell", vec![a, b])] }
    }
    fn shares(&self) -> Vec<f64> {
        self.shares.clone()
    }
    fn steer(&mut self, shares: &[f64]) {
        self.shares = shares.to_vec();
    }
    fn save(&self, out: &mut Writer) {
        out.f64s(&self.shares);
        out.bool(self.probing);
        out.u64(self.rounds);
    }
    fn restore(&mut self, input: &mut Reader<'_>) -> Result<(), StateError> {
        *self = Fall { shares: input.f64s(2)?, probing: input.bool()?, rounds: input.u64()? };
        Ok(())
    }
}

const BATCH: u64 = 8;

pub(super) fn rules(change: impl FnOnce(&mut Rules)) -> Arc<Rules> {
    let none = Default::default();
    let method: &'static dyn Method = &Falls;
    let args = Args::resolve(&method.declared(), &none, &Default::default()).unwrap();
    let mut rules = Rules {
        groups: vec!["s/a".into(), "s/b".into()],
        active: vec![0, 1],
        tasks: vec!["s/a".into(), "s/b".into()],
        initial: Weights::normalise(&[1.0, 1.0]).unwrap(),
        setup: Setup {
            groups: 2,
            tasks: 2,
            own_task: vec![Some(0), Some(1)],
            objective: vec![0.5, 0.5],
            perplexity: false,
            initial: vec![0.5, 0.5],
            sizes: vec![100.0, 100.0],
            batch: BATCH,
            max_steps: 0,
            seed: 1,
            log_vocabulary: Some(5.0),
        },
        learner: Some(Learner { name: "falls".into(), method, args, vectors: Vectors::new() }),
        shadows: Vec::new(),
        barrier: Barrier::Strict,
        late_after: Duration::from_secs(600),
        reporters: 1,
        reduce: reduce::Rule::Mean,
        faulty: None,
        post: post::Rules { paper_faithful: true, ..post::Rules::new(2) },
        max_epochs: 0.0,
        epoch_rows: vec![100.0; 2],
        eval_digest: vec![7; 32],
    };
    change(&mut rules);
    Arc::new(rules)
}

fn empty() -> Sequence {
    let group = GroupRule { records: 100, exhaustion: Exhaustion::Repeat };
    Sequence::new(1, vec![group; 2], Costs::Equal, BATCH, LastBatch::Drop, 0)
}

fn course(change: impl FnOnce(&mut Rules)) -> Course {
    Course::new(rules(change), empty()).unwrap()
}

/// A report of held-out losses after `step` steps, about the segment that ends (or begins) there.
fn eval(course: &Course, attempt: u64, step: u64, losses: [f64; 2]) -> v1::ReportRequest {
    let ends = |s: &&Segment| s.until == Some(step) || (step == 0 && s.from == 0);
    let segments = course.recent();
    let segment = segments.iter().find(ends).expect("a segment ends there");
    v1::ReportRequest {
        attempt,
        segment: segment.seq,
        kind: v1::ReportKind::Eval.into(),
        seq: u64::from(step != 0),
        mixture_id: segment.mixture_id,
        values: losses.iter().map(|l| l * 10.0).collect(),
        counts: vec![10.0; 2],
        from_step: step,
        to_step: step,
        eval_digest: vec![7; 32].into(),
        ..Default::default()
    }
}

/// Reports a whole probe block that begins at `step`: group a falls by 0.3, group b by 0.1.
fn block(course: &mut Course, attempt: u64, step: u64) {
    let losses = [[3.0, 3.0], [2.7, 3.0], [2.7, 2.9]];
    for (i, losses) in losses.into_iter().enumerate() {
        let report = eval(course, attempt, step + 2 * i as u64, losses);
        assert_eq!(course.report(report).unwrap(), Answer::accepted());
    }
}

fn kinds(course: &Course) -> Vec<(u64, u64, i32)> {
    course.entries().iter().map(|e| (e.from_step, e.until_step, e.kind)).collect()
}

const MAIN: i32 = v1::MixtureKind::Main as i32;
const PROBE: i32 = v1::MixtureKind::Probe as i32;
const HOLD: i32 = v1::MixtureKind::Hold as i32;
const STRIKE: i32 = v1::MixtureKind::Strike as i32;

/// A keeper over a store, as a server holds it.
fn keeper(store: &store::Shared, change: impl FnOnce(&mut Rules)) -> Result<Arc<Keeper>, KeeperError> {
    let live = Arc::new(Live::new(Arc::new(empty())));
    Keeper::open("job", "ab", rules(change), empty(), live, store.clone()).map(Arc::new)
}
